"""Oracles of chapter 04, sections 4.1-4.5, independent of `kdtheory.divergences` and `kdtheory.transport`."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import entr, kl_div, rel_entr

from kdtheory.ledger import Evidence, numeric

Array = NDArray[Any]
ROUNDING = "float64 sums of at most 12 terms, relative rounding 1e-15, logarithms up to 40"
HIGHS = "scipy.optimize.linprog (HiGHS) on the primal"
SOLVER = "HiGHS keeps at most 12 constraints to 1e-10 each, times costs below 10"
Fails = Callable[[np.random.Generator], tuple[float, dict[str, Any]]]


def kl(a: Array, b: Array) -> float:
    """Σ a log(a/b); inf where b = 0 < a."""
    return float(kl_div(a, b).sum())


def cross_entropy(a: Array, b: Array) -> float:
    """-Σ a log b; inf where b = 0 < a."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return -float(np.where(a > 0, a * np.log(b), 0.0).sum())


def entropy(a: Array) -> float:
    """-Σ a log a."""
    return float(entr(a).sum())


def tv(a: Array, b: Array) -> float:
    """½ Σ |a - b|."""
    return float(np.abs(a - b).sum()) / 2


def js(a: Array, b: Array) -> float:
    """Jensen-Shannon with weights ½."""
    m = (a + b) / 2
    return float((rel_entr(a, m) + rel_entr(b, m)).sum()) / 2


def affinity(a: Array, b: Array) -> float:
    """Σ √(ab)."""
    return float(np.sqrt(a * b).sum())


def metric(rng: np.random.Generator, size: int) -> Array:
    """Distances of random points in the plane."""
    points = rng.normal(size=(size, 2))
    return cdist(points, points)


def extremes(cost: Array) -> tuple[float, float]:
    """Smallest distance between different tokens, and diameter."""
    return float(cost[~np.eye(len(cost), dtype=bool)].min()), float(cost.max())


def law(rng: np.random.Generator, size: int, zeros: bool = True) -> Array:
    """A random distribution: peaked to flat, and with `zeros` sometimes with tokens left out."""
    p = rng.dirichlet(np.full(size, 10 ** rng.uniform(-1, 1))) + (0 if zeros else 1e-9)
    if zeros and rng.random() < 0.3:
        p = np.where(rng.random(size) < 0.5, p, 0.0)
        p[int(rng.integers(size))] += 0.1
    return p / p.sum()


def pair(rng: np.random.Generator, zeros: bool = True, most: int = 8) -> tuple[Array, Array]:
    """Teacher and student on 2 to `most` tokens, a third of them close to each other."""
    size = int(rng.integers(2, most + 1))
    p, q = law(rng, size, zeros), law(rng, size, zeros)
    if rng.random() < 0.3:
        step = 10 ** rng.uniform(-4, -1)
        q = (1 - step) * p + step * q
    return p, q


def point(p: Array, q: Array, **more: Any) -> dict[str, Any]:
    """The draw as JSON, for the record of a counterexample."""
    return {"p": p.tolist(), "q": q.tolist()} | more


def attempt(
    fails: Fails, says: str, *, draws: int = 300, tolerance: float = 1e-12, oracle: str = "scipy.special", **more: Any
) -> Evidence:
    """`numeric.attempt` with this chapter's defaults."""
    because = more.pop("because", ROUNDING)
    return numeric.attempt(fails, draws=draws, oracle=oracle, tolerance=tolerance, because=because, says=says, **more)


def exact_matching(cost: list[list[Any]]) -> Fraction:
    """W1 between uniform laws on n and n points, by trying all n! matchings (Birkhoff: an optimal plan is one)."""
    size = len(cost)
    orders = permutations(range(size))
    totals = (sum((Fraction(cost[i][j]) for i, j in enumerate(order)), Fraction(0)) for order in orders)
    return min(totals) / size
