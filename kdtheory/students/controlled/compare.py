"""Statistics shared by controlled experiments: paired ratios against a factor, with censored times."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kdtheory.students import statistics


@dataclass(frozen=True)
class Ratio:
    """Paired ratios over seeds against a factor.

    Attributes
    ----------
    ratio, low, high : float
        Geometric mean of loss / reference and its 95 % t interval (of the logarithms).
    p : float
        Exact sign-flip p-value of log ratio = log factor.
    censored, reference_censored : int
        Seeds whose time is only a lower bound.
    """

    ratio: float
    low: float
    high: float
    p: float
    factor: float
    seeds: int
    censored: int
    reference_censored: int

    def decision(self, p_holm: float) -> str:
        """``above``, ``below`` or ``undecided``, with the word "pilot: " before it below ten seeds.

        A censored time of the loss is a lower bound: it may support "above", never "below". One of the reference
        supports neither.
        """
        pilot = self.seeds < statistics.CONFIRMATORY_SEEDS
        significant = pilot or p_holm < statistics.LEVEL
        word = "undecided"
        if significant and not self.reference_censored:
            if self.low > self.factor:
                word = "above"
            elif self.high < self.factor and not self.censored:
                word = "below"
        return f"pilot: {word}" if pilot else word


def ratio(
    values: Sequence[float],
    reference: Sequence[float],
    *,
    factor: float,
    censored: Sequence[float] = (),
    reference_censored: Sequence[float] = (),
) -> Ratio:
    """Compare two losses seed by seed.

    Parameters
    ----------
    values, reference : sequence of float
        Positive numbers of the same seeds, in the same order.
    factor : float
        What the ratio is held against.
    censored, reference_censored : sequence, optional
        True (or 1) where the number is only a lower bound.

    Raises
    ------
    ValueError
        If the lengths differ, or a number is not positive and finite (the message gives its index).
    """
    if not 0 < factor < math.inf:
        raise ValueError(f"factor = {factor}: a ratio is held against a positive finite number")
    a, b = (np.asarray(x, dtype=np.float64) for x in (values, reference))
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"values has shape {a.shape}, reference {b.shape}: give one number per seed for both")
    for name, x in (("values", a), ("reference", b)):
        if not (np.isfinite(x) & (x > 0)).all():
            index = int(np.flatnonzero(~(np.isfinite(x) & (x > 0)))[0])
            raise ValueError(f"{name}[{index}] is {x[index]}: a ratio takes positive finite numbers")
    for name, flags in (("censored", censored), ("reference_censored", reference_censored)):
        if len(flags) not in (0, len(a)):
            raise ValueError(f"{name} has {len(flags)} entries for {len(a)} seeds: give one each, or none")
    found = statistics.paired((np.log(a / b) - math.log(factor)).tolist())
    mean, low, high = (factor * math.exp(x) if x < 700 else math.inf for x in (found.mean, found.low, found.high))
    late, reference_late = (int(np.asarray(flags, dtype=bool).sum()) for flags in (censored, reference_censored))
    return Ratio(mean, low, high, found.p, factor, found.seeds, late, reference_late)


def wide(results: pd.DataFrame, condition: str, metric: str) -> pd.DataFrame:
    """One row per seed, one column per loss, of a condition.

    Raises
    ------
    ValueError
        If a loss lacks a seed or the metric.
    """
    rows = results[results["condition"] == condition]
    table = rows.pivot(index="seed", columns="loss", values=metric)[list(dict.fromkeys(rows["loss"]))]
    if table.isna().any().any():
        raise ValueError(f"{condition}: some loss lacks a seed, or has no {metric}; every loss needs the same seeds")
    return table


def family(rows: Sequence[tuple[dict[str, Any], Ratio]]) -> list[dict[str, Any]]:
    """Rows of one Holm family: what is compared, the ratio, and its decision."""
    adjusted = statistics.holm([found.p for _, found in rows])
    return [
        {**about, **vars(found), "p_holm": p_holm, "decision": found.decision(p_holm)}
        for (about, found), p_holm in zip(rows, adjusted, strict=True)
    ]


def by_seed(results: pd.DataFrame, condition: str, loss: str, metric: str) -> pd.Series:
    """A metric of one loss's students, by seed in order.

    Raises
    ------
    ValueError
        If there is none, or some seed lacks it.
    """
    rows = results[(results["condition"] == condition) & (results["loss"] == loss)].set_index("seed")[metric]
    if rows.empty or rows.isna().any():
        raise ValueError(f"{condition}, {loss}: no {metric} in some seed; every rule needs all of them")
    return rows.sort_index()


def plateaus(curves: pd.DataFrame, conditions: Iterable[str], column: str = "objective") -> list[dict[str, Any]]:
    """The plateau rule of `kdtheory.students.statistics` on one column, for every loss of these conditions."""
    found = []
    for condition in dict.fromkeys(conditions):
        rows = curves[curves["condition"] == condition]
        means = rows.groupby(["loss", "step"], sort=False)[column].mean()
        for loss in dict.fromkeys(rows["loss"]):
            check = statistics.convergence(loss, list(means[loss].index), list(means[loss]))
            found.append({"condition": condition, **vars(check)})
    return found


def reached(checks: Iterable[dict[str, Any]]) -> dict[tuple[str, str], bool]:
    """(Condition, loss) -> whether it has reached its plateau, from the rows of `plateaus`."""
    return {(row["condition"], row["loss"]): row["converged"] for row in checks}
