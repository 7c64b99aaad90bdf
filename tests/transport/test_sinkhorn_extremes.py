"""Entropic transport where it is hard: extreme ε, costs, masses and batches; what is promised holds or is refused."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import ot
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import kdtheory as kd
from kdtheory import TokenCost
from kdtheory.transport import SinkhornWarning
from tests.transport import entropic_oracle as oracle

V = 6
FUNCTIONALS = ["relative", "entropic", "sharp", "divergence"]


def scene(rng, rows: int = 2, tokens: int = V, alpha: float = 1.0):
    p, q = (rng.dirichlet(np.full(tokens, alpha), size=rows) for _ in range(2))
    return p, q, TokenCost.embedding(rng.normal(size=(tokens, 2)))


def exact(p, q, cost) -> np.ndarray:
    return np.array([ot.emd2(a / a.sum(), b / b.sum(), cost.matrix().numpy()) for a, b in zip(p, q, strict=True)])


# -- ε -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("functional", FUNCTIONALS)
@pytest.mark.parametrize("relative", [10.0, 1e3, 1e6])
def test_a_large_epsilon_loses_no_digits(functional, relative, rng):
    p, q, cost = scene(rng)
    epsilon = relative * cost.diameter
    expected = [oracle.value(functional, *row, cost.matrix().numpy(), epsilon) for row in zip(p, q, strict=True)]
    # ε times 1e-15 of rounding, and the second order of a marginal error of 1e-9
    found = kd.sinkhorn(p, q, cost, epsilon, functional).value
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-9 * cost.diameter + 1e-15 * epsilon)
    # float32 would lose ε · 1e-7
    found = kd.sinkhorn(p, q, cost, epsilon, functional, precision="float32").value
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=3e-6 * cost.diameter)


@pytest.mark.parametrize("relative", [1e-6, 1e-8])
@pytest.mark.parametrize("form", ["full", "reduced"])
def test_a_tiny_epsilon_is_the_limit_within_its_interval(relative, form, rng):
    p, q, cost = scene(rng)
    found = kd.sinkhorn(p, q, cost, relative * cost.diameter, "sharp", form)
    assert found.converged.all()
    right = exact(p, q, cost)
    np.testing.assert_allclose(found.value, right, atol=1e-6 * cost.diameter)
    assert (found.lower <= right + 1e-12).all()
    assert (right <= found.upper + 1e-12).all()


@pytest.mark.parametrize("form", ["full", "reduced"])
def test_where_the_potentials_are_coarse_the_interval_still_holds(form, rng):
    """max C/ε = 1e12: entries of the plan are rounded by 1e-4, its normalised columns are not."""
    for _ in range(6):
        p, q, cost = scene(rng, rows=4)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SinkhornWarning)
            found = kd.sinkhorn(p, q, cost, 1e-12 * cost.diameter, "sharp", form, max_iter=60)
        right = exact(p, q, cost)
        assert (found.lower <= right + 1e-12).all()
        assert (right <= found.upper + 1e-12).all()


def test_an_epsilon_without_digits_is_refused(rng):
    p, q, cost = scene(rng)
    with pytest.raises(ValueError, match=r"epsilon = .* 1e\+300 times smaller than the largest cost.*kdtheory\.w1"):
        kd.sinkhorn(p, q, cost, 1e-300 * cost.diameter)
    with pytest.raises(ValueError, match=r"epsilon = .* smaller than the largest cost"):
        kd.divergence("sinkhorn", cost=cost, epsilon=1e-300)
    with pytest.raises(ValueError, match=r"tol = 1e-09: float64 reaches 8\.9e-06 at epsilon"):
        kd.sinkhorn(p, q, cost, 1e-10 * cost.diameter, tol=1e-9)
    with pytest.raises(ValueError, match=r"tol = 1e-13: float64 reaches .*; raise either"):
        kd.sinkhorn(p, q, cost, 1e-3 * cost.diameter, tol=1e-13)
    with pytest.raises(ValueError, match=r"tol = 1e-14: float64 reaches 1e-13 at best; raise it$"):
        kd.sinkhorn(p, q, cost, cost.diameter, tol=1e-14)


# -- costs -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("functional", FUNCTIONALS)
@pytest.mark.parametrize("scale", [1e-311, 1e-300, 1e300, 1e307])
def test_units_of_cost_do_not_matter(functional, scale, rng):
    p, q, _ = scene(rng)
    C = rng.uniform(0, 1, size=(V, V))
    C /= C.max()
    C = C + C.T
    small, large = (kd.sinkhorn(p, q, TokenCost.dense(C * x), 0.1 * x, functional) for x in (1.0, scale))
    # 1e-9: marginals of 1e-9; subnormal costs keep 13 bits at 1e-311
    close = 1e-9 if scale > 1e-308 else 1e-3
    np.testing.assert_allclose(large.value / scale, small.value, rtol=close, atol=close)
    np.testing.assert_allclose(large.lower / scale, small.lower, rtol=close, atol=close)
    if scale < 1e307:  # the sum of all that is moved may leave the floats there; an upper bound all the same
        np.testing.assert_allclose(large.upper / scale, small.upper, rtol=close, atol=close)


@pytest.mark.parametrize("functional", FUNCTIONALS)
@pytest.mark.parametrize(("form", "tokens"), [("full", V), ("reduced", V), ("full", 1), ("reduced", 1)])
def test_tokens_that_all_coincide(functional, form, tokens, rng):
    if form == "reduced" and functional in ("entropic", "divergence"):
        pytest.skip("refused")
    p, q, _ = scene(rng, tokens=tokens)
    found = kd.sinkhorn(p, q, TokenCost.embedding(np.ones((tokens, 2))), 0.1, functional, form)
    entropies = sum(0.1 * (x * np.log(x)).sum(-1) for x in (p, q)) if functional == "entropic" else 0.0
    np.testing.assert_allclose(found.value, entropies * np.ones(2), atol=1e-15)
    assert found.converged.all()
    np.testing.assert_allclose([found.lower, found.upper], 0, atol=1e-15)


def test_the_divergence_of_a_cost_that_is_not_symmetric(rng):
    p, q, _ = scene(rng, rows=4)
    C = rng.uniform(size=(V, V))
    found = kd.sinkhorn(p, q, TokenCost.dense(C), 0.1, "divergence")
    assert found.converged.all()
    expected = [oracle.value("divergence", *row, C, 0.1) for row in zip(p, q, strict=True)]
    np.testing.assert_allclose(found.value, expected, atol=1e-8)
    with pytest.warns(SinkhornWarning):  # a self-problem that is late makes the row late
        late = kd.sinkhorn(p, q, TokenCost.dense(C), 0.1, "divergence", max_iter=3)
    assert not late.converged.any()


# -- masses ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", ["full", "reduced"])
def test_subnormal_masses_and_masses_next_to_one(form, rng):
    _, _, cost = scene(rng)
    p = np.array([[1.0, 1e-310, 0, 0, 1e-200, 0], [1 - 1e-16, *[2e-17] * 5]])
    q = np.array([[1e-310, 1.0, 1e-320, 0, 0, 0], [1 - 1e-16, 2e-16, *[2e-17] * 4]])
    for functional in ("relative", "sharp") if form == "reduced" else FUNCTIONALS:
        found = kd.sinkhorn(p, q, cost, 0.1, functional, form)
        assert found.converged.all()
        assert found.value[0] == pytest.approx(float(cost.matrix()[0, 1]), rel=1e-12)
        assert abs(found.value[1]) < 1e-14
        assert (found.lower <= exact(p, q, cost) + 1e-15).all()
        assert (exact(p, q, cost) <= found.upper + 1e-15).all()


@pytest.mark.parametrize("form", ["full", "reduced"])
@pytest.mark.parametrize("functional", FUNCTIONALS)
def test_equal_laws_are_solved_at_once(functional, form, rng):
    """Alternating sweeps take thousands there: the plan is nearly diagonal. Off by an ulp is equal, too."""
    if form == "reduced" and functional in ("entropic", "divergence"):
        pytest.skip("refused")
    p, _, cost = scene(rng, rows=8, tokens=60, alpha=0.3)
    for q in (p, p * (1 + 1e-12 * rng.normal(size=p.shape))):
        found = kd.sinkhorn(p, q, cost, 0.02 * cost.diameter, functional, form)
        assert found.converged.all()
        assert found.iterations.max() < 300
        if functional == "divergence" or form == "reduced":
            np.testing.assert_allclose(found.value, 0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_sharp_slope_where_all_goes_to_or_from_one_token(dtype):
    """The linear system behind the slope has no signal then; its noise must not be solved for (float32: NaN)."""
    cost = TokenCost.embedding(np.random.default_rng(1).normal(size=(V, 3)))
    loss = kd.divergence("sinkhorn", cost=cost, epsilon=0.3, functional="sharp", form="reduced")
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        teacher, student = torch.randn(2, 4, V, generator=generator, dtype=dtype)
        keep = torch.arange(V) < 3
        teacher[:, ~keep] = student[:, ~keep] = -torch.inf
        found = loss.value_and_gradient(torch.log_softmax(teacher, -1), torch.log_softmax(student, -1))[1]
        right = loss.value_and_gradient(
            torch.log_softmax(teacher.double(), -1), torch.log_softmax(student.double(), -1)
        )[1]
        # where the difference has one positive or one negative entry, ⟨Γ, C⟩ is linear and the slopes are costs
        torch.testing.assert_close(found.double(), right, atol=2e-4, rtol=0)
        assert (found.abs().sum(-1) > 1e-4).all()


# -- batches -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("functional", FUNCTIONALS)
@pytest.mark.parametrize("relative", [0.1, 1e-4])
@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
def test_no_rows(functional, relative, precision, rng, monkeypatch):
    _, _, cost = scene(rng)
    sweeps = []
    monkeypatch.setattr("kdtheory.transport.entropic.scaling._Rows.sweep", lambda self: sweeps.append(1))
    for shape in ((0, V), (2, 0, V)):
        x = np.zeros(shape)
        found = kd.sinkhorn(x, x, cost, relative * cost.diameter, functional, precision=precision)
        for array in (found.value, found.lower, found.upper, found.marginal_error, found.iterations, found.converged):
            assert array.shape == shape[:-1]
        assert found.potentials.g.shape == shape
    assert len(sweeps) <= 20  # it stops looking for rows that are not there


def test_easy_and_unfinished_rows_in_one_batch(rng):
    _, _, cost = scene(rng)
    p = np.stack([rng.dirichlet(np.ones(V)), np.eye(V)[0], np.full(V, 1 / V)])
    q = np.stack([rng.dirichlet(np.ones(V)), np.eye(V)[3], np.eye(V)[2]])
    with pytest.warns(SinkhornWarning, match=r"1 of 3 rows have not converged in max_iter = 5 sweeps; row 0 misses"):
        found = kd.sinkhorn(p, q, cost, 1e-2 * cost.diameter, max_iter=5)
    assert found.converged.tolist() == [False, True, True]
    right = exact(p, q, cost)
    np.testing.assert_allclose(found.value[1:], right[1:], rtol=1e-9)
    assert found.lower[0] <= right[0] <= found.upper[0]


def test_one_warning_for_one_call_and_it_points_here(rng):
    p, q, cost = scene(rng)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kd.sinkhorn(p, q, cost, 0.05, "divergence", max_iter=2)
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_a_result_is_pickled_with_its_bounds(rng):
    p, q, cost = scene(rng)
    found = kd.sinkhorn(p, q, cost, 0.1)
    again = pickle.loads(pickle.dumps(found))
    for name in ("value", "lower", "upper", "marginal_error", "iterations", "converged"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    np.testing.assert_array_equal(again.potentials.g, found.potentials.g)
    assert "_bound" not in repr(found)
    large = TokenCost.embedding(rng.normal(size=(500, 2)))
    laws = rng.dirichlet(np.ones(500), size=2)
    assert len(pickle.dumps(kd.sinkhorn(*laws, large, 1.0))) < 50_000  # without the kernel of 2 MB


@pytest.mark.parametrize("kind", ["float32", "teacher alone", "integers"])
def test_kinds_of_input(kind, rng):
    p, q, cost = scene(rng)
    if kind == "integers":
        found = kd.sinkhorn(torch.eye(V, dtype=torch.int64), np.roll(np.eye(V, dtype=int), 1, 0), cost, 0.1)
        expected = cost.matrix().numpy()[np.arange(V), (np.arange(V) - 1) % V]
        np.testing.assert_allclose(found.value.numpy(), expected, rtol=1e-12)
        return
    a = torch.tensor(p, dtype=torch.float32 if kind == "float32" else torch.float64, requires_grad=True)
    b = torch.tensor(q, dtype=torch.float32, requires_grad=True) if kind == "float32" else q
    kd.sinkhorn(a, b, cost, 0.1).value.sum().backward()
    assert a.grad.dtype == a.dtype
    expected = kd.sinkhorn(p, q, cost, 0.1).potentials
    np.testing.assert_allclose(a.grad.numpy(), expected.f, atol=1e-6)
    if kind == "float32":
        assert b.grad.dtype == torch.float32
        np.testing.assert_allclose(b.grad.numpy(), expected.g, atol=1e-6)


# -- what is promised --------------------------------------------------------------------------------------------------
def adversarial(rng, tokens: int):
    """Laws with zeros, one-hot, ties and masses over many orders; near each other or far apart."""

    def law():
        kind = rng.integers(5)
        if kind == 0:
            return np.eye(tokens)[rng.integers(tokens)]
        if kind == 1:
            return np.full(tokens, 1 / tokens)
        weight = np.exp(rng.normal(size=tokens) * rng.choice([0.5, 3, 15]))
        if kind == 2:
            weight[rng.random(tokens) < 0.5] = 0
            weight[rng.integers(tokens)] = 1
        return weight / weight.sum()

    p = law()
    near = p * np.exp(rng.choice([0, 1e-9, 1e-3]) * rng.normal(size=tokens))
    return p, near / near.sum() if rng.random() < 0.3 else law()


@pytest.mark.parametrize("form", ["full", "reduced"])
@pytest.mark.parametrize("max_iter", [1, 3, 100])
@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
def test_the_interval_holds_on_adversarial_problems(form, max_iter, precision, rng):
    """200 pairs over the settings, ε from 2 to 1e-4 of the diameter, converged or not."""
    for _ in range(11):
        tokens = int(rng.integers(2, 9))
        cost = TokenCost.embedding(rng.normal(size=(tokens, 1 + int(rng.integers(3)))))
        p, q = (np.stack(rows) for rows in zip(*(adversarial(rng, tokens) for _ in range(4)), strict=True))
        epsilon = cost.diameter * float(rng.choice([2, 0.1, 0.01, 1e-4]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SinkhornWarning)
            found = kd.sinkhorn(p, q, cost, epsilon, "sharp", form, max_iter=max_iter, precision=precision)
        right, slack = exact(p, q, cost), 1e-12 * cost.diameter
        assert (found.lower <= right + slack).all()
        assert (right <= found.upper + slack).all()


@pytest.mark.parametrize("max_iter", [2, 5, 20])
@pytest.mark.parametrize("functional", ["relative", "sharp"])
def test_the_error_of_the_value_is_bounded_by_that_of_the_marginals(functional, max_iter, rng):
    """|R - R*| <= osc · error for `relative`; both, since the plan of another marginal, are osc-Lipschitz in it."""
    for _ in range(10):
        p, q, cost = scene(rng, rows=4, alpha=0.5)
        epsilon = 0.05 * cost.diameter
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SinkhornWarning)
            rough = kd.sinkhorn(p, q, cost, epsilon, functional, max_iter=max_iter)
        fine = kd.sinkhorn(p, q, cost, epsilon, functional, tol=1e-12)
        f, g = fine.potentials
        swing = np.ptp(f, axis=-1) + np.ptp(g, axis=-1) + np.ptp(rough.potentials.f, axis=-1)
        assert (abs(rough.value - fine.value) <= swing * rough.marginal_error + 1e-11).all()


class Largest(TorchDispatchMode):
    """Bytes of the largest storage that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = (x.untyped_storage().nbytes() for x in tree_leaves(out) if isinstance(x, torch.Tensor))
        self.bytes = max(self.bytes, *sizes, 0)
        return out


def test_no_tensor_of_rows_times_vocabulary_squared(rng):
    """B·V² doubles would be 268 MB here; the lower bound works through blocks of 2²² doubles."""
    rows, tokens = 128, 512
    p, q, cost = scene(rng, rows, tokens)
    with Largest() as largest, warnings.catch_warnings():
        warnings.simplefilter("ignore", SinkhornWarning)
        found = kd.sinkhorn(p, q, cost, 0.05 * cost.diameter, "divergence", max_iter=2)
        assert (found.lower <= found.upper).all()
    assert 8 * tokens**2 <= largest.bytes <= 8 << 22  # the kernel at least, a block at most
    with Largest() as control:
        torch.zeros(rows, tokens, tokens, dtype=torch.float64)
    assert control.bytes == 8 * rows * tokens**2
