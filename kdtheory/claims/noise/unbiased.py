"""Theorems 10 and 11 of chapter 06: losses without bias, and how skew KL sharpens a student of hard labels."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate, pairwise, product
from typing import Any

import numpy as np
import sympy as sp
from scipy.optimize import minimize

from kdtheory.claims.noise.transport import LINE, TEACHER, batches
from kdtheory.claims.oracles import exact_kl, exact_line_w1
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric

Law = Any


def _energy(costs: Any, first: Law, second: Law) -> Fraction:
    """2 E d(X, Y) − E d(X, X') − E d(Y, Y')."""
    index = range(len(first))

    def mean(a: Law, b: Law) -> Fraction:
        return sum((a[i] * b[j] * costs[i][j] for i in index for j in index), Fraction(0))

    return 2 * mean(first, second) - mean(first, first) - mean(second, second)


_COSTS = [[abs(a - b) for b in LINE] for a in LINE]
_STUDENTS = ((Fraction(1, 6), Fraction(1, 3), Fraction(1, 2)), (Fraction(2, 5), Fraction(2, 5), Fraction(1, 5)))


def _energy_excess(size: int, student: Law) -> Fraction:
    """E ℰ(p̂, q) − ℰ(p, q) by enumeration of all batches."""
    mean = sum((weight * _energy(_COSTS, law, student) for weight, law in batches(TEACHER, size)), Fraction(0))
    return mean - _energy(_COSTS, TEACHER, student)


def _kl_excess(size: int, student: Law) -> Any:
    mean = sum((sp.sympify(weight) * exact_kl(law, student) for weight, law in batches(TEACHER, size)), sp.Integer(0))
    return mean - exact_kl(TEACHER, student)


def _energy_drifts(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    size, tokens = int(rng.integers(1, 5)), int(rng.integers(2, 5))
    points = rng.normal(size=(tokens, 3))
    costs = np.linalg.norm(points[:, None] - points[None], axis=-1)
    p, q = rng.dirichlet(np.ones(tokens), size=2)

    def energy(a: Any) -> float:
        return float(2 * a @ costs @ q - a @ costs @ a - q @ costs @ q)

    drawn = product(range(tokens), repeat=size)  # sequences, not counts: another enumeration
    mean = sum(np.prod(p[list(y)]) * energy(np.bincount(y, minlength=tokens) / size) for y in drawn)
    return abs(mean - energy(p) - float(p @ costs @ p) / size), {"p": p.tolist(), "q": q.tolist(), "m": size}


def _cramer(factor: int) -> list[Evidence]:
    gaps = [b - a for a, b in pairwise(LINE)]
    items = []
    for student in _STUDENTS:
        ahead = list(accumulate(a - b for a, b in zip(TEACHER, student, strict=True)))[:-1]
        squared = sum((gap * x * x for gap, x in zip(gaps, ahead, strict=True)), Fraction(0))
        items.append(exact.check(_energy(_COSTS, TEACHER, student), "==", factor * squared, says="Cramér's form"))
    return items


@claim(
    "noise.energy-unbiased",
    statement=r"E\,\mathcal E(\hat p_m, q) = \mathcal E(p, q) + \tfrac1m \textstyle\sum p_i p_j d_{ij},\quad"
    r" E\,D_{KL}(\hat p_m, q) = D_{KL}(p, q) + E\,D_{KL}(\hat p_m, p)",
    source="kdtheory, Theorem 10",
    expected=Verdict.PROVED,
    domain="p, q > 0; the additions do not depend on q, so q = p stays the minimiser where it was",
    uses=("noise.batch-median",),
    proof=Anchor("06_noise#unbiased", sha256="0b87d6506a7030ae"),
)
def energy_unbiased() -> list[Evidence]:
    """What depends on q is linear in the teacher."""
    within = sum((TEACHER[i] * TEACHER[j] * _COSTS[i][j] for i in range(3) for j in range(3)), Fraction(0))
    items = [
        exact.check(_energy_excess(m, q), "==", within / m, says=f"energy distance, m = {m}")
        for m in (1, 2, 3)
        for q in _STUDENTS
    ]
    same = [
        exact.check(_kl_excess(2, q), "==", _kl_excess(2, TEACHER), says="forward KL, m = 2: the same addition as at p")
        for q in _STUDENTS
    ]
    attempt = numeric.attempt(
        _energy_drifts,
        draws=40,
        oracle="enumeration over all sequences of m tokens",
        tolerance=1e-12,
        because="at most 256 float64 terms of size 1",
        says="energy distance of any points in space",
    )
    return [attempt, *items, *same, *_cramer(2)]


@energy_unbiased.control
def _() -> list[Evidence]:
    """Cramér's form without its factor 2 must not pass."""
    return _cramer(1)


@energy_unbiased.control
def _() -> list[Evidence]:
    """The same for W1, that the addition does not depend on q, must not pass."""
    added = []
    for q in _STUDENTS:
        mean = sum((weight * exact_line_w1(LINE, law, q) for weight, law in batches(TEACHER, 2)), Fraction(0))
        added.append(mean - exact_line_w1(LINE, TEACHER, q))
    return [exact.check(added[0], "==", added[1], says="W1, m = 2: addition at two students")]


def sharpened(teacher: Law, skew: Fraction) -> list[Fraction]:
    """Theorem 11: the minimiser of E SKL(δ_y, q), tokens dropped one after the other until λp ≥ α on the rest."""
    kept = set(range(len(teacher)))
    while True:
        free = 1 - skew + skew * len(kept)
        scale = free / sum(teacher[y] for y in kept)
        drop = {y for y in kept if scale * teacher[y] < skew}
        if not drop:
            return [(scale * a - skew) / (1 - skew) if y in kept else Fraction(0) for y, a in enumerate(teacher)]
        kept -= drop


def _not_best(minimiser: Any) -> Any:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, skew = rng.dirichlet(np.ones(int(rng.integers(2, 6)))), float(rng.uniform(0.02, 0.8))

        def loss(q: Any) -> float:
            return float(-(p @ np.log(skew + (1 - skew) * q)))

        start = np.full(p.size, 1 / p.size)
        found = minimize(
            loss,
            start,
            method="SLSQP",
            bounds=[(0, 1)] * p.size,
            constraints={"type": "eq", "fun": lambda q: q.sum() - 1},
            options={"ftol": 1e-14, "maxiter": 300},
        )
        searched = np.clip(found.x, 0, None)
        chosen = np.asarray(minimiser(p, skew), dtype=float)
        return loss(chosen) - loss(searched / searched.sum()), {"p": p.tolist(), "alpha": skew}

    return violation


def _attempt_sharpened(minimiser: Any) -> Evidence:
    return numeric.attempt(
        _not_best(minimiser),
        draws=40,
        oracle="scipy.optimize.minimize (SLSQP)",
        tolerance=1e-9,
        because="the search's own accuracy; it can only do worse than the minimum",
        says="no better student is found",
    )


@claim(
    "noise.skew-sharpens",
    statement=r"\arg\min_q E_{y \sim p} SKL_\alpha(\delta_y, q) = p_y + \frac{\alpha}{1 - \alpha}(V p_y - 1)"
    r" \text{ if all } p_y \ge \frac{\alpha}{1 + (V - 1)\alpha},\ \text{else }"
    r" \frac{(\lambda p_y - \alpha)_+}{1 - \alpha}",
    source="kdtheory, Theorem 11",
    expected=Verdict.PROVED,
    domain="p > 0, 0 < α < 1, one-hot targets; with the teacher's full distribution there is no bias",
    proof=Anchor("06_noise#skew-sharpens", sha256="a577a6435ac1e4a5"),
)
def skew_sharpens() -> list[Evidence]:
    """The logarithm is proper for αu + (1 − α)q, not for q."""
    teacher, skew = (Fraction(3, 5), Fraction(3, 10), Fraction(1, 10)), Fraction(1, 10)
    closed = [a + skew / (1 - skew) * (3 * a - 1) for a in teacher]
    stationary = [a / (skew + (1 - skew) * b) for a, b in zip(teacher, closed, strict=True)]
    return [
        _attempt_sharpened(sharpened),
        *(exact.check(a, "==", b, says="closed form") for a, b in zip(sharpened(teacher, skew), closed, strict=True)),
        *(exact.check(x, "==", stationary[0], says="p/(α + (1 − α)q) is the same for all") for x in stationary[1:]),
        exact.check(sharpened((Fraction(9, 10), Fraction(1, 10)), Fraction(1, 5))[1], "==", 0, says="a dropped token"),
    ]


@skew_sharpens.control
def _() -> Evidence:
    """The teacher itself must not pass as the minimiser."""
    return _attempt_sharpened(lambda p, skew: p)
