"""Confidently wrong contexts in a shared network: how long they take with each loss, and with each repair."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdtheory.figures import style
from kdtheory.figures.datasets import Dataset
from kdtheory.figures.registry import figure, table

_SATURATION = ("students.network-saturation", "students.network-saturation-adam")
_REPAIRS = (
    "students.natural-wasserstein-escape",
    "students.sinkhorn-term-escape",
    "students.wasserstein-term-escape",
    "students.temperature-escape",
)
_LEAD = ("students.forward-kl-keeps-its-lead", "students.kink-keeps-the-stall")
_PURE = ("fkl", "rkl", "srkl", "skl", "jsd", "tvd", "sinkhorn", "w1")
_OWN = {
    "sinkhorn": ("Sinkhorn divergence", "#bf9000"),
    "fkl+sinkhorn": ("forward KL + λ Sinkhorn", "#76a5af"),
    "natural_w1": ("natural-gradient W1", "#e69138"),
    "rounded_w1": ("rounded W1", "#7f6000"),
}
_LINES = {  # what the right panel shows: loss, prefix of its conditions, label, line style
    "W1": ("w1", "", "-"),
    "W1, temperature 2": ("w1", "temperature-2-", "--"),
    "W1, temperature 4": ("w1", "temperature-4-", ":"),
    "natural-gradient W1": ("natural_w1", "natural-", "-"),
    "natural-gradient W1, table": ("natural_w1", "table-", "--"),
    "forward KL, table": ("fkl", "table-", "--"),
    "forward KL": ("fkl", "", "-"),
    "forward KL + S": ("fkl+sinkhorn", "", "-"),
    "forward KL + W1": ("fkl+w1", "", "-"),
}
_ADAM = {
    "adam": "gap 14, a tenth bad, all contexts in a batch",
    "adam-few": "2 of 200 contexts bad",
    "adam-cold": "good contexts start uniform",
    "adam-batch": "batches of 20",
    "adam-gap-9": "gap 9",
    "adam-weight-0.3": "λ = 0.3",
    "adam-weight-3": "λ = 3",
}


def _title(loss: str) -> str:
    return _OWN[loss][0] if loss in _OWN else style.title(loss)


def _colour(loss: str) -> str:
    return _OWN[loss][1] if loss in _OWN else style.colour(loss)


def _runs(path: Path) -> Any:
    from kdtheory.students import published

    return published.load(path)


def _curves(path: Path) -> pd.DataFrame:
    """Curves of "gap-9", each cut where its seed is repaired, and of "adam", to the end."""
    from kdtheory.students.controlled import repair_rules

    runs, keys = _runs(path), ["condition", "loss", "seed"]
    times = runs.results[[*keys, "repair_steps", "censored"]]
    curves = runs.curves.merge(times, on=keys)
    whole, cut = (curves[curves["condition"] == name] for name in ("adam", "gap-9"))
    cut = cut[(cut["step"] < cut["repair_steps"]) | (cut["censored"] > 0)]
    ends = times[(times["condition"] == "gap-9") & (times["censored"] == 0)]
    ends = ends.assign(step=ends["repair_steps"], tv=repair_rules.RULE["repaired"])
    return pd.concat([cut, ends, whole])[[*keys, "step", "tv"]].sort_values([*keys, "step"], ignore_index=True)


def _results(path: Path) -> pd.DataFrame:
    return _runs(path).results


def _times(path: Path) -> pd.DataFrame:
    """Geometric mean and 95 % t interval of the flow time over seeds, per condition and loss."""
    from kdtheory.students import statistics

    rows = []
    for (condition, loss), group in _runs(path).results.groupby(["condition", "loss"], sort=False):
        value, low, high = np.exp(statistics.interval(np.log(group["flow_time"]).tolist()))
        late, gap = int(group["censored"].sum()), group["initial_gap"].mean()
        row = {"condition": condition, "loss": loss, "gap": gap, "censored": late, "seeds": len(group)}
        rows.append({**row, "value": value, "low": low, "high": high})
    return pd.DataFrame(rows)


CURVES = Dataset("runs/repairs", _curves)
RESULTS = Dataset("runs/repairs", _results)
TIMES = Dataset("runs/repairs", _times)


@figure(CURVES, claims=_SATURATION)
def students_escape(curves: pd.DataFrame) -> Figure:
    """Confidently wrong contexts of a shared network, seed by seed: gradient descent at gap 9, Adam at gap 14."""
    fig, axes = style.blank((7.6, 3.6), columns=2)
    panels = {
        "gap-9": ("gradient descent, rate 0.2, gap 9, until repaired", _PURE),
        "adam": ("Adam, rate 0.001, gap 14", ("fkl", "fkl+w1", "natural_w1", "w1")),
    }
    for ax, (condition, (head, losses)) in zip(axes, panels.items(), strict=True):
        shown = curves[(curves["condition"] == condition) & (curves["step"] > 0)]
        for loss in losses:
            rows = shown[shown["loss"] == loss]
            for seed, line in rows.groupby("seed"):
                label = "_" if seed != rows["seed"].min() else _title(loss)
                ax.plot(line["step"], line["tv"], color=_colour(loss), linewidth=0.6, alpha=0.7, label=label)
                if condition == "gap-9":
                    ax.plot(line["step"].iloc[-1], line["tv"].iloc[-1], "o", markersize=2.4, color=_colour(loss))
        ax.axhline(0.5, color="0.4", linewidth=0.6, linestyle=":")
        ax.set(xlabel="steps", xscale="log", title=head, xlim=(1, 1.1 * shown["step"].max()))
        legend = ax.legend(fontsize=6, loc="lower left", frameon=False)
        for handle in legend.get_lines():
            handle.set(linewidth=1.6, alpha=1.0)
    axes[0].set_ylim(0, 1.03)
    axes[1].set_yscale("log")
    axes[0].set_ylabel("total variation to the teacher, bad contexts")
    return fig


@figure(TIMES, claims=_SATURATION + _REPAIRS)
def students_escape_gap(times: pd.DataFrame) -> Figure:
    """Time until confidently wrong contexts are repaired, against the gap: pure losses, and what repairs W1."""
    fig, axes = style.blank((7.6, 3.8), columns=2, sharey=True)
    for loss in _PURE:
        _line(axes[0], times, loss, "", _title(loss), "-")
    for label, (loss, prefix, look) in _LINES.items():
        _line(axes[1], times, loss, prefix, label, look)
    for ax, head in zip(axes, ("one loss, gradient descent", "repairs"), strict=True):
        ax.set(xlabel="gap of the wrong token at the start (nats)", yscale="log", title=head)
        ax.set_xlim(3, 9)
        style.label_lines(ax, size=6.0)
    axes[0].set_ylabel("flow time until repair (rate × steps)")
    return fig


def _line(ax: Any, times: pd.DataFrame, loss: str, prefix: str, label: str, look: str) -> None:
    rows = times[(times["loss"] == loss) & times["condition"].str.fullmatch(prefix + r"gap-\d+")].sort_values("gap")
    ax.plot(rows["gap"], rows["value"], look, marker="o", markersize=2.6, color=_colour(loss), label=label)
    ax.fill_between(rows["gap"], rows["low"], rows["high"], color=_colour(loss), alpha=0.15, linewidth=0)
    late = rows[rows["censored"] > 0]
    ax.plot(late["gap"], late["value"], "^", markersize=6, color=_colour(loss), label="_")


@table(RESULTS, claims=_LEAD)
def students_repairs_adam(results: pd.DataFrame) -> pd.DataFrame:
    """Under Adam: steps until repair and, where runs went to the end, final distances; means over seeds."""
    rows = []
    chosen = results[results["condition"].isin(list(_ADAM))]
    for (condition, loss), group in chosen.groupby(["condition", "loss"], sort=False):
        late = int(group["censored"].sum())
        steps = f"{group['repair_steps'].mean():.0f}" if not late else f"not repaired in {late} of {len(group)}"
        row = {"condition": _ADAM[str(condition)], "trained on": _title(str(loss)), "steps to repair": steps}
        finals = (("tv", "TV"), ("w1", "W1"), ("kl", "FKL"), ("w1_good", "W1, good contexts"))
        rows.append(row | {label: _plain(group[name].mean()) for name, label in finals})
    return pd.DataFrame(rows)


@table(TIMES, claims=_SATURATION + _REPAIRS)
def students_repairs_times(times: pd.DataFrame) -> pd.DataFrame:
    """Flow time until repair under gradient descent by gap: geometric means over seeds."""
    known = times["condition"].str.extract(r"^(?:(.*)-)?gap-(\d+)$")
    rows = times.assign(series=known[0].fillna(""), nominal=known[1])
    rows = rows[rows["nominal"].notna() & ~rows["series"].isin(["adam", "half"])]
    names = {"": "network", "natural": "network", "table": "table of logits"}
    shown = []
    for (series, loss), group in rows.groupby(["series", "loss"], sort=False):
        where = names.get(str(series), f"network, {str(series).replace('-', ' ')}")
        cells = {f"gap {row['nominal']}": _cell(row) for _, row in group.iterrows()}
        shown.append({"student": where, "trained on": _title(str(loss)), **cells})
    return pd.DataFrame(shown)


@table(RESULTS, claims=_SATURATION[:1])
def students_repairs_slopes(results: pd.DataFrame) -> pd.DataFrame:
    """Slope of log flow time per nat of gap, between neighbouring gaps and over all, and time at half the rate."""
    from kdtheory.students.controlled import repair_rules

    names = repair_rules.series()
    half = results[results["condition"] == "half-gap-7"].pivot(index="seed", columns="loss", values="flow_time")
    rows = []
    for loss in ("fkl", *repair_rules.STALLING):
        chosen = results[(results["loss"] == loss) & results["condition"].isin(list(names))]
        times, gaps = (chosen.pivot(index="seed", columns="condition", values=x) for x in ("flow_time", "initial_gap"))
        row = {"trained on": _title(loss)}
        for a, b in itertools.pairwise(names):
            local = (np.log(times[b] / times[a]) / (gaps[b] - gaps[a])).mean()
            row[f"{a.replace('-', ' ')} to {b.removeprefix('gap-')}"] = f"{local:.2f}"
        row["all"] = f"{repair_rules.growth(results, names, loss, 'slope')['value'].mean():.2f}"
        rate = np.exp(np.log(half[loss] / times["gap-7"]).mean()) if loss in half else math.nan
        rows.append(row | {"time at half the rate (gap 7)": "not measured" if math.isnan(rate) else f"{rate:.2f} x"})
    return pd.DataFrame(rows)


def _cell(row: pd.Series) -> str:
    return ("at least " if row["censored"] else "") + f"{row['value']:.3g}"


def _plain(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.4f}"
