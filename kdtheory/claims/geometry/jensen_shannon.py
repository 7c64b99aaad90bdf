"""Theorems 5 and 6 of chapter 04: Jensen-Shannon between two functions of total variation, and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp
from scipy.special import softmax

from kdtheory.claims.geometry import distances as d
from kdtheory.claims.gradients.oracles import derivatives
from kdtheory.claims.oracles import exact_js
from kdtheory.divergences.symbols import beta, p, q
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, symbolic

_PROOF = Anchor("04_geometry#js-tv", sha256="a634cafaec56545d")
_GRADIENT = Anchor("04_geometry#js-gradient", sha256="fbe69a1b41ded813")
_SLIDE = "lossdesigns, Jensen-Shannon divergence"
_HALF, _CORNER = ["1/2", "1/2"], [1, 0]


def _summand() -> sp.Expr:
    """The summand of JSD_β = β KL(p, m) + (1 - β) KL(q, m) with the mixture written out."""
    m = beta * p + (1 - beta) * q
    return beta * p * sp.log(p / m) + (1 - beta) * q * sp.log(q / m)


def _swapped(expression: sp.Expr) -> sp.Expr:
    return expression.subs({p: q, q: p}, simultaneous=True)


@claim(
    "geometry.js-symmetric",
    statement=r"JS(p, q) = \tfrac12 KL(p, \tfrac{p+q}{2}) + \tfrac12 KL(q, \tfrac{p+q}{2}) \text{ is symmetric}",
    source=_SLIDE,
    expected=Verdict.PROVED,
    rows=("S1-48",),
    domain="p, q > 0 (zeros by continuity)",
    scope="scalar identity",
    proof=_PROOF,
)
def js_symmetric() -> list[Evidence]:
    """Each summand is symmetric at β = ½; in general exchanging the arguments exchanges the weights."""
    half = {beta: sp.Rational(1, 2)}
    return [
        symbolic.identity(_summand().subs(half), _swapped(_summand().subs(half)), says="summand at β = ½, exchanged"),
        symbolic.identity(_summand(), _swapped(_summand().subs(beta, 1 - beta)), says="JSD_β(p, q) = JSD_{1-β}(q, p)"),
        exact.check(
            exact_js(_HALF, _CORNER), "==", exact_js(_CORNER, _HALF), role="attempted refutation", says="at a zero"
        ),
    ]


@js_symmetric.control
def _() -> Evidence:
    """At β = 1/3 it must not be symmetric."""
    third = {beta: sp.Rational(1, 3)}
    return symbolic.identity(_summand().subs(third), _swapped(_summand().subs(third)), says="summand at β = 1/3")


def _psi(u: float) -> float:
    return float(sum(x * np.log(x) for x in (1 + u, 1 - u) if x > 0)) / 2


def _bounds_fail_by(power: float) -> d.Fails:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        teacher, student = d.pair(rng)
        if rng.random() < 0.2:  # constant u: equality on the left
            u = rng.uniform(0, 1)
            teacher, student = np.array([1 + u, 1 - u]) / 2, np.array([1 - u, 1 + u]) / 2
        t, value = min(d.tv(teacher, student), 1.0), d.js(teacher, student)
        low, high = _psi(t), float(np.log(2)) * t**power
        return max(t**2 / 2 - low, low - value, value - high), d.point(teacher, student)

    return violation


def _attempt_bounds(power: float = 1.0) -> Evidence:
    return d.attempt(_bounds_fail_by(power), "½ TV² ≤ ψ(TV) ≤ JS ≤ TV log 2", draws=500)


@claim(
    "geometry.js-against-tv",
    statement=r"\tfrac12 TV^2 \le \psi(TV) \le JS \le TV \log 2,\quad"
    r"\psi(u) = \tfrac12[(1+u)\log(1+u) + (1-u)\log(1-u)]",
    source="kdtheory, Theorem 5",
    expected=Verdict.PROVED,
    domain="all p, q; nats",
    uses=("geometry.js-symmetric",),
    proof=_PROOF,
)
def js_against_tv() -> list[Evidence]:
    """JS and TV are means of ψ(u) and u under one law, and ψ is convex from 0 to log 2."""
    u = sp.Symbol("u", positive=True)
    psi = ((1 + u) * sp.log(1 + u) + (1 - u) * sp.log(1 - u)) / 2
    w, v = sp.symbols("w v", positive=True)
    summand = _summand().subs(beta, sp.Rational(1, 2))
    apart = summand.subs({p: w * (1 + u), q: w * (1 - u)}, simultaneous=True)
    return [
        symbolic.identity(apart, w * psi, given={u: 1 / (1 + v)}, says="summand at w(1 ± u) = w ψ(u), 0 < u < 1"),
        _attempt_bounds(),
    ]


@js_against_tv.control
def _() -> Evidence:
    """TV² log 2 as an upper bound must not pass."""
    return _attempt_bounds(2.0)


def _extremes_fail(anywhere: bool) -> d.Fails:
    """JS = log 2 iff no token is shared (anywhere: iff one token is not shared)."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        teacher, student = d.pair(rng)
        if rng.random() < 0.4:
            cut = int(rng.integers(1, teacher.size))
            teacher = np.where(np.arange(teacher.size) < cut, teacher + 0.1, 0.0)
            student = np.where(np.arange(teacher.size) < cut, 0.0, student + 0.1)
            teacher, student = teacher / teacher.sum(), student / student.sum()
        apart = (teacher * student == 0) & (teacher + student > 0)
        alone = bool(apart.any()) if anywhere else bool((teacher * student == 0).all())
        at_top = abs(d.js(teacher, student) - np.log(2)) < 1e-14
        return float(at_top != alone), d.point(teacher, student)

    return violation


def _attempt_extremes(anywhere: bool) -> Evidence:
    where = "a token" if anywhere else "every token"
    return d.attempt(_extremes_fail(anywhere), f"JS = log 2 exactly if {where} has p q = 0", tolerance=0.0)


@claim(
    "geometry.js-disjoint",
    statement=r"p(x) q(x) = 0 \text{ and } p(x) + q(x) \ne 0 \text{ imply } JS = \log_2",
    source=_SLIDE,
    expected=Verdict.PROVED_IF,
    rows=("S1-49",),
    domain=r"all p, q; \log_2 \text{ is read as } \log 2 \text{ nats, which is 1 bit}",
    condition="it holds for every x that carries mass",
    uses=("geometry.js-against-tv",),
    proof=_PROOF,
)
def js_disjoint() -> list[Evidence]:
    """All tokens apart: log 2. One token apart: less."""
    return [
        exact.check(exact_js([1, 0], [0, 1]), "==", sp.log(2), role="inside condition", says="p = (1, 0), q = (0, 1)"),
        exact.check(
            exact_js(_HALF, _CORNER),
            "==",
            sp.log(2),
            role="outside condition",
            says="p = (1/2, 1/2), q = (1, 0), where p q = 0 only at the second token: JS = log 2",
        ),
        _attempt_extremes(False),
    ]


@js_disjoint.control
def _() -> Evidence:
    """log 2 as soon as one token is apart must not pass."""
    return _attempt_extremes(True)


@claim(
    "geometry.js-strictly-between",
    statement=r"p(x) q(x) \ne 0 \text{ implies } 0 < JS < \log 2",
    source=_SLIDE,
    expected=Verdict.CORRECTED,
    rows=("S1-50",),
    domain="right: 0 < JS < log 2 if and only if p ≠ q and p(x) q(x) ≠ 0 for at least one x",
    uses=("geometry.js-against-tv",),
    proof=_PROOF,
)
def js_strictly_between() -> list[Evidence]:
    """Equal laws overlap everywhere and have JS = 0; one shared token keeps JS below log 2."""
    return [
        exact.check(exact_js(_HALF, _HALF), ">", 0, role="refutes as written", says="p = q = (1/2, 1/2): JS > 0"),
        exact.check(exact_js(_HALF, _CORNER), "<", sp.log(2), says="one shared token suffices"),
        _attempt_extremes(False),
        _attempt_bounds(),
    ]


@js_strictly_between.control
def _() -> Evidence:
    """JS > 0 at p = q must not pass."""
    return exact.check(exact_js(_HALF, _HALF), ">", 0, says="JS at p = q")


def _gradient_fails_by(factor: float) -> d.Fails:
    """‖∇_z JS‖₁ ≤ factor · δ log(2(V - 1)/δ), by complex steps, and > 0 away from p."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(2, 8))
        z, teacher = rng.uniform(0.1, 6) * rng.normal(size=size), d.law(rng, size, zeros=False)
        if rng.random() < 0.5:  # a sure teacher on the token that the student finds least likely
            teacher = np.full(size, 1e-12)
            teacher[z.argmin()] += 1 - teacher.sum()
        student = softmax(z)

        def loss(moved: d.Array) -> Any:
            weights = np.exp(moved - moved.real.max())
            at = weights / weights.sum()
            m = (teacher + at) / 2
            return (teacher * np.log(teacher / m) + at * np.log(at / m)).sum() / 2

        size_of_gradient = float(np.abs(derivatives(loss, z)).sum())
        left = float(np.delete(student, student.argmax()).sum())
        bound = factor * left * float(np.log(2 * (size - 1) / left))
        return max(size_of_gradient - bound, -size_of_gradient), {"p": teacher.tolist(), "z": z.tolist()}

    return violation


def _attempt_gradient(factor: float = 1.0) -> Evidence:
    return d.attempt(
        _gradient_fails_by(factor),
        "‖∇_z JS‖₁ ≤ δ log(2(V - 1)/δ)",
        oracle="complex step of the definition",
    )


@claim(
    "geometry.js-gradient-without-overlap",
    statement=r"\text{if two distributions do not overlap, the gradient of JS vanishes and it no longer measures}"
    r"\text{ their similarity}",
    source=_SLIDE,
    expected=Verdict.PROVED_IF,
    rows=("S1-51",),
    domain=r"right for a softmax: JS < \log 2,\ \nabla JS \ne 0 \text{ for } q \ne p,\ "
    r"\|\nabla_z JS\|_1 \le \delta \log(2(V-1)/\delta),\ \delta = 1 - \max q",
    condition="the supports are disjoint and stay so (moving atoms); under a softmax the gradient is small,"
    " of the order Δ exp(-Δ), and not 0",
    uses=("geometry.js-disjoint", "gradients.chain-rule"),
    proof=_GRADIENT,
)
def js_gradient_without_overlap() -> list[Evidence]:
    """Atoms that never meet: constant. Teacher (1, 0) and q_1 = 1/1000: small, and not zero."""
    x = sp.Symbol("x", positive=True)
    q_1 = x / (1 + x)
    value = (sp.log(2 / (1 + q_1)) + q_1 * sp.log(2 * q_1 / (1 + q_1)) + (1 - q_1) * sp.log(2)) / 2
    entry = x * sp.diff(value, x)
    e = sp.Rational(1, 1000)
    apart = [exact_js([1, 0, 0], [0, *split]) for split in (["1/2", "1/2"], ["1/3", "2/3"])]
    return [
        exact.check(apart[0], "==", apart[1], role="inside condition", says="disjoint supports: JS at two students"),
        exact.check(
            entry,
            "==",
            -e * (1 - e) * sp.log(1 + 1 / e) / 2,
            at={"x": "1/999"},
            says="teacher (1, 0), q_1 = 1/1000: ∂JS/∂z_1 against -½ ε(1 - ε) log(1 + 1/ε)",
        ),
        exact.check(entry, "==", 0, at={"x": "1/999"}, role="outside condition", says="the same: ∂JS/∂z_1 = 0"),
        _attempt_gradient(),
    ]


@js_gradient_without_overlap.control
def _() -> Evidence:
    """A third of the bound must not pass."""
    return _attempt_gradient(1 / 3)
