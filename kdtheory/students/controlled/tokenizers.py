"""`tokenizers`: a teacher and a student whose vocabularies differ; what carries the identity of a token across.

The probe: the student's vocabulary is the teacher's in another order, which no loss is told. The teacher is linear in
random contexts, with the embeddings of its own tokens; the student is a network with one hidden layer over the same
contexts. Transport sees a cross-vocabulary cost: the Euclidean distance between embeddings of the teacher's and of the
student's tokens (`union`: both vocabularies are points of one metric space, the teacher has mass on its own, the
student on the others). Sorted transport (universal logit distillation) sees sorted probabilities alone. After training
the relabelling is undone and the most likely tokens are compared.

Conditions: `aligned`, each token has the same embedding in both vocabularies; `noisy`, the student's are moved by half
the mean distance of nearest neighbours (`noise-1`, `noise-2`: by once and twice that); `larger`, the student has tokens
that the teacher lacks; `scrambled`, the control: the embeddings are handed out to the student's tokens at random;
`tabular`, a table of logits instead of the network.

Learning rates, Adam: for each loss that of `GRID` whose student of seed 100 had the lowest value of its own objective
on the training contexts; `RATES` holds the choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import kdtheory as kd
from kdtheory.students.controlled import batched, tokenizer_rules
from kdtheory.students.controlled.design import Condition, Experiment, Outcome, Profile
from kdtheory.students.token_metrics import TokenMetrics

LOSSES = ("uld", "w1", "tree", "sinkhorn", "index", "relabelled")
"""Sorted transport; exact W1 with the cross-vocabulary cost, W1 on the token tree of the same embeddings, and the
Sinkhorn divergence with that cost; forward KL between tokens of the same number, the mistake; forward KL after the
relabelling, what could be reached if it were known."""
GRID = (0.01, 0.03, 0.1)
"""For the network; ten times as large for the table."""
RATES = {"uld": 0.03, "w1": 0.03, "tree": 0.03, "sinkhorn": 0.03, "index": 0.1, "relabelled": 0.1}
TABULAR_RATES = {"uld": 0.3, "tree": 0.3, "relabelled": 0.3}
_POINTS = 20  # of a learning curve


@dataclass(frozen=True)
class Settings:
    """One condition.

    Attributes
    ----------
    tokens, extra : int
        Tokens of the teacher; tokens that the student has beside them.
    noise : float
        Length by which the student's embeddings are moved, in mean distances of nearest neighbours.
    scrambled : bool
        Whether the embeddings are handed out to the student's tokens at random.
    hidden : int
        Hidden units of the student; 0: a table of logits.
    contexts, test, features : int
        Contexts trained on and held out; dimension of contexts and embeddings.
    scale : float
        Standard deviation of a teacher's logit.
    epsilon : float
        Of the Sinkhorn divergence, in mean distances between the teacher's tokens.
    steps : int
    rates : tuple of (str, float)
        Learning rate of every loss.
    """

    tokens: int = 32
    extra: int = 0
    noise: float = 0.0
    scrambled: bool = False
    hidden: int = 64
    contexts: int = 40
    test: int = 40
    features: int = 8
    scale: float = 3.0
    epsilon: float = 0.1
    steps: int = 400
    rates: tuple[tuple[str, float], ...] = tuple(RATES.items())

    def __post_init__(self) -> None:
        if min(self.extra, self.hidden, self.noise) < 0 or min(self.contexts, self.test, self.features) < 1:
            raise ValueError(f"{self}: a size is too small")
        if self.tokens < 2 or not self.epsilon > 0:
            raise ValueError(f"tokens = {self.tokens}, epsilon = {self.epsilon}: at least two tokens, epsilon above 0")
        if self.steps < 1 or self.steps % _POINTS:
            raise ValueError(f"steps = {self.steps}: must be a multiple of {_POINTS}, the points of a curve")


class Problem(NamedTuple):
    """A batch of probes, S seeds.

    Attributes
    ----------
    features : Tensor, shape (S, N + M, d)
        Contexts, those to train on first.
    log_p : Tensor, shape (S, N + M, V)
        The teacher, over its own tokens.
    partner : Tensor, shape (S, V)
        The student's token that is each token of the teacher.
    embeddings : Tensor, shape (S, V + W, d)
        Of the teacher's V tokens, then of the student's W.
    weights : list of Tensor
        The student's first weights.
    """

    features: Tensor
    log_p: Tensor
    partner: Tensor
    embeddings: Tensor
    weights: list[Tensor]


def problem(settings: Settings, seeds: tuple[int, ...], device: torch.device) -> Problem:
    """What each seed draws, on one generator of its own."""
    count, tokens, student = settings.contexts + settings.test, settings.tokens, settings.tokens + settings.extra

    def make(generator: torch.Generator) -> tuple[Tensor, ...]:
        features = torch.randn(count, settings.features, generator=generator)
        points = torch.randn(student, settings.features, generator=generator)
        log_p = torch.log_softmax(settings.scale * features @ points[:tokens].T / math.sqrt(settings.features), -1)
        partner = torch.randperm(student, generator=generator)
        shuffled = torch.randperm(student, generator=generator)
        directions = torch.randn(student, settings.features, generator=generator)
        if settings.hidden:
            weights = batched.mlp_weights(generator, (settings.features, settings.hidden, student))
        else:
            weights = [0.1 * torch.randn(count, student, generator=generator)]
        moved = points + settings.noise * nearest(points[:tokens]) * directions / directions.norm(dim=1, keepdim=True)
        own = torch.empty_like(points)
        own[partner] = moved[shuffled] if settings.scrambled else moved
        both = torch.cat([points[:tokens], own]) / torch.pdist(points[:tokens]).mean()
        return features, log_p, partner[:tokens], both, *weights

    features, log_p, partner, both, *weights = (part.to(device) for part in batched.draws(seeds, make))
    return Problem(features, log_p, partner, both, weights)


def nearest(points: Tensor) -> Tensor:
    """Mean distance of a point to its nearest neighbour, (V, d) -> ()."""
    apart = torch.cdist(points, points).fill_diagonal_(math.inf)
    return apart.amin(1).mean()


def union(embeddings: Tensor) -> kd.TokenCost:
    """The cross-vocabulary cost: Euclidean distance between any two of the tokens of both vocabularies, (V + W, d)."""
    return kd.TokenCost.embedding(embeddings.double().cpu())


def relabelled(log_p: Tensor, partner: Tensor, tokens: int) -> Tensor:
    """The teacher's (log-)probabilities as the student numbers its tokens: (S, N, V), (S, V) -> (S, N, W)."""
    out = log_p.new_full((*log_p.shape[:-1], tokens), -math.inf)
    return out.scatter(-1, partner.unsqueeze(1).expand_as(log_p), log_p)


def build(name: str, settings: Settings, given: Problem) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss called `name`: teacher (S, N, V) and student's logits (S, N, W) -> (S,), mean over contexts.

    Raises
    ------
    ValueError
        If it is none of `LOSSES`.
    """
    if name not in LOSSES:
        raise ValueError(f"loss {name!r} is unknown; known: {', '.join(LOSSES)}")
    if name in ("w1", "tree", "sinkhorn"):
        return _transport(name, settings, given)
    loss = kd.divergence("uld" if name == "uld" else "fkl")

    def value(log_p: Tensor, logits: Tensor) -> Tensor:
        if name == "relabelled":
            teacher = relabelled(log_p, given.partner, logits.shape[-1])
        else:
            teacher = torch.nn.functional.pad(log_p, (0, settings.extra), value=-math.inf)
        return batched.per_seed(loss, teacher_logits=teacher, student_logits=logits)

    return value


def _transport(name: str, settings: Settings, given: Problem) -> Callable[[Tensor, Tensor], Tensor]:
    """Transport between the vocabularies: every seed has a geometry, hence a loss, of its own."""

    def loss(points: Tensor) -> Any:
        if name == "tree":
            return kd.divergence("w1", cost=TokenMetrics(points.cpu()).tree)
        if name == "w1":
            return kd.divergence("w1", cost=union(points))
        return kd.divergence("sinkhorn", cost=union(points), epsilon=settings.epsilon, tol=1e-3, max_iter=100)

    losses = [loss(points) for points in given.embeddings]

    def value(log_p: Tensor, logits: Tensor) -> Tensor:
        teacher = torch.nn.functional.pad(log_p, (0, logits.shape[-1]), value=-math.inf)
        student = torch.nn.functional.pad(logits, (log_p.shape[-1], 0), value=-math.inf)
        pairs = zip(losses, teacher, student, strict=True)
        return torch.stack([own.loss(teacher_logits=p, student_logits=z) for own, p, z in pairs])

    return value


def simulate(settings: Settings, loss: str, seeds: tuple[int, ...], device: torch.device) -> list[Outcome]:
    """Train the students of all seeds; undo the relabelling; compare most likely tokens."""
    given, seen = problem(settings, seeds, device), slice(0, settings.contexts)
    value = build(loss, settings, given)

    def logits(weights: list[Tensor], at: slice) -> Tensor:
        return batched.mlp(weights, given.features[:, at]) if settings.hidden else weights[0][:, at]

    def objective(weights: list[Tensor]) -> Tensor:
        return value(given.log_p[:, seen], logits(weights, seen))

    rate = dict(settings.rates)[loss]
    weights, curves = batched.train(
        given.weights, objective, steps=settings.steps, points=_POINTS,
        rate=lambda step: rate / math.sqrt(1 + 100 * step / settings.steps),
    )  # fmt: skip
    student, held = logits(weights, slice(None)), slice(settings.contexts, None)
    outcomes = []
    for index, curve in enumerate(curves):
        trained, others = (
            agreement(given.log_p[index, at], student[index, at], given.partner[index]) for at in (seen, held)
        )
        about = {
            # a table has nothing to say about contexts it was not trained on
            "held_out": others["above"] if settings.hidden else math.nan,
            "left": curve[-1]["objective"] / curve[0]["objective"],
            "tv": _variation(given, student, seen, index),
        }
        outcomes.append(Outcome({**trained, **about}, curve))
    return outcomes


@torch.no_grad()
def agreement(log_p: Tensor, logits: Tensor, partner: Tensor) -> dict[str, float]:
    """How often the most likely tokens are the same after undoing the relabelling: (N, V), (N, W), (V,).

    Returns
    -------
    dict of str to float
        ``agreement``; ``chance``, what it would be if the student's tokens were shuffled over the contexts; ``above``,
        their difference; ``best_relabelling``, the agreement under the one-to-one relabelling that makes it largest.
    """
    top, own = partner[log_p.argmax(-1)], logits.argmax(-1)
    together = torch.zeros(logits.shape[-1], logits.shape[-1], dtype=torch.float64)
    together.index_put_((top.cpu(), own.cpu()), torch.ones(len(top), dtype=torch.float64), accumulate=True)
    together /= len(top)
    found, chance = float(together.diagonal().sum()), float(together.sum(1) @ together.sum(0))
    rows, columns = linear_sum_assignment(-together.numpy())
    best = float(together.numpy()[rows, columns].sum())
    return {"agreement": found, "chance": chance, "above": found - chance, "best_relabelling": best}


@torch.no_grad()
def _variation(given: Problem, student: Tensor, at: slice, index: int) -> float:
    """Mean total variation between student and relabelled teacher, one seed."""
    one = slice(index, index + 1)
    teacher = relabelled(given.log_p[one, at], given.partner[one], student.shape[-1])
    return float(batched.per_seed(kd.divergence("tvd"), teacher_logits=teacher, student_logits=student[one, at]))


def _conditions(main: tuple[str, ...], **sizes: Any) -> dict[str, Condition]:
    some = ("uld", "tree", "relabelled")
    kinds: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
        "aligned": ({}, ("uld", *main, "index", "relabelled")),
        "noisy": ({"noise": 0.5}, main),
        "scrambled": ({"scrambled": True}, main),
        "noise-1": ({"noise": 1.0}, ("tree",)),
        "noise-2": ({"noise": 2.0}, ("tree",)),
        "larger": ({"extra": 16, "noise": 0.5}, some),
        "tabular": ({"hidden": 0, "rates": tuple(TABULAR_RATES.items())}, some),
    }
    return {
        name: Condition(replace(Settings(), **sizes, **changes), losses) for name, (changes, losses) in kinds.items()
    }


_SMALL = {"tokens": 6, "contexts": 6, "test": 6, "features": 3, "steps": 20}
_LARGE = {"tokens": 256, "contexts": 200, "test": 200, "features": 16, "steps": 2000}
EXPERIMENT = Experiment(
    id="tokenizers",
    profiles={
        "smoke": Profile("smoke", _conditions(("tree",), **_SMALL), seeds=(0, 1, 2)),
        "cpu": Profile("cpu", _conditions(("w1", "tree"))),
        "gpu": Profile("gpu", _conditions(("tree", "sinkhorn"), **_LARGE), tuple(range(30)), device="cuda"),
    },
    simulate=simulate,
    decide=tokenizer_rules.decide,
    rule=tokenizer_rules.RULE,
)
