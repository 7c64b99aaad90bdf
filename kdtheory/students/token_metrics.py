"""Metrics between tokens from a teacher's output embeddings: a tree, a line, and the embeddings themselves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kdtheory.transport import TokenCost
from kdtheory.transport.costs import Tree
from kdtheory.transport.tree import grouped_tree, tree_from_embedding

LARGEST = 8192
"""Tokens of a vocabulary that is clustered whole: V²/2 distances and seconds; beyond, in groups (`grouped_tree`)."""


@dataclass(frozen=True, eq=False)
class TokenMetrics:
    """Token costs of one teacher, each scaled to diameter 1: a transport value is then at most the total variation.

    Attributes
    ----------
    embedding : Tensor of float64, shape (V, width)
        The teacher's output embeddings: tokens with equal rows get equal logits in every context.
    """

    embedding: Tensor

    @cached_property
    def tree(self) -> Tree:
        """Average linkage of the embeddings, above `LARGEST` tokens in groups: an ultrametric, W1 in closed form.

        Raises
        ------
        ValueError
            If all embeddings coincide (a teacher that was never trained cannot order its tokens).
        """
        build = tree_from_embedding if len(self.embedding) <= LARGEST else grouped_tree
        parent, weight = build(self.embedding.numpy())
        return Tree(parent, weight / _positive(Tree(parent, weight, None).diameter), None)

    @cached_property
    def line(self) -> TokenCost:
        """First principal component of the embeddings."""
        centred = self.embedding - self.embedding.mean(0)
        first = torch.linalg.svd(centred, full_matrices=False).Vh[0]
        place = centred @ first
        return TokenCost.line((place / _positive(float(place.max() - place.min()))).numpy())

    @cached_property
    def euclidean(self) -> TokenCost:
        """Euclidean distance of the embeddings."""
        return TokenCost.embedding(self.embedding / _positive(TokenCost.embedding(self.embedding).diameter))


def _positive(diameter: float) -> float:
    if not diameter > 0:
        raise ValueError("the token metric has diameter 0: all embeddings of the teacher coincide")
    return diameter


def medoid_cost(p: Tensor, q: Tensor, tree: Tree) -> Tensor:
    """Expected distance, under p, of the token from q's medoid: what a decision by q costs when p is true.

    The medoid is the token of least expected distance under q. In a tree the expected distance of all tokens takes two
    sums: over an edge e the distance to i passes if one of them is below it,

        E_q d(i, Y) = Σ_e w_e Q_e + Σ_{e above i} w_e (1 - 2 Q_e),

    with Q_e the mass below e.

    Parameters
    ----------
    p, q : Tensor, shape (..., V)
        Probabilities of teacher and student.
    tree : Tree
        What ``TokenCost.tree`` makes.

    Returns
    -------
    Tensor, shape (...)
        In units of the tree.
    """
    rows = (x.reshape(-1, x.shape[-1]) for x in (p, q))
    under_p, under_q = (_expected(x, tree) for x in rows)
    return under_p.gather(-1, under_q.argmin(-1, keepdim=True)).view(p.shape[:-1])


def _expected(q: Tensor, tree: Tree) -> Tensor:
    """E_q d(i, Y) for every token i: (N, V) -> (N, V)."""
    rooted = tree.rooted
    below = rooted.subtree_sums(q.T.contiguous())
    lengths = rooted.lengths(below)
    return (rooted.ancestor_sums(lengths * (1 - 2 * below)) + (lengths * below).sum(0)).T
