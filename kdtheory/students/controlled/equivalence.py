"""`equivalence`: students of five divergences from one hard-label start; whether they end as one student.

The teacher is a random network with one hidden layer, over contexts on which one student network is shared. The `wide`
student has more hidden units than there are contexts, so that its last layer alone can be any table of logits: it can
be the teacher. The `narrow` one, two units, cannot. Both first see hard labels sampled from the teacher; from there
each loss trains its own copy, full batch. All students of a seed are then compared with each other, context by
context. Total variation and W1 (tokens on a line) stand beside the five, and so does one more student of forward KL
that began from other weights and other labels: what a difference amounts to that no loss made.

Learning rates, Adam: for each loss and width that of a small grid whose student of seed 100 had the lowest value of its
own training objective at the end. Wide, of (0.0003, 0.001, 0.003, 0.01): 0.003 for forward KL, 0.001 for the others.
Narrow, of (0.001, 0.003, 0.01, 0.03): 0.03 for all, the edge of the grid; 0.1 changes no objective by more than 0.2 %.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

import kdtheory as kd
from kdtheory.students import losses
from kdtheory.students.controlled import batched
from kdtheory.students.controlled.design import Condition, Experiment, Outcome, Profile
from kdtheory.students.controlled.equivalence_rule import (
    AGAIN,
    DIVERGENCES,
    LOSSES,
    NARROW,
    OTHER,
    OTHER_KL,
    SAME,
    SAME_KL,
    WIDE,
    decide,
)

_POINTS = 20  # of a learning curve
_ELSEWHERE = 10**9  # seeds of the second start, far from those in use
RATES = {
    WIDE: {**dict.fromkeys(LOSSES, 1e-3), "fkl": 3e-3, AGAIN: 3e-3},
    NARROW: dict.fromkeys((*DIVERGENCES, AGAIN), 3e-2),
}
"""The losses of each width, in the order in which they are trained and compared, and their rates."""


@dataclass(frozen=True)
class Settings:
    """One condition.

    Attributes
    ----------
    hidden, teacher_hidden : int
        Hidden units of student and teacher, one layer each.
    contexts, test : int
        Contexts trained on, and held out.
    tokens, features : int
    scale : float
        The teacher's output weights have standard deviation scale / sqrt(teacher_hidden).
    sft_steps, sft_rate
        Of the start (Adam): each step shows one fresh label per context.
    steps : int
        Full-batch steps of Adam with the loss.
    rates : tuple of (str, float)
        The losses of the condition and their learning rates.
    """

    hidden: int = 256
    teacher_hidden: int = 32
    contexts: int = 100
    test: int = 100
    tokens: int = 30
    features: int = 8
    scale: float = 4.0
    sft_steps: int = 100
    sft_rate: float = 3e-3
    steps: int = 4000
    rates: tuple[tuple[str, float], ...] = tuple(RATES[WIDE].items())

    def __post_init__(self) -> None:
        if min(self.hidden, self.teacher_hidden, self.contexts, self.test, self.features, self.sft_steps) < 1:
            raise ValueError(f"{self}: every size is at least 1")
        if self.tokens < 2:
            raise ValueError(f"tokens = {self.tokens}: at least two")
        if self.steps < 1 or self.steps % _POINTS:
            raise ValueError(f"steps = {self.steps}: must be a multiple of {_POINTS}, the points of a curve")


@dataclass(frozen=True)
class Problem:
    """Contexts (S, N + M, d), teacher's log-probabilities (S, N + M, V), initial students; first N are trained on."""

    features: Tensor
    log_p: Tensor
    weights: tuple[Tensor, ...]


@dataclass(frozen=True)
class Trained:
    """Students of one loss: log-probabilities (points + 1, S, N + M, V) along the way, and curves per seed."""

    log_q: Tensor
    curves: list[list[dict[str, float]]]


def build(name: str, settings: Settings) -> Any:
    """The loss called `name`; ValueError if it is none of `LOSSES`."""
    if name not in LOSSES:
        raise ValueError(f"loss {name!r} is unknown; known: {', '.join(LOSSES)}")
    line = kd.TokenCost.line(np.linspace(0.0, 1.0, settings.tokens))
    return losses.build(name.removesuffix("-again"), cost=line, transport_weight=1.0)


def _drawn(settings: Settings, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Contexts, the teacher's log-probabilities, labels (steps, N) and the initial student's weights of one seed."""
    count = settings.contexts + settings.test
    features = torch.randn(count, settings.features, generator=generator)
    teacher = batched.mlp_weights(generator, (settings.features, settings.teacher_hidden, settings.tokens))
    log_p = torch.log_softmax(settings.scale * batched.mlp(teacher, features), -1)
    return (features, log_p, *_beginning(settings, log_p, generator))


def _beginning(settings: Settings, log_p: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    seen = log_p[: settings.contexts].exp()
    labels = torch.multinomial(seen, settings.sft_steps, replacement=True, generator=generator).T.contiguous()
    return (labels, *batched.mlp_weights(generator, (settings.features, settings.hidden, settings.tokens)))


def _redrawn(settings: Settings, log_p: Tensor, seeds: tuple[int, ...]) -> list[Tensor]:
    found = [
        _beginning(settings, law, torch.Generator().manual_seed(_ELSEWHERE + seed))
        for law, seed in zip(log_p, seeds, strict=True)
    ]
    return [torch.stack(parts) for parts in zip(*found, strict=True)]


@lru_cache(maxsize=4)
def problem(settings: Settings, seeds: tuple[int, ...], device: torch.device, *, again: bool = False) -> Problem:
    """Teachers and hard-label starts of these seeds; `again`: the same teachers, other weights and labels."""
    features, log_p, *rest = batched.draws(seeds, lambda generator: _drawn(settings, generator))
    labels, *weights = _redrawn(settings, log_p, seeds) if again else rest
    features, log_p, labels = (x.to(device) for x in (features, log_p, labels))
    hard, shown = kd.divergence("cross_entropy"), iter(labels.unbind(1))

    def objective(now: list[Tensor]) -> Tensor:
        logits = batched.mlp(now, features[:, : settings.contexts])
        return hard.loss(student_logits=logits, labels=next(shown), reduction="none").mean(-1)

    first = [weight.to(device) for weight in weights]
    start, _ = batched.train(first, objective, steps=settings.sft_steps, rate=settings.sft_rate, points=0)
    return Problem(features, log_p, tuple(start))


@lru_cache(maxsize=2 * len(LOSSES))  # a condition's students, which are compared with each other
def trained(settings: Settings, loss: str, seeds: tuple[int, ...], device: torch.device) -> Trained:
    """The students of a loss, at every point of the learning curve."""
    given, student = problem(settings, seeds, device, again=loss == AGAIN), build(loss, settings)
    features, log_p, path = given.features[:, : settings.contexts], given.log_p[:, : settings.contexts], []

    def objective(now: list[Tensor]) -> Tensor:
        return batched.per_seed(student, teacher_logits=log_p, student_logits=batched.mlp(now, features))

    def observe(now: list[Tensor], _: int) -> dict[str, Tensor]:
        path.append(torch.log_softmax(batched.mlp(now, given.features).double(), -1))
        seen = path[-1][:, : settings.contexts]
        return {"objective": student.per_position(log_p.double(), seen).mean(-1), "tv": _variation(log_p, seen)}

    rate = dict(settings.rates)[loss]
    _, curves = batched.train(given.weights, objective, steps=settings.steps, rate=rate, observe=observe)
    return Trained(torch.stack(path), curves)


def _variation(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Mean total variation over contexts: (..., N, V), (..., N, V) -> (...)."""
    return 0.5 * (log_p.double().exp() - log_q.exp()).abs().sum(-1).mean(-1)


def _forward_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return kd.divergence("fkl").per_position(log_p.double(), log_q).mean(-1)


def simulate(settings: Settings, loss: str, seeds: tuple[int, ...], device: torch.device) -> list[Outcome]:
    """Train the students of a loss, and compare them with those of every loss before it in `settings.rates`.

    The others are trained again if this process has not just done so, for instance after a kill.
    """
    own, log_p = trained(settings, loss, seeds, device), problem(settings, seeds, device).log_p
    names = [name for name, _ in settings.rates]
    found, curves = {}, [[dict(point) for point in curve] for curve in own.curves]
    for suffix, part in (("", slice(0, settings.contexts)), ("_test", slice(settings.contexts, None))):
        target, mine = log_p[:, part], own.log_q[:, :, part]
        for name, measure in (("tv", _variation), ("kl", _forward_kl)):
            found[f"start_{name}{suffix}"] = measure(target, mine[0])
            found[name + suffix] = measure(target, mine[-1])
        for other in names[: names.index(loss)]:
            theirs = trained(settings, other, seeds, device).log_q[:, :, part]
            found[f"tv_to_{other}{suffix}"] = _variation(theirs[-1], mine[-1])
            if not suffix and other == DIVERGENCES[0]:
                _add(curves, "tv_to_fkl", _variation(theirs, mine))
    numbers = {name: values.tolist() for name, values in found.items()}
    return [Outcome({name: numbers[name][i] for name in numbers}, curve) for i, curve in enumerate(curves)]


def _add(curves: list[list[dict[str, float]]], name: str, values: Tensor) -> None:
    """A column (points + 1, S) for all curves."""
    for point, row in enumerate(values.tolist()):
        for curve, value in zip(curves, row, strict=True):
            curve[point][name] = value


_WIDE = Settings()
_NARROW = replace(_WIDE, hidden=2, rates=tuple(RATES[NARROW].items()))
_SMALL: dict[str, Any] = {"contexts": 20, "test": 20, "tokens": 8, "features": 4, "steps": 20, "sft_steps": 10}
_LARGE: dict[str, Any] = {"contexts": 500, "test": 500, "tokens": 200, "features": 32, "teacher_hidden": 128}
EXPERIMENT = Experiment(
    id="equivalence",
    profiles={
        "smoke": Profile(
            "smoke",
            {
                WIDE: Condition(replace(_WIDE, **_SMALL, hidden=32), LOSSES),
                NARROW: Condition(replace(_NARROW, **_SMALL), tuple(RATES[NARROW])),
            },
            seeds=(0, 1, 2),
        ),
        "cpu": Profile("cpu", {WIDE: Condition(_WIDE, LOSSES), NARROW: Condition(_NARROW, tuple(RATES[NARROW]))}),
        "gpu": Profile(
            "gpu",
            {
                WIDE: Condition(replace(_WIDE, **_LARGE, hidden=1024, steps=20000), LOSSES),
                NARROW: Condition(replace(_NARROW, **_LARGE, hidden=4, steps=20000), tuple(RATES[NARROW])),
            },
            seeds=tuple(range(30)),
            device="cuda",
        ),
    },
    simulate=simulate,
    decide=decide,
    rule={"same": SAME, "other": OTHER, "same_kl": SAME_KL, "other_kl": OTHER_KL},
)
