"""Section 7.4 of chapter 07: the student that each of the three functionals likes best, and the pull at the teacher."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import mpmath as mp
import numpy as np
import sympy as sp

from kdtheory.claims.transport import regularised
from kdtheory.claims.transport.functionals import central
from kdtheory.claims.transport.regularised import MPMATH, Array
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric


def softmin_law(p: Array, cost: Array, epsilon: float) -> Array:
    """Minimiser of the entropic value over q: the teacher's mass spread by the rows of exp(−C/ε), normalised."""
    kernel = np.exp(-cost / epsilon)
    return np.asarray(p @ (kernel / kernel.sum(1, keepdims=True)))


def codebook_law(p: Array, cost: Array, epsilon: float, *, steps: int = 20_000) -> Array:
    """Minimiser of the relative value over q: the fixed point of q_j ← q_j Σ_i p_i K_ij / (Kq)_i."""
    kernel, q = np.exp(-cost / epsilon), np.full(p.size, 1 / p.size)
    for _ in range(steps):
        new = q * (kernel.T @ (p / (kernel @ q)))
        if np.abs(new - q).max() <= 1e-15:
            break
        q = new
    return np.asarray(new)


def _minimum_missed(name: str, minimiser: Any) -> Evidence:
    """Laws near the minimiser and far from it: the value, by definition, is nowhere smaller."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p = 0.9 * rng.dirichlet(np.ones(3)) + 0.1 / 3
        cost = rng.uniform(0.3, 2, size=(3, 3)) * (1 - np.eye(3))
        epsilon = float(rng.uniform(0.5, 1.5))
        best = np.maximum(minimiser(p, cost, epsilon), 1e-13)
        rival = best * np.exp(rng.normal(size=3) * rng.choice([0.01, 0.1, 1.0])) + rng.choice([0.0, 1e-3])
        reached, other = (getattr(regularised.solve(p, law / law.sum(), cost, epsilon), name) for law in (best, rival))
        return reached - other, {"p": p.tolist(), "cost": cost.tolist(), "epsilon": epsilon, "rival": rival.tolist()}

    return numeric.attempt(
        violation,
        draws=30,
        oracle="the value by definition, scaling in float64",
        tolerance=1e-11,
        because="zero masses of the minimiser replaced by 1e-13; values to 1e-13",
        says=f"nothing lies below the {name} value at its minimiser",
    )


def _stationary(weights: str) -> list[Evidence]:
    """Tokens 0, 1, 3 on a line, K = 2^−|i−j|: p ∝ K1 is kept by the entropic value, p ∝ K⁻¹1 by the relative one."""
    at = (0, 1, 3)
    kernel = sp.Matrix(3, 3, lambda i, j: sp.Rational(1, 2) ** abs(at[i] - at[j]))
    ones = sp.ones(3, 1)
    sums, inverse = kernel * ones, kernel.LUsolve(ones)
    chosen = {"matching": (sums, inverse), "swapped": (inverse, sums)}[weights]
    entropic, relative = (column / sum(column) for column in chosen)
    spread = kernel.T * entropic.multiply_elementwise(sums.applyfunc(lambda x: 1 / x))
    ratios = kernel.T * relative.multiply_elementwise((kernel * relative).applyfunc(lambda x: 1 / x))
    first = sum((a - b) ** 2 for a, b in zip(spread, entropic, strict=True))
    second = sum((a - 1) ** 2 for a in ratios)
    return [
        exact.check(first, "==", 0, says="the entropic value keeps p ∝ K1"),
        exact.check(second, "==", 0, says="the relative value keeps p ∝ K⁻¹1"),
    ]


@claim(
    "transport.functional-minimisers",
    statement=r"\arg\min_q: \text{ entropic } q_j = \sum_i p_i K_{ij} / (K 1)_i;\ \text{relative } \arg\min_q -\sum_i"
    r" p_i \log (K q)_i;\ K \text{ symmetric, invertible}: q = p > 0 \text{ minimises the entropic value iff } p"
    r" \propto K 1,\ \text{the relative one iff } p \propto K^{-1} 1",
    source="kdtheory, Theorem 16",
    expected=Verdict.PROVED,
    domain="p > 0, ε > 0, K = exp(−C/ε)",
    uses=("transport.three-functionals",),
    proof=Anchor("07_transport#functional-minimisers", sha256="dc574840120b961e"),
)
def functional_minimisers() -> list[Evidence]:
    """Rational kernels at the condition, and rivals of the minimisers, near and far."""
    return [
        *_stationary("matching"),
        _minimum_missed("entropic", softmin_law),
        _minimum_missed("relative", codebook_law),
    ]


@functional_minimisers.control
def _() -> list[Evidence]:
    """The two conditions, the two minimisers, and the teacher itself, must not pass for one another."""
    return [
        *_stationary("swapped"),
        _minimum_missed("relative", softmin_law),
        _minimum_missed("entropic", lambda p, cost, epsilon: p),
    ]


def two_token_teacher(first: Fraction, second: Fraction, k: Fraction) -> dict[str, Any]:
    """At q = p: a rational teacher from the scalings α = (first, second), and the slope differences 1 − 2.

    K = ((1, k), (k, 1)), ε = 1/log(1/k), C = 1 − I; p_i = α_i (Kα)_i / α'Kα.
    """
    alpha = sp.Matrix([first, second])
    spread = sp.Matrix([[1, k], [k, 1]]) * alpha
    mass = (alpha.T * spread)[0]
    p = [alpha[i] * spread[i] / mass for i in (0, 1)]
    theta = 1 / sp.Rational(k) ** 2
    root = sp.sqrt((1 + 2 * (theta - 1) * p[0]) ** 2 - 4 * theta * (theta - 1) * p[0] ** 2)
    return {
        "p": p,
        "relative": sp.log(spread[1] / spread[0]) / sp.log(1 / sp.Rational(k)),
        "entropic": sp.log(alpha[0] / alpha[1]) / sp.log(1 / sp.Rational(k)),
        "sharp": (1 - 2 * p[0]) / root,
    }


def _signs(relations: dict[str, str]) -> list[Evidence]:
    """α = (2, 1), k = 1/2: the teacher is (5/7, 2/7). Slopes against differences of the values, then their signs."""
    found = two_token_teacher(Fraction(2), Fraction(1), Fraction(1, 2))
    with mp.workdps(regularised.DIGITS):
        p = [mp.mpf(int(x.p)) / int(x.q) for x in found["p"]]
        slopes = [
            -central(
                lambda law, n=name: getattr(regularised.precise(p, law, ((0, 1), (1, 0)), 1 / mp.log(2)), n), _as(p)
            )
            for name in relations
        ]
    measured = numeric.compare(
        [float(found[name]) for name in relations],
        [float(slope[0]) for slope in slopes],
        oracle=f"central differences, {MPMATH}",
        tolerance=1e-12,
        because="h = 1e-8 squared times third derivatives; 30 digits",
        role="attempted refutation",
        says="derivative along e_1 − e_2 at q = p = (5/7, 2/7)",
    )
    signs = [
        exact.check(found[name], relation, 0, says=f"derivative of {name} towards the more probable token")  # type: ignore[arg-type]
        for name, relation in relations.items()
    ]
    return [measured, *signs]


def _as(p: list[Any]) -> Array:
    return np.array([float(x) for x in p])


@claim(
    "transport.opposite-gradients",
    statement=r"V = 2,\ C = c (1 - I),\ q = p,\ p_1 > p_2:\ \text{along } e_1 - e_2 \text{ the relative and the sharp"
    r" value fall, the entropic value rises}",
    source="kdtheory, Theorem 17",
    expected=Verdict.PROVED,
    domain="V = 2, c, ε > 0; all three derivatives are 0 at the uniform teacher",
    uses=("transport.functional-gradients",),
    proof=Anchor("07_transport#opposite-gradients", sha256="f65951f693dc2eff"),
)
def opposite_gradients() -> list[Evidence]:
    """A rational teacher: the three derivatives in closed form, by differences of the values, and their signs."""
    return _signs({"relative": "<", "sharp": "<", "entropic": ">"})


@opposite_gradients.control
def _() -> list[Evidence]:
    """One sign for all three must not pass."""
    return _signs({"relative": "<", "sharp": "<", "entropic": "<"})
