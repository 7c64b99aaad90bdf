"""Adaptive KL (`wu2024akl`, Section 4.2): forward and reverse KL, weighted by where teacher and student differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from kdtheory.divergences import checks, latex
from kdtheory.divergences.definitions import FORWARD_KL, REVERSE_KL
from kdtheory.divergences.logspace import LogPair, times
from kdtheory.divergences.protocol import Loss
from kdtheory.divergences.records import Divergence, Parameter

_MU = Parameter(0.5, 0, 1)


def head(p: Tensor, mu: float) -> Tensor:
    """Mask (..., V) of the fewest tokens whose teacher mass exceeds mu; ties go to the lower index."""
    largest = _leading(p, mu)
    before = torch.nn.functional.pad(largest.cumsum(-1)[..., :-1], (1, 0))
    count = (before <= mu).sum(-1, keepdim=True)
    threshold = largest.gather(-1, count - 1)
    above, tied = p > threshold, p == threshold
    missing = count - above.sum(-1, keepdim=True)
    if (tied.sum(-1, keepdim=True) > missing).any():
        tied &= tied.cumsum(-1) <= missing
    return above | tied


def _leading(p: Tensor, mu: float) -> Tensor:
    """The largest probabilities in descending order, enough of them to exceed mu in every row (or all)."""
    size = 16  # a language model's head rarely needs more, and a full sort costs as much as the rest of a step
    while size < p.shape[-1]:
        largest = p.topk(size, dim=-1).values
        if (largest.sum(-1) > mu).all():
            return largest
        size *= 8
    return p.sort(dim=-1, descending=True).values


def weights(pair: LogPair, mu: float) -> tuple[Tensor, Tensor]:
    """(weight of forward KL, weight of reverse KL), each (..., 1), summing to 1; a half each at p = q.

    g_head and g_tail (total - g_head) are Σ|p - q| over head and tail: constants of the loss, without gradient.
    """
    gap = pair.difference.abs()
    in_head = head(pair.p, mu).to(gap.dtype)
    g_head = (gap * in_head).sum(-1, keepdim=True)
    total = g_head + (gap * (1 - in_head)).sum(-1, keepdim=True)
    forward = torch.where(total == 0, 0.5, g_head / total)
    return forward, 1 - forward


def _pair(p: Any, q: Any) -> tuple[LogPair, Callable[[Tensor], Any]]:
    """A pair that keeps the probabilities as given: exp(log p) can lift a head of mass exactly mu above mu."""
    exact_p, exact_q, restore = checks.probabilities(p, q)
    pair = LogPair(exact_p.log(), exact_q.log())
    pair.p, pair.q = exact_p, exact_q
    return pair, restore


class AdaptiveKL(Loss):
    """g_head/(g_head + g_tail) FKL + g_tail/(g_head + g_tail) RKL with detached weights.

    Parameters
    ----------
    mu : float in (0, 1)
        Teacher mass that the head must exceed.
    """

    name = "akl"
    title = "adaptive KL"
    source = "wu2024akl, Eqs. 9-11"
    surrogate_gradient = True  # the weights depend on the student; the published loss does not differentiate them

    def __init__(self, mu: float = _MU.default) -> None:
        self.parameters = {"mu": _MU.check(self.name, "mu", mu)}

    def per_position(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        return self._mix(LogPair(log_p, log_q), "summand").sum(-1)

    def value_and_gradient(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        pair = LogPair(log_p, log_q)
        return self._mix(pair, "summand").sum(-1), self._mix(pair, "gradient")

    def _mix(self, pair: LogPair, part: str) -> Tensor:
        """Weighted sum of the two KLs' `part`; a weight of 0 drops its term, infinite or not."""
        forward, reverse = weights(pair, self.parameters["mu"])
        parts = getattr(FORWARD_KL, part)(pair), getattr(REVERSE_KL, part)(pair)
        return times(forward, parts[0]) + times(reverse, parts[1])

    def value(self, p: Any, q: Any) -> Any:
        pair, restore = _pair(p, q)
        return restore(self._mix(pair, "summand").sum(-1))

    def culprit(self, log_p: Tensor, log_q: Tensor) -> int | None:
        infinite = torch.isinf(self._mix(LogPair(log_p, log_q), "summand"))
        return int(infinite.nonzero()[0]) if infinite.any() else None

    def slope(self, p: Any, q: Any) -> Any:
        """Weight on ∇q_i with the weights held constant; shapes and errors as `DivergenceLoss.slope`."""
        pair, restore = _pair(p, q)
        forward, reverse = weights(pair, self.parameters["mu"])
        constant = reverse - forward  # the two slopes at p = q are -1 and +1
        return restore(self._mix(pair, "slope") + constant)

    def latex(self, part: str = "slope") -> str:
        """As `DivergenceLoss.latex`, with the detached weights w_h and w_t."""
        return latex.render(AdaptiveKL.symbolic(), part)

    @staticmethod
    def symbolic() -> Divergence:
        """The record at constant weights: w_h p log(p/q) + w_t q log(q/p), from which LaTeX is derived."""
        w_h, w_t = sp.symbols("w_h w_t", positive=True)
        return replace(FORWARD_KL, name="akl", term=w_h * FORWARD_KL.term + w_t * REVERSE_KL.term)
