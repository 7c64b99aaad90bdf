"""Rényi's divergence: a logarithm after the sum over tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdtheory.divergences import logspace, summands
from kdtheory.divergences.logspace import LogPair

_LARGE = 20.0  # |log S| from which the weights are normalised in log space


def _log_terms(pair: LogPair, alpha: float) -> Tensor:
    """log(p^α q^(1-α)), -inf where p = 0."""
    log_s = alpha * pair.log_p + (1 - alpha) * pair.log_q
    return log_s.masked_fill(torch.isneginf(pair.log_p), -math.inf)


def summand(pair: LogPair, alpha: float) -> Tensor:
    """p^α q^(1-α): the summand of the inner sum S (..., V)."""
    return _log_terms(pair, alpha).exp()


def value(pair: LogPair, alpha: float) -> Tensor:
    """Log S / (α - 1), through S - 1 = -α(1-α) · Amari_α where S is near 1 and the logarithm would cancel."""
    excess = alpha * (alpha - 1) * summands.amari(pair, alpha).sum(-1)
    if pair.ordinary(alpha) and (excess > -0.5).all():
        return excess.log1p_() / (alpha - 1)
    far = torch.logsumexp(_log_terms(pair, alpha), -1)
    return torch.where(excess.abs() < 0.5, torch.log1p(excess.clamp(-0.5, 0.5)), far) / (alpha - 1)


def _weights(pair: LogPair, alpha: float) -> Tensor:
    """W ∝ p^α q^(1-α), summing to 1; where S is 0 or infinite, the limit as the zeros of q open together."""
    log_s = _log_terms(pair, alpha)
    opened = torch.isposinf(log_s)
    degenerate = opened.any(-1, keepdim=True) | torch.isneginf(log_s).all(-1, keepdim=True)
    support = opened | torch.isneginf(log_s).all(-1, keepdim=True)
    limit = (alpha * pair.log_p).masked_fill(~support, -math.inf)
    return torch.softmax(torch.where(degenerate, limit, log_s), -1)


def gradient(pair: LogPair, alpha: float) -> Tensor:
    """Logit gradient q - w: bounded for every α. Through (q S - s)/S where S is ordinary, so that it is 0 at p = q."""
    if pair.ordinary(alpha):
        flow = pair.q * pair.excess(alpha)
        total = 1 + flow.sum(-1, keepdim=True)
        if ((total > 0.5) & (total < math.exp(_LARGE))).all():
            return logspace.closed_flow(flow.div_(-total), pair)
    log_total = torch.logsumexp(_log_terms(pair, alpha), -1, keepdim=True)
    far = logspace.closed(pair.q - _weights(pair, alpha), pair)
    near = logspace.power_gradient(pair, kappa=alpha, scale=1.0) * torch.exp(-log_total)
    return torch.where(log_total.abs() < _LARGE, near, far)


def slope(pair: LogPair, alpha: float) -> Tensor:
    """1 - (p/q)^α / S: zero at p = q."""
    log_total = torch.logsumexp(_log_terms(pair, alpha), -1, keepdim=True)
    return -torch.expm1(alpha * pair.log_ratio - log_total)
