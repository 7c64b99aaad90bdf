"""Limited students judged by a ground metric: gains by metric, gain against metric-task correlation, loss × metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdtheory.figures import style
from kdtheory.figures.datasets import Dataset
from kdtheory.figures.registry import figure, table

_GAIN = ("students.metric-gain", "students.metric-gain-excess", "students.metric-gain-elsewhere")
_CURVE = ("students.metric-gain-curve",)
_REPAIRS = ("students.repairs-keep-metric-gain",)
_KINDS = {"rank-2": "rank 2", "narrow": "two hidden units"}
_RIVALS = {
    "": "true tree",
    "-scrambled": "permuted tree",
    "-random": "tree of unrelated points",
    "-zero-one": "0-1 metric",
}
_TITLES = {
    "sinkhorn": "Sinkhorn divergence",
    "fkl-then-w1": "forward KL, then W1",
    "natural-w1": "W1, natural gradient",
    "natural-w1-plain": "the same, plain mean",
    "fkl+sinkhorn": "forward KL + λ S_ε",
}
_COLOURS = {
    "sinkhorn": "#93c47d",
    "fkl-then-w1": "#0b8043",
    "natural-w1": "#b6d7a8",
    "natural-w1-plain": "#b6d7a8",
    "fkl+sinkhorn": "#76a5af",
}
_CRITERIA = {
    "fkl": "FKL",
    "rkl": "RKL",
    "jsd": "JSD",
    "tvd": "TV",
    "skl": "SKL",
    "srkl": "SRKL",
    "w1": "W1",
    "sinkhorn": "S_ε",
    "fkl+w1": "FKL+λW1",
}
_TASK = "axis-1"


def _title(loss: str) -> str:
    return _TITLES.get(loss) or style.title(loss)


def _colour(loss: str) -> str:
    return _COLOURS.get(loss) or style.colour(loss)


def _runs(path: Path) -> Any:
    from kdtheory.students import published

    return published.load(path)


def _interval(values: pd.Series) -> tuple[float, float, float]:
    """Mean over seeds and its 95 % t interval."""
    from kdtheory.students import statistics

    found = statistics.interval(values.tolist())
    return found.mean, found.low, found.high


def _gains(path: Path) -> pd.DataFrame:
    """Gain over forward KL's student of the same condition: condition, loss, measure, value, low, high.

    Without the full rank, where there is no excess to divide by.
    """
    results = _runs(path).results
    results = results[results["condition"] != "full-rank"]
    rows = []
    for condition, group in results[~results["condition"].str.contains("-mix-")].groupby("condition", sort=False):
        for measure in ("d_cost", "excess", "fkl"):
            wide = group.pivot(index="seed", columns="loss", values=measure)
            for loss in (name for name in dict.fromkeys(group["loss"]) if name != "fkl"):
                value, low, high = _interval(1 - wide[loss] / wide["fkl"])
                rows.append((condition, loss, measure, value, low, high))
    return pd.DataFrame(rows, columns=["condition", "loss", "measure", "value", "low", "high"])


def _curve(path: Path) -> pd.DataFrame:
    return pd.DataFrame(_runs(path).decisions["curve"])


def _matrix(path: Path) -> pd.DataFrame:
    """Geometric mean over seeds of a criterion over that of the student trained on it: kind, loss, criterion."""
    results = _runs(path).results
    rows = []
    for kind in _KINDS:
        chosen = results[results["condition"] == kind]
        for criterion in _CRITERIA:
            wide = np.log(chosen.pivot(index="seed", columns="loss", values=criterion))
            for loss in dict.fromkeys(chosen["loss"]):
                value, low, high = _interval(wide[loss] - wide[criterion])
                rows.append((kind, loss, criterion, np.exp(value), np.exp(low), np.exp(high)))
    return pd.DataFrame(rows, columns=["kind", "loss", "criterion", "ratio", "low", "high"])


def _tasks(path: Path) -> pd.DataFrame:
    """W1's gain in the error of E_q l on every task under the true metric: kind, seed, task, rho, gain."""
    results = _runs(path).results
    rows = []
    for kind in _KINDS:
        chosen = results[results["condition"] == kind]
        w1, fkl = (chosen[chosen["loss"] == loss].set_index("seed") for loss in ("w1", "fkl"))
        for name in (column for column in chosen if column.startswith("error_")):
            task = name.removeprefix("error_")
            gain = 1 - w1[name] / fkl[name]
            rows += [(kind, seed, task, w1.loc[seed, f"rho_{task}"], gain[seed]) for seed in gain.index]
    return pd.DataFrame(rows, columns=["kind", "seed", "task", "rho", "gain"])


def _results(path: Path) -> pd.DataFrame:
    return _runs(path).results


GAINS = Dataset("runs/metric", _gains)
CURVE = Dataset("runs/metric", _curve)
MATRIX = Dataset("runs/metric", _matrix)
TASKS = Dataset("runs/metric", _tasks)
RESULTS = Dataset("runs/metric", _results)


@figure(GAINS, claims=_GAIN + _REPAIRS)
def students_metric_gains(gains: pd.DataFrame) -> Figure:
    """Gain over forward KL in d-cost, excess d-cost and forward KL, by loss and by the metric trained on."""
    columns = {"d_cost": "d-cost", "excess": "excess d-cost", "fkl": "forward KL"}
    lines = [("w1", ending) for ending in _RIVALS] + [("fkl-then-w1", ending) for ending in _RIVALS]
    lines += [(loss, "") for loss in ("natural-w1", "natural-w1-plain", "fkl+w1", "fkl+sinkhorn", "sinkhorn", "tvd")]
    fig, axes = style.blank((7.6, 6.2), len(_KINDS), len(columns), sharex="col", sharey=True)
    for row, (kind, words) in zip(axes, _KINDS.items(), strict=True):
        for ax, (measure, label) in zip(row, columns.items(), strict=True):
            chosen = gains[gains["measure"] == measure].set_index(["condition", "loss"])
            for height, (loss, ending) in enumerate(lines):
                if (f"{kind}{ending}", loss) not in chosen.index:
                    continue
                _bar(ax, height, chosen.loc[(f"{kind}{ending}", loss)], _colour(loss), filled=not ending)
            ax.axvline(0, color="0.4", linewidth=0.6, zorder=0)
            if measure != "fkl":
                ax.axvline(0.1, color="0.2", linewidth=0.9, linestyle=":", zorder=0)
            ax.set_title(f"{words}: {label}", fontsize=7.5)
            ax.tick_params(axis="y", labelsize=6)
    names = [
        f"{_title(loss)}: {_RIVALS[ending]}" if loss in ("w1", "fkl-then-w1") else _title(loss)
        for loss, ending in lines
    ]
    axes[0, 0].set_yticks(range(len(lines)), names)
    axes[0, 0].invert_yaxis()
    fig.suptitle("gain over forward KL, judged under the true tree; right: better; dotted: a tenth", fontsize=8)
    return fig


def _bar(ax: Any, height: float, row: Any, colour: str, *, filled: bool) -> None:
    ax.plot([row["low"], row["high"]], [height, height], "-", color=colour)
    ax.plot(row["value"], height, "o", color=colour, markerfacecolor=colour if filled else "white", markersize=4)


@figure(CURVE, claims=_CURVE)
def students_metric_curve(curve: pd.DataFrame) -> Figure:
    """W1's gain over forward KL on a task, and in d-cost, against the correlation of its metric with the task."""
    measures = {"gain": "gain in |E_p l - E_q l|", "d_cost_gain": "gain in d-cost under the true tree"}
    fig, axes = style.blank((7.0, 5.2), 2, 2, sharex=True, sharey="row")
    for row, (measure, label) in zip(axes, measures.items(), strict=True):
        for ax, (kind, words) in zip(row, _KINDS.items(), strict=True):
            chosen = curve[curve["kind"] == kind]
            ax.plot(chosen["rho"], chosen[measure], ".", color="0.7", markersize=3)
            for place, (_, group) in enumerate(chosen.groupby("condition", sort=False)):
                value, low, high = _interval(group[measure])
                at = group["rho"].mean()
                ax.plot([at, at], [low, high], "-", color=style.colour("w1"))
                ax.plot(at, value, "o", color=style.colour("w1"), markersize=4)
                if place in (0, chosen["condition"].nunique() - 1):
                    ax.annotate("true" if not place else "permuted", (at, high), fontsize=6.5, ha="center", va="bottom")
            ax.axhline(0, color="0.4", linewidth=0.6, zorder=0)
            ax.set_title(words, fontsize=8)
        row[0].set_ylabel(label)
    for ax in axes[-1]:
        ax.set_xlabel("ρ = corr(d(i, j), |l_i - l_j|) of the metric trained on")
    return fig


@figure(TASKS, claims=_CURVE)
def students_metric_tasks(tasks: pd.DataFrame) -> Figure:
    """W1's gain over forward KL on eight tasks, trained on the true tree, against its correlation with the task."""
    fig, axes = style.blank(style.DOUBLE_COLUMN, columns=2, sharex=True, sharey=True)
    for ax, (kind, words) in zip(axes, _KINDS.items(), strict=True):
        chosen = tasks[tasks["kind"] == kind]
        for family, colour in (("axis", style.colour("w1")), ("random", "0.6")):
            rows = chosen[chosen["task"].str.startswith(family)]
            label = "axis of the embeddings" if family == "axis" else "random numbers"
            ax.plot(rows["rho"], rows["gain"], "o", color=colour, markersize=3, label=label)
        ax.axhline(0, color="0.4", linewidth=0.6, zorder=0)
        ax.set(title=words, xlabel="ρ = corr(d(i, j), |l_i - l_j|)")
    axes[0].set_ylabel("gain in |E_p l - E_q l|")
    axes[0].legend(fontsize=6.5, frameon=False)
    return fig


@figure(MATRIX, claims=_GAIN[:1])
def students_metric_matrix(matrix: pd.DataFrame) -> Figure:
    """Each loss's student under each divergence, over the student that was trained on it; boxed: at home."""
    fig, axes = style.blank((7.6, 4.2), columns=2, sharey=True)
    losses = list(dict.fromkeys(matrix["loss"]))
    limit = float(np.abs(np.log(matrix["ratio"])).max())
    for ax, (kind, words) in zip(axes, _KINDS.items(), strict=True):
        wide = matrix[matrix["kind"] == kind].pivot(index="loss", columns="criterion", values="ratio")
        values = wide.loc[losses, list(_CRITERIA)].to_numpy()
        ax.grid(visible=False)
        image = ax.imshow(np.log(values), cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
        for (line, column), value in np.ndenumerate(values):
            strong = abs(np.log(value)) > 0.6 * limit
            text = f"{value:.2f}" if value < 9.995 else f"{value:.0f}"
            ax.text(column, line, text, ha="center", va="center", fontsize=5.5, color="white" if strong else "black")
            if losses[line] == list(_CRITERIA)[column]:
                box = {"facecolor": "none", "edgecolor": "black", "linewidth": 1.4}
                ax.add_patch(_rectangle((column - 0.5, line - 0.5), box))
        ax.set_xticks(range(len(_CRITERIA)), list(_CRITERIA.values()), rotation=45, ha="right", fontsize=6.5)
        ax.set_title(words, fontsize=8)
    axes[0].set_yticks(range(len(losses)), [_title(loss) for loss in losses], fontsize=6.5)
    axes[0].set_ylabel("trained on")
    bar = fig.colorbar(image, ax=axes, shrink=0.7)
    bar.set_label("log ratio; blue: better than at home", fontsize=7)
    return fig


def _rectangle(corner: tuple[float, float], look: dict[str, Any]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, 1, 1, **look)


@table(RESULTS, claims=_GAIN + _REPAIRS)
def students_metric_results(results: pd.DataFrame) -> pd.DataFrame:
    """Likelihood, d-cost and excess d-cost, under the true tree and under the metric trained on; means over seeds."""
    columns = {
        "nll": "NLL (nats)",
        "fkl": "FKL (nats)",
        "w1": "W1",
        "d_cost": "d-cost",
        "excess": "excess",
        "d_cost_trained": "d-cost, own metric",
        "excess_trained": "excess, own metric",
    }
    chosen = results[~results["condition"].str.contains("-mix-")]
    means = chosen.groupby(["condition", "loss"], sort=False)[list(columns)].mean().reset_index()
    shown = {"student and metric": means["condition"], "trained on": [_title(name) for name in means["loss"]]}
    return pd.DataFrame(shown | {label: [f"{x:.4f}" for x in means[name]] for name, label in columns.items()})
