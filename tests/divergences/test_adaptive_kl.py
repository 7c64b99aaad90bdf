"""Adaptive KL: its head by hand, its detached weights, and the points where they are 0/0."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from kdtheory.divergences import FACTORIES, akl
from kdtheory.divergences.logspace import LogPair

P = np.array([0.4, 0.3, 0.2, 0.1])


def head(p, mu):
    return akl.head(torch.tensor(p, dtype=torch.float64), mu).nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("p", "mu", "expected"),
    [
        (P, 0.5, [0, 1]),  # 0.4 does not exceed 0.5, 0.7 does
        (P[::-1], 0.5, [2, 3]),
        (P, 0.3, [0]),
        (P, 0.95, [0, 1, 2, 3]),
        ([0.5, 0.25, 0.25], 0.5, [0, 1]),  # exactly mu does not exceed it
        ([0.25] * 4, 0.5, [0, 1, 2]),  # ties go to the lower index
        ([0.25, 0.25, 0.25, 0.25], 0.1, [0]),
        ([0.0, 1.0, 0.0], 0.5, [1]),
        ([1.0], 0.5, [0]),
        ([0.125, 0.25, 0.125, 0.25, 0.25], 0.6, [1, 3, 4]),
        ([0.125] * 8, 0.5, [0, 1, 2, 3, 4]),
    ],
)
def test_head(p, mu, expected):
    assert head(np.array(p), mu) == expected


def test_the_published_code_is_another_head():
    """Control: tail = {cumulative mass > mu} leaves the head {0}, whose mass does not exceed mu."""
    published = [i for i in range(4) if np.cumsum(P)[i] <= 0.5]
    assert published == [0]
    assert head(P, 0.5) != published


@pytest.mark.parametrize("size", [3, 16, 17, 100, 700])
@pytest.mark.parametrize("mu", [0.1, 0.5, 0.99])
def test_head_is_the_fewest_tokens_that_exceed_mu(size, mu, rng):
    for concentration in (0.01, 1.0, 100.0):
        p = rng.dirichlet(np.full(size, concentration))
        chosen = head(p, mu)
        assert p[chosen].sum() > mu
        assert len(chosen) == 1 or p[chosen].sum() - p[chosen].min() <= mu * (1 + 1e-12)
        assert p[chosen].min() >= np.delete(p, chosen).max(initial=0.0)


def test_weights_by_hand():
    """Head {0, 1}: |0.4 - 0.1| + |0.3 - 0.2| = 0.4 of 0.8; tail the same: ½, ½. With mu = 0.3 head {0}: 0.3 of 0.8."""
    pair = LogPair(*(torch.tensor(x.copy()).log() for x in (P, P[::-1])))
    assert [w.item() for w in akl.weights(pair, 0.5)] == pytest.approx([0.5, 0.5], rel=1e-14)
    assert [w.item() for w in akl.weights(pair, 0.3)] == pytest.approx([0.375, 0.625], rel=1e-14)


def test_value_by_hand():
    q = P[::-1]
    forward = float((P * np.log(P / q)).sum())
    reverse = float((q * np.log(q / P)).sum())
    assert FACTORIES["akl"](mu=0.3).value(P, q) == pytest.approx(0.375 * forward + 0.625 * reverse, rel=1e-13)
    skewed = np.array([0.1, 0.2, 0.3, 0.4])
    teacher = np.array([0.7, 0.1, 0.1, 0.1])  # head {0}: 0.6 of 0.6 + 0.1 + 0.2 + 0.3 = 1.2
    forward = float((teacher * np.log(teacher / skewed)).sum())
    reverse = float((skewed * np.log(skewed / teacher)).sum())
    assert forward != pytest.approx(reverse, rel=0.05)
    assert FACTORIES["akl"]().value(teacher, skewed) == pytest.approx(0.5 * (forward + reverse), rel=1e-13)
    assert FACTORIES["akl"](mu=0.75).value(teacher, skewed) == pytest.approx(
        (0.7 * forward + 0.5 * reverse) / 1.2, rel=1e-13
    )


@pytest.mark.parametrize("p", [P, np.array([1.0, 0.0, 0.0, 0.0]), np.full(4, 0.25)])
def test_zero_over_zero_at_the_teacher(p):
    with np.errstate(divide="ignore"):
        z = np.log(p)
    loss = FACTORIES["akl"]()
    assert loss.value(p, p) == 0
    assert (loss.logit_gradient(teacher_logits=z, student_logits=z) == 0).all()
    student = torch.tensor(z, requires_grad=True)
    loss.loss(teacher_logits=torch.tensor(z), student_logits=student).backward()
    assert (student.grad == 0).all()


def test_the_weights_are_constants_of_the_gradient():
    """The value's own derivative has a further term; the published gradient leaves it out, and the flag says so."""
    t, z = np.log(P), np.array([0.9, -1.0, 0.4, 0.1])
    loss = FACTORIES["akl"]()
    published = loss.logit_gradient(teacher_logits=t, student_logits=z)
    q = np.exp(z) / np.exp(z).sum()
    w_h, w_t = (w.item() for w in akl.weights(LogPair(torch.tensor(P).log(), torch.tensor(q).log()), 0.5))
    constant = w_h * (q - P) + w_t * q * (np.log(q / P) - (q * np.log(q / P)).sum())
    np.testing.assert_allclose(published, constant, rtol=1e-12)

    def value(x):
        return loss.value(P, np.exp(x) / np.exp(x).sum())

    own = [(value(z + h) - value(z - h)) / 2e-6 for h in 1e-6 * np.eye(4)]
    assert np.abs(own - published).max() > 1e-2 * np.abs(published).max()
    assert loss.surrogate_gradient


def test_a_weight_of_zero_drops_an_infinite_half():
    """All disagreement in the head: reverse KL has weight 0; there it is infinite only through the tail, if at all."""
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.5, 0.25])
    assert FACTORIES["akl"]().value(p, q) == math.inf  # the third token is in the tail and disagrees
    assert FACTORIES["akl"](mu=0.6).value(np.array([0.5, 0.5]), np.array([0.25, 0.75])) == pytest.approx(
        0.5 * math.log(2) + 0.5 * math.log(2 / 3), rel=1e-13
    )  # both tokens in the head: forward KL alone


@pytest.mark.parametrize("p_max", [0.1, 0.3, 0.4, 0.6, 0.7])
def test_mass_exactly_mu_survives_the_logarithm(p_max):
    """mu = p_max: one token does not exceed it. `value` goes through log p, which must not tip the balance."""
    p = np.array([p_max, *[(1 - p_max) / 12] * 12])
    q = np.full(13, 1 / 13)
    forward, reverse = (p * np.log(p / q)).sum(), (q * np.log(q / p)).sum()
    gap = np.abs(p - q)
    weight = gap[:2].sum() / gap.sum()
    assert FACTORIES["akl"](mu=p_max).value(p, q) == pytest.approx(weight * forward + (1 - weight) * reverse, rel=1e-9)
