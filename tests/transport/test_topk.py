"""Top-k transport: the bound, the lower bound and the gradient against POT, HiGHS and finite differences."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from scipy.spatial.distance import cdist

import kdtheory as kd
from kdtheory import TokenCost
from kdtheory.transport import NotAMetricError, truncation
from kdtheory.transport.topk import W1TopK, exact_inner, w1_topk
from tests.transport.cases import AGREEING, COSTS, FAMILIES, METRICS, label, linear_program, probabilities

V = 60


def scene(rng, alpha=0.1, rows=3):
    points = rng.normal(size=(V, 4))
    p, q = (rng.dirichlet(np.full(V, alpha), size=rows) for _ in range(2))
    return p, q, TokenCost.embedding(points), cdist(points, points)


def collapse_by_hand(delta, C, k):
    """Kept set, value by POT and bound, by plain loops."""
    kept = sorted(sorted(range(len(delta)), key=lambda j: (-abs(delta[j]), j))[:k])
    near = [j if j in kept else kept[int(C[j, kept].argmin())] for j in range(len(delta))]
    moved = np.zeros_like(delta)
    for j, s in enumerate(near):
        moved[s] += delta[j]
    a, b = np.maximum(-moved, 0), np.maximum(moved, 0)
    bound = sum(abs(delta[j]) * C[j, s] for j, s in enumerate(near))
    mass = a.sum()
    return kept, (mass * ot.emd2(a / mass, b / b.sum(), C) if mass > 1e-14 else 0.0), bound


@pytest.mark.parametrize("alpha", [0.03, 1.0])
@pytest.mark.parametrize("k", [1, 2, 7, 30, V, 10 * V])
def test_value_bound_and_interval(alpha, k, rng):
    p, q, cost, C = scene(rng, alpha)
    found = w1_topk(p, q, cost, k)
    for row in range(len(p)):
        exact = ot.emd2(p[row], q[row], C)
        _, value, bound = collapse_by_hand(q[row] - p[row], C, min(k, V))
        assert found.value[row] == pytest.approx(value, abs=1e-12)
        assert found.error_bound[row] == pytest.approx(bound, abs=1e-12)
        # 1e-12: float64 sums of at most V terms below 10
        assert abs(exact - found.value[row]) <= found.error_bound[row] + 1e-12
        assert found.value[row] - found.error_bound[row] - 1e-12 <= found.lower[row] <= exact + 1e-12
        assert exact <= found.upper[row] + 1e-12
    if k == 1:
        assert not found.value.any()
    if k >= V:
        np.testing.assert_allclose(found.lower, found.value, atol=1e-12)


def test_the_interval_closes_once_the_support_is_kept(rng):
    p, q, cost, C = scene(rng, rows=2)
    p[:, 8:], q[:, 8:] = 0, 0
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    found = w1_topk(p, q, cost, 8)
    assert not found.error_bound.any()
    exact = [linear_program(a, b, C) for a, b in zip(p, q, strict=True)]
    np.testing.assert_allclose(found.value, exact, atol=1e-9)
    np.testing.assert_allclose(found.lower, exact, atol=1e-9)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric(name, rng):
    cost, C = COSTS[name]
    p, q = rng.dirichlet(np.ones(6), size=(2, 5))
    found = w1_topk(p, q, cost, 3)
    for row in range(5):
        assert found.value[row] == pytest.approx(collapse_by_hand(q[row] - p[row], C, 3)[1], abs=1e-12)
        exact = linear_program(p[row], q[row], C)
        # 1e-7: HiGHS' default feasibility
        assert found.lower[row] - 1e-7 <= exact <= found.upper[row] + 1e-7


def test_a_dense_metric_is_accepted_and_another_cost_refused(rng):
    p, q = rng.dirichlet(np.ones(6), size=2)
    assert w1_topk(p, q, TokenCost.dense(COSTS["embedding"][1]), 3).value >= 0
    for refuse in (lambda cost: w1_topk(p, q, cost, 3), lambda cost: W1TopK(cost=cost)):
        with pytest.raises(NotAMetricError):
            refuse(TokenCost.dense(COSTS["dense"][1]))
    squares = TokenCost.dense(np.subtract.outer(np.arange(6.0), np.arange(6.0)) ** 2)
    with pytest.raises(NotAMetricError, match=r"triple .* triangle"):
        w1_topk(p, q, squares, 3)


def test_degenerate_rows():
    cost = TokenCost.line([0.0, 1.0, 3.0, 7.0])
    p = np.array([[0.25, 0.25, 0.25, 0.25], [1, 0, 0, 0], [0, 1, 0, 0], [0.5, 0.5, 0, 0]])
    q = np.array([[0.25, 0.25, 0.25, 0.25], [0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0.5, 0.5]])
    found = w1_topk(p, q, cost, 2)
    np.testing.assert_allclose(found.value[:3], [0, 7, 0], atol=1e-15)
    np.testing.assert_allclose(found.error_bound[:3], 0, atol=1e-15)
    # four ties: tokens 0 and 1 are kept; 2 and 3 follow token 1
    assert found.value[3] == pytest.approx(0.5)
    assert found.error_bound[3] == pytest.approx(0.5 * 2 + 0.5 * 6)
    assert found.lower[3] <= 4.5 <= found.upper[3]
    assert w1_topk([1.0], [1.0], TokenCost.zero_one(1), 5).value == 0


def test_leading_axes_torch_and_no_rows(rng):
    p, q, cost, _ = scene(rng, rows=4)
    flat = w1_topk(p, q, cost, 5)
    boxed = w1_topk(torch.tensor(p).reshape(2, 2, V), torch.tensor(q).reshape(2, 2, V), cost, 5)
    assert isinstance(boxed.value, torch.Tensor)
    np.testing.assert_array_equal(boxed.value.numpy().ravel(), flat.value)
    np.testing.assert_array_equal(boxed.potentials.g.numpy().reshape(4, V), flat.potentials.g)
    assert w1_topk(p[0], q[0], cost, 5).value.shape == ()
    assert w1_topk(np.zeros((0, V)), np.zeros((0, V)), cost, 5).value.shape == (0,)


@pytest.mark.parametrize("k", [2, 6, 20])
def test_gradients_by_finite_differences(k, rng):
    p, q, cost, C = scene(rng, alpha=1.0, rows=1)
    a, b = (torch.tensor(x[0], requires_grad=True) for x in (p, q))
    w1_topk(a, b, cost, k).value.backward()
    h = 1e-7
    for x, sign in ((a, -1), (b, 1)):
        i, j = (int(t) for t in rng.permutation(V)[:2])
        step = sign * h * (np.eye(V)[i] - np.eye(V)[j])
        ahead, behind = (collapse_by_hand(q[0] - p[0] + s * step, C, k)[1] for s in (1, -1))
        # 1e-6: emd2's 1e-14 over the step; piecewise linear, so no curvature
        assert (ahead - behind) / (2 * h) == pytest.approx(float(x.grad[i] - x.grad[j]), abs=1e-6)


def test_tail_tokens_take_their_goals_potential(rng):
    p, q, cost, C = scene(rng, rows=1)
    kept, _, _ = collapse_by_hand(q[0] - p[0], C, 9)
    g = w1_topk(p, q, cost, 9).potentials.g[0]
    goal = np.array(kept)[C[:, kept].argmin(1)]
    np.testing.assert_array_equal(g, g[goal])
    assert len(np.unique(g)) > 2


# -- selection and collapse --------------------------------------------------------------------------------------------
def test_selection_is_deterministic_at_ties():
    delta = torch.tensor([[0.0, 0.2, -0.2, 0.2, -0.2, 0.0], [0, 0, 0, 0, 0, 0], [0.1, -0.3, 0.1, 0.1, 0, 0]])
    assert truncation.select(delta, 2).tolist() == [[1, 2], [0, 1], [0, 1]]
    assert truncation.select(delta, 3).tolist() == [[1, 2, 3], [0, 1, 2], [0, 1, 2]]
    assert truncation.select(delta, 6).tolist() == [list(range(6))] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", METRICS)
def test_nearest_is_nearest(name, dtype, rng):
    cost, C = COSTS[name][0], COSTS[name][1] * (1 - np.eye(6))  # scipy's 1 - cos of a token with itself is 1e-16
    delta = torch.tensor(rng.normal(size=(20, 6)), dtype=dtype)
    delta -= delta.mean(1, keepdim=True)
    cut = truncation.truncate(delta, cost, 3)
    goal = cut.kept.gather(1, cut.nearest).numpy()
    # 1e-3: where two kept tokens are that close to equally near, float32 may take either
    reached = C[np.arange(6), goal]
    least = np.stack([C[:, kept].min(1) for kept in cut.kept.numpy()])
    np.testing.assert_allclose(reached, least, atol=1e-3 if dtype == torch.float32 else 1e-7)
    bound = (delta.abs().double().numpy() * reached).sum(1)
    np.testing.assert_allclose(cut.bound.double(), bound, rtol=1e-5 if dtype == torch.float32 else 1e-12)
    np.testing.assert_allclose(cut.collapsed.sum(1), delta.sum(1), atol=1e-5)
    assert cut.collapsed.dtype == dtype


def test_blocks_change_nothing(rng, monkeypatch):
    p, q, cost, _ = scene(rng, rows=5)
    delta = torch.tensor(q - p)
    whole = truncation.truncate(delta, cost, 7)
    monkeypatch.setattr(truncation, "_CPU_BLOCK", 1)
    for once, split in zip(whole, truncation.truncate(delta, cost, 7), strict=True):
        torch.testing.assert_close(once, split)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_costs_between_kept_tokens(dtype, rtol, rng, monkeypatch):
    """Clusters 1e-4 wide, 10 apart, far from the origin: products alone would lose every digit inside a cluster."""
    centres = 10 * rng.normal(size=(4, 3)) + 100
    E = (np.repeat(centres, 5, axis=0) + 1e-4 * rng.normal(size=(20, 3))).astype(np.float32).astype(float)
    E[1] = E[0]
    cost = TokenCost.embedding(E)
    kept = torch.tensor(np.sort(np.stack([rng.permutation(20)[:12] for _ in range(6)]), axis=1))
    like = torch.zeros(1, dtype=dtype)
    expected = np.stack([cdist(E[row], E[row]) for row in kept.numpy()])
    # float32: centred coordinates of size 10 carry 1e-6, a tenth of a percent of the clusters' width
    scale = 1e-5 if dtype == torch.float32 else 1e-13
    found = truncation.kept_costs(cost, kept, like)
    np.testing.assert_allclose(found.numpy(), expected, rtol=rtol, atol=scale)
    monkeypatch.setattr(truncation, "_CPU_BLOCK", 1)
    torch.testing.assert_close(truncation.kept_costs(cost, kept, like), found, rtol=0, atol=0)


def test_equal_embeddings_stay_apart():
    """Two kept tokens at one point: each keeps its own mass, so that g ∘ π is right on both."""
    cost = TokenCost.embedding([[0.0], [0.0], [5.0]])
    cut = truncation.truncate(torch.tensor([[0.5, -0.4, -0.1]]), cost, 2)
    assert cut.kept.tolist() == [[0, 1]]
    assert cut.nearest[0, :2].tolist() == [0, 1]
    torch.testing.assert_close(cut.bound, torch.tensor([0.5]))


@pytest.mark.parametrize("count", [1, 5, V, 3 * V])
def test_cells_keep_the_bound_true(count, rng):
    p, q, cost, C = scene(rng, alpha=1.0)
    cells = truncation.Cells(cost, count)
    assert len(cells.centres) == min(count, V)
    np.testing.assert_allclose(cells.radius, C[:, cells.centres.numpy()].min(1), atol=1e-14)
    cut = truncation.truncate(torch.tensor(q - p), cost, 8, cells=cells)
    values, _ = exact_inner(cut.collapsed, truncation.kept_costs(cost, cut.kept, cut.collapsed))
    for row in range(len(p)):
        assert abs(ot.emd2(p[row], q[row], C) - float(values[row])) <= float(cut.bound[row]) + 1e-12
    near = truncation.truncate(torch.tensor(q - p), cost, 8)
    assert (cut.bound >= near.bound - 1e-12).all()
    if count >= V:
        torch.testing.assert_close(cut.nearest, near.nearest)


def test_a_vocabulary_whose_matrix_would_not_fit(rng):
    """V = 20000: the library refuses to build such a matrix; only k rows of it are ever needed."""
    size = 20_000
    points = rng.normal(size=(size, 2))
    cost = TokenCost.embedding(points)
    with pytest.raises(ValueError, match="cost matrix"):
        cost.matrix()
    p, q = np.zeros((2, size))
    p[:4], q[4:8] = 0.25, 0.25
    p, q = 0.999 * p + 0.001 / size, 0.999 * q + 0.001 / size
    found = w1_topk(p, q, cost, 8)
    assert found.error_bound < 1e-12
    exact = 0.999 * ot.emd2(np.full(4, 0.25), np.full(4, 0.25), cdist(points[:4], points[4:8]))
    assert float(found.value) == pytest.approx(exact, abs=1e-12)
    assert float(found.lower) == pytest.approx(exact, abs=1e-12)


def test_cells_may_leave_the_bound_of_nearest_goals():
    """One cell around 0: the tail at 10 goes to 0 and not to its neighbour 11. Exact numbers by hand."""
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.0, 0.5625, 0.4375])  # δ = (-1/2, 5/16, 3/16) at 0, 11, 10
    cost = TokenCost.embedding([[0.0], [11.0], [10.0]])
    found, shared = w1_topk(p, q, cost, 2), float(W1TopK(cost=cost, k=2, cells=1).value(p, q))
    exact = (5 * 11 + 3 * 10) / 16
    assert (float(found.value), float(found.error_bound)) == pytest.approx((exact + 3 / 16, 3 / 16))
    assert shared == pytest.approx(exact - 3 * 10 / 16)
    assert abs(shared - exact) > 9 * float(found.error_bound)


def test_cells_of_equal_tokens_and_of_another_cost(rng):
    cost = TokenCost.embedding(np.repeat(rng.normal(size=(3, 2)), 4, axis=0))
    assert len(truncation.Cells(cost, 10).centres) == 3
    with pytest.raises(ValueError, match="another cost"):
        truncation.truncate(torch.zeros(1, 6), COSTS["line"][0], 2, cells=truncation.Cells(COSTS["embedding"][0], 2))


# -- the loss ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("pair", [*FAMILIES, AGREEING], ids=label)
@pytest.mark.parametrize("k", [1, 3, 6])
def test_loss_at_every_boundary(pair, k):
    cost, C = COSTS["embedding"]
    loss = W1TopK(cost=cost, k=k)
    p, q = probabilities(pair)
    value = float(loss.value(p, q))
    # 1e-9: HiGHS or emd2 on masses of 1
    assert value == pytest.approx(collapse_by_hand(q - p, C, k)[1], abs=1e-9)
    gradient = loss.logit_gradient(teacher_logits=pair.teacher_logits, student_logits=pair.student_logits)
    assert np.isfinite(gradient).all()
    assert abs(gradient.sum()) < 1e-12
    assert not gradient[np.isneginf(pair.student_logits)].any()
    if k == 6:
        assert value == pytest.approx(float(kd.divergence("w1", cost=cost).value(p, q)), abs=1e-12)
    if k == 1:
        assert value == 0


def test_loss_gradient_by_finite_differences(rng):
    cost, _ = COSTS["embedding"]
    loss = W1TopK(cost=cost, k=3)
    teacher, student = torch.tensor(rng.normal(size=(2, 8, 6)))
    student.requires_grad_()
    loss.loss(teacher_logits=teacher, student_logits=student, reduction="sum").backward()
    h = 1e-6
    for row in range(8):
        for i in range(6):
            step = torch.zeros_like(student)
            step[row, i] = h
            ahead, behind = (
                float(loss.loss(teacher_logits=teacher, student_logits=student.detach() + s * step, reduction="sum"))
                for s in (1, -1)
            )
            # 1e-7: curvature of softmax h² and rounding 1e-15/h
            assert (ahead - behind) / (2 * h) == pytest.approx(float(student.grad[row, i]), abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_loss_in_low_precision_with_mask_and_temperature(dtype, rng):
    cost, _ = COSTS["embedding"]
    loss = W1TopK(cost=cost, k=4)
    teacher, student = torch.tensor(rng.normal(size=(2, 3, 5, 6))).to(dtype)
    student.requires_grad_()
    mask = torch.tensor(rng.random((3, 5)) < 0.5)
    total = loss.loss(teacher_logits=teacher, student_logits=student, mask=mask, temperature=2.0)
    total.backward()
    assert torch.isfinite(student.grad).all()
    assert not student.grad[~mask].any()
    rows = (x.detach().double()[mask] / 2 for x in (teacher, student))
    p, q = (torch.softmax(x, -1) for x in rows)
    # 1e-5: float32 arithmetic inside
    assert float(total.detach()) == pytest.approx(2 * float(loss.value(p, q).mean()), rel=1e-5)


def test_loss_with_another_solver(rng):
    """An inner solver gets (B, k) and (B, k, k) and is believed: here total variation on the kept tokens."""

    def total_variation(difference, costs):
        assert costs.shape == (*difference.shape, difference.shape[-1])
        return 0.5 * difference.abs().sum(-1), 0.5 * difference.sign()

    cost = TokenCost.zero_one(6)
    p, q = rng.dirichlet(np.ones(6), size=(2, 4))
    ours, exact = (W1TopK(cost=cost, k=4, **more).value(p, q) for more in ({"solver": total_variation}, {}))
    np.testing.assert_allclose(ours, exact, atol=1e-14)


@pytest.mark.parametrize("k", [1, 4, 6])
def test_loss_by_sinkhorn(k, rng):
    """POT's entropic plan of the collapsed problem: <Γ, C> + ε KL(Γ‖p ⊗ q), and the gradient by differences."""
    cost, C = COSTS["embedding"]
    epsilon = 0.3
    loss = W1TopK(cost=cost, k=k, epsilon=epsilon)
    teacher, student = rng.normal(size=(2, 5, 6))
    p, q = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (teacher, student))

    def expected(delta):
        cut = truncation.truncate(torch.tensor(delta)[None], cost, k)
        kept, moved = cut.kept[0].numpy(), cut.collapsed[0].numpy()
        a, b = np.maximum(-moved, 0), np.maximum(moved, 0)
        rows, columns, mass = a > 1e-15, b > 1e-15, a.sum()
        if mass < 1e-15:
            return 0.0
        a, b, block = a[rows] / mass, b[columns] / b.sum(), C[np.ix_(kept[rows], kept[columns])]
        plan = ot.sinkhorn(a, b, block, epsilon, method="sinkhorn_log", stopThr=1e-13, numItermax=100_000)
        return mass * float((plan * block).sum() + epsilon * (plan * np.log(plan / np.outer(a, b))).sum())

    # 1e-4: the loss stops at marginal errors of 1e-5
    values = loss.value(p, q)
    np.testing.assert_allclose(values, [expected(b - a) for a, b in zip(p, q, strict=True)], atol=1e-4)
    gradient = loss.logit_gradient(teacher_logits=teacher, student_logits=student)
    h = 1e-5
    for row in range(5):
        for i in range(6):
            ends = []
            for s in (1, -1):
                z = student[row] + s * h * np.eye(6)[i]
                ends.append(expected(np.exp(z) / np.exp(z).sum() - p[row]))
            assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(gradient[row, i], abs=2e-4)


def test_loss_by_sinkhorn_at_every_boundary():
    loss = W1TopK(cost=COSTS["embedding"][0], k=3, epsilon=0.1)
    for pair in [*FAMILIES, AGREEING]:
        assert np.isfinite(loss.value(*probabilities(pair)))
        gradient = loss.logit_gradient(teacher_logits=pair.teacher_logits, student_logits=pair.student_logits)
        assert np.isfinite(gradient).all(), pair.name
        assert not gradient[np.isneginf(pair.student_logits)].any()


def test_loss_through_cells(rng):
    p, q, cost, C = scene(rng, alpha=0.3)
    loss = W1TopK(cost=cost, k=12, cells=20)
    values = loss.value(p, q)
    bound = truncation.truncate(torch.tensor(q - p), cost, 12, cells=loss.cells).bound.numpy()
    exact = [ot.emd2(a, b, C) for a, b in zip(p, q, strict=True)]
    assert (abs(values - exact) <= bound + 1e-12).all()
    assert W1TopK(cost=cost, k=12).cells is None  # V is below the default number of cells


# -- bad input ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("k", [0, -1, 2.0, True, None])
def test_bad_k(k):
    cost = COSTS["line"][0]
    with pytest.raises(ValueError, match="k = "):
        w1_topk(np.full(6, 1 / 6), np.full(6, 1 / 6), cost, k)
    with pytest.raises(ValueError, match="k = "):
        W1TopK(cost=cost, k=k)


def test_bad_arguments():
    cost, even = COSTS["line"][0], np.full(6, 1 / 6)
    with pytest.raises(ValueError, match="p has 5 tokens, cost"):
        w1_topk(np.full(5, 0.2), np.full(5, 0.2), cost, 3)
    with pytest.raises(ValueError, match="sums to"):
        w1_topk(even, 2 * even, cost, 3)
    with pytest.raises(ValueError, match=r"q\[0\] = nan"):
        w1_topk(even, [math.nan, *even[1:]], cost, 3)
    with pytest.raises(ValueError, match="TokenCost"):
        W1TopK(cost=np.ones((6, 6)))
    with pytest.raises(ValueError, match="solver"):
        W1TopK(cost=cost, solver="simplex")
    with pytest.raises(ValueError, match="epsilon = -1"):
        W1TopK(cost=cost, epsilon=-1)
    with pytest.raises(ValueError, match="cells = 0"):
        W1TopK(cost=cost, cells=0)
    with pytest.raises(ValueError, match="student_logits has 5 tokens"):
        W1TopK(cost=cost).loss(teacher_logits=torch.zeros(1, 5), student_logits=torch.zeros(1, 5))
