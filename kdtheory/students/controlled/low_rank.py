"""`low-rank`: linear softmax students of bounded rank, judged on contexts they have not seen.

The teacher's logits are inner products of token embeddings (clusters, decaying spectrum) with random contexts; the
student's are x A B + b with A B of rank r. At full rank it can be the teacher; below, each loss has to choose what to
give up. The ground metric is a tree of the same embeddings, diameter 1, so that transport costs mean something. All
losses of a seed begin from one short forward-KL fit.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import pandas as pd
import torch
from torch import Tensor

import kdtheory as kd
from kdtheory.students import evaluate, losses, statistics
from kdtheory.students.controlled import compare
from kdtheory.students.controlled.design import Condition, Experiment, Outcome, Profile, one_by_one
from kdtheory.students.token_metrics import TokenMetrics

LOSSES = ("fkl", "rkl", "jsd", "tvd", "w1", "fkl+w1")
CRITERIA = {"fkl": "kl", "rkl": "rkl", "tvd": "tv", "w1": "w1"}
"""Losses that are their own criterion, and the name of that metric."""
METRICS = ("kl", "rkl", "jsd", "tv", "w1", "decision_cost", "agreement")
"""Forward KL, reverse KL, JSD (nats), TV, W1 (tree diameters) to the teacher; expected distance of the teacher's token
from the student's medoid (tree diameters); share of contexts with the same most likely token. Held out; with the
prefix ``train_`` on the training contexts."""
GAIN = 0.10
"""W1 lowers the decision cost if it is lower by this share of forward KL's."""
VANISHED = 0.25
"""Capacity removes a difference if less than this share of its size at the narrow rank is left at full rank."""
NARROW, WELL_SAMPLED = "rank-2", "rank-2-well-sampled"
_CLUSTERS, _SPREAD, _DECAY = 6, 0.35, 0.5
_POINTS = 20  # of a learning curve


@dataclass(frozen=True)
class Settings:
    """One condition.

    Attributes
    ----------
    rank, features, tokens, train, test : int
        Rank of the student; dimension of contexts and of token embeddings; sizes.
    scale : float
        Standard deviation of a teacher's logit.
    learning_rate : float
        Of Adam, the same for all losses. Choosing it on held-out contexts takes the smallest rate of any grid for most
        losses, which is early stopping next to the shared start; at this one all reach their plateau.
    steps, warm_steps : int
        Full-batch steps with the loss, and with forward KL before that.
    warm_rate, transport_weight : float
        Learning rate of the warm start; λ of ``fkl+w1``.
    """

    rank: int = 2
    features: int = 16
    tokens: int = 30
    train: int = 300
    test: int = 100
    scale: float = 5.0
    steps: int = 800
    warm_steps: int = 300
    warm_rate: float = 1e-2
    transport_weight: float = 1.0
    learning_rate: float = 1e-2

    def __post_init__(self) -> None:
        if not 0 < self.rank <= self.features:
            raise ValueError(f"rank = {self.rank}: between 1 and features = {self.features}")
        if self.tokens < 1 or self.tokens % _CLUSTERS:
            raise ValueError(f"tokens = {self.tokens}: must be a multiple of {_CLUSTERS}, the clusters of the teacher")
        if self.steps < 1 or self.steps % _POINTS:
            raise ValueError(f"steps = {self.steps}: must be a multiple of {_POINTS}, the points of a curve")
        if self.train < 1 or self.test < 1:
            raise ValueError(f"train = {self.train}, test = {self.test}: at least one context each")


@dataclass(frozen=True)
class Problem:
    """Contexts (N, d), the teacher's log-probabilities (N, V), the token tree, and the weights all losses begin from.

    Training contexts come first.
    """

    features: Tensor
    log_p: Tensor
    cost: Any
    weights: tuple[Tensor, ...]


def build(name: str, settings: Settings, cost: Any) -> Any:
    """The loss called `name`; ValueError if it is none of `LOSSES`."""
    if name not in LOSSES:
        raise ValueError(f"loss {name!r} is unknown; known: {', '.join(LOSSES)}")
    return losses.build(name, cost=cost, transport_weight=settings.transport_weight)


def embeddings(settings: Settings, generator: torch.Generator) -> Tensor:
    """Token embeddings (V, d): clusters, the k-th coordinate smaller by k^-1/2, mean square length 1."""
    centres = torch.randn(_CLUSTERS, settings.features, generator=generator)
    noise = torch.randn(settings.tokens, settings.features, generator=generator)
    spectrum = torch.arange(1, settings.features + 1) ** -_DECAY
    points = (centres.repeat_interleave(settings.tokens // _CLUSTERS, 0) + _SPREAD * noise) * spectrum
    return points / points.square().sum(1).mean().sqrt()


@lru_cache(maxsize=16)  # the seeds of a profile: losses of a condition share them
def problem(settings: Settings, seed: int) -> Problem:
    """Teacher, contexts and warm start of a seed."""
    generator = torch.Generator().manual_seed(seed)
    points = embeddings(settings, generator)
    features = torch.randn(settings.train + settings.test, settings.features, generator=generator)
    log_p = torch.log_softmax(settings.scale * features @ points.T, -1)
    first = torch.randn(settings.features, settings.rank, generator=generator) / math.sqrt(settings.features)
    second = 0.3 * torch.randn(settings.rank, settings.tokens, generator=generator)
    cold = Problem(features, log_p, TokenMetrics(points).tree, (first, second, torch.zeros(settings.tokens)))
    weights, _ = _train(cold, settings, "fkl", settings.warm_rate, settings.warm_steps, points=0)
    return replace(cold, weights=weights)


def logits(weights: tuple[Tensor, ...] | list[Tensor], features: Tensor) -> Tensor:
    """x A B + b."""
    return features @ weights[0] @ weights[1] + weights[2]


def _train(
    given: Problem, settings: Settings, loss: str, rate: float, steps: int, *, points: int = _POINTS
) -> tuple[tuple[Tensor, ...], list[dict[str, float]]]:
    """Weights after `steps` of Adam on the training contexts, and the held-out objective along the way."""
    student, seen = build(loss, settings, given.cost), slice(0, settings.train)
    weights = [weight.clone().requires_grad_() for weight in given.weights]
    optimizer = torch.optim.Adam(weights, lr=rate, fused=True)
    curve = []
    for step in range(steps + 1):
        if points and step % (steps // points) == 0:
            point = {"objective": slice(settings.train, None), "train_objective": seen}
            curve.append(
                {"step": step, **{name: _objective(student, given, weights, at) for name, at in point.items()}}
            )
        if step == steps:
            break
        optimizer.zero_grad()
        student.loss(teacher_logits=given.log_p[seen], student_logits=logits(weights, given.features[seen])).backward()
        optimizer.step()
    return tuple(weight.detach() for weight in weights), curve


@torch.no_grad()
def _objective(student: Any, given: Problem, weights: list[Tensor], at: slice) -> float:
    log_q = torch.log_softmax(logits(weights, given.features[at]).double(), -1)
    return float(student.per_position(given.log_p[at].double(), log_q).mean())


@torch.no_grad()
def measure(log_p: Tensor, log_q: Tensor, cost: Any) -> dict[str, float]:
    """Means of `METRICS` over contexts, from log-probabilities (N, V)."""
    log_p, log_q = log_p.double(), log_q.double()
    found = evaluate.distances(log_p, log_q, cost)
    found |= {
        "kl": found["fkl"],
        "jsd": kd.divergence("jsd").per_position(log_p, log_q),
        "decision_cost": decision_cost(log_p.exp(), log_q.exp(), cost.matrix()),
        "agreement": (log_p.argmax(-1) == log_q.argmax(-1)).double(),
    }
    return {name: float(found[name].mean()) for name in METRICS}


def decision_cost(p: Tensor, q: Tensor, C: Tensor) -> Tensor:
    """Expected cost under p of the token that has the least expected cost under q (its medoid), per row.

    Shapes (N, V), (N, V), (V, V) -> (N,), in units of C.
    """
    medoid = (q @ C.T).argmin(-1, keepdim=True)
    return (p @ C).gather(-1, medoid).squeeze(-1)


def simulate(settings: Settings, loss: str, seed: int) -> Outcome:
    """Train with one loss from the seed's warm start; metrics on held-out and on training contexts."""
    given = problem(settings, seed)
    weights, curve = _train(given, settings, loss, settings.learning_rate, settings.steps)
    log_q = torch.log_softmax(logits(weights, given.features), -1)
    held, seen = slice(settings.train, None), slice(0, settings.train)
    metrics = measure(given.log_p[held], log_q[held], given.cost)
    trained = measure(given.log_p[seen], log_q[seen], given.cost)
    return Outcome({**metrics, **{f"train_{name}": value for name, value in trained.items()}}, curve)


def decide(results: pd.DataFrame, curves: pd.DataFrame) -> dict[str, Any]:
    """Own criterion (held out and on training contexts), every loss against forward KL, and capacity.

    A held-out comparison needs the plateau of the held-out objectives, one on training contexts that of theirs.
    """
    conditions = list(dict.fromkeys(results["condition"]))
    held = compare.plateaus(curves, conditions)
    seen = compare.plateaus(curves, conditions, "train_objective")
    rows = []
    for condition in (name for name in (NARROW, WELL_SAMPLED) if name in conditions):
        rows += _own(results, condition, "", compare.reached(held)) + _own(
            results, condition, "train_", compare.reached(seen)
        )
        rows += _against_fkl(results, condition, compare.reached(held))
    return {"comparisons": rows, "capacity": _capacity(results), "convergence": held, "train_convergence": seen}


def _own(
    results: pd.DataFrame, condition: str, prefix: str, converged: dict[tuple[str, str], bool]
) -> list[dict[str, Any]]:
    """In each criterion, the student trained on it minus every other student of a pure loss: one Holm family."""
    pairs = []
    for loss, metric in CRITERIA.items():
        table = compare.wide(results, condition, prefix + metric)
        others = [name for name in table if name not in (loss, "fkl+w1")] if loss in table else []
        pairs += [(("own", prefix + metric, loss, other), table) for other in others]
    return _differences(pairs, condition, converged)


def _against_fkl(results: pd.DataFrame, condition: str, converged: dict[tuple[str, str], bool]) -> list[dict[str, Any]]:
    """Every loss minus forward KL in every held-out metric: a Holm family per metric."""
    rows = []
    for metric in METRICS:
        table = compare.wide(results, condition, metric)
        pairs = [(("fkl", metric, loss, "fkl"), table) for loss in table if loss != "fkl" and "fkl" in table]
        rows += _differences(pairs, condition, converged)
    return rows


def _differences(
    pairs: list[tuple[tuple[str, str, Any, Any], pd.DataFrame]], condition: str, converged: dict[tuple[str, str], bool]
) -> list[dict[str, Any]]:
    """One Holm family of paired differences with the three-way decision of `kdtheory.students.statistics`."""
    found = [statistics.paired((table[loss] - table[other]).tolist()) for (_, _, loss, other), table in pairs]
    adjusted = statistics.holm([result.p for result in found])
    rows = []
    for ((kind, metric, loss, other), table), result, p_holm in zip(pairs, found, adjusted, strict=True):
        level = float(table[other].mean())
        both = converged[condition, loss] and converged[condition, other]
        decision = statistics.decide(result, p_holm=p_holm, reference=level, converged=both)
        about = {"family": kind, "condition": condition, "metric": metric, "loss": loss, "reference": other}
        rows.append({**about, "reference_mean": level, **vars(result), "p_holm": p_holm, "decision": decision})
    return rows


def _capacity(results: pd.DataFrame) -> list[dict[str, Any]]:
    """How much of the distance between the students of W1 and of forward KL is left at full rank, per metric.

    Full is the highest rank that was run.
    """
    ranks = {int(name[5:]): name for name in results["condition"].unique() if re.fullmatch(r"rank-\d+", name)}
    if len(ranks) < 2 or NARROW not in ranks.values():
        return []
    rows = []
    for metric in METRICS:
        sizes = []
        for name in (NARROW, ranks[max(ranks)]):
            table = compare.wide(results, name, metric)
            if not {"w1", "fkl"} <= set(table):
                return []
            sizes.append((table["w1"] - table["fkl"]).abs())
        result = statistics.paired((sizes[1] - VANISHED * sizes[0]).tolist())
        word = "vanished" if result.high < 0 else "left" if result.low > 0 else "undecided"
        about = {"metric": metric, "narrow": float(sizes[0].mean()), "full": float(sizes[1].mean())}
        rows.append({**about, **vars(result), "decision": word})
    return rows


_PURE = ("fkl", "rkl", "jsd", "tvd", "w1")
_SWEEP = ("fkl", "rkl", "w1")
_CPU = {
    NARROW: Condition(Settings(), LOSSES),
    WELL_SAMPLED: Condition(Settings(features=4, train=1500), _PURE),
    **{f"rank-{rank}": Condition(Settings(rank=rank), _SWEEP) for rank in (1, 4, 8, 16)},
}
_SMALL = Settings(features=4, tokens=12, train=40, test=20, steps=40, warm_steps=20)
_SMOKE = {
    NARROW: Condition(_SMALL, LOSSES),
    WELL_SAMPLED: Condition(replace(_SMALL, train=80), _PURE),
    "rank-4": Condition(replace(_SMALL, rank=4), _SWEEP),
}
EXPERIMENT = Experiment(
    id="low-rank",
    profiles={"smoke": Profile("smoke", _SMOKE, seeds=(0, 1, 2)), "cpu": Profile("cpu", _CPU)},
    simulate=one_by_one(simulate),
    decide=decide,
    rule={"gain": GAIN, "vanished": VANISHED, "margin": statistics.MARGIN, "level": statistics.LEVEL},
)
