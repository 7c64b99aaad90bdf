"""Universal logit distillation: the sorted probabilities of teacher and student, compared (`boizard2024uld`)."""

from __future__ import annotations

import torch
from torch import Tensor

from kdtheory.divergences import logspace
from kdtheory.divergences.protocol import Loss


class ULD(Loss):
    """Σ_k |p_(k) - q_(k)|, the k-th largest probability of the teacher against the k-th largest of the student.

    `boizard2024uld`; no factor ½, and the weight of the public code stands outside the loss. It forgets which token has
    which probability: 0 for (.9, .1) against (.1, .9). Vocabularies of different size are padded with zeros there; pad
    the logits with -inf here. The sort makes it non-convex in q; the gradient is that of the order of q, ties broken by
    the lower index, with sign(0) = 0: an element of Clarke's generalised gradient.
    """

    name = "uld"
    temperature_power = 1  # absolute differences: a kink where the sorted probabilities meet

    def per_position(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        return _by_size(log_p, log_q)[0].difference.abs().sum(-1)

    def value_and_gradient(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        by_size, order = _by_size(log_p, log_q)
        sign = torch.sign(by_size.difference)
        sign = sign - sign[..., :1]  # a constant cancels; without it the products of the largest token are exact zeros
        gradient = logspace.centred(by_size, sign)
        return by_size.difference.abs().sum(-1), torch.empty_like(gradient).scatter_(-1, order, gradient)


def _by_size(log_p: Tensor, log_q: Tensor) -> tuple[logspace.LogPair, Tensor]:
    """Both sides in descending order, and the tokens (..., V) in the student's order."""
    student, order = log_q.sort(dim=-1, descending=True, stable=True)
    return logspace.LogPair(log_p.sort(dim=-1, descending=True).values, student), order
