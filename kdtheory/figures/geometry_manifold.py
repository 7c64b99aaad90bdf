"""The multinomial manifold: gradient fields and geodesics on three tokens, Hessian spectra on Zipf teachers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import sympy as sp
from matplotlib.figure import Figure

from kdtheory import simplex
from kdtheory.figures import style
from kdtheory.figures.datasets import computed
from kdtheory.figures.registry import figure

TEACHER = np.array([0.6, 0.3, 0.1])
LOSSES = ("fkl", "rkl", "jsd", "tvd", "skl", "srkl", "chi2", "neyman", "hellinger2", "amari", "renyi", "w1")
_DIVISIONS = 8
_MARGIN = 0.005
_HEIGHT = np.sqrt(3) / 2


def _grid() -> Any:
    """Laws of three tokens on a triangular grid, moved off the boundary by 1/200, shape (N, 3)."""
    counts = [(i, j, _DIVISIONS - i - j) for i in range(_DIVISIONS + 1) for j in range(_DIVISIONS + 1 - i)]
    return (np.array(counts) / _DIVISIONS + _MARGIN) / (1 + 3 * _MARGIN)


@computed("geometry_fields.csv")
def GRADIENT_FIELDS() -> pd.DataFrame:
    """Columns loss, metric ("logits" or "natural"), q1, q2, q3, v1, v2, v3: velocity of q under gradient descent."""
    import kdtheory as kd

    q = _grid()
    line = kd.TokenCost.line(np.array([0.0, 0.5, 1.0]))
    pair = {"teacher_logits": np.broadcast_to(np.log(TEACHER), q.shape), "student_logits": np.log(q)}
    tables = []
    for name in LOSSES:
        loss = kd.divergence(name, cost=line) if name == "w1" else kd.divergence(name)
        euclidean = loss.logit_gradient(**pair)
        natural = simplex.natural_gradient(q, logit_gradient=euclidean)
        for metric, direction in (("logits", euclidean), ("natural", natural)):
            velocity = -q * (direction - (q * direction).sum(-1, keepdims=True))
            columns = {f"q{i + 1}": q[:, i] for i in range(3)} | {f"v{i + 1}": velocity[:, i] for i in range(3)}
            tables.append(pd.DataFrame({"loss": name, "metric": metric} | columns))
    return pd.concat(tables, ignore_index=True)


def _plane(laws: Any) -> tuple[Any, Any]:
    """Corners at (0, 0), (1, 0) and the top, for tokens 1, 2, 3."""
    laws = np.asarray(laws)
    return laws[..., 1] + laws[..., 2] / 2, _HEIGHT * laws[..., 2]


def _triangle(ax: Any, names: bool = False) -> None:
    ax.plot(*_plane(np.eye(3)[[0, 1, 2, 0]]), color="0.6", linewidth=0.6)
    ax.set(aspect="equal", xlim=(-0.06, 1.06), ylim=(-0.06, _HEIGHT + 0.06))
    ax.set_axis_off()
    if names:
        ax.text(0, -0.02, "token 1", ha="right", va="top", fontsize=7)
        ax.text(1, -0.02, "token 2", ha="left", va="top", fontsize=7)
        ax.text(0.5, _HEIGHT + 0.03, "token 3", ha="center", va="bottom", fontsize=7)


@figure(
    GRADIENT_FIELDS,
    claims=("geometry.natural-gradient", "geometry.natural-flow-lines", "geometry.kink"),
)
def geometry_fields(fields: pd.DataFrame) -> Figure:
    """Direction and speed of gradient descent on three tokens for every loss, Euclidean in the logits and natural."""
    fig, axes = style.blank((7.0, 4.5), rows=4, columns=6)
    for number, name in enumerate(LOSSES):
        block, column = divmod(number, 6)
        for row, metric in enumerate(("logits", "natural")):
            ax = axes[2 * block + row, column]
            here = fields[(fields["loss"] == name) & (fields["metric"] == metric)]
            q, v = here[["q1", "q2", "q3"]].to_numpy(), here[["v1", "v2", "v3"]].to_numpy()
            speed = np.linalg.norm(v, axis=1)
            unit = v / np.maximum(speed, 1e-300)[:, None]
            _triangle(ax)
            drawn = ax.quiver(
                *_plane(q), *_plane(unit), np.log10(np.maximum(speed, 1e-5)), cmap="viridis_r", clim=(-3, 0),
                pivot="mid", scale=10, width=0.013, headwidth=3.2, headlength=3.5, headaxislength=3.2,
            )  # fmt: skip
            ax.plot(*_plane(TEACHER), "o", color="#cc0000", markersize=2.5)
            if number == row == 0:
                for corner, (x, y) in enumerate(((-0.1, 0), (1.1, 0), (0.62, _HEIGHT)), 1):
                    ax.text(x, y, str(corner), fontsize=6, ha="center", va="center", color="0.4")
            if row == 0:
                ax.set_title(style.title(name), fontsize=7, color=style.colour(name))
            if column == 0:
                ax.text(-0.16, _HEIGHT / 2, metric, rotation=90, va="center", ha="center", fontsize=7)
    bar = fig.colorbar(drawn, ax=axes, shrink=0.5, pad=0.02, ticks=[-3, -2, -1, 0])
    bar.set_ticklabels(["≤ 10⁻³", "10⁻²", "10⁻¹", "≥ 1"])
    bar.set_label("speed of q (per unit of time)")
    return fig


PAIRS = (((0.9, 0.08, 0.02), (0.03, 0.07, 0.9)), ((0.02, 0.95, 0.03), (0.55, 0.05, 0.4)))
POWERS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
_START, _END = (0.1, 0.88, 0.02), (0.1, 0.02, 0.88)
_TIMES = np.linspace(0, 1, 101)


@computed("geometry_geodesics.csv")
def GEODESICS() -> pd.DataFrame:
    """Columns panel ("geodesics" or "powers"), curve, number, q1, q2, q3."""
    rows = []
    kinds = {"e": simplex.e_geodesic, "Fisher-Rao": simplex.fisher_geodesic, "m": simplex.m_geodesic}
    for number, (first, last) in enumerate(PAIRS):
        rows += [("geodesics", kind, number, *q) for kind, line in kinds.items() for q in line(first, last, _TIMES)]
    for power in POWERS:
        if power == 0:
            path = simplex.e_geodesic(_START, _END, _TIMES)
        else:
            path = (np.outer(1 - _TIMES, np.power(_START, power)) + np.outer(_TIMES, np.power(_END, power))) ** (
                1 / power
            )
            path /= path.sum(-1, keepdims=True)
        rows += [("powers", f"{power:g}", 0, *q) for q in path]
    return pd.DataFrame(rows, columns=["panel", "curve", "number", "q1", "q2", "q3"])


@figure(GEODESICS, claims=("geometry.fisher-rao", "geometry.pythagoras", "geometry.natural-flow-lines"))
def geometry_geodesics(curves: pd.DataFrame) -> Figure:
    """Left: e-, Fisher-Rao and m-geodesics between two pairs of laws. Right: the lines of Amari's natural flows."""
    fig, axes = style.blank(style.DOUBLE_COLUMN, columns=2)
    colours = {"e": style.colour("rkl"), "Fisher-Rao": style.colour("hellinger2"), "m": style.colour("fkl")}
    left = curves[curves["panel"] == "geodesics"]
    for kind, colour in colours.items():
        for number in range(len(PAIRS)):
            rows = left[(left["curve"] == kind) & (left["number"] == number)]
            label = f"{kind}-geodesic" if len(kind) == 1 else f"{kind} geodesic"
            axes[0].plot(*_plane(rows[["q1", "q2", "q3"]]), color=colour, label=label if number == 0 else None)
    for law in np.reshape(PAIRS, (-1, 3)):
        axes[0].plot(*_plane(law), "o", color="0.2", markersize=3)
    right = curves[curves["panel"] == "powers"]
    words = {"0": "reverse KL (e)", "0.5": "Hellinger", "1": "forward KL (m)", "2": "Pearson χ²"}
    shades = ("#cc0000", "#e69138", "#bf9000", "#0b5394", "#000000", "#888888")
    for (power, rows), colour in zip(right.groupby("curve", sort=False), shades, strict=True):
        word = words.get(str(power))
        axes[1].plot(
            *_plane(rows[["q1", "q2", "q3"]]), color=colour, label=f"α = {power}" + (f", {word}" if word else "")
        )
    for end, name, place in ((_START, "start", (0, -0.07)), (_END, "teacher", (0.2, 0))):
        x, y = _plane(end)
        axes[1].plot(x, y, "o", color="0.2", markersize=3)
        axes[1].text(x + place[0], y + place[1], name, ha="center", va="center", fontsize=7)
    for ax, title in zip(axes, ("straight in logits, √q and q", "straight in $q^α$: natural flows"), strict=True):
        _triangle(ax, names=True)
        ax.set_title(title, fontsize=8)
        ax.legend(fontsize=6.5, loc="upper left", bbox_to_anchor=(-0.18, 1.0), frameon=False)
    return fig


ZIPF = 1.2
SIZES = (10, 20, 40, 80, 160, 320)
EPSILONS = (0.3, 1.0, 3.0)
_SHOWN = 160
_PARALLEL = ("chi2", "fkl", "hellinger2")
"""Any smooth f-divergence is a multiple of forward KL here: one above and one below stand for all."""


def _costs(size: int) -> dict[str, Any]:
    """Unit diameter: all tokens equidistant, or evenly on a line in an order that ignores their frequency."""
    places = np.random.default_rng(0).permutation(size) / (size - 1)
    return {"0-1": 1 - np.eye(size), "line": np.abs(places[:, None] - places)}


@computed("geometry_spectra.csv")
def SPECTRA() -> pd.DataFrame:
    """Columns kind (a divergence, or the cost of S_ε), epsilon, V, p_min, rank, value: nonzero eigenvalues, ascending.

    Of the logit Hessian at q = p, p Zipf with exponent 1.2. epsilon is 0 for divergences.
    """
    from kdtheory.claims.geometry import smoothed
    from kdtheory.divergences import RECORDS, derive

    rows = []
    for size in SIZES:
        p = simplex.zipf(size, ZIPF)
        fisher = np.linalg.eigvalsh(np.diag(p) - np.outer(p, p))[1:]
        found = {(name, 0.0): float(sp.sympify(derive.curvature(RECORDS[name]))) * fisher for name in _PARALLEL}
        for cost, matrix in _costs(size).items():
            found |= {(cost, epsilon): smoothed.nonzero_eigenvalues(p, matrix, epsilon) for epsilon in EPSILONS}
        for (kind, epsilon), values in found.items():
            rows += [(kind, epsilon, size, p[-1], rank, value) for rank, value in enumerate(values, 1)]
    return pd.DataFrame(rows, columns=["kind", "epsilon", "V", "p_min", "rank", "value"])


_SHADES = {"0-1": ("#b6d7a8", "#6aa84f", "#274e13"), "line": ("#f9cb9c", "#e69138", "#783f04")}


@figure(SPECTRA, claims=("geometry.fisher-spectrum", "geometry.sinkhorn-hessian", "geometry.sinkhorn-tail"))
def geometry_spectra(spectra: pd.DataFrame) -> Figure:
    """Logit Hessian at q = p on Zipf teachers: its spectrum at V = 160, and its least eigenvalue against p_min."""
    fig, axes = style.blank((7.0, 3.4), columns=2)
    kinds = [(str(kind), float(epsilon)) for kind, epsilon in spectra[["kind", "epsilon"]].drop_duplicates().to_numpy()]
    for kind, epsilon in kinds:
        rows = spectra[(spectra["kind"] == kind) & (spectra["epsilon"] == epsilon)]
        smooth = kind in _PARALLEL
        colour = style.colour(kind) if smooth else _SHADES[kind][EPSILONS.index(epsilon)]
        label = style.title(kind) if smooth else f"$S_ε$, {kind} cost, ε = {epsilon:g}"
        shown = rows[rows["V"] == _SHOWN].sort_values("rank", ascending=False)
        axes[0].plot(np.arange(1, _SHOWN), shown["value"], color=colour, label=label)
        least = rows[rows["rank"] == 1]
        axes[1].plot(least["p_min"], least["value"], "o-", color=colour, markersize=2.5, label=label)
    p = simplex.zipf(_SHOWN, ZIPF)
    for power, word in ((1, "p"), (2, "p²")):
        axes[0].plot(np.arange(1, _SHOWN), p[1:] ** power, ":", color="0.4", linewidth=0.8, label="_")
        axes[0].text(_SHOWN * 1.1, p[-1] ** power, word, fontsize=7, color="0.4", va="center")
    ends = np.array([spectra["p_min"].min(), spectra["p_min"].max()])
    axes[1].plot(ends, ends**2, ":", color="0.4", linewidth=0.8, label="_")
    logs = {"xscale": "log", "yscale": "log"}
    axes[0].set(xlabel="rank of the eigenvalue", ylabel="eigenvalue of the logit Hessian at q = p", **logs)
    axes[1].set(xlabel="least probability of the teacher, p", ylabel="least nonzero eigenvalue", **logs)
    axes[0].set_title(f"Zipf teacher, V = {_SHOWN}", fontsize=8)
    axes[1].set_title(f"V = {SIZES[0]} to {SIZES[-1]}", fontsize=8)
    axes[0].legend(fontsize=6, loc="lower left")
    axes[1].text(ends[0] * 1.3, (ends[0] * 1.3) ** 2 * 0.5, "p²", fontsize=7, color="0.4", va="top")
    return fig
