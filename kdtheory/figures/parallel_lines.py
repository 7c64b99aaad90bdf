"""Two parallel lines: what four distances say while one line moves away from the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdtheory.figures import style
from kdtheory.figures.datasets import computed
from kdtheory.figures.registry import figure

SHIFTS = np.linspace(-1, 1, 21)
HEIGHTS = 4
"""Cells per line. The lines are Z ~ U[0, 1] at x = 0 and at x = θ; distances do not depend on the number of cells."""
TITLES = {"em": "earth mover (W1)", "js": "Jensen-Shannon", "kl": "KL", "tv": "total variation"}
_COLOURS = {"em": "w1", "js": "jsd", "kl": "fkl", "tv": "tvd"}


@computed("parallel_lines.csv")
def DISTANCES() -> pd.DataFrame:
    """Columns theta, distance, closed_form, computed (nats, or units of length): the last by the library, on a grid."""
    import kdtheory as kd

    across, up = np.meshgrid(SHIFTS, (np.arange(HEIGHTS) + 0.5) / HEIGHTS, indexing="ij")
    cells = np.stack([across.ravel(), up.ravel()], axis=-1)  # one token per cell of the plane
    q = np.kron(np.eye(len(SHIFTS)), np.full(HEIGHTS, 1 / HEIGHTS))
    p = np.broadcast_to(q[len(SHIFTS) // 2], q.shape)
    found = {
        "em": kd.w1(p, q, kd.TokenCost.embedding(cells)).value,
        "js": kd.divergence("jsd", beta=0.5).value(p, q),
        "kl": kd.divergence("fkl").value(p, q),
        "tv": kd.divergence("tvd").value(p, q),
    }
    rows = [
        {"theta": shift, "distance": name, "closed_form": closed_form(name, shift), "computed": float(values[row])}
        for name, values in found.items()
        for row, shift in enumerate(np.round(SHIFTS, 12))
    ]
    return pd.DataFrame(rows)


def closed_form(distance: str, theta: float) -> float:
    """The value that the sources state: |θ|, and for θ ≠ 0 log 2, +inf and 1."""
    if distance == "em":
        return abs(theta)
    return {"js": np.log(2), "kl": np.inf, "tv": 1.0}[distance] if theta else 0.0


@figure(
    DISTANCES,
    claims=(
        "parallel_lines.earth-mover",
        "parallel_lines.jensen-shannon",
        "parallel_lines.kl",
        "parallel_lines.total-variation",
    ),
)
def parallel_lines_distances(distances: pd.DataFrame) -> Figure:
    """Four distances between two parallel lines against their shift θ: closed form (line), computed (marks)."""
    fig, axes = style.blank(style.DOUBLE_COLUMN, columns=2)
    for ax, names in zip(axes, (("em",), ("js", "tv", "kl")), strict=True):
        for name in names:
            _one_distance(ax, name, distances[distances["distance"] == name])
        ax.set(xlabel="shift of the second line, θ", ylabel="distance from the first line")
    axes[0].set_title("follows θ: the gradient is ±1")
    axes[1].set_title("jumps at θ = 0, flat elsewhere")
    axes[1].set_ylim(-0.05, 1.5)
    axes[1].text(1, 1.4, "KL = ∞", color=style.colour("fkl"), ha="right", va="center")
    axes[1].text(1, 1.05, "TV = 1", color=style.colour("tvd"), ha="right", va="bottom")
    axes[1].text(1, np.log(2) + 0.05, "JS = log 2", color=style.colour("jsd"), ha="right", va="bottom")
    return fig


def _one_distance(ax: Any, name: str, rows: pd.DataFrame) -> None:
    """Line: closed form, broken at its jump. Marks: computed; infinite ones as triangles at the top."""
    look = {"color": style.colour(_COLOURS[name])}
    top = 1.3
    finite = rows.replace({np.inf: top})
    for side in (finite["theta"] < 0, finite["theta"] > 0) if name != "em" else (finite["theta"] > -2,):
        ends = "--" if name == "kl" else "-"
        ax.plot(finite["theta"][side], finite["closed_form"][side], ends, **look)
    for marker, chosen in (("o", np.isfinite(rows["computed"])), ("^", np.isinf(rows["computed"]))):
        ax.plot(finite["theta"][chosen], finite["computed"][chosen], marker, **look)
