"""`coverage`: students with one peak for teachers with two, on a line of tokens: modes found, mass in the void.

Tokens stand on a line of length 24, the unit being the width of a mode. A context's teacher is a mixture of two
discretised Gaussians whose centre, separation and weights are drawn per context; the student is one discretised
Gaussian whose mean (and width, or with the width fixed to that of a mode) comes from a small network of the context,
or from a table with an entry per context. It begins nearly uniform. Networks are judged on contexts they have not
seen.

What is counted does not know the losses. The *void* are the tokens between the two modes, farther than 2.5 widths from
either (the void of chapter 05). A mode is *recalled* if the student puts at least a quarter of the teacher's mass into
it, that is within 2 widths: a Gaussian that spans both modes does, one that sits on the other does not. A half would
split Gaussians that span both by their exact width; recall at a tenth and a half is stored beside it.

Adam. Rates by a loss's own held-out objective on seed 100, from the grid 0.003, 0.01, 0.03, 0.1 (`RATES`): at the
registered sizes for the network with free width, and with fixed width for forward KL, reverse KL, total variation and
W1; all others with 48 contexts and 1500 steps, where the grid was cut off before W1 in a table of fixed width, whose
rate was set by hand. Note of 2026-11-21, after the runs: at the registered sizes seed 100 picks 0.03 for that one too,
but 0.03 in place of 0.1 for W1 in a table of free width and 0.1 in place of 0.03 for Jensen-Shannon in a network of
fixed width. The registered rates stay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor

import kdtheory as kd
from kdtheory.students import losses
from kdtheory.students.controlled import batched, compare, hypotheses
from kdtheory.students.controlled.design import Condition, Experiment, Outcome, Profile
from kdtheory.students.controlled.hypotheses import Comparison, Region

LOSSES = ("fkl", "rkl", "jsd", "tvd", "skl", "srkl", "w1")
SEEKING, COVERING = ("rkl", "srkl", "jsd"), ("fkl", "w1")
VOID = Region(low=0.8, refuted_below=0.5)
"""Void mass of W1's student over that of forward KL's."""
RECALL = Region(-0.1, 0.1, refuted_below=-0.2, refuted_above=0.2)
"""Mode recall of W1's student minus that of forward KL's."""
LEAST = Region(high=1.0)
"""Void mass of the students of reverse KL, skew reverse KL and Jensen-Shannon over forward KL's, and over W1's."""
CORE, GAP = 2.0, 2.5
"""Widths: within `CORE` of its centre is a mode, between the modes and farther than `GAP` from both is the void."""
RECALLED = {"recall": 0.25, "recall_tenth": 0.1, "recall_half": 0.5}
"""Share of the teacher's mass of a mode from which it counts as recalled."""
RATES: dict[str, dict[str, float]] = {
    "network-free": {"fkl": 0.003, "rkl": 0.03, "jsd": 0.003, "tvd": 0.1, "skl": 0.1, "srkl": 0.1, "w1": 0.003},
    "network-fixed": {"fkl": 0.03, "rkl": 0.1, "jsd": 0.03, "tvd": 0.03, "skl": 0.1, "srkl": 0.1, "w1": 0.03},
    "table-free": {"fkl": 0.03, "rkl": 0.1, "jsd": 0.1, "tvd": 0.1, "skl": 0.1, "srkl": 0.1, "w1": 0.1},
    "table-fixed": {"fkl": 0.01, "rkl": 0.01, "jsd": 0.003, "tvd": 0.01, "skl": 0.01, "srkl": 0.003, "w1": 0.03},
}
"""Learning rate by kind of student and loss."""
_HALF_LENGTH, _CENTRE, _APART, _MAJOR = 12.0, 2.0, (3.0, 6.0), (0.5, 0.8)
_BROAD = math.log(6.0)  # first log width: a quarter of the line, nearly uniform
_POINTS = 20


@dataclass(frozen=True)
class Settings:
    """One condition.

    Attributes
    ----------
    student : {"network", "table"}
        tanh network with one hidden layer, or an entry per context.
    width : {"free", "fixed"}
        Whether the student's width is trained, or is that of a mode.
    tokens, contexts, unseen, hidden, steps : int
        `unseen` contexts are held out from a network; a table has none.
    """

    student: str = "network"
    width: str = "free"
    tokens: int = 61
    contexts: int = 64
    unseen: int = 64
    hidden: int = 16
    steps: int = 2000

    def __post_init__(self) -> None:
        if self.student not in ("network", "table"):
            raise ValueError(f"student = {self.student!r}: choose network or table")
        if self.width not in ("free", "fixed"):
            raise ValueError(f"width = {self.width!r}: choose free or fixed")
        if self.tokens < 25:
            raise ValueError(f"tokens = {self.tokens}: at least 25, or the void of near modes may hold none")
        if self.steps < 1 or self.steps % _POINTS:
            raise ValueError(f"steps = {self.steps}: must be a multiple of {_POINTS}, the points of a curve")

    @property
    def name(self) -> str:
        """Kind of student, e.g. ``network-free``."""
        return f"{self.student}-{self.width}"


@dataclass(frozen=True)
class Teachers:
    """Mixtures of all seeds, (S, N): `centre`, `half` the distance of the modes, weight of the `left` mode."""

    centre: Tensor
    half: Tensor
    left: Tensor

    def log_p(self, places: Tensor) -> Tensor:
        """Log-probabilities of tokens at `places` (V,), shape (S, N, V)."""
        modes = torch.stack([self.centre - self.half, self.centre + self.half], -1).unsqueeze(-1)
        shares = torch.stack([self.left, 1 - self.left], -1).unsqueeze(-1)
        return torch.log_softmax(torch.logsumexp(shares.log() - 0.5 * (places - modes) ** 2, -2), -1)

    def features(self) -> Tensor:
        """What a student sees of a context, each about of size 1: (S, N, 3)."""
        middle = sum(_APART) / 2
        return torch.stack([self.centre / _CENTRE, (self.half - middle) / 1.5, (self.left - 0.5) / 0.3], -1)

    def at(self, chosen: slice) -> Teachers:
        """Some of the contexts."""
        return Teachers(self.centre[:, chosen], self.half[:, chosen], self.left[:, chosen])


def teachers(settings: Settings, seeds: tuple[int, ...]) -> Teachers:
    """Contexts to train on first, then the unseen ones."""
    count = settings.contexts + (settings.unseen if settings.student == "network" else 0)

    def one(generator: torch.Generator) -> tuple[Tensor, ...]:
        centre, half, major, side = torch.rand(4, count, generator=generator, dtype=torch.float64)
        weight = _MAJOR[0] + (_MAJOR[1] - _MAJOR[0]) * major
        return (
            _CENTRE * (2 * centre - 1),
            _APART[0] + (_APART[1] - _APART[0]) * half,
            torch.where(side < 0.5, weight, 1 - weight),
        )

    return Teachers(*batched.draws(seeds, one))


def places(settings: Settings) -> Tensor:
    """Where the tokens stand, (V,), in widths of a mode."""
    return torch.linspace(-_HALF_LENGTH, _HALF_LENGTH, settings.tokens, dtype=torch.float64)


def first_weights(settings: Settings, seeds: tuple[int, ...]) -> list[Tensor]:
    """Network (the weights of `kdtheory.students.controlled.batched.mlp_weights`) or table of (mean/4, log width)."""
    sizes = (3, settings.hidden, 2)
    if settings.student == "table":
        return [torch.zeros(len(seeds), settings.contexts, 2, dtype=torch.float64)]
    drawn = batched.draws([seed + 2**32 for seed in seeds], lambda generator: batched.mlp_weights(generator, sizes))
    return [*(weight.double() for weight in drawn[:2]), 0.1 * drawn[2].double(), drawn[3].double()]


def student(weights: list[Tensor], features: Tensor, settings: Settings) -> Tensor:
    """Logits -(x - mean)²/2 width² of the students, (S, N, V)."""
    raw = weights[0] if settings.student == "table" else batched.mlp(weights, features)
    mean, log_width = 4 * raw[..., :1], raw[..., 1:] + _BROAD
    if settings.width == "fixed":
        log_width = torch.zeros_like(log_width)
    return -0.5 * ((places(settings).to(raw) - mean) * torch.exp(-log_width)) ** 2


def measure(log_p: Tensor, log_q: Tensor, given: Teachers, where: Tensor) -> dict[str, Tensor]:
    """Void mass and mode recall of student and teacher, means over contexts, (S,) each."""
    modes = torch.stack([given.centre - given.half, given.centre + given.half], -1).unsqueeze(-1)  # (S, N, 2, 1)
    far = ((where - modes).abs() > GAP).all(-2)
    void = far & (where > modes[..., 0, :]) & (where < modes[..., 1, :])
    core = (where - modes).abs() <= CORE
    p, q = log_p.exp(), log_q.exp()
    shares = (q.unsqueeze(-2) * core).sum(-1) / (p.unsqueeze(-2) * core).sum(-1)
    found = {name: (shares >= share).double().mean((-1, -2)) for name, share in RECALLED.items()}
    masses = {"void": (q * void).sum(-1).mean(-1), "teacher_void": (p * void).sum(-1).mean(-1)}
    tokens = {"void_tokens": void.double().sum(-1).amin(-1)}
    return found | masses | tokens


def build(name: str, settings: Settings) -> Any:
    """The loss called `name`, W1 in widths of a mode; ValueError if it is none of `LOSSES`."""
    if name not in LOSSES:
        raise ValueError(f"loss {name!r} is unknown; known: {', '.join(LOSSES)}")
    return losses.build(name, cost=kd.TokenCost.line(places(settings).numpy()), transport_weight=1.0)


def simulate(settings: Settings, loss: str, seeds: tuple[int, ...], device: torch.device) -> list[Outcome]:
    """Train all seeds; void mass, mode recall, mean width, and distances to the teacher, on contexts held out."""
    return run(settings, loss, seeds, device, RATES[settings.name][loss])


def run(settings: Settings, loss: str, seeds: tuple[int, ...], device: torch.device, rate: float) -> list[Outcome]:
    """`simulate` at any rate: also what the rates are chosen with."""
    given, objective_of = teachers(settings, seeds), build(loss, settings)
    where = places(settings).to(device)
    given = Teachers(given.centre.to(device), given.half.to(device), given.left.to(device))
    log_p, features = given.log_p(where), given.features()
    seen = slice(0, settings.contexts)
    judged = seen if settings.student == "table" else slice(settings.contexts, None)

    def objective(weights: list[Tensor], at: slice = seen) -> Tensor:
        logits = student(weights, features[:, at], settings)
        return batched.per_seed(objective_of, teacher_logits=log_p[:, at], student_logits=logits)

    def observe(weights: list[Tensor], _: int) -> dict[str, Tensor]:
        return {"objective": objective(weights, judged), "train_objective": objective(weights)}

    first = [weight.to(device) for weight in first_weights(settings, seeds)]
    weights, curves = batched.train(first, objective, steps=settings.steps, rate=rate, points=_POINTS, observe=observe)
    log_q = torch.log_softmax(student(weights, features[:, judged], settings), -1)
    found = measure(log_p[:, judged], log_q, given.at(judged), where)
    for name in ("fkl", "w1"):
        found[name] = build(name, settings).per_position(log_p[:, judged], log_q).mean(-1)
    rows = {name: value.tolist() for name, value in found.items()}
    return [Outcome({name: row[k] for name, row in rows.items()}, curve) for k, curve in enumerate(curves)]


def _tests(results: pd.DataFrame, condition: str, reached: dict[str, bool]) -> list[Comparison]:
    """H6 in one condition: W1 against forward KL, and the three that should have the least void mass."""
    void, recall = (compare.wide(results, condition, name) for name in ("void", "recall"))
    found = []
    if {"w1", "fkl"} <= set(void):
        both = reached["w1"] and reached["fkl"]
        options: dict[str, Any] = {"converged": both, "part": "covers", "condition": condition, "loss": "w1"}
        ratio, difference = (void["w1"] / void["fkl"]).tolist(), (recall["w1"] - recall["fkl"]).tolist()
        found.append(
            hypotheses.compared("H6", f"{condition}: void mass, W1 / FKL", ratio, VOID, scale="log", **options)
        )
        found.append(hypotheses.compared("H6", f"{condition}: mode recall, W1 - FKL", difference, RECALL, **options))
    for loss in (name for name in SEEKING if name in void):
        for other in (name for name in COVERING if name in void):
            both = reached[loss] and reached[other]
            outcome = f"{condition}: void mass, {loss} / {other}"
            values = (void[loss] / void[other]).tolist()
            about: dict[str, Any] = {"converged": both, "part": "least", "condition": condition, "loss": loss}
            found.append(hypotheses.compared("H6", outcome, values, LEAST, scale="log", **about))
    return found


def decide(results: pd.DataFrame, curves: pd.DataFrame) -> dict[str, Any]:
    """Per condition one Holm family: W1 against forward KL in void mass and recall, and who has the least void."""
    rows, checks = [], []
    for condition in dict.fromkeys(results["condition"]):
        found = compare.plateaus(curves, [condition])
        rows += hypotheses.family(_tests(results, condition, {row["loss"]: row["converged"] for row in found}))
        checks += found
    return {"tests": rows, "convergence": checks}


def _conditions(base: Settings) -> dict[str, Condition]:
    every = [
        replace(base, student=student, width=width) for student in ("network", "table") for width in ("free", "fixed")
    ]
    return {item.name: Condition(item, LOSSES) for item in every}


_SMALL = Settings(tokens=31, contexts=8, unseen=8, steps=40)
_BRIEF = ("network-free", "table-fixed")
_PROFILES = {
    "smoke": Profile(
        "smoke", {name: item for name, item in _conditions(_SMALL).items() if name in _BRIEF}, seeds=(0, 1, 2)
    ),
    "cpu": Profile("cpu", _conditions(Settings())),
    "gpu": Profile("gpu", _conditions(Settings(contexts=512, unseen=512)), seeds=tuple(range(30)), device="cuda"),
}
EXPERIMENT = Experiment(
    id="coverage",
    profiles=_PROFILES,
    simulate=simulate,
    decide=decide,
    rule={
        "void_supported": VOID.low,
        "void_refuted": VOID.outside[0],
        "recall_supported": RECALL.high,
        "recall_refuted": RECALL.outside[1],
        "least": LEAST.high,
        **RECALLED,
        "core": CORE,
        "gap": GAP,
    },
)
