"""Decisions of `equivalence`: margins for "the same student", and what the rule without margins would have said.

A rule that calls students the same if they differ by less than two standard deviations over seeds rewards noise: the
more the seeds scatter, the easier it is passed. It also asks of a distance, which is never negative, to be near 0 by
its own scatter, and of two numbers (forward KL to the teacher) what should be asked of two distributions. The rule
here holds the distance of the two students, context by context, against a margin; the margin is a share of the
distance that there was to go, so that students that did not move do not pass by standing still: they must also have
reached the teacher.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd

from kdtheory.students.controlled import compare, hypotheses
from kdtheory.students.controlled.hypotheses import Comparison, Region

DIVERGENCES = ("fkl", "rkl", "jsd", "skl", "srkl")
"""The losses of the hypothesis."""
TRANSPORT = ("tvd", "w1")
AGAIN = "fkl-again"
"""Forward KL from other initial weights and other labels."""
LOSSES = (*DIVERGENCES, *TRANSPORT, AGAIN)
WIDE, NARROW = "wide", "narrow"
SAME, OTHER = 0.10, 0.25
"""Two students are the same if their total variation is at most this share of that between start and teacher,"""
SAME_KL, OTHER_KL = SAME**2, OTHER**2
"""and different above the second. Forward KL is quadratic near the teacher, hence its bounds are the squares."""
PARTS = {
    "main": "wide, trained contexts",
    "unseen": "wide, held-out contexts",
    "transport": "wide, trained contexts",
    "narrow": "narrow, trained contexts",
}
"""Parts of the hypothesis, one Holm family each, and where they are measured."""
_EQUAL, _REACHED = Region(high=SAME, refuted_above=OTHER), Region(high=SAME_KL, refuted_above=OTHER_KL)
_APART = Region(low=OTHER, refuted_below=SAME)


def decide(results: pd.DataFrame, curves: pd.DataFrame) -> dict[str, Any]:
    """Tests of H3 (a Holm family each), the distances of every pair, and what the rule without margins would say."""
    conditions = list(dict.fromkeys(results["condition"]))
    checks = compare.plateaus(curves, conditions)
    reached = compare.reached(checks)
    families = [family for name in conditions for family in _families(_View(results, name, reached))]
    return {
        "tests": [row for family in families for row in hypotheses.family(family)],
        "pairs": [row for name in conditions for row in _pairs(_View(results, name, reached))],
        "convergence": checks,
    }


class _View:
    """One condition's numbers."""

    def __init__(self, results: pd.DataFrame, condition: str, reached: dict[tuple[str, str], bool]) -> None:
        rows = results[results["condition"] == condition]
        self.condition, self._reached = condition, reached
        self.losses = [name for name in LOSSES if name in set(rows["loss"])]
        self._rows = {name: rows[rows["loss"] == name].set_index("seed") for name in self.losses}

    def column(self, loss: str, name: str) -> np.ndarray:
        """One number per seed, seeds in order."""
        return self._rows[loss][name].sort_index().to_numpy(dtype=np.float64)

    def share(self, loss: str, name: str, start: str) -> list[float]:
        """A number as a share of the common start's (the one of the first loss)."""
        return (self.column(loss, name) / self.column(self.losses[0], start)).tolist()

    def converged(self, *losses: str) -> bool:
        return all(self._reached[self.condition, loss] for loss in losses)

    def pair(self, part: str, first: str, second: str, region: Region, suffix: str = "") -> Comparison:
        """Total variation between two students, as a share of that between start and teacher."""
        values = self.share(second, f"tv_to_{first}{suffix}", f"start_tv{suffix}")
        return self._compared(part, f"TV between the students of {first} and {second}", values, region, first, second)

    def remaining(self, part: str, loss: str) -> Comparison:
        """Forward KL to the teacher, as a share of the start's."""
        values = self.share(loss, "kl", "start_kl")
        return self._compared(part, f"forward KL of the student of {loss}", values, _REACHED, loss)

    def _compared(self, part: str, outcome: str, values: list[float], region: Region, *losses: str) -> Comparison:
        reached = self.converged(*losses)
        outcome = f"{outcome}, over the start's, {PARTS[part]}"
        return hypotheses.compared("H3", outcome, values, region, converged=reached, scale="log", part=part)


def _families(view: _View) -> list[list[Comparison]]:
    five = [name for name in DIVERGENCES if name in view.losses]
    pairs = list(itertools.combinations(five, 2))
    if view.condition == NARROW:
        return [[view.pair("narrow", "fkl", "rkl", _APART)] if {"fkl", "rkl"} <= set(five) else []]
    beside = [name for name in TRANSPORT if name in view.losses and "fkl" in five]
    return [
        [view.pair("main", *pair, _EQUAL) for pair in pairs] + [view.remaining("main", name) for name in five],
        [view.pair("unseen", *pair, _EQUAL, "_test") for pair in pairs],
        [view.pair("transport", "fkl", name, _EQUAL) for name in beside]
        + [view.remaining("transport", name) for name in beside],
    ]


def _pairs(view: _View) -> list[dict[str, Any]]:
    """Every pair: distances as shares of the start's, and the rule "at most two seed standard deviations" on FKL."""
    rows = []
    for first, second in itertools.combinations(view.losses, 2):
        both = [view.column(name, "kl") for name in (first, second)]
        spread = float(np.sqrt(np.mean([x.var(ddof=1) for x in both]))) if len(both[0]) > 1 else 0.0
        difference = float(abs(both[1].mean() - both[0].mean()))
        row: dict[str, Any] = {"condition": view.condition, "first": first, "second": second}
        for suffix in ("", "_test"):
            shares = view.share(second, f"tv_to_{first}{suffix}", f"start_tv{suffix}")
            row[f"tv{suffix}"] = float(np.mean(shares))
        rows.append(row | {"kl_difference": difference, "seed_sd": spread, "no_margin": difference <= 2 * spread})
    return rows
