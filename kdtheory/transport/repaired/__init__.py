"""Losses that keep forward KL's way out of a confident mistake and know distances, and what they are compared with."""

from kdtheory.transport.repaired.geometric import Geometric
from kdtheory.transport.repaired.natural_w1 import NaturalW1
from kdtheory.transport.repaired.ordered import tree_from_order
from kdtheory.transport.repaired.similarity_kl import SimilarityKL
from kdtheory.transport.repaired.tree_kl import TreeKL

__all__ = ["Geometric", "NaturalW1", "SimilarityKL", "TreeKL", "tree_from_order"]
