"""The toy of adaptive KL in pictures: epochs 1 and 200, and the start and the student for which 200 are not enough."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdtheory.figures import style
from kdtheory.figures.datasets import computed
from kdtheory.figures.registry import figure

_PANELS = (
    ("zero logits", 1, "from zero logits, epoch 1"),
    ("zero logits", 200, "from zero logits, epoch 200"),
    ("confident", 200, "12 nats ahead on a wrong token, epoch 200"),
    ("one hump", 200, "one hump of fixed width, epoch 200"),
)
_LOSSES = ("fkl", "rkl", "akl")


def _gradients(loss: str, p: Any, z: Any) -> Any:
    import kdtheory as kd

    return kd.divergence(loss).logit_gradient(teacher_logits=np.log(p), student_logits=z)


def _train(loss: str, p: Any, z: Any, chart: Any, rate: float) -> dict[int, Any]:
    """Students at epochs 1 and 200 of descent in parameters θ, z = z₀ + chart θ."""
    import kdtheory as kd

    theta, found = np.zeros(chart.shape[1]), {}
    for epoch in range(1, 201):
        theta = theta - rate * (chart.T @ _gradients(loss, p, z + chart @ theta))
        if epoch in (1, 200):
            found[epoch] = kd.simplex.softmax(z + chart @ theta)
    return found


@computed("modes_akl_toy.csv")
def TOY() -> pd.DataFrame:
    """Columns setting, epoch, loss ("teacher" too), token, probability."""
    from kdtheory.claims.modes import toy

    p = toy.teacher()
    place = np.arange(p.size) - (p.size - 1) / 2
    hump = -(place**2) / (2 * 1.5**2)  # a discretised Gaussian of 1.5 tokens; its one parameter moves it
    confident = toy.GAP * (np.arange(p.size) == toy.WRONG)
    starts = {
        "zero logits": (np.zeros(p.size), np.eye(p.size), 1.0),
        "confident": (confident.astype(float), np.eye(p.size), 1.0),
        "one hump": (hump, place[:, None], 0.1),
    }
    rows: list[dict[str, Any]] = []
    for setting, (z, chart, rate) in starts.items():
        for loss in _LOSSES:
            for epoch, q in _train(loss, p, z, chart, rate).items():
                named = {"setting": setting, "epoch": epoch, "loss": loss}
                rows += [{**named, "token": token, "probability": value} for token, value in enumerate(q)]
        rows += [
            {"setting": setting, "epoch": 0, "loss": "teacher", "token": token, "probability": value}
            for token, value in enumerate(p)
        ]
    return pd.DataFrame(rows)


def distances(table: pd.DataFrame) -> pd.DataFrame:
    """Total variation to the teacher: columns setting, epoch, loss, tv."""
    rows = []
    for (setting, epoch, loss), found in table.groupby(["setting", "epoch", "loss"], sort=False):
        p = table[(table["setting"] == setting) & (table["loss"] == "teacher")]["probability"].to_numpy()
        tv = np.abs(found["probability"].to_numpy() - p).sum() / 2
        if loss != "teacher":
            rows.append({"setting": setting, "epoch": epoch, "loss": loss, "tv": float(tv)})
    return pd.DataFrame(rows)


@figure(TOY, claims=("modes.both-converge", "modes.head-and-tail", "modes.akl-half-weights"))
def modes_akl_toy(table: pd.DataFrame) -> Figure:
    """Students by forward KL, reverse KL and adaptive KL at epochs 1 and 200, and where 200 epochs are not enough."""
    fig, axes = style.blank(style.GRID, rows=2, columns=2, sharex=True)
    far = distances(table).set_index(["setting", "epoch", "loss"])["tv"]
    for ax, (setting, epoch, words) in zip(axes.flat, _PANELS, strict=True):
        here = table[table["setting"] == setting]
        teacher = here[here["loss"] == "teacher"]
        ax.bar(teacher["token"], teacher["probability"], color="0.85", width=0.9, label="teacher")
        for loss, mark in zip(_LOSSES, ("-", "--", ":"), strict=True):
            rows = here[(here["loss"] == loss) & (here["epoch"] == epoch)]
            label = f"{style.title(loss)}, TV {far[setting, epoch, loss]:.2g}"
            ax.plot(
                rows["token"],
                rows["probability"],
                mark,
                marker="o",
                markersize=2.5,
                color=style.colour(loss),
                label=label,
            )
        ax.set_title(words, fontsize=7.5)
        ax.set_ylim(0, 1.3 * ax.get_ylim()[1])
        ax.legend(fontsize=6)
    for ax in axes[:, 0]:
        ax.set_ylabel("probability")
    for ax in axes[-1]:
        ax.set_xlabel("token")
    return fig
