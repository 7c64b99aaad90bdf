"""Students of drawn tokens, and students with another vocabulary than their teacher's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdtheory.figures import style
from kdtheory.figures.datasets import Dataset
from kdtheory.figures.registry import figure, table

_LABELS = ("students.hard-label-bias", "students.whole-teacher-no-bias")
_TOKENIZERS = ("students.cross-tokenizer", "students.cross-tokenizer-variants")
_PLACES = {
    "samples-1": "table, line",
    "tree-1": "table, tree",
    "network-1": "network, line",
    "full": "table, whole teacher",
    "network-full": "network, whole teacher",
}
_PROBES = {
    "aligned": "equal embeddings",
    "noisy": "noisy embeddings",
    "noise-1": "noise twice as long",
    "noise-2": "four times as long",
    "scrambled": "scrambled embeddings",
    "larger": "student has more tokens",
    "tabular": "table of logits",
}
_TITLES = {
    "uld": ("sorted transport (ULD)", "#cc0000"),
    "w1": ("W1, embedding distances", "#6aa84f"),
    "tree": ("W1, tree of embeddings", "#38761d"),
    "sinkhorn": ("Sinkhorn divergence", "#bf9000"),
    "index": ("forward KL by number", "#7f7f7f"),
    "relabelled": ("forward KL, relabelling known", "#0b5394"),
}
_MEASURED = ("entropy_ratio", "minimiser_entropy_ratio", "tv", "w1", "minimiser_w1", "w1_to_minimiser")


def _means(path: Path, metrics: tuple[str, ...]) -> pd.DataFrame:
    """Mean over seeds with its 95 % t interval: condition, loss, metric, value, low, high."""
    from kdtheory.students import published, statistics

    rows = []
    for (condition, loss), group in published.load(path).results.groupby(["condition", "loss"], sort=False):
        for metric in metrics:
            if group[metric].notna().all():
                value, low, high = statistics.interval(group[metric].tolist())
                about = {"condition": condition, "loss": loss, "metric": metric}
                rows.append(about | {"value": value, "low": low, "high": high})
    return pd.DataFrame(rows)


LABELS = Dataset("runs/labels", lambda path: _means(path, _MEASURED))
TOKENIZERS = Dataset(
    "runs/tokenizers",
    lambda path: _means(path, ("agreement", "chance", "above", "held_out", "best_relabelling", "left", "tv")),
)


def _chosen(means: pd.DataFrame, **about: str) -> pd.DataFrame:
    rows = means
    for name, value in about.items():
        rows = rows[rows[name] == value]
    return rows


def _bars(ax: Any, x: Any, rows: pd.DataFrame, **look: Any) -> None:
    spread = np.abs(rows[["low", "high"]].to_numpy().T - rows["value"].to_numpy())
    ax.errorbar(x, rows["value"], spread, **look)


@figure(LABELS, claims=_LABELS)
def students_labels(means: pd.DataFrame) -> Figure:
    """What is learnt from m drawn tokens: distance to the teacher against m; sharpness from single tokens."""
    fig, (left, right) = style.blank((7.8, 3.4), columns=2)
    ladder = means[means["condition"].str.startswith("samples-")]
    ladder = ladder.assign(m=ladder["condition"].str.removeprefix("samples-").astype(int))
    best = _chosen(ladder, loss="w1", metric="minimiser_w1")
    left.plot(best["m"], best["value"], "-", color="0.4", label="_")
    left.annotate("exact minimiser\nof E W1", (best["m"].iloc[2], best["value"].iloc[2]), (3, 9), fontsize=6.5,
                  textcoords="offset points", color="0.3")  # fmt: skip
    for loss in ("w1", "fkl"):
        rows = _chosen(ladder, loss=loss, metric="w1")
        _bars(left, rows["m"], rows, fmt="o", color=style.colour(loss), label=style.title(loss))
    left.set(xscale="log", yscale="log", xlabel="tokens drawn per context, m", ylabel="W1 to the teacher (line, 1)")
    left.set_xticks(sorted(set(ladder["m"])), [str(m) for m in sorted(set(ladder["m"]))])
    left.minorticks_off()
    left.legend(fontsize=6.5, loc="lower left")
    _sharpness(right, means)
    return fig


def _sharpness(ax: Any, means: pd.DataFrame) -> None:
    """Entropy over the teacher's, every loss of a condition, with the exact minimiser's beside it."""
    names, height = [], 0
    for condition, place in _PLACES.items():
        for loss in dict.fromkeys(means[means["condition"] == condition]["loss"]):
            rows = _chosen(means, condition=condition, loss=loss)
            seen = rows[rows["metric"] == "entropy_ratio"]
            spread = np.abs(seen[["low", "high"]].to_numpy().T - seen["value"].to_numpy())
            ax.errorbar(seen["value"], [height], xerr=spread, fmt="o", color=style.colour(loss))
            ax.plot(
                rows[rows["metric"] == "minimiser_entropy_ratio"]["value"], [height], "|", color="0.2", markersize=9
            )
            names.append(f"{style.title(loss)}, {place}")
            height += 1
    ax.set_yticks(range(height), names, fontsize=6)
    ax.invert_yaxis()
    ax.axvline(1, color="0.4", linewidth=0.6)
    ax.set(xlabel="entropy over the teacher's, one token or whole teacher\n(bar: exact minimiser)", xlim=(-0.03, 1.2))


@figure(TOKENIZERS, claims=_TOKENIZERS)
def students_tokenizers(means: pd.DataFrame) -> Figure:
    """Agreement on the most likely token between vocabularies in different orders; a bar marks chance."""
    fig, ax = style.blank((7.4, 3.8))
    names, height = [], 0
    for condition, place in _PROBES.items():
        for loss in dict.fromkeys(means[means["condition"] == condition]["loss"]):
            rows = _chosen(means, condition=condition, loss=loss).set_index("metric")
            title, colour = _TITLES[loss]
            seen = rows.loc["agreement"]
            spread = [[seen["value"] - seen["low"]], [seen["high"] - seen["value"]]]
            ax.errorbar([seen["value"]], [height], xerr=spread, fmt="o", color=colour)
            ax.plot([rows.loc["chance", "value"]], [height], "|", color="0.2", markersize=9)
            ax.plot([rows.loc["best_relabelling", "value"]], [height], "o", color=colour, fillstyle="none")
            names.append(f"{place}: {title}")
            height += 1
        ax.axhline(height - 0.5, color="0.85", linewidth=0.5)
    ax.set_yticks(range(height), names, fontsize=6)
    ax.invert_yaxis()
    ax.set(xlabel="share of contexts with the same most likely token (hollow: under the best relabelling)")
    ax.set_xlim(-0.03, 1.03)
    return fig


@table(LABELS, claims=_LABELS)
def students_labels_results(means: pd.DataFrame) -> pd.DataFrame:
    """Students of drawn tokens, and the exact minimisers of their expected losses."""
    wide = means.pivot(index=["condition", "loss"], columns="metric", values="value")
    wide = wide.loc[list(dict.fromkeys(means[["condition", "loss"]].itertuples(index=False, name=None)))]
    heads = {
        "entropy_ratio": "entropy over the teacher's",
        "minimiser_entropy_ratio": "of the exact minimiser",
        "tv": "TV to the teacher",
        "w1": "W1 to the teacher",
        "minimiser_w1": "of the exact minimiser ",
        "w1_to_minimiser": "W1 to the exact minimiser",
    }
    shown = pd.DataFrame(
        {"condition": wide.index.get_level_values(0), "loss": [style.title(x) for x in wide.index.get_level_values(1)]}
    )
    return shown.assign(**{head: [f"{x:.3g}" for x in wide[name]] for name, head in heads.items()})


@table(TOKENIZERS, claims=_TOKENIZERS)
def students_tokenizers_results(means: pd.DataFrame) -> pd.DataFrame:
    """Students with another vocabulary: agreement after undoing the relabelling, and what the loss has left."""
    wide = means.pivot(index=["condition", "loss"], columns="metric", values="value")
    wide = wide.loc[list(dict.fromkeys(means[["condition", "loss"]].itertuples(index=False, name=None)))]
    heads = {
        "agreement": "agreement",
        "chance": "chance",
        "best_relabelling": "under the best relabelling",
        "held_out": "held out, above chance",
        "left": "loss left",
        "tv": "TV to the relabelled teacher",
    }
    shown = pd.DataFrame(
        {
            "condition": [_PROBES[x] for x in wide.index.get_level_values(0)],
            "loss": [_TITLES[x][0] for x in wide.index.get_level_values(1)],
        }
    )
    cells = {head: ["" if np.isnan(x) else f"{x:.3g}" for x in wide[name]] for name, head in heads.items()}
    return shown.assign(**cells)
