"""Forward KL between distributions that a kernel of the ground cost has smoothed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdtheory.divergences import checks, logspace, summands
from kdtheory.divergences.protocol import Loss
from kdtheory.transport import closed_forms
from kdtheory.transport.api import check_vocabulary
from kdtheory.transport.costs import TokenCost

_CHUNK = 1 << 22  # entries of a block of (rows, V, V)


class SimilarityKL(Loss):
    """KL(Kp ‖ Kq), where each token spreads over its neighbours: K_ij ∝ exp(-C_ij/ε), Σ_i K_ij = 1.

    With columns that sum to 1, Kp and Kq are distributions. Convex in q, linear in a hard label, at most KL(p‖q), and
    proper if K is invertible (which it is for positive distances of a tree, a line or Euclidean space). Always finite:
    every token reaches every other. For the same reason the logit gradient of a confidently wrong student vanishes.

    Parameters
    ----------
    cost : TokenCost
        A symmetric cost; its matrix is held, and a step takes products with it.
    epsilon : float > 0
        Range of the kernel, in units of the cost; 0 would be forward KL, infinity nothing at all.

    Raises
    ------
    ValueError
        If the cost is not symmetric or epsilon is not positive.
    """

    name = "similarity_kl"

    def __init__(self, *, cost: TokenCost, epsilon: float) -> None:
        checks.positive(epsilon=epsilon)
        C = symmetric_matrix(cost, self.name)
        self.cost, self.epsilon = cost, epsilon
        self.parameters = {"cost": cost, "epsilon": epsilon}
        self._log_kernel = torch.log_softmax(-C / epsilon, 0)  # columns sum to 1
        # b_i >= K_i,top / V with K >= e^{-diameter/ε} / V
        self._log_least = -float(C.max()) / epsilon - 2 * math.log(len(C))

    def per_position(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        return _kl(self._smoothed(log_p), self._smoothed(log_q))

    def value_and_gradient(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        log_a, log_b = self._smoothed(log_p), self._smoothed(log_q)
        pair = logspace.LogPair(log_p, log_q)
        surplus = closed_forms.balanced(pair.difference, pair.top.argmax(-1, keepdim=True))
        log_kernel = self._log_kernel.to(log_q)
        difference = surplus @ log_kernel.exp().T  # Kq - Kp
        if self._plain(log_q.dtype):
            return _kl(log_a, log_b), logspace.centred(pair, (difference / log_b.exp()) @ log_kernel.exp())
        shape = log_q.shape
        rows = (x.reshape(-1, shape[-1]) for x in (log_q, log_b, difference))
        moved = torch.cat([_posterior_sum(log_kernel, *chunk) for chunk in _chunks(*rows)]).reshape(shape)
        return _kl(log_a, log_b), logspace.closed(moved - pair.q * difference.sum(-1, keepdim=True), pair)

    def _smoothed(self, log_x: Tensor) -> Tensor:
        """Log Kx, (..., V) -> (..., V)."""
        check_vocabulary(self.cost, log_x.shape[-1], "student_logits")
        log_kernel = self._log_kernel.to(log_x)
        if self._plain(log_x.dtype):
            return (log_x.exp() @ log_kernel.exp().T).log()
        rows = _chunks(log_x.reshape(-1, log_x.shape[-1]))
        return torch.cat([torch.logsumexp(log_kernel + x.unsqueeze(1), -1) for (x,) in rows]).reshape(log_x.shape)

    def _plain(self, dtype: torch.dtype) -> bool:
        """Whether no entry of Kx comes near the smallest float: then products do, without logarithms."""
        return self._log_least > 0.5 * math.log(torch.finfo(dtype).tiny)


def symmetric_matrix(cost: object, name: str) -> Tensor:
    """C (V, V), float64; ValueError unless the cost is a symmetric one."""
    if not isinstance(cost, TokenCost):
        raise ValueError(f"cost: expected a kdtheory.TokenCost, got {type(cost).__name__}")
    if not cost.is_symmetric:
        raise ValueError(f"{name}: cost = {cost} is not symmetric: a similarity of tokens has no direction")
    return cost.matrix()


def _kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    return summands.forward_kl(logspace.LogPair(log_a, log_b)).sum(-1)


def _posterior_sum(log_kernel: Tensor, log_q: Tensor, log_b: Tensor, difference: Tensor) -> Tensor:
    """Σ_i (b_i - a_i) K_ij q_j / b_i with shares formed from logarithms, (R, V) -> (R, V)."""
    share = (log_kernel + log_q.unsqueeze(1) - log_b.unsqueeze(2)).exp()  # (R, i, j), in [0, 1]
    return (difference.unsqueeze(1) @ share).squeeze(1)


def _chunks(*rows: Tensor) -> list[tuple[Tensor, ...]]:
    """Blocks of rows whose (rows, V, V) temporaries fit; at least one, so that there is something to join."""
    size = max(1, _CHUNK // rows[0].shape[-1] ** 2)
    return list(zip(*(x.split(size) for x in rows), strict=True))
