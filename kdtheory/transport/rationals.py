"""Laws and costs as exact rationals over one common denominator; a float is the rational number that it is."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np
from torch import Tensor

from kdtheory.points import SUM_TOLERANCE
from kdtheory.transport.costs import TokenCost

_MANTISSA = 53  # bits of a float64


def law(x: Any, name: str) -> tuple[list[Fraction], Fraction]:
    """A distribution as rationals that sum to exactly 1, and the sum that it came with.

    Floats are divided by their exact sum, which must be 1 within 1e-6; a law without floats must sum to 1.
    """
    entries = _own(x)
    if entries.ndim != 1 or entries.size == 0:
        raise ValueError(f"{name} has shape {entries.shape}: one law (V,) at a time, V >= 1")
    numbers = [_rational(value, f"{name}[{i}]") for i, value in enumerate(entries.tolist())]
    for i, number in enumerate(numbers):
        if number < 0:
            raise ValueError(f"{name}[{i}] = {float(number)!r}: probabilities are >= 0")
    total = sum(numbers, Fraction(0))
    rounded = any(isinstance(value, (float, np.floating)) for value in entries.tolist())
    if abs(total - 1) > (SUM_TOLERANCE if rounded else 0):
        raise ValueError(f"{name} sums to {float(total)!r}: normalise it to 1 (exactly, unless it holds floats)")
    return [number / total for number in numbers], total


def matrix(C: Any, rows: int, columns: int) -> tuple[list[list[int]], int]:
    """Integers N and a denominator d >= 1 with C = N / d, shape (rows, columns)."""
    entries = C.matrix().numpy() if isinstance(C, TokenCost) else _own(C)
    if entries.shape != (rows, columns):
        raise ValueError(f"C has shape {entries.shape}: expected ({rows}, {columns}), rows = teacher")
    if entries.dtype.kind == "f":
        return _dyadic(entries.astype(np.float64))
    if entries.dtype.kind in "iu":
        return entries.tolist(), 1
    numbers = [
        [_rational(value, f"C[{i}, {j}]") for j, value in enumerate(row)] for i, row in enumerate(entries.tolist())
    ]
    return common(numbers)


def common(numbers: Sequence[Sequence[Fraction]]) -> tuple[list[list[int]], int]:
    """Integers over the least common denominator of all numbers, and that denominator."""
    d = lcm(*{number.denominator for row in numbers for number in row})
    return [[number.numerator * (d // number.denominator) for number in row] for row in numbers], d


def _own(x: Any) -> np.ndarray:
    """An array of float64, integers or objects; nothing exact is turned into floats."""
    if isinstance(x, Tensor):
        x = x.detach().cpu().double() if x.is_floating_point() else x.detach().cpu()
    given = np.asarray(x, dtype=None if isinstance(x, (np.ndarray, Tensor)) else object)
    if given.dtype.kind not in "fiuO" or given.dtype.itemsize > 8:
        raise ValueError(f"dtype {given.dtype}: give float64, integers, fractions.Fraction or strings like '1/3'")
    return given


def _rational(value: Any, place: str) -> Fraction:
    try:
        return Fraction(value.item() if isinstance(value, (np.generic, Tensor)) else value)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        raise ValueError(f"{place} = {value!r}: give a finite float, an integer, a Fraction or a string") from None


def _dyadic(C: np.ndarray) -> tuple[list[list[int]], int]:
    """`matrix` for floats, without a Fraction per entry: mantissas shifted to one exponent."""
    bad = np.argwhere(~np.isfinite(C))
    if len(bad):
        i, j = bad[0]
        raise ValueError(f"C[{i}, {j}] = {C[i, j]}: give finite numbers")
    fraction, exponent = np.frexp(C)
    mantissa = np.ldexp(fraction, _MANTISSA).astype(np.int64)
    lowest = int(exponent[mantissa != 0].min()) if mantissa.any() else _MANTISSA
    shift = np.where(mantissa != 0, exponent - lowest, 0)
    numbers = [
        [m << s for m, s in zip(row, by, strict=True)]
        for row, by in zip(mantissa.tolist(), shift.tolist(), strict=True)
    ]
    below = _MANTISSA - lowest  # C = numbers · 2^-below
    if below >= 0:
        return numbers, 1 << below
    return [[number << -below for number in row] for row in numbers], 1
