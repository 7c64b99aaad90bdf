"""Theorem 5 of chapter 02: total variation's two forms, its sampled gradient, and overestimated tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp

from kdtheory.claims.gradients import oracles
from kdtheory.divergences import RECORDS, derive
from kdtheory.divergences.symbols import p, q
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric, symbolic

_TV = RECORDS["tvd"]
_PROOF = Anchor("02_gradients#total-variation", sha256="0060120f9006e3f5")
_gap = sp.Symbol("gap", positive=True)
_BELOW, _ABOVE = {p: q + _gap}, {q: p + _gap}  # q < p, and q > p


def _summand(factor: sp.Expr) -> list[Evidence]:
    """1 - Σ min(p, q) summed over the simplex is Σ ((p + q)/2 - min(p, q)): compare the summands on both sides of p."""
    return [
        symbolic.identity((p + q) / 2 - sp.Min(p, q), factor * sp.Abs(p - q), given=region, says=f"summand, {says}")
        for region, says in ((_BELOW, "q < p"), (_ABOVE, "q > p"))
    ]


def _forms_differ(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    point = oracles.draw(rng)
    excess = _events(point.p.size) @ (point.p - point.q)
    forms = [1 - np.minimum(point.p, point.q).sum(), np.abs(point.p - point.q).sum() / 2, excess.max()]
    return float(np.ptp(forms)), point.point()


def _events(size: int) -> Any:
    """Every event as a row of zeros and ones, shape (2^V, V)."""
    return np.arange(2**size)[:, None] >> np.arange(size) & 1


@claim(
    "gradients.tv-forms",
    statement=r"D_{TV}(p, q) = 1 - \sum_y \min(p_y, q_y) = \tfrac12 \sum_y |p_y - q_y|",
    source="lossdesigns, total variation distance; ji2023tailr, Eq. 3",
    expected=Verdict.PROVED,
    rows=("S1-34",),
    domain="p, q on the simplex",
    proof=_PROOF,
)
def tv_forms() -> list[Evidence]:
    """min(a, b) = (a + b - |a - b|)/2, summed; an exhaustive search over events gives the same number."""
    return [
        *_summand(sp.Rational(1, 2)),
        numeric.attempt(
            _forms_differ,
            draws=30,
            oracle="largest p(A) - q(A) over all events A",
            tolerance=1e-14,
            because="float64 sums of at most 12 probabilities",
            says="the two forms and the definition by events",
        ),
    ]


@tv_forms.control
def _() -> list[Evidence]:
    """Without the factor ½ it must not pass."""
    return _summand(sp.Integer(1))


def _sampled_is_off(factor: float) -> Any:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        point = oracles.draw(rng)
        jacobian = np.array(
            [
                oracles.derivatives(lambda moved, y=y: oracles.softmax(moved)[y], point.z)  # type: ignore[misc]
                for y in range(point.z.size)
            ]
        )
        weight = np.where(point.q < point.p, -factor / point.p, 0.0)
        found = (point.p * weight) @ jacobian
        return float(np.abs(found - oracles.logit_gradient("tvd", point.p, point.z)).max()), point.point()

    return violation


def _attempt_sampled(factor: float, says: str) -> Evidence:
    return numeric.attempt(
        _sampled_is_off(factor),
        draws=200,
        oracle=oracles.COMPLEX_STEP,
        tolerance=1e-13,
        because="float64 sums of at most 12 terms below 1",
        says=says,
    )


@claim(
    "gradients.tv-sampled",
    statement=r"\nabla_\theta D_{TV}(p, q_\theta) \approx -p(y^*)^{-1} \nabla_\theta q_\theta(y^*) \text{ if }"
    r" q_\theta(y^*) < p(y^*), \text{ and } 0 \text{ if } q_\theta(y^*) \ge p(y^*)",
    source="lossdesigns, total variation distance; ji2023tailr",
    expected=Verdict.PROVED,
    rows=("S1-35",),
    domain="where no q_y = p_y with p_y > 0 (almost every z); ≈ means: unbiased for y* ~ p",
    uses=("gradients.one-drawn-token",),
    proof=_PROOF,
)
def tv_sampled() -> list[Evidence]:
    """No factor ½ is missing: ½ sign(q - p) and -1[q < p] differ by the constant ½, which no gradient sees."""
    slope = derive.slope(_TV)
    return [
        symbolic.identity(slope, sp.Rational(1, 2) - 1, given=_BELOW, says="slope on q < p is ½ - 1, derived"),
        symbolic.identity(slope, sp.Rational(1, 2) - 0, given=_ABOVE, says="slope on q > p is ½ - 0, derived"),
        _attempt_sampled(1.0, "E_p of the sampled gradient is ∇TV"),
    ]


@tv_sampled.control
def _() -> Evidence:
    """With ½ in front of the one-sided form it must not pass: that is half the gradient."""
    return _attempt_sampled(0.5, "E_p of half the sampled gradient is ∇TV")


@claim(
    "gradients.tv-coefficient",
    statement=r"\text{TV updates more conservatively than KL: } p^{-1} 1[q < p] < q^{-1}",
    source="lossdesigns, total variation distance; ji2023tailr",
    expected=Verdict.PROVED,
    rows=("S1-36",),
    domain="p, q > 0",
    scope="scalar identity",
    uses=("gradients.tv-sampled", "gradients.fkl-sampled"),
    proof=_PROOF,
)
def tv_coefficient() -> list[Evidence]:
    """On q < p the difference 1/q - 1/p is (p - q)/(pq) > 0; elsewhere TV's coefficient is 0."""
    fkl, tv = (-derive.sampled(RECORDS[name]).from_teacher for name in ("fkl", "tvd"))
    # A token drawn from p: the two-sided weights ½ sign(p - q)/p, shifted by the constant ½ that makes them one-sided.
    one_sided = tv + 1 / (2 * p)
    return [
        symbolic.identity(fkl - one_sided, _gap / (q * (q + _gap)), given=_BELOW, says="difference on q < p"),
        symbolic.identity(fkl - one_sided, 1 / q, given=_ABOVE, says="difference on q > p"),
    ]


@tv_coefficient.control
def _() -> Evidence:
    """The two-sided weight ½ sign(p - q)/p taken for the one-sided one must not pass."""
    fkl, tv = (-derive.sampled(RECORDS[name]).from_teacher for name in ("fkl", "tvd"))
    return symbolic.identity(fkl - tv, 1 / q, given=_ABOVE, says="difference on q > p, two-sided weight")


def _overestimated_fails_by(sign: int) -> Any:
    """∂TV/∂z_i = q_i Q on q_i > p_i and -q_i (1 - Q) on q_i < p_i, with Q the student's mass on q < p."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        point = oracles.draw(rng)
        below = point.q < point.p
        mass = point.q[below].sum()
        expected = np.where(below, -point.q * (1 - mass), sign * point.q * mass)
        return float(np.abs(oracles.logit_gradient("tvd", point.p, point.z) - expected).max()), point.point()

    return violation


def _attempt_overestimated(sign: int) -> Evidence:
    return numeric.attempt(
        _overestimated_fails_by(sign),
        draws=200,
        oracle=oracles.COMPLEX_STEP,
        tolerance=1e-13,
        because="float64 sums of at most 12 terms below 1",
        says="∂TV/∂z_i = q_i Q on q_i > p_i",
    )


@claim(
    "gradients.tv-overestimated",
    statement=r"\text{a token whose probability is overestimated } (q(y^*) \ge p(y^*)) \text{ is no longer updated}",
    source="lossdesigns, total variation distance; ji2023tailr",
    expected=Verdict.PROVED_IF,
    rows=("S1-37",),
    domain="q = softmax(z); where no q_y = p_y",
    condition="the update meant is the one that the drawn token y* itself causes",
    uses=("gradients.tv-sampled",),
    proof=_PROOF,
)
def tv_overestimated() -> list[Evidence]:
    """Drawing the token causes nothing; drawing any other one, and so the exact gradient, lowers its logit."""
    x = sp.Symbol("x", positive=True)
    exact_gradient = x * sp.diff(sp.Abs(x / (1 + x) - sp.Rational(1, 2)), x)
    weight = derive.sampled(_TV).from_teacher - 1 / (2 * p)
    return [
        symbolic.identity(weight, 0, role="inside condition", given=_ABOVE, says="weight of a drawn token with q > p"),
        exact.check(
            exact_gradient,
            "==",
            0,
            at={"x": 4},
            role="outside condition",
            says="p = (1/2, 1/2), q = (4/5, 1/5): the exact ∂TV/∂z_1 of the overestimated token is 0",
        ),
        _attempt_overestimated(1),
    ]


@tv_overestimated.control
def _() -> Evidence:
    """An exact gradient of 0 on overestimated tokens must not pass."""
    return _attempt_overestimated(0)
