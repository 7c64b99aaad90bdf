"""Sums of losses, hard labels, and the classic hard-and-soft mixture."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdtheory.divergences import checks, logspace
from kdtheory.divergences.protocol import Loss, row_blocks


class Part(NamedTuple):
    """One summand: weight · loss, at its own temperature (on top of the one given to `loss`)."""

    weight: float
    loss: Loss
    temperature: float = 1.0


class Combination(Loss):
    """A weighted sum of losses. Made by `+` and `*`, or by `classic`."""

    name = "sum"

    def __init__(self, parts: tuple[Part, ...], labels: Tensor | None = None) -> None:
        for part in parts:
            if not math.isfinite(part.weight):
                raise ValueError(f"weight of {part.loss} is {part.weight}: give a finite number")
        self.parts = tuple(part for part in parts if part.weight != 0)  # 0 · inf must not poison the sum
        self.labels = labels
        self.parameters = {}
        self.surrogate_gradient = any(part.loss.surrogate_gradient for part in self.parts)
        self.whole_batch = any(part.loss.whole_batch for part in self.parts)

    @classmethod
    def of(cls, *weighted: tuple[float, Loss]) -> Combination:
        """Flatten nested sums, so that (a + b) + 0.5 * c is one list of parts."""
        flat: list[Part] = []
        for weight, loss in weighted:
            nested = loss.parts if isinstance(loss, Combination) else (Part(1.0, loss),)
            flat += [part._replace(weight=weight * part.weight) for part in nested]
        held = [loss.labels for _, loss in weighted if isinstance(loss, Combination) and loss.labels is not None]
        if any(labels is not held[0] for labels in held):
            raise ValueError("these losses hold different labels: build them without, and give labels to loss(...)")
        return Combination(tuple(flat), held[0] if held else None)

    def loss(self, *, labels: Tensor | None = None, **arguments: Any) -> Tensor:
        """As `Loss.loss`; labels given here replace those that `classic` was built with."""
        return super().loss(labels=self.labels if labels is None else labels, **arguments)

    def per_position(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        total = log_q.new_zeros(log_q.shape[:-1])
        for part in self.parts:
            scaled_p, scaled_q = _at_temperature(log_p, log_q, part.temperature)
            scale = part.weight * part.temperature**part.loss.temperature_power
            total = total + scale * part.loss.per_position(scaled_p, scaled_q)
        return total

    def value_and_gradient(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        total, gradient = log_q.new_zeros(log_q.shape[:-1]), torch.zeros_like(log_q)
        for part in self.parts:
            scaled_p, scaled_q = _at_temperature(log_p, log_q, part.temperature)
            value, slope = part.loss.value_and_gradient(scaled_p, scaled_q)
            scale = part.weight * part.temperature**part.loss.temperature_power
            total, gradient = total + scale * value, gradient + scale / part.temperature * slope
        return total, gradient

    def positions(
        self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor | None, temperature: float
    ) -> Tensor:
        """Each part at its own temperature; hard-label parts always at 1, where the labels live."""
        total = student_logits.new_zeros(student_logits.shape[:-1])
        for part in self.parts:
            at = temperature * part.temperature
            total = total + part.weight * part.loss.positions(student_logits, teacher_logits, labels, at)
        return total

    def positions_and_gradient(
        self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor | None, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """As `Loss.positions_and_gradient`; the last part may have the logits for itself."""
        total, gradient = student_logits.new_zeros(len(student_logits)), None
        for left, part in zip(reversed(range(len(self.parts))), self.parts, strict=True):
            own, at = student_logits.clone() if left else student_logits, temperature * part.temperature
            value, slopes = part.loss.positions_and_gradient(own, teacher_logits, labels, at)
            total = total + part.weight * value
            slopes = slopes.mul_(part.weight)
            gradient = slopes if gradient is None else gradient.add_(slopes)
        return total, student_logits.zero_() if gradient is None else gradient

    def culprit(self, log_p: Tensor, log_q: Tensor) -> int | None:
        found = (part.loss.culprit(*_at_temperature(log_p, log_q, part.temperature)) for part in self.parts)
        return next((token for token in found if token is not None), None)

    def __str__(self) -> str:
        return " + ".join(_described(part) for part in self.parts) or "0"


def _described(part: Part) -> str:
    text = str(part.loss) if part.temperature == 1 else f"{part.loss}@T={part.temperature:g}"
    return text if part.weight == 1 else f"{part.weight:g} * {text}"


def _at_temperature(log_p: Tensor, log_q: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    if temperature == 1:
        return log_p, log_q
    return torch.log_softmax(log_p / temperature, -1), torch.log_softmax(log_q / temperature, -1)


class CrossEntropy(Loss):
    """-Σ p log q: forward KL plus the teacher's entropy (`hinton2015distilling`, Section 2).

    `loss(labels=...)` is the hard-label loss -log q at the label; without labels the teacher's distribution is used.
    """

    name = "cross_entropy"

    def per_position(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        impossible = torch.isneginf(log_q) & ~torch.isneginf(log_p)  # infinite, however far p has underflowed
        return (-logspace.times(log_p.exp(), log_q)).masked_fill(impossible, math.inf).sum(-1)

    def value_and_gradient(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        pair = logspace.LogPair(log_p, log_q)
        return self.per_position(log_p, log_q), logspace.power_gradient(pair, kappa=1, scale=1.0)

    def culprit(self, log_p: Tensor, log_q: Tensor) -> int | None:
        lost = torch.isneginf(log_q) & ~torch.isneginf(log_p)
        return int(lost.nonzero()[0]) if lost.any() else None

    def positions(
        self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor | None, temperature: float
    ) -> Tensor:
        """Labels when there are any (at temperature 1: a label has none), else the teacher's distribution."""
        if labels is None:
            return super().positions(student_logits, teacher_logits, labels, temperature)
        checks.labels_within(labels, student_logits.shape[-1])
        dtype = torch.promote_types(student_logits.dtype, torch.float32)
        return torch.nn.functional.cross_entropy(student_logits.to(dtype), labels.long(), reduction="none")

    def positions_and_gradient(
        self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor | None, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """As `Loss.positions_and_gradient`; with labels q - 1 at the label and q elsewhere, in place of the logits."""
        if labels is None:
            return super().positions_and_gradient(student_logits, teacher_logits, labels, temperature)
        checks.labels_within(labels, student_logits.shape[-1])
        gradient, target = student_logits.detach(), labels.long().unsqueeze(-1)
        dtype = torch.promote_types(gradient.dtype, torch.float32)
        value = torch.empty(len(gradient), dtype=dtype, device=gradient.device)
        for at in row_blocks(gradient):
            log_q = torch.log_softmax(gradient[at].to(dtype), -1)
            chosen = log_q.gather(-1, target[at])
            value[at] = -chosen.squeeze(-1)
            gradient[at] = log_q.exp_().scatter_(-1, target[at], chosen.expm1())
        return value, gradient


class HardLabels(CrossEntropy):
    """The hard half of `classic`: it never falls back to the teacher's distribution."""

    def positions(
        self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor | None, temperature: float
    ) -> Tensor:
        """As `CrossEntropy.positions`, with labels required."""
        return super().positions(student_logits, teacher_logits, self._required(labels), temperature)

    def positions_and_gradient(
        self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor | None, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """As `CrossEntropy.positions_and_gradient`, with labels required."""
        return super().positions_and_gradient(student_logits, teacher_logits, self._required(labels), temperature)

    def _required(self, labels: Tensor | None) -> Tensor:
        if labels is None:
            raise ValueError("classic: labels is missing; give it to kd.classic(...) or to loss(...)")
        return labels


class Classic(Combination):
    """a · T² · soft + (1 - a) · hard, as one loss; see `classic`."""

    name = "classic"

    def __init__(self, soft: Loss, labels: Tensor | None, a: float, temperature: float) -> None:
        super().__init__((Part(a, soft, temperature), Part(1 - a, HardLabels())), labels)


def classic(soft: Loss, *, labels: Tensor | None = None, a: float = 0.5, temperature: float = 1.0) -> Loss:
    """Classic distillation a · T² · soft + (1 - a) · hard (`hinton2015distilling`, Section 2).

    Parameters
    ----------
    soft : Loss
        Divergence between teacher and student at temperature T; its own power of T is applied (T² for KL, T for TV).
    labels : Tensor of int64, shape (...), optional
        Tokens of the text; may be given to `.loss(labels=...)` instead.
    a : float in [0, 1]
        Weight of the soft part; 0 is hard labels alone.
    temperature : float > 0
        Temperature of the soft part. The hard part stays at 1.

    Returns
    -------
    Loss
        Use ``.loss(teacher_logits=, student_logits=, mask=)``. Its float64 `value` and `logit_gradient` take the
        teacher's distribution in place of the labels.
    """
    if not (isinstance(a, (int, float)) and 0 <= a <= 1):
        raise ValueError(f"a = {a!r}: the weight of the soft part lies in [0, 1]")
    checks.check_temperature(temperature)
    if not isinstance(soft, Loss):
        raise ValueError(f'soft: expected a loss such as kdtheory.divergence("fkl"), got {type(soft).__name__}')
    return Classic(soft, labels, a, temperature)
