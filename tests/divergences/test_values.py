"""Values of the twelve divergences against definitions typed again in mpmath, scipy and torch."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest
import scipy.spatial.distance
import scipy.special
import torch
from hypothesis import given, settings

import kdtheory as kd
from kdtheory.divergences import FACTORIES
from kdtheory.divergences import summands as fast
from tests import oracles
from tests.divergences.cases import CASES, FAMILIES, broken, label, log_probabilities, pairs, per_position

LARGEST = np.finfo(float).max
# A log-probability of size ≤ 800 is rounded by 1e-13, which is the relative error of a probability or ratio made of
# it. At r = log p/q ~ 1e-5 it is rounded by 1e-15, so r is good to 1e-10 and a value quadratic in r to 2e-10.
RELATIVE = 1e-11
RELATIVE_NEAR = 1e-9


def agrees(found: float, expected: mp.mpf, relative: float) -> bool:
    if not mp.isfinite(expected) or expected > LARGEST:
        return found == math.inf
    return math.isfinite(found) and abs(found - expected) <= relative * abs(expected)


@pytest.mark.parametrize("pair", FAMILIES, ids=label)
@pytest.mark.parametrize("loss", CASES, ids=label)
def test_value_is_the_definition(loss, pair):
    expected = oracles.value(loss.name, pair.teacher_logits, pair.student_logits, **loss.parameters)
    tolerance = RELATIVE_NEAR if pair.name == "near the teacher" else RELATIVE
    assert agrees(per_position(loss, pair), expected, tolerance)


@pytest.mark.parametrize("loss", CASES, ids=label)
def test_value_is_the_definition_at_random_logits(loss):
    @given(pair=pairs())
    @settings(max_examples=25, deadline=None, database=None, derandomize=True)
    def check(pair):
        expected = oracles.value(loss.name, pair.teacher_logits, pair.student_logits, **loss.parameters)
        # 1e-30: a value of two students that both hold all but e^-40 of the mass on one token, where r ~ e^-40
        assert agrees(per_position(loss, pair), expected, RELATIVE) or expected < 1e-28

    check()


@pytest.mark.parametrize(
    ("name", "summand"),
    [
        ("fkl", fast.reverse_kl),
        ("rkl", fast.forward_kl),
        ("tvd", lambda pair: 2 * fast.total_variation(pair)),
        ("chi2", fast.neyman),
        ("neyman", fast.chi_square),
        ("hellinger2", lambda pair: 2 * fast.hellinger(pair)),
        ("skl", lambda pair, alpha: fast.skew_kl(pair, 1 - alpha)),
        ("skl", fast.skew_reverse_kl),
        ("srkl", fast.skew_kl),
        ("amari", lambda pair, alpha: alpha * fast.amari(pair, alpha)),
        ("jsd", lambda pair, beta: beta * fast.jensen_shannon(pair, beta)),
    ],
)
def test_the_oracle_notices_a_wrong_value(name, summand):
    """Control: swapped arguments, a lost ½, a complemented or stray parameter."""
    loss = broken(FACTORIES[name](), summand=summand)
    pair = FAMILIES[0]
    expected = oracles.value(name, pair.teacher_logits, pair.student_logits, **loss.parameters)
    assert not agrees(per_position(loss, pair), expected, 1e-3)


@pytest.mark.parametrize("name", ["jsd", "amari", "renyi"])
def test_the_oracle_notices_a_complemented_parameter(name):
    pair = FAMILIES[0]
    key = "beta" if name == "jsd" else "alpha"
    expected = oracles.value(name, pair.teacher_logits, pair.student_logits, **{key: 0.3})
    assert agrees(per_position(FACTORIES[name](**{key: 0.3}), pair), expected, RELATIVE)
    assert not agrees(per_position(FACTORIES[name](**{key: 0.7}), pair), expected, 1e-3)


# -- other libraries ---------------------------------------------------------------------------------------------------
@pytest.fixture
def batch(rng):
    logits = rng.normal(size=(2, 5, 7)) * 3
    return scipy.special.softmax(logits, -1)


def test_kl_is_scipys(batch):
    p, q = batch
    np.testing.assert_allclose(FACTORIES["fkl"]().value(p, q), scipy.special.rel_entr(p, q).sum(-1), rtol=1e-13)
    np.testing.assert_allclose(FACTORIES["rkl"]().value(p, q), scipy.special.rel_entr(q, p).sum(-1), rtol=1e-13)
    assert not np.allclose(FACTORIES["fkl"]().value(p, q), FACTORIES["rkl"]().value(p, q), rtol=1e-2)


def test_jsd_is_the_square_of_scipys_distance(batch):
    p, q = batch
    distance = scipy.spatial.distance.jensenshannon(p, q, axis=-1)
    np.testing.assert_allclose(FACTORIES["jsd"](beta=0.5).value(p, q), distance**2, rtol=1e-12)


def test_kl_is_torchs(batch):
    p, q = (torch.tensor(x) for x in batch)
    theirs = torch.nn.functional.kl_div(q.log(), p, reduction="none").sum(-1)
    torch.testing.assert_close(FACTORIES["fkl"]().value(p, q), theirs, rtol=1e-13, atol=0)


def test_elementary_sums(batch):
    p, q = batch
    np.testing.assert_allclose(FACTORIES["tvd"]().value(p, q), 0.5 * np.abs(p - q).sum(-1), rtol=1e-13)
    np.testing.assert_allclose(
        FACTORIES["hellinger2"]().value(p, q), 0.5 * ((np.sqrt(p) - np.sqrt(q)) ** 2).sum(-1), rtol=1e-13
    )
    np.testing.assert_allclose(FACTORIES["chi2"]().value(p, q), (p * p / q).sum(-1) - 1, rtol=1e-12)


# -- the boundary ------------------------------------------------------------------------------------------------------
P_ONLY, Q_ONLY = "student 0, teacher > 0", "teacher 0, student > 0"


def infinite_at(loss, side) -> bool:
    """The table of the boundary contract, typed again."""
    heavy = loss.name in {"amari", "renyi"} and loss.parameters["alpha"] >= 1
    if loss.name == "akl":
        return True  # both KLs have weight at these points
    return heavy or loss.name in {"fkl", "chi2"} if side == P_ONLY else loss.name in {"rkl", "neyman"}


@pytest.mark.parametrize("side", [P_ONLY, Q_ONLY])
@pytest.mark.parametrize("loss", CASES, ids=label)
def test_boundary_table(loss, side):
    full, cut = [0.5, 0.25, 0.25], [0.75, 0.25, 0.0]
    p, q = (full, cut) if side == P_ONLY else (cut, full)
    found = loss.value(p, q)
    assert np.isposinf(found) == infinite_at(loss, side)
    with mp.workdps(oracles.DIGITS):
        expected = oracles.VALUES[loss.name]([mp.mpf(x) for x in p], [mp.mpf(x) for x in q], **loss.parameters)
    assert agrees(float(found), expected, 1e-13)


@pytest.mark.parametrize("loss", CASES, ids=label)
def test_a_token_both_exclude_drops_out(loss):
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
    padded = [np.append(x, 0.0) for x in (p, q)]
    assert loss.value(*padded) == pytest.approx(float(loss.value(p, q)), rel=1e-14)


@pytest.mark.parametrize("loss", CASES, ids=label)
def test_disjoint_supports(loss):
    p, q = np.array([0.5, 0.5, 0.0, 0.0]), np.array([0.0, 0.0, 0.25, 0.75])
    finite = {
        "jsd": lambda beta: -beta * math.log(beta) - (1 - beta) * math.log(1 - beta),
        "tvd": lambda: 1.0,
        "skl": lambda alpha: -math.log(alpha),
        "srkl": lambda alpha: -math.log(alpha),
        "hellinger2": lambda: 1.0,
        "amari": lambda alpha: 1 / (alpha * (1 - alpha)) if alpha < 1 else math.inf,
    }
    expected = finite.get(loss.name, lambda **_: math.inf)(**loss.parameters)
    assert loss.value(p, q) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("name", "parameters", "teacher", "student"),
    [
        ("fkl", {}, [800.0, 0, 0], [0, 0, -np.inf]),
        ("chi2", {}, [800.0, 0, 0], [0, 0, -np.inf]),
        ("amari", {"alpha": 2.0}, [800.0, 0, 0], [0, 0, -np.inf]),
        ("renyi", {"alpha": 2.0}, [800.0, 0, 0], [0, 0, -np.inf]),
        ("cross_entropy", {}, [800.0, 0, 0], [0, 0, -np.inf]),
        ("rkl", {}, [0, 0, -np.inf], [800.0, 0, 0]),
        ("neyman", {}, [0, 0, -np.inf], [800.0, 0, 0]),
    ],
)
def test_infinite_however_small_the_mass(name, parameters, teacher, student):
    """e^-800 is 0 in float64 and yet not an impossible token."""
    pair = kd.simplex.Pair("underflow", np.array(teacher, float), np.array(student, float))
    assert per_position(FACTORIES[name](**parameters), pair) == math.inf
    closed = [
        np.where(np.isneginf(pair.teacher_logits) | np.isneginf(pair.student_logits), -np.inf, x) for x in pair[1:]
    ]
    assert per_position(FACTORIES[name](**parameters), kd.simplex.Pair("control", *closed)) < math.inf


def test_power_of_an_underflowing_probability():
    """In float32 p = e^-104 is 0 and (p/q) = e^96 is inf, their product e^-8 is neither."""
    pair = kd.simplex.Pair("underflow", np.array([0.0, -104.0]), np.array([0.0, -200.0]))
    expected = oracles.value("amari", *pair[1:], alpha=2.0)
    found = FACTORIES["amari"](alpha=2.0).per_position(*log_probabilities(pair, torch.float32)).item()
    assert found == pytest.approx(float(expected), rel=1e-4)  # float32 logarithms of size 200


# -- laws --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("loss", CASES, ids=label)
def test_non_negative_and_zero_only_at_the_teacher(loss, rng):
    t = rng.normal(size=(200, 6)) * 3
    log_p = torch.log_softmax(torch.tensor(t), -1)
    assert (loss.per_position(log_p, log_p) == 0).all()
    for size in (1e-16, 1e-15, 1e-12, 1e-8, 1e-3, 1.0):
        moved = torch.log_softmax(torch.tensor(t + size * rng.normal(size=t.shape)), -1)
        value = loss.per_position(log_p, moved)
        assert (value >= 0).all()
        if size >= 1e-8:
            assert (value > 0).all()


def relative_distance(found: float, expected: float) -> float:
    return abs(found - expected) / abs(expected)


@pytest.mark.parametrize(
    ("near", "limit", "scale"),
    [
        (FACTORIES["jsd"](beta=1e-6), "fkl", 1e-6),
        (FACTORIES["jsd"](beta=1 - 1e-6), "rkl", 1 - (1 - 1e-6)),
        (FACTORIES["amari"](alpha=1 - 1e-6), "fkl", 1),
        (FACTORIES["amari"](alpha=1 + 1e-6), "fkl", 1),
        (FACTORIES["amari"](alpha=1e-6), "rkl", 1),
        (FACTORIES["renyi"](alpha=1 - 1e-6), "fkl", 1),
        (FACTORIES["renyi"](alpha=1 + 1e-6), "fkl", 1),
        (FACTORIES["skl"](alpha=1e-6), "fkl", 1),
        (FACTORIES["srkl"](alpha=1e-6), "rkl", 1),
    ],
    ids=label,
)
def test_limits_in_the_parameter(near, limit, scale):
    """1e-4: first order in 1e-6 with factors below 100 at this point. The other KL must be far from the limit."""
    p, q = [0.5, 0.3, 0.2], [0.1, 0.3, 0.6]
    other = "rkl" if limit == "fkl" else "fkl"
    found = float(near.value(p, q)) / scale
    assert relative_distance(found, float(FACTORIES[limit]().value(p, q))) < 1e-4
    assert relative_distance(found, float(FACTORIES[other]().value(p, q))) > 1e-2


def test_jsd_is_symmetric_only_at_one_half(batch):
    p, q = batch
    np.testing.assert_allclose(
        FACTORIES["jsd"](beta=0.5).value(p, q), FACTORIES["jsd"](beta=0.5).value(q, p), rtol=1e-13
    )
    np.testing.assert_allclose(
        FACTORIES["jsd"](beta=0.1).value(p, q), FACTORIES["jsd"](beta=0.9).value(q, p), rtol=1e-13
    )
    assert not np.allclose(FACTORIES["jsd"](beta=0.1).value(p, q), FACTORIES["jsd"](beta=0.1).value(q, p), rtol=1e-2)


@pytest.mark.parametrize("loss", CASES, ids=label)
def test_slope_is_the_derivative_in_q(loss):
    """Complex step in q_i as a free variable; AKL's weights held constant by the oracle."""
    p, q = [0.5, 0.3, 0.125, 0.075], [0.1, 0.2, 0.3, 0.4]
    with mp.workdps(oracles.DIGITS):
        exact_p, exact_q = ([mp.mpf(x) for x in row] for row in (p, q))

        def free(x):
            return oracles.VALUES[loss.name](exact_p, x, **loss.parameters)

        expected = [float(oracles.derivative(free, exact_q, i)) for i in range(4)]
    found = loss.slope(p, q)
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    if loss.name != "tvd":  # ½ sign(q - p) is odd; every other slope tells p from q by more than its sign
        assert not np.allclose(loss.slope(q, p), -found, rtol=1e-3)
