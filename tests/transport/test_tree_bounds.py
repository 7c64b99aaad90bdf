"""Tree metrics as stand-ins: distortion by brute force, intervals against POT."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import ot
import pytest
import torch
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import cdist, squareform

from kdtheory import TokenCost
from kdtheory.transport import NotAMetricError, tree_bounds, tree_from_embedding
from kdtheory.transport.tree_bounds import Distortion, distortion, w1_from_tree
from tests.transport.cases import COSTS

V = 30
METHODS = ("single", "complete", "average", "weighted", "ward")


def scene(rng, method, width=3):
    points = rng.normal(size=(V, width))
    tree = TokenCost.tree(*tree_from_embedding(points, method))
    return points, tree, squareform(cophenet(linkage(points, method)))


@pytest.mark.parametrize("method", METHODS)
def test_distortion_by_brute_force(method, rng):
    points, tree, heights = scene(rng, method)
    found = distortion(tree, TokenCost.embedding(points))
    C = cdist(points, points)
    ratios = {(i, j): heights[i, j] / C[i, j] for i, j in combinations(range(V), 2)}
    assert found.low == pytest.approx(min(ratios.values()), rel=1e-12)
    assert found.high == pytest.approx(max(ratios.values()), rel=1e-12)
    # 1e-12: equal quotients, as in single linkage, differ by rounding
    assert ratios[tuple(sorted(found.low_pair))] == pytest.approx(found.low, rel=1e-12)
    assert ratios[tuple(sorted(found.high_pair))] == pytest.approx(found.high, rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_interval_holds_the_exact_value(method, rng):
    points, tree, heights = scene(rng, method)
    C, bounds = cdist(points, points), distortion(tree, TokenCost.embedding(points))
    p, q = (rng.dirichlet(np.full(V, 0.2), size=5) for _ in range(2))
    found = w1_from_tree(p, q, tree, bounds)
    for row in range(5):
        exact = ot.emd2(p[row], q[row], C)
        assert found.value[row] == pytest.approx(ot.emd2(p[row], q[row], heights), abs=1e-12)
        assert found.lower[row] <= exact * (1 + 1e-12)
        assert exact <= found.upper[row] * (1 + 1e-12)
    # attained: two one-hot laws at the extreme pairs
    for (i, j), side in ((bounds.low_pair, "upper"), (bounds.high_pair, "lower")):
        ends = w1_from_tree(np.eye(V)[i], np.eye(V)[j], tree, bounds)
        assert getattr(ends, side) == pytest.approx(C[i, j], rel=1e-12)


def test_single_below_and_complete_above(rng):
    for _ in range(5):
        points, single, _ = scene(rng, "single")
        complete = TokenCost.tree(*tree_from_embedding(points, "complete"))
        cost = TokenCost.embedding(points)
        # 1e-12: halves of heights, added up again
        assert distortion(single, cost).high <= 1 + 1e-12
        assert distortion(complete, cost).low >= 1 - 1e-12


def test_average_linkage_is_on_neither_side():
    points = [[0.0], [1.0], [3.0]]
    found = distortion(TokenCost.tree(*tree_from_embedding(points, "average")), TokenCost.embedding(points))
    assert found.low == pytest.approx(2.5 / 3)
    assert found.high == pytest.approx(2.5 / 2)


@pytest.mark.parametrize("n", [2, 5, 17])
def test_a_line_defeats_every_dendrogram_and_not_its_own_path(n):
    line = TokenCost.line(np.arange(n))
    for method in METHODS:
        found = distortion(TokenCost.tree(*tree_from_embedding(np.arange(n)[:, None], method)), line)
        assert found.high / found.low >= (n - 1) * (1 - 1e-12)
    path = TokenCost.tree(np.arange(-1, n - 1), np.ones(n), tokens=n)
    assert distortion(path, line)[:2] == (1, 1)


def test_blocks_change_nothing(rng, monkeypatch):
    points, tree, _ = scene(rng, "average")
    cost = TokenCost.embedding(points)
    whole = distortion(tree, cost)
    monkeypatch.setattr(tree_bounds, "_BLOCK", 1)
    assert distortion(tree, cost)[:2] == whole[:2]


def test_equal_tokens():
    points = TokenCost.line([0.0, 0.0, 1.0])
    assert distortion(TokenCost.line([0.0, 0.0, 2.0]), points)[:2] == (2, 2)
    assert distortion(TokenCost.line([0.0, 0.5, 1.0]), points)[:2] == (0.5, math.inf)
    blind = distortion(TokenCost.line([0.0, 0.0, 0.0]), points)
    assert blind[:2] == (0, 0)
    found = w1_from_tree([1.0, 0, 0], [0, 0, 1.0], TokenCost.line([0.0, 0.0, 0.0]), blind)
    assert (found.lower, found.upper) == (0, math.inf)
    assert distortion(TokenCost.zero_one(1), TokenCost.zero_one(1)) == Distortion(1.0, 1.0, None, None)


def test_torch_and_degenerate_rows(rng):
    points, tree, _ = scene(rng, "average")
    bounds = distortion(tree, TokenCost.embedding(points))
    p = torch.tensor(rng.dirichlet(np.ones(V), size=2))
    q = p.clone().requires_grad_()
    same = w1_from_tree(p, q, tree, bounds)
    assert not same.upper.detach().any()
    q = torch.tensor(rng.dirichlet(np.ones(V), size=2)).requires_grad_()
    w1_from_tree(p, q, tree, bounds).upper.sum().backward()
    assert q.grad.abs().sum() > 0


def test_bad_arguments(rng):
    line, dense = TokenCost.line(np.arange(6.0)), TokenCost.dense(COSTS["dense"][1])
    with pytest.raises(NotAMetricError):
        distortion(line, dense)
    with pytest.raises(ValueError, match="same tokens"):
        distortion(line, TokenCost.line(np.arange(5.0)))
    with pytest.raises(ValueError, match="closed form"):
        w1_from_tree([1.0] + [0] * 5, [1.0] + [0] * 5, COSTS["embedding"][0], Distortion(1, 1, None, None))
    with pytest.raises(ValueError, match="bounds"):
        w1_from_tree([1.0] + [0] * 5, [1.0] + [0] * 5, line, Distortion(2, 1, None, None))
