"""W1 over total variation between teachers and students of real text, on the tokens' own metric."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from kdtheory.figures import style, text_data
from kdtheory.figures.datasets import Dataset
from kdtheory.figures.registry import figure

_TITLES = {"own": "the teacher's embeddings", "permuted": "the same, dealt to other tokens"}


def _curves(path: Path) -> pd.DataFrame:
    """Bins of equal total variation: condition, seed, bin, tv, low, median, high (quantiles of W1/TV)."""
    return text_data.run(path).curves


BINS = Dataset("runs/pairs", _curves)


@figure(BINS, claims=("students.text-metric-is-variation",))
def students_text_spread(bins: pd.DataFrame) -> Figure:
    """W1/TV between teacher and student against total variation: median, and band from the 10 % to the 90 % quantile.

    W1 in mean distances between two tokens; bins of equal numbers of positions, means over seeds, thin lines the seeds'
    medians. Spread: width of the band over its median, median over bins, mean over seeds.
    """
    from kdtheory.students import pairs

    fig, axes = style.blank(style.DOUBLE_COLUMN, columns=bins["condition"].nunique(), sharey=True, squeeze=False)
    for ax, (condition, rows) in zip(axes[0], bins.groupby("condition", sort=False), strict=True):
        mean, colour = rows.groupby("bin")[["tv", "low", "median", "high"]].mean(), style.colour("w1")
        ax.fill_between(mean["tv"], mean["low"], mean["high"], color=colour, alpha=0.25, linewidth=0)
        for _, one in rows.groupby("seed"):
            ax.plot(one["tv"], one["median"], color=colour, linewidth=0.4, alpha=0.6)
        ax.plot(mean["tv"], mean["median"], ".-", color=colour)
        spreads = [pairs.spread(one) for _, one in rows.groupby("seed")]
        words = f"spread {sum(spreads) / len(spreads):.2f}, {len(spreads)} seeds"
        ax.set(title=f"{_TITLES[str(condition)]}: {words}", xlabel=style.METRIC_TITLES["tv"])
    axes[0, 0].set_ylabel("W1/TV")
    return fig
