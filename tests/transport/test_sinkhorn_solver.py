"""How the iteration behaves: precision, kernels, stopping, bounds."""

import warnings

import numpy as np
import pytest
import torch

import kdtheory as kd
from kdtheory import TokenCost
from kdtheory.transport.entropic import SinkhornWarning, kernels, scaling
from kdtheory.transport.entropic.evaluate import per_row
from tests.transport import entropic_oracle as oracle

CPU = torch.device("cpu")


def problem(rng, rows=20, V=40, scale=3.0):
    """Peaked laws over clustered embeddings of diameter 1: rows that converge at very different speeds."""
    E = rng.normal(size=(5, 4))[rng.integers(5, size=V)] + 0.3 * rng.normal(size=(V, 4))
    E /= TokenCost.embedding(E).diameter
    teacher = scale * rng.normal(size=(rows, V))
    student = teacher + rng.normal(size=(rows, V))
    return TokenCost.embedding(E), *(kd.simplex.softmax(z) for z in (teacher, student))


def plans(found, p, q, cost, epsilon):
    f, g = found.potentials
    C = cost.matrix().numpy()
    return p[:, :, None] * np.exp((f[:, :, None] + g[:, None] - C) / epsilon) * q[:, None]


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("epsilon", [0.3, 0.03])
def test_reported_marginal_errors_hold(precision, epsilon, rng):
    cost, p, q = problem(rng)
    found = kd.sinkhorn(p, q, cost, epsilon, precision=precision)
    assert found.converged.all()
    rows = abs(plans(found, p, q, cost, epsilon).sum(2) - p).sum(1)
    columns = abs(plans(found, p, q, cost, epsilon).sum(1) - q).sum(1)
    rounding = {"float64": 1e-12, "float32": 3e-6, "bfloat16": 3e-6}[precision]  # of the potentials, times 1/ε
    assert (rows <= found.marginal_error + rounding / epsilon).all()
    assert (columns <= rounding / epsilon).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_lower_precisions_agree_with_float64(precision, rng):
    cost, p, q = problem(rng)
    exact = kd.sinkhorn(p, q, cost, 0.05).value
    found = kd.sinkhorn(p, q, cost, 0.05, precision=precision).value
    np.testing.assert_allclose(found, exact, atol=3e-5)  # tol 1e-5 times the range of the potentials


def test_autocast_does_not_reach_the_products(rng):
    cost, p, q = problem(rng)
    expected = kd.sinkhorn(p, q, cost, 0.05, precision="float32")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = kd.sinkhorn(p, q, cost, 0.05, precision="float32")
    assert found.converged.all()
    np.testing.assert_array_equal(found.value, expected.value)


def test_float32_leaves_its_range_to_float64(rng):
    cost, p, q = problem(rng)
    assert kernels.shared(cost, 1 / 59, CPU, torch.float32).dtype == torch.float32
    assert kernels.shared(cost, 1 / 61, CPU, torch.float32).dtype == torch.float64
    found = kd.sinkhorn(p, q, cost, 1 / 200, precision="float32", tol=1e-5)
    expected = [
        oracle.value("relative", a, b, cost.matrix().numpy(), 1 / 200) for a, b in zip(p[:1], q[:1], strict=True)
    ]
    np.testing.assert_allclose(found.value[:1], expected, atol=1e-5)


def test_past_the_safe_range_sums_are_taken_in_logarithms(rng):
    cost, p, q = problem(rng, rows=2, V=8)
    epsilon = cost.diameter / 2000
    assert isinstance(kernels.shared(cost, epsilon, CPU, torch.float64), kernels.LogSum)
    found = kd.sinkhorn(p, q, cost, epsilon, "sharp")
    expected = [oracle.value("sharp", a, b, cost.matrix().numpy(), epsilon) for a, b in zip(p, q, strict=True)]
    np.testing.assert_allclose(found.value, expected, atol=1e-8)
    np.testing.assert_allclose(found.value, kd.w1(p, q, cost).value, atol=2e-3)


@pytest.mark.parametrize("make", [kernels.Streamed, kernels.LogSum, lambda *a: kernels.Streamed(*a, fast=True)])
@pytest.mark.parametrize("transpose", [False, True])
def test_all_kernels_give_the_same_sums(make, transpose, rng, monkeypatch):
    monkeypatch.setattr(kernels, "_BLOCK", 100)  # several blocks
    symmetric = TokenCost.embedding(rng.normal(size=(12, 3)))
    skew = TokenCost.dense(rng.uniform(size=(12, 12)))
    x, h = torch.from_numpy(rng.normal(size=(3, 12))), torch.from_numpy(rng.normal(size=(3, 12)))
    x[0, 4] = -torch.inf
    for cost in (symmetric, skew):
        C = (cost.matrix().T if transpose else cost.matrix())[None]
        weight = torch.exp(x[:, None] - C / 0.3)
        kernel = make(cost, 0.3, CPU, torch.float64)
        dense = kernels.Dense(cost, 0.3, CPU, torch.float64)
        for k in (kernel, dense):
            torch.testing.assert_close(k.log_sums(x, transpose), weight.sum(-1).log(), atol=1e-12, rtol=0)
            mean = (weight * h[:, None]).sum(-1) / weight.sum(-1)
            torch.testing.assert_close(k.means(x, h, transpose), mean, atol=1e-12, rtol=0)
            mean = (weight * C).sum(-1) / weight.sum(-1)
            torch.testing.assert_close(k.mean_costs(x, transpose), mean, atol=1e-12, rtol=0)


def test_a_matrix_that_does_not_fit_is_never_made(rng, monkeypatch):
    cost, p, q = problem(rng, rows=3)
    expected = kd.sinkhorn(p, q, cost, 0.05, "sharp")
    monkeypatch.setattr(kernels, "MAX_BYTES", 1000)
    assert isinstance(kernels.shared(cost, 0.05, CPU, torch.float64), kernels.Streamed)
    found = kd.sinkhorn(p, q, cost, 0.05, "sharp")
    np.testing.assert_allclose(found.value, expected.value, atol=1e-9)
    np.testing.assert_allclose(found.upper, expected.upper, atol=1e-9)


def test_stopping_early_is_never_silent(rng):
    cost, p, q = problem(rng)
    with pytest.warns(SinkhornWarning, match=r"rows have not converged in max_iter = 3 sweeps; row \d+ misses"):
        found = kd.sinkhorn(p, q, cost, 0.01, max_iter=3)
    assert not found.converged.all()
    assert (found.marginal_error[~found.converged] > 1e-9).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kd.sinkhorn(p, q, cost, 0.3)


@pytest.mark.parametrize("max_iter", [1, 5, 10_000])
@pytest.mark.parametrize("form", ["full", "reduced"])
def test_the_interval_holds_converged_or_not(max_iter, form, rng):
    cost, p, q = problem(rng)
    p[0, 3] = q[1, 4] = 0
    p, q = (x / x.sum(1, keepdims=True) for x in (p, q))
    exact = kd.w1(p, q, cost).value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SinkhornWarning)
        found = kd.sinkhorn(p, q, cost, 0.02, form=form, max_iter=max_iter, precision="float32")
    assert (found.lower <= exact + 1e-12).all()
    assert (found.upper >= exact - 1e-12).all()


def test_the_interval_narrows_with_epsilon_and_needs_no_metric(rng):
    p, q = rng.dirichlet(np.ones(10), 3), rng.dirichlet(np.ones(10), 3)
    cost = TokenCost.dense(rng.uniform(size=(10, 10)))
    exact, widths = kd.w1(p, q, cost).value, []
    for epsilon in (0.3, 0.03, 0.003):
        found = kd.sinkhorn(p, q, cost, epsilon)
        assert (found.lower <= exact + 1e-12).all()
        assert (found.upper >= exact - 1e-12).all()
        widths.append((found.upper - found.lower).max())
    assert widths[0] > widths[1] > widths[2]
    assert widths[2] < 0.02


def test_over_relaxation_saves_sweeps_and_changes_nothing(rng, monkeypatch):
    cost, p, q = problem(rng)
    fast = kd.sinkhorn(p, q, cost, 0.01)
    monkeypatch.setattr(scaling, "_FIRST", 1.0)
    monkeypatch.setattr(scaling, "_LARGEST", 1.0)
    plain = kd.sinkhorn(p, q, cost, 0.01)
    np.testing.assert_allclose(fast.value, plain.value, atol=1e-9)
    assert fast.iterations.sum() < 0.6 * plain.iterations.sum()


def test_any_first_factor_converges_under_the_safeguard(rng, monkeypatch):
    """From a far start ω = 1.95 overshoots; without the safeguard it blows up, with it the dual climbs."""
    cost, p, q = problem(rng, scale=8.0)
    monkeypatch.setattr(scaling, "_FIRST", 1.95)
    monkeypatch.setattr(scaling._Rows, "adapt", lambda self: None)
    assert kd.sinkhorn(p, q, cost, 0.05, max_iter=5000).converged.all()


def test_the_dual_never_falls(rng):
    cost, p, q = problem(rng, rows=6, scale=6.0)
    log_p, log_q = (torch.from_numpy(x).log() for x in (p, q))
    kernel = kernels.Dense(cost, 0.02, CPU, torch.float64)
    rows = scaling._Rows(kernel, log_p, log_q, torch.zeros_like(log_p), torch.zeros_like(log_q), 1e-9)
    rows.omega = torch.full_like(rows.omega, 1.9)
    C = cost.matrix().numpy()

    def dual():
        phi, psi = rows.phi.numpy(), rows.psi.numpy()
        mass = (p[:, :, None] * np.exp(phi[:, :, None] + psi[:, None] - C / 0.02) * q[:, None]).sum((1, 2))
        return (p * phi).sum(1) + (q * psi).sum(1) - mass

    before = dual()
    for _ in range(40):
        rows.sweep()
        after = dual()
        assert (after >= before - 1e-10).all()  # rounding of sums of order 10
        before = after


def test_epsilon_scaling_reaches_the_same_answer_sooner(rng, monkeypatch):
    from kdtheory.transport.entropic import problem as solving

    cost, p, q = problem(rng, rows=5)
    epsilon = cost.diameter / 500
    warm = kd.sinkhorn(p, q, cost, epsilon)
    monkeypatch.setattr(solving, "_WARM_UP_PAST", np.inf)
    cold = kd.sinkhorn(p, q, cost, epsilon)
    np.testing.assert_allclose(warm.value, cold.value, atol=1e-8)
    assert warm.converged.all()


def test_rows_do_not_touch_each_other(rng):
    """A row solved in a batch is the row solved alone."""
    cost, p, q = problem(rng, rows=5)
    together = kd.sinkhorn(p, q, cost, 0.05)
    for i in range(5):
        alone = kd.sinkhorn(p[i], q[i], cost, 0.05)
        assert alone.value == pytest.approx(together.value[i], abs=1e-9)
        assert abs(alone.iterations - together.iterations[i]) <= 16  # two estimates of the rate: rounding decides them


def test_per_row_costs_are_the_shared_solver_on_each_pair(rng):
    cost, p, q = problem(rng, rows=4, V=10)
    difference = torch.from_numpy(q - p)
    C = cost.matrix().expand(4, 10, 10).contiguous()
    for epsilon in (0.1, 0.01):
        found = per_row(C, difference, epsilon, "sharp", tol=1e-10)
        expected = kd.sinkhorn(p, q, cost, epsilon, "sharp", form="reduced")
        np.testing.assert_allclose(found.value(), expected.value, atol=1e-8)
    with pytest.raises(ValueError, match=r"epsilon = 0\.0001"):
        per_row(C, difference, 1e-4)


def test_the_error_of_a_self_problem_bounds_its_rows(rng):
    """Two tokens, one of them rare, stopped after two sweeps: the last half step can add to the misfit of rows."""
    cost = TokenCost.zero_one(2)
    q = torch.tensor([[0.999, 0.001]], dtype=torch.float64)
    kernel = kernels.Dense(cost, 0.3, CPU, torch.float64)
    for sweeps in (1, 2, 3, 5):
        state = scaling.solve_symmetric(kernel, q.log(), 1e-12, sweeps)
        plan = (q * state.phi.exp()).T * kernel.K * (q * state.psi.exp())
        torch.testing.assert_close(plan.sum(0), q[0], atol=1e-14, rtol=0)
        assert (plan.sum(1) - q[0]).abs().sum() <= state.error


def _sweeps_in_float32():
    """Two rows on 2048 tokens whose over-relaxed error, in float32, has its floor above the tolerance."""
    from tests.benchmarks import bench_sinkhorn

    p, q, cost, _ = bench_sinkhorn.problem(32, 2048)
    found = kd.sinkhorn(
        p[[8, 29]], q[[8, 29]], cost, 0.05, functional="sharp", tol=5e-6, precision="float32", max_iter=300
    )
    assert found.converged.all()
    return found.iterations.max()


def test_over_relaxation_ends_where_it_only_amplifies_rounding(monkeypatch):
    assert _sweeps_in_float32() < 150
    monkeypatch.setattr(scaling, "_QUIET", 0.0)  # the control: without the cap they hover until the sweeps are spent
    assert _sweeps_in_float32() == 300
