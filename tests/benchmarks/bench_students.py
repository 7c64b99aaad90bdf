"""Small students trained as one tensor program, beside a loop over seeds that trains them one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch

from kdtheory.students.controlled import repairs
from tests.benchmarks.timing import DisagreementError, Loop, per_iteration

LOSSES = ("fkl", "w1", "sinkhorn")
FULL = {(30, 3): (1, 3, 10, 30), (200, 20): (10,)}
"""Numbers of seeds for (contexts, bad ones), as in `repairs` under gradient descent and under Adam."""
QUICK = {(30, 3): (2,)}
_TOLERANCE = 1e-3  # of the objective after 20 steps: float32 matrix products of another shape round differently


def rows(quick: bool) -> Iterator[dict[str, object]]:
    """Steps per second of a shared network, all seeds counted, for each loss and number of seeds."""
    for (contexts, bad), counts in (QUICK if quick else FULL).items():
        settings = replace(repairs.Settings(gap=5.0), contexts=contexts, bad=bad, fit_steps=20)
        for loss in LOSSES:
            for count in counts:
                yield _row(settings, loss, tuple(range(100, 100 + count)), 1 if quick else 3)


def _row(settings: repairs.Settings, loss: str, seeds: tuple[int, ...], repeats: int) -> dict[str, object]:
    error = _disagreement(settings, loss, seeds)
    if not error <= _TOLERANCE:
        raise DisagreementError(f"{loss}, {len(seeds)} seeds: batched and single students differ by {error:.2g}")
    loops = {
        "batched": Loop(lambda steps: _trained(settings, loss, [seeds], steps), few=20, many=60),
        "loop": Loop(lambda steps: _trained(settings, loss, _apart(seeds), steps), few=20, many=60),
    }
    seconds = per_iteration(loops, repeats)
    rates = {name: len(seeds) / value for name, value in seconds.items()}  # steps of one student
    return {
        "case": f"{loss}, {settings.contexts} contexts",
        "seeds": len(seeds),
        "batched_steps_per_s": rates["batched"],
        "loop_steps_per_s": rates["loop"],
        "speedup": rates["batched"] / rates["loop"],
        "error": error,
    }


def _trained(
    settings: repairs.Settings, loss: str, groups: Iterable[tuple[int, ...]], steps: int
) -> list[repairs.Outcome]:
    """Exactly `steps` steps of every student; the groups train one after the other."""
    given = replace(settings, steps=steps, whole=True, learning_rate=1e-3)
    return [outcome for seeds in groups for outcome in repairs.simulate(given, loss, seeds, torch.device("cpu"))]


def _apart(seeds: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [(seed,) for seed in seeds]


def _disagreement(settings: repairs.Settings, loss: str, seeds: tuple[int, ...]) -> float:
    both = (_trained(settings, loss, groups, 20) for groups in ([seeds], _apart(seeds)))
    ours, single = (np.array([outcome.metrics["objective"] for outcome in found]) for found in both)
    return float(abs(ours / single - 1).max())


def show(line: dict[str, object]) -> dict[str, object]:
    """Print a line when it is finished."""
    print(
        f"{line['case']:26s} seeds {line['seeds']:3d}  batched {line['batched_steps_per_s']:9.0f} steps/s"
        f"  one by one {line['loop_steps_per_s']:9.0f} steps/s  {line['speedup']:6.1f} x  (error {line['error']:.1g})",
        flush=True,
    )
    return line
