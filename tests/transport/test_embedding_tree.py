"""The tree over token embeddings: its path lengths are scipy's cophenetic distances."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import squareform

from kdtheory import TokenCost
from kdtheory.transport import tree_from_embedding
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


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="method = 'centroid': one of average"):
        tree_from_embedding(np.eye(3), "centroid")
    with pytest.raises(ValueError, match=r"E\[1, 0\] = nan"):
        tree_from_embedding([[0.0], [np.nan]])
    with pytest.raises(ValueError, match=r"E has shape \(3,\)"):
        tree_from_embedding([1.0, 2.0, 3.0])
