"""Tables of the students on real text: every metric of every loss, and what a term of hard labels changes."""

from __future__ import annotations

import math

import pandas as pd

from kdtheory.figures import style, text_data
from kdtheory.figures.registry import table
from kdtheory.figures.text_data import CLAIMS, COMPARISONS, RESULTS

_HARD = "+hard"
_TEXT = ("cross_entropy", "fkl")


@table(RESULTS, claims=CLAIMS)
def students_text_results(results: pd.DataFrame) -> pd.DataFrame:
    """Mean of every held-out metric over seeds with its 95 % t interval, one row per loss."""
    metrics = [name for name in style.METRIC_NAMES if name in results]
    rows = []
    for loss, group in results.groupby("loss", sort=False):
        shown = {style.METRIC_NAMES[name]: _around(*text_data.t_interval(group[name])) for name in metrics}
        rows.append({"loss": style.title(loss), "seeds": len(group), **shown})
    return pd.DataFrame(rows)


def _around(mean: float, low: float, high: float) -> str:
    """``mean ± half the width``; the mean alone for a single seed."""
    return f"{mean:.4f} ± {(high - low) / 2:.4f}" if math.isfinite(high - low) else f"{mean:.4f}"


@table(COMPARISONS, claims=("students.text-hard-term",))
def students_text_hard_term(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Cross-entropy of the text and forward KL without and with hard labels, half of each, and the difference."""
    chosen = comparisons[comparisons["loss"] == comparisons["reference"] + _HARD]
    rows = []
    for reference, group in chosen.groupby("reference", sort=False):
        by_metric = group.set_index("metric")
        for metric in _TEXT:
            row = by_metric.loc[metric]
            rows.append(
                {
                    "loss": style.title(reference),
                    "metric": style.METRIC_NAMES[metric],
                    "alone": f"{row['reference_mean']:.4f}",
                    "with hard labels": f"{row['reference_mean'] + row['mean']:.4f}",
                    "difference": f"{row['mean']:+.4f}".replace("-", "−"),
                    "95 % interval": f"{row['low']:+.4f} to {row['high']:+.4f}".replace("-", "−"),
                    "decision": row["decision"],
                }
            )
    columns = ["loss", "metric", "alone", "with hard labels", "difference", "95 % interval", "decision"]
    return pd.DataFrame(rows, columns=columns)
