"""Regularised transport: three values and their favourite students, the flow with and without debiasing, the signs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdtheory.claims.transport import flow, minimisers, regularised
from kdtheory.figures import style
from kdtheory.figures.datasets import computed
from kdtheory.figures.registry import figure

POINTS = 40
"""Points of either cloud, equal weights."""
SMOOTHING = 0.3
"""ε of the flow, for the cost |x − y|²/2."""
STAGES = (0, 2, 5, 12, 60)
"""Euler steps of length 1/4 after which the clouds are drawn."""
FLOWS = {"debiased": 1.0, "plain": 0.0}
_TARGET, _SOURCE, _PLAIN = "#6aa84f", "#0b5394", "#cc0000"
_COLOURS = {"sharp": "#0b5394", "entropic": "#cc0000", "relative": "#6a329f", "divergence": "#6aa84f"}


def _clouds() -> tuple[Any, Any]:
    """Target: an arc of radius 1. Source: a sunflower disc of radius 0.5 to its left. No randomness."""
    angle = np.linspace(-0.75 * np.pi, 0.75 * np.pi, POINTS)
    target = np.column_stack([np.cos(angle), np.sin(angle)])
    count = np.arange(POINTS) + 0.5
    radius, turn = 0.5 * np.sqrt(count / POINTS), np.pi * (1 + np.sqrt(5)) * count
    return target, np.column_stack([radius * np.cos(turn) - 2.2, radius * np.sin(turn)])


@computed("transport_flow.csv")
def FLOW() -> pd.DataFrame:
    """Columns flow (target, debiased, plain), stage, steps, x, y, loss: S_ε at the stage."""
    target, source = _clouds()
    tables = [
        pd.DataFrame({"flow": "target", "stage": 0, "steps": 0, "x": target[:, 0], "y": target[:, 1], "loss": 0.0})
    ]
    for name, own in FLOWS.items():
        found = flow.stages(target, source, SMOOTHING, step=0.25, counts=STAGES, own=own)
        for stage, (steps, (points, loss)) in enumerate(zip(STAGES, found, strict=True)):
            row = {"flow": name, "stage": stage, "steps": steps, "x": points[:, 0], "y": points[:, 1], "loss": loss}
            tables.append(pd.DataFrame(row))
    return pd.concat(tables, ignore_index=True)


@figure(FLOW, claims=("transport.sinkhorn-flow", "transport.plain-flow-shrinks"))
def transport_flow(table: pd.DataFrame) -> Figure:
    """From source to target along the debiased flow (above) and the plain one (below), with S_ε at five stages."""
    fig, axes = style.blank((7.0, 2.35), rows=2, columns=len(STAGES), sharex=True, sharey=True)
    target = table[table["flow"] == "target"]
    for row, (name, colour) in zip(axes, (("debiased", _SOURCE), ("plain", _PLAIN)), strict=True):
        for ax, (_, cloud) in zip(row, table[table["flow"] == name].groupby("stage"), strict=True):
            ax.scatter(target["x"], target["y"], s=5, color=_TARGET, alpha=0.6, linewidths=0)
            ax.scatter(cloud["x"], cloud["y"], s=5, color=colour, linewidths=0)
            ax.set_title(f"$S_\\varepsilon$ = {cloud['loss'].iloc[0]:.2g}", fontsize=7.5)
            ax.set(xticks=[], yticks=[], aspect="equal", xlim=(-2.9, 1.3), ylim=(-1.3, 1.3))
            if name == "plain":
                ax.set_xlabel(f"{cloud['steps'].iloc[0]} steps", fontsize=7.5)
        row[0].set_ylabel({"debiased": "flow of $S_\\varepsilon$", "plain": "flow of $OT_\\varepsilon$"}[name])
    return fig


TEACHER = np.array([0.45, 0.3, 0.25])
STUDENT = np.array([0.2, 0.3, 0.5])
LINE = np.abs(np.subtract.outer(np.arange(3.0), np.arange(3.0)))
EPSILONS = np.geomspace(0.25, 10, 27)


def _sharp_student(epsilon: float, start: Any) -> Any:
    """Minimiser of ⟨Γ, C⟩ over q: a search without gradients in the logits, from `start`."""
    from scipy.optimize import minimize

    def value(z: Any) -> float:
        weights = np.exp(np.append(z, 0.0) - max(z.max(), 0))
        return regularised.solve(TEACHER, weights / weights.sum(), LINE, epsilon).sharp

    z = np.log(start[:-1] / start[-1])
    found = minimize(value, z, method="Nelder-Mead", bounds=[(-12, 12)] * 2, options={"xatol": 1e-6, "fatol": 1e-13})
    weights = np.exp(np.append(found.x, 0.0) - max(found.x.max(), 0))
    return weights / weights.sum()


@computed("transport_functionals.csv")
def FUNCTIONALS() -> pd.DataFrame:
    """Columns quantity (value, student), functional, epsilon, token, number: values at (p, q), favourite students."""
    rows, sharp = [], TEACHER
    for epsilon in EPSILONS:
        found = regularised.solve(TEACHER, STUDENT, LINE, epsilon)
        values = {name: getattr(found, name) for name in ("relative", "sharp", "entropic")}
        values["divergence"] = regularised.debiased("relative", TEACHER, STUDENT, LINE, epsilon)
        rows += [("value", name, epsilon, -1, value) for name, value in values.items()]
        sharp = _sharp_student(epsilon, np.clip(sharp, 1e-4, None))
        students = {
            "entropic": minimisers.softmin_law(TEACHER, LINE, epsilon),
            "relative": minimisers.codebook_law(TEACHER, LINE, epsilon),
            "sharp": sharp,
        }
        rows += [
            ("student", name, epsilon, j, np.round(x, 4)) for name, law in students.items() for j, x in enumerate(law)
        ]
    return pd.DataFrame(rows, columns=["quantity", "functional", "epsilon", "token", "number"])


@figure(
    FUNCTIONALS, claims=("transport.three-functionals", "transport.functional-minimisers", "transport.debiased-limits")
)
def transport_functionals(table: pd.DataFrame) -> Figure:
    """Tokens at 0, 1, 2, teacher (.45, .3, .25): values at the student (.2, .3, .5), and each value's best student."""
    fig, axes = style.blank((7.0, 2.7), columns=4, width_ratios=(1.5, 1, 1, 1))
    values = table[table["quantity"] == "value"]
    for name, rows in values.groupby("functional", sort=False):
        axes[0].plot(rows["epsilon"], rows["number"], color=_COLOURS[str(name)], label=str(name))
    axes[0].axhline(
        np.abs(np.cumsum(TEACHER - STUDENT)).sum(), color="0.4", linestyle=":", linewidth=0.8, label="$W_1$"
    )
    axes[0].set(xscale="log", xlabel="ε", ylabel="value", ylim=(-1.2, 1.1))
    axes[0].legend(fontsize=6.5, loc="lower right")
    edges = np.cumsum(TEACHER)[:-1]
    for ax, name in zip(axes[1:], ("entropic", "relative", "sharp"), strict=True):
        chosen = table[(table["quantity"] == "student") & (table["functional"] == name)]
        shares = chosen.pivot_table(index="epsilon", columns="token", values="number")
        ax.stackplot(shares.index, shares.to_numpy().T, colors=("#9fc5e8", "#6fa8dc", "#3d85c6"), linewidth=0)
        for edge in edges:
            ax.axhline(edge, color="black", linestyle=":", linewidth=0.8)
        ax.grid(visible=False)
        ax.set(xscale="log", xlabel="ε", title=f"{name} student", ylim=(0, 1), xlim=(EPSILONS[0], EPSILONS[-1]))
    axes[1].set_ylabel("probability (teacher: dotted)")
    for ax in axes[2:]:
        ax.set_yticklabels([])
    return fig


PLACES = np.array([0.0, 3.0, 4.0])
RARE = (np.array([9995.0, 4.0, 1.0]) / 10_000, np.array([9995.0, 1.0, 4.0]) / 10_000)
RATES = np.linspace(0.02, 1, 50)


@computed("transport_debiased_negative.csv")
def SIGNS() -> pd.DataFrame:
    """Columns panel (graph, line), x (ε, λ), divergence, sharp: S_ε and the debiased sharp value; line: λ S and D."""
    rows = []
    for epsilon in np.geomspace(0.5, 20, 60):
        x = np.exp(-2 / epsilon)
        divergence = epsilon / 2 * np.log((1 + x) * (1 + 2 * x) / (6 * x))
        rows.append(("graph", epsilon, divergence, 1 - x / (1 + x) - 2 * x / (1 + 2 * x)))
    cost = np.subtract.outer(PLACES, PLACES) ** 2
    for rate in RATES:
        found = {name: regularised.debiased(name, *RARE, cost, 1 / rate) for name in ("relative", "sharp")}
        rows.append(("line", rate, rate * found["relative"], found["sharp"]))
    return pd.DataFrame(rows, columns=["panel", "x", "divergence", "sharp"])


@figure(
    SIGNS, claims=("transport.debiased-positivity", "transport.sharp-debiased-negative", "transport.debiased-values")
)
def transport_debiased_negative(table: pd.DataFrame) -> Figure:
    """Left: debiased values on the graph K(2,3). Right: three tokens on a line, squared cost: λ S falls where D < 0."""
    fig, (left, right) = style.blank((7.0, 2.8), columns=2)
    graph, line = (table[table["panel"] == name] for name in ("graph", "line"))
    left.plot(graph["x"], graph["divergence"], color=_COLOURS["divergence"], label="$S_\\varepsilon$")
    left.plot(graph["x"], graph["sharp"], color=_COLOURS["sharp"], label="debiased sharp value")
    left.axvline(2 / np.log(2), color="0.4", linestyle=":", linewidth=0.8, label="ε = 2 / log 2")
    left.set(xscale="log", xlabel="ε", ylabel="debiased value", title="shortest paths on $K_{2,3}$", ylim=(-0.25, 1.05))
    right.plot(line["x"], 1e4 * line["divergence"], color=_COLOURS["divergence"], label="$\\lambda\\, S_{1/\\lambda}$")
    right.plot(line["x"], 1e4 * line["sharp"], color=_COLOURS["sharp"], label="its slope, debiased sharp")
    right.set(xlabel="λ = 1/ε", ylabel="$10^{-4}$", title="tokens at 0, 3, 4, squared distance")
    for ax in (left, right):
        ax.axhline(0, color="black", linewidth=0.6)
        ax.legend(fontsize=7)
    return fig
