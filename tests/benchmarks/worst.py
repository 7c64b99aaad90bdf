"""Worst cases of `kd.sinkhorn`: sweeps, marginal error and width of the interval over inputs chosen to be hard.

Every interval is compared with POT's exact value on the way: one that misses it ends the run.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import ot

import kdtheory as kd
from kdtheory import TokenCost
from tests.benchmarks.timing import DisagreementError

TOKENS, ROWS, MOST_SWEEPS = 24, 6, 10_000
EPSILONS = (0.05, 0.01, 0.002)  # of the largest cost
Pairs = tuple[np.ndarray, np.ndarray]


def costs(draw: np.random.Generator) -> Iterator[tuple[str, TokenCost]]:
    """Costs with largest entry near 1."""
    points = draw.normal(size=(8, 3))[draw.integers(8, size=TOKENS)] + 0.05 * draw.normal(size=(TOKENS, 3))
    yield "clusters", TokenCost.embedding(points / np.linalg.norm(points[:, None] - points[None], axis=-1).max())
    yield "line", TokenCost.line(np.linspace(0, 1, TOKENS))
    yield "permuted line", TokenCost.line(draw.permutation(np.linspace(0, 1, TOKENS)))
    yield "line with gaps 2^-i", TokenCost.line(np.cumsum(2.0 ** -np.arange(TOKENS)) / 2)
    yield "0-1", TokenCost.zero_one(TOKENS)
    distances = draw.uniform(0.5, 1, size=(TOKENS, TOKENS))
    distances = np.minimum(distances, distances.T)
    np.fill_diagonal(distances, 0)
    metric = TokenCost.dense(distances)
    metric.check_metric()
    yield "random metric", metric
    yield "random, not symmetric", TokenCost.dense(draw.uniform(size=(TOKENS, TOKENS)))


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def normalised(*sides: np.ndarray) -> Pairs:
    p, q = (x / x.sum(-1, keepdims=True) for x in sides)
    return p, q


def pairs(draw: np.random.Generator) -> Iterator[tuple[str, Pairs]]:
    """Batches of pairs (ROWS, V)."""
    shape, half, small = (ROWS, TOKENS), TOKENS // 2, 10.0 ** -np.arange(1, ROWS + 1)
    teacher = 4 * draw.normal(size=shape)
    yield "Gaussian logits", (softmax(4 * draw.normal(size=shape)), softmax(4 * draw.normal(size=shape)))
    yield "student near teacher", (softmax(teacher), softmax(teacher + draw.normal(size=shape)))
    yield "masses to e^-400", (softmax(100 * draw.normal(size=shape)), softmax(100 * draw.normal(size=shape)))
    one_hot = np.full((2, *shape), 1e-300)
    for side in one_hot:
        side[np.arange(ROWS), draw.integers(TOKENS, size=ROWS)] = 1
    yield "almost one-hot, 1e-300 elsewhere", normalised(*one_hot)
    first, alternate = np.zeros(shape), np.zeros(shape)
    first[:, :half], alternate[:, ::2] = 1, 1
    yield "disjoint halves", normalised(first, 1 - first)
    yield "disjoint, alternating", normalised(alternate, 1 - alternate)
    moved = np.full(shape, 1 / TOKENS)
    moved[:, 0] -= small / TOKENS
    moved[:, -1] += small / TOKENS
    yield "uniform, 10^-k moved end to end", normalised(np.full(shape, 1 / TOKENS), moved)
    ends, inner = np.zeros(shape), np.zeros(shape)
    ends[:, [0, -1]] = 0.5
    inner[:, 1], inner[:, -2] = 0.5 + small, 0.5 - small
    yield "two ends, 10^-k between them", normalised(ends, inner)
    sparse = np.where(draw.random((2, *shape)) < 0.15, draw.exponential(size=(2, *shape)), 0.0)
    sparse[..., 0] += 1e-12
    yield "sparse", normalised(*sparse)


def exact(p: np.ndarray, q: np.ndarray, C: np.ndarray) -> np.ndarray:
    return np.array([ot.emd2(a, b, C, numItermax=10**7) for a, b in zip(p, q, strict=True)])


def rows() -> Iterator[dict[str, object]]:
    """One line for each cost, family of pairs, ε and form."""
    draw = np.random.default_rng(0)
    for cost_name, cost in costs(draw):
        C = cost.matrix().numpy()
        for pair_name, (p, q) in pairs(draw):
            known = exact(p, q, C)
            for epsilon in EPSILONS:
                for form in ("full", "reduced") if cost.is_metric else ("full",):
                    yield {"cost": cost_name, "pair": pair_name, "epsilon": epsilon, "form": form} | measured(
                        p, q, cost, epsilon * float(C.max()), form, known
                    )


def measured(
    p: np.ndarray, q: np.ndarray, cost: TokenCost, epsilon: float, form: str, known: np.ndarray
) -> dict[str, object]:
    """Worst sweeps, error and width of one batch; DisagreementError if an interval misses the exact value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rows that do not converge are counted below
        found = kd.sinkhorn(p, q, cost, epsilon, form=form, max_iter=MOST_SWEEPS)
    size = cost.diameter
    inside = (found.lower <= known + 1e-9 * size) & (known <= found.upper + 1e-9 * size)  # 1e-9: the simplex's own
    if not (inside.all() and np.isfinite(found.value).all()):
        raise DisagreementError(f"{cost}, ε = {epsilon:g}, {form}: the interval misses the exact value in some row")
    return {
        "rows": len(p),
        "sweeps": int(found.iterations.max()),
        "late": int((~found.converged).sum()),
        "marginal_error": float(found.marginal_error.max()),
        "width": float((found.upper - found.lower).max() / size),
    }
