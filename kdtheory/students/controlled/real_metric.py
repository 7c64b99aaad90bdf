"""`real-metric`: narrow students of a wide teacher where the metric is real: grey levels, and levels of a time series.

`digits` are the pixels of scikit-learn's images in reading order, `co2` the weekly carbon dioxide readings that ship
with statsmodels (`real_data`): 17 ordered levels each, and the line as ground metric. Images (or blocks of two years)
are split at random; a wide network is trained on the hard labels of the training part; narrow ones are distilled from
its full distributions on the same contexts and judged on contexts that neither has seen, against the value that really
came next. A seed is a split, a teacher trained on it, initial weights, batches and a scrambling. Everything but the
loss is shared within a seed: the teacher is trained anew for each seed, because a teacher shared by all seeds would
have seen some of their test images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

import kdtheory as kd
from kdtheory.divergences.protocol import Loss
from kdtheory.students import evaluate, statistics
from kdtheory.students.controlled import batched, real_data, real_losses, real_rule, real_settings
from kdtheory.students.controlled.design import Experiment, Outcome, Profile
from kdtheory.students.controlled.real_data import LEVELS
from kdtheory.students.controlled.real_settings import POINTS, Settings

_CHUNK = 4096  # contexts of a forward pass that is only read
_STUDENTS = 1 << 40  # added to a seed for its students' weights


@dataclass(frozen=True)
class Start:
    """What all losses of a condition share, all seeds stacked.

    Attributes
    ----------
    rows : tuple of Tensor of int64, shape (S, n)
        Contexts of the training, validation and test part.
    log_p : tuple of Tensor, shape (S, n, 17)
        The teacher's log-probabilities there.
    order : Tensor of int64, shape (S, 17)
        The tokens that the scrambled cost takes for the levels 0 to 16.
    batches : Tensor of int64, shape (S, steps, batch)
        Positions in the training part.
    """

    contexts: real_data.Contexts
    rows: tuple[Tensor, ...]
    log_p: tuple[Tensor, ...]
    order: Tensor
    batches: Tensor

    def following(self, part: int) -> Tensor:
        """Levels that really came next, (S, n)."""
        return self.contexts.following[self.rows[part]]


@lru_cache(maxsize=1)
def start(settings: Settings, seeds: tuple[int, ...], device: torch.device) -> Start:
    """Split, teacher and batches of the seeds. Call it through `given`, so that conditions share it."""
    source = real_data.load(settings.source)
    contexts = replace(source, features=source.features.to(device), following=source.following.to(device))
    drawn = [x.to(device) for x in batched.draws(seeds, lambda generator: _drawn(settings, source, generator))]
    rows, (order, batches, teacher_batches), weights = tuple(drawn[:3]), drawn[3:6], drawn[6:]
    teacher = fitted(settings, contexts, rows[0], teacher_batches, weights)
    return Start(contexts, rows, tuple(_read(teacher, contexts.features, part) for part in rows), order, batches)


def given(settings: Settings, seeds: tuple[int, ...], device: torch.device) -> Start:
    """`start` without what concerns students alone."""
    return start(replace(settings, rates=(), width=0, weight=0.0), seeds, device)


def students(settings: Settings, seeds: tuple[int, ...], device: torch.device) -> list[Tensor]:
    """Initial weights, from generators of their own."""
    sizes = (real_data.load(settings.source).features.shape[1], settings.width, LEVELS)
    own = [seed + _STUDENTS for seed in seeds]
    return [weight.to(device) for weight in batched.draws(own, lambda x: batched.mlp_weights(x, sizes))]


def _drawn(settings: Settings, source: real_data.Contexts, generator: torch.Generator) -> list[Tensor]:
    """Random choices of one seed: three parts, scrambling, batches of student and teacher, weights of the teacher."""
    parts = real_data.split(source, generator, shares=settings.shares, sizes=settings.sizes)
    features, wide = source.features.shape[1], settings.teacher_width
    order = torch.randperm(LEVELS, generator=generator)
    batches = [
        torch.randint(settings.sizes[0], (steps, settings.batch), generator=generator)
        for steps in (settings.steps, settings.teacher_steps)
    ]
    return [
        *parts,
        order,
        *batches,
        *batched.mlp_weights(generator, (features, wide, wide, LEVELS)),
    ]


def fitted(
    settings: Settings, contexts: real_data.Contexts, rows: Tensor, batches: Tensor, weights: list[Tensor]
) -> list[Tensor]:
    """The teachers: wide networks trained on hard labels, their rate falling linearly to 0."""
    labels, steps = kd.divergence("cross_entropy"), iter(batches.unbind(1))

    def objective(now: list[Tensor]) -> Tensor:
        at = rows.gather(1, next(steps))
        logits = batched.mlp(now, contexts.features[at])
        return labels.loss(student_logits=logits, labels=contexts.following[at], reduction="none").mean(-1)

    def rate(step: int) -> float:
        return settings.teacher_rate * (1 - step / settings.teacher_steps)

    return batched.train(weights, objective, steps=settings.teacher_steps, rate=rate, points=0)[0]


@torch.no_grad()
def _read(weights: list[Tensor], features: Tensor, rows: Tensor) -> Tensor:
    """Log-probabilities (S, n, 17) of S networks at their contexts."""
    pieces = [torch.log_softmax(batched.mlp(weights, features[part]), -1) for part in rows.split(_CHUNK, 1)]
    return torch.cat(pieces, 1)


def simulate(settings: Settings, loss: str, seeds: tuple[int, ...], device: torch.device) -> list[Outcome]:
    """Distil with one loss; metrics on the test part, learning curve on the validation part."""
    begin = given(settings, seeds, device)
    weights, curves = _distilled(settings, loss, begin, students(settings, seeds, device))
    log_q = _read(weights, begin.contexts.features, begin.rows[2])
    found = measure(begin.log_p[2], log_q, begin.following(2))
    found["teacher_train_nll"] = -begin.log_p[0].gather(-1, begin.following(0).unsqueeze(-1)).mean((-1, -2))
    values = {name: numbers.double().tolist() for name, numbers in found.items()}
    return [
        Outcome({name: numbers[index] for name, numbers in values.items()}, curve) for index, curve in enumerate(curves)
    ]


def _distilled(
    settings: Settings, loss: str, begin: Start, weights: list[Tensor]
) -> tuple[list[Tensor], list[list[batched.Point]]]:
    """Train through the loss's phases, each with a fresh Adam; the curve is the last phase's objective throughout."""
    phases = real_losses.phases(loss, settings.weight)
    order = begin.order if real_losses.is_scrambled(loss) else None
    steps, points = settings.steps // len(phases), POINTS // len(phases)
    seen, batches = begin.contexts.features[begin.rows[1]], iter(begin.batches.unbind(1))
    curves: list[list[batched.Point]] = [[] for _ in weights[0]]

    def validation(now: list[Tensor], _: int) -> dict[str, Tensor]:
        return {"objective": _mean(phases[-1], begin.log_p[1].double(), batched.mlp(now, seen).double(), order)}

    for index, phase in enumerate(phases):
        objective, rate = _objective(phase, begin, batches, order), settings.rate(loss)
        weights, found = batched.train(weights, objective, steps=steps, rate=rate, points=points, observe=validation)
        for curve, more in zip(curves, found, strict=True):  # a phase begins where the last one ended
            curve += [{**point, "step": point["step"] + index * steps} for point in more[min(index, 1) :]]
    return weights, curves


def _objective(
    phase: Loss, begin: Start, batches: Iterator[Tensor], order: Tensor | None
) -> Callable[[list[Tensor]], Tensor]:
    """Mean loss (S,) on the next batch, each time it is asked."""

    def objective(now: list[Tensor]) -> Tensor:
        at = next(batches)
        log_p = begin.log_p[0].gather(1, at.unsqueeze(-1).expand(-1, -1, LEVELS))
        return _mean(phase, log_p, batched.mlp(now, begin.contexts.features[begin.rows[0].gather(1, at)]), order)

    return objective


def _mean(loss: Loss, log_p: Tensor, logits: Tensor, order: Tensor | None) -> Tensor:
    """Mean loss of each seed; with a scrambling, of teacher and student after the same exchange of tokens."""
    if order is not None:
        at = order.unsqueeze(1).expand_as(logits)
        log_p, logits = log_p.gather(-1, at), logits.gather(-1, at)
    return batched.per_seed(loss, teacher_logits=log_p, student_logits=logits)


@torch.no_grad()
def measure(log_p: Tensor, log_q: Tensor, following: Tensor) -> dict[str, Tensor]:
    """Metrics of each seed, means over contexts (S, n).

    ``nll`` of the real next level, ``kl`` and ``rkl`` to the teacher (nats); ``tv``; ``w1`` to the teacher, ``cost``
    (distance of the median decision from the real next level), ``expected`` (its expected distance under the teacher)
    and ``crps`` of the real level (levels). With the prefix ``teacher_``: the teacher's own.
    """
    log_p, log_q = log_p.double(), log_q.double()
    line = kd.TokenCost.line(torch.arange(LEVELS, dtype=torch.float64))
    found = evaluate.distances(log_p, log_q, line)
    found["kl"] = found.pop("fkl")
    found |= judged(log_q, following, log_p) | {f"teacher_{k}": x for k, x in judged(log_p, following, log_p).items()}
    return {name: values.mean(-1) for name, values in found.items()}


def judged(log_q: Tensor, following: Tensor, log_p: Tensor) -> dict[str, Tensor]:
    """Of one forecast at every context: ``nll``, ``cost``, ``expected``, ``crps`` as in `measure`, and ``entropy``."""
    q, at = log_q.exp(), following.unsqueeze(-1)
    levels = torch.arange(LEVELS, device=q.device)
    below = q.cumsum(-1)
    median = (below < 0.5).sum(-1, keepdim=True).clamp(max=LEVELS - 1)  # the least level with half the mass up to it
    return {
        "nll": -log_q.gather(-1, at).squeeze(-1),
        "cost": (median - at).abs().squeeze(-1).double(),
        "expected": (log_p.exp() * (levels - median).abs()).sum(-1),
        "crps": (below - (levels >= at).double()).square()[..., :-1].sum(-1),
        "entropy": torch.special.entr(q).sum(-1),
    }


EXPERIMENT = Experiment(
    id="real-metric",
    profiles={
        "smoke": Profile("smoke", real_settings.SMOKE, seeds=(0, 1, 2)),
        "cpu": Profile("cpu", real_settings.CPU),
        "gpu": Profile("gpu", real_settings.GPU, tuple(range(30)), "cuda"),
    },
    simulate=simulate,
    decide=real_rule.decide,
    rule={**real_rule.RULE, "margin": statistics.MARGIN, "level": statistics.LEVEL},
)
