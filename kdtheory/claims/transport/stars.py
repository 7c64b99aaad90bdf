"""Section 7.5 of chapter 07: the debiased sharp value of star metrics, all metrics on three tokens among them."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp

from kdtheory.claims.transport import regularised
from kdtheory.claims.transport.regularised import Array, solve
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, numeric, symbolic


def star_cost(arms: Array) -> Array:
    """C_ij = r_i + r_j off the diagonal, 0 on it: shape (V, V) from shape (V,)."""
    return np.asarray((arms[:, None] + arms) * (1 - np.eye(arms.size)))


def _excess(p: Array, q: Array, cost: Array, epsilon: float) -> tuple[Array, float]:
    """Γ_ii(p, q) less the mean of the own plans, shape (V,), and the debiased sharp value, by scaling."""
    cross, first, second = (solve(a, b, cost, epsilon) for a, b in ((p, q), (p, p), (q, q)))
    diagonal = np.diag(cross.plan) - (np.diag(first.plan) + np.diag(second.plan)) / 2
    return diagonal, cross.sharp - (first.sharp + second.sharp) / 2


def _stars_fail(kind: str) -> Evidence:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = 3 if kind == "three tokens" else int(rng.integers(2, 6))
        p, q = (np.exp(-rng.exponential(scale=2, size=size)) for _ in range(2))
        p, q, epsilon = p / p.sum(), q / q.sum(), float(np.exp(rng.uniform(-1, 1)))
        arms = rng.uniform(0, 1, size=size) * (rng.uniform(size=size) < 0.8)
        cost = star_cost(arms)
        if kind == "three tokens":  # a random metric, by its own definition
            points = rng.normal(size=(3, 2))
            cost = np.linalg.norm(points[:, None] - points, axis=-1)
        elif kind == "squares":  # tokens at 0, 3, 4: arms 12, -3, 4, and the known laws
            p, q = (np.array(law) / 10_000 for law in ((9995, 4, 1), (9995, 1, 4)))
            cost, epsilon = star_cost(np.array([12.0, -3.0, 4.0])), float(rng.uniform(1.9, 2.1))
        diagonal, value = _excess(p, q, cost, epsilon)
        return max(float(diagonal.max()), -value), regularised.point(p, q, cost, epsilon)

    return numeric.attempt(
        violation,
        draws=2 if kind == "squares" else 40,
        oracle="scaling in float64, from the definition",
        tolerance=1e-12,
        because="plans scaled to 1e-14",
        says=f"{kind}: Γ_ii(p, q) ≤ ½ Γ_ii(p, p) + ½ Γ_ii(q, q), debiased sharp ≥ 0",
    )


def _two_squares(last: int) -> Evidence:
    """N̄ ȳ − (s_1 + δ)(s_2 − δ) as a sum of two squares, with y^k = a_k², N_k = b_k², s_k = a_k b_k."""
    a, b, c, d = sp.symbols("a_1 a_2 b_1 b_2", positive=True)
    delta = (a**2 - b**2) / 2
    left = (c**2 + d**2) * (a**2 + b**2) / 4 - (a * c + delta) * (b * d - delta)
    right = (delta + (a * c - b * d) / 2) ** 2 + (c * b - d * a) ** 2 / last
    return symbolic.identity(left, right, role="attempted refutation", says=f"the two squares, the last over {last}")


@claim(
    "transport.sharp-debiased-star",
    statement=r"C_{ij} = r_i + r_j\ (i \ne j),\ C_{ii} = 0,\ r \ge 0:\ \Gamma_{ii}(p, q) \le \tfrac12 \Gamma_{ii}(p, p)"
    r" + \tfrac12 \Gamma_{ii}(q, q), \text{ so } \text{sharp}(p, q) - \tfrac12 \text{sharp}(p, p) - \tfrac12"
    r" \text{sharp}(q, q) \ge 0",
    source="kdtheory, Theorem 27",
    expected=Verdict.PROVED,
    domain="all V, p, q, ε > 0: the 0-1 cost, every metric on three tokens; 0 only at p = q if all r_i > 0",
    uses=("transport.debiased-values", "transport.entropic-programme"),
    proof=Anchor("07_transport#sharp-debiased-star", sha256="ef7595614ec07c4d"),
)
def sharp_debiased_star() -> list[Evidence]:
    """The sum of squares in symbols; random stars, arms of length 0 included, and random triangles."""
    return [_two_squares(4), _stars_fail("stars"), _stars_fail("three tokens")]


@sharp_debiased_star.control
def _() -> list[Evidence]:
    """A wrong square, and the squared distances of three tokens on a line (one arm negative), must not pass."""
    return [_two_squares(2), _stars_fail("squares")]
