"""One style for every figure: sizes, a colour per loss, titles, labels beside their lines."""

from __future__ import annotations

import itertools
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

SINGLE_COLUMN = (4.2, 3.0)
DOUBLE_COLUMN = (7.0, 3.2)
GRID = (7.0, 5.0)
FILE = Path(__file__).with_name("kdtheory.mplstyle")

_LOOK: dict[str, tuple[str, str]] = {  # (title, colour); relatives share a hue
    "fkl": ("forward KL", "#0b5394"),
    "rkl": ("reverse KL", "#cc0000"),
    "jsd": ("Jensen-Shannon", "#6a329f"),
    "tvd": ("total variation", "#38761d"),
    "skl": ("skew KL", "#3d85c6"),
    "srkl": ("skew reverse KL", "#e06666"),
    "akl": ("adaptive KL", "#45818e"),
    "chi2": ("Pearson χ²", "#000000"),
    "neyman": ("Neyman χ²", "#b45f06"),
    "hellinger2": ("squared Hellinger", "#bf9000"),
    "amari": ("Amari", "#a64d79"),
    "renyi": ("Rényi", "#674ea7"),
    "w1": ("Wasserstein-1", "#6aa84f"),
    "fkl+w1": ("forward KL + λ W1", "#134f5c"),
    "hard": ("hard labels", "#7f7f7f"),
    "classic": ("classic mixture", "#b7b7b7"),
    "symmetric": ("symmetric KL", "#a61c00"),
    "jsd.1": ("Jensen-Shannon, β = .1", "#b4a7d6"),
    "jsd.9": ("Jensen-Shannon, β = .9", "#351c75"),
    "w1-line": ("Wasserstein-1 on a line", "#b6d7a8"),
    "fkl+hard": ("forward KL + hard labels", "#6fa8dc"),
    "rkl+hard": ("reverse KL + hard labels", "#ea9999"),
    "w1+hard": ("Wasserstein-1 + hard labels", "#93c47d"),
    "fkl/16": ("forward KL on 1/16", "#9fc5e8"),
    "w1-topk/16": ("top-k W1 on 1/16", "#274e13"),
    "sinkhorn/16": ("Sinkhorn divergence on 1/16", "#f1c232"),
    "sinkd/16": ("SinKD on 1/16", "#783f04"),
}
FALLBACK = "#434343"

METRIC_TITLES = {
    "fkl": "forward KL to the teacher (nats)",
    "rkl": "reverse KL to the teacher (nats)",
    "tv": "total variation to the teacher",
    "w1": "W1 to the teacher (tree diameters)",
    "d_cost": "cost of decisions (tree diameters)",
    "cross_entropy": "cross-entropy of the text (nats)",
    "agreement": "top-1 agreement with the teacher",
    "rouge_l": "ROUGE-L of responses",
}
METRIC_NAMES = {
    "fkl": "FKL",
    "rkl": "RKL",
    "tv": "TV",
    "w1": "W1",
    "d_cost": "d-cost",
    "cross_entropy": "cross-entropy",
    "agreement": "agreement",
    "rouge_l": "ROUGE-L",
}
"""The same for the head of a column."""


def apply() -> AbstractContextManager[None]:
    """The project's rcParams as a context; nothing outside it changes."""
    return mpl.rc_context(fname=FILE)


def blank(size: tuple[float, float], rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """An empty figure (inches) and its axes; no global state, so nothing is shown or kept by accident."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def title(loss: object) -> str:
    """The loss's name for a reader."""
    return _LOOK.get(str(loss), (str(loss), FALLBACK))[0]


def colour(loss: object) -> str:
    """The loss's colour, the same in every figure."""
    return _LOOK.get(str(loss), ("", FALLBACK))[1]


def label_lines(axes: Any, *, size: float = 6.5) -> None:
    """Write each line's label at its right end, in its colour, pushed apart where labels would overlap.

    Parameters
    ----------
    axes : Axes
        With limits set; lines whose label starts with an underscore stay bare.
    size : float
        Points.
    """
    lines = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    low, high = axes.get_ylim()
    to_unit = axes.transScale + axes.transLimits
    last = [tuple(float(values[-1]) for values in line.get_data()) for line in lines]
    ends = [float(to_unit.transform((x, min(max(y, low), high)))[1]) for x, y in last]
    height = 1.25 * size / 72 / (axes.figure.get_figheight() * axes.get_position().height)  # a line of text, of 1
    for line, y in zip(lines, spread(ends, height), strict=True):
        look = {"color": line.get_color(), "fontsize": size, "va": "center", "clip_on": False}
        axes.text(1.02, y, line.get_label(), transform=axes.transAxes, **look)


def spread(positions: list[float], gap: float) -> list[float]:
    """The same order with at least `gap` between neighbours: pushed up from below, then down from 1."""
    order = sorted(range(len(positions)), key=positions.__getitem__)
    placed = list(positions)
    for before, after in itertools.pairwise(order):
        placed[after] = max(placed[after], placed[before] + gap)
    ceiling = 1.0
    for index in reversed(order):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap
    return placed
