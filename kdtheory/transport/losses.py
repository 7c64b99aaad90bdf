"""The Wasserstein-1 distance as a training loss."""

from __future__ import annotations

import torch
from torch import Tensor

from kdtheory.divergences import logspace
from kdtheory.divergences.protocol import Loss
from kdtheory.transport import closed_forms
from kdtheory.transport.api import check_vocabulary, solve_rows
from kdtheory.transport.costs import TokenCost


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

    def per_position(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        if closed_forms.known(self.cost):
            return closed_forms.value(self.cost, self._difference(log_p, log_q))
        return self._exact(log_p, log_q)[0]

    def value_and_gradient(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        if closed_forms.known(self.cost):
            value, g = closed_forms.value_and_potential(self.cost, self._difference(log_p, log_q))
        else:
            value, g = self._exact(log_p, log_q)
        # a constant in g cancels; without it the products of the dominating token are exact zeros
        g = g - g.gather(-1, log_q.argmax(-1, keepdim=True))
        return value, logspace.centred(logspace.LogPair(log_p, log_q), g)

    def _difference(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """Difference q - p to full relative accuracy in r = log p/q, with half the exponentials of `LogPair`'s."""
        check_vocabulary(self.cost, log_q.shape[-1], "student_logits")
        log_top = torch.maximum(log_p, log_q)
        r = logspace.LogPair(log_p, log_q).log_ratio
        difference = log_top.exp() * torch.expm1(-r.abs()) * torch.sign(r)
        return closed_forms.balanced(difference, log_top.argmax(-1, keepdim=True))

    def _exact(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        """Value and potential by the network simplex, in float64 whatever came in."""
        p, q, difference = log_p.double().exp(), log_q.double().exp(), self._difference(log_p.double(), log_q.double())
        value, _, _, _, g = solve_rows(p, q, difference, self.cost)
        return value.to(log_q.dtype), g.to(log_q.dtype)
