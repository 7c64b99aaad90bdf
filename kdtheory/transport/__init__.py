"""Optimal transport between a teacher's and a student's distribution over one vocabulary."""

from collections.abc import Callable

from kdtheory.divergences.protocol import Loss
from kdtheory.transport.api import Potentials, W1Result, w1
from kdtheory.transport.costs import NotAMetricError, TokenCost
from kdtheory.transport.losses import W1
from kdtheory.transport.entropic import Sinkhorn, SinkhornResult, SinkhornWarning, sinkhorn
from kdtheory.transport.tree import tree_from_embedding

LOSSES: dict[str, Callable[..., Loss]] = {"w1": W1, "sinkhorn": Sinkhorn}

__all__ = [
    "LOSSES",
    "W1",
    "NotAMetricError",
    "Potentials",
    "Sinkhorn",
    "SinkhornResult",
    "SinkhornWarning",
    "TokenCost",
    "W1Result",
    "sinkhorn",
    "tree_from_embedding",
    "w1",
]
