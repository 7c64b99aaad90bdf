"""What other libraries compute: errors of values and gradients, tokens without mass, and how long it takes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdtheory.figures import style
from kdtheory.figures.datasets import Dataset, read_csv
from kdtheory.figures.registry import figure, table

PEERS = Dataset("transport_peers.csv", read_csv)
"""Stored by ``python -m tests.benchmarks --peers``."""
BENCH = Dataset("transport_bench.csv", read_csv)
"""Stored by ``python -m tests.benchmarks --store``."""
GROWTH = Dataset("transport_growth.csv", read_csv)
"""Stored by the same command."""
WORST = Dataset("transport_worst.csv", read_csv)
"""Stored by ``python -m tests.benchmarks --worst``."""
_SHADES = {"POT": "tab:blue", "geomloss": "tab:orange", "OTT-JAX": "tab:green", "kdtheory": "black"}
_FLOOR = 1e-12  # left end of the axis
_NAMES = {
    "sinkhorn, full, to 1e-5": "Sinkhorn, L1 marginals to 1e-5",
    "sinkhorn, reduced, to 1e-5": "Sinkhorn, reduced, L1 marginals to 1e-5",
    "sinkhorn, per iteration": "Sinkhorn, one iteration",
}


def _label(row: pd.Series) -> str:
    return f"{row['call']} ({row['derivative']})"


@figure(PEERS)
def transport_peers(peers: pd.DataFrame) -> Figure:
    """Error of the gradient in q of every library's transport, 12 tokens, ε = 0.05; hollow: not finite at no mass."""
    fig, ax = style.blank((7.0, 0.17 * len(peers) + 0.8))
    for height, (_, row) in enumerate(peers.iterrows()):
        colour, error = _SHADES[row["library"]], row["gradient_error"]
        usable = row["zero_gradient"] == "finite"
        if np.isnan(error):
            ax.text(_FLOOR * 1.5, height, "no gradient", va="center", fontsize=6, color=colour)
            continue
        ax.plot(max(error, _FLOOR), height, "o", color=colour, markerfacecolor=colour if usable else "white")
    for library, rows in peers.groupby("library", sort=False):
        ax.plot([], [], "o", color=_SHADES[str(library)], label=f"{library} {rows['version'].iloc[0]}")
    ax.set_yticks(range(len(peers)), [_label(row) for _, row in peers.iterrows()], fontsize=6)
    ax.set(xscale="log", xlim=(_FLOOR, 4), xlabel="relative error of the gradient along the simplex")
    ax.set_ylim(len(peers) - 0.4, -0.6)
    fig.legend(loc="outside lower center", ncols=4, fontsize=7)
    return fig


@table(PEERS)
def transport_peers_table(peers: pd.DataFrame) -> pd.DataFrame:
    """Errors of value and gradient against the functional documented, 12 tokens, ε = 0.05; then with zero masses."""
    return pd.DataFrame(
        {
            "call": peers["library"] + ": " + peers["call"],
            "functional": peers["functional"],
            "gradient from": peers["derivative"],
            "value": peers["value_error"].map(_size),
            "gradient": peers["gradient_error"].map(_size),
            "zeros: value": peers["zero_value_error"].map(_size),
            "zeros: marginals": peers["zero_marginal_error"].map(_size),
            "zeros: gradient": [_zeros(row) for _, row in peers.iterrows()],
        }
    )


def _size(error: float) -> str:
    if np.isnan(error):
        return "–"
    return "not finite" if np.isinf(error) else f"{error:.1e}"


def _three(x: float) -> str:
    """Three digits, never an exponent."""
    return "–" if np.isnan(x) else (f"{x:.0f}" if x >= 100 else f"{x:.3g}")


def _zeros(row: pd.Series) -> str:
    """Error on the student's support, and whether the rest is finite."""
    if row["zero_gradient"] in ("none", "not finite"):
        return row["zero_gradient"]
    error = _size(row["zero_gradient_error"])
    return error if row["zero_gradient"] == "finite" else f"{error} on the support, not finite elsewhere"


@table(BENCH)
def transport_bench_table(bench: pd.DataFrame) -> pd.DataFrame:
    """Time of a batch beside its peer's, interleaved in one process on one thread."""
    return pd.DataFrame(
        {
            "quantity": [_NAMES.get(case, case) for case in bench["case"]],
            "rows": bench["rows"],
            "V": bench["V"],
            "ours (ms)": bench["ours_ms"].map(_three),
            "peer": bench["peer"],
            "ratio": bench["speedup"].map(_three),
            "of forward KL": bench["of_fkl"].map(_three),
            "difference": bench["error"].map(lambda error: f"{error:.0e}" if error > 0 else "–"),
            "target": bench["target"].fillna("–"),
            "reached": bench["reached"].fillna("–"),
        }
    )


@table(GROWTH)
def transport_growth_table(growth: pd.DataFrame) -> pd.DataFrame:
    """Milliseconds of a Sinkhorn sweep per pair against V and the batch, float32, and peak memory of a whole call."""
    wide = growth.pivot(index="V", columns="rows", values="ms_per_pair").map("{:.3g}".format)
    wide.columns = [f"B = {rows}" for rows in wide.columns]
    largest = growth[growth["rows"] == growth["rows"].max()].set_index("V")
    wide["share of the product's rate"] = largest["share_of_product_rate"].map("{:.0%}".format)
    memory = largest["extra_mib"].map("{:.0f}".format) + " MiB = " + largest["of_v2_plus_bv"].map("{:.2g}".format)
    wide["memory, of 8 (V² + BV) bytes"] = memory.where(largest["extra_mib"].notna(), "–")
    return wide.reset_index()


@table(WORST)
def transport_worst_table(worst: pd.DataFrame) -> pd.DataFrame:
    """Hard inputs, 24 tokens, tolerance 1e-9, 10000 sweeps at most: the slowest and the least certain of each kind."""

    def place(row: pd.Series) -> str:
        return f"{row['cost']}: {row['pair']}"

    lines = []
    for (epsilon, form), rows in worst.groupby(["epsilon", "form"], sort=False):
        slow, wide = (rows.iloc[int(rows[name].to_numpy().argmax())] for name in ("marginal_error", "width"))
        lines.append(
            {
                "ε / largest cost": f"{epsilon:g}",
                "form": form,
                "not converged": f"{rows['late'].sum()} of {rows['rows'].sum()}",
                "largest marginal error": f"{slow['marginal_error']:.1e} ({place(slow)})",
                "median sweeps": int(rows["sweeps"].median()),
                "widest interval / largest cost": f"{wide['width']:.4f} ({place(wide)})",
            }
        )
    return pd.DataFrame(lines)
