"""Mean- and mode-seeking in pictures: eight Gaussian fits, the log-linear family, the critical half-distance."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdtheory.figures import style
from kdtheory.figures.datasets import computed
from kdtheory.figures.registry import figure

_NAMES = {"skl": "skew KL, α = 0.1", "srkl": "skew reverse KL, α = 0.1", "w2": "Wasserstein-2"}
_TEACHER = "0.75"


def _title(loss: str) -> str:
    return _NAMES.get(loss, style.title(loss))


@computed("modes_gaussian_fits.csv")
def GAUSSIAN_FITS() -> pd.DataFrame:
    """Columns loss, width ("free" or "1"), mu, sigma, value, void: the best Gaussian for .6 N(-4, 1) + .4 N(4, 1)."""
    from kdtheory.claims.modes import fits

    rows = [
        {"loss": loss, "width": "free" if width is None else "1", **fits.fit(loss, width=width)}
        for width in (None, 1.0)
        for loss in fits.LOSSES
    ]
    return pd.DataFrame(rows).round(4)  # what two quadratures and any processor agree on


@figure(GAUSSIAN_FITS, claims=("modes.gaussian-fit", "modes.void-mass", "modes.location-fits"))
def modes_gaussian_fits(found: pd.DataFrame) -> Figure:
    """One Gaussian for a mixture of two, by eight losses: free width (line), width 1 (dashed); the void, |x| < 1.5."""
    from kdtheory.claims.modes import fits

    x = np.linspace(-12, 12, 601)
    teacher = fits.Mixture()
    fig, axes = style.blank((7.0, 4.2), rows=2, columns=4, sharex=True, sharey=True)
    for ax, (loss, rows) in zip(axes.flat, found.groupby("loss", sort=False), strict=True):
        ax.fill_between(x, teacher.density(x), color=_TEACHER, linewidth=0)
        ax.axvspan(-fits.VOID, fits.VOID, color="0.93", zorder=0, linewidth=0)
        for width, mu, sigma in zip(rows["width"], rows["mu"], rows["sigma"], strict=True):
            free = width == "free"
            colour = style.colour("w1" if loss == "w2" else loss)
            ax.plot(x, fits.normal(x, mu, sigma), "-" if free else "--", color=colour, linewidth=1.2)
        best = rows[rows["width"] == "free"].iloc[0]
        ax.set_title(_title(str(loss)), fontsize=7.5)
        text = f"μ = {best.mu:.2f}\nσ = {best.sigma:.2f}\nvoid {best.void:.3f}"
        ax.text(0.97, 0.95, text, transform=ax.transAxes, fontsize=6.5, ha="right", va="top")
    for ax in axes[:, 0]:
        ax.set_ylabel("density")
    for ax in axes[-1]:
        ax.set_xlabel("x")
    axes[0, 0].text(0.03, 0.95, "dashed:\nσ = 1\nband: void", transform=axes[0, 0].transAxes, fontsize=6.5, va="top")
    axes[0, 0].set(xlim=(-12, 12), ylim=(0, 0.46))
    return fig


_LINEAR = ("fkl", "rkl", "jsd", "hellinger2", "tvd", "w1")


@computed("modes_log_linear.csv")
def LOG_LINEAR() -> pd.DataFrame:
    """Columns loss, t, value: each loss of q_t ∝ (e^t, 1, e^-t) for (.495, .01, .495); W1 with tokens at 0, 1, 2."""
    import kdtheory as kd
    from kdtheory.claims.modes import log_linear

    best = np.array(list(log_linear.OPTIMA.values()))
    t = np.unique(np.concatenate([np.round(np.linspace(-6, 6, 481), 6), best, -best]))
    q = kd.simplex.softmax(np.stack([t, 0 * t, -t], axis=-1))
    p = np.broadcast_to([0.495, 0.01, 0.495], q.shape)
    line = kd.divergence("w1", cost=kd.TokenCost.line(np.arange(3.0)))
    tables = []
    for name in _LINEAR:
        loss = line if name == "w1" else kd.divergence(name)
        tables.append(pd.DataFrame({"loss": name, "t": t, "value": np.asarray(loss.value(p, q))}))
    return pd.concat(tables, ignore_index=True)


@figure(LOG_LINEAR, claims=("modes.log-linear", "modes.log-linear-threshold"))
def modes_log_linear(values: pd.DataFrame) -> Figure:
    """Each loss against the parameter t of the log-linear student, as a multiple of its least value; minima marked."""
    fig, axes = style.blank(style.DOUBLE_COLUMN, columns=2, sharey=True)
    for ax, names in zip(axes, (("fkl", "jsd", "hellinger2"), ("rkl", "tvd", "w1")), strict=True):
        for name in names:
            rows = values[values["loss"] == name]
            least = rows["value"].min()
            line = "--" if name == "w1" else "-"  # between its minima W1 is a multiple of total variation
            ax.plot(rows["t"], rows["value"] / least, line, color=style.colour(name), label=style.title(name))
            best = rows[rows["value"] <= least * (1 + 1e-7)]
            ax.plot(best["t"], best["value"] / least, "o", markersize=4, color=style.colour(name))
        ax.set(xlabel="t in q ∝ (eᵗ, 1, e⁻ᵗ)", xlim=(-6, 6), ylim=(0.9, 3))
    axes[0].legend(fontsize=6.5, loc="lower right")
    axes[1].legend(fontsize=6.5, loc="upper right")
    axes[0].set_ylabel("loss / its least value")
    return fig


@computed("modes_critical_distance.csv")
def CRITICAL() -> pd.DataFrame:
    """Columns width ("free" or "1"), m, mu, sigma: reverse KL's best Gaussian for two equal unit Gaussians at ±m."""
    from kdtheory.claims.modes import separation

    rows = []
    for width in (None, 1.0):
        for m in np.round(np.concatenate([np.arange(0.2, 4.01, 0.1), [2.795, 2.805]]), 3):
            mu, sigma, _ = separation.optimum(float(m), width)
            rows.append(
                {"width": "free" if width is None else "1", "m": m, "mu": mu if mu > 1e-3 else 0.0, "sigma": sigma}
            )
    return pd.DataFrame(rows).round(4).sort_values(["width", "m"], ignore_index=True)


@figure(CRITICAL, claims=("modes.rkl-one-peak", "modes.rkl-fixed-width", "modes.mixture-conditions"))
def modes_critical_distance(optima: pd.DataFrame) -> Figure:
    """Reverse KL's best Gaussian for two equal unit Gaussians against their half-distance, width free or fixed."""
    fig, ax = style.blank(style.SINGLE_COLUMN)
    free, fixed = (optima[optima["width"] == width] for width in ("free", "1"))
    ax.plot(free["m"], free["m"], ":", color="0.6", linewidth=0.8)
    ax.plot(fixed["m"], fixed["mu"], "--", color=style.colour("srkl"))
    for rows in (free[free["m"] < 2.8], free[free["m"] > 2.8]):
        ax.plot(rows["m"], rows["mu"], color=style.colour("rkl"))
        ax.plot(rows["m"], rows["sigma"], color=style.colour("w1"))
    ax.axvline(2.8, color="0.8", linewidth=0.6)
    words = (
        (0.95, 1.6, "σ, free width", style.colour("w1"), "right"),
        (3.95, 1.1, "σ, free width", style.colour("w1"), "right"),
        (2.72, 0.12, "|μ|, free width", style.colour("rkl"), "right"),
        (1.72, 1.0, "|μ|, width 1", style.colour("srkl"), "left"),
        (0.75, 0.5, "modes at ±m", "0.4", "left"),
    )
    for x, y, text, colour, side in words:
        ax.text(x, y, text, color=colour, fontsize=6.5, ha=side)
    ax.set(xlabel="half-distance of the two modes, m", ylabel="reverse KL's optimum", xlim=(0, 4), ylim=(-0.05, 4))
    return fig
