"""Head and tail under smoothed transport, modes and voids, cut teachers: what the stored runs show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdtheory.figures import style
from kdtheory.figures.datasets import Dataset
from kdtheory.figures.registry import figure, table

_TAIL = ("students.tail", "students.tail-line", "students.tail-line-crowded", "students.tail-divergences")
_COVERAGE = ("students.coverage", "students.coverage-fixed-width", "students.coverage-table", "students.least-void")
_TRUNCATION = ("students.truncation-gradient", "students.truncation-student", "students.truncation-quarter")
_PLACES = {"embedding": "tokens at embeddings", "line": "tokens on a line"}
_STUDENTS = {
    "network-free": "network, free width",
    "network-fixed": "network, width of a mode",
    "table-free": "table, free width",
    "table-fixed": "table, width of a mode",
}
_CUTS = {"twentieth": "a twentieth", "tenth": "a tenth", "tenth-floor": "a tenth, floor 1e-8", "quarter": "a quarter"}
_SINKHORN = "#e69138"


def _runs(path: Path) -> Any:
    from kdtheory.students import published

    return published.load(path)


def _times(path: Path) -> pd.DataFrame:
    """Per condition, loss and group: mean probability, geometric mean time and its interval, linearised time."""
    from kdtheory.students import statistics
    from kdtheory.students.controlled import relaxation, tail

    results, rows = _runs(path).results, []
    p = tail.Settings().teacher()
    for (condition, loss), group in results.groupby(["condition", "loss"], sort=False):
        for k, at in enumerate(relaxation.groups(p.size)):
            value, low, high = np.exp(statistics.interval(np.log(group[f"time_{k}"]).tolist()))
            closed = float(np.exp(np.log(group[f"closed_{k}"]).mean()))
            about = {"condition": condition, "loss": loss, "p": p[at].mean(), "late": int(group["censored"].sum())}
            rows.append({**about, "time": value, "low": low, "high": high, "closed": closed})
    return pd.DataFrame(rows)


def _results(path: Path) -> pd.DataFrame:
    return _runs(path).results


TIMES = Dataset("runs/tail", _times)
MODES = Dataset("runs/coverage", _results)
CUT = Dataset("runs/truncation", _results)


def _look(loss: str) -> tuple[str, str]:
    return ("Sinkhorn divergence", _SINKHORN) if loss == "sinkhorn" else (style.title(loss), style.colour(loss))


@figure(TIMES, claims=_TAIL)
def students_tail(times: pd.DataFrame) -> Figure:
    """Time until an octave of ranks is fitted, against its mean probability: the flow, and linearised (dotted)."""
    fig, axes = style.blank((7.2, 3.3), columns=2, sharey=True)
    for ax, (condition, title) in zip(axes, _PLACES.items(), strict=True):
        here = times[times["condition"] == condition]
        for loss in ("fkl", "jsd", "sinkhorn"):
            rows = here[here["loss"] == loss]
            if rows.empty:
                continue
            label, colour = _look(loss)
            ax.plot(rows["p"], rows["time"], "o-", color=colour, label=label, markersize=3)
            ax.fill_between(rows["p"], rows["low"], rows["high"], color=colour, alpha=0.15, linewidth=0)
            ax.plot(rows["p"], rows["closed"], ":", color="0.2", linewidth=0.9)
        ends = np.array([here["p"].min(), here["p"].max()])
        for power, loss in ((1, "fkl"), (2, "sinkhorn"), *(((3, "sinkhorn"),) if condition == "line" else ())):
            last = here[here["loss"] == loss].sort_values("p")["time"].iloc[-1]
            ax.plot(ends, last * (ends[1] / ends) ** power, "--", color="0.6", linewidth=0.7)
            ax.text(ends[0] * 0.93, last * (ends[1] / ends[0]) ** power, f"$p^{{-{power}}}$", fontsize=7, ha="right")
        ax.set(
            xscale="log", yscale="log", xlabel="mean probability of the tokens", xlim=(ends[0] * 0.55, ends[1] * 1.4)
        )
        ax.set_xticks([0.002, 0.005, 0.01, 0.02], ["0.002", "0.005", "0.01", "0.02"])
        ax.minorticks_off()
        ax.set_title(title, fontsize=8)
    axes[0].set_ylabel("flow time until the error is 1/e")
    axes[0].legend(fontsize=6.5, frameon=False)
    return fig


@figure(MODES, claims=_COVERAGE)
def students_coverage(results: pd.DataFrame) -> Figure:
    """Students with one peak for teachers with two: mass in the void against modes recalled, a point per seed."""
    fig, axes = style.blank((7.2, 5.2), 2, 2, sharex=True, sharey=True)
    for ax, (condition, title) in zip(axes.flat, _STUDENTS.items(), strict=True):
        here = results[results["condition"] == condition]
        for loss, rows in here.groupby("loss", sort=False):
            colour = style.colour(loss)
            ax.plot(rows["recall"], rows["void"], "o", color=colour, markersize=3, alpha=0.35, markeredgewidth=0)
            at = (rows["recall"].mean(), rows["void"].mean())
            ax.plot(*at, "D", color=colour, markersize=6, markeredgecolor="white", label=style.title(loss))
        ax.axhline(here["teacher_void"].mean(), color="0.4", linewidth=0.6, linestyle=":")
        ax.set(title=title, xlim=(0.15, 1.05))
        ax.title.set_fontsize(8)
    for ax in axes[1]:
        ax.set_xlabel("share of modes recalled")
    for ax in axes[:, 0]:
        ax.set_ylabel("mass in the void")
    axes[0, 1].legend(fontsize=6.5, frameon=False, loc="upper right")
    fig.suptitle("small: seeds; large: their mean; dotted: the teacher", fontsize=8)
    return fig


@table(MODES, claims=_COVERAGE)
def students_coverage_results(results: pd.DataFrame) -> pd.DataFrame:
    """Void mass and mode recall of every student, means over seeds."""
    names = {
        "void": "mass in the void",
        "teacher_void": "the teacher's",
        "recall": "modes recalled",
        "recall_tenth": "at a tenth",
        "recall_half": "at a half",
        "fkl": "forward KL (nats)",
        "w1": "W1 (widths of a mode)",
    }
    means = results.groupby(["condition", "loss"], sort=False)[list(names)].mean().reset_index()
    students = {"student": means["condition"].map(_STUDENTS), "trained on": [style.title(x) for x in means["loss"]]}
    return pd.DataFrame(students | {label: [f"{x:.3f}" for x in means[name]] for name, label in names.items()})


@table(CUT, claims=_TRUNCATION)
def students_truncation_results(results: pd.DataFrame) -> pd.DataFrame:
    """Cut teachers: change of the logit gradient at two students, distance of the trained one, means over seeds."""
    whole = results[results["condition"] == "whole"].set_index(["loss", "seed"])["tv"]
    rows = []
    for (condition, loss), group in results[results["condition"] != "whole"].groupby(["condition", "loss"], sort=False):
        if group["tv"].isna().any():
            continue
        ratio = float((group.set_index("seed")["tv"] / whole[str(loss)]).mean())
        line = {"kept": _CUTS[str(condition)], "mass kept": f"{group['kept'].mean():.3f}", "loss": style.title(loss)}
        changes = {"start": "gradient, first student", "trained": "gradient, trained student"}
        line |= {label: f"{100 * group[f'change_{at}'].mean():.1f} %" for at, label in changes.items()}
        line["total variation of the student"] = f"{group['tv'].mean():.3f}"
        rows.append({**line, "over that of the one trained on the whole": f"{ratio:.3f}"})
    return pd.DataFrame(rows)
