"""`labels`: students that see only tokens drawn from their teacher; whether the noise averages out or is learnt.

A teacher that is linear in random contexts, over tokens on a line (length 1) or the leaves of a binary tree. At every
step each training context shows fresh tokens: `copies` times the empirical law of m of them. The tabular student has
logits of its own for every context and can be anything, so that its exact target is known (`label_minimisers`); the
network shares a hidden layer. m = 0 is the control: the teacher's whole distribution at every step.

So that noise is not mistaken for bias, the rate falls like 1/sqrt(step) (its sum diverges: it does not force a
plateau), the student is the mean of the weights over the second half of the steps, and the objective whose plateau is
asked for is the exact expectation of the loss over the draws.

Learning rates (Adam): for each loss, and for W1 also by m, that of `GRID` whose student of seed 100 had the lowest
expected loss at the end; `RATES`, `W1_RATES` and `NETWORK_RATES` hold the choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import kdtheory as kd
from kdtheory.students.controlled import batched, label_minimisers, label_rules
from kdtheory.students.controlled.design import Condition, Experiment, Outcome, Profile

LOSSES = ("fkl", "w1", "tvd", "skl")
GRID = (0.03, 0.1, 0.3)
"""Of Adam for a table of logits; a tenth of them for the network."""
RATES = {"fkl": 0.1, "w1": 0.1, "tvd": 0.3, "skl": 0.3}
W1_RATES = {1: 0.3, 2: 0.3, 4: 0.1, 8: 0.1, 16: 0.1, 32: 0.3, 64: 0.3}
"""Of W1 on the line, by m: another m is another objective."""
NETWORK_RATES = {"fkl": 0.03, "w1": 0.01}
_POINTS = 20  # of a learning curve


@dataclass(frozen=True)
class Settings:
    """One condition.

    Attributes
    ----------
    samples : int
        m, tokens of the teacher per context and copy; 0: its whole distribution.
    copies : int
        How often a context occurs in a step's batch.
    metric : {"line", "tree"}
    hidden : int
        Hidden units of the network; 0: a table of logits.
    tokens, contexts, features : int
    scale : float
        Standard deviation of a teacher's logit.
    steps : int
    rates : tuple of (str, float)
        Learning rate of every loss at the first step.
    """

    samples: int = 1
    copies: int = 4
    metric: str = "line"
    hidden: int = 0
    tokens: int = 16
    contexts: int = 30
    features: int = 8
    scale: float = 2.0
    steps: int = 3000
    rates: tuple[tuple[str, float], ...] = tuple(RATES.items())

    def __post_init__(self) -> None:
        if self.metric not in ("line", "tree"):
            raise ValueError(f"metric = {self.metric!r}: 'line' or 'tree'")
        if min(self.samples, self.hidden) < 0 or min(self.copies, self.contexts, self.features) < 1 or self.tokens < 2:
            raise ValueError(f"{self}: a size is too small")
        if self.steps < 1 or self.steps % _POINTS:
            raise ValueError(f"steps = {self.steps}: must be a multiple of {_POINTS}, the points of a curve")

    @property
    def cost(self) -> kd.TokenCost:
        """The ground metric, diameter 1."""
        return (label_minimisers.line if self.metric == "line" else label_minimisers.binary_tree)(self.tokens)


def build(name: str, cost: kd.TokenCost) -> Any:
    """The loss called `name`; ValueError if it is none of `LOSSES`."""
    if name not in LOSSES:
        raise ValueError(f"loss {name!r} is unknown; known: {', '.join(LOSSES)}")
    if name == "w1":
        return kd.divergence("w1", cost=cost)
    return kd.divergence(name, alpha=label_minimisers.SKEW) if name == "skl" else kd.divergence(name)


def problem(settings: Settings, seeds: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Contexts (S, N, d), the teacher's log-probabilities (S, N, V), and the students' first weights."""

    def make(generator: torch.Generator) -> tuple[Tensor, ...]:
        features = torch.randn(settings.contexts, settings.features, generator=generator)
        tokens = torch.randn(settings.tokens, settings.features, generator=generator) / math.sqrt(settings.features)
        log_p = torch.log_softmax(settings.scale * features @ tokens.T, -1)
        if settings.hidden:
            sizes = (settings.features, settings.hidden, settings.tokens)
            return features, log_p, *batched.mlp_weights(generator, sizes)
        return features, log_p, 0.1 * torch.randn(settings.contexts, settings.tokens, generator=generator)

    features, log_p, *weights = (part.to(device) for part in batched.draws(seeds, make))
    return features, log_p, weights


class Draws:
    """Empirical laws of fresh tokens: each call gives (S, N, copies, V) log-probabilities; a generator per seed."""

    def __init__(self, settings: Settings, seeds: tuple[int, ...], log_p: Tensor) -> None:
        self.settings, self.log_p = settings, log_p
        self.generators = [torch.Generator().manual_seed(2**62 + seed % 2**62) for seed in seeds]
        self.edges = log_p.exp().cumsum(-1)[..., :-1].contiguous()

    def __call__(self) -> Tensor:
        settings = self.settings
        if settings.samples == 0:
            return self.log_p.unsqueeze(-2)
        count = settings.copies * settings.samples
        uniform = [torch.rand(settings.contexts, count, generator=each) for each in self.generators]
        tokens = torch.searchsorted(self.edges, torch.stack(uniform).to(self.edges), right=True)
        shape = (*tokens.shape[:-1], settings.copies, settings.samples)
        laws = torch.zeros((*shape[:-1], settings.tokens), device=tokens.device)
        ones = torch.full(shape, 1 / settings.samples, device=tokens.device)
        return laws.scatter_add_(-1, tokens.reshape(shape), ones).log()


class TailMean:
    """Mean of the weights over the second half of the steps, collected while they are trained."""

    def __init__(self, weights: list[Tensor], steps: int) -> None:
        self.total, self.steps, self.seen = [torch.zeros_like(weight) for weight in weights], steps, 0

    @torch.no_grad()
    def add(self, weights: list[Tensor]) -> None:
        """Count these weights if they belong to the second half."""
        self.seen += 1
        if self.seen > self.steps // 2:
            for total, weight in zip(self.total, weights, strict=True):
                total += weight

    def mean(self) -> list[Tensor]:
        """The mean so far."""
        return [total / (self.seen - self.steps // 2) for total in self.total]


def simulate(settings: Settings, loss: str, seeds: tuple[int, ...], device: torch.device) -> list[Outcome]:
    """Train the students of all seeds on fresh tokens; compare the mean weights with teacher and exact minimiser."""
    features, log_p, first = problem(settings, seeds, device)
    divergence, draw, tail = build(loss, settings.cost), Draws(settings, seeds, log_p), TailMean(first, settings.steps)
    p = log_p.double().softmax(-1)

    def logits(weights: list[Tensor]) -> Tensor:
        return batched.mlp(weights, features) if settings.hidden else weights[0]

    def objective(weights: list[Tensor]) -> Tensor:
        tail.add(weights)
        laws = draw()
        student = logits(weights).unsqueeze(-2).expand_as(laws)
        each = divergence.loss(teacher_logits=laws, student_logits=student, reduction="none").mean(-1)
        return each.mean(-1)

    def look(weights: list[Tensor], _: int) -> dict[str, Tensor]:
        q = logits(weights).double().softmax(-1)
        return {"objective": label_minimisers.expected(loss, p, q, settings.samples, settings.cost).mean(-1)}

    rate = dict(settings.rates)[loss]
    _, curves = batched.train(
        first, objective, steps=settings.steps, observe=look, points=_POINTS,
        rate=lambda step: rate / math.sqrt(1 + 100 * step / settings.steps),
    )  # fmt: skip
    begin, end = (logits(weights).double().softmax(-1) for weights in (first, tail.mean()))
    metrics = measure(settings, loss, p, begin, end)
    return [
        Outcome({name: float(values[index]) for name, values in metrics.items()}, curve)
        for index, curve in enumerate(curves)
    ]


@torch.no_grad()
def measure(settings: Settings, loss: str, p: Tensor, begin: Tensor, q: Tensor) -> dict[str, Tensor]:
    """Per seed (S,): the student against its teacher, and against the exact minimiser of its expected loss."""
    cost, m = settings.cost, settings.samples
    best = label_minimisers.minimiser(loss, p, m, cost)
    values = [label_minimisers.expected(loss, p, law, m, cost).mean(-1) for law in (begin, q, best)]
    transport, variation = kd.divergence("w1", cost=cost), kd.divergence("tvd")
    entropy = [torch.special.entr(law).sum(-1).mean(-1) for law in (p, q, best)]

    def apart(loss: Any, first: Tensor, second: Tensor) -> Tensor:
        return loss.per_position(first.log(), second.log()).mean(-1)

    return {
        "entropy_ratio": entropy[1] / entropy[0],
        "tv": apart(variation, p, q),
        "w1": apart(transport, p, q),
        "medoid": (q.argmax(-1) == label_minimisers.medoid(p, cost)).double().mean(-1),
        "gap": (values[1] - values[2]) / (values[0] - values[2]),
        "tv_to_minimiser": apart(variation, best, q),
        "w1_to_minimiser": apart(transport, best, q),
        "minimiser_entropy_ratio": entropy[2] / entropy[0],
        "minimiser_tv": apart(variation, p, best),
        "minimiser_w1": apart(transport, p, best),
    }


def _condition(losses: tuple[str, ...], **changes: Any) -> Condition:
    return Condition(replace(Settings(), **changes), losses)


def _conditions(**sizes: Any) -> dict[str, Condition]:
    losses, network = {1: LOSSES, 8: ("fkl", "w1")}, {"hidden": 64, "rates": tuple(NETWORK_RATES.items())}
    ladder = {
        f"samples-{m}": _condition(
            losses.get(m, ("w1",)),
            samples=m,
            copies=max(1, min(4, 64 // m)),
            rates=tuple((RATES | {"w1": W1_RATES[m]}).items()),
            **sizes,
        )
        for m in label_rules.SAMPLES
    }
    return ladder | {
        "tree-1": _condition(("w1",), metric="tree", **sizes),
        "network-1": _condition(("fkl", "w1"), **network, **sizes),
        "full": _condition(("fkl", "w1"), samples=0, copies=1, **sizes),
        "network-full": _condition(("fkl", "w1"), samples=0, copies=1, **network, **sizes),
    }


_SMOKE = {
    name: item
    for name, item in _conditions(tokens=4, contexts=5, features=3, steps=40).items()
    if name in ("samples-1", "samples-2", "samples-4", "tree-1", "network-1", "full")
}
EXPERIMENT = Experiment(
    id="labels",
    profiles={
        "smoke": Profile("smoke", _SMOKE, seeds=(0, 1, 2)),
        "cpu": Profile("cpu", _conditions()),
        "gpu": Profile("gpu", _conditions(tokens=64, contexts=200, steps=10_000), tuple(range(30)), device="cuda"),
    },
    simulate=simulate,
    decide=label_rules.decide,
    rule=label_rules.numbers(label_rules.REGIONS) | label_rules.RULE,
)
