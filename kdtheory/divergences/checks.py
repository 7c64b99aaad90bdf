"""Arguments checked once, with messages that name the argument, the index and what to do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kdtheory.points import SUM_TOLERANCE

if TYPE_CHECKING:
    from kdtheory.divergences.protocol import Loss

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_REMEDY = (
    "Mask the position, give the smaller side a floor, "
    "or take a loss that stays finite (jsd, tvd, skl, srkl, hellinger2, w1)"
)


class NonFiniteLossError(ValueError):
    """A training loss that is not finite; the message names row, token, cause and remedy."""


def _pair(first: Any, second: Any, names: tuple[str, str]) -> tuple[Tensor, Tensor, Callable[[Tensor], Any]]:
    """Two float64 tensors of one shape, and the way back to the caller's kind of array."""
    torch_in = isinstance(first, Tensor) or isinstance(second, Tensor)
    device = next((x.device for x in (first, second) if isinstance(x, Tensor)), torch.device("cpu"))
    a, b = (
        x.detach().to(dtype=torch.float64)
        if isinstance(x, Tensor)
        else torch.tensor(np.array(x, np.float64, order="C"), device=device)
        for x in (first, second)
    )
    if a.shape != b.shape or a.ndim == 0 or a.shape[-1] == 0:
        raise ValueError(
            f"{names[0]} has shape {tuple(a.shape)} and {names[1]} {tuple(b.shape)}: give both (..., V), V >= 1"
        )
    return a, b, (lambda x: x) if torch_in else (lambda x: x.cpu().numpy())


def _place(name: str, index: tuple[int, ...]) -> str:
    """`name[i, j]`, or the bare name where there is nothing to index."""
    return f"{name}{list(index)}" if index else name


def _first(where: Tensor) -> tuple[int, ...]:
    return tuple(int(i) for i in torch.nonzero(where)[0])


def probabilities(p: Any, q: Any) -> tuple[Tensor, Tensor, Callable[[Tensor], Any]]:
    """Two float64 tensors (..., V) of probabilities, checked, and the way back to the caller's kind of array."""
    a, b, restore = _pair(p, q, ("p", "q"))
    for name, x in (("p", a), ("q", b)):
        bad = ~(x >= 0)
        if bad.any():
            index = _first(bad)
            raise ValueError(f"{name}{list(index)} = {x[index].item()}: probabilities are numbers >= 0")
        off = ((x.sum(-1) - 1).abs() <= SUM_TOLERANCE).logical_not()
        if off.any():
            row = _first(off) if off.ndim else ()
            raise ValueError(
                f"{_place(name, row)} sums to {x[row].sum().item():.9g}: normalise it to 1 (within {SUM_TOLERANCE:g})"
            )
    return a, b, restore


def log_probabilities(p: Any, q: Any) -> tuple[Tensor, Tensor, Callable[[Tensor], Any]]:
    """`probabilities`, as logarithms (-inf at zero)."""
    a, b, restore = probabilities(p, q)
    return a.log(), b.log(), restore


def logits(teacher: Any, student: Any) -> tuple[Tensor, Tensor, Callable[[Tensor], Any]]:
    """Two float64 tensors (..., V) of logits, checked, and the way back to the caller's kind of array."""
    a, b, restore = _pair(teacher, student, ("teacher_logits", "student_logits"))
    for name, x in (("teacher_logits", a), ("student_logits", b)):
        problem = bad_logit(x, name)
        if problem is not None:
            raise ValueError(problem[1])
    return a, b, restore


def bad_logit(x: Tensor, name: str) -> tuple[tuple[int, ...], str] | None:
    """(index, message) of the first NaN, +inf or all -inf row among logits, or None."""
    bad = torch.isnan(x) | torch.isposinf(x)
    if bad.any():
        index = _first(bad)
        return (
            index,
            f"{name}{list(index)} is {x[index].item()}: logits must be finite or -inf; look upstream for an overflow",
        )
    empty = torch.isneginf(x).all(-1)
    if empty.any():
        row = _first(empty) if empty.ndim else ()
        return (
            row,
            f"{_place(name, row)} is -inf for every token: leave at least one token possible, or mask the position",
        )
    return None


def training_arguments(
    student: Tensor,
    teacher: Tensor | None,
    labels: Tensor | None,
    mask: Tensor | None,
    temperature: float,
    reduction: str,
) -> None:
    """Shapes, dtypes and ranges of `Loss.loss`; what depends on the numbers is looked for only after a failure."""
    for name, x in (("student_logits", student), ("teacher_logits", teacher)):
        if x is not None and not (isinstance(x, Tensor) and x.is_floating_point() and x.ndim >= 1 and x.shape[-1]):
            raise ValueError(f"{name}: expected a floating-point tensor (..., V), V >= 1, got {_describe(x)}")
    if teacher is not None and teacher.shape != student.shape:
        raise ValueError(
            f"teacher_logits has shape {tuple(teacher.shape)}, student_logits {tuple(student.shape)}: they must agree; "
            "if one vocabulary is padded, cut both to the tokenizer's size"
        )
    lead = tuple(student.shape[:-1])
    if mask is not None and not (isinstance(mask, Tensor) and mask.dtype == torch.bool and tuple(mask.shape) == lead):
        raise ValueError(f"mask: expected a bool tensor of shape {lead} (True = counted), got {_describe(mask)}")
    if labels is not None and not (
        isinstance(labels, Tensor) and labels.dtype in _INTEGERS and tuple(labels.shape) == lead
    ):
        raise ValueError(f"labels: expected an integer tensor of shape {lead}, got {_describe(labels)}")
    check_temperature(temperature)
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'reduction = {reduction!r}: one of "mean", "sum", "none"')


def labels_within(labels: Tensor, tokens: int) -> None:
    """Raise ValueError unless the labels of counted positions, shape (N,), are tokens 0..tokens - 1."""
    outside = (labels < 0) | (labels >= tokens)
    if outside.any():
        row = int(outside.nonzero()[0])
        raise ValueError(
            f"labels: counted position {row} holds {int(labels[row])}, outside 0..{tokens - 1}: hide padding with mask="
        )


def check_temperature(temperature: float) -> None:
    """Raise ValueError unless the temperature is a positive finite number."""
    if not (isinstance(temperature, (int, float)) and math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature = {temperature!r}: give a positive number")


def is_integer(value: object) -> bool:
    """Whether this is an integer of Python or NumPy, and not a bool."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def positive(**given: object) -> None:
    """Raise ValueError, with the name, unless each is a positive finite number."""
    for name, value in given.items():
        number = is_integer(value) or isinstance(value, (float, np.floating))
        if not (number and 0 < value < math.inf):  # type: ignore[operator]
            raise ValueError(f"{name} = {value!r}: give a positive finite number")


def count(**given: object) -> None:
    """Raise ValueError, with the name, unless each is a positive integer."""
    for name, value in given.items():
        if not (is_integer(value) and value > 0):  # type: ignore[operator]
            raise ValueError(f"{name} = {value!r}: give a positive integer")


def choice(name: str, value: object, known: tuple[str, ...]) -> None:
    """Raise ValueError unless the value is one of those known."""
    if value not in known:
        raise ValueError(f"{name} = {value!r}: one of {', '.join(map(repr, known))}")


def _describe(x: Any) -> str:
    return f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__


def explain(
    loss: Loss,
    positions: Tensor,
    student: Tensor,
    teacher: Tensor | None,
    labels: Tensor | None,
    mask: Tensor | None,
    shape: torch.Size,
    temperature: float,
) -> NonFiniteLossError:
    """The error for a non-finite loss: which position of the caller's tensor, which token, why, what to do."""
    place = torch.nonzero(torch.ones(shape, dtype=torch.bool) if mask is None else mask)
    for name, x in (("student_logits", student), ("teacher_logits", teacher)):
        problem = None if x is None else bad_logit(x, name)
        if problem is not None:
            (first, *entry), message = problem
            where = [int(i) for i in place[first]] + entry
            return NonFiniteLossError(f"{loss}: {name}{where} " + message.split("] ", 1)[1])
    bad = torch.nonzero(~torch.isfinite(positions))
    if not len(bad):
        return NonFiniteLossError(
            f"{loss}: every position is finite, their sum overflows {positions.dtype}: use float32"
        )
    row = int(bad[0])
    where = [int(i) for i in place[row]]
    dtype = positions.dtype  # the one the loss overflowed in
    q = torch.log_softmax(student[row].to(dtype) / temperature, -1)
    if labels is not None and torch.isneginf(q[labels[row]]):
        return NonFiniteLossError(
            f"{loss}: position {where}, token {int(labels[row])}: the label has student logit -inf. "
            "Mask the position, or leave the label possible in the student"
        )
    if teacher is None:
        return NonFiniteLossError(f"{loss}: position {where} is {positions[row].item()}: overflow of {dtype}")
    p = torch.log_softmax(teacher[row].to(dtype) / temperature, -1)
    token = loss.culprit(p, q)
    if token is None and (torch.isneginf(p) | torch.isneginf(q)).all():
        return NonFiniteLossError(
            f"{loss}: position {where}: teacher and student share no possible token: the divergence is infinite there. "
            f"{_REMEDY}"
        )
    if token is None:
        return NonFiniteLossError(f"{loss}: position {where} is {positions[row].item()}: overflow of {dtype}")
    sides = f"teacher log-probability {p[token].item():.4g}, student log-probability {q[token].item():.4g}"
    zero = torch.isneginf(p[token]) or torch.isneginf(q[token])
    cause = "the divergence is infinite there" if zero else f"the divergence overflows {dtype} there"
    return NonFiniteLossError(f"{loss}: position {where}, token {token}: {sides}: {cause}. {_REMEDY}")
