"""Students trained with eleven losses: metrics against forward KL, learning curves, decisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdtheory.figures import style
from kdtheory.figures.datasets import Dataset
from kdtheory.figures.registry import figure, table

_CLAIMS = ("students.wasserstein-beats-kl",)
_PLACE = "runs/students"


def _comparisons(path: Path) -> pd.DataFrame:
    from kdtheory.students import published

    return pd.DataFrame(published.load(path).decisions["comparisons"])


def _curves(path: Path) -> pd.DataFrame:
    """Mean over seeds of the held-out curves: loss, step, fkl, cross_entropy, seeds."""
    from kdtheory.students import published

    grouped = published.load(path).curves.groupby(["loss", "step"], sort=False)
    means = grouped[["fkl", "cross_entropy"]].mean()
    return means.assign(seeds=grouped["seed"].nunique()).reset_index()


def _results(path: Path) -> pd.DataFrame:
    from kdtheory.students import published

    return published.load(path).results


COMPARISONS = Dataset(_PLACE, _comparisons)
CURVES = Dataset(_PLACE, _curves)
RESULTS = Dataset(_PLACE, _results)


@figure(COMPARISONS, claims=_CLAIMS)
def students_metrics(comparisons: pd.DataFrame) -> Figure:
    """Each loss minus forward KL in six held-out metrics, with 95 % intervals paired over seeds; filled: decided."""
    rows = comparisons[comparisons["reference"] == "fkl"]
    losses = list(dict.fromkeys(rows["loss"]))
    fig, axes = style.blank(style.GRID, 2, 3, sharey=True)
    for ax, metric in zip(axes.flat, dict.fromkeys(rows["metric"]), strict=True):
        _differences(ax, rows[rows["metric"] == metric].set_index("loss").loc[losses])
        better = "more" if metric == "agreement" else "less"
        ax.set_xlabel(f"{style.METRIC_TITLES[metric]}\nminus forward KL's ({better} is better)", fontsize=7)
        ax.locator_params(axis="x", nbins=4)
    axes[0, 0].set_yticks(range(len(losses)), [style.title(name) for name in losses])
    axes[0, 0].invert_yaxis()
    seeds = int(rows["seeds"].min())
    fig.suptitle(f"{seeds} seeds" + (", a pilot: directions, no verdicts" if seeds < 10 else ""), fontsize=8)
    return fig


def _differences(ax: Any, rows: pd.DataFrame) -> None:
    for height, (loss, row) in enumerate(rows.iterrows()):
        decided = row["decision"].removeprefix("pilot: ") in ("lower", "higher")
        look = {"color": style.colour(loss), "markerfacecolor": style.colour(loss) if decided else "white"}
        ax.plot([row["low"], row["high"]], [height, height], "-", color=look["color"])
        ax.plot(row["mean"], height, "o", **look)
    ax.axvline(0, color="0.4", linewidth=0.6)


@figure(CURVES, claims=_CLAIMS)
def students_curves(curves: pd.DataFrame) -> Figure:
    """Held-out forward KL to the teacher and cross-entropy of the text against steps, mean over seeds."""
    fig, axes = style.blank((7.6, 3.4), columns=2)
    for ax, metric in zip(axes, ("fkl", "cross_entropy"), strict=True):
        for loss, rows in curves.groupby("loss", sort=False):
            ax.plot(rows["step"], rows[metric], color=style.colour(loss), label=style.title(loss))
        ax.set(xlabel="steps after the shared warm start", ylabel=style.METRIC_TITLES[metric])
        style.label_lines(ax)
    return fig


@table(COMPARISONS, claims=_CLAIMS)
def students_decisions(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Every paired comparison: difference, 95 % interval, Holm-adjusted p-value, decision."""
    return pd.DataFrame(
        {
            "metric": comparisons["metric"],
            "loss": [style.title(name) for name in comparisons["loss"]],
            "against": [style.title(name) for name in comparisons["reference"]],
            "difference": [_short(value) for value in comparisons["mean"]],
            "95 % interval": [
                f"{_short(low)} to {_short(high)}" for low, high in comparisons[["low", "high"]].itertuples(index=False)
            ],
            "p (Holm)": [_short(value) for value in comparisons["p_holm"]],
            "decision": comparisons["decision"],
        }
    )


@table(RESULTS, claims=_CLAIMS)
def students_results(results: pd.DataFrame) -> pd.DataFrame:
    """Mean of every held-out metric over seeds, one row per loss."""
    from kdtheory.students.evaluate import METRICS

    means = results.groupby("loss", sort=False)[list(METRICS)].mean()
    table = pd.DataFrame({"loss": [style.title(name) for name in means.index]})
    return table.assign(**{metric: [f"{value:.4f}" for value in means[metric]] for metric in METRICS})


def _short(value: float) -> str:
    """Three significant digits; a minus sign of its own width."""
    return "n/a" if np.isnan(value) else f"{value:.3g}"
