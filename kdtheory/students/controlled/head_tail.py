"""`head-tail`: which of forward and reverse KL puts more of its gradient on the teacher's head, and when.

The teacher is Zipf's law over a random order of the tokens that depends on the context through a network, plus one
order common to all contexts. A student network is trained on a corpus of hard labels, one label per context, epoch
after epoch, and the epoch of lowest validation cross-entropy is kept: the usual start of distillation. The head is
adaptive KL's, the fewest most likely tokens that hold more than half of the teacher's mass; what is measured is the
share of contexts in which a larger part of ‖∇_z D‖₁ falls on it under forward than under reverse KL. From there, and
from the untrained network, both divergences then train on the teacher's full distributions.

Learning rate, Adam: that of (0.0003, 0.001, 0.003, 0.01) whose best epoch had the lowest validation cross-entropy on
seed 100: 0.001. It holds for every condition; the small corpus has as many steps as the large one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

import kdtheory as kd
from kdtheory.students.controlled import batched
from kdtheory.students.controlled.design import Condition, Experiment, Outcome, Profile
from kdtheory.students.controlled.head_tail_gradient import measure
from kdtheory.students.controlled.head_tail_rule import HARD, LOSSES, RULE, SCRATCH, SFT, decide

_POINTS = 20  # of a learning curve; of training with a divergence, whose first steps count, twice as many


@dataclass(frozen=True)
class Settings:
    """One condition.

    Attributes
    ----------
    exponent : float
        Of Zipf's law: p of the r-th token is proportional to r^-exponent.
    tokens, features, hidden, teacher_hidden : int
        Hidden units of student and of the network behind the teacher's order, one layer each.
    corpus, batch, epochs : int
        Contexts with one label each; contexts per step; passes of the hard-label training.
    rate : float
        Of Adam, hard labels.
    test, validation : int
        Contexts held out for the measurements and for the choice of the epoch.
    prompts : int
        Contexts of the corpus on which the divergences see the whole teacher.
    steps, distil_rate
        Of training with a divergence (Adam), batches as above.
    start : {"sft", "scratch"}
        What the divergences begin from.
    """

    exponent: float = 1.2
    tokens: int = 500
    features: int = 16
    hidden: int = 128
    teacher_hidden: int = 64
    corpus: int = 10000
    batch: int = 200
    epochs: int = 20
    rate: float = 1e-3
    test: int = 200
    validation: int = 200
    prompts: int = 1000
    steps: int = 200
    distil_rate: float = 1e-3
    start: str = SFT

    def __post_init__(self) -> None:
        if self.corpus % self.batch or self.prompts % self.batch or not 0 < self.prompts <= self.corpus:
            raise ValueError(f"batch = {self.batch}: must divide corpus = {self.corpus} and prompts = {self.prompts}")
        if self.epochs % _POINTS or self.steps % (2 * _POINTS):
            raise ValueError(f"epochs = {self.epochs}, steps = {self.steps}: multiples of {_POINTS} and {2 * _POINTS}")
        if self.start not in (SFT, SCRATCH):
            raise ValueError(f"start = {self.start!r}: choose {SFT} or {SCRATCH}")
        if not self.exponent > 0:
            raise ValueError(f"exponent = {self.exponent}: must be positive")


@dataclass(frozen=True)
class Problem:
    """Corpus, held-out contexts, and untrained students; leading dimension: seeds.

    Contexts (S, N, d) with labels (S, N); held-out contexts (S, M, d), test first, and log-probabilities (S, M, V) of
    the teacher there; those of the first `prompts` contexts of the corpus; order of the corpus in each epoch
    (S, epochs, N); weights.
    """

    features: Tensor
    labels: Tensor
    held: Tensor
    held_log_p: Tensor
    prompt_log_p: Tensor
    order: Tensor
    weights: tuple[Tensor, ...]


def zipf(settings: Settings) -> Tensor:
    """Log-probabilities (V,) of Zipf's law by rank, float64."""
    ranks = torch.arange(1, settings.tokens + 1, dtype=torch.float64)
    return torch.log_softmax(-settings.exponent * ranks.log(), -1)


def _drawn(settings: Settings, generator: torch.Generator) -> tuple[Tensor, ...]:
    """A seed's teacher, corpus, held-out contexts, batches and untrained student, in the order of `Problem`."""
    network = batched.mlp_weights(generator, (settings.features, settings.teacher_hidden, settings.tokens))
    common = torch.randn(settings.tokens, generator=generator)
    law = zipf(settings)

    def ranking(contexts: Tensor) -> Tensor:
        """Tokens from the most to the least likely."""
        return (batched.mlp(network, contexts) + common).argsort(-1, descending=True)

    def log_p(tokens: Tensor) -> Tensor:
        return torch.empty(tokens.shape).scatter_(-1, tokens, law.float().expand(tokens.shape))

    features = torch.randn(settings.corpus, settings.features, generator=generator)
    held = torch.randn(settings.test + settings.validation, settings.features, generator=generator)
    tokens = ranking(features)
    drawn = torch.multinomial(law.exp(), settings.corpus, replacement=True, generator=generator)
    labels = tokens.gather(1, drawn[:, None])[:, 0]
    order = torch.stack([torch.randperm(settings.corpus, generator=generator) for _ in range(settings.epochs)])
    weights = batched.mlp_weights(generator, (settings.features, settings.hidden, settings.tokens))
    return features, labels, held, log_p(ranking(held)), log_p(tokens[: settings.prompts]), order, *weights


@lru_cache(maxsize=2)
def problem(settings: Settings, seeds: tuple[int, ...], device: torch.device) -> Problem:
    """What these seeds draw; kept for the runs that share it."""
    drawn = batched.draws(seeds, lambda generator: _drawn(settings, generator))
    features, labels, held, held_log_p, prompt_log_p, order, *weights = (part.to(device) for part in drawn)
    return Problem(features, labels, held, held_log_p, prompt_log_p, order, tuple(weights))


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """Rows of each seed: (S, N, ...), (S, B) -> (S, B, ...)."""
    return values[torch.arange(len(values), device=values.device)[:, None], index]


@dataclass
class Tuned:
    """Hard-label training: the student of the best epoch of each seed, its epoch (S,), and curves."""

    weights: list[Tensor]
    epoch: Tensor
    loss: Tensor
    curves: list[list[dict[str, float]]]


def _validation(settings: Settings, given: Problem, logits: Tensor) -> Tensor:
    """Cross-entropy of the validation contexts under the teacher, (S,)."""
    part = slice(settings.test, None)
    log_q = torch.log_softmax(logits[:, part].double(), -1)
    return -(given.held_log_p[:, part].double().exp() * log_q).sum(-1).mean(-1)


@lru_cache(maxsize=2)
def tuned(settings: Settings, seeds: tuple[int, ...], device: torch.device) -> Tuned:
    """Train on hard labels; keep each seed's best epoch. `settings.start` does not matter."""
    given, hard = problem(settings, seeds, device), kd.divergence("cross_entropy")
    batches: Iterator[Tensor] = iter(given.order.flatten(1).split(settings.batch, 1))
    infinite = torch.full((len(seeds),), float("inf"), dtype=torch.float64, device=device)
    best = Tuned([weight.clone() for weight in given.weights], torch.zeros_like(infinite), infinite, [])

    def objective(now: list[Tensor]) -> Tensor:
        index = next(batches)
        logits = batched.mlp(now, _rows(given.features, index))
        return hard.loss(student_logits=logits, labels=_rows(given.labels, index), reduction="none").mean(-1)

    def observe(now: list[Tensor], step: int) -> dict[str, Tensor]:
        logits = batched.mlp(now, given.held)
        loss, epoch = _validation(settings, given, logits), step * settings.batch // settings.corpus
        _keep(best, now, loss, epoch)
        seen = batched.mlp(now, given.features[:, : settings.test])
        found = measure(given.prompt_log_p[:, : settings.test], seen)
        return {"objective": best.loss.clone(), "validation": loss, "agree_seen": found["agree"],
                **measure(given.held_log_p[:, : settings.test], logits[:, : settings.test])}  # fmt: skip

    steps = settings.epochs * settings.corpus // settings.batch
    _, best.curves = batched.train(given.weights, objective, steps=steps, rate=settings.rate, observe=observe)
    return best


def _keep(best: Tuned, now: list[Tensor], loss: Tensor, epoch: int) -> None:
    better = loss < best.loss
    best.loss, best.epoch = torch.where(better, loss, best.loss), torch.where(better, float(epoch), best.epoch)
    for kept, weight in zip(best.weights, now, strict=True):
        kept[better] = weight[better]


def _labelled(settings: Settings, seeds: tuple[int, ...], device: torch.device) -> list[Outcome]:
    """Outcomes of hard labels: shares at uniform logits, of the untrained network, and of the best epoch."""
    given, best = problem(settings, seeds, device), tuned(replace(settings, start=SFT), seeds, device)
    held, log_p = given.held[:, : settings.test], given.held_log_p[:, : settings.test]
    seen, seen_log_p = given.features[:, : settings.test], given.prompt_log_p[:, : settings.test]
    states = {
        "uniform": measure(log_p, torch.zeros_like(log_p)),
        "untrained": measure(log_p, batched.mlp(given.weights, held)),
        "sft": measure(log_p, batched.mlp(best.weights, held)),
        "sft_seen": measure(seen_log_p, batched.mlp(best.weights, seen)),
    }
    numbers = {f"{state}_{name}": values for state, found in states.items() for name, values in found.items()}
    numbers |= {"epoch": best.epoch, "validation": best.loss}
    plain = {name: values.tolist() for name, values in numbers.items()}
    return [Outcome({name: plain[name][i] for name in plain}, curve) for i, curve in enumerate(best.curves)]


def _distilled(settings: Settings, loss: str, seeds: tuple[int, ...], device: torch.device) -> list[Outcome]:
    """Train with a divergence from `settings.start`; the curve is what counts."""
    as_tuned = replace(settings, start=SFT)  # one cached problem for both starts
    given, student = problem(as_tuned, seeds, device), kd.divergence(loss)
    first = tuned(as_tuned, seeds, device).weights if settings.start == SFT else list(given.weights)
    held, log_p = given.held[:, : settings.test], given.held_log_p[:, : settings.test]
    step = iter(range(settings.steps))

    def objective(now: list[Tensor]) -> Tensor:
        at = next(step) * settings.batch % settings.prompts
        part = slice(at, at + settings.batch)
        logits = batched.mlp(now, given.features[:, part])
        return batched.per_seed(student, teacher_logits=given.prompt_log_p[:, part], student_logits=logits)

    def observe(now: list[Tensor], _: int) -> dict[str, Tensor]:
        logits = batched.mlp(now, held)
        value = student.per_position(log_p.double(), torch.log_softmax(logits.double(), -1)).mean(-1)
        return {"objective": value, **measure(log_p, logits)}

    budget: dict[str, Any] = {"steps": settings.steps, "rate": settings.distil_rate, "points": 2 * _POINTS}
    _, curves = batched.train(first, objective, observe=observe, **budget)
    return [Outcome({name: value for name, value in curve[-1].items() if name != "step"}, curve) for curve in curves]


def simulate(settings: Settings, loss: str, seeds: tuple[int, ...], device: torch.device) -> list[Outcome]:
    """`hard`: train on labels; a divergence: train on the teacher from the start of the settings."""
    if loss not in LOSSES:
        raise ValueError(f"loss {loss!r} is unknown; known: {', '.join(LOSSES)}")
    return _labelled(settings, seeds, device) if loss == HARD else _distilled(settings, loss, seeds, device)


_MAIN = Settings()
_SMALL: dict[str, Any] = {"tokens": 40, "features": 6, "hidden": 16, "teacher_hidden": 8, "corpus": 200, "batch": 100,
                          "test": 40, "validation": 40, "prompts": 100, "steps": 40}  # fmt: skip
_LARGE: dict[str, Any] = {"tokens": 2000, "features": 32, "hidden": 512, "teacher_hidden": 128, "corpus": 50000}


def _conditions(sizes: dict[str, Any], small: int) -> dict[str, Condition]:
    main = replace(_MAIN, **sizes)
    return {
        SFT: Condition(main, LOSSES),
        SCRATCH: Condition(replace(main, start=SCRATCH), LOSSES[1:]),
        "small-corpus": Condition(replace(main, corpus=small, epochs=main.epochs * main.corpus // small), (HARD,)),
        "flat": Condition(replace(main, exponent=0.8), (HARD,)),
        "steep": Condition(replace(main, exponent=1.6), (HARD,)),
    }


EXPERIMENT = Experiment(
    id="head-tail",
    profiles={
        "smoke": Profile("smoke", _conditions(_SMALL, 100), seeds=(0, 1, 2)),
        "cpu": Profile("cpu", _conditions({}, 2000)),
        "gpu": Profile("gpu", _conditions(_LARGE, 10000), seeds=tuple(range(30)), device="cuda"),
    },
    simulate=simulate,
    decide=decide,
    rule=RULE,
)
