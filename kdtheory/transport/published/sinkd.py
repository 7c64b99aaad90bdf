"""SinKD: Sinkhorn normalisation between the samples of a batch (`cui2024sinkd`), not between tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from kdtheory.divergences import checks
from kdtheory.divergences.protocol import Loss


def plan(cost: Tensor, epsilon: float, iterations: int) -> Tensor:
    """exp(-C/ε) after `iterations` rounds of normalisation, shape (b, b), rows = teacher's samples.

    A round divides each column (student's sample) by its sum, then each row by its. There is no stopping rule: rows sum
    to 1, columns only nearly. Computed with logarithms, so that a small ε does not turn a row of the kernel into zeros.
    """
    log_plan = -cost / epsilon
    for _ in range(iterations):
        log_plan = log_plan - log_plan.logsumexp(0, keepdim=True)
        log_plan = log_plan - log_plan.logsumexp(1, keepdim=True)
    return log_plan.exp()


class SinKD(Loss):
    """Σ_ij Γ_ij ‖p_i - q_j‖₁ over the b samples (here: counted positions) of a batch.

    Γ is the kernel exp(-C/ε), C_ij = ‖p_i - q_j‖₁, after a fixed number of row and column normalisations: the loss by
    batches of `cui2024sinkd`, as its public code has it with T = 2, ε = 0.1 and 20 rounds (the weight before it is not
    part of the loss here). The total mass of Γ is b, not 1.

    This is a loss of the positions together: position i is given the share Σ_j Γ_ij C_ij, at most 2, so that
    ``reduction="sum"`` is the published number and ``"mean"`` that number over b. It depends on which positions are in
    the batch; `value` and `logit_gradient` take all rows they are given as one batch, and the gradient is that of the
    sum. With one row it is 2 · TV of p and q at that temperature.

    Parameters
    ----------
    temperature : float
        The loss's own temperature, on top of the one given to `loss`; the published code fixes 2.
    epsilon : float
        Regularisation, in units of C (L1 distance of probabilities, at most 2).
    iterations : int
        Rounds of normalisation. The gradient is that of the value after exactly these rounds.
    """

    name = "sinkd"
    temperature_power = 1  # one row: 2 TV, which has a kink at p = q
    whole_batch = True

    def __init__(self, *, temperature: float = 2.0, epsilon: float = 0.1, iterations: int = 20) -> None:
        checks.positive(temperature=temperature, epsilon=epsilon)
        checks.count(iterations=iterations)
        self.parameters = {"temperature": temperature, "epsilon": epsilon, "iterations": iterations}

    def per_position(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """Shares (...) of all rows of (..., V) as one batch."""
        tokens = log_p.shape[-1]
        return self._shares(log_p.reshape(-1, tokens), log_q.reshape(-1, tokens)).reshape(log_p.shape[:-1])

    def value_and_gradient(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        """Shares (...), and the gradient (..., V) of their sum, by differentiating all normalisations."""
        with torch.enable_grad():
            logits = log_q.detach().requires_grad_()
            shares = self.per_position(log_p.detach(), logits)
            (gradient,) = torch.autograd.grad(shares.sum(), logits)
        return shares.detach(), gradient

    def positions(
        self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor | None, temperature: float
    ) -> Tensor:
        """Shares of the counted positions, which are one batch: rows (b, V) in, (b,) out."""
        if teacher_logits is None:
            raise ValueError(f"{self}: teacher_logits is missing; only hard-label losses do without a teacher")
        dtype = torch.promote_types(student_logits.dtype, torch.float32)
        teacher, student = (x.to(dtype) / temperature for x in (teacher_logits, student_logits))
        return temperature**self.temperature_power * self._shares(teacher, student)

    def _shares(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Σ_j Γ_ij C_ij for each i, from logits or log-probabilities (b, V)."""
        if len(teacher) == 0:
            return student.sum(-1)
        own = self.parameters["temperature"]
        p, q = torch.softmax(teacher / own, -1), torch.softmax(student / own, -1)
        cost = torch.cdist(p, q, p=1.0)
        return (plan(cost, self.parameters["epsilon"], self.parameters["iterations"]) * cost).sum(1)
