"""The losses of the experiment by their short names, and the token cost they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdtheory.students.profiles import LOSSES

if TYPE_CHECKING:
    from kdtheory.divergences.protocol import Loss

TITLES = {
    "hard": "hard labels",
    "classic": "classic mixture",
    "fkl": "forward KL",
    "rkl": "reverse KL",
    "jsd": "Jensen-Shannon",
    "tvd": "total variation",
    "skl": "skew KL",
    "srkl": "skew reverse KL",
    "akl": "adaptive KL",
    "w1": "Wasserstein-1 (token tree)",
    "fkl+w1": "forward KL + λ Wasserstein-1",
}


def token_tree(embedding: Tensor) -> Any:
    """Tree cost over tokens from the teacher's output embeddings (V, width), scaled to diameter 1.

    With diameter 1 the transport cost of a pair (p, q) is at most their total variation.

    Raises
    ------
    ValueError
        If all embeddings coincide (a teacher that was never trained cannot order its tokens).
    """
    from kdtheory.transport import TokenCost
    from kdtheory.transport.tree import tree_from_embedding

    parent, weight = tree_from_embedding(embedding.numpy())
    diameter = TokenCost.tree(parent, weight).diameter
    if not diameter > 0:
        raise ValueError("the token tree has diameter 0: all embeddings of the teacher coincide")
    return TokenCost.tree(parent, weight / diameter)


def build(name: str, *, cost: Any, transport_weight: float) -> Loss:
    """The loss called `name`.

    Parameters
    ----------
    name : str
        One of `kdtheory.students.profiles.LOSSES`.
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

    if name not in LOSSES:
        raise ValueError(f"losses: {name!r} is unknown; known: {', '.join(LOSSES)}")
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


def training_loss(loss: Loss, name: str, *, student_logits: Tensor, log_p: Tensor | None, labels: Tensor) -> Tensor:
    """Mean loss of a batch; only ``hard`` and ``classic`` see the text, and ``hard`` sees nothing else."""
    if name == "hard":
        return loss.loss(student_logits=student_logits, labels=labels)
    if name == "classic":
        return loss.loss(student_logits=student_logits, teacher_logits=log_p, labels=labels)
    return loss.loss(student_logits=student_logits, teacher_logits=log_p)


def needs_teacher(name: str) -> bool:
    """Whether a training step reads the teacher's distribution."""
    return name != "hard"


def float64_log_softmax(values: Tensor) -> Tensor:
    """Log-probabilities in float64, renormalised: what a half-precision cache lost is spread over all tokens."""
    return torch.log_softmax(values.double(), dim=-1)
