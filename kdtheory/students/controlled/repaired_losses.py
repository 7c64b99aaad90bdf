"""The losses of `repaired` by name: a mean over contexts for every seed."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

import kdtheory as kd
from kdtheory.students.controlled import batched, repaired_task
from kdtheory.transport import Geometric

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(teacher's log-probabilities, student's logits, scrambled tokens) -> (S,)."""
_NAME = re.compile(r"(?P<kind>[a-z][a-z0-9+-]*?)(?:-(?P<number>[0-9.]+))?")
_KL = kd.divergence("fkl")


@cache
def split(name: str) -> tuple[str, float]:
    """(kind, its number) of a loss: ``fkl+tree-3`` is ("fkl+tree", 3.0)."""
    found = _NAME.fullmatch(name)
    if found is None or found["kind"] not in _KINDS:
        raise ValueError(f"loss {name!r} is unknown; known, some with a number behind '-': {', '.join(_KINDS)}")
    return found["kind"], float(found["number"] or 1)


@cache
def objective(name: str) -> Objective:
    """Mean loss of each seed; ValueError if the name is unknown."""
    kind, number = split(name)
    return _KINDS[kind](number)


def link(name: str) -> Callable[[Tensor], Tensor]:
    """From logits (..., V) to the student's distribution, float64: softmax but for the geometric loss."""
    kind, number = split(name)
    if kind == "geometric":
        return geometric(number).prediction
    return lambda logits: torch.softmax(logits.double(), -1)


@cache
def geometric(epsilon: float) -> Geometric:
    """The loss, with the tree's distances in units of epsilon."""
    return Geometric(cost=repaired_task.cost(), epsilon=epsilon)


def _plain(loss: kd.divergences.Loss, **options: float) -> Objective:
    return lambda log_p, logits, _: batched.per_seed(loss, teacher_logits=log_p, student_logits=logits, **options)


def _mixture(term: kd.divergences.Loss) -> Objective:
    """Forward KL + the term."""
    return _plain(_KL + term)


def _scrambled(term: kd.divergences.Loss) -> Objective:
    """Forward KL + the term on permuted tokens: the same tree over other tokens, per seed."""
    kl = _plain(_KL)
    moved = _plain(term)

    def mean(log_p: Tensor, logits: Tensor, scrambled: Tensor) -> Tensor:
        to = scrambled.unsqueeze(1).expand_as(log_p)
        return kl(log_p, logits, scrambled) + moved(log_p.gather(-1, to), logits.gather(-1, to), scrambled)

    return mean


def _tree(weight: float, **more: list[float]) -> kd.divergences.Loss:
    return kd.divergence("tree_kl", cost=repaired_task.cost(), weight=weight, **more)


def _uniform(weight: float) -> kd.divergences.Loss:
    """All levels count the same, with the same sum from root to token."""
    mean = sum(repaired_task.EDGES) / len(repaired_task.EDGES)
    return _tree(weight, levels=[mean] * len(repaired_task.EDGES))


def _w1(weight: float) -> kd.divergences.Loss:
    return weight * kd.divergence("w1", cost=repaired_task.cost())


_KINDS: dict[str, Callable[[float], Objective]] = {
    "fkl": lambda _: _plain(_KL),
    "fkl-slow": lambda _: _plain(_KL),
    "fkl-fast": lambda _: _plain(_KL),
    "fkl-long": lambda _: _plain(_KL),
    "fkl-t": lambda temperature: _plain(_KL, temperature=temperature),
    "fkl+tree": lambda weight: _mixture(_tree(weight)),
    "fkl+tree-scrambled": lambda weight: _scrambled(_tree(weight)),
    "fkl+tree-star": lambda weight: _mixture(kd.divergence("tree_kl", cost=repaired_task.star(), weight=weight)),
    "fkl+tree-uniform": lambda weight: _mixture(_uniform(weight)),
    "fkl+w1": lambda weight: _mixture(_w1(weight)),
    "fkl+w1-scrambled": lambda weight: _scrambled(_w1(weight)),
    "w1": lambda _: _plain(_w1(1.0)),
    "natural-w1": lambda _: _plain(kd.divergence("natural_w1", cost=repaired_task.cost())),
    "similarity": lambda epsilon: _plain(kd.divergence("similarity_kl", cost=repaired_task.cost(), epsilon=epsilon)),
    "geometric": lambda epsilon: _plain(geometric(epsilon)),
}
