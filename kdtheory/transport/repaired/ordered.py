"""A tree over tokens that lie on a line: numbers, levels, ordered categories."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdtheory.transport.arrays import real_array


def tree_from_order(x: Any) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Balanced binary tree over tokens at positions x, ready for ``TokenCost.tree(parent, weight)``.

    Sorted tokens are halved until one is left, the first half larger by one if the number is odd. A node's height is
    half the extent of its tokens, an edge the difference of its ends' heights; so the path between two tokens is as
    long as the extent of the smallest node that holds both: an ultrametric, nowhere below |x_i - x_j|.

    Parameters
    ----------
    x : array_like, shape (V,)
        Positions, finite; equal ones meet at height 0.

    Returns
    -------
    parent : numpy.ndarray of int64, shape (2V - 1,)
        Tokens 0..V-1 are the leaves, the last node is the root (-1).
    weight : numpy.ndarray of float64, shape (2V - 1,)
        >= 0; 0 at the root. In units of x.

    Raises
    ------
    ValueError
        If x is not a finite vector.

    Examples
    --------
    >>> parent, weight = tree_from_order([0.0, 1.0, 2.0, 3.0])
    >>> parent.tolist(), weight.tolist()
    ([5, 5, 4, 4, 6, 6, -1], [0.5, 0.5, 0.5, 0.5, 1.0, 1.0, 0.0])
    """
    position = real_array(x, "x", 1).numpy()
    order, V = np.argsort(position, kind="stable"), len(position)
    parent, height = np.full(2 * V - 1, -1, dtype=np.int64), np.zeros(2 * V - 1)
    node, open_parts = 2 * V - 2, [(0, V, -1)]  # the root has the last number, its descendants lower ones
    while open_parts:
        first, end, above = open_parts.pop()
        here = int(order[first]) if end - first == 1 else node
        parent[here] = above
        if end - first > 1:
            height[here] = (position[order[end - 1]] - position[order[first]]) / 2
            middle, node = (first + end + 1) // 2, node - 1
            open_parts += [(middle, end, here), (first, middle, here)]
    return parent, np.where(parent >= 0, height[parent] - height, 0.0)
