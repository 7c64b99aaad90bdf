"""Held-out metrics of a student, accumulated in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

import kdtheory as kd
from kdtheory.students import heads, losses, models, text_losses
from kdtheory.students.teacher import Teacher
from kdtheory.students.token_metrics import medoid_cost

if TYPE_CHECKING:
    from kdtheory.divergences.protocol import Loss
    from kdtheory.transport import TokenCost

METRICS = ("fkl", "rkl", "tv", "w1", "d_cost", "cross_entropy", "agreement")
"""FKL, RKL and TV to the teacher (nats, nats, [0, 1]); W1 on the token tree, and there the cost of the student's
decisions (`token_metrics.medoid_cost`), in units of its diameter; cross-entropy of the text (nats per token); share of
positions where teacher and student have the same most likely token."""
HEAD_SHARES = ("fkl", "rkl")
"""Losses whose curves say where the gradient falls."""
LOWER_IS_BETTER = {name: name != "agreement" for name in METRICS}
_CHUNK = 32  # blocks per forward pass: bounds memory


def distances(log_p: Tensor, log_q: Tensor, tree: TokenCost) -> dict[str, Tensor]:
    """``fkl``, ``rkl``, ``tv`` and ``w1`` to the teacher at every position; see `positions`."""
    return {
        "fkl": kd.divergence("fkl").per_position(log_p, log_q),
        "rkl": kd.divergence("rkl").per_position(log_p, log_q),
        "tv": kd.divergence("tvd").per_position(log_p, log_q),
        "w1": kd.divergence("w1", cost=tree).per_position(log_p, log_q),
    }


def positions(log_p: Tensor, log_q: Tensor, labels: Tensor, tree: TokenCost) -> dict[str, Tensor]:
    """Every metric at every position.

    Parameters
    ----------
    log_p, log_q : Tensor of float64, shape (..., V)
        Log-probabilities of teacher and student.
    labels : Tensor of int64, shape (...)
        Next tokens of the text.
    tree : TokenCost
        TokenMetrics metric of W1 and of decisions.

    Returns
    -------
    dict of str to Tensor of float64, shape (...)
        One entry for each of `METRICS`.
    """
    return {
        **distances(log_p, log_q, tree),
        "d_cost": medoid_cost(log_p.exp(), log_q.exp(), tree),
        "cross_entropy": -log_q.gather(-1, labels.unsqueeze(-1)).squeeze(-1),
        "agreement": (log_p.argmax(-1) == log_q.argmax(-1)).double(),
    }


@torch.no_grad()
def student_metrics(
    model: nn.Module, blocks: np.ndarray, teacher: Teacher, *, tree: TokenCost, device: torch.device
) -> dict[str, float]:
    """Mean of every metric over all positions of the blocks (N, T + 1)."""
    totals = dict.fromkeys(METRICS, 0.0)
    for rows, log_q, labels in _passes(model, blocks, device):
        log_p = losses.float64_log_softmax(teacher.log_probs(rows).to(device))
        for name, value in positions(log_p, log_q, labels, tree).items():
            totals[name] += float(value.sum())
    count = blocks[:, 1:].size
    return {name: total / count for name, total in totals.items()}


@torch.no_grad()
def curve_point(
    model: nn.Module, blocks: np.ndarray, teacher: Teacher | None, *, loss: Loss, name: str, device: torch.device
) -> dict[str, float]:
    """A point of a learning curve: means over positions, NaN where there is none.

    ``objective``: of the loss itself, where it looks; ``fkl`` to the teacher; ``cross_entropy`` of the text; for
    `HEAD_SHARES` also ``head_share``: the share of positions whose head has a larger part of forward KL's gradient
    than of reverse KL's.
    """
    sums: dict[str, list[tuple[float, int]]] = {"objective": [], "fkl": [], "cross_entropy": [], "head_share": []}
    for rows, log_q, labels in _passes(model, blocks, device):
        mask = text_losses.counted(name, step=0, rows=torch.arange(len(rows)), length=labels.shape[1])
        mask = None if mask is None else mask.to(device)
        log_p = None if teacher is None else losses.float64_log_softmax(teacher.log_probs(rows).to(device))
        value = losses.training_loss(loss, name, student_logits=log_q, log_p=log_p, labels=labels, mask=mask)
        sums["objective"].append((float(value), labels.numel() if mask is None else int(mask.sum())))
        sums["cross_entropy"].append((float(-log_q.gather(-1, labels.unsqueeze(-1)).mean()), labels.numel()))
        if log_p is not None:
            sums["fkl"].append((float(kd.divergence("fkl").per_position(log_p, log_q).mean()), labels.numel()))
        if log_p is not None and name in HEAD_SHARES:
            forward, backward = heads.shares(log_p, log_q)
            sums["head_share"].append((float((forward > backward).double().mean()), labels.numel()))
    return {key: _mean(parts) for key, parts in sums.items()}


def _mean(parts: list[tuple[float, int]]) -> float:
    """Mean of means over so many positions each; NaN of none."""
    count = sum(size for _, size in parts)
    return sum(value * size for value, size in parts) / count if count else float("nan")


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
