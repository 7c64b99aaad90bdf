"""The Wasserstein-1 distance as a training loss."""

from __future__ import annotations

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
            return closed_forms.value(self.cost, self._difference(logspace.LogPair(log_p, log_q)))
        return self._exact(log_p, log_q)[0]

    def value_and_gradient(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        pair = logspace.LogPair(log_p, log_q)
        if closed_forms.known(self.cost):
            value, g = closed_forms.value_and_potential(self.cost, self._difference(pair))
        else:
            value, g = self._exact(log_p, log_q)
        # a constant in g cancels; without it the products of the dominating token are exact zeros
        g = g - g.gather(-1, log_q.argmax(-1, keepdim=True))
        return value, logspace.centred(pair, g)

    def _difference(self, pair: logspace.LogPair) -> Tensor:
        """q - p, made to sum to 0 in each row."""
        check_vocabulary(self.cost, pair.log_q.shape[-1], "student_logits")
        return closed_forms.balanced(pair.difference, pair.top.argmax(-1, keepdim=True))

    def _exact(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        """Value and potential by the network simplex, in float64 whatever came in."""
        pair = logspace.LogPair(log_p.double(), log_q.double())
        value, _, _, _, g = solve_rows(pair.p, pair.q, self._difference(pair), self.cost)
        return value.to(log_q.dtype), g.to(log_q.dtype)
