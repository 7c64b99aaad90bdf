"""Chapter 07, sections 7.4 and 7.5: verdicts as recorded, spot values by other means, broken formulas caught."""

from fractions import Fraction

import numpy as np
import ot
import pytest
import torch

import kdtheory as kd
from kdtheory import claims
from kdtheory.claims.transport import bias, debiasing, flow, functionals, minimisers, regularised, sharp_debiased, stars
from kdtheory.ledger import REGISTRY, Verdict
from kdtheory.ledger.runner import run_claim

claims.load("transport")
MODULES = (functionals, minimisers, bias, debiasing, sharp_debiased, stars, flow)
MINE = [item for item in REGISTRY if any(item in vars(module).values() for module in MODULES)]
LINE = np.abs(np.subtract.outer(np.arange(3.0), np.arange(3.0)))
P, Q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
BOUNDARY = ("relative", "sharp", "divergence")


@pytest.mark.parametrize("item", MINE, ids=lambda item: item.id)
def test_verdict_is_the_recorded_one_and_controls_are_caught(item):
    assert run_claim(item).failures == ()


def test_the_rows_of_the_part_are_settled():
    assert {row for item in MINE for row in item.rows} == {"S1-58", "S1-61", "S1-62", "S1-63"}
    assert len(MINE) == 18


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 3.0])
def test_the_oracle_agrees_with_pot(epsilon):
    found = regularised.solve(P, Q, LINE, epsilon)
    plan = ot.sinkhorn(P, Q, LINE, epsilon, method="sinkhorn_log", stopThr=1e-14, numItermax=100_000)
    np.testing.assert_allclose(found.plan, plan, atol=1e-12)
    assert found.sharp == pytest.approx((plan * LINE).sum(), abs=1e-12)
    relative = ot.solve(LINE, P, Q, reg=epsilon, reg_type="KL", tol=1e-13, max_iter=100_000).value
    assert found.relative == pytest.approx(relative, abs=1e-9)  # 1e-9: POT's own stopping rule


def test_own_plans_agree_with_the_general_iteration():
    same = regularised.solve(P, P, LINE, 0.5)
    other = regularised.solve(P, P.copy(), LINE, 0.5)
    np.testing.assert_allclose(same.plan, other.plan, atol=1e-13)
    assert same.relative == pytest.approx(other.relative, abs=1e-13)


def test_bipartite_values_by_scaling():
    p, q = (np.array(x, dtype=float) + 1e-13 for x in ([0.5, 0.5, 0, 0, 0], [0, 0, 1 / 3, 1 / 3, 1 / 3]))
    p, q = p / p.sum(), q / q.sum()
    for epsilon in (2.0, 4.0, 10.0):
        x = np.exp(-2 / epsilon)
        closed = epsilon / 2 * np.log((1 + x) * (1 + 2 * x) / (6 * x))
        found = regularised.debiased("relative", p, q, debiasing.bipartite_cost(), epsilon)
        assert found == pytest.approx(closed, abs=1e-9)  # masses of 1e-13 where there are none
        assert (found < 0) == (epsilon > 2 / np.log(2))


def test_the_negative_instance_by_pot():
    p, q = (np.array([float(x) for x in law]) for law in (sharp_debiased.TEACHER, sharp_debiased.STUDENT))
    cost = np.subtract.outer(sharp_debiased.PLACES, sharp_debiased.PLACES).astype(float) ** 2

    def sharp(a, b):
        plan = ot.sinkhorn(a, b, cost, 2.0, method="sinkhorn_log", stopThr=1e-14, numItermax=100_000)
        return (plan * cost).sum()

    assert -12e-5 < sharp(p, q) - (sharp(p, p) + sharp(q, q)) / 2 < -11e-5


def test_the_enclosure_holds_the_value_after_few_steps():
    exponents = [[Fraction(abs(i - j), 2) for j in range(3)] for i in range(3)]
    laws = [[Fraction(int(10 * x), 10) for x in law] for law in (P, Q)]
    found = regularised.solve(P, Q, LINE, 2.0).sharp / 2
    wide, narrow = (sharp_debiased.enclosed_sharp(laws[0], laws[1], exponents, steps) for steps in (5, 200))
    assert wide.overlaps(narrow)
    assert float(wide.rad()) > float(narrow.rad())
    assert float(narrow.mid()) == pytest.approx(found, abs=1e-12)


def test_favourite_students_are_not_the_teacher():
    epsilon = 1.0
    flat, code = minimisers.softmin_law(P, LINE, epsilon), minimisers.codebook_law(P, LINE, epsilon)
    assert flat.max() < P.max()
    for law in (flat, code):
        assert law.sum() == pytest.approx(1)
        assert np.abs(law - P).max() > 0.01
    far = minimisers.codebook_law(np.array([0.45, 0.3, 0.25]), LINE, 1000.0, steps=2_000_000)
    assert far.argmax() == 1  # the medoid


def test_the_flow_rests_at_the_teacher_and_the_plain_one_does_not():
    cloud = np.random.default_rng(0).normal(size=(7, 2))
    assert np.abs(flow.particle_gradient(cloud, cloud, 0.5)).max() < 1e-14
    assert np.abs(flow.particle_gradient(cloud, cloud, 0.5, own=0.0)).max() > 1e-3


def problems():
    """Costs without symmetry, and ε from a third of the largest to three times it."""
    rng = np.random.default_rng(7)
    return [regularised.random_problem(rng) for _ in range(6)]


@pytest.mark.parametrize("name", ["relative", "entropic", "sharp", "divergence"])
def test_the_library_has_the_values_and_gradients_of_the_oracle(name):
    for p, q, cost, epsilon in problems():
        cost = (cost + cost.T) / 2 if name == "divergence" else cost
        laws = [torch.tensor(law, requires_grad=True) for law in (p, q)]
        found = kd.sinkhorn(*laws, kd.TokenCost.dense(cost), epsilon, functional=name, tol=1e-13).value
        found.backward()
        there, back = regularised.solve(p, q, cost, epsilon), regularised.solve(q, p, cost.T, epsilon)
        if name == "divergence":
            value = regularised.debiased("relative", p, q, cost, epsilon)
            slopes = [x.g - regularised.solve(law, law, cost, epsilon).g for x, law in ((back, p), (there, q))]
        else:
            value = getattr(there, name)
            slopes = [
                functionals.gradients(back, q, p, cost.T, epsilon)[name],
                functionals.gradients(there, p, q, cost, epsilon)[name],
            ]
        assert found.item() == pytest.approx(value, abs=1e-12)
        for law, slope in zip(laws, slopes, strict=True):
            gradient = law.grad.numpy()
            np.testing.assert_allclose(gradient - gradient[0], slope - slope[0], atol=1e-10)  # tol 1e-13 · ε / gap


@pytest.mark.parametrize("name", BOUNDARY)
def test_the_library_differentiates_towards_tokens_without_mass(name):
    for p, q, cost, epsilon in problems():
        cost = (cost + cost.T) / 2
        student = torch.tensor(np.append(q[:-1] / q[:-1].sum(), 0.0), requires_grad=True)
        kd.sinkhorn(torch.tensor(p), student, kd.TokenCost.dense(cost), epsilon, name, tol=1e-13).value.backward()
        slope = functionals.towards_new_token(name, p, student.detach().numpy()[:-1], cost, epsilon)
        assert (student.grad[-1] - student.grad[0]).item() == pytest.approx(slope, abs=1e-9)


@pytest.mark.parametrize(
    ("module", "name", "broken", "claim"),
    [
        (
            functionals,
            "gradients",
            lambda found, p, q, cost, eps: dict.fromkeys(("relative", "entropic", "sharp"), found.f),
            "transport.functional-gradients",
        ),
        (minimisers, "softmin_law", lambda p, cost, epsilon: p, "transport.functional-minimisers"),
        (functionals, "towards_new_token", lambda *problem, own=1.0: own, "transport.functional-gradients"),
        (bias, "exact_cost", lambda p, q, cost: float(p @ cost @ q), "transport.bias-bounds"),
        (bias, "exact_cost", lambda p, q, cost: 0.9 * float(p @ cost @ q), "transport.debiased-limits"),
        (debiasing, "bipartite_value", lambda x: x, "transport.debiased-positivity"),
        (sharp_debiased, "corner_mass", lambda a, b, theta, root: a * b, "transport.sharp-two-tokens"),
        (
            stars,
            "star_cost",
            lambda arms: (arms[:, None] + arms) * (np.eye(arms.size) - 1),
            "transport.sharp-debiased-star",
        ),
        (flow, "particle_gradient", lambda t, s, e, own=1.0: s * own, "transport.sinkhorn-flow"),
    ],
)
def test_a_broken_formula_changes_the_verdict(module, name, broken, claim, monkeypatch):
    recorded = REGISTRY[claim].expected
    monkeypatch.setattr(module, name, broken)
    result = run_claim(REGISTRY[claim])
    assert result.verdict is not recorded or result.verdict is Verdict.OPEN
    assert result.failures
