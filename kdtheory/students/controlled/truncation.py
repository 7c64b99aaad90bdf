"""`truncation`: teachers cut to their k most probable tokens, and which losses notice.

The teacher's logits are inner products of independent Gaussian token embeddings with random contexts, of standard
deviation 4 over 200 tokens; students are linear, of rank 4 in 16 dimensions; W1 has a line of length 1 with the tokens
in the order of their first embedding coordinate. The cut tokens get the logit -inf, and the softmax renormalises what
is left. k = 20, a tenth of the vocabulary, keeps about 95 % of the mass, as stored teachers of language models do;
k = 10 and k = 50 are beside it. (The clustered embeddings of `low_rank` keep much less: the most likely cluster is
larger than k.)

Reverse KL: the share of contexts with an infinite loss, and of parameters that are not finite after one step of a
plain implementation, Σ q (log q - log p) differentiated by autograd. With a floor e under the teacher's
probabilities: the norm of the logit gradient at the first student, fitted as a line in log 1/e (chapter 01, Theorem
4, has its coefficient).

The other losses change by less than 5 % in two senses. *Gradient*: norm of the difference of the logit gradients, all
contexts together, over the norm with the whole teacher, at the first student and at the one that forward KL has trained
on the whole teacher. *Student*: total variation to the **whole** teacher of the student trained on the cut one, over
that of the student trained on the whole one.

Adam; rate per loss by its own objective on seed 100, from the grid 0.003, 0.01, 0.03, 0.1: see `RATES`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import kdtheory as kd
from kdtheory.students import losses
from kdtheory.students.controlled import batched, compare, hypotheses, truncated
from kdtheory.students.controlled.design import Condition, Experiment, Outcome, Profile
from kdtheory.students.controlled.hypotheses import Comparison, Region

LOSSES = ("fkl", "jsd", "skl", "srkl", "w1")
"""Those that should hardly notice."""
CHANGE = Region(high=0.05)
"""Relative change of the logit gradient."""
RATE = Region(low=0.99, refuted_below=0.5)
"""Share of contexts with infinite reverse KL, and of parameters lost in one step."""
STUDENT = Region(0.95, 1.05)
"""Trained student's distance to the whole teacher: trained on the cut teacher over trained on the whole one."""
LINEAR = Region(low=0.98)
"""R² of the gradient's norm as a line in log 1/e."""
COEFFICIENT = Region(0.9, 1.1)
"""Fitted slope in log 1/e over the norm of Theorem 4's coefficient."""
RATES = {"fkl": 0.1, "rkl": 0.01, "jsd": 0.03, "skl": 0.03, "srkl": 0.03, "w1": 0.1}
"""Learning rate by loss."""
WHOLE = "whole"
_POINTS = 20


@dataclass(frozen=True)
class Settings:
    """One condition.

    Attributes
    ----------
    keep : int
        Tokens of the teacher per context; 0: all.
    floor : float
        Under the teacher's probabilities, in place of the zeros of a cut teacher; 0: none.
    tokens, contexts, features, rank, steps, warm_steps : int
        `warm_steps` of forward KL on the whole teacher make the trained student of the second gradient.
    scale : float
        Standard deviation of a teacher's logit.
    """

    keep: int = 0
    floor: float = 0.0
    tokens: int = 200
    contexts: int = 96
    features: int = 16
    rank: int = 4
    steps: int = 600
    warm_steps: int = 600
    scale: float = 4.0

    def __post_init__(self) -> None:
        if not 0 <= self.keep < self.tokens:
            raise ValueError(f"keep = {self.keep}: 0 for all, or fewer than tokens = {self.tokens}")
        if self.floor and not 0 < self.floor * self.tokens < 1:
            raise ValueError(f"floor = {self.floor:g}: {self.tokens} tokens with it must have mass below 1")
        if self.floor and not self.keep:
            raise ValueError("floor: only for a cut teacher (keep > 0)")
        if self.steps < 1 or self.steps % _POINTS:
            raise ValueError(f"steps = {self.steps}: must be a multiple of {_POINTS}, the points of a curve")


class Problem(NamedTuple):
    """Contexts (S, N, d), whole teacher's log-probabilities (S, N, V), first weights; all float64."""

    features: Tensor
    log_p: Tensor
    weights: list[Tensor]


@lru_cache(maxsize=2)
def problem(settings: Settings, seeds: tuple[int, ...], device: torch.device) -> Problem:
    """Teacher, contexts and first student of every seed, the same for all losses and all k."""

    def one(generator: torch.Generator) -> tuple[Tensor, ...]:
        points = torch.randn(settings.tokens, settings.features, generator=generator) / math.sqrt(settings.features)
        points = points[points[:, 0].argsort()]  # the line of W1
        features = torch.randn(settings.contexts, settings.features, generator=generator)
        first = torch.randn(settings.features, settings.rank, generator=generator) / math.sqrt(settings.features)
        second = 0.3 * torch.randn(settings.rank, settings.tokens, generator=generator)
        return features.double(), points.double(), first.double(), second.double()

    features, points, first, second = (x.to(device) for x in batched.draws(seeds, one))
    log_p = torch.log_softmax(settings.scale * features @ points.mT, -1)
    return Problem(features, log_p, [first, second, torch.zeros_like(second[:, 0])])


def build(name: str, tokens: int) -> Any:
    """The loss called `name`; ValueError if there is none."""
    return losses.build(name, cost=kd.TokenCost.line(np.linspace(0.0, 1.0, tokens)), transport_weight=1.0)


def _train(
    settings: Settings, given: Problem, loss: str, log_p: Tensor, steps: int, rate: float, points: int = _POINTS
) -> tuple[Tensor, list[list[dict[str, float]]]]:
    """Log-probabilities of the students after training on the teacher `log_p`, and their curves."""
    minimised = build(loss, settings.tokens)

    def objective(weights: list[Tensor]) -> Tensor:
        logits = batched.low_rank(weights, given.features)
        return batched.per_seed(minimised, teacher_logits=log_p, student_logits=logits)

    weights, curves = batched.train(given.weights, objective, steps=steps, rate=rate, points=points)
    return torch.log_softmax(batched.low_rank(weights, given.features), -1), curves


@lru_cache(maxsize=2)
def _trained(settings: Settings, seeds: tuple[int, ...], device: torch.device) -> Tensor:
    """The student that forward KL has trained on the whole teacher."""
    given = problem(settings, seeds, device)
    return _train(settings, given, "fkl", given.log_p, settings.warm_steps, RATES["fkl"], points=0)[0]


def simulate(settings: Settings, loss: str, seeds: tuple[int, ...], device: torch.device) -> list[Outcome]:
    """Changes of the gradient, rates of failure, and the distance of the trained student to the whole teacher."""
    return run(settings, loss, seeds, device, RATES[loss])


def run(settings: Settings, loss: str, seeds: tuple[int, ...], device: torch.device, rate: float) -> list[Outcome]:
    """`simulate` at any rate: also what the rates are chosen with."""
    whole = replace(settings, keep=0, floor=0.0)
    given = problem(whole, seeds, device)
    log_p = truncated.cut(given.log_p, settings.keep, settings.floor)
    first = torch.log_softmax(batched.low_rank(given.weights, given.features), -1)
    found = {"kept": truncated.kept_mass(given.log_p, settings.keep).mean(-1)}
    curves: list[list[dict[str, float]]] = [[] for _ in seeds]
    if loss == "rkl" and settings.keep and not settings.floor:
        found |= truncated.floor_growth(given.log_p, first, settings.keep)
        found["lost"] = truncated.lost_in_one_step(log_p, given.features, given.weights)
        found["infinite"] = torch.isinf(build(loss, settings.tokens).per_position(log_p, first)).double().mean(-1)
    else:
        if settings.keep:
            students = {"start": first, "trained": _trained(whole, seeds, device)}
            minimised = build(loss, settings.tokens)
            found |= {
                f"change_{at}": truncated.gradient_change(minimised, given.log_p, log_p, log_q)
                for at, log_q in students.items()
            }
        log_q, curves = _train(settings, given, loss, log_p, settings.steps, rate)
        found["tv"] = 0.5 * (given.log_p.exp() - log_q.exp()).abs().sum(-1).mean(-1)
        found["kl"] = (given.log_p.exp() * (given.log_p - log_q)).sum(-1).mean(-1)
    rows = {name: value.tolist() for name, value in found.items()}
    return [Outcome({name: row[k] for name, row in rows.items()}, curve) for k, curve in enumerate(curves)]


_ASKED = {
    "infinite": "share of infinite losses",
    "lost": "share of parameters lost in one step",
    "r2": "R² of the gradient against log 1/e",
    "coefficient": "its slope over that of Theorem 4",
}


def _reverse_kl(results: pd.DataFrame) -> list[Comparison]:
    """Failure without a floor, and growth of the gradient with one, at the usual k."""
    rows = results[(results["condition"] == USUAL) & (results["loss"] == "rkl")]
    asked = {"infinite": RATE, "lost": RATE, "r2": LINEAR, "coefficient": COEFFICIENT}
    about: dict[str, Any] = {"part": "reverse-kl", "condition": USUAL, "loss": "rkl"}
    return [
        hypotheses.compared("H8", f"reverse KL, {_ASKED[name]}", rows[name].tolist(), region, **about)
        for name, region in asked.items()
        if len(rows)
    ]


def _gradients(results: pd.DataFrame, condition: str) -> list[Comparison]:
    found = []
    for at in ("start", "trained"):
        rows = results[(results["condition"] == condition) & results["loss"].isin(LOSSES)]
        for loss, group in rows.groupby("loss", sort=False):
            outcome = f"{condition}: gradient at the {at} student, {loss}"
            about: dict[str, Any] = {"part": "gradient", "condition": condition, "loss": loss}
            found.append(hypotheses.compared("H8", outcome, group[f"change_{at}"].tolist(), CHANGE, **about))
    return found


def _students(results: pd.DataFrame, condition: str, reached: dict[tuple[str, str], bool]) -> list[Comparison]:
    """Distance to the whole teacher, cut over whole, for every loss that was trained in both."""
    found = []
    tables = [results[results["condition"] == name].set_index(["loss", "seed"])["tv"] for name in (condition, WHOLE)]
    for loss in dict.fromkeys(results[results["condition"] == condition]["loss"]):
        if (condition, loss) not in reached or (WHOLE, loss) not in reached:
            continue
        values = (tables[0][loss] / tables[1][loss]).tolist()
        both = reached[condition, loss] and reached[WHOLE, loss]
        about: dict[str, Any] = {"part": "student", "condition": condition, "loss": loss, "converged": both}
        outcome = f"{condition}: total variation of the student, cut / whole, {loss}"
        found.append(hypotheses.compared("H8", outcome, values, STUDENT, **about))
    return found


def decide(results: pd.DataFrame, curves: pd.DataFrame) -> dict[str, Any]:
    """One Holm family per k: failures and growth of reverse KL (usual k), changes of gradients, changes of students."""
    conditions = list(dict.fromkeys(curves["condition"]))
    checks = compare.plateaus(curves, conditions)
    reached = compare.reached(checks)
    rows = []
    for condition in (name for name in dict.fromkeys(results["condition"]) if name != WHOLE):
        tests = _reverse_kl(results) if condition == USUAL else []
        tests += _gradients(results, condition) if condition != FLOORED else []
        rows += hypotheses.family(tests + _students(results, condition, reached))
    return {"tests": rows, "convergence": checks}


USUAL, FLOORED = "tenth", "tenth-floor"


def _conditions(base: Settings, sizes: dict[str, int]) -> dict[str, Condition]:
    cuts = {name: Condition(replace(base, keep=keep), LOSSES) for name, keep in sizes.items()}
    usual = replace(base, keep=sizes[USUAL])
    return {
        WHOLE: Condition(base, (*LOSSES, "rkl")),
        **cuts,
        USUAL: Condition(usual, (*LOSSES, "rkl")),
        FLOORED: Condition(replace(usual, floor=1e-8), ("rkl",)),
    }


_SMALL = Settings(tokens=24, contexts=8, features=4, rank=2, steps=20, warm_steps=20)
_GPU = Settings(tokens=2000, contexts=256)
_PROFILES = {
    "smoke": Profile("smoke", _conditions(_SMALL, {USUAL: 4}), seeds=(0, 1, 2)),
    "cpu": Profile("cpu", _conditions(Settings(), {"twentieth": 10, USUAL: 20, "quarter": 50})),
    "gpu": Profile(
        "gpu", _conditions(_GPU, {"twentieth": 100, USUAL: 200, "quarter": 500}), seeds=tuple(range(30)), device="cuda"
    ),
}
EXPERIMENT = Experiment(
    id="truncation",
    profiles=_PROFILES,
    simulate=simulate,
    decide=decide,
    rule={
        "change": CHANGE.high,
        "student_low": STUDENT.low,
        "student_high": STUDENT.high,
        "rate_supported": RATE.low,
        "rate_refuted": RATE.outside[0],
        "linear": LINEAR.low,
        "coefficient_low": COEFFICIENT.low,
        "coefficient_high": COEFFICIENT.high,
    },
)
