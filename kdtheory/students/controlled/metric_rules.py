"""Decision rules of `metric`, fixed before its registered seeds were run.

A gain is 1 - cost of a loss's student / cost of forward KL's, of the same seed, held out.

H5, for each kind of student and for W1 and FKL→W1: the gain in d-cost is at least `GAIN`, the student's forward KL is
above forward KL's, and what is gained by training on the scrambled tree (judged under the original one) is less than
half of it. The registered refutation is an interval that includes 0, so that the sign of the gain is a test of its own.
The same again for excess d-cost.

Beside it, what must not win: W1 on the scrambled, random and 0-1 metrics and at full rank, where the gain in d-cost has
to stay below half of `GAIN`.

H15: over nine metrics from true to scrambled, Spearman's correlation of the gain in the error of E_q l with
ρ = corr(d(i, j), |l_i - l_j|) is at least `SPEARMAN`, l being the embeddings' first axis; and the gain at the scrambled
end lies within half of `GAIN` of 0.

H13, second half: the surrogate with W1's natural gradient, and FKL + λ S_ε, reach at least `SHARE` of W1's gain.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import numpy as np
import pandas as pd

from kdtheory.students.controlled import compare
from kdtheory.students.controlled.hypotheses import Comparison, Region, compared, family

GAIN = 0.10
"""H5: least gain in d-cost."""
SHARE = 0.5
"""Of a gain: what the scrambled metric may not keep (H5), what a repaired loss must (H13)."""
NONE = SHARE * GAIN
"""Gains up to this count as none."""
SPEARMAN = 0.5
RULE = {"gain": GAIN, "share": SHARE, "no_gain": NONE, "spearman": SPEARMAN}
KINDS = {"rank-2": "rank 2", "narrow": "two hidden units"}
TRANSPORT = {"w1": "W1", "fkl-then-w1": "FKL→W1"}
REPAIRS = {"natural-w1": "natural W1", "fkl+sinkhorn": "FKL + λ S_ε"}
TASK = "axis-1"
_COSTS = {"H5": ("d_cost", "d-cost"), "H5 excess": ("excess", "excess d-cost")}
Converged = dict[tuple[str, str], bool]


def decide(results: pd.DataFrame, curves: pd.DataFrame) -> dict[str, Any]:
    """Tests in one Holm family per hypothesis, gains and ratios of every student, and convergence checks."""
    checks = compare.plateaus(curves, results["condition"])
    seen = compare.plateaus(curves, results["condition"], "train_objective")
    reached = compare.reached(checks)
    tests = []
    for hypothesis, (cost, words) in _COSTS.items():
        tests += family(
            [test for kind in KINDS for test in _good_metric(results, reached, kind, hypothesis, cost, words)]
        )
    tests += family(_controls(results, reached))
    tests += family([test for kind in KINDS for test in _curve(results, reached, kind)])
    tests += family([test for kind in KINDS for test in _repairs(results, reached, kind)])
    return {"tests": tests, "curve": curve(results), "convergence": checks, "train_convergence": seen}


def gain(results: pd.DataFrame, condition: str, loss: str, metric: str, reference: str = "") -> pd.Series:
    """1 - cost / cost of forward KL's student in `reference` (its own condition if empty), by seed."""
    base = compare.by_seed(results, reference or condition, "fkl", metric)
    mine = compare.by_seed(results, condition, loss, metric)
    if list(base.index) != list(mine.index):
        raise ValueError(f"{condition}, {loss}: other seeds than forward KL's")
    return 1 - mine / base


def _test(
    hypothesis: str,
    outcome: str,
    values: pd.Series,
    region: Region,
    converged: bool,
    place: tuple[str, str],
    scale: Literal["linear", "log"] = "linear",
) -> Comparison:
    condition, loss = place
    numbers = [float(value) for value in values]
    return compared(
        hypothesis, outcome, numbers, region, converged=converged, scale=scale, condition=condition, loss=loss
    )


def _good_metric(
    results: pd.DataFrame, reached: Converged, kind: str, hypothesis: str, cost: str, words: str
) -> list[Comparison]:
    tests = []
    scrambled = f"{kind}-scrambled"
    for loss, name in TRANSPORT.items():
        who, place = f"{name}, {KINDS[kind]}", (kind, loss)
        true, kept = (gain(results, condition, loss, cost) for condition in (kind, scrambled))
        over, ratio = kept - SHARE * true, 1 - gain(results, kind, loss, "fkl")
        both = reached[place] and reached[kind, "fkl"]
        all_four = both and reached[scrambled, loss] and reached[scrambled, "fkl"]
        half = f"scrambled gain in {words} minus half the gain, {who}"
        tests += [
            _test(hypothesis, f"gain in {words}, {who}", true, Region(low=GAIN), both, place),
            _test(hypothesis, f"sign of the gain in {words}, {who}", true, Region(low=0.0), both, place),
            _test(hypothesis, f"forward KL ratio, {who}", ratio, Region(low=1.0), both, place, scale="log"),
            _test(hypothesis, half, over, Region(high=0.0), all_four, place),
        ]
    return tests


def _controls(results: pd.DataFrame, reached: Converged) -> list[Comparison]:
    """W1 where it must not win: metrics that do not fit, and a student that can be the teacher."""
    places = {f"{kind}-{rival}": f"{rival} metric, {KINDS[kind]}" for kind in KINDS for rival in RIVALS}
    places["full-rank"] = "full rank"
    tests = []
    for place, words in places.items():
        both = reached[place, "w1"] and reached[place, "fkl"]
        values = gain(results, place, "w1", "d_cost")
        tests.append(_test("H5 controls", f"gain in d-cost, {words}", values, Region(high=NONE), both, (place, "w1")))
    return tests


RIVALS = ("scrambled", "random", "zero-one")


def levels(results: pd.DataFrame, kind: str) -> list[str]:
    """Conditions from the true metric to the scrambled one."""
    mixed = [name for name in results["condition"].unique() if re.fullmatch(rf"{kind}-mix-[\d.]+", name)]
    mixed.sort(key=lambda name: float(name.rsplit("-", 1)[1]))
    return [kind, *mixed, f"{kind}-scrambled"]


def curve(results: pd.DataFrame) -> list[dict[str, Any]]:
    """W1's gain in the error of E_q l and in d-cost, and ρ, by kind of student, metric and seed."""
    rows = []
    for kind in KINDS:
        for place in levels(results, kind):
            columns = {
                "rho": compare.by_seed(results, place, "w1", f"rho_{TASK}"),
                "gain": gain(results, place, "w1", f"error_{TASK}", kind),
                "d_cost_gain": gain(results, place, "w1", "d_cost", kind),
            }
            found = pd.DataFrame(columns).reset_index()
            named = found.assign(kind=kind, condition=place)
            rows += [{str(name): value for name, value in row.items()} for row in named.to_dict("records")]
    return rows


def _curve(results: pd.DataFrame, reached: Converged, kind: str) -> list[Comparison]:
    places = levels(results, kind)
    ranks = _spearman(pd.DataFrame(curve(results)).query("kind == @kind"))
    end = gain(results, places[-1], "w1", f"error_{TASK}", kind)
    fkl, place = reached[kind, "fkl"], (kind, "w1")
    everywhere = fkl and all(reached[condition, "w1"] for condition in places)
    scrambled, words = fkl and reached[places[-1], "w1"], KINDS[kind]
    none = Region(low=-NONE, high=NONE)
    return [
        _test("H15", f"Spearman of gain and ρ, {words}", ranks, Region(low=SPEARMAN), everywhere, place),
        _test("H15", f"gain on the scrambled metric, {words}", end, none, scrambled, place),
    ]


def _spearman(rows: pd.DataFrame) -> pd.Series:
    """Spearman's correlation of ``gain`` and ``rho`` in each seed; 0 where either does not vary."""
    from scipy import stats

    found = []
    for _, seed in rows.groupby("seed", sort=True):
        varies = np.ptp(seed["gain"]) > 0 and np.ptp(seed["rho"]) > 0
        found.append(float(stats.spearmanr(seed["gain"], seed["rho"]).statistic) if varies else 0.0)
    return pd.Series(found)


def _repairs(results: pd.DataFrame, reached: Converged, kind: str) -> list[Comparison]:
    best = gain(results, kind, "w1", "d_cost")
    both = reached[kind, "w1"] and reached[kind, "fkl"]
    own = f"sign of W1's own gain in d-cost, {KINDS[kind]}"
    tests = [_test("H13", own, best, Region(low=0.0), both, (kind, "w1"))]
    for loss, name in REPAIRS.items():
        over = gain(results, kind, loss, "d_cost") - SHARE * best
        outcome = f"gain in d-cost minus half of W1's, {name}, {KINDS[kind]}"
        tests.append(_test("H13", outcome, over, Region(low=0.0), both and reached[kind, loss], (kind, loss)))
    return tests
