"""Theorem 5 of chapter 07: common mass may be taken away exactly if the cost obeys the triangle inequality."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse.csgraph import shortest_path

from kdtheory.claims.transport import finite
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric
from kdtheory.ledger.evidence import Role

_P, _Q = finite.fractions("1/2", "1/2", 0), finite.fractions(0, "1/2", "1/2")


def _taken_away(p: Any, q: Any) -> tuple[Any, Any]:
    """(p - q)₊ and (q - p)₊."""
    return [max(a - b, 0) for a, b in zip(p, q, strict=True)], [max(b - a, 0) for a, b in zip(p, q, strict=True)]


def _on_a_line(power: int, role: Role = "supports") -> Evidence:
    cost = [finite.fractions(*(abs(i - j) ** power for j in range(3))) for i in range(3)]
    full, rest = finite.least(_P, _Q, cost), finite.least(*_taken_away(_P, _Q), cost)
    says = f"tokens 0, 1, 2, |x - y|^{power}, (½, ½, 0) to (0, ½, ½): with and without the common mass"
    return exact.check(full, "==", rest, role=role, says=says)


def _cost(rng: np.random.Generator, size: int, kind: str) -> finite.Array:
    """Shortest ways in a random one-way network (not symmetric); or squared distances."""
    if kind == "squares":
        return finite.distances(rng, size) ** 2
    return np.asarray(shortest_path(rng.uniform(0.1, 2, size=(size, size))))


def _reduction_fails_by(kind: str) -> Any:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(2, 6))
        p, q, cost = finite.law(rng, size, 0.0), finite.law(rng, size, 0.0), _cost(rng, size, kind)
        np.fill_diagonal(cost, 0.0)
        full, solved = finite.highs(p, q, cost)[0], finite.highs(np.maximum(p - q, 0), np.maximum(q - p, 0), cost)
        whole = solved[1] + np.diag(np.minimum(p, q))
        errors = [abs(full - solved[0]), np.abs(whole.sum(1) - p).max(), np.abs(whole.sum(0) - q).max()]
        return float(max(errors)), {"p": p.tolist(), "q": q.tolist(), "cost": cost.tolist()}

    return violation


def _attempt(kind: str) -> Evidence:
    return numeric.attempt(
        _reduction_fails_by(kind),
        draws=40,
        oracle=finite.HIGHS,
        tolerance=1e-8,
        because=finite.SOLVER,
        says=f"T_C(p, q) = T_C((p - q)₊, (q - p)₊) for {kind}",
    )


def _triangle_is_needed(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    """Where C_ik > C_ij + C_jk, the pair of the proof must show a difference of at least half the excess."""
    size = 3
    cost = rng.integers(1, 9, size=(size, size))
    np.fill_diagonal(cost, 0)
    exact_cost = [finite.fractions(*map(int, row)) for row in cost]
    excess = exact_cost[0][2] - exact_cost[0][1] - exact_cost[1][2]
    if excess <= 0:
        return 0.0, {}
    gap = finite.least(*_taken_away(_P, _Q), exact_cost) - finite.least(_P, _Q, exact_cost)
    return float(excess / 2 - gap), {"cost": cost.tolist()}


def _attempt_necessity() -> Evidence:
    return numeric.attempt(
        _triangle_is_needed,
        draws=30,
        oracle=finite.TREES,
        tolerance=0.0,
        because=finite.EXACT,
        says="half of C_ik - C_ij - C_jk is lost at least",
    )


@claim(
    "transport.reduction",
    statement=r"W_1(p, q) = T_C((p - q)_+, (q - p)_+): \text{ common mass stays where it is}",
    source="kdtheory, Theorem 5",
    expected=Verdict.PROVED_IF,
    domain="square costs with C_ii = 0, all p and q; symmetry is not needed",
    condition="the triangle inequality C_ik <= C_ij + C_jk, which is also necessary (squared distances violate it)",
    uses=("transport.linear-programme",),
    proof=Anchor("07_transport#reduction", sha256="9e45e9d618056d4f"),
)
def reduction() -> list[Evidence]:
    """Three tokens on a line with distances and squares; shortest ways in one-way networks; the sharp converse."""
    return [
        _on_a_line(1, "inside condition"),
        _on_a_line(2, "outside condition"),
        _attempt("one-way networks"),
        _attempt_necessity(),
    ]


@reduction.control
def _() -> list[Evidence]:
    """Squared distances must not pass."""
    return [_on_a_line(2), _attempt("squares")]
