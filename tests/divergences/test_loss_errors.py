"""Errors of training losses: they say where, why, and what to do."""

from __future__ import annotations

import math

import pytest
import torch

from kdtheory.divergences import FACTORIES, NonFiniteLossError
from tests.divergences.cases import CASES, label

SOFT = (*CASES, FACTORIES["cross_entropy"]())
INF = math.inf


@pytest.mark.parametrize(
    ("name", "parameters", "teacher", "student", "message"),
    [
        ("rkl", {}, [0.0, 1.0, -INF], [0.0, 0.0, 0.0],
         r"rkl: position \[1, 0\], token 2: teacher log.* -inf, student.*-1\.099: the div.* infinite there\. Mask"),
        ("neyman", {}, [0.0, 1.0, -INF], [0.0, 0.0, 0.0], r"neyman: position \[1, 0\], token 2"),
        ("fkl", {}, [0.0, 1.0, 0.0], [0.0, -INF, 0.0], r"token 1: teacher .*student log-probability -inf: the div"),
        ("cross_entropy", {}, [0.0, 1.0, 0.0], [0.0, -INF, 0.0], r"\[1, 0\], token 1:"),
        ("amari", {"alpha": 2.0}, [0.0, 1.0, 0.0], [0.0, -INF, 0.0], r"amari\(alpha=2\.0\): .*\[1, 0\], token 1"),
        ("renyi", {"alpha": 2.0}, [0.0, 1.0, 0.0], [0.0, -INF, 0.0], r"renyi\(alpha=2\.0\): .*\[1, 0\], token 1"),
        ("renyi", {"alpha": 0.5}, [0.0, -INF, 0.0], [-INF, 0.0, -INF], r"share no possible token: the div"),
        ("akl", {}, [0.0, 1.0, -INF], [0.0, 0.0, 0.0], r"akl\(mu=0\.5\): position \[1, 0\], token 2"),
        ("chi2", {}, [0.0, 1.0, 0.0], [800.0, 0.0, 800.0], r"token 1: .*-800.*overflows torch\.float32 there"),
        ("chi2", {}, [0.0, 1.0, 0.0], [100.0, 0.0, 100.0], r"token 1: .*-100.*overflows torch\.float32 there"),
        ("jsd", {}, [0.0, 1.0, 0.0], [0.0, math.nan, 0.0], r"jsd.*: student_logits\[1, 0, 1\] is nan: logits must"),
        ("jsd", {}, [0.0, INF, 0.0], [0.0, 0.0, 0.0], r"teacher_logits\[1, 0, 1\] is inf"),
        ("jsd", {}, [-INF] * 3, [0.0, 0.0, 0.0], r"teacher_logits\[1, 0\] is -inf for every token"),
    ],
)  # fmt: skip
def test_a_loss_that_is_not_finite_says_where_and_why(name, parameters, teacher, student, message):
    t, z = torch.zeros(2, 3, 3), torch.zeros(2, 3, 3)
    mask = torch.tensor([[False, True, True], [True, True, False]])
    t[1, 0], z[1, 0] = torch.tensor(teacher), torch.tensor(student)
    loss = FACTORIES[name](**parameters)
    for given in (mask, None):
        with pytest.raises(NonFiniteLossError, match=message):
            loss.loss(teacher_logits=t, student_logits=z, mask=given)
    mask[1, 0] = False
    assert torch.isfinite(loss.loss(teacher_logits=t, student_logits=z, mask=mask))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("side", ["teacher_logits", "student_logits"])
@pytest.mark.parametrize("loss", SOFT, ids=label)
def test_a_nan_or_infinite_logit_never_passes(loss, side, bad):
    arguments = {side: torch.linspace(-1, 2, 20).reshape(4, 5) for side in ("teacher_logits", "student_logits")}
    arguments[side][2, 3] = bad
    with pytest.raises(NonFiniteLossError, match=rf"{side}\[2, 3\] is {bad}"):
        loss.loss(**arguments)
    rows = loss.loss(**arguments, reduction="none")
    assert torch.isnan(rows).tolist() == [False, False, True, False]


def test_a_sum_that_overflows_is_not_blamed_on_a_position():
    """Two values of 2e38 each: finite in float32, their sum is not."""
    z = torch.tensor([[88.0, 0.0]] * 4)
    with pytest.raises(NonFiniteLossError, match=r"every position is finite, their sum overflows torch\.float32"):
        FACTORIES["chi2"]().loss(teacher_logits=torch.tensor([[0.0, 30.0]] * 4), student_logits=z, reduction="sum")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher_logits": torch.zeros(2, 4)}, r"teacher_logits has shape \(2, 4\), student_logits \(2, 3\)"),
        ({"teacher_logits": None}, r"fkl: teacher_logits is missing"),
        ({"student_logits": torch.zeros(2, 3, dtype=torch.int64)}, r"student_logits: expected a floating-point tensor"),
        ({"student_logits": [[0.0] * 3] * 2}, r"student_logits: expected .* got list"),
        ({"student_logits": torch.zeros(2, 0), "teacher_logits": torch.zeros(2, 0)}, r"V >= 1"),
        ({"mask": torch.ones(2)}, r"mask: expected a bool tensor of shape \(2,\).*got torch\.float32 \(2,\)"),
        ({"mask": torch.ones(2, 3, dtype=torch.bool)}, r"mask: expected a bool tensor of shape \(2,\)"),
        ({"labels": torch.zeros(2)}, r"labels: expected an integer tensor of shape \(2,\)"),
        ({"labels": torch.zeros(2, dtype=torch.bool)}, r"labels: expected an integer tensor"),
        ({"temperature": 0}, r"temperature = 0: give a positive number"),
        ({"temperature": math.nan}, r"temperature = nan"),
        ({"reduction": "batchmean"}, r"reduction = 'batchmean': one of"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    arguments = {"teacher_logits": torch.zeros(2, 3), "student_logits": torch.zeros(2, 3), **changes}
    with pytest.raises(ValueError, match=message):
        FACTORIES["fkl"]().loss(**arguments)


def test_logits_are_keywords():
    logits = torch.zeros(2, 3, 4)
    with pytest.raises(TypeError):
        FACTORIES["fkl"]().loss(*logits)
