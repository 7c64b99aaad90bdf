"""Section 7.7 of chapter 07: the independent coupling (EMO)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
from scipy.optimize import linprog

from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric
from kdtheory.transport.costs import TokenCost
from kdtheory.transport.published import EMO

F = Fraction
LINE = ((0, 1, 3), (1, 0, 2), (3, 2, 0))
TEACHER = (F(2, 5), F(1, 4), F(7, 20))


def emo(p: Sequence[Any], cost: Sequence[Sequence[Any]], q: Sequence[Any]) -> Any:
    """Σ p_i C_ij q_j, exact for exact input."""
    return sum(a * cost[i][j] * b for i, a in enumerate(p) for j, b in enumerate(q))


def transport(p: Any, cost: Any, q: Any) -> float:
    """The optimum by scipy's linear programming, one redundant marginal dropped: the oracle."""
    n = len(p)
    rows = np.vstack([np.kron(np.eye(n), np.ones(n)), np.kron(np.ones(n), np.eye(n))])[:-1]
    found = linprog(np.ravel(cost), A_eq=rows, b_eq=np.concatenate([p, q])[:-1], method="highs")
    return float(found.fun)


def separates(p: Any, cost: Any, q: Any) -> bool:
    """Whether C_ij + C_kl = C_il + C_kj on the supports of p and q."""
    teachers, students = np.flatnonzero(p), np.flatnonzero(q)
    block = np.asarray(cost)[np.ix_(teachers, students)]
    return bool(np.allclose(block - block[:1] - block[:, :1] + block[0, 0], 0, atol=1e-12))


def _laws(rng: np.random.Generator) -> Any:
    """Two laws, often with zeros, and a cost that now and then separates."""
    p, q = (x * (rng.random(4) < 0.6) for x in rng.dirichlet(np.ones(4), size=2) + 0.05)
    p, q = (x / x.sum() if x.sum() else np.eye(4)[0] for x in (p, q))
    cost = rng.uniform(0, 1, size=(4, 4))
    if rng.random() < 0.4:
        cost = rng.uniform(0, 1, size=(4, 1)) + rng.uniform(0, 1, size=4)
    return p, cost, q


def _bound_fails_by(equal: Any) -> Evidence:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, cost, q = _laws(rng)
        solved, bound = transport(p, cost, q), float(p @ cost @ q)
        ours = float(EMO(cost=TokenCost.dense(cost)).value(p, q))
        tight = bound - solved < 1e-7
        wrong = [solved - bound, abs(ours - bound), float(tight != equal(p, cost, q))]
        return max(wrong), {"p": p.tolist(), "cost": cost.tolist(), "q": q.tolist()}

    return numeric.attempt(
        violation,
        draws=60,
        oracle="scipy.optimize.linprog",
        tolerance=1e-9,
        because="HiGHS solves to about 1e-10 here; gaps of random costs are far above 1e-7",
        says="at least the optimum; equal where the cost separates on the supports, and only there",
    )


@claim(
    "transport.emo-bound",
    statement=r"\mathrm{EMO}(p, q) = \sum_{i,j} p_i C_{ij} q_j \ge \min_\Gamma \langle \Gamma, C\rangle,"
    r" \text{ equal iff } C_{ij} + C_{kl} = C_{il} + C_{kj} \text{ for } i, k \in \mathrm{supp}\,p,\ j, l \in"
    r" \mathrm{supp}\,q",
    source="ren2024emo; kdtheory, Theorem 42",
    expected=Verdict.PROVED,
    domain="every cost",
    proof=Anchor("07_transport#emo-bound", sha256="eef519b859614296"),
)
def emo_bound() -> list[Evidence]:
    """One coupling among all; it is the best where all are equally good."""
    return [
        _bound_fails_by(separates),
        exact.check(emo(TEACHER, LINE, TEACHER), ">", 0, says="q = p on the line 0, 1, 3: positive"),
    ]


@emo_bound.control
def _() -> Evidence:
    """Equality for one-hot teachers only must not pass: one-hot students and separating costs have it too."""
    return _bound_fails_by(lambda p, cost, q: np.count_nonzero(p) == 1)


def _minimum_fails(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    """Linear in q; no student below the best token; mean over drawn labels; the mean direction for 1 − cos."""
    embedding = rng.normal(size=(5, 3))
    p, q, r = rng.dirichlet(np.ones(5), size=3)
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    cost, loss = 1 - unit @ unit.T, EMO(embedding=embedding)
    t = float(rng.random())
    labels = sum(a * float(loss.value(np.eye(5)[y], q)) for y, a in enumerate(p))
    nearest = np.eye(5)[int(np.argmax(unit @ (p @ unit)))]
    solved = sum(a * transport(np.eye(5)[y], cost, q) for y, a in enumerate(p))
    wrong = [
        abs(float(loss.value(p, t * q + (1 - t) * r)) - float(p @ cost @ (t * q + (1 - t) * r))),
        float(loss.value(p, nearest)) - min(float((p @ cost).min()), float(p @ cost @ q)),
        abs(labels - float(p @ cost @ q)),
        abs(solved - labels),
    ]
    return max(wrong), {"p": p.tolist(), "embedding": embedding.tolist()}


def _vertices(best: int) -> list[Evidence]:
    """On the line, the token named against all laws of a grid."""
    grid = [(F(a, 6), F(b, 6), F(6 - a - b, 6)) for a, b in product(range(7), repeat=2) if a + b <= 6]
    named = emo(TEACHER, LINE, [F(int(j == best)) for j in range(3)])
    return [exact.check(named, "<=", min(emo(TEACHER, LINE, q) for q in grid), says=f"token {best} against the grid")]


@claim(
    "transport.emo-minimum",
    statement=r"\mathrm{EMO}(p, \cdot) \text{ is linear; it is smallest at the tokens } j \text{ with least }"
    r" \sum_i p_i C_{ij},\ \text{for } 1 - \cos \text{ those nearest to } \sum_i p_i \hat E_i;"
    r" \text{ it is the mean of } \mathrm{EMO}(\delta_y, \cdot) = OT(\delta_y, \cdot) \text{ over } y \sim p",
    source="ren2024emo; kdtheory, Theorem 43",
    expected=Verdict.PROVED,
    domain="every cost; q = p is a minimum iff all tokens of the teacher are such tokens",
    uses=("noise.one-hot-transport",),
    proof=Anchor("07_transport#emo-minimum", sha256="8e570a30a4f881d7"),
)
def emo_minimum() -> list[Evidence]:
    """With drawn labels each step is exact transport, and the sum of the steps is not."""
    attempt = numeric.attempt(
        _minimum_fails,
        draws=25,
        oracle="scipy.optimize.linprog, and the cost matrix",
        tolerance=1e-9,
        because="HiGHS solves to about 1e-10 here",
        says="linear, smallest at the token nearest to the mean direction, mean of exact transports from labels",
    )
    return [
        attempt,
        *_vertices(1),
        exact.check(emo(TEACHER, LINE, (0, 1, 0)), "<", emo(TEACHER, LINE, TEACHER), says="a token of p = 1/4 beats p"),
    ]


@emo_minimum.control
def _() -> list[Evidence]:
    """That the mode is the best token must not pass."""
    return _vertices(0)
