"""The rule of `labels` (H7), fixed before its registered runs: regions, convergence, and the tests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from kdtheory.students import statistics
from kdtheory.students.controlled import compare
from kdtheory.students.controlled.hypotheses import Comparison, Region, compared, family

REGIONS: Mapping[str, Region] = {
    "w1-entropy": Region(high=0.10, refuted_above=0.5),
    "w1-medoid": Region(high=0.10, refuted_above=0.5),
    "order": Region(low=-1.2, high=-0.8),
    "fkl-entropy": Region(low=0.95, high=1.05, refuted_below=0.9, refuted_above=1.1),
    "fkl-tv": Region(high=0.05, refuted_above=0.10),
}
"""Entropy over the teacher's, W1 at m = 1; W1 from student to medoid over that from teacher to medoid; slope of the log
of W1 to the teacher against log m; entropy over the teacher's, and total variation to it, forward KL at m = 1."""
SMALL_GAP = 0.05
"""A tabular student has arrived if at most this share of what its expected loss could fall is left."""
RESOLVED = 0.5
"""A student shows its bias if its distance to the exact minimiser is at most this share of the minimiser's own to the
teacher."""
SAMPLES = (1, 2, 4, 8, 16, 32, 64)
TRAINED = (1, 2, 4, 8)
"""Sizes m over which the slope of the trained students is fitted. Beyond them p and the minimiser differ in expected
loss by less than sampled gradients resolve (pilot seed)."""
RULE = {"gap": SMALL_GAP, "resolved": RESOLVED, "level": statistics.LEVEL}

_ASKED = (
    ("W1, m = 1, line: entropy ratio", "samples-1", "w1", "entropy_ratio", "w1-entropy"),
    ("W1, m = 1, line: distance to the medoid", "samples-1", "w1", "left", "w1-medoid"),
    ("W1, m = 1, tree: entropy ratio", "tree-1", "w1", "entropy_ratio", "w1-entropy"),
    ("W1, m = 1, network: entropy ratio", "network-1", "w1", "entropy_ratio", "w1-entropy"),
    ("FKL, m = 1, table: entropy ratio", "samples-1", "fkl", "entropy_ratio", "fkl-entropy"),
    ("FKL, m = 1, table: TV to the teacher", "samples-1", "fkl", "tv", "fkl-tv"),
    ("FKL, m = 1, network: TV to the teacher", "network-1", "fkl", "tv", "fkl-tv"),
)
_CONTROLS = (
    ("W1, whole teacher, table: entropy ratio", "full", "w1", "entropy_ratio", "fkl-entropy"),
    ("W1, whole teacher, table: TV to the teacher", "full", "w1", "tv", "fkl-tv"),
    ("W1, whole teacher, network: TV to the teacher", "network-full", "w1", "tv", "fkl-tv"),
)


def numbers(regions: Mapping[str, Region]) -> dict[str, float]:
    """The finite bounds of regions, for the record of an experiment's rule."""
    found: dict[str, float] = {}
    for name, region in regions.items():
        below, above = region.outside
        bounds = {"low": region.low, "high": region.high, "refuted-below": below, "refuted-above": above}
        found |= {f"{name}-{side}": value for side, value in bounds.items() if math.isfinite(value)}
    return found


def slopes(results: pd.DataFrame, metric: str, samples: tuple[int, ...]) -> list[float]:
    """Per seed the least-squares slope of log metric against log m, W1 on the line, tabular students."""
    rows = results[(results["loss"] == "w1") & results["condition"].isin([f"samples-{m}" for m in samples])]
    m = rows["condition"].str.removeprefix("samples-").astype(float)
    table = rows.assign(x=np.log(m), y=np.log(rows[metric]))
    return [float(np.polyfit(group["x"], group["y"], 1)[0]) for _, group in table.groupby("seed", sort=False)]


def decide(results: pd.DataFrame, curves: pd.DataFrame) -> dict[str, Any]:
    """The family of H7, the controls (a family beside it), and the convergence of everything."""
    results = results.assign(left=results["w1_to_minimiser"] / results["minimiser_w1"])
    checks = _checked(results, curves)
    arrived = {(row["condition"], row["loss"]): row["arrived"] for row in checks}
    main = [*_tests(results, arrived, _ASKED, "main"), *_orders(results, checks)]
    beside = _tests(results, arrived, _CONTROLS, "control")
    return {"tests": [*family(main), *family(beside)], "convergence": checks}


def _checked(results: pd.DataFrame, curves: pd.DataFrame) -> list[dict[str, Any]]:
    """Plateau rows with the mean gap and whether the student arrived; the network's minimum is not known."""
    means = results.groupby(["condition", "loss"], sort=False)[["gap", "left"]].mean()
    checks = compare.plateaus(curves, results["condition"])
    for row in checks:
        gap, left = means.loc[(row["condition"], row["loss"])]
        arrived = row["converged"] and (row["condition"].startswith("network") or gap <= SMALL_GAP)
        row |= {"gap": float(gap), "left": float(left) if math.isfinite(left) else None, "arrived": bool(arrived)}
    return checks


def _tests(results: pd.DataFrame, arrived: Mapping[tuple[str, str], bool], asked: Any, part: str) -> list[Comparison]:
    found = []
    for outcome, condition, loss, metric, region in asked:
        rows = results[(results["condition"] == condition) & (results["loss"] == loss)]
        if len(rows):
            about: dict[str, Any] = {"condition": condition, "loss": loss, "part": part}
            converged = arrived[condition, loss]
            values = rows[metric].tolist()
            found.append(compared("H7", outcome, values, REGIONS[region], converged=converged, **about))
    return found


def _orders(results: pd.DataFrame, checks: list[dict[str, Any]]) -> list[Comparison]:
    """The order of the bias: of the exact minimiser over all m, of the trained students where they resolve it."""
    ladder = [row for row in checks if row["condition"].startswith("samples-") and row["loss"] == "w1"]
    if len(ladder) < 2:
        return []
    trained = [row for row in ladder if row["condition"] in [f"samples-{m}" for m in TRAINED]]
    resolved = all(row["arrived"] and row["left"] is not None and row["left"] <= RESOLVED for row in trained)
    about: dict[str, Any] = {"condition": "samples", "loss": "w1", "part": "main"}
    exact, students = slopes(results, "minimiser_w1", SAMPLES), slopes(results, "w1", TRAINED)
    return [
        compared("H7", "order of the bias, exact minimiser", exact, REGIONS["order"], **about),
        compared("H7", "order of the bias, trained", students, REGIONS["order"], converged=resolved, **about),
    ]
