"""Teachers cut to their most probable tokens, and what that does to a loss: its gradient, its growth with a floor."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import kdtheory as kd
from kdtheory.students.controlled import batched

FLOORS = tuple(10.0**-k for k in (4, 5, 6, 7, 8, 9, 10, 11, 12))
"""Floors under the teacher's probabilities at which the growth of reverse KL's gradient is measured."""


def cut(log_p: Tensor, keep: int, floor: float = 0.0) -> Tensor:
    """Log-probabilities (..., V) of the teacher cut to its `keep` most probable tokens (0: all).

    The others have log-probability -inf, or with a floor e > 0 probability e each; what is kept shares the rest.
    """
    if not keep:
        return log_p
    kept = torch.zeros_like(log_p, dtype=torch.bool).scatter(-1, log_p.topk(keep, -1).indices, True)
    renormalised = torch.log_softmax(log_p.masked_fill(~kept, -math.inf), -1)
    if not floor:
        return renormalised
    left = math.log1p(-floor * (log_p.shape[-1] - keep))
    return torch.where(kept, renormalised + left, math.log(floor))


def kept_mass(log_p: Tensor, keep: int) -> Tensor:
    """Mass of the `keep` most probable tokens (0: all), (...)."""
    return log_p.topk(keep or log_p.shape[-1], -1).values.exp().sum(-1)


def logit_gradient(loss: Any, log_p: Tensor, log_q: Tensor) -> Tensor:
    """Logit gradient (S, N, V) of every context."""
    return loss.value_and_gradient(log_p, log_q)[1]


def gradient_change(loss: Any, whole: Tensor, cut_off: Tensor, log_q: Tensor) -> Tensor:
    """Relative change of the logit gradient of all contexts of a seed, (S,)."""
    reference = logit_gradient(loss, whole, log_q)
    return _norm(logit_gradient(loss, cut_off, log_q) - reference) / _norm(reference)


def _norm(x: Tensor) -> Tensor:
    return x.square().sum((-1, -2)).sqrt()


def floor_growth(log_p: Tensor, log_q: Tensor, keep: int) -> dict[str, Tensor]:
    """Reverse KL's gradient norm against log 1/e: R² of the line, its slope over Theorem 4's coefficient; (S,) each."""
    loss = kd.divergence("rkl")
    norms = torch.stack([_norm(logit_gradient(loss, cut(log_p, keep, e), log_q)) for e in FLOORS], -1)
    x = torch.tensor([-math.log(e) for e in FLOORS], dtype=norms.dtype, device=norms.device)
    x = x - x.mean()
    slope = (norms * x).sum(-1) / x.square().sum()
    centred = norms - norms.mean(-1, keepdim=True)
    rest = centred - slope.unsqueeze(-1) * x
    q, outside = log_q.exp(), torch.isneginf(cut(log_p, keep)).double()
    expected = _norm(q * (outside - (q * outside).sum(-1, keepdim=True)))
    r2 = 1 - rest.square().sum(-1) / centred.square().sum(-1)
    return {"r2": r2, "coefficient": slope / expected, "growth": norms[..., -1] / norms[..., 0]}


def lost_in_one_step(log_p: Tensor, features: Tensor, weights: list[Tensor]) -> Tensor:
    """Share of parameters that are not finite after a step on Σ q (log q - log p) as autograd has it, (S,).

    Contexts (S, N, d) and the three tensors of a low-rank student.
    """
    weights = [weight.clone().requires_grad_() for weight in weights]
    log_q = torch.log_softmax(batched.low_rank(weights, features), -1)
    value = (log_q.exp() * (log_q - log_p)).sum(-1).mean(-1).sum()
    slopes = torch.autograd.grad(value, weights)
    broken = [(~torch.isfinite(w - 0.01 * s)).double().flatten(1) for w, s in zip(weights, slopes, strict=True)]
    return torch.cat(broken, 1).mean(1)
