"""WKD-L: entropic transport between class probabilities, with a cost from the similarity of classes (`lv2024wkd`)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kdtheory.divergences import checks
from kdtheory.divergences.protocol import Loss
from kdtheory.transport.arrays import real_array
from kdtheory.transport.costs import TokenCost
from kdtheory.transport.entropic import Sinkhorn


def alignment(features: Any) -> Tensor:
    """Centred kernel alignment between classes, with the linear kernel: (V, n, d) -> (V, V), in [0, 1].

    IR_ij = tr(K_i H K_j H) / √(tr(K_i H K_i H) tr(K_j H K_j H)), where K_i (n, n) holds the scalar products of the n
    examples of class i and H subtracts the mean (`kornblith2019similarity`, Section 3; `lv2024wkd`). Example 1 of one
    class is held against example 1 of the other, so the result depends on the order in which examples are listed.

    Raises
    ------
    ValueError
        If the examples of a class are all equal: their centred kernel is zero.
    """
    x = real_array(features, "features", 3)
    x = x - x.mean(1, keepdim=True)
    kernels = torch.bmm(x, x.mT).reshape(len(x), -1)
    length = kernels.norm(dim=1, keepdim=True)
    if (length == 0).any():
        raise ValueError(f"features[{int((length == 0).nonzero()[0, 0])}]: all examples agree; give different ones")
    kernels = kernels / length
    return (kernels @ kernels.T).clamp(0.0, 1.0)


def class_cost(similarity: Any, kappa: float = 1.0) -> TokenCost:
    """C_ij = 1 - exp(-κ(1 - s_ij)) for similarities s (V, V) with s_ii = 1 (`lv2024wkd`).

    `alignment(features)` is what the paper uses; cosines of the classifier's rows are the public code's alternative.
    Not a metric: for every κ there are classes that violate the triangle inequality. Its root is one.
    """
    checks.positive(kappa=kappa)
    s = real_array(similarity, "similarity", 2)
    if s.shape[0] != s.shape[1] or (s.diagonal() - 1).abs().max() > 1e-9 or (s > 1 + 1e-9).any():
        raise ValueError(f"similarity {tuple(s.shape)}: expected (V, V), at most 1, with 1 on the diagonal")
    return TokenCost.dense((-torch.expm1(-kappa * (1 - s).clamp(min=0.0))).fill_diagonal_(0.0))


class WKD(Loss):
    """weight · ⟨Γ, C⟩ of the entropic plan Γ between p and q; with labels, target and other tokens apart.

    With labels t the loss is -p_t log q_t + weight · ⟨Γ, C⟩, where Γ moves p to q given that the token is not t
    (`lv2024wkd`). Both choices are theirs and both move the minimum: the first term is smallest at q_t = 1
    whatever p_t is, and ⟨Γ, C⟩ is not smallest at q = p. The public code stops after 10 iterations (its default),
    differentiates those and adds the cross-entropy with the label; here the plan has converged, the gradient is that of
    its cost, and cross-entropy is for the caller to add. A position where teacher or student leave nothing but t has no
    second term.

    Parameters
    ----------
    cost : TokenCost
        Over the tokens, for example `class_cost(alignment(features), kappa)`.
    epsilon : float
        Regularisation, in units of cost.
    weight : float
        Of the transport term.
    **solver
        `tol` and `max_iter` of the Sinkhorn loss.
    """

    name = "wkd"
    temperature_power = 1  # its slopes do not vanish at p = q, so the gradient falls like 1/T
    whole_batch = True

    def __init__(self, *, cost: TokenCost, epsilon: float = 0.05, weight: float = 1.0, **solver: Any) -> None:
        checks.positive(weight=weight)
        self.transport = Sinkhorn(cost=cost, epsilon=epsilon, functional="sharp", **solver)
        self.weight = weight
        self.parameters = {"cost": cost, "epsilon": epsilon, "weight": weight}

    def per_position(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        return self.weight * self.transport.per_position(log_p, log_q)

    def value_and_gradient(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.transport.value_and_gradient(log_p, log_q)
        return self.weight * value, self.weight * gradient

    def positions(
        self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor | None, temperature: float
    ) -> Tensor:
        """The target term at temperature 1, as published; the transport term at the temperature asked for."""
        if labels is None or teacher_logits is None:
            return super().positions(student_logits, teacher_logits, labels, temperature)
        checks.labels_within(labels, student_logits.shape[-1])
        target = labels.long().unsqueeze(-1)
        dtype = torch.promote_types(student_logits.dtype, torch.float32)
        log_p, log_q = (torch.log_softmax(x.to(dtype), -1) for x in (teacher_logits, student_logits))
        values = _weighted_surprise(log_p.gather(-1, target).exp(), log_q.gather(-1, target)).squeeze(-1)
        teacher, student = (x.scatter(-1, target, -math.inf) for x in (teacher_logits, student_logits))
        counted = ~(torch.isneginf(teacher).all(-1) | torch.isneginf(student).all(-1))
        others = super().positions(student[counted], teacher[counted], None, temperature)
        return values.index_add(0, counted.nonzero().squeeze(-1), others.to(dtype))


def _weighted_surprise(p: Tensor, log_q: Tensor) -> Tensor:
    """-p log q, and 0 with zero gradient where p = 0."""
    empty = p == 0
    return -p * log_q.masked_fill(empty, 0.0)
