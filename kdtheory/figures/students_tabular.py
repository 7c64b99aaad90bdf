"""Tables of logits: escape times against the gap, the vocabulary and the skew, with the laws of chapter 03."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdtheory.figures import style
from kdtheory.figures.datasets import Dataset
from kdtheory.figures.registry import figure, table

_MISTAKES = ("students.escape-by-lead", "students.escape-by-log-odds", "students.escape-asymptotic")
_COLD = (
    "students.cold-start-by-vocabulary",
    "students.cold-start-coefficients",
    "students.cold-start-closed-forms",
)
_SKEW = ("students.escape-by-skew", "students.skew-annealing")
_LOSSES = ("fkl", "rkl", "jsd", "srkl", "skl", "tvd", "w1", "ot", "sinkhorn")
_OWN = {  # losses and curves of this experiment alone
    "ot": ("OT_ε", "#7f6000"),
    "sinkhorn": ("S_ε", "#f1c232"),
    "annealed": ("skew KL, α halved every unit of time", "#b45f06"),
    "annealed-slow": ("the same, every 10 units", "#e69138"),
}
_HEADS = {
    "flow_time": "flow (time)",
    "matched_time": "at forward KL's speed (time)",
    "sgd_steps": "descent, rate 1 (steps)",
    "adam_steps": "Adam, rate 0.05 (steps)",
}


def _runs(path: Path) -> Any:
    from kdtheory.students import published

    return published.load(path)


def _title(loss: str) -> str:
    return _OWN[loss][0] if loss in _OWN else style.title(loss)


def _colour(loss: str) -> str:
    return _OWN[loss][1] if loss in _OWN else style.colour(loss)


def _means(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Geometric mean over seeds with its 95 % t interval: one row per condition, loss and column, NaN where not run."""
    from kdtheory.students import statistics

    found = []
    for (condition, loss), group in rows.groupby(["condition", "loss"], sort=False):
        for column in columns:
            values = np.log(group[column].to_numpy(np.float64))
            known = np.isfinite(values).all()
            mean, low, high = np.exp(statistics.interval(values.tolist())) if known else (np.nan,) * 3
            about = {"condition": condition, "loss": loss, "measure": column}
            found.append({**about, "value": mean, "low": low, "high": high})
    return pd.DataFrame(found)


def _times(path: Path) -> pd.DataFrame:
    """Times and steps of all conditions but the finer integrations: series, number, loss, measure, mean, censored."""
    results = _runs(path).results
    results = results[~results["condition"].str.endswith("-fine")]
    late = results.groupby(["condition", "loss"], sort=False)[["censored", "sgd_censored", "adam_censored"]].sum()
    made = _means(results, list(_HEADS))
    flags = {"flow_time": "censored", "matched_time": "censored"}
    names = [flags.get(name, name.replace("_steps", "_censored")) for name in made["measure"]]
    keys = zip(made["condition"], made["loss"], names, strict=True)
    split = made["condition"].str.extract(r"^(?P<series>[a-z]+)-(?P<number>[\d.]+)(?:-gap-(?P<gap>\d+))?$")
    return pd.concat([made, split.fillna("")], axis=1).assign(
        number=split["number"].astype(float), censored=[int(late.loc[(at, loss), name]) for at, loss, name in keys]
    )


def _checks(path: Path) -> pd.DataFrame:
    runs = _runs(path)
    bounds = pd.DataFrame(runs.decisions["bounds"])
    return bounds.pivot(index="loss", columns="series", values="least_ratio").reset_index()


TIMES = Dataset("runs/tabular", _times)
CHECKS = Dataset("runs/tabular", _checks)


def _line(ax: Any, rows: pd.DataFrame, loss: str, **look: Any) -> None:
    ax.plot(rows["number"], rows["value"], color=_colour(loss), label=_title(loss), **look)
    ax.fill_between(rows["number"], rows["low"], rows["high"], color=_colour(loss), alpha=0.15, linewidth=0)


@figure(TIMES, claims=_MISTAKES)
def students_tabular_gap(times: pd.DataFrame) -> Figure:
    """From a confident mistake to TV = 1/2, against its size: flow, the same at forward KL's speed, and Adam."""
    fig, axes = style.blank((7.6, 3.2), columns=3)
    heads = {
        "flow_time": "time of the flow",
        "matched_time": "time at forward KL's speed",
        "adam_steps": "steps of Adam",
    }
    for ax, (measure, label) in zip(axes, heads.items(), strict=True):
        chosen = times[(times["series"] == "odds") & (times["measure"] == measure)]
        for loss in _LOSSES:
            _line(ax, chosen[chosen["loss"] == loss], loss, marker="o", markersize=2.6, linewidth=1.0)
        ax.set(xlabel="log-odds of the wrong token (nats)", ylabel=label)
        ax.set_xticks([5, 8, 11, 14])
    axes[0].set_yscale("log")
    law = np.array([8.0, 14.0])
    axes[0].plot(law, 2e4 * np.exp(law - 14), ":", color="0.5", linewidth=0.8, label="_law")
    axes[0].text(11.2, 40, "dotted: slope 1", fontsize=6.5, color="0.4")
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=6.5)
    return fig


@figure(TIMES, claims=_COLD)
def students_tabular_vocabulary(times: pd.DataFrame) -> Figure:
    """From uniform logits to q_y = 1/2, against V: flow, with forms for one-hot teachers, and at forward KL's speed."""
    fig, axes = style.blank((7.6, 3.3), columns=2)
    heads = {"flow_time": "time of the flow", "matched_time": "time at forward KL's speed"}
    for ax, (measure, label) in zip(axes, heads.items(), strict=True):
        chosen = times[(times["series"] == "vocabulary") & (times["measure"] == measure)]
        for loss in ("fkl", "rkl", "jsd", "skl", "tvd", "w1"):
            _line(ax, chosen[chosen["loss"] == loss], loss, marker="o", markersize=2.6, linewidth=1.0)
        ax.set(xlabel="vocabulary size V", ylabel=label, xscale="log", yscale="log")
        ax.set_xlim(chosen["number"].min(), chosen["number"].max())
    sizes = np.geomspace(times["number"][times["series"] == "vocabulary"].min(), 1e5, 60)
    look = {"color": "k", "linewidth": 0.8, "label": "_theory", "zorder": 5}
    for form in (np.log(sizes - 1) + 1, sizes - 2 + 2 * np.log(sizes - 1)):
        axes[0].plot(sizes, form, ":", **look)
    axes[1].plot(sizes, np.sqrt(sizes), ":", **look)
    axes[1].text(2.5e3, 36, "√V", fontsize=6.5, color="0.3")
    for ax in axes:
        style.label_lines(ax)
    return fig


@figure(TIMES, claims=_SKEW)
def students_tabular_skew(times: pd.DataFrame) -> Figure:
    """Skew KL from a confident mistake: against the odds of its skew, and annealed against the size of the mistake."""
    fig, axes = style.blank((7.6, 3.1), columns=2)
    flows = times[times["measure"] == "flow_time"]
    for gap, shade in (("8", "#9fc5e8"), ("14", "#3d85c6")):
        rows = flows[(flows["series"] == "skew") & (flows["gap"] == gap)].sort_values("number")
        odds = rows["number"] / (1 - rows["number"])
        reference = {
            loss: float(flows[(flows["condition"] == f"odds-{gap}") & (flows["loss"] == loss)]["value"].iloc[0])
            for loss in ("fkl", "tvd")
        }
        axes[0].plot(odds, rows["value"], "o", color=shade, markersize=4, label=f"mistake of {gap} nats")
        axes[0].plot(odds, reference["fkl"] + odds * reference["tvd"], ":", color="0.3", label="_sum")
        axes[0].axhline(reference["fkl"], color=shade, linewidth=0.6, linestyle="--")
    axes[0].set(xscale="log", yscale="log", xlabel="α/(1 - α)", ylabel="time until TV = 1/2")
    axes[0].legend(
        loc="upper left",
        fontsize=6.5,
        title="dotted: forward KL's time + α/(1 - α) · TV's\ndashed: forward KL",
        title_fontsize=6.5,
    )
    for loss in ("skl", "annealed-slow", "annealed", "fkl"):
        rows = flows[(flows["series"] == "odds") & (flows["loss"] == loss)]
        _line(axes[1], rows, loss, marker="o", markersize=2.6, linewidth=1.0)
    axes[1].set(xlabel="log-odds of the wrong token (nats)", ylabel="time until TV = 1/2", yscale="log")
    axes[1].set_xticks([5, 8, 11, 14])
    axes[1].legend(fontsize=6.5)
    return fig


def _cell(row: pd.Series) -> str:
    if np.isnan(row["value"]):
        return "not run"
    bound = "at least " if row["censored"] else ""
    rounded = float(f"{row['value']:.3g}")
    return f"{bound}{rounded:.10g}"


def _wide(times: pd.DataFrame, index: list[str], heads: dict[str, str]) -> pd.DataFrame:
    made = times.assign(cell=times.apply(_cell, axis=1)).pivot(index=index, columns="measure", values="cell")
    rank = {name: place for place, name in enumerate(dict.fromkeys(times["loss"]))}
    made = made[list(heads)].rename(columns=heads).rename_axis(columns=None).reset_index()
    return made.sort_values(index, key=lambda x: x.map(rank) if x.name == "loss" else x, ignore_index=True)


@table(TIMES, claims=_MISTAKES)
def students_tabular_mistakes(times: pd.DataFrame) -> pd.DataFrame:
    """From mistakes of 8 and 14 nats (log-odds) to TV = 1/2: geometric means over teachers."""
    rows = times[(times["series"] == "odds") & times["number"].isin([8.0, 14.0])]
    made = _wide(rows, ["number", "loss"], _HEADS)
    made["loss"] = [_title(loss) for loss in made["loss"]]
    return made.rename(columns={"number": "mistake (nats)"}).astype({"mistake (nats)": int})


@table(TIMES, claims=_COLD)
def students_tabular_cold(times: pd.DataFrame) -> pd.DataFrame:
    """From uniform logits to q_y = 1/2: geometric means over teachers."""
    rows = times[(times["series"] == "vocabulary") & times["number"].isin([1000.0, 100_000.0])]
    made = _wide(rows, ["number", "loss"], _HEADS)
    made["loss"] = [_title(loss) for loss in made["loss"]]
    return made.rename(columns={"number": "V"}).astype({"V": int})


@table(CHECKS, claims=_MISTAKES + _COLD)
def students_tabular_bounds(checks: pd.DataFrame) -> pd.DataFrame:
    """Smallest flow time over the lower bound of chapter 03: never below 1."""
    heads = {"lead": "gap as lead", "odds": "gap as log-odds", "skew": "skews", "vocabulary": "cold start"}
    shown = checks[["loss", *(name for name in heads if name in checks)]]
    made = shown.map(lambda x: x if isinstance(x, str) else "no bound" if np.isnan(x) else f"{x:.4g}")
    return made.assign(loss=[_title(loss) for loss in shown["loss"]]).rename(columns=heads).rename_axis(columns=None)
