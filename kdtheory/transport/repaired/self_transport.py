"""Entropic transport of a distribution to itself, and the conjugate problem: what the geometric loss is made of.

All functions take K = exp(-C/2ε), symmetric positive definite (V, V), and rows (R, V), in float64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_TOLERANCE = 1e-13  # of a residual, relative to the largest entry of y, which is 1
_PATIENCE = 3  # exchanges of all infeasible tokens without fewer of them, before one at a time
_ROUNDS = 10_000
_HALVINGS = 200


def negative_entropy(kernel: Tensor, p: Tensor) -> Tensor:
    """Ω(p) = -max_f ⟨p, f⟩ - log Σ_ij p_i p_j K_ij e^{(f_i + f_j)/2}, (R, V) -> (R,).

    At the maximum u = e^{f/2} satisfies u_i (K(p u))_i = 1. The map u -> 1/K(pu) has there a derivative of -S in log u
    with S similar to a positive semi-definite matrix of norm 1, so averaging with the identity halves the error each
    time (`feydy2019sinkhorn`, symmetric updates). The value is stationary there: its error is the square.
    """
    held = p > 0
    log_u = -0.5 * (p @ kernel).clamp(min=torch.finfo(p.dtype).tiny).log()
    for _ in range(_HALVINGS):
        reached = ((p * log_u.exp()).masked_fill(~held, 0.0) @ kernel).clamp(min=torch.finfo(p.dtype).tiny).log()
        residual = torch.where(held, log_u + reached, 0.0)
        log_u = log_u - residual / 2
        if not bool((residual.abs() * p.sqrt() > 1e-9).any()):
            break
    pu = (p * log_u.exp()).masked_fill(~held, 0.0)
    return ((pu @ kernel) * pu).sum(-1).log() - 2 * (p * log_u).sum(-1)


def complementary(kernel: Tensor, y: Tensor, kept: dict[str, Any]) -> Tensor:
    """x >= 0 with Kx >= y and x (Kx - y) = 0, (R, V) -> (R, V), for y >= 0 with a largest entry 1.

    Block principal pivoting: guess where x > 0, solve there, exchange all tokens that come out infeasible; where that
    does not lower their number for a while, exchange the last of them alone, which ends for every positive definite K
    (`judice1994block`). The last guess for as many rows is kept: in training it is nearly right.
    """
    guess = kept.get("support")
    support = guess.clone() if guess is not None and guess.shape == y.shape else y > 0
    support &= y > 0
    x = torch.zeros_like(y)
    left = torch.arange(len(y), device=y.device)
    best = torch.full_like(left, y.shape[-1] + 1)
    patience = torch.full_like(left, _PATIENCE)
    for _ in range(_ROUNDS):
        if not len(left):
            break
        inside, target = support[left], y[left]
        trial = _solved(kernel, target, inside)
        wrong = torch.where(inside, trial < -_TOLERANCE, trial @ kernel < target - _TOLERANCE)
        x[left] = trial.clamp(min=0.0)
        count = wrong.sum(-1)
        better = count < best[left]
        best[left] = torch.minimum(best[left], count)
        patience[left] = torch.where(better, _PATIENCE, patience[left] - 1)
        last = torch.zeros_like(wrong).scatter_(-1, _last(wrong), True) & wrong
        exchanged = torch.where((patience[left] >= 0).unsqueeze(-1), wrong, last)
        support[left] = inside ^ exchanged
        left = left[count > 0]
    if len(left):
        raise RuntimeError(f"geometric: no support found for {len(left)} of {len(y)} rows: K is badly conditioned")
    kept["support"] = support
    return x


def _solved(kernel: Tensor, y: Tensor, inside: Tensor) -> Tensor:
    """K_SS⁻¹ y_S on the support, 0 elsewhere."""
    both = inside.unsqueeze(-1) & inside.unsqueeze(-2)
    system = torch.where(both, kernel, 0.0) + torch.diag_embed((~inside).to(y.dtype))
    factor = torch.linalg.cholesky(system)
    return torch.cholesky_solve(y.masked_fill(~inside, 0.0).unsqueeze(-1), factor).squeeze(-1)


def _last(wrong: Tensor) -> Tensor:
    """Index of the last True of each row, (R, V) -> (R, 1)."""
    number = torch.arange(1, wrong.shape[-1] + 1, device=wrong.device)
    return (wrong * number).argmax(-1, keepdim=True)
