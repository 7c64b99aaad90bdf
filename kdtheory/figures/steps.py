"""What each loss costs a training step beside hard cross-entropy."""

from __future__ import annotations

import pandas as pd

from kdtheory.figures.datasets import Dataset, read_csv
from kdtheory.figures.registry import table

BENCH = Dataset("steps_bench.csv", read_csv)
"""Stored by ``python -m tests.benchmarks --only steps --store``."""


@table(BENCH)
def steps_bench_table(bench: pd.DataFrame) -> pd.DataFrame:
    """Time and peak memory of a step (embeddings, loss, gradients; width 768), against hard labels, by vocabulary."""
    at = {int(str(V)): rows.set_index("case") for V, rows in bench.groupby("V")}
    largest = at[max(at)]
    names = list(largest.index)
    lines = {"loss": names}
    for V, rows in sorted(at.items()):
        lines[f"time, V = {V}"] = [f"{x:.2f}" for x in rows.loc[names, "of_hard"]]
        lines[f"memory, V = {V}"] = [f"{x:.2f}" for x in rows.loc[names, "peak_buffers"]]
    lines["within the bound"] = [x if isinstance(x, str) and x else "–" for x in largest["reached"]]
    return pd.DataFrame(lines)
