"""Logit gradients of a student that is sure of the wrong token, and weights of one drawn token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdtheory.figures import style
from kdtheory.figures.datasets import computed
from kdtheory.figures.registry import figure

GAPS = np.arange(0, 31)
VOCABULARY = 8
TEACHER_TOP = 0.9
"""Teacher: 0.9 on token 0, the rest spread evenly. Student: token 1 leads all others by Δ nats of logit."""

_LETTERS = {"alpha": "α", "beta": "β", "mu": "μ"}


@computed("gradients_gap.csv")
def GAP_SIZES() -> pd.DataFrame:
    """Columns loss, setting, gap (nats), size: the largest entry of the logit gradient (nats, or units of cost)."""
    import kdtheory as kd

    p = np.full(VOCABULARY, (1 - TEACHER_TOP) / (VOCABULARY - 1))
    p[0] = TEACHER_TOP
    student = np.zeros((len(GAPS), VOCABULARY))
    student[:, 1] = GAPS
    teacher = np.broadcast_to(np.log(p), student.shape)
    line = kd.divergence("w1", cost=kd.TokenCost.line(np.linspace(0, 1, VOCABULARY)))
    rows = []
    for loss in (*kd.divergences.ALL, line):
        gradient = loss.logit_gradient(teacher_logits=teacher, student_logits=student)
        sizes = np.abs(gradient).max(-1)
        setting = ", ".join(f"{_LETTERS[key]} = {value:g}" for key, value in loss.parameters.items() if key in _LETTERS)
        named = {"loss": loss.name, "setting": setting}
        rows += [{**named, "gap": gap, "size": size} for gap, size in zip(GAPS, sizes, strict=True)]
    return pd.DataFrame(rows)


@figure(
    GAP_SIZES,
    claims=("gradients.fkl-bounded-in-logits", "gradients.bounded-slopes", "gradients.w1-gradient-bound"),
)
def gradients_against_gap(sizes: pd.DataFrame) -> Figure:
    """Largest logit gradient against the logit lead Δ of the wrong token, one line per loss, log scale."""
    fig, ax = style.blank(style.SINGLE_COLUMN)
    for name, rows in sizes.groupby("loss", sort=False):
        setting = rows["setting"].iloc[0]
        label = style.title(name) + (f", {setting}" if isinstance(setting, str) else "")
        ax.plot(rows["gap"], rows["size"], color=style.colour(name), label=label)
    ax.set(xlabel="logit lead of the wrong token, Δ (nats)", ylabel="‖∂D/∂z‖∞", yscale="log", xlim=(0, GAPS[-1]))
    style.label_lines(ax)
    return fig


def growth(sizes: pd.DataFrame, late: int = 20) -> pd.DataFrame:
    """Rate of log size per nat of lead from Δ = `late` to the last, and the word for it.

    Parameters
    ----------
    sizes : DataFrame
        As stored: columns loss, gap, size.
    late : int
        Where the asymptote is taken to begin.

    Returns
    -------
    DataFrame
        Columns loss, rate (rounded to two digits), word: "constant" if |rate| < 0.05, "vanishes" or "explodes".
    """
    rows = []
    for name, group in sizes[sizes["gap"] >= late].groupby("loss", sort=False):
        first, last = group.iloc[0], group.iloc[-1]
        rate = np.log(last["size"] / first["size"]) / (last["gap"] - first["gap"])
        word = "constant" if abs(rate) < 0.05 else "vanishes" if rate < 0 else "explodes"
        rows.append({"loss": name, "rate": round(float(rate), 2) + 0.0, "word": word})
    return pd.DataFrame(rows)


TEACHER = 0.2
STUDENT = np.geomspace(1e-4, 0.98, 81)
"""The drawn token has teacher probability 0.2; the student's is q."""
SKEW = 0.1


@computed("gradients_sampled.csv")
def TOKEN_WEIGHTS() -> pd.DataFrame:
    """Columns loss, version ("derived" or "as printed"), q, weight: factor on ∇q(y) of one token y drawn from p."""
    import kdtheory as kd

    p = np.broadcast_to([TEACHER, 1 - TEACHER], (len(STUDENT), 2))
    q = np.stack([STUDENT, 1 - STUDENT], axis=-1)
    parameters: Mapping[str, Mapping[str, float]] = {"skl": {"alpha": SKEW}, "srkl": {"alpha": SKEW}}
    curves = {}
    for name in ("fkl", "tvd", "skl", "rkl", "srkl"):
        loss: Any = kd.divergence(name, **parameters.get(name, {}))
        slope = loss.slope(p, q)[:, 0]
        if name == "tvd":
            slope = slope - 0.5  # a constant is free because Σ∇q = 0; this one gives the printed 0 for q > p
        curves[name, "derived"] = slope / TEACHER
    curves["rkl", "as printed"] = (np.log(STUDENT / TEACHER) - 1) / TEACHER
    mixture = SKEW * STUDENT + (1 - SKEW) * TEACHER
    curves["srkl", "as printed"] = (np.log(STUDENT / mixture) + 1 - SKEW / mixture) / TEACHER
    tables = [
        pd.DataFrame({"loss": loss, "version": version, "q": STUDENT, "weight": weight})
        for (loss, version), weight in curves.items()
    ]
    return pd.concat(tables, ignore_index=True)


@figure(
    TOKEN_WEIGHTS,
    claims=(
        "gradients.fkl-sampled",
        "gradients.tv-sampled",
        "gradients.skl-slope",
        "gradients.rkl-slope",
        "gradients.skew-reverse-kl-slope",
    ),
)
def gradients_sampled_coefficients(weights: pd.DataFrame) -> Figure:
    """Weight on ∇q(y) of one token y drawn from the teacher (p = 0.2) against q; dashed: as printed."""
    fig, axes = style.blank(style.DOUBLE_COLUMN, columns=2, sharex=True)
    for ax, names, limits in zip(axes, (("fkl", "tvd", "skl"), ("rkl", "srkl")), ((-60, 4), (-45, 15)), strict=True):
        for (loss, version), rows in weights[weights["loss"].isin(names)].groupby(["loss", "version"], sort=False):
            printed = version == "as printed"
            label = style.title(loss) + (", as printed" if printed else "")
            ax.plot(rows["q"], rows["weight"], "--" if printed else "-", color=style.colour(loss), label=label)
        ax.axvline(TEACHER, color="0.6", linewidth=0.6, linestyle=":")
        ax.set(xlabel="student's probability of the drawn token, q", xscale="log", ylim=limits)
        ax.legend(fontsize=6.5, loc="lower right")
    axes[0].set_ylabel("weight on ∇q(y), y drawn from p")
    return fig
