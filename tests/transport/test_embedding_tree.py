"""The tree over token embeddings: its path lengths are scipy's cophenetic distances."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import cdist, pdist, squareform

from kdtheory import TokenCost
from kdtheory.transport import grouped_tree, tree, tree_from_embedding
from tests.transport.cases import path_lengths


@pytest.mark.parametrize("method", ["average", "single", "complete", "weighted", "ward"])
def test_paths_are_cophenetic(method, rng):
    E = rng.normal(size=(40, 5))
    parent, weight = tree_from_embedding(E, method)
    expected = squareform(cophenet(linkage(E, method)))
    np.testing.assert_allclose(path_lengths(parent, weight)[:40, :40], expected, atol=1e-13)
    np.testing.assert_allclose(TokenCost.tree(parent, weight).matrix().numpy(), expected, atol=1e-13)
    assert not np.allclose(path_lengths(parent, 2 * weight)[:40, :40], expected)  # control: without the half


def test_an_ultrametric_with_leaves_first(rng):
    E = rng.normal(size=(30, 3))
    parent, weight = tree_from_embedding(E)
    assert parent.shape == weight.shape == (59,)
    assert (parent[:-1] > np.arange(58)).all()
    assert parent[-1] == -1
    assert weight[-1] == 0
    assert (weight >= 0).all()
    C = TokenCost.tree(parent, weight).matrix().numpy()
    assert (C[:, None, :] <= np.maximum(C[:, :, None], C[None, :, :]) + 1e-13).all()


def test_equal_embeddings_meet_at_zero():
    E = np.repeat([[0.0, 1.0], [3.0, 1.0]], 3, axis=0)
    cost = TokenCost.tree(*tree_from_embedding(E))
    np.testing.assert_allclose(cost.matrix().numpy(), 3 * np.kron(1 - np.eye(2), np.ones((3, 3))), atol=1e-15)
    assert cost.min_distance == 0


def test_small_vocabularies():
    assert [x.tolist() for x in tree_from_embedding([[1.0, 2.0]])] == [[-1], [0.0]]
    assert [x.tolist() for x in tree_from_embedding([[1.0], [4.0]])] == [[2, 2, -1], [1.5, 1.5, 0.0]]


def nested(rng, V=2000):
    """Points in clusters of clusters, none of them tight: distances of a tree and as much noise."""
    outer, inner = rng.normal(size=(40, 16)), 0.6 * rng.normal(size=(320, 16))
    place = rng.integers(0, 320, V)
    return outer[place % 40] + inner[place] + 0.5 * rng.normal(size=(V, 16))


def heights(parent, weight):
    """Path lengths between the leaves of a binary ultrametric tree, condensed: twice the height at which they meet."""
    V = (len(parent) + 1) // 2
    below, height = [[leaf] for leaf in range(V)] + [[] for _ in range(V - 1)], np.zeros(len(parent))
    length = np.zeros((V, V))
    for node, above in enumerate(parent[:-1]):
        height[above] = height[node] + weight[node]
        length[np.ix_(below[node], below[above])] = 2 * height[above]
        below[above] = below[above] + below[node]
    return (length + length.T)[np.triu_indices(V, 1)]


def test_heights_by_another_way(rng):
    E = rng.normal(size=(30, 3))
    parent, weight = tree_from_embedding(E)
    expected = path_lengths(parent, weight)[:30, :30][np.triu_indices(30, 1)]
    np.testing.assert_allclose(heights(parent, weight), expected, atol=1e-13)


def test_groups_of_neighbours_keep_most_of_the_correlation(rng):
    """With Euclidean distance: of what average linkage of all tokens has. The control: groups of random tokens."""
    E = nested(rng)
    distance = pdist(E)

    def correlation(condensed):
        return np.corrcoef(condensed, distance)[0, 1]

    exact = correlation(cophenet(linkage(E, "average")))
    groups, shuffled = tree._groups(E, 8), rng.permutation(len(E))
    grouped = heights(*grouped_tree(E, 8))
    assert exact > 0.4
    assert correlation(grouped) > 0.85 * exact
    assert correlation(heights(*tree._of_groups(E, [shuffled[g] for g in groups], "average"))) < 0.6 * exact
    assert grouped.max() <= distance.max()


@pytest.mark.parametrize("size", [1, 4, 13, 60])
def test_a_grouped_tree_is_an_ultrametric_with_leaves_first(size, rng):
    E = nested(rng, 60)
    E[7:12] = E[6]  # equal embeddings
    parent, weight = grouped_tree(E, size)
    assert (parent[:-1] > np.arange(118)).all()
    assert (np.bincount(parent[:-1], minlength=119)[60:] == 2).all()
    assert (parent[-1], weight[-1]) == (-1, 0)
    assert (weight >= 0).all()
    C = TokenCost.tree(parent, weight).matrix().numpy()
    assert (C[:, None, :] <= np.maximum(C[:, :, None], C[None, :, :]) + 1e-13).all()
    if size in (1, 60):  # average linkage
        expected = TokenCost.tree(*tree_from_embedding(E)).matrix().numpy()
        np.testing.assert_allclose(C, expected, atol=1e-13)


def test_groups_are_a_partition_of_the_wanted_size_and_always_the_same(rng):
    E = nested(rng, 500)
    E[100:300] = 1.0  # more equal embeddings than a group may hold
    groups = tree._groups(E, 16)
    assert 16 // 4 <= min(map(len, groups)) <= max(map(len, groups)) <= 16
    np.testing.assert_array_equal(np.sort(np.concatenate(groups)), np.arange(500))
    for first, again in zip(grouped_tree(E, 16), grouped_tree(E.copy(), 16), strict=True):
        np.testing.assert_array_equal(first, again)


def test_outliers_are_not_cut_off_one_by_one(rng):
    """Heavy tails: 2-means alone would make nearly as many groups as there are outliers. The bound is 4 V / size."""
    E = rng.standard_cauchy(size=(400, 2)) ** 3
    assert len(tree._groups(E, 16)) <= 4 * 400 / 16
    groups = tree._groups(E, 100)
    assert min(map(len, groups)) >= 25


def test_equal_embeddings_in_many_groups_meet_at_zero():
    np.testing.assert_array_equal(grouped_tree(np.ones((40, 3)), 8)[1], np.zeros(79))


def test_groups_of_two_clusters_are_the_clusters(rng):
    """Between groups: the root-mean-square distance of their tokens, by all pairs."""
    E = np.concatenate([rng.normal(size=(8, 3)), 50 + rng.normal(size=(8, 3))])
    groups = tree._groups(E, 8)
    assert {frozenset(g.tolist()) for g in groups} == {frozenset(range(8)), frozenset(range(8, 16))}
    expected = np.sqrt((cdist(E[:8], E[8:]) ** 2).mean())
    C = TokenCost.tree(*grouped_tree(E, 8)).matrix().numpy()
    np.testing.assert_allclose(C[:8, 8:], expected, rtol=1e-13)
    assert not np.isclose(expected, np.linalg.norm(E[:8].mean(0) - E[8:].mean(0)), rtol=1e-4)  # control: of centroids


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="size = 0: a group holds at least 1 token"):
        grouped_tree(np.eye(3), 0)
    with pytest.raises(ValueError, match="method = 'centroid': one of average"):
        tree_from_embedding(np.eye(3), "centroid")
    with pytest.raises(ValueError, match=r"E\[1, 0\] = nan"):
        tree_from_embedding([[0.0], [np.nan]])
    with pytest.raises(ValueError, match=r"E has shape \(3,\)"):
        tree_from_embedding([1.0, 2.0, 3.0])
