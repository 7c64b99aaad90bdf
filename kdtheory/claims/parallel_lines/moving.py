"""Theorems 5 and 6 of chapter 01: the argument returns where the student moves points: atoms, hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import sympy as sp
from scipy.integrate import trapezoid
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp
from scipy.stats import norm, wasserstein_distance

from kdtheory.claims.parallel_lines import smoothed
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric

_ATOMS = Anchor("01_parallel_lines#moving-atoms", sha256="3c6c417d7019eb95")
_HIDDEN = Anchor("01_parallel_lines#hidden-states", sha256="f30b5ff3de5e0f7d")


def overlap(points: Sequence[Any], weights: Sequence[Any], others: Sequence[Any], masses: Sequence[Any]) -> sp.Expr:
    """1 - TV of two finitely supported laws in rationals: Σ min over the points that they share."""
    first = {sp.sympify(x): sp.sympify(w) for x, w in zip(points, weights, strict=True)}
    second = {sp.sympify(x): sp.sympify(w) for x, w in zip(others, masses, strict=True)}
    return sum((sp.Min(w, second[x]) for x, w in first.items() if x in second), sp.Integer(0))


def _atoms_fail_by(slope: float) -> Any:
    """Random atoms: no overlap at a random shift, W1 1-Lipschitz, slope 1 far out, |θ| for equal laws."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        x, y = rng.normal(size=3), rng.normal(size=4)
        p, q = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(4))
        theta, step = rng.normal() * 3, rng.uniform(0.1, 1)

        def distance(shift: float) -> float:
            return float(wasserstein_distance(x, y + shift, p, q))

        far = x.max() - y.min() + rng.uniform(0, 2)
        gaps = [
            abs(distance(theta + step) - distance(theta)) - step,
            abs(distance(far + step) - distance(far) - slope * step),
            abs(distance(far) - (far + q @ y - p @ x)),
            abs(wasserstein_distance(x, x + theta, p, p) - abs(theta)),
            float(np.isin(x, y + theta).any()),
        ]
        return float(max(gaps)), {"x": x.tolist(), "y": y.tolist(), "theta": theta}

    return violation


def _attempt_atoms(slope: float = 1.0) -> Evidence:
    return numeric.attempt(
        _atoms_fail_by(slope),
        draws=200,
        oracle="scipy.stats.wasserstein_distance",
        tolerance=1e-12,
        because="float64 sums of at most 7 terms below 10",
        says="W1 is 1-Lipschitz in the shift, with slope 1 beyond all differences; atoms do not meet",
    )


_TWO = ["1/3", "2/3"]


@claim(
    "parallel_lines.returns-moving-atoms",
    statement=r"\text{for a student that moves its atoms by } \theta:\ TV = 1,\ JS = \log 2,\ KL = \infty"
    r"\text{ for all but finitely many } \theta, \text{ while } W_1 \text{ has slope 1}",
    source="kdtheory, Theorem 5",
    expected=Verdict.PROVED_IF,
    domain="finitely supported laws on the line",
    condition="the student moves points; if it re-weights the teacher's points all four are informative",
    uses=("parallel_lines.earth-mover",),
    proof=_ATOMS,
)
def returns_moving_atoms() -> list[Evidence]:
    """Atoms 0 and 1 shifted by 1/10: no overlap. The same atoms re-weighted: overlap."""
    moved = [sp.Rational(1, 10), sp.Rational(11, 10)]
    return [
        exact.check(overlap([0, 1], _TWO, moved, _TWO), "==", 0, role="inside condition", says="moved: 1 - TV"),
        exact.check(
            overlap([0, 1], _TWO, [0, 1], ["2/3", "1/3"]),
            "==",
            0,
            role="outside condition",
            says="re-weighted to (2/3, 1/3): 1 - TV = 0",
        ),
        _attempt_atoms(),
    ]


@returns_moving_atoms.control
def _() -> Evidence:
    """A slope of 0.9 must not pass."""
    return _attempt_atoms(0.9)


def _noisy_kl(g: Any, h: Any, s: float) -> float:
    """KL between the equal-weight mixtures of N(g, s²) and N(h, s²), by the trapezoidal rule on ±9 s."""
    ends = min(g.min(), h.min()) - 9 * s, max(g.max(), h.max()) + 9 * s
    x = np.linspace(*ends, 4001)
    logs = [logsumexp(norm.logpdf(x[:, None], centres, s), axis=1) - np.log(centres.size) for centres in (g, h)]
    return float(trapezoid(np.exp(logs[0]) * (logs[0] - logs[1]), x=x))


def _hidden_fail_by(bound: float) -> Any:
    """Affine hidden states with random parameters: no value in common, W1 ≤ mean distance, noisy KL bounded."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        contexts = int(rng.integers(2, 7))
        features, g = rng.normal(size=(contexts, 4)), rng.normal(size=contexts)
        h = g + rng.choice([0.0, 0.3]) * (features @ rng.normal(size=4)) + rng.normal()
        distances, s = np.abs(g[:, None] - h), float(rng.uniform(0.5, 2))
        w1 = float(distances[linear_sum_assignment(distances)].mean())
        paired = float(((g - h) ** 2).mean()) / (2 * s**2)
        both = max(_noisy_kl(g, h, s), _noisy_kl(h, g, s))
        gaps = (w1 - float(np.abs(g - h).mean()), float(distances.min() == 0), both - bound * paired)
        return float(max(gaps)), {"g": g.tolist(), "h": h.tolist(), "s": s}

    return violation


def _attempt_hidden(bound: float = 1.0) -> Evidence:
    return numeric.attempt(
        _hidden_fail_by(bound),
        draws=60,
        oracle="scipy.optimize.linear_sum_assignment; scipy.integrate.trapezoid on 4001 points",
        tolerance=1e-10,
        because="the trapezoidal rule is exact to rounding for smooth functions that vanish at both ends",
        says="hidden values in common have measure zero, W1 ≤ E|h - g|, noisy KL ≤ E|h - g|²/2s²",
    )


@claim(
    "parallel_lines.returns-hidden-states",
    statement=r"\text{the laws of hidden vectors } g(X) \text{ and } h_\theta(X) = A \varphi(X) + b \text{ have}"
    r"\ TV = 1,\ JS = \log 2,\ KL = \infty \text{ for almost all } (A, b)",
    source="kdtheory, Theorem 6",
    expected=Verdict.PROVED_IF,
    domain="countably many contexts; W_1 ≤ E|h - g|, Lipschitz in the hidden vectors",
    condition="no noise is added; with N(0, s² I) on both both KL divergences are at most E|h - g|²/2s²",
    uses=("parallel_lines.returns-moving-atoms", "parallel_lines.smoothed"),
    proof=_HIDDEN,
)
def returns_hidden_states() -> list[Evidence]:
    """Teacher's vectors (0, 0), (1, 0), student's lifted by 1/10: no overlap. With noise of width 1: KL is 1/200."""
    lifted = [(0, sp.Rational(1, 10)), (1, sp.Rational(1, 10))]
    shared = [point for point in lifted if point in [(0, 0), (1, 0)]]
    noisy = smoothed.gaussian_kl().subs({smoothed.theta: sp.Rational(1, 10), smoothed.width: 1})
    return [
        exact.check(len(shared), "==", 0, role="inside condition", says="lifted by 1/10: hidden vectors in common"),
        exact.check(noisy, "==", sp.oo, role="outside condition", says="with noise of width 1: KL = ∞"),
        exact.check(noisy, "<=", "1/200", says="with noise of width 1: KL against E|h - g|²/2s²"),
        _attempt_hidden(),
    ]


@returns_hidden_states.control
def _() -> Evidence:
    """A quarter of the squared distance must not bound the noisy KL."""
    return _attempt_hidden(0.25)
