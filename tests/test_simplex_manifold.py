"""The multinomial manifold: chart, tangent vectors, Fisher-Rao, geodesics, natural gradient, V from 2 to 20,000."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest

import kdtheory as kd
from kdtheory import simplex
from tests import oracles

SIZES = (2, 3, 12, 400, 20_000)


def _normalised(weights):
    return weights / weights.sum()


def points(size):
    """(name, p, q): interior, near the boundary, long tails reversed, and two laws 1e-7 apart."""
    rng = np.random.default_rng(size)
    interior = rng.dirichlet(np.ones(size), size=2)
    edge = np.full(size, 1e-13)
    edge[0], other = 1.0, np.roll(edge, 1)
    other[1 % size] = 1.0
    tail = simplex.zipf(size, 2.0)
    yield "interior", *map(_normalised, np.maximum(interior, 1e-12))
    yield "near boundary", _normalised(edge), _normalised(other)
    yield "long tail", tail, tail[::-1].copy()
    yield "near each other", tail, _normalised(tail * (1 + 1e-7 * rng.normal(size=size)))


CASES = [pytest.param(p, q, id=f"{name}, V = {size}") for size in SIZES for name, p, q in points(size)]


def _exact(*laws):
    """The laws as mpf, each summing to 1 exactly; 50 digits."""
    rows = [[mp.mpf(float(x)) for x in law] for law in laws]
    return [[x / total for x in row] for row, total in zip(rows, map(mp.fsum, rows), strict=True)]


@pytest.mark.parametrize(("p", "q"), CASES)
def test_fisher_rao_maps_are_those_of_the_sphere(p, q):
    """Distance, quarter point, logarithm against arccos and great circles in 50 digits; exp inverts log."""
    some = np.unique(np.linspace(0, p.size - 1, 25).astype(int))
    with mp.workdps(50):
        a, b = _exact(p, q)
        angle = mp.acos(mp.fsum(mp.sqrt(x * y) for x, y in zip(a, b, strict=True)))
        weights = mp.sin(3 * angle / 4) / mp.sin(angle), mp.sin(angle / 4) / mp.sin(angle)
        quarter = [float((weights[0] * mp.sqrt(a[i]) + weights[1] * mp.sqrt(b[i])) ** 2) for i in some]
        slope = 2 * angle / mp.sin(angle)
        velocity = [float(slope * (mp.sqrt(a[i] * b[i]) - a[i] * mp.cos(angle))) for i in some]
        distance = float(2 * angle)
    v = simplex.fisher_log(p, q)
    # laws sum to 1 up to 1e-16 in float64, which mpmath divided out: that moves a distance by as much
    assert simplex.fisher_rao(p, q) == pytest.approx(distance, abs=3e-15)
    np.testing.assert_allclose(simplex.fisher_geodesic(p, q, 0.25)[some], quarter, rtol=1e-13)
    np.testing.assert_allclose(v[some], velocity, rtol=1e-12, atol=1e-14)
    assert v.sum() == pytest.approx(0, abs=1e-13)
    assert math.sqrt(simplex.fisher_inner(v, v, p)) == pytest.approx(distance, abs=3e-14)
    assert simplex.exit_time(p, v) > 1
    np.testing.assert_allclose(simplex.fisher_exp(p, v), q, rtol=1e-9, atol=1e-15)  # near the boundary 1e-13 of 1
    np.testing.assert_allclose(simplex.fisher_exp(p, v / 4)[some], quarter, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(("p", "q"), CASES)
def test_straight_lines_and_the_chart(p, q):
    z = simplex.centred_logits(q)
    assert z.mean() == pytest.approx(0, abs=1e-13)
    np.testing.assert_allclose(simplex.softmax(z), q, rtol=1e-13)
    e_line = simplex.e_geodesic(p, q, np.array([0.0, 0.3, 1.0]))
    expected = _normalised(np.exp(0.7 * np.log(p) + 0.3 * np.log(q)))
    np.testing.assert_allclose(e_line, [p, expected, q], rtol=1e-12)
    np.testing.assert_allclose(simplex.m_geodesic(p, q, 0.3), 0.7 * p + 0.3 * q, rtol=1e-15)
    assert simplex.fisher_geodesic(p, q, np.linspace(0, 1, 3)).shape == (3, p.size)


@pytest.mark.parametrize(("p", "q"), CASES)
def test_natural_gradient_solves_with_the_metric(p, q):
    """J x = q(x - x̄) must be the logit gradient; forward KL's natural velocity of q is p - q: no V × V array."""
    pair = {"teacher_logits": np.log(p), "student_logits": np.log(q)}
    fkl = kd.divergence("fkl")
    x = simplex.natural_gradient(q, logit_gradient=fkl.logit_gradient(**pair))
    # 1e-14: the logits, up to 25 in size, are rounded by 4e-15, which moves q by that share
    np.testing.assert_allclose(q * (x - q @ x), q - p, rtol=1e-11, atol=1e-14)
    again = simplex.natural_gradient(q, slope=fkl.slope(p, q))
    np.testing.assert_allclose(q * again, q * x, rtol=1e-9, atol=1e-14)
    assert q @ x == pytest.approx(0, abs=1e-12 * np.abs(q * x).sum())


def test_natural_gradient_is_steepest_ascent_in_the_fisher_metric():
    """dD(u) = <v, u>_q for the tangent vector v = q x and any u, by complex steps of reverse KL typed again."""
    rng = np.random.default_rng(3)
    p, q = rng.dirichlet(np.ones(5), size=2)
    v = q * simplex.natural_gradient(q, slope=kd.divergence("rkl").slope(p, q))
    for u in simplex.project_to_tangent(rng.normal(size=(4, 5))):
        moved = q + 1e-30j * u
        derivative = (moved * np.log(moved / p)).sum().imag / 1e-30
        assert simplex.fisher_inner(v, u, q) == pytest.approx(derivative, rel=1e-12)


def test_fisher_metric_is_the_second_derivative_of_kl():
    """KL(p, p + h u) = h² <u, u>_p / 2 + O(h³), in 60 digits."""
    p, u = np.array([0.7, 0.2, 0.1]), np.array([0.3, -0.5, 0.2])
    with mp.workdps(oracles.DIGITS):
        a, h = [mp.mpf(float(x)) for x in p], mp.mpf(10) ** -12
        a[-1] = 1 - a[0] - a[1]
        b = [x + h * mp.mpf(float(d)) for x, d in zip(a, u, strict=True)]
        b[-1] = 1 - b[0] - b[1]
        second = float(2 * oracles.kl(a, b) / h**2)
    assert simplex.fisher_inner(u, u, p) == pytest.approx(second, rel=1e-10)


def test_fisher_projection_is_orthogonal_in_the_metric_and_the_euclidean_one_is_not():
    rng = np.random.default_rng(4)
    p, w = rng.dirichlet(np.ones(6)), rng.normal(size=6)
    projected = simplex.fisher_projection(w, p)
    tangent = simplex.project_to_tangent(rng.normal(size=6))
    assert projected.sum() == pytest.approx(0, abs=1e-15)
    assert simplex.fisher_inner(w - projected, tangent, p) == pytest.approx(0, abs=1e-13)
    assert abs(simplex.fisher_inner(w - simplex.project_to_tangent(w), tangent, p)) > 1e-3


def test_geodesic_is_shorter_than_its_neighbours_and_has_constant_speed():
    """Length by summing 2000 chords of the metric: an oracle that knows no sphere."""
    p, q = np.array([0.9, 0.08, 0.02]), np.array([0.03, 0.07, 0.9])
    t = np.linspace(0, 1, 2001)

    def steps(path):
        middle = (path[1:] + path[:-1]) / 2
        return np.sqrt((np.diff(path, axis=0) ** 2 / middle).sum(-1))

    shortest = steps(simplex.fisher_geodesic(p, q, t))
    assert shortest.sum() == pytest.approx(simplex.fisher_rao(p, q), rel=1e-5)  # chords: second order in 1/2000
    assert np.ptp(shortest) < 1e-3 * shortest.mean()
    for other in (simplex.e_geodesic, simplex.m_geodesic):
        assert steps(other(p, q, t)).sum() > 1.004 * shortest.sum()


def test_antipodes_and_zeros():
    """Disjoint supports: distance π, and the geodesic between them is still the great circle."""
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.0, 0.0, 1.0])
    assert simplex.fisher_rao(p, q) == pytest.approx(math.pi, abs=1e-15)
    np.testing.assert_allclose(simplex.fisher_geodesic(p, q, 0.5), [0.25, 0.25, 0.5], rtol=1e-15)
    np.testing.assert_allclose(simplex.fisher_geodesic(p, p, 0.5), p, rtol=1e-15)
    inside = np.array([0.25, 0.25, 0.5])
    v = simplex.fisher_log(inside, q)
    assert simplex.exit_time(inside, v) == pytest.approx(1, rel=1e-14)  # the target lies on the boundary


def test_leaving_the_simplex():
    """From the centre of two tokens the boundary is π/2 away; the geodesic leaves there, and says which token."""
    centre, v = np.array([0.5, 0.5]), np.array([-0.5, 0.5])  # |v| = 1
    assert simplex.exit_time(centre, v) == pytest.approx(math.pi / 2, rel=1e-15)
    assert simplex.exit_time(centre, 0 * v) == math.inf
    np.testing.assert_allclose(simplex.fisher_exp(centre, 0 * v), centre)
    near = simplex.fisher_exp(centre, 0.999 * math.pi / 2 * v)
    assert 0 < near[0] < 1e-6
    with pytest.raises(ValueError, match=r"token 0, at time 0\.785398; scale v below exit_time"):
        simplex.fisher_exp(centre, 2 * v)
    with pytest.raises(ValueError, match=r"row \(1,\)"):
        simplex.fisher_exp(np.stack([centre, centre]), np.stack([v, 2 * v]))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: simplex.centred_logits([0.5, 0.5, 0.0]), r"p\[2\] = 0 lies on the boundary"),
        (lambda: simplex.fisher_exp([0.5, 0.5], [1.0, 1.0]), "not tangent"),
        (lambda: simplex.fisher_exp([0.5, 0.5], [np.nan, 0.0]), "not tangent"),
        (lambda: simplex.fisher_log([1.0, 0.0], [0.5, 0.5]), r"p\[1\] = 0"),
        (lambda: simplex.fisher_geodesic([0.5, 0.6], [0.5, 0.5], 0.5), "p sums to 1 up to 0.1: divide"),
        (lambda: simplex.fisher_geodesic([0.5, 0.5], [1.5, -0.5], 0.5), r"q\[1\] is not a probability"),
        (lambda: simplex.m_geodesic([0.5, 0.5], [0.5, 0.5], 1.5), r"t must lie in \[0, 1\]"),
        (lambda: simplex.m_geodesic([0.5, 0.5], [np.nan, 0.5], 0.5), r"q\[0\] is not a probability"),
        (lambda: simplex.e_geodesic([0.5, 0.5], [0.0, 1.0], 0.5), r"q\[0\] = 0"),
        (lambda: simplex.natural_gradient([0.5, 0.5]), "slope= or logit_gradient="),
        (
            lambda: simplex.natural_gradient([0.5, 0.5], slope=[1.0, 2.0, 3.0]),
            r"q has shape \(2,\), slope has shape \(3,",
        ),
        (lambda: simplex.e_geodesic([0.5, 0.5], [0.3, 0.7], np.inf), "t must be finite"),
        (lambda: simplex.fisher_rao([1.0], [0.5, 0.5]), r"p has shape \(1,\), q has shape \(2,\)"),
        (lambda: simplex.fisher_rao([1.0, 2.0], [0.5, 0.5]), "p sums to 1 up to 2"),
        (lambda: simplex.logits_of([np.nan, 0.5]), r"p\[0\] is not a probability"),
        (lambda: simplex.zipf(2.5), "size = 2.5"),
        (lambda: simplex.saturated([0.5, 0.5], 3.0, wrong=2), "wrong = 2"),
        (lambda: simplex.natural_gradient([1.0, 0.0], slope=[1.0, 0.0]), r"q\[1\] = 0"),
        (lambda: simplex.fisher_inner([1, -1], [1, -1], 0.5), "p is not a probability"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_shapes_broadcast():
    rng = np.random.default_rng(5)
    p, q = rng.dirichlet(np.ones(4), size=(2, 3, 5))
    assert simplex.fisher_log(p, q).shape == (3, 5, 4)
    assert simplex.exit_time(p, simplex.fisher_log(p, q)).shape == (3, 5)
    np.testing.assert_allclose(simplex.fisher_exp(p, simplex.fisher_log(p, q)), q, rtol=1e-11)
    assert simplex.e_geodesic(p[0, 0], q[0, 0], np.linspace(-1, 2, 7)).shape == (7, 4)
    assert simplex.natural_gradient(q, slope=np.log(q / p)).shape == (3, 5, 4)


@pytest.mark.parametrize("size", [1e-9, 1e-14, 1e-15])
def test_the_velocity_to_a_point_nearby_is_tangent(size):
    p = np.array([0.1, 0.2, 0.3, 0.4])
    q = p + size * np.array([1.0, -2.0, 3.0, -2.0])
    np.testing.assert_allclose(simplex.fisher_exp(p, simplex.fisher_log(p, q)), q, rtol=1e-15)


def test_sums_of_float32_are_sums_of_probabilities():
    p, q = (simplex.softmax(np.random.default_rng(seed).normal(size=20_000)).astype(np.float32) for seed in (0, 1))
    near = (0.9999 * p + 0.0001 * q).astype(np.float32)
    np.testing.assert_allclose(simplex.fisher_exp(p, simplex.fisher_log(p, near)), near, rtol=1e-5)  # float32 sums


def test_nothing_underflows_within_1e_300_of_a_corner():
    p, q = np.array([1.0, 1e-300, 1e-300]), np.array([1.0, 3e-300, 1e-300])
    v = simplex.fisher_log(p, q)
    assert math.sqrt(simplex.fisher_inner(v, v, p)) == pytest.approx(2 * (math.sqrt(3) - 1) * 1e-150, rel=1e-12)
    np.testing.assert_allclose(simplex.fisher_exp(p, v), q, rtol=1e-12)
