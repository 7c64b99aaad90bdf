"""`tail`: how long each token of a long-tailed teacher takes, under f-divergences and under smoothed transport.

The teacher is Zipf; the student is a table of logits that begins near it. Forward KL and its relatives should repair a
token of probability p in a time proportional to 1/p, the Sinkhorn divergence S_ε with ε the mean distance in one
proportional to 1/p². Tokens are grouped by octaves of rank, and a group's time is when its root mean square error of
log q has fallen to 1/e.

Two metrics, with mean distance 1: distances of the token embeddings of `low_rank` (clusters in 16 dimensions, assigned
to ranks at random), and random places on a line. On a line the r-th token has a more frequent one at a distance of the
order 1/r, from which a smooth slope hardly tells it; so there the time should grow by a further factor r, which is
p^(-1/s) for p ∝ r^-s. Both are drawn anew for each seed.

Times are those of the gradient flow (rate times steps, exactly). Beside them: Adam, whose steps do not know the size
of a gradient, and a smaller ε.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import kdtheory as kd
from kdtheory import simplex
from kdtheory.students.controlled import batched, compare, hypotheses, low_rank, relaxation
from kdtheory.students.controlled.design import Condition, Experiment, Outcome, Profile
from kdtheory.students.controlled.hypotheses import Comparison, Region
from kdtheory.students.controlled.relaxation import Array, Start

CURVATURE = {"fkl": 1.0, "rkl": 1.0, "jsd": 0.25, "skl": 0.81, "srkl": 0.81}
"""f''(1) of Theorem 24, for β = ½ and α = 0.1."""
TRANSPORT = "sinkhorn"
LOSSES = (*CURVATURE, TRANSPORT)
DIFFERENCE = Region(-1.4, -0.6)
"""H4: slope of log time against log p of S_ε, minus that of forward KL."""
DIVERGENCE = Region(-1.2, -0.8)
"""The slope of an f-divergence."""
LINE = Region(-0.4, 0.4)
"""On a line: the difference of slopes minus the expected -(1 + 1/s)."""
CLOSED = Region(-0.1, 0.1)
"""Slope of the flow minus that of the flow linearised at the teacher, from errors a tenth as large."""
ADAM = Region(-0.3, 0.3)
"""The difference of slopes if the optimiser's steps do not know the size of a gradient."""
_POINTS = 20
_LAST = 1e14  # flow time at which a group that is not fitted is censored


@dataclass(frozen=True)
class Settings:
    """One condition.

    Attributes
    ----------
    metric : {"embedding", "line"}
    tokens, features : int
        Vocabulary, a multiple of the 6 clusters; dimension of the embeddings.
    exponent, noise : float
        Zipf's exponent; standard deviation of the student's first error, in nats per logit.
    epsilon : float
        Of S_ε, in mean distances.
    optimizer : {"flow", "adam"}
        Gradient flow, or Adam with `rate` for `steps` steps; times are flow time or steps.
    """

    metric: str = "embedding"
    tokens: int = 126
    features: int = 16
    exponent: float = 1.0
    noise: float = 0.2
    epsilon: float = 1.0
    optimizer: str = "flow"
    rate: float = 0.002
    steps: int = 900

    def __post_init__(self) -> None:
        if self.metric not in ("embedding", "line"):
            raise ValueError(f"metric = {self.metric!r}: choose embedding or line")
        if self.optimizer not in ("flow", "adam"):
            raise ValueError(f"optimizer = {self.optimizer!r}: choose flow or adam")
        if self.tokens < 14:
            raise ValueError(f"tokens = {self.tokens}: at least 14, for two groups of ranks")
        if self.steps < 1 or self.steps % _POINTS:
            raise ValueError(f"steps = {self.steps}: must be a multiple of {_POINTS}, the points of a curve")

    def teacher(self) -> Array:
        """Probabilities (V,), descending."""
        return simplex.zipf(self.tokens, self.exponent)


class Problem(NamedTuple):
    """Teacher and first student, and the token cost, of mean distance 1."""

    start: Start
    cost: Any


def problem(settings: Settings, seed: int) -> Problem:
    """Start and metric of a seed; the same whatever the loss."""
    generator = torch.Generator().manual_seed(seed)
    log_p = torch.from_numpy(np.log(settings.teacher()))
    first = log_p + settings.noise * torch.randn(settings.tokens, generator=generator, dtype=torch.float64)
    if settings.metric == "line":
        points = torch.rand(settings.tokens, 1, generator=generator, dtype=torch.float64)
    else:
        sizes = low_rank.Settings(tokens=settings.tokens, features=settings.features)
        points = low_rank.embeddings(sizes, generator).double()
        points = points[torch.randperm(settings.tokens, generator=generator)]  # clusters know nothing of ranks
    mean = torch.cdist(points, points).sum() / (settings.tokens * (settings.tokens - 1))
    return Problem(Start(log_p, first), kd.TokenCost.embedding(points / mean))


def build(name: str, given: Problem, settings: Settings) -> Any:
    """The loss called `name`; ValueError if it is none of `LOSSES`."""
    if name not in LOSSES:
        raise ValueError(f"loss {name!r} is unknown; known: {', '.join(LOSSES)}")
    if name == TRANSPORT:
        return kd.divergence("sinkhorn", cost=given.cost, epsilon=settings.epsilon)
    return kd.divergence(name, alpha=0.1) if name in ("skl", "srkl") else kd.divergence(name)


def _flowed(settings: Settings, loss: str, seed: int) -> tuple[Array, list[dict[str, float]]]:
    """Times of the groups, and the objective at evenly spaced times."""
    given = problem(settings, seed)
    student = build(loss, given, settings)
    end, path = relaxation.flow(student, given.start, horizon=_LAST)
    grid = np.linspace(0, end, _POINTS + 1)
    log_q = torch.log_softmax(torch.from_numpy(path(grid)), -1)
    values = student.per_position(given.start.log_p.expand_as(log_q), log_q).tolist()
    curve = [{"step": k, "objective": x, "time": t} for k, (x, t) in enumerate(zip(values, grid.tolist(), strict=True))]
    return relaxation.flow_times(given.start, end, path), curve


def _stepped(settings: Settings, loss: str, seeds: tuple[int, ...]) -> list[tuple[Array, list[dict[str, float]]]]:
    """Adam, all seeds in one program; every step is observed, because times are counted in steps."""
    given = [problem(settings, seed) for seed in seeds]
    log_p = given[0].start.log_p
    students = [build(loss, one, settings) for one in given]

    def objective(weights: list[Tensor]) -> Tensor:
        pairs = zip(students, weights[0], strict=True)
        return torch.stack([one.loss(teacher_logits=log_p, student_logits=z) for one, z in pairs])

    def observe(weights: list[Tensor], step: int) -> dict[str, Tensor]:
        sizes = torch.from_numpy(relaxation.errors(log_p.numpy(), weights[0].detach().numpy()))
        found = {f"error_{k}": size for k, size in enumerate(sizes.T)}
        shown = step % (settings.steps // _POINTS) == 0
        return found | {"objective": objective(weights) if shown else torch.full_like(sizes[:, 0], torch.nan)}

    first = torch.stack([one.start.logits for one in given])
    _, curves = batched.train(
        [first], objective, steps=settings.steps, rate=settings.rate, points=settings.steps, observe=observe
    )
    found = []
    for curve in (pd.DataFrame(one) for one in curves):
        sizes, steps = curve.filter(like="error_").to_numpy(), curve["step"].to_numpy(dtype=np.float64)
        shown = curve.iloc[:: settings.steps // _POINTS]
        points = [{"step": k, "objective": x} for k, x in zip(shown["step"], shown["objective"], strict=True)]
        found.append((relaxation.crossings(steps, sizes / sizes[0]), points))
    return found


def closed_times(settings: Settings, loss: str, given: Problem) -> Array:
    """Times of the flow linearised at the teacher."""
    p = settings.teacher()
    if loss == TRANSPORT:
        hessian = relaxation.sinkhorn_hessian(p, given.cost, settings.epsilon)
    else:
        hessian = relaxation.fisher_hessian(p, CURVATURE[loss])
    return relaxation.linear_times(hessian, given.start)


def simulate(settings: Settings, loss: str, seeds: tuple[int, ...], device: torch.device) -> list[Outcome]:
    """Times of every group (``time_0`` ...), their slope, and the linearised ones; on the CPU whatever the device."""
    flows = settings.optimizer == "flow"
    runs = [_flowed(settings, loss, seed) for seed in seeds] if flows else _stepped(settings, loss, seeds)
    p, outcomes = settings.teacher(), []
    for seed, (times, curve) in zip(seeds, runs, strict=True):
        late = np.isnan(times)
        times = np.where(late, _LAST if flows else settings.steps, times)
        closed = closed_times(settings, loss, problem(settings, seed))
        metrics = {"slope": relaxation.slope(p, times), "closed_slope": relaxation.slope(p, closed)}
        metrics |= {"censored": float(late.any())}
        metrics |= {f"time_{k}": float(t) for k, t in enumerate(times)}
        outcomes.append(Outcome(metrics | {f"closed_{k}": float(t) for k, t in enumerate(closed)}, curve))
    return outcomes


def _slopes(results: pd.DataFrame, condition: str, metric: str = "slope") -> pd.DataFrame:
    """One row per seed, one column per loss; no column where the condition was not run."""
    return compare.wide(results, condition, metric) if condition in set(results["condition"]) else pd.DataFrame()


def _differences(results: pd.DataFrame, condition: str, region: Region, part: str, shift: float = 0.0) -> list[Any]:
    """S_ε minus forward KL, minus `shift`. A censored time of S_ε is too short, its slope too flat: an upper bound."""
    table = _slopes(results, condition)
    if not {TRANSPORT, "fkl"} <= set(table):
        return []
    late = compare.wide(results, condition, "censored")
    sides: dict[str, Any] = {"censored": int((late[TRANSPORT] + late["fkl"] > 0).sum())}
    sides["bounds"] = "above" if not late["fkl"].any() else ""
    values = (table[TRANSPORT] - table["fkl"] - shift).tolist()
    outcome = f"{condition}: slope of S_ε minus slope of forward KL" + (" minus the expected" if shift else "")
    return [hypotheses.compared("H4", outcome, values, region, part=part, condition=condition, **sides)]


def _divergences(results: pd.DataFrame) -> list[Comparison]:
    table = _slopes(results, "embedding")
    return [
        hypotheses.compared("H4", f"slope, {loss}", table[loss].tolist(), DIVERGENCE, part="divergences", loss=loss)
        for loss in CURVATURE
        if loss in table
    ]


def _closed(results: pd.DataFrame) -> list[Comparison]:
    flows, closed = _slopes(results, "small-errors"), _slopes(results, "small-errors", "closed_slope")
    found = []
    for loss in (name for name in (TRANSPORT, "fkl") if name in flows):
        outcome = f"small-errors: slope of the flow minus the linearised one, {loss}"
        about: dict[str, Any] = {"part": "closed", "condition": "small-errors", "loss": loss}
        found.append(hypotheses.compared("H4", outcome, (flows[loss] - closed[loss]).tolist(), CLOSED, **about))
    return found


def decide(results: pd.DataFrame, curves: pd.DataFrame) -> dict[str, Any]:
    """One Holm family: the difference of slopes per condition, slopes of the divergences, flow against closed form.

    Times need no plateau; whether the flow's objective has come to rest is reported beside them.
    """
    tests = [
        *_differences(results, "embedding", DIFFERENCE, "main"),
        *_differences(results, "line", DIFFERENCE, "line"),
        *_differences(results, "line", LINE, "line-expected", shift=-(1 + 1 / Settings().exponent)),
        *_differences(results, "epsilon-0.3", DIFFERENCE, "epsilon"),
        *_differences(results, "adam", ADAM, "adam"),
        *_divergences(results),
        *_closed(results),
    ]
    conditions = list(dict.fromkeys(results["condition"]))
    return {
        "tests": hypotheses.family(tests),
        "convergence": compare.plateaus(curves, conditions),
    }


_BASE, _PAIR = Settings(), ("fkl", TRANSPORT)


def _conditions(base: Settings) -> dict[str, Condition]:
    return {
        "embedding": Condition(base, LOSSES),
        "line": Condition(replace(base, metric="line"), _PAIR),
        "epsilon-0.3": Condition(replace(base, epsilon=0.3), _PAIR),
        "small-errors": Condition(replace(base, noise=0.02), _PAIR),
        "adam": Condition(replace(base, optimizer="adam"), _PAIR),
    }


_SMALL = replace(_BASE, tokens=18, steps=20)
_SMOKE = {
    "embedding": Condition(replace(_SMALL, epsilon=3.0), LOSSES),  # fewer sweeps
    "adam": Condition(replace(_SMALL, optimizer="adam"), _PAIR),
}
_PROFILES = {
    "smoke": Profile("smoke", _SMOKE, seeds=(0, 1, 2)),
    "cpu": Profile("cpu", _conditions(_BASE)),
    "gpu": Profile("gpu", _conditions(replace(_BASE, tokens=510)), seeds=tuple(range(30)), device="cuda"),
}
EXPERIMENT = Experiment(
    id="tail",
    profiles=_PROFILES,
    simulate=simulate,
    decide=decide,
    rule={
        "difference_low": DIFFERENCE.low,
        "difference_high": DIFFERENCE.high,
        "divergence_low": DIVERGENCE.low,
        "divergence_high": DIVERGENCE.high,
        "line": LINE.high,
        "closed": CLOSED.high,
        "adam": ADAM.high,
    },
)
