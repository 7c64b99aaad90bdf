"""Theorems 6 and 8 of chapter 07: laws whose masses differ by a rounding, and plans that miss their marginals."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from scipy.optimize import linprog

from kdtheory.claims.transport import finite
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric

_DROPPED = Anchor("07_transport#float-marginals", sha256="9207945f35e7f08c")
_REPAIRED = Anchor("07_transport#plan-repair", sha256="e1bd833231b6bd1e")
_ULP = Fraction(1, 2**53)


# -- which equation to drop --------------------------------------------------------------------------------------------
def _left_for(column: int) -> Fraction:
    """What is left for a column whose equation is dropped: p has mass 1, q one unit in the last place more."""
    p, q = finite.fractions("1/2", "1/2"), [*finite.fractions("1/2", "1/2"), Fraction(0)]
    q[1] += _ULP
    return sum(p) - (sum(q) - q[column])


def _solvable(p: finite.Array, q: finite.Array, cost: finite.Array, dropped: int | None) -> tuple[bool, float]:
    """Whether HiGHS finds a solution without one column's equation (None: with all of them), and its value."""
    kept = np.arange(p.size + q.size) != (-1 if dropped is None else p.size + dropped)
    solved = linprog(
        cost.ravel(),
        A_eq=finite.equations(p.size, q.size)[kept],
        b_eq=np.concatenate([p, q])[kept],
        options=finite.SHARP,
    )
    if solved.status not in (0, 2):
        raise RuntimeError(f"linprog stopped: {solved.message}")
    return solved.status == 0, float(solved.fun) if solved.status == 0 else np.inf


def _dropping_fails_by(criterion: Callable[[finite.Array, finite.Array, int], bool], share: float) -> Any:
    """Masses off by multiples of 1/64 (exact floats): solvable or not, and to which law the plan goes."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        m, n = (int(k) for k in rng.integers(2, 5, size=2))
        p, q = (np.array(finite.integers(rng, size, 64), dtype=float) for size in (m, n))
        q = np.maximum(q + rng.integers(-6, 7, size=n) * rng.integers(0, 2, size=n) / 64, 0.0)
        cost, k, excess = rng.uniform(size=(m, n)), int(rng.integers(n)), q.sum() - 1
        solvable, value = _solvable(p, q, cost, k)
        if solvable != criterion(p, q, k) or (_solvable(p, q, cost, None)[0] != (excess == 0)):
            return np.inf, {"p": p.tolist(), "q": q.tolist(), "k": k}
        if not solvable:
            return -np.inf, {}
        moved = q - excess * np.eye(n)[k]
        apart = abs(value - finite.highs(p, q / q.sum(), cost)[0]) - share * finite.osc(cost) * abs(excess)
        return max(abs(value - finite.highs(p, moved, cost)[0]), apart), {"p": p.tolist(), "q": q.tolist(), "k": k}

    return violation


def _enough(p: finite.Array, q: finite.Array, k: int) -> bool:
    return bool(q[k] >= q.sum() - p.sum())


def _attempt_dropping(
    criterion: Callable[[finite.Array, finite.Array, int], bool] = _enough, share: float = 1.0
) -> Evidence:
    return numeric.attempt(
        _dropping_fails_by(criterion, share),
        draws=40,
        oracle=finite.HIGHS,
        tolerance=1e-8,
        because=finite.SOLVER,
        says="solvable without column k if and only if q_k ≥ Q - P; within osc(C) |1 - Q| of the normalised law",
    )


@claim(
    "transport.float-marginals",
    statement=r"\text{masses } P \ne Q:\ A\Gamma = b \text{ has no solution } \Gamma \ge 0 \text{, and without the"
    r" equation of column } k \text{ it has one iff } q_k \ge Q - P:\ \text{the largest } q_k \text{ may be dropped,"
    r" a zero not if } Q > P",
    source="kdtheory, Theorem 6",
    expected=Verdict.PROVED,
    domain="p, q ≥ 0 of different mass, any cost; the floats of a softmax are such a pair",
    uses=("transport.linear-programme", "transport.potentials-are-slopes"),
    proof=_DROPPED,
)
def float_marginals() -> list[Evidence]:
    """Without column k it must take what the other columns leave; one unit in the last place is enough."""
    return [
        exact.check(_left_for(0), ">=", 0, says="q = (½, ½ + 2⁻⁵³, 0), p = (½, ½): left for column 1"),
        exact.check(_left_for(2), "<", 0, says="the same laws: left for column 3, which has no mass"),
        _attempt_dropping(),
    ]


@float_marginals.control
def _() -> list[Evidence]:
    """Neither that any column may be dropped, nor a tenth of the distance, must pass."""
    return [_attempt_dropping(lambda p, q, k: True), _attempt_dropping(share=0.1)]


# -- an interval from a plan that is none ------------------------------------------------------------------------------
def _interval_fails_by(factor: float) -> Any:
    """T_C by HiGHS inside the interval of random prices and a random matrix, one near a plan, one of right row sums."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        m, n = (int(k) for k in rng.integers(2, 6, size=2))
        p, q, cost = finite.law(rng, m), finite.law(rng, n), rng.uniform(size=(m, n))
        value, plan = finite.highs(p, q, cost)
        kind = rng.random()
        if kind < 0.3:  # all in one column, where it costs nothing: what is too much there has to leave at max C
            cost = np.ones((m, 1)) * (np.arange(n) > 0)
            value, plan = finite.highs(p, q, cost)[0], p[:, None] * (np.arange(n) == 0)
        elif kind < 0.7:  # cells as dear as any that keep nothing of their mass: the bound is nearly attained
            cost[plan > 0] = 1.0
            cost[rng.integers(m)] = 1.0
            value, plan = finite.highs(p, q, cost)
            plan = plan * (rng.random(plan.shape) < 0.7)
        else:
            plan = rng.uniform(0.5, 1.5) * rng.dirichlet(np.ones(m * n)).reshape(m, n)
        lost = np.maximum(p - plan.sum(1), 0).sum() + np.maximum(plan.sum(0) - q, 0).sum()
        upper = float((plan * cost).sum() + factor * cost.max() * lost)
        f = rng.normal(size=m)
        lower = float(f @ p + (cost - f[:, None]).min(0) @ q)
        return max(value - upper, lower - value), {"p": p.tolist(), "q": q.tolist(), "plan": plan.tolist()}

    return violation


def _attempt_interval(factor: float = 1.0) -> Evidence:
    return numeric.attempt(
        _interval_fails_by(factor),
        draws=80,
        oracle=finite.HIGHS,
        tolerance=1e-8,
        because=finite.SOLVER,
        says="⟨f, p⟩ + ⟨fᶜ, q⟩ ≤ T_C ≤ ⟨Γ, C⟩ + max C (Σ(p - r)₊ + Σ(s - q)₊)",
    )


@claim(
    "transport.plan-repair",
    statement=r"\langle f, p\rangle + \langle f^c, q\rangle \le T_C(p, q) \le \langle \Gamma, C\rangle + \max C\,"
    r" \bigl(\textstyle\sum_i (p_i - r_i)_+ + \sum_j (s_j - q_j)_+\bigr) \text{ for all } f \text{ and } \Gamma \ge 0",
    source="kdtheory, Theorem 8; altschuler2017near, Lemma 7 (with four times the error)",
    expected=Verdict.PROVED,
    domain="C ≥ 0; Γ with row sums r and column sums s, of any mass",
    uses=("transport.duality",),
    proof=_REPAIRED,
)
def plan_repair() -> list[Evidence]:
    """Scale rows and columns down to the marginals, then move what is left as a product."""
    p, s, q = finite.fractions(1, 0), finite.fractions(1, 0), finite.fractions(0, 1)
    lost = sum(max(a - b, Fraction(0)) for a, b in zip(s, q, strict=True))
    value = finite.least(p, q, [finite.fractions(0, 1), finite.fractions(1, 0)])
    return [
        exact.check(value, "==", lost, says="Γ = diag(1, 0) for p = (1, 0), q = (0, 1): the bound is attained"),
        _attempt_interval(),
    ]


@plan_repair.control
def _() -> Evidence:
    """Nine tenths of the price must not pass."""
    return _attempt_interval(0.9)
