"""Oracles of chapter 03, independent of our divergences and dynamics: φ typed by hand, SciPy's flows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from kdtheory.claims.gradients.oracles import softmax

Array = NDArray[np.float64]
Slopes = Callable[[Array], Array]  # q -> g, shape (V,)
r = sp.Symbol("r", positive=True)
ALPHA, BETA, AMARI = sp.Rational(1, 10), sp.Rational(3, 10), sp.Rational(7, 10)
"""Parameters of skew KL and skew reverse KL, Jensen-Shannon, and Amari where no other is named."""
SCIPY = "scipy.integrate.solve_ivp (LSODA) on slopes typed by hand, event located by root finding"
INTEGRATED = "LSODA with rtol = atol = 1e-10 per step; over some hundred steps the time keeps 7 digits"


def phi(name: str, x: Any, log: Callable[[Any], Any] = sp.log, alpha: Any = None) -> Any:
    """φ(x) of Theorem 4, typed by hand, in whatever arithmetic x and the logarithm bring."""
    a, b = ALPHA if alpha is None else alpha, BETA if alpha is None else alpha
    if name in ("amari", "hellinger2"):
        a = AMARI if alpha is None else alpha
    if not isinstance(x, sp.Expr):
        a, b = float(a), float(b)
    m = a + (1 - a) * x
    return {
        "fkl": lambda: x,
        "rkl": lambda: log(x) - 1,
        "jsd": lambda: (1 - b) * log(b * x + 1 - b),
        "tvd": lambda: np.sign(x - 1) / 2 if not isinstance(x, sp.Expr) else sp.sign(x - 1) / 2,
        "skl": lambda: (1 - a) * x / (a * x + 1 - a),
        "srkl": lambda: log(m) - (1 - a) * x / m,
        "neyman": lambda: 1 - 2 / x,
        "hellinger2": lambda: x ** (sp.Rational(1, 2) if isinstance(x, sp.Expr) else 0.5) / 2 - 1,
        "amari": lambda: x**a / a - 1 / (a * (1 - a)),
        "chi2": lambda: x**2 + 1,
    }[name]()


def slopes(name: str, p: Array, alpha: Any = None) -> Slopes:
    """g = -φ(p/q) for a teacher; total variation's limit where p = 0 comes out by itself."""
    return lambda q: -np.asarray(phi(name, p / q, np.log, alpha), dtype=np.float64)


def line_slopes(p: Array, q: Array) -> Array:
    """A slope of W1 in q for tokens at 0, 1, …, V - 1: minus the sum of the surplus's signs to the left."""
    return -np.concatenate([[0.0], np.cumsum(np.sign(np.cumsum(q - p)[:-1]))])


def escape_time(
    slope: Slopes, start: Array, margin: Callable[[Array], float], *, natural: bool = False, method: str = "LSODA"
) -> float:
    """Time at which `margin`(z) first becomes 0 from below, under the (natural) gradient flow of the slopes."""

    def velocity(_: float, z: Array) -> Array:
        q = softmax(z)
        g = slope(q)
        downhill = -(g - q @ g)
        return downhill if natural else q * downhill

    def crossing(_: float, z: Array) -> float:
        return margin(z)

    crossing.terminal = True  # type: ignore[attr-defined]
    found = solve_ivp(velocity, (0, 1e12), start, method=method, events=crossing, rtol=1e-10, atol=1e-10)
    if found.status != 1:
        raise RuntimeError(f"no event: {found.message}")
    return float(found.t_events[0][0])


def two_tokens(slope: Slopes, gap: float, **options: Any) -> float:
    """Time until q_1 = 1/2 from the logits (0, gap)."""
    return escape_time(slope, np.array([0.0, gap]), lambda z: z[0] - z[1], **options)


def leaving(k: int) -> Callable[[Array], float]:
    """Margin of the event q_k <= 1/2."""
    return lambda z: float(0.5 - softmax(z)[k])


def confident(rng: np.random.Generator, size: int, gap: float) -> tuple[Array, int]:
    """Logits of a student that is sure of one token k, which leads the others by about `gap`; and k."""
    z, k = rng.normal(size=size), int(rng.integers(size))
    z[k] = z.max() + gap
    return z, k
