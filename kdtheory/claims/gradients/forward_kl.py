"""Theorem 4 of chapter 02: forward KL's gradient, and the two reproaches against it that softmax answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp
from scipy.special import logsumexp

from kdtheory.claims.gradients import oracles
from kdtheory.claims.gradients.chain_rule import estimate
from kdtheory.claims.oracles import exact_kl
from kdtheory.divergences import RECORDS, derive
from kdtheory.divergences.symbols import q
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric, symbolic

_FKL = RECORDS["fkl"]
_PROOF = Anchor("02_gradients#forward-kl", sha256="1face3f420eb2de5")
_epsilon = sp.Symbol("epsilon", positive=True)


def _sampled(law: str, says: str) -> Evidence:
    """E[-q(y)⁻¹ ∂q(y)/∂z_1] over the law of y, against the derivative of the written-out sum, V = 3."""
    student = oracles.symbolic_softmax(3)
    weights = [-1 / b for b in student.q]
    return symbolic.identity(
        estimate(weights, student.p if law == "p" else student.q, student, 0),
        student.derivative(exact_kl(student.p, student.q), 0),
        role="attempted refutation",
        scope="V = 3",
        says=says,
    )


@claim(
    "gradients.fkl-sampled",
    statement=r"\nabla_\theta D_{KL}(p, q_\theta) = E_p\big[\nabla_\theta \log \tfrac{p}{q_\theta}\big]"
    r" = -E_p[q_\theta^{-1} \nabla_\theta q_\theta] \approx -q_\theta(y^*)^{-1} \nabla_\theta q_\theta(y^*)",
    source="lossdesigns, KLD gradient (three slides); ji2023tailr",
    expected=Verdict.PROVED,
    rows=("S1-32",),
    domain="q > 0; ≈ means: unbiased for y* ~ p",
    uses=("gradients.one-drawn-token",),
    proof=_PROOF,
)
def fkl_sampled() -> list[Evidence]:
    """The teacher does not depend on θ, so only -log q is differentiated."""
    weight = symbolic.identity(
        derive.sampled(_FKL).from_teacher, -1 / q, says="weight of a token drawn from p, derived"
    )
    return [weight, _sampled("p", "the expectation over y* ~ p is the gradient, V = 3")]


@fkl_sampled.control
def _() -> Evidence:
    """A token drawn from the student with the same weight must not pass as unbiased."""
    return _sampled("q", "the expectation over y* ~ q")


def _size_of_score(q_y: str) -> sp.Expr:
    """‖q_y⁻¹ ∇_z q_y‖_∞ of two tokens, differentiated through the softmax, at q_y = x/(1 + x)."""
    x = sp.Symbol("x", positive=True)
    value = x / (1 + x)
    return (x * sp.diff(value, x) / value).subs(x, sp.Rational(q_y) / (1 - sp.Rational(q_y)))


def _score_exceeds(factor: float) -> Any:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        point = oracles.draw(rng, spread=float(rng.uniform(0.1, 12)))
        y = int(rng.integers(point.z.size))
        score = oracles.derivatives(lambda moved: np.log(oracles.softmax(moved)[y]), point.z)
        rest = np.delete(point.q, y).sum()  # 1 - q_y without cancellation
        return float(np.linalg.norm(score) - factor * rest), point.point(y=y)

    return violation


@claim(
    "gradients.inverse-q-cancels",
    statement=r"\text{the size of } q(y^*)^{-1} \nabla q(y^*) \text{ is inversely proportional to } q(y^*),"
    r" \text{ so low-quality tokens dominate as } q(y^*) \to 0",
    source="lossdesigns, KLD gradient (three slides); ji2023tailr",
    expected=Verdict.CORRECTED,
    rows=("S1-33",),
    domain=r"q = softmax(z): \|q_y^{-1} \nabla_z q_y\|_2 = \|e_y - q\|_2 \le \sqrt2 (1 - q_y)",
    uses=("gradients.fkl-sampled",),
    proof=_PROOF,
)
def inverse_q_cancels() -> list[Evidence]:
    """From q = 1/10 to q = 1/1000 the coefficient grows a hundredfold, the logit gradient by 11 percent."""
    return [
        exact.check(
            _size_of_score("1/1000") / _size_of_score("1/10"),
            "==",
            100,
            role="refutes as written",
            says="two tokens, size at q(y*) = 1/1000 over size at 1/10, equal to the ratio of the coefficients,",
        ),
        numeric.attempt(
            _score_exceeds(2**0.5),
            draws=1000,
            oracle="complex step of log softmax",
            tolerance=1e-14,
            because="float64 norm of at most 12 terms of size 1",
            says="‖∇_z log q_y‖ ≤ √2 (1 - q_y)",
        ),
    ]


@inverse_q_cancels.control
def _() -> Evidence:
    """The bound with 1 in place of √2 must not pass."""
    return numeric.attempt(
        _score_exceeds(1.0),
        draws=1000,
        oracle="complex step",
        tolerance=1e-14,
        because="as above",
        says="bound 1 - q_y",
    )


def _not_q_minus_p(factor: float) -> Any:
    """By how much the gradient is not factor · (q - p), or ‖q - p‖_∞ ≥ p_min - e^(-KL) fails."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        point = oracles.draw(rng, spread=float(rng.uniform(0.1, 12)))
        gradient = oracles.logit_gradient("fkl", point.p, point.z)
        kl = oracles.DEFINITIONS["fkl"](point.p, point.q)
        error = np.abs(gradient - factor * (point.q - point.p)).max()
        return float(max(error, point.p.min() - np.exp(-kl) - np.abs(gradient).max())), point.point()

    return violation


@claim(
    "gradients.fkl-bounded-in-logits",
    statement=r"\text{without overlap } D_{KL}(p, q) = \infty, \text{ hence an unstable, vanishing gradient}",
    source="zhao2024week8, first summary slide",
    expected=Verdict.CORRECTED,
    rows=("S0-04",),
    domain=r"q = softmax(z): \nabla_z D_{KL} = q - p, \|q - p\|_1 = 2\,TV \le 2,"
    r" \|q - p\|_\infty \ge \min_{p_y > 0} p_y - e^{-D_{KL}}",
    uses=("gradients.chain-rule",),
    proof=_PROOF,
)
def fkl_bounded_in_logits() -> list[Evidence]:
    """Teacher (1, 0), student (ε, 1 - ε): as ε → 0 the divergence becomes infinite, the gradient (-1, 1)."""
    x = sp.Symbol("x", positive=True)
    value = -sp.log(x / (1 + x))
    gradient = sp.simplify(x * sp.diff(value, x)).subs(x, _epsilon / (1 - _epsilon))
    return [
        exact.check(sp.limit(-sp.log(_epsilon), _epsilon, 0, "+"), "==", sp.oo, says="KL in the limit of no overlap"),
        exact.check(
            gradient,
            "==",
            0,
            at={"epsilon": "1/1000"},
            role="refutes as written",
            says="∂KL/∂z_1 vanishes",
        ),
        exact.check(sp.limit(gradient, _epsilon, 0, "+"), "==", -1, says="∂KL/∂z_1 in the limit of no overlap"),
        numeric.attempt(
            _not_q_minus_p(1.0),
            draws=300,
            oracle=oracles.COMPLEX_STEP,
            tolerance=1e-12,
            because=oracles.ROUNDING,
            says="∇_z KL = q - p, and it stays away from 0 when KL is large",
        ),
    ]


@fkl_bounded_in_logits.control
def _() -> Evidence:
    """The opposite sign, p - q, must not pass."""
    return numeric.attempt(
        _not_q_minus_p(-1.0),
        draws=20,
        oracle="complex step",
        tolerance=1e-12,
        because="as above",
        says="∇_z KL = p - q",
    )


def _not_smooth(sign: int) -> Evidence:
    student = oracles.symbolic_softmax(3)
    z = [sp.log(x) for x in student.x]
    entropy = sum((a * sp.log(a) for a in student.p), sp.Integer(0))
    closed = entropy - oracles.expectation(student.p, z) + sign * sp.log(sum(student.x))
    return symbolic.identity(
        exact_kl(student.p, student.q), closed, role="attempted refutation", scope="V = 3", says="closed form"
    )


def _chord_is_below(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    a, b = rng.normal(size=(2, 6)) * 5
    weight = rng.uniform()
    chord = weight * logsumexp(a) + (1 - weight) * logsumexp(b)
    return float(logsumexp(weight * a + (1 - weight) * b) - chord), {"a": a.tolist(), "b": b.tolist(), "weight": weight}


@claim(
    "gradients.fkl-smooth-convex",
    statement=r"D_{KL}(p, \mathrm{softmax}(z)) = \log\textstyle\sum_k e^{z_k} - \sum_i p_i z_i + \sum_i p_i \log p_i"
    r"\ \text{ is finite, convex and } C^\infty \text{ in } z \in \mathbb R^V",
    source="kdtheory, Theorem 4",
    expected=Verdict.PROVED,
    domain="every p, zeros included",
    proof=_PROOF,
)
def fkl_smooth_convex() -> list[Evidence]:
    """Log-sum-exp minus a linear function."""
    return [
        _not_smooth(1),
        numeric.attempt(
            _chord_is_below,
            draws=300,
            oracle="scipy.special.logsumexp",
            tolerance=1e-13,
            because="float64 values up to 20",
            says="convexity",
        ),
    ]


@fkl_smooth_convex.control
def _() -> Evidence:
    """The normaliser with the wrong sign must not pass."""
    return _not_smooth(-1)
