"""Long sequences of coin tosses: what is left of the overlap, and of each gradient, after T tosses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import binom

from kdtheory.figures import style
from kdtheory.figures.datasets import computed
from kdtheory.figures.registry import figure

TEACHER, STUDENT = 0.5, 0.6
STEPS = np.union1d(np.geomspace(1, 1600, 41).round().astype(int), [10, 100, 1000])
_TITLES = {"fkl": "KL = T · KL per toss", "w1": "W1, Hamming", "jsd": "Jensen-Shannon", "tvd": "total variation"}


@computed("parallel_lines_products.csv")
def PRODUCTS() -> pd.DataFrame:
    """Columns steps, overlap_tv (1 - TV), overlap_js (1 - JS/log 2), affinity (B^T), and the slopes in the logit.

    The number of heads is a sufficient statistic, so divergences of the T + 1 counts are those of the 2^T strings.
    """
    import kdtheory as kd

    root = np.sqrt(TEACHER * STUDENT) + np.sqrt((1 - TEACHER) * (1 - STUDENT))
    rows = []
    for steps in map(int, STEPS):
        heads = np.arange(steps + 1)
        p, q = (binom.pmf(heads, steps, coin) for coin in (TEACHER, STUDENT))
        kept = (p > 0) & (q > 0)  # counts whose chance underflows weigh less than 1e-300
        heads, p, q = heads[kept], p[kept] / p[kept].sum(), q[kept] / q[kept].sum()
        score = q * (heads - steps * STUDENT)  # ∂q/∂z, z the student's logit of heads
        row: dict[str, Any] = {"steps": steps, "affinity": root**steps}
        row["overlap_tv"] = float(np.minimum(p, q).sum())
        row["overlap_js"] = 1 - float(kd.divergence("jsd").value(p, q)) / np.log(2)
        for name in ("jsd", "tvd"):
            loss: Any = kd.divergence(name)
            row[f"slope_{name}"] = abs(float(loss.slope(p, q) @ score))
        row["slope_fkl"] = steps * abs(STUDENT - TEACHER)
        row["slope_w1"] = steps * STUDENT * (1 - STUDENT)
        rows.append(row)
    return pd.DataFrame(rows)


@figure(PRODUCTS, claims=("parallel_lines.returns-long-sequences",))
def parallel_lines_products(products: pd.DataFrame) -> Figure:
    """T tosses of a fair coin against T tosses of a coin with 0.6: overlap and slopes in the student's logit.

    B is the affinity Σ √(pq) of one toss.
    """
    fig, axes = style.blank(style.DOUBLE_COLUMN, columns=2, sharex=True)
    steps = products["steps"]
    left, right = axes
    left.fill_between(
        steps, products["affinity"] ** 2 / 2, products["affinity"], color="0.88", label="½B$^{2T}$ to B$^T$"
    )
    left.plot(steps, products["overlap_tv"], color=style.colour("tvd"), label="1 − TV")
    left.plot(steps, products["overlap_js"], color=style.colour("jsd"), label="1 − JS / log 2")
    left.set(ylabel="what is left of the overlap", ylim=(1e-8, 2))
    for name, title in _TITLES.items():
        right.plot(steps, products[f"slope_{name}"], color=style.colour(name), label=title)
    right.set(ylabel="|slope| in the student's logit", ylim=(1e-6, 1e4))
    for ax in axes:
        ax.set(xlabel="length of the sequence, T", xscale="log", yscale="log")
        ax.legend(fontsize=6.5, loc="lower left")
    return fig
