"""The axioms of a (pseudo-)metric on a cost matrix, and the error that names the tokens which break one."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 1 << 20  # pairs of tokens compared at a time: an early violation is found early


class NotAMetricError(ValueError):
    """A cost that is not a metric where one is needed. `tokens` holds the offending token, pair or triple."""

    def __init__(self, message: str, tokens: tuple[int, ...]) -> None:
        super().__init__(message)
        self.tokens = tokens


def check(C: Tensor, slack: float) -> None:
    """Raise `NotAMetricError` unless C (V, V) is zero on the diagonal, symmetric and keeps the triangle inequality.

    An axiom is broken where it is missed by more than `slack`, in units of cost. The work is V³ comparisons.
    """
    _check_diagonal(C, slack)
    _check_symmetry(C, slack)
    _check_triangles(C, slack)


def asymmetric(C: Tensor, slack: float) -> tuple[int, int] | None:
    """First pair with |C[i, j] - C[j, i]| > slack, or None."""
    skew = (C - C.T).abs() > slack
    if not skew.any():
        return None
    i, j = (int(t) for t in skew.nonzero()[0])
    return i, j


def _check_diagonal(C: Tensor, slack: float) -> None:
    lifted = C.diagonal() > slack
    if lifted.any():
        i = int(lifted.nonzero()[0])
        raise NotAMetricError(f"cost[{i}, {i}] = {C[i, i].item():g}: a metric is 0 on the diagonal", (i,))


def _check_symmetry(C: Tensor, slack: float) -> None:
    pair = asymmetric(C, slack)
    if pair is not None:
        i, j = pair
        values = f"cost[{i}, {j}] = {C[i, j].item():g}, cost[{j}, {i}] = {C[j, i].item():g}"
        raise NotAMetricError(f"{values}: a metric is symmetric", pair)


def _check_triangles(C: Tensor, slack: float) -> None:
    """For symmetric C: C[i, k] <= C[i, j] + C[j, k] for all triples says max_k |C[i, k] - C[j, k]| <= C[i, j].

    The left side is the Chebyshev distance of two rows, which `torch.cdist` computes without a V³ array.
    """
    step = max(1, _CHUNK // len(C))
    for start in range(0, len(C), step):
        rows = C[start : start + step]
        over = torch.cdist(rows, C[: start + len(rows)], p=float("inf")) - rows[:, : start + len(rows)] > slack
        if over.any():
            i, j = (int(t) for t in over.nonzero()[0])
            raise _broken_triangle(C, i + start, j)


def _broken_triangle(C: Tensor, i: int, j: int) -> NotAMetricError:
    """The error for a pair that some third token tells further apart than C[i, j]."""
    k = int((C[i] - C[j]).abs().argmax())
    if C[i, k] < C[j, k]:
        i, j = j, i
    return NotAMetricError(
        f"cost[{i}, {k}] = {C[i, k].item():g} > cost[{i}, {j}] + cost[{j}, {k}] = "
        f"{(C[i, j] + C[j, k]).item():g}: the triple ({i}, {j}, {k}) violates the triangle inequality",
        (i, j, k),
    )
