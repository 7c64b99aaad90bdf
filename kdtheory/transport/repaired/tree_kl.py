"""Forward KL on every scale of a token tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdtheory.divergences import checks, logspace, summands
from kdtheory.divergences.protocol import Loss
from kdtheory.transport import closed_forms
from kdtheory.transport.api import check_vocabulary
from kdtheory.transport.arrays import real_array
from kdtheory.transport.costs import TokenCost, Tree
from kdtheory.transport.repaired.levels import Levels, depths


class TreeKL(Loss):
    """weight · Σ_e w_e [P_e log(P_e/Q_e) - P_e + Q_e] over the edges e of a token tree.

    P_e and Q_e are the teacher's and the student's mass below the edge. Proper where the edges at the tokens have
    positive weight, or as a term beside forward KL: ``fkl + 0.5 * tree_kl``. Convex in q, linear in a hard label, and
    its logit gradient

        Σ_{e above i} w_e (Q_e - P_e) q_i/Q_e - q_i Σ_e w_e (Q_e - P_e)

    tends, at a student that is sure of token k, in entry k to the teacher's mass that is not below k's edges, each
    counted with its weight. Infinite, as forward KL is, where a subtree with teacher mass has no student mass; the
    gradient is finite there too. O(V · levels).

    Parameters
    ----------
    cost : TokenCost
        A tree: ``TokenCost.tree``; of embeddings by `tree_from_embedding`, of ordered tokens by `tree_from_order`.
        Where the root lies matters, unlike for W1: an edge divides "below" from "above", and only "below" is compared.
    weight : float > 0
        λ.
    levels : sequence of float, optional
        w_e by the depth of the edge, from the root's own edges down, instead of the edges' lengths; one number >= 0
        per level of the tree.

    Raises
    ------
    ValueError
        If the cost is no tree, or a weight is out of range.
    """

    name = "tree_kl"

    def __init__(self, *, cost: TokenCost, weight: float = 1.0, levels: Sequence[float] | None = None) -> None:
        self.cost = require_tree(cost, self.name)
        checks.positive(weight=weight)
        self.weight = weight
        self.parameters = {"cost": cost, "weight": weight} | ({} if levels is None else {"levels": tuple(levels)})
        self._edges = torch.from_numpy(weight * _edge_weights(self.cost, levels))
        self._levels = Levels(self.cost.rooted)

    def per_position(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        return self._value(self._masses(*self._columns(log_p, log_q))[0]).reshape(log_q.shape[:-1])

    def value_and_gradient(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        tree, (teacher, student) = self.cost.rooted, self._columns(log_p, log_q)
        masses, plain = self._masses(teacher, student)
        pair = logspace.LogPair(log_p, log_q)
        surplus = closed_forms.balanced_difference(pair.p, pair.q)
        flow = self._weights(student) * tree.subtree_sums(_as_columns(surplus))  # w_e (Q_e - P_e)
        if plain:
            rising = _as_columns(pair.q) * tree.ancestor_sums(flow / masses.q)
        else:
            rising = self._levels.shared_sums(student, masses.log_q, flow)
        gradient = rising.T.reshape(log_q.shape) - pair.q * flow.sum(0).reshape(*log_q.shape[:-1], 1)
        return self._value(masses).reshape(log_q.shape[:-1]), logspace.closed(gradient, pair)

    def culprit(self, log_p: Tensor, log_q: Tensor) -> int | None:
        masses, _ = self._masses(*self._columns(log_p, log_q))
        counted = self._weights(log_q) > 0
        lost = (torch.isneginf(masses.log_q) & ~torch.isneginf(masses.log_p) & counted).to(log_q.dtype)
        found = (self.cost.rooted.ancestor_sums(lost).squeeze(1) > 0) & ~torch.isneginf(log_p)
        return int(found.nonzero()[0]) if found.any() else None

    def _columns(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        check_vocabulary(self.cost, log_q.shape[-1], "student_logits")
        return _as_columns(log_p), _as_columns(log_q)

    def _masses(self, log_p: Tensor, log_q: Tensor) -> tuple[logspace.LogPair, bool]:
        """Masses of all subtrees (nodes, N), and whether plain sums were enough for them.

        A sum of positive numbers keeps its digits; only what has left the normal floats takes a log-sum-exp.
        """
        P, Q = (self.cost.rooted.subtree_sums(x.exp()) for x in (log_p, log_q))
        least = torch.finfo(log_q.dtype).tiny / torch.finfo(log_q.dtype).eps
        if P.numel() and bool((torch.minimum(P, Q) < least).any()):
            return logspace.LogPair(self._levels.log_masses(log_p), self._levels.log_masses(log_q)), False
        masses = logspace.LogPair(P.log(), Q.log())
        masses.p, masses.q = P, Q  # known: no need to take exponentials of their logarithms
        return masses, True

    def _value(self, masses: logspace.LogPair) -> Tensor:
        """(nodes, N) -> (N,); an edge without weight does not count, however infinite."""
        return logspace.times(self._weights(masses.log_q), summands.forward_kl(masses)).sum(0)

    def _weights(self, x: Tensor) -> Tensor:
        return self._edges.to(x).unsqueeze(1)


def require_tree(cost: Any, name: str) -> Tree:
    """The cost, if it is a tree; ValueError says how to make one."""
    if not isinstance(cost, TokenCost):
        raise ValueError(f"cost: expected a kdtheory.TokenCost, got {type(cost).__name__}")
    if not isinstance(cost, Tree):
        raise ValueError(
            f"{name}: cost = {cost} is not a tree: give TokenCost.tree(parent, weight), for example of "
            "kdtheory.transport.tree_from_embedding(E) or, for ordered tokens, tree_from_order(x)"
        )
    return cost


def _edge_weights(cost: Tree, levels: Sequence[float] | None) -> np.ndarray:
    """(nodes,) weight of the edge above each node, 0 at the root."""
    if levels is None:
        return cost.rooted.weight
    depth = depths(cost.rooted)
    given = real_array(levels, "levels", 1).numpy()
    if len(given) != depth.max() or (given < 0).any():
        raise ValueError(f"levels = {list(levels)}: one number >= 0 for each of the {depth.max()} levels of {cost}")
    return np.concatenate([[0.0], given])[depth]


def _as_columns(x: Tensor) -> Tensor:
    """(..., V) -> (V, N), one column per distribution."""
    return x.reshape(-1, x.shape[-1]).T.contiguous()
