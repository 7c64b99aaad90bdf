"""The run the sources ask about: 20000 tokens, from uniform logits, by flow, gradient descent and Adam."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdtheory.figures import style
from kdtheory.figures.datasets import computed
from kdtheory.figures.registry import figure, table

VOCABULARY = 20_000
TEACHER_TOP = 0.999
"""Teacher: 0.999 on one token, the rest spread evenly. Line of length 1, that token at an end."""
MOST_STEPS = 70_000
_METHODS = {
    "flow": "gradient flow (time)",
    "sgd": "gradient descent, rate 1 (steps)",
    "adam": "Adam, rate 0.05 (steps)",
}
_MARKS = {"flow": "o", "sgd": "s", "adam": "^"}


@computed("saturation_vocabulary.csv")
def RUNS() -> pd.DataFrame:
    """Columns loss, method, count (time or steps until q_y = 1/2), reached ("no" after `MOST_STEPS`)."""
    import kdtheory as kd
    from kdtheory import dynamics

    teacher = np.full(VOCABULARY, np.log((1 - TEACHER_TOP) / (VOCABULARY - 1)))
    teacher[0] = np.log(TEACHER_TOP)
    losses = {name: kd.divergence(name) for name in ("fkl", "rkl", "skl", "jsd", "tvd")}
    losses["w1"] = kd.divergence("w1", cost=kd.TokenCost.line(np.linspace(0, 1, VOCABULARY)))
    rows = []
    for name, loss in losses.items():
        start = {"teacher_logits": teacher, "student_logits": np.zeros(VOCABULARY), "until": dynamics.reaches(0)}
        flow = dynamics.flow(loss, **start)  # type: ignore[arg-type]
        descent = dynamics.descend(loss, max_steps=MOST_STEPS, **start)  # type: ignore[arg-type]
        adam = dynamics.descend(loss, optimiser="adam", learning_rate=0.05, **start)  # type: ignore[arg-type]
        counts = {"flow": (flow.time, flow.escaped), "sgd": (descent.steps, descent.escaped)}
        counts["adam"] = (adam.steps, adam.escaped)
        for method, (count, escaped) in counts.items():
            rows.append({"loss": name, "method": method, "count": count, "reached": "yes" if escaped else "no"})
    return pd.DataFrame(rows)


_CLAIMS = ("saturation.cold-start-bounded", "saturation.cold-start-exact", "saturation.descent-steps")


@figure(RUNS, claims=_CLAIMS)
def saturation_vocabulary(runs: pd.DataFrame) -> Figure:
    """20000 tokens from uniform logits until q_y = 1/2: time of the flow and steps of two optimisers."""
    fig, ax = style.blank(style.DOUBLE_COLUMN)
    losses = list(dict.fromkeys(runs["loss"]))[::-1]
    for method, label in _METHODS.items():
        rows = runs[runs["method"] == method]
        heights = [losses.index(loss) for loss in rows["loss"]]
        colours = [style.colour(loss) for loss in rows["loss"]]
        ring = method == "flow"  # the flow and descent at rate 1 agree: a ring around the square
        filled = ["none" if ring or done == "no" else c for c, done in zip(colours, rows["reached"], strict=True)]
        size = 90 if ring else 26
        ax.scatter(rows["count"], heights, marker=_MARKS[method], c=filled, edgecolors=colours, s=size, zorder=3)
        face = "none" if ring else "0.3"
        ax.plot([], [], _MARKS[method], color="0.3", markerfacecolor=face, linestyle="none", label=label)
    for value, name in ((np.log(VOCABULARY), "log V"), (VOCABULARY, "V")):
        ax.axvline(value, color="0.6", linewidth=0.7, linestyle=":")
        ax.text(value, len(losses) - 0.42, name, ha="center", va="bottom", fontsize=6.5, color="0.4")
    ax.set_yticks(range(len(losses)), [style.title(loss) for loss in losses])
    ax.set(xscale="log", xlim=(5, 2e5), ylim=(-0.6, len(losses) - 0.4), xlabel="time or steps until $q_y$ = 1/2")
    fig.legend(loc="outside lower center", ncols=3, fontsize=6.5)
    return fig


@table(RUNS, claims=_CLAIMS)
def saturation_vocabulary_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """20000 tokens from uniform logits until q_y = 1/2: time of the flow and steps of two optimisers."""

    def cell(row: pd.Series) -> str:
        if row["method"] == "flow":
            return f"{row['count']:.1f}"
        return f"{row['count']:.0f}" if row["reached"] == "yes" else f"> {row['count']:.0f}"

    made = runs.assign(cell=runs.apply(cell, axis=1)).pivot(index="loss", columns="method", values="cell")
    made = made.loc[list(dict.fromkeys(runs["loss"])), list(_METHODS)].rename(columns=_METHODS)
    made.insert(0, "loss", [style.title(loss) for loss in made.index])
    return made.reset_index(drop=True)
