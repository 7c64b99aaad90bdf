"""Losses by the short names that experiments share, with one token cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from kdtheory.divergences.protocol import Loss

NAMES = ("hard", "classic", "fkl", "rkl", "jsd", "tvd", "skl", "srkl", "akl", "w1", "fkl+w1")


def build(name: str, *, cost: Any, transport_weight: float) -> Loss:
    """The loss called `name`.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    cost : TokenCost
        Ground metric of ``w1`` and ``fkl+w1``.
    transport_weight : float
        λ of ``fkl+w1``.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    import kdtheory as kd

    if name not in NAMES:
        raise ValueError(f"losses: {name!r} is unknown; known: {', '.join(NAMES)}")
    if name == "hard":
        return kd.divergence("cross_entropy")
    if name == "classic":
        return kd.classic(kd.divergence("fkl"), a=0.5, temperature=2.0)
    if name in ("skl", "srkl"):
        return kd.divergence(name, alpha=0.1)
    if name == "w1":
        return kd.divergence("w1", cost=cost)
    if name == "fkl+w1":
        return kd.divergence("fkl") + transport_weight * kd.divergence("w1", cost=cost)
    return kd.divergence(name)


def training_loss(
    loss: Loss, name: str, *, student_logits: Tensor, log_p: Tensor | None, labels: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Mean loss of a batch over the counted positions; ``hard`` sees the text and nothing else."""
    teacher = log_p if needs_teacher(name) else None
    return loss.loss(student_logits=student_logits, teacher_logits=teacher, labels=labels, mask=mask)


def needs_teacher(name: str) -> bool:
    """Whether a training step reads the teacher's distribution."""
    return name != "hard"


def float64_log_softmax(values: Tensor) -> Tensor:
    """Log-probabilities in float64, renormalised: what a half-precision cache lost is spread over all tokens."""
    return torch.log_softmax(values.double(), dim=-1)
