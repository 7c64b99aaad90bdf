"""W1 is a metric between distributions, and lies between d_min · TV and diam · TV (chapter 04, Theorem 11)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kdtheory as kd
from tests.transport.cases import COSTS, METRICS

ROUNDING = 1e-12  # sums of six products of order 1, and the network simplex' own tolerance of 1e-13

# small integers: zeros, ties and equal distributions are common
distributions = (
    st.lists(st.integers(0, 6), min_size=6, max_size=6).filter(any).map(lambda n: np.array(n, float) / sum(n))
)
law = settings(max_examples=40, deadline=None, derandomize=True)


def distance(p, q, name: str) -> float:
    return float(kd.w1(p, q, COSTS[name][0]).value)


@pytest.mark.parametrize("name", METRICS)
@law
@given(p=distributions, q=distributions)
def test_symmetric(name, p, q):
    assert distance(p, q, name) == pytest.approx(distance(q, p, name), abs=ROUNDING)


@pytest.mark.parametrize("name", METRICS)
@law
@given(p=distributions, q=distributions, r=distributions)
def test_triangle_inequality(name, p, q, r):
    assert distance(p, r, name) <= distance(p, q, name) + distance(q, r, name) + ROUNDING


@pytest.mark.parametrize("name", METRICS)
@law
@given(p=distributions, q=distributions)
def test_between_multiples_of_total_variation(name, p, q):
    cost, variation = COSTS[name][0], 0.5 * abs(p - q).sum()
    assert cost.min_distance * variation - ROUNDING <= distance(p, q, name) <= cost.diameter * variation + ROUNDING


@pytest.mark.parametrize("name", METRICS)
@law
@given(p=distributions, q=distributions)
def test_zero_exactly_at_the_teacher(name, p, q):
    assert (distance(p, q, name) == 0) == bool((p == q).all())


def test_the_laws_notice_a_broken_metric():
    """Controls: the asymmetric cost is neither symmetric nor zero at the teacher; a halved diameter is too small."""
    p, q = np.eye(6)[0], np.eye(6)[3]
    assert abs(distance(p, q, "dense") - distance(q, p, "dense")) > 0.1
    assert distance(p, p, "dense") > 0.1
    line = COSTS["line"][0]
    ends = np.eye(6)[[2, 3]]
    assert distance(*ends, "line") > 0.5 * line.diameter
