"""What the peers are measured against: every functional of one pair, in extended precision, by nobody's library.

Scaling iteration in the log domain, in 80-bit floats where the machine has them, until the plan's marginals stop
improving; W1 by scipy's HiGHS. Gradients are central differences along e_i - 1/n on the student's support, that is, in
the simplex's tangent space and inside its face.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import linprog

Real = np.longdouble
STEP = 1e-5  # of a central difference, relative to the smallest mass: truncation 1e-10, rounding 1e-19 / 1e-5
MOST_ITERATIONS = 200_000


def log_sum_exp(x: np.ndarray, axis: int) -> np.ndarray:
    top = x.max(axis, keepdims=True)
    return np.squeeze(top, axis) + np.log(np.exp(x - top).sum(axis))


def entropy(p: np.ndarray) -> np.ndarray:
    """-Σ p log p with 0 log 0 = 0, (..., n) -> (...)."""
    return -(p * np.log(np.where(p > 0, p, 1))).sum(-1)


def plan(p: np.ndarray, q: np.ndarray, C: np.ndarray, epsilon: float) -> np.ndarray:
    """Optimal entropic plans of a batch of pairs, all masses positive: (B, n), (B, m), (n, m) -> (B, n, m)."""
    log_p, log_q = np.log(p.astype(Real)), np.log(q.astype(Real))
    scaled, g, least = C.astype(Real) / Real(epsilon), np.zeros_like(log_q), np.inf
    itself = p.shape == q.shape and bool((p == q).all() and (C == C.T).all())
    for iteration in range(MOST_ITERATIONS):
        f = -log_sum_exp(log_q[:, None, :] + g[:, None, :] - scaled, 2)
        # a pair (p, p) has f = g, and their mean converges at a fixed fast rate
        g = (f + g) / 2 if itself else -log_sum_exp(log_p[:, :, None] + f[:, :, None] - scaled, 1)
        if iteration % 100 == 99:
            found = np.exp(log_p[:, :, None] + f[:, :, None] + log_q[:, None, :] + g[:, None, :] - scaled)
            error = float((abs(found.sum(2) - p).sum(1) + abs(found.sum(1) - q).sum(1)).max())
            if error < 1e-13 and error >= 0.5 * least:  # rounding: no further progress
                return found
            least = min(least, error)
    raise RuntimeError(f"the reference did not converge: marginal error {error:.1e}")


def _relative(p: np.ndarray, q: np.ndarray, C: np.ndarray, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """(sharp, relative) values of a batch."""
    found = plan(p, q, C, epsilon)
    sharp = (found * C).sum((1, 2))
    product = p[:, :, None] * q[:, None, :]
    return sharp, sharp + epsilon * (found * np.log(np.where(found > 0, found, 1) / product)).sum((1, 2))


def sinkhorn(functional: str, p: np.ndarray, q: np.ndarray, C: np.ndarray, epsilon: float) -> np.ndarray:
    """Values (B,) of a batch with positive masses on n teacher's and m student's tokens; "divergence" needs the whole C
    between the two supports, and is composed in `value`."""
    sharp, relative = _relative(p, q, C, epsilon)
    if functional == "sharp":
        return sharp
    return relative - epsilon * (entropy(p) + entropy(q)) if functional == "entropic" else relative


def value(functional: str, p: np.ndarray, q: np.ndarray, C: np.ndarray, epsilon: float) -> np.ndarray:
    """Values (B,) of p (V,) against a batch q (B, V) whose rows share one support; tokens without mass are left out."""
    p, q = np.asarray(p, Real), np.asarray(q, Real)
    if functional == "w1":
        return np.array([linear_programme(p, row, C) for row in q])
    if functional.startswith("reduced "):
        return _reduced(functional.removeprefix("reduced "), p, q, C, epsilon)
    rows, columns = p > 0, (q > 0).any(0)
    a, b = np.broadcast_to(p[rows], (len(q), rows.sum())), q[:, columns]
    if functional != "divergence":
        return sinkhorn(functional, a, b, C[np.ix_(rows, columns)], epsilon)
    both, first, second = ((a, b, rows, columns), (a[:1], a[:1], rows, rows), (b, b, columns, columns))
    terms = [sinkhorn("relative", x, y, C[np.ix_(r, c)], epsilon) for x, y, r, c in (both, first, second)]
    return terms[0] - terms[1] / 2 - terms[2] / 2


def _reduced(functional: str, p: np.ndarray, q: np.ndarray, C: np.ndarray, epsilon: float) -> np.ndarray:
    """m · functional((p - q)₊ / m, (q - p)₊ / m), row by row because the supports may differ."""
    found = []
    for row in q:
        surplus, deficit = np.maximum(p - row, 0), np.maximum(row - p, 0)
        m = surplus.sum()
        found.append(m * value(functional, surplus / m, (deficit / deficit.sum())[None], C, epsilon)[0])
    return np.array(found)


def linear_programme(p: np.ndarray, q: np.ndarray, C: np.ndarray) -> float:
    """W1 by HiGHS; the last column's constraint is redundant and left out, so that no rounding makes it infeasible."""
    n = len(p)
    columns = np.tile(np.eye(n), n)[:-1]
    constraints = np.vstack([np.kron(np.eye(n), np.ones(n)), columns])
    masses = np.concatenate([p / p.sum(), (q / q.sum())[:-1]]).astype(np.float64)
    options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    found = linprog(C.ravel(), A_eq=constraints, b_eq=masses, method="highs", options=options)
    if not found.success:
        raise RuntimeError(f"HiGHS: {found.message}")
    return float(found.fun)


def gradient(functional: str, p: np.ndarray, q: np.ndarray, C: np.ndarray, epsilon: float) -> np.ndarray:
    """Gradient in q on its support, mean 0, by central differences of `value`."""

    def values(moved: np.ndarray) -> np.ndarray:
        return value(functional, p, moved, C, epsilon)

    return central_differences(values, np.asarray(q, Real), _step(functional, q))


def _step(functional: str, q: np.ndarray) -> float:
    """W1 is piecewise linear and HiGHS works in double precision: a wider step, still inside the linear piece."""
    return (1e-3 if functional == "w1" else STEP) * float(q[q > 0].min())


def central_differences(values: Callable[[np.ndarray], np.ndarray], q: np.ndarray, step: float) -> np.ndarray:
    """Directional derivatives of `values` ((B, V) -> (B,)) at q along e_i - 1/n, for the n tokens i with mass."""
    at = np.flatnonzero(q > 0)
    directions = np.zeros((len(at), len(q)), q.dtype)
    directions[:, at] = -1 / q.dtype.type(len(at))
    directions[np.arange(len(at)), at] += 1
    forward, backward = np.split(values(np.concatenate([q + step * directions, q - step * directions])), 2)
    return ((forward - backward) / (2 * q.dtype.type(step))).astype(np.float64)
