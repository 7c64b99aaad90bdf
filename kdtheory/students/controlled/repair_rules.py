"""The rules of `repairs`: what its repair times decide about H1 (network), H13, and where forward KL's lead ends.

All numbers stand here and were fixed before the seeds they judge were run. A time that grows like e^gap has slope 1 in
its logarithm per nat of gap; one that is proportional to the gap has slope .18 over the gaps 3 to 9, and exponent 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd

from kdtheory.students.controlled import compare
from kdtheory.students.controlled.hypotheses import Comparison, Region, compared, family

GAPS = (3, 5, 7, 9)
STALLING = ("tvd", "w1", "sinkhorn", "skl", "jsd", "rkl", "srkl")
WEIGHTS, TEMPERATURES = (0.3, 1, 3), (2, 4)
LEADS = {
    "adam-few": "2 of 200 contexts bad",
    "adam-cold": "good contexts to be learned as well",
    "adam-batch": "batches of 20",
}
"""Conditions, beside those of `shared-network`, that might end forward KL's lead under Adam."""

EXPONENTIAL = (0.7, 1.2)
"""H1: the slope of log flow time per nat of gap of every stalling loss lies in this interval;"""
FLAT = 0.3
"""that of forward KL, and of natural-gradient W1 (H13), is at most this;"""
SLOWER = 3.0
"""and under Adam, at gap 14, W1 needs at least this many times forward KL's steps."""
LINEAR, NOT_LINEAR = (0.5, 1.5), (0.25, 2.0)
"""H13: the exponent of natural-gradient W1's flow time in the gap lies in the first interval; outside the second it is
not proportional. An offset makes it smaller than 1; a time that is exponential in the gap has at least 3."""
AS_FAST = 1.5
"""H13: forward KL with a transport term needs at most this many times forward KL's time."""
SOON, LATE = 0.7, 0.9
"""The kink: smooth transport losses are repaired within the first share of the budget; W1 is not within the second."""
SAME = 1.25
"""Flow times at half the rate may differ by this factor; beyond it the rate, not the flow, sets them."""

RULE: dict[str, float] = {
    "repaired": 0.5,
    "exponential_low": EXPONENTIAL[0],
    "exponential_high": EXPONENTIAL[1],
    "flat": FLAT,
    "slower": SLOWER,
    "linear_low": LINEAR[0],
    "linear_high": LINEAR[1],
    "not_linear_low": NOT_LINEAR[0],
    "not_linear_high": NOT_LINEAR[1],
    "as_fast": AS_FAST,
    "soon": SOON,
    "late": LATE,
    "same": SAME,
}
_FLAT, _FACTOR, _CLOSE = Region(high=FLAT), Region(low=SLOWER), Region(high=AS_FAST)
_PROPORTIONAL = Region(*LINEAR, *NOT_LINEAR)
_SMOOTH = Region(high=SOON, refuted_above=LATE)
_KINK = {"rounded_w1": _SMOOTH, "sinkhorn": _SMOOTH, "w1": Region(low=LATE, refuted_below=SOON)}
Axis = Literal["slope", "exponent"]


def series(prefix: str = "") -> tuple[str, ...]:
    """Conditions that differ in the gap alone."""
    return tuple(f"{prefix}gap-{gap}" for gap in GAPS)


def decide(results: pd.DataFrame, curves: pd.DataFrame) -> dict[str, Any]:
    """Three-way tests (a Holm family each for H1, H13 and the rest), and the checks beside them."""
    rates = _rates(results)
    steady = {row["loss"]: row["converged"] for row in rates}
    families = (_saturation(results, steady), _repairs(results), _lead(results))
    whole = [name for name in ("adam",) if name in set(curves.get("condition", ()))]
    return {
        "tests": [row for items in families for row in family(list(items))],
        "convergence": compare.plateaus(curves, whole),
        "rates": rates,
    }


# -- the three families ----------------------------------------------------------------------------------------------
def _saturation(results: pd.DataFrame, steady: Mapping[str, bool]) -> Iterator[Comparison]:
    for loss in ("fkl", *STALLING):
        region = _FLAT if loss == "fkl" else Region(*EXPONENTIAL)
        about = {"part": "slopes", "converged": steady.get(loss, True)}
        yield from _grown(results, "H1", series(), loss, "slope", region, "shared network, SGD", **about)
    yield from _ratio(results, "H1", "adam", "w1", _FACTOR, "shared network, Adam, gap 14", part="adam")


def _repairs(results: pd.DataFrame) -> Iterator[Comparison]:
    laws: tuple[tuple[Axis, Region], ...] = (("slope", _FLAT), ("exponent", _PROPORTIONAL))
    for prefix, where in (("natural-", "shared network"), ("table-", "table of logits")):
        for axis, region in laws:
            yield from _grown(results, "H13", series(prefix), "natural_w1", axis, region, where, part="natural")
    for loss in ("fkl+sinkhorn", "fkl+w1"):
        for weight in WEIGHTS:
            for name, where in (("gap-9", "SGD, gap 9"), ("adam", "Adam, gap 14")):
                condition = name if weight == 1 else f"{name}-weight-{weight}"
                about = {"part": loss, "reference": name}
                yield from _ratio(results, "H13", condition, loss, _CLOSE, f"λ = {weight}, {where}", **about)
    for temperature in TEMPERATURES:
        conditions, region = series(f"temperature-{temperature}-"), Region(high=EXPONENTIAL[1] / temperature)
        where = f"temperature {temperature}"
        yield from _grown(results, "H13", conditions, "w1", "slope", region, where, part="temperature")


def _lead(results: pd.DataFrame) -> Iterator[Comparison]:
    for condition, where in LEADS.items():
        yield from _ratio(results, "H1", condition, "w1", _FACTOR, f"Adam, {where}", part="lead")
    rows = results[results["condition"] == "adam-gap-9"]
    for loss, region in _KINK.items():
        chosen = rows[rows["loss"] == loss].sort_values("seed")
        if len(chosen):
            late = int(chosen["censored"].sum())
            yield compared(
                "H1", f"share of the budget until repair, Adam, gap 9, {loss}", chosen["budget_share"].tolist(), region,
                censored=late, bounds="below" if late else "", part="kink",
            )  # fmt: skip


# -- one outcome -----------------------------------------------------------------------------------------------------
def growth(results: pd.DataFrame, conditions: tuple[str, ...], loss: str, axis: Axis) -> pd.DataFrame:
    """How a loss's repair time grows with the gap, seed by seed.

    Parameters
    ----------
    results : DataFrame
        condition, loss, seed, flow_time, censored, initial_gap.
    conditions : tuple of str
        They differ in the gap.
    loss : str
    axis : {"slope", "exponent"}
        Least-squares slope of log flow time against the gap the student really starts from, or against its logarithm.

    Returns
    -------
    DataFrame
        Index seed; ``value``, ``censored``, and ``lower`` (the value is a lower bound of the true one: every censored
        time lies at a gap above the mean, where a longer time only raises the slope). Empty without two such gaps.
    """
    rows = results[results["condition"].isin(conditions) & (results["loss"] == loss)]
    if rows["condition"].nunique() < 2:
        return pd.DataFrame()
    found = {}
    for seed, group in rows.groupby("seed", sort=True):
        x = group["initial_gap"].to_numpy(float)
        x = np.log(x) if axis == "exponent" else x
        x, y = x - x.mean(), np.log(group["flow_time"].to_numpy(float))
        y = y - y.mean()  # times that are all the budget have slope 0, and not a rounding error
        late = group["censored"].to_numpy(float) > 0
        lower = bool((x[late] > 0).all())
        found[seed] = {"value": float(x @ y / (x @ x)), "censored": bool(late.any()), "lower": lower}
    return pd.DataFrame.from_dict(found, orient="index")


def _grown(
    results: pd.DataFrame, hypothesis: str, conditions: tuple[str, ...], loss: str, axis: Axis, region: Region,
    where: str, **about: Any,
) -> Iterator[Comparison]:  # fmt: skip
    found = growth(results, conditions, loss, axis)
    if found.empty:
        return
    late = int(found["censored"].sum())
    what = "slope of log flow time per nat" if axis == "slope" else "exponent of flow time in the gap"
    yield compared(
        hypothesis, f"{what}, {where}, {loss}", found["value"].tolist(), region,
        censored=late, bounds="below" if late and found["lower"].all() else "", **about,
    )  # fmt: skip


def _ratio(
    results: pd.DataFrame, hypothesis: str, condition: str, loss: str, region: Region, where: str, *,
    part: str, reference: str = "",
) -> Iterator[Comparison]:  # fmt: skip
    """Repair steps of a loss over forward KL's at the same rate; a censored seed of forward KL leaves it undecided."""
    ours = _times(results, condition, loss)
    theirs = _times(results, reference or condition, "fkl")
    if ours.empty or theirs.empty:
        return
    late, reference_late = int(ours["censored"].sum()), int(theirs["censored"].sum())
    ratios = (ours["repair_steps"] / theirs["repair_steps"]).tolist()
    yield compared(
        hypothesis, f"repair time of {loss} over fkl, {where}", ratios, region, scale="log", part=part,
        censored=late + reference_late, bounds="below" if late and not reference_late else "",
    )  # fmt: skip


def _times(results: pd.DataFrame, condition: str, loss: str) -> pd.DataFrame:
    rows = results[(results["condition"] == condition) & (results["loss"] == loss)]
    return rows.set_index("seed")[["repair_steps", "flow_time", "censored"]].sort_index()


def _rates(results: pd.DataFrame) -> list[dict[str, Any]]:
    """Flow times at half the rate over those at the rate, gap 7: whether they are those of the flow."""
    rows = []
    for loss in dict.fromkeys(results.loc[results["condition"] == "half-gap-7", "loss"]):
        half, full = (_times(results, name, loss) for name in ("half-gap-7", "gap-7"))
        ratio = float(np.exp(np.log(half["flow_time"] / full["flow_time"]).mean()))
        late = int(half["censored"].sum() + full["censored"].sum())
        rows.append(
            {"loss": loss, "ratio": ratio, "censored": late, "converged": not late and 1 / SAME <= ratio <= SAME}
        )
    return rows
