"""Random teacher-student pairs between the bounds that tie TV, W1, KL and Jensen-Shannon together."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.spatial.distance import cdist

from kdtheory.figures import style
from kdtheory.figures.datasets import computed
from kdtheory.figures.registry import figure

TOKENS, PAIRS, FLOOR = 6, 300, 0.02
"""Students have at least 0.02 on each of six tokens; the tokens are six fixed points of the plane."""


@computed("geometry_topology.csv")
def PAIRS_OF_LAWS() -> pd.DataFrame:
    """Columns tv, w1 (diameters), kl, js (nats), least (smallest distance between tokens, in diameters)."""
    import kdtheory as kd

    rng = np.random.default_rng(0)
    points = rng.normal(size=(TOKENS, 2))
    cost = cdist(points, points)
    cost /= cost.max()
    p = np.stack([rng.dirichlet(np.full(TOKENS, 10 ** rng.uniform(-1.5, 1))) for _ in range(PAIRS)])
    r = np.stack([rng.dirichlet(np.full(TOKENS, 10 ** rng.uniform(-1.5, 1))) for _ in range(PAIRS)])
    step = rng.uniform(0, 1, size=(PAIRS, 1))
    q = (1 - TOKENS * FLOOR) * ((1 - step) * p + step * r) + FLOOR
    table = {name: kd.divergence(key).value(p, q) for name, key in (("tv", "tvd"), ("kl", "fkl"), ("js", "jsd"))}
    table["w1"] = kd.w1(p, q, kd.TokenCost.dense(cost)).value
    table["least"] = np.full(PAIRS, cost[~np.eye(TOKENS, dtype=bool)].min())
    return pd.DataFrame(table)


@figure(
    PAIRS_OF_LAWS,
    claims=(
        "geometry.w1-against-tv",
        "geometry.pinsker",
        "geometry.reverse-pinsker",
        "geometry.js-against-tv",
        "geometry.one-topology",
    ),
)
def geometry_topology(pairs: pd.DataFrame) -> Figure:
    """300 random pairs on six tokens: W1, forward KL and Jensen-Shannon against total variation, and their bounds."""
    fig, axes = style.blank(style.DOUBLE_COLUMN, columns=3)
    t = np.linspace(0, 1, 201)[:-1]
    least = pairs["least"].iloc[0]
    psi = ((1 + t) * np.log1p(t) + (1 - t) * np.log1p(-t)) / 2
    panels = (
        ("w1", "w1", "W1 (diameters)", least * t, t, ("d$_{min}$ TV", "diam TV")),
        ("kl", "fkl", "forward KL (nats)", 2 * t**2, np.log1p(2 * t**2 / FLOOR), ("2 TV²", "log(1 + 2 TV²/min q)")),
        ("js", "jsd", "Jensen-Shannon (nats)", psi, t * np.log(2), ("ψ(TV)", "TV log 2")),
    )
    for ax, (column, colour, label, low, high, names) in zip(axes, panels, strict=True):
        ax.plot(pairs["tv"], pairs[column], ".", color=style.colour(colour), markersize=3, alpha=0.6)
        ax.plot(t, high, "-", color="0.2", linewidth=1, label=names[1])
        ax.plot(t, low, "--", color="0.2", linewidth=1, label=names[0])
        ax.set(xlabel="total variation", ylabel=label, xlim=(0, 1), ylim=(0, None))
        ax.legend(fontsize=6.5, loc="upper left")
    return fig
