"""Entropic transport as a loss: the protocol, logit gradients, boundary cases, precisions."""

import pickle

import numpy as np
import pytest
import torch

import kdtheory as kd
from kdtheory import TokenCost
from tests.transport import entropic_oracle as oracle

SETTINGS = [("relative", "full"), ("entropic", "full"), ("sharp", "full"), ("divergence", "full"),
            ("relative", "reduced"), ("sharp", "reduced")]  # fmt: skip
V = 6


def loss(functional="divergence", form="full", **more):
    E = np.random.default_rng(1).normal(size=(V, 2))
    return kd.divergence("sinkhorn", cost=TokenCost.embedding(E), epsilon=0.4, functional=functional, form=form, **more)


def logits(rng, rows=3):
    return rng.normal(size=(rows, V)), rng.normal(size=(rows, V))


@pytest.mark.parametrize(("functional", "form"), SETTINGS)
def test_logit_gradient_by_central_differences(functional, form, rng):
    made = loss(functional, form)
    (teacher,), (student,) = logits(rng, 1)
    C = made.settings.cost.matrix().numpy()
    p = kd.simplex.softmax(teacher)
    value = oracle.reduced if form == "reduced" else oracle.value
    found = made.logit_gradient(teacher_logits=teacher, student_logits=student)
    for i in range(V):
        move = 1e-5 * np.eye(V)[i]
        ahead, behind = (value(functional, p, kd.simplex.softmax(student + s * move), C, 0.4) for s in (1, -1))
        assert found[i] == pytest.approx((ahead - behind) / 2e-5, abs=2e-7)  # 1e-9 marginals, step 1e-5


@pytest.mark.parametrize(("functional", "form"), SETTINGS)
@pytest.mark.parametrize("case", ["equal", "one-hot teacher", "one-hot student", "disjoint", "gap 200", "gap 800"])
def test_boundary_cases_are_ordinary_input(functional, form, case):
    made, low = loss(functional, form), -torch.inf
    teacher, student = torch.zeros(V), torch.arange(V, dtype=torch.float32)
    if case == "equal":
        teacher = student.clone()
    elif case == "one-hot teacher":
        teacher = torch.tensor([0.0] + [low] * (V - 1))
    elif case == "one-hot student":
        student = torch.tensor([low] * (V - 1) + [0.0])
    elif case == "disjoint":
        teacher, student = torch.tensor([0.0, 1, 2, low, low, low]), torch.tensor([low, low, low, 0.0, 0, 1])
    else:
        student[0] = float(case.split()[1])
    student.requires_grad_()
    value = made.loss(teacher_logits=teacher, student_logits=student)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()
    assert student.grad.sum().abs() <= 1e-5
    assert (student.grad[torch.isneginf(student)] == 0).all()
    if case == "equal" and (functional == "divergence" or form == "reduced"):
        assert value.abs() <= 1e-6
        assert student.grad.abs().max() <= 1e-5


def test_training_agrees_with_float64(rng):
    made = loss()
    teacher, student = (torch.tensor(x, dtype=torch.float32) for x in logits(rng, 8))
    student.requires_grad_()
    made.loss(teacher_logits=teacher, student_logits=student, reduction="sum").backward()
    exact = made.logit_gradient(teacher_logits=teacher.double(), student_logits=student.detach().double())
    assert (student.grad - exact).abs().max() <= 2e-5  # marginals to 1e-5 in float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_float32(dtype, rng):
    made = loss()
    teacher, student = (torch.tensor(x).to(dtype) for x in logits(rng, 4))
    value = made.loss(teacher_logits=teacher, student_logits=student)
    assert value.item() == pytest.approx(
        made.loss(teacher_logits=teacher.float(), student_logits=student.float()).item()
    )


def test_masks_temperature_and_sums_follow_the_protocol(rng):
    made = loss()
    teacher, student = (torch.tensor(x) for x in logits(rng, 4))
    student.requires_grad_()
    mask = torch.tensor([True, False, True, True])
    student.data[1] = torch.nan
    each = made.loss(teacher_logits=teacher, student_logits=student, mask=mask, reduction="none")
    assert each[1] == 0
    assert each.isfinite().all()
    twice = (made + made).loss(teacher_logits=teacher, student_logits=student, mask=mask, reduction="none")
    torch.testing.assert_close(twice, 2 * each)
    nothing = made.loss(teacher_logits=teacher, student_logits=student, mask=torch.zeros(4, dtype=torch.bool))
    assert nothing == 0
    hot = made.loss(teacher_logits=teacher, student_logits=student, mask=mask, temperature=2.0, reduction="none")
    half = made.loss(teacher_logits=teacher / 2, student_logits=student / 2, mask=mask, reduction="none")
    torch.testing.assert_close(hot, 4 * half)  # quadratic around p = q: T²


def test_a_nan_is_reported_with_its_row(rng):
    made = loss()
    teacher, student = (torch.tensor(x) for x in logits(rng, 4))
    student[2, 1] = torch.nan
    with pytest.raises(kd.NonFiniteLossError, match=r"student_logits\[2, 1\]"):
        made.loss(teacher_logits=teacher, student_logits=student)


def test_the_divergence_pulls_towards_the_teacher(rng):
    """A few steps of gradient descent lower the loss and end near p; the relative value's minimiser is elsewhere."""
    teacher = torch.tensor(rng.normal(size=(1, V)))
    ends = {}
    for functional in ("divergence", "relative"):
        student = torch.zeros(1, V, dtype=torch.float64, requires_grad=True)
        step = torch.optim.LBFGS([student], max_iter=30, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

        def closure(student=student, step=step, functional=functional):
            step.zero_grad()
            value = loss(functional).loss(teacher_logits=teacher, student_logits=student)
            value.backward()
            return value

        step.step(closure)
        ends[functional] = (student.softmax(-1) - teacher.softmax(-1)).abs().sum().item()
    assert ends["divergence"] < 1e-3
    assert ends["relative"] > 0.05


def test_the_kernel_is_made_once_and_not_pickled(rng, monkeypatch):
    from kdtheory.transport.entropic import kernels

    made = loss()
    teacher, student = (torch.tensor(x, dtype=torch.float32) for x in logits(rng))
    count, make = [], kernels._made
    monkeypatch.setattr(kernels, "_made", lambda *args: count.append(args) or make(*args))
    first = made.loss(teacher_logits=teacher, student_logits=student)
    assert made.loss(teacher_logits=teacher, student_logits=student) == first
    assert len(count) == 1
    again = pickle.loads(pickle.dumps(made))
    assert again._kept == {}
    assert again.loss(teacher_logits=teacher, student_logits=student) == first
