"""Exact and closed-form transport against peers: line, sliced, tree, exact, top-k."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import ot
import torch
from scipy.sparse import csr_array
from scipy.stats import wasserstein_distance
from torch import Tensor

import kdtheory as kd
from kdtheory import TokenCost
from kdtheory.divergences.protocol import Loss
from kdtheory.transport.sliced import SlicedW1
from kdtheory.transport.topk import w1_topk
from tests.benchmarks.bench_losses import Logits, logits, ours, training_step
from tests.benchmarks.timing import Case

FULL = [(2048, 512), (512, 4096), (128, 32768)]
QUICK = [(64, 96)]
EXACT_ROWS = 4  # a network simplex takes seconds a row at V = 4096, and the peer's time is proportional to its rows
EXACT_TOKENS = 512
CLUSTERED_TOKENS = 4096  # V²/2 distances of the clustering
SLICES = 32
KEPT = 128


def distributions(at: Logits) -> tuple[np.ndarray, np.ndarray]:
    """Teacher's and student's probabilities in float64."""
    return tuple(torch.softmax(z.detach().double(), -1).numpy() for z in at)


@lru_cache(maxsize=4)
def embeddings(tokens: int) -> np.ndarray:
    """Points in 16 dimensions, in clusters; the largest distance is 1 (2 for V > 4096: twice the largest norm)."""
    rng = np.random.default_rng(tokens)
    points = rng.normal(size=(32, 16))[rng.integers(32, size=tokens)] + 0.5 * rng.normal(size=(tokens, 16))
    if tokens <= CLUSTERED_TOKENS:
        return points / float(torch.cdist(torch.from_numpy(points), torch.from_numpy(points)).max())
    return points / float(np.linalg.norm(points, axis=1).max())


def values(loss: Loss, at: Logits) -> Callable[[], np.ndarray]:
    """Loss of each row, forward only, from float32 logits."""
    teacher, student = at[0], at[1].detach()
    return lambda: loss.loss(teacher_logits=teacher, student_logits=student, reduction="none").numpy()


# -- line, sliced ------------------------------------------------------------------------------------------------------
def scipy_line(x: np.ndarray, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.array([wasserstein_distance(x, x, a, b) for a, b in zip(p, q, strict=True)])


def pot_line(x: np.ndarray, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.array([ot.emd2_1d(x, x, a, b, metric="euclidean") for a, b in zip(p, q, strict=True)])


def pot_quantiles(x: np.ndarray, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """POT's other function for a line, by quantile functions."""
    return np.array([ot.wasserstein_1d(x, x, a, b) for a, b in zip(p, q, strict=True)])


def line_cases(rows: int, tokens: int) -> Iterator[Case]:
    """W1 on a line. 1e-5: ours starts from float32 logits."""
    at, x = logits(rows, tokens), np.random.default_rng(tokens).uniform(size=tokens)
    p, q = distributions(at)
    own = values(kd.divergence("w1", cost=TokenCost.line(x)), at)
    large = tokens > CLUSTERED_TOKENS
    yield Case(
        "w1 line", rows, tokens, "scipy loop", own, lambda: scipy_line(x, p, q), tolerance=1e-5, target=60 * large
    )
    yield Case(
        "w1 line", rows, tokens, "POT emd2_1d loop", own, lambda: pot_line(x, p, q), tolerance=1e-5, target=100 * large
    )
    yield Case("w1 line", rows, tokens, "POT wasserstein_1d loop", own, lambda: pot_quantiles(x, p, q), tolerance=1e-5)


def sliced_cases(rows: int, tokens: int) -> Iterator[Case]:
    """Mean W1 over 32 projections. 1e-5: ours starts from float32 logits."""
    E, at = embeddings(tokens), logits(rows, tokens)
    directions = np.random.default_rng(0).normal(size=(SLICES, E.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    few, (p, q) = min(rows, 2), distributions(at)

    def pot_sliced() -> np.ndarray:
        pairs = zip(p[:few], q[:few], strict=True)
        return np.array([ot.sliced_wasserstein_distance(E, E, a, b, p=1, projections=directions.T) for a, b in pairs])

    loss = SlicedW1(cost=TokenCost.embedding(E), directions=directions)
    yield Case(
        "w1 sliced, 32", rows, tokens, "POT sliced loop", values(loss, at), pot_sliced, tolerance=1e-5, peer_rows=few,
        target=100 * (tokens > CLUSTERED_TOKENS),
    )  # fmt: skip


# -- tree --------------------------------------------------------------------------------------------------------------
def pot_exact(C: np.ndarray, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """POT's network simplex on the whole problem."""
    return np.array([ot.emd2(a, b * (a.sum() / b.sum()), C) for a, b in zip(p, q, strict=True)])


def halved_tree(E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A tree for vocabularies too large to cluster: halves along the widest coordinate, edges half as long each time.

    Tokens are nodes 0..V-1; inner nodes follow, the root last.
    """
    parent, weight = np.full(2 * len(E) - 1, -1), np.zeros(2 * len(E) - 1)
    fresh = iter(range(2 * len(E) - 2, len(E) - 1, -1))
    pending = [(np.arange(len(E)), -1, 0.0)]
    while pending:
        tokens, above, length = pending.pop()
        node = next(fresh) if len(tokens) > 1 else int(tokens[0])
        parent[node], weight[node] = above, length
        if len(tokens) > 1:
            order = tokens[np.argsort(E[tokens, int(np.ptp(E[tokens], axis=0).argmax())], kind="stable")]
            half = length / 2 if above >= 0 else 0.5
            pending += [(part, node, half) for part in np.array_split(order, 2)]
    return parent, weight


def tree_cases(rows: int, tokens: int) -> Iterator[Case]:
    """W1 on a tree over clustered embeddings: values and a training step."""
    clustered = tokens <= CLUSTERED_TOKENS
    parent, weight = (kd.transport.tree_from_embedding if clustered else halved_tree)(embeddings(tokens))
    cost, at = TokenCost.tree(parent, weight), logits(rows, tokens)
    few, (p, q) = min(rows, EXACT_ROWS), distributions(at)
    own = values(kd.divergence("w1", cost=cost), at)
    if tokens <= EXACT_TOKENS:
        C = cost.matrix().numpy()
        yield Case(
            "w1 tree", rows, tokens, "POT emd2 loop", own,
            lambda: pot_exact(C, p[:few], q[:few]), tolerance=1e-5, peer_rows=few,  # float32 logits
        )  # fmt: skip
        # 1e-3: in float32 the two round subtree sums apart, and a sum at rounding level may take the other sign
        step, peer = training_step(ours("w1", cost=cost), at), dense_tree_step(parent, weight, at)
        yield Case("w1 tree step", rows, tokens, "autograd, dense 0/1", step, peer, tolerance=1e-3)
    below = subtree_indicator(parent, tokens)
    yield Case(
        "w1 tree", rows, tokens, "scipy sparse product", own,
        lambda: weight @ abs(below @ (q - p).T), tolerance=1e-5, target=-1.5,
    )  # fmt: skip


def subtree_indicator(parent: np.ndarray, tokens: int) -> csr_array:
    """(nodes, tokens) 0/1 matrix: which tokens lie below (or at) a node."""
    node, token = np.arange(tokens), np.arange(tokens)
    rows, columns = [], []
    while len(node):
        rows.append(node)
        columns.append(token)
        inside = parent[node] >= 0
        node, token = parent[node][inside], token[inside]
    at = np.concatenate(rows), np.concatenate(columns)
    return csr_array((np.ones(len(at[0])), at), shape=(len(parent), tokens))


def dense_tree_step(parent: np.ndarray, weight: np.ndarray, at: Logits) -> Callable[[], np.ndarray]:
    """W1 on the tree by torch's autograd through the dense subtree indicator."""
    indicator = torch.from_numpy(subtree_indicator(parent, at[0].shape[-1]).toarray()).float()
    length = torch.from_numpy(weight).float()

    def value(teacher: Tensor, student: Tensor) -> Tensor:
        surplus = (student.softmax(-1) - teacher.softmax(-1)) @ indicator.T
        return (surplus.abs() @ length).mean()

    return training_step(value, at)


# -- exact, top-k ------------------------------------------------------------------------------------------------------
def exact_cases(tokens: int) -> Iterator[Case]:
    """Exact W1 for embeddings: the reduced problem against POT's on the whole one, float64 on both sides."""
    tokens = min(tokens, EXACT_TOKENS)
    cost, (p, q) = TokenCost.embedding(embeddings(tokens)), distributions(logits(EXACT_ROWS, tokens))
    C = cost.matrix().numpy()
    yield Case(
        "w1 embedding", EXACT_ROWS, tokens, "POT emd2 loop",
        lambda: kd.w1(p, q, cost).value, lambda: pot_exact(C, p, q), tolerance=1e-10,
    )  # fmt: skip


def collapsed(C: np.ndarray, difference: np.ndarray, k: int) -> float:
    """W1 after moving all but the k largest |δ| to their nearest kept token: what top-k must compute."""
    kept = np.sort(np.argsort(-abs(difference), kind="stable")[:k])
    goal = kept[C[:, kept].argmin(1)]
    goal[kept] = kept
    surplus = np.bincount(goal, weights=difference, minlength=len(difference))[kept]
    mass = surplus.clip(0).sum()
    demand, supply = surplus.clip(0) / mass, (-surplus).clip(0) / (-surplus).clip(0).sum()
    return mass * ot.emd2(supply, demand, np.ascontiguousarray(C[np.ix_(kept, kept)]))


def topk_cases(tokens: int) -> Iterator[Case]:
    """The 128 tokens that matter most, timed against the exact problem, whose value is another number."""
    tokens, k = min(tokens, EXACT_TOKENS), min(KEPT, tokens // 3)
    cost, (p, q) = TokenCost.embedding(embeddings(tokens)), distributions(logits(EXACT_ROWS, tokens))
    C = cost.matrix().numpy()
    yield Case(
        f"w1 top-{k}", EXACT_ROWS, tokens, "POT emd2 loop, exact",
        lambda: w1_topk(p, q, cost, k).value, lambda: pot_exact(C, p, q), tolerance=1e-9,
        oracle=lambda: np.array([collapsed(C, row, k) for row in q - p]),
    )  # fmt: skip


def cases(sizes: list[tuple[int, int]]) -> Iterator[Case]:
    """All cases at all sizes."""
    for rows, tokens in sizes:
        for make in (line_cases, sliced_cases, tree_cases):
            yield from make(rows, tokens)
    yield from exact_cases(sizes[0][1])
    yield from topk_cases(sizes[0][1])
