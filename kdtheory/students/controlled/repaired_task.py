"""Teachers whose tokens live on a tree that is fixed before anything is drawn, and how their students are judged.

The tree is the same for all seeds: four branches of four twigs of two tokens, edges of length 4/14, 2/14 and 1/14, so
that two tokens of different branches are a distance of 1 apart. A teacher's token embeddings are a Brownian motion down
the tree, which makes the expected squared distance of two embeddings proportional to their distance in the tree; the
logits are their inner products with a Gaussian context. So the metric is aligned with the teacher by construction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

import kdtheory as kd
from kdtheory.students.controlled import batched

if TYPE_CHECKING:
    from kdtheory.students.controlled.repaired import Settings

BRANCHING, EDGES = (4, 4, 2), (4 / 14, 2 / 14, 1 / 14)
"""Children per node and edge lengths by level, from the root down."""
TOKENS = math.prod(BRANCHING)
METRICS = ("impossible", "nll", "kl", "d_cost", "excess", "w1", "tv", "agreement")
"""Held out (test contexts; the likelihoods and costs also with the prefix ``valid_`` on contexts of their own):

impossible: share of contexts where the student rules a token out; its likelihood is 0 then, and nll and kl are missing.
nll, kl: cross-entropy of the student under the teacher, and forward KL (nats).
d_cost, excess: expected distance of the teacher's token from the student's medoid; less that from the teacher's own.
w1, tv: of diameter 1; total variation.
agreement: share of contexts with the same most likely token."""


@cache
def tree() -> tuple[np.ndarray, np.ndarray]:
    """(parent, weight) of the tree: tokens 0..31, then twigs, branches, root."""
    counts = np.cumprod((1, *BRANCHING))[::-1]  # nodes per level, tokens first
    first = np.concatenate([[0], np.cumsum(counts)])
    parent = np.full(first[-1], -1)
    weight = np.zeros(first[-1])
    for level, (children, length) in enumerate(zip(BRANCHING[::-1], EDGES[::-1], strict=True)):
        here = np.arange(counts[level])
        parent[first[level] + here] = first[level + 1] + here // children
        weight[first[level] + here] = length
    return parent, weight


@cache
def cost() -> kd.TokenCost:
    """The tree's distances: the original metric, under which everything is judged."""
    return kd.TokenCost.tree(*tree())


@cache
def star() -> kd.TokenCost:
    """The 0-1 metric as a tree, with the same sum of weights from root to token."""
    return kd.TokenCost.tree([TOKENS] * TOKENS + [-1], [sum(EDGES)] * TOKENS + [0.0])


@dataclass(frozen=True)
class Problem:
    """Of all seeds: contexts (S, N, d), teacher's log-probabilities (S, N, V), first weights, scrambled tokens (S, V).

    Contexts come in the order training, validation, test.
    """

    features: Tensor
    log_p: Tensor
    weights: list[Tensor]
    scrambled: Tensor


def embeddings(features: int, generator: torch.Generator) -> Tensor:
    """Brownian motion down the tree: (V, d), mean square length 1 in expectation."""
    parent, weight = tree()
    steps = torch.randn(len(parent), features, generator=generator)
    points = torch.zeros(len(parent), features)
    for node in range(len(parent) - 2, -1, -1):  # parents have higher numbers
        points[node] = points[parent[node]] + math.sqrt(weight[node] / (sum(EDGES) * features)) * steps[node]
    return points[:TOKENS]


@lru_cache(maxsize=2)
def problem(settings: Settings, seeds: tuple[int, ...], device: torch.device) -> Problem:
    """Teachers, contexts, permutations and cold first weights of all seeds."""
    d, total = settings.features, settings.train + settings.valid + settings.test

    def make(generator: torch.Generator) -> tuple[Tensor, ...]:
        points = embeddings(d, generator)
        contexts = torch.randn(total, d, generator=generator)
        contexts = math.sqrt(d) * contexts / contexts.norm(dim=1, keepdim=True)
        log_p = torch.log_softmax(settings.scale * contexts @ points.T, -1)
        scrambled = torch.randperm(TOKENS, generator=generator)
        first = torch.randn(d, settings.rank, generator=generator) / math.sqrt(d)
        second = 0.3 * torch.randn(settings.rank, TOKENS, generator=generator)
        wrong = points[torch.randperm(TOKENS, generator=generator)]
        if settings.wrong_scale:  # sure of the tokens of another teacher
            first, second = (math.sqrt(settings.wrong_scale) * x for x in (torch.eye(d), wrong.T))
        return contexts, log_p, scrambled, first, second, torch.zeros(TOKENS)

    contexts, log_p, scrambled, *weights = (x.to(device) for x in batched.draws(seeds, make))
    return Problem(contexts, log_p, weights, scrambled)


@torch.no_grad()
def measure(log_p: Tensor, q: Tensor) -> dict[str, Tensor]:
    """`METRICS` from the teacher's log-probabilities and the student's law, (S, N, V) each -> (S,) each."""
    log_p, q = log_p.double(), q.double()
    p, C = log_p.exp(), cost().matrix().to(log_p.device)
    expected = p @ C
    paid, least = (expected.gather(-1, medoid(law, C)).squeeze(-1) for law in (q, p))
    cross = -(p * q.log()).sum(-1)
    cross = torch.where(torch.isinf(cross), torch.nan, cross)
    found = {
        "impossible": torch.isnan(cross).double(),
        "nll": cross,
        "kl": cross + (p * log_p).sum(-1),
        "d_cost": paid,
        "excess": paid - least,
        "w1": kd.w1(p, q, cost()).value,
        "tv": (p - q).abs().sum(-1) / 2,
        "agreement": (p.argmax(-1) == q.argmax(-1)).double(),
    }
    return {name: values.mean(-1) for name, values in found.items()}


def medoid(law: Tensor, C: Tensor) -> Tensor:
    """Token of least expected distance, (..., V) -> (..., 1)."""
    return (law @ C).argmin(-1, keepdim=True)
