"""Students on real text: every loss against forward KL in every metric, and all decisions."""

from __future__ import annotations

import itertools
import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdtheory.figures import style, text_data
from kdtheory.figures.registry import figure, table
from kdtheory.figures.text_data import CLAIMS, COMPARISONS, REFERENCE

_PANELS = (2, 4)


@figure(COMPARISONS, claims=CLAIMS)
def students_metrics(comparisons: pd.DataFrame) -> Figure:
    """Each loss minus forward KL in every held-out metric, with 95 % intervals paired over seeds.

    Filled: beyond the margin by the rule; open: undecided. Circles: ten seeds; squares: a pilot.
    """
    rows = comparisons[comparisons["reference"] == REFERENCE]
    losses, metrics = (list(dict.fromkeys(rows[name])) for name in ("loss", "metric"))
    fig, axes = style.blank((7.6, 2.0 + 0.3 * len(losses)), *_PANELS, sharey=True)
    for ax, metric in zip(axes.flat, metrics, strict=False):
        _differences(ax, rows[rows["metric"] == metric].set_index("loss").loc[losses])
        better = " (more is better)" if metric in ("agreement", "rouge_l") else ""
        ax.set_xlabel(textwrap.fill(f"{style.METRIC_TITLES[metric]} minus forward KL's{better}", 30), fontsize=6.5)
        ax.locator_params(axis="x", nbins=4)
        ax.tick_params(labelsize=6.5)
    for ax in axes.flat[len(metrics) :]:
        _legend(ax)
    axes[0, 0].set_yticks(range(len(losses)), [style.title(name) for name in losses])
    axes[0, 0].set_ylim(len(losses) - 0.4, -0.6)
    seeds = text_data.words_for_seeds(rows["seeds"], "squares are ")
    more = "agreement and ROUGE-L" if "rouge_l" in metrics else "agreement"
    fig.suptitle(f"{seeds}; less is better, but for {more}", fontsize=8)
    return fig


def _differences(ax: Any, rows: pd.DataFrame) -> None:
    for height, (loss, row) in enumerate(rows.iterrows()):
        colour, decided = style.colour(loss), bool(text_data.direction(row["decision"]))
        marker = "s" if text_data.is_pilot(row["seeds"]) else "o"
        ax.plot([row["low"], row["high"]], [height, height], "-", color=colour)
        ax.plot(row["mean"], height, marker, color=colour, markerfacecolor=colour if decided else "white", markersize=4)
    for height, (before, after) in enumerate(itertools.pairwise(rows.index)):
        if text_data.family(before) != text_data.family(after):
            ax.axhline(height + 0.5, color="0.6", linewidth=0.5, linestyle=":")
    ax.axvline(0, color="0.4", linewidth=0.6)


def _legend(ax: Any) -> None:
    ax.set_axis_off()
    kinds = {"o": ("ten seeds, decided", "ten seeds, undecided"), "s": ("pilot, a direction", "pilot, undecided")}
    for marker, words in kinds.items():
        for face, meaning in zip(("0.3", "white"), words, strict=True):
            ax.plot([], [], marker, color="0.3", markerfacecolor=face, label=meaning)
    ax.legend(loc="center", fontsize=6)


@table(COMPARISONS, claims=CLAIMS)
def students_decisions(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Every paired comparison: difference, 95 % interval, seeds, Holm-adjusted p-value, decision."""
    return pd.DataFrame(
        {
            "metric": comparisons["metric"],
            "loss": [style.title(name) for name in comparisons["loss"]],
            "against": [style.title(name) for name in comparisons["reference"]],
            "difference": [_short(value) for value in comparisons["mean"]],
            "95 % interval": [
                f"{_short(low)} to {_short(high)}" for low, high in comparisons[["low", "high"]].itertuples(index=False)
            ],
            "seeds": comparisons["seeds"],
            "p (Holm)": [_short(value) for value in comparisons["p_holm"]],
            "decision": comparisons["decision"],
        }
    )


def _short(value: float) -> str:
    """Three significant digits; a minus sign of its own width."""
    return "n/a" if np.isnan(value) else f"{value:.3g}"
