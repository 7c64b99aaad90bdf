"""Losses that `repairs` needs beside those of the library: W1 without its kink, and a quick Sinkhorn divergence."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from kdtheory.divergences import logspace
from kdtheory.divergences.protocol import Loss
from kdtheory.transport import closed_forms
from kdtheory.transport.costs import Line

_SWEEPS, _TOLERANCE, _LOOK_EVERY = 100, 1e-5, 3


class _Smooth(Loss):
    """A loss given by its value and its slope in q."""

    @abstractmethod
    def _terms(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        """Value (...) and slope in q (..., V), up to a constant per row."""

    def per_position(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        return self._terms(log_p, log_q)[0]

    def value_and_gradient(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = self._terms(log_p, log_q)
        # a constant cancels; without it the products of the dominating token are exact zeros
        slope = slope - slope.gather(-1, log_q.argmax(-1, keepdim=True))
        return value, logspace.centred(logspace.LogPair(log_p, log_q), slope)


def _checked(cost: Line, **positive: float) -> None:
    if not isinstance(cost, Line) or not cost.in_order:
        raise ValueError("cost: expected TokenCost.line(positions) with increasing positions")
    for name, value in positive.items():
        if not value > 0:
            raise ValueError(f"{name} = {value}: must be positive")


class RoundedW1(_Smooth):
    """Σ_e w_e (√(S_e² + δ²) - δ), with the gaps w_e of the line and the surplus S_e of q - p on their left.

    W1 is Σ_e w_e |S_e|. The two differ by at most δ times the length of the line, and their slopes have the same bound,
    so that a saturated student stalls both; but near p = q, where |S_e| is much smaller than δ, the gradient of this
    one goes to 0. It is not a published loss: it isolates one property of W1.

    Parameters
    ----------
    cost : TokenCost
        A line whose tokens are in order.
    width : float > 0
        δ, in units of mass.
    """

    name = "rounded_w1"

    def __init__(self, *, cost: Line, width: float) -> None:
        _checked(cost, width=width)
        self.cost, self.width = cost, width
        self.parameters = {"cost": cost, "width": width}

    def _terms(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        surplus = closed_forms.balanced_difference(log_p.exp(), log_q.exp()).cumsum(-1)[..., :-1]
        length = (surplus.square() + self.width**2).sqrt()
        gaps = self.cost.gaps.to(surplus)
        slope = (gaps * surplus / length).cumsum(-1)  # a move to the right takes surplus off the left
        return (length - self.width) @ gaps, -torch.cat([torch.zeros_like(slope[..., :1]), slope], -1)


class QuickSinkhorn(_Smooth):
    """The Sinkhorn divergence S_ε of ``kd.divergence("sinkhorn")``, by plain scaling: no logarithms, no rescue.

    With ε no smaller than a tenth of the line, exp(-C/ε) is far from float32's limits and twenty sweeps reach 1e-5.
    At 20 tokens that takes a sixth of the library's time, which is made for thousands of tokens and small ε.

    Parameters
    ----------
    cost : TokenCost
        A line.
    epsilon : float
        At least a tenth of the line's length.
    """

    name = "quick_sinkhorn"
    whole_batch = True

    def __init__(self, *, cost: Line, epsilon: float) -> None:
        _checked(cost, epsilon=epsilon)
        if epsilon < 0.1 * cost.diameter:
            raise ValueError(f"epsilon = {epsilon}: below a tenth of the line; take kd.divergence('sinkhorn')")
        self.epsilon = epsilon
        self.kernel = torch.exp(-cost.matrix() / epsilon)
        self.parameters = {"cost": cost, "epsilon": epsilon}

    def _terms(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        p, q, kernel = log_p.exp(), log_q.exp(), self.kernel.to(log_q)
        f, g = self._pair(p, q, kernel)
        own_p, own_q = self._selves(torch.stack([p, q]), kernel)
        value = (p * (f - own_p)).sum(-1) + (q * (g - own_q)).sum(-1)
        return value, g - own_q

    def _pair(self, p: Tensor, q: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
        """Potentials (f, g) of OT_ε(p, q), relative form."""
        u = v = torch.ones_like(p)
        for sweep in range(_SWEEPS):
            v = 1 / ((p * u) @ kernel)
            u, last = 1 / ((q * v) @ kernel), u
            if _still(sweep, u, last):
                break
        return self.epsilon * u.log(), self.epsilon * v.log()

    def _selves(self, p: Tensor, kernel: Tensor) -> Tensor:
        """Potentials of OT_ε(p, p)."""
        u = torch.ones_like(p)
        for sweep in range(_SWEEPS):
            u, last = (u / ((p * u) @ kernel)).sqrt(), u
            if _still(sweep, u, last):
                break
        return self.epsilon * u.log()


def _still(sweep: int, now: Tensor, last: Tensor) -> bool:
    return sweep % _LOOK_EVERY == 0 and float((now / last - 1).abs().max()) < _TOLERANCE
