"""Section 4.10 of chapter 04: transport is piecewise linear in q, a metric near the teacher, and has a kink there."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from flint import arb
from scipy.optimize import linprog
from scipy.sparse.csgraph import shortest_path

from kdtheory.claims.gradients import oracles
from kdtheory.claims.oracles import optimal_transport
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, interval, numeric
from kdtheory.ledger.evidence import Role

_HIGHS = "scipy.optimize.linprog (HiGHS)"
_DUAL = "HiGHS' feasibility tolerance, 1e-7 at worst and 1e-12 on problems this small"


def gauge(v: Any, metric: Any) -> float:
    """Least Σ γ_ij d_ij with v = Σ γ_ij (e_j - e_i), γ ≥ 0: the gauge of the hull of the vectors (e_j - e_i)/d_ij."""
    size = v.size
    pairs = [(i, j) for i in range(size) for j in range(size) if i != j]
    moves = np.array([np.eye(size)[j] - np.eye(size)[i] for i, j in pairs]).T
    return float(linprog([metric[i, j] for i, j in pairs], A_eq=moves[:-1], b_eq=v[:-1]).fun)


def _metric(rng: np.random.Generator, size: int) -> Any:
    points = rng.normal(size=(size, 2))
    return np.linalg.norm(points[:, None] - points, axis=-1)


def _not_a_norm(power: float) -> Evidence:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(2, 6))
        p, q = rng.dirichlet(np.ones(size), size=2)
        metric, t = _metric(rng, size), float(rng.uniform(0.05, 1))
        norm = gauge(q - p, metric)
        found = optimal_transport(p, p + t * (q - p), metric).value
        return abs(found / t**power - norm), {"p": p.tolist(), "q": q.tolist(), "t": t}

    return numeric.attempt(
        violation,
        draws=25,
        oracle=f"{_HIGHS}: least flow of q - p, against least plan",
        tolerance=1e-9,
        because=_DUAL,
        says="W1(p, p + tv)/t is the gauge of v, for all t up to the boundary",
    )


def _off_the_pieces(slack: float) -> Evidence:
    """Any cost: the subgradient's affine function supports T_C, and T_C lies at least c_min TV above 0."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(2, 5))
        p, q, other = rng.dirichlet(np.ones(size), size=3)
        cost = rng.uniform(0.3, 2, size=(size, size)) * (1 - np.eye(size))
        value, g = optimal_transport(p, q, cost)
        elsewhere = optimal_transport(p, other, cost).value
        support = value + g @ (other - q) + slack - elsewhere
        least = cost[~np.eye(size, dtype=bool)].min()
        floor = least * np.abs(p - q).sum() / 2 + slack - value
        return float(max(support, floor)), {"p": p.tolist(), "q": q.tolist(), "cost": cost.tolist()}

    return numeric.attempt(
        violation, draws=25, oracle=_HIGHS, tolerance=1e-9, because=_DUAL, says="affine minorants, and T_C ≥ c_min TV"
    )


def _line_cost(p: Sequence[Fraction], q: Sequence[Fraction], power: int) -> Fraction:
    """Cost |i - j|^power of the monotone plan on the integers (optimal for power ≥ 1), in rationals."""
    left, right, total, i, j = list(p), list(q), Fraction(0), 0, 0
    while i < len(left) and j < len(right):
        mass = min(left[i], right[j])
        total += mass * abs(i - j) ** power
        left[i], right[j] = left[i] - mass, right[j] - mass
        i, j = i + (left[i] == 0), j + (right[j] == 0)
    return total


def _laws(*rows: Sequence[int]) -> list[list[Fraction]]:
    return [[Fraction(x, sum(row)) for x in row] for row in rows]


@claim(
    "geometry.polyhedral",
    statement=r"q \mapsto T_C(p, q) \text{ is a maximum of finitely many affine functions; for a metric } W_1(p, q) ="
    r" N(q - p),\ N \text{ the norm with unit ball } \mathrm{conv}\{(e_j - e_i)/d_{ij}\}, \text{ so } W_1(p, p + tv)/t"
    r" \text{ is constant};\ T_C \ge c_{\min} TV, \text{ with a kink at } q = p",
    source="kdtheory, Theorem 28; peyre2019computational, Section 3",
    expected=Verdict.PROVED,
    domain="any cost matrix; the bound and the kink for C_ii = 0 < c_min <= C_ij",
    uses=("gradients.w1-differentiability",),
    proof=Anchor("04_geometry#polyhedral", sha256="5f8d9f63888b4827"),
)
def polyhedral() -> list[Evidence]:
    """Three tokens on a line in rationals: halfway to q is half the cost. Linear programs at random."""
    p, q = _laws((1, 2, 3), (4, 1, 1))
    halfway = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    half = exact.check(
        2 * _line_cost(p, halfway, 1), "==", _line_cost(p, q, 1), says="tokens at 1, 2, 3: twice W1(p, (p + q)/2)"
    )
    return [half, _not_a_norm(1.0), _off_the_pieces(0.0)]


@polyhedral.control
def _() -> list[Evidence]:
    """Quadratic growth, as a smooth loss has it, and supports lifted by 1/10, must not pass."""
    return [_not_a_norm(2.0), _off_the_pieces(0.1)]


def _chains_fail_by(reach: float) -> Evidence:
    """T_C against W1 of the shortest-path metric at total variation reach · p_min."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(3, 6))
        p = rng.dirichlet(np.full(size, 3.0))
        points = np.sort(rng.uniform(0, 1, size=size))
        cost = (points[:, None] - points) ** 2
        sign = rng.normal(size=size)
        v = sign - sign.mean()
        v *= reach * p.min() / (np.abs(v).sum() / 2)
        if (p + v).min() < 0:  # only for reach > 1: no law, nothing to compare
            return 0.0, {}
        chains = shortest_path(cost)
        there, along = (optimal_transport(p, p + v, prices).value for prices in (cost, chains))
        return there / along - 1, {"p": p.tolist(), "v": v.tolist()}

    return numeric.attempt(
        violation,
        draws=25,
        oracle=f"{_HIGHS}; scipy.sparse.csgraph.shortest_path",
        tolerance=1e-7,
        because="ratio of two linear programs of size 1e-3, solved to 1e-12",
        says=f"W2² = W1 of the cheapest chains at TV = {reach:g} p_min",
    )


def _squares(p: Sequence[Fraction], q: Sequence[Fraction], role: Role) -> Evidence:
    names = [f"({', '.join(map(str, law))})" for law in (p, q)]
    says = f"tokens at 1, 2, 3, {names[0]} to {names[1]}: W2² and W1"
    return exact.check(_line_cost(p, q, 2), "==", _line_cost(p, q, 1), role=role, says=says)


@claim(
    "geometry.near-the-teacher",
    statement=r"T_C(p, q) = W_1 \text{ of the metric } C^* \text{ of cheapest chains; on the integers } W_2^2 = W_1",
    source="kdtheory, Theorem 29",
    expected=Verdict.PROVED_IF,
    domain="C symmetric, C_ii = 0 < C_ij, p in the open simplex",
    condition="TV(p, q) <= p_min",
    uses=("geometry.polyhedral",),
    proof=Anchor("04_geometry#near-the-teacher", sha256="8338b4d28959be08"),
)
def near_the_teacher() -> list[Evidence]:
    """Three tokens on a line: a middle one of 1/3 can be pushed along by a mass of 1/3, one of 1/10 not by 1/5."""
    near, far = _laws((2, 2, 2), (0, 2, 4)), _laws((9, 2, 9), (5, 2, 13))
    inside = _squares(near[0], near[1], "inside condition")
    return [inside, _squares(far[0], far[1], "outside condition"), _chains_fail_by(1.0)]


@near_the_teacher.control
def _() -> Evidence:
    """A total variation of three times p_min must not pass."""
    return _chains_fail_by(3.0)


def _kink_fails_by(factor: float) -> Evidence:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(2, 5))
        p = rng.dirichlet(np.full(size, 2.0)) if rng.random() < 0.6 else np.full(size, 1 / size)
        z = np.log(p) + rng.choice([1e-4, 0.1, 2.0]) * rng.normal(size=size)
        cost = rng.uniform(0.3, 2, size=(size, size)) * (1 - np.eye(size))
        if rng.random() < 0.4:
            cost = 1 - np.eye(size)
        q, least = oracles.softmax(z), cost[~np.eye(size, dtype=bool)].min()
        g = optimal_transport(p, q, cost).slopes
        short = factor * least * q.min() / np.sqrt(2) - np.linalg.norm(q * (g - q @ g))
        return float(max(short, factor * least - np.ptp(g))), {"p": p.tolist(), "z": z.tolist(), "cost": cost.tolist()}

    return numeric.attempt(
        violation,
        draws=60,
        oracle=f"potentials of {_HIGHS}",
        tolerance=1e-8,
        because=_DUAL,
        says="|ξ| ≥ c q_min/√2 and range(g) ≥ c at every q ≠ p",
    )


def _mirror_fails_by(factor: float) -> Evidence:
    """Natural gradient with fixed steps on the line 0, 1/(V-1), …, 1: mean W1 against hL²/8 + KL/(hn), L = 1."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size, h, steps = int(rng.integers(2, 7)), float(rng.choice([0.03, 0.3, 3.0])), 200
        p, z = rng.dirichlet(np.ones(size)), rng.normal(size=size)
        start = oracles.DEFINITIONS["fkl"](p, oracles.softmax(z))
        total = 0.0
        for _ in range(steps):
            below = np.cumsum(oracles.softmax(z) - p)[:-1]
            total += np.abs(below).sum() / (size - 1)
            z = z - h * np.append(np.cumsum(np.sign(below)[::-1])[::-1], 0.0) / (size - 1)
        return float(total / steps - factor * (h / 8 + start / (h * steps))), {"p": p.tolist(), "h": h}

    return numeric.attempt(
        violation,
        draws=25,
        oracle="W1 on a line as Σ |F_P - F_Q|, and its subgradient",
        tolerance=1e-12,
        because="float64 sums of 200 terms below 1",
        says="fixed natural steps: mean W1 ≤ hL²/8 + KL/(hn)",
    )


def _gap_chatters(low: float) -> Evidence:
    """Euclidean steps, p = (1/2, 1/2): in the end |y| <= h/2, and of two in a row one is >= low · h σ'(h/2)."""

    def slope(y: float) -> float:
        return float(np.exp(-abs(y)) / (1 + np.exp(-abs(y))) ** 2)

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        h, y, late = float(rng.uniform(0.01, 2)), float(rng.uniform(0.1, 3)), []
        first = y
        for step in range(6000):
            y -= 2 * h * slope(y) * np.sign(y)
            if step >= 5900:
                late.append(abs(y))
        pairs = np.maximum(late[1:], late[:-1])
        return float(max(max(late) - h / 2, low * h * slope(h / 2) - pairs.min())) / h, {"h": h, "y": first}

    return numeric.attempt(
        violation,
        draws=8,
        oracle="the iteration itself, 6000 steps",
        tolerance=1e-12,
        because="float64 sums; 5900 steps of at least 2hσ'(3) > 0.0009 end any approach from |y| <= 3",
        says="fixed Euclidean steps: |y| ≤ h/2 in the end, never two small gaps in a row",
    )


def _arrives_in_time() -> Evidence:
    """Two tokens, p = (1/2, 1/2): the flow takes y + sinh y from the gap y; the bound 8F/(c p_min)² is 16 tanh(y/2)."""

    def residual(y: arb) -> arb:
        e = y.exp()
        return y + (e - 1 / e) / 2 - 16 * (e - 1) / (e + 1)

    return interval.certify(
        residual, {"y": ("1/1000", "1098/1000")}, says="flow time y + sinh y ≤ 16 tanh(y/2), F ≤ 1/4 being y ≤ log 3"
    )


@claim(
    "geometry.kink",
    statement=r"q \ne p:\ |\xi|_2 \ge c\, q_{\min}/\sqrt2,\ \mathrm{range}(g) \ge c;\ \text{flows from } F \le"
    r" \tfrac12 c\,"
    r" p_{\min} \text{ arrive within } 8F/(c\, p_{\min})^2;\ \text{fixed steps do not converge, but the natural"
    r" gradient's"
    r" average } F \le \tfrac{hL^2}{8} + \tfrac{KL(p, q_0)}{hn}",
    source="kdtheory, Theorem 30",
    expected=Verdict.PROVED,
    domain="C_ii = 0, C_ij >= c > 0 for i != j, p in the open simplex, ξ = q(g - ḡ) a subgradient of F = T_C(p,"
    " softmax)",
    uses=("geometry.polyhedral", "geometry.natural-gradient"),
    proof=Anchor("04_geometry#kink", sha256="bcd845e820e004b6"),
)
def kink() -> list[Evidence]:
    """Potentials of linear programs, fixed steps on a line and on two tokens, and the flow of two tokens certified."""
    return [_kink_fails_by(1.0), _arrives_in_time(), _mirror_fails_by(1.0), _gap_chatters(1.0)]


@kink.control
def _() -> list[Evidence]:
    """Twice the lower bounds and a quarter of the upper one must not pass."""
    return [_kink_fails_by(2.0), _mirror_fails_by(0.25), _gap_chatters(2.0)]
