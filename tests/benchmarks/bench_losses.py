"""Divergences against torch's own: forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import kl_div

import kdtheory as kd
from tests.benchmarks.timing import Case

FULL = [(2048, 512), (512, 4096), (128, 32768)]
QUICK = [(64, 96)]

Logits = tuple[Tensor, Tensor]


def logits(rows: int, tokens: int) -> Logits:
    """Teacher's and student's logits in float32: peaked teacher, student near it.

    No token has p = q to 1e-4: below 1e-6 the sign of p - q, which is TV's gradient, is everybody's own rounding.
    """
    draw = torch.Generator().manual_seed(rows + tokens)
    teacher = 4 * torch.randn(rows, tokens, generator=draw)
    student = teacher + torch.randn(rows, tokens, generator=draw)
    undecided = (teacher.log_softmax(-1) - student.log_softmax(-1)).abs() < 1e-4
    return teacher, (student + 1e-3 * undecided).requires_grad_()


def training_step(loss: Callable[[Tensor, Tensor], Tensor], at: Logits) -> Callable[[], np.ndarray]:
    """Forward and backward; returns the gradient."""
    teacher, student = at

    def step() -> np.ndarray:
        (gradient,) = torch.autograd.grad(loss(teacher, student), student)
        return gradient.numpy()

    return step


def ours(name: str, **parameters) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss of this library as a function of teacher's and student's logits."""
    loss = kd.divergence(name, **parameters)
    return lambda teacher, student: loss.loss(teacher_logits=teacher, student_logits=student)


def forward_kl_floor(at: Logits) -> Callable[[], np.ndarray]:
    """What everything is compared to: our forward KL, forward and backward."""
    return training_step(ours("fkl"), at)


# -- peers -------------------------------------------------------------------------------------------------------------
def torch_forward_kl(teacher: Tensor, student: Tensor) -> Tensor:
    log_p, log_q = teacher.log_softmax(-1), student.log_softmax(-1)
    return kl_div(log_q, log_p, log_target=True, reduction="batchmean")


def torch_reverse_kl(teacher: Tensor, student: Tensor) -> Tensor:
    log_p, log_q = teacher.log_softmax(-1), student.log_softmax(-1)
    return kl_div(log_p, log_q, log_target=True, reduction="batchmean")


def torch_jsd(teacher: Tensor, student: Tensor) -> Tensor:
    """Jensen-Shannon with the mixture in log space, as in trl's GKD trainer."""
    log_p, log_q = teacher.log_softmax(-1), student.log_softmax(-1)
    log_m = torch.logsumexp(torch.stack([log_p, log_q]), 0) - np.log(2)
    halves = (kl_div(log_m, x, log_target=True, reduction="batchmean") for x in (log_p, log_q))
    return 0.5 * sum(halves, start=torch.zeros(()))


def torch_tvd(teacher: Tensor, student: Tensor) -> Tensor:
    return 0.5 * (teacher.softmax(-1) - student.softmax(-1)).abs().sum(-1).mean()


PEERS = {"fkl": torch_forward_kl, "rkl": torch_reverse_kl, "jsd": torch_jsd, "tvd": torch_tvd}


def divergence_cases(rows: int, tokens: int) -> Iterator[Case]:
    """Forward and backward against torch's autograd, gradients compared."""
    at = logits(rows, tokens)
    for name, peer in PEERS.items():
        # 1e-4: the peers cancel in float32 at the dominating token
        yield Case(
            f"{name} step", rows, tokens, "torch autograd",
            training_step(ours(name), at), training_step(peer, at), tolerance=1e-4,
        )  # fmt: skip


def cases(sizes: list[tuple[int, int]]) -> Iterator[Case]:
    """All cases at all sizes."""
    for rows, tokens in sizes:
        yield from divergence_cases(rows, tokens)
