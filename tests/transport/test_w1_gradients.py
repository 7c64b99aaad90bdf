"""Derivatives of `w1`: finite differences of another library's value where smooth, subgradients where not."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch
from scipy.stats import wasserstein_distance

import kdtheory as kd
from tests.transport.cases import COSTS, FAMILIES, POSITIONS, label, probabilities

STEP = 1e-5


def tangent(g: np.ndarray) -> np.ndarray:
    return g - g.mean(-1, keepdims=True)


def central_differences(value, x: np.ndarray) -> np.ndarray:
    """Derivatives of value(x) along the tangent directions e_i - mean."""
    directions = np.eye(len(x)) - 1 / len(x)
    return np.array([(value(x + STEP * d) - value(x - STEP * d)) / (2 * STEP) for d in directions])


def backward(p, q, cost, side: str) -> np.ndarray:
    p, q = torch.tensor(p, requires_grad=side == "p"), torch.tensor(q, requires_grad=side == "q")
    kd.w1(p, q, cost).value.sum().backward()
    return (p if side == "p" else q).grad.numpy()


@pytest.mark.parametrize("side", ["p", "q"])
@pytest.mark.parametrize("name", COSTS)
def test_against_differences_of_the_network_simplex(name, side, rng):
    """W1 is piecewise linear, so differences are exact but for the value's rounding: 1e-9 = 1e-14 / STEP."""
    cost, _ = COSTS[name]
    C = cost.matrix().numpy()
    for _ in range(3):
        p, q = (kd.simplex.softmax(rng.normal(size=6)) for _ in range(2))
        moving = {"p": lambda x, q=q: ot.emd2(x, q, C), "q": lambda x, p=p: ot.emd2(p, x, C)}[side]
        expected = central_differences(moving, p if side == "p" else q)
        found = tangent(backward(p, q, cost, side))
        np.testing.assert_allclose(found, expected, atol=1e-9)
        assert not np.allclose(-found, expected, atol=0.1)  # control: the other sign


def test_against_differences_of_scipys_distance(rng):
    cost, _ = COSTS["line"]
    p, q = (kd.simplex.softmax(rng.normal(size=6)) for _ in range(2))
    expected = central_differences(lambda x: wasserstein_distance(POSITIONS, POSITIONS, p, x), q)
    np.testing.assert_allclose(tangent(backward(p, q, cost, "q")), expected, atol=1e-9)


@pytest.mark.parametrize("pair", FAMILIES, ids=label)
@pytest.mark.parametrize("name", COSTS)
def test_subgradient_inequality(name, pair, rng):
    """D(q') >= D(q) + <g, q' - q> for all q', kinks (p = q, ties, zeros) included; the oracle values are POT's."""
    cost, _ = COSTS[name]
    C = cost.matrix().numpy()
    p, q = probabilities(pair)
    g = backward(p, q, cost, "q")
    here = kd.w1(p, q, cost).value
    others = np.concatenate([np.eye(6), kd.simplex.softmax(rng.normal(size=(6, 6)) * 2, axis=-1)])
    for other in others:
        there = ot.emd2(p / p.sum(), other / other.sum(), C)
        assert there >= here + g @ (other - q) - 1e-12


def test_a_longer_gradient_is_no_subgradient(rng):
    """Control: on the ray from p through q, W1 grows with the length, and 1.1 · g claims more."""
    cost, _ = COSTS["embedding"]
    C = cost.matrix().numpy()
    p, other = (kd.simplex.softmax(rng.normal(size=6)) for _ in range(2))
    q = (p + other) / 2
    g = backward(p, q, cost, "q")
    here, there = ot.emd2(p, q, C), ot.emd2(p, other, C)
    assert there >= here + g @ (other - q) - 1e-12
    assert there < here + 1.1 * g @ (other - q) - 1e-3


def test_upstream_weights_rows_and_dtypes(rng):
    cost, _ = COSTS["line"]
    p = torch.tensor(kd.simplex.softmax(rng.normal(size=(2, 3, 6)), axis=-1))
    q = torch.tensor(kd.simplex.softmax(rng.normal(size=(2, 3, 6)), axis=-1), dtype=torch.float32, requires_grad=True)
    weight = torch.tensor(rng.normal(size=(2, 3)))
    found = kd.w1(p, q, cost)
    (weight * found.value).sum().backward()
    assert q.grad.dtype == torch.float32
    np.testing.assert_allclose(q.grad.numpy(), weight[..., None].numpy() * found.potentials.g.numpy(), rtol=1e-6)
    assert not found.lower.requires_grad
    assert not kd.w1(p, q.detach(), cost).value.requires_grad
