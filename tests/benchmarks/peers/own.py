"""Ours, by the same measure: exact W1 and every functional of `kd.sinkhorn`, defaults untouched."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

import kdtheory as kd
from tests.benchmarks.peers.adapters import Answer, Peer, torch_answer
from tests.benchmarks.peers.problems import Pair


def exact(pair: Pair) -> Answer:
    cost = kd.TokenCost.embedding(pair.points)
    return torch_answer(lambda C, p, q: (kd.w1(p, q, cost).value, None), pair)


def sinkhorn(functional: str, form: str, pair: Pair) -> Answer:
    cost = kd.TokenCost.embedding(pair.points)

    def run(C: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        found = kd.sinkhorn(p, q, cost, pair.epsilon, functional=functional, form=form)
        f, g = (x[..., None] / pair.epsilon for x in found.potentials)
        if form == "full":
            return found.value, p[:, None] * torch.exp(f + g.T - C / pair.epsilon) * q
        # p and q share min(p, q), which stays where it is
        supply, demand = (p - q).relu().detach(), (q - p).relu().detach()
        moved = supply[:, None] * torch.exp(f + g.T - C / pair.epsilon) * demand / demand.sum()
        return found.value, moved + torch.diag(torch.minimum(p, q).detach())

    return torch_answer(run, pair)


def derivative(functional: str) -> str:
    """Potentials; their derivative in ε by conjugate gradients for ⟨Γ, C⟩."""
    return "implicit" if functional == "sharp" else "potentials"


def peers() -> list[Peer]:
    return list(_peers())


def _peers() -> Iterator[Peer]:
    yield Peer("kdtheory", "w1", "w1", "dual potential", exact)
    for functional in ("relative", "entropic", "sharp", "divergence"):
        run = partial(sinkhorn, functional, "full")
        yield Peer("kdtheory", f"sinkhorn, {functional}", functional, derivative(functional), run)
    for functional in ("relative", "sharp"):
        yield Peer(
            "kdtheory", f"sinkhorn, {functional}, reduced", f"reduced {functional}", derivative(functional),
            partial(sinkhorn, functional, "reduced"),
        )  # fmt: skip
