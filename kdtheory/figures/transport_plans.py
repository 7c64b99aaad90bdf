"""One teacher and one student over ordered tokens: plans, potentials and their slopes, the rigorous interval."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from kdtheory.figures import style
from kdtheory.figures.datasets import computed
from kdtheory.figures.registry import figure

TOKENS = np.arange(16.0)
"""Ordered tokens, one step apart: all costs, values, potentials and ε are in steps."""
EPSILONS = (0.3, 1.0, 5.0)
FORMS = ("full", "reduced")
FUNCTIONALS = ("relative", "divergence", "sharp", "entropic")
SPREAD = 2.0
"""ε at which the slopes of the four functionals are compared."""
DISTANCES = np.abs(np.subtract.outer(TOKENS, TOKENS))
_DUST = 1e-8
"""Entries of a plan below this are stored as 0: some are the rounding of a difference that is 0."""
_COLOURS = {"sharp": "#0b5394", "entropic": "#cc0000", "relative": "#6a329f", "divergence": "#6aa84f"}
_TIGHT, _TRAINING = 1e-12, 1e-5
"""Marginal errors: of what is drawn, so that it is the same on every machine, and of the sweeps that are counted."""
_TEACHER, _STUDENT, _EXACT = "#434343", "#3d85c6", "#000000"
_SHADES = ("#b4a7d6", "#8e7cc3", "#6a329f")
_LEAST, _MOST = 1e-4, 0.2


def _peak(centre: float, width: float) -> Any:
    heights = np.exp(-((TOKENS - centre) ** 2) / (2 * width**2))
    return heights / heights.sum()


TEACHER = 0.7 * _peak(4, 1.5) + 0.3 * _peak(11, 1.2)
"""Two peaks; the student has one, between them, and a floor of 4 %."""
STUDENT = 0.96 * _peak(7.5, 2.5) + 0.04 / TOKENS.size


def _cost() -> Any:
    from kdtheory.transport import TokenCost

    return TokenCost.line(TOKENS)


def _monotone(p: Any, q: Any) -> Any:
    """The optimal plan that keeps the order of the tokens: overlap of the intervals of either distribution function."""
    above, left = np.cumsum(p), np.cumsum(q)
    overlap = np.minimum.outer(above, left) - np.maximum.outer(above - p, left - q)
    return np.where(overlap > _DUST, overlap, 0)


def _plan(form: str, epsilon: float) -> Any:
    """Plan (V, V) between teacher and student; ε = 0: exact. Reduced: the common mass on the diagonal."""
    from kdtheory.transport import sinkhorn

    common = np.minimum(TEACHER, STUDENT)
    a, b = (TEACHER, STUDENT) if form == "full" else (TEACHER - common, STUDENT - common)
    stays = np.diag(np.zeros_like(common) if form == "full" else common)
    if epsilon == 0:
        return stays + _monotone(a, b)
    found = sinkhorn(TEACHER, STUDENT, _cost(), epsilon, form=form, tol=_TIGHT).potentials
    density = np.exp((found.f[:, None] + found.g - DISTANCES) / epsilon)
    plan = stays + np.outer(a, b / b.sum()) * density
    return np.where(plan > _DUST, plan, 0)


@computed("transport_plans.csv")
def PLANS() -> pd.DataFrame:
    """Columns form, epsilon (0: exact), i (teacher's token), j (student's), mass."""
    i, j = (index.ravel() for index in np.indices((TOKENS.size, TOKENS.size)))
    return pd.concat(
        pd.DataFrame({"form": form, "epsilon": epsilon, "i": i, "j": j, "mass": _plan(form, epsilon).ravel()})
        for form in FORMS
        for epsilon in (0.0, *EPSILONS)
    )


def _bars(ax: Any, law: Any, common: Any, colour: str, *, across: bool) -> None:
    """A law beside the plans: common mass pale, the rest in full colour."""
    draw = ax.barh if across else ax.bar
    draw(TOKENS, common, 0.85, color=colour, alpha=0.35, linewidth=0)
    draw(TOKENS, law - common, 0.85, common, color=colour, linewidth=0)
    ax.grid(visible=False)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)


@figure(PLANS, claims=("transport.linear-programme", "transport.reduction", "transport.entropic-limits"))
def transport_plans(table: pd.DataFrame) -> Figure:
    """Plans between teacher (rows) and student (columns) on a line, full and reduced form; pale bars: shared mass."""
    shape = {"width_ratios": (0.28, 1, 1, 1, 1), "height_ratios": (0.25, 1, 1)}
    fig, axes = style.blank((7.0, 4.1), rows=3, columns=5, **shape)
    plans = {
        key: rows.pivot_table(index="i", columns="j", values="mass") for key, rows in table.groupby(["form", "epsilon"])
    }
    exact = plans["full", 0.0].to_numpy()
    p, q = exact.sum(1), exact.sum(0)
    common = np.minimum(p, q)
    colours = mpl.colormaps["Greens"].with_extremes(under="white", bad="white")
    axes[0, 0].axis("off")
    image: Any = None
    for row, form in zip(axes[1:], FORMS, strict=True):
        _bars(row[0], p, common, _TEACHER, across=True)
        row[0].set(ylim=(TOKENS.size - 0.5, -0.5), ylabel=f"{form} form\nteacher's token")
        row[0].invert_xaxis()
        for ax, epsilon in zip(row[1:], (0.0, *EPSILONS), strict=True):
            plan = plans[form, epsilon].to_numpy()
            image = ax.imshow(plan, cmap=colours, norm=LogNorm(_LEAST, _MOST), aspect="auto")
            price = f"cost {(plan * DISTANCES).sum():.2f} steps"
            ax.set_title(f"ε = {epsilon:g}: {price}" if epsilon else f"exact: {price}", fontsize=7.5)
            ax.grid(visible=False)
            ax.set(xticks=[], yticks=[])
    for ax in axes[0, 1:]:
        _bars(ax, q, common, _STUDENT, across=False)
        ax.set(xlim=(-0.5, TOKENS.size - 0.5))
        ax.set_title("student's token", fontsize=7)
    fig.colorbar(image, ax=axes[1:, -1], label="mass", extend="min", aspect=30)
    return fig


def _slopes(functional: str, epsilon: float) -> Any:
    """Gradient of the functional in the student's logits, (V,)."""
    import torch

    from kdtheory.transport import sinkhorn

    logits = torch.from_numpy(np.log(STUDENT)).requires_grad_()
    teacher, student = torch.from_numpy(TEACHER), torch.softmax(logits, 0)
    value = sinkhorn(teacher, student, _cost(), epsilon, functional=functional, tol=_TIGHT).value
    return torch.autograd.grad(value, logits)[0].numpy()


@computed("transport_potentials.csv")
def POTENTIALS() -> pd.DataFrame:
    """Columns curve (exact, relative …), epsilon (0: exact), token, potential (Σ q g = 0), slope in the logit."""
    from kdtheory.transport import sinkhorn, w1

    def rows(curve: str, epsilon: float, potential: Any, slope: Any) -> pd.DataFrame:
        numbers = {"token": TOKENS, "potential": potential, "slope": slope}
        return pd.DataFrame({"curve": curve, "epsilon": epsilon, **numbers})

    g = w1(TEACHER, STUDENT, _cost()).potentials.g
    g = g - STUDENT @ g
    tables = [rows("exact", 0.0, g, STUDENT * g)]
    for epsilon in EPSILONS:
        g = sinkhorn(TEACHER, STUDENT, _cost(), epsilon, tol=_TIGHT).potentials.g
        tables.append(rows("relative", epsilon, g - STUDENT @ g, _slopes("relative", epsilon)))
    for name in FUNCTIONALS:
        slope = _slopes(name, SPREAD)
        tables.append(rows(name, SPREAD, slope / STUDENT, slope))
    return pd.concat(tables)


@figure(POTENTIALS, claims=("transport.potentials-are-slopes", "transport.functional-gradients"))
def transport_potentials(table: pd.DataFrame) -> Figure:
    """The laws, the student's potentials, and the logit gradients they give; last: four functionals at one ε."""
    fig, ((laws, potentials), (slopes, functionals)) = style.blank(style.GRID, rows=2, columns=2, sharex=True)
    laws.bar(TOKENS - 0.2, TEACHER, 0.4, color=_TEACHER, label="teacher")
    laws.bar(TOKENS + 0.2, STUDENT, 0.4, color=_STUDENT, label="student")
    laws.set(ylabel="probability", title="laws", axisbelow=True)
    exact = table[table["curve"] == "exact"]
    for ax, column in ((potentials, "potential"), (slopes, "slope"), (functionals, "slope")):
        ax.plot(exact["token"], exact[column], color=_EXACT, marker="o", markersize=2.5, label="$W_1$, exact")
        ax.axhline(0, color="0.6", linewidth=0.6)
    relative = table[(table["curve"] == "relative") & (table["epsilon"] != SPREAD)]
    for (epsilon, rows), shade in zip(relative.groupby("epsilon"), _SHADES[::-1], strict=True):
        for ax, column in ((potentials, "potential"), (slopes, "slope")):
            ax.plot(rows["token"], rows[column], color=shade, label=f"relative, ε = {epsilon:g}")
    for name, rows in table[table["epsilon"] == SPREAD].groupby("curve", sort=False):
        functionals.plot(rows["token"], rows["slope"], color=_COLOURS[str(name)], label=str(name))
    potentials.set(ylabel="potential g (steps), Σ q g = 0", title="student's potential")
    slopes.set(ylabel="slope (steps per nat)", title="gradient in the student's logits, q (g − Σ q g)")
    functionals.set(ylabel="slope (steps per nat)", title=f"the same for four functionals, ε = {SPREAD:g}")
    for ax in (laws, potentials, slopes, functionals):
        ax.legend(fontsize=6.5)
    for ax in (slopes, functionals):
        ax.set_xlabel("token (steps)")
    return fig


GRID = np.geomspace(0.05, 20, 40)


@computed("transport_interval.csv")
def INTERVAL() -> pd.DataFrame:
    """Columns form, functional, epsilon, value, lower, upper, sweeps (to a marginal error of 1e-5); exact W1: ε = 0."""
    from kdtheory.transport import sinkhorn, w1

    value = float(w1(TEACHER, STUDENT, _cost()).value)
    rows: list[tuple[Any, ...]] = [("full", "exact", 0.0, value, value, value, 0)]
    for form, names in (("full", FUNCTIONALS), ("reduced", ("relative", "sharp"))):
        for epsilon in GRID:
            sweeps = int(sinkhorn(TEACHER, STUDENT, _cost(), epsilon, form=form, tol=_TRAINING).iterations)
            for name in names:
                found = sinkhorn(TEACHER, STUDENT, _cost(), epsilon, functional=name, form=form, tol=_TIGHT)
                numbers = [float(x) for x in (found.value, found.lower, found.upper)]
                rows.append((form, name, epsilon, *numbers, sweeps))
    return pd.DataFrame(rows, columns=["form", "functional", "epsilon", "value", "lower", "upper", "sweeps"])


@figure(INTERVAL, claims=("transport.bias-bounds", "transport.epsilon-path", "transport.plan-repair"))
def transport_interval(table: pd.DataFrame) -> Figure:
    """Interval around W1 and the functionals against ε, full and reduced form; right: sweeps to a marginal error."""
    fig, (full, reduced, sweeps) = style.blank(style.DOUBLE_COLUMN, columns=3)
    exact = table.loc[table["functional"] == "exact", "value"].iloc[0]
    for ax, form in ((full, "full"), (reduced, "reduced")):
        chosen = table[(table["form"] == form) & (table["functional"] != "exact")]
        band = chosen[chosen["functional"] == "relative"]
        look = {"color": "0.87", "linewidth": 0, "label": "[lower, upper]"}
        ax.fill_between(band["epsilon"], band["lower"], band["upper"], **look)
        ax.axhline(exact, color=_EXACT, linestyle=":", linewidth=1, label="$W_1$")
        for name, rows in chosen.groupby("functional", sort=False):
            ax.plot(rows["epsilon"], rows["value"], color=_COLOURS[str(name)], label=str(name))
        ax.set(xscale="log", xlabel="ε (steps)", title=f"{form} form", ylim=(-0.6, 4), xlim=(GRID[0], GRID[-1]))
        line = "-" if form == "full" else "--"
        sweeps.plot(band["epsilon"], band["sweeps"], line, color=_COLOURS["relative"], label=f"{form} form")
    full.set_ylabel("value (steps)")
    reduced.set_yticklabels([])
    full.legend(fontsize=6.5)
    sweeps.set(xscale="log", yscale="log", xlabel="ε (steps)", ylabel="sweeps", xlim=(GRID[0], GRID[-1]))
    sweeps.set_title("sweeps to a marginal error of $10^{-5}$")
    sweeps.set_yticks((5, 10, 20, 50, 100, 200), ("5", "10", "20", "50", "100", "200"))
    sweeps.minorticks_off()
    sweeps.legend(fontsize=6.5)
    return fig
