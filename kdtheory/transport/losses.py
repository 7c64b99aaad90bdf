"""The Wasserstein-1 distance as a training loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdtheory.divergences import logspace
from kdtheory.divergences.protocol import Loss
from kdtheory.transport import closed_forms
from kdtheory.transport.api import check_vocabulary, solve_rows
from kdtheory.transport.costs import TokenCost

_CPU_BLOCK, _GPU_BLOCK = 1 << 17, 1 << 26  # elements of a block of rows: half a MB in float32; a quarter of a GB
_TREE_ROWS = 32  # at least, of a block on a tree: a node is looked up once for all of them


class W1(Loss):
    """W1(p, q) = min ⟨Γ, C⟩ over plans between teacher p and student q, in units of the cost.

    Zero, one-hot and disjoint distributions are ordinary input, and the value is always finite. The logit gradient is
    q_i (g_i - Σ_j q_j g_j) with the Kantorovich potential g, at kinks that of one subgradient; it is bounded by
    2 · diam · (1 - max q) in L1.

    Parameters
    ----------
    cost : TokenCost
        0-1, line and tree costs are computed in closed form on any device and are made for training. Others are solved
        exactly, row by row, on the CPU in float64: milliseconds per position.
    """

    name = "w1"
    temperature_power = 1

    def __init__(self, *, cost: TokenCost) -> None:
        if not isinstance(cost, TokenCost):
            raise ValueError(f"cost: expected a kdtheory.TokenCost, got {type(cost).__name__}")
        self.cost = cost
        self.parameters = {"cost": cost}

    def positions(
        self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor | None, temperature: float
    ) -> Tensor:
        differentiated = torch.is_grad_enabled() and student_logits.requires_grad
        if differentiated or teacher_logits is None or not closed_forms.known(self.cost):
            return super().positions(student_logits, teacher_logits, labels, temperature)
        return self._values(teacher_logits, student_logits.detach(), temperature)

    def _values(self, teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
        """Values alone, (N, V) -> (N,): a closed form needs no logarithms, which are half of the time."""
        rows, tokens = student.shape
        dtype = torch.promote_types(student.dtype, torch.float32)
        value = torch.empty(rows, dtype=dtype, device=student.device)
        least = _TREE_ROWS if self.cost.kind == "tree" else 1
        block = max(least, (_CPU_BLOCK if student.device.type == "cpu" else _GPU_BLOCK) // tokens)
        for start in range(0, rows, block):
            at = slice(start, start + block)
            logits = (z[at].to(dtype) for z in (teacher, student))
            p, q = (torch.softmax(z if temperature == 1 else z / temperature, -1) for z in logits)
            value[at] = temperature * closed_forms.value(self.cost, self._difference(p, q))
        return value

    def per_position(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        if closed_forms.known(self.cost):
            return closed_forms.value(self.cost, self._difference(log_p.exp(), log_q.exp()))
        return self._exact(log_p, log_q)[0]

    def value_and_gradient(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        pair = logspace.LogPair(log_p, log_q)
        value, g = self._value_and_potential(pair)
        return value, logspace.centred(pair, g)

    def _value_and_potential(self, pair: logspace.LogPair) -> tuple[Tensor, Tensor]:
        """W1 (...) and the student's potential g (..., V), which is 0 at the student's largest token.

        A constant in g cancels; without it the products of the dominating token are exact zeros.
        """
        if closed_forms.known(self.cost):
            value, g = closed_forms.value_and_potential(self.cost, self._difference(pair.p, pair.q))
        else:
            value, g = self._exact(pair.log_p, pair.log_q)
        return value, g - g.gather(-1, pair.log_q.argmax(-1, keepdim=True))

    def _difference(self, p: Tensor, q: Tensor) -> Tensor:
        """q - p, made to sum to 0 in each row."""
        check_vocabulary(self.cost, q.shape[-1], "student_logits")
        return closed_forms.balanced_difference(p, q)

    def _exact(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        """Value and potential by the network simplex, in float64 whatever came in."""
        # a row of NaN is poisoned, and named, by the protocol; the network simplex would call it infeasible
        uniform = -math.log(log_q.shape[-1])
        pair = logspace.LogPair(*(x.double().nan_to_num(uniform, neginf=-math.inf) for x in (log_p, log_q)))
        value, _, _, _, g = solve_rows(pair.p, pair.q, self._difference(pair.p, pair.q), self.cost)
        return value.to(log_q.dtype), g.to(log_q.dtype)
