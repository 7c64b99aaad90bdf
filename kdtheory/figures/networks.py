"""Controlled experiments: a shared network that starts confidently wrong, and students of low rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdtheory.figures import style
from kdtheory.figures.datasets import Dataset
from kdtheory.figures.registry import figure, table

_SHARED = (
    "saturation.shared-network",
    "saturation.shared-network-others",
    "saturation.network-kl-term",
    "saturation.where-the-advantage-ends",
)
_LOW_RANK = (
    "modes.low-rank-own-criterion",
    "modes.low-rank-own-criterion-seen",
    "modes.low-rank-own-criterion-well-sampled",
    "modes.low-rank-wasserstein-gain",
)
_CAPACITY = ("modes.low-rank-capacity",)
_CONDITIONS = {
    "main": "gap 15, a tenth bad",
    "longer": "3000 steps",
    "sgd": "SGD, rate 0.1",
    "rate-0.01": "Adam, rate 0.01",
    "rate-0.03": "Adam, rate 0.03",
    "temperature-2": "temperature 2",
    "temperature-4": "temperature 4",
    "gap-9": "gap 9",
    "gap-7": "gap 7",
    "gap-5": "gap 5",
    "gap-3": "gap 3",
    "gap-1": "gap 1",
    "bad-100": "half of them bad",
    "bad-200": "all of them bad",
    "tabular": "table of logits, Adam 0.05",
}
_METRICS = {"kl": "forward KL (nats)", "rkl": "reverse KL (nats)", "tv": "total variation", "w1": "W1 (diameters)"}
_PLACES = {
    ("rank-2", "train_"): "300 contexts, trained on",
    ("rank-2", ""): "after these 300, held out",
    ("rank-2-well-sampled", ""): "1500 of dimension 4, held out",
}


def _runs(path: Path) -> Any:
    from kdtheory.students import published

    return published.load(path)


def _interval(values: pd.Series) -> pd.Series:
    """Geometric mean of positive numbers over seeds, and its 95 % t interval."""
    from kdtheory.students import statistics

    return pd.Series(np.exp(statistics.interval(np.log(values).tolist())), index=["value", "low", "high"])


def _intervals(rows: pd.DataFrame, by: list[str], metrics: list[str]) -> pd.DataFrame:
    """One row per group and metric: value, low, high."""
    found = {
        (*(names if isinstance(names, tuple) else (names,)), metric): _interval(group[metric])
        for names, group in rows.groupby(by, sort=False)
        for metric in metrics
    }
    table = pd.DataFrame(found).T
    return table.rename_axis([*by, "metric"]).reset_index()


def _shared_curves(path: Path) -> pd.DataFrame:
    curves = _runs(path).curves
    return _intervals(curves[curves["condition"] == "main"], ["loss", "step"], ["tv", "w1"])


def _comparisons(path: Path) -> pd.DataFrame:
    return pd.DataFrame(_runs(path).decisions["comparisons"])


def _sweep(path: Path) -> pd.DataFrame:
    results = _runs(path).results
    rows = results[results["condition"].str.fullmatch(r"rank-\d+")]
    found = _intervals(rows, ["condition", "loss"], ["kl", "tv", "w1"])
    return found.assign(rank=found["condition"].str.removeprefix("rank-").astype(int)).sort_values(
        "rank", kind="stable"
    )


def _shared_results(path: Path) -> pd.DataFrame:
    results = _runs(path).results
    return results[results["condition"] == "main"]


def _low_rank_results(path: Path) -> pd.DataFrame:
    return _runs(path).results


SHARED_CURVES = Dataset("runs/shared-network", _shared_curves)
SHARED_RATIOS = Dataset("runs/shared-network", _comparisons)
SHARED_RESULTS = Dataset("runs/shared-network", _shared_results)
LOW_RANK = Dataset("runs/low-rank", _comparisons)
LOW_RANK_RESULTS = Dataset("runs/low-rank", _low_rank_results)
SWEEP = Dataset("runs/low-rank", _sweep)


@figure(SHARED_CURVES, claims=_SHARED[:3])
def networks_shared(curves: pd.DataFrame) -> Figure:
    """Contexts that start confidently wrong, in a shared network under Adam: TV and W1 to the teacher against steps."""
    fig, axes = style.blank((7.6, 3.4), columns=2)
    titles = {"tv": "total variation, bad contexts", "w1": "W1, bad contexts (line of length 1)"}
    for ax, (metric, label) in zip(axes, titles.items(), strict=True):
        for loss, rows in curves[curves["metric"] == metric].groupby("loss", sort=False):
            ax.plot(rows["step"], rows["value"], color=style.colour(loss), label=style.title(loss))
            ax.fill_between(rows["step"], rows["low"], rows["high"], color=style.colour(loss), alpha=0.15, linewidth=0)
        ax.set(xlabel="Adam steps (rate 0.001)", ylabel=label, yscale="log", xlim=(0, curves["step"].max()))
        style.label_lines(ax)
    return fig


@figure(SHARED_RATIOS, claims=_SHARED[3:])
def networks_advantage(comparisons: pd.DataFrame) -> Figure:
    """Where forward KL's lead over W1 ends: repair time and final W1, one condition changed at a time."""
    rows = comparisons[(comparisons["loss"] == "w1") & comparisons["metric"].isin(["repair_steps", "w1"])]
    fig, axes = style.blank((7.6, 3.8), columns=2, sharey=True)
    titles = {"repair_steps": "steps to repair", "w1": "W1 of the bad contexts at the end"}
    for ax, (metric, label) in zip(axes, titles.items(), strict=True):
        chosen = rows[rows["metric"] == metric].set_index("condition")
        for height, name in enumerate(_CONDITIONS):
            if name in chosen.index:
                _ratio(ax, height, chosen.loc[name])
        ax.axvline(1, color="0.4", linewidth=0.6)
        ax.axvline(3, color="0.4", linewidth=0.6, linestyle=":")
        ax.set(xscale="log", xlabel=f"{label},\nW1's student over forward KL's")
    axes[0].set_yticks(range(len(_CONDITIONS)), list(_CONDITIONS.values()))
    axes[0].invert_yaxis()
    fig.suptitle("dotted: factor 3; arrow: W1 not repaired in some seed, a lower bound; hollow: undecided", fontsize=8)
    return fig


def _ratio(ax: Any, height: int, row: Any) -> None:
    """Interval and mean; an arrow where W1's time is only a lower bound, hollow where the factor 3 is undecided."""
    colour, bound = style.colour("w1"), row["censored"] > 0
    decided = row["decision"].removeprefix("pilot: ") != "undecided"
    ax.plot([row["low"], row["high"]], [height, height], "-", color=colour)
    ax.plot(row["ratio"], height, ">" if bound else "o", color=colour, markerfacecolor=colour if decided else "white")


@figure(LOW_RANK, claims=_LOW_RANK)
def networks_low_rank(comparisons: pd.DataFrame) -> Figure:
    """Students of rank 2 in each loss's own criterion: every other student minus the one trained on the criterion."""
    rows = comparisons[comparisons["family"] == "own"]
    losses = [loss for loss in ("fkl", "rkl", "jsd", "tvd", "w1") if loss in set(rows["reference"])]
    fig, axes = style.blank((7.6, 5.6), len(_PLACES), len(_METRICS), sharey=True)
    for line, ((condition, prefix), place) in zip(axes, _PLACES.items(), strict=True):
        for ax, (metric, label) in zip(line, _METRICS.items(), strict=True):
            chosen = rows[(rows["condition"] == condition) & (rows["metric"] == prefix + metric)]
            for _, row in chosen.iterrows():
                _difference(ax, losses.index(row["reference"]), row)
            own = chosen["loss"].iloc[0]
            ax.axvline(0, color="0.4", linewidth=0.6, zorder=0)
            ax.plot(0, losses.index(own), "*", color=style.colour(own), markersize=9, zorder=5)
            ax.locator_params(axis="x", nbins=4)
            ax.set_xlabel(f"{label}\nminus {style.title(own)}'s", fontsize=7)
        line[0].set_ylabel(place, fontsize=7)
    axes[0, 0].set_yticks(range(len(losses)), [style.title(name) for name in losses])
    axes[0, 0].invert_yaxis()
    fig.suptitle(
        "star: trained on the criterion; right: worse than that one; hollow: undecided, or no plateau", fontsize=8
    )
    return fig


def _difference(ax: Any, height: int, row: pd.Series) -> None:
    colour = style.colour(row["reference"])
    decided = row["decision"].removeprefix("pilot: ") in ("lower", "higher")
    ax.plot([-row["high"], -row["low"]], [height, height], "-", color=colour)
    ax.plot(-row["mean"], height, "o", color=colour, markerfacecolor=colour if decided else "white")


@figure(SWEEP, claims=_CAPACITY)
def networks_capacity(sweep: pd.DataFrame) -> Figure:
    """Held-out KL, TV and W1 of the students of three losses against their rank; 16 is full."""
    fig, axes = style.blank((7.6, 2.8), columns=3)
    for ax, metric in zip(axes, ("kl", "tv", "w1"), strict=True):
        for loss in ("fkl", "rkl", "w1"):
            rows = sweep[(sweep["metric"] == metric) & (sweep["loss"] == loss)]
            ax.plot(rows["rank"], rows["value"], "o-", color=style.colour(loss), label=style.title(loss), markersize=3)
            ax.fill_between(rows["rank"], rows["low"], rows["high"], color=style.colour(loss), alpha=0.15, linewidth=0)
        ax.set(xscale="log", yscale="log", xlabel="rank of the student", ylabel=_METRICS[metric])
        ax.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
        ax.minorticks_off()
    axes[0].legend(fontsize=6.5, frameon=False, loc="lower left")
    return fig


@table(SHARED_RESULTS, claims=_SHARED[:3])
def networks_shared_results(results: pd.DataFrame) -> pd.DataFrame:
    """Repair time and final distances of the bad contexts, means over seeds."""
    rows = []
    for loss, group in results.groupby("loss", sort=False):
        censored = int(group["censored"].sum())
        steps = f"{group['repair_steps'].mean():.0f}" if not censored else f"not repaired in {censored} of {len(group)}"
        finals = {label: f"{group[name].mean():.4f}" for name, label in (("tv", "TV"), ("w1", "W1"), ("kl", "FKL"))}
        rows.append({"trained on": style.title(loss), "steps to repair": steps, **finals})
    return pd.DataFrame(rows)


@table(SHARED_RATIOS, claims=_SHARED[3:])
def networks_advantage_ratios(comparisons: pd.DataFrame) -> pd.DataFrame:
    """W1 over forward KL, condition by condition: repair time and final W1, with intervals."""
    rows = comparisons[comparisons["loss"] == "w1"].set_index(["condition", "metric"])
    shown = []
    for name, label in _CONDITIONS.items():
        line = {"condition": label}
        for metric, head in (("repair_steps", "repair time"), ("w1", "final W1")):
            line[head] = _words(rows.loc[(name, metric)]) if (name, metric) in rows.index else "not measured"
        shown.append(line)
    return pd.DataFrame(shown)


def _words(row: Any) -> str:
    bound = "at least " if row["censored"] else ""
    return f"{bound}{row['ratio']:.3g} ({row['low']:.3g} to {row['high']:.3g}): {row['decision']}"


@table(LOW_RANK_RESULTS, claims=_LOW_RANK + _CAPACITY)
def networks_low_rank_results(results: pd.DataFrame) -> pd.DataFrame:
    """Held-out metrics of the low-rank students, means over seeds."""
    metrics = {**_METRICS, "decision_cost": "decision cost", "agreement": "agreement"}
    means = results.groupby(["condition", "loss"], sort=False)[list(metrics)].mean().reset_index()
    shown = {"student": means["condition"], "trained on": [style.title(name) for name in means["loss"]]}
    return pd.DataFrame(shown | {label: [f"{x:.4f}" for x in means[name]] for name, label in metrics.items()})


@table(LOW_RANK, claims=_LOW_RANK)
def networks_low_rank_decisions(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Students of rank 2 against forward KL's, held out: three-way decision per metric."""
    rows = comparisons[
        (comparisons["family"] == "fkl") & comparisons["condition"].isin(["rank-2", "rank-2-well-sampled"])
    ]
    wide = rows.pivot(index=["condition", "loss"], columns="metric", values="decision")
    wide = wide.loc[list(dict.fromkeys(rows[["condition", "loss"]].itertuples(index=False, name=None)))]
    labels = {**_METRICS, "decision_cost": "decision cost"}
    shown = wide[list(labels)].rename(columns=labels).map(lambda word: word.removeprefix("pilot: "))
    contexts = {"rank-2": "300 of dimension 16", "rank-2-well-sampled": "1500 of dimension 4"}
    names = pd.DataFrame(
        [(contexts[name], style.title(loss)) for name, loss in wide.index], columns=["trained on contexts", "with"]
    )
    return pd.concat([names, shown.reset_index(drop=True)], axis=1).rename_axis(columns=None)


@table(LOW_RANK, claims=_LOW_RANK)
def networks_low_rank_own(comparisons: pd.DataFrame) -> pd.DataFrame:
    """In each loss's own criterion: its student minus that of every other loss, with intervals and decisions."""
    rows = comparisons[comparisons["family"] == "own"]
    shown = []
    for (condition, prefix), place in _PLACES.items():
        chosen = rows[(rows["condition"] == condition) & (rows["metric"].str.startswith("train_") == bool(prefix))]
        for _, row in chosen.iterrows():
            interval = f"{row['mean']:.3g} ({row['low']:.3g} to {row['high']:.3g})"
            metric = _METRICS[row["metric"].removeprefix("train_")]
            names = {"own student minus": style.title(row["reference"]), "difference": interval}
            shown.append({"contexts": place, "criterion": metric, **names, "decision": row["decision"]})
    return pd.DataFrame(shown)
