"""How long a confidently wrong student takes to leave its mistake: plain gradient descent, the full-rank student."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdtheory.students.controlled import batched, repaired_losses, repaired_task
from kdtheory.students.controlled.design import Outcome

if TYPE_CHECKING:
    from kdtheory.students.controlled.repaired import Settings

REPAIRED = 0.5
"""Total variation to the teacher, averaged over training contexts, from which a student counts as repaired."""
_EVERY, _POINTS = 10, 20  # steps between two looks; points of a curve that is kept


def simulate(settings: Settings, loss: str, seeds: tuple[int, ...], device: torch.device) -> list[Outcome]:
    """Steps until repaired (the budget if never: ``censored``), gap at the start and last distances of each seed."""
    given = repaired_task.problem(settings, seeds, device)
    seen = slice(0, settings.train)
    # float64: what a confident student leaves to the others is denormal in float32, which is slow
    features, log_p = given.features[:, seen].double(), given.log_p[:, seen].double()
    start = [weight.double() for weight in given.weights]
    mean = repaired_losses.objective(loss)

    def observe(weights: list[Tensor], _: int) -> dict[str, Tensor]:
        logits = batched.low_rank(weights, features)
        q = repaired_losses.link(loss)(logits)
        tv = (log_p.exp() - q).abs().sum(-1).mean(-1) / 2
        return {"objective": mean(log_p, logits, given.scrambled), "tv": tv}

    _, curves = batched.train(
        start,
        lambda weights: mean(log_p, batched.low_rank(weights, features), given.scrambled),
        steps=settings.steps,
        rate=settings.rate,
        optimizer="sgd",
        points=settings.steps // _EVERY,
        observe=observe,
    )
    gaps = _gap(batched.low_rank(start, features))
    return [_outcome(curve, settings.steps, float(gap)) for curve, gap in zip(curves, gaps, strict=True)]


def _gap(logits: Tensor) -> Tensor:
    """Mean lead of the most likely token over the second, (S, N, V) -> (S,)."""
    top = torch.topk(logits, 2, -1).values
    return (top[..., 0] - top[..., 1]).mean(-1)


def _outcome(curve: list[batched.Point], steps: int, gap: float) -> Outcome:
    reached = next((point["step"] for point in curve if point["tv"] <= REPAIRED), None)
    kept = [point for point in curve if point["step"] % (steps // _POINTS) == 0]
    metrics = {
        "steps": float(steps if reached is None else max(reached, _EVERY)),
        "censored": float(reached is None),
        "gap": gap,
        "start_tv": curve[0]["tv"],
        "tv": curve[-1]["tv"],
    }
    return Outcome(metrics, kept)
