"""Arrays that costs are made of: finite numbers, permutations, random points."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def real_array(x: Any, name: str, ndim: int) -> Tensor:
    """Own float64 copy (on the CPU) of a finite array with `ndim` axes, none empty; ValueError names the index."""
    array = np.array(x.detach().cpu().double().numpy() if isinstance(x, Tensor) else x, dtype=np.float64)
    if array.ndim != ndim or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}: expected {ndim} non-empty axes")
    if not np.isfinite(array).all():
        index = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        raise ValueError(f"{name}{index} = {array[tuple(index)]}: give finite numbers")
    return torch.from_numpy(array)


def permutation(x: Any, tokens: int) -> Tensor:
    """Own int64 copy (on the CPU) of a permutation of 0..tokens-1; ValueError names the entry that breaks it."""
    array = np.array(x.detach().cpu().numpy() if isinstance(x, Tensor) else x)
    if array.shape != (tokens,) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"permutation has shape {array.shape} ({array.dtype}): expected ({tokens},), integer")
    seen = np.zeros(tokens, dtype=bool)
    for at, token in enumerate(array.tolist()):
        if not 0 <= token < tokens or seen[token]:
            problem = "appears twice" if 0 <= token < tokens else f"is not a token 0..{tokens - 1}"
            raise ValueError(f"permutation[{at}] = {token} {problem}: give each token once")
        seen[token] = True
    return torch.from_numpy(array.astype(np.int64))


def gaussian_points(count: int, rng: np.random.Generator, scale: float, dim: int) -> NDArray[np.float64]:
    """Independent Gaussian points (count, dim) whose expected distance from each other is `scale`."""
    if not (isinstance(dim, (int, np.integer)) and dim >= 1 and math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale = {scale!r}, dim = {dim!r}: a positive number and an integer >= 1")
    # the distance of two standard Gaussian points is √2 times a chi variable with dim degrees of freedom
    expected = 2 * math.exp(math.lgamma((dim + 1) / 2) - math.lgamma(dim / 2))
    return rng.normal(size=(count, dim)) * (scale / expected)
