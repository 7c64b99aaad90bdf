"""The natural gradient of W1: against the Fisher matrix, mirror descent, and its own stall-free escape."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import kdtheory as kd
from tests.transport.cases import COSTS, METRICS

GENERIC = np.random.default_rng(3).normal(size=(2, 20, 6)) * 2


@pytest.mark.parametrize("kind", METRICS)
def test_the_fisher_matrix_turns_it_into_the_gradient(kind):
    """F (natural gradient) = gradient, with F = diag(q) - qqᵀ written down, and q-weighted entries sum to 0."""
    cost, (teacher, student) = COSTS[kind][0], GENERIC
    natural = kd.divergence("natural_w1", cost=cost).logit_gradient(teacher_logits=teacher, student_logits=student)
    plain = kd.divergence("w1", cost=cost).logit_gradient(teacher_logits=teacher, student_logits=student)
    q = kd.simplex.softmax(student)
    fisher = np.einsum("ni,ij->nij", q, np.eye(6)) - np.einsum("ni,nj->nij", q, q)
    np.testing.assert_allclose(np.einsum("nij,nj->ni", fisher, natural), plain, atol=1e-14)
    np.testing.assert_allclose((q * natural).sum(-1), 0, atol=1e-14)


@pytest.mark.parametrize("kind", METRICS)
def test_value_is_w1_and_the_entry_is_the_potential(kind):
    """The potential attains W1 (linear programming duality) and differences of entries are differences of it."""
    cost, matrix = COSTS[kind]
    teacher, student = GENERIC
    p, q = kd.simplex.softmax(teacher), kd.simplex.softmax(student)
    loss = kd.divergence("natural_w1", cost=cost)
    gradient = loss.logit_gradient(teacher_logits=teacher, student_logits=student)
    value = loss.value(p, q)
    np.testing.assert_allclose(value, kd.w1(p, q, cost).value, rtol=1e-12)
    np.testing.assert_allclose((gradient * (q - p)).sum(-1), value, rtol=1e-9)
    assert np.all(np.abs(gradient[:, :, None] - gradient[:, None, :]) <= matrix + 1e-12)
    assert loss.surrogate_gradient
    assert (kd.divergence("fkl") + loss).surrogate_gradient


@pytest.mark.parametrize("gap", [5.0, 40.0, 200.0, 800.0])
def test_it_does_not_shrink_with_the_gap(gap):
    """0-1 cost, a wrong token in the lead: φ is ±½, so its entries are 0 there and -1 on every token q underrates."""
    teacher, student = np.zeros(6), gap * np.eye(6)[0]
    gradient = kd.divergence("natural_w1", cost=kd.TokenCost.zero_one(6)).logit_gradient(
        teacher_logits=teacher, student_logits=student
    )
    q = kd.simplex.softmax(student)
    np.testing.assert_allclose(gradient, [1 - q[0]] + [-q[0]] * 5, atol=1e-13)


def test_a_step_is_mirror_descent():
    """softmax(z - ηg) = q e^{-ηφ} / Σ q e^{-ηφ}: the potential from `kd.w1`, not from the loss."""
    cost, (teacher, student) = COSTS["line"][0], GENERIC[:, 0]
    gradient = kd.divergence("natural_w1", cost=cost).logit_gradient(teacher_logits=teacher, student_logits=student)
    p, q = kd.simplex.softmax(teacher), kd.simplex.softmax(student)
    moved = q * np.exp(-0.3 * kd.w1(p, q, cost).potentials.g)
    np.testing.assert_allclose(kd.simplex.softmax(student - 0.3 * gradient), moved / moved.sum(), rtol=1e-12)


def test_training_takes_the_surrogate_and_impossible_tokens_stay():
    cost = COSTS["tree"][0]
    teacher, student = (torch.tensor(x[0]) for x in GENERIC)
    student[2] = -torch.inf
    loss = kd.divergence("natural_w1", cost=cost)
    student.requires_grad_()
    value = loss.loss(teacher_logits=teacher, student_logits=student)
    value.backward()
    assert float(student.grad[2]) == 0
    expected = loss.logit_gradient(teacher_logits=teacher, student_logits=student.detach())
    torch.testing.assert_close(student.grad, expected)


def test_a_table_of_logits_escapes_where_w1_does_not():
    """Steps of one rate from a gap of 20: e^20 such steps would be W1's."""
    cost, teacher = kd.TokenCost.line(np.arange(6.0)), np.log([0.05, 0.05, 0.05, 0.05, 0.1, 0.7])
    reached = {}
    for name in ("w1", "natural_w1"):
        loss, z = kd.divergence(name, cost=cost), 20.0 * np.eye(6)[0]
        for _ in range(100):
            z = z - 0.1 * loss.logit_gradient(teacher_logits=teacher, student_logits=z)
        reached[name] = float(kd.divergence("tvd").value(kd.simplex.softmax(teacher), kd.simplex.softmax(z)))
    assert reached["w1"] > 0.9
    assert reached["natural_w1"] < 0.3
