"""Where `shared-network` and `repairs` begin: a network fitted to be right in most contexts, confidently wrong in few.

`start` makes one seed, `starts` all of them as one tensor program; a seed draws the same numbers in both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from kdtheory.students.controlled import batched

_WIDTH, _BUMP, _FLOOR, _WRONG_AT_MOST = 64, 0.08, 0.05, 0.06


@dataclass(frozen=True)
class Beginning:
    """What the start of a seed depends on; see `kdtheory.students.controlled.shared_network.Settings`."""

    gap: float
    bad: int
    contexts: int
    tokens: int
    features: int
    fit_steps: int
    fit_rate: float


@dataclass(frozen=True)
class Start:
    """Where a seed begins: features (N, d), the teacher's log-probabilities (N, V), fitted weights.

    The first `Beginning.bad` contexts are the bad ones; `gaps`, shape (bad,), are their leads after the fit.
    """

    features: Tensor
    log_p: Tensor
    weights: tuple[Tensor, ...]
    gaps: Tensor


def teacher(settings: Beginning, generator: torch.Generator) -> Tensor:
    """Log-probabilities (N, V): two bumps on the line and a uniform floor, everything else random."""
    positions = torch.linspace(0, 1, settings.tokens)
    centres = torch.rand(settings.contexts, 2, generator=generator)
    weight = 0.5 + 0.5 * torch.rand(settings.contexts, 1, generator=generator)
    first, second = (torch.softmax(-((positions - centres[:, [k]]) ** 2) / (2 * _BUMP**2), -1) for k in (0, 1))
    return ((1 - _FLOOR) * (weight * first + (1 - weight) * second) + _FLOOR / settings.tokens).log()


def wrong_tokens(log_p: Tensor, generator: torch.Generator) -> Tensor:
    """A random token per context; where the teacher likes it, the end of the line away from the teacher's mode."""
    tokens = log_p.shape[-1]
    drawn = torch.randint(0, tokens, (len(log_p),), generator=generator)
    liked = log_p.gather(1, drawn[:, None])[:, 0].exp() > _WRONG_AT_MOST
    return torch.where(liked, torch.where(log_p.argmax(-1) < tokens // 2, tokens - 1, 0), drawn)


def network(weights: tuple[Tensor, ...] | list[Tensor], features: Tensor) -> Tensor:
    """Logits (N, V) of a network with two hidden tanh layers."""
    hidden = torch.tanh(features @ weights[0] + weights[1])
    hidden = torch.tanh(hidden @ weights[2] + weights[3])
    return hidden @ weights[4] + weights[5]


@lru_cache(maxsize=16)  # the seeds of a profile: most conditions begin alike
def start(settings: Beginning, seed: int) -> Start:
    """Teacher, contexts and fitted initial weights of a seed; kept for the runs that share it."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(settings.contexts, settings.features, generator=generator)
    log_p = teacher(settings, generator)
    wrong = wrong_tokens(log_p, generator)[: settings.bad]
    target = log_p.clone()
    target[: settings.bad] = 0.0
    target[torch.arange(settings.bad), wrong] = settings.gap
    weights = _fit(settings, features, target - target.mean(-1, keepdim=True), generator)
    logits = network(weights, features[: settings.bad])
    lead = logits.gather(1, wrong[:, None])
    others = logits.scatter(1, wrong[:, None], -math.inf).amax(-1)
    return Start(features, log_p, weights, lead[:, 0] - others)


def _fit(settings: Beginning, features: Tensor, target: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    weights = [weight.requires_grad_() for weight in batched.mlp_weights(generator, _sizes(settings))]
    optimizer = torch.optim.Adam(weights, lr=settings.fit_rate, fused=True)
    for _ in range(settings.fit_steps):
        optimizer.zero_grad()
        logits = network(weights, features)
        (logits - logits.mean(-1, keepdim=True) - target).square().mean().backward()
        optimizer.step()
    return tuple(weight.detach() for weight in weights)


def _sizes(settings: Beginning) -> tuple[int, ...]:
    return settings.features, _WIDTH, _WIDTH, settings.tokens


@lru_cache(maxsize=64)  # conditions of a profile that begin alike, and single seeds in the benchmark
def starts(
    settings: Beginning, seeds: tuple[int, ...], *, cold: bool = False, device: torch.device | None = None
) -> Start:
    """As `start`, for all seeds: every tensor gets a first dimension (S, ...).

    Parameters
    ----------
    settings : Beginning
        Of every seed.
    seeds : tuple of int
        One student each.
    cold : bool
        Fit uniform logits instead of the teacher's in the good contexts: the student has everything to learn.
    device : torch.device, optional
        Where the students are fitted, and stay; all draws are made on the CPU.
    """

    def drawn(generator: torch.Generator) -> list[Tensor]:
        features = torch.randn(settings.contexts, settings.features, generator=generator)
        log_p = teacher(settings, generator)
        wrong = wrong_tokens(log_p, generator)[: settings.bad]
        return [features, log_p, wrong, *batched.mlp_weights(generator, _sizes(settings))]

    features, log_p, wrong, *weights = (x.to(device) for x in batched.draws(seeds, drawn))
    target = torch.zeros_like(log_p) if cold else log_p.clone()
    bad, wrong = slice(0, settings.bad), wrong.unsqueeze(-1)
    target[:, bad] = torch.zeros_like(target[:, bad]).scatter(-1, wrong, settings.gap)
    weights = _fits(settings, weights, features, target - target.mean(-1, keepdim=True))
    logits = batched.mlp(weights, features[:, bad])
    others = logits.scatter(-1, wrong, -math.inf).amax(-1)
    return Start(features, log_p, tuple(weights), logits.gather(-1, wrong)[..., 0] - others)


def _fits(settings: Beginning, weights: Sequence[Tensor], features: Tensor, target: Tensor) -> list[Tensor]:
    def misfit(now: list[Tensor]) -> Tensor:
        logits = batched.mlp(now, features)
        return (logits - logits.mean(-1, keepdim=True) - target).square().mean((-2, -1))

    return batched.train(weights, misfit, steps=settings.fit_steps, rate=settings.fit_rate, points=0)[0]
