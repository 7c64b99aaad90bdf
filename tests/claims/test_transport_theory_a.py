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
    relaxation,
    scaling,
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
    "transport.safeguarded-relaxation",
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


def test_primal_and_dual_minimisers_agree():
    rng = np.random.default_rng(6)
    for _ in range(5):
        p, q, cost, epsilon = scaling._draw(rng)
        epsilon = max(epsilon, 0.3 * finite.osc(cost))
        primal, dual = finite.smoothed(p, q, cost, epsilon), finite.scaled(p, q, cost, epsilon)[2]
        assert primal == pytest.approx(dual, abs=1e-12)


def test_a_vertex_has_several_slopes_only_at_equal_partial_sums():
    half, thirds = finite.fractions("1/2", "1/2"), finite.fractions("1/3", "2/3")
    assert not duality._generic(half, half)
    assert duality._generic(half, thirds)
    assert not duality._generic(finite.fractions(1, 0), thirds)


def _rows_of_a_batch(seed, size):
    """Kernel, log p, log q of a batch with a cost per row, tokens without mass included."""
    torch = pytest.importorskip("torch")
    from kdtheory.transport.entropic import kernels

    rng = np.random.default_rng(seed)
    cost = rng.uniform(0, 12, size=(size, 5, 5))
    p, q = rng.dirichlet(np.full(5, 0.4), size=(2, size))
    p[::4, 1], q[::3, 2] = 0.0, 0.0
    laws = [torch.from_numpy(x / x.sum(1, keepdims=True)) for x in (p, q)]
    return kernels.PerRow(torch.from_numpy(cost), 1.0), *(x.log() for x in laws)


def _dual_values(kernel, log_p, log_q, phi, psi):
    """Σ p φ + Σ q ψ - ΣΓ of each row, from the plans."""
    plans = (log_p + phi).exp()[:, :, None] * kernel.K * (log_q + psi).exp()[:, None, :]
    return (log_p.exp() * phi).sum(1) + (log_q.exp() * psi).sum(1) - plans.sum((1, 2))


@pytest.mark.parametrize("omega", [1.3, 1.7, 1.95])
def test_the_library_raises_the_dual_with_every_half_step(omega):
    torch = pytest.importorskip("torch")
    from kdtheory.transport.entropic import scaling as library

    kernel, log_p, log_q = _rows_of_a_batch(7, 40)
    phi, psi = torch.zeros_like(log_p), torch.zeros_like(log_q)
    lengths, value = log_p.new_full((40, 1), omega), _dual_values(kernel, log_p, log_q, phi, psi)
    shortened = 0
    for k in range(30):
        if k % 2 == 0:
            plain = -kernel.log_sums(log_q + psi) - phi
            step, misfit = library._relaxed(plain, log_p.exp(), log_p, lengths)
            plans = (log_p + phi).exp()[:, :, None] * kernel.K * (log_q + psi).exp()[:, None, :]
            assert torch.allclose(misfit, (plans.sum(2) - log_p.exp()).abs().sum(1), atol=1e-13)
            phi = phi + step
        else:
            plain = -kernel.log_sums(log_p + phi, transpose=True) - psi
            step, _ = library._relaxed(plain, log_q.exp(), log_q, lengths)
            psi = psi + step
        shortened += int((step == plain).all(1).sum())
        before, value = value, _dual_values(kernel, log_p, log_q, phi, psi)
        assert (value >= before - 1e-13 * (1 + before.abs())).all()
    assert 0 < shortened < 30 * 40  # both kinds of steps were taken


def test_the_error_that_the_library_reports_bounds_the_rows():
    from kdtheory.transport.entropic import scaling as library

    kernel, log_p, log_q = _rows_of_a_batch(8, 60)
    for sweeps in (1, 2, 3, 5, 9):
        state = library.solve(kernel, log_p, log_q, tol=1e-12, max_iter=sweeps)
        plans = (log_p + state.phi).exp()[:, :, None] * kernel.K * (log_q + state.psi).exp()[:, None, :]
        rows = (plans.sum(2) - log_p.exp()).abs().sum(1)
        assert (rows <= state.error + 1e-14).all()
        assert (plans.sum(1) - log_q.exp()).abs().max() < 1e-14
        assert (rows > 0.5 * state.error).any() or sweeps > 3  # of the right size, not merely large


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
        (finite, "smoothed", lambda p, q, cost, epsilon: np.outer(p, q), "transport.scaling-form"),
        (relaxation, "gain", lambda p, d, omega, exp=np.exp: omega, "transport.safeguarded-relaxation"),
        (relaxation, "_ETA", 1.0, "transport.safeguarded-relaxation"),
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
