"""Losses from hidden states: the product with the output embeddings, the loss and its gradients, chunk by chunk.

At 32768 tokens the logits of a batch are larger than the model. Only the logits of one chunk of positions exist at a
time; their gradient replaces them, and is multiplied out into the gradients of hidden states and embeddings at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kdtheory.divergences import checks
from kdtheory.divergences.protocol import Loss

_CPU_CHUNK, _GPU_CHUNK = 1 << 23, 1 << 27
"""Logits of a chunk: enough rows for a fast product (256 at 32768 tokens), 32 MB in float32; a quarter of a GB."""


def head_loss(
    loss: Loss,
    *,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    teacher_logits: Tensor | None = None,
    teacher: tuple[Tensor, ...] | None = None,
    labels: Tensor | None = None,
    mask: Tensor | None = None,
    temperature: float = 1.0,
    reduction: str = "mean",
    chunk: int | None = None,
) -> Tensor:
    """`loss.loss(student_logits=hidden @ weight.T + bias, …)`, without the logits of all positions at once.

    Parameters
    ----------
    loss : Loss
        Any loss of `kdtheory.divergence`, a sum of them, or `kdtheory.classic`. Where positions share work
        (``whole_batch``), all of them are one chunk.
    hidden : Tensor, shape (..., d)
        Last hidden states of the student.
    weight, bias : Tensor, shapes (V, d) and (V,)
        Output embeddings of the student, of the dtype of `hidden`. Under autocast the products take its dtype.
    teacher_logits : Tensor, shape (..., V), optional
        The teacher's logits, or log-probabilities, of any floating type.
    teacher : (hidden, weight) or (hidden, weight, bias), optional
        The teacher's own hidden states (..., d') and embeddings (V, d'), instead of its logits. A constant.
    labels, mask, temperature
        As in `Loss.loss`.
    reduction : {"mean", "sum"}
        Over counted positions.
    chunk : int, optional
        Positions of a chunk; by default about 32 MB of float32 logits on a CPU.

    Returns
    -------
    Tensor
        Scalar, float32 or float64. Gradients are computed with it, so that its backward can be taken once: they are
        handed over, not copied. Those of bfloat16 embeddings are summed in float32.

    Raises
    ------
    ValueError
        If an argument does not fit (shape, dtype, range).
    NonFiniteLossError
        As `Loss.loss`: names row, token, cause and what to do.
    """
    lead = _checked(loss, hidden, weight, bias, teacher_logits, teacher, reduction)
    like = hidden.detach().new_empty(()).expand(*lead, len(weight))  # the shape of the logits, without the logits
    labels = getattr(loss, "labels", None) if labels is None else labels
    checks.training_arguments(like, teacher_logits, labels, mask, temperature, reduction)
    if chunk is not None:
        checks.count(chunk=chunk)
    rows = hidden.reshape(-1, hidden.shape[-1]) if mask is None else hidden[mask]
    autocast = torch.get_autocast_dtype(rows.device.type) if torch.is_autocast_enabled(rows.device.type) else None
    if labels is not None:
        labels = labels.reshape(-1) if mask is None else labels[mask]
    taught = _teacher_rows(teacher_logits, teacher, mask, autocast)
    job = _Job(loss, taught, labels, temperature, _size(chunk, loss, rows, len(weight)), autocast or rows.dtype)
    if not torch.is_grad_enabled():  # inside a Function, autograd asks for gradients all the same
        rows, weight, bias = rows.detach(), weight.detach(), None if bias is None else bias.detach()
    total = _Head.apply(rows, weight, bias, job)
    if reduction == "mean":
        total = total / max(len(rows), 1)
    if not torch.isfinite(total.detach()).item():
        raise job.error(rows.detach(), weight.detach(), None if bias is None else bias.detach(), mask, lead)
    return total


def _checked(
    loss: Loss,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    teacher_logits: Tensor | None,
    teacher: tuple[Tensor, ...] | None,
    reduction: str,
) -> tuple[int, ...]:
    """Shapes and dtypes of the products; returns the leading shape."""
    if not isinstance(loss, Loss):
        raise ValueError(f'loss: expected a loss such as kdtheory.divergence("fkl"), got {type(loss).__name__}')
    if reduction not in ("mean", "sum"):
        raise ValueError(f'reduction = {reduction!r}: one of "mean", "sum"; single positions need Loss.loss')
    _check_product(hidden, weight, bias, ("hidden", "weight", "bias"))
    lead = tuple(hidden.shape[:-1])
    if teacher is None:
        return lead
    if teacher_logits is not None:
        raise ValueError("teacher_logits and teacher are both given: give the teacher's logits or its hidden states")
    if not (isinstance(teacher, tuple) and len(teacher) in (2, 3)):
        raise ValueError("teacher: expected (hidden, weight) or (hidden, weight, bias)")
    _check_product(
        teacher[0], teacher[1], teacher[2] if len(teacher) == 3 else None, ("teacher[0]", "teacher[1]", "teacher[2]")
    )
    if tuple(teacher[0].shape[:-1]) != lead or len(teacher[1]) != len(weight):
        raise ValueError(
            f"teacher makes logits {(*teacher[0].shape[:-1], len(teacher[1]))}, the student {(*lead, len(weight))}: "
            "they must agree; if one vocabulary is padded, cut both to the tokenizer's size"
        )
    return lead


def _check_product(hidden: Tensor, weight: Tensor, bias: Tensor | None, names: tuple[str, str, str]) -> None:
    for name, x, shape in ((names[0], hidden, "(..., d)"), (names[1], weight, "(V, d)")):
        if not (isinstance(x, Tensor) and x.is_floating_point() and x.ndim >= 1 and x.shape[-1]):
            raise ValueError(f"{name}: expected a floating-point tensor {shape}, d >= 1")
    if weight.ndim != 2 or not len(weight) or weight.shape[1] != hidden.shape[-1]:
        raise ValueError(
            f"{names[1]} has shape {tuple(weight.shape)} and {names[0]} {tuple(hidden.shape)}: give (V, d) and (..., d)"
        )
    if bias is not None and not (isinstance(bias, Tensor) and tuple(bias.shape) == (len(weight),)):
        raise ValueError(f"{names[2]}: expected a tensor of shape {(len(weight),)}")
    mixed = len({x.dtype for x in (hidden, weight, bias) if x is not None}) > 1
    if mixed and not torch.is_autocast_enabled(hidden.device.type):
        raise ValueError(
            f"{names[0]} is {hidden.dtype} and {names[1]} {weight.dtype}: convert one, or work under torch.autocast"
        )


def _size(chunk: int | None, loss: Loss, rows: Tensor, tokens: int) -> int:
    """Positions of a chunk, at least 1."""
    if loss.whole_batch:
        return max(len(rows), 1)
    return chunk or max(1, (_CPU_CHUNK if rows.device.type == "cpu" else _GPU_CHUNK) // tokens)


Rows = Callable[[slice], Tensor]


def _teacher_rows(
    logits: Tensor | None, teacher: tuple[Tensor, ...] | None, mask: Tensor | None, autocast: torch.dtype | None
) -> Rows | None:
    """Logits of a slice of the counted positions; only the slice is copied or multiplied out."""
    if logits is not None:
        return _counted(logits.detach(), mask)
    if teacher is None:
        return None
    hidden, weight, *bias = (x.detach() if autocast is None else x.detach().to(autocast) for x in teacher)
    states = _counted(hidden, mask)
    return lambda at: torch.nn.functional.linear(states(at), weight, *bias)


def _counted(x: Tensor, mask: Tensor | None) -> Rows:
    if x.ndim == 1:
        x, mask = x.unsqueeze(0), None if mask is None else mask.reshape(1)
    if mask is None and x.is_contiguous():
        flat = x.view(-1, x.shape[-1])
        return lambda at: flat[at]
    counted = torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device) if mask is None else mask
    places = counted.nonzero(as_tuple=True)
    return lambda at: x[tuple(place[at] for place in places)]


@dataclass
class _Job:
    """What a chunk needs besides the student, and the positions' values once they are computed."""

    loss: Loss
    teacher: Rows | None
    labels: Tensor | None
    temperature: float
    chunk: int
    dtype: torch.dtype  # of the products
    positions: Tensor = field(init=False)

    def chunks(self, rows: int) -> list[slice]:
        return [slice(start, min(start + self.chunk, rows)) for start in range(0, rows, self.chunk)]

    def rest(self, at: slice) -> tuple[Tensor | None, Tensor | None, float]:
        """Teacher's logits, labels and temperature."""
        teacher = None if self.teacher is None else self.teacher(at)
        return teacher, None if self.labels is None else self.labels[at], self.temperature

    def error(
        self, rows: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None, lead: tuple[int, ...]
    ) -> checks.NonFiniteLossError:
        """`checks.explain` for the first chunk with a position that is not finite."""
        bad = (~torch.isfinite(self.positions)).nonzero()
        first = int(bad[0]) // self.chunk if len(bad) else 0
        at = self.chunks(len(rows))[first]
        counted = torch.ones(lead, dtype=torch.bool) if mask is None else mask.cpu()
        here = torch.zeros(lead, dtype=torch.bool)
        here.view(-1)[counted.reshape(-1).nonzero().squeeze(-1)[at]] = True
        with torch.autocast(rows.device.type, enabled=False):
            student = torch.nn.functional.linear(
                rows[at].to(self.dtype), weight.to(self.dtype), None if bias is None else bias.to(self.dtype)
            )
            teacher, labels, temperature = self.rest(at)
        shape = torch.Size(lead)
        return checks.explain(self.loss, self.positions[at], student, teacher, labels, here, shape, temperature)


class _Head(torch.autograd.Function):
    """Sum of the loss over positions; forward computes the gradients, backward scales them and hands them over."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, job: _Job) -> Tensor:
        with torch.autocast(rows.device.type, enabled=False):
            ctx.dtypes = rows.dtype, weight.dtype, None if bias is None else bias.dtype
            ctx.gradients = _multiplied(rows, weight, bias, job, ctx.needs_input_grad[:3])
        return job.positions.sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("head_loss: backward a second time: its gradients are handed over once; compute it anew")
        gradients, ctx.gradients = ctx.gradients, None
        scaled = (None if x is None else x.mul_(upstream) for x in gradients)
        return (*(None if x is None else x.to(dtype) for x, dtype in zip(scaled, ctx.dtypes, strict=True)), None)


def _multiplied(
    rows: Tensor, weight: Tensor, bias: Tensor | None, job: _Job, needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """Fill `job.positions`; return the gradients of rows, weight and bias that are needed, at least in float32.

    Narrower ones are rounded by backward, after scaling: a factor 1/N rounded to bfloat16 would scale them all.
    """
    h, W, b = (None if x is None else x.to(job.dtype) for x in (rows, weight, bias))
    assert h is not None
    assert W is not None
    wide = torch.promote_types(job.dtype, torch.float32)
    job.positions = torch.empty(len(rows), dtype=wide, device=rows.device)
    to_rows, to_weight, to_bias = (
        torch.zeros_like(x, dtype=wide) if x is not None and need else None
        for x, need in zip((rows, weight, bias), needed, strict=True)
    )
    buffer = h.new_empty(min(job.chunk, len(rows)), len(weight))
    for at in job.chunks(len(rows)):
        logits = buffer[: at.stop - at.start]
        if b is None:
            torch.mm(h[at], W.T, out=logits)
        else:
            torch.addmm(b, h[at], W.T, out=logits)
        if job.dtype == torch.float16:  # its gradients would leave the range before a loss scale reaches them
            logits = logits.float()
        if not any(needed):
            job.positions[at] = job.loss.positions(logits, *job.rest(at))
            continue
        job.positions[at], slopes = job.loss.positions_and_gradient(logits, *job.rest(at))
        if to_rows is not None:
            to_rows[at] = slopes @ W.to(slopes.dtype)
        if to_weight is not None:
            _add_product(to_weight, slopes.T, h[at].to(slopes.dtype))
        if to_bias is not None:
            to_bias += slopes.sum(0, dtype=wide)
    return to_rows, to_weight, to_bias


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Total += left @ right, in float32 where the factors are narrower."""
    if total.dtype == right.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
