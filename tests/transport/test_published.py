"""Published losses against plain loops, rationals, linear programs and finite differences."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import ot
import pytest
import torch
from scipy.special import log_softmax, softmax

import kdtheory as kd
from kdtheory import TokenCost
from kdtheory.divergences.checks import NonFiniteLossError
from kdtheory.transport.costs import NotAMetricError
from kdtheory.transport.published import EMO, ULD, WKD, AssistedSinkhorn, SinKD, alignment, class_cost
from tests.transport.cases import linear_program

torch.set_num_threads(1)
RNG = np.random.default_rng(5)
TEACHER, STUDENT, ASSISTANT = 1.5 * RNG.normal(size=(3, 4, 5))
POINTS = RNG.normal(size=(5, 2))
COST = np.linalg.norm(POINTS[:, None] - POINTS, axis=-1)
SKEWED = RNG.uniform(0, 2, size=(5, 5))
METRIC, DENSE = TokenCost.embedding(POINTS), TokenCost.dense(SKEWED)
LABELS = torch.tensor([0, 2, 4, 1])
EPSILON = 0.4

LOSSES = {
    "sinkd": SinKD(),
    "sinkd, one round": SinKD(temperature=1.0, epsilon=0.5, iterations=1),
    "uld": ULD(),
    "emo": EMO(cost=DENSE),
    "emo, embedding": EMO(embedding=POINTS),
    "wkd": WKD(cost=DENSE, epsilon=EPSILON, weight=2.0),
    "assisted": AssistedSinkhorn(cost=METRIC, epsilon=EPSILON),
}


def tensors(*arrays):
    return (torch.tensor(x, dtype=torch.float64) for x in arrays)


def value_at(loss, teacher, student, **arguments) -> float:
    t, s = tensors(teacher, student)
    return float(loss.loss(teacher_logits=t, student_logits=s, **arguments))


def central_difference(function, at, h=1e-5):
    gradient = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[index] = h
        gradient[index] = (function(at + step) - function(at - step)) / (2 * h)
    return gradient


def smooth_difference(function, at):
    """Two central differences, extrapolated: h = 1e-5 would drown in the solver's error of 1e-9."""
    return (4 * central_difference(function, at, 1e-2) - central_difference(function, at, 2e-2)) / 3


def backward(loss, teacher, student, **arguments):
    t, s = tensors(teacher, student)
    s.requires_grad_()
    loss.loss(teacher_logits=t, student_logits=s, **arguments).backward()
    return s.grad.numpy()


# -- every loss --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_gradient_is_that_of_the_value(name, reduction, temperature):
    loss, settings = LOSSES[name], {"reduction": reduction, "temperature": temperature}
    difference = smooth_difference if name == "wkd" else central_difference
    expected = difference(lambda z: value_at(loss, TEACHER, z, **settings), STUDENT)
    # 1e-8: h = 1e-5 and values of order 1; 1e-6: h = 1e-2, and ⟨Γ, C⟩ feels the marginals' 1e-9 to first order
    tolerance = 1e-6 if name == "wkd" else 1e-8
    np.testing.assert_allclose(backward(loss, TEACHER, STUDENT, **settings), expected, atol=tolerance)


@pytest.mark.parametrize("name", LOSSES)
def test_closed_gradient_and_value_agree_with_the_training_loss(name):
    loss = LOSSES[name]
    np.testing.assert_allclose(
        loss.logit_gradient(teacher_logits=TEACHER, student_logits=STUDENT),
        backward(loss, TEACHER, STUDENT, reduction="sum"),
        atol=1e-13,
    )
    positions = loss.value(softmax(TEACHER, -1), softmax(STUDENT, -1))
    assert positions.shape == (4,)
    assert positions.sum() == pytest.approx(value_at(loss, TEACHER, STUDENT, reduction="sum"), rel=1e-12)
    assert not loss.surrogate_gradient


BOUNDARIES = {
    "teacher without a token": ([0.3, -math.inf, 1.0, 0.2, -1.0], [0.0, 1.0, 2.0, -1.0, 0.5]),
    "student without a token": ([0.0, 1.0, 2.0, -1.0, 0.5], [0.3, -math.inf, 1.0, 0.2, -1.0]),
    "neither has it": ([0.3, -math.inf, 1.0, 0.2, -1.0], [0.0, -math.inf, 2.0, -1.0, 0.5]),
    "disjoint": ([0.0, 1.0, -math.inf, -math.inf, -math.inf], [-math.inf, -math.inf, 0.0, 0.5, 1.0]),
    "one-hot": ([0.0] + 4 * [-math.inf], 4 * [-math.inf] + [0.0]),
    "equal": ([0.0, 1.0, 2.0, -1.0, 0.5], [0.0, 1.0, 2.0, -1.0, 0.5]),
    "gap 200": ([200.0, 0.0, 0.0, 0.0, 0.0], [0.0, 200.0, 0.0, 0.0, 0.0]),
    "gap 800": ([800.0, 0.0, 0.0, 0.0, 0.0], [0.0, 800.0, 0.0, 0.0, 0.0]),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("name", LOSSES)
def test_finite_at_every_boundary(name, boundary, dtype):
    t, s = (torch.tensor([x, x[::-1]], dtype=dtype) for x in BOUNDARIES[boundary])
    s.requires_grad_()
    value = LOSSES[name].loss(teacher_logits=t, student_logits=s)
    value.backward()
    assert math.isfinite(value.item())
    assert value.item() >= -1e-5  # the debiased divergence in float32
    assert torch.isfinite(s.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_hidden_positions_do_not_count(name):
    loss = LOSSES[name]
    mask = torch.tensor([True, False, True, True])
    kept = mask.numpy()
    t, s = tensors(TEACHER, STUDENT)
    s[1] = math.nan
    s.requires_grad_()
    each = loss.loss(teacher_logits=t, student_logits=s, mask=mask, reduction="none")
    each.sum().backward()
    assert each[1] == 0
    assert float(each.detach().sum()) == pytest.approx(
        value_at(loss, TEACHER[kept], STUDENT[kept], reduction="sum"), rel=1e-12
    )
    assert (s.grad[1] == 0).all()
    np.testing.assert_allclose(s.grad[mask], backward(loss, TEACHER[kept], STUDENT[kept], reduction="sum"), atol=1e-13)


@pytest.mark.parametrize("name", LOSSES)
def test_all_hidden_is_zero(name):
    t, s = tensors(TEACHER, STUDENT)
    s.requires_grad_()
    value = LOSSES[name].loss(teacher_logits=t, student_logits=s, mask=torch.zeros(4, dtype=torch.bool))
    value.backward()
    assert value == 0
    assert (s.grad == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_sums_with_other_losses(name):
    loss = 0.5 * LOSSES[name] + kd.divergence("fkl")
    apart = 0.5 * value_at(LOSSES[name], TEACHER, STUDENT) + value_at(kd.divergence("fkl"), TEACHER, STUDENT)
    assert value_at(loss, TEACHER, STUDENT) == pytest.approx(apart, rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_a_nan_logit_is_named(name):
    broken = STUDENT.copy()
    broken[2, 3] = math.nan
    with pytest.raises(NonFiniteLossError, match=r"student_logits\[2, 3\]"):
        value_at(LOSSES[name], TEACHER, broken)


@pytest.mark.parametrize("name", LOSSES)
def test_a_missing_teacher_is_an_error(name):
    with pytest.raises(ValueError, match="teacher_logits is missing"):
        LOSSES[name].loss(student_logits=torch.zeros(2, 5))


# -- SinKD -------------------------------------------------------------------------------------------------------------
def sinkd_as_published(student, teacher, temperature=2.0, epsilon=0.1, rounds=20) -> float:
    """Rows = student's samples, rows divided first, columns last; sums and quotients, no logarithms."""
    x, y = softmax(student / temperature, -1), softmax(teacher / temperature, -1)
    cost = np.array([[np.abs(a - b).sum() for b in y] for a in x])
    plan = np.exp(-cost / epsilon)
    for _ in range(rounds):
        plan = plan / plan.sum(1, keepdims=True)
        plan = plan / plan.sum(0, keepdims=True)
    return float((plan * cost).sum())


def test_sinkd_is_the_published_number():
    assert value_at(SinKD(), TEACHER, STUDENT, reduction="sum") == pytest.approx(
        sinkd_as_published(STUDENT, TEACHER), rel=1e-12
    )
    few = SinKD(temperature=1.0, epsilon=0.3, iterations=2)
    assert value_at(few, TEACHER, STUDENT, reduction="sum") == pytest.approx(
        sinkd_as_published(STUDENT, TEACHER, 1.0, 0.3, 2), rel=1e-12
    )


def test_sinkd_of_one_position_is_twice_total_variation():
    p, q = softmax(TEACHER / 2, -1), softmax(STUDENT / 2, -1)
    for i in range(4):
        expected = 2 * kd.divergence("tvd").value(p[i], q[i])
        assert value_at(SinKD(), TEACHER[i : i + 1], STUDENT[i : i + 1]) == pytest.approx(expected, rel=1e-12)


def test_sinkd_at_the_teacher_and_in_another_order():
    own = value_at(SinKD(), TEACHER, TEACHER)
    assert own > 0
    assert value_at(SinKD(), TEACHER, TEACHER[[2, 0, 3, 1]]) == pytest.approx(own, rel=1e-12)
    assert value_at(SinKD(), TEACHER[[0, 0]], TEACHER[[0, 0]]) == 0


def test_sinkd_shares_are_rows_of_a_plan():
    shares = SinKD().value(softmax(TEACHER, -1), softmax(STUDENT, -1))
    assert (shares > 0).all()
    assert (shares <= 2).all()


def test_sinkd_with_a_small_epsilon_stays_finite():
    # exp(-2 / 0.001) is 0 in float64: quotients would be 0/0
    loss = SinKD(temperature=1.0, epsilon=1e-3)
    assert math.isfinite(value_at(loss, 30 * np.eye(4, 5), 30 * np.eye(4, 5, 1)))


@pytest.mark.parametrize("wrong", [{"epsilon": 0.0}, {"temperature": -1.0}, {"iterations": 0}, {"iterations": 2.5}])
def test_sinkd_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SinKD(**wrong)


# -- ULD ---------------------------------------------------------------------------------------------------------------
def test_uld_in_rationals():
    rng = np.random.default_rng(3)
    for _ in range(50):
        counts = rng.multinomial(16, np.full(5, 0.2), size=2)
        p, q = ([Fraction(int(k), 16) for k in row] for row in counts)
        exact = sum(abs(a - b) for a, b in zip(sorted(p), sorted(q), strict=True))
        assert ULD().value(counts[0] / 16, counts[1] / 16) == pytest.approx(float(exact), abs=1e-15)


def test_uld_forgets_the_tokens():
    assert ULD().value([0.9, 0.1], [0.1, 0.9]) == 0
    assert ULD().value([1.0, 0.0, 0.0], [0.0, 0.0, 1.0]) == 0


def test_uld_at_ties_takes_one_order():
    gradient = ULD().logit_gradient(teacher_logits=[1.0, 0.0], student_logits=[0.0, 0.0])
    np.testing.assert_allclose(gradient, [-0.5, 0.5])


# -- EMO ---------------------------------------------------------------------------------------------------------------
def test_emo_by_loops_and_above_transport():
    p, q = softmax(TEACHER, -1), softmax(STUDENT, -1)
    found = EMO(cost=DENSE).value(p, q)
    for row, a, b in zip(found, p, q, strict=True):
        assert row == pytest.approx(sum(a[i] * SKEWED[i, j] * b[j] for i in range(5) for j in range(5)), rel=1e-13)
        assert row >= linear_program(a, b, SKEWED)


def test_emo_on_a_label_is_transport():
    q = softmax(STUDENT[0])
    label = np.eye(5)[3]
    assert EMO(cost=METRIC).value(label, q) == pytest.approx(float(kd.w1(label, q, METRIC).value), rel=1e-12)


def test_emo_from_an_embedding_is_that_of_its_cosines():
    unit = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)
    cost = TokenCost.dense(np.maximum(1 - unit @ unit.T, 0))
    p, q = softmax(TEACHER, -1), softmax(STUDENT, -1)
    # 1e-14: 1 - cos of a row with itself, rounded
    np.testing.assert_allclose(EMO(embedding=POINTS).value(p, q), EMO(cost=cost).value(p, q), atol=1e-14)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "either cost"),
        ({"cost": METRIC, "embedding": POINTS}, "either cost"),
        ({"cost": COST}, "expected a kdtheory.TokenCost"),
        ({"embedding": [[1.0, 0.0], [0.0, 0.0]]}, r"embedding\[1\] is zero"),
    ],
)
def test_emo_refuses(wrong, message):
    with pytest.raises(ValueError, match=message):
        EMO(**wrong)


def test_emo_names_a_vocabulary_that_does_not_fit():
    with pytest.raises(ValueError, match="4 tokens"):
        value_at(EMO(cost=METRIC), TEACHER[:, :4], STUDENT[:, :4])


# -- WKD ---------------------------------------------------------------------------------------------------------------
FEATURES = RNG.normal(size=(5, 6, 3))


def test_alignment_by_traces():
    centre = np.eye(6) - 1 / 6
    kernels = [centre @ x @ x.T @ centre for x in FEATURES]
    expected = [[np.trace(a @ b) / math.sqrt(np.trace(a @ a) * np.trace(b @ b)) for b in kernels] for a in kernels]
    np.testing.assert_allclose(alignment(FEATURES), expected, atol=1e-14)


def test_class_cost_is_as_defined_and_no_metric():
    similarity = np.array([[1.0, 0.9, 0.64], [0.9, 1.0, 0.9], [0.64, 0.9, 1.0]])  # cos² of a fan with sin²θ = 1/10
    cost = class_cost(similarity, kappa=2.0)
    np.testing.assert_allclose(cost.matrix(), 1 - np.exp(-2 * (1 - similarity)), atol=1e-15)
    with pytest.raises(NotAMetricError):
        cost.check_metric()


def entropic_cost(p, q, C) -> float:
    """⟨Γ, C⟩ by POT."""
    return float((ot.sinkhorn(p, q, C, EPSILON, method="sinkhorn_log", stopThr=1e-14, numItermax=20000) * C).sum())


def test_wkd_is_the_cost_of_the_entropic_plan():
    p, q = softmax(TEACHER, -1), softmax(STUDENT, -1)
    expected = [2.0 * entropic_cost(a, b, SKEWED) for a, b in zip(p, q, strict=True)]
    # 1e-8: both stop at marginal errors of about 1e-12, POT's plan at ε = 0.4
    np.testing.assert_allclose(LOSSES["wkd"].value(p, q), expected, rtol=1e-8)


def separated(teacher, student) -> list[float]:
    """−p_t log q_t + 2 ⟨Γ, C⟩ without the target's row and column."""
    found = []
    for z, x, t in zip(teacher, student, LABELS.tolist(), strict=True):
        rest = np.arange(5) != t
        transported = entropic_cost(softmax(z[rest]), softmax(x[rest]), SKEWED[np.ix_(rest, rest)])
        found.append(-softmax(z)[t] * log_softmax(x)[t] + 2.0 * transported)
    return found


def test_wkd_with_labels_takes_the_target_out():
    t, s = tensors(TEACHER, STUDENT)
    each = LOSSES["wkd"].loss(teacher_logits=t, student_logits=s, labels=LABELS, reduction="none")
    np.testing.assert_allclose(each, separated(TEACHER, STUDENT), rtol=1e-8)


def test_wkd_with_labels_has_the_gradient_of_its_value():
    found = backward(LOSSES["wkd"], TEACHER, STUDENT, labels=LABELS, reduction="sum", temperature=2.0)
    expected = smooth_difference(
        lambda z: value_at(LOSSES["wkd"], TEACHER, z, labels=LABELS, reduction="sum", temperature=2.0), STUDENT
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)  # as above


@pytest.mark.parametrize("label", [-100, 5])
def test_wkd_names_a_label_that_is_no_token(label):
    t, s = tensors(TEACHER, STUDENT)
    with pytest.raises(ValueError, match=rf"position 1 holds {label}, outside 0\.\.4: hide padding"):
        LOSSES["wkd"].loss(teacher_logits=t, student_logits=s, labels=torch.tensor([0, label, 4, 1]))


def test_wkd_where_nothing_but_the_target_is_left():
    t = torch.tensor([[0.0, -math.inf, -math.inf], [0.0, 1.0, 2.0]], dtype=torch.float64)
    s = torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    loss = WKD(cost=TokenCost.zero_one(3), epsilon=0.5)
    each = loss.loss(teacher_logits=t, student_logits=s, labels=torch.tensor([0, 0]), reduction="none")
    each.sum().backward()
    assert each[0].item() == pytest.approx(-log_softmax([0.0, 1.0, 2.0])[0], rel=1e-12)
    assert torch.isfinite(s.grad).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: alignment(np.ones((2, 3, 1))), r"features\[0\]"),
        (lambda: class_cost([[1.0, 0.5], [0.5, 0.9]]), "1 on the diagonal"),
        (lambda: class_cost(np.eye(2), kappa=0.0), "kappa"),
        (lambda: WKD(cost=METRIC, weight=0.0), "weight"),
    ],
)
def test_wkd_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# -- assisted ----------------------------------------------------------------------------------------------------------
def test_one_stage_is_the_debiased_divergence():
    p, q = softmax(TEACHER, -1), softmax(STUDENT, -1)

    def relative(a, b):
        plan = ot.sinkhorn(a, b, COST, EPSILON, method="sinkhorn_log", stopThr=1e-14, numItermax=20000)
        return float((plan * COST).sum() + EPSILON * (plan * np.log(plan / np.outer(a, b))).sum())

    expected = [relative(a, b) - relative(a, a) / 2 - relative(b, b) / 2 for a, b in zip(p, q, strict=True)]
    np.testing.assert_allclose(LOSSES["assisted"].value(p, q), expected, rtol=1e-8)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_assistant_has_its_share(share):
    loss = AssistedSinkhorn(cost=METRIC, epsilon=EPSILON, share=share)
    (assistant,) = tensors(ASSISTANT)
    expected = (1 - share) * value_at(loss, TEACHER, STUDENT) + share * value_at(loss, ASSISTANT, STUDENT)
    assert value_at(loss, TEACHER, STUDENT, assistant_logits=assistant) == pytest.approx(expected, rel=1e-12)
    found = backward(loss, TEACHER, STUDENT, assistant_logits=assistant)
    difference = central_difference(lambda z: value_at(loss, TEACHER, z, assistant_logits=assistant), STUDENT)
    np.testing.assert_allclose(found, difference, atol=1e-8)


def test_the_chain_needs_no_teacher_and_a_mixture_does():
    assistant, student = tensors(ASSISTANT, STUDENT)
    chain = AssistedSinkhorn(cost=METRIC, epsilon=EPSILON)
    alone = float(chain.loss(assistant_logits=assistant, student_logits=student))
    assert alone == pytest.approx(value_at(chain, ASSISTANT, STUDENT), rel=1e-12)
    with pytest.raises(ValueError, match="teacher_logits is missing"):
        AssistedSinkhorn(cost=METRIC, epsilon=EPSILON, share=0.5).loss(
            assistant_logits=assistant, student_logits=student
        )
    with pytest.raises(ValueError, match="share"):
        AssistedSinkhorn(cost=METRIC, epsilon=EPSILON, share=1.5)


def test_a_batch_of_scores_as_one_point_is_the_squared_error():
    """The Sinkhorn divergence of geomloss between one point and another, with and without soft marginals."""
    geomloss = pytest.importorskip("geomloss")
    x, y = torch.randn(2, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    half_square = float(((x - y) ** 2).sum()) / 2
    for reach in (None, 1e3, 2.0):
        divergence = geomloss.SamplesLoss("sinkhorn", p=2, blur=0.005, diameter=1, reach=reach, backend="tensorized")
        stiff = math.inf if reach is None else 0.005**2 + 2 * reach**2
        expected = half_square if reach is None else -stiff * math.expm1(-half_square / stiff)
        # 1e-5: geomloss stops after ε-scaling, and its penalised marginals are those of ρ = reach²
        assert float(divergence(x[None], y[None])) == pytest.approx(expected, rel=1e-5)
