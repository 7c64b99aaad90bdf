"""`repairs`: how the time to repair confidently wrong contexts grows with the gap in a shared network, and what helps.

The network of `shared-network` starts with a tenth of its contexts wrong: there a wrong token has the log odds `gap`,
log q/(1 - q), so that everything else together holds e^(-gap). From there every loss trains it on all contexts; what is
measured is the flow time (rate × steps, under SGD at one rate) until the bad contexts' mean total variation to the
teacher is at most 1/2, as a function of the gap. Beside it stand the repairs (a term of forward KL, the natural
gradient of W1, a temperature), Adam, and conditions that might end forward KL's lead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

import kdtheory as kd
from kdtheory.students.controlled import batched, repair_rules
from kdtheory.students.controlled.design import Condition, Experiment, Outcome, Profile
from kdtheory.students.controlled.escape import Plan, escape
from kdtheory.students.controlled.line_losses import QuickSinkhorn, RoundedW1
from kdtheory.students.controlled.saturated import Beginning, Start, starts

PURE = ("fkl", "rkl", "jsd", "tvd", "skl", "srkl", "w1", "sinkhorn")
TERMS = ("fkl+sinkhorn", "fkl+w1")
LOSSES = (*PURE, *TERMS, "natural_w1", "rounded_w1")
REPAIRED = 0.5
"""Bad contexts count as repaired once their mean total variation to the teacher is at most this."""
SKEW, EPSILON, ROUNDING = 0.1, 1 / 3, 0.05
"""Skew of the skewed losses; ε of the Sinkhorn divergence, the mean distance on a line of length 1; width over which
`RoundedW1` rounds the kink of W1, in units of mass."""
NATURAL_RATE = 0.02
"""Of natural-gradient W1, whose step does not shrink with q."""


@dataclass(frozen=True)
class Settings:
    """One condition.

    Attributes
    ----------
    gap : float
        Log odds of the wrong token in the bad contexts before training.
    bad, contexts, tokens, features : int
    optimizer : {"adam", "sgd"}
    learning_rate, steps, temperature
        Of the training with the loss; `steps` at most.
    weight : float
        λ of the losses with two terms, for tokens on a line of length 1.
    batch : int
        Contexts of a step, drawn with replacement; 0: all of them.
    tabular : bool
        Train a table of logits that starts from the network's, each context at the learning rate of its own loss.
    cold : bool
        The good contexts start from uniform logits instead of the teacher's.
    curve, whole : bool
        Record a learning curve; make all steps.
    fit_steps, fit_rate
        Of the fit (Adam, mean squared error of centred logits) that makes the initial student.
    """

    gap: float = 9.0
    bad: int = 3
    contexts: int = 30
    tokens: int = 20
    features: int = 16
    optimizer: str = "sgd"
    learning_rate: float = 0.2
    steps: int = 60000
    temperature: float = 1.0
    weight: float = 1.0
    batch: int = 0
    tabular: bool = False
    cold: bool = False
    curve: bool = False
    whole: bool = False
    fit_steps: int = 800
    fit_rate: float = 5e-3

    def __post_init__(self) -> None:
        if not 0 < self.bad < self.contexts:
            raise ValueError(f"bad = {self.bad}: at least 1 and fewer than contexts = {self.contexts}")
        if self.optimizer not in ("adam", "sgd"):
            raise ValueError(f"optimizer = {self.optimizer!r}: choose adam or sgd")
        if self.tokens < 3:
            raise ValueError(f"tokens = {self.tokens}: at least three")
        if self.batch and self.tabular:
            raise ValueError("batch: a table has no shared weights, so its contexts train alone")

    def beginning(self) -> Beginning:
        """What the start depends on; its gap is the wrong token's lead over each other one."""
        shared = {field.name: getattr(self, field.name) for field in fields(Beginning)}
        return Beginning(**{**shared, "gap": self.gap + math.log(self.tokens - 1)})

    def plan(self) -> Plan:
        """How to train."""
        return Plan(self.steps, self.learning_rate, self.optimizer, self.curve, self.whole)


def cost(settings: Settings) -> Any:
    """Tokens at equal distances on a line of length 1."""
    return kd.TokenCost.line(np.linspace(0.0, 1.0, settings.tokens))


def build(name: str, settings: Settings) -> Any:
    """The loss called `name`; ValueError if it is none of `LOSSES`."""
    if name not in LOSSES:
        raise ValueError(f"loss {name!r} is unknown; known: {', '.join(LOSSES)}")
    if name in TERMS:
        return kd.divergence("fkl") + settings.weight * build(name.removeprefix("fkl+"), settings)
    if name == "sinkhorn":
        return QuickSinkhorn(cost=cost(settings), epsilon=EPSILON)
    if name == "rounded_w1":
        return RoundedW1(cost=cost(settings), width=ROUNDING)
    if name in ("skl", "srkl"):
        return kd.divergence(name, alpha=SKEW)
    return kd.divergence(name, cost=cost(settings)) if name in ("w1", "natural_w1") else kd.divergence(name)


def simulate(settings: Settings, loss: str, seeds: tuple[int, ...], device: torch.device) -> list[Outcome]:
    """Train from the starts of these seeds; repair times, metrics of the bad contexts, learning curves."""
    begin = starts(settings.beginning(), seeds, cold=settings.cold, device=device)
    student, bad = build(loss, settings), slice(0, settings.bad)
    parameters, forward = _trainable(settings, begin)
    objective = _objective(settings, student, begin, forward, seeds)
    p = begin.log_p[:, bad].exp()

    def distance(now: list[Tensor]) -> Tensor:
        return 0.5 * (p - forward(now, bad).softmax(-1)).abs().sum(-1).mean(-1)

    def observe(now: list[Tensor], _: int) -> dict[str, Tensor]:
        return _measure(settings, student, begin, forward(now, slice(None)))

    last, repaired, curves = escape(
        parameters, objective, distance, threshold=REPAIRED, plan=settings.plan(), observe=observe
    )
    odds = _log_odds(forward(list(parameters), bad))
    final = {name: values.tolist() for name, values in observe(last, 0).items()} if settings.whole else {}
    return [
        Outcome({**_times(settings, time, gap), **{name: final[name][seed] for name in final}}, curve)
        for seed, (time, gap, curve) in enumerate(zip(repaired, odds.tolist(), curves, strict=True))
    ]


def _times(settings: Settings, repaired: int | None, gap: float) -> dict[str, float]:
    steps = float(settings.steps if repaired is None else max(repaired, 1))
    return {
        "repair_steps": steps,
        "flow_time": settings.learning_rate * steps,
        "budget_share": steps / settings.steps,
        "censored": float(repaired is None),
        "initial_gap": gap,
    }


Forward = Callable[[list[Tensor], Any], Tensor]


def _trainable(settings: Settings, begin: Start) -> tuple[list[Tensor], Forward]:
    """Parameters, and the logits (S, n, V) they give in the contexts chosen by a slice."""
    if settings.tabular:
        return [batched.mlp(begin.weights, begin.features)], lambda now, at: now[0][:, at]
    return list(begin.weights), lambda now, at: batched.mlp(now, begin.features[:, at])


def _objective(
    settings: Settings, student: Any, begin: Start, forward: Forward, seeds: tuple[int, ...]
) -> Callable[[list[Tensor], int], Tensor]:
    options = {"temperature": settings.temperature}
    if not settings.batch:
        size = settings.contexts if settings.tabular else 1

        def whole(now: list[Tensor], _: int) -> Tensor:
            logits = forward(now, slice(None))
            return size * batched.per_seed(student, teacher_logits=begin.log_p, student_logits=logits, **options)

        return whole
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]  # batches are the same for every loss

    def part(now: list[Tensor], _: int) -> Tensor:
        drawn = [torch.randint(0, settings.contexts, (settings.batch,), generator=each) for each in generators]
        rows = torch.stack(drawn).to(begin.log_p.device).unsqueeze(-1)
        features, log_p = (x.gather(1, rows.expand(-1, -1, x.shape[-1])) for x in (begin.features, begin.log_p))
        logits = batched.mlp(now, features)
        return batched.per_seed(student, teacher_logits=log_p, student_logits=logits, **options)

    return part


@torch.no_grad()
def _log_odds(logits: Tensor) -> Tensor:
    """Mean log odds (S,) of the leading token, which in the bad contexts is the wrong one, at the start."""
    log_q = torch.log_softmax(logits.double(), -1)
    leading, token = log_q.max(-1, keepdim=True)
    rest = log_q.scatter(-1, token, -math.inf).logsumexp(-1)
    return (leading[..., 0] - rest).mean(-1)


@torch.no_grad()
def _measure(settings: Settings, student: Any, begin: Start, logits: Tensor) -> dict[str, Tensor]:
    """Objective on all contexts; TV, W1 and forward KL of the bad ones, W1 of the good ones: means (S,)."""
    value = batched.per_seed(
        student, teacher_logits=begin.log_p, student_logits=logits, temperature=settings.temperature
    )
    log_p, log_q, bad = begin.log_p.double(), torch.log_softmax(logits.double(), -1), slice(0, settings.bad)
    w1 = kd.divergence("w1", cost=cost(settings)).per_position(log_p, log_q)
    return {
        "objective": value.double(),
        "tv": kd.divergence("tvd").per_position(log_p, log_q)[:, bad].mean(-1),
        "w1": w1[:, bad].mean(-1),
        "kl": kd.divergence("fkl").per_position(log_p, log_q)[:, bad].mean(-1),
        "w1_good": w1[:, settings.bad :].mean(-1),
    }


# -- conditions ------------------------------------------------------------------------------------------------------
def _series(prefix: str, losses: tuple[str, ...], base: Settings, **changes: Any) -> dict[str, Condition]:
    gaps = dict(zip(repair_rules.series(prefix), repair_rules.GAPS, strict=True))
    return {name: Condition(replace(base, gap=float(gap), **changes), losses) for name, gap in gaps.items()}


def _weighted(name: str, base: Settings) -> dict[str, Condition]:
    others = [weight for weight in repair_rules.WEIGHTS if weight != 1]
    return {f"{name}-weight-{weight}": Condition(replace(base, weight=float(weight)), TERMS) for weight in others}


def _sgd(base: Settings) -> dict[str, Condition]:
    """What has one rate and no adaptation: the gaps, and the repairs as functions of them."""
    slow = replace(base, learning_rate=NATURAL_RATE)
    found = {
        **_series("", (*PURE, *TERMS), base),
        "half-gap-7": Condition(replace(base, gap=7.0, learning_rate=base.learning_rate / 2), ("fkl", "tvd", "w1")),
        **_weighted("gap-9", base),
        **_series("natural-", ("natural_w1",), slow),
        **_series("table-", ("natural_w1", "fkl"), slow, tabular=True),
    }
    for temperature in repair_rules.TEMPERATURES:
        found |= _series(f"temperature-{temperature}-", ("w1",), base, temperature=float(temperature))
    return found | {"gap-9": Condition(replace(found["gap-9"].settings, curve=True), found["gap-9"].losses)}


def _adam(base: Settings, *, long: int, lead: int, few: int, batch: int) -> dict[str, Condition]:
    """The adaptive optimiser: whole runs, weights, a long budget for the kink, and what might end the lead."""
    pair, short = ("fkl", "w1"), replace(base, steps=lead)
    return {
        "adam": Condition(replace(base, curve=True, whole=True), (*pair, *TERMS, "natural_w1")),
        **_weighted("adam", base),
        "adam-gap-9": Condition(replace(base, gap=9.0, steps=long), ("w1", "rounded_w1", "sinkhorn")),
        "adam-few": Condition(replace(short, bad=few), pair),
        "adam-cold": Condition(replace(short, cold=True), pair),
        "adam-batch": Condition(replace(short, batch=batch), pair),
    }


_ADAM = Settings(gap=14.0, bad=20, contexts=200, optimizer="adam", learning_rate=1e-3, steps=1500)
_CPU = _sgd(Settings()) | _adam(_ADAM, long=3000, lead=800, few=2, batch=20)
_SMALL: dict[str, Any] = {"contexts": 20, "bad": 2, "tokens": 8, "features": 6, "steps": 20, "fit_steps": 60}
_ALL_SMALL = _sgd(Settings(**_SMALL)) | _adam(replace(_ADAM, **_SMALL), long=40, lead=20, few=1, batch=10)
_LEFT_OUT = ("gap-5", "gap-7", "weight-0.3")
_SMOKE = {name: item for name, item in _ALL_SMALL.items() if not name.endswith(_LEFT_OUT)}
_GPU = _sgd(Settings(contexts=100, bad=10, steps=200_000)) | _adam(
    replace(_ADAM, contexts=2000, bad=200, tokens=100, features=32), long=3000, lead=800, few=20, batch=100
)
EXPERIMENT = Experiment(
    id="repairs",
    profiles={
        "smoke": Profile("smoke", _SMOKE, seeds=(0, 1, 2)),
        "cpu": Profile("cpu", _CPU),
        "gpu": Profile("gpu", _GPU, seeds=tuple(range(30)), device="cuda"),
    },
    simulate=simulate,
    decide=repair_rules.decide,
    rule=repair_rules.RULE,
)
