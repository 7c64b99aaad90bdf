"""W1 as a training loss: values and logit gradients at every boundary, in every precision."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from scipy.special import log_softmax

import kdtheory as kd
from kdtheory import TokenCost
from tests.transport.cases import (
    AGREEING,
    CLOSED,
    COSTS,
    FAMILIES,
    PARENT,
    WEIGHT,
    exact_logit_gradient,
    exact_value,
    label,
    linear_program,
    probabilities,
)


def loss_of(name: str):
    return kd.divergence("w1", cost=COSTS[name][0])


def gradient_of(loss, pair) -> np.ndarray:
    return loss.logit_gradient(teacher_logits=pair.teacher_logits, student_logits=pair.student_logits)


@pytest.mark.parametrize("pair", [*FAMILIES, AGREEING], ids=label)
@pytest.mark.parametrize("name", CLOSED)
def test_value_and_gradient_in_400_digits(name, pair):
    """The design's accuracy: 1e-12 of the sum of the absolute terms of each entry, the dominating token's included."""
    loss = loss_of(name)
    log_p, log_q = (torch.log_softmax(torch.tensor(z), -1) for z in (pair.teacher_logits, pair.student_logits))
    expected, size = exact_logit_gradient(name, pair)
    found = gradient_of(loss, pair)
    assert (abs(found - expected) <= 1e-12 * size).all(), (found, expected)
    value = float(exact_value(name, pair))
    # log-probabilities are rounded by eps · |log p|: 2e-14 of the mass moved, at costs up to 8
    assert float(loss.per_position(log_p, log_q)) == pytest.approx(value, rel=1e-12, abs=1e-13)


def test_the_oracle_notices_the_textbook_formula():
    """Control: q (g - ḡ) as written loses the dominating token's entry at a gap of 40."""
    pair = next(pair for pair in FAMILIES if pair.name == "gap 40")
    expected, size = exact_logit_gradient("line", pair)
    p, q = probabilities(pair)
    g = kd.w1(p, q, COSTS["line"][0]).potentials.g
    assert (abs(q * (g - q @ g) - expected) > 1e-12 * size).any()


@pytest.mark.parametrize("name", CLOSED)
def test_agreement_up_to_the_tail(name):
    """The value is 1e-17, and right: q - p at the shared token is minus the others' sum, not 1 - 1."""
    logs = (torch.log_softmax(torch.tensor(z), -1) for z in (AGREEING.teacher_logits, AGREEING.student_logits))
    value = float(exact_value(name, AGREEING))
    assert 0 < value < 1e-15
    assert float(loss_of(name).per_position(*logs)) == pytest.approx(value, rel=1e-12, abs=0)


def test_neighbours_far_from_the_origin():
    """q (g - ḡ) = ∓ s (1 - s) for two tokens one apart, the teacher 10⁶ away; 1e-14: g - ḡ must not see the 10⁶."""
    s = kd.simplex.softmax([0.0, 1.0])
    found = kd.divergence("w1", cost=TokenCost.line([0.0, 1e6, 1e6 + 1])).logit_gradient(
        teacher_logits=[0.0, -math.inf, -math.inf], student_logits=[-math.inf, 0.0, 1.0]
    )
    np.testing.assert_allclose(found, [0.0, -s[0] * s[1], s[0] * s[1]], rtol=1e-14)


@pytest.mark.parametrize("pair", FAMILIES, ids=label)
@pytest.mark.parametrize("name", COSTS)
def test_boundaries(name, pair):
    """Finite, summing to zero, zero where the student has no mass, L1 norm at most 2 diam (1 - max q) (chapter 02)."""
    _, C = COSTS[name]
    p, q = probabilities(pair)
    g = gradient_of(loss_of(name), pair)
    assert np.isfinite(g).all()
    assert abs(g.sum()) <= 1e-15 * abs(g).sum() * 6
    assert (g[q == 0] == 0).all()
    others = math.exp(float(np.logaddexp.reduce(np.sort(log_softmax(pair.student_logits))[:-1])))  # 1 - max q
    assert abs(g).sum() <= 2 * C.max() * others * (1 + 1e-12)
    assert loss_of(name).value(p, q) == pytest.approx(linear_program(p, q, C), abs=1e-7)  # HiGHS' tolerance


@pytest.mark.parametrize("name", COSTS)
def test_logit_gradient_against_differences(name, rng):
    """1e-8: central difference at h = 1e-5 (third derivatives of softmax times h²/6, and rounding / h)."""
    loss, h = loss_of(name), 1e-5
    t, z = rng.normal(size=(2, 6))
    p = kd.simplex.softmax(t)
    C = COSTS[name][0].matrix().numpy()

    def value(x):
        return ot.emd2(p, kd.simplex.softmax(x), C)

    expected = np.array([(value(z + h * e) - value(z - h * e)) / (2 * h) for e in np.eye(6)])
    found = loss.logit_gradient(teacher_logits=t, student_logits=z)
    np.testing.assert_allclose(found, expected, atol=1e-8)
    assert not np.allclose(found / 2, expected, atol=1e-3)  # control: a dropped factor


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_training_loss(name, dtype, rng):
    """Loss and backward equal value and closed form at the rounded logits; tolerance: the dtype's own rounding."""
    loss = loss_of(name)
    t = torch.tensor(rng.normal(size=(2, 3, 6))).to(dtype)
    z = torch.tensor(rng.normal(size=(2, 3, 6))).to(dtype).requires_grad_()
    mask = torch.tensor([[True, True, False], [True, False, True]])
    found = loss.loss(teacher_logits=t, student_logits=z, mask=mask)
    found.backward()
    t64, z64 = t.double(), z.detach().double()
    expected = loss.logit_gradient(teacher_logits=t64, student_logits=z64) * mask[..., None] / 4
    value = loss.value(torch.softmax(t64, -1), torch.softmax(z64, -1))[mask].mean()
    eps = max(torch.finfo(dtype).eps, 4e-8 if dtype != torch.float64 else 0)
    assert z.grad.dtype == dtype
    torch.testing.assert_close(z.grad.double(), expected, rtol=8 * eps, atol=8 * eps)
    torch.testing.assert_close(found.double(), value, rtol=1e-13 if dtype == torch.float64 else 2e-6, atol=0)


@pytest.mark.parametrize("name", COSTS)
def test_a_hidden_batch_and_temperature(name, rng):
    loss = loss_of(name)
    t, z = torch.tensor(rng.normal(size=(2, 4, 6)))
    z.requires_grad_()
    hidden = loss.loss(teacher_logits=t, student_logits=z, mask=torch.zeros(4, dtype=torch.bool))
    hidden.backward()
    assert hidden == 0
    assert (z.grad == 0).all()
    scaled = loss.loss(teacher_logits=t, student_logits=z, temperature=2.0, reduction="none")
    plain = loss.loss(teacher_logits=t / 2, student_logits=z / 2, reduction="none")
    torch.testing.assert_close(scaled, 2 * plain, rtol=1e-14, atol=0)  # T, not T²: a kink at p = q


def test_total_variation_is_the_zero_one_case(rng):
    """An independent implementation of the same functional, values and gradients."""
    t, z = rng.normal(size=(2, 5, 6)) * 3
    tvd = kd.divergence("tvd")
    logits = {"teacher_logits": t, "student_logits": z}
    np.testing.assert_allclose(loss_of("zero_one").logit_gradient(**logits), tvd.logit_gradient(**logits), rtol=1e-12)


@pytest.mark.parametrize("name", CLOSED)
def test_autocast_takes_no_digits(name, rng):
    """Under autocast a matrix product of float32 would be one of bfloat16, with an error of 4e-3; value and step."""
    loss, (teacher, student) = loss_of(name), (torch.tensor(rng.normal(size=(4, 6)), dtype=torch.float32) for _ in "pq")
    at = student.requires_grad_()
    plain = [loss.loss(teacher_logits=teacher, student_logits=z, reduction="none") for z in (at, at.detach())]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = [loss.loss(teacher_logits=teacher, student_logits=z, reduction="none") for z in (at, at.detach())]
        matrix = torch.eye(2) @ torch.full((2,), 1.001)
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))
    torch.testing.assert_close(*plain, rtol=1e-5, atol=1e-6)  # with and without a gradient: two ways to the same value
    assert matrix.dtype == torch.bfloat16  # control: this is what autocast does


def test_composes_with_divergences(rng):
    w1, fkl = loss_of("tree"), kd.divergence("fkl")
    t, z = torch.tensor(rng.normal(size=(2, 4, 6)))
    logits = {"teacher_logits": t, "student_logits": z}
    total = (fkl + 0.5 * w1).loss(**logits)
    torch.testing.assert_close(total, fkl.loss(**logits) + 0.5 * w1.loss(**logits), rtol=1e-14, atol=0)


def test_describes_itself():
    loss = loss_of("tree")
    assert str(loss) == "w1(cost=tree(V=6))"
    assert loss.temperature_power == 1
    assert loss.parameters["cost"] is COSTS["tree"][0]


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"cost: expected a kdtheory\.TokenCost, got str"):
        kd.divergence("w1", cost="line")
    with pytest.raises(ValueError, match="missing 1 required keyword-only argument: 'cost'"):
        kd.divergence("w1")
    with pytest.raises(ValueError, match=r"student_logits has 4 tokens, cost = tree\(V=6\) has 6"):
        kd.divergence("w1", cost=TokenCost.tree(PARENT, WEIGHT)).loss(
            teacher_logits=torch.zeros(2, 4), student_logits=torch.zeros(2, 4)
        )
