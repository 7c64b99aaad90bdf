"""Theorem 10 of chapter 02: where W1 has a gradient in the logits, and how large it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp
from scipy.spatial.distance import cdist

from kdtheory.claims.gradients import oracles
from kdtheory.claims.oracles import optimal_transport
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric

_PROOF = Anchor("02_gradients#wasserstein", sha256="86a61ce65e086e2f")


def _random_metric(rng: np.random.Generator, size: int) -> Any:
    points = rng.normal(size=(size, 2))
    return cdist(points, points)


def _gradient_is_off(sign: int) -> Any:
    """q(f - f̄) with the potential f against a central difference of the linear program's value."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        z, p, h = rng.normal(size=4), rng.dirichlet(np.ones(4)), 1e-5
        cost, q = _random_metric(rng, 4), oracles.softmax(z)
        f = optimal_transport(p, q, cost).slopes
        found = q * (f - q @ f)
        moved = [
            [optimal_transport(p, oracles.softmax(z + side * h * unit), cost).value for side in (1, -1)]
            for unit in np.eye(4)
        ]
        expected = np.array([(up - down) / (2 * h) for up, down in moved])
        return float(np.abs(sign * found - expected).max()), {"p": p.tolist(), "z": z.tolist()}

    return violation


def _attempt_gradient(sign: int) -> Evidence:
    return numeric.attempt(
        _gradient_is_off(sign),
        draws=8,
        oracle="central difference of scipy.optimize.linprog (HiGHS), V = 4, random points of the plane as metric",
        tolerance=1e-6,
        because="h = 1e-5 leaves h² = 1e-10; HiGHS solves a basis to about 1e-12, divided by 2h gives 1e-7",
        says="∇_z W1 = q(f - f̄) with the Kantorovich potential f",
    )


def _one_sided(side: str) -> sp.Expr:
    """One-sided derivative at h = 0 of W1((1/2, 1/2), softmax(h, 0)) = |q_1 - 1/2|, two tokens at distance 1."""
    h = sp.Symbol("h", real=True)
    signed = 1 / (1 + sp.exp(-h)) - sp.Rational(1, 2)
    return sp.limit((signed if side == "+" else -signed) / h, h, 0, side)


@claim(
    "gradients.w1-differentiability",
    statement=r"W_1(p, \mathrm{softmax}(z)) \text{ is continuous and differentiable in } z",
    source="zhao2024week8, advantages of Wasserstein; arjovsky2017wgan, Theorem 1",
    expected=Verdict.PROVED_IF,
    rows=("S0-19",),
    domain="a metric cost on V tokens; continuity needs no condition",
    condition="z lies outside a closed null set that contains every z with softmax(z) = p",
    uses=("gradients.chain-rule",),
    proof=_PROOF,
)
def w1_differentiability() -> list[Evidence]:
    """A maximum of finitely many smooth functions of z: smooth where one of them leads, a kink at q = p."""
    inside, outside = _one_sided("+"), _one_sided("-")
    x = sp.Symbol("x", positive=True)
    away = x * sp.diff(sp.Abs(x / (1 + x) - sp.Rational(1, 2)), x)
    return [
        exact.check(
            away, "==", sp.Rational(4, 25), at={"x": 4}, role="inside condition", says="∂W1/∂z_1 at q = (4/5, 1/5)"
        ),
        exact.check(
            inside,
            "==",
            outside,
            role="outside condition",
            says="p = q = (1/2, 1/2): the derivatives of W1 from the right and from the left agree",
        ),
        _attempt_gradient(1),
    ]


@w1_differentiability.control
def _() -> Evidence:
    """The potential with the opposite sign must not pass."""
    return _attempt_gradient(-1)


def _w1_bound_fails_by(factor: float) -> Any:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(2, 7))
        z, p, cost = rng.uniform(0, 8) * rng.normal(size=size), rng.dirichlet(np.ones(size)), _random_metric(rng, size)
        q = oracles.softmax(z)
        f = optimal_transport(p, q, cost).slopes
        left = np.delete(q, q.argmax()).sum()
        bound = factor * cost.max() * left
        return float(np.abs(q * (f - q @ f)).sum() - bound), {"p": p.tolist(), "z": z.tolist(), "cost": cost.tolist()}

    return violation


@claim(
    "gradients.w1-gradient-bound",
    statement=r"\text{Wasserstein gives more stable gradient information than KL: without overlap its gradient}"
    r"\text{ does not vanish, and it is no smaller}",
    source="zhao2024week8, advantages of Wasserstein",
    expected=Verdict.CORRECTED,
    rows=("S0-19",),
    domain=r"q = softmax(z), metric cost; right: \|\nabla_z W_1\|_1 \le 2\,\mathrm{diam}\,(1 - \max_k q_k),"
    r" \text{ while } \|\nabla_z D_{KL}\|_1 = 2\,TV",
    uses=("gradients.bounded-slopes", "gradients.fkl-bounded-in-logits"),
    proof=_PROOF,
)
def w1_gradient_bound() -> list[Evidence]:
    """Teacher (1, 0), student (1/1000, 999/1000), distance 1: W1 pulls with 999/10⁶ where KL pulls with 999/1000."""
    x = sp.Symbol("x", positive=True)
    q_1 = x / (1 + x)
    w1, kl = (sp.Abs(x * sp.diff(value, x)) for value in (1 - q_1, -sp.log(q_1)))
    epsilon = sp.Symbol("epsilon", positive=True)
    gone = sp.limit(w1.subs(x, epsilon / (1 - epsilon)), epsilon, 0, "+")
    return [
        exact.check(
            gone, ">", 0, role="refutes as written", says="the limit of |∂W1/∂z_1| without overlap is positive"
        ),
        exact.check(w1, ">=", kl, at={"x": "1/999"}, role="refutes as written", says="|∂W1/∂z_1| ≥ |∂KL/∂z_1|"),
        numeric.attempt(
            _w1_bound_fails_by(2.0),
            draws=60,
            oracle="potentials of scipy.optimize.linprog (HiGHS)",
            tolerance=1e-9,
            because="HiGHS' dual feasibility, 1e-7 at worst and 1e-12 on problems this small",
            says="‖∇_z W1‖₁ ≤ 2 diam (1 - max q)",
        ),
    ]


@w1_gradient_bound.control
def _() -> Evidence:
    """A quarter of the bound must not pass."""
    return numeric.attempt(
        _w1_bound_fails_by(0.5), draws=60, oracle="HiGHS", tolerance=1e-9, because="as above", says="a quarter of it"
    )
