"""Loss × metric on real text: how far each loss's student is from forward KL's, in percent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure

from kdtheory.figures import style, text_data
from kdtheory.figures.registry import figure
from kdtheory.figures.text_data import CLAIMS, COMPARISONS, PILOT, REFERENCE

_SPARSE = "fkl/16"


@figure(COMPARISONS, claims=CLAIMS)
def students_text_matrix(comparisons: pd.DataFrame) -> Figure:
    """Mean difference to forward KL in percent of forward KL's mean; blue: better; bold: beyond the margin by the rule.

    Below the line: what sees a sixteenth of the positions, against forward KL on those. Daggers mark pilots, stars
    pairs of which one has no plateau.
    """
    rows, metrics = _rows(comparisons), list(dict.fromkeys(comparisons["metric"]))
    wide = {name: _wide(comparisons, rows, metrics, name) for name in ("percent", "decision", "seeds")}
    better = np.array([-1.0 if metric != "agreement" else 1.0 for metric in metrics])
    limit = max(2 * _margin(), float(np.abs(wide["percent"].to_numpy()).max()))
    fig, ax = style.blank((7.4, 1.2 + 0.21 * len(rows)))
    ax.grid(visible=False)
    norm = SymLogNorm(linthresh=_margin(), linscale=0.5, vmin=-limit, vmax=limit)
    image = ax.imshow(wide["percent"].to_numpy() * better, cmap="RdBu", norm=norm, aspect="auto")
    for (line, column), value in np.ndenumerate(wide["percent"].to_numpy()):
        _cell(ax, line, column, value, str(wide["decision"].iloc[line, column]), dark=abs(2 * norm(value) - 1) > 0.6)
    _heads(ax, rows, metrics, wide["seeds"].min(axis=1))
    bar = fig.colorbar(image, ax=ax, shrink=0.6, ticks=_ticks(limit), format="%g %%")
    bar.set_label("better than forward KL (blue), worse (red)", fontsize=7)
    bar.minorticks_off()
    fig.suptitle(text_data.words_for_seeds(comparisons["seeds"], f"{PILOT} "), fontsize=8)
    return fig


def _rows(comparisons: pd.DataFrame) -> list[tuple[str, str]]:
    """(loss, reference): all against forward KL, then those that are compared with it on their own positions."""
    pairs = comparisons[["loss", "reference"]].drop_duplicates()
    return [
        pair for name in (REFERENCE, _SPARSE) for pair in pairs.itertuples(index=False, name=None) if pair[1] == name
    ]


def _wide(comparisons: pd.DataFrame, rows: list[tuple[str, str]], metrics: list[str], name: str) -> pd.DataFrame:
    percent = 100 * comparisons["mean"] / comparisons["reference_mean"].abs()
    table = comparisons.assign(percent=percent).pivot(index=["loss", "reference"], columns="metric", values=name)
    return table.reindex(rows)[metrics]


def _margin() -> float:
    from kdtheory.students import statistics

    return 100 * statistics.MARGIN


def _ticks(limit: float) -> list[float]:
    steps = [step for step in (_margin(), 3.0, 10.0, 30.0, 100.0) if step <= limit]
    return [-step for step in reversed(steps)] + [0.0, *steps]


def _cell(ax: Any, line: int, column: int, value: float, decision: str, *, dark: bool) -> None:
    star = "" if text_data.settled(decision) else "*"
    shown = f"{round(value, 1) + 0.0:+.1f}".replace("-", "−")  # + 0.0: no negative zero
    weight = "bold" if text_data.direction(decision) else "normal"
    look = {"ha": "center", "va": "center", "fontsize": 6.5, "weight": weight, "color": "white" if dark else "black"}
    ax.text(column, line, f"{shown}{star}", **look)


def _heads(ax: Any, rows: list[tuple[str, str]], metrics: list[str], seeds: pd.Series) -> None:
    names = [_name(*row) + (f" {PILOT}" if text_data.is_pilot(seeds[row]) else "") for row in rows]
    ax.set_yticks(range(len(rows)), names, fontsize=7)
    heads = [style.METRIC_NAMES[metric] for metric in metrics]
    ax.set_xticks(range(len(metrics)), heads, fontsize=7, rotation=25, ha="left")
    ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    for line in range(1, len(rows)):
        if rows[line][1] != rows[line - 1][1]:
            ax.axhline(line - 0.5, color="black", linewidth=1.2)
        elif text_data.family(rows[line][0]) != text_data.family(rows[line - 1][0]):
            ax.axhline(line - 0.5, color="white", linewidth=1.5)


def _name(loss: str, reference: str) -> str:
    return style.title(loss) if reference == REFERENCE else f"{style.title(loss)}, against FKL there"
