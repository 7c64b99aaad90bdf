"""Decisions of `tabular` (H1, H2, H11), fixed before the registered seeds 0 to 9 were run.

Every outcome is a number per seed: a slope of log flow time over the conditions of that seed, or a ratio of two times
of that seed. Times are held to the regions below; the words of chapter 03 that they come from stand beside them.

* **H1**, lead of the wrong token over every other. Forward KL: at most `FLAT` per nat, and the time that three more
  nats cost grows by at most a factor `BEND` between the small and the large gaps (linear: by none). All others: slope
  within `EXPONENTIAL` over the four gaps.
* **H1 log-odds**: the same, the mistake measured by its log-odds.
* **H1 local**: between the two largest gaps, in log-odds. Total variation, W1, OT_ε, S_ε and skew KL: within `ONE` of 1
  (Theorem 12: e^Δ). Jensen-Shannon, reverse KL, skew reverse KL: within `BELOW`, around the .92 that e^Δ/Δ has there
  (Theorem 11), and refuted at 1.
* **H2**: log-log slope in V: forward KL at most `LOGARITHMIC`, total variation and W1 within `LINEAR`.
* **H2 coefficients**: time/V of skew KL and Jensen-Shannon at every V from 1000 on, within a quarter of .12 and .36.
  Theorem 16 has V/log V for Jensen-Shannon, so that its constant must fail at large V.
* **H2 closed forms**: at the largest V, time over that of Theorem 16 for a one-hot teacher, within a tenth of 1.
* **H11 skew**: slope of log time in log(α/(1-α)) within `PROPORTIONAL`, at a middle and at the largest gap (log-odds).
* **H11 annealing**: α halved every unit of time: slope per nat at most `FLAT` (refuted above `STEEP`), and less than
  `RESTORED` times forward KL's time at the largest gap (refuted above `LATE`).

Every part is a Holm family of its own. A flow has no plateau to wait for: the check beside a decision is that every
seed's event happened (else its time is a lower bound, and says so), and that the times of the finer integration agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kdtheory.students.controlled.hypotheses import Comparison, Region, compared, family

GAPS = (5, 8, 11, 14)
FINE_GAP = 8
SKEWS, SKEW_GAPS = (0.01, 0.03, 0.1, 0.3, 0.5), (8, 14)
FLAT, STEEP = 0.3, 0.7
EXPONENTIAL = (0.7, 1.2)
BEND, BENT = 2.0, 4.0
ONE, NOT_ONE = 0.1, 0.2
BELOW, NOT_BELOW = (0.86, 0.98), (0.8, 1.0)
LOGARITHMIC, LINEAR = 0.25, (0.85, 1.15)
COEFFICIENTS = {"skl": 0.12, "jsd": 0.36}
QUARTER = 0.25
CLOSE, FAR = 0.1, 0.25
PROPORTIONAL = (0.8, 1.2)
RESTORED, LATE = 3.0, 10.0
AGREES = 0.01
"""Largest relative difference between a time and that of the finer integration."""
BOUNDED, LOGARITHMIC_TAILS = ("tvd", "w1", "ot", "sinkhorn", "skl"), ("jsd", "rkl", "srkl")
"""Slopes bounded on the simplex, and slopes that grow with the logarithm of p/q."""
RULE: dict[str, float] = {
    "flat": FLAT, "steep": STEEP, "exponential_low": EXPONENTIAL[0], "exponential_high": EXPONENTIAL[1], "bend": BEND,
    "bent": BENT, "one": ONE, "not_one": NOT_ONE, "below_low": BELOW[0], "below_high": BELOW[1],
    "not_below_low": NOT_BELOW[0], "not_below_high": NOT_BELOW[1], "logarithmic": LOGARITHMIC,
    "linear_low": LINEAR[0], "linear_high": LINEAR[1], "skl_coefficient": COEFFICIENTS["skl"],
    "jsd_coefficient": COEFFICIENTS["jsd"], "quarter": QUARTER, "close": CLOSE, "far": FAR,
    "proportional_low": PROPORTIONAL[0], "proportional_high": PROPORTIONAL[1],
    "restored": RESTORED, "late": LATE, "agrees": AGREES,
}  # fmt: skip
NAMES = {
    "fkl": "forward KL", "rkl": "reverse KL", "jsd": "Jensen-Shannon", "skl": "skew KL", "srkl": "skew reverse KL",
    "tvd": "total variation", "w1": "W1", "ot": "OT_ε", "sinkhorn": "S_ε", "annealed": "annealed skew KL",
}  # fmt: skip


def decide(results: pd.DataFrame, curves: pd.DataFrame) -> dict[str, Any]:
    """Tests by part, the slope of every loss in every series, the checks of the numbers, and the bounds."""
    seen = _Times(results)
    parts = [_mistakes(seen, "lead", "H1"), _mistakes(seen, "odds", "H1 log-odds"), _local(seen), _growth(seen)]
    parts += [_coefficients(seen), _closed_forms(seen), _skew(seen), _annealing(seen)]
    return {
        "tests": [row for part in parts for row in family(part)],
        "slopes": _slopes(seen),
        "convergence": seen.checks,
        "bounds": _bounds(results),
    }


class _Times:
    """Flow times by condition and loss, seeds in order, and whether they may be trusted."""

    def __init__(self, results: pd.DataFrame) -> None:
        self.results = results
        groups = results.sort_values("seed").groupby(["condition", "loss"], sort=False)
        self._groups = {(str(condition), str(loss)): rows for (condition, loss), rows in groups}
        self.checks = self._checked()

    def has(self, loss: str, conditions: Sequence[str]) -> bool:
        return bool(conditions) and all((condition, loss) in self._groups for condition in conditions)

    def log(self, loss: str, conditions: Sequence[str], column: str = "flow_time") -> np.ndarray:
        """Logarithms of the times, shape (conditions, seeds)."""
        return np.log([self._groups[condition, loss][column].to_numpy(np.float64) for condition in conditions])

    def number(self, loss: str, condition: str, column: str) -> float:
        """What all seeds share."""
        return float(self._groups[condition, loss][column].iloc[0])

    def censored(self, loss: str, conditions: Sequence[str]) -> int:
        """Seeds of which some time is only a lower bound."""
        flags = [self._groups[condition, loss]["censored"].to_numpy(bool) for condition in conditions]
        return int(np.any(flags, axis=0).sum())

    def starting(self, prefix: str) -> list[str]:
        """Conditions ``prefix`` followed by a number, smallest first."""
        found = {name for name, _ in self._groups if name.startswith(prefix) and name.removeprefix(prefix).isdigit()}
        return sorted(found, key=lambda name: int(name.removeprefix(prefix)))

    def _checked(self) -> list[dict[str, Any]]:
        """Where a finer integration was made: the largest relative difference of a time, per loss."""
        rows = []
        for fine, loss in self._groups:
            condition = fine.removesuffix("-fine")
            if fine != condition and (condition, loss) in self._groups:
                largest = float(np.abs(np.expm1(self.log(loss, [fine]) - self.log(loss, [condition]))).max())
                row = {"condition": condition, "loss": loss, "deviation": largest}
                rows.append({**row, "converged": largest < AGREES and not self.censored(loss, [condition, fine])})
        return rows

    def trusted(self, *losses: str, kind: str) -> bool:
        """Whether the finer integration of this kind (``odds`` or ``vocabulary``) agrees for these losses."""
        found = {row["loss"]: row["converged"] for row in self.checks if row["condition"].startswith(kind)}
        return all(found.get(loss, False) for loss in losses)


def _slope(log_times: np.ndarray, at: Sequence[float]) -> np.ndarray:
    """Least-squares slope of each seed's log time, (conditions, seeds) -> (seeds,)."""
    centred = np.asarray(at, dtype=np.float64) - np.mean(at)
    return centred @ log_times / (centred @ centred)


def _made(
    seen: _Times, hypothesis: str, loss: str, conditions: Sequence[str], outcome: str,
    measure: Callable[[np.ndarray], np.ndarray], region: Region, kind: str, *, scale: Any = "linear",
) -> list[Comparison]:  # fmt: skip
    """The comparison of one loss over some conditions, or none where they were not run."""
    if not seen.has(loss, conditions):
        return []
    values, late = measure(seen.log(loss, conditions)), seen.censored(loss, conditions)
    name, trusted = f"{NAMES[loss]}: {outcome}", seen.trusted(loss, kind=kind)
    options = {"converged": trusted, "censored": late, "bounds": "below" if late else "", "scale": scale}
    return [compared(hypothesis, name, values.tolist(), region, loss=loss, **options)]


def _mistakes(seen: _Times, series: str, hypothesis: str) -> list[Comparison]:
    """Slopes over the four gaps."""
    names = [f"{series}-{gap}" for gap in GAPS]

    def increments(log_times: np.ndarray) -> np.ndarray:
        first, second, third, last = np.exp(log_times)
        return (last - third) / (second - first)

    def slope(log_times: np.ndarray) -> np.ndarray:
        return _slope(log_times, GAPS)

    bend = Region(1 / BEND, BEND, 1 / BENT, BENT)
    rows = _made(seen, hypothesis, "fkl", names, "log time per nat", slope, Region(high=FLAT), "odds")
    rows += _made(seen, hypothesis, "fkl", names, "growth of increments", increments, bend, "odds", scale="log")
    for loss in (*BOUNDED, *LOGARITHMIC_TAILS):
        rows += _made(seen, hypothesis, loss, names, "log time per nat", slope, Region(*EXPONENTIAL), "odds")
    return rows


def _local(seen: _Times) -> list[Comparison]:
    """Slopes between the two largest gaps, in log-odds."""
    names = [f"odds-{gap}" for gap in GAPS[-2:]]
    one = Region(1 - ONE, 1 + ONE, 1 - NOT_ONE, 1 + NOT_ONE)
    rows = []
    for loss in (*BOUNDED, *LOGARITHMIC_TAILS):
        region = one if loss in BOUNDED else Region(*BELOW, *NOT_BELOW)
        measure = lambda log_times: _slope(log_times, GAPS[-2:])  # noqa: E731
        rows += _made(seen, "H1 local", loss, names, "log time per nat, last gaps", measure, region, "odds")
    return rows


def _sizes(conditions: Sequence[str]) -> list[int]:
    return [int(name.rpartition("-")[2]) for name in conditions]


def _growth(seen: _Times) -> list[Comparison]:
    """Log-log slopes in V."""
    names = seen.starting("vocabulary-")
    at = np.log(_sizes(names)).tolist()
    rows = []
    for loss in ("fkl", "tvd", "w1"):
        region = Region(high=LOGARITHMIC) if loss == "fkl" else Region(*LINEAR)
        measure = lambda log_times: _slope(log_times, at)  # noqa: E731
        rows += _made(seen, "H2", loss, names, "exponent of V", measure, region, "vocabulary")
    return rows


def _coefficients(seen: _Times) -> list[Comparison]:
    """Time over V, at every V from the second on: at the first the logarithms count."""
    rows = []
    for loss, asked in COEFFICIENTS.items():
        region = Region(asked * (1 - QUARTER), asked * (1 + QUARTER))
        for name in seen.starting("vocabulary-")[1:]:
            size = _sizes([name])[0]
            measure = lambda log_times, size=size: np.exp(log_times[0]) / size  # noqa: E731
            words = f"time/V at V = {size}"
            rows += _made(seen, "H2 coefficients", loss, [name], words, measure, region, "vocabulary", scale="log")
    return rows


def _closed_forms(seen: _Times) -> list[Comparison]:
    """At the largest V, time over the closed form for a one-hot teacher."""
    rows = []
    for loss in ("fkl", "tvd", "skl", "jsd"):
        names = seen.starting("vocabulary-")[-1:]
        if seen.has(loss, names):
            form = seen.number(loss, names[0], "one_hot")
            region = Region(1 - CLOSE, 1 + CLOSE, 1 - FAR, 1 + FAR)
            measure = lambda log_times, form=form: np.exp(log_times[0]) / form  # noqa: E731
            words = "time over the closed form"
            rows += _made(seen, "H2 closed forms", loss, names, words, measure, region, "vocabulary", scale="log")
    return rows


def _skew(seen: _Times) -> list[Comparison]:
    """Slopes in the odds of the skew."""
    at = [math.log(alpha / (1 - alpha)) for alpha in SKEWS]
    region, rows = Region(*PROPORTIONAL), []
    for gap in SKEW_GAPS:
        names = [f"skew-{alpha:g}-gap-{gap}" for alpha in SKEWS]
        measure = lambda log_times: _slope(log_times, at)  # noqa: E731
        rows += _made(seen, "H11 skew", "skl", names, f"exponent of α/(1-α), gap {gap}", measure, region, "odds")
    return rows


def _annealing(seen: _Times) -> list[Comparison]:
    """Annealed skew KL over the four gaps, and against forward KL at the largest."""
    names = [f"odds-{gap}" for gap in GAPS]
    if not (seen.has("annealed", names) and seen.has("fkl", names)):
        return []
    reference = seen.log("fkl", names[-1:])[0]
    flat = Region(high=FLAT, refuted_above=STEEP)
    ratio = Region(high=RESTORED, refuted_above=LATE)
    measure = lambda log_times: _slope(log_times, GAPS)  # noqa: E731
    rows = _made(seen, "H11 annealing", "annealed", names, "log time per nat", measure, flat, "odds")
    over = lambda log_times: np.exp(log_times[0] - reference)  # noqa: E731
    words = f"time over forward KL's, gap {GAPS[-1]}"
    return rows + _made(seen, "H11 annealing", "annealed", names[-1:], words, over, ratio, "odds", scale="log")


def _slopes(seen: _Times) -> list[dict[str, Any]]:
    """Mean slope of every loss in every series: flow, norm-matched, descent, Adam. Reported, never judged."""
    sizes = seen.starting("vocabulary-")
    series = {name: ([f"{name}-{gap}" for gap in GAPS], list(map(float, GAPS))) for name in ("lead", "odds")}
    series["vocabulary"] = (sizes, np.log(_sizes(sizes)).tolist())
    rows = []
    for name, (conditions, at) in series.items():
        for loss in dict.fromkeys(seen.results["loss"]):
            if seen.has(loss, conditions):
                for column in ("flow_time", "matched_time", "adam_steps"):
                    slope = _slope(seen.log(loss, conditions, column), at)
                    rows.append({"series": name, "loss": loss, "measure": column, "slope": float(slope.mean())})
    return [row for row in rows if math.isfinite(row["slope"])]


def _bounds(results: pd.DataFrame) -> list[dict[str, Any]]:
    """Smallest time over the theorem's lower bound, per series and loss: never below 1."""
    rows = results[results["lower_bound"] > 0]
    table = rows.assign(
        series=rows["condition"].str.partition("-")[0], least_ratio=rows["flow_time"] / rows["lower_bound"]
    )
    least = table.groupby(["series", "loss"], sort=False)["least_ratio"].min().reset_index()
    return [{str(name): value for name, value in row.items()} for row in least.to_dict("records")]
