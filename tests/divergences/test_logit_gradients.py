"""Closed-form logit gradients against complex-step derivatives of the defining sums through a softmax."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import kdtheory as kd
from kdtheory.divergences import FACTORIES, logspace, summands
from tests import oracles
from tests.divergences.cases import CASES, FAMILIES, SATURATED, broken, label, log_probabilities, pairs

ACCURACY = 1e-12  # of the sum of absolute terms of the entry: the accuracy contract
# At r = log p/q ~ 1e-5 the rounding of log-probabilities of size ~5 (1e-15) leaves 1e-10 of r.
ACCURACY_NEAR = 2e-10
SMALLEST = 1e-300  # below it floats lose digits (denormals begin at 2e-308)


def finite(loss, pair) -> bool:
    return bool(mp.isfinite(oracles.value(loss.name, pair.teacher_logits, pair.student_logits, **loss.parameters)))


FINITE = [(loss, pair) for loss in CASES for pair in FAMILIES if finite(loss, pair)]


def excess(found, loss, pair) -> list[float]:
    """|error| / sum of absolute terms, per entry; entries that leave the floats must leave them on the right side."""
    given = (loss.name, pair.teacher_logits, pair.student_logits)
    exact = oracles.logit_gradient(*given, **loss.parameters)
    terms = oracles.absolute_terms(*given, **loss.parameters)
    out = []
    for x, y, scale in zip(np.asarray(found, float), exact, terms, strict=True):
        if abs(y) > np.finfo(float).max:
            out.append(0.0 if x == math.copysign(math.inf, y) else math.inf)
        elif not math.isfinite(x):
            out.append(math.inf)
        else:
            out.append(float((abs(mp.mpf(float(x)) - y)) / (scale + SMALLEST)))
    return out


def closed_form(loss, pair):
    return loss.logit_gradient(teacher_logits=pair.teacher_logits, student_logits=pair.student_logits)


def naive(loss, pair) -> np.ndarray:
    """q(g - ḡ) in float64, as textbooks write it."""
    p, q = (kd.simplex.softmax(np.asarray(x, float)) for x in pair[1:])
    with np.errstate(all="ignore"):
        g = loss.slope(p / p.sum(), q / q.sum())
        return q * (g - (q * g).sum())


@pytest.mark.parametrize(("loss", "pair"), FINITE, ids=label)
def test_gradient_is_the_derivative_of_the_definition(loss, pair):
    accuracy = ACCURACY_NEAR if pair.name == "near the teacher" else ACCURACY
    assert max(excess(closed_form(loss, pair), loss, pair)) <= accuracy


@pytest.mark.parametrize("loss", CASES, ids=label)
def test_gradient_at_random_logits(loss):
    """1e-10: drawn logits may lie as close as float32 lets them, where rounding of the logarithms counts."""

    @given(pair=pairs())
    @settings(max_examples=15, deadline=None, database=None, derandomize=True)
    def check(pair):
        p, q = (kd.simplex.softmax(x) for x in pair[1:])
        if np.abs(np.log(p) - np.log(q)).max() > 1e-4:
            assert max(excess(closed_form(loss, pair), loss, pair)) <= 1e-10

    check()


@pytest.mark.parametrize("name", ["rkl", "jsd", "tvd", "skl", "srkl", "neyman", "hellinger2", "amari"])
def test_the_textbook_form_is_not_accurate_at_a_gap_of_40(name):
    """Control: g_k - ḡ cancels for the dominating token k, so the contract is not met by the naive formula."""
    assert max(excess(naive(FACTORIES[name](), SATURATED[0]), FACTORIES[name](), SATURATED[0])) > 1e3 * ACCURACY


@pytest.mark.parametrize("loss", CASES, ids=label)
def test_the_oracle_notices_a_wrong_gradient(loss):
    """Control: flipped sign, lost factor, swapped arguments, and an error in one entry only."""
    pair = FAMILIES[0]
    right = closed_form(loss, pair)
    swapped = loss.logit_gradient(teacher_logits=pair.student_logits, student_logits=pair.teacher_logits)
    nudged = right.copy()
    nudged[2] *= 1 + 1e-9
    for wrong in (-right, 2 * right, swapped, nudged):
        assert max(excess(wrong, loss, pair)) > ACCURACY


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("rkl", lambda pair: logspace.centred(pair, summands.reverse_kl_slope(pair) + torch.arange(6) / 1e6)),
        ("chi2", lambda pair: logspace.power_gradient(pair, kappa=2, scale=0.5)),
        ("hellinger2", lambda pair: logspace.power_gradient(pair, kappa=0.5, scale=1.0)),
        ("jsd", lambda pair, beta: logspace.centred(pair, summands.skew_kl_slope(pair, beta))),
    ],
)
def test_the_oracle_notices_a_wrong_record(name, wrong):
    loss = broken(FACTORIES[name](), gradient=wrong)
    assert max(excess(closed_form(loss, FAMILIES[0]), loss, FAMILIES[0])) > 1e-7


@pytest.mark.parametrize("loss", [loss for loss in CASES if loss.name != "akl"], ids=label)
def test_known_forms(loss):
    """Theorem 1's closed forms, typed for numpy, at an interior point."""
    t, z = FAMILIES[0][1:]
    p, q = kd.simplex.softmax(t), kd.simplex.softmax(z)

    def from_slope(g):
        return q * (g - (q * g).sum())

    forms = {
        "jsd": lambda beta: from_slope((1 - beta) * np.log(q / (beta * p + (1 - beta) * q))),
        "skl": lambda alpha: from_slope(-(1 - alpha) * p / (alpha * p + (1 - alpha) * q)),
        "srkl": lambda alpha: from_slope(
            np.log(q / (alpha * q + (1 - alpha) * p)) - alpha * q / (alpha * q + (1 - alpha) * p)
        ),
        "fkl": lambda: q - p,
        "rkl": lambda: q * (np.log(q / p) - (q * np.log(q / p)).sum()),
        "tvd": lambda: q * (np.sign(q - p) - (q * np.sign(q - p)).sum()) / 2,
        "chi2": lambda: q * (p * p / q).sum() - p * p / q,
        "neyman": lambda: 2 * q * (q / p - (q * q / p).sum()),
        "hellinger2": lambda: (q * np.sqrt(p * q).sum() - np.sqrt(p * q)) / 2,
        "amari": lambda alpha: (q * (p**alpha * q ** (1 - alpha)).sum() - p**alpha * q ** (1 - alpha)) / alpha,
        "renyi": lambda alpha: q - p**alpha * q ** (1 - alpha) / (p**alpha * q ** (1 - alpha)).sum(),
    }
    np.testing.assert_allclose(closed_form(loss, FAMILIES[0]), forms[loss.name](**loss.parameters), rtol=1e-11)


# -- limits at the boundary --------------------------------------------------------------------------------------------
def opened(loss, pair: kd.simplex.Pair, floor: float) -> kd.simplex.Pair:
    """The zeros that make the loss infinite opened to the same logit, `floor`."""
    teacher, student = pair.teacher_logits, pair.student_logits
    if loss.name in ("rkl", "neyman"):
        return pair._replace(teacher_logits=np.where(np.isneginf(teacher), floor, teacher))
    return pair._replace(student_logits=np.where(np.isneginf(student), floor, student))


INFINITE = [
    (loss, pair) for loss in CASES for pair in FAMILIES if not finite(loss, pair) and loss.name not in ("akl", "renyi")
]


@pytest.mark.parametrize(("loss", "pair"), INFINITE, ids=label)
def test_infinite_rows_get_the_one_sided_limit(loss, pair):
    """Where floors of 1e-40, 1e-80, 1e-160 keep moving an entry it is ±inf, where they do not it is the limit."""
    found = closed_form(loss, pair)
    floors = [-40 * math.log(10), -80 * math.log(10), -160 * math.log(10)]
    near, far, farther = (
        oracles.logit_gradient(loss.name, *opened(loss, pair, floor)[1:], **loss.parameters) for floor in floors
    )
    assert not np.isnan(found).any()
    for i, entry in enumerate(found):
        first, second = far[i] - near[i], farther[i] - far[i]
        if abs(second) > 1.5 * abs(first) > 1e-30:
            assert entry == math.copysign(math.inf, second)
        else:
            assert entry == pytest.approx(float(farther[i]), rel=1e-9, abs=1e-30)


@pytest.mark.parametrize("alpha", [0.5, 2.0])
@pytest.mark.parametrize("pair", FAMILIES, ids=label)
def test_renyi_is_bounded_and_has_a_limit(pair, alpha):
    loss = FACTORIES["renyi"](alpha=alpha)
    found = closed_form(loss, pair)
    assert np.isfinite(found).all()
    if not finite(loss, pair):
        student = np.where(np.isneginf(pair.student_logits), -400.0, pair.student_logits)
        limit = oracles.logit_gradient("renyi", pair.teacher_logits, student, alpha=alpha)
        np.testing.assert_allclose(found, np.array(limit, float), atol=1e-12)


def test_forward_kl_is_q_minus_p_also_at_minus_infinity():
    for pair in FAMILIES:
        p, q = (np.exp(x.numpy()) for x in log_probabilities(pair))
        np.testing.assert_allclose(closed_form(FACTORIES["fkl"](), pair), q - p, atol=1e-15)


@pytest.mark.parametrize("loss", [loss for loss in CASES if loss.name != "fkl"], ids=label)
def test_minus_infinity_stays_where_the_loss_is_finite(loss):
    checked = 0
    for pair in FAMILIES:
        shut = np.isneginf(pair.student_logits)
        if finite(loss, pair) and shut.any():
            assert (closed_form(loss, pair)[shut] == 0).all()
            checked += 1
    assert checked >= 2


@pytest.mark.parametrize("gap", [90.0, 104.0, 200.0, 710.0, 745.0, 800.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", CASES, ids=label)
def test_a_confident_teacher_gives_no_nan(loss, dtype, gap):
    """Teacher masses that are denormal, or 0 although their logit is finite: 1/p leaves the floats."""
    pair = kd.simplex.Pair("confident teacher", np.array([gap, 0.0, 1.0, 0.0]), np.array([0.0, 1.0, 0.5, 0.0]))
    _, gradient = loss.value_and_gradient(*log_probabilities(pair, dtype))
    assert not torch.isnan(gradient).any()
    if dtype == torch.float64:
        assert max(excess(gradient, loss, pair)) <= ACCURACY


def test_equal_overflowing_terms_cancel():
    """χ² with q = (1, e^-100, e^-200) in float32: q Σ s and s are both e^100 for the middle token."""
    pair = kd.simplex.Pair("tie", np.array([1.0, 0.0, 0.0]), np.array([200.0, 100.0, 0.0]))
    _, gradient = FACTORIES["chi2"]().value_and_gradient(*log_probabilities(pair, torch.float32))
    assert not torch.isnan(gradient).any()
    assert gradient[0] == math.inf
    assert gradient[2] == -math.inf


# -- laws --------------------------------------------------------------------------------------------------------------
@given(pair=pairs(max_size=64, extreme=True))
@settings(max_examples=250, deadline=None, database=None, derandomize=True)
def test_never_nan_and_closed(pair):
    """The sweep: -inf, ties, gaps up to 1520, V up to 64; value and gradient agree on what is infinite."""
    for dtype in (torch.float64, torch.float32):
        log_p, log_q = log_probabilities(pair, dtype)
        for loss in CASES:
            value, gradient = loss.value_and_gradient(log_p, log_q)
            assert not torch.isnan(value), loss
            assert value >= 0, loss
            assert torch.equal(value, loss.per_position(log_p, log_q)), loss
            assert not torch.isnan(gradient).any(), loss
            if torch.isfinite(value) and loss.name != "renyi":
                assert torch.isfinite(gradient).all(), loss
            if torch.isfinite(gradient).all():
                assert abs(gradient.sum()) <= 64 * torch.finfo(dtype).eps * abs(gradient).sum() + 1e-37, loss
            shut = torch.isneginf(log_q)
            if torch.isfinite(value):
                assert loss.name in ("fkl", "akl", "renyi") or (gradient[shut] == 0).all(), loss


@pytest.mark.parametrize("loss", CASES, ids=label)
def test_rows_do_not_see_each_other(loss):
    stacked = kd.simplex.Pair("batch", *(np.stack(rows) for rows in zip(*(pair[1:] for pair in FAMILIES), strict=True)))
    together = closed_form(loss, stacked)
    for row, pair in zip(together, FAMILIES, strict=True):
        np.testing.assert_allclose(row, closed_form(loss, pair), rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("loss", CASES, ids=label)
def test_a_shift_of_logits_changes_nothing(loss):
    pair = FAMILIES[0]
    moved = kd.simplex.Pair("shifted", pair.teacher_logits + 7.5, pair.student_logits - 300.25)
    np.testing.assert_allclose(closed_form(loss, moved), closed_form(loss, pair), rtol=1e-10)


def test_the_same_kind_comes_back():
    pair = FAMILIES[0]
    t, z = (torch.tensor(x, dtype=torch.bfloat16) for x in pair[1:])
    loss = FACTORIES["skl"]()
    assert isinstance(closed_form(loss, pair), np.ndarray)
    found = loss.logit_gradient(teacher_logits=t, student_logits=z)
    assert found.dtype == torch.float64
    exact = loss.logit_gradient(teacher_logits=t.double().numpy(), student_logits=z.double().numpy())
    np.testing.assert_array_equal(found.numpy(), exact)


def test_teacher_and_student_are_keywords():
    with pytest.raises(TypeError):
        FACTORIES["fkl"]().logit_gradient([0.0, 1.0], [1.0, 0.0])


@pytest.mark.parametrize(
    ("teacher", "student", "message"),
    [
        ([0.0, 1.0], [0.0, math.nan], r"student_logits\[1\] is nan: logits must be finite or -inf"),
        ([[0.0, math.inf]], [[0.0, 0.0]], r"teacher_logits\[0, 1\] is inf"),
        ([[0.0, 0.0], [-math.inf] * 2], [[0.0, 0.0]] * 2, r"teacher_logits\[1\] is -inf for every token"),
        ([-math.inf] * 2, [0.0, 0.0], r"^teacher_logits is -inf for every token"),
        ([0.0, 1.0], [0.0, 1.0, 2.0], r"teacher_logits has shape \(2,\) and student_logits \(3,\)"),
    ],
)
def test_bad_logits_are_named(teacher, student, message):
    with pytest.raises(ValueError, match=message):
        FACTORIES["fkl"]().logit_gradient(teacher_logits=teacher, student_logits=student)
