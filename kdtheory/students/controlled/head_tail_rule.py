"""Decisions of `head-tail`: shares of contexts against fixed regions, and which part of the teacher is fitted first."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from kdtheory.students.controlled import compare, hypotheses
from kdtheory.students.controlled.hypotheses import Comparison, Region

HARD, SFT, SCRATCH = "hard", "sft", "scratch"
LOSSES = (HARD, "fkl", "rkl")
RULE = {
    "cold_low": 0.95,
    "sft_low": 0.50,
    "sft_high": 0.75,
    "sft_refuted_below": 0.35,
    "sft_refuted_above": 0.90,
    "fall": 0.10,
    "fall_later": 0.25,
    "fit_low": 0.10,
    "fit_refuted_below": 0.0,
}
"""Bounds of the share of contexts at a cold start and at a hard-label start; by how much TV has fallen when the
errors mended on head and tail are compared; bounds of that comparison."""
COLD = Region(low=RULE["cold_low"])
WARM = Region(RULE["sft_low"], RULE["sft_high"], RULE["sft_refuted_below"], RULE["sft_refuted_above"])
FIT = Region(low=RULE["fit_low"], refuted_below=RULE["fit_refuted_below"])


def decide(results: pd.DataFrame, curves: pd.DataFrame) -> dict[str, Any]:
    """Tests of H12, and the same share in the conditions beside it."""
    conditions = [name for name in dict.fromkeys(results["condition"]) if name in set(curves["condition"])]
    checks = compare.plateaus(curves, conditions)
    reached = {row["condition"]: row["converged"] for row in checks if row["loss"] == HARD}
    hard = results[results["loss"] == HARD]
    families = [
        _main(hard[hard["condition"] == SFT], reached.get(SFT, False)),
        _fits(curves, RULE["fall"], {SFT: "fit", SCRATCH: "fit-cold"}),
        _fits(curves, RULE["fall_later"], {SFT: "fit-later", SCRATCH: "fit-later"}),
    ]
    beside = [name for name in reached if name != SFT]
    families.append([_warm("beside", name, hard[hard["condition"] == name], reached[name]) for name in beside])
    return {"tests": [row for family in families for row in hypotheses.family(family)], "convergence": checks}


def _main(rows: pd.DataFrame, converged: bool) -> list[Comparison]:
    """Cold starts (no plateau is asked of what was not trained) and the hard-label start, seen and unseen contexts."""
    if rows.empty:
        return []
    found = [
        hypotheses.compared("H12", f"share of contexts, {name}", rows[column].tolist(), COLD, part="cold")
        for name, column in (("uniform logits", "uniform_agree"), ("untrained network", "untrained_agree"))
    ]
    return [
        *found,
        _warm("warm", "unseen contexts", rows, converged),
        _warm("warm", "contexts of the corpus", rows, converged, "sft_seen_agree"),
    ]


def _warm(part: str, name: str, rows: pd.DataFrame, converged: bool, column: str = "sft_agree") -> Comparison:
    outcome = f"share of contexts after hard labels, {name}"
    return hypotheses.compared("H12", outcome, rows[column].tolist(), WARM, converged=converged, part=part)


def _fits(curves: pd.DataFrame, fall: float, parts: dict[str, str]) -> list[Comparison]:
    """Head's share of the error that is mended when total variation has fallen by `fall`: forward minus reverse KL."""
    found = []
    for start, part in parts.items():
        rows = curves[curves["condition"] == start]
        if not {"fkl", "rkl"} <= set(rows["loss"]):
            continue
        both = [mended_on_head(rows[rows["loss"] == loss], fall) for loss in ("fkl", "rkl")]
        values = [a - b for a, b in zip(*both, strict=True)]
        reached = all(math.isfinite(value) for value in values)
        shown = [value if math.isfinite(value) else 0.0 for value in values]
        outcome = f"head's share of mended error, forward minus reverse KL, {start}, TV down by {fall:g}"
        found.append(hypotheses.compared("H12", outcome, shown, FIT, converged=reached, part=part))
    return found


def mended_on_head(rows: pd.DataFrame, fall: float) -> list[float]:
    """Share of the decrease of Σ|p - q| that fell on the head when TV was first down by `fall`, per seed.

    Between points of a curve linearly; NaN for a seed whose TV never fell so far.
    """
    found = []
    for _, curve in rows.groupby("seed", sort=False):
        tv, head, tail = (curve[name].to_numpy(dtype=np.float64) for name in ("tv", "head", "tail"))
        target = (1 - fall) * tv[0]
        below = np.flatnonzero(tv <= target)
        if not len(below):
            found.append(math.nan)
            continue
        last = int(below[0])
        weight = (tv[last - 1] - target) / (tv[last - 1] - tv[last])
        mended = [x[0] - (x[last - 1] + weight * (x[last] - x[last - 1])) for x in (head, tail)]
        found.append(float(mended[0] / (mended[0] + mended[1])))
    return found
