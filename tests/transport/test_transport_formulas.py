"""Single formulas of the transport library that values and gradients elsewhere do not depend on strongly enough."""

import warnings

import numpy as np
import pytest
import torch

import kdtheory as kd
from kdtheory import TokenCost
from kdtheory.transport.entropic import SinkhornWarning, kernels, problem, scaling


@pytest.mark.parametrize("transpose", [False, True])
def test_a_cost_of_ones_own_is_read_by_rows_and_by_columns(transpose, rng):
    cost = rng.uniform(0, 3, size=(4, 5, 5))
    x, h = rng.normal(size=(2, 4, 5))
    kernel = kernels.PerRow(torch.from_numpy(cost), 0.7)
    exponents = x[:, None, :] - (np.swapaxes(cost, 1, 2) if transpose else cost) / 0.7
    weights = np.exp(exponents)
    found = kernel.log_sums(torch.from_numpy(x), transpose)
    np.testing.assert_allclose(found, np.log(weights.sum(2)), rtol=1e-13)
    mean = (weights * h[:, None, :]).sum(2) / weights.sum(2)
    np.testing.assert_allclose(kernel.means(torch.from_numpy(x), torch.from_numpy(h), transpose), mean, atol=1e-13)


def _unfinished(p, q, cost, epsilon, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SinkhornWarning)
        return kd.sinkhorn(p, q, cost, epsilon, max_iter=3, **arguments)


def _repaired(p, q, found, C, epsilon):
    """Cost of the potentials' plan, rows cut down to p, and the largest cost for what is then missing."""
    f, g = found.potentials
    plan = p[:, None] * q * np.exp((f[:, None] + g - C) / epsilon)
    rows = plan.sum(1)
    np.testing.assert_allclose(plan.sum(0), q, atol=1e-13)
    assert (rows > p * 1.01).any()  # there is something to cut
    kept = np.minimum(1, np.divide(p, rows, out=np.ones(len(p)), where=rows > 0))
    return (kept * (plan * C).sum(1)).sum() + np.maximum(p - rows, 0).sum() * C.max()


def test_upper_bound_is_the_cost_of_the_repaired_plan(rng):
    p, q = rng.dirichlet(np.ones(6), size=2)
    C = rng.uniform(0, 1, size=(6, 6))
    found = _unfinished(p, q, TokenCost.dense(C), 0.05)
    assert found.upper == pytest.approx(_repaired(p, q, found, C, 0.05), rel=1e-10)


def test_bounds_of_the_reduced_form_are_of_the_size_of_the_mass_that_moves(rng):
    points, p = rng.normal(size=(6, 2)), rng.dirichlet(np.ones(6))
    cost = TokenCost.embedding(points)
    q = 0.98 * p + 0.02 * rng.dirichlet(np.ones(6))
    mass = np.abs(p - q).sum() / 2
    supply, demand = np.maximum(p - q, 0) / mass, np.maximum(q - p, 0) / mass
    C, epsilon = cost.matrix().numpy(), 0.02 * cost.diameter
    found = _unfinished(p, q, cost, epsilon, form="reduced")
    assert found.upper == pytest.approx(mass * _repaired(supply, demand, found, C, epsilon), rel=1e-9)
    f = (C - found.potentials.g)[:, demand > 0].min(1)
    assert found.lower == pytest.approx(max(0.0, mass * (supply - demand) @ f), rel=1e-9)


def test_sweeps_are_relaxed_as_much_as_their_rate_asks_for():
    """At a factor ω the rate λ solves (λ + ω - 1)² = λ ω² ρ, ρ the rate of plain sweeps; 2/(1 + √(1 - ρ)) is best."""
    plain, omega = np.array([0.75, 0.9, 0.99]), 1.3
    b = 2 * (omega - 1) - omega**2 * plain
    rate = (-b + np.sqrt(b**2 - 4 * (omega - 1) ** 2)) / 2  # the larger root
    rate = np.append(rate, [0.2, 1.1])  # no slower than ω - 1; and none
    even = torch.zeros(5, 2, dtype=torch.float64)
    rows = scaling._Rows(kernels.PerRow(torch.ones(5, 2, 2).double(), 1.0), even, even, even, even, 1e-9)
    rows.omega = torch.full((5, 1), omega, dtype=torch.float64)
    rows.before = torch.ones(5, dtype=torch.float64)
    rows.error = torch.from_numpy(rate**scaling._RATE_OVER)
    rows.adapt()
    best = 2 / (1 + np.sqrt(1 - plain))
    best[2] = (omega + scaling._LARGEST) / 2  # not farther than half way to the largest at once
    np.testing.assert_allclose(rows.omega[:3, 0], best, rtol=1e-12)
    assert (rows.omega[3:] < omega).all()  # no faster than ω allows, or not at all: ω gives way
    assert (rows.omega[3:] > 1).all()


def test_epsilon_scaling_saves_sweeps(rng, monkeypatch):
    cost = TokenCost.line(np.arange(30.0))
    p, q = rng.dirichlet(np.ones(30), size=(2, 6))
    warm = kd.sinkhorn(p, q, cost, cost.diameter / 500)
    monkeypatch.setattr(problem, "_WARM_UP_PAST", np.inf)
    cold = kd.sinkhorn(p, q, cost, cost.diameter / 500)
    assert warm.iterations.sum() < cold.iterations.sum()
    np.testing.assert_allclose(warm.value, cold.value, atol=1e-7)


@pytest.mark.parametrize("k", [2, 4, 6])
def test_top_k_takes_the_better_of_both_extensions(k, rng):
    chosen = set()
    for _ in range(8):
        points = rng.normal(size=(9, 2))
        cost = np.linalg.norm(points[:, None] - points, axis=-1)
        p, q = rng.dirichlet(np.ones(9), size=2)
        found = kd.w1_topk(p, q, TokenCost.embedding(points), k)
        kept = np.sort(np.argsort(-np.abs(q - p))[:k])
        g = found.potentials.g[kept]
        duals = [(q - p) @ (g + cost[:, kept]).min(1), (q - p) @ (g - cost[:, kept]).max(1)]
        assert found.lower == pytest.approx(max(*duals, 0.0), abs=1e-12)
        chosen.add(int(np.argmax(duals)))
    assert chosen == {0, 1}


def test_sinkd_gives_each_position_the_share_of_its_teacher(rng):
    p, q = rng.dirichlet(np.ones(5), size=(2, 4))
    cost = np.abs(p[:, None] - q).sum(-1)
    plan = np.exp(-cost / 0.1)
    for _ in range(3):
        plan = plan / plan.sum(0)
        plan = plan / plan.sum(1, keepdims=True)
    loss = kd.divergence("sinkd", temperature=1.0, epsilon=0.1, iterations=3)
    np.testing.assert_allclose(loss.value(p, q), (plan * cost).sum(1), rtol=1e-12)
