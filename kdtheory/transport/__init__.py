"""Optimal transport between a teacher's and a student's distribution over one vocabulary.

Exact with bounds (`w1`), certified in rationals (`certify_w1`), regularised (`sinkhorn`), truncated, sliced and on
trees with proved errors, as published losses define it, and repaired where W1 stalls (`repaired`).
"""

from collections.abc import Callable

from kdtheory.divergences.protocol import Loss
from kdtheory.transport.api import Potentials, W1Result, w1
from kdtheory.transport.certificate import Certificate, CertificateError, certify_w1
from kdtheory.transport.costs import NotAMetricError, TokenCost
from kdtheory.transport.entropic import Sinkhorn, SinkhornResult, SinkhornWarning, sinkhorn
from kdtheory.transport.losses import W1
from kdtheory.transport.published import EMO, ULD, WKD, AssistedSinkhorn, SinKD, alignment, class_cost
from kdtheory.transport.repaired import Geometric, NaturalW1, SimilarityKL, TreeKL, tree_from_order
from kdtheory.transport.sliced import SlicedResult, SlicedW1, sliced_w1
from kdtheory.transport.topk import TopKResult, W1TopK, w1_topk
from kdtheory.transport.tree import grouped_tree, tree_from_embedding
from kdtheory.transport.tree_bounds import Distortion, TreeW1Result, distortion, w1_from_tree

LOSSES: dict[str, Callable[..., Loss]] = {
    "w1": W1,
    "w1_topk": W1TopK,
    "sliced_w1": SlicedW1,
    "sinkhorn": Sinkhorn,
    "sinkd": SinKD,
    "uld": ULD,
    "emo": EMO,
    "wkd": WKD,
    "assisted_sinkhorn": AssistedSinkhorn,
    "tree_kl": TreeKL,
    "natural_w1": NaturalW1,
    "similarity_kl": SimilarityKL,
    "geometric": Geometric,
}

__all__ = [
    "EMO",
    "LOSSES",
    "ULD",
    "W1",
    "WKD",
    "AssistedSinkhorn",
    "Certificate",
    "CertificateError",
    "Distortion",
    "Geometric",
    "NaturalW1",
    "NotAMetricError",
    "Potentials",
    "SimilarityKL",
    "SinKD",
    "Sinkhorn",
    "SinkhornResult",
    "SinkhornWarning",
    "SlicedResult",
    "SlicedW1",
    "TokenCost",
    "TopKResult",
    "TreeKL",
    "TreeW1Result",
    "W1Result",
    "W1TopK",
    "alignment",
    "certify_w1",
    "class_cost",
    "distortion",
    "grouped_tree",
    "sinkhorn",
    "sliced_w1",
    "tree_from_embedding",
    "tree_from_order",
    "w1",
    "w1_from_tree",
    "w1_topk",
]
