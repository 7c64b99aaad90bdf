"""A tree metric over tokens from their embeddings, by hierarchical clustering."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdtheory.transport.costs import MAX_ENTRIES, real_array

GROUPS = 4096
"""What a vocabulary is divided by for the largest group of `grouped_tree`: about as many groups come out."""
_ROUNDS = 10  # of power iteration and of 2-means: the halves need not be the best ones
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
        median: negative edges), or V exceeds 23170 (V²/2 distances of 2 GiB; `grouped_tree` needs fewer).
    """
    points = real_array(E, "E", 2).numpy()
    V = len(points)
    if method not in _METHODS:
        raise ValueError(f"method = {method!r}: one of {', '.join(_METHODS)}; others can give negative edges")
    if V * (V - 1) // 2 > MAX_ENTRIES:
        raise ValueError(f"V = {V}: clustering holds V²/2 distances, above 2 GiB; take fewer tokens, or grouped_tree")
    return _of_groups(points, [np.arange(V)], method)


def grouped_tree(E: Any, size: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """`tree_from_embedding` for large vocabularies: average linkage within groups of neighbours, and between groups.

    Tokens are halved by 2-means, begun along their first principal axis, until no group is larger than `size`; no half
    is less than a quarter. Groups are then merged by average linkage of their root-mean-square distances, over all
    pairs of their tokens: √(‖centroid − centroid'‖² + spread + spread'). A merge below one of its parts is raised to
    it. Holds a few copies of E and a distance for every pair of groups, not of tokens; takes no random numbers.

    The result is an ultrametric on the same terms as average linkage: equal embeddings of a group meet at height 0,
    no distance exceeds that of the two farthest tokens, and there is no bound on the distortion.

    Parameters
    ----------
    E : array_like, shape (V, d)
        Compared by Euclidean distance.
    size : int, optional
        Largest group; by default V / 4096. With 1 this is average linkage.

    Returns
    -------
    parent, weight : numpy.ndarray, shape (2V - 1,)
        As of `tree_from_embedding`.

    Raises
    ------
    ValueError
        If E is not finite or has the wrong shape, or size < 1.
    """
    points = real_array(E, "E", 2).numpy()
    if size is not None and size < 1:
        raise ValueError(f"size = {size}: a group holds at least 1 token")
    return _of_groups(points, _groups(points, size or -(-len(points) // GROUPS)), "average")


def _of_groups(
    points: NDArray[np.float64], groups: list[NDArray[np.int64]], method: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Linkage within each group, then of the groups."""
    from scipy.cluster.hierarchy import linkage

    V = len(points)
    parent, height = np.full(2 * V - 1, -1, dtype=np.int64), np.zeros(2 * V - 1)
    free, roots = V, list[int]()

    def graft(nodes: NDArray[np.int64], merges: NDArray[np.float64]) -> int:
        """Enter the merges of these nodes; returns the last one."""
        every = np.concatenate([nodes, np.arange(free, free + len(merges))])
        made = every[len(nodes) :]
        parent[every[merges[:, :2].astype(np.int64)]] = made[:, None]
        height[made] = merges[:, 2]
        return int(every[-1])

    for members in groups:
        if len(members) > 1:
            roots.append(graft(members, linkage(points[members], method)))
            free += len(members) - 1
        else:
            roots.append(int(members[0]))
    if len(groups) > 1:
        graft(np.array(roots), linkage(_between(points, groups), method))
    for node, above in enumerate(parent[:-1]):  # parts come before what they are merged into
        height[above] = max(height[above], height[node])
    weight = np.where(parent >= 0, (height[parent] - height) / 2, 0.0)
    return parent, weight


def _between(points: NDArray[np.float64], groups: list[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Root-mean-square distances of the groups' tokens, condensed as scipy has them."""
    from scipy.spatial.distance import pdist

    centroids = np.array([points[members].mean(0) for members in groups])
    spreads = np.array(
        [((points[members] - at) ** 2).sum(1).mean() for members, at in zip(groups, centroids, strict=True)]
    )
    squares, start = pdist(centroids, "sqeuclidean"), 0
    for group in range(len(groups) - 1):  # in place: with many groups there is no room for a second array
        end = start + len(groups) - 1 - group
        squares[start:end] += spreads[group] + spreads[group + 1 :]
        start = end
    return np.sqrt(squares, out=squares)


def _groups(points: NDArray[np.float64], size: int) -> list[NDArray[np.int64]]:
    """Groups of at most `size` neighbours."""
    done, todo = list[NDArray[np.int64]](), [np.arange(len(points))]
    while todo:
        members = todo.pop()
        if len(members) <= size:
            done.append(members)
        else:
            right = _halved(points[members])
            todo += [members[right], members[~right]]
    return done


def _halved(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points are in the second of two halves, of which neither holds less than a quarter of the points.

    Outliers would otherwise be cut off one by one, each at the cost of a pass over all points.
    """
    centred = points - points.mean(0)
    axis = centred[np.argmax((centred**2).sum(1))]  # the outermost point: not orthogonal to what spreads
    for _ in range(_ROUNDS):
        length = np.linalg.norm(axis)
        if not length > 0:  # all points coincide: any halves will do
            break
        axis = centred.T @ (centred @ (axis / length))
    score, cut = centred @ axis, 0.0
    for _ in range(_ROUNDS):
        right = score > cut
        if right.all() or not right.any():
            break
        one, two = centred[~right].mean(0), centred[right].mean(0)
        score, cut = centred @ (two - one), (two @ two - one @ one) / 2
        if ((score > cut) == right).all():
            break
    least = max(1, len(points) // 4)
    first = np.clip((score <= cut).sum(), least, len(points) - least)
    right = np.ones(len(points), dtype=bool)
    right[np.argsort(score, kind="stable")[:first]] = False
    return right
