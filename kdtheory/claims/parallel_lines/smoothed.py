"""Theorem 2 of chapter 01: no usable gradient between the lines, and what a little noise changes."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import sympy as sp
from scipy.integrate import simpson
from scipy.special import rel_entr
from scipy.stats import norm

from kdtheory.claims.parallel_lines.lines import JS, PROOF, attempt_partition, slope_away_from_zero, theta
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric, symbolic

_x, width = sp.Symbol("x", real=True), sp.Symbol("s", positive=True)
_SMOOTHED = Anchor("01_parallel_lines#smoothed", sha256="197c6ef5226eb659")


@cache
def gaussian_kl() -> sp.Expr:
    """KL(N(0, s²), N(θ, s²)) by integrating the densities."""
    density = sp.exp(-(_x**2) / (2 * width**2)) / sp.sqrt(2 * sp.pi * width**2)
    return sp.simplify(sp.integrate(density * ((_x - theta) ** 2 - _x**2) / (2 * width**2), (_x, -sp.oo, sp.oo)))


@claim(
    "parallel_lines.no-usable-gradient",
    statement=r"\text{RKL, FKL and JS provide no usable gradient for learning parallel lines}",
    source="zhao2024week8, second summary slide; arjovsky2017wgan, Section 2",
    expected=Verdict.PROVED_IF,
    rows=("S0-12",),
    domain="a family of laws that moves with θ",
    condition=r"the two laws are mutually singular for \theta \ne 0, as the lines are"
    " (blurred by N(0, s² I) they are not)",
    uses=("parallel_lines.jensen-shannon", "parallel_lines.kl", "parallel_lines.smoothed"),
    proof=PROOF,
)
def no_usable_gradient() -> list[Evidence]:
    """Constant or infinite for the lines; θ/s² for blurred lines, however small s is."""
    slope = sp.diff(gaussian_kl(), theta)
    at = {"theta": "1/10", "s": "1/10"}
    return [
        exact.check(slope_away_from_zero(JS), "==", 0, role="inside condition", says="d JS/dθ at θ = 1/10"),
        exact.check(slope, "==", 0, at=at, role="outside condition", says="blurred lines: d KL/dθ = 0"),
        attempt_partition("js", float(np.log(2))),
        attempt_partition("kl", np.inf),
    ]


@no_usable_gradient.control
def _() -> Evidence:
    """A gradient of the blurred KL that is independent of s must not pass."""
    return symbolic.identity(sp.diff(gaussian_kl(), theta), theta, says="d KL/dθ = θ")


def _slopes(theta: float, s: float, h: float) -> dict[str, float]:
    """d/dθ of KL, TV and JS between N(0, s²) and N(θ, s²): Simpson's rule, then a central difference."""
    up, down = (_blurred(theta + side * h, s) for side in (1, -1))
    return {kind: (up[kind] - down[kind]) / (2 * h) for kind in up}


def _blurred(theta: float, s: float) -> dict[str, float]:
    """KL, TV and JS, integrated on either side of the point where the densities cross (TV has a kink there)."""
    total = dict.fromkeys(("kl", "tv", "js"), 0.0)
    for ends in ((-9 * s, theta / 2), (theta / 2, theta + 9 * s)):  # beyond 9 s the densities are below 1e-17
        x = np.linspace(*ends, 2001)
        p, q = norm.pdf(x, 0, s), norm.pdf(x, theta, s)
        m = (p + q) / 2
        total["kl"] += simpson(rel_entr(p, q), x=x)
        total["tv"] += simpson(np.abs(p - q) / 2, x=x)
        total["js"] += simpson((rel_entr(p, m) + rel_entr(q, m)) / 2, x=x)
    return total


def _blurred_fails_by(js_factor: float) -> Any:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        theta, s = rng.uniform(0.05, 3), rng.uniform(0.3, 2)
        slope, fades = _slopes(theta, s, 1e-3), np.exp(-(theta**2) / (8 * s**2))
        errors = [
            abs(slope["kl"] - theta / s**2),
            abs(slope["tv"] - fades / (s * np.sqrt(2 * np.pi))),
            slope["js"] - js_factor * theta / s**2 * fades,
            -slope["js"],
        ]
        return float(max(errors)), {"theta": theta, "s": s}

    return violation


def _attempt_blurred(js_factor: float) -> Evidence:
    return numeric.attempt(
        _blurred_fails_by(js_factor),
        draws=60,
        oracle="central difference of scipy.integrate.simpson",
        tolerance=1e-5,
        because="h = 1e-3 leaves h²/6 times a third derivative, below 40 for s ≥ 0.3",
        says="slopes of KL, TV and JS between blurred lines",
    )


@claim(
    "parallel_lines.smoothed",
    statement=r"KL = \frac{\theta^2}{2 s^2},\ \frac{d\,KL}{d\theta} = \frac{\theta}{s^2};\quad \frac{d\,TV}{d\theta} ="
    r" \frac{e^{-\theta^2/8s^2}}{s\sqrt{2\pi}};\quad 0 < \frac{d\,JS}{d\theta} \le \frac{\theta}{4 s^2}"
    r" e^{-\theta^2/8s^2};\quad W = |\theta|",
    source="kdtheory, Theorem 2",
    expected=Verdict.PROVED,
    domain="both lines blurred by N(0, s² I), θ > 0",
    proof=_SMOOTHED,
)
def smoothed() -> list[Evidence]:
    """Blurring cures KL and leaves JS and TV with a gradient that dies like exp(-θ²/8s²)."""
    return [
        symbolic.identity(gaussian_kl(), theta**2 / (2 * width**2), says="KL by integrating the densities"),
        _attempt_blurred(0.25),
    ]


@smoothed.control
def _() -> Evidence:
    """Half the bound on the slope of JS must not pass."""
    return _attempt_blurred(0.125)
