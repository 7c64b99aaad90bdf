"""Held-out metrics of a student, accumulated in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

import kdtheory as kd
from kdtheory.students import heads, losses, text_losses
from kdtheory.students.models import Body
from kdtheory.students.teacher import Teacher
from kdtheory.students.token_metrics import medoid_cost
from kdtheory.students.tokens import Split

if TYPE_CHECKING:
    from kdtheory.divergences.protocol import Loss
    from kdtheory.transport import TokenCost
    from kdtheory.transport.costs import Tree

METRICS = ("fkl", "rkl", "tv", "w1", "d_cost", "cross_entropy", "agreement")
"""FKL, RKL and TV to the teacher (nats, nats, [0, 1]); W1 on the token tree, and there the cost of the student's
decisions (`token_metrics.medoid_cost`), in units of its diameter; cross-entropy of the text (nats per token); share of
positions where teacher and student have the same most likely token."""
HEAD_SHARES = ("fkl", "rkl")
"""Losses whose curves say where the gradient falls."""
LOWER_IS_BETTER = {name: name != "agreement" for name in METRICS}
_CHUNK = 32  # blocks per forward pass at most, and
_ELEMENTS = 1 << 24  # probabilities: bounds memory


def distances(log_p: Tensor, log_q: Tensor, cost: TokenCost) -> dict[str, Tensor]:
    """``fkl``, ``rkl``, ``tv`` and ``w1`` to the teacher at every position; see `positions`."""
    return {
        "fkl": kd.divergence("fkl").per_position(log_p, log_q),
        "rkl": kd.divergence("rkl").per_position(log_p, log_q),
        "tv": kd.divergence("tvd").per_position(log_p, log_q),
        "w1": kd.divergence("w1", cost=cost).per_position(log_p, log_q),
    }


def positions(log_p: Tensor, log_q: Tensor, labels: Tensor, tree: Tree) -> dict[str, Tensor]:
    """Every metric at every position.

    Parameters
    ----------
    log_p, log_q : Tensor of float64, shape (..., V)
        Log-probabilities of teacher and student.
    labels : Tensor of int64, shape (...)
        Next tokens of the text.
    tree : Tree
        Ground metric of W1 and of decisions.

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
    body: Body, split: Split, teacher: Teacher, *, tree: Tree, device: torch.device
) -> dict[str, float]:
    """Mean of every metric over all counted positions."""
    totals, count = dict.fromkeys(METRICS, 0.0), 0
    for at in _passes(body, split, device):
        for name, value in positions(at.log_probs(teacher), at.log_q, at.labels, tree).items():
            totals[name] += float(value.sum())
        count += len(at.labels)
    return {name: total / count for name, total in totals.items()}


@torch.no_grad()
def curve_point(
    body: Body, split: Split, teacher: Teacher | None, *, loss: Loss, name: str, device: torch.device
) -> dict[str, float]:
    """A point of a learning curve: means over counted positions, NaN where there is none.

    ``objective``: of the loss itself, where it looks; ``fkl`` to the teacher; ``cross_entropy`` of the text; for
    `HEAD_SHARES` also ``head_share``: the share of positions whose head has a larger part of forward KL's gradient
    than of reverse KL's.
    """
    sums: dict[str, list[tuple[float, int]]] = {"objective": [], "fkl": [], "cross_entropy": [], "head_share": []}
    for at in _passes(body, split, device):
        size, mask = len(at.labels), at.seen_by(name)
        log_p = None if teacher is None else at.log_probs(teacher)
        value = losses.training_loss(loss, name, student_logits=at.log_q, log_p=log_p, labels=at.labels, mask=mask)
        sums["objective"].append((float(value), size if mask is None else int(mask.sum())))
        sums["cross_entropy"].append((float(-at.log_q.gather(-1, at.labels.unsqueeze(-1)).mean()), size))
        if log_p is not None:
            sums["fkl"].append((float(kd.divergence("fkl").per_position(log_p, at.log_q).mean()), size))
        if log_p is not None and name in HEAD_SHARES:
            forward, backward = heads.shares(log_p, at.log_q)
            sums["head_share"].append((float((forward > backward).double().mean()), size))
    return {key: _mean(parts) for key, parts in sums.items()}


def _mean(parts: list[tuple[float, int]]) -> float:
    """Mean of means over so many positions each; NaN of none."""
    count = sum(size for _, size in parts)
    return sum(value * size for value, size in parts) / count if count else float("nan")


@torch.no_grad()
def teacher_facts(teacher: Teacher, split: Split) -> dict[str, float]:
    """The teacher alone: cross-entropy of the text and mean entropy, nats per token."""
    totals, count = {"cross_entropy": 0.0, "entropy": 0.0}, 0
    for start in range(0, len(split), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(split)))
        counted, labels = (torch.from_numpy(x) for x in (split.part(rows).counted(), split.tokens[rows, 1:]))
        log_p = losses.float64_log_softmax(teacher.log_probs(rows).cpu()[counted])
        totals["cross_entropy"] += float(-log_p.gather(-1, labels[counted].unsqueeze(-1)).sum())
        totals["entropy"] += float(torch.special.entr(log_p.exp()).sum())
        count += int(counted.sum())
    return {name: total / count for name, total in totals.items()}


@dataclass(frozen=True)
class _Pass:
    """Counted positions of some blocks: their row numbers, log-probabilities (n, V) in float64, labels (n,)."""

    rows: np.ndarray
    counted: Tensor  # (B, T)
    log_q: Tensor
    labels: Tensor

    def log_probs(self, teacher: Teacher) -> Tensor:
        """The teacher's, (n, V) in float64."""
        return losses.float64_log_softmax(teacher.log_probs(self.rows).to(self.counted.device)[self.counted])

    def seen_by(self, loss: str) -> Tensor | None:
        """Which of the positions a sparse loss sees, (n,); None: all."""
        places = torch.arange(len(self.rows))
        mask = text_losses.counted(loss, step=0, rows=places, length=self.counted.shape[1])
        return None if mask is None else mask.to(self.counted.device)[self.counted]


def _passes(body: Body, split: Split, device: torch.device) -> Iterator[_Pass]:
    """Chunk by chunk; the model's mode is restored."""
    was_training = body.training
    size = min(_CHUNK, max(1, _ELEMENTS // (split.tokens.shape[1] * body.vocabulary)))
    body.eval()
    try:
        for start in range(0, len(split), size):
            rows = np.arange(start, min(start + size, len(split)))
            tokens = torch.from_numpy(split.tokens[rows]).to(device)
            counted = torch.from_numpy(split.part(rows).counted()).to(device)
            log_q = losses.float64_log_softmax(body.logits(tokens[:, :-1])[counted])
            if len(log_q):
                yield _Pass(rows, counted, log_q, tokens[:, 1:][counted])
    finally:
        body.train(was_training)
