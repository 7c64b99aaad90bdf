"""Two real sources of ordered tokens that ship with Python packages, cut into contexts for next-token prediction.

`digits`: scikit-learn's 1797 images of 8 x 8 pixels in 17 grey levels (a copy of the test part of the UCI data set of
handwritten digits), pixel by pixel in reading order. `co2`: statsmodels' weekly carbon dioxide readings at Mauna Loa,
1958 to 2001, as deviations from their mean over the year before, in 17 levels of 0.55 ppm. It is the longest series
that ships there, and a deviation from a running mean is the one quantity in it that has no trend.

In both, two tokens are as far apart as their levels: the line is their own metric and nobody's choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

LEVELS = 17
WINDOW = 8
"""Weeks that a prediction of the series looks back."""
STEP = 0.55
"""Width of a level of the series, ppm: 17 of them span its deviations."""
BLOCK = 104
"""Weeks (two whole seasons) that stay on one side of a split."""
_SIDE, _REACH = 8, 3
_YEAR, _READINGS = 52, 40  # of the running mean, and how many of its readings must be there


@dataclass(frozen=True)
class Contexts:
    """All contexts of a source.

    Attributes
    ----------
    features : Tensor of float32, shape (M, d)
        What teacher and students see.
    following : Tensor of int64, shape (M,)
        The level that came next, 0 to 16.
    group : Tensor of int64, shape (M,)
        Image or block of weeks: all contexts of one lie on the same side of a split.
    """

    features: Tensor
    following: Tensor
    group: Tensor

    def __len__(self) -> int:
        return len(self.following)


def load(name: str) -> Contexts:
    """The source called ``digits`` or ``co2``.

    Raises
    ------
    ValueError
        If the name is another.
    ImportError
        Without scikit-learn or statsmodels, which the extra ``students`` brings along.
    """
    if name not in _SOURCES:
        raise ValueError(f"source {name!r} is unknown; known: {', '.join(_SOURCES)}")
    return _SOURCES[name]()


def images() -> Tensor:
    """Grey levels of the digits, int64 of shape (1797, 8, 8), 0 to 16."""
    from sklearn.datasets import load_digits

    return torch.from_numpy(load_digits().images.astype(np.int64))


@lru_cache(maxsize=1)
def digits() -> Contexts:
    """Every pixel after its causal neighbours: three rows above, three pixels to the left; 0 outside the image.

    40 features: the 24 neighbours as shares of the largest level, and row and column, one-hot.
    """
    grey = images()
    padded = torch.nn.functional.pad(grey.float() / (LEVELS - 1), (_REACH, _REACH, _REACH, 0))
    rows, columns = torch.meshgrid(torch.arange(_SIDE), torch.arange(_SIDE), indexing="ij")
    before = [(up, across) for up in range(_REACH, -1, -1) for across in range(-_REACH, _REACH + 1) if up or across < 0]
    near = [padded[:, rows + _REACH - up, columns + _REACH + across] for up, across in before]
    place = torch.cat([torch.eye(_SIDE)[rows], torch.eye(_SIDE)[columns]], -1).expand(len(grey), -1, -1, -1)
    features = torch.cat([torch.stack(near, -1), place], -1)
    group = torch.arange(len(grey)).repeat_interleave(_SIDE**2)
    return Contexts(features.flatten(0, 2), grey.flatten(), group)


def deviations() -> Any:
    """Weekly readings minus their mean over the 52 weeks before, in ppm: a Series, NaN where one of them is missing."""
    import statsmodels.api as sm

    reading = sm.datasets.co2.load_pandas().data["co2"]
    return reading - reading.rolling(_YEAR, min_periods=_READINGS).mean().shift(1)


def quantised(values: Any) -> Any:
    """Levels 0 to 16 of deviations in ppm, as floats; what lies beyond the last level falls into it, NaN stays.

    The middle of the range of the deviations is the middle of level 8.
    """
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    return np.clip(np.floor((values - middle) / STEP + LEVELS / 2), 0, LEVELS - 1)


@lru_cache(maxsize=1)
def co2() -> Contexts:
    """Every week whose last eight weeks lie in its own block of two years, and are all there.

    8 features: the levels of these weeks, from -1 to 1, the last one last.
    """
    levels = quantised(deviations().to_numpy(dtype=np.float64))
    ends = np.arange(WINDOW, len(levels))
    windows = np.lib.stride_tricks.sliding_window_view(levels, WINDOW + 1)
    whole = np.isfinite(windows).all(1) & ((ends - WINDOW) // BLOCK == ends // BLOCK)
    chosen = torch.from_numpy(windows[whole].copy())
    half = (LEVELS - 1) / 2
    return Contexts(
        (chosen[:, :-1] / half - 1).float(), chosen[:, -1].long(), torch.from_numpy(ends[whole] // BLOCK).long()
    )


_SOURCES = {"digits": digits, "co2": co2}


def split(
    contexts: Contexts, generator: torch.Generator, *, shares: Sequence[float], sizes: Sequence[int]
) -> tuple[Tensor, ...]:
    """Row numbers of the parts of a random split by group, each part in random order.

    Parameters
    ----------
    contexts : Contexts
    generator : torch.Generator
    shares : sequence of float
        Share of the groups that each part gets; at most 1 together.
    sizes : sequence of int
        Contexts that are taken from each part, so that all seeds have as many.

    Raises
    ------
    ValueError
        If the shares exceed 1, or a part holds fewer contexts than are asked for.
    """
    if sum(shares) > 1 + 1e-9:
        raise ValueError(f"shares = {tuple(shares)}: together they exceed 1")
    names = contexts.group.unique()
    names = names[torch.randperm(len(names), generator=generator)]
    ends = [0, *(round(float(end) * len(names)) for end in np.cumsum(shares))]
    parts = []
    for start, end, size in zip(ends, ends[1:], sizes, strict=False):
        rows = torch.isin(contexts.group, names[start:end]).nonzero().squeeze(-1)
        if len(rows) < size:
            raise ValueError(f"a part of {end - start} groups holds {len(rows)} contexts; {size} were asked for")
        parts.append(rows[torch.randperm(len(rows), generator=generator)[:size]])
    return tuple(parts)
