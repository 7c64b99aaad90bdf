"""POT: exact, and Sinkhorn by three methods, three differentiations and two regularisations."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import ot
from torch import Tensor

from tests.benchmarks.peers.adapters import Answer, Peer, torch_answer
from tests.benchmarks.peers.problems import Pair


def exact(pair: Pair) -> Answer:
    return torch_answer(lambda C, p, q: (ot.emd2(p, q, C), ot.emd(p, q, C)), pair)


def sinkhorn2(method: str, pair: Pair) -> Answer:
    """Value and plan come from the same solver; the gradient is autograd's, through all iterations."""
    options = {"reg": pair.epsilon, "method": method}
    return torch_answer(lambda C, p, q: (ot.sinkhorn2(p, q, C, **options), ot.sinkhorn(p, q, C, **options)), pair)


def solve(regularisation: str, grad: str, pair: Pair) -> Answer:
    def run(C: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        found = ot.solve(C, p, q, reg=pair.epsilon, reg_type=regularisation, grad=grad)
        return found.value, found.plan

    return torch_answer(run, pair)


def solve_batch(regularisation: str, grad: str, pair: Pair) -> Answer:
    def run(C: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        found = ot.solve_batch(C[None], pair.epsilon, p[None], q[None], reg_type=regularisation, grad=grad)
        return found.value[0], found.plan[0]

    return torch_answer(run, pair)


FUNCTIONAL = {"entropy": "entropic", "KL": "relative", "kl": "relative"}


def peers() -> list[Peer]:
    return list(_peers())


def _peers() -> Iterator[Peer]:
    yield Peer("POT", "emd2", "w1", "dual potential", exact)
    for method in ("sinkhorn", "sinkhorn_log", "sinkhorn_stabilized"):
        yield Peer("POT", f"sinkhorn2, {method}", "sharp", "unrolled", partial(sinkhorn2, method))
    for kind in ("entropy", "KL"):
        for grad in ("envelope", "autodiff", "last_step"):
            yield Peer("POT", f"solve, {kind}", FUNCTIONAL[kind], grad, partial(solve, kind, grad))
    for kind in ("entropy", "kl"):
        for grad in ("envelope", "autodiff", "last_step"):
            yield Peer("POT", f"solve_batch, {kind}", FUNCTIONAL[kind], grad, partial(solve_batch, kind, grad))
