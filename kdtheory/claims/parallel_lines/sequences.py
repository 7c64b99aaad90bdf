"""Theorem 7 of chapter 01: laws of long sequences separate exponentially; KL and Hamming transport stay linear."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, comb, floor
from typing import Any

import numpy as np
import sympy as sp
from scipy.special import rel_entr, softmax

from kdtheory.claims.oracles import optimal_transport
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric

_PROOF = Anchor("01_parallel_lines#long-sequences", sha256="4c7b3f0b679fac41")


def coin_overlap(a: Fraction, b: Fraction, steps: int) -> Fraction:
    """1 - TV between T tosses of coins a and b, in rationals: Σ over counts of C(T, k) min of the two chances."""
    (n, m), (k, below) = a.as_integer_ratio(), b.as_integer_ratio()
    total = sum(
        comb(steps, heads)
        * min(
            (n**heads * (m - n) ** (steps - heads)) * below**steps,
            (k**heads * (below - k) ** (steps - heads)) * m**steps,
        )
        for heads in range(steps + 1)
    )
    return Fraction(total, (m * below) ** steps)


def _rounded(number: Fraction, up: bool) -> Fraction:
    """The next fraction with denominator 10^12, above or below: a rigorous bound that a reader can read."""
    scaled = number * 10**12
    return Fraction(ceil(scaled) if up else floor(scaled), 10**12)


def product(p: Any, steps: int) -> Any:
    """The law of `steps` independent tokens over all V^T strings."""
    law = np.ones(1)
    for _ in range(steps):
        law = np.multiply.outer(law, p).ravel()
    return law


def _values(p: Any, q: Any) -> dict[str, float]:
    m = (p + q) / 2
    js = float((rel_entr(p, m) + rel_entr(q, m)).sum()) / 2
    return {"tv": float(np.abs(p - q).sum()) / 2, "js": js, "kl": float(rel_entr(p, q).sum())}


def _laws_fail_by(base: float) -> Any:
    """Parts 1, 2, 4 and 5 on enumerated strings; `base` scales B in the upper bounds."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size, steps = int(rng.integers(2, 4)), int(rng.integers(1, 8))
        p, q = rng.dirichlet(np.ones(size)) + 1e-6, rng.dirichlet(np.ones(size)) + 1e-6
        p, q = p / p.sum(), q / q.sum()
        b, one, found = float(np.sqrt(p * q).sum()), _values(p, q), _values(product(p, steps), product(q, steps))
        above, below = (base * b) ** steps, b ** (2 * steps) / 2
        gaps = [
            1 - found["tv"] - above,
            below - (1 - found["tv"]),
            np.log(2) - found["js"] - above / np.sqrt(2),
            np.log(2) * below - (np.log(2) - found["js"]),
            abs(found["kl"] - steps * one["kl"]),
            np.exp(-steps * one["kl"]) / 2 - (1 - found["tv"]),
        ]
        return float(max(gaps)), {"p": p.tolist(), "q": q.tolist(), "T": steps}

    return violation


def _attempt_laws(base: float = 1.0) -> Evidence:
    return numeric.attempt(
        _laws_fail_by(base),
        draws=150,
        oracle="all strings enumerated, scipy.special.rel_entr",
        tolerance=1e-12,
        because="float64 sums of at most 3^7 terms, total below 100",
        says="½B^2T ≤ 1 - TV ≤ B^T, ½ log 2 B^2T ≤ log 2 - JS ≤ B^T/√2, KL = T KL(p, q), 1 - TV ≥ ½ exp(-KL)",
    )


def _gradients_fail_by(factor: float) -> Any:
    """‖∇_z JS‖∞ ≤ T/2 B^T and ‖∇_z TV‖∞ ≤ T B^T by central differences on enumerated strings."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size, steps, h = 2, int(rng.integers(1, 9)), 1e-5
        p, z = rng.dirichlet(np.full(size, 3.0)) + 1e-6, rng.normal(size=size)
        p /= p.sum()
        teacher, b = product(p, steps), float(np.sqrt(p * softmax(z)).sum())
        moved = [
            [_values(teacher, product(softmax(z + side * h * unit), steps)) for side in (1, -1)] for unit in np.eye(2)
        ]
        slopes = {name: max(abs(up[name] - down[name]) / (2 * h) for up, down in moved) for name in ("js", "tv")}
        bound = factor * steps * b**steps
        return max(slopes["js"] - bound / 2, slopes["tv"] - bound), {"p": p.tolist(), "z": z.tolist(), "T": steps}

    return violation


def _attempt_gradients(factor: float = 1.0) -> Evidence:
    return numeric.attempt(
        _gradients_fail_by(factor),
        draws=150,
        oracle="central difference, h = 1e-5, all strings enumerated",
        tolerance=1e-6,
        because="h² times a third derivative below T³ = 512 leaves 1e-8; rounding 1e-16/h leaves 1e-10 of 2^8 terms",
        says="‖∇_z JS‖∞ ≤ T/2 B^T and ‖∇_z TV‖∞ ≤ T B^T",
    )


def _hamming_is_off(factor: float) -> Any:
    """W1 of product laws under the Hamming distance, by HiGHS on all pairs of strings, against T · TV."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        steps = int(rng.integers(1, 4))
        p, q = rng.dirichlet(np.ones(2)), rng.dirichlet(np.ones(2))
        first, second = product(p, steps), product(q, steps)
        strings = np.array([[code >> t & 1 for t in range(steps)] for code in range(2**steps)])
        cost = (strings[:, None] != strings[None]).sum(-1)
        error = abs(optimal_transport(first, second, cost).value - factor * steps * abs(p[0] - q[0]))
        return error, {"p": p.tolist(), "q": q.tolist(), "T": steps}

    return violation


def _attempt_hamming(factor: float = 1.0) -> Evidence:
    return numeric.attempt(
        _hamming_is_off(factor),
        draws=30,
        oracle="scipy.optimize.linprog (HiGHS) on all pairs of strings",
        tolerance=1e-8,
        because="HiGHS keeps at most 15 constraints to 1e-10 each, times costs of at most 3",
        says="W1 with the Hamming distance = T TV(p, q)",
    )


_FAIR, _BIASED = Fraction(1, 2), Fraction(3, 5)


@claim(
    "parallel_lines.returns-long-sequences",
    statement=r"\text{for laws of } T \text{ independent tokens } 1 - TV \text{ and } \log 2 - JS \text{ and their}"
    r"\text{ gradients decay exponentially in } T, \text{ while } KL \text{ and Hamming } W_1 \text{ are linear in } T",
    source="kdtheory, Theorem 7",
    expected=Verdict.PROVED_IF,
    domain=r"p, q > 0 per step; ½B^{2T} ≤ 1 - TV ≤ B^T with B = Σ√(pq)",
    condition="the student stays at a fixed distance per step while T grows; TV ≤ 1 - ½exp(-T KL(p, q)) otherwise",
    proof=_PROOF,
)
def returns_long_sequences() -> list[Evidence]:
    """Coins 1/2 and 3/5, 1600 tosses: 1 - TV below 10⁻⁴. Coins 1/2 and 1/2 + 1/20, 100 tosses: above 1/2."""
    affinity = sp.sqrt(sp.Rational(3, 10)) + sp.sqrt(sp.Rational(1, 5))  # √(½ · 3/5) + √(½ · 2/5)
    overlap = coin_overlap(_FAIR, _BIASED, 200)
    return [
        exact.check(
            _rounded(coin_overlap(_FAIR, _BIASED, 1600), up=True),
            "<",
            Fraction(1, 10_000),
            role="inside condition",
            says="1/2 and 3/5, T = 1600: 1 - TV",
        ),
        exact.check(_rounded(overlap, up=True), "<=", affinity**200, says="1/2 and 3/5, T = 200: 1 - TV and B^T"),
        exact.check(_rounded(overlap, up=False), ">=", affinity**400 / 2, says="the same: 1 - TV and ½ B^2T"),
        exact.check(
            _rounded(coin_overlap(_FAIR, Fraction(11, 20), 100), up=False),
            "<=",
            Fraction(1, 2),
            role="outside condition",
            says="1/2 and 11/20 = 1/2 + 1/(2√T), T = 100: 1 - TV is below 1/2",
        ),
        _attempt_laws(),
        _attempt_gradients(),
        _attempt_hamming(),
    ]


@returns_long_sequences.control
def _() -> list[Evidence]:
    """A smaller base than B must not pass."""
    return [_attempt_laws(0.9)]


@returns_long_sequences.control
def _() -> list[Evidence]:
    """A fifth of the bounds on the gradients must not pass."""
    return [_attempt_gradients(0.2)]


@returns_long_sequences.control
def _() -> list[Evidence]:
    """Nine tenths of T TV(p, q) must not pass."""
    return [_attempt_hamming(0.9)]
