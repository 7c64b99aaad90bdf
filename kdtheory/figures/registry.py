"""What there is to draw: a figure or a table is one decorated function from data to `Figure` or `DataFrame`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kdtheory.figures.datasets import Dataset

Kind = Literal["figure", "table"]


@dataclass(frozen=True)
class Plot:
    """One figure or table: how it is drawn, from which data, for which claims.

    Attributes
    ----------
    name : str
        File name without ending, and key of `FIGURES`: the function's name.
    kind : {"figure", "table"}
    draw : callable
        DataFrame -> `matplotlib.figure.Figure`, or DataFrame -> DataFrame.
    data : Dataset
        Where its data lie.
    claims : tuple of str
        Ids of the claims it pictures.
    """

    name: str
    kind: Kind
    draw: Callable[..., Any]
    data: Dataset
    claims: tuple[str, ...]

    @property
    def source(self) -> str:
        """Module and function."""
        return f"{self.draw.__module__}:{self.draw.__name__}"

    @property
    def code(self) -> Path:
        """File of the function."""
        return Path(inspect.getfile(self.draw))

    @property
    def title(self) -> str:
        """First line of the function's docstring."""
        return (self.draw.__doc__ or self.name).strip().splitlines()[0]


FIGURES: dict[str, Plot] = {}


def _register(kind: Kind, data: Dataset, claims: tuple[str, ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(draw: Callable[..., Any]) -> Callable[..., Any]:
        if draw.__name__ in FIGURES:
            raise ValueError(f"{draw.__name__!r} is drawn twice: {FIGURES[draw.__name__].source}; choose another name")
        FIGURES[draw.__name__] = Plot(draw.__name__, kind, draw, data, claims)
        return draw

    return register


def figure(data: Dataset, *, claims: tuple[str, ...] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function (DataFrame -> Figure) as the figure of its name.

    Parameters
    ----------
    data : Dataset
        What is loaded and passed to it.
    claims : tuple of str
        Ids of the claims it pictures.
    """
    return _register("figure", data, claims)


def table(data: Dataset, *, claims: tuple[str, ...] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function (DataFrame -> DataFrame) as the table of its name. As `figure`."""
    return _register("table", data, claims)
