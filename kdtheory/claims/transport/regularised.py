"""Regularised transport by plain alternating scaling, the oracle of sections 7.4 and 7.5: float64 and mpmath."""

from __future__ import annotations

from typing import Any, NamedTuple

import mpmath as mp
import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

Array = NDArray[np.float64]
DIGITS = 30
MPMATH = f"alternating scaling in mpmath, {DIGITS} digits"


class Solution(NamedTuple):
    """Optimal plan (V, V), potentials f and g (V,), and the value of each functional."""

    plan: Any
    f: Any
    g: Any
    relative: Any
    sharp: Any
    entropic: Any


def _log_sum_exp(exponents: Array, axis: int) -> Array:
    """As scipy's, several times faster on small arrays."""
    top = exponents.max(axis=axis, keepdims=True)
    return np.asarray(np.log(np.exp(exponents - top).sum(axis=axis)) + top.squeeze(axis))


def entropy(law: Any) -> float:
    """−Σ x log x of a float array, with 0 log 0 = 0."""
    return -float(xlogy(law, law).sum())


def solve(p: Array, q: Array, cost: Array, epsilon: float, *, steps: int = 50_000) -> Solution:
    """Float64, p, q > 0, any cost.

    Raises
    ------
    RuntimeError
        If the potentials have not settled to 1e-14 of their size after `steps`.
    """
    g, log_p, log_q = np.zeros_like(q), np.log(p), np.log(q)
    own = p is q and np.array_equal(cost, cost.T)
    for _ in range(steps):
        f = -epsilon * _log_sum_exp((g - cost) / epsilon + log_q, 1)
        if own:  # f = g at the optimum, and averaging errs by a factor (1 - λ)/2 per step in place of λ²
            new = f = (f + g) / 2
        else:
            new = -epsilon * _log_sum_exp((f[:, None] - cost) / epsilon + log_p[:, None], 0)
        settled = np.abs(new - g).max() <= 1e-14 * (1 + np.abs(new).max())
        g = new
        if settled:
            plan = np.exp((f[:, None] + g - cost) / epsilon + log_p[:, None] + log_q)
            sharp = float((plan * cost).sum())
            return Solution(plan, f, g, float(p @ f + q @ g), sharp, sharp - epsilon * entropy(plan))
    raise RuntimeError(f"scaling did not settle in {steps} steps: raise epsilon = {epsilon:g} or steps")


def precise(p: list[Any], q: list[Any], cost: Any, epsilon: Any) -> Solution:
    """The same in mpmath at the working precision, from the scalings u, v of exp(−C/ε); p, q > 0 lists of mpf."""
    rows, columns = range(len(p)), range(len(q))
    gibbs = [[mp.exp(-mp.mpf(cost[i][j]) / epsilon) for j in columns] for i in rows]
    v, before = [mp.mpf(1)] * len(q), mp.inf
    while True:
        u = [1 / mp.fsum(gibbs[i][j] * v[j] * q[j] for j in columns) for i in rows]
        v = [1 / mp.fsum(gibbs[i][j] * u[i] * p[i] for i in rows) for j in columns]
        value = epsilon * (mp.fdot(p, map(mp.log, u)) + mp.fdot(q, map(mp.log, v)))
        if abs(value - before) <= 8 * mp.eps:
            break
        before = value
    plan = [[p[i] * u[i] * gibbs[i][j] * v[j] * q[j] for j in columns] for i in rows]
    sharp = mp.fsum(plan[i][j] * mp.mpf(cost[i][j]) for i in rows for j in columns)
    mass = -mp.fsum(x * mp.log(x) for row in plan for x in row)
    f, g = ([epsilon * mp.log(x) for x in side] for side in (u, v))
    return Solution(plan, f, g, value, sharp, sharp - epsilon * mass)


def debiased(name: str, p: Any, q: Any, cost: Any, epsilon: Any, *, by: Any = solve) -> Any:
    """F(p, q) − ½ F(p, p) − ½ F(q, q) for F = "relative", "entropic" or "sharp"."""
    cross, first, second = (getattr(by(a, b, cost, epsilon), name) for a, b in ((p, q), (p, p), (q, q)))
    return cross - (first + second) / 2


def in_digits(law: Any) -> list[Any]:
    """A float law as mpf, summing to 1 at the working precision."""
    law = [mp.mpf(float(x)) for x in law]
    return [x / mp.fsum(law) for x in law]


def epsilon_derivatives(found: Solution, p: Array, q: Array, cost: Array, epsilon: float) -> tuple[Array, Array]:
    """∂f/∂ε and ∂g/∂ε from the linear system of `Theorem (gradients)`, its one freedom removed by least squares."""
    rows, columns = found.plan / p[:, None], found.plan / q
    surplus = (found.f[:, None] + found.g - cost) / epsilon
    matrix = np.block([[np.eye(p.size), rows], [columns.T, np.eye(q.size)]])
    right = np.concatenate([(rows * surplus).sum(1), (columns * surplus).sum(0)])
    solved = np.linalg.lstsq(matrix, right, rcond=None)[0]
    return solved[: p.size], solved[p.size :]


def random_problem(rng: np.random.Generator, *, symmetric: bool = False) -> tuple[Array, Array, Array, float]:
    """Laws p, q on 2 to 4 tokens, a cost in [0, 2] and an ε between a third of it and three times it."""
    size = int(rng.integers(2, 5))
    p, q = (0.95 * x + 0.05 / size for x in rng.dirichlet(np.ones(size), size=2))
    cost = rng.uniform(0, 2, size=(size, size))
    if symmetric:
        cost = (cost + cost.T) / 2
    return p, q, cost, float(np.exp(rng.uniform(-0.4, 1.5)))


def point(p: Array, q: Array, cost: Array, epsilon: float) -> dict[str, Any]:
    """The problem, JSON-able."""
    return {"p": p.tolist(), "q": q.tolist(), "cost": cost.tolist(), "epsilon": epsilon}
