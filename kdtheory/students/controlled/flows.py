"""Gradient flows of many tables of logits at once: two integrators, and steps of gradient descent and Adam.

`kdtheory.dynamics.flow` follows one student with an explicit method. Here a batch of students, each with its own step
size, is followed until an event, through the two regimes an explicit method cannot cross: a student that waits, for a
time e^Δ, beside tokens whose probability is already balanced (stiff), and one that slides along a kink of total
variation or W1. `implicit` does both, for tables of up to a few hundred tokens; `explicit` is for many tokens and no
stiffness, the cold start. Tests hold both to `dynamics.flow` and to the closed forms of chapter 03.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from kdtheory.students.controlled.tabular_fields import Field, SinkhornField

Progress = Callable[[Tensor, Tensor], Tensor]
"""(p (S, V), z (S, V)) -> (S,): the event is that it falls to `LEVEL`."""
LEVEL = 0.5
_OVERSHOOT = 1e-3  # a step may pass the event by this much; then its time is interpolated
_DIAGONAL, _ERROR = 1 / (2 + math.sqrt(2)), 6 + math.sqrt(2)  # of the Rosenbrock pair, Shampine and Reichelt (1997)
_NUDGE = 1e-6  # finite differences of fields that are smooth on the scale of the kink's width


@dataclass
class Trace:
    """Where the flows of S students went.

    Attributes
    ----------
    time : Tensor, shape (S,)
        Of the event, or where the integrator gave up.
    matched : Tensor, shape (S,)
        The same with the speed of forward KL's field at the same student: ∫ ‖∂D‖/‖∂FKL‖ dt.
    censored : Tensor of bool, shape (S,)
    logits : Tensor, shape (S, V)
        After the step that holds the event.
    steps : int
    path : list of list of (time, progress)
        Per student.
    """

    time: Tensor
    matched: Tensor
    censored: Tensor
    logits: Tensor
    steps: int = 0
    path: list[list[tuple[float, float]]] = field(default_factory=list)

    @classmethod
    def of(cls, z: Tensor, now: Tensor) -> Trace:
        """At time 0."""
        zero = torch.zeros(len(z), dtype=z.dtype, device=z.device)
        return cls(zero, zero.clone(), zero == 0, z.clone(), 0, [[(0.0, value)] for value in now.tolist()])


def _relative_speed(p: Tensor, z: Tensor, velocity: Tensor) -> Tensor:
    return velocity.norm(dim=-1) / (torch.softmax(z, -1) - p).norm(dim=-1)


def _advance(trace: Trace, rows: Tensor, step: Tensor, speed: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """Book a step of some students; returns which of them are through. In place."""
    done = new <= LEVEL
    share = torch.where(done, (old - LEVEL) / (old - new), 1.0)
    trace.time[rows] += share * step
    trace.matched[rows] += share * step * speed
    trace.censored[rows] = ~done
    for row, time, value in zip(rows.tolist(), trace.time[rows].tolist(), new.tolist(), strict=True):
        trace.path[row].append((time, value))
    return done


def explicit(velocity: Field, p: Tensor, z: Tensor, progress: Progress, *, stride: float, most: int) -> Trace:
    """Heun's method with steps that move no logit by more than `stride` nats, until the event or `most` steps."""
    now = progress(p, z)
    trace = Trace.of(z, now)
    rows = torch.arange(len(z), device=z.device)
    z = z.clone()
    while len(rows) and trace.steps < most:
        trace.steps += 1
        first = velocity(p, z, trace.time[rows])
        step = stride / first.abs().amax(-1)
        second = velocity(p, z + step[:, None] * first, trace.time[rows] + step)
        speed = _relative_speed(p, z, first)
        z = z + 0.5 * step[:, None] * (first + second)
        new = progress(p, z)
        done = _advance(trace, rows, step, speed, now, new)
        trace.logits[rows] = z
        if done.any():
            rows, p, z, new = rows[~done], p[~done], z[~done], new[~done]
        now = new
    return trace


def implicit(velocity: Field, p: Tensor, z: Tensor, progress: Progress, *, tolerance: float, most: int) -> Trace:
    """A Rosenbrock pair of order 2 (Shampine and Reichelt 1997, ode23s), every student with its own step size.

    `tolerance` is the error of each logit per step, in nats.
    """
    trace, z = Trace.of(z, progress(p, z)), z.clone()
    now = progress(p, z)
    step = torch.full_like(now, 1e-3)
    slope = velocity(p, z, trace.time)
    rows = torch.arange(len(z), device=z.device)
    while len(rows) and trace.steps < most:
        trace.steps += 1
        at, time, h = z[rows], trace.time[rows], step[rows]
        moved, end, error = _rosenbrock(velocity, p[rows], at, time, slope[rows], h)
        new, ratio = progress(p[rows], moved), error / tolerance
        late = new < LEVEL - _OVERSHOOT
        accepted = (ratio <= 1) & ~late
        factor = (0.8 * ratio.clamp_min(1e-10) ** (-1 / 3)).clamp(0.2, 4.0)
        step[rows] = h * torch.where(late, factor.clamp(max=0.4), factor)
        good = rows[accepted]
        speed = 0.5 * (_relative_speed(p[rows], at, slope[rows]) + _relative_speed(p[rows], moved, end))
        done = _advance(trace, good, h[accepted], speed[accepted], now[good], new[accepted])
        z[good], slope[good], now[good] = moved[accepted], end[accepted], new[accepted]
        through = torch.zeros_like(accepted).masked_scatter(accepted, done)
        rows = rows[~through]
    trace.logits = z
    return trace


def _rosenbrock(
    velocity: Field, p: Tensor, z: Tensor, time: Tensor, slope: Tensor, step: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One step: new logits, the field there, and the largest error of a logit."""
    h = step[:, None]
    drift = h * _DIAGONAL * (velocity(p, z, time + _NUDGE) - slope) / _NUDGE
    unit = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    factors = torch.linalg.lu_factor(unit - (h * _DIAGONAL)[..., None] * _jacobian(velocity, p, z, time, slope))

    def solved(right: Tensor) -> Tensor:
        return torch.linalg.lu_solve(*factors, right[..., None])[..., 0]

    first = solved(slope + drift)
    middle = velocity(p, z + 0.5 * h * first, time + 0.5 * step)
    second = solved(middle - first) + first
    moved = z + h * second
    end = velocity(p, moved, time + step)
    third = solved(end - _ERROR * (second - middle) - 2 * (first - slope) + drift)
    return moved, end, (h / 6 * (first - 2 * second + third)).abs().amax(-1)


def _jacobian(velocity: Field, p: Tensor, z: Tensor, time: Tensor, slope: Tensor) -> Tensor:
    if isinstance(velocity, SinkhornField):
        return velocity.jacobian(p, z)
    nudged = z + _NUDGE * torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)[:, None, :]
    return ((velocity(p, nudged, time) - slope) / _NUDGE).permute(1, 2, 0)


def steps_until(
    velocity: Field,
    p: Tensor,
    z: Tensor,
    progress: Progress,
    *,
    rate: float,
    optimizer: Literal["sgd", "adam"],
    most: int,
) -> tuple[Tensor, Tensor]:
    """Steps of full-gradient descent, or of Adam (betas .9 and .999), until the event.

    Returns
    -------
    (Tensor, Tensor), shape (S,) each
        Steps (`most` if the event did not happen) and whether it did not.
    """
    count = torch.full((len(z),), float(most), dtype=z.dtype, device=z.device)
    late = torch.ones(len(z), dtype=torch.bool, device=z.device)
    rows, z = torch.arange(len(z), device=z.device), z.clone()
    mean, square = torch.zeros_like(z), torch.zeros_like(z)
    for step in range(most + 1):
        done = progress(p, z) <= LEVEL
        if done.any():
            count[rows[done]], late[rows[done]] = float(step), False
            rows, p, z, mean, square = (x[~done] for x in (rows, p, z, mean, square))
        if not len(rows) or step == most:
            break
        downhill = velocity(p, z, torch.full_like(z[:, 0], rate * step))
        if optimizer == "adam":
            mean.mul_(0.9).add_(downhill, alpha=0.1)
            square.mul_(0.999).addcmul_(downhill, downhill, value=0.001)
            size = (square / (1 - 0.999 ** (step + 1))).sqrt_().add_(1e-8)
            downhill = mean / (1 - 0.9 ** (step + 1)) / size
        z = z + rate * downhill
    return count, late
