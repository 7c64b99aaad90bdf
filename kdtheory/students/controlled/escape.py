"""Train many students at once until a minority of their contexts is repaired, and say when it was.

The training of `repairs`: `kdtheory.students.controlled.batched.train` runs a fixed number of steps, while an escape
takes 10 steps with one loss and 20,000 with the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdtheory.students.controlled.batched import Observe, Point

_PER_DECADE, _POINTS = 8, 20  # points of a curve: on the logarithmic scale of steps, and on the linear one
AFTERWARDS = 1.1
"""A curve goes on to this multiple of the seed's own repair time, unless the run is whole."""


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes
    ----------
    steps : int
        At most.
    rate : float
    optimizer : {"adam", "sgd"}
    curve : bool
        Record a learning curve, and go on for a while after the repair.
    whole : bool
        Make all steps.
    """

    steps: int
    rate: float
    optimizer: str
    curve: bool = False
    whole: bool = False


def escape(
    parameters: Sequence[Tensor],
    objective: Callable[[list[Tensor], int], Tensor],
    distance: Callable[[list[Tensor]], Tensor],
    *,
    threshold: float,
    plan: Plan,
    observe: Observe,
) -> tuple[list[Tensor], list[int | None], list[list[Point]]]:
    """Minimise every seed's objective from its own parameters until its distance has fallen to a threshold.

    Parameters
    ----------
    parameters : sequence of Tensor, shape (S, ...)
        First values; not changed.
    objective : callable
        (parameters, step) -> (S,), one mean loss per seed.
    distance : callable
        Parameters -> (S,): what has to fall; evaluated before every step, without gradients.
    threshold : float
    plan : Plan
    observe : callable
        (parameters, step) -> numbers (S,) of a point of the curves.

    Returns
    -------
    (list of Tensor, list of int or None, list of list of dict)
        Last parameters; for each seed the first step at which its distance was at most the threshold (None: not in
        time); for each seed its curve. Repair times and curves do not depend on the other seeds; the last parameters
        do, unless the plan is whole: the program goes on until its last seed is done.
    """
    weights = [weight.detach().clone().requires_grad_() for weight in parameters]
    moved = _optimizer(plan, weights)
    repaired: list[int | None] = [None] * len(weights[0])
    curves: list[list[Point]] = [[] for _ in repaired]
    marks = set(_marks(plan.steps)) if plan.curve else set()
    for step in range(plan.steps + 1):
        with torch.no_grad():
            _note(repaired, distance(weights).tolist(), step, threshold)
            if step in marks:
                _append(curves, repaired, step, observe(weights, step), plan)
        if step == plan.steps or (not plan.whole and all(step >= _end(time, plan) for time in repaired)):
            break
        moved.zero_grad()
        objective(weights, step).sum().backward()
        moved.step()
    return [weight.detach() for weight in weights], repaired, curves


def _optimizer(plan: Plan, weights: list[Tensor]) -> torch.optim.Optimizer:
    if plan.optimizer == "sgd":
        return torch.optim.SGD(weights, lr=plan.rate)
    return torch.optim.Adam(weights, lr=plan.rate, fused=True)


def _note(repaired: list[int | None], distances: Sequence[float], step: int, threshold: float) -> None:
    for seed, apart in enumerate(distances):
        if repaired[seed] is None and apart <= threshold:
            repaired[seed] = step


def _end(time: int | None, plan: Plan) -> float:
    """Step after which a seed has nothing more to show."""
    if time is None or plan.whole:
        return math.inf
    return AFTERWARDS * time if plan.curve else time


def _append(
    curves: list[list[Point]], repaired: list[int | None], step: int, found: dict[str, Tensor], plan: Plan
) -> None:
    rows = {name: values.double().tolist() for name, values in found.items()}
    for seed, curve in enumerate(curves):
        if step <= _end(repaired[seed], plan):
            curve.append({"step": step, **{name: values[seed] for name, values in rows.items()}})


def _marks(steps: int) -> Iterator[int]:
    """Steps of a curve: 0, a geometric sequence, and twentieths of the last one."""
    yield 0
    for power in range(int(_PER_DECADE * math.log10(steps)) + 1):
        yield round(10 ** (power / _PER_DECADE))
    if steps % _POINTS == 0:
        yield from range(0, steps + 1, steps // _POINTS)
