"""Data behind the figures: computed or measured once, stored as files, loaded from there. Simulate, store, plot."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kdtheory import checkout
from kdtheory.checkout import EvidenceNotInstalledError

ENVIRONMENT = "KDTHEORY_DATA"
"""Environment variable: a data folder to read instead of the repository's figures/data."""
RELATIVE_TOLERANCE = 1e-7
"""Stored numbers carry nine digits, and the last two differ between processors' exponentials and logarithms."""
_SMALLEST = 1e-300


@dataclass(frozen=True)
class Dataset:
    """A table of data and the file it lies in.

    Attributes
    ----------
    place : str
        File or folder, relative to the data folder.
    read : callable
        Path -> DataFrame.
    compute : callable or None
        () -> DataFrame where it takes seconds; None for what an experiment or the ledger stores.
    """

    place: str
    read: Callable[[Path], pd.DataFrame]
    compute: Callable[[], pd.DataFrame] | None = None

    def load(self, data: Path | None = None) -> pd.DataFrame:
        """The stored table.

        Raises
        ------
        EvidenceNotInstalledError
            If it is not there; the message says which command stores it.
        """
        path = (data or folder()) / self.place
        if not path.exists():
            hint = "kdtheory figures" if self.compute else "kdtheory reproduce"
            raise EvidenceNotInstalledError(
                f"evidence not installed: {path} does not exist; run `{hint}` in the repository"
            )
        return self.read(path)

    def refresh(self, data: Path) -> bool:
        """Compute again and store where the numbers changed; returns whether the file was written."""
        if self.compute is None:
            return False
        fresh, path = self.compute(), data / self.place
        if path.exists() and close(self.read(path), fresh):
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_csv(fresh), encoding="utf-8")
        return True


def computed(place: str) -> Callable[[Callable[[], pd.DataFrame]], Dataset]:
    """Make a function () -> DataFrame the data set stored as the CSV file `place` (decorator)."""

    def make(compute: Callable[[], pd.DataFrame]) -> Dataset:
        return Dataset(place, read_csv, compute)

    return make


def folder() -> Path:
    """The data folder: $KDTHEORY_DATA if set, otherwise figures/data of the repository."""
    given = os.environ.get(ENVIRONMENT)
    return Path(given) if given else checkout.required() / "figures" / "data"


def to_csv(table: pd.DataFrame) -> str:
    """CSV with nine significant digits; what is hashed and what is stored."""
    return table.to_csv(index=False, float_format="%.9g", lineterminator="\n")


def read_csv(path: Path) -> pd.DataFrame:
    """A table written by `to_csv`."""
    return from_csv(path.read_text(encoding="utf-8"))


def from_csv(text: str) -> pd.DataFrame:
    """As `read_csv`, from text. Words such as "none" stay words."""
    return pd.read_csv(StringIO(text), keep_default_na=False, na_values=[""])


def digest(table: pd.DataFrame) -> str:
    """Hexadecimal sha256 of the table as `to_csv` writes it."""
    return hashlib.sha256(to_csv(table).encode()).hexdigest()


def close(stored: pd.DataFrame, fresh: pd.DataFrame) -> bool:
    """Whether two tables hold the same words, and numbers equal up to `RELATIVE_TOLERANCE`."""
    fresh = from_csv(to_csv(fresh))
    if list(stored.columns) != list(fresh.columns) or len(stored) != len(fresh):
        return False
    return all(_same_column(stored[name], fresh[name]) for name in stored.columns)


def _same_column(first: Any, second: Any) -> bool:
    if first.dtype.kind in "if" and second.dtype.kind in "if":
        return bool(
            np.allclose(first, second, rtol=RELATIVE_TOLERANCE, atol=_SMALLEST, equal_nan=True)
        )  # atol: subnormals
    return first.astype(str).tolist() == second.astype(str).tolist()
