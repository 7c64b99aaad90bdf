"""How long a student takes to escape: against the gap, against the vocabulary, and under the natural gradient."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdtheory.figures import style
from kdtheory.figures.datasets import computed
from kdtheory.figures.registry import figure

GAPS = (0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 15.0, 18.0)
FLOOR = 0.001
"""Teacher's probability of the wrong token for the two losses that are infinite at a one-hot teacher."""
_FINITE = ("fkl", "jsd", "tvd", "skl", "srkl", "hellinger2", "chi2")


def _closed_form(loss: str, gap: float) -> float:
    """Theorem 10 of chapter 03; NaN where the table has an integral."""
    forward, total, s = (gap + 1 - np.exp(-gap)) / 2, gap + np.sinh(gap), np.sqrt(1 + np.exp(gap))
    hellinger = 2 * s - s / (s**2 - 1) + 1.5 * np.log((s - 1) / (s + 1)) - np.sqrt(2) - 3 * np.log(np.sqrt(2) - 1)
    known = {"fkl": forward, "tvd": total, "skl": forward + total / 9, "chi2": (1 - np.exp(-gap)) / 2}
    return float({**known, "hellinger2": hellinger}.get(loss, np.nan))


@computed("saturation_escape.csv")
def ESCAPE_TIMES() -> pd.DataFrame:
    """Columns loss, gap (nats), time (until q_1 = 1/2), closed_form (empty where there is none). Two tokens."""
    import kdtheory as kd
    from kdtheory import dynamics

    rows = []
    for loss in (*_FINITE, "rkl", "neyman"):
        wrong = -np.inf if loss in _FINITE else np.log(FLOOR / (1 - FLOOR))
        for gap in GAPS:
            ended = dynamics.flow(kd.divergence(loss), teacher_logits=[0.0, wrong], student_logits=[0.0, gap])
            rows.append({"loss": loss, "gap": gap, "time": ended.time, "closed_form": _closed_form(loss, gap)})
    return pd.DataFrame(rows)


@figure(
    ESCAPE_TIMES,
    claims=("saturation.escape-formula", "saturation.escape-closed-forms", "saturation.escape-asymptotics"),
)
def saturation_escape(times: pd.DataFrame) -> Figure:
    """Escape time against the gap Δ, two tokens: dots from the flow, lines from closed forms (dotted: joined dots)."""
    fig, ax = style.blank(style.SINGLE_COLUMN)
    fine = np.linspace(GAPS[0], GAPS[-1], 120)
    for loss, rows in times.groupby("loss", sort=False):
        look = {"color": style.colour(loss), "linewidth": 1.0}
        name = style.title(loss) + (f" (p₂ = {FLOOR})" if loss not in _FINITE else "")
        name = "total variation, W1" if loss == "tvd" else name
        known = rows["closed_form"].notna().all()
        curve = (fine, [_closed_form(str(loss), gap) for gap in fine]) if known else (rows["gap"], rows["time"])
        ax.plot(*curve, "-" if known else ":", label=name, **look)
        ax.plot(rows["gap"], rows["time"], "o", markersize=2.6, label=f"_{loss}", color=look["color"])
    ax.set(xlabel="gap of the wrong token at the start, Δ (nats)", ylabel="time until q₁ = 1/2", yscale="log")
    ax.set_xlim(0, GAPS[-1])
    style.label_lines(ax)
    return fig


SIZES = (3, 10, 30, 100, 300, 1000, 5000, 20000)


@computed("saturation_cold_start.csv")
def COLD_STARTS() -> pd.DataFrame:
    """Columns loss, geometry, V, time (until q_y = 1/2 from uniform logits, one-hot teacher)."""
    import kdtheory as kd
    from kdtheory import dynamics

    rows = []
    for V in SIZES:
        line = kd.TokenCost.line(np.linspace(0, 1, V))
        losses = {name: kd.divergence(name) for name in ("fkl", "hellinger2", "skl", "jsd", "tvd")}
        losses["w1"] = kd.divergence("w1", cost=line)
        runs = [(name, "euclidean") for name in losses] + [("tvd", "natural")]
        teacher = np.where(np.arange(V) == 0, 0.0, -np.inf)
        for name, geometry in runs:
            ended = dynamics.flow(
                losses[name],
                teacher_logits=teacher,
                student_logits=np.zeros(V),
                until=dynamics.reaches(0),
                geometry=geometry,  # type: ignore[arg-type]
            )
            rows.append({"loss": name, "geometry": geometry, "V": V, "time": ended.time})
    return pd.DataFrame(rows)


@figure(
    COLD_STARTS,
    claims=("saturation.cold-start-bounded", "saturation.cold-start-exact", "saturation.natural-transport"),
)
def saturation_cold_start(times: pd.DataFrame) -> Figure:
    """Time from uniform logits to q_y = 1/2 against V: log V for forward KL, V for losses with bounded slopes."""
    fig, ax = style.blank(style.SINGLE_COLUMN)
    for (loss, geometry), rows in times.groupby(["loss", "geometry"], sort=False):
        natural = geometry == "natural"
        label = {"w1": "W1, line of length 1", "tvd": "total variation"}.get(str(loss), style.title(loss))
        label = "total variation, natural" if natural else label
        look = {"color": style.colour(loss), "linewidth": 1.0, "markersize": 2.6}
        ax.plot(rows["V"], rows["time"], "--o" if natural else "-o", label=label, **look)
    ax.set(xlabel="vocabulary size V", ylabel="time until $q_y$ = 1/2", xscale="log", yscale="log")
    ax.set_xlim(SIZES[0], SIZES[-1])
    style.label_lines(ax)
    return fig


START_GAP = 10.0
TEACHER = (0.9, 0.1)
SHARES = np.unique(
    np.concatenate([np.geomspace(1e-6, 0.05, 30), np.linspace(0.06, 0.9, 60), 1 - np.geomspace(0.09, 1e-5, 40)])
)
"""Times at which a path is stored, as shares of the time it takes: dense at both ends."""


@computed("saturation_natural.csv")
def PATHS() -> pd.DataFrame:
    """Columns loss, geometry, time, q: the right token's probability along the flow, from a mistake of 10 nats."""
    import kdtheory as kd
    from kdtheory import dynamics, simplex

    losses = {name: kd.divergence(name) for name in ("fkl", "rkl", "jsd", "tvd")}
    losses["w1"] = kd.divergence("w1", cost=kd.TokenCost.line([0.0, 2.0]))
    rows = []
    for name, loss in losses.items():
        for geometry in ("euclidean", "natural"):
            run = {
                "teacher_logits": np.log(TEACHER),
                "student_logits": [0.0, START_GAP],
                "until": dynamics.reaches(0, TEACHER[0] - 0.05),  # before the kinks of TV and W1
                "geometry": geometry,
            }
            total = dynamics.flow(loss, **run).time  # type: ignore[arg-type]
            path = dynamics.flow(loss, at=SHARES * total, **run).path  # type: ignore[arg-type]
            q = simplex.softmax(path)[:, 0]
            rows.append(pd.DataFrame({"loss": name, "geometry": geometry, "time": SHARES[: len(q)] * total, "q": q}))
    return pd.concat(rows, ignore_index=True)


@figure(PATHS, claims=("saturation.natural-gradient", "saturation.natural-transport", "saturation.escape-bounded"))
def saturation_natural(paths: pd.DataFrame) -> Figure:
    """The right token's probability after a mistake of 10 nats: gradient flow in the logits, and natural gradient."""
    fig, axes = style.blank(style.DOUBLE_COLUMN, columns=2, sharex=True, sharey=True)
    heads = {"euclidean": "gradient flow in the logits", "natural": "natural-gradient flow"}
    for ax, (geometry, head) in zip(axes, heads.items(), strict=True):
        for loss, rows in paths[paths["geometry"] == geometry].groupby("loss", sort=False):
            label = "W1, tokens at distance 2" if loss == "w1" else style.title(loss)
            ax.plot(rows["time"], rows["q"], color=style.colour(loss), label=label)
        ax.axhline(0.5, color="0.6", linewidth=0.6, linestyle=":")
        ax.set(xlabel="time", xscale="log", title=head, ylim=(0, 0.9), xlim=(1e-2, 1e5))
    axes[0].set_ylabel("student's probability of the right token")
    axes[1].legend(fontsize=6.5, loc="lower right")
    return fig
