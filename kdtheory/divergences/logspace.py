"""The fast path: summands and slopes of each divergence, written from log-probabilities.

Every summand carries the linear terms that vanish on the simplex (Σ p = Σ q = 1) so that it is non-negative and
quadratic at p = q: sums of these terms neither go negative nor lose their digits near the teacher. Every slope is
shifted to be zero at p = q, which changes no gradient. Tests hold both to the symbolic definitions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor


class LogPair:
    """Log-probabilities of teacher and student, shape (..., V), and what all divergences need of them."""

    def __init__(self, log_p: Tensor, log_q: Tensor) -> None:
        self.log_p, self.log_q = log_p, log_q

    @cached_property
    def p(self) -> Tensor:
        return self.log_p.exp()

    @cached_property
    def q(self) -> Tensor:
        return self.log_q.exp()

    @cached_property
    def log_ratio(self) -> Tensor:
        """Log p/q; 0 where both are 0, so that the token drops out."""
        both_zero = torch.isneginf(self.log_p) & torch.isneginf(self.log_q)
        return (self.log_p - self.log_q).masked_fill(both_zero, 0.0)

    def swapped(self) -> LogPair:
        return LogPair(self.log_q, self.log_p)


def times(weight: Tensor, x: Tensor) -> Tensor:
    """Weight · x with 0 · inf = 0: a token without mass does not count, however steep the slope there."""
    return torch.where(weight == 0, 0.0, weight * x)


def generalised_kl(x: Tensor, y: Tensor, log_ratio: Tensor) -> Tensor:
    """X log(x/y) - x + y from log_ratio = log(x/y): the summand of KL, non-negative for any two masses."""
    near = x * (log_ratio + torch.expm1(-log_ratio))
    return torch.where(log_ratio.abs() < 1, near, times(x, log_ratio) - x + y)


def log_mixture(pair: LogPair, weight_p: float) -> tuple[Tensor, Tensor]:
    """(log m/p, log m/q) for m = weight_p · p + (1 - weight_p) · q, accurate at both ends and near p = q."""
    weight_q = 1.0 - weight_p
    r = pair.log_ratio
    small = torch.expm1(-r.abs().clamp(max=1.0))  # used where |log p/q| <= 1; beyond, logaddexp does not cancel
    log_wp, log_wq = r.new_tensor(math.log(weight_p)), r.new_tensor(math.log(weight_q))
    over_p = torch.where(r > 1, torch.logaddexp(log_wp, log_wq - r), torch.log1p(weight_q * small))
    over_q = torch.where(r < -1, torch.logaddexp(log_wq, log_wp + r), torch.log1p(weight_p * small))
    return torch.where(r > 0, over_p, over_q - r), torch.where(r > 0, over_p + r, over_q)


# -- summands: value = Σ summand ---------------------------------------------------------------------------------------
def forward_kl(pair: LogPair) -> Tensor:
    """Summand of KL(p‖q)."""
    return generalised_kl(pair.p, pair.q, pair.log_ratio)


def reverse_kl(pair: LogPair) -> Tensor:
    """Summand of KL(q‖p)."""
    return generalised_kl(pair.q, pair.p, -pair.log_ratio)


def jensen_shannon(pair: LogPair, beta: float) -> Tensor:
    """Summand of β KL(p‖m) + (1-β) KL(q‖m), m = βp + (1-β)q."""
    over_p, over_q = log_mixture(pair, beta)
    m = beta * pair.p + (1 - beta) * pair.q
    return beta * generalised_kl(pair.p, m, -over_p) + (1 - beta) * generalised_kl(pair.q, m, -over_q)


def total_variation(pair: LogPair) -> Tensor:
    """Summand ½|p - q|, without cancellation where p and q are close."""
    return 0.5 * torch.maximum(pair.p, pair.q) * -torch.expm1(-pair.log_ratio.abs())


def skew_kl(pair: LogPair, alpha: float) -> Tensor:
    """Summand of KL(p ‖ αp + (1-α)q)."""
    over_p, _ = log_mixture(pair, alpha)
    return generalised_kl(pair.p, alpha * pair.p + (1 - alpha) * pair.q, -over_p)


def skew_reverse_kl(pair: LogPair, alpha: float) -> Tensor:
    """Summand of KL(q ‖ αq + (1-α)p)."""
    return skew_kl(pair.swapped(), alpha)


def chi_square(pair: LogPair) -> Tensor:
    """Summand (p - q)²/q of χ²."""
    r = pair.log_ratio
    steep = (2 * pair.log_p - pair.log_q).exp() * torch.expm1(-r) ** 2
    return torch.where(r > 0, steep, pair.q * torch.expm1(r) ** 2)


def neyman(pair: LogPair) -> Tensor:
    """Summand (q - p)²/p of Neyman's χ²."""
    return chi_square(pair.swapped())


def hellinger(pair: LogPair) -> Tensor:
    """Summand ½(√p - √q)²."""
    return 0.5 * torch.maximum(pair.p, pair.q) * torch.expm1(-pair.log_ratio.abs() / 2) ** 2


def amari(pair: LogPair, alpha: float) -> Tensor:
    """Summand (αp + (1-α)q - p^α q^(1-α)) / (α(1-α))."""
    r, away = pair.log_ratio, alpha * (1 - alpha)
    near = pair.q * (alpha * torch.expm1(r) - torch.expm1(alpha * r))
    power = (alpha * pair.log_p + (1 - alpha) * pair.log_q).exp()
    power = torch.where((pair.p == 0) & (pair.q == 0), 0.0, power)
    return torch.where(r.abs() < 1, near, alpha * pair.p + (1 - alpha) * pair.q - power) / away


# -- slopes: ∂D/∂q_i, shifted to be 0 at p = q -------------------------------------------------------------------------
def reverse_kl_slope(pair: LogPair) -> Tensor:
    """Log q/p."""
    return -pair.log_ratio


def jensen_shannon_slope(pair: LogPair, beta: float) -> Tensor:
    """(1-β) log q/m."""
    return -(1 - beta) * log_mixture(pair, beta)[1]


def total_variation_slope(pair: LogPair) -> Tensor:
    """½ sign(q - p); 0, the middle of the subdifferential, at the kink."""
    return -0.5 * torch.sign(pair.log_ratio)


def skew_kl_slope(pair: LogPair, alpha: float) -> Tensor:
    """(1-α)(1 - p/m)."""
    return -(1 - alpha) * torch.expm1(-log_mixture(pair, alpha)[0])


def skew_reverse_kl_slope(pair: LogPair, alpha: float) -> Tensor:
    """Log q/m + α(1 - q/m), m = αq + (1-α)p."""
    over_q, _ = log_mixture(pair.swapped(), alpha)
    return -over_q - alpha * torch.expm1(-over_q)


def neyman_slope(pair: LogPair) -> Tensor:
    """2(q/p - 1)."""
    return 2 * torch.expm1(-pair.log_ratio)


# -- from slopes to logits ---------------------------------------------------------------------------------------------
def closed(gradient: Tensor, pair: LogPair) -> Tensor:
    """Set the student's largest token to minus the sum of the others.

    The entries sum to zero. Where one token holds nearly all mass its own entry is a small difference of large
    numbers, while the others are not; the sum keeps their relative accuracy. Where the others are infinite the entry
    stays as computed.
    """
    top = pair.log_q.argmax(-1, keepdim=True)
    rest = -gradient.scatter(-1, top, 0.0).sum(-1, keepdim=True)
    return gradient.scatter(-1, top, torch.where(torch.isfinite(rest), rest, gradient.gather(-1, top)))


def centred(pair: LogPair, slope: Tensor) -> Tensor:
    """Logit gradient q(g - ḡ) of a slope g that is finite, or infinite only where q = 0."""
    flow = times(pair.q, slope)
    return closed(flow - pair.q * flow.sum(-1, keepdim=True), pair)


def power_gradient(pair: LogPair, kappa: float, scale: float) -> Tensor:
    """Logit gradient of the slope -scale · (p/q)^κ, that is scale · (q Σ_j s_j - s) with s = p^κ q^(1-κ).

    In log space, because s alone leaves the floats (κ > 1, q → 0) long before q Σ s does. κ = 1 is q - p.
    """
    if kappa == 1:
        return closed(scale * (pair.q - pair.p), pair)
    log_s = (kappa * pair.log_p + (1 - kappa) * pair.log_q).masked_fill(torch.isneginf(pair.log_p), -math.inf)
    log_total = torch.logsumexp(log_s, -1, keepdim=True)
    log_shared = (pair.log_q + log_total).masked_fill(torch.isneginf(pair.log_q), -math.inf)
    gradient = log_shared.exp() - log_s.exp()
    # both terms past the largest float: the logarithms still say which one is larger
    gradient = torch.where(torch.isnan(gradient), torch.sign(log_shared - log_s) * math.inf, gradient)
    return closed(scale * gradient, pair)


def steep_gradient(pair: LogPair, slope: Callable[[LogPair], Tensor], leading: Tensor) -> Tensor:
    """Logit gradient where the slope is +inf on tokens with p = 0 < q: the limit as those p go to 0 together.

    There the slope grows like `leading` times a common factor, so the gradient is ±inf with the sign of
    q(leading - mean leading) on tokens the leading order moves, and finite where it does not.
    """
    outside = (pair.p == 0) & (pair.q > 0)
    if not outside.any():
        return centred(pair, slope(pair))
    opened = LogPair(pair.log_p.masked_fill(outside, 0.0), pair.log_q)  # a common p there: its size cancels
    finite = centred(opened, slope(opened))
    weight = torch.where(outside, leading, 0.0)
    largest = weight.amax(-1, keepdim=True).masked_fill(~outside.any(-1, keepdim=True), 1.0)
    weight = weight / largest  # equal weights become exactly 1, so that ties cancel exactly below
    inside_mass = pair.q.masked_fill(outside, 0.0).sum(-1, keepdim=True)
    outside_mass = torch.where(outside, pair.q, 0.0).sum(-1, keepdim=True)
    order = weight * inside_mass + (weight * outside_mass - (pair.q * weight).sum(-1, keepdim=True))
    return torch.where((order == 0) | (pair.q == 0), finite, torch.sign(order) * math.inf)
