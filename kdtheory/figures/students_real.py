"""Real ordered tokens, pixels of digits and a carbon dioxide series: what transport losses save, and at what price."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from kdtheory.figures import style
from kdtheory.figures.datasets import Dataset
from kdtheory.figures.registry import figure, table

_CLAIMS = (
    "students.real-metric-digits",
    "students.real-metric-digits-excess",
    "students.real-metric-series",
    "students.real-metric-series-excess",
    "students.real-metric-zero-one",
    "students.real-metric-tree-kl",
)
_SOURCES = {"digits": "pixels of digits, 4 units", "co2": "carbon dioxide series, 1 unit"}
_WIDE = {f"{name}-wide": label.split(",")[0] + ", 64 units" for name, label in _SOURCES.items()}
_SCRAMBLED = "-scrambled"
_LOOK = {
    "cramer": ("Cramér distance", "#bf9000"),
    "fkl-then-w1": ("forward KL, then W1", "#0b8043"),
    "fkl-then-tvd": ("forward KL, then TV", "#274e13"),
    "fkl+tree_kl": ("forward KL + λ tree-KL", "#741b47"),
}
_DECADE = 10  # a range above this asks for logarithmic axes
_HARM = -1.0
"""Left end of the axis of gains; what is worse is drawn there, as an arrow with its number."""


def title(loss: str) -> str:
    """The loss's name for a reader."""
    base = loss.removesuffix(_SCRAMBLED)
    return (_LOOK[base][0] if base in _LOOK else style.title(base)) + (", scrambled" if base != loss else "")


def colour(loss: str) -> str:
    """The colour of the loss; a scrambled one has that of the true one."""
    base = loss.removesuffix(_SCRAMBLED)
    return _LOOK[base][1] if base in _LOOK else style.colour(base)


def _runs(path: Path) -> Any:
    from kdtheory.students import published

    return published.load(path)


def _gains(path: Path) -> pd.DataFrame:
    """Saved share of forward KL's excess d-cost and of its d-cost, by condition and loss: value, low, high.

    The value is the ratio of means over seeds; the interval is that of the saved levels, as shares of the mean. An
    excess whose interval includes 0 has no shares.
    """
    from kdtheory.students import statistics

    rows = []
    for condition, group in _runs(path).results.groupby("condition", sort=False):
        wide = group.pivot(index="seed", columns="loss", values="cost")
        teacher = group.pivot(index="seed", columns="loss", values="teacher_cost")["fkl"]
        excess = statistics.interval((wide["fkl"] - teacher).tolist())
        bases = {"excess": excess.mean if excess.low > 0 else float("nan"), "cost": float(wide["fkl"].mean())}
        for loss in dict.fromkeys(group["loss"]):
            found = statistics.interval((wide["fkl"] - wide[loss]).tolist())
            rows += [
                (condition, loss, name, *(float(x) / base for x in (found.mean, found.low, found.high)))
                for name, base in bases.items()
            ]
    return pd.DataFrame(rows, columns=["condition", "loss", "reading", "value", "low", "high"])


def _means(path: Path) -> pd.DataFrame:
    """Means over seeds of every metric, by condition and loss."""
    results = _runs(path).results.drop(columns="seed")
    return results.groupby(["condition", "loss"], sort=False).mean().reset_index()


def _checks(path: Path) -> pd.DataFrame:
    return pd.DataFrame(_runs(path).decisions["convergence"])


GAINS = Dataset("runs/real-metric", _gains)
MEANS = Dataset("runs/real-metric", _means)
CHECKS = Dataset("runs/real-metric", _checks)


@figure(GAINS, claims=_CLAIMS)
def students_real_gain(gains: pd.DataFrame) -> Figure:
    """Saved share of the excess error of forward KL's student, loss by loss, with true and with scrambled levels."""
    rows = gains[gains["reading"] == "excess"]
    narrow = rows[rows["condition"].isin(_SOURCES)]
    bases = [name for name in dict.fromkeys(narrow["loss"]) if name != "fkl" and not name.endswith(_SCRAMBLED)]
    fig, axes = style.blank((7.6, 3.6), columns=2, sharey=True)
    for ax, (condition, label) in zip(axes, _SOURCES.items(), strict=True):
        chosen = narrow[narrow["condition"] == condition].set_index("loss")
        for height, base in enumerate(bases):
            for loss, shift in ((base, -0.13), (base + _SCRAMBLED, 0.2)):
                if loss in chosen.index:
                    _gain(ax, height + shift, chosen.loc[loss], loss)
        ax.axvline(0, color="0.4", linewidth=0.6)
        ax.axvline(0.1, color="0.4", linewidth=0.6, linestyle=":")
        ax.set(xlabel="saved share of forward KL's excess error", title=label)
        if chosen["low"].min() < _HARM:
            ax.set_xlim(left=_HARM * 1.08)
    axes[0].set_yticks(range(len(bases)), [title(name) for name in bases])
    axes[0].invert_yaxis()
    fig.suptitle("full: true levels; hollow: scrambled levels; dotted: a tenth; arrow: beyond the axis", fontsize=8)
    return fig


def _gain(ax: Any, height: float, row: Any, loss: str) -> None:
    look, fill = colour(loss), "white" if loss.endswith(_SCRAMBLED) else colour(loss)
    if row["value"] < _HARM:
        ax.plot(_HARM, height, "<", color=look, markerfacecolor=fill, markersize=4)
        ax.text(_HARM + 0.04, height, f"{row['value']:.1f}", fontsize=6, va="center", color=look)
        return
    ax.plot([max(row["low"], _HARM), row["high"]], [height, height], "-", color=look)
    ax.plot(row["value"], height, "o", color=look, markerfacecolor=fill, markersize=4)


@figure(MEANS, claims=_CLAIMS)
def students_real_front(means: pd.DataFrame) -> Figure:
    """Price and gain: excess negative log-likelihood against excess error, both over the teacher's, narrow students."""
    fig, axes = style.blank((7.6, 3.6), columns=2)
    for ax, (condition, label) in zip(axes, _SOURCES.items(), strict=True):
        rows = means[means["condition"] == condition]
        for _, row in rows.iterrows():
            fill = "white" if row["loss"].endswith(_SCRAMBLED) else colour(row["loss"])
            at = row["cost"] - row["teacher_cost"], row["nll"] - row["teacher_nll"]
            ax.plot(*at, "o", color=colour(row["loss"]), markerfacecolor=fill, markersize=4, label=title(row["loss"]))
        price = rows["nll"] - rows["teacher_nll"]
        scale = "log" if price.max() > _DECADE * price.min() else "linear"
        ax.set(xscale=scale, yscale=scale, title=label, xlabel="excess error of the median decision (levels)")
    axes[0].set_ylabel("excess negative log-likelihood (nats)")
    fig.legend(*axes[0].get_legend_handles_labels(), fontsize=6, frameon=False, loc="outside right center")
    return fig


@table(MEANS, claims=_CLAIMS)
def students_real_results(means: pd.DataFrame) -> pd.DataFrame:
    """Held-out metrics of the students on real ordered tokens, and of their teachers, means over seeds."""
    labels = {
        "nll": "NLL (nats)",
        "kl": "forward KL (nats)",
        "w1": "W1 (levels)",
        "cost": "error (levels)",
        "crps": "CRPS (levels)",
        "entropy": "entropy (nats)",
    }
    rows = []
    for condition, label in {**_SOURCES, **_WIDE}.items():
        group = means[means["condition"] == condition]
        for _, row in group.iterrows():
            shown = {head: f"{row[name]:.4f}" for name, head in labels.items()}
            rows.append({"source and student": label, "trained on": title(row["loss"]), **shown})
        if condition in _SOURCES:
            own = {head: group[f"teacher_{name}"] for name, head in labels.items() if f"teacher_{name}" in group}
            shown = {head: f"{own[head].iloc[0]:.4f}" if head in own else "0" for head in labels.values()}
            rows.append({"source and student": label, "trained on": "the teacher itself", **shown})
    return pd.DataFrame(rows)


@table(GAINS, claims=_CLAIMS)
def students_real_gains(gains: pd.DataFrame) -> pd.DataFrame:
    """Saved shares of forward KL's error and excess error, every student, with intervals over seeds."""
    rows = []
    for condition, label in {**_SOURCES, **_WIDE}.items():
        for loss in dict.fromkeys(gains.loc[gains["condition"] == condition, "loss"]):
            if loss == "fkl":
                continue
            both = gains[(gains["condition"] == condition) & (gains["loss"] == loss)].set_index("reading")
            heads = {"cost": "saved error, %", "excess": "saved excess error, %"}
            words = {head: _percent(both.loc[name]) for name, head in heads.items()}
            rows.append({"source and student": label, "trained on": title(loss), **words})
    return pd.DataFrame(rows)


def _percent(row: Any) -> str:
    if pd.isna(row["value"]):
        return "no excess to save"
    value, low, high = (100 * row[name] for name in ("value", "low", "high"))
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


@table(CHECKS, claims=_CLAIMS)
def students_real_convergence(checks: pd.DataFrame) -> pd.DataFrame:
    """The plateau check of every student: change over the last quarter, of all change and of the final value."""
    return pd.DataFrame({
        "source and student": [{**_SOURCES, **_WIDE}[name] for name in checks["condition"]],
        "trained on": [title(name) for name in checks["loss"]],
        "last quarter, % of all change": [f"{100 * x:.2f}" for x in checks["share"]],
        "last quarter, % of final value": [f"{100 * x:.2f}" for x in checks["change"]],
        "plateau": ["yes" if word else "no" for word in checks["converged"]],
    })  # fmt: skip
