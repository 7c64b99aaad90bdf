"""Over-capacity students of several losses, compared with each other; head and tail before and after hard labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdtheory.figures import style
from kdtheory.figures.datasets import Dataset
from kdtheory.figures.registry import figure, table

_EQUIVALENCE = (
    "students.equivalence",
    "students.equivalence-unseen",
    "students.equivalence-transport",
    "students.equivalence-capacity",
)
_HEAD_TAIL = ("students.head-tail-cold", "students.head-tail", "students.head-tail-fit", "students.head-tail-fit-cold")
_FIVE = ("fkl", "rkl", "jsd", "skl", "srkl")
_STUDENTS = (*_FIVE, "tvd", "w1", "fkl-again")
_PLACES = (("wide", "tv", "wide, trained contexts"), ("wide", "tv_test", "wide, held out"), ("narrow", "tv", "narrow"))
_CORPORA = {
    "sft": ("10000 contexts, exponent 1.2", "#0b5394"),
    "small-corpus": ("2000 contexts", "#b45f06"),
    "flat": ("exponent 0.8", "#38761d"),
    "steep": ("exponent 1.6", "#6a329f"),
}


def _runs(path: Path) -> Any:
    from kdtheory.students import published

    return published.load(path)


def _means(rows: pd.DataFrame, by: list[str], metrics: list[str]) -> pd.DataFrame:
    """Mean over seeds with its 95 % t interval, one row per group and metric: value, low, high."""
    from kdtheory.students import statistics

    found = [
        {**dict(zip(by, names, strict=True)), "metric": metric, "value": mean, "low": low, "high": high}
        for names, group in rows.groupby(by, sort=False)
        for metric in metrics
        for mean, low, high in [statistics.interval(group[metric].tolist())]
    ]
    return pd.DataFrame(found)


def _geometric(rows: pd.DataFrame, by: list[str], metrics: list[str]) -> pd.DataFrame:
    """As `_means`, of logarithms and back; groups with a number that is not positive are left out."""
    positive = rows.groupby(by)[metrics].transform("min") > 0
    found = pd.concat(
        [
            _means(chosen.assign(**{metric: np.log(chosen[metric])}), by, [metric])
            for metric in metrics
            for chosen in [rows[positive[metric]]]
        ]
    )
    return found.assign(**{name: np.exp(found[name]) for name in ("value", "low", "high")})


def _parting(path: Path) -> pd.DataFrame:
    """Distance to forward KL's student and to the teacher, as shares of the start's distance to the teacher."""
    curves = _runs(path).curves
    curves = curves[curves["loss"] != "fkl-again"]
    start = curves[curves["step"] == 0].set_index(["condition", "loss", "seed"])["tv"]
    scale = start.loc[list(curves[["condition", "loss", "seed"]].itertuples(index=False, name=None))].to_numpy()
    shares = curves.assign(tv=curves["tv"] / scale, tv_to_fkl=curves["tv_to_fkl"].fillna(0.0) / scale)
    return _geometric(shares, ["condition", "loss", "step"], ["tv", "tv_to_fkl"])


def _pairs(path: Path) -> pd.DataFrame:
    return pd.DataFrame(_runs(path).decisions["pairs"])


def _shares(path: Path) -> pd.DataFrame:
    """Along all training: share of contexts, and errors on head and tail over those at the start; the best epochs."""
    curves = _runs(path).curves
    start = curves[curves["step"] == 0].set_index(["condition", "loss", "seed"])
    at = start.loc[list(curves[["condition", "loss", "seed"]].itertuples(index=False, name=None))]
    left = curves.assign(**{name: curves[name] / at[name].to_numpy() for name in ("head", "tail")})
    hard = curves[curves["loss"] == "hard"]
    best = hard.loc[hard.groupby(["condition", "seed"], sort=False)["validation"].idxmin()]
    best = best.assign(best=best["agree"], step=best.groupby("condition")["step"].transform("mean"))
    by = ["condition", "loss", "step"]
    return pd.concat([_means(left, by, ["agree", "head", "tail"]), _means(best, by, ["best"])], ignore_index=True)


def _states(path: Path) -> pd.DataFrame:
    results = _runs(path).results
    return results[results["loss"] == "hard"]


PARTING = Dataset("runs/equivalence", _parting)
PAIRS = Dataset("runs/equivalence", _pairs)
SHARES = Dataset("runs/head-tail", _shares)
STATES = Dataset("runs/head-tail", _states)


def _band(ax: Any, rows: pd.DataFrame, colour: str, label: str, **look: Any) -> None:
    ax.plot(rows["step"], rows["value"], color=colour, label=label, **look)
    ax.fill_between(rows["step"], rows["low"], rows["high"], color=colour, alpha=0.15, linewidth=0)


@figure(PARTING, claims=_EQUIVALENCE)
def students_equivalence(shares: pd.DataFrame) -> Figure:
    """Students of one start part and, if they have the capacity, meet again at the teacher."""
    fig, axes = style.blank((7.6, 5.6), 2, 2, sharex=True)
    heads = {"tv": "to the teacher", "tv_to_fkl": "to forward KL's student"}
    for line, condition in zip(axes, ("wide", "narrow"), strict=True):
        for ax, (metric, words) in zip(line, heads.items(), strict=True):
            chosen = shares[(shares["condition"] == condition) & (shares["metric"] == metric)]
            for loss, rows in chosen.groupby("loss", sort=False):
                _band(ax, rows, style.colour(loss), style.title(loss), linestyle="-" if loss in _FIVE else "--")
            ax.axhline(0.1, color="0.4", linewidth=0.6, linestyle=":")
            ax.set(yscale="log", ylabel=f"{condition}: TV {words}", xlim=(0, shares["step"].max()))
            style.label_lines(ax)
    for ax in axes[-1]:
        ax.set_xlabel("Adam steps")
    fig.suptitle("shares of the start's total variation to the teacher; dotted: the margin", fontsize=8)
    return fig


@figure(PAIRS, claims=_EQUIVALENCE)
def students_equivalence_pairs(pairs: pd.DataFrame) -> Figure:
    """Total variation between every two students, as a percentage of that between start and teacher."""
    fig, axes = style.blank((9.0, 3.9), columns=len(_PLACES), sharey=True)
    names = [name for name in _STUDENTS if name in set(pairs["first"]) | set(pairs["second"])]
    for ax, (condition, metric, title) in zip(axes, _PLACES, strict=True):
        values = np.full((len(names), len(names)), np.nan)
        ax.set_facecolor("0.95")
        for row in pairs[pairs["condition"] == condition].to_dict("records"):
            i, j = names.index(row["first"]), names.index(row["second"])
            values[i, j] = values[j, i] = 100 * row[metric]
        ax.imshow(np.log10(values), cmap="YlOrRd", vmin=0, vmax=2)
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                ax.text(j, i, f"{value:.2g}", ha="center", va="center", fontsize=5.5)
        ax.set_title(title, fontsize=8)
        ax.set_xticks(range(len(names)), [_short(name) for name in names], rotation=60, ha="right", fontsize=6)
        ax.grid(visible=False)
    axes[0].set_yticks(range(len(names)), [_short(name) for name in names], fontsize=6)
    return fig


def _short(loss: str) -> str:
    return "forward KL, other start" if loss == "fkl-again" else style.title(loss)


@figure(SHARES, claims=_HEAD_TAIL[:2])
def students_head_tail(shares: pd.DataFrame) -> Figure:
    """Share of contexts whose head has the larger part of forward KL's gradient: hard labels, then divergences."""
    fig, axes = style.blank((7.6, 3.2), columns=2, sharey=True)
    rows = shares[shares["metric"] == "agree"]
    for name, (label, colour) in _CORPORA.items():
        chosen = rows[(rows["condition"] == name) & (rows["loss"] == "hard")]
        _band(axes[0], chosen, colour, label)
        best = shares[(shares["condition"] == name) & (shares["metric"] == "best")]
        spread = [best["value"] - best["low"], best["high"] - best["value"]]
        axes[0].errorbar(best["step"], best["value"], spread, fmt="o", color=colour, markersize=4, capsize=2)
    for start, dashes in (("sft", "-"), ("scratch", "--")):
        for loss in ("fkl", "rkl"):
            chosen = rows[(rows["condition"] == start) & (rows["loss"] == loss)]
            words = "from hard labels" if start == "sft" else "untrained"
            _band(axes[1], chosen, style.colour(loss), f"{style.title(loss)}, {words}", linestyle=dashes)
    for ax in axes:
        ax.axhspan(0.5, 0.75, color="0.85", linewidth=0, zorder=0)
        ax.set(ylim=(0, 1.02))
        ax.legend(fontsize=6, frameon=False, loc="lower left")
    axes[0].set(xlabel="steps with hard labels", ylabel="share of contexts: forward KL\nprefers the head more")
    axes[1].set(xlabel="steps with the teacher's distributions")
    return fig


@figure(SHARES, claims=_HEAD_TAIL[2:])
def students_head_tail_fit(shares: pd.DataFrame) -> Figure:
    """Errors on head and tail that are left while the two divergences train, from both starts."""
    fig, axes = style.blank((7.0, 3.2), columns=2)
    titles = {"sft": "from hard labels", "scratch": "untrained"}
    for ax, (start, title) in zip(axes, titles.items(), strict=True):
        lowest = 1.0
        for loss in ("fkl", "rkl"):
            rows = shares[(shares["condition"] == start) & (shares["loss"] == loss)]
            head, tail = (rows[rows["metric"] == name]["value"].to_numpy() for name in ("head", "tail"))
            ax.plot(head, tail, "o-", color=style.colour(loss), label=style.title(loss), markersize=2.5)
            lowest = min(lowest, *head, *tail)
        ax.plot([lowest, 1], [lowest, 1], color="0.4", linewidth=0.6)
        ax.set(xlabel="error on the head, share of the start's", ylabel="error on the tail, likewise", title=title)
        ax.legend(fontsize=6.5, frameon=False, loc="upper left")
    return fig


@table(PAIRS, claims=_EQUIVALENCE)
def students_equivalence_margins(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs of students: how far apart, and what the rule of two standard deviations on forward KL would say."""
    rows = pairs[pairs["first"].isin(_FIVE) & pairs["second"].isin((*_FIVE, "tvd", "w1"))]
    both = zip(rows["first"], rows["second"], strict=True)
    return pd.DataFrame(
        {
            "student": rows["condition"],
            "losses": [f"{style.title(a)}, {style.title(b)}" for a, b in both],
            "TV between them over the start's": [f"{100 * x:.2g} %" for x in rows["tv"]],
            "held out": [f"{100 * x:.2g} %" for x in rows["tv_test"]],
            "difference in forward KL": [f"{x:.2g}" for x in rows["kl_difference"]],
            "two seed s.d.": [f"{2 * x:.2g}" for x in rows["seed_sd"]],
            "rule without margins": ["the same" if x else "different" for x in rows["no_margin"]],
        }
    )


@table(STATES, claims=_HEAD_TAIL[:2])
def students_head_tail_shares(states: pd.DataFrame) -> pd.DataFrame:
    """Head's part of the two gradients before and after hard labels, means over seeds."""
    names = {
        "uniform": "uniform logits",
        "untrained": "untrained network",
        "sft": "best epoch, held out",
        "sft_seen": "best epoch, corpus",
    }
    shown = []
    for condition, rows in states.groupby("condition", sort=False):
        for state, words in names.items():
            mean = rows[
                [f"{state}_{name}" for name in ("agree", "fkl_share", "rkl_share", "tv", "entropy_ratio")]
            ].mean()
            agree, forward, backward, tv, entropy = (f"{x:.3f}" for x in mean)
            shown.append(
                {
                    "corpus": _CORPORA[str(condition)][0],
                    "student": words,
                    "share of contexts": agree,
                    "head's part, forward KL": forward,
                    "head's part, reverse KL": backward,
                    "TV to the teacher": tv,
                    "entropy over the teacher's": entropy,
                }
            )
    return pd.DataFrame(shown)
