"""Divergences between a teacher's and a student's distribution over one vocabulary."""

from collections.abc import Callable

from kdtheory.divergences.akl import AdaptiveKL
from kdtheory.divergences.checks import NonFiniteLossError
from kdtheory.divergences.combination import CrossEntropy, classic
from kdtheory.divergences.definitions import RECORDS, SEPARABLE
from kdtheory.divergences.head import head_loss
from kdtheory.divergences.protocol import Loss

FACTORIES: dict[str, Callable[..., Loss]] = {**RECORDS, "akl": AdaptiveKL, "cross_entropy": CrossEntropy}
ALL = tuple(FACTORIES[name]() for name in FACTORIES if name != "cross_entropy")

__all__ = [
    "ALL",
    "FACTORIES",
    "RECORDS",
    "SEPARABLE",
    "AdaptiveKL",
    "CrossEntropy",
    "Loss",
    "NonFiniteLossError",
    "classic",
    "head_loss",
]
