"""Sections 7.1 and 7.3: every claim comes out as recorded, spot values by other means, a broken formula is caught."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from kdtheory import claims
from kdtheory.claims.transport import (
    convergence,
    duality,
    finite,
    global_features,
    iterations,
    program,
    reduction,
    two_cycle,
)
from kdtheory.ledger import REGISTRY, Verdict
from kdtheory.ledger.evidence import as_evidence
from kdtheory.ledger.runner import run_claim

claims.load("transport")
ROWS = {
    "transport.wasserstein-order": "S1-52",
    "transport.global-features": "S1-53",
    "transport.linear-programme": "S1-54",
    "transport.entropic-programme": "S1-55",
    "transport.sinkhorn-update": "S1-56",
    "transport.scaling-form": "S1-57",
}
OWN = (
    "transport.duality",
    "transport.potentials-are-slopes",
    "transport.rational-certificate",
    "transport.reduction",
    "transport.entropic-limits",
    "transport.two-cycle",
    "transport.transposed-kernel",
    "transport.contraction",
    "transport.stopping",
    "transport.rounding",
)


@pytest.mark.parametrize("name", [*ROWS, *OWN])
def test_verdict_is_the_recorded_one_and_controls_are_caught(name):
    assert run_claim(REGISTRY[name]).failures == ()


@pytest.mark.parametrize("name", ROWS)
def test_each_row_is_settled_by_its_claim(name):
    assert REGISTRY[name].rows == (ROWS[name],)


@pytest.mark.parametrize("name", [*ROWS, *OWN])
def test_every_control_holds_a_failure_of_its_own(name):
    for control in REGISTRY[name].controls:
        assert any(item.ok is False for item in as_evidence(control()))


def test_trees_are_counted_as_scoins_did():
    for m, n in ((1, 1), (1, 4), (2, 3), (3, 3), (3, 4)):
        assert len(finite.trees(m, n)) == m ** (n - 1) * n ** (m - 1)


def test_a_tree_carries_the_laws_and_its_prices():
    p, q = finite.fractions("1/2", "1/3", "1/6"), finite.fractions("1/4", "1/4", "1/2")
    cost = [finite.fractions(*row) for row in ((0, 1, 4), (1, 0, 1), (4, 1, 0))]
    for tree in finite.trees(3, 3):
        plan, (f, g) = finite.flow(tree, p, q), finite.potentials(tree, cost)
        assert [sum(plan.get((i, j), Fraction(0)) for j in range(3)) for i in range(3)] == p
        assert [sum(plan.get((i, j), Fraction(0)) for i in range(3)) for j in range(3)] == q
        assert all(f[i] + g[j] == cost[i][j] for i, j in tree)


def test_exact_value_against_pot():
    ot = pytest.importorskip("ot")
    rng = np.random.default_rng(3)
    for _ in range(10):
        p, q, cost = finite.integers(rng, 3, 20), finite.integers(rng, 3, 20), finite.rational_cost(rng, 3, 3)
        floats = [np.array(x, dtype=float) for x in (p, q, cost)]
        assert float(finite.least(p, q, cost)) == pytest.approx(ot.emd2(*floats), abs=1e-12)


def test_entropic_plan_against_pot():
    ot = pytest.importorskip("ot")
    rng = np.random.default_rng(4)
    p, q, cost = finite.law(rng, 4), finite.law(rng, 3), rng.uniform(0, 1, size=(4, 3))
    theirs = ot.bregman.sinkhorn_log(p, q, cost, 0.2, stopThr=1e-14, numItermax=20_000)
    assert finite.scaled(p, q, cost, 0.2)[2] == pytest.approx(theirs, abs=1e-12)


def test_dropping_an_equation_helps_against_rounding():
    matrix = finite.equations(3, 3)
    b = np.array([0.1, 0.2, 0.7, 0.3, 0.3, 0.4])
    b[0] = np.nextafter(b[0], 1)  # masses that differ in the last bit: no exact solution of all six equations
    row = np.array([1, 1, 1, -1, -1, -1])
    assert (row @ matrix == 0).all()
    assert sum(Fraction(x) * int(k) for x, k in zip(b, row, strict=True)) != 0
    assert np.linalg.matrix_rank(matrix[:-1]) == 5


def test_masses_of_the_two_cycle_in_the_chapter():
    p, q = np.array([0.9, 0.1]), np.array([0.5, 0.5])
    kernel = np.exp(-(1 - np.eye(2)))
    u, v = np.ones(2), np.ones(2)
    step = iterations.sweep(kernel, p, q, transpose=False, fresh=False)
    even, odd = (iterations.plan_of(kernel, *iterations.iterate(step, u, v, 400 + k)).sum() for k in (0, 1))
    assert even == pytest.approx(2 * (1 + np.exp(-1)), rel=1e-12)
    assert odd == pytest.approx(1 / even, rel=1e-12)


def test_birkhoff_angle_is_the_maximum_over_four_indices():
    rng = np.random.default_rng(5)
    cost = rng.normal(size=(3, 4))
    four = product(range(3), range(3), range(4), range(4))
    direct = max(cost[i, d] + cost[k, j] - cost[i, j] - cost[k, d] for i, k, j, d in four)
    assert convergence.spread(cost) == pytest.approx(direct, abs=1e-14)


@pytest.mark.parametrize(
    ("module", "name", "broken", "claim"),
    [
        (program, "rank", lambda m, n: m + n, "transport.linear-programme"),
        (program, "_line_cost", lambda i, j, order: abs(i - j) ** (2 * order), "transport.wasserstein-order"),
        (global_features, "_FAR", global_features._NEAR, "transport.global-features"),
        (duality, "_slack", lambda plan, f, g: Fraction(0), "transport.duality"),
        (finite, "solve", lambda p, q, cost: None, "transport.rational-certificate"),
        (reduction, "_taken_away", lambda p, q: (p, q), "transport.reduction"),
        (two_cycle, "sums", lambda kernel, u, v: (list(u), list(v)), "transport.two-cycle"),
        (two_cycle, "sums", lambda kernel, u, v: (list(u), list(v)), "transport.transposed-kernel"),
        (convergence, "hilbert", lambda x, y: float(np.abs(np.log(x / y)).max()), "transport.contraction"),
        (convergence, "spread", lambda cost: finite.osc(cost) / 50, "transport.stopping"),
        (convergence, "rounded", lambda plan, p, q: plan, "transport.rounding"),
    ],
)
def test_a_broken_formula_changes_the_verdict(module, name, broken, claim, monkeypatch):
    recorded = REGISTRY[claim].expected
    monkeypatch.setattr(module, name, broken)
    result = run_claim(REGISTRY[claim])
    assert result.verdict is not recorded or result.verdict is Verdict.OPEN
    assert result.failures


def test_printed_update_is_refuted_and_its_repair_proved():
    result = run_claim(REGISTRY["transport.sinkhorn-update"])
    assert result.verdict is Verdict.CORRECTED
    assert [item.ok for item in result.evidence if item.role == "refutes as written"] == [True] * 4
