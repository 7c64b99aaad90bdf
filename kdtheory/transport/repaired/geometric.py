"""The geometric loss: logistic regression whose prediction knows the distances of tokens (`mensch2019geometric`)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kdtheory.divergences import checks, logspace
from kdtheory.divergences.protocol import Loss
from kdtheory.transport.api import check_vocabulary
from kdtheory.transport.costs import TokenCost
from kdtheory.transport.repaired import self_transport
from kdtheory.transport.repaired.similarity_kl import symmetric_matrix


class Geometric(Loss):
    """Ω(p) + Ω*(f) - ⟨p, f⟩ of the student's logits f: convex in f, smallest where the *geometric* softmax of f is p.

    Ω(p) = -½ OT(p, p), entropic transport of p to itself at cost C/ε and regularisation 2, plays the part of the
    negative entropy; its conjugate and the prediction are (`mensch2019geometric`, Section 3)

        Ω*(f) = -log min_{α in the simplex} Σ_ij α_i α_j exp(-(f_i + f_j + C_ij/ε)/2),    ∇Ω*(f) = α.

    So the student's distribution is α = `prediction`, not softmax(f): α can hold exact zeros, and the loss is not
    smallest at softmax(f) = p. Where the library's protocol speaks of a student q, here q names the logits log q. The
    logit gradient is α - p. C/ε = ∞ gives softmax and forward KL, C = 0 the largest logit alone. Infinite where the
    student's logit is -inf and the teacher's is not.

    Parameters
    ----------
    cost : TokenCost
        Symmetric, with exp(-C/2ε) positive definite: distances of a tree, a line or Euclidean space (none of them 0
        between two tokens), their squares in Euclidean space.
    epsilon : float > 0
        In units of the cost: tokens much nearer than this are alike.

    Raises
    ------
    ValueError
        If exp(-C/2ε) is not positive definite: Ω is not convex then; or the cost is not symmetric.
    """

    name = "geometric"
    temperature_power = 1  # at high temperature α tends to a law of its own while p becomes uniform
    whole_batch = True  # systems of all rows are solved together, and the teacher's part is kept from step to step

    def __init__(self, *, cost: TokenCost, epsilon: float = 1.0) -> None:
        checks.positive(epsilon=epsilon)
        kernel = (symmetric_matrix(cost, self.name) / (-2 * epsilon)).exp()
        if torch.linalg.cholesky_ex(kernel).info or float(torch.linalg.eigvalsh(kernel)[0]) < 1e-12 * len(kernel):
            raise ValueError(
                f"{self.name}: exp(-C/2ε) of cost = {cost} at epsilon = {epsilon} is not positive definite in float64: "
                "take distances of a tree, a line or an embedding, none 0 between two tokens, or a smaller epsilon"
            )
        self.cost, self.epsilon = cost, epsilon
        self.parameters = {"cost": cost, "epsilon": epsilon}
        self._kernel = kernel
        self._kept: dict[str, Any] = {}

    def prediction(self, student_logits: Any) -> Any:
        """The student's distribution α, the geometric softmax of its logits, float64.

        Parameters
        ----------
        student_logits : array_like, shape (..., V)
            Finite, or -inf for an impossible token.

        Returns
        -------
        numpy.ndarray or torch.Tensor, shape (..., V)
            Non-negative, sums to 1.
        """
        logits, _, restore = checks.logits(student_logits, student_logits)
        return restore(self._predicted(logits)[1])

    def per_position(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        return self._value(log_p, log_q, self._predicted(log_q)[0])

    def value_and_gradient(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        log_partition, alpha = self._predicted(log_q)
        pair = logspace.LogPair(log_p, log_q)
        return self._value(log_p, log_q, log_partition), logspace.closed(alpha.to(log_q.dtype) - pair.p, pair)

    def culprit(self, log_p: Tensor, log_q: Tensor) -> int | None:
        lost = torch.isneginf(log_q) & ~torch.isneginf(log_p)
        return int(lost.nonzero()[0]) if lost.any() else None

    def _predicted(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Ω*(f) (...) and α (..., V), in float64."""
        check_vocabulary(self.cost, logits.shape[-1], "student_logits")
        f = logits.double().reshape(-1, logits.shape[-1])
        f = f.nan_to_num(0.0, posinf=0.0, neginf=-math.inf)  # a row of NaN is poisoned, and named, by the protocol
        top = f.amax(-1, keepdim=True) if len(f) else f[:, :1]
        f = f - top.masked_fill(torch.isneginf(top), 0.0)
        # x = α e^{-f/2} up to a factor solves Kx >= y = e^{f/2}, x >= 0, with equality where x > 0
        y = (f / 2).exp()
        x = self_transport.complementary(self._on(f), y, self._kept)
        alpha = x * y
        total = alpha.sum(-1, keepdim=True)
        log_partition = (total.log() + top).squeeze(-1)
        return log_partition.reshape(logits.shape[:-1]), (alpha / total).reshape(logits.shape)

    def _value(self, log_p: Tensor, log_q: Tensor, log_partition: Tensor) -> Tensor:
        p = log_p.double().exp()
        lost = torch.isneginf(log_q) & ~torch.isneginf(log_p)  # infinite, however far p has underflowed
        linear = logspace.times(p, log_q.double()).masked_fill(lost, -math.inf).sum(-1)
        value = (self._teachers_part(p) + log_partition - linear).clamp(min=0.0)
        return value.to(log_q.dtype)

    def _teachers_part(self, p: Tensor) -> Tensor:
        """Ω(p), kept as long as the teacher's rows are the same."""
        known = self._kept.get("teacher")
        if known is not None and known[0].shape == p.shape and torch.equal(known[0], p):
            return known[1]
        found = self_transport.negative_entropy(self._on(p), p.reshape(-1, p.shape[-1])).reshape(p.shape[:-1])
        self._kept["teacher"] = p, found
        return found

    def _on(self, x: Tensor) -> Tensor:
        return self._kernel.to(x.device)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}
