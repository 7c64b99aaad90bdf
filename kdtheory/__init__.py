"""Claims about knowledge distillation that run.

>>> import kdtheory as kd
>>> kd.divergence("skl", alpha=0.1)
<DivergenceLoss skl(alpha=0.1)>

Names are loaded on first use, so that importing the package, or asking the command line for help, costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdtheory import divergences, simplex, transport
    from kdtheory.catalogue import divergence
    from kdtheory.divergences.checks import NonFiniteLossError
    from kdtheory.divergences.combination import classic
    from kdtheory.divergences.head import head_loss
    from kdtheory.transport import TokenCost, certify_w1, sinkhorn, sliced_w1, w1, w1_topk

__version__ = "0.1.0"

_HOME = {
    "divergence": "kdtheory.catalogue",
    "classic": "kdtheory.divergences",
    "head_loss": "kdtheory.divergences",
    "NonFiniteLossError": "kdtheory.divergences",
    "TokenCost": "kdtheory.transport",
    "w1": "kdtheory.transport",
    "w1_topk": "kdtheory.transport",
    "sliced_w1": "kdtheory.transport",
    "certify_w1": "kdtheory.transport",
    "sinkhorn": "kdtheory.transport",
}
_MODULES = ("divergences", "dynamics", "simplex", "transport")
__all__ = [
    "NonFiniteLossError",
    "TokenCost",
    "__version__",
    "certify_w1",
    "classic",
    "divergence",
    "divergences",
    "dynamics",
    "head_loss",
    "simplex",
    "sinkhorn",
    "sliced_w1",
    "transport",
    "w1",
    "w1_topk",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"kdtheory.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'kdtheory' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
