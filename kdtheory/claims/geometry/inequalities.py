"""Theorem 11 of chapter 04: inequalities between TV, W1, KL and χ², with constants that cannot be improved."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp

from kdtheory.claims.geometry import distances as d
from kdtheory.claims.oracles import exact_kl, exact_line_w1, exact_tv, optimal_transport
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, symbolic

_PROOF = Anchor("04_geometry#inequalities", sha256="8ba649212d1365a0")


def _w1_fails_by(low: float, high: float) -> d.Fails:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q = d.pair(rng, most=6)
        cost = d.metric(rng, p.size) if rng.random() < 0.8 else 1 - np.eye(p.size)
        t, value, (least, most) = d.tv(p, q), optimal_transport(p, q, cost).value, d.extremes(cost)
        return max(low * least * t - value, value - high * most * t), d.point(p, q, cost=cost.tolist())

    return violation


def _attempt_w1(low: float = 1.0, high: float = 1.0) -> Evidence:
    return d.attempt(
        _w1_fails_by(low, high),
        "d_min TV ≤ W1 ≤ diam TV",
        draws=100,
        tolerance=1e-8,
        oracle=d.HIGHS,
        because=d.SOLVER,
    )


@claim(
    "geometry.w1-against-tv",
    statement=r"d_{\min} TV \le W_1 \le \mathrm{diam} \cdot TV; \quad W_1 = TV \text{ for the 0-1 metric}",
    source="kdtheory, Theorem 11; villani2009optimal, Theorem 6.15",
    expected=Verdict.PROVED,
    domain="all p, q; metric costs; both constants are attained for every metric",
    uses=("geometry.kantorovich-rubinstein",),
    proof=_PROOF,
)
def w1_against_tv() -> list[Evidence]:
    """Every plan moves at least the surplus, each part by at least d_min; the maximal coupling moves no more."""
    x, p = [0, 1, 5], ["1/2", "1/4", "1/4"]
    near, far = ["1/4", "1/2", "1/4"], ["1/4", "1/4", "1/2"]
    return [
        exact.check(exact_line_w1(x, p, near), "==", exact_tv(p, near) * 1, says="0, 1, 5, closest pair: d_min TV"),
        exact.check(exact_line_w1(x, p, far), "==", exact_tv(p, far) * 5, says="0, 1, 5, furthest pair: diam TV"),
        _attempt_w1(),
    ]


@w1_against_tv.control
def _() -> list[Evidence]:
    """Neither constant can be improved by a tenth."""
    return [_attempt_w1(low=1.1), _attempt_w1(high=0.9)]


def _pinsker_fails_by(factor: float) -> d.Fails:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q = d.pair(rng)
        if rng.random() < 0.3:
            t = 10 ** rng.uniform(-3, -0.4)
            p, q = np.array([0.5 + t, 0.5 - t]), np.array([0.5, 0.5])
        return factor * d.tv(p, q) ** 2 - min(d.kl(p, q), d.kl(q, p)), d.point(p, q)

    return violation


def _attempt_pinsker(factor: float = 2.0) -> Evidence:
    return d.attempt(_pinsker_fails_by(factor), f"KL ≥ {factor:g} TV² in both directions", draws=500)


@claim(
    "geometry.pinsker",
    statement=r"KL(p, q) \ge 2\, TV(p, q)^2",
    source="kdtheory, Theorem 11; csiszar1967information",
    expected=Verdict.PROVED,
    domain="all p, q; nats; 2 is best possible",
    proof=_PROOF,
)
def pinsker() -> list[Evidence]:
    """Two tokens by a derivative with the sign of y - x; more tokens by the log-sum inequality."""
    x, y, t = sp.symbols("x y t", positive=True)
    binary = x * sp.log(x / y) + (1 - x) * sp.log((1 - x) / (1 - y)) - 2 * (x - y) ** 2
    slope = (y - x) * (1 - 2 * y) ** 2 / (y * (1 - y))
    fair = (1 + 2 * t) / 2 * sp.log(1 + 2 * t) + (1 - 2 * t) / 2 * sp.log(1 - 2 * t)
    return [
        symbolic.identity(sp.diff(binary, y), slope, says="two tokens: derivative of KL - 2 TV² in q"),
        exact.check(sp.limit(fair / t**2, t, 0, "+"), "==", 2, says="(1/2 + t, 1/2 - t) against fair: lim KL/TV²"),
        _attempt_pinsker(),
    ]


@pinsker.control
def _() -> Evidence:
    """2.1 in place of 2 must not pass."""
    return _attempt_pinsker(2.1)


def _reverse_fails_by(factor: float, share: float = 0.999) -> d.Fails:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q = d.pair(rng)
        if rng.random() < 0.3:
            p, q = np.array([1.0, 0.0]), np.array([0.5, 0.5]) + rng.normal() * 0.01 * np.array([1, -1])
        t, divergence, gaps = d.tv(p, q), d.kl(p, q), [0.0]
        if q.min() > 1e-6:
            chi2 = float(((p - q) ** 2 / q).sum())
            gaps += [divergence - np.log1p(chi2), np.log1p(chi2) - np.log1p(factor * t**2 / q.min())]
        least = float(p[p > 0].min())
        if t < share * least:  # nearer to π, log(1 - TV/π) magnifies the rounding of TV by more than 1000
            gaps.append(divergence + np.log1p(-t / least))
        return float(max(gaps)), d.point(p, q)

    return violation


def _attempt_reverse(factor: float = 2.0) -> Evidence:
    return d.attempt(
        _reverse_fails_by(factor),
        f"KL ≤ log(1 + χ²) ≤ log(1 + {factor:g} TV²/min q), KL ≤ -log(1 - TV/min p)",
        draws=600,
    )


@claim(
    "geometry.reverse-pinsker",
    statement=r"KL(p, q) \le \log(1 + \chi^2(p, q)) \le \log(1 + 2\, TV^2 / \min q),\quad"
    r"KL(p, q) \le -\log(1 - TV / \pi) \text{ if } TV < \pi = \min_{p_i > 0} p_i",
    source="kdtheory, Theorem 11",
    expected=Verdict.PROVED,
    domain="q > 0 (first line); all p, q (second)",
    proof=_PROOF,
)
def reverse_pinsker() -> list[Evidence]:
    """Jensen's inequality, and ‖v‖₂² ≤ ½ ‖v‖₁² for vectors that sum to 0. Equality at (1, 0) against fair."""
    p, q = [1, 0], ["1/2", "1/2"]
    bound = sp.log(1 + 2 * exact_tv(p, q) ** 2 / sp.Rational(1, 2))
    other = -sp.log(1 - exact_tv(p, q) / 1)
    return [
        exact.check(exact_kl(p, q), "==", bound, says="(1, 0) against (1/2, 1/2): KL and log(1 + 2 TV²/min q)"),
        exact.check(exact_kl(p, q), "==", other, says="the same: KL and -log(1 - TV/π)"),
        _attempt_reverse(),
    ]


@reverse_pinsker.control
def _() -> Evidence:
    """1.8 in place of 2 must not pass."""
    return _attempt_reverse(1.8)
