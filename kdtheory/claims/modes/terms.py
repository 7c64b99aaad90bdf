"""Theorem 3 of chapter 05: what a small divergence says about a single token."""

from __future__ import annotations

import numpy as np
import sympy as sp
from scipy.special import rel_entr

from kdtheory.claims.modes.events import EVENTS, Point, Violation, attempt, avoiding, draw
from kdtheory.claims.oracles import exact_kl
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact

_TERMS = Anchor("05_modes#terms", sha256="1faeba2cb51237bc")

_p = sp.Symbol("p", positive=True)


def _term_below(factor: float) -> Violation:
    """|p log(p/q)| <= p (log 1/p + log 1/ε) for q >= ε."""

    def violation(rng: np.random.Generator) -> tuple[float, Point]:
        p, floor = 10 ** rng.uniform(-30, 0), 10 ** rng.uniform(-10, 0)
        q = floor ** rng.uniform(0, 1)
        bound = p * factor * (np.log(1 / p) + np.log(1 / floor))
        return float(abs(p * np.log(p / q)) - bound), {"p": p, "q": q, "floor": floor}

    return violation


@claim(
    "modes.small-p-small-term",
    statement=r"p(x) \text{ small} \Rightarrow \text{the term } p \log \tfrac pq \text{ of FKL is small,}"
    r" \text{ whatever } q(x)",
    source="forumpost, forward KL",
    expected=Verdict.PROVED_IF,
    rows=("S3-02",),
    condition=r"q(x) \ge \varepsilon for a fixed \varepsilon > 0: then"
    r" |p \log (p/q)| \le p (\log \tfrac1p + \log \tfrac1\varepsilon)",
    proof=_TERMS,
)
def small_p_small_term() -> list[Evidence]:
    """With q fixed the term goes to 0; with q = e^{-1/p} it goes to 1."""
    tiny = sp.Rational(1, 10**6)
    return [
        exact.check(
            tiny * sp.log(tiny / sp.Rational(1, 2)),
            ">=",
            sp.Rational(-1, 50000),
            role="inside condition",
            says="p = 10⁻⁶, q = 1/2: the term is above -1/50000 (and negative)",
        ),
        exact.check(
            sp.limit(_p * sp.log(_p) + 1, _p, 0, "+"),
            "<=",
            sp.Rational(1, 2),
            role="outside condition",
            says="q = e^{-1/p}, p → 0: the limit of p log(p/q) = p log p + 1 is small (at most 1/2)",
        ),
        attempt(_term_below(1.0), "|p log(p/q)| <= p (log 1/p + log 1/ε) for q >= ε"),
    ]


@small_p_small_term.control
def _() -> Evidence:
    """Half that bound must fail."""
    return attempt(_term_below(0.5), "half the bound")


def _irrelevant(power: float) -> Violation:
    """|q_i log(q_i/p_i)| and RKL's logit gradient are at most √q_i times a constant of the teacher, q_i <= p_min."""

    def violation(rng: np.random.Generator) -> tuple[float, Point]:
        p, q, _ = draw(rng)
        at = int(rng.integers(p.size))
        q = np.where(np.arange(p.size) == at, 0, q)
        small = p.min() * 10 ** rng.uniform(-20, 0)
        q = q / q.sum() * (1 - small)
        q[at] = small
        divergence = rel_entr(q, p).sum()
        term = small * np.log(small / p[at])
        gradient = term - small * divergence
        # x log(1/x) <= 2/e √x, and RKL <= log 1/p_min
        bound = small**power * (2 / np.e + np.sqrt(small) * 2 * np.log(1 / p.min()))
        return float(max(abs(term), abs(gradient)) - bound), {"p": p.tolist(), "q": q.tolist()}

    return violation


@claim(
    "modes.zero-q-no-demand",
    statement=r"q(x) = 0 \Rightarrow p(x) \text{ is irrelevant to RKL}",
    source="forumpost, reverse KL",
    expected=Verdict.PROVED,
    rows=("S3-06",),
    domain=r"p(x) > 0: as q_x \to 0 the term q_x \log(q_x/p_x) and the logit gradient q_x(\log(q_x/p_x) - RKL) vanish",
    proof=_TERMS,
)
def zero_q_no_demand() -> list[Evidence]:
    """Both go to 0 like q log 1/q; so a token once lost is hardly asked for."""
    q = sp.Symbol("q", positive=True)
    return [
        exact.check(
            sp.limit(q * sp.log(q / sp.Rational(2, 5)), q, 0, "+"), "==", 0, says="limit of q log(q/p), p = 2/5,"
        ),
        attempt(_irrelevant(0.5), "term and logit gradient are at most √q (2/e + 2 √q log 1/p_min)"),
    ]


@zero_q_no_demand.control
def _() -> Evidence:
    """A bound proportional to q itself must fail: the logarithm is there."""
    return attempt(_irrelevant(1.0), "term and logit gradient at most q times the same constant")


@claim(
    "modes.small-p-zero-q",
    statement=r"p(x) \text{ small} \Rightarrow q(x) \text{ must be } 0 \text{ under RKL}",
    source="forumpost, reverse KL",
    expected=Verdict.PROVED_IF,
    rows=("S3-05",),
    condition=r"p(x) = 0 exactly; for p(x) > 0 only q(x) \le (RKL + \log 2)/\log(1/p(x)), and q(x) = p(x) at the"
    r" optimum",
    domain="a softmax never outputs 0",
    uses=("modes.realisable", "modes.rkl-low-where-teacher-low"),
    proof=EVENTS,
)
def small_p_zero_q() -> list[Evidence]:
    """At p = 1/1000 the student that drops the token is worse than the one that keeps it at 1/1000."""
    p, drop = ["999/1000", "1/1000"], ["1", "0"]
    return [
        exact.check(
            sp.limit(sp.Rational(1, 1000) * sp.log(sp.Rational(1, 1000) / _p), _p, 0, "+"),
            "==",
            sp.oo,
            role="inside condition",
            says="p = 0: q = 1/1000 costs q log(q/p), infinite,",
        ),
        exact.check(
            exact_kl(drop, p),
            "<=",
            exact_kl(p, p),
            role="outside condition",
            says="p = 1/1000: q = 0 is at least as good as q = p",
        ),
        attempt(avoiding(1.0), "q(A) log 1/p(A) <= RKL + log 2"),
    ]


@small_p_zero_q.control
def _() -> Evidence:
    """The bound without log 2 must fail."""
    return attempt(avoiding(0.0), "q(A) log 1/p(A) <= RKL")
