"""Theorems 3 and 4 of chapter 04: when KL is infinite, and what a language model's output is."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp
from scipy.special import log_softmax
from scipy.stats import multinomial

from kdtheory.claims.geometry import distances as d
from kdtheory.claims.oracles import exact_kl
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact

_PROOF = Anchor("04_geometry#infinite", sha256="34e14ddbf4236e1b")
_CATEGORICAL = Anchor("04_geometry#categorical", sha256="70b7ea2cd60df9e5")
_HALF = ["1/2", "1/2"]
_TINY = ["1/1000000000", "999999999/1000000000"]


def _between(slack: float) -> d.Fails:
    """max p log(1/q) - log 2 ≤ KL(p, q) ≤ log(1/min q) for students down to 1e-9; infinite iff a zero is hit."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q = d.pair(rng)
        divergence = d.kl(p, q)
        if (q[p > 0] == 0).any() or np.isinf(divergence):
            return (0.0 if np.isinf(divergence) and (q[p > 0] == 0).any() else 1.0), d.point(p, q)
        q = q + 1e-9
        q /= q.sum()
        divergence = d.kl(p, q)
        low = float((p * -np.log(q)).max()) - slack * np.log(2)
        return max(low - divergence, divergence + float(np.log(q.min()))), d.point(p, q)

    return violation


def _attempt_between(slack: float = 1.0) -> Evidence:
    return d.attempt(_between(slack), "p_i log(1/q_i) - log 2 ≤ KL ≤ log(1/min q), infinite exactly at zeros")


@claim(
    "geometry.forward-kl-infinite",
    statement=r"\text{zero avoiding: } p \gg 0 \text{ and } q \approx 0 \text{ make } KL(p, q) = \infty",
    source="lossdesigns, FKLD: mean-seeking",
    expected=Verdict.PROVED_IF,
    rows=("S1-07",),
    domain="all p, q",
    condition="q ≈ 0 means q = 0; for small q the penalty is p log(1/q)",
    proof=_PROOF,
)
def forward_kl_infinite() -> list[Evidence]:
    """Infinite at a zero; at one in a billion less than ten nats."""
    return [
        exact.check(exact_kl(_HALF, [0, 1]), "==", sp.oo, role="inside condition", says="p = (1/2, 1/2), q = (0, 1)"),
        exact.check(exact_kl(_HALF, _TINY), "==", sp.oo, role="outside condition", says="q = (10⁻⁹, 1 - 10⁻⁹): KL = ∞"),
        _attempt_between(),
    ]


@forward_kl_infinite.control
def _() -> Evidence:
    """The lower bound with nothing subtracted must not pass."""
    return _attempt_between(0.0)


@claim(
    "geometry.reverse-kl-infinite",
    statement=r"q \gg 0 \text{ and } p \approx 0 \text{ make } KL(q, p) = \infty",
    source="lossdesigns, RKLD: mode-seeking",
    expected=Verdict.PROVED_IF,
    rows=("S1-10",),
    domain="all p, q",
    condition="p ≈ 0 means p = 0; for small p the penalty is q log(1/p)",
    uses=("geometry.forward-kl-infinite",),
    proof=_PROOF,
)
def reverse_kl_infinite() -> list[Evidence]:
    """The roles of teacher and student exchanged."""
    return [
        exact.check(exact_kl(_HALF, [0, 1]), "==", sp.oo, role="inside condition", says="q = (1/2, 1/2), p = (0, 1)"),
        exact.check(exact_kl(_HALF, _TINY), "<", 10, says="q = (1/2, 1/2), p = (10⁻⁹, 1 - 10⁻⁹): nats"),
        exact.check(
            exact_kl(_HALF, _TINY), "==", sp.oo, role="outside condition", says="p = (10⁻⁹, 1 - 10⁻⁹): KL(q, p) = ∞"
        ),
        _attempt_between(),
    ]


@reverse_kl_infinite.control
def _() -> Evidence:
    """An infinite divergence where the student is zero instead must not pass."""
    return exact.check(exact_kl([0, 1], _HALF), "==", sp.oo, says="q = (0, 1), p = (1/2, 1/2): KL(q, p)")


def _softmax_fails_by(slack: float) -> d.Fails:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(2, 12))
        z, p = 10 ** rng.uniform(0, 3) * rng.normal(size=size), d.law(rng, size)
        p = np.eye(size)[z.argmin()] if rng.random() < 0.5 else p
        divergence = d.cross_entropy(p, np.ones(size)) - float((p * log_softmax(z)).sum()) - d.entropy(p)
        return divergence - slack * (np.log(size) + np.ptp(z)), {"p": p.tolist(), "z": z.tolist()}

    return violation


def _attempt_softmax(slack: float) -> Evidence:
    return d.attempt(
        _softmax_fails_by(slack),
        "KL(p, softmax(z)) ≤ log V + range z",
        oracle="scipy.special.log_softmax",
        tolerance=1e-10,
        because="float64 sums of at most 12 terms up to 4000",
    )


@claim(
    "geometry.no-overlap",
    statement=r"\text{two distributions that do not overlap have } KL = \infty",
    source="zhao2024week8, summary, slide 1",
    expected=Verdict.PROVED_IF,
    rows=("S0-03",),
    domain="next-token distributions",
    condition="not to overlap means that one is exactly 0 where the other is positive;"
    " a softmax with finite logits always overlaps, and KL ≤ log V + range z",
    uses=("geometry.forward-kl-infinite",),
    proof=_PROOF,
)
def no_overlap() -> list[Evidence]:
    """Disjoint supports: infinite. A softmax with total variation above 1 - 10⁻⁴⁰⁰ and 1000 nats of gap: finite."""
    gap = sp.Integer(1000)
    student = 1 / (1 + sp.exp(gap))  # q_1 of softmax(0, 1000), teacher (1, 0)
    return [
        exact.check(exact_kl([1, 0], [0, 1]), "==", sp.oo, role="inside condition", says="(1, 0) against (0, 1)"),
        exact.check(
            1 - (1 - student), "<", sp.Rational(1, 10**400), says="softmax(0, 1000) against (1, 0): 1 - TV is tiny"
        ),
        exact.check(
            -sp.log(student), "==", sp.oo, role="outside condition", says="softmax(0, 1000) against (1, 0): KL = ∞"
        ),
        _attempt_softmax(1.0),
    ]


@no_overlap.control
def _() -> Evidence:
    """Nine tenths of the bound must not pass."""
    return _attempt_softmax(0.9)


def _counts_are_off(independent: bool) -> d.Fails:
    """Counts of T tokens, enumerated over all strings, against the multinomial law of scipy."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size, steps = int(rng.integers(2, 4)), int(rng.integers(1, 5))
        p, again = d.law(rng, size, zeros=False), float(rng.uniform(0.2, 0.8))
        total: dict[tuple[int, ...], float] = {}
        for code in range(size**steps):
            string = [code // size**t % size for t in range(steps)]
            chance = 1.0
            for t, token in enumerate(string):
                repeat = 0.0 if independent or t == 0 else again
                chance *= (1 - repeat) * p[token] + repeat * (t > 0 and token == string[t - 1])
            key = tuple(string.count(token) for token in range(size))
            total[key] = total.get(key, 0.0) + chance
        errors = [abs(value - multinomial.pmf(key, steps, p)) for key, value in total.items()]
        return float(max(errors)), {"p": p.tolist(), "T": steps}

    return violation


def _attempt_counts(independent: bool) -> Evidence:
    return d.attempt(
        _counts_are_off(independent),
        "counts of T independent tokens",
        draws=60,
        oracle="scipy.stats.multinomial",
        because="float64 sums of at most 81 products; scipy goes through logarithms of factorials",
    )


@claim(
    "geometry.categorical",
    statement=r"\text{the output } X \mid Y \text{ of a language model follows a multinomial distribution}",
    source="zhao2024week8, own ideas, extension",
    expected=Verdict.PROVED_IF,
    rows=("S0-23",),
    domain="autoregressive models over V tokens",
    condition="one step (n = 1: the categorical distribution), or counts of independent steps with one law",
    proof=_CATEGORICAL,
)
def categorical() -> list[Evidence]:
    """One token: n!/(Π N_i!) Π p^N at n = 1. A model that writes aa or bb: counts (1, 1) never happen."""
    third = sp.Rational(1, 3)
    one_step = sp.factorial(1) / (sp.factorial(1) * sp.factorial(0)) * third**1 * (1 - third) ** 0
    at_half = sp.binomial(2, 1) * sp.Rational(1, 2) ** 2
    return [
        exact.check(one_step, "==", third, role="inside condition", says="n = 1, p = (1/3, 2/3): the law at e_1"),
        exact.check(
            0,
            "==",
            at_half,
            role="outside condition",
            says="a model that writes aa or bb, 1/2 each: the counts (1, 1) are as likely as in the multinomial",
        ),
        _attempt_counts(True),
    ]


@categorical.control
def _() -> Evidence:
    """Counts of a chain that repeats its last token must not pass."""
    return _attempt_counts(False)
