"""`metric`: limited students whose decisions are judged by a ground metric, true or not (H5, H15, half of H13).

The teacher of a seed has its own token embeddings; its logits are their inner products with a context, or with what a
wide random network makes of the context. The student is a linear softmax of rank 2 or a network with two hidden
units, so that it cannot be the teacher. The ground metric d is the average-linkage tree of these embeddings (diameter
1), and its rivals are the same tree with its tokens permuted, trees of interpolated embeddings, a tree of unrelated
points, and the 0-1 metric. Every student is judged under the original metric and under the one it was trained on.

Teacher, metric, permutation, contexts and first weights are drawn anew for every seed, so that a verdict is about this
law of teachers and metrics and not about one of them; it says nothing about metrics that are not of this kind.

All losses of a seed share all of that, begin from the same three initial weights (no warm start) and take the same
full-batch Adam steps; the student with the lowest training objective of the three counts, so that capacity is the
limit and not a local optimum. ``fkl-then-w1`` spends half of the steps on forward KL and then restarts Adam on W1.
Learning rates were chosen on pilot seed 100, per loss and kind of student, from .003, .01, .03, .1, .3 by the loss's
own objective on held-out contexts, and are fixed in `RATES`; where .3, the edge, was best, a rate of 1 was worse for
the two losses that were tried with it. The weights λ of W1 and S_ε beside forward KL make both terms' logit gradients
equally long (root mean square over contexts) at the end of forward KL's training on pilot seed 100, rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from kdtheory.students.controlled import batched, metric_rules
from kdtheory.students.controlled.design import Condition, Experiment, Outcome, Profile
from kdtheory.students.controlled.metric_losses import LOSSES, PLAIN, Sinkhorn, objective
from kdtheory.students.controlled.metric_tasks import (
    METRICS,
    TASKS,
    Problem,
    correlations,
    decision_cost,
    problem,
    task_errors,
)

LEVELS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
"""Shares of permuted embeddings between the true metric (0) and the scrambled one (1)."""
_POINTS = 4  # of a learning curve: what the plateau rule needs
_HELD_OUT_SWEEPS = 60  # of S_ε as a criterion, in float64
RATES: dict[str, dict[str, float]] = {
    "linear": {
        **dict.fromkeys(("fkl", "rkl", "srkl", "natural-w1-plain", "fkl+sinkhorn"), 3e-2),
        **dict.fromkeys(("jsd", "skl", "w1", "sinkhorn", "natural-w1"), 1e-2),
        **dict.fromkeys(("tvd", "fkl+w1"), 1e-1),
    },
    "network": {**dict.fromkeys(LOSSES, 3e-1), "w1": 1e-1, "natural-w1": 1e-1},
}
"""Learning rates by kind of student and loss; ``fkl-then-w1`` takes those of its two halves."""


@dataclass(frozen=True)
class Settings:
    """One condition.

    Attributes
    ----------
    rank : int
        Of the linear student, or hidden units of the network.
    inputs : int
        0: contexts are the teacher's features, and the student is linear. Otherwise the dimension of the contexts, of
        which teacher and student are networks.
    features, tokens, train, test : int
        Dimension of token embeddings; sizes.
    scale : float
        Standard deviation of a teacher's logit.
    metric : {"embeddings", "random", "zero-one"}
        Ground metric of transport losses.
    scrambled : float
        Share of the permuted embeddings in those that make the metric; 1 permutes the tokens of the tree.
    steps, starts : int
        Full-batch Adam steps; students per seed, of which the one with the lowest training objective counts.
    transport_weight, sinkhorn_weight : float
        λ of ``fkl+w1`` and of ``fkl+sinkhorn``.
    epsilon : float
        Of S_ε, in diameters: a third of the mean distance.
    sweeps : int
        Of S_ε in training.
    rates : dict
        Learning rates by loss, of `RATES`.
    """

    rank: int = 2
    inputs: int = 0
    features: int = 8
    tokens: int = 30
    train: int = 300
    test: int = 500
    scale: float = 5.0
    metric: str = "embeddings"
    scrambled: float = 0.0
    steps: int = 400
    starts: int = 3
    transport_weight: float = 4.0
    sinkhorn_weight: float = 6.0
    epsilon: float = 0.25
    sweeps: int = 12
    rates: Mapping[str, float] = field(default_factory=lambda: dict(RATES["linear"]))

    def __post_init__(self) -> None:
        if self.rank < 1 or (not self.inputs and self.rank > self.features):
            raise ValueError(f"rank = {self.rank}: between 1 and features = {self.features}")
        if self.metric not in METRICS:
            raise ValueError(f"metric = {self.metric!r}: one of {', '.join(METRICS)}")
        if not 0 <= self.scrambled <= 1:
            raise ValueError(f"scrambled = {self.scrambled}: a share between 0 and 1")
        if self.steps < 1 or self.steps % _POINTS:
            raise ValueError(f"steps = {self.steps}: must be a multiple of {_POINTS}, the points of a curve")
        if min(self.train, self.test, self.starts) < 1:
            raise ValueError(f"train = {self.train}, test = {self.test}, starts = {self.starts}: at least one each")

    def rate(self, loss: str) -> float:
        """Learning rate of a loss."""
        return self.rates[loss]


def forward(settings: Settings, weights: list[Tensor], features: Tensor) -> Tensor:
    """Student logits (S, N, V)."""
    return (batched.mlp if settings.inputs else batched.low_rank)(weights, features)


def fit(settings: Settings, loss: str, given: Problem) -> tuple[list[Tensor], list[list[batched.Point]]]:
    """Last weights (S, ...) and learning curves of the start that ends with the lowest training objective.

    Curves hold the loss's own objective on held-out and on training contexts.
    """
    weights, curves = _every_start(settings, loss, given.every_start())
    last = torch.tensor([curve[-1]["train_objective"] for curve in curves]).view(-1, settings.starts)
    chosen = torch.arange(len(last)) * settings.starts + last.argmin(-1)
    return [weight[chosen.to(weight.device)] for weight in weights], [curves[index] for index in chosen.tolist()]


def _every_start(settings: Settings, loss: str, given: Problem) -> tuple[list[Tensor], list[list[batched.Point]]]:
    if loss != "fkl-then-w1":
        return _stage(settings, loss, loss, given, settings.steps, _POINTS)
    half = settings.steps // 2
    weights, curves = _stage(settings, "fkl", "w1", given, half, _POINTS // 2)
    weights, later = _stage(settings, "w1", "w1", replace(given, weights=weights), half, _POINTS // 2)
    for curve, points in zip(curves, later, strict=True):
        curve += [{**point, "step": point["step"] + half} for point in points[1:]]
    return weights, curves


def _stage(
    settings: Settings, loss: str, watched: str, given: Problem, steps: int, points: int
) -> tuple[list[Tensor], list[list[batched.Point]]]:
    seen, held = slice(0, settings.train), slice(settings.train, None)
    minimised = objective(loss, settings, given.trained, given.log_p[:, seen])
    features = given.features[:, seen]
    watch = {
        name: (given.features[:, at], objective(watched, settings, given.trained, given.log_p[:, at]))
        for name, at in (("objective", held), ("train_objective", seen))
    }

    def observe(weights: list[Tensor], _: int) -> dict[str, Tensor]:
        return {name: measure(forward(settings, weights, x)) for name, (x, measure) in watch.items()}

    def objective_of(weights: list[Tensor]) -> Tensor:
        return minimised(forward(settings, weights, features))

    return batched.train(
        given.weights, objective_of, steps=steps, rate=settings.rate(loss), points=points, observe=observe
    )


def simulate(settings: Settings, loss: str, seeds: tuple[int, ...], device: torch.device) -> list[Outcome]:
    """Train with one loss; criteria, decisions and task errors on held-out contexts."""
    given = problem(settings, seeds, device)
    weights, curves = fit(settings, loss, given)
    found = {name: values.tolist() for name, values in measure(settings, given, weights).items()}
    return [
        Outcome({name: values[index] for name, values in found.items()}, curve) for index, curve in enumerate(curves)
    ]


@torch.no_grad()
def measure(settings: Settings, given: Problem, weights: list[Tensor]) -> dict[str, Tensor]:
    """Held-out means of every seed, (S,), in float64.

    ``fkl`` ... ``fkl+w1``: the criteria of `MATRIX`, transport under the original metric; ``nll``: expected negative
    log-likelihood of the teacher's token; ``d_cost``, ``excess``: expected distance of the teacher's token from the
    student's medoid, and what of it the teacher's own medoid would have saved; with ``_trained``: under the metric
    trained on. ``train_fkl`` is on training contexts. ``error_K``, ``rho_K``: of task K under the metric trained on.
    """
    held = slice(settings.train, None)
    log_p = torch.log_softmax(given.log_p.double(), -1)
    log_q = torch.log_softmax(forward(settings, weights, given.features).double(), -1)
    found = {"train_fkl": PLAIN["fkl"].per_position(log_p, log_q)[:, : settings.train].mean(-1)}
    log_p, log_q = log_p[:, held], log_q[:, held]
    p, q = log_p.exp(), log_q.exp()
    found |= {name: plain.per_position(log_p, log_q).mean(-1) for name, plain in PLAIN.items()}
    found["nll"] = torch.special.entr(p).sum(-1).mean(-1) + found["fkl"]
    original, trained = (ground.to(p.device, p.dtype) for ground in (given.original, given.trained))
    found["w1"] = original.w1(p, q).mean(-1)
    found["sinkhorn"] = Sinkhorn.of(original, settings.epsilon, _HELD_OUT_SWEEPS).value(p, q).mean(-1)
    found["fkl+w1"] = found["fkl"] + settings.transport_weight * found["w1"]
    for ending, ground in (("", original), ("_trained", trained)):
        cost = decision_cost(p, q, ground.distances).mean(-1)
        found["d_cost" + ending] = cost
        found["excess" + ending] = cost - decision_cost(p, p, ground.distances).mean(-1)
    errors = task_errors(p, q, given.tasks.double())
    rho = correlations(trained.distances, given.tasks)
    for index, task in enumerate(TASKS):
        found |= {f"error_{task}": errors[:, index], f"rho_{task}": rho[:, index]}
    return found


# -- conditions ------------------------------------------------------------------------------------------------------
_RIVALS = ("fkl", "w1", "fkl-then-w1")
_JUDGED = (*_RIVALS, "natural-w1", "fkl+sinkhorn")


def _conditions(name: str, base: Settings, losses: tuple[str, ...], shares: tuple[float, ...]) -> dict[str, Condition]:
    """The true metric with all these losses, its rivals with those that H5 compares, and the levels between."""
    rivals: dict[str, dict[str, Any]] = {
        "scrambled": {"scrambled": 1.0},
        "random": {"metric": "random"},
        "zero-one": {"metric": "zero-one"},
    }
    return {
        name: Condition(base, losses),
        **{f"{name}-{rival}": Condition(replace(base, **changes), _RIVALS) for rival, changes in rivals.items()},
        **{f"{name}-mix-{share:g}": Condition(replace(base, scrambled=share), ("w1",)) for share in shares},
    }


def _profile(name: str, seeds: tuple[int, ...], **sizes: Any) -> Profile:
    linear = Settings(**sizes)
    network = replace(linear, inputs=4, rates=dict(RATES["network"]))
    full = Condition(replace(linear, rank=linear.features), _RIVALS)
    smoke = name == "smoke"
    losses, shares = (_JUDGED, (0.5,)) if smoke else (LOSSES, LEVELS)
    conditions = {**_conditions("rank-2", linear, LOSSES, shares), **_conditions("narrow", network, losses, shares)}
    conditions["full-rank"] = full
    return Profile(name, conditions, seeds, device="cuda" if name == "gpu" else "cpu")


_SMALL: dict[str, Any] = {"features": 4, "tokens": 12, "train": 20, "test": 20, "steps": 20, "starts": 2}
_LARGE: dict[str, Any] = {"features": 16, "tokens": 240, "train": 3000, "test": 2000, "steps": 2000}
EXPERIMENT = Experiment(
    id="metric",
    profiles={
        "smoke": _profile("smoke", (0, 1, 2), **_SMALL),
        "cpu": _profile("cpu", tuple(range(10))),
        "gpu": _profile("gpu", tuple(range(30)), **_LARGE),
    },
    simulate=simulate,
    decide=metric_rules.decide,
    rule=metric_rules.RULE,
)
