"""Section 7.7 of chapter 07: sorted probabilities (ULD)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import permutations
from typing import Any

import numpy as np
import torch
from scipy.stats import wasserstein_distance

from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric
from kdtheory.transport.published import ULD

F = Fraction


def uld(p: Sequence[Fraction], q: Sequence[Fraction]) -> Fraction:
    """Σ |p_(k) − q_(k)|, exact."""
    return sum((abs(a - b) for a, b in zip(sorted(p), sorted(q), strict=True)), Fraction(0))


def tv(p: Sequence[Fraction], q: Sequence[Fraction]) -> Fraction:
    """½ Σ |p − q|, exact."""
    return sum((abs(a - b) for a, b in zip(p, q, strict=True)), Fraction(0)) / 2


def law(rng: np.random.Generator, tokens: int) -> tuple[Fraction, ...]:
    """Multiples of 1/12, zeros and ties included."""
    counts = rng.multinomial(12, np.full(tokens, 1 / tokens))
    return tuple(F(int(k), 12) for k in counts)


def _sorted_fails_by(side: Any) -> Evidence:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        tokens = int(rng.integers(2, 6))
        p, q = law(rng, tokens), law(rng, tokens)
        best = min(2 * tv(p, order) for order in permutations(q))
        levels = tokens * wasserstein_distance([float(x) for x in p], [float(x) for x in q])
        ours = float(ULD().value([float(x) for x in p], [float(x) for x in q]))
        wrong = [
            float(abs(side(p, q) - best)),
            abs(levels - float(best)),
            abs(ours - float(best)),
            float(uld(p, q) / 2 - tv(p, q)),
            float((uld(p, q) == 0) != (sorted(p) == sorted(q))),
        ]
        return max(wrong), {"p": [str(x) for x in p], "q": [str(x) for x in q]}

    return numeric.attempt(
        violation,
        draws=60,
        oracle="minimum over all permutations, in rationals; scipy.stats.wasserstein_distance of the levels",
        tolerance=1e-13,
        because="the library and scipy round sums of five numbers below 1",
        says="least ‖p − q∘σ‖₁, V · W1 of the levels, at most 2 TV, 0 for equal levels only",
    )


@claim(
    "transport.uld-sorted",
    statement=r"\mathrm{ULD}(p, q) = \min_\sigma \Vert p - q \circ \sigma\Vert_1 = V\, W_1(\tfrac1V \textstyle\sum_i"
    r" \delta_{p_i}, \tfrac1V \sum_j \delta_{q_j}) \le 2\,\mathrm{TV}(p, q),"
    r" \text{ and } 0 \iff q \text{ is a permutation of } p",
    source="boizard2024uld; kdtheory, Theorem 41",
    expected=Verdict.PROVED,
    domain="all p, q; the W1 is that between numbers on the line",
    proof=Anchor("07_transport#uld-sorted", sha256="939dc316c5cdd3e8"),
)
def uld_sorted() -> list[Evidence]:
    """Levels are transported, not tokens."""
    swapped = (F(9, 10), F(1, 10)), (F(1, 10), F(9, 10))
    return [
        _sorted_fails_by(uld),
        exact.check(uld(*swapped), "==", 0, says="(9/10, 1/10) against (1/10, 9/10)"),
        exact.check(tv(*swapped), "==", F(4, 5), says="their total variation"),
    ]


@uld_sorted.control
def _() -> Evidence:
    """The unsorted Σ|p − q| must not pass."""
    return _sorted_fails_by(lambda p, q: 2 * tv(p, q))


def _stationary_fails_by(shuffle: bool) -> Evidence:
    """Loss and logit gradient of the library at a permuted teacher; the control takes another student."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        teacher, other = rng.dirichlet(np.ones(6), size=2)
        student = rng.permutation(teacher) if shuffle else other
        value, gradient = ULD().value_and_gradient(*(torch.tensor(x).log() for x in (teacher, student)))
        return float(value + gradient.abs().max()), {"teacher": teacher.tolist(), "student": student.tolist()}

    return numeric.attempt(
        violation,
        draws=40,
        oracle="zero",
        tolerance=0.0,
        because="the sorted logarithms are the same numbers",
        says="no loss and no force at a permuted teacher",
    )


_TEACHER = (F(1, 2), F(1, 3), F(1, 6))


def _mixed(p: Sequence[Fraction]) -> tuple[Fraction, ...]:
    """The mean of all orders of p."""
    orders = list(permutations(p))
    return tuple(sum(column, F(0)) / len(orders) for column in zip(*orders, strict=True))


def _convex_fails(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    """Uniform teacher: Jensen's inequality; another: a positive value at the mean of points of value 0."""
    tokens = int(rng.integers(2, 5))
    p, a, b = (law(rng, tokens) for _ in range(3))
    even, t = (F(1, tokens),) * tokens, F(int(rng.integers(1, 12)), 12)
    between = [t * x + (1 - t) * y for x, y in zip(a, b, strict=True)]
    excess = uld(even, between) - t * uld(even, a) - (1 - t) * uld(even, b)
    missed = p != even and uld(p, _mixed(p)) <= 0
    return float(max(excess, F(int(missed)))), {"p": [str(x) for x in p], "a": [str(x) for x in a]}


@claim(
    "transport.uld-wrong-order",
    statement=r"\text{at every } q = p \circ \sigma \text{ ULD and its gradient are } 0 \text{ while TV can be } 1;"
    r" \text{ ULD is convex in } q \text{ for uniform } p \text{ only, and not the } W_1 \text{ of any cost with}"
    r"\ C_{ii} = 0 < C_{ij}",
    source="kdtheory, Theorem 41",
    expected=Verdict.PROVED,
    domain="V >= 2",
    uses=("transport.uld-sorted",),
    proof=Anchor("07_transport#uld-sorted", sha256="939dc316c5cdd3e8"),
)
def uld_wrong_order() -> list[Evidence]:
    """A student that ranks the tokens the wrong way round is at rest."""
    one, other, middle = (F(1), F(0)), (F(0), F(1)), (F(1, 2), F(1, 2))
    return [
        _stationary_fails_by(True),
        exact.check(uld(one, other), "==", 0, says="disjoint supports"),
        exact.check(tv(one, other), "==", 1, says="their total variation"),
        exact.check(uld(one, middle), ">", (uld(one, one) + uld(one, other)) / 2, says="midpoint against the mean"),
        exact.check(
            uld(_TEACHER, _mixed(_TEACHER)),
            ">",
            max(uld(_TEACHER, order) for order in permutations(_TEACHER)),
            says="teacher (1/2, 1/3, 1/6): the mean of its orders against the orders",
        ),
        numeric.attempt(
            _convex_fails,
            draws=60,
            oracle="rationals",
            tolerance=0.0,
            because="exact",
            says="teacher uniform: convex in q; else above its orders at their mean",
        ),
    ]


@uld_wrong_order.control
def _() -> Evidence:
    """A student with other levels must not pass as stationary."""
    return _stationary_fails_by(False)
