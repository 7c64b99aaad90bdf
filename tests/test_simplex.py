"""The simplex: charts, tangent vectors, the Fisher-Rao distance, and the families of test points."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest

import kdtheory as kd
from kdtheory import simplex
from tests import oracles

RNG_SEED = 8


@pytest.fixture
def rng():
    return np.random.default_rng(RNG_SEED)


def test_softmax_and_its_logarithm_are_mpmaths(rng):
    z = np.append(rng.normal(size=5) * 100, -np.inf)
    with mp.workdps(300):
        exact = oracles.softmax([mp.mpf(float(x)) for x in z])
        logs = [float(mp.log(x)) if x else -np.inf for x in exact]
    np.testing.assert_allclose(simplex.softmax(z), [float(x) for x in exact], rtol=1e-13, atol=0)
    np.testing.assert_allclose(simplex.log_softmax(z), logs, rtol=1e-14, atol=1e-16)


def test_logits_of_inverts_softmax(rng):
    p = np.append(rng.dirichlet(np.ones(5), size=3), np.zeros((3, 1)), axis=-1)
    np.testing.assert_allclose(simplex.softmax(simplex.logits_of(p), axis=-1), p, rtol=1e-14)
    assert np.isneginf(simplex.logits_of(p)[:, -1]).all()


def test_projection_is_orthogonal_onto_sum_zero(rng):
    v = rng.normal(size=(4, 6))
    projected = simplex.project_to_tangent(v)
    np.testing.assert_allclose(projected.sum(-1), 0, atol=1e-14)
    np.testing.assert_allclose(simplex.project_to_tangent(projected), projected, atol=1e-15)
    np.testing.assert_allclose(((v - projected) * projected).sum(-1), 0, atol=1e-13)
    assert np.abs(v.sum(-1)).min() > 1e-3


def test_softmax_jacobian_is_the_derivative(rng):
    """Against complex steps; a transposed or unsymmetric matrix, or a lost factor, would differ."""
    z = rng.normal(size=5)
    with mp.workdps(oracles.DIGITS):
        exact_z = [mp.mpf(float(x)) for x in z]
        exact = [
            [float(oracles.derivative(lambda x, i=i: oracles.softmax(x)[i], exact_z, j)) for j in range(5)]
            for i in range(5)
        ]
    found = simplex.softmax_jacobian(z)
    np.testing.assert_allclose(found, exact, rtol=1e-12)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(found.sum(-1), 0, atol=1e-16)
    assert simplex.softmax_jacobian(np.stack([z, z])).shape == (2, 5, 5)


def test_fisher_rao(rng):
    p, q, r = rng.dirichlet(np.ones(4), size=3)
    with mp.workdps(oracles.DIGITS):
        affinity = mp.fsum(mp.sqrt(mp.mpf(float(a)) * mp.mpf(float(b))) for a, b in zip(p, q, strict=True))
        exact = float(2 * mp.acos(affinity))
    assert simplex.fisher_rao(p, q) == pytest.approx(exact, rel=1e-12)
    assert simplex.fisher_rao(p, p) == 0
    assert simplex.fisher_rao([1, 0], [0, 1]) == pytest.approx(math.pi)  # the diameter
    assert simplex.fisher_rao(p, r) <= simplex.fisher_rao(p, q) + simplex.fisher_rao(q, r)


def test_fisher_rao_keeps_its_digits_near_zero():
    """Length² is Σ v²/p to first order; 2 arccos Σ √(pq) would give 0 or 1e-8 for this distance of 1e-9."""
    p, v = np.array([0.5, 0.3, 0.2]), np.array([1.0, -2.0, 1.0]) * 1e-9
    length = math.sqrt((v * v / p).sum())
    assert simplex.fisher_rao(p, p + v) == pytest.approx(length, rel=1e-6)  # v itself is rounded by 1e-16
    naive = 2 * np.arccos(min(1.0, np.sqrt(p * (p + v)).sum()))
    assert naive != pytest.approx(length, rel=1e-2)


def test_zipf():
    assert simplex.zipf(3) == pytest.approx([6 / 11, 3 / 11, 2 / 11])
    assert simplex.zipf(2, 2.0) == pytest.approx([0.8, 0.2])
    with pytest.raises(ValueError, match="size = 0"):
        simplex.zipf(0)


@pytest.mark.parametrize("size", [4, 6, 11])
def test_families_hold_what_their_names_say(rng, size):
    points = {pair.name: pair for pair in simplex.families(rng, size)}
    for pair in points.values():
        for z in (pair.teacher_logits, pair.student_logits):
            assert z.shape == (size,)
            assert np.isfinite(z).any()
            assert not (np.isnan(z) | np.isposinf(z)).any()
    equal = points["teacher equals student"]
    np.testing.assert_array_equal(equal.teacher_logits, equal.student_logits)
    assert equal.teacher_logits is not equal.student_logits
    for gap in (40, 200, 800):
        z = np.sort(points[f"gap {gap}"].student_logits)
        assert z[-1] - z[-2] == gap
    supports = {name: [np.isfinite(z) for z in pair[1:]] for name, pair in points.items()}
    assert not (supports["disjoint supports"][0] & supports["disjoint supports"][1]).any()
    assert supports["one-hot teacher"][0].sum() == supports["one-hot student"][1].sum() == 1
    assert supports["student has zeros"][0].all()
    assert not supports["student has zeros"][1].all()
    assert not supports["teacher has zeros"][0].all()
    assert supports["teacher has zeros"][1].all()
    np.testing.assert_array_equal(*supports["both zero on the same tokens"])
    near = points["near the teacher"]
    assert 0 < np.abs(near.teacher_logits - near.student_logits).max() < 1e-4


def test_families_need_four_tokens(rng):
    with pytest.raises(ValueError, match="size = 3"):
        next(simplex.families(rng, 3))


def test_saturated():
    pair = kd.simplex.saturated([0.5, 0.25, 0.25], 10.0, wrong=2)
    np.testing.assert_array_equal(pair.student_logits, [0, 0, 10])
    np.testing.assert_allclose(simplex.softmax(pair.teacher_logits), [0.5, 0.25, 0.25])
