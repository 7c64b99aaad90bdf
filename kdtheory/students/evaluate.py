"""Held-out metrics of a student, accumulated in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdtheory.students import losses, models
from kdtheory.students.teacher import Teacher

METRICS = ("fkl", "rkl", "tv", "w1", "cross_entropy", "agreement")
"""FKL, RKL and TV to the teacher (nats, nats, [0, 1]); W1 on the token tree (units of its diameter); cross-entropy of
the text (nats per token); share of positions where teacher and student have the same most likely token."""
LOWER_IS_BETTER = {name: name != "agreement" for name in METRICS}
_CHUNK = 32  # blocks per forward pass: bounds memory, changes no number


def distances(log_p: Tensor, log_q: Tensor, cost: Any) -> dict[str, Tensor]:
    """``fkl``, ``rkl``, ``tv`` and ``w1`` to the teacher at every position; see `positions`."""
    import kdtheory as kd

    return {
        "fkl": kd.divergence("fkl").per_position(log_p, log_q),
        "rkl": kd.divergence("rkl").per_position(log_p, log_q),
        "tv": kd.divergence("tvd").per_position(log_p, log_q),
        "w1": kd.divergence("w1", cost=cost).per_position(log_p, log_q),
    }


def positions(log_p: Tensor, log_q: Tensor, labels: Tensor, cost: Any) -> dict[str, Tensor]:
    """Every metric at every position.

    Parameters
    ----------
    log_p, log_q : Tensor of float64, shape (..., V)
        Log-probabilities of teacher and student.
    labels : Tensor of int64, shape (...)
        Next tokens of the text.
    cost : TokenCost
        Ground metric of W1.

    Returns
    -------
    dict of str to Tensor of float64, shape (...)
        One entry for each of `METRICS`.
    """
    return {
        **distances(log_p, log_q, cost),
        "cross_entropy": -log_q.gather(-1, labels.unsqueeze(-1)).squeeze(-1),
        "agreement": (log_p.argmax(-1) == log_q.argmax(-1)).double(),
    }


@torch.no_grad()
def student_metrics(
    model: nn.Module, blocks: np.ndarray, teacher: Teacher, *, cost: Any, device: torch.device
) -> dict[str, float]:
    """Mean of every metric over all positions of the blocks (N, T + 1)."""
    totals = dict.fromkeys(METRICS, 0.0)
    for rows, log_q, labels in _passes(model, blocks, device):
        log_p = losses.float64_log_softmax(teacher.log_probs(rows).to(device))
        for name, value in positions(log_p, log_q, labels, cost).items():
            totals[name] += float(value.sum())
    count = blocks[:, 1:].size
    return {name: total / count for name, total in totals.items()}


@torch.no_grad()
def curve_point(
    model: nn.Module, blocks: np.ndarray, teacher: Teacher | None, *, loss: Any, name: str, device: torch.device
) -> dict[str, float]:
    """Objective (of the loss itself), FKL to the teacher (nan without one) and cross-entropy, means over positions."""
    import kdtheory as kd

    totals = {"objective": 0.0, "fkl": 0.0, "cross_entropy": 0.0}
    for rows, log_q, labels in _passes(model, blocks, device):
        log_p = None if teacher is None else losses.float64_log_softmax(teacher.log_probs(rows).to(device))
        objective = losses.training_loss(loss, name, student_logits=log_q, log_p=log_p, labels=labels)
        totals["objective"] += float(objective) * labels.numel()
        totals["cross_entropy"] += float(-log_q.gather(-1, labels.unsqueeze(-1)).sum())
        if log_p is None:
            totals["fkl"] = float("nan")
        else:
            totals["fkl"] += float(kd.divergence("fkl").per_position(log_p, log_q).sum())
    return {key: total / blocks[:, 1:].size for key, total in totals.items()}


@torch.no_grad()
def teacher_facts(teacher: Teacher, blocks: np.ndarray) -> dict[str, float]:
    """The teacher alone: cross-entropy of the text and mean entropy, nats per token."""
    totals = {"cross_entropy": 0.0, "entropy": 0.0}
    for start in range(0, len(blocks), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(blocks)))
        log_p = losses.float64_log_softmax(teacher.log_probs(rows)).cpu()
        labels = torch.from_numpy(blocks[rows, 1:])
        totals["cross_entropy"] += float(-log_p.gather(-1, labels.unsqueeze(-1)).sum())
        totals["entropy"] += float(torch.special.entr(log_p.exp()).sum())
    return {name: total / blocks[:, 1:].size for name, total in totals.items()}


def _passes(model: nn.Module, blocks: np.ndarray, device: torch.device) -> Any:
    """Row numbers, student log-probabilities (float64) and labels, chunk by chunk; the model's mode is restored."""
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(blocks), _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, len(blocks)))
            tokens = torch.from_numpy(blocks[rows]).to(device)
            yield rows, losses.float64_log_softmax(models.logits(model, tokens[:, :-1])), tokens[:, 1:]
    finally:
        model.train(was_training)
