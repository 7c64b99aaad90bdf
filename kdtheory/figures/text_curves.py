"""Learning curves of the students on real text, by tokens and by processor time; head shares along them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from kdtheory.figures import style, text_data
from kdtheory.figures.datasets import Dataset
from kdtheory.figures.registry import figure

_AXES = {
    "cpu_seconds": "processor time after the warm start (s)",
    "tokens": "tokens after the warm start",
}
_VALUES = ("fkl", "cross_entropy")


def _curves(path: Path) -> pd.DataFrame:
    """Means over seeds: loss, step, tokens, cpu_seconds, fkl, cross_entropy, seeds."""
    grouped = text_data.run(path).curves.groupby(["loss", "step"], sort=False)
    means = grouped[["tokens", "cpu_seconds", *_VALUES]].mean()
    return means.assign(seeds=grouped["seed"].nunique()).reset_index()


def _heads(path: Path) -> pd.DataFrame:
    """Share of positions with the larger part of forward KL's gradient on the head: loss, tokens, mean, low, high."""
    curves = text_data.run(path).curves.dropna(subset="head_share")
    rows = [
        (loss, tokens, *text_data.t_interval(group["head_share"]))
        for (loss, tokens), group in curves.groupby(["loss", "tokens"], sort=False)
    ]
    return pd.DataFrame(rows, columns=["loss", "tokens", "mean", "low", "high"])


CURVES = Dataset(text_data.PLACE, _curves)
HEADS = Dataset(text_data.PLACE, _heads)


@figure(CURVES, claims=text_data.CLAIMS)
def students_curves(curves: pd.DataFrame) -> Figure:
    """Held-out forward KL to the teacher and cross-entropy of the text, by processor time and by tokens; no pilots.

    Means over seeds. Processor time is that of the training steps: each process has one thread, so that other work on
    the machine does not count; the teacher's log-probabilities were stored beforehand and cost none of it.
    """
    shown = text_data.with_most_seeds(curves)
    fig, axes = style.blank((7.6, 6.0), len(_VALUES), len(_AXES), sharex="col", sharey="row")
    for row, value in zip(axes, _VALUES, strict=True):
        for ax, clock in zip(row, _AXES, strict=True):
            for loss, points in shown.groupby("loss", sort=False):
                ax.plot(points[clock], points[value], color=style.colour(loss), label=style.title(loss))
        row[0].set_ylabel(style.METRIC_TITLES[value])
        _room(row[0], shown, value)
        style.label_lines(row[-1])
    for ax, words in zip(axes[-1], _AXES.values(), strict=True):
        ax.set_xlabel(words)
    axes[-1, -1].xaxis.set_major_formatter(EngFormatter())
    fig.suptitle(f"means of {shown['seeds'].max()} seeds", fontsize=8)
    return fig


def _room(ax: Any, shown: pd.DataFrame, value: str) -> None:
    """The range of the curves after the warm start; the fall into it may leave the picture at the top."""
    later = shown.loc[shown["step"] > 0, value]
    margin = 0.04 * (later.max() - later.min())
    ax.set_ylim(later.min() - margin, later.max() + margin)


@figure(HEADS, claims=("students.text-head-tail",))
def students_text_heads(heads: pd.DataFrame) -> Figure:
    """Share of positions where forward KL's gradient has more of itself on the head than reverse KL's, while learning.

    Means over seeds with 95 % intervals, for the students of forward and of reverse KL. Shaded: the region that was
    registered; dashed: what would refute it.
    """
    from kdtheory.students.controlled.head_tail_rule import WARM

    fig, ax = style.blank(style.SINGLE_COLUMN)
    ax.grid(visible=False)
    ax.axhspan(WARM.low, WARM.high, color="0.9", zorder=0)
    for bound in (WARM.refuted_below, WARM.refuted_above):
        ax.axhline(bound, color="0.5", linewidth=0.8, linestyle="--")
    for loss, points in heads.groupby("loss", sort=False):
        colour = style.colour(loss)
        ax.fill_between(points["tokens"], points["low"], points["high"], color=colour, alpha=0.2, linewidth=0)
        ax.plot(points["tokens"], points["mean"], ".-", color=colour, label=style.title(loss))
    ax.set(ylim=(0, 1), xlabel=_AXES["tokens"], ylabel="share of positions")
    ax.xaxis.set_major_formatter(EngFormatter())
    style.label_lines(ax)
    return fig
