"""Paired comparisons over training seeds: t interval, exact sign-flip test, Holm, convergence, three-way decision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kdtheory.students.evaluate import METRICS

CONFIRMATORY_SEEDS = 10
MARGIN = 0.01
"""Smallest difference that matters, as a share of the reference's mean."""
PLATEAU_SHARE = 0.05
"""A loss has plateaued if the last quarter of its steps brought at most this share of the change since its start,"""
PLATEAU_CHANGE = 0.005
"""or changed its held-out objective by at most this share of its value: half of `MARGIN`."""
LEVEL = 0.05
REFERENCE = "fkl"
OTHER_REFERENCES = {
    "rkl": ("w1", "fkl+w1", "rkl+hard"),
    "w1": ("w1+hard",),
    "fkl/16": ("w1-topk/16", "sinkhorn/16", "sinkd/16"),
}
"""Every loss is compared with forward KL; transport losses with reverse KL too, a mixture with what it mixes, and what
sees a share of the positions with forward KL on that share."""


class Interval(NamedTuple):
    """A mean and its 95 % t interval, which is infinite for a single number."""

    mean: float
    low: float
    high: float


def interval(differences: Sequence[float]) -> Interval:
    """Student's t interval of the mean of paired differences.

    Raises
    ------
    ValueError
        If there is no difference, or one is not finite (the message gives its index).
    """
    from scipy import stats

    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1 or not len(d):
        raise ValueError(f"differences: expected at least one number, got an array of shape {d.shape}")
    if not np.isfinite(d).all():
        index = int(np.flatnonzero(~np.isfinite(d))[0])
        raise ValueError(
            f"differences[{index}] is {d[index]}: a run diverged or is missing; leave no seed out silently"
        )
    mean = float(d.mean())
    if len(d) == 1:
        return Interval(mean, -math.inf, math.inf)
    if np.ptp(d) == 0:  # scipy's t statistic is 0/0 or infinite there; the interval is a point
        return Interval(mean, mean, mean)
    found = stats.ttest_1samp(d, 0.0).confidence_interval(1 - LEVEL)
    return Interval(mean, float(found.low), float(found.high))


@dataclass(frozen=True)
class Paired:
    """Paired differences over seeds: loss minus reference.

    Attributes
    ----------
    mean, low, high : float
        Mean difference and its 95 % t interval; the interval is infinite for a single seed.
    p : float
        Exact two-sided sign-flip p-value of a zero-centred difference; 1 for a single seed.
    """

    seeds: int
    mean: float
    low: float
    high: float
    p: float


def paired(differences: Sequence[float]) -> Paired:
    """Student's t interval and sign-flip test of paired differences.

    The sign-flip test enumerates all 2^n sign patterns up to n = 20.

    Raises
    ------
    ValueError
        If there is no difference, or one is not finite (the message gives its index).
    """
    from scipy import stats

    around = interval(differences)
    d = np.asarray(differences, dtype=np.float64)
    if len(d) == 1:
        return Paired(1, *around, p=1.0)
    flips = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=2**20, alternative="two-sided", rng=0, vectorized=True
    )
    return Paired(len(d), *around, p=min(1.0, float(flips.pvalue)))


def holm(p: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values of one family, in the order given."""
    from statsmodels.stats.multitest import multipletests

    return [float(value) for value in multipletests(list(p), method="holm")[1]] if len(p) else []


@dataclass(frozen=True)
class Convergence:
    """Whether a loss has plateaued, from its held-out objective averaged over seeds.

    Attributes
    ----------
    share : float
        Change over the last quarter of the steps, as a share of the change since the warm start; inf if that is 0.
    change : float
        Change over the last quarter, relative to the final value; both without sign.
    """

    loss: str
    start: float
    final: float
    share: float
    change: float
    converged: bool


def convergence(loss: str, steps: Sequence[float], objective: Sequence[float]) -> Convergence:
    """Apply the plateau rule to one curve.

    Parameters
    ----------
    loss : str
        Its name.
    steps : sequence of float
        Increasing, from 0 (the warm start); one of them at three quarters of the last.
    objective : sequence of float
        Held-out training objective at those steps.

    Raises
    ------
    ValueError
        If no evaluation lies at three quarters of the steps.
    """
    curve = dict(zip(steps, objective, strict=True))
    last = max(curve)
    if 0.75 * last not in curve or 0 not in curve:
        raise ValueError(f"curve of {loss}: no evaluation at step 0 or at three quarters of {last} steps")
    late = abs(curve[last] - curve[0.75 * last])
    total = abs(curve[last] - curve[0])
    share = late / total if total else math.inf
    change = late / abs(curve[last]) if curve[last] else math.inf
    plateau = share <= PLATEAU_SHARE or change <= PLATEAU_CHANGE
    return Convergence(loss, curve[0], curve[last], share, change, bool(plateau and math.isfinite(late)))


def decide(result: Paired, *, p_holm: float, reference: float, converged: bool) -> str:
    """Three-way decision: the metric is lower, higher, or it is undecided.

    Lower: the interval lies below -MARGIN · |reference| and, with at least ten seeds, the Holm-adjusted sign-flip
    p-value is below .05. Higher: the mirror image. Fewer than ten seeds make a pilot, and the decision says so.
    """
    pilot = result.seeds < CONFIRMATORY_SEEDS
    margin = MARGIN * abs(reference)
    significant = pilot or p_holm < LEVEL
    if not converged:
        word = "undecided (not converged)"
    elif result.high < -margin and significant:
        word = "lower"
    elif result.low > margin and significant:
        word = "higher"
    else:
        word = "undecided"
    return f"pilot: {word}" if pilot else word


def comparisons(losses: Sequence[str]) -> list[tuple[str, str]]:
    """(loss, reference) pairs of one family, in the order of the losses."""
    pairs = [(name, REFERENCE) for name in losses if name != REFERENCE and REFERENCE in losses]
    for reference, names in OTHER_REFERENCES.items():
        pairs += [(name, reference) for name in losses if name in names and reference in losses]
    return pairs


def table(results: pd.DataFrame, curves: pd.DataFrame) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All comparisons and all convergence checks.

    Two losses are compared over the seeds both have. The Holm family of a metric is its confirmatory comparisons; a
    pilot's p-value decides nothing, and would only make the others' larger.

    Parameters
    ----------
    results : DataFrame
        One row per loss and seed, a column per metric.
    curves : DataFrame
        Columns loss, seed, step, objective.

    Returns
    -------
    (list of dict, list of dict)
        Comparisons and convergence checks.

    Raises
    ------
    ValueError
        If two losses have no seed in common, or a metric of a run is not finite.
    """
    order = list(dict.fromkeys(results["loss"]))
    mean = curves.groupby(["loss", "step"], sort=False)["objective"].mean()
    checks = {name: convergence(name, list(mean[name].index), list(mean[name])) for name in order}
    rows: list[dict[str, Any]] = []
    for metric in measured(results):
        bad = results[~np.isfinite(results[metric])]
        if not bad.empty:
            loss, seed, value = bad.iloc[0][["loss", "seed", metric]]
            raise ValueError(
                f"results: {metric} of {loss}, seed {seed} is {value}: the run diverged; leave no seed out"
            )
        rows += _family(results.pivot(index="seed", columns="loss", values=metric), metric, comparisons(order), checks)
    return rows, [asdict(check) for check in checks.values()]


def measured(results: pd.DataFrame) -> list[str]:
    """The metrics that these results hold: `METRICS`, and ROUGE-L for instructions."""
    return [name for name in (*METRICS, "rouge_l") if name in results or name in METRICS]


def _family(
    wide: pd.DataFrame, metric: str, pairs: Sequence[tuple[str, str]], checks: dict[str, Convergence]
) -> list[dict[str, Any]]:
    """Comparisons in one metric; `wide` has a row per seed and a column per loss, NaN where a loss lacks a seed."""
    shared = [wide[[name, reference]].dropna() for name, reference in pairs]
    for (name, reference), both in zip(pairs, shared, strict=True):
        if both.empty:
            raise ValueError(f"results: {name} and {reference} have no seed with a {metric} in common")
    found = [paired((both.iloc[:, 0] - both.iloc[:, 1]).tolist()) for both in shared]
    confirmatory = [index for index, result in enumerate(found) if result.seeds >= CONFIRMATORY_SEEDS]
    adjusted = dict(zip(confirmatory, holm([found[index].p for index in confirmatory]), strict=True))
    rows = []
    for index, ((name, reference), both, result) in enumerate(zip(pairs, shared, found, strict=True)):
        level = float(both[reference].mean())
        settled = checks[name].converged and checks[reference].converged
        p_holm = adjusted.get(index, 1.0)
        decision = decide(result, p_holm=p_holm, reference=level, converged=settled)
        row = {"metric": metric, "loss": name, "reference": reference, "reference_mean": level}
        rows.append({**row, **asdict(result), "p_holm": p_holm, "converged": settled, "decision": decision})
    return rows
