"""W1 from the k tokens that matter most, with a bound on the error and a lower bound on W1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kdtheory.divergences import checks, logspace
from kdtheory.divergences.protocol import Loss
from kdtheory.transport import closed_forms, exact
from kdtheory.transport.api import Potentials, check_vocabulary
from kdtheory.transport.costs import TokenCost
from kdtheory.transport.truncation import Cells, Truncation, kept_costs, truncate

InnerSolver = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(difference (B, k), costs (B, k, k)) -> (value (B,), its gradient in the difference (B, k)), one functional."""


@dataclass(frozen=True, eq=False)
class TopKResult:
    """What `w1_topk` returns; every field has the kind of array (numpy or torch) that went in, float64.

    Attributes
    ----------
    value : array, shape (...)
        W1 of the collapsed difference, in units of cost.
    error_bound : array, shape (...)
        |W1 - value| is at most this: Σ |δ_j| d(j, π(j)) over the tokens that were moved. 0 if k covers all of them.
    lower, upper : array, shape (...)
        lower <= W1 <= upper: dual value, on all of δ, of the kept tokens' potential extended with its Lipschitz
        constant (`mcshane1934extension`), never below value - error_bound; and value + error_bound.
    potentials : Potentials
        Gradients of `value` in p and q, (..., V): a moved token has its goal's. They are not feasible on all tokens.
    """

    value: Any
    error_bound: Any
    lower: Any
    upper: Any
    potentials: Potentials


def w1_topk(p: Any, q: Any, cost: TokenCost, k: int) -> TopKResult:
    """Wasserstein-1 distance after moving all but k tokens of δ = q - p to their nearest kept token.

    Kept are the k tokens of largest |δ|, the smaller index at a tie. The rest is solved exactly, row by row on the
    CPU (chapter 07, `collapse`). O(k V) work per row and no V x V matrix.

    Parameters
    ----------
    p, q : array_like, shape (..., V)
        Teacher and student probabilities; zeros allowed. Each row sums to 1 within 1e-6 and is divided by its sum.
    cost : TokenCost
        A metric over the same V tokens.
    k : int
        Tokens kept, >= 1. k = 1 always gives value 0.

    Returns
    -------
    TopKResult
        With torch input, `value` is differentiable in p and q: the kept set and the goals are held fixed, which is
        the derivative wherever they are locally constant (away from ties of |δ|; there `value` may jump, by at most
        the two error bounds).

    Raises
    ------
    NotAMetricError
        If the cost is not a metric; names the triple. The bound needs a norm.
    ValueError
        If shapes differ or do not fit the cost, an entry is negative or NaN, a row does not sum to 1, or k < 1.

    Examples
    --------
    >>> found = w1_topk([0.5, 0.4, 0.1], [0.1, 0.2, 0.7], TokenCost.line([0.0, 1.0, 3.0]), k=2)
    >>> [round(float(x), 6) for x in (found.value, found.error_bound, found.lower, found.upper)]
    [1.8, 0.2, 1.6, 2.0]
    """
    a, b, restore = checks.probabilities(p, q)
    check_vocabulary(cost, a.shape[-1], "p")
    a, b = a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)
    balanced = closed_forms.balanced_difference(a, b)
    difference = balanced.reshape(-1, a.shape[-1])
    cut = truncate(difference, cost, k)
    value, potential = exact_inner(cut.collapsed, kept_costs(cost, cut.kept, difference))
    lower = torch.minimum(_extended_dual(difference, cut, potential, cost).clamp(min=0), value + cut.bound)
    g = cut.pulled_back(potential).reshape(a.shape)
    value, bound, lower = (x.reshape(a.shape[:-1]) for x in (value, cut.bound, lower))
    upper = value + bound
    for x, slope in ((p, -g), (q, g)):
        if isinstance(x, Tensor) and x.requires_grad:
            value = value + (slope * (x - x.detach()).to(value)).sum(-1)  # adds 0 with gradient `slope`
    potentials = Potentials(restore(-g), restore(g))
    return TopKResult(restore(value), restore(bound), restore(lower), restore(upper), potentials)


def _part(costs: Tensor) -> TokenCost:
    """Costs between kept tokens: a metric, because they are part of one."""
    part = TokenCost.dense(costs)
    part.is_metric = True
    return part


def exact_inner(difference: Tensor, costs: Tensor) -> tuple[Tensor, Tensor]:
    """W1 and potential g of each row by the network simplex, on the CPU in float64. An `InnerSolver`."""
    surplus, metric = difference.detach().double().cpu().numpy(), costs.double().cpu()
    rows = [exact.reduced(row, _part(own)) for row, own in zip(surplus, metric, strict=True)]
    value = torch.tensor([row.value for row in rows], dtype=torch.float64)
    g = torch.stack([torch.from_numpy(row.g) for row in rows]) if rows else metric.new_zeros(difference.shape)
    return value.to(difference), g.to(difference)


def _extended_dual(difference: Tensor, cut: Truncation, potential: Tensor, cost: TokenCost) -> Tensor:
    """Larger of Σ δ g for the smallest and the largest 1-Lipschitz extension of g from the kept tokens, (B,).

    Both are 1-Lipschitz on all tokens whatever the numbers g are, so both sums are at most W1.
    """
    found = torch.empty_like(difference[:, 0])
    for row, (surplus, kept, g) in enumerate(zip(difference, cut.kept, potential, strict=True)):
        costs = cost.block(kept.cpu(), slice(None)).to(g)
        largest, smallest = (costs + g[:, None]).amin(0), (g[:, None] - costs).amax(0)
        # δ sums to 0, so a constant may go: without it less is lost to rounding
        found[row] = torch.maximum(*((surplus * (u - u.mean())).sum() for u in (largest, smallest)))
    return found


def entropic_inner(epsilon: float, tol: float = 1e-5, max_iter: int = 1000) -> InnerSolver:
    """Batched Sinkhorn on each row's own k x k kernel: value and slope of the `relative` functional, reduced form.

    Rows that miss their marginals by more than `tol` after `max_iter` sweeps are reported by a `SinkhornWarning`.
    """
    checks.positive(epsilon=epsilon, tol=tol)
    checks.count(max_iter=max_iter)
    return partial(_entropic, epsilon=epsilon, tol=tol, max_iter=max_iter)


def _entropic(difference: Tensor, costs: Tensor, epsilon: float, tol: float, max_iter: int) -> tuple[Tensor, Tensor]:
    from kdtheory.transport.entropic import evaluate, problem

    found = evaluate.per_row(costs, difference, epsilon, "relative", tol, max_iter)
    problem.warn([found.solved.state], tol, max_iter)
    return found.value().to(difference), found.slopes().q.to(difference)


class W1TopK(Loss):
    """W1 of the collapsed difference, as a training loss, in units of the cost.

    Value and gradient are of one functional: the inner problem's slope, which a moved token takes from its goal.
    It is 0 at p = q. Solved exactly, it differs from W1 by at most Σ |δ_j| d(j, π(j)) over the moved tokens: the bound
    of `w1_topk` where goals are nearest, more with `cells`, whose goals may be farther away (`truncate` tells). It can
    be 0 at other pairs too, where all that moves to one token cancels (k = 1: everywhere). It jumps where the kept set
    changes.

    Parameters
    ----------
    cost : TokenCost
        A metric. For 0-1, line and tree costs `W1` itself is exact and faster.
    k : int
        Tokens kept per position.
    cells : int or None
        Number of shared cells that stand for the tokens when goals are sought (see `Cells`), if that is less than V:
        many times faster at V = 32768, goals farther away by at most twice a token's distance to its centre. None: each
        token's own nearest.
    epsilon : float, optional
        Solve by batched Sinkhorn with this regularisation, in units of cost (`entropic_inner`): the training path, on
        any device. Default: exactly, by the network simplex, row by row on the CPU.
    solver : callable, optional
        An `InnerSolver` of one's own, instead of either.
    """

    name = "w1_topk"
    temperature_power = 1

    def __init__(
        self,
        *,
        cost: TokenCost,
        k: int = 128,
        cells: int | None = 1024,
        epsilon: float | None = None,
        solver: InnerSolver | None = None,
    ) -> None:
        if not isinstance(cost, TokenCost):
            raise ValueError(f"cost: expected a kdtheory.TokenCost, got {type(cost).__name__}")
        if solver is not None and (epsilon is not None or not callable(solver)):
            raise ValueError(f"solver = {solver!r}: a callable, and then without epsilon")
        cost.check_metric()
        checks.count(k=k, **({} if cells is None else {"cells": cells}))
        self.cost, self.k = cost, k
        self.cells = None if cells is None or cells >= cost.V else Cells(cost, cells)
        self.inner = solver or (exact_inner if epsilon is None else entropic_inner(epsilon))
        self.whole_batch = self.inner is not exact_inner  # one product for all rows
        self.parameters = {"cost": cost, "k": k, "cells": cells, "epsilon": epsilon}

    def per_position(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        return self._solve(logspace.LogPair(log_p, log_q))[0]

    def value_and_gradient(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        pair = logspace.LogPair(log_p, log_q)
        value, g = self._solve(pair)
        # a constant in g cancels; without it the products of the dominating token are exact zeros
        g = g - g.gather(-1, log_q.argmax(-1, keepdim=True))
        return value, logspace.centred(pair, g)

    def _solve(self, pair: logspace.LogPair) -> tuple[Tensor, Tensor]:
        """Value (...) and pulled-back potential (..., V)."""
        shape = pair.log_q.shape
        check_vocabulary(self.cost, shape[-1], "student_logits")
        balanced = closed_forms.balanced(pair.difference, pair.top.argmax(-1, keepdim=True)).reshape(-1, shape[-1])
        cut = truncate(balanced, self.cost, self.k, cells=self.cells, bound=False)
        value, potential = self.inner(cut.collapsed, kept_costs(self.cost, cut.kept, balanced))
        return value.reshape(shape[:-1]), cut.pulled_back(potential).reshape(shape)
