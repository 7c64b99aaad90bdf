"""A tree metric over tokens from their embeddings, by hierarchical clustering."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdtheory.transport.costs import MAX_ENTRIES, real_array

_METHODS = ("average", "single", "complete", "weighted", "ward")  # centroid and median merge below their children


def tree_from_embedding(E: Any, method: str = "average") -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Dendrogram of token embeddings as a rooted tree, ready for ``TokenCost.tree(parent, weight)``.

    Tokens are the leaves 0..V-1, merges the nodes V..2V-2, the last one the root. An edge is half the difference of
    its ends' merge heights, so the path between two tokens is as long as the height at which they meet: the cophenetic
    distance, an ultrametric. Equal embeddings meet at height 0.

    Parameters
    ----------
    E : array_like, shape (V, d)
        Compared by Euclidean distance; normalise the rows first for the cosine.
    method : str
        Linkage of `scipy.cluster.hierarchy`: average, single, complete, weighted or ward.

    Returns
    -------
    parent : numpy.ndarray of int64, shape (2V - 1,)
        -1 at the root.
    weight : numpy.ndarray of float64, shape (2V - 1,)
        >= 0; 0 at the root. In units of E.

    Raises
    ------
    ValueError
        If E is not finite or has the wrong shape, the method is unknown or merges below its children (centroid,
        median: negative edges), or V exceeds 23170 (V²/2 distances of 2 GiB).
    """
    points = real_array(E, "E", 2).numpy()
    V = len(points)
    if method not in _METHODS:
        raise ValueError(f"method = {method!r}: one of {', '.join(_METHODS)}; others can give negative edges")
    if V * (V - 1) // 2 > MAX_ENTRIES:
        raise ValueError(f"V = {V}: clustering holds V²/2 distances, above 2 GiB; take fewer tokens")
    parent, height = np.full(2 * V - 1, -1, dtype=np.int64), np.zeros(2 * V - 1)
    if V > 1:
        from scipy.cluster.hierarchy import linkage

        merges = linkage(points, method)
        height[V:] = merges[:, 2]
        for node, (left, right) in enumerate(merges[:, :2].astype(np.int64), start=V):
            parent[left] = parent[right] = node
    weight = np.where(parent >= 0, (height[parent] - height) / 2, 0.0)
    return parent, weight
