"""Theorem 2 of chapter 05: what a small divergence allows on an event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import sympy as sp
from scipy.special import rel_entr, softmax

from kdtheory.claims.oracles import exact_kl
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric

EVENTS = Anchor("05_modes#events", sha256="99d82d25045ca85b")
_ROUNDING = "float64 sums of at most 12 terms"
_SCIPY = "scipy.special.rel_entr and sums over a random event"

Point = dict[str, Any]
Violation = Callable[[np.random.Generator], tuple[float, Point]]


def draw(rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Teacher, student and a random event (boolean mask, neither empty nor everything)."""
    size = int(rng.integers(2, 13))
    p = rng.dirichlet(np.full(size, 10 ** rng.uniform(-1, 1)))
    p = (p + 1e-9) / (p + 1e-9).sum()
    event = np.zeros(size, dtype=bool)
    event[rng.permutation(size)[: int(rng.integers(1, size))]] = True
    return p, softmax(rng.uniform(0.1, 5) * rng.normal(size=size)), event


def attempt(violation: Violation, says: str) -> Evidence:
    """500 random draws against the statement."""
    return numeric.attempt(violation, draws=500, oracle=_SCIPY, tolerance=1e-12, because=_ROUNDING, says=says)


def _excess(power: float) -> Violation:
    """Σ(q - p)₊ <= min(√(F/2), √(1 - e^{-F})), with F to another power for the control."""

    def violation(rng: np.random.Generator) -> tuple[float, Point]:
        p, q, _ = draw(rng)
        divergence = rel_entr(p, q).sum() ** power
        bound = min(np.sqrt(divergence / 2), np.sqrt(-np.expm1(-divergence)))
        return float(np.maximum(q - p, 0).sum() - bound), {"p": p.tolist(), "q": q.tolist()}

    return violation


@claim(
    "modes.fkl-excess",
    statement=r"FKL: \text{ where } p \text{ is high } q \text{ must be high;}"
    r" \text{ where } q \text{ is high } p \text{ need not be}",
    source="lossdesigns, forward KL",
    expected=Verdict.PROVED_IF,
    rows=("S1-08",),
    domain=r"first half always: q(A) \ge e^{-(FKL + \log 2)/p(A)}",
    condition=r"for the second half: FKL \ge 2 \delta^2 for an excess q(A) - p(A) = \delta; in general"
    r" \sum (q - p)_+ \le \min(\sqrt{FKL/2}, \sqrt{1 - e^{-FKL}})",
    proof=EVENTS,
)
def fkl_excess() -> list[Evidence]:
    """A third of the mass on a token that the teacher never produces costs log(3/2); at FKL = 1/10 it cannot be."""
    return [
        exact.check(
            exact_kl(["1/2", "1/2"], ["1/3", "1/3"]),
            "==",
            sp.log(sp.Rational(3, 2)),
            role="inside condition",
            says="p = (1/2, 1/2, 0), q = (1/3, 1/3, 1/3): q_3 = 1/3 where p_3 = 0, at an FKL of log(3/2)",
        ),
        exact.check(
            sp.sqrt(sp.Rational(1, 20)),
            ">=",
            sp.Rational(1, 3),
            role="outside condition",
            says="FKL = 1/10 leaves room for an excess of 1/3",
        ),
        attempt(_excess(1.0), "Σ(q - p)₊ <= min(√(FKL/2), √(1 - e^{-FKL}))"),
        attempt(_covering(1.0), "q(A) >= exp(-(FKL + log 2)/p(A))"),
    ]


@fkl_excess.control
def _() -> Evidence:
    """With FKL² in place of FKL the bound must fail."""
    return attempt(_excess(2.0), "Σ(q - p)₊ <= √(FKL²/2)")


def _covering(factor: float) -> Violation:
    def violation(rng: np.random.Generator) -> tuple[float, Point]:
        p, q, event = draw(rng)
        divergence = rel_entr(p, q).sum()
        bound = np.exp(-(divergence + factor * np.log(2)) / p[event].sum())
        return float(bound - q[event].sum()), {"p": p.tolist(), "q": q.tolist(), "event": event.tolist()}

    return violation


def avoiding(factor: float) -> Violation:
    """q(A) log(1/p(A)) <= RKL + log 2."""

    def violation(rng: np.random.Generator) -> tuple[float, Point]:
        p, q, event = draw(rng)
        divergence = rel_entr(q, p).sum()
        excess = -q[event].sum() * np.log(p[event].sum()) - divergence - factor * np.log(2)
        return float(excess), {"p": p.tolist(), "q": q.tolist(), "event": event.tolist()}

    return violation


@claim(
    "modes.rkl-low-where-teacher-low",
    statement=r"RKL: q \text{ low} \Rightarrow p \text{ should be small too}",
    source="lossdesigns, reverse KL",
    expected=Verdict.CORRECTED,
    rows=("S1-11",),
    domain=r"right, the contrapositive of 'q high \Rightarrow p high': p low \Rightarrow q low,"
    r" q(A) \log \tfrac{1}{p(A)} \le RKL + \log 2",
    proof=EVENTS,
)
def rkl_low_where_teacher_low() -> list[Evidence]:
    """p = (3/5, 2/5): among the two one-hot students reverse KL picks (1, 0), whose zero stands where p = 2/5."""
    p = ["3/5", "2/5"]
    return [
        exact.check(
            sp.Rational(2, 5),
            "<=",
            sp.Rational(1, 3),
            role="refutes as written",
            says="the RKL-optimal one-hot student has q_2 = 0, so p_2 is small, read as at most 1/3:",
        ),
        exact.check(
            exact_kl(["1", "0"], p), "<", exact_kl(["0", "1"], p), says="RKL prefers q = (1, 0) to q = (0, 1):"
        ),
        attempt(avoiding(1.0), "q(A) log 1/p(A) <= RKL + log 2"),
    ]


@rkl_low_where_teacher_low.control
def _() -> Evidence:
    """Without log 2 the bound must fail (q = p with p(A) = 1/2)."""
    return attempt(avoiding(0.0), "q(A) log 1/p(A) <= RKL")


def _leaving_out(rng: np.random.Generator, factor: float) -> tuple[float, Point]:
    """Students with q(A) = 0: none beats p(·|not A), which costs -log(1 - p(A))."""
    p, q, event = draw(rng)
    least = -factor * np.log(p[~event].sum())
    rest = np.where(event, 0, p)
    best = rel_entr(rest / rest.sum(), p).sum()
    other = np.where(event, 0, q)
    worse = rel_entr(other / other.sum(), p).sum()
    return float(max(abs(best - least), least - worse)), {"p": p.tolist(), "event": event.tolist()}


def _attempt_leaving_out(factor: float) -> Evidence:
    return attempt(
        lambda rng: _leaving_out(rng, factor), "the least RKL with q(A) = 0 is -log(1 - p(A)), at q = p(·|not A)"
    )


@claim(
    "modes.rkl-may-leave-out",
    statement=r"RKL: \text{ where } p \text{ is high, } q \text{ need not be high}",
    source="lossdesigns, reverse KL",
    expected=Verdict.PROVED,
    rows=("S1-12",),
    domain=r"\min \{RKL : q(A) = 0\} = -\log(1 - p(A)), at q = p(\cdot \mid A^c); FKL is infinite there",
    proof=EVENTS,
)
def rkl_may_leave_out() -> list[Evidence]:
    """Leaving out a third of the teacher costs log(3/2) nats, half of it log 2, and never more than that."""
    return [
        exact.check(
            exact_kl(["1/2", "1/2", "0"], ["1/3", "1/3", "1/3"]),
            "==",
            sp.log(sp.Rational(3, 2)),
            says="p uniform on three tokens, q = (1/2, 1/2, 0): RKL",
        ),
        _attempt_leaving_out(1.0),
    ]


@rkl_may_leave_out.control
def _() -> Evidence:
    """Twice that price must not pass."""
    return _attempt_leaving_out(2.0)
