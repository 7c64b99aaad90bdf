"""Every loss of the experiment on text: what it is, what it sees, and the metrics behind it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import kdtheory as kd
from kdtheory.students import profiles, text_losses
from kdtheory.students.token_metrics import TokenMetrics, medoid_cost

V = 40


@pytest.fixture(scope="module")
def metrics() -> TokenMetrics:
    return TokenMetrics(torch.randn(V, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))


@pytest.fixture(scope="module")
def batch() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    teacher, student = (2 * torch.randn(2, 16, V, generator=draw, dtype=torch.float64) for _ in range(2))
    return {"teacher_logits": teacher, "student_logits": student, "labels": teacher.argmax(-1)}


@pytest.mark.parametrize("name", profiles.LOSSES)
def test_every_loss_has_a_value_and_a_gradient(name, metrics, batch):
    loss = text_losses.build(name, metrics=metrics, transport_weight=1.0)
    student = batch["student_logits"].clone().requires_grad_()
    value = loss.loss(**{**batch, "student_logits": student})
    (gradient,) = torch.autograd.grad(value, student)
    assert value > 0
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0


def test_mixtures_are_halves(metrics, batch):
    """Each beside its two halves, computed apart; the control: the halves differ."""
    w1 = kd.divergence("w1", cost=metrics.tree)
    hard = kd.divergence("cross_entropy").loss(student_logits=batch["student_logits"], labels=batch["labels"])
    parts = {
        "symmetric": [kd.divergence(name).loss(**batch) for name in ("fkl", "rkl")],
        "rkl+hard": [kd.divergence("rkl").loss(**batch), hard],
        "w1+hard": [w1.loss(**batch), hard],
    }
    for name, halves in parts.items():
        value = text_losses.build(name, metrics=metrics, transport_weight=1.0).loss(**batch)
        assert float(value) == pytest.approx(float(sum(halves)) / 2, rel=1e-12)
        assert abs(float(halves[0] - halves[1])) > 1e-3


def test_metrics_have_diameter_one(metrics):
    for cost in (metrics.tree, metrics.line, metrics.euclidean):
        assert np.asarray(cost.matrix()).max() == pytest.approx(1.0)
    points = metrics.embedding.numpy()
    first = np.linalg.svd(points - points.mean(0))[2][0]
    apart = np.abs(np.subtract.outer(points @ first, points @ first))
    np.testing.assert_allclose(metrics.line.matrix(), apart / apart.max(), atol=1e-12)


def test_a_sparse_loss_sees_every_position_once_in_sixteen_steps():
    rows = torch.arange(3)
    seen = sum(text_losses.counted("sinkd/16", step=step, rows=rows, length=50).int() for step in range(16))
    assert torch.equal(seen, torch.ones(3, 50, dtype=torch.int32))
    assert text_losses.counted("fkl", step=0, rows=rows, length=50) is None


def test_what_a_sparse_loss_sees_does_not_depend_on_the_processes():
    whole = text_losses.counted("fkl/16", step=5, rows=torch.arange(4), length=32)
    for part in range(2):
        own = text_losses.counted("fkl/16", step=5, rows=torch.arange(4)[part::2], length=32)
        assert torch.equal(own, whole[part::2])


def test_cost_of_decisions_against_all_pairs(metrics):
    """Written out over the dense matrix; the control: the cost of the most likely token is another number."""
    draw = torch.Generator().manual_seed(2)
    p, q = (torch.softmax(2 * torch.randn(6, 7, V, generator=draw, dtype=torch.float64), -1) for _ in range(2))
    C = torch.as_tensor(metrics.tree.matrix())
    expected = torch.empty(6, 7, dtype=torch.float64)
    for at in np.ndindex(6, 7):
        chosen = min(range(V), key=lambda token: float(q[at] @ C[token]))
        expected[at] = p[at] @ C[chosen]
    found = medoid_cost(p, q, metrics.tree)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    likely = torch.einsum("abi,abi->ab", p, C[q.argmax(-1)])
    assert (likely - found).abs().max() > 1e-3
