"""Sliced transport: lines by scipy and POT, bounds by POT's network simplex, gradients by finite differences."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance

from kdtheory import TokenCost
from kdtheory.transport.sliced import SlicedW1, Slices, sliced_w1
from tests.transport.cases import AGREEING, COSTS, FAMILIES, POINTS, label, probabilities

V = 40


def scene(rng, rows=3, width=5, alpha=0.2):
    p, q = (rng.dirichlet(np.full(V, alpha), size=rows) for _ in range(2))
    return p, q, rng.normal(size=(V, width))


@pytest.mark.parametrize("width", [1, 2, 5, 50])
@pytest.mark.parametrize("count", [1, 7, 64])
def test_slices_are_lines_and_lie_below(width, count, rng):
    p, q, points = scene(rng, width=width)
    directions = rng.normal(size=(count, width))
    found = sliced_w1(p, q, points, directions)
    units = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    cost = cdist(points, points)
    for row in range(len(p)):
        lines = [wasserstein_distance(points @ u, points @ u, p[row], q[row]) for u in units]
        np.testing.assert_allclose(found.slices[row], lines, atol=1e-13)
        exact = ot.emd2(p[row], q[row], cost)
        assert found.mean[row] == pytest.approx(np.mean(lines), abs=1e-13)
        assert found.max[row] == pytest.approx(max(lines), abs=1e-13)
        stretched = math.sqrt(count) / np.linalg.svd(units, compute_uv=False)[0] * np.mean(lines)
        assert found.lower[row] == pytest.approx(max(max(lines), stretched), abs=1e-12)
        # 1e-12: float64 sums of 40 terms
        assert found.mean[row] <= found.max[row] + 1e-12
        assert found.lower[row] <= exact + 1e-12
        if width == 1:
            assert found.lower[row] == pytest.approx(exact, abs=1e-12)


def test_pot_agrees(rng):
    p, q, points = scene(rng, rows=1)
    directions = rng.normal(size=(9, 5))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    theirs = ot.sliced_wasserstein_distance(points, points, p[0], q[0], projections=directions.T, p=1)
    assert float(sliced_w1(p[0], q[0], points, directions).mean) == pytest.approx(theirs, rel=1e-12)


def test_an_orthonormal_basis_and_a_diagonal():
    found = sliced_w1([1.0, 0.0], [0.0, 1.0], [[0.0] * 4, [1.0] * 4], np.eye(4))
    assert found.mean == found.max == 1
    assert found.lower == pytest.approx(2)  # = W1: the factor √D cannot be larger
    assert Slices(np.zeros((2, 4)), np.eye(4)).factor == pytest.approx(2)


def test_a_square_is_not_seen_from_its_axes():
    corners = [[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]]
    p, q = [0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]
    assert sliced_w1(p, q, corners, np.eye(2)).lower == 0
    assert sliced_w1(p, q, corners, [[1.0, 1.0]]).max == pytest.approx(math.sqrt(0.5))


def test_drawn_directions_are_uniform_and_reproducible():
    points = np.eye(3)
    first, again = (Slices(points, 20_000, np.random.default_rng(3)).directions for _ in range(2))
    torch.testing.assert_close(first, again)
    torch.testing.assert_close(first.norm(dim=1), torch.ones(20_000, dtype=torch.float64))
    # E|u_1| = 1/2 in three dimensions; 0.01: five standard errors
    np.testing.assert_allclose(first.abs().mean(0), 0.5, atol=0.01)


def test_degenerate_rows(rng):
    points = np.repeat(rng.normal(size=(2, 3)), 2, axis=0)  # tokens 0 and 1 coincide, 2 and 3 too
    p = np.array([[1.0, 0, 0, 0], [1.0, 0, 0, 0], [0.25] * 4])
    q = np.array([[0, 1.0, 0, 0], [0, 0, 0, 1.0], [0.25] * 4])
    found = sliced_w1(p, q, points, 16, rng)
    np.testing.assert_allclose(found.mean[[0, 2]], 0, atol=1e-15)
    assert 0 < found.max[1] <= np.linalg.norm(points[0] - points[3])


def test_leading_axes_and_no_rows(rng):
    p, q, points = scene(rng, rows=4)
    slices = Slices(points, 6, rng)
    flat, boxed = sliced_w1(p, q, slices), sliced_w1(*(torch.tensor(x).reshape(2, 2, V) for x in (p, q)), slices)
    np.testing.assert_allclose(boxed.slices.numpy().reshape(4, 6), flat.slices, atol=1e-15)
    assert isinstance(boxed.lower, torch.Tensor)
    assert sliced_w1(p[0], q[0], slices).mean.shape == ()
    assert sliced_w1(p[:0], q[:0], slices).slices.shape == (0, 6)


def test_blocks_change_nothing(rng, monkeypatch):
    p, q, points = scene(rng, rows=5)
    slices = Slices(points, 6, rng)
    delta = torch.tensor(q - p)
    weight = torch.rand(5, 6, dtype=torch.float64)
    whole = slices.values(delta), slices.potential(delta, weight)
    monkeypatch.setattr("kdtheory.transport.sliced._CPU_BLOCK", 1)
    torch.testing.assert_close(whole, (slices.values(delta), slices.potential(delta, weight)))


@pytest.mark.parametrize("name", ["mean", "max"])
def test_gradients_by_finite_differences(name, rng):
    p, q, points = scene(rng, rows=1, alpha=1.0)
    slices = Slices(points, 5, rng)
    a, b = (torch.tensor(x[0], requires_grad=True) for x in (p, q))
    getattr(sliced_w1(a, b, slices), name).backward()
    h = 1e-7
    for x, moved in ((a, 0), (b, 1)):
        for _ in range(5):
            i, j = (int(t) for t in rng.permutation(V)[:2])
            step = h * (np.eye(V)[i] - np.eye(V)[j])
            ends = []
            for s in (1, -1):
                shifted = [p[0], q[0]]
                shifted[moved] = shifted[moved] + s * step
                lines = [wasserstein_distance(points @ u, points @ u, *shifted) for u in slices.directions.numpy()]
                ends.append(max(lines) if name == "max" else np.mean(lines))
            # 1e-7: rounding 1e-15 over the step; piecewise linear
            assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(float(x.grad[i] - x.grad[j]), abs=1e-7)


@pytest.mark.parametrize("statistic", ["mean", "max"])
@pytest.mark.parametrize("pair", [*FAMILIES, AGREEING], ids=label)
def test_loss_at_every_boundary(pair, statistic):
    loss = SlicedW1(cost=COSTS["embedding"][0], directions=8, seed=5, statistic=statistic)
    p, q = probabilities(pair)
    units = loss.slices.directions.numpy()
    lines = [wasserstein_distance(POINTS @ u, POINTS @ u, p, q) for u in units]
    expected = max(lines) if statistic == "max" else np.mean(lines)
    assert float(loss.value(p, q)) == pytest.approx(expected, abs=1e-13)
    gradient = loss.logit_gradient(teacher_logits=pair.teacher_logits, student_logits=pair.student_logits)
    assert np.isfinite(gradient).all()
    assert abs(gradient.sum()) < 1e-12
    assert not gradient[np.isneginf(pair.student_logits)].any()


@pytest.mark.parametrize("statistic", ["mean", "max"])
def test_loss_gradient_by_finite_differences(statistic, rng):
    loss = SlicedW1(cost=COSTS["cosine"][0], directions=6, statistic=statistic)
    teacher, student = torch.tensor(rng.normal(size=(2, 4, 6)))
    student.requires_grad_()
    loss.loss(teacher_logits=teacher, student_logits=student, reduction="sum").backward()
    p = torch.softmax(teacher, -1)
    h = 1e-6
    for row in range(4):
        for i in range(6):
            step = torch.zeros_like(student)
            step[row, i] = h
            ends = [float(loss.value(p, torch.softmax(student.detach() + s * step, -1)).sum()) for s in (1, -1)]
            # 1e-7: curvature of softmax h² and rounding 1e-15/h
            assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(float(student.grad[row, i]), abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_loss_in_low_precision_with_mask(dtype, rng):
    loss = SlicedW1(cost=COSTS["embedding"][0], directions=6)
    teacher, student = torch.tensor(rng.normal(size=(2, 3, 5, 6))).to(dtype)
    student.requires_grad_()
    mask = torch.tensor(rng.random((3, 5)) < 0.5)
    total = loss.loss(teacher_logits=teacher, student_logits=student, mask=mask, temperature=2.0)
    total.backward()
    assert not student.grad[~mask].any()
    p, q = (torch.softmax(x.detach().double()[mask] / 2, -1) for x in (teacher, student))
    # 1e-5: float32 arithmetic inside
    assert float(total.detach()) == pytest.approx(2 * float(loss.value(p, q).mean()), rel=1e-5)


def test_bad_arguments(rng):
    p = np.full(6, 1 / 6)
    with pytest.raises(ValueError, match="rng"):
        sliced_w1(p, p, POINTS, 8)
    with pytest.raises(ValueError, match="directions = 0"):
        sliced_w1(p, p, POINTS, 0, rng)
    with pytest.raises(ValueError, match=r"directions\[1\] is zero"):
        sliced_w1(p, p, POINTS, [[1.0, 0, 0], [0, 0, 0]])
    with pytest.raises(ValueError, match="directions have 2 coordinates, points 3"):
        sliced_w1(p, p, POINTS, [[1.0, 0]])
    with pytest.raises(ValueError, match="p has 6 tokens, points has 5 rows"):
        sliced_w1(p, p, POINTS[:5], 8, rng)
    with pytest.raises(ValueError, match="points"):
        sliced_w1(p, p, [[math.nan, 0.0]] * 6, 8, rng)
    with pytest.raises(ValueError, match="sums to"):
        sliced_w1(p, 2 * p, POINTS, 8, rng)
    with pytest.raises(ValueError, match=r"TokenCost\.embedding"):
        SlicedW1(cost=TokenCost.zero_one(6))
    with pytest.raises(ValueError, match="statistic"):
        SlicedW1(cost=COSTS["embedding"][0], statistic="median")
    with pytest.raises(ValueError, match="student_logits has 5 tokens"):
        SlicedW1(cost=COSTS["embedding"][0]).loss(teacher_logits=torch.zeros(1, 5), student_logits=torch.zeros(1, 5))
