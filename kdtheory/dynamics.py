"""How long a student takes: gradient flow, natural-gradient flow and gradient descent in its logits.

The student is a table of logits z with q = softmax(z); its time runs by dz/dt = -∂D/∂z (euclidean) or by
dz/dt = -(g - ḡ) with the slopes g = ∂D/∂q (natural: the Fisher metric of q; `amari2000methods`). Any `Loss` of the
library will do, and the whole vector of V logits is integrated: nothing is assumed about symmetry.

>>> import kdtheory as kd
>>> wrong = flow(kd.divergence("tvd"), teacher_logits=[0.0, -float("inf")], student_logits=[0.0, 5.0])
>>> wrong.escaped, round(wrong.time, 3)  # Δ + sinh Δ for a gap of Δ = 5
(True, 79.203)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp
from torch import Tensor

from kdtheory.divergences import checks
from kdtheory.divergences.logspace import LogPair
from kdtheory.divergences.protocol import Loss
from kdtheory.divergences.records import DivergenceLoss
from kdtheory.simplex import log_softmax

Array = NDArray[np.float64]
Geometry = Literal["euclidean", "natural"]
Optimiser = Literal["sgd", "adam"]
__all__ = ["Descent", "Event", "Flow", "descend", "flow", "leaves", "reaches"]

_FARTHEST = 700.0  # nats below the leading token at which q, and with it (∂D/∂z)/q, still is a normal float64


@dataclass(frozen=True)
class Event:
    """The moment at which one token's probability crosses a level. Made by `reaches` and `leaves`."""

    token: int | None
    level: float
    rises: bool

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"level = {self.level!r}: a probability strictly between 0 and 1")

    def settled(self, student_logits: Array) -> Event:
        """With the token filled in: for `leaves`, the one that leads the start."""
        size = student_logits.size
        if self.token is None:
            return Event(int(student_logits.argmax()), self.level, self.rises)
        if not (checks.is_integer(self.token) and 0 <= self.token < size):
            raise ValueError(f"token = {self.token!r}: one of the indices 0 to {size - 1}")
        return self

    def margin(self, log_q: Any) -> float:
        """Nats to go: negative before the event, positive after it."""
        return (1 if self.rises else -1) * (float(log_q[self.token]) - float(np.log(self.level)))


def reaches(token: int, level: float = 0.5) -> Event:
    """The event q_token >= level."""
    return Event(token, level, rises=True)


def leaves(level: float = 0.5) -> Event:
    """The event that the token which leads at the start falls to probability `level`: the mistake is over."""
    return Event(None, level, rises=False)


@dataclass(frozen=True)
class Flow:
    """Where a flow ended.

    `time` of the event, located by root finding (the horizon if it did not happen), the student's `logits` (V,) there,
    whether it `escaped`, the `path` (rows, V) at the times asked for up to then, and gradient `evaluations`.
    """

    time: float
    logits: Array
    escaped: bool
    path: Array
    evaluations: int


@dataclass(frozen=True)
class Descent:
    """Where gradient descent ended: number of steps, the student's logits (V,), whether the event happened."""

    steps: int
    logits: Array
    escaped: bool


class _Field:
    """The downhill direction of a loss at given logits, for one teacher."""

    def __init__(self, loss: Loss, teacher_logits: Tensor) -> None:
        self.loss, self.log_p = loss, torch.log_softmax(teacher_logits, -1)

    def gradient(self, log_q: Tensor) -> Tensor:
        """∂D/∂z, without the value where the loss can do without."""
        if isinstance(self.loss, DivergenceLoss):
            return self.loss.record.gradient(LogPair(self.log_p, log_q), **self.loss.parameters)
        return self.loss.value_and_gradient(self.log_p, log_q)[1]

    def downhill(self, logits: Tensor, geometry: Geometry) -> Tensor:
        """dz/dt: -∂D/∂z, or -(∂D/∂z)/q = -(g - ḡ)."""
        log_q = torch.log_softmax(logits, -1)
        gradient = self.gradient(log_q)
        if geometry == "euclidean":
            return -gradient
        if float(log_q.min()) < -_FARTHEST:
            raise ValueError(
                f"natural gradient: token {int(log_q.argmin())} has log-probability {float(log_q.min()):.4g}, too "
                f"small for float64; keep the student's logits within {_FARTHEST:g} nats of each other"
            )
        return -gradient / log_q.exp()


def flow(
    loss: Loss,
    *,
    teacher_logits: ArrayLike,
    student_logits: ArrayLike,
    until: Event | None = None,
    geometry: Geometry = "euclidean",
    horizon: float = 1e15,
    at: ArrayLike = (),
    tolerance: float = 1e-9,
    max_evaluations: int = 200_000,
) -> Flow:
    """Follow the gradient flow, or the natural-gradient flow, of a loss until an event.

    An explicit Runge-Kutta method of order 8 with step control (`scipy.integrate.solve_ivp`, DOP853): the fields are
    stiff only near a minimum, and an implicit method would need a V × V matrix.

    Parameters
    ----------
    loss : Loss
        From `kdtheory.divergence`, or a sum of such.
    teacher_logits, student_logits : array_like, shape (V,), V >= 2
        Teacher (-inf allowed) and the student's start (finite).
    until : Event, optional
        `reaches(token)` or `leaves()`; default `leaves()`. An event that holds at the start has time 0.
    geometry : {"euclidean", "natural"}
        Metric of the flow; "natural" needs student logits within 700 nats of each other.
    horizon : float
        Time at which to give up; resting until then costs several evaluations per unit of time.
    at : array_like, shape (times,)
        Increasing times, below the horizon, at which to record the student in `Flow.path`.
    tolerance : float
        Relative and absolute error of each logit per step. Times come out as well, but for float64's own resolution.
    max_evaluations : int

    Raises
    ------
    ValueError
        If an argument does not fit, or the gradient at the start is not finite: argument and token are named.
    RuntimeError
        Out of evaluations: the flow rests, at a minimum or in a kink (total variation, W1). Or float64 cannot resolve
        the event's time: bounded slopes and a gap above 35 nats.
    """
    field, start, event = _prepare(loss, teacher_logits, student_logits, until)
    checks.choice("geometry", geometry, ("euclidean", "natural"))
    times = _check_times(at, horizon)
    checks.positive(tolerance=tolerance)
    checks.count(max_evaluations=max_evaluations)
    _check_finite(loss, field.downhill(torch.from_numpy(start), geometry))
    if event.margin(log_softmax(start)) >= 0:
        return Flow(0.0, start, True, start[None][: int(np.sum(times == 0))], 0)
    calls = 0

    def velocity(time: float, z: Array) -> Array:
        nonlocal calls
        calls += 1
        if calls > max_evaluations:
            raise RuntimeError(
                f"{loss}: no event after {max_evaluations} evaluations of the gradient, at time {time:.4g}: the flow "
                "rests, at a minimum or in a kink of the loss. Choose an event that comes before, or a shorter horizon"
            )
        return field.downhill(torch.from_numpy(z), geometry).numpy()

    def crossing(_: float, z: Array) -> float:
        return event.margin(log_softmax(z))

    crossing.terminal, crossing.direction = True, 1.0  # type: ignore[attr-defined]
    per_token = tolerance / np.sqrt(start.size)  # SciPy's norm is a mean over tokens, and often only one of them moves
    options = {"method": "DOP853", "events": crossing, "rtol": per_token, "atol": per_token}
    kept = np.append(times, horizon)  # nothing else: V = 20000 logits times every step would be a gigabyte
    found = solve_ivp(velocity, (0.0, horizon), start, t_eval=kept, **options)
    if not found.success:
        raise RuntimeError(f"{loss}: the integrator gave up: {found.message}")
    escaped = found.status == 1
    path = np.reshape(found.y, (start.size, -1)).T if len(found.t) else np.empty((0, start.size))
    time, logits = (found.t_events[0][0], found.y_events[0][0]) if escaped else (horizon, path[-1])
    return Flow(float(time), logits, escaped, path[: len(times)], calls)


def descend(
    loss: Loss,
    *,
    teacher_logits: ArrayLike,
    student_logits: ArrayLike,
    until: Event | None = None,
    optimiser: Optimiser = "sgd",
    learning_rate: float = 1.0,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    max_steps: int = 100_000,
) -> Descent:
    """Count the steps of full-gradient descent, or of Adam, on a table of logits until an event.

    Parameters
    ----------
    loss, teacher_logits, student_logits, until
        As for `flow`.
    optimiser : {"sgd", "adam"}
        "sgd" is z ← z - learning_rate · ∂D/∂z; "adam" has bias correction, `betas` and `epsilon` as PyTorch's.
    max_steps : int
        After these the result is `escaped=False`.

    Raises
    ------
    ValueError, RuntimeError
        If an argument does not fit; if a step overflows the logits.
    """
    field, start, event = _prepare(loss, teacher_logits, student_logits, until)
    checks.choice("optimiser", optimiser, ("sgd", "adam"))
    checks.positive(learning_rate=learning_rate, epsilon=epsilon)
    checks.count(max_steps=max_steps)
    if not (np.shape(betas) == (2,) and all(0 <= beta < 1 for beta in betas)):
        raise ValueError(f"betas = {betas!r}: two numbers in [0, 1)")
    z = torch.from_numpy(start)
    _check_finite(loss, field.downhill(z, "euclidean"))
    adam = _Adam(z, learning_rate, betas, epsilon)
    log_q = torch.log_softmax(z, -1)
    for count in range(max_steps):
        if event.margin(log_q) >= 0:
            return Descent(count, z.numpy(), True)
        if optimiser == "adam":
            adam(field.gradient(log_q))
        else:
            z.sub_(field.gradient(log_q), alpha=learning_rate)
        log_q = torch.log_softmax(z, -1)
        if torch.isnan(log_q[0]):  # then all are
            raise RuntimeError(f"{loss}: step {count + 1} overflows the logits; choose a smaller learning rate")
    return Descent(max_steps, z.numpy(), event.margin(log_q) >= 0)


class _Adam:
    """Adam's update of a table of logits, in place."""

    def __init__(self, z: Tensor, learning_rate: float, betas: tuple[float, float], epsilon: float) -> None:
        self.z, self.learning_rate, (self.first, self.second), self.epsilon = z, learning_rate, betas, epsilon
        self.mean, self.square, self.count = torch.zeros_like(z), torch.zeros_like(z), 0

    def __call__(self, gradient: Tensor) -> None:
        self.count += 1
        self.mean.mul_(self.first).add_(gradient, alpha=1 - self.first)
        self.square.mul_(self.second).addcmul_(gradient, gradient, value=1 - self.second)
        size = (self.square / (1 - self.second**self.count)).sqrt_().add_(self.epsilon)
        self.z.addcdiv_(self.mean, size, value=-self.learning_rate / (1 - self.first**self.count))


def _prepare(
    loss: Loss, teacher_logits: ArrayLike, student_logits: ArrayLike, until: Event | None
) -> tuple[_Field, Array, Event]:
    if not isinstance(loss, Loss):
        raise ValueError(f'loss: expected a Loss such as kdtheory.divergence("fkl"), got {type(loss).__name__}')
    teacher, student, _ = checks.logits(teacher_logits, student_logits)
    if student.ndim != 1 or student.numel() < 2:
        raise ValueError(f"student_logits has shape {tuple(student.shape)}: one table of logits, shape (V,), V >= 2")
    start = student.cpu().numpy().copy()  # the result must not share the caller's memory
    if np.isinf(start).any():
        raise ValueError(f"student_logits[{start.argmin()}] is -inf: no flow leaves it; start from a finite logit")
    if until is not None and not isinstance(until, Event):
        raise ValueError(f"until: expected reaches(token) or leaves(), got {type(until).__name__}")
    return _Field(loss, teacher.cpu()), start, (until or leaves()).settled(start)


def _check_times(at: ArrayLike, horizon: float) -> Array:
    checks.positive(horizon=horizon)
    times = np.asarray(at, dtype=np.float64)
    if times.ndim != 1 or not ((times >= 0) & (times < horizon)).all() or (np.diff(times) <= 0).any():
        raise ValueError("at: increasing times, shape (times,), from 0 up to (not including) the horizon")
    return times


def _check_finite(loss: Loss, velocity: Tensor) -> None:
    bad = ~torch.isfinite(velocity)
    if bad.any():
        index = int(torch.nonzero(bad)[0])
        raise ValueError(
            f"{loss}: the gradient at student_logits[{index}] is {-velocity[index].item()}: the divergence is infinite "
            "there. Give the teacher full support, or take a loss that stays finite"
        )
