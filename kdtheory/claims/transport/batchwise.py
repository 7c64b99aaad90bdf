"""Section 7.8 of chapter 07: SinKD transports between the samples of a batch."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations
from typing import Any

import numpy as np
import sympy as sp

from kdtheory.claims.transport import batch_operations
from kdtheory.claims.transport.batch_operations import EPSILON, ROUNDS, ULPS, by_loops, draw
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric, symbolic

F = Fraction


def _one_row_fails_by(factor: float) -> Evidence:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q = draw(rng, 1)
        value = batch_operations.sinkd(p, q, float(rng.uniform(0.02, 3)), int(rng.integers(1, 30)))
        return abs(value - factor * 0.5 * float(np.abs(p - q).sum())), {"p": p.tolist(), "q": q.tolist()}

    return numeric.attempt(
        violation, draws=60, oracle="½ Σ|p − q|", tolerance=1e-13, because=ULPS, says="one sample: 2 TV, for every ε, T"
    )


@claim(
    "transport.sinkd-one-sample",
    statement=r"b = 1: \mathrm{SinKD}(p, q) = \Vert p - q\Vert_1 = 2\,\mathrm{TV}(p, q) \text{ for all }"
    r" \varepsilon, T",
    source="kdtheory, Theorem 50",
    expected=Verdict.PROVED,
    domain="one position in the batch",
    proof=Anchor("07_transport#sinkd-zero", sha256="5037c2fb312378c1"),
)
def sinkd_one_sample() -> list[Evidence]:
    """A plan of one entry is 1."""
    return [_one_row_fails_by(2.0)]


@sinkd_one_sample.control
def _() -> Evidence:
    """TV without the factor 2 must not pass."""
    return _one_row_fails_by(1.0)


def _zero_fails_by(at_teacher: bool) -> Evidence:
    """Positive unless all 2b rows agree; the control says that q = p suffices."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q = draw(rng, int(rng.integers(2, 5)))
        if rng.random() < 0.5:
            q = p.copy()
        agree = bool((p == q).all()) if at_teacher else bool((np.concatenate([p, q]) == p[0]).all())
        value = by_loops(p.tolist(), q.tolist(), EPSILON, ROUNDS, np.exp)
        return float(agree != (value == 0)), {"p": p.tolist(), "q": q.tolist(), "value": value}

    return numeric.attempt(
        violation,
        draws=40,
        oracle="loops over the definition",
        tolerance=0.0,
        because="rows that agree have cost exactly 0, others a cost and a plan that do not underflow at ε = 1/10",
        says="0 exactly where all rows of teacher and student are one distribution",
    )


@claim(
    "transport.sinkd-zero",
    statement=r"\mathrm{SinKD}(p, q) = 0 \iff p_1 = \dots = p_b = q_1 = \dots = q_b;"
    r" \text{ so } \mathrm{SinKD}(p, p) > 0 \text{ once two rows of the batch differ}",
    source="kdtheory, Theorem 50",
    expected=Verdict.PROVED,
    domain="every b, ε > 0, T >= 1",
    proof=Anchor("07_transport#sinkd-zero", sha256="5037c2fb312378c1"),
)
def sinkd_zero() -> list[Evidence]:
    """A plan without zeros, so every cost counts."""
    k = sp.exp(-20)  # C = 2, ε = 1/10: the largest cost there is
    apart = [[sp.Integer(1), sp.Integer(0)], [sp.Integer(0), sp.Integer(1)]]
    value = sp.simplify(by_loops(apart, apart, sp.Rational(1, 10), 2, sp.exp))
    return [
        _zero_fails_by(False),
        exact.check(value, ">", 0, says="q = p = two rows with disjoint support, ε = 1/10, two rounds by loops"),
        symbolic.identity(value, 4 * k / (1 + k), says="that value"),
        numeric.compare(
            batch_operations.sinkd(np.eye(2), np.eye(2)),
            4 * np.exp(-20) / (1 + np.exp(-20)),
            oracle="4k/(1 + k)",
            tolerance=1e-12,
            because=ULPS,
            relative_to=4 * np.exp(-20),
        ),
    ]


@sinkd_zero.control
def _() -> Evidence:
    """That the loss vanishes at q = p must not pass."""
    return _zero_fails_by(True)


def _order_fails_by(relabel: Any) -> Evidence:
    """Permuted student samples; tokens relabelled on both sides; the control relabels the student's tokens alone."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q = draw(rng, 3)
        tokens = rng.permutation(p.shape[1])
        first, second = relabel(p, q, tokens)
        value = by_loops(p.tolist(), q.tolist(), EPSILON, 5, np.exp)
        others = [batch_operations.sinkd(first, second[list(order)], rounds=5) for order in permutations(range(3))]
        return max(abs(x / value - 1) if value else x for x in others), {"p": p.tolist(), "q": q.tolist()}

    return numeric.attempt(
        violation,
        draws=25,
        oracle="loops over the definition",
        tolerance=1e-11,
        because=ULPS,
        says="orders do not count",
    )


@claim(
    "transport.sinkd-permutation",
    statement=r"\mathrm{SinKD}(p, q \circ \sigma) = \mathrm{SinKD}(p, q) \text{ for permutations } \sigma \text{ of the"
    r" batch; it is unchanged if the tokens of both sides are relabelled: no token metric enters}",
    source="kdtheory, Theorem 51",
    expected=Verdict.PROVED,
    domain="every b, d, ε > 0, T >= 1",
    proof=Anchor("07_transport#sinkd-permutation", sha256="c61b596ef77b1554"),
)
def sinkd_permutation() -> Evidence:
    """The right answers, given to the wrong questions, score like the right answers."""
    return _order_fails_by(lambda p, q, tokens: (p[:, tokens], q[:, tokens]))


@sinkd_permutation.control
def _() -> Evidence:
    """Relabelling the student's tokens alone must not pass."""
    return _order_fails_by(lambda p, q, tokens: (p, q[:, np.roll(np.arange(len(tokens)), 1)]))


def _collapse_fails(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    """Both halves of the theorem: the value at equal student rows, and the lower bound at the copy."""
    b = int(rng.integers(2, 5))
    p, epsilon, rounds = rng.dirichlet(np.ones(3), size=b), float(rng.uniform(0.05, 3)), int(rng.integers(1, 25))
    apart = np.abs(p[:, None] - p).sum(-1)
    same = by_loops(p.tolist(), [p[0].tolist()] * b, epsilon, rounds, np.exp)
    copy = by_loops(p.tolist(), p.tolist(), epsilon, rounds, np.exp)
    bound = np.exp(-2 * apart.max() / epsilon) * apart.sum() / b
    return max(abs(same / apart[0].sum() - 1), bound / copy - 1), {"p": p.tolist(), "epsilon": epsilon}


def copy_and_collapse(gap: Fraction, epsilon: Fraction) -> tuple[sp.Expr, sp.Expr]:
    """Lower bound of the loss at the copy, and the loss at the collapse, for a batch (x, y, y) with ‖x − y‖₁ = gap."""
    gap, epsilon = sp.sympify(gap), sp.sympify(epsilon)
    return sp.exp(-2 * gap / epsilon) * 4 * gap / 3, gap


@claim(
    "transport.sinkd-copy",
    statement=r"q_1 = \dots = q_b = m \text{ has } \mathrm{SinKD} = \textstyle\sum_i \Vert p_i - m\Vert_1,"
    r"\ q = p \text{ at least } e^{-2 \max C/\varepsilon}\, \tfrac1b \sum_{i,j} \Vert p_i - p_j\Vert_1:"
    r" \text{ one answer for the whole batch can beat the copy of the teacher}",
    source="kdtheory, Theorem 52",
    expected=Verdict.PROVED,
    domain="every b, ε > 0, T >= 1; rows that differ; at ε = 1/10: two rows (101/200, 99/200), one (1/2, 1/2)",
    proof=Anchor("07_transport#sinkd-copy", sha256="9510b34fc4afb9d2"),
)
def sinkd_copy() -> list[Evidence]:
    """Rows closer than ε share one answer."""
    x, y = (0.5, 0.5), (0.505, 0.495)
    batch = np.array([x, y, y])
    values = [by_loops(batch.tolist(), q, EPSILON, ROUNDS, np.exp) for q in (batch.tolist(), [list(y)] * 3)]
    return [
        numeric.attempt(
            _collapse_fails,
            draws=60,
            oracle="loops over the definition",
            tolerance=1e-11,
            because=ULPS,
            says="value at equal student rows, and bound at the copy",
        ),
        exact.check(*_beaten(F(1, 100), F(1, 10)), says="bound at the copy against the collapse, ε = 1/10"),
        numeric.compare(
            [batch_operations.sinkd(batch, batch), batch_operations.sinkd(batch, np.array([y, y, y]))],
            values,
            oracle="loops over the definition",
            tolerance=1e-14,
            because=ULPS,
        ),
    ]


def _beaten(gap: Fraction, epsilon: Fraction) -> tuple[sp.Expr, Any, sp.Expr]:
    copy, collapse = copy_and_collapse(gap, epsilon)
    return copy, ">", collapse


@sinkd_copy.control
def _() -> Evidence:
    """Rows ten times ε apart must not pass: there the bound says nothing."""
    return exact.check(*_beaten(F(1), F(1, 10)), says="bound at the copy, rows far apart")


def _rounds_fail_by(deficit: float) -> Evidence:
    """Two classes, first probabilities p2 < q1 < p1 < q2; ε far below all differences of the costs."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        steps, rounds = rng.uniform(0.1, 1, size=3), int(rng.integers(1, 25))
        steps[1] = steps[0] * rng.uniform(0.2, 0.8)  # q1 is nearer to p1 than to p2
        p2, q1, p1, q2 = np.concatenate([[0.0], steps.cumsum()]) / steps.sum()
        p, q = ([(x, 1 - x) for x in pair] for pair in ((p1, p2), (q1, q2)))
        cost = [[2 * abs(x - y) for y in (q1, q2)] for x in (p1, p2)]
        limit = cost[0][1] + cost[1][0] - deficit * (cost[0][1] - cost[0][0]) / (2 * rounds)
        least = min(cost[1][0] - cost[0][0], sum(cost[0]) / 2, 2 * cost[0][0])
        value = by_loops(p, q, least / 30, rounds, np.exp)
        return abs(value - limit), {"p1": p1, "q1": q1, "rounds": rounds}

    return numeric.attempt(
        violation,
        draws=60,
        oracle="loops over the definition at a small ε",
        tolerance=1e-8,
        because="terms of order exp(-30), times at most 50 factors",
        says="the limit ε → 0 after T rounds",
    )


@claim(
    "transport.sinkd-rounds",
    statement=r"b = 2,\ C_{11} < C_{21},\ C_{12} < C_{22},\ C_{12} + C_{21} < C_{11} + C_{22}:"
    r"\ \mathrm{SinKD} \to C_{12} + C_{21} - \frac{C_{12} - C_{11}}{2 T} \text{ as } \varepsilon \to 0"
    r" \text{: can be below every matching}",
    source="kdtheory, Theorem 53",
    expected=Verdict.PROVED,
    domain="T fixed, as published",
    proof=Anchor("07_transport#sinkd-rounds", sha256="e5aa8dd8db538f1c"),
)
def sinkd_rounds() -> list[Evidence]:
    """A round moves a share of order 1/T to the better matching; the rest of the columns stays unequal."""
    p, q = ((F(3, 8), F(5, 8)), (F(0), F(1))), ((F(1, 4), F(3, 4)), (F(1), F(0)))
    cost = [[sum(abs(a - b) for a, b in zip(x, y, strict=True)) for y in q] for x in p]
    best = min(cost[0][0] + cost[1][1], cost[0][1] + cost[1][0])
    teacher, student = ([[float(a) for a in row] for row in side] for side in (p, q))
    ours = batch_operations.sinkd(np.array(teacher), np.array(student), 0.01)
    return [
        _rounds_fail_by(1.0),
        exact.check(best, "==", F(7, 4), says="the example: best matching"),
        numeric.compare(
            [by_loops(teacher, student, 0.01, ROUNDS, np.exp), ours],
            [float(best) - 1 / (2 * ROUNDS)] * 2,
            oracle="7/4 - 1/(2T) at T = 20",
            tolerance=1e-9,
            because="exp(-25) at ε = 1/100",
        ),
    ]


@sinkd_rounds.control
def _() -> Evidence:
    """That the limit is the best matching must not pass."""
    return _rounds_fail_by(0.0)
