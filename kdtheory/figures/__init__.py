"""Figures and tables: one function each, from stored data, saved with what they stand on.

>>> from kdtheory import figures
>>> sorted(figures.load())                                      # doctest: +SKIP
>>> figures.build(Path("figures"))                              # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pandas as pd

from kdtheory.checkout import EvidenceNotInstalledError
from kdtheory.figures import datasets, save, style, tables
from kdtheory.figures.registry import FIGURES, Plot

__all__ = ["FIGURES", "EvidenceNotInstalledError", "Picture", "build", "draw", "load", "load_data", "refresh", "show"]


def load() -> dict[str, Plot]:
    """Every figure and table by name. A function in any module of this folder is found without another edit."""
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda found: found.name):
        importlib.import_module(f"{__name__}.{module.name}")
    return FIGURES


def _chosen(only: Iterable[str] | None) -> list[Plot]:
    known = load()
    names = list(known) if only is None else list(only)
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"no figure or table is called {name!r}{hint} Known: {', '.join(sorted(known))}")
    return [known[name] for name in names]


def refresh(data: Path | None = None, only: Iterable[str] | None = None) -> list[str]:
    """Compute the data that take seconds, and store those that changed; returns the files written."""
    sets = {plot.data.place: plot.data for plot in _chosen(only)}
    place = data or datasets.folder()
    return [name for name, dataset in sets.items() if dataset.refresh(place)]


def build(
    out: Path,
    only: Iterable[str] | None = None,
    *,
    data: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Draw figures and tables from stored data, computing first what takes seconds.

    Parameters
    ----------
    out : Path
        Folder for PDF, PNG, .tex, .csv and .json files.
    only : iterable of str, optional
        Names; default all.
    data : Path, optional
        Data folder, default figures/data of the repository (or $KDTHEORY_DATA). Computed data are stored there.
    report : callable, optional
        Called with a line for each file set, and for each that is left out because its evidence is not installed.

    Returns
    -------
    list of Path
        The provenance files written.

    Raises
    ------
    ValueError
        If a name is unknown.
    EvidenceNotInstalledError
        If the data of a figure asked for by name are missing.
    """
    written = []
    refresh(data, only)
    for plot in _chosen(only):
        try:
            table = plot.data.load(data)
        except EvidenceNotInstalledError as missing:
            if only is not None:
                raise
            report(f"{plot.name}: left out, {missing}")
            continue
        files = save.figure_files(draw(plot, table)) if plot.kind == "figure" else tables.table_files(plot.draw(table))
        written.append(save.save(plot, table, files, out))
        report(f"{plot.name}: {', '.join(sorted(files))}")
    return written


def draw(plot: Plot, table: pd.DataFrame) -> Any:
    """The figure, in the project's style."""
    with style.apply():
        return plot.draw(table)


def load_data(name: str, data: Path | None = None) -> pd.DataFrame:
    """The stored data behind a figure or table."""
    return _chosen([name])[0].data.load(data)


class Picture:
    """A figure for a notebook: shown as PNG, never compared."""

    def __init__(self, name: str, png: bytes) -> None:
        self._name, self._png = name, png

    def __repr__(self) -> str:
        return f"<Picture {self._name}>"

    def _repr_png_(self) -> bytes:
        return self._png


def show(name: str, data: Path | None = None) -> Picture:
    """Draw a figure from its stored data, for display in a notebook."""
    plot = _chosen([name])[0]
    return Picture(name, save.figure_files(draw(plot, plot.data.load(data)))[".png"])
