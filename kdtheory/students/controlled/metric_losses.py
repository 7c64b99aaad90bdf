"""Losses of `metric` on a ground metric per seed; those without a metric are the library's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import kdtheory as kd
from kdtheory.students.controlled import batched
from kdtheory.students.controlled.metric_tasks import Ground

PLAIN = {
    "fkl": kd.divergence("fkl"),
    "rkl": kd.divergence("rkl"),
    "jsd": kd.divergence("jsd"),
    "tvd": kd.divergence("tvd"),
    "skl": kd.divergence("skl", alpha=0.1),
    "srkl": kd.divergence("srkl", alpha=0.1),
}
"""Losses without a metric."""
MATRIX = (*PLAIN, "w1", "sinkhorn", "fkl+w1")
"""Losses of the loss × metric matrix; each is also a criterion."""
LOSSES = (*MATRIX, "fkl-then-w1", "natural-w1", "natural-w1-plain", "fkl+sinkhorn")
"""``natural-w1-plain`` centres the potential by its plain mean, ``natural-w1`` (the library's) by that under q: a
constant in the logits, which no distribution sees and no rule judges."""
Objective = Callable[[Tensor], Tensor]


def objective(loss: str, settings: Any, ground: Ground, log_p: Tensor) -> Objective:
    """Student logits (S, N, V) -> the mean of the loss over each seed's contexts (S,), differentiable.

    Raises
    ------
    ValueError
        If the loss is none of `LOSSES`.
    """
    if loss in PLAIN:
        return lambda logits: batched.per_seed(PLAIN[loss], teacher_logits=log_p, student_logits=logits)
    if loss in ("fkl+w1", "fkl+sinkhorn"):
        second = loss.removeprefix("fkl+")
        weight = settings.transport_weight if second == "w1" else settings.sinkhorn_weight
        parts = [objective(name, settings, ground, log_p) for name in ("fkl", second)]
        return lambda logits: parts[0](logits) + weight * parts[1](logits)
    p = log_p.exp()
    if loss in ("w1", "fkl-then-w1"):
        return lambda logits: ground.w1(p, torch.softmax(logits, -1)).mean(-1)
    if loss in ("natural-w1", "natural-w1-plain"):
        return lambda logits: _natural(ground, p, logits, plain=loss.endswith("plain"))
    if loss == "sinkhorn":
        debiased = Sinkhorn.of(ground, settings.epsilon, settings.sweeps)
        own = debiased.itself(p)
        return lambda logits: debiased.value(p, torch.softmax(logits, -1), own).mean(-1)
    raise ValueError(f"loss {loss!r} is unknown; known: {', '.join(LOSSES)}")


def _natural(ground: Ground, p: Tensor, logits: Tensor, *, plain: bool = False) -> Tensor:
    """W1 with the gradient φ - φ̄ in the logits: the natural gradient of a softmax, without the factor q."""
    with torch.no_grad():
        q = torch.softmax(logits, -1)
        slope, value = ground.potential(p, q), ground.w1(p, q)
        slope = slope - (slope.mean(-1, keepdim=True) if plain else (q * slope).sum(-1, keepdim=True))
    surrogate = (logits * slope).sum(-1)
    return (value + surrogate - surrogate.detach()).mean(-1)


@dataclass(frozen=True)
class Sinkhorn:
    """S_ε on a metric per seed, by a fixed number of sweeps.

    Sweeps multiply scalings, not logarithms: exp(-1/ε) is far from underflow for the ε used here, and the tests hold
    value and gradient to the library's, which sweeps to a tolerance.

    Attributes
    ----------
    kernel : Tensor, shape (S, V, V)
        exp(-C/ε).
    epsilon : float
        In diameters.
    sweeps : int
    """

    kernel: Tensor
    epsilon: float
    sweeps: int

    @staticmethod
    def of(ground: Ground, epsilon: float, sweeps: int) -> Sinkhorn:
        """On this metric."""
        return Sinkhorn(torch.exp(-ground.distances / epsilon), epsilon, sweeps)

    def between(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Potentials (f, g) of OT_ε(p, q) relative to p ⊗ q, rows (S, N, V)."""
        second = torch.ones_like(q)
        for _ in range(self.sweeps):
            first = 1 / ((q * second) @ self.kernel)
            second = 1 / ((p * first) @ self.kernel)
        return self.epsilon * first.log(), self.epsilon * second.log()

    def itself(self, q: Tensor) -> Tensor:
        """The one potential of OT_ε(q, q); sweeps are averaged, which converges in a few."""
        scaling = torch.ones_like(q)
        for _ in range(self.sweeps):
            scaling = (scaling / ((q * scaling) @ self.kernel)).sqrt()
        return self.epsilon * scaling.log()

    def value(self, p: Tensor, q: Tensor, own: Tensor | None = None) -> Tensor:
        """S_ε of every row, (S, N), in diameters; its gradient in q is the potential's, as Danskin's theorem has it.

        `own` is `itself(p)`, if it is at hand.
        """
        with torch.no_grad():
            f, g = self.between(p, q)
            f, g = f - (self.itself(p) if own is None else own), g - self.itself(q)
        return (p * f).sum(-1) + (q * g).sum(-1)
