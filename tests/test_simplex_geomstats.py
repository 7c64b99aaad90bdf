"""The multinomial manifold against geomstats, an implementation that shares nothing with ours."""

from __future__ import annotations

import numpy as np
import pytest

from kdtheory import simplex
from tests.test_simplex_manifold import CASES


@pytest.fixture(scope="module")
def categorical():
    """geomstats' metric of categorical laws, size -> metric.

    Its NumPy backend asks for numpy.trapz, which NumPy 2.4 has dropped. A space of 20,000 tokens allocates matrices of
    that size squared, 6 GB; its exponential, logarithm and geodesics act on vectors and never look at the dimension of
    the space, so beyond 400 tokens they are taken from the space of three.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not hasattr(np, "trapz"):
            patch.setattr(np, "trapz", np.trapezoid, raising=False)
        pytest.importorskip("geomstats", reason="geomstats is not installed: pip install 'kdtheory[oracles]'")
        from geomstats.information_geometry.categorical import CategoricalDistributions
    return lambda size: CategoricalDistributions(dim=size - 1 if size <= 400 else 2).metric


@pytest.mark.parametrize(("p", "q"), CASES)
def test_exponential_and_logarithm(categorical, p, q):
    metric = categorical(p.size)
    theirs, ours = metric.log(q, p), simplex.fisher_log(p, q)
    # 1e-12: geomstats takes the angle from the inner product on the sphere and loses digits for laws near each other
    np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(simplex.fisher_exp(p, ours / 2), metric.exp(theirs / 2, p), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(("p", "q"), CASES)
def test_geodesic(categorical, p, q):
    times = np.linspace(0, 1, 5)
    theirs = categorical(p.size).geodesic(initial_point=p, end_point=q)(times)
    np.testing.assert_allclose(simplex.fisher_geodesic(p, q, times), theirs, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(("p", "q"), [case for case in CASES if len(case.values[0]) <= 400])
def test_distance_and_metric(categorical, p, q):
    """Up to V = 400: geomstats writes the metric as a V × V matrix."""
    metric = categorical(p.size)
    assert simplex.fisher_rao(p, q) == pytest.approx(float(metric.dist(p, q)), rel=1e-6, abs=1e-7)
    u, v = simplex.project_to_tangent(np.random.default_rng(1).normal(size=(2, p.size)))
    assert simplex.fisher_inner(u, v, p) == pytest.approx(float(metric.inner_product(u, v, p)), rel=1e-10)


def test_a_wrong_radius_is_caught(categorical):
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    assert simplex.fisher_rao(p, q) / 2 != pytest.approx(float(categorical(3).dist(p, q)), rel=1e-2)
