"""Earth mover optimisation: the cost of the independent coupling (`ren2024emo`)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdtheory.divergences import logspace
from kdtheory.divergences.protocol import Loss
from kdtheory.transport.arrays import real_array
from kdtheory.transport.costs import TokenCost


class EMO(Loss):
    """Σ_ij p_i C_ij q_j: every token of the teacher sends its mass to all tokens of the student, in the shares q.

    The upper bound on transport that `ren2024emo` trains, with C_ij = 1 - cos between the output embeddings. The public
    code takes for p the one-hot label and averages cross-entropy with this loss, scaled (without gradient) to the same
    size; in a second version it adds both, with cross-entropy scaled. Here: this term alone. Linear in q: the minimum
    lies at the token nearest to the teacher on average, and not at q = p.

    Parameters
    ----------
    cost : TokenCost
        Any cost, metric or not; the matrix is held.
    embedding : array_like, shape (V, d)
        Instead of `cost`: C_ij = 1 - cos(E_i, E_j), computed in O(V d) a position, without the matrix.

    Raises
    ------
    ValueError
        Unless exactly one of the two is given, or if a row of the embedding is zero.
    """

    name = "emo"
    temperature_power = 1  # its slopes do not vanish at p = q, so the gradient falls like 1/T
    whole_batch = True

    def __init__(self, *, cost: TokenCost | None = None, embedding: Any = None) -> None:
        if (cost is None) == (embedding is None):
            raise ValueError("emo: give either cost, a kdtheory.TokenCost, or embedding, an array (V, d)")
        if cost is not None and not isinstance(cost, TokenCost):
            raise ValueError(f"cost: expected a kdtheory.TokenCost, got {type(cost).__name__}")
        self.cost = cost
        self._rows = _directions(embedding) if cost is None else cost.matrix()
        self.V = len(self._rows)
        self.parameters = {"cost": cost} if cost is not None else {"embedding": tuple(self._rows.shape)}

    def slope(self, p: Tensor) -> Tensor:
        """Expected cost Σ_i p_i C_ij of each of the student's tokens, (..., V) -> (..., V): the slope in q."""
        if p.shape[-1] != self.V:
            raise ValueError(f"teacher_logits has {p.shape[-1]} tokens, {self} has {self.V}: they must agree")
        rows = self._rows.to(p)
        return p @ rows if self.cost is not None else p.sum(-1, keepdim=True) - (p @ rows) @ rows.T

    def per_position(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        return (log_q.exp() * self.slope(log_p.exp())).sum(-1)

    def value_and_gradient(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        pair = logspace.LogPair(log_p, log_q)
        slope = self.slope(pair.p)
        # a constant cancels; without it the products of the dominating token are exact zeros
        shifted = slope - slope.gather(-1, log_q.argmax(-1, keepdim=True))
        return (pair.q * slope).sum(-1), logspace.centred(pair, shifted)


def _directions(embedding: Any) -> Tensor:
    """Rows divided by their length; ValueError if one is zero."""
    rows = real_array(embedding, "embedding", 2)
    size = rows.abs().amax(1, keepdim=True)
    if (size == 0).any():
        raise ValueError(f"embedding[{int((size == 0).nonzero()[0, 0])}] is zero: it has no direction for a cosine")
    rows = rows / size  # squares of any size would leave the floats
    return rows / rows.norm(dim=1, keepdim=True)
