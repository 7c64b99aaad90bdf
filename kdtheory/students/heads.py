"""How forward and reverse KL share their gradients between the head and the tail of the teacher."""

from __future__ import annotations

import torch
from torch import Tensor

import kdtheory as kd
from kdtheory.divergences import akl

HEAD_MASS = 0.5
"""The head: the fewest most likely tokens that hold more than this mass of the teacher, as for adaptive KL."""


@torch.no_grad()
def shares(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    """Part of ‖∇_z D‖₁ on the teacher's head, (..., V), (..., V) -> (...), for forward and for reverse KL."""
    log_p, log_q = log_p.double(), log_q.double()
    head = akl.head(log_p.exp(), HEAD_MASS)
    found = []
    for name in ("fkl", "rkl"):
        size = kd.divergence(name).value_and_gradient(log_p, log_q)[1].abs()
        found.append((size * head).sum(-1) / size.sum(-1))
    return found[0], found[1]
