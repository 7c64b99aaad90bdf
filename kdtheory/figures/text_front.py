"""Likelihood against decisions: the students on real text, loss by loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from kdtheory.figures import style, text_data
from kdtheory.figures.datasets import Dataset
from kdtheory.figures.registry import figure
from kdtheory.figures.text_data import REFERENCE

_ACROSS, _UP = "cross_entropy", "d_cost"
_LINE = 0.11  # inches that a name takes


def _front(path: Path) -> pd.DataFrame:
    """Differences to forward KL of the same seed: loss, seed, seeds (of the loss), cross_entropy, d_cost."""
    results = text_data.run(path).results.set_index(["loss", "seed"])[[_ACROSS, _UP]]
    rows = [
        (loss, seed, *(values - results.loc[(REFERENCE, seed)]))
        for (loss, seed), values in results.iterrows()
        if loss != REFERENCE and (REFERENCE, seed) in results.index
    ]
    table = pd.DataFrame(rows, columns=["loss", "seed", _ACROSS, _UP])
    return table.assign(seeds=table.groupby("loss")["seed"].transform("nunique"))


FRONT = Dataset(text_data.PLACE, _front)


@figure(FRONT, claims=text_data.CLAIMS)
def students_text_front(front: pd.DataFrame) -> Figure:
    """Cross-entropy of the text against the cost of decisions, both minus forward KL's; lower left: better in both.

    Means and 95 % intervals of paired differences over seeds, faint dots the seeds; the star is forward KL. Losses with
    fewer seeds than the others have a panel of their own.
    """
    groups = [rows for _, rows in front.groupby("seeds", sort=False)]
    groups.sort(key=lambda rows: -rows["seeds"].max())
    fig, axes = style.blank((7.2, 0.6 + 3.4 * len(groups)), len(groups), sharex=True, squeeze=False)
    for ax, rows in zip(axes[:, 0], groups, strict=True):
        _panel(ax, rows)
        count = rows["seeds"].max()
        ax.set_title(f"{count} seeds" + (", a pilot" if text_data.is_pilot(count) else ""), fontsize=8)
        ax.set_ylabel(f"{style.METRIC_TITLES[_UP]},\nminus forward KL's")
    axes[-1, 0].set_xlabel(f"{style.METRIC_TITLES[_ACROSS]}, minus forward KL's")
    return fig


def _panel(ax: Any, front: pd.DataFrame) -> None:
    points: list[tuple[Any, float, float]] = [(REFERENCE, 0.0, 0.0)]
    for loss, rows in front.groupby("loss", sort=False):
        (x, *wide), (y, *tall) = (text_data.t_interval(rows[name]) for name in (_ACROSS, _UP))
        look: dict[str, Any] = {"color": style.colour(loss), "zorder": 3}
        ax.plot(rows[_ACROSS], rows[_UP], ".", markersize=2.5, alpha=0.5, color=look["color"])
        ax.plot(wide, [y, y], "-", linewidth=0.9, **look)
        ax.plot([x, x], tall, "-", linewidth=0.9, **look)
        ax.plot(x, y, "o", **look)
        points.append((loss, x, y))
    ax.plot(0, 0, "*", color=style.colour(REFERENCE), markersize=10, zorder=4)
    ax.axhline(0, color="0.4", linewidth=0.6)
    ax.axvline(0, color="0.4", linewidth=0.6)
    _names(ax, points)


def _names(ax: Any, points: list[tuple[Any, float, float]]) -> None:
    """Names in a column at the right, each with a hairline to its point."""
    low, high = ax.get_ylim()
    gap = _LINE / (ax.figure.get_figheight() * ax.get_position().height)
    places = style.spread([(y - low) / (high - low) for _, _, y in points], gap)
    for (loss, x, y), place in zip(points, places, strict=True):
        colour = style.colour(loss)
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.4, "shrinkB": 2, "relpos": (0, 0.5)}
        where: dict[str, Any] = {"xytext": (1.03, place), "textcoords": "axes fraction", "va": "center"}
        ax.annotate(style.title(loss), (x, y), **where, fontsize=6.5, color=colour, arrowprops=line)
