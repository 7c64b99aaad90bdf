"""How fast each part of a vocabulary relaxes to its teacher: gradient flow, and the flow linearised at the teacher.

The flow is integrated as it is, with numerical derivatives of the loss's own gradient. The Hessian at the teacher gives
the closed form to hold it against (chapter 04, Theorems 24 to 26), never the time itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Tensor

import kdtheory as kd
from kdtheory import simplex

Array = NDArray[np.float64]
FITTED = math.exp(-1)
"""Share of a group's first error at which it counts as fitted."""
STOP = math.exp(-2)
"""The flow ends when every group is there."""
FIRST_RANK = 4
"""Where the tail begins: the first octave of ranks with four tokens."""
_STEP = 1e-4  # of central differences, in nats: an error of 1e-8, far above the solver's 1e-9 / 1e-4
_EARLY = 1e-6  # of flow time: before it nothing has moved


class Start(NamedTuple):
    """Teacher's log-probabilities and the student's first logits, both (V,) and float64, most probable token first."""

    log_p: Tensor
    logits: Tensor


def groups(tokens: int) -> list[slice]:
    """Octaves of rank from `FIRST_RANK` on, as slices; one that would end at most a token early ends at the last."""
    found, first = [], FIRST_RANK - 1
    while 2 * first <= tokens:
        found.append(slice(first, min(2 * first + 1, tokens)))
        first = 2 * first + 1
    return found


def errors(log_p: Array, logits: Array) -> Array:
    """Root mean square of log q - log p in each group, (..., V) -> (..., groups)."""
    error = simplex.log_softmax(logits) - log_p
    return np.stack([np.sqrt((error[..., at] ** 2).mean(-1)) for at in groups(log_p.size)], -1)


def crossings(times: Array, shares: Array, level: float = FITTED) -> Array:
    """When each column first falls to `level`, linearly between rows in log time; NaN if it never does, or from 0 on.

    Shapes (T,), (T, groups) -> (groups,).
    """
    found = np.full(shares.shape[1], np.nan)
    for column, share in enumerate(shares.T):
        below = np.flatnonzero(share <= level)
        if below.size and below[0] > 0:
            k = int(below[0])
            part = (share[k - 1] - level) / (share[k - 1] - share[k])
            ends = np.log(np.maximum(times[k - 1 : k + 1], _EARLY))
            found[column] = math.exp(ends[0] + part * (ends[1] - ends[0]))
    return found


def slope(p: Array, times: Array) -> float:
    """Least-squares slope of log time against the log of each group's mean probability."""
    means = [math.log(p[at].mean()) for at in groups(p.size)]
    return float(np.polyfit(means, np.log(times), 1)[0])


def flow(loss: Any, start: Start, *, horizon: float = 1e14) -> tuple[float, Callable[[Array], Array]]:
    """Gradient flow dz/dt = -∂D/∂z until every group's error is `STOP` of its first: its end, and t (T,) -> z (T, V).

    Backward differences of variable order, because rates differ by p² over the vocabulary.

    Raises
    ------
    RuntimeError
        If the solver gives up.
    """
    log_p, first = start.log_p.numpy(), errors(start.log_p.numpy(), start.logits.numpy())

    def gradient(deviation: Array) -> Array:
        log_q = torch.log_softmax(torch.from_numpy(log_p + deviation), -1)
        return np.asarray(loss.value_and_gradient(start.log_p.expand_as(log_q), log_q)[1])

    def jacobian(_: float, y: Array) -> Array:
        shifts = _STEP * np.eye(y.size)
        ahead, behind = np.split(gradient(np.concatenate([y + shifts, y - shifts])), 2)
        return -((ahead - behind) / (2 * _STEP)).T

    def left(_: float, y: Array) -> float:
        return float((errors(log_p, log_p + y) / first).max() - STOP)

    left.terminal = True  # type: ignore[attr-defined]
    begin = (start.logits - start.log_p).numpy()  # deviations: tolerances are relative to them
    found = solve_ivp(
        lambda _, y: -gradient(y[None])[0], (0, horizon), begin, jac=jacobian, method="BDF",
        rtol=1e-3, atol=1e-4 * float(np.abs(begin).mean()), dense_output=True, events=left,
    )  # fmt: skip
    if found.status < 0:
        raise RuntimeError(f"flow of {loss}: {found.message}")
    return float(found.t[-1]), lambda times: log_p + found.sol(times).T


def flow_times(start: Start, end: float, path: Callable[[Array], Array]) -> Array:
    """When each group is fitted along a flow, shape (groups,)."""
    times = np.geomspace(_EARLY, end, 2000)
    log_p = start.log_p.numpy()
    return crossings(times, errors(log_p, path(times)) / errors(log_p, start.logits.numpy()))


def linear_times(hessian: Array, start: Start) -> Array:
    """The same for the linear flow dζ/dt = -Hζ of the logits' deviation ζ from the teacher's, shape (groups,)."""
    p = start.log_p.exp().numpy()
    values, vectors = np.linalg.eigh(hessian)
    parts = vectors.T @ (start.logits - start.log_p).numpy()
    times = np.geomspace(_EARLY, 1e14, 4001)
    deviation = (np.exp(-np.outer(times, np.maximum(values, 0.0))) * parts) @ vectors.T
    deviation -= (deviation @ p)[:, None]  # of log q, to first order
    sizes = np.stack([np.sqrt((deviation[:, at] ** 2).mean(-1)) for at in groups(p.size)], -1)
    return crossings(times, sizes / sizes[0])


def fisher_hessian(p: Array, curvature: float) -> Array:
    """Logit Hessian at q = p of an f-divergence with κ = f''(1) (Theorem 24): κ (diag(p) - ppᵀ)."""
    return curvature * (np.diag(p) - np.outer(p, p))


def sinkhorn_hessian(p: Array, cost: Any, epsilon: float) -> Array:
    """Logit Hessian at q = p of S_ε (Theorem 26): ε p A (I - A²)⁻¹ on functions of mean zero, for a symmetric cost."""
    potentials = kd.sinkhorn(p, p, cost, epsilon, tol=1e-12).potentials
    density = np.exp((potentials.f[:, None] + potentials.g - cost.matrix().numpy()) / epsilon)
    root = np.sqrt(p)
    symmetric = root[:, None] * (density + density.T) / 2 * root - np.outer(root, root)  # the constants: eigenvalue 0
    values, vectors = np.linalg.eigh(symmetric)
    frame = root[:, None] * vectors
    return np.asarray(epsilon * (frame * (values / (1 - values**2))) @ frame.T)
