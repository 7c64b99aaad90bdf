"""KL of smoothed distributions: mpmath, data processing, properness, and where logarithms take over from products."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
import torch

import kdtheory as kd
from tests.transport.cases import AGREEING, COSTS, FAMILIES, METRICS, label, softmax_mp

EPSILONS = (0.5, 0.01, 0.002)  # the last two take logarithms in float64


def exact(pair, C, epsilon):
    """(value, logit gradient, sizes of its terms) in 900 digits."""
    with mp.workdps(900):
        p, q = softmax_mp(pair.teacher_logits), softmax_mp(pair.student_logits)
        V = range(len(p))
        kernel = [[mp.exp(-mp.mpf(float(C[i, j])) / mp.mpf(epsilon)) for j in V] for i in V]
        total = [mp.fsum(kernel[i][j] for i in V) for j in V]
        kernel = [[kernel[i][j] / total[j] for j in V] for i in V]
        a, b = ([mp.fsum(kernel[i][j] * x[j] for j in V) for i in V] for x in (p, q))
        value = mp.fsum(a[i] * mp.log(a[i] / b[i]) for i in V)
        share = [[q[j] * kernel[i][j] / b[i] for i in V] for j in V]
        gradient = [mp.fsum(share[j][i] * (b[i] - a[i]) for i in V) for j in V]
        size = [mp.fsum(share[j][i] * (b[i] + a[i]) for i in V) + q[j] for j in V]
        return float(value), np.array([float(x) for x in gradient]), np.array([float(x) for x in size])


@pytest.mark.parametrize("pair", [*FAMILIES, AGREEING], ids=label)
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_value_and_gradient_in_900_digits(pair, epsilon):
    cost, C = COSTS["embedding"]
    loss = kd.divergence("similarity_kl", cost=cost, epsilon=epsilon)
    value, gradient, size = exact(pair, C, epsilon)
    log_p, log_q = (
        torch.log_softmax(torch.tensor(np.asarray(x, float)), -1) for x in (pair.teacher_logits, pair.student_logits)
    )
    # 1e-13 · 2000: logarithms of that size hold that many digits
    assert float(loss.per_position(log_p, log_q)) == pytest.approx(value, rel=2e-12, abs=1e-15)
    ours = loss.logit_gradient(teacher_logits=pair.teacher_logits, student_logits=pair.student_logits)
    assert np.all(np.abs(ours - gradient) <= 1e-12 * size + 1e-15)


def test_products_and_logarithms_agree(monkeypatch, rng):
    cost = COSTS["tree"][0]
    loss = kd.divergence("similarity_kl", cost=cost, epsilon=0.4)
    teacher, student = rng.normal(size=(2, 50, 6)) * 8
    log_p, log_q = (torch.log_softmax(torch.tensor(x), -1) for x in (teacher, student))
    plain = loss.value_and_gradient(log_p, log_q)
    monkeypatch.setattr(type(loss), "_plain", lambda *_: False)
    for ours, other in zip(plain, loss.value_and_gradient(log_p, log_q), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("kind", METRICS)
def test_smoothing_loses_information_and_nothing_else(kind, rng):
    """0 <= KL(Kp‖Kq) <= KL(p‖q), growing as the kernel narrows; ε -> 0 is forward KL, and 0 only at p = q."""
    p, q = rng.dirichlet(np.ones(6), size=(2, 40))
    full = kd.divergence("fkl").value(p, q)
    cost = COSTS[kind][0]
    found = [kd.divergence("similarity_kl", cost=cost, epsilon=e).value(p, q) for e in (1e-3, 0.1, 1.0)]
    np.testing.assert_allclose(found[0], full, rtol=1e-9)
    assert np.all(found[1] <= full)
    assert np.all(found[2] > 0)
    assert np.all(kd.divergence("similarity_kl", cost=cost, epsilon=1.0).value(p, p) == 0)


def test_linear_in_a_hard_label(rng):
    loss = kd.divergence("similarity_kl", cost=COSTS["tree"][0], epsilon=0.7)
    teacher, student = rng.normal(size=(2, 6)) * 2
    hard = np.where(np.eye(6) > 0, 0.0, -np.inf)
    each = loss.logit_gradient(teacher_logits=hard, student_logits=np.tile(student, (6, 1)))
    soft = loss.logit_gradient(teacher_logits=teacher, student_logits=student)
    np.testing.assert_allclose(kd.simplex.softmax(teacher) @ each, soft, atol=1e-14)


def test_it_stalls():
    """A dense kernel sees a confident mistake, and its logit gradient vanishes like e^{-gap} all the same."""
    loss = kd.divergence("similarity_kl", cost=COSTS["tree"][0], epsilon=1.0)
    teacher = np.log([0.02, 0.02, 0.02, 0.02, 0.02, 0.9])
    sizes = [
        np.abs(loss.logit_gradient(teacher_logits=teacher, student_logits=gap * np.eye(6)[0])).sum()
        for gap in (15.0, 20.0, 25.0)
    ]
    np.testing.assert_allclose(np.diff(np.log(sizes)), [-5, -5], atol=0.02)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cost": COSTS["dense"][0], "epsilon": 1.0}, r"similarity_kl: cost = dense\(V=6\) is not symmetric"),
        ({"cost": COSTS["tree"][0], "epsilon": -1.0}, r"^epsilon = -1.0: give a positive"),
        ({"cost": np.eye(6), "epsilon": 1.0}, r"^cost: expected a kdtheory\.TokenCost"),
    ],
)
def test_bad_arguments_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        kd.divergence("similarity_kl", **given)
