"""Sliced W1: the closed form on lines, over projections of token embeddings. Lower bounds on W1, in V log V.

A projection on a unit vector u shortens distances, so W1 of the projections is at most W1; so is the mean over
directions, and more: Σ_l |u_l·x| <= √L σ ‖x‖ with σ the largest singular value of the L directions, so the mean times
√L/σ is still at most W1 (chapter 07, `sliced-lower`). From above no bound holds for all points (`sliced-blind` there).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdtheory.divergences import checks, logspace
from kdtheory.divergences.protocol import Loss
from kdtheory.transport import closed_forms
from kdtheory.transport.arrays import real_array
from kdtheory.transport.costs import Embedding, TokenCost

_STATISTICS = ("mean", "max")
_CPU_BLOCK, _GPU_BLOCK = 1 << 19, 1 << 26  # elements a block: temporaries stay in cache; a quarter of a GB


@dataclass(frozen=True, eq=False)
class SlicedResult:
    """What `sliced_w1` returns; every field has the kind of array (numpy or torch) that went in, float64.

    Attributes
    ----------
    mean, max : array, shape (...)
        Mean and largest W1 over the directions, in units of the points. mean <= max <= W1 (Euclidean).
    lower : array, shape (...)
        max(max, mean · √L/σ) <= W1, with σ the largest singular value of the directions.
    slices : array, shape (..., L)
        W1 of each projection.
    """

    mean: Any
    max: Any
    lower: Any
    slices: Any


class Slices:
    """Tokens projected on L unit vectors, sorted once for all rows.

    Parameters
    ----------
    points : array_like, shape (V, d)
        Embeddings.
    directions : int or array_like, shape (L, d)
        How many to draw, uniformly on the sphere; or the directions, of any length > 0 (they are normalised).
    rng : numpy.random.Generator, optional
        Where drawn directions come from; needed with an int.
    """

    def __init__(self, points: Any, directions: Any, rng: np.random.Generator | None = None) -> None:
        E = real_array(points, "points", 2)
        self.V, width = E.shape
        self.directions = _unit_vectors(directions, width, rng)
        projected = E @ self.directions.T
        order = torch.argsort(projected, dim=0, stable=True)
        self.order = order.T.contiguous()  # (L, V)
        self.inverse = torch.argsort(self.order, 1)
        self.gaps = projected.gather(0, order).diff(dim=0).T.contiguous()  # (L, V - 1), >= 0
        self._copies: dict[Any, tuple[Tensor, Tensor, Tensor]] = {}

    @property
    def count(self) -> int:
        """L."""
        return len(self.directions)

    @property
    def factor(self) -> float:
        """√L/σ >= 1: what the mean may be multiplied by and still be a lower bound."""
        return float(self.count**0.5 / torch.linalg.matrix_norm(self.directions, 2))

    def values(self, difference: Tensor) -> Tensor:
        """W1 of each projection, (N, V) -> (N, L)."""
        order, _, gaps = self._on(difference)
        blocks = difference.split(_rows(difference))
        found = [
            torch.stack([self._surplus(rows, own).abs_() @ gap for own, gap in zip(order, gaps, strict=True)], -1)
            for rows in blocks
        ]
        return torch.cat(found)

    def potential(self, difference: Tensor, weight: Tensor) -> Tensor:
        """Σ_l weight[n, l] g_l, (N, V), with g_l a potential (gradient in q) of the l-th projection."""
        step = _rows(difference)
        pairs = zip(difference.split(step), weight.split(step), strict=True)
        return torch.cat([self._potential(*pair) for pair in pairs])

    def _potential(self, difference: Tensor, weight: Tensor) -> Tensor:
        order, inverse, gaps = self._on(difference)
        total = torch.zeros_like(difference)
        for own, back, gap, share in zip(order, inverse, gaps, weight.unbind(-1), strict=True):
            used = share.nonzero()[:, 0]
            if len(used) == 0:
                continue
            rows: Any = slice(None) if len(used) == len(difference) else used
            slope = self._surplus(difference[rows], own).sign_().mul_(gap).mul_(share[rows].unsqueeze(-1))
            g = torch.zeros_like(difference[rows])
            g[:, 1:] = slope.cumsum_(-1)
            total[rows] -= g.index_select(-1, back)  # a move to the right takes surplus off the left
        return total

    @staticmethod
    def _surplus(difference: Tensor, order: Tensor) -> Tensor:
        """q - p to the left of each gap, (N, V - 1)."""
        return difference.index_select(-1, order).cumsum_(-1)[:, :-1]

    def _on(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        key = (like.device, like.dtype)
        if key not in self._copies:
            device = like.device
            order, inverse = (x.to(device, torch.int32) for x in (self.order, self.inverse))
            self._copies[key] = order, inverse, self.gaps.to(like)
        return self._copies[key]


def _rows(like: Tensor) -> int:
    """Rows at a time."""
    return max(1, (_CPU_BLOCK if like.device.type == "cpu" else _GPU_BLOCK) // like.shape[-1])


def _unit_vectors(directions: Any, width: int, rng: np.random.Generator | None) -> Tensor:
    if checks.is_integer(directions):
        checks.count(directions=directions)
        if not isinstance(rng, np.random.Generator):
            raise ValueError("rng: drawn directions need a numpy.random.Generator, such as np.random.default_rng(0)")
        directions = rng.normal(size=(int(directions), width))
    vectors = real_array(directions, "directions", 2)
    if vectors.shape[1] != width:
        raise ValueError(f"directions have {vectors.shape[1]} coordinates, points {width}: they must agree")
    size = vectors.abs().amax(1, keepdim=True)
    if (size == 0).any():
        raise ValueError(f"directions[{int((size == 0).nonzero()[0, 0])}] is zero: give a direction")
    vectors = vectors / size  # squares of any size would leave the floats
    return vectors / vectors.norm(dim=1, keepdim=True)


def _weights(slices: Tensor, statistic: str) -> Tensor:
    """Gradient of the statistic in the slices, (N, L): the first largest at a tie."""
    if statistic == "mean":
        return torch.full_like(slices, 1 / slices.shape[-1])
    return torch.zeros_like(slices).scatter_(-1, slices.argmax(-1, keepdim=True), 1.0)


def sliced_w1(
    p: Any, q: Any, points: Any, directions: Any = 32, rng: np.random.Generator | None = None
) -> SlicedResult:
    """W1 of p and q after projecting the tokens' points on lines (`bonneel2015sliced`; max: `deshpande2019max`).

    Parameters
    ----------
    p, q : array_like, shape (..., V)
        Teacher and student probabilities; zeros allowed. Each row sums to 1 within 1e-6 and is divided by its sum.
    points : array_like, shape (V, d), or Slices
        Token embeddings; or `Slices(points, directions, rng)`, sorted once for many calls.
    directions, rng
        As in `Slices`; unused if `points` is one.

    Returns
    -------
    SlicedResult
        With torch input, `mean` and `max` are differentiable in p and q, through the potentials of the lines.

    Raises
    ------
    ValueError
        If shapes do not fit, an entry is negative or not finite, a row does not sum to 1, a direction is zero, or
        directions are to be drawn without a generator.

    Examples
    --------
    >>> found = sliced_w1([1.0, 0.0], [0.0, 1.0], [[0.0, 0.0], [3.0, 4.0]], directions=[[1.0, 0.0], [0.0, 1.0]])
    >>> [round(float(x), 6) for x in (found.mean, found.max, found.lower)]  # W1 = 5; 3.5 √2 is nearer than 4
    [3.5, 4.0, 4.949747]
    """
    slices = points if isinstance(points, Slices) else Slices(points, directions, rng)
    a, b, restore = checks.probabilities(p, q)
    if a.shape[-1] != slices.V:
        raise ValueError(f"p has {a.shape[-1]} tokens, points has {slices.V} rows: they must agree")
    a, b = a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)
    balanced = closed_forms.balanced_difference(a, b).reshape(-1, slices.V)
    each = slices.values(balanced)
    found = {"mean": each.mean(-1), "max": each.amax(-1)}
    lower = torch.maximum(found["max"], slices.factor * found["mean"])
    shape = a.shape[:-1]
    for name in found:
        found[name] = found[name].reshape(shape)
        if any(isinstance(x, Tensor) and x.requires_grad for x in (p, q)):
            g = slices.potential(balanced, _weights(each, name)).reshape(a.shape)
            for x, slope in ((p, -g), (q, g)):
                if isinstance(x, Tensor) and x.requires_grad:
                    found[name] = found[name] + (slope * (x - x.detach()).to(g)).sum(-1)  # adds 0, with this gradient
    each, lower = each.reshape(*shape, slices.count), lower.reshape(shape)
    return SlicedResult(restore(found["mean"]), restore(found["max"]), restore(lower), restore(each))


class SlicedW1(Loss):
    """Mean (or largest) W1 over projections of the embeddings, as a training loss, in units of the embedding cost.

    A lower bound on W1 under that cost. It is 0 at p = q and at pairs whose difference no direction sees. For d >= 2
    some points have such pairs, whatever the directions; given different points, drawn directions almost surely leave
    none.

    Parameters
    ----------
    cost : TokenCost
        An embedding cost (Euclidean, or cosine: the chord).
    directions : int or array_like, shape (L, d)
        As in `Slices`.
    seed : int
        Of the drawn directions.
    statistic : "mean" or "max"
        Over directions.
    """

    name = "sliced_w1"
    temperature_power = 1

    def __init__(self, *, cost: TokenCost, directions: Any = 32, seed: int = 0, statistic: str = "mean") -> None:
        if not isinstance(cost, Embedding):
            raise ValueError(f"cost = {cost!r}: projections need points, give TokenCost.embedding(E)")
        checks.choice("statistic", statistic, _STATISTICS)
        if not (checks.is_integer(seed) and seed >= 0):
            raise ValueError(f"seed = {seed!r}: give an integer >= 0")
        self.slices = Slices(cost.points, directions, np.random.default_rng(seed))
        self.cost, self.statistic = cost, statistic
        self.parameters = {"cost": cost, "directions": self.slices.count, "seed": seed, "statistic": statistic}

    def per_position(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        each = self.slices.values(self._difference(logspace.LogPair(log_p, log_q)))
        return self._reduced(each).reshape(log_q.shape[:-1])

    def value_and_gradient(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        pair = logspace.LogPair(log_p, log_q)
        difference = self._difference(pair)
        each = self.slices.values(difference)
        g = self.slices.potential(difference, _weights(each, self.statistic)).reshape(log_q.shape)
        # a constant in g cancels; without it the products of the dominating token are exact zeros
        g = g - g.gather(-1, log_q.argmax(-1, keepdim=True))
        return self._reduced(each).reshape(log_q.shape[:-1]), logspace.centred(pair, g)

    def _reduced(self, each: Tensor) -> Tensor:
        return each.mean(-1) if self.statistic == "mean" else each.amax(-1)

    def _difference(self, pair: logspace.LogPair) -> Tensor:
        """q - p as rows (N, V) that sum to 0."""
        tokens = pair.log_q.shape[-1]
        if tokens != self.slices.V:
            raise ValueError(
                f"student_logits has {tokens} tokens, cost = {self.cost} has {self.slices.V}: they must agree"
            )
        return closed_forms.balanced(pair.difference, pair.top.argmax(-1, keepdim=True)).reshape(-1, tokens)
