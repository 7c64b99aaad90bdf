"""Teacher-assisted distillation with the debiased Sinkhorn divergence (`zhuang2025bridging`)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdtheory.divergences.protocol import Loss
from kdtheory.transport.costs import TokenCost
from kdtheory.transport.entropic import Sinkhorn


class AssistedSinkhorn(Loss):
    """S_ε between whoever teaches and whoever learns, in a chain teacher → assistant → student.

    `zhuang2025bridging` distil a recommender into an assistant of middle size and the assistant into the student, each
    time by a Sinkhorn divergence. (Known to us from the paper's title and a public repository of that structure, where
    the divergence takes the ranking losses of a batch as one point of space.) Over tokens a stage of the chain is
    S_ε(p, q), p being the teacher of that stage: what this loss computes without `assistant_logits`. With them it mixes
    both,

        (1 - share) · S_ε(teacher, student) + share · S_ε(assistant, student),

    of which share = 1 is the second stage of the chain and share = 0 no assistance.

    Parameters
    ----------
    cost : TokenCost
        Between tokens.
    epsilon : float
        Regularisation, in units of cost.
    share : float in [0, 1]
        Of the assistant; 1, the chain, by default.
    **solver
        `tol` and `max_iter` of the Sinkhorn loss.
    """

    name = "assisted_sinkhorn"
    whole_batch = True

    def __init__(self, *, cost: TokenCost, epsilon: float, share: float = 1.0, **solver: Any) -> None:
        if not (isinstance(share, (int, float)) and 0 <= share <= 1):
            raise ValueError(f"share = {share!r}: the assistant's share lies in [0, 1]")
        self.stage = Sinkhorn(cost=cost, epsilon=epsilon, functional="divergence", **solver)
        self.share = float(share)
        self.temperature_power = self.stage.temperature_power
        self.parameters = {"cost": cost, "epsilon": epsilon, "share": self.share}

    def per_position(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        return self.stage.per_position(log_p, log_q)

    def value_and_gradient(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        return self.stage.value_and_gradient(log_p, log_q)

    def loss(self, *, assistant_logits: Tensor | None = None, **arguments: Any) -> Tensor:
        """As `Loss.loss`, with the assistant's logits (..., V) beside the teacher's; they are constants.

        A teacher whose share is 0 may be left out.
        """
        if assistant_logits is None:
            return super().loss(**arguments)
        teacher = arguments.pop("teacher_logits", None)
        parts = []
        if self.share < 1:
            parts.append((1 - self.share) * super().loss(teacher_logits=teacher, **arguments))
        if self.share > 0:
            parts.append(self.share * super().loss(teacher_logits=assistant_logits, **arguments))
        return sum(parts[1:], parts[0])
