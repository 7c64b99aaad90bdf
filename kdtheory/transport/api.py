"""`w1`: exact Wasserstein-1 distance with bounds and potentials, for numpy and torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kdtheory.divergences import checks
from kdtheory.transport import closed_forms, exact
from kdtheory.transport.costs import TokenCost


class Potentials(NamedTuple):
    """Kantorovich potentials, shape (..., V), in units of cost: f_i + g_j <= C_ij for all tokens i and j."""

    f: Any  # teacher's side
    g: Any  # student's side: the gradient of W1 in q, up to a constant per row


@dataclass(frozen=True, eq=False)
class W1Result:
    """What `w1` returns; every field has the kind of array (numpy or torch) that went in, float64.

    Attributes
    ----------
    value : array, shape (...)
        W1 in units of cost.
    lower, upper : array, shape (...)
        Dual value of the (feasible) potentials, and cost of a plan. Where the two, computed apart, cross by rounding,
        they are swapped, so lower <= value <= upper.
    potentials : Potentials
        Optimal and feasible on the whole vocabulary, tokens without mass included.
    """

    value: Any
    lower: Any
    upper: Any
    potentials: Potentials


class WithSlopes(torch.autograd.Function):
    """A value as a function of p and q, with given slopes as its gradients."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, q: Tensor, value: Tensor, slope_p: Tensor, slope_q: Tensor) -> Tensor:
        ctx.save_for_backward(slope_p, slope_q)
        ctx.dtypes = p.dtype, q.dtype
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        slope_p, slope_q = (upstream.unsqueeze(-1) * slope for slope in ctx.saved_tensors)
        return slope_p.to(ctx.dtypes[0]), slope_q.to(ctx.dtypes[1]), None, None, None


def check_vocabulary(cost: TokenCost, tokens: int, name: str) -> None:
    """Raise ValueError unless the cost is one, and `name` has as many tokens."""
    if not isinstance(cost, TokenCost):
        raise ValueError(f"cost: expected a kdtheory.TokenCost, got {type(cost).__name__}")
    if tokens != cost.V:
        raise ValueError(f"{name} has {tokens} tokens, cost = {cost} has {cost.V}: they must agree")


def w1(p: Any, q: Any, cost: TokenCost) -> W1Result:
    """Wasserstein-1 distance min ⟨Γ, C⟩ over plans Γ >= 0 with row sums p and column sums q.

    Closed form for 0-1, line and tree costs, on the device of the input; otherwise POT's network simplex on the CPU,
    row by row, on the reduced problem if the cost is a metric (`peyre2019computational`, Sections 3.5 and 6.1).

    Parameters
    ----------
    p, q : array_like, shape (..., V)
        Teacher (rows of C) and student (columns) probabilities; zeros allowed. Each row sums to 1 within 1e-6 and is
        divided by its sum.
    cost : TokenCost
        Over the same V tokens.

    Returns
    -------
    W1Result
        With torch input, `value` is differentiable in p and q: the gradients are the potentials, that is, up to a
        constant per row (which has no effect on distributions) and, at kinks, one element of the subdifferential.

    Raises
    ------
    ValueError
        If shapes differ or do not fit the cost, an entry is negative or NaN, or a row does not sum to 1.
    RuntimeError
        If the network simplex stops before the optimum.

    Examples
    --------
    >>> float(w1([0.5, 0.5, 0.0], [0.0, 0.5, 0.5], TokenCost.line([0.0, 1.0, 3.0])).value)
    1.5
    """
    a, b, restore = checks.probabilities(p, q)
    check_vocabulary(cost, a.shape[-1], "p")
    a, b = a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)
    difference = closed_forms.balanced_difference(a, b)
    if closed_forms.known(cost):
        value, g = closed_forms.value_and_potential(cost, difference)
        dual = (g * difference).sum(-1)
        lower, upper, f = torch.minimum(value, dual), torch.maximum(value, dual), -g
    else:
        value, lower, upper, f, g = solve_rows(a, b, difference, cost)
    if any(isinstance(x, Tensor) and x.requires_grad for x in (p, q)):
        p, q = (x if isinstance(x, Tensor) else own for x, own in ((p, a), (q, b)))
        value = WithSlopes.apply(p, q, value, f, g)
    return W1Result(restore(value), restore(lower), restore(upper), Potentials(restore(f), restore(g)))


def solve_rows(p: Tensor, q: Tensor, difference: Tensor, cost: TokenCost) -> list[Tensor]:
    """Value, lower, upper (...) and potentials f, g (..., V) of `exact.solve`, float64, on the device of p."""
    shape = p.shape
    teacher, student, surplus = (x.detach().reshape(-1, shape[-1]).cpu().numpy() for x in (p, q, difference))
    rows = exact.solve(teacher, student, surplus, cost)
    columns = zip(*rows, strict=True) if rows else ([], [], [], [], [])
    shapes = (shape[:-1], shape[:-1], shape[:-1], shape, shape)
    return [
        torch.from_numpy(np.array(column, dtype=np.float64)).reshape(to).to(p.device)
        for column, to in zip(columns, shapes, strict=True)
    ]
