"""Forward KL on every scale of a token tree: likelihood against decisions, and the way out of confident mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from kdtheory.figures import style
from kdtheory.figures.datasets import Dataset
from kdtheory.figures.registry import figure, table

_GAIN = ("students.tree-kl-gain", "students.tree-kl-against-w1", "students.tree-kl-metric", "students.tree-kl-tuned")
_REALISABLE, _ESCAPE = "students.tree-kl-realisable", "students.tree-kl-escape"
_FAMILIES = {"tree-KL": ("fkl+tree-", "#b45f06"), "W1": ("fkl+w1-", "#134f5c")}
_WEIGHTS = (1, 3, 10)
_OTHERS = {
    "fkl+tree-scrambled-3": ("scrambled tree", "x"),
    "fkl+tree-star-3": ("0-1 tree", "+"),
    "fkl+tree-uniform-3": ("equal level weights", "D"),
    "fkl-t-2": ("forward KL, temperature 2", "s"),
    "similarity-0.1": ("KL(Kp‖Kq)", "v"),
}
_TITLES = {
    "fkl": "forward KL",
    "fkl+tree-3": "forward KL + 3 tree-KL",
    "fkl+w1-3": "forward KL + 3 W1",
    "w1": "Wasserstein-1",
    "natural-w1": "natural-gradient W1",
    "similarity-0.1": "KL(Kp‖Kq)",
}
_COLOURS = {"fkl+tree-3": "#b45f06", "fkl+w1-3": "#134f5c", "natural-w1": "#274e13", "similarity-0.1": "#a64d79"}
WRONG = "confidently-wrong"


def _runs(path: Path) -> Any:
    from kdtheory.students import published

    return published.load(path)


def _fronts(path: Path) -> pd.DataFrame:
    """Every student's change of cross-entropy and excess d-cost, in percent of forward KL's, with intervals."""
    rows = pd.DataFrame(_runs(path).decisions["fronts"])
    base = rows[rows["loss"] == "fkl"].set_index("condition")
    for metric in ("nll", "excess"):
        scale = 100 / rows["condition"].map(base[metric])
        for part in ("change", "low", "high"):
            rows[f"{metric}_{part}"] = rows[f"{metric}_{part}"] * scale
    return rows


def _escapes(path: Path) -> pd.DataFrame:
    """Total variation to the teacher by step: mean over seeds, least and largest."""
    curves = _runs(path).curves
    curves = curves[curves["condition"] == WRONG]
    return curves.groupby(["loss", "step"], sort=False)["tv"].agg(["mean", "min", "max"]).reset_index()


FRONTS = Dataset("runs/repaired", _fronts)
ESCAPES = Dataset("runs/repaired", _escapes)


def _point(ax: Any, row: Any, **look: Any) -> None:
    spread = {
        "xerr": [[row["nll_change"] - row["nll_low"]], [row["nll_high"] - row["nll_change"]]],
        "yerr": [[row["excess_change"] - row["excess_low"]], [row["excess_high"] - row["excess_change"]]],
    }
    ax.errorbar(row["nll_change"], row["excess_change"], **spread, elinewidth=0.5, linestyle="none", **look)


def _front(ax: Any, rows: pd.DataFrame) -> None:
    named = rows.set_index("loss")
    for words, (prefix, colour) in _FAMILIES.items():
        names = ["fkl", *(name for name in (f"{prefix}{weight}" for weight in _WEIGHTS) if name in named.index)]
        family = named.loc[names]
        ax.plot(family["nll_change"], family["excess_change"], color=colour, label=f"forward KL + λ {words}")
        for name in names[1:]:
            _point(ax, named.loc[name], color=colour, marker="o", markersize=3)
            at = (named.loc[name, "nll_change"], named.loc[name, "excess_change"])
            ax.annotate(name.removeprefix(prefix), at, xytext=(3, 3), textcoords="offset points", fontsize=6)
    for name, (words, marker) in _OTHERS.items():
        if name in named.index:
            _point(ax, named.loc[name], color="0.35", marker=marker, markersize=4, label=words)


@figure(FRONTS, claims=(*_GAIN, "students.tree-kl"))
def students_repaired_fronts(rows: pd.DataFrame) -> Figure:
    """What a better decision costs in likelihood: tree-KL and W1 beside forward KL, by the width of the student."""
    widths = [name for name in ("rank-1", "rank-2", "rank-4") if name in set(rows["condition"])]
    fig, axes = style.blank((9.0, 3.6), columns=len(widths), squeeze=False)
    for ax, width in zip(axes[0], widths, strict=True):
        _front(ax, rows[rows["condition"] == width])
        ax.axhline(0, color="0.7", linewidth=0.6, zorder=0)
        ax.axvline(0, color="0.7", linewidth=0.6, zorder=0)
        ax.set_title(width.replace("-", " "), fontsize=8)
        ax.set_xlabel("cross-entropy: change (%)")
    axes[0][0].set_ylabel("excess d-cost: change (%)")
    handles, labels = next(
        ax for ax, width in zip(axes[0], widths, strict=True) if width == "rank-2"
    ).get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=6.5, frameon=False)
    return fig


@figure(ESCAPES, claims=(_ESCAPE,))
def students_repaired_escape(rows: pd.DataFrame) -> Figure:
    """Students that begin as another teacher, sure of its tokens: who leaves the mistake."""
    fig, ax = style.blank((6.0, 3.2))
    for loss, curve in rows.groupby("loss", sort=False):
        colour = _COLOURS.get(str(loss), style.colour(loss))
        ax.plot(curve["step"], curve["mean"], color=colour, label=_TITLES[str(loss)])
        ax.fill_between(curve["step"], curve["min"], curve["max"], color=colour, alpha=0.15, linewidth=0)
    ax.axhline(0.5, color="0.4", linewidth=0.6, linestyle=":")
    ax.set(xlabel="steps of gradient descent", ylabel="total variation to the teacher", ylim=(0, 1))
    ax.set_xlim(0, rows["step"].max())
    style.label_lines(ax)
    return fig


@table(FRONTS, claims=(*_GAIN, _REALISABLE))
def students_repaired_gains(rows: pd.DataFrame) -> pd.DataFrame:
    """Every student of H16 beside forward KL's of the same rank."""
    shown = rows[rows["loss"] != "fkl"]
    shown = shown.assign(
        rank=shown["condition"].str.removeprefix("rank-"),
        loss=shown["loss"].map(_name),
        ruled_out=[f"{100 * value:.0f} %" for value in shown["impossible"]],
    )
    for metric in ("nll", "excess"):
        shown[metric] = [_change(row, metric) for row in shown.to_dict("records")]
    columns = {
        "rank": "rank",
        "loss": "loss",
        "nll": "cross-entropy, change (%)",
        "excess": "excess d-cost, change (%)",
        "w1": "W1",
        "agreement": "agreement",
        "ruled_out": "contexts with an impossible token",
    }
    shown["w1"], shown["agreement"] = (shown[name].map("{:.4f}".format) for name in ("w1", "agreement"))
    return shown[list(columns)].rename(columns=columns)


def _name(loss: str) -> str:
    """A loss for a reader: ``fkl+tree-3`` is forward KL + 3 tree-KL."""
    named = {
        "fkl+tree-scrambled-3": "forward KL + 3 tree-KL, scrambled tree",
        "fkl+tree-star-3": "forward KL + 3 tree-KL, 0-1 tree",
        "fkl+tree-uniform-3": "forward KL + 3 tree-KL, equal level weights",
        "fkl-slow": "forward KL, a third of the rate",
        "fkl-fast": "forward KL, three times the rate",
        "fkl-long": "forward KL, four times as long",
        "fkl-t-2": "forward KL, temperature 2",
        "geometric-0.1": "geometric loss",
        **_TITLES,
    }
    for words, (prefix, _) in _FAMILIES.items():
        named |= {f"{prefix}{weight}": f"forward KL + {weight} {words}" for weight in _WEIGHTS}
    return named.get(loss, loss)


def _change(row: Mapping[Any, Any], metric: str) -> str:
    if pd.isna(row[f"{metric}_change"]):
        return "infinite"
    if row["condition"] == "rank-6" and metric == "excess":
        return "of nothing"
    return f"{row[f'{metric}_change']:+.2f} ({row[f'{metric}_low']:+.2f} to {row[f'{metric}_high']:+.2f})"
