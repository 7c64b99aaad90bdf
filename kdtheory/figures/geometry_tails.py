"""What each distance reports about a Zipf tail: changed tails against changed heads, and the share of head and tail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import brentq

from kdtheory import simplex
from kdtheory.figures import style
from kdtheory.figures.datasets import computed
from kdtheory.figures.registry import figure

Array = NDArray[Any]
VOCABULARY, HEAD = 1000, 100
"""Teacher: p_i ∝ 1/i over 1000 tokens. Head: the 100 most probable ones. Their order is the line of W1, of length 1."""
CHANGES = {
    "reversed": "tail reversed",
    "permuted": "tail permuted",
    "flattened": "tail flattened",
    "missing": "tail missing",
}
_DIVERGENCES = ("fkl", "rkl", "jsd", "hellinger2", "tvd")
TITLES = {name: style.title(name) for name in _DIVERGENCES}
TITLES |= {"w1": "W1, line of ranks", "w1_shuffled": "W1, shuffled line"}
STUDENTS = {"uniform": "uniform student", "sharper": "student ∝ p²", "noisy": "logits of p + N(0, 1)"}


def _tail_changes(p: Array) -> dict[str, Array]:
    """Students that have the teacher's head and another tail (or none)."""
    head, tail = p[:HEAD], p[HEAD:]
    shuffled = np.random.default_rng(0).permutation(tail)
    tails = {"reversed": tail[::-1], "permuted": shuffled, "flattened": np.full(tail.size, tail.mean())}
    students = {name: np.concatenate([head, changed]) for name, changed in tails.items()}
    return students | {"missing": np.concatenate([head / head.sum(), np.zeros(tail.size)])}


def _sharper_head(p: Array, distance: float) -> Array:
    """The teacher's tail, and its head to the power β > 1, with this total variation to the teacher."""
    mass = p[:HEAD].sum()

    def head(power: float) -> Array:
        weight = p[:HEAD] ** power
        return mass * weight / weight.sum()

    power = brentq(lambda beta: float(np.abs(head(beta) - p[:HEAD]).sum()) / 2 - distance, 1, 20)
    return np.concatenate([head(power), p[HEAD:]])


def _values(p: Array, q: Array) -> dict[str, float]:
    import kdtheory as kd

    ranks = np.linspace(0, 1, VOCABULARY)
    lines = {"w1": ranks, "w1_shuffled": np.random.default_rng(1).permutation(ranks)}
    found = {name: kd.divergence(name).value(p, q) for name in _DIVERGENCES}
    found |= {name: kd.w1(p, q, kd.TokenCost.line(x)).value for name, x in lines.items()}
    return {name: float(value) for name, value in found.items()}


@computed("geometry_long_tails.csv")
def LONG_TAILS() -> pd.DataFrame:
    """Columns change, place ("tail" or "head", the latter with the same total variation), distance, value."""
    p = simplex.zipf(VOCABULARY)
    rows = []
    for change, q in _tail_changes(p).items():
        distance = float(np.abs(p - q).sum()) / 2
        for place, student in (("tail", q), ("head", _sharper_head(p, distance))):
            for name, value in _values(p, student).items():
                rows.append({"change": change, "place": place, "distance": name, "value": value})
    return pd.DataFrame(rows)


@figure(LONG_TAILS, claims=("geometry.long-tails", "geometry.tail-weight", "geometry.pinsker"))
def geometry_long_tails(values: pd.DataFrame) -> Figure:
    """Zipf teacher, V = 1000: distances to students with a changed tail (filled) and with a changed head (open)."""
    fig, axes = style.blank(style.GRID, rows=2, columns=2, sharex=True, sharey=True)
    edge = 6.0
    for ax, (change, title) in zip(axes.flat, CHANGES.items(), strict=True):
        rows = values[values["change"] == change]
        for height, name in enumerate(reversed(TITLES)):
            _pair(ax, height, style.colour(name.removesuffix("_shuffled")), rows[rows["distance"] == name], edge)
        tv = rows.loc[(rows["distance"] == "tvd") & (rows["place"] == "tail"), "value"].iloc[0]
        ax.set_title(f"{title} (TV = {tv:.2f})")
        ax.set(xscale="log", xlim=(1e-3, 10), yticks=range(len(TITLES)), yticklabels=list(reversed(TITLES.values())))
        ax.grid(axis="y", linewidth=0.3, color="0.85")
    for ax in axes[1]:
        ax.set_xlabel("distance to the teacher (nats, or line lengths)")
    ax = axes[0, 0]
    ax.plot([], [], "o", color="0.3", label="tail changed")
    ax.plot([], [], "o", color="0.3", markerfacecolor="white", label="head changed, same TV")
    ax.legend(fontsize=6.5, loc="lower right")
    return fig


def _pair(ax: Any, height: int, colour: str, rows: pd.DataFrame, edge: float) -> None:
    """Filled mark: tail; open mark: head; a triangle at the edge for infinity; a thin line between them."""
    found: Mapping[str, float] = dict(zip(rows["place"], rows["value"], strict=True))
    ends = [min(found[place], edge) for place in ("head", "tail")]
    ax.plot(ends, [height, height], "-", color=colour, linewidth=0.8)
    ax.plot(ends[0], height, "o", color=colour, markerfacecolor="white")
    ax.plot(ends[1], height, "o" if np.isfinite(found["tail"]) else ">", color=colour)
    if not np.isfinite(found["tail"]):
        ax.annotate("∞", (ends[1], height), xytext=(0, 4), textcoords="offset points", ha="center", fontsize=7)


def _contributions(p: Array, q: Array) -> dict[str, Array]:
    """Terms, none negative, whose sums are the distances; for W1 the surplus that crosses the gap below each rank."""
    m = (p + q) / 2
    kl = p * np.log(p / q) - p + q
    rkl = q * np.log(q / p) - q + p
    js = (p * np.log(p / m) + q * np.log(q / m)) / 2
    surplus = np.abs(np.cumsum(q - p))[:-1] / (VOCABULARY - 1)
    terms = {"fkl": kl, "rkl": rkl, "jsd": js, "hellinger2": (np.sqrt(p) - np.sqrt(q)) ** 2 / 2}
    return terms | {"tvd": np.abs(p - q) / 2, "w1": np.concatenate([[0.0], surplus])}


@computed("geometry_tail_shares.csv")
def TAIL_SHARES() -> pd.DataFrame:
    """Columns student, distance, value, tail_share (of the distance, between 0 and 1), tail_mass (of the teacher)."""
    p = simplex.zipf(VOCABULARY)
    noise = np.random.default_rng(0).normal(size=VOCABULARY)
    weights = {"uniform": np.ones(VOCABULARY), "sharper": p**2, "noisy": p * np.exp(noise)}
    rows = []
    for student, weight in weights.items():
        for name, terms in _contributions(p, weight / weight.sum()).items():
            share = terms[HEAD:].sum() / terms.sum()
            row = {"student": student, "distance": name, "value": terms.sum(), "tail_share": share}
            rows.append(row | {"tail_mass": p[HEAD:].sum()})
    return pd.DataFrame(rows)


@figure(TAIL_SHARES, claims=("geometry.long-tails", "geometry.tail-weight"))
def geometry_tail_shares(shares: pd.DataFrame) -> Figure:
    """Zipf teacher, V = 1000: the share of each distance that the 900 tail tokens contribute, for three students."""
    fig, ax = style.blank(style.SINGLE_COLUMN)
    names = [name for name in reversed(TITLES) if name in set(shares["distance"])]
    for offset, marker, (student, title) in zip((0.16, 0, -0.16), "os^", STUDENTS.items(), strict=True):
        rows = shares[shares["student"] == student].set_index("distance")
        colours = [style.colour(name) for name in names]
        heights = np.arange(len(names)) + offset
        ax.scatter([rows["tail_share"][name] for name in names], heights, c=colours, marker=marker, s=20, zorder=3)
        ax.plot([], [], marker, color="0.3", markersize=4, label=title)
    ax.axvline(shares["tail_mass"].iloc[0], color="0.6", linewidth=0.7, linestyle=":", label="tail's mass")
    ax.set(xlim=(0, 1), xlabel="share of the tail in the distance", ylim=(-0.6, len(names) + 1.9))
    ax.set_yticks(range(len(names)), [TITLES[name] for name in names])
    ax.legend(fontsize=6.5, loc="upper center", ncols=2)
    return fig
