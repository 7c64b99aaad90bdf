"""The Sinkhorn update in its printed and its right forms, in any arithmetic: oracles of section 7.3."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from kdtheory.claims.transport import finite

STEPS = 1200
Pair = tuple[Any, Any]


def times(kernel: Any, x: Sequence[Any]) -> list[Any]:
    """Matrix times vector, in any arithmetic."""
    return [sum(a * b for a, b in zip(row, x, strict=True)) for row in kernel]


def printed(kernel: Any, p: Any, q: Any, steps: int) -> tuple[list[Any], list[Any]]:
    """u^l and v^l of the update as printed, from u^0 = v^0 = 1, in any arithmetic."""
    u, v = [Fraction(1)] * len(p), [Fraction(1)] * len(q)
    for _ in range(steps):
        above, below = times(kernel, v), times(kernel, u)
        u, v = ([a / b for a, b in zip(x, y, strict=True)] for x, y in ((p, above), (q, below)))
    return u, v


def sums(kernel: Any, u: Sequence[Any], v: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Row and column sums of diag(u) K diag(v)."""
    rows = [a * b for a, b in zip(u, times(kernel, v), strict=True)]
    return rows, [a * b for a, b in zip(v, times(list(zip(*kernel, strict=True)), u), strict=True)]


def iterate(step: Any, u: finite.Array, v: finite.Array, steps: int = STEPS) -> Pair:
    """(u, v) after so many applications of `step`."""
    for _ in range(steps):
        u, v = step(u, v)
    return u, v


def sweep(kernel: Any, p: Any, q: Any, transpose: bool = True, fresh: bool = True) -> Any:
    """The correct sweep; without `transpose` K stands for K^T, without `fresh` u^l for u^(l+1)."""
    back = kernel.T if transpose else kernel

    def step(u: finite.Array, v: finite.Array) -> Pair:
        new = p / (kernel @ v)
        return new, q / (back @ (new if fresh else u))

    return step


def draw(rng: np.random.Generator, symmetric: bool = False) -> tuple[finite.Array, finite.Array, finite.Array]:
    """p, q and a kernel exp(-C) with the range of C below 4."""
    size = int(rng.integers(2, 6))
    cost = rng.uniform(0, 4, size=(size, size))
    cost = np.maximum(cost, cost.T) if symmetric else cost
    return finite.law(rng, size), finite.law(rng, size), np.exp(-cost)


def plan_of(kernel: finite.Array, u: finite.Array, v: finite.Array) -> finite.Array:
    """diag(u) K diag(v)."""
    return u[:, None] * kernel * v
