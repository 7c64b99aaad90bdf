"""Entropic optimal transport by one batched Sinkhorn iteration on matrix products."""

from kdtheory.transport.entropic.api import SinkhornResult, sinkhorn
from kdtheory.transport.entropic.losses import Sinkhorn
from kdtheory.transport.entropic.problem import SinkhornWarning

__all__ = ["Sinkhorn", "SinkhornResult", "SinkhornWarning", "sinkhorn"]
