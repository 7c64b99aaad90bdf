"""Section 4.7 of chapter 04: e- and m-geodesics, Pythagoras for KL, projections, the lines of natural flows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import sympy as sp
from scipy.integrate import quad, solve_ivp
from scipy.optimize import minimize_scalar

from kdtheory.claims.gradients import oracles
from kdtheory.claims.oracles import exact_kl
from kdtheory.divergences import RECORDS, derive
from kdtheory.divergences.symbols import alpha, p, q
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric, symbolic

_PROJECTIONS = Anchor("04_geometry#projections", sha256="1089f9cb1ae01951")


def _law(*weights: int) -> list[sp.Rational]:
    return [sp.Rational(weight, sum(weights)) for weight in weights]


def _three_points(sign: int) -> Evidence:
    teacher, middle, last = ([sp.Symbol(f"{name}{i}", positive=True) for i in (1, 2, 3)] for name in "pqr")
    cross = sum((a - b) * sp.log(b / c) for a, b, c in zip(teacher, middle, last, strict=True))
    return symbolic.identity(
        exact_kl(teacher, last),
        exact_kl(teacher, middle) + exact_kl(middle, last) + sign * cross,
        role="attempted refutation",
        scope="V = 3",
        says="KL(p, r) = KL(p, q) + KL(q, r) + Σ (p - q) log(q/r)",
    )


_PAIRS = _law(3, 1, 1, 7)  # a law of two bits; its marginals are (1/3, 2/3) both
_PRODUCT = _law(1, 2, 2, 4)
_OTHER = _law(2, 3, 8, 12)  # (2/5, 3/5) and (1/5, 4/5) in the other order: any product law


def _adds_up(middle: list[sp.Rational]) -> Evidence:
    return exact.check(
        exact_kl(_PAIRS, _OTHER),
        "==",
        exact_kl(_PAIRS, middle) + exact_kl(middle, _OTHER),
        says="two dependent bits p, product of their marginals q, another product r: KL(p, r) = KL(p, q) + KL(q, r)",
    )


@claim(
    "geometry.pythagoras",
    statement=r"KL(p, r) = KL(p, q) + KL(q, r) + \textstyle\sum_i (p_i - q_i) \log \tfrac{q_i}{r_i},\ \text{the last"
    r" term being } -\langle p - q,\ q(\log \tfrac rq - E_q \log \tfrac rq)\rangle_q:\ \text{KL adds up iff the"
    r" m-geodesic to } p \text{ and the e-geodesic to } r \text{ are orthogonal at } q",
    source="kdtheory, Theorem 18; amari2000methods, Section 3.4",
    expected=Verdict.PROVED,
    domain="p, q, r in the open simplex",
    uses=("geometry.fisher-rao",),
    proof=Anchor("04_geometry#pythagoras", sha256="b6c6c1e61c8909d7"),
)
def pythagoras() -> list[Evidence]:
    """The identity in symbols; a right, an obtuse and an acute angle in rationals."""
    start, centre = _law(1, 3), _law(1, 1)
    obtuse = exact.check(
        exact_kl(_law(3, 1), start),
        ">",
        exact_kl(_law(3, 1), centre) + exact_kl(centre, start),
        says="q between p and r: KL(p, r)",
    )
    acute = exact.check(
        exact_kl(_law(1, 7), start),
        "<",
        exact_kl(_law(1, 7), centre) + exact_kl(centre, start),
        says="p and r on one side: KL(p, r)",
    )
    return [_three_points(1), _adds_up(_PRODUCT), obtuse, acute]


@pythagoras.control
def _() -> list[Evidence]:
    """The last term with the other sign, and a middle point that is not the product of the marginals, must not pass."""
    return [_three_points(-1), _adds_up(_law(1, 1, 1, 1))]


def _mixture(a: Any, b: Any, t: float) -> Any:
    return (1 - t) * a + t * b


def _power(a: Any, b: Any, t: float) -> Any:
    weights = a ** (1 - t) * b**t
    return weights / weights.sum()


def _projection_fails_by(line: Callable[..., Any], reverse: bool) -> Any:
    """E a segment of the given kind; q the projection of a fixed point on it; the inequality at its other points."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        a, b, fixed = rng.dirichlet(np.full(int(rng.integers(3, 6)), 0.7), size=3) + 1e-4
        a, b, fixed = (row / row.sum() for row in (a, b, fixed))
        kl = oracles.DEFINITIONS["fkl"]
        target = (lambda t: kl(line(a, b, t), fixed)) if reverse else (lambda t: kl(fixed, line(a, b, t)))
        inside = minimize_scalar(target, bounds=(0, 1), method="bounded", options={"xatol": 1e-10}).x
        middle = line(a, b, min((0.0, 1.0, float(inside)), key=target))
        gaps = []
        for other in (a, b, line(a, b, 0.3)):
            first, last = (other, fixed) if reverse else (fixed, other)
            gaps.append(kl(first, middle) + kl(middle, last) - kl(first, last))
        return float(max(gaps)), {"a": a.tolist(), "b": b.tolist(), "fixed": fixed.tolist()}

    return violation


def _attempt_projection(line: Callable[..., Any], reverse: bool) -> Evidence:
    kind = "mixture segment, KL(·, r)" if reverse else "exponential segment, KL(p, ·)"
    return numeric.attempt(
        _projection_fails_by(line, reverse),
        draws=60,
        oracle="scipy.optimize.minimize_scalar along the segment",
        tolerance=1e-6,
        because="a minimiser known to 1e-8 (half of float64's digits), times slopes of at most log 1e4",
        says=f"Pythagorean inequality on a {kind}",
    )


def _halves(reverse: bool, far: tuple[int, int], role: Any) -> Evidence:
    """Two tokens, E = {1/2 <= x < 1} or that with one more point; the projection on both is (1/2, 1/2)."""
    fixed, middle, other = _law(1, 3), _law(1, 1), _law(*far)
    first, last = (other, fixed) if reverse else (fixed, other)
    return exact.check(
        exact_kl(first, last),
        ">=",
        exact_kl(first, middle) + exact_kl(middle, last),
        role=role,
        says=f"fixed (1/4, 3/4), minimiser (1/2, 1/2), point ({other[0]}, {other[1]}) of E: the inequality",
    )


def _is_minimiser(reverse: bool) -> Evidence:
    fixed, middle, other = _law(1, 3), _law(1, 1), _law(1, 63)
    value = (lambda x: exact_kl(x, fixed)) if reverse else (lambda x: exact_kl(fixed, x))
    return exact.check(value(middle), "<", value(other), says="(1/2, 1/2) is nearer to (1/4, 3/4) than (1/64, 63/64)")


@claim(
    "geometry.projections",
    statement=r"q \text{ minimises } KL(\cdot, r) \text{ on } E \Rightarrow KL(p, r) \ge KL(p, q) + KL(q, r)\ \forall"
    r" p \in"
    r" E;\quad q \text{ minimises } KL(p, \cdot) \text{ on } E \Rightarrow KL(p, r) \ge KL(p, q) + KL(q, r)\ \forall r"
    r" \in E",
    source="kdtheory, Theorem 19; csiszar1967information",
    expected=Verdict.PROVED_IF,
    domain="E in the open simplex",
    condition="E holds the m-geodesics (first statement) or the e-geodesics (second) between its points",
    uses=("geometry.pythagoras",),
    proof=_PROJECTIONS,
)
def projections() -> list[Evidence]:
    """E = {x >= 1/2} and, outside the condition, the same with the point 1/64 added."""
    inside = [_halves(reverse, (3, 1), "inside condition") for reverse in (True, False)]
    outside = [_halves(reverse, (1, 63), "outside condition") for reverse in (True, False)]
    attempts = [_attempt_projection(_mixture, True), _attempt_projection(_power, False)]
    return [*inside, *outside, _is_minimiser(True), _is_minimiser(False), *attempts]


@projections.control
def _() -> list[Evidence]:
    """Segments of the wrong kind must not pass: a mixture for KL(p, ·), an exponential one for KL(·, r)."""
    return [_attempt_projection(_mixture, False), _attempt_projection(_power, True)]


_EXPONENT = {"fkl": 1.0, "amari": 0.7, "renyi": 2.0, "chi2": 2.0, "hellinger2": 0.5}
"""Exponent of the line, at the parameters of the oracle (Amari 0.7, Rényi 2)."""


def _off_the_line(exponent: Callable[[float], float]) -> Any:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        name = str(rng.choice(list(_EXPONENT)))
        teacher, start = rng.dirichlet(np.full(4, 2.0), size=2)
        time = float(rng.uniform(0.3, 2.0))

        def flow(_: float, z: Any) -> Any:
            return -oracles.slope(name, teacher, oracles.softmax(z))

        arrived = oracles.softmax(solve_ivp(flow, (0, time), np.log(start), rtol=1e-10, atol=1e-12).y[:, -1])
        power = exponent(_EXPONENT[name])
        frame = np.stack([start**power, teacher**power], axis=1)
        weights, *_ = np.linalg.lstsq(frame, arrived**power, rcond=None)
        off = np.abs(frame @ weights - arrived**power).max() / np.abs(arrived**power).max()
        backwards = max(-weights.min(), 0.0)
        return float(max(off, backwards)), {"loss": name, "p": teacher.tolist(), "q0": start.tolist(), "t": time}

    return violation


def _attempt_line(exponent: Callable[[float], float]) -> Evidence:
    return numeric.attempt(
        _off_the_line(exponent),
        draws=20,
        oracle="scipy.integrate.solve_ivp on slopes by complex step of the definitions typed again",
        tolerance=1e-7,
        because="RK45 with relative tolerance 1e-10 per step, at most some hundred steps",
        says="natural flows of FKL, Amari 0.7, Rényi 2, χ² and Hellinger lie between q0 and p on their power line",
    )


def _linear_in_power(sign: int) -> Evidence:
    """d(q^α)/dt = α q^(α-1) (-q)(g - ḡ) with the derived slope g; S stands for Σ p^α q^(1-α), so that ḡ = -S/α."""
    total = sp.Symbol("S", positive=True)
    slope = derive.slope(RECORDS["amari"])
    velocity = alpha * q ** (alpha - 1) * -q * (slope + total / alpha)
    return symbolic.identity(
        velocity, p**alpha - sign * total * q**alpha, role="attempted refutation", says="(q^α)' = p^α - S q^α"
    )


def _time_on_the_line() -> Evidence:
    """Amari 0.7 from (1/2, 1/4, 1/4): s/(1 - s) read off the solution against ∫ e^{∫S}, and at least t."""
    teacher, start, time, power = np.array([0.1, 0.2, 0.7]), np.array([0.5, 0.25, 0.25]), 1.5, 0.7

    def flow(_: float, z: Any) -> Any:
        return -oracles.slope("amari", teacher, oracles.softmax(z))

    path = solve_ivp(flow, (0, time), np.log(start), rtol=1e-11, atol=1e-13, dense_output=True).sol

    def total(t: float) -> float:
        return float((teacher**power * oracles.softmax(path(t)) ** (1 - power)).sum())

    integral = quad(lambda tau: np.exp(quad(total, 0, tau)[0]), 0, time)[0]
    frame = np.stack([start**power, teacher**power], axis=1)
    weights, *_ = np.linalg.lstsq(frame, oracles.softmax(path(time)) ** power, rcond=None)
    return numeric.compare(
        weights[1] / weights[0],
        integral,
        oracle="scipy.integrate.quad, twice",
        tolerance=1e-8,
        because="RK45 at 1e-11 with its interpolant of fourth order",
        relative_to=integral,
        says="place on the line, Amari 0.7 at t = 3/2,",
    )


@claim(
    "geometry.natural-flow-lines",
    statement=r"\text{the natural-gradient flow of Amari's } \alpha\text{-divergence is } q(t)^\alpha \propto (1 - s)"
    r" q_0^\alpha + s p^\alpha,\ \tfrac{s}{1 - s} = \int_0^t e^{\int_0^\tau S} d\tau \ge t:\ \alpha = 1"
    r" \text{ (forward KL) the m-geodesic, } \alpha = \tfrac12 \text{ (Hellinger) the Fisher-Rao geodesic; R\'enyi the"
    r" same lines}",
    source="kdtheory, Theorem 20",
    expected=Verdict.PROVED,
    domain="p, q_0 in the open simplex, α > 0",
    uses=("geometry.natural-gradient",),
    proof=Anchor("04_geometry#natural-flow-lines", sha256="ab19f2d176e4fb07"),
)
def natural_flow_lines() -> list[Evidence]:
    """The equation of q^α in symbols; five losses integrated."""
    return [_linear_in_power(1), _attempt_line(lambda power: power), _time_on_the_line()]


@natural_flow_lines.control
def _() -> list[Evidence]:
    """The sign of S, and lines straight in q^(α + 1/2), must not pass."""
    return [_linear_in_power(-1), _attempt_line(lambda power: power + 0.5)]
