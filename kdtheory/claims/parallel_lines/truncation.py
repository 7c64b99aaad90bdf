"""Theorem 4 of chapter 01: the argument returns for truncated teachers and students."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp
from scipy.special import log_softmax, rel_entr, softmax

from kdtheory.claims.oracles import exact_kl
from kdtheory.divergences import FACTORIES
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric

PROOF = Anchor("01_parallel_lines#truncation", sha256="7762e1dec06f3745")
_OWN = "kdtheory, Theorem 4"
_ROUNDING = "float64 sums of at most 10 terms below 100"
e = sp.Symbol("e", positive=True)
_HALVES, _THIRDS = ["1/2", "1/2", 0], ["1/3", "1/3", "1/3"]


def _floored(p: Any, kept: Any, floor: float) -> Any:
    """The teacher with `floor` on every token that it had cut."""
    return np.where(kept, (1 - floor * (~kept).sum()) * p, floor)


def _draw(rng: np.random.Generator) -> tuple[Any, Any, Any, Any]:
    """Teacher on a proper subset, that subset, student logits, student."""
    size = int(rng.integers(2, 10))
    kept = rng.permutation(size) < int(rng.integers(1, size))
    p = np.where(kept, rng.dirichlet(np.ones(size)) + 1e-3, 0.0)
    z = rng.uniform(0, 5) * rng.normal(size=size)
    return p / p.sum(), kept, z, softmax(z)


def _teacher_fails_by(share: float) -> Any:
    """The library at a floor of 0, the finite losses' bounds, and η log(1/e) at a floor of 1e-200."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, kept, z, q = _draw(rng)
        outside, floor = float(q[~kept].sum()), 1e-200
        value = {name: float(FACTORIES[name]().value(p, q)) for name in ("fkl", "rkl", "jsd", "tvd")}
        skewed = [float(FACTORIES[name](alpha=0.1).value(p, q)) for name in ("skl", "srkl")]
        ceilings = [value["fkl"] - np.log(z.size) - np.ptp(z), value["jsd"] - np.log(2), value["tvd"] - 1]
        ceilings += [one - np.log(10) for one in skewed]
        floored = _floored(p, kept, floor)
        rest = float(rel_entr(q, p)[kept].sum() - (1 - outside) * np.log1p(-floor * (~kept).sum()))
        rest += float(rel_entr(q, 1.0)[~kept].sum())
        formula = share * outside * np.log(1 / floor) + rest
        ceilings += [abs(float(rel_entr(q, floored).sum()) - formula), 0.0 if np.isinf(value["rkl"]) else 1.0]
        return float(max(ceilings)), {"p": p.tolist(), "z": z.tolist()}

    return violation


def _attempt_teacher(share: float = 1.0) -> Evidence:
    return numeric.attempt(
        _teacher_fails_by(share),
        draws=300,
        oracle="scipy.special.rel_entr at a floor of 1e-200, and the bounds",
        tolerance=1e-11,
        because="float64 sums of at most 10 terms below 500",
        says="RKL = η log(1/e) + bounded, ∞ at e = 0; FKL ≤ log V + range, JS ≤ log 2, TV ≤ 1, SKL, SRKL ≤ log(1/α)",
    )


def _pull() -> sp.Expr:
    """∂KL(q, p^e)/∂z_1 over log(1/e), for p = (1, 0) with floor e and a fair student: x/(1 + x) on token 1 at x = 1."""
    x = sp.Symbol("x", positive=True)
    q = x / (1 + x)
    value = q * sp.log(q / (1 - e)) + (1 - q) * sp.log((1 - q) / e)
    return (x * sp.diff(value, x)).subs(x, 1) / sp.log(1 / e)


@claim(
    "parallel_lines.returns-truncated-teacher",
    statement=r"\text{reverse KL to a one-hot or top-}k\text{ teacher is infinite, for every softmax student}",
    source=_OWN,
    expected=Verdict.PROVED_IF,
    domain="softmax students; forward KL, JS, TV, W1, SKL and SRKL stay finite",
    condition="the teacher is exactly 0 on some token; with a floor e reverse KL is q(outside) log(1/e) + O(1)",
    proof=PROOF,
)
def returns_truncated_teacher() -> list[Evidence]:
    """Top 2 of 3: reverse KL infinite, forward KL log(3/2). A floor of 10⁻⁹: finite, and mostly about the floor."""
    floored = [sp.Rational(10**9 - 1, 2 * 10**9)] * 2 + [sp.Rational(1, 10**9)]
    says = "teacher (1/2, 1/2, 0), uniform student"
    return [
        exact.check(exact_kl(_THIRDS, _HALVES), "==", sp.oo, role="inside condition", says=f"{says}: reverse KL"),
        exact.check(exact_kl(_HALVES, _THIRDS), "==", sp.log(sp.Rational(3, 2)), says=f"{says}: forward KL"),
        exact.check(
            exact_kl(_THIRDS, floored),
            "==",
            sp.oo,
            role="outside condition",
            says=f"{says}, floor 10⁻⁹: reverse KL = ∞",
        ),
        exact.check(
            sp.limit(_pull(), e, 0, "+"),
            "==",
            -sp.Rational(1, 4),
            says="teacher (1, 0) with floor e, fair student: lim of ∂RKL/∂z_1 over log(1/e), q_1(0 - η)",
        ),
        _attempt_teacher(),
    ]


@returns_truncated_teacher.control
def _() -> Evidence:
    """Nine tenths of η log(1/e) must not pass."""
    return _attempt_teacher(0.9)


def _cut(z: Any, keep: int) -> Any:
    """log-probabilities of a student cut to its `keep` largest logits."""
    return log_softmax(np.where(np.argsort(np.argsort(-z)) < keep, z, -np.inf))


def _student_fails_by(ignore: bool) -> Any:
    """Infinite exactly if a token of the teacher was cut, and then so at near-by logits; else log k + range."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, kept, z, _ = _draw(rng)
        keep = int(rng.integers(1, z.size + 1))
        gaps = []
        for moved in (z, z + 1e-9 * rng.normal(size=z.size)):
            log_q = _cut(moved, keep)
            chosen = np.isfinite(log_q)
            value = float(rel_entr(p, np.exp(log_q)).sum())
            lost = bool((kept & ~chosen).any()) and not ignore
            gaps.append(float(np.isinf(value) != lost))
            gaps.append(value - np.log(keep) - np.ptp(moved[chosen]) if np.isfinite(value) else 0.0)
            if not (kept & chosen).any():
                gaps.append(abs(float(FACTORIES["jsd"]().value(p, np.exp(log_q))) - np.log(2)))
        return float(max(gaps)), {"p": p.tolist(), "z": z.tolist(), "k": keep}

    return violation


def _attempt_student(ignore: bool = False) -> Evidence:
    return numeric.attempt(
        _student_fails_by(ignore),
        draws=300,
        oracle="scipy.special.rel_entr, log_softmax",
        tolerance=1e-12,
        because=_ROUNDING,
        says="KL(p, cut student) = ∞ exactly if a teacher's token is cut, else at most log k + range; disjoint: log 2",
    )


@claim(
    "parallel_lines.returns-truncated-student",
    statement=r"\text{if teacher and student are both cut to their top } k, \text{ forward KL is infinite, and stays}"
    r"\text{ so under small changes of the logits}",
    source=_OWN,
    expected=Verdict.PROVED_IF,
    domain="students renormalised on their k largest logits",
    condition="the student's k tokens do not contain the teacher's",
    uses=("parallel_lines.returns-truncated-teacher",),
    proof=PROOF,
)
def returns_truncated_student() -> list[Evidence]:
    """Tokens {1, 2} and {2, 3}: both KL infinite, TV ½. Tokens {1, 2} and {1, 2, 3}: forward KL finite again."""
    crossed = [0, "1/2", "1/2"]
    return [
        exact.check(
            exact_kl(_HALVES, crossed), "==", sp.oo, role="inside condition", says="(1/2, 1/2, 0), (0, 1/2, 1/2)"
        ),
        exact.check(exact_kl(crossed, _HALVES), "==", sp.oo, role="inside condition", says="the same, reverse KL"),
        exact.check(
            exact_kl(_HALVES, _THIRDS),
            "==",
            sp.oo,
            role="outside condition",
            says="a student that keeps all three tokens: forward KL = ∞",
        ),
        _attempt_student(),
    ]


@returns_truncated_student.control
def _() -> Evidence:
    """Forward KL that is finite although a token of the teacher was cut must not pass."""
    return _attempt_student(ignore=True)
