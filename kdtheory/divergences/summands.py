"""Summands and slopes of each divergence, written from log-probabilities.

Every summand carries the linear terms that vanish on the simplex (Σ p = Σ q = 1) so that it is non-negative and
quadratic at p = q: sums of these terms neither go negative nor lose their digits near the teacher. Every slope is
shifted to be zero at p = q, which changes no gradient. Tests hold both to the symbolic definitions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdtheory.divergences.logspace import LogPair, centred, nan_is, power_gradient, steep_gradient, times


# -- summands: value = Σ summand ---------------------------------------------------------------------------------------
def forward_kl(pair: LogPair) -> Tensor:
    """p log p/q - p + q, summing to KL(p‖q)."""
    if pair.ordinary():
        return (pair.excess(-1.0) + pair.log_ratio).mul_(pair.p).clamp_(min=0.0)
    return (_flow(pair.p, pair.above, pair.below) + pair.difference).clamp(min=0.0)


def reverse_kl(pair: LogPair) -> Tensor:
    """q log q/p - q + p, summing to KL(q‖p)."""
    if pair.ordinary():
        return (pair.excess() - pair.log_ratio).mul_(pair.q).clamp_(min=0.0)
    return (_flow(pair.q, pair.below, pair.above) - pair.difference).clamp(min=0.0)


def _flow(x: Tensor, above: Tensor, below: Tensor) -> Tensor:
    """x log(x/y) from the two sides of the logarithm: infinite where y = 0, however far x itself has underflowed."""
    return nan_is(x * above, math.inf) - nan_is(x * below, 0.0)


def jensen_shannon(pair: LogPair, beta: float) -> Tensor:
    """βp log p/m + (1-β)q log q/m with m = βp + (1-β)q, summing to β KL(p‖m) + (1-β) KL(q‖m)."""
    over_q, over_p = pair.log_over_q(1 - beta), pair.log_over_p(beta)
    if pair.ordinary():
        return (over_p * pair.p).mul_(-beta).addcmul_(over_q, pair.q, value=beta - 1).clamp_(min=0.0)
    from_p, from_q = times(pair.p, over_p), times(pair.q, over_q)
    return -(beta * from_p + (1 - beta) * from_q).clamp(max=0.0)


def total_variation(pair: LogPair) -> Tensor:
    """½|p - q|."""
    return 0.5 * pair.difference.abs()


def skew_kl(pair: LogPair, alpha: float) -> Tensor:
    """p log p/m - p + m with m = αp + (1-α)q, summing to KL(p‖m)."""
    over_p = pair.log_over_p(alpha)
    if pair.ordinary():
        return (pair.mixture_excess("p", alpha) - over_p).mul_(pair.p).clamp_(min=0.0)
    return ((1 - alpha) * pair.difference - times(pair.p, over_p)).clamp(min=0.0)


def skew_reverse_kl(pair: LogPair, alpha: float) -> Tensor:
    """q log q/m - q + m with m = αq + (1-α)p, summing to KL(q‖m)."""
    over_q = pair.log_over_q(alpha)
    if pair.ordinary():
        return (pair.mixture_excess("q", alpha) - over_q).mul_(pair.q).clamp_(min=0.0)
    return (-(1 - alpha) * pair.difference - times(pair.q, over_q)).clamp(min=0.0)


def chi_square(pair: LogPair) -> Tensor:
    """(p - q)²/q, summing to χ²."""
    if pair.ordinary():
        return (pair.q * pair.excess()).mul_(pair.excess())
    return nan_is(pair.log_q + 2 * pair.above, math.inf).exp() * (pair.loss_of_q - pair.loss_of_p) ** 2


def neyman(pair: LogPair) -> Tensor:
    """(q - p)²/p, summing to Neyman's χ²."""
    if pair.ordinary():
        return (pair.p * pair.excess(-1.0)).mul_(pair.excess(-1.0))
    return nan_is(pair.log_p + 2 * pair.below, math.inf).exp() * (pair.loss_of_q - pair.loss_of_p) ** 2


def hellinger(pair: LogPair) -> Tensor:
    """½(√p - √q)²."""
    if pair.ordinary():
        return (pair.q * pair.excess(0.5)).mul_(pair.excess(0.5)).mul_(0.5)
    return 0.5 * pair.top * torch.expm1(-pair.log_ratio.abs() / 2) ** 2


def amari(pair: LogPair, alpha: float) -> Tensor:
    """(αp + (1-α)q - p^α q^(1-α)) / (α(1-α))."""
    if pair.ordinary(alpha):
        power = pair.excess(alpha)
        return (alpha * pair.excess()).sub_(power).mul_(pair.q).mul_(1 / (alpha * (1 - alpha))).clamp_(min=0.0)
    p_larger = (1 - alpha) * pair.loss_of_q - torch.expm1((alpha - 1) * pair.above)
    q_larger = alpha * pair.loss_of_p - torch.expm1(-alpha * pair.below)
    near = times(pair.top, (p_larger + q_larger) / (alpha * (1 - alpha))).clamp(min=0.0)
    if alpha < 1:
        return near
    power = (pair.log_p + (alpha - 1) * pair.above).exp()  # p may underflow where (p/q)^(α-1) overflows
    far = (power - alpha * pair.p - (1 - alpha) * pair.q) / (alpha * (alpha - 1))
    return torch.where(pair.above < 1, near, far)


# -- slopes: ∂D/∂q_i, shifted to be 0 at p = q -------------------------------------------------------------------------
def reverse_kl_slope(pair: LogPair) -> Tensor:
    """log(q/p)."""
    return -pair.log_ratio


def jensen_shannon_slope(pair: LogPair, beta: float) -> Tensor:
    """(1-β) log(q/m), m = βp + (1-β)q."""
    return (beta - 1) * pair.log_over_q(1 - beta)


def total_variation_slope(pair: LogPair) -> Tensor:
    """½ sign(q - p); 0, the middle of the subdifferential, at the kink."""
    return -0.5 * torch.sign(pair.log_ratio)


def skew_kl_slope(pair: LogPair, alpha: float) -> Tensor:
    """(1-α)(1 - p/m), m = αp + (1-α)q."""
    if pair.ordinary():
        over = pair.mixture_excess("p", alpha)
        return (over / (over + 1)).mul_(1 - alpha)
    return (alpha - 1) * torch.expm1(-pair.log_over_p(alpha))


def skew_reverse_kl_slope(pair: LogPair, alpha: float) -> Tensor:
    """log(q/m) + α(1 - q/m), m = αq + (1-α)p."""
    over_q = pair.log_over_q(alpha)
    if pair.ordinary():
        over = pair.mixture_excess("q", alpha)
        return (over / (over + 1)).mul_(alpha).sub_(over_q)
    return -over_q - alpha * torch.expm1(-over_q)


def neyman_slope(pair: LogPair) -> Tensor:
    """2(q/p - 1)."""
    return 2 * torch.expm1(-pair.log_ratio)


# -- gradients that can be infinite -----------------------------------------------------------------------------------
def reverse_kl_gradient(pair: LogPair) -> Tensor:
    """Logit gradient q(log(q/p) - RKL)."""
    return steep_gradient(pair, lambda at: centred(at, reverse_kl_slope(at)), torch.ones_like(pair.q))


def neyman_gradient(pair: LogPair) -> Tensor:
    """Logit gradient 2q(q/p - Σ q²/p)."""
    return steep_gradient(pair, lambda at: power_gradient(at, kappa=-1, scale=-2.0), pair.q)
