"""What sampling does: variance of one drawn token, the empirical law, biased minimisers, outliers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdtheory import simplex
from kdtheory.figures import style
from kdtheory.figures.datasets import computed
from kdtheory.figures.registry import figure

GAPS = np.linspace(-2, 12, 57)
VOCABULARY = 8
SKEW = 0.1
"""Teacher: 0.9 on token 0, the rest spread evenly. Student: token 1 leads the others by the gap, in nats."""


def _moments(student: Any, law: Any, slopes: Any) -> tuple[float, float]:
    """Variance of one drawn token's logit gradient, and the squared length of its mean."""
    score = np.eye(student.size) - student
    vectors = (student / law * slopes)[:, None] * score
    mean = law @ vectors
    return float(law @ (vectors**2).sum(1) - mean @ mean), float(mean @ mean)


@computed("noise_variance.csv")
def VARIANCES() -> pd.DataFrame:
    """Columns loss, law, gap (nats), variance, relative: variance over the squared gradient."""
    p = np.full(VOCABULARY, 0.1 / (VOCABULARY - 1))
    p[0] = 0.9
    rows = []
    for gap in GAPS:
        z = np.zeros(VOCABULARY)
        z[1] = gap
        q = simplex.softmax(z)
        skewed = -(1 - SKEW) * p / (SKEW * p + (1 - SKEW) * q)
        estimators = [
            ("fkl", "p", -p / q),
            ("skl", "p", skewed),
            ("tvd", "p", -1.0 * (q < p)),
            ("fkl", "q", -p / q),
            ("rkl", "q", np.log(q / p)),
            ("tvd", "q", np.sign(q - p) / 2),
        ]
        for loss, law, slopes in estimators:
            variance, signal = _moments(q, p if law == "p" else q, slopes)
            rows.append({"loss": loss, "law": law, "gap": gap, "variance": variance, "relative": variance / signal})
    return pd.DataFrame(rows)


@figure(VARIANCES, claims=("noise.drawn-token-variance", "noise.skew-variance", "noise.bounded-variance"))
def noise_variance(table: pd.DataFrame) -> Figure:
    """Variance of one token's gradient against the wrong token's lead; right: over the squared gradient."""
    fig, axes = style.blank(style.DOUBLE_COLUMN, columns=2, sharex=True)
    for (loss, law), rows in table.groupby(["loss", "law"], sort=False):
        line = "-" if law == "p" else "--"
        for ax, column in zip(axes, ("variance", "relative"), strict=True):
            ax.plot(
                rows["gap"],
                rows[column],
                line,
                color=style.colour(loss),
                label=f"{style.title(loss)}, token from {law}",
            )
    axes[0].set(yscale="log", ylim=(1e-6, 1e4), ylabel="variance of one drawn token")
    axes[1].set(yscale="log", ylim=(1e-2, 1e7), ylabel="variance / squared gradient")
    for ax in axes:
        ax.set(xlabel="logit lead of the wrong token (nats)", xlim=(GAPS[0], GAPS[-1]))
    axes[1].legend(fontsize=6, loc="upper left")
    return fig


SAMPLES = np.unique(np.geomspace(1, 3000, 25).astype(int))
SIZES = (10, 100, 1000)


@computed("noise_samples.csv")
def EMPIRICAL() -> pd.DataFrame:
    """Columns V, n, measure (tv, fkl, w1), mean, bound; uniform teachers, tokens equally spaced; exact sums."""
    from scipy.stats import binom

    rows = []
    for size in SIZES:
        p, levels = 1 / size, np.arange(1, size) / size
        for n in SAMPLES:
            counts = np.arange(n + 1)
            share, mass = counts / n, binom.pmf(counts, n, p)
            positive = share[1:]
            absolute = [float(binom.pmf(counts, n, level) @ abs(share - level)) for level in levels]
            found = {
                "tv": (size / 2 * float(mass @ abs(share - p)), np.sqrt((size - 1) / n) / 2),
                "fkl": (size * float(mass[1:] @ (positive * np.log(positive / p))), np.log1p((size - 1) / n)),
                "w1": (sum(absolute) / (size - 1), 1 / (2 * np.sqrt(n))),
            }
            rows += [{"V": size, "n": n, "measure": k, "mean": m, "bound": b} for k, (m, b) in found.items()]
    return pd.DataFrame(rows)


@figure(EMPIRICAL, claims=("noise.samples-tv", "noise.samples-kl", "noise.samples-w1"))
def noise_samples(table: pd.DataFrame) -> Figure:
    """Expected distance of n tokens' empirical law from a uniform teacher; dashed: the bounds."""
    fig, axes = style.blank(style.DOUBLE_COLUMN, columns=3, sharex=True)
    titles = {"tv": "total variation", "fkl": "KL(empirical ‖ teacher), nats", "w1": "W1 on a line of length 1"}
    for ax, (measure, title) in zip(axes, titles.items(), strict=True):
        for (size, rows), shade in zip(table[table["measure"] == measure].groupby("V"), (0.4, 0.7, 1.0), strict=True):
            look: dict[str, Any] = {"color": style.colour("tvd" if measure == "tv" else measure), "alpha": shade}
            ax.plot(rows["n"], rows["mean"], label=f"V = {size}", **look)
            ax.plot(rows["n"], rows["bound"], "--", linewidth=0.7, **look)
        ax.set(xscale="log", yscale="log", xlabel="tokens drawn, n", title=title)
        ax.legend(fontsize=6.5)
    axes[0].set_ylabel("expected distance")
    return fig


@computed("noise_bias.csv")
def BIAS() -> pd.DataFrame:
    """Columns curve, x, y: batch minimisers for θ* = 0.3 against m, and skew KL's student of hard labels against p."""
    from scipy.stats import binom

    rows = [{"curve": "median", "x": m, "y": float(binom.median(m, 0.3)) / m} for m in range(1, 41)]
    p = np.linspace(0, 1, 101)
    for alpha in (0.0, 0.1, 0.3, 0.5):
        q = np.clip(p + alpha / (1 - alpha) * (2 * p - 1), 0, 1)
        rows += [{"curve": f"α = {alpha:g}", "x": a, "y": b} for a, b in zip(p, q, strict=True)]
    return pd.DataFrame(rows)


@figure(BIAS, claims=("noise.batch-median", "noise.skew-sharpens"))
def noise_bias(table: pd.DataFrame) -> Figure:
    """Left: minimiser of the expected W1 to m tokens, teacher 0.3. Right: skew KL on hard labels, two tokens."""
    fig, (left, right) = style.blank(style.DOUBLE_COLUMN, columns=2)
    rows = table[table["curve"] == "median"]
    left.plot(rows["x"], rows["y"], "o-", markersize=2.5, linewidth=0.7, color=style.colour("w1"), label="minimiser")
    left.axhline(0.3, color="0.4", linewidth=0.8, linestyle=":", label="teacher")
    left.set(xlabel="batch size m", ylabel="student's probability", ylim=(-0.03, 0.56))
    left.legend(fontsize=7)
    for (curve, rows), shade in zip(
        table[table["curve"] != "median"].groupby("curve", sort=False), (0.3, 0.55, 0.8, 1.0), strict=True
    ):
        right.plot(rows["x"], rows["y"], color=style.colour("skl"), alpha=shade, label=curve)
    right.set(xlabel="teacher's probability", ylabel="student's probability", xlim=(0, 1))
    right.legend(fontsize=7)
    return fig


POSITIONS = np.arange(-10, 61)
WIDTH = 2.0
PLACES = np.arange(0, 61, 2)
SHARES = np.linspace(0, 0.4, 41)
LOCATIONS = np.linspace(-2, 30, 1601)


def _peaks() -> Any:
    """log q of every student: one discretised Gaussian per location, shape (locations, positions)."""
    logs = -((POSITIONS - LOCATIONS[:, None]) ** 2) / (2 * WIDTH**2)
    return logs - np.log(np.exp(logs).sum(1, keepdims=True))


def _fits(logs: Any, place: int, share: float) -> dict[str, float]:
    """Best location of each loss for the clean teacher at 0 with an outlier, by grid search."""
    clean = np.exp(logs[np.argmin(abs(LOCATIONS))])
    p = (1 - share) * clean + share * (place == POSITIONS)
    q = np.exp(logs)
    values = {
        "fkl": -(p * logs).sum(1),
        "skl": -(p * np.log(SKEW * p + (1 - SKEW) * q)).sum(1),
        "rkl": (q * (logs - np.log(p))).sum(1),
        "tvd": abs(p - q).sum(1) / 2,
    }
    return {name: float(LOCATIONS[np.argmin(value)]) for name, value in values.items()}


@computed("noise_outliers.csv")
def OUTLIERS() -> pd.DataFrame:
    """Columns panel (position, share), x, loss, location: grid of 0.02."""
    logs, rows = _peaks(), []
    panels: dict[str, list[tuple[Any, float]]] = {
        "position": [(place, 0.05) for place in PLACES],
        "share": [(30, float(share)) for share in SHARES],
    }
    for panel, pairs in panels.items():
        for place, share in pairs:
            x = place if panel == "position" else share
            rows += [
                {"panel": panel, "x": float(x), "loss": k, "location": v} for k, v in _fits(logs, place, share).items()
            ]
    return pd.DataFrame(rows)


@figure(OUTLIERS, claims=("noise.outliers", "noise.outlier-toy"))
def noise_outliers(table: pd.DataFrame) -> Figure:
    """One-peak student fitted to a clean peak at 0 with an outlier. Left: share 0.05; right: outlier at 30."""
    fig, axes = style.blank(style.DOUBLE_COLUMN, columns=2, sharey=False)
    labels = {"position": "position of the outlier (share 0.05)", "share": "share of the outlier (position 30)"}
    marks = {"fkl": "-", "skl": "-.", "rkl": "--", "tvd": ":"}
    for ax, (panel, label) in zip(axes, labels.items(), strict=True):
        for loss, rows in table[table["panel"] == panel].groupby("loss", sort=False):
            ax.plot(rows["x"], rows["location"], marks[str(loss)], color=style.colour(loss), label=style.title(loss))
        ax.set(xlabel=label, ylabel="fitted location")
    axes[0].legend(fontsize=7)
    return fig
