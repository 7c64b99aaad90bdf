"""The protocol every loss obeys: a value, a logit gradient of that same value, and a torch loss made of the two.

A loss is written once, on log-probabilities, as a pair (value, gradient in the student's logits). `Loss.loss` puts
that pair into one autograd node, so that backward is the closed form and not a chain of rounded (or infinite)
intermediate derivatives.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kdtheory.divergences import checks


def _rows(x: Tensor, mask: Tensor | None, trailing: int) -> Tensor:
    """Counted positions as rows: (..., V) -> (N, V) for trailing = 1, (...) -> (N,) for trailing = 0."""
    return x.reshape(-1, *x.shape[x.ndim - trailing :]) if mask is None else x[mask]


_CPU_BLOCK, _GPU_BLOCK = 1 << 17, 1 << 26  # elements a block: half an L2 cache in float32; a tenth of a GB


def row_blocks(logits: Tensor) -> list[slice]:
    """Rows of (N, V) in blocks whose temporaries stay in cache."""
    rows, tokens = logits.shape
    block = max(1, (_CPU_BLOCK if logits.device.type == "cpu" else _GPU_BLOCK) // tokens)
    return [slice(start, start + block) for start in range(0, rows, block)]


def in_blocks(
    loss: Loss, student_logits: Tensor, teacher_logits: Tensor, temperature: float, gradient: Tensor | None
) -> Tensor:
    """Value of each row (N, V) -> (N,); writes the logit gradients into `gradient`, which may be `student_logits`.

    Rows go through in blocks: temporaries stay in cache, and memory holds no further (N, V) buffer.
    """
    rows = len(student_logits)
    dtype = torch.promote_types(student_logits.dtype, torch.float32)
    value = torch.empty(rows, dtype=dtype, device=student_logits.device)
    scale = temperature**loss.temperature_power
    for at in [slice(0, rows)] if loss.whole_batch else row_blocks(student_logits):
        log_p, log_q = (_log_softmax(x[at].to(dtype), temperature) for x in (teacher_logits, student_logits))
        if gradient is None:
            value[at] = scale * loss.per_position(log_p, log_q)
        else:
            block_value, block_gradient = loss.value_and_gradient(log_p, log_q)
            value[at] = scale * block_value
            gradient[at] = block_gradient if scale == temperature else (scale / temperature) * block_gradient
        unusable = torch.isnan(log_p[:, 0]) | torch.isnan(log_q[:, 0])  # a NaN or +inf logit poisons its row
        value[at].masked_fill_(unusable, math.nan)
    return value


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    return torch.log_softmax(logits if temperature == 1 else logits / temperature, dim=-1)


class _Positions(torch.autograd.Function):
    """One value per row; backward multiplies the gradient that forward computed: one extra (N, V) buffer."""

    @staticmethod
    def forward(ctx: Any, student_logits: Tensor, teacher_logits: Tensor, loss: Loss, temperature: float) -> Tensor:
        # bf16 keeps float32's range; fp16 does not, and a loss scale reaches the gradient only after this buffer
        stored = torch.float32 if student_logits.dtype == torch.float16 else student_logits.dtype
        gradient = torch.empty_like(student_logits, dtype=stored) if ctx.needs_input_grad[0] else None
        value = in_blocks(loss, student_logits, teacher_logits, temperature, gradient)
        ctx.dtype = student_logits.dtype
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (stored,) = ctx.saved_tensors
        gradient = upstream.unsqueeze(-1) * stored
        unused = upstream == 0
        if unused.any():  # a row nobody asked about must not contribute 0 · inf
            gradient[unused] = 0
        return gradient.to(ctx.dtype), None, None, None


class Loss(ABC):
    """D(teacher, student), teacher first. Losses add (`fkl + w1`) and scale (`0.5 * w1`).

    Attributes
    ----------
    name : str
        Short name, as given to `kdtheory.divergence`.
    parameters : Mapping[str, Any]
        Numeric parameters of this instance, e.g. ``{"alpha": 0.1}``.
    surrogate_gradient : bool
        True where the gradient is, by definition of the published loss, not the gradient of the value.
    whole_batch : bool
        True where positions share work, as in one matrix product: they are then not split into blocks.
    temperature_power : int
        A loss at temperature T is multiplied by T to this power, so that its gradient keeps its size: 2 where the
        divergence is quadratic around p = q, 1 where it has a kink there (total variation, Wasserstein).
    """

    name: str = ""
    parameters: Mapping[str, Any] = {}
    surrogate_gradient: bool = False
    whole_batch: bool = False
    temperature_power: int = 2

    @abstractmethod
    def per_position(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """Value in nats (or units of cost) from log-probabilities (..., V), -inf allowed; returns (...)."""

    @abstractmethod
    def value_and_gradient(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        """`per_position` (...) and its derivative in the student's logits (..., V). Never NaN for valid input."""

    def culprit(self, log_p: Tensor, log_q: Tensor) -> int | None:
        """Index of the token that makes this row (V,) infinite, or None if no single token does."""
        return None

    # -- float64 evaluation ------------------------------------------------------------------------------------------
    def value(self, p: Any, q: Any) -> Any:
        """D(p, q) in float64.

        Parameters
        ----------
        p, q : array_like, shape (..., V)
            Teacher and student probabilities; zeros allowed, rows sum to 1 within 1e-6.

        Returns
        -------
        numpy.ndarray or torch.Tensor, shape (...)
            The kind of array that went in; +inf where the divergence is infinite.

        Raises
        ------
        ValueError
            If shapes differ, or an entry is negative or NaN, or a row does not sum to 1; the message names the index.
        """
        log_p, log_q, restore = checks.log_probabilities(p, q)
        return restore(self.per_position(log_p, log_q))

    def logit_gradient(self, *, teacher_logits: Any, student_logits: Any) -> Any:
        """Gradient of D in the student's logits, closed form, float64.

        Parameters
        ----------
        teacher_logits, student_logits : array_like, shape (..., V)
            Unnormalised log-probabilities; -inf marks an impossible token.

        Returns
        -------
        numpy.ndarray or torch.Tensor, shape (..., V)
            Sums to zero over tokens. Where the divergence is infinite, the one-sided limit.

        Raises
        ------
        ValueError
            If shapes differ, a logit is NaN or +inf, or a row is -inf throughout.
        """
        teacher, student, restore = checks.logits(teacher_logits, student_logits)
        log_p, log_q = torch.log_softmax(teacher, -1), torch.log_softmax(student, -1)
        return restore(self.value_and_gradient(log_p, log_q)[1])

    # -- training ----------------------------------------------------------------------------------------------------
    def loss(
        self,
        *,
        student_logits: Tensor,
        teacher_logits: Tensor | None = None,
        labels: Tensor | None = None,
        mask: Tensor | None = None,
        temperature: float = 1.0,
        reduction: str = "mean",
    ) -> Tensor:
        """Training loss, differentiable in the student's logits; the teacher is a constant.

        Parameters
        ----------
        student_logits, teacher_logits : Tensor, shape (..., V)
            Any floating type; bf16 and fp16 are computed in float32.
        labels : Tensor of int64, shape (...), optional
            Tokens of the text; only losses with a hard-label part use them.
        mask : Tensor of bool, shape (...), optional
            True = counted. Hidden positions may hold anything, NaN included.
        temperature : float
            Divides both sides' logits; the value is multiplied by T ** temperature_power.
        reduction : {"mean", "sum", "none"}
            Over counted positions. "none" returns shape (...), hidden positions 0.

        Returns
        -------
        Tensor
            Scalar, or (...) for "none". With every position hidden: 0, with zero gradient.

        Raises
        ------
        ValueError
            If an argument does not fit (shape, dtype, range).
        NonFiniteLossError
            If a reduced loss is not finite: names row, token, cause and what to do.
        """
        checks.training_arguments(student_logits, teacher_logits, labels, mask, temperature, reduction)
        student = _rows(student_logits, mask, 1)
        teacher = None if teacher_logits is None else _rows(teacher_logits.detach(), mask, 1)
        labels = None if labels is None else _rows(labels, mask, 0)
        with torch.autocast(student.device.type, enabled=False):  # it would take matrix products in bfloat16
            positions = self.positions(student, teacher, labels, temperature)
        if reduction == "none":
            if mask is None:
                return positions.reshape(student_logits.shape[:-1])
            return positions.new_zeros(mask.shape).masked_scatter(mask, positions)
        total = positions.sum()
        if reduction == "mean":
            total = total / max(positions.numel(), 1)
        if not math.isfinite(total.item()):
            shape = student_logits.shape[:-1]
            raise checks.explain(self, positions, student, teacher, labels, mask, shape, temperature)
        return total

    def positions(
        self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor | None, temperature: float
    ) -> Tensor:
        """Loss of each counted position: rows (N, V) in, (N,) out. What `loss` masks, scales and reduces."""
        teacher_logits = self._taught(teacher_logits)
        if not torch.is_grad_enabled():  # inside a Function, autograd asks for gradients all the same
            student_logits = student_logits.detach()
        return _Positions.apply(student_logits, teacher_logits, self, temperature)

    def positions_and_gradient(
        self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor | None, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """`positions` (N,), and the gradient (N, V) of their sum, which may overwrite `student_logits`: give it up."""
        if type(self).positions is Loss.positions:  # the closed form, block by block, in the place of the logits
            gradient = student_logits.detach()
            taught = self._taught(teacher_logits)
            return in_blocks(self, student_logits.detach(), taught, temperature, gradient), gradient
        with torch.enable_grad():
            logits = student_logits.detach().requires_grad_()
            positions = self.positions(logits, teacher_logits, labels, temperature)
            (gradient,) = torch.autograd.grad(positions.sum(), logits)
        return positions.detach(), gradient

    def _taught(self, teacher_logits: Tensor | None) -> Tensor:
        if teacher_logits is None:
            raise ValueError(f"{self}: teacher_logits is missing; only hard-label losses do without a teacher")
        return teacher_logits

    # -- algebra -----------------------------------------------------------------------------------------------------
    def __add__(self, other: Loss) -> Loss:
        from kdtheory.divergences.combination import Combination

        return Combination.of((1.0, self), (1.0, other)) if isinstance(other, Loss) else NotImplemented

    def __radd__(self, other: object) -> Loss:  # sum() starts at 0
        return self if other == 0 else NotImplemented

    def __mul__(self, weight: float) -> Loss:
        from kdtheory.divergences.combination import Combination

        return Combination.of((float(weight), self)) if isinstance(weight, (int, float)) else NotImplemented

    __rmul__ = __mul__

    def __str__(self) -> str:
        listed = ", ".join(f"{key}={value}" for key, value in self.parameters.items())
        return f"{self.name}({listed})" if listed else self.name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"
