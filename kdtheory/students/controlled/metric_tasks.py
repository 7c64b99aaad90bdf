"""What `metric` is made of: a teacher per seed, ground metrics that fit it or not, and losses on a metric per seed.

Every seed has its own teacher and its own ground metric. The library's losses take one cost for all rows, so transport
on a tree and the Sinkhorn divergence are written here once more with the seed as a leading dimension; tests hold both
to the library's, value and gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdtheory.students.controlled import batched, low_rank
from kdtheory.students.token_metrics import TokenMetrics

METRICS = ("embeddings", "random", "zero-one")
"""Ground metrics: the tree of the teacher's token embeddings, one of Gaussian points that have nothing to do with it,
and the 0-1 metric."""
TASKS = ("axis-1", "axis-2", "axis-3", "axis-4", "random-1", "random-2", "random-3", "random-4")
"""Task losses: a coordinate of the embeddings (the first varies most), or independent Gaussian numbers."""
_TEACHER_WIDTH = 64


@dataclass(frozen=True)
class Ground:
    """A tree metric of diameter 1 for each seed.

    Attributes
    ----------
    members : Tensor, shape (S, V, E)
        1 where a token lies below an edge.
    lengths : Tensor, shape (S, E)
        Of the edges.
    distances : Tensor, shape (S, V, V)
    """

    members: Tensor
    lengths: Tensor
    distances: Tensor

    def flows(self, p: Tensor, q: Tensor) -> Tensor:
        """Mass that crosses each edge, with sign: (S, N, V), (S, N, V) -> (S, N, E)."""
        return (q - p) @ self.members

    def w1(self, p: Tensor, q: Tensor) -> Tensor:
        """W1 of every row, (S, N), in diameters; differentiable."""
        return (self.flows(p, q).abs() * self.lengths.unsqueeze(-2)).sum(-1)

    def potential(self, p: Tensor, q: Tensor) -> Tensor:
        """Kantorovich potential φ, (S, N, V): the slope of `w1` in q."""
        return (self.flows(p, q).sign() * self.lengths.unsqueeze(-2)) @ self.members.mT

    def repeated(self, times: int) -> Ground:
        """Each seed's metric so many times."""
        return Ground(*(x.repeat_interleave(times, 0) for x in (self.members, self.lengths, self.distances)))

    def to(self, device: torch.device, dtype: torch.dtype) -> Ground:
        """The same elsewhere."""
        return Ground(*(x.to(device, dtype) for x in (self.members, self.lengths, self.distances)))


@dataclass(frozen=True)
class Problem:
    """All seeds of a condition; training contexts come first.

    Attributes
    ----------
    features : Tensor, shape (S, N, d)
    log_p : Tensor, shape (S, N, V)
        The teacher's log-probabilities.
    original, trained : Ground
        Metric of the teacher's embeddings, and the one that transport losses get.
    tasks : Tensor, shape (S, K, V)
        Values of the tokens under each of `TASKS`, standard deviation 1.
    weights : list of Tensor, shape (S, R, ...)
        The student's first parameters, for R starts.
    """

    features: Tensor
    log_p: Tensor
    original: Ground
    trained: Ground
    tasks: Tensor
    weights: list[Tensor]

    def every_start(self) -> Problem:
        """Each seed once for each of its starts, as if they were seeds: S R of them, weights (S R, ...)."""
        starts = self.weights[0].shape[1]
        features, log_p, tasks = (x.repeat_interleave(starts, 0) for x in (self.features, self.log_p, self.tasks))
        original, trained = (ground.repeated(starts) for ground in (self.original, self.trained))
        return Problem(features, log_p, original, trained, tasks, [weight.flatten(0, 1) for weight in self.weights])


def tree(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Members (V, E), lengths (E), distances (V, V) of the token tree of embeddings (V, d), diameter 1."""
    return _expanded(TokenMetrics(points).tree)


def _expanded(cost: Any) -> tuple[Tensor, Tensor, Tensor]:
    tree, tokens = cost.rooted, cost.V
    parent = [int(node) for node in tree.parent]
    members = torch.zeros(tokens, len(parent), dtype=torch.float64)
    for token in range(tokens):
        node = token
        while node >= 0:
            members[token, node] = 1.0
            node = parent[node]
    return members, torch.as_tensor(tree.weight, dtype=torch.float64), cost.matrix()


def star(tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """The 0-1 metric as a tree with as many edges as `tree` has: W1 is total variation."""
    edges = 2 * tokens - 1
    members = torch.eye(tokens, edges, dtype=torch.float64)
    lengths = torch.where(torch.arange(edges) < tokens, 0.5, 0.0).double()
    return members, lengths, 1.0 - torch.eye(tokens, dtype=torch.float64)


def problem(settings: Any, seeds: Sequence[int], device: torch.device) -> Problem:
    """Teacher, contexts, metrics, tasks and first weights; see `kdtheory.students.controlled.metric.Settings`.

    What a seed draws depends on the sizes alone, so that all losses and all metrics of a seed share it.
    """
    features, log_p, *rest = batched.draws(seeds, lambda generator: _drawn(settings, generator))
    original, trained = Ground(*rest[:3]), Ground(*rest[3:6])
    original, trained = (ground.to(device, torch.float32) for ground in (original, trained))
    tasks, *weights = (x.to(device) for x in rest[6:])
    return Problem(features.to(device), log_p.to(device), original, trained, tasks, weights)


def _drawn(settings: Any, generator: torch.Generator) -> tuple[Tensor, ...]:
    tokens, size = settings.tokens, settings.features
    points = low_rank.embeddings(low_rank.Settings(features=size, tokens=tokens, rank=1), generator)
    order = torch.randperm(tokens, generator=generator)
    elsewhere = torch.randn(tokens, size, generator=generator)
    noise = torch.randn(tokens, len(TASKS) // 2, generator=generator)
    contexts = torch.randn(settings.train + settings.test, settings.inputs or size, generator=generator)
    hidden = _teacher_features(settings, contexts, generator)
    log_p = torch.log_softmax(settings.scale * hidden @ points.T, -1)
    trained = {
        "embeddings": lambda: tree((1 - settings.scrambled) * points + settings.scrambled * points[order]),
        "random": lambda: tree(elsewhere),
        "zero-one": lambda: star(tokens),
    }[settings.metric]()
    tasks = torch.cat([points[:, : len(TASKS) // 2], noise], -1).T
    tasks = tasks / tasks.std(-1, keepdim=True)
    starts = [_first_weights(settings, generator) for _ in range(settings.starts)]
    weights = (torch.stack(parts) for parts in zip(*starts, strict=True))
    return (contexts, log_p, *tree(points), *trained, tasks, *weights)


def _teacher_features(settings: Any, contexts: Tensor, generator: torch.Generator) -> Tensor:
    """The contexts themselves, or what a wide random network makes of them: mean 0, variance 1."""
    if not settings.inputs:
        return contexts
    layers = batched.mlp_weights(generator, (settings.inputs, _TEACHER_WIDTH, settings.features))
    found = batched.mlp([layer.unsqueeze(0) for layer in layers], contexts.unsqueeze(0))[0]
    return (found - found.mean(0)) / found.std(0)


def _first_weights(settings: Any, generator: torch.Generator) -> list[Tensor]:
    if settings.inputs:
        return batched.mlp_weights(generator, (settings.inputs, settings.rank, settings.tokens))
    first = torch.randn(settings.features, settings.rank, generator=generator) / settings.features**0.5
    second = 0.3 * torch.randn(settings.rank, settings.tokens, generator=generator)
    return [first, second, torch.zeros(settings.tokens)]


# -- decisions and tasks ---------------------------------------------------------------------------------------------
def decision_cost(p: Tensor, q: Tensor, distances: Tensor) -> Tensor:
    """Expected distance under p of q's medoid, the token that is best under q: (S, N, V), (S, V, V) -> (S, N)."""
    medoid = (q @ distances).argmin(-1, keepdim=True)
    return (p @ distances).gather(-1, medoid).squeeze(-1)


def task_errors(p: Tensor, q: Tensor, tasks: Tensor) -> Tensor:
    """Mean over contexts of |E_p l - E_q l|, (S, K), in standard deviations of l over tokens."""
    return ((q - p) @ tasks.mT).abs().mean(-2)


def correlations(distances: Tensor, tasks: Tensor) -> Tensor:
    """ρ = corr(d(i, j), |l_i - l_j|) over pairs of tokens, (S, K); NaN where all distances are equal."""
    rows, columns = np.triu_indices(distances.shape[-1], 1)
    apart = distances[:, rows, columns].unsqueeze(1)
    gaps = (tasks[..., rows] - tasks[..., columns]).abs()
    apart, gaps = (x.double() - x.double().mean(-1, keepdim=True) for x in (apart, gaps))
    # equal distances differ by rounding at most; anything else varies by far more
    norm = torch.where(apart.norm(dim=-1) > 1e-6 * len(rows), apart.norm(dim=-1), torch.nan)
    return (apart * gaps).sum(-1) / (norm * gaps.norm(dim=-1))
