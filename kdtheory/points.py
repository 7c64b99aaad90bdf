"""Arguments that are points or tangent vectors of the simplex, checked, with messages that name them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
SUM_TOLERANCE = 1e-6
"""A float32 softmax over 1e5 tokens sums to 1 within about this."""


def same_size(**vectors: Array) -> None:
    """ValueError unless all have one V."""
    sizes = {name: vector.shape[-1:] for name, vector in vectors.items()}
    if len(set(sizes.values())) > 1:
        shapes = ", ".join(f"{name} has shape {vector.shape}" for name, vector in vectors.items())
        raise ValueError(f"{shapes}: the last axis is the vocabulary, of one size V for all")


def nonnegative(p: ArrayLike, name: str) -> Array:
    """The argument as an array (..., V) of numbers >= 0."""
    p = np.asarray(p, dtype=np.float64)
    if p.ndim == 0 or not np.all(p >= 0):
        where = np.argwhere(~(p >= 0))
        raise ValueError(f"{name}{where[0].tolist() if p.ndim else ''} is not a probability: entries are >= 0")
    return p


def closed(p: ArrayLike, name: str = "p") -> Array:
    """The argument as probabilities, zeros allowed."""
    p = nonnegative(p, name)
    worst = np.abs(p.sum(axis=-1) - 1).max(initial=0.0)
    if not worst <= SUM_TOLERANCE:
        raise ValueError(f"{name} sums to 1 up to {worst:.3g}: divide each row by its sum")
    return p


def interior(p: ArrayLike, name: str = "p") -> Array:
    """The argument as probabilities, all positive."""
    p = closed(p, name)
    if not np.all(p > 0):
        where = np.argwhere(p <= 0)[0].tolist()
        raise ValueError(f"{name}{where} = 0 lies on the boundary of the simplex: this needs full support")
    return p


def tangent(v: ArrayLike) -> Array:
    """The argument as tangent vectors."""
    v = np.asarray(v, dtype=np.float64)
    if not np.all(np.abs(v.sum(axis=-1)) <= SUM_TOLERANCE * np.abs(v).sum(axis=-1)):
        raise ValueError("v is not tangent to the simplex: it must be finite and sum to 0; see fisher_projection")
    return v


def times(t: ArrayLike) -> Array:
    """Times in [0, 1] with an axis for the tokens."""
    t = np.asarray(t, dtype=np.float64)
    if not np.all((t >= 0) & (t <= 1)):
        raise ValueError("t must lie in [0, 1]: between p and q; fisher_exp continues beyond q")
    return t[..., None]
