"""The geometric loss: its programs by SciPy and in fractions, conjugacy, limits, and its prediction."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import kdtheory as kd
from kdtheory.transport.repaired import self_transport
from tests.transport.cases import COSTS, METRICS

EPSILON = 0.8
KINDS = tuple(
    kind for kind in METRICS if kind != "cosine"
)  # SciPy's cosine of a row with itself is off by 1e-16: C by 1e-8


def made(kind="tree", epsilon=EPSILON):
    return kd.divergence("geometric", cost=COSTS[kind][0], epsilon=epsilon)


def objective(kind, f, epsilon=EPSILON):
    """M_ij = exp(-(f_i + f_j + C_ij/ε)/2)."""
    return np.exp(-(f[:, None] + f[None, :] + COSTS[kind][1] / epsilon) / 2)


def best_face(M: np.ndarray) -> tuple[float, np.ndarray]:
    """min αᵀMα over the simplex: on each of the 2^V - 1 faces the stationary point, the best of those inside."""
    found = (np.inf, None)
    for size in range(1, len(M) + 1):
        for face in combinations(range(len(M)), size):
            alpha = np.zeros(len(M))
            x = np.linalg.solve(M[np.ix_(face, face)], np.ones(size))
            alpha[list(face)] = x / x.sum()
            if (alpha >= 0).all() and alpha @ M @ alpha < found[0]:
                found = alpha @ M @ alpha, alpha
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_prediction_is_the_best_face(kind, scale, rng):
    loss = made(kind)
    for f in rng.normal(size=(6, 6)) * scale:
        value, alpha = best_face(objective(kind, f))
        np.testing.assert_allclose(loss.prediction(f), alpha, atol=1e-11)
        p = rng.dirichlet(np.ones(6))
        other = rng.normal(size=6)
        gap = float(loss.per_position(*_logs(np.log(p), f)) - loss.per_position(*_logs(np.log(p), other)))
        expected = -np.log(value) - p @ f + np.log(best_face(objective(kind, other))[0]) + p @ other
        assert gap == pytest.approx(expected, abs=1e-10)


def _logs(*logits):
    return [torch.log_softmax(torch.tensor(np.asarray(x, float)), -1) for x in logits]


def test_two_tokens_in_closed_form(rng):
    """V = 2, K = [[1, k], [k, 1]], y = e^{f/2}: α_1 ∝ y_1 (y_1 - k y_2) while both brackets are positive."""
    distance = 1.3
    loss = kd.divergence("geometric", cost=kd.TokenCost.line([0.0, distance]))
    k = np.exp(-distance / 2)
    for gap in np.linspace(-4, 4, 41):
        y = np.exp(np.array([gap, 0.0]) / 2)
        raw = np.maximum([y[0] * (y[0] - k * y[1]), y[1] * (y[1] - k * y[0])], 0)
        if raw.min() == 0:
            raw = (raw > 0) * 1.0
        np.testing.assert_allclose(loss.prediction([gap, 0.0]), raw / raw.sum(), atol=1e-13)
        assert (loss.prediction([gap, 0.0]).min() == 0) == (abs(gap) >= distance)  # sparse beyond the distance


def test_the_support_is_exact_in_fractions():
    """Kx >= y, x >= 0, x (Kx - y) = 0 for rational data, by the same faces in exact arithmetic."""
    K = [[Fraction(1), Fraction(1, 2), Fraction(1, 4)], [Fraction(1, 2), Fraction(1), Fraction(1, 2)],
         [Fraction(1, 4), Fraction(1, 2), Fraction(1)]]  # fmt: skip
    y = [Fraction(1), Fraction(3, 5), Fraction(4, 5)]
    # {1, 3}: x_1 + x_3/4 = 1, x_1/4 + x_3 = 4/5; token 2 then has (Kx)_2 = (x_1 + x_3)/2 >= 3/5
    x1 = (y[0] - y[2] / 4) / (1 - Fraction(1, 16))
    x3 = y[2] - x1 / 4
    x = [x1, Fraction(0), x3]
    slack = [sum(K[i][j] * x[j] for j in range(3)) - y[i] for i in range(3)]
    assert slack[0] == slack[2] == 0
    assert slack[1] > 0
    found = self_transport.complementary(
        torch.tensor([[float(v) for v in row] for row in K], dtype=torch.float64),
        torch.tensor([[float(v) for v in y]], dtype=torch.float64),
        {},
    )
    np.testing.assert_allclose(found[0], [float(v) for v in x], atol=1e-15)


@pytest.mark.parametrize("gap", [1.0, 40.0, 200.0, 800.0])
def test_conditions_hold_at_every_gap(gap, rng):
    """Kx >= y with equality on the support, many rows at once, whatever was solved before."""
    loss, kept = made("embedding", 2.0), {}
    K = loss._kernel
    for _ in range(3):
        f = torch.tensor(rng.normal(size=(200, 6)) * gap)
        y = ((f - f.amax(-1, keepdim=True)) / 2).exp()
        x = self_transport.complementary(K, y, kept)
        slack = x @ K - y
        assert float(x.min()) >= 0
        assert float(slack.min()) >= -1e-12
        assert float((x * slack).abs().max()) <= 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_entropy_is_the_conjugate(kind, rng):
    """Ω(p) = max_f ⟨p, f⟩ - Ω*(f) by BFGS on Ω* of the faces: Fenchel-Young, so the loss is 0 at the best f."""
    loss = made(kind)
    p = rng.dirichlet(np.ones(6) * 3)

    def dual(f):
        value, alpha = best_face(objective(kind, f))
        return -np.log(value) - p @ f, alpha - p

    start = np.log(p)
    found = minimize(dual, start, jac=True, method="BFGS", options={"gtol": 1e-11})
    ours = self_transport.negative_entropy(loss._kernel, torch.tensor(p).unsqueeze(0))
    assert float(ours) == pytest.approx(-found.fun, abs=1e-9)
    np.testing.assert_allclose(loss.prediction(found.x), p, atol=1e-6)
    assert float(loss.per_position(*_logs(np.log(p), found.x))) == pytest.approx(0, abs=1e-9)
    assert float(loss.per_position(*_logs(np.log(p), np.log(p)))) > 1e-3  # softmax(f) = p is not the minimum


def test_entropy_is_self_transport(rng):
    """Ω(p) = -½ OT(p, p) of the library's Sinkhorn with cost C/ε at regularisation 2, relative form."""
    loss, cost = made("embedding"), kd.TokenCost.dense(COSTS["embedding"][1] / EPSILON)
    p = rng.dirichlet(np.ones(6), size=5)
    transport = kd.sinkhorn(p, p, cost, 2.0, functional="relative").value
    ours = self_transport.negative_entropy(loss._kernel, torch.tensor(p))
    np.testing.assert_allclose(ours, -transport / 2, atol=1e-8)


def test_far_tokens_give_softmax_and_forward_kl(rng):
    loss = made("tree", 1e-3)
    teacher, student = rng.normal(size=(2, 20, 6))
    np.testing.assert_allclose(loss.prediction(student), kd.simplex.softmax(student), atol=1e-12)
    p, q = kd.simplex.softmax(teacher), kd.simplex.softmax(student)
    np.testing.assert_allclose(loss.value(p, q), kd.divergence("fkl").value(p, q), atol=1e-11)


def test_convex_in_the_logits(rng):
    loss = made()
    p = np.tile(rng.normal(size=6), (200, 1))
    f, g = rng.normal(size=(2, 200, 6)) * 3
    along = rng.uniform(size=(200, 1))
    at = [loss.loss(teacher_logits=torch.tensor(p), student_logits=torch.tensor(x), reduction="none")
          for x in (f, g, along * f + (1 - along) * g)]  # fmt: skip
    # the loss sees log-softmax(f): a shift of f, which it does not notice
    mixed = torch.tensor(along[:, 0]) * at[0] + torch.tensor(1 - along[:, 0]) * at[1]
    assert float((at[2] - mixed).max()) <= 1e-11


def test_saturated_student_keeps_its_gradient():
    """Far from the others a lead makes α one-hot: the gradient is e_k - p, exactly, at every gap."""
    loss, teacher = made(), np.log([0.05, 0.05, 0.1, 0.1, 0.3, 0.4])
    for gap in (40.0, 200.0, 800.0):
        gradient = loss.logit_gradient(teacher_logits=teacher, student_logits=gap * np.eye(6)[0])
        np.testing.assert_allclose(gradient, np.eye(6)[0] - np.exp(teacher), atol=1e-14)


def test_impossible_tokens(rng):
    loss, f = made(), rng.normal(size=6)
    f[[1, 4]] = -np.inf
    rest = [0, 2, 3, 5]
    C = COSTS["tree"][1][np.ix_(rest, rest)]
    M = np.exp(-(f[rest][:, None] + f[rest] + C / EPSILON) / 2)
    np.testing.assert_allclose(loss.prediction(f)[rest], best_face(M)[1], atol=1e-12)
    assert not loss.prediction(f)[[1, 4]].any()
    with pytest.raises(kd.NonFiniteLossError, match="token 1"):
        loss.loss(teacher_logits=torch.zeros(6), student_logits=torch.tensor(f))


def test_the_teachers_part_is_kept_and_replaced(rng):
    loss = made()
    teacher, other, student = rng.normal(size=(3, 9, 6))
    first = [float(made().value(*(kd.simplex.softmax(x[0]) for x in (t, student)))) for t in (teacher, other)]
    again = [float(loss.value(*(kd.simplex.softmax(x[0]) for x in (t, student)))) for t in (teacher, other, teacher)]
    assert again == [*first, first[0]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cost": COSTS["dense"][0]}, r"geometric: cost = dense\(V=6\) is not symmetric"),
        ({"cost": kd.TokenCost.line([0.0, 0.0, 1.0])}, r"is not positive definite in float64"),
        ({"cost": COSTS["tree"][0], "epsilon": 0.0}, r"^epsilon = 0.0: give a positive"),
    ],
)
def test_bad_arguments_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        kd.divergence("geometric", **given)
