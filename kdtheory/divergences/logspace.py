"""The fast path: what is common to all divergences written from log-probabilities.

With r = log p/q, r₊ = max(r, 0) and r₋ = max(-r, 0), both sides of p = q are covered by one expression without
overflow, cancellation, or a choice per element (`torch.where` costs as much as four logarithms on a CPU).

Where a whole block of rows is `ordinary` (no zero, nothing near the ends of the floats) the same terms are written from
expm1(κr) = (p/q)^κ - 1 in half the passes over memory: a pass costs a fifth of an exponential, and there were thirty.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor


def times(weight: Tensor, x: Tensor) -> Tensor:
    """Weight · x with 0 · inf = 0: a token without mass does not count, however steep the slope there."""
    return nan_is(weight * x, 0.0)


def nan_is(x: Tensor, value: float) -> Tensor:
    """Replace NaN, which only 0 · inf and inf - inf produce here, by what the limit is; infinities stay."""
    return torch.nan_to_num(x, nan=value, posinf=math.inf, neginf=-math.inf)


class LogPair:
    """Log-probabilities of teacher and student, shape (..., V), and what all divergences need of them."""

    def __init__(self, log_p: Tensor, log_q: Tensor) -> None:
        self.log_p, self.log_q = log_p, log_q
        self._excess: dict[float, Tensor] = {}
        self._over: dict[tuple[str, float], Tensor] = {}
        self._mixture_excess: dict[tuple[str, float], Tensor] = {}

    @cached_property
    def _plain(self) -> bool:
        """No log-probability is -inf, NaN or near the smallest normal number."""
        return self.log_p.numel() > 0 and all(x.amin().item() > -self._limit for x in (self.log_p, self.log_q))

    @cached_property
    def _limit(self) -> float:
        return 0.9 * math.log(torch.finfo(self.log_q.dtype).max)

    @cached_property
    def _steepest(self) -> float:
        return self.log_ratio.amax().item()

    def ordinary(self, power: float = 1.0) -> bool:
        """Whether p, q, and (p/q)^power for a power >= -1, are normal numbers for every token of every row."""
        return self._plain and (power <= 1 or power * self._steepest < self._limit)

    def excess(self, power: float = 1.0) -> Tensor:
        """(p/q)^power - 1, to full relative accuracy in r; of an ordinary pair."""
        if power not in self._excess:
            self._excess[power] = self._new_excess(power)
        return self._excess[power]

    def _new_excess(self, power: float) -> Tensor:
        if power == 2 or power / 2 in self._excess:  # x² - 1 = (x - 1)(x - 1 + 2), a third of the price
            half = self.excess(power / 2)
            return (half + 2).mul_(half)
        if power == -1 and 1.0 in self._excess:
            return self.difference / self.p
        return self.log_ratio.expm1() if power == 1 else (power * self.log_ratio).expm1_()

    def mixture_excess(self, side: str, alpha: float) -> Tensor:
        """M/p - 1 for m = αp + (1-α)q (side "p"), or m/q - 1 for m = αq + (1-α)p; of an ordinary pair."""
        key = side, alpha
        if key not in self._mixture_excess:
            self._mixture_excess[key] = (1 - alpha) * self.excess(-1.0 if side == "p" else 1.0)
        return self._mixture_excess[key]

    def log_over_p(self, alpha: float) -> Tensor:
        """log m/p for m = αp + (1-α)q."""
        return self._mixture_over("p", alpha)

    def log_over_q(self, alpha: float) -> Tensor:
        """log m/q for m = αq + (1-α)p."""
        return self._mixture_over("q", alpha)

    def _mixture_over(self, side: str, alpha: float) -> Tensor:
        key = side, alpha
        if key not in self._over:
            if self.ordinary():
                self._over[key] = self.mixture_excess(side, alpha).log1p()
            elif side == "p":
                self._over[key] = self.log_mixture(alpha) + self.below
            else:
                self._over[key] = self.log_mixture(1 - alpha) + self.above
        return self._over[key]

    @cached_property
    def p(self) -> Tensor:
        return self.log_p.exp()

    @cached_property
    def q(self) -> Tensor:
        return self.log_q.exp()

    @cached_property
    def log_ratio(self) -> Tensor:
        """r = log p/q; 0 where both are 0, so that the token drops out."""
        if self._plain:
            return self.log_p - self.log_q
        return nan_is(self.log_p - self.log_q, 0.0)

    @cached_property
    def above(self) -> Tensor:
        """r₊, the logarithm by which p exceeds q."""
        return self.log_ratio.relu()

    @cached_property
    def below(self) -> Tensor:
        """r₋, the logarithm by which q exceeds p."""
        return (-self.log_ratio).relu()

    @cached_property
    def top(self) -> Tensor:
        """max(p, q)."""
        return torch.maximum(self.p, self.q)

    @cached_property
    def loss_of_q(self) -> Tensor:
        """q/max(p, q) - 1."""
        return torch.expm1(-self.above)

    @cached_property
    def loss_of_p(self) -> Tensor:
        """p/max(p, q) - 1."""
        return torch.expm1(-self.below)

    @cached_property
    def difference(self) -> Tensor:
        """q - p, to full relative accuracy in r."""
        if self.ordinary():
            return self.p * self.excess(-1.0) if -1.0 in self._excess else (self.q * self.excess()).neg_()
        return torch.sign(self.log_ratio) * self.top * torch.expm1(-self.log_ratio.abs())

    def log_mixture(self, weight_p: float) -> Tensor:
        """log m/max(p, q) for m = weight_p · p + (1 - weight_p) · q; relative error eps / the smaller weight."""
        return torch.log1p(weight_p * self.loss_of_p + (1 - weight_p) * self.loss_of_q)

    def swapped(self) -> LogPair:
        return LogPair(self.log_q, self.log_p)


# -- from slopes to logits ---------------------------------------------------------------------------------------------
def closed(gradient: Tensor, pair: LogPair) -> Tensor:
    """Set the student's largest token to minus the sum of the others (in place).

    The entries sum to zero. Where one token holds nearly all mass its own entry is a small difference of large
    numbers, while the others are not; the sum keeps their relative accuracy. Where the others are infinite the entry
    stays as computed.
    """
    top = largest(pair.log_q)
    direct = gradient.gather(-1, top)
    rest = -gradient.scatter_(-1, top, 0.0).sum(-1, keepdim=True)
    return gradient.scatter_(-1, top, torch.where(torch.isfinite(rest), rest, direct))


_WIDTH = 256  # a maximum is vectorised, its place is not: look for the place in one stretch of this many tokens


def largest(x: Tensor) -> Tensor:
    """Place (..., 1) of the largest entry of (..., V), the first of equals."""
    stretches = x.shape[-1] // _WIDTH
    if stretches < 16 or x.device.type != "cpu":
        return x.argmax(-1, keepdim=True)
    parts = x[..., : stretches * _WIDTH].unflatten(-1, (stretches, _WIDTH))
    peaks = parts.amax(-1)
    best = peaks.argmax(-1, keepdim=True)
    stretch = parts.gather(-2, best.unsqueeze(-1).expand(*best.shape, _WIDTH)).squeeze(-2)
    place = best * _WIDTH + stretch.argmax(-1, keepdim=True)
    rest = x[..., stretches * _WIDTH :]
    if rest.shape[-1] == 0:
        return place
    later, where = rest.max(-1, keepdim=True)
    return torch.where(later > peaks.gather(-1, best), where + stretches * _WIDTH, place)


def centred(pair: LogPair, slope: Tensor) -> Tensor:
    """Logit gradient q(g - ḡ) of a slope g that is finite, or infinite only where q = 0."""
    if pair.ordinary():
        return closed_flow(pair.q * slope, pair)
    flow = times(pair.q, slope)
    return closed(flow - pair.q * flow.sum(-1, keepdim=True), pair)


def closed_flow(flow: Tensor, pair: LogPair) -> Tensor:
    """Flow - q Σ flow, in place, of an ordinary pair."""
    return closed(flow.addcmul_(pair.q, flow.sum(-1, keepdim=True), value=-1.0), pair)


def power_gradient(pair: LogPair, kappa: float, scale: float) -> Tensor:
    """Logit gradient of the slope -scale · (p/q)^κ, that is scale · (q Σ_j s_j - s) with s = p^κ q^(1-κ).

    κ = 1 is q - p. Where Σ s is large both terms are taken in log space, because s alone leaves the floats (κ > 1,
    q → 0) long before q Σ s does; elsewhere they are q Σ_j (s_j - q_j) and s - q, which vanish at p = q.
    """
    if kappa == 1:
        return closed(scale * pair.difference, pair)
    if pair.ordinary(kappa):
        return closed_flow((pair.q * pair.excess(kappa)).mul_(-scale), pair)
    log_s = nan_is(kappa * pair.log_p + (1 - kappa) * pair.log_q, -math.inf)
    exponent = kappa * pair.log_ratio
    flow = scale * torch.where(exponent.abs() < 1, -pair.q * torch.expm1(exponent), pair.q - log_s.exp())
    gradient = flow - pair.q * flow.sum(-1, keepdim=True)
    if 0 <= kappa <= 1:  # then Σ s <= 1
        return closed(gradient, pair)
    log_total = torch.logsumexp(log_s, -1, keepdim=True)
    if (log_total > _LARGE).any():
        gradient = torch.where(log_total > _LARGE, scale * _difference_of_powers(pair, log_s, log_total), gradient)
    return closed(gradient, pair)


_LARGE = 20.0  # log Σ s from which q Σ s - s is taken in log space: there no s is close to its q


def _difference_of_powers(pair: LogPair, log_s: Tensor, log_total: Tensor) -> Tensor:
    """Q Σ s - s. Both terms may pass the largest float; the logarithms still say which one is larger."""
    log_shared = nan_is(pair.log_q + log_total, -math.inf)
    larger = nan_is(torch.sign(log_shared - log_s) * math.inf, 0.0)
    gradient = log_shared.exp() - log_s.exp()
    return torch.where(torch.isnan(gradient), larger, gradient)


def steep_gradient(pair: LogPair, smooth: Callable[[LogPair], Tensor], leading: Tensor) -> Tensor:
    """Logit gradient where the slope is +inf on tokens with p = 0 < q: the limit as those p go to 0 together.

    There the slope grows like `leading` times a common factor, so the gradient is ±inf with the sign of
    q(leading - mean leading) on tokens the leading order moves, and finite where it does not. `smooth` is the
    gradient where there are no such tokens.
    """
    if pair.ordinary() or not torch.isneginf(pair.log_p.amin()):
        return smooth(pair)
    outside = torch.isneginf(pair.log_p) & (pair.q > 0)
    opened = LogPair(pair.log_p.masked_fill(outside, 0.0), pair.log_q)  # a common p there: its size cancels
    finite = smooth(opened)
    weight = torch.where(outside, leading, 0.0)
    largest = weight.amax(-1, keepdim=True).masked_fill(~outside.any(-1, keepdim=True), 1.0)
    weight = weight / largest  # equal weights become exactly 1, so that ties cancel exactly below
    inside_mass = pair.q.masked_fill(outside, 0.0).sum(-1, keepdim=True)
    outside_mass = torch.where(outside, pair.q, 0.0).sum(-1, keepdim=True)
    order = weight * inside_mass + (weight * outside_mass - (pair.q * weight).sum(-1, keepdim=True))
    return torch.where((order == 0) | (pair.q == 0), finite, torch.sign(order) * math.inf)
