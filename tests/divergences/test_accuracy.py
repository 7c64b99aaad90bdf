"""Digits near the teacher and at tiny probabilities, where textbook formulas lose theirs."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
import torch

import kdtheory as kd
from kdtheory.divergences import FACTORIES
from tests import oracles
from tests.divergences.cases import CASES, label, per_position


def relative_error(found: float, loss, pair) -> float:
    exact = oracles.value(loss.name, pair.teacher_logits, pair.student_logits, **loss.parameters)
    return float(abs(mp.mpf(found) - exact) / exact)


def near(size: float, rng) -> kd.simplex.Pair:
    t = rng.normal(size=8) * 2
    return kd.simplex.Pair(f"near {size:g}", t, t + size * rng.normal(size=8))


@pytest.mark.parametrize("size", [1e-3, 1e-6])
@pytest.mark.parametrize("loss", CASES, ids=label)
def test_value_near_the_teacher(loss, size, rng):
    """Log-probabilities are rounded by 1e-15, so r = log p/q ~ size is good to 1e-15/size; a factor 20 for sums of r²,
    and 1/α for a mixture that holds the difference only to a share α."""
    pair = near(size, rng)
    share = min(loss.parameters.get("beta", 1), 1 - loss.parameters.get("beta", 0), loss.parameters.get("alpha", 1), 1)
    assert relative_error(per_position(loss, pair), loss, pair) <= 2e-14 / size / share


@pytest.mark.parametrize("name", ["fkl", "rkl", "jsd", "chi2", "hellinger2", "skl"])
def test_the_textbook_sum_near_the_teacher_is_not_accurate(name, rng):
    """Control: Σ p log p/q and its like hold the value only to eps, which is all of it at r ~ 1e-8."""
    pair = near(1e-8, rng)
    loss = FACTORIES[name]()
    p, q = (kd.simplex.softmax(x) for x in pair[1:])
    x = next(iter(loss.parameters.values()), 0.0)
    m = x * p + (1 - x) * q
    textbook = {
        "fkl": (p * np.log(p / q)).sum(),
        "rkl": (q * np.log(q / p)).sum(),
        "jsd": (x * p * np.log(p / m) + (1 - x) * q * np.log(q / m)).sum(),
        "chi2": (p * p / q).sum() - 1,
        "hellinger2": 1 - np.sqrt(p * q).sum(),
        "skl": (p * np.log(p / m)).sum(),
    }[name]
    assert relative_error(float(textbook), loss, pair) > 0.05
    assert relative_error(per_position(loss, pair), loss, pair) < 1e-5


@pytest.mark.parametrize("gap", [20.0, 40.0, 200.0, 600.0])
@pytest.mark.parametrize("loss", CASES, ids=label)
def test_value_where_the_student_nearly_excludes_tokens(loss, gap):
    """1e-12: a log-probability of size 600 is rounded by 1e-13."""
    pair = kd.simplex.Pair("tiny q", np.array([0.2, 1.0, -1.0, 0.3]), np.array([gap, 0.0, gap - 1.0, 0.5]))
    exact = oracles.value(loss.name, *pair[1:], **loss.parameters)
    if exact < np.finfo(float).max:
        assert relative_error(per_position(loss, pair), loss, pair) <= 1e-12


@pytest.mark.parametrize("gap", [20.0, 40.0, 200.0, 600.0])
@pytest.mark.parametrize("loss", CASES, ids=label)
def test_value_where_teacher_and_student_agree_on_a_saturated_token(loss, gap):
    """All of the value is in tokens of mass e^-gap; it must not drown in the rounding of the mass 1.

    Total variation is first order in the saturated token's own difference, which log-probabilities hold to eps only,
    and so are AKL's weights: they are held to eps absolutely.
    """
    pair = kd.simplex.Pair("both sure", np.array([gap, 0.0, 1.0, 0.0]), np.array([gap, 1.0, 0.0, 0.5]))
    found = per_position(loss, pair)
    if loss.name in ("tvd", "akl"):
        exact = oracles.value(loss.name, *pair[1:], **loss.parameters)
        assert abs(found - exact) <= 2e-16
    else:
        assert relative_error(found, loss, pair) <= 1e-12


def test_float32_near_the_teacher(rng):
    """r ~ 1e-2 held to 1e-6 gives 1e-4, where Σ p log p/q in float32 would hold the value 1e-5 to 1e-7 absolute."""
    for loss in CASES:
        pair = near(1e-2, rng)
        t, z = (torch.tensor(x, dtype=torch.float32) for x in pair[1:])
        exact = float(oracles.value(loss.name, t.tolist(), z.tolist(), **loss.parameters))
        share = 0.01 if loss.parameters.get("alpha") == 0.01 else 0.1
        assert loss.loss(teacher_logits=t, student_logits=z).item() == pytest.approx(exact, rel=1e-4 / share)
