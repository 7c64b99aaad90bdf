"""The rule of `tokenizers` (H14), fixed before its registered runs: regions and tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from kdtheory.students import statistics
from kdtheory.students.controlled import compare
from kdtheory.students.controlled.hypotheses import Region, compared, family
from kdtheory.students.controlled.label_rules import numbers

REGIONS: Mapping[str, Region] = {
    "at-chance": Region(high=0.05),
    "transferred": Region(low=0.5, refuted_below=0.05),
    "minimised": Region(high=0.05, refuted_above=0.2),
}
"""Agreement above chance of a loss that cannot know the tokens, and of one that can; final over first loss."""
RULE = numbers(REGIONS) | {"level": statistics.LEVEL}
_ASKED = (
    ("ULD: agreement above chance", "aligned", "uld", "above", "at-chance"),
    ("ULD: final over first loss", "aligned", "uld", "left", "minimised"),
    ("W1, aligned: agreement above chance", "aligned", "w1", "above", "transferred"),
    ("W1, noisy: agreement above chance", "noisy", "w1", "above", "transferred"),
    ("W1, scrambled: agreement above chance", "scrambled", "w1", "above", "at-chance"),
)
_BESIDE = (
    ("ULD, table: agreement above chance", "tabular", "uld", "above", "at-chance"),
    ("W1 on the token tree, table: agreement above chance", "tabular", "tree", "above", "transferred"),
    ("ULD, larger vocabulary: agreement above chance", "larger", "uld", "above", "at-chance"),
    ("W1 on the token tree, larger vocabulary: agreement above chance", "larger", "tree", "above", "transferred"),
    ("W1 on the token tree, noisy: agreement above chance", "noisy", "tree", "above", "transferred"),
    ("FKL by number: agreement above chance", "aligned", "index", "above", "at-chance"),
)


def decide(results: pd.DataFrame, curves: pd.DataFrame) -> dict[str, Any]:
    """The family of H14 (sorted transport, transport, transport with scrambled embeddings), and one beside it."""
    checks = compare.plateaus(curves, results["condition"])
    reached = compare.reached(checks)
    tests = []
    for part, asked in (("main", _ASKED), ("beside", _BESIDE)):
        found = []
        for outcome, condition, loss, metric, region in asked:
            rows = results[(results["condition"] == condition) & (results["loss"] == loss)]
            if len(rows):
                about: dict[str, Any] = {"condition": condition, "loss": loss, "part": part}
                converged = reached[condition, loss]
                found.append(
                    compared("H14", outcome, rows[metric].tolist(), REGIONS[region], converged=converged, **about)
                )
        tests += family(found)
    return {"tests": tests, "convergence": checks}
