"""Exact W1 by POT's network simplex, row by row, with potentials that are feasible on the whole vocabulary.

For a metric cost the common mass min(p, q) need not move: W1(p, q) = W1((p - q)₊, (q - p)₊), a smaller problem. For
other costs that is false, and the full problem between the supports is solved.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdtheory.transport.costs import TokenCost

Array = NDArray[np.float64]
_MAX_PIVOTS = 50_000_000  # of the network simplex; a stop there is an error, never a silent answer


class Row(NamedTuple):
    """Solution for one pair: value, lower <= W1 <= upper, potentials f (teacher) and g (student), shape (V,)."""

    value: float
    lower: float
    upper: float
    f: Array
    g: Array


def reduced(difference: Array, cost: TokenCost) -> Row:
    """W1 from the difference q - p alone, shape (V,), for a metric cost.

    The entries must sum to zero up to rounding; what is left of it is removed by scaling the student's side to the
    mass of the teacher's.

    Raises
    ------
    NotAMetricError
        If the cost is not a metric; names the triple.
    """
    cost.check_metric()
    supply, demand = np.flatnonzero(difference < 0), np.flatnonzero(difference > 0)
    if not (len(supply) and len(demand)):
        return Row(0.0, 0.0, 0.0, np.zeros(cost.V), np.zeros(cost.V))
    a, b = -difference[supply], difference[demand]
    mass = a.sum()
    to_demand = cost.block(slice(None), demand).numpy()
    primal, slack, _, v = _network_simplex(a / mass, b / b.sum(), to_demand[supply])
    f = (to_demand - v).min(1)  # McShane's extension: 1-Lipschitz on all tokens, at least as good as the solver's dual
    f -= f.mean()
    lower = mass * float(f[supply] @ (a / mass) - f[demand] @ (b / b.sum()))
    return _ordered(mass * primal, lower, mass * slack, f, -f)


def full(p: Array, q: Array, cost: TokenCost) -> Row:
    """W1 from both distributions, shape (V,), for any cost."""
    supply, demand = np.flatnonzero(p), np.flatnonzero(q)
    a, b = p[supply] / p.sum(), q[demand] / q.sum()
    to_demand = cost.block(slice(None), demand).numpy()
    primal, slack, _, v = _network_simplex(a, b, to_demand[supply])
    f = (to_demand - v).min(1)
    g = _c_transform(f, cost)
    return _ordered(primal, float(f[supply] @ a + g[demand] @ b), slack, f, g)


def solve(p: Array, q: Array, difference: Array, cost: TokenCost) -> list[Row]:
    """One `Row` for each row of p, q and q - p, shapes (N, V). The cost of N exact solves, on the CPU."""
    if cost.is_metric:
        return [reduced(row, cost) for row in difference]
    return [full(teacher, student, cost) for teacher, student in zip(p, q, strict=True)]


def _c_transform(f: Array, cost: TokenCost) -> Array:
    """The largest feasible g for this f: g_j = min_i C_ij - f_i, a block of columns at a time."""
    step = max(1, (1 << 24) // cost.V)
    blocks = (cost.block(slice(None), slice(at, at + step)).numpy() for at in range(0, cost.V, step))
    return np.concatenate([(block - f[:, None]).min(0) for block in blocks])


def _ordered(primal: float, dual: float, slack: float, f: Array, g: Array) -> Row:
    """Value = cost of the plan. The two bounds are computed apart and may cross by rounding: then they are swapped."""
    return Row(primal, min(primal, dual), max(primal + slack, dual), f, g)


def _network_simplex(a: Array, b: Array, C: Array) -> tuple[float, float, Array, Array]:
    """(cost of the plan, what repairing its marginals can add, dual on rows, dual on columns); a and b sum to 1."""
    from ot.lp import emd

    # POT's own check compares sums to 1e-7 and would only repeat what the callers did
    plan, log = emd(a, b, np.ascontiguousarray(C), numItermax=_MAX_PIVOTS, log=True, check_marginals=False)
    if log["warning"] is not None:
        raise RuntimeError(f"network simplex on {len(a)} x {len(b)} tokens stopped early: {log['warning']}")
    # what a repair of the marginals moves anew, at most at the highest price (chapter 07, repair of a plan)
    missed = np.maximum(a - plan.sum(1), 0).sum() + np.maximum(plan.sum(0) - b, 0).sum()
    return float((plan * C).sum()), float(missed * C.max()), log["u"], log["v"]
