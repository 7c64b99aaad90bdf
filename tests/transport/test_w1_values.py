"""`w1` against linear programs, scipy's one-dimensional distance, total variation and POT; bounds and potentials."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch
from scipy.stats import wasserstein_distance

import kdtheory as kd
from kdtheory import TokenCost
from tests.transport.cases import COSTS, FAMILIES, METRICS, POSITIONS, label, linear_program, probabilities

LP = 1e-7  # HiGHS' feasibility tolerance, times costs of order 1


def random_pairs(rng, count: int, V: int, scale: float = 2.0):
    return (kd.simplex.softmax(scale * rng.normal(size=(count, V)), axis=-1) for _ in range(2))


@pytest.mark.parametrize("pair", FAMILIES, ids=label)
@pytest.mark.parametrize("name", COSTS)
def test_against_the_linear_program(name, pair):
    cost, C = COSTS[name]
    p, q = probabilities(pair)
    found = kd.w1(p, q, cost)
    assert found.value == pytest.approx(linear_program(p, q, C), abs=LP)


def test_rows_are_the_teacher(rng):
    """Control: with an asymmetric cost the transposed one must give another value."""
    cost, C = COSTS["dense"]
    p, q = (x[0] for x in random_pairs(rng, 1, 6))
    assert abs(kd.w1(p, q, cost).value - linear_program(p, q, C.T)) > 1e-2
    assert kd.w1(q, p, TokenCost.dense(C.T)).value == pytest.approx(kd.w1(p, q, cost).value, rel=1e-12)


def test_zero_one_is_total_variation(rng):
    p, q = random_pairs(rng, 20, 50)
    found = kd.w1(p, q, TokenCost.zero_one(50)).value
    np.testing.assert_allclose(found, 0.5 * abs(p - q).sum(-1), rtol=1e-13)
    assert (abs(found - abs(p - q).sum(-1)) > 1e-2).all()  # control: without the factor ½


def test_line_is_scipys_distance(rng):
    x = np.round(rng.normal(size=80), 1)  # with ties
    p, q = random_pairs(rng, 20, 80)
    expected = [wasserstein_distance(x, x, a, b) for a, b in zip(p, q, strict=True)]
    np.testing.assert_allclose(kd.w1(p, q, TokenCost.line(x)).value, expected, rtol=1e-12)
    unsorted = [abs(np.cumsum(a - b)[:-1]) @ abs(np.diff(x)) for a, b in zip(p, q, strict=True)]
    assert not np.allclose(unsorted, expected, rtol=0.1)  # control: forgetting to sort


def test_tree_is_the_network_simplex(rng):
    parent, weight = kd.transport.tree_from_embedding(rng.normal(size=(60, 4)))
    cost = TokenCost.tree(parent, weight)
    p, q = random_pairs(rng, 8, 60)
    expected = [ot.emd2(a, b / b.sum() * a.sum(), cost.matrix().numpy()) for a, b in zip(p, q, strict=True)]
    np.testing.assert_allclose(kd.w1(p, q, cost).value, expected, rtol=1e-11)
    wrong = TokenCost.tree(parent, np.where(weight == weight.max(), 0.0, weight))  # control: one edge dropped
    assert not np.allclose(kd.w1(p, q, wrong).value, expected, rtol=1e-3)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_embedding_is_the_network_simplex_on_the_full_problem(rng, metric):
    """POT solves the unreduced problem: a check of the reduction too."""
    cost = TokenCost.embedding(rng.normal(size=(60, 4)), metric=metric)
    p, q = random_pairs(rng, 8, 60, scale=3.0)
    expected = [ot.emd2(a, b / b.sum() * a.sum(), cost.matrix().numpy()) for a, b in zip(p, q, strict=True)]
    np.testing.assert_allclose(kd.w1(p, q, cost).value, expected, rtol=1e-11)


def test_reducing_a_non_metric_would_be_wrong():
    """Control for the reduction: on squared distances it changes the value, and `w1` does not use it there."""
    x = np.arange(3.0)
    C = (x[:, None] - x) ** 2
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.0, 0.5, 0.5])
    assert kd.w1(p, q, TokenCost.dense(C)).value == pytest.approx(1.0, rel=1e-14)
    assert linear_program(p, q, C) == pytest.approx(1.0, abs=LP)
    assert linear_program(np.array([0.5]), np.array([0.5]), C[:1, 2:]) == 2.0  # (p - q)₊ and (q - p)₊ alone


@pytest.mark.parametrize("pair", FAMILIES, ids=label)
@pytest.mark.parametrize("name", COSTS)
def test_bounds_enclose_and_potentials_are_feasible(name, pair):
    """1e-13 of the largest cost (at most 12 here): rounding of sums of a few terms."""
    cost, C = COSTS[name]
    p, q = probabilities(pair)
    found = kd.w1(p, q, cost)
    f, g = found.potentials
    assert found.lower <= found.value <= found.upper
    assert found.upper - found.lower <= 1e-12
    assert (f[:, None] + g - C).max() <= (3e-8 if name == "cosine" else 1e-13)  # scipy's cosine: see test_costs
    assert f @ p + g @ q == pytest.approx(found.value, abs=1e-12)


def test_infeasible_potentials_are_noticed():
    """Control: doubled potentials break f_i + g_j <= C_ij."""
    cost, C = COSTS["line"]
    f, g = kd.w1([0.7, 0.1, 0, 0.1, 0.1, 0], [0, 0, 0.5, 0.5, 0, 0], cost).potentials
    assert (2 * f[:, None] + 2 * g - C).max() > 0.1


@pytest.mark.parametrize("name", METRICS)
def test_zero_at_the_teacher(name, rng):
    p = kd.simplex.softmax(rng.normal(size=(3, 6)) * 5, axis=-1)
    p[0, 2:] = 0.0
    p[0] /= p[0].sum()
    found = kd.w1(p, p.copy(), COSTS[name][0])
    assert (found.value == 0).all()
    assert (found.upper == 0).all()
    assert (found.potentials.g == 0).all()


@pytest.mark.parametrize("name", COSTS)
def test_diracs_are_the_cost(name):
    cost, C = COSTS[name]
    for i in range(6):
        p = np.repeat(np.eye(6)[i : i + 1], 6, axis=0)
        np.testing.assert_allclose(kd.w1(p, np.eye(6), cost).value, C[i], atol=3e-8 if name == "cosine" else 1e-14)


@pytest.mark.parametrize("name", ["line", "embedding", "dense"])
def test_an_ulp_of_mass_does_no_harm(name, rng):
    cost, C = COSTS[name]
    p, q = (x[0] for x in random_pairs(rng, 1, 6))
    nudged = q.copy()
    nudged[0] = np.nextafter(q[0], 1)
    assert kd.w1(p, nudged, cost).value == pytest.approx(linear_program(p, q, C), abs=LP)
    assert kd.w1(p, p * (1 + 2e-16), cost).value == pytest.approx(linear_program(p, p, C), abs=LP)


def test_tiny_differences_keep_their_digits():
    """p and q differ by 1e-13 on two tokens: the value is 1e-13 times their distance, not noise of 1e-16."""
    p, q = np.full(6, 1 / 6), np.full(6, 1 / 6)
    q[0], q[3] = q[0] + 1e-13, q[3] - 1e-13
    moved = q[0] - p[0]
    for name in ("line", "embedding", "tree"):
        cost, C = COSTS[name]
        assert kd.w1(p, q, cost).value == pytest.approx(moved * C[0, 3], rel=2e-3)  # both sums are rounded at 1e-16


@pytest.mark.parametrize("name", COSTS)
def test_shapes_and_kinds(name, rng):
    cost, _ = COSTS[name]
    p, q = (x.reshape(2, 3, 6) for x in random_pairs(rng, 6, 6))
    whole = kd.w1(p, q, cost)
    assert isinstance(whole.value, np.ndarray)
    assert whole.value.shape == whole.lower.shape == whole.upper.shape == (2, 3)
    assert whole.potentials.f.shape == whole.potentials.g.shape == (2, 3, 6)
    np.testing.assert_array_equal(kd.w1(p[1], q[1], cost).value, whole.value[1])
    assert kd.w1(p[1, 2], q[1, 2], cost).value == whole.value[1, 2]
    assert kd.w1(p[:0], q[:0], cost).value.shape == (0, 3)
    as_torch = kd.w1(torch.tensor(p), torch.tensor(q), cost)
    np.testing.assert_array_equal(as_torch.value.numpy(), whole.value)
    single = kd.w1(p.astype(np.float32), q.astype(np.float32), cost)
    assert single.value.dtype == np.float64
    np.testing.assert_allclose(single.value, whole.value, atol=1e-6)  # inputs rounded by 6e-8, costs up to 8


@pytest.mark.parametrize(
    ("p", "q", "message"),
    [
        ([0.5, 0.6, 0, 0, 0, 0], [1.0, 0, 0, 0, 0, 0], r"p sums to 1\.1"),
        ([0.5, 0.5, 0, 0, 0, 0], [1.5, -0.5, 0, 0, 0, 0], r"q\[1\] = -0.5"),
        ([0.5, 0.5], [0.5, 0.5], "p has 2 tokens, cost = line"),
        ([0.5, 0.5, 0, 0, 0, 0], [1.0], "shape"),
    ],
)
def test_bad_input_is_named(p, q, message):
    with pytest.raises(ValueError, match=message):
        kd.w1(p, q, TokenCost.line(POSITIONS))


@pytest.mark.filterwarnings("ignore:numItermax")
def test_a_solver_that_stops_early_is_an_error(monkeypatch, rng):
    monkeypatch.setattr(kd.transport.exact, "_MAX_PIVOTS", 1)
    p, q = random_pairs(rng, 1, 6)
    with pytest.raises(RuntimeError, match="stopped early"):
        kd.w1(p, q, COSTS["embedding"][0])


def test_a_plan_that_misses_its_marginals_widens_the_upper_bound(monkeypatch, rng):
    """A solver that ships a tenth too little: the plan is too cheap, the upper bound must not be."""
    p, q = (x[0] for x in random_pairs(rng, 1, 6))
    cost = COSTS["embedding"][0]
    true = kd.w1(p, q, cost).value
    solve = ot.lp.emd

    def short(*arguments, **options):
        plan, log = solve(*arguments, **options)
        return 0.9 * plan, log

    monkeypatch.setattr(ot.lp, "emd", short)
    found = kd.w1(p, q, cost)
    assert found.value < 0.95 * true
    assert found.upper >= true
