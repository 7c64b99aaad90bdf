"""What published distillation losses called Wasserstein or Sinkhorn compute, from their definitions."""

from kdtheory.transport.published.assisted import AssistedSinkhorn
from kdtheory.transport.published.emo import EMO
from kdtheory.transport.published.sinkd import SinKD
from kdtheory.transport.published.uld import ULD
from kdtheory.transport.published.wkd import WKD, alignment, class_cost

__all__ = ["EMO", "ULD", "WKD", "AssistedSinkhorn", "SinKD", "alignment", "class_cost"]
