"""The pairs on which peers are tried: a few drawn at random, and the same with tokens that hold no mass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

TOKENS = 12
EPSILON = 0.05
SEEDS = range(5)


@dataclass(frozen=True)
class Pair:
    """Teacher p and student q (V,), cost C (V, V): Euclidean distances of `points` (V, 3), the largest 1."""

    p: np.ndarray
    q: np.ndarray
    C: np.ndarray
    points: np.ndarray
    epsilon: float


def pair(seed: int, epsilon: float = EPSILON) -> Pair:
    """Softmax of Gaussian logits of scale 1.5 over Gaussian points."""
    draw = np.random.default_rng(seed)
    points = draw.normal(size=(TOKENS, 3))
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    p, q = (np.exp(z) / np.exp(z).sum() for z in draw.normal(scale=1.5, size=(2, TOKENS)))
    return Pair(p, q, distances / distances.max(), points / distances.max(), epsilon)


def without(found: Pair, teacher: slice, student: slice) -> Pair:
    """The pair with these tokens' masses taken away, and the rest scaled up."""
    p, q = found.p.copy(), found.q.copy()
    p[teacher], q[student] = 0.0, 0.0
    return Pair(p / p.sum(), q / q.sum(), found.C, found.points, found.epsilon)


def positive() -> Iterator[Pair]:
    """Every token has mass on both sides."""
    yield from map(pair, SEEDS)


def with_zeros() -> Iterator[tuple[str, Pair]]:
    """(what is zero, pair): a third each; overlapping halves; disjoint halves; a teacher on one token."""
    for seed in SEEDS:
        found = pair(seed)
        yield "a third of either side", without(found, slice(0, 4), slice(4, 8))
        yield "overlapping halves", without(found, slice(0, 6), slice(3, 9))
        yield "disjoint supports", without(found, slice(0, 6), slice(6, 12))
        yield "teacher on one token", without(found, slice(1, 12), slice(4, 8))
