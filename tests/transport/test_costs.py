"""Token costs: entries against scipy, extremes, metric checks that name the culprit, refused input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist

import kdtheory as kd
from kdtheory import TokenCost
from kdtheory.transport import NotAMetricError, axioms, costs, exact
from tests.transport.cases import COSTS, METRICS, PARENT, POINTS, WEIGHT, path_lengths

SHORTCUT = np.array([[0.0, 1.0, 5.0], [1.0, 0.0, 1.0], [5.0, 1.0, 0.0]])


@pytest.mark.parametrize("name", COSTS)
def test_matrix_and_extremes(name):
    """1e-14: one rounding each in a handful of additions."""
    cost, C = COSTS[name]
    # cosine: scipy's 1 - cos has absolute error 1e-16, which is 1e-8 under the root of its zero diagonal
    np.testing.assert_allclose(cost.matrix().numpy(), C, rtol=1e-14, atol=3e-8 if name == "cosine" else 1e-15)
    off = C[~np.eye(6, dtype=bool)]
    assert cost.diameter == pytest.approx(C.max(), rel=1e-13)
    assert cost.min_distance == pytest.approx(off.min(), rel=1e-13)
    assert cost.matrix().dtype == torch.float64
    assert cost.kind in str(cost)


def test_extremes_over_many_blocks(monkeypatch, rng):
    monkeypatch.setattr(costs, "_CHUNK", 100)
    E = rng.normal(size=(40, 3))
    cost = TokenCost.embedding(E)
    assert (cost.min_distance, cost.diameter) == pytest.approx((pdist(E).min(), pdist(E).max()), rel=1e-13)


def test_one_token():
    for cost in (TokenCost.zero_one(1), TokenCost.line([3.0]), TokenCost.tree([-1], [0.0]), TokenCost.dense([[0.0]])):
        assert (cost.V, cost.diameter, cost.min_distance) == (1, 0.0, float("inf"))


def random_tree(rng, nodes: int, chain: bool):
    """Random recursive tree, nodes relabelled at random, every node a token; `chain` makes it deep."""
    parent = np.array([-1] + [k - 1 if chain else rng.integers(k) for k in range(1, nodes)])
    name = rng.permutation(nodes)
    shuffled = np.empty(nodes, dtype=int)
    shuffled[name] = np.where(parent >= 0, name[parent], -1)
    return shuffled, rng.uniform(0, 2, size=nodes)


@pytest.mark.parametrize("chain", [False, True])
def test_tree_with_tokens_inside(rng, chain):
    parent, weight = random_tree(rng, 60, chain)
    cost = TokenCost.tree(parent, weight, tokens=25)
    C = path_lengths(parent, weight)[:25, :25]
    np.testing.assert_allclose(cost.matrix().numpy(), C, rtol=1e-13, atol=1e-14)
    assert cost.diameter == pytest.approx(C.max(), rel=1e-13)
    assert cost.min_distance == pytest.approx(C[~np.eye(25, dtype=bool)].min(), rel=1e-12)


@pytest.mark.parametrize("chain", [False, True])
def test_subtree_and_ancestor_sums(rng, chain):
    """Against the 0/1 matrix written down node by node; the chain takes repeated squaring, the bushy tree does not."""
    parent, weight = random_tree(rng, 200, chain)
    tree = TokenCost.tree(parent, weight, tokens=120).rooted
    below = np.zeros((200, 120))
    for token in range(120):
        node = token
        while node >= 0:
            below[node, token], node = 1, parent[node]
    down = rng.normal(size=(120, 4))
    up = rng.normal(size=(200, 4))
    assert (len(tree._factors[0]) > 1) == chain
    np.testing.assert_allclose(tree.subtree_sums(torch.tensor(down)).numpy(), below @ down, atol=1e-13)
    np.testing.assert_allclose(tree.ancestor_sums(torch.tensor(up)).numpy(), below.T @ up, atol=1e-13)


# -- metric axioms -----------------------------------------------------------------------------------------------------
def test_the_violating_triple_is_named():
    with pytest.raises(NotAMetricError, match=r"cost\[0, 2\] = 5 > .* = 2: the triple \(0, 1, 2\)") as caught:
        TokenCost.dense(SHORTCUT).check_metric()
    i, j, k = caught.value.tokens
    assert SHORTCUT[i, k] > SHORTCUT[i, j] + SHORTCUT[j, k]


def test_one_planted_violation_is_found(rng):
    C = torch.cdist(*(2 * [torch.tensor(rng.normal(size=(30, 3)))])).numpy().copy()
    np.fill_diagonal(C, 0)
    C = (C + C.T) / 2
    TokenCost.dense(C).check_metric()  # the control: without the plant it passes
    C[4, 17] = C[17, 4] = 1.001 * np.delete(C[4] + C[17], [4, 17]).min()
    with pytest.raises(NotAMetricError) as caught:
        TokenCost.dense(C).check_metric()
    i, j, k = caught.value.tokens
    assert {i, k} == {4, 17}
    assert C[i, k] > C[i, j] + C[j, k]


def test_a_violation_in_a_later_block_is_found(monkeypatch):
    monkeypatch.setattr(axioms, "_CHUNK", 40)
    C = abs(np.subtract.outer(np.arange(20.0), np.arange(20.0)))
    TokenCost.dense(C).check_metric()
    C[18, 19] = C[19, 18] = 3.5
    with pytest.raises(NotAMetricError) as caught:
        TokenCost.dense(C).check_metric()
    i, j, k = caught.value.tokens
    assert {i, k} == {18, 19}
    assert C[i, k] > C[i, j] + C[j, k]


def test_every_triple_is_looked_at(rng):
    """Against the definition, V³ sums: random symmetric matrices of which about half are metrics."""
    found = []
    for _ in range(60):
        C = rng.uniform(1, 2.8, size=(5, 5))
        C = np.triu(C, 1) + np.triu(C, 1).T
        metric = bool((C[:, None, :] <= C[:, :, None] + C[None, :, :] + 1e-12).all())
        try:
            TokenCost.dense(C).check_metric()
            found.append((metric, True))
        except NotAMetricError:
            found.append((metric, False))
    assert all(expected == passed for expected, passed in found)
    assert 5 < sum(expected for expected, _ in found) < 55


def test_diagonal_and_symmetry_are_named():
    with pytest.raises(NotAMetricError, match=r"cost\[1, 1\] = 1") as caught:
        TokenCost.dense([[0.0, 2.0], [2.0, 1.0]]).check_metric()
    assert caught.value.tokens == (1,)
    with pytest.raises(NotAMetricError, match="symmetric") as caught:
        TokenCost.dense([[0.0, 2.0], [1.0, 0.0]]).check_metric()
    assert caught.value.tokens == (0, 1)


def test_a_checked_metric_is_remembered():
    cost = TokenCost.dense(COSTS["tree"][1])
    assert not cost.is_metric
    cost.check_metric()
    assert cost.is_metric
    assert all(COSTS[name][0].is_metric for name in METRICS)


def test_squared_distances_are_refused_by_the_reduction():
    """On 0, 1, 2 the squared distance of the ends is 4 > 1 + 1; reducing would give 2 where transport costs 1."""
    cost = TokenCost.dense((np.arange(3)[:, None] - np.arange(3)) ** 2.0)
    with pytest.raises(NotAMetricError, match=r"triple \(0, 1, 2\)"):
        exact.reduced(np.array([-0.5, 0.0, 0.5]), cost)
    assert kd.w1([0.5, 0.5, 0.0], [0.0, 0.5, 0.5], cost).value == pytest.approx(1.0, rel=1e-14)  # not reduced there


def test_a_large_check_says_what_it_costs():
    with pytest.raises(ValueError, match=r"max_tokens=3"):
        TokenCost.dense(SHORTCUT).check_metric(max_tokens=2)


def test_an_absurd_matrix_is_refused():
    with pytest.raises(ValueError, match=r"74\.5 GiB"):
        TokenCost.zero_one(100_000).matrix()
    with pytest.raises(ValueError, match="above 2 GiB"):
        TokenCost.embedding(np.ones((20_000, 1))).block(slice(None), slice(None))


# -- symmetry ----------------------------------------------------------------------------------------------------------
def test_symmetry_is_known_or_computed():
    assert all(COSTS[name][0].is_symmetric for name in METRICS)
    assert not COSTS["dense"][0].is_symmetric
    squared = TokenCost.dense(COSTS["line"][1] ** 2)  # symmetric, no metric
    assert squared.is_symmetric
    assert not squared.is_metric
    skew = COSTS["line"][1].copy()
    skew[0, 1] *= 1 + 1e-9
    assert not TokenCost.dense(skew).is_symmetric


# -- controls of experiments -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", COSTS)
def test_permuted_tokens(name, rng):
    cost, _ = COSTS[name]
    order = rng.permutation(6)
    other, C = cost.permuted(order), cost.matrix()
    assert other.kind == cost.kind
    assert other.is_metric == cost.is_metric
    # path lengths of a tree are sums along another order of nodes: one rounding per edge
    torch.testing.assert_close(other.matrix(), C[order][:, order], rtol=1e-15, atol=1e-15 if name == "tree" else 0)
    assert (other.diameter, other.min_distance) == pytest.approx((cost.diameter, cost.min_distance), rel=1e-14)
    torch.testing.assert_close(other.permuted(np.argsort(order)).matrix(), C, rtol=1e-15, atol=1e-15)
    # control: the inverse permutation is another cost (but for the 0-1 cost, which every permutation leaves as it is)
    inverse = np.argsort(order)
    assert torch.allclose(other.matrix(), C[inverse][:, inverse]) == (name == "zero_one")


def test_permuting_tokens_of_both_sides_changes_nothing(rng):
    p, q = rng.dirichlet(np.ones(6), size=2)
    order = rng.permutation(6)
    for cost, _ in COSTS.values():
        value = kd.w1(p, q, cost).value
        assert kd.w1(p[order], q[order], cost.permuted(order)).value == pytest.approx(value, rel=1e-12)
    assert abs(kd.w1(p[order], q[order], COSTS["line"][0]).value - kd.w1(p, q, COSTS["line"][0]).value) > 1e-2


def test_a_permuted_tree_keeps_its_inner_nodes():
    cost = TokenCost.tree(PARENT, WEIGHT).permuted([5, 4, 3, 2, 1, 0])
    np.testing.assert_array_equal(cost.rooted.parent[6:], PARENT[6:])
    inside = TokenCost.tree([-1, 0, 1], [0.0, 1.0, 2.0], tokens=3).permuted([2, 0, 1])  # tokens are inner nodes too
    np.testing.assert_array_equal(inside.matrix(), [[0.0, 3.0, 2.0], [3.0, 0.0, 1.0], [2.0, 1.0, 0.0]])


def test_a_checked_metric_stays_one_when_permuted():
    cost = TokenCost.dense(COSTS["tree"][1])
    assert not cost.permuted(range(6)).is_metric
    cost.check_metric()
    assert cost.permuted(range(6)).is_metric


@pytest.mark.parametrize("dim", [1, 2, 16])
def test_a_random_metric_has_the_scale_that_is_asked_for(dim, rng):
    """Distances of 400 points scatter by at most 0.8 · scale, and their mean by about a twentieth of that."""
    cost = TokenCost.random_metric(400, rng, scale=3.0, dim=dim)
    off = cost.matrix()[~np.eye(400, dtype=bool)]
    assert float(off.mean()) == pytest.approx(3.0, rel=0.1)
    assert cost.is_metric
    assert cost.kind == "embedding"
    TokenCost.dense(cost.block(slice(60), slice(60))).check_metric()
    assert float(off.std() / off.mean()) == pytest.approx(1 / np.sqrt(2 * dim), rel=0.35 if dim < 3 else 0.1)


def test_a_random_metric_is_the_generators():
    a, b = (TokenCost.random_metric(9, np.random.default_rng(3)).matrix() for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, TokenCost.random_metric(9, np.random.default_rng(4)).matrix())


# -- input -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TokenCost.zero_one(0), "V = 0"),
        (lambda: TokenCost.zero_one(2.5), "V = 2.5"),
        (lambda: TokenCost.line([0.0, np.nan]), r"x\[1\] = nan"),
        (lambda: TokenCost.line([[0.0, 1.0]]), r"x has shape \(1, 2\)"),
        (lambda: TokenCost.line([]), "x has shape"),
        (lambda: TokenCost.embedding([[1.0, np.inf]]), r"E\[0, 1\] = inf"),
        (lambda: TokenCost.embedding(POINTS, metric="dot"), 'metric = \'dot\': "euclidean" or "cosine"'),
        (lambda: TokenCost.embedding([[1.0], [0.0]], metric="cosine"), r"E\[1\] is zero"),
        (lambda: TokenCost.dense([[0.0, -1.0], [1.0, 0.0]]), r"C\[0, 1\] = -1"),
        (lambda: TokenCost.dense([[0.0, 1.0]]), r"C has shape \(1, 2\)"),
        (lambda: TokenCost.tree([2, 2, -1], [1.0, 1.0]), r"parent has shape \(3,\)"),
        (lambda: TokenCost.tree([2.0, 2.0, -1.0], [1.0, 1.0, 0.0]), "parent integer"),
        (lambda: TokenCost.tree([2, 3, -1], [1.0, 1.0, 0.0]), r"parent\[1\] = 3"),
        (lambda: TokenCost.tree([2, -1, -1], [1.0, 1.0, 0.0]), r"parent\[1\] and parent\[2\] are both -1"),
        (lambda: TokenCost.tree([1, 0, -1], [1.0, 1.0, 0.0]), "from node 0 never reaches a root"),
        (lambda: TokenCost.tree([0], [0.0]), "from node 0 never reaches a root"),
        (lambda: TokenCost.tree([2, 2, -1], [1.0, -1.0, 0.0]), r"weight\[1\] = -1"),
        (lambda: TokenCost.tree([-1, 0, 0], [0.0, 1.0, 1.0]), "node 2 is a leaf"),
        (lambda: TokenCost.tree(PARENT, WEIGHT, tokens=11), "tokens = 11"),
        (lambda: TokenCost.zero_one(3).permuted([0, 1]), r"permutation has shape \(2,\)"),
        (lambda: TokenCost.zero_one(2).permuted([0.0, 1.0]), "float64"),
        (lambda: TokenCost.zero_one(3).permuted([0, 2, 2]), r"permutation\[2\] = 2 appears twice"),
        (lambda: TokenCost.line([0.0, 1.0]).permuted([1, 2]), r"permutation\[1\] = 2 is not a token 0\.\.1"),
        (lambda: TokenCost.line([0.0, 1.0]).permuted([-1, 0]), r"permutation\[0\] = -1 is not a token"),
        (lambda: TokenCost.random_metric(0, np.random.default_rng(0)), "V = 0"),
        (lambda: TokenCost.random_metric(3, np.random.default_rng(0), scale=0.0), "scale = 0.0"),
        (lambda: TokenCost.random_metric(3, np.random.default_rng(0), dim=0), "dim = 0"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_costs_do_not_alias_their_input():
    C = np.array([[0.0, 1.0], [1.0, 0.0]])
    cost = TokenCost.dense(C)
    C[0, 1] = 9.0
    assert cost.matrix()[0, 1] == 1.0
