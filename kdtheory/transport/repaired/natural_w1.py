"""The natural gradient of W1: its potential, without the factor q that makes W1 stall."""

from __future__ import annotations

import torch
from torch import Tensor

from kdtheory.divergences import logspace
from kdtheory.transport.losses import W1


class NaturalW1(W1):
    """W1 as the value; the natural gradient of W1, φ_i - Σ_j q_j φ_j, in place of its gradient in the logits.

    φ is the Kantorovich potential, a slope of W1 in q. W1's logit gradient is F φ with the Fisher matrix
    F = diag(q) - qqᵀ; a step along φ itself is natural gradient descent (`amari2000methods`), and, in the logits of one
    context, mirror descent on the simplex with the entropy: q ← q e^{-ηφ}, normalised. It does not shrink with q, nor
    near the teacher: φ is constant between kinks, so steps of a fixed rate end in a cycle about p. As a loss it is the
    surrogate Σ_i z_i (φ_i - φ̄) with a detached factor. Entries sum to zero weighted with q, not plain; at an impossible
    token (-inf) the entry is 0.

    Parameters
    ----------
    cost : TokenCost
        As for `W1`.
    """

    name = "natural_w1"
    surrogate_gradient = True

    def value_and_gradient(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        pair = logspace.LogPair(log_p, log_q)
        value, potential = self._value_and_potential(pair)
        mean = logspace.times(pair.q, potential).sum(-1, keepdim=True)
        return value, (potential - mean).masked_fill(torch.isneginf(log_q), 0.0)
