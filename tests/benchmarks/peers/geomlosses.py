"""geomloss: the annealed loop at several scalings, debiased or not, and `ot.solve` at several lengths."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from geomloss import SamplesLoss
from geomloss import ot as geomloss_ot
from torch import Tensor

from tests.benchmarks.peers.adapters import Answer, Peer, torch_answer
from tests.benchmarks.peers.problems import Pair


def samples_loss(scaling: float, debias: bool, pair: Pair) -> Answer:
    """The cost is passed in, because its own Euclidean distances are never below 1e-4; p = 1 makes blur epsilon."""
    x = torch.from_numpy(pair.points)[None]

    def run(C: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, None]:
        loss = SamplesLoss(
            "sinkhorn", p=1, blur=pair.epsilon, scaling=scaling, cost=lambda x, y: C[None], debias=debias,
            backend="tensorized",
        )  # fmt: skip
        return loss(p[None], x, q[None], x)[0], None

    return torch_answer(run, pair)


def solve(iterations: int, pair: Pair) -> Answer:
    def run(C: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        found = geomloss_ot.solve(C, reg=pair.epsilon, a=p, b=q, max_iter=iterations)
        return found.value, found.plan

    return torch_answer(run, pair)


def peers() -> list[Peer]:
    return list(_peers())


def _peers() -> Iterator[Peer]:
    for debias, functional in ((True, "divergence"), (False, "relative")):
        for scaling in (0.5, 0.9, 0.99):
            name = f"SamplesLoss, scaling {scaling}" + ("" if debias else ", not debiased")
            yield Peer("geomloss", name, functional, "envelope", partial(samples_loss, scaling, debias))
    for iterations in (20, 100, 2000):
        yield Peer("geomloss", f"ot.solve, max_iter {iterations}", "relative", "envelope", partial(solve, iterations))
