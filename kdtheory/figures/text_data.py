"""Data behind the figures of the students on real text: the stored run, families of losses, pilots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from kdtheory.figures.datasets import Dataset

CLAIMS = ("students.wasserstein-beats-kl",)
PLACE = "runs/students"
REFERENCE = "fkl"
PILOT = "†"
_PREFIX = "pilot: "


def run(path: Path) -> Any:
    """The stored run in a folder; see `kdtheory.students.published.load`."""
    from kdtheory.students import published

    return published.load(path)


def _comparisons(path: Path) -> pd.DataFrame:
    return pd.DataFrame(run(path).decisions["comparisons"])


def _results(path: Path) -> pd.DataFrame:
    return run(path).results


COMPARISONS = Dataset(PLACE, _comparisons)
RESULTS = Dataset(PLACE, _results)


def family(loss: str) -> str:
    """Which of five kinds a loss is; the order of `kdtheory.students.profiles.LOSSES` keeps a kind together."""
    if "/" in loss:
        return "a sixteenth of the positions"
    if loss.endswith("+hard"):
        return "mixed with hard labels"
    if "w1" in loss:
        return "transport"
    return "labels" if loss in ("hard", "classic") else "divergences"


def is_pilot(seeds: int) -> bool:
    """Whether a comparison over so many seeds decides nothing."""
    from kdtheory.students import statistics

    return seeds < statistics.CONFIRMATORY_SEEDS


def words_for_seeds(counts: pd.Series, mark: str = "") -> str:
    """How many seeds the comparisons have, and what those of a pilot are worth; `mark` comes before a pilot's."""
    most, fewest = int(counts.max()), int(counts.min())
    if not is_pilot(fewest):
        return f"{most} seeds"
    if is_pilot(most):
        return f"{most} seeds (a pilot: directions, no verdicts)"
    return f"{most} seeds ({mark}pilots of {fewest}: directions, no verdicts)"


def direction(decision: str) -> str:
    """``lower``, ``higher`` or an empty word: what was decided, a pilot's direction included."""
    word = decision.removeprefix(_PREFIX)
    return word if word in ("lower", "higher") else ""


def settled(decision: str) -> bool:
    """Whether both losses had reached their plateau."""
    return "not converged" not in decision


def with_most_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the losses that have as many ``seeds`` as any: not those of pilots beside them."""
    return table[table["seeds"] == table["seeds"].max()]


def t_interval(values: pd.Series) -> tuple[float, float, float]:
    """Mean over seeds and its 95 % t interval."""
    from kdtheory.students import statistics

    found = statistics.interval(values.tolist())
    return found.mean, found.low, found.high
