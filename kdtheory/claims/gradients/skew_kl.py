"""Theorem 6 of chapter 02: skew KL, and what skewing does to the two directions of KL and to total variation."""

from __future__ import annotations

from typing import Any

import sympy as sp

from kdtheory.claims.gradients import oracles
from kdtheory.claims.gradients.chain_rule import estimate
from kdtheory.divergences import RECORDS, derive
from kdtheory.divergences.symbols import alpha, p, q
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, definition, exact, symbolic

_SKL, _SRKL = RECORDS["skl"], RECORDS["srkl"]
_PROOF = Anchor("02_gradients#skew-kl", sha256="c106578cb74b0f1a")
_rest = sp.Symbol("rest", positive=True)  # 1 - α
_WEIGHT = {alpha: 1 - _rest}
_mixed = alpha * p + (1 - alpha) * q

definition(
    "gradients.skl-definition",
    statement=r"D_{SKL}^{(\alpha)}(p, q_\theta) = D_{KL}(p, \alpha p + (1 - \alpha) q_\theta)",
    source="lossdesigns, skew KLD slide; ko2024distillm, Eq. 3",
    rows=("S1-39",),
)
definition(
    "gradients.srkl-definition",
    statement=r"D_{SKL}^{(\alpha)}(q_\theta, p) = D_{KL}(q_\theta, \alpha q_\theta + (1 - \alpha) p)",
    source="lossdesigns, skew KLD slide; ko2024distillm, Section 3.1",
    rows=("S1-42",),
)


def _expectation(a: Any, factor: Any) -> Evidence:
    """E_p of the drawn token's gradient against the derivative of the definition, V = 2, at one α."""
    student = oracles.symbolic_softmax(2)
    mixed = [a * s + (1 - a) * t for s, t in zip(student.p, student.q, strict=True)]
    value = sum((s * sp.log(s / w) for s, w in zip(student.p, mixed, strict=True)), sp.Integer(0))
    return symbolic.identity(
        estimate([-factor / w for w in mixed], student.p, student, 0),
        student.derivative(value, 0),
        role="attempted refutation",
        scope="V = 2",
        says=f"E_p of the drawn token's gradient, alpha = {a}",
    )


@claim(
    "gradients.skl-slope",
    statement=r"\nabla_\theta D_{SKL}^{(\alpha)}(p, q_\theta) = -(1 - \alpha) \tilde q_\theta(y^*)^{-1} \nabla_\theta"
    r" q_\theta(y^*),\quad \tilde q_\theta = \alpha p + (1 - \alpha) q_\theta",
    source="lossdesigns, skew KLD slide; ko2024distillm",
    expected=Verdict.PROVED,
    rows=("S1-40",),
    domain="q > 0, 0 < α < 1; read as its neighbours on the slide: unbiased for y* ~ p",
    uses=("gradients.one-drawn-token",),
    proof=_PROOF,
)
def skl_slope() -> list[Evidence]:
    """Chain rule through the mixture, then division by p."""
    weight = derive.written_out(_SKL, derive.sampled(_SKL).from_teacher)
    return [
        symbolic.identity(weight, -(1 - alpha) / _mixed, says="weight of a token drawn from p, derived"),
        _expectation(sp.Rational(1, 10), sp.Rational(9, 10)),
    ]


@skl_slope.control
def _() -> Evidence:
    """Without the inner derivative 1 - α it must not pass."""
    return _expectation(sp.Rational(1, 10), sp.Integer(1))


@claim(
    "gradients.skl-coefficient",
    statement=r"\text{its coefficient is smaller than that of KLD: } (1 - \alpha) / \tilde q < 1 / q,"
    r" \text{ so updates are steadier}",
    source="lossdesigns, skew KLD slide; ko2024distillm",
    expected=Verdict.PROVED,
    rows=("S1-41",),
    domain="p, q > 0, 0 < α < 1",
    scope="scalar identity",
    uses=("gradients.skl-slope", "gradients.fkl-sampled"),
    proof=_PROOF,
)
def skl_coefficient() -> list[Evidence]:
    """1/q - (1-α)/q̃ = αp/(q q̃), and (1-α)/(αp) - (1-α)/q̃ = (1-α)² q/(αp q̃): both positive."""
    weight = -derive.written_out(_SKL, derive.sampled(_SKL).from_teacher).subs(_WEIGHT)
    mixed, left = _mixed.subs(_WEIGHT), 1 - _rest
    return [
        symbolic.identity(1 / q - weight, left * p / (q * mixed), says="KL's coefficient minus the skewed one"),
        symbolic.identity(
            _rest / (left * p) - weight, _rest**2 * q / (left * p * mixed), says="the bound (1-α)/(αp) minus it"
        ),
        exact.check(
            sp.limit((q * weight).subs({_rest: sp.Rational(9, 10), p: 1}), q, 0, "+"),
            "==",
            0,
            says="the price: size q·(1-α)/q̃ of the drawn token's logit gradient as q → 0 (p = 1, α = 1/10; KL's is 1)",
        ),
    ]


@skl_coefficient.control
def _() -> Evidence:
    """The weights of teacher and student exchanged in the mixture must not pass."""
    weight = -derive.written_out(_SKL, derive.sampled(_SKL).from_teacher)
    exchanged = (1 - alpha) * p + alpha * q
    return symbolic.identity(1 / q - weight, alpha * p / (q * exchanged), says="difference of the coefficients")


def _swapped(record: Any) -> sp.Expr:
    return record.summand_in_p_and_q.subs({p: q, q: p}, simultaneous=True)


@claim(
    "gradients.skew-both-directions",
    statement=r"\text{unlike TVD, the skew can be applied to KLD and to RKLD}",
    source="lossdesigns, skew KLD slide",
    expected=Verdict.PROVED,
    rows=("S1-45",),
    domain="p, q > 0, 0 < α < 1",
    scope="scalar identity",
    uses=("gradients.skl-definition", "gradients.srkl-definition"),
    proof=_PROOF,
)
def skew_both_directions() -> list[Evidence]:
    """TV has one direction, and skewing it only scales it; skewing KL's two directions gives two divergences."""
    tv = RECORDS["tvd"].summand_in_p_and_q
    skewed = tv.subs(q, _mixed).subs(_WEIGHT)
    gap = sp.Symbol("gap", positive=True)
    at = {"p": "1/2", "q": "4/5", "alpha": "1/10"}
    forward, reverse = (
        record.summand_in_p_and_q + record.summand_in_p_and_q.subs({p: 1 - p, q: 1 - q}, simultaneous=True)
        for record in (_SKL, _SRKL)
    )
    return [
        symbolic.identity(tv, _swapped(RECORDS["tvd"]), given={p: q + gap}, says="TV(p, q) = TV(q, p)"),
        symbolic.identity(skewed, _rest * tv, given={p: q + gap}, says="TV(p, αp + (1-α)q) = (1-α) TV(p, q)"),
        symbolic.identity(_SRKL.summand_in_p_and_q, _swapped(_SKL), says="SRKL(p, q) = SKL(q, p)"),
        exact.check(forward, ">", reverse, at=at, says="two tokens: SKL > SRKL, so they are two divergences,"),
    ]


@skew_both_directions.control
def _() -> Evidence:
    """SKL(p, q) = SKL(q, p) must not pass: then the skew would have one direction too."""
    return symbolic.identity(_SKL.summand_in_p_and_q, _swapped(_SKL), says="SKL(p, q) = SKL(q, p)")
