"""The losses of the experiment on real text: those of `losses`, more of their kind, and which positions each sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

import kdtheory as kd
from kdtheory.students import losses

if TYPE_CHECKING:
    from kdtheory.divergences.protocol import Loss
    from kdtheory.students.token_metrics import TokenMetrics

EVERY = 16
"""Losses that cost tens of times forward KL see every 16th position of a batch; so does one forward KL beside them."""
EPSILON = 0.1
"""Regularisation of the Sinkhorn divergence, for a metric of diameter 1."""
KEPT = 32
"""Tokens that top-k W1 keeps."""
_SPARSE, _WITH_TEXT = f"/{EVERY}", "+hard"


def build(name: str, *, metrics: TokenMetrics, transport_weight: float) -> Loss:
    """The loss called `name`.

    Parameters
    ----------
    name : str
        One of `kdtheory.students.profiles.LOSSES`.
    metrics : TokenMetrics
        Metrics of the transport losses: the token tree, or what the name says.
    transport_weight : float
        λ of ``fkl+w1``.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if name.endswith(_WITH_TEXT):
        soft = build(name.removesuffix(_WITH_TEXT), metrics=metrics, transport_weight=transport_weight)
        return kd.classic(soft, a=0.5)
    match name.removesuffix(_SPARSE):
        case "symmetric":
            return 0.5 * kd.divergence("fkl") + 0.5 * kd.divergence("rkl")
        case "jsd.1":
            return kd.divergence("jsd", beta=0.1)
        case "jsd.9":
            return kd.divergence("jsd", beta=0.9)
        case "w1-line":
            return kd.divergence("w1", cost=metrics.line)
        case "w1-topk":
            return kd.divergence("w1_topk", cost=metrics.euclidean, k=KEPT)
        case "sinkhorn":
            return kd.divergence("sinkhorn", cost=metrics.euclidean, epsilon=EPSILON)
        case "sinkd":
            return kd.divergence("sinkd")
        case plain:
            tree = metrics.tree if "w1" in plain.split("+") else None
            return losses.build(plain, cost=tree, transport_weight=transport_weight)


def counted(name: str, *, step: int, rows: Tensor, length: int) -> Tensor | None:
    """Which positions of a batch the loss sees: True = counted, (B, length); None: all.

    A sparse loss sees one position in `EVERY`, another one in each row and at each step, so that all are seen equally
    often. It depends on the step and on the rows' places in the whole batch alone, hence not on how many processes
    share the batch.

    Parameters
    ----------
    name : str
        Of the loss.
    step : int
        Optimiser step.
    rows : Tensor of int64, shape (B,)
        Places of these blocks in the batch.
    length : int
        Positions of a block.
    """
    if not name.endswith(_SPARSE):
        return None
    return (torch.arange(length) + rows[:, None] + step) % EVERY == 0
