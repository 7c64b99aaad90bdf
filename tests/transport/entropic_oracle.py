"""Entropic transport by plain loops over one pair, in extended precision: what the batched solver is held to."""

from __future__ import annotations

import numpy as np

LONG = np.longdouble


def _log_sum(x: np.ndarray, axis: int) -> np.ndarray:
    top = x.max(axis, keepdims=True)
    return np.log(np.exp(x - top).sum(axis)) + top.squeeze(axis)


def plan(p, q, C, epsilon, sweeps: int = 200_000) -> np.ndarray:
    """Optimal plan on the supports, zeros elsewhere; alternating scaling in the log domain, marginals to 1e-17."""
    p, q, C = (np.asarray(x, LONG) for x in (p, q, C))
    p, q = p / p.sum(), q / q.sum()  # equal to the last bit, or the marginals never meet
    rows, columns = np.flatnonzero(p), np.flatnonzero(q)
    a, b, M = np.log(p[rows]), np.log(q[columns]), -C[np.ix_(rows, columns)] / LONG(epsilon)
    phi, psi = np.zeros(len(rows), LONG), np.zeros(len(columns), LONG)
    itself = np.array_equal(p, q) and np.array_equal(C, C.T)  # alternation crawls there: the plan is nearly diagonal
    for _ in range(sweeps):
        if itself:
            phi = psi = (phi + a - _log_sum(M + phi, 1)) / 2
        else:
            phi = a - _log_sum(M + psi, 1)
            psi = b - _log_sum(M + phi[:, None], 0)
        if abs(np.exp(phi[:, None] + M + psi).sum(1) - p[rows]).sum() < 1e-17:  # columns are exact
            break
    full = np.zeros_like(C)
    full[np.ix_(rows, columns)] = np.exp(phi[:, None] + M + psi)
    return full


def values(p, q, C, epsilon) -> dict[str, float]:
    """The functionals, from the plan and their definitions alone."""
    found = {name: _value(name, p, q, C, epsilon) for name in ("sharp", "entropic", "relative")}
    both = (_value("relative", x, x, C, epsilon) for x in (p, q))
    return {**found, "divergence": found["relative"] - sum(both) / 2}


def value(name: str, p, q, C, epsilon) -> float:
    if name == "divergence":
        return values(p, q, C, epsilon)["divergence"]
    return _value(name, p, q, C, epsilon)


def reduced(name: str, p, q, C, epsilon) -> float:
    """m · the functional at (p - q)₊/m and (q - p)₊/m."""
    supply, demand = np.maximum(p - q, 0), np.maximum(q - p, 0)
    return supply.sum() * _value(name, supply / supply.sum(), demand / demand.sum(), C, epsilon)


def _value(name, p, q, C, epsilon):
    G = plan(p, q, C, epsilon)
    used = G > 0
    cost = (G * C).sum()
    if name == "sharp":
        return float(cost)
    reference = np.outer(p, q) if name == "relative" else np.ones_like(G)
    return float(cost + epsilon * (G[used] * np.log(G[used] / reference[used])).sum())
