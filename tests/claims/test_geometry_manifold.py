"""Chapter 04, sections 4.6 to 4.10: verdicts as recorded, numbers by other means, broken formulas caught."""

import math

import mpmath as mp
import numpy as np
import ot
import pytest
import sympy as sp

from kdtheory import claims, simplex
from kdtheory.claims.geometry import convexity, hessians, polyhedral, smoothed, straight_lines
from kdtheory.divergences import RECORDS, derive
from kdtheory.divergences.symbols import alpha, beta
from kdtheory.ledger import REGISTRY, Claim, Verdict
from kdtheory.ledger.evidence import as_evidence
from kdtheory.ledger.runner import run_claim

claims.load("geometry")
MODULES = ("manifold", "natural", "straight_lines", "convexity", "hessians", "sinkhorn", "polyhedral")
HERE = [
    item
    for item in REGISTRY
    if isinstance(item, Claim) and item.check.__module__.rpartition(".")[2] in MODULES and item.chapter == "geometry"
]


def test_all_claims_of_the_sections_are_here():
    assert len(HERE) == 18
    assert all(item.proof is not None for item in HERE)


@pytest.mark.parametrize("item", HERE, ids=lambda item: item.id)
def test_verdict_is_the_recorded_one_and_controls_are_caught(item):
    assert run_claim(item).failures == ()


@pytest.mark.parametrize("item", HERE, ids=lambda item: item.id)
def test_every_part_of_a_control_fails_and_not_only_one(item):
    for control in item.controls:
        found = as_evidence(control())
        # a control with a whole table, one entry of it wrong, is allowed to hold elsewhere
        assert sum(part.ok is False for part in found) >= (2 if len(found) > 9 else len(found))


# -- numbers of the chapter by other means -----------------------------------------------------------------------------
def _pot_divergence(p, q, cost, epsilon):
    """POT's plans, and the definition of the relative functional on them; POT's own value follows other conventions."""

    def value(a, b):
        plan = ot.sinkhorn(a, b, cost, epsilon, stopThr=1e-14, numItermax=100_000)
        product = np.outer(a, b)
        return (plan * cost).sum() + epsilon * (plan * np.log(plan / product) - plan + product).sum()

    return value(p, q) - (value(p, p) + value(q, q)) / 2


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 5.0])
def test_sinkhorn_oracles_agree_with_pot(epsilon):
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(5), size=2)
    cost = np.abs(np.subtract.outer(np.arange(5.0), np.arange(5.0))) / 4
    theirs = _pot_divergence(p, q, cost, epsilon)
    assert smoothed.divergence(p, q, cost, epsilon) == pytest.approx(theirs, abs=1e-12)  # POT's marginals to 1e-14
    with mp.workdps(25):
        laws = [[mp.mpf(float(x)) for x in law] for law in (p, q)]
        laws = [[x / mp.fsum(law) for x in law] for law in laws]
        assert float(smoothed.exact_divergence(*laws, cost, mp.mpf(epsilon))) == pytest.approx(theirs, abs=1e-12)


def test_sinkhorn_hessian_of_two_tokens_in_closed_form():
    """p = (1/2, 1/2), distance 1: ε/2 sinh(1/ε) times Fisher's."""
    half = np.array([0.5, 0.5])
    for epsilon in (0.2, 1.0, 7.0):
        found = smoothed.logit_hessian(half, 1 - np.eye(2), epsilon)
        expected = epsilon / 2 * math.sinh(1 / epsilon) * (np.diag(half) - np.outer(half, half))
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_sinkhorn_tail_is_quadratic_for_equidistant_tokens_whatever_the_vocabulary():
    """Both bounds of the theorem with λ_min(K) = 1 - e^{-1/ε}, V up to 200, and the singular values of the factor."""
    for size in (5, 40, 200):
        p, cost = simplex.zipf(size, 1.5), 1 - np.eye(size)
        least = smoothed.nonzero_eigenvalues(p, cost, 1.0)
        assert 1 - math.exp(-1) <= least[0] / p[-1] ** 2 <= size / (size - 1) * hessians_constant(1.0)
        np.testing.assert_allclose(
            least, np.linalg.eigvalsh(smoothed.logit_hessian(p, cost, 1.0))[1:], rtol=1e-6, atol=1e-15
        )


def hessians_constant(ratio):
    """B/ε of the tail theorem, typed again."""
    return (math.exp(2 * ratio) - 1) * (1 + math.sinh(ratio) / 2)


def test_squares_and_distances_agree_near_the_teacher_by_network_simplex():
    places = np.arange(4.0)
    cost = np.abs(np.subtract.outer(places, places))
    p = np.array([0.3, 0.2, 0.2, 0.3])
    near, far = p + 0.2 * np.array([-1, 0, 0, 1]), p + 0.25 * np.array([-1, 0, 0, 1])
    assert ot.emd2(p, near, cost**2) == pytest.approx(ot.emd2(p, near, cost), rel=1e-12)
    assert ot.emd2(p, far, cost**2) > ot.emd2(p, far, cost) + 0.1


def test_curvature_table_by_hand_at_numbers():
    """Jensen-Shannon at β = 1/4 and skew KL at α = 1/3, from second derivatives of f typed again at r = 1."""
    r = sp.Symbol("r", positive=True)
    mixed = r / 4 + sp.Rational(3, 4)
    jsd = r / 4 * sp.log(r / mixed) + sp.Rational(3, 4) * sp.log(1 / mixed)
    skl = r * sp.log(r / (r / 3 + sp.Rational(2, 3)))
    for name, scalar, at in (("jsd", jsd, {beta: sp.Rational(1, 4)}), ("skl", skl, {alpha: sp.Rational(1, 3)})):
        assert sp.diff(scalar, r, 2).subs(r, 1) == hessians.TABLE[name].subs(at)
    assert derive.curvature(RECORDS["tvd"]) is None


def test_pythagoras_in_the_chapters_example_by_floats():
    kl = lambda a, b: float(np.sum(np.array(a, float) * np.log(np.array(a, float) / np.array(b, float))))  # noqa: E731
    p, q, r = straight_lines._PAIRS, straight_lines._PRODUCT, straight_lines._OTHER
    assert kl(p, r) == pytest.approx(kl(p, q) + kl(q, r), rel=1e-14)
    table = np.array(p, float).reshape(2, 2)
    np.testing.assert_allclose(np.outer(table.sum(1), table.sum(0)).ravel(), np.array(q, float))


def test_line_cost_is_pots():
    p, q = polyhedral._laws((1, 5, 2, 4), (6, 1, 4, 1))
    a, b = np.array(p, float), np.array(q, float)
    cost = np.abs(np.subtract.outer(np.arange(4.0), np.arange(4.0)))
    for power in (1, 2):
        assert float(polyhedral._line_cost(p, q, power)) == pytest.approx(ot.emd2(a, b, cost**power), rel=1e-12)


# -- broken formulas ---------------------------------------------------------------------------------------------------
def _broken(name, factor):
    original = getattr(simplex, name)
    return lambda *args, **options: factor * original(*args, **options)


@pytest.mark.parametrize(
    ("function", "item"),
    [
        ("fisher_rao", "geometry.fisher-rao"),
        ("fisher_log", "geometry.fisher-rao"),
        ("fisher_geodesic", "geometry.fisher-rao"),
        ("exit_time", "geometry.incomplete"),
        ("centred_logits", "geometry.softmax-chart"),
        ("natural_gradient", "geometry.natural-gradient"),
    ],
)
def test_a_broken_map_changes_the_verdict(function, item, monkeypatch):
    monkeypatch.setattr(simplex, function, _broken(function, 1.0001))
    assert run_claim(REGISTRY[item]).verdict in (Verdict.REFUTED, Verdict.OPEN)  # OPEN: the next map refused its input


def test_a_broken_curvature_changes_the_verdict(monkeypatch):
    monkeypatch.setattr(hessians, "TABLE", {**hessians.TABLE, "renyi": sp.Integer(1)})
    assert run_claim(REGISTRY["geometry.curvature"]).verdict is not Verdict.PROVED


def test_a_broken_sinkhorn_hessian_changes_the_verdict(monkeypatch):
    original = smoothed.logit_hessian
    monkeypatch.setattr(smoothed, "logit_hessian", lambda *args, **options: 2 * original(*args, **options))
    assert run_claim(REGISTRY["geometry.sinkhorn-hessian"]).verdict is Verdict.REFUTED


def test_a_convex_loss_among_the_bounded_ones_changes_the_verdict(monkeypatch):
    monkeypatch.setattr(convexity, "_BOUNDED", (*convexity._BOUNDED, "fkl"))
    assert run_claim(REGISTRY["geometry.bounded-never-convex"]).verdict is Verdict.REFUTED


def test_sinkhorn_that_does_not_settle_is_an_error():
    p = np.array([0.7, 0.3])
    with pytest.raises(RuntimeError, match="raise epsilon"):
        smoothed.self_potential(p, 1 - np.eye(2), 1.0, steps=2)
    with pytest.raises(RuntimeError, match="raise epsilon"):
        smoothed.relative(p, np.array([0.9, 0.1]), 1 - np.eye(2), 1.0, steps=2)
