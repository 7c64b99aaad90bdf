"""Theorems 12 to 15 of chapter 06: how far the empirical law of n tokens is from the teacher."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, product
from math import comb
from typing import Any

import numpy as np
import sympy as sp
from scipy.stats import binom, multinomial

from kdtheory.claims.noise.transport import batches
from kdtheory.claims.oracles import exact_kl, exact_line_w1, exact_tv
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric

_P = (Fraction(1, 2), Fraction(1, 3), Fraction(1, 6))
_HALVES = (Fraction(1, 2), Fraction(1, 2))
MARGINS = "scipy.stats.binom, sums over all counts"
_SUMS = "float64 sums of binomial probabilities, relative 1e-12"


def _draw(rng: np.random.Generator) -> tuple[Any, int]:
    tokens = int(rng.integers(2, 9))
    return rng.dirichlet(np.full(tokens, float(rng.choice([0.3, 1.0, 10.0])))) + 1e-9, int(rng.integers(1, 60))


def _margin(n: int, p: float, function: Any) -> float:
    counts = np.arange(n + 1)
    return float(binom.pmf(counts, n, p) @ function(counts / n))


def _tv_exceeds(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    p, n = _draw(rng)
    p = p / p.sum() if rng.uniform() < 0.8 else np.full(p.size, 1 / p.size)
    mean = sum(_margin(n, a, lambda x, a=a: abs(x - a)) for a in p) / 2
    sharp = np.sqrt(p * (1 - p) / n).sum() / 2
    rough = np.sqrt((p.size - 1) / n) / 2
    return float(max(mean - sharp, sharp - rough)), {"p": p.tolist(), "n": n}


def _attempt(violation: Any, says: str, draws: int = 120) -> Evidence:
    return numeric.attempt(violation, draws=draws, oracle=MARGINS, tolerance=1e-10, because=_SUMS, says=says)


@claim(
    "noise.samples-tv",
    statement=r"E\,TV(\hat p, p) \le \tfrac12 \textstyle\sum_i \sqrt{p_i (1 - p_i)/n} \le \tfrac12 \sqrt{(V - 1)/n};"
    r"\ \text{uniform } p,\ n \le V: E\,TV = (1 - 1/V)^n",
    source="kdtheory, Theorem 12",
    expected=Verdict.PROVED,
    domain="n independent tokens of p, all V",
    proof=Anchor("06_noise#samples-tv", sha256="48cc31b53a22972b"),
)
def samples_tv() -> list[Evidence]:
    """Binomial margins and two Cauchy–Schwarz inequalities."""
    items = [_attempt(_tv_exceeds, "E TV between its two bounds")]
    for size, n in ((3, 2), (3, 3), (4, 3)):
        uniform = (Fraction(1, size),) * size
        mean = sum((weight * exact_tv(law, uniform) for weight, law in batches(uniform, n)), Fraction(0))
        items.append(exact.check(mean, "==", (1 - Fraction(1, size)) ** n, says=f"uniform, V = {size}, n = {n}"))
    return items


@samples_tv.control
def _() -> Evidence:
    """Nine tenths of the bound must not pass: two even tokens and one draw attain it."""
    mean = sum((weight * exact_tv(law, _HALVES) for weight, law in batches(_HALVES, 1)), Fraction(0))
    return exact.check(mean, "<=", Fraction(9, 20), says="V = 2, n = 1, uniform: E TV by 0.9 of the bound 1/2")


def _entropy(x: Any, a: float) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x > 0, x * np.log(x / a), 0.0)


def _mean_kl(p: Any, n: int) -> float:
    return sum(_margin(n, a, lambda x, a=a: _entropy(x, a)) for a in p)


def _kl_exceeds(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    p, n = _draw(rng)
    p = p / p.sum()
    mean = _mean_kl(p, n)
    error = ((p / n**3 + 3 * p**2 / n**2) ** 0.75 / p**2).sum() / 2
    off = abs(mean - (p.size - 1) / (2 * n)) - error
    return max(mean - np.log1p((p.size - 1) / n), off), {"p": p.tolist(), "n": n}


def _mean_exact_kl(teacher: Any, n: int) -> sp.Expr:
    """E KL(p̂, p) by enumeration of all counts."""
    total = sp.Integer(0)
    for weight, law in batches(teacher, n):
        total += sp.sympify(weight) * exact_kl(law, teacher)
    return total


@claim(
    "noise.samples-kl",
    statement=r"E\,D_{KL}(\hat p, p) \approx \frac{V - 1}{2n}:\quad E\,D_{KL}(\hat p, p) \le"
    r" \log\Big(1 + \frac{V - 1}{n}\Big),\quad \Big|E\,D_{KL}(\hat p, p) - \frac{V - 1}{2n}\Big| = O(n^{-3/2})",
    source="kdtheory, Theorem 13",
    expected=Verdict.PROVED,
    domain="p > 0, every n; explicit constant in the theorem; (V − 1)/2n itself is no upper bound",
    proof=Anchor("06_noise#samples-kl", sha256="c689142e667a0060"),
)
def samples_kl() -> list[Evidence]:
    """Jensen twice with χ²; Taylor with an explicit remainder."""
    items = [_attempt(_kl_exceeds, "upper bound and expansion")]
    for teacher in (_P, _HALVES):
        for n in (1, 2, 4):
            bound = sp.log(1 + sp.Rational(len(teacher) - 1, n))
            items.append(exact.check(_mean_exact_kl(teacher, n), "<=", bound, says=f"V = {len(teacher)}, n = {n}"))
    return items


@samples_kl.control
def _() -> Evidence:
    """The leading term as an upper bound must not pass."""
    return exact.check(
        _mean_exact_kl(_HALVES, 1), "<=", sp.Rational(1, 2), says="E KL at p = (1/2, 1/2), n = 1, by (V−1)/2n"
    )


def missing(teacher: Any, n: int) -> Any:
    """P(some token is not drawn), inclusion and exclusion."""
    tokens = range(len(teacher))
    return sum(
        (-1) ** (size + 1) * (1 - sum(teacher[i] for i in subset)) ** n
        for size in range(1, len(teacher))
        for subset in combinations(tokens, size)
    )


def _counted(teacher: Any, n: int) -> Fraction:
    """The same by enumeration of all sequences."""
    total = Fraction(0)
    for drawn in product(range(len(teacher)), repeat=n):
        if len(set(drawn)) < len(teacher):
            weight = Fraction(1)
            for y in drawn:
                weight *= teacher[y]
            total += weight
    return total


def _missing_fails(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    tokens = int(rng.integers(2, 5))
    p, n = rng.dirichlet(np.ones(tokens)), int(rng.integers(1, 9))
    counts = [c for c in product(range(n + 1), repeat=tokens) if sum(c) == n and min(c) == 0]
    found = float(np.sum(multinomial.pmf(counts, n, p)))
    low = float((1 - p.min()) ** n)
    high = float(((1 - p) ** n).sum())
    early = (1 - p.min()) / np.e - found if n <= 1 / p.min() else -1.0
    union = found - tokens * float(np.exp(-n * p.min()))
    worst = max(low - found, found - high, early, union, abs(found - float(missing(p, n))))
    return float(worst), {"p": p.tolist(), "n": n}


@claim(
    "noise.samples-missing",
    statement=r"D_{KL}(p, \hat p) = \infty \text{ exactly if a token is missing: } (1 - p_{\min})^n \le P \le"
    r" \textstyle\sum_i (1 - p_i)^n;\ P = 1 \text{ for } n < V;\ P \ge (1 - p_{\min})/e \text{ for } n \le 1/p_{\min}",
    source="kdtheory, Theorem 14",
    expected=Verdict.PROVED,
    domain="p > 0; so E D_KL(p, p̂) = ∞ for every n; P ≤ δ from n ≥ log(V/δ)/p_min on",
    proof=Anchor("06_noise#samples-missing", sha256="85b823a44bb5948e"),
)
def samples_missing() -> list[Evidence]:
    """A coupon collector's question."""
    attempt = numeric.attempt(
        _missing_fails,
        draws=60,
        oracle="scipy.stats.multinomial, sum over all counts",
        tolerance=1e-10,
        because=_SUMS,
        says="the probability and its four bounds",
    )
    return [
        attempt,
        *(exact.check(missing(_P, n), "==", _counted(_P, n), says=f"n = {n}: P(missing)") for n in (3, 4, 5)),
        *(exact.check(_counted(_P, n), "==", 1, says=f"n = {n} < V = 3") for n in (1, 2)),
    ]


@samples_missing.control
def _() -> Evidence:
    """e^(−n p_min) in place of (1 − p_min)^n as the lower bound must not pass."""
    pair = (Fraction(1, 10), Fraction(9, 10))
    return exact.check(sp.sympify(missing(pair, 10)), ">=", sp.exp(-1), says="p = (1/10, 9/10), n = 10: P(missing)")


def _w1_exceeds(factor: float) -> Any:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, n = _draw(rng)
        positions = np.sort(rng.normal(size=p.size))
        gaps, ahead = np.diff(positions), np.clip(np.cumsum(p / p.sum())[:-1], 0, 1)
        mean = sum(gap * _margin(n, f, lambda x, f=f: abs(x - f)) for gap, f in zip(gaps, ahead, strict=True))
        sharp = float(gaps @ np.sqrt(ahead * (1 - ahead) / n))
        rough = float(positions[-1] - positions[0]) / (2 * np.sqrt(n))
        return float(max(mean - factor * sharp, sharp - rough)), {"p": p.tolist(), "n": n, "x": positions.tolist()}

    return violation


def _margins_are_w1(n: int) -> Evidence:
    """E W1 of all batches, enumerated, against the sum over binomial margins."""
    positions, levels = (Fraction(0), Fraction(1), Fraction(3)), (Fraction(1, 2), Fraction(5, 6))
    mean = sum((weight * exact_line_w1(positions, law, _P) for weight, law in batches(_P, n)), Fraction(0))
    margins = sum(
        (
            gap * comb(n, k) * f**k * (1 - f) ** (n - k) * abs(Fraction(k, n) - f)
            for gap, f in zip((1, 2), levels, strict=True)
            for k in range(n + 1)
        ),
        Fraction(0),
    )
    return exact.check(mean, "==", margins, says=f"E W1, n = {n}: all batches against binomial margins")


@claim(
    "noise.samples-w1",
    statement=r"\text{on a line } E\,W_1(\hat p, p) \le \textstyle\sum_k (x_{k+1} - x_k) \sqrt{F_k (1 - F_k)/n} \le"
    r" \mathrm{diam}/(2\sqrt n), \text{ free of } V;\ \text{uniform, } V = n:\ E\,TV = (1 - 1/n)^n \ge \tfrac14",
    source="kdtheory, Theorem 15",
    expected=Verdict.PROVED,
    domain="positions on a line, n independent tokens",
    uses=("noise.samples-tv",),
    proof=Anchor("06_noise#samples-w1", sha256="e4fb17b21d4fbaa4"),
)
def samples_w1() -> list[Evidence]:
    """The distribution function at each gap is a binomial share."""
    thousand = (1 - sp.Rational(1, 1000)) ** 1000
    return [
        _attempt(_w1_exceeds(1.0), "E W1 between its two bounds"),
        *(_margins_are_w1(n) for n in (1, 2, 3)),
        exact.check(thousand, ">", "9/25", says="V = n = 1000, uniform: E TV"),
        exact.check(1 / (2 * sp.sqrt(1000)), "<", "2/125", says="V = n = 1000, uniform: bound on E W1, diameter 1"),
    ]


@samples_w1.control
def _() -> Evidence:
    """Nine tenths of the bound must not pass."""
    return _attempt(_w1_exceeds(0.9), "0.9 of the bound")
