"""What the protocol promises, asked of every transport loss: the laws of tests/divergences that apply to them."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch

import kdtheory as kd
from kdtheory import TokenCost
from kdtheory.transport import LOSSES

V = 6
INF = math.inf


def made(tokens: int = V) -> dict[str, kd.divergences.Loss]:
    """Every registered loss, at the settings that change its code path."""
    points = np.random.default_rng(1).normal(size=(tokens, 3))
    embedding = TokenCost.embedding(points)
    tree = TokenCost.tree(*kd.transport.tree_from_embedding(points))
    loose = TokenCost.dense(np.random.default_rng(2).uniform(0.1, 1, size=(tokens, tokens)))
    settings = {
        "w1": [{"cost": TokenCost.zero_one(tokens)}, {"cost": TokenCost.line(points[:, 0])}, {"cost": embedding},
               {"cost": loose}],
        "w1_topk": [{"cost": embedding, "k": 3}, {"cost": embedding, "k": 3, "cells": 2},
                    {"cost": embedding, "k": 4, "epsilon": 0.3}],
        "sliced_w1": [{"cost": embedding, "directions": 8, "statistic": name} for name in ("mean", "max")],
        "sinkhorn": [{"cost": embedding, "epsilon": 0.3, "functional": name}
                     for name in ("relative", "entropic", "sharp", "divergence")]
        + [{"cost": embedding, "epsilon": 0.3, "functional": name, "form": "reduced"} for name in ("relative", "sharp")]
        + [{"cost": loose, "epsilon": 0.3, "functional": "divergence"}],
        "sinkd": [{}],
        "uld": [{}],
        "emo": [{"cost": embedding}, {"embedding": points}],
        "wkd": [{"cost": embedding, "epsilon": 0.3}],
        "assisted_sinkhorn": [{"cost": embedding, "epsilon": 0.3}],
        "tree_kl": [{"cost": tree}],
        "natural_w1": [{"cost": tree}, {"cost": embedding}],
        "similarity_kl": [{"cost": embedding, "epsilon": epsilon} for epsilon in (0.5, 1e-3)],
        "geometric": [{"cost": embedding, "epsilon": 0.5}],
    }  # fmt: skip
    assert set(settings) == set(LOSSES)
    found = [kd.divergence(name, **given) for name, each in settings.items() for given in each]
    return {str(loss): loss for loss in found}


CASES = made()
each_loss = pytest.mark.parametrize("name", CASES)
INFINITE = ("tree_kl", "geometric")  # where the student has no mass and the teacher has, as forward KL
BATCH = "sinkd"  # its positions are one batch: a bad row spoils the others, and value takes all rows as one


def logits(seed: int = 0, shape=(3, 4), dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*shape, V, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))


def trained(loss, teacher, student, **more) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and its gradient in the student's logits (of the sum, where rows are kept apart)."""
    student = student.detach().clone().requires_grad_()
    value = loss.loss(teacher_logits=teacher, student_logits=student, **more)
    value.sum().backward()
    return value.detach(), student.grad


# -- gradient and value ------------------------------------------------------------------------------------------------
def five_points(f, h: float) -> float:
    """f'(0), error h⁴/30 · f⁽⁵⁾: a large step, because a solver's tolerance is divided by it."""
    return float((8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h))


def moving(loss, gradient: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """The gradient; a natural one weighted with q, so that entries sum to zero and kinks of tails do not count."""
    return gradient.double() * (torch.softmax(student.double(), -1) if loss.surrogate_gradient else 1.0)


def test_only_the_natural_gradient_is_a_surrogate():
    assert {loss.name for loss in CASES.values() if loss.surrogate_gradient} == {"natural_w1"}


@pytest.mark.parametrize("name", [name for name in CASES if not CASES[name].surrogate_gradient])
def test_the_gradient_is_that_of_the_loss(name):
    loss = CASES[name]
    teacher, student = logits(shape=(2,))
    _, gradient = trained(loss, teacher, student, reduction="sum", temperature=1.5)
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)
    # smooth losses: marginals to 1e-9 over h; kinked ones are piecewise smooth, and no kink lies within 1e-5
    smooth = loss.name in ("sinkhorn", "wkd", "assisted_sinkhorn", "emo", "similarity_kl")
    h, accuracy = (1e-2, 2e-6) if smooth else (1e-5, 1e-7)
    for row, token in ((0, 1), (1, 4)):
        move = torch.zeros_like(student)
        move[row, token] = 1

        def value(step, move=move):
            with torch.no_grad():
                return loss.loss(teacher_logits=teacher, student_logits=student + step * move, reduction="sum",
                                 temperature=1.5)  # fmt: skip

        assert five_points(value, h) == pytest.approx(float(gradient[row, token]), abs=accuracy)


@each_loss
def test_the_loss_is_the_value_and_its_closed_gradient(name):
    loss, (teacher, student) = CASES[name], logits()
    losses, gradient = trained(loss, teacher, student, reduction="none")
    assert losses.shape == (3, 4)
    at = torch.softmax(teacher, -1), torch.softmax(student, -1)
    # 1e-9: two solves of one problem, marginals to 1e-9
    value = loss.value(*at) if loss.name != BATCH else losses  # SinKD.value has temperature 2 in probabilities, too
    torch.testing.assert_close(losses, value, atol=1e-8, rtol=0)
    closed = loss.logit_gradient(teacher_logits=teacher, student_logits=student)
    torch.testing.assert_close(gradient, closed, atol=1e-8, rtol=0)
    assert isinstance(loss.value(*(x.numpy() for x in at)), np.ndarray)


@each_loss
def test_upstream_gradients_and_no_grad(name):
    loss, (teacher, student) = CASES[name], logits()
    value, gradient = trained(loss, teacher, student)
    student = student.requires_grad_()
    (3 * loss.loss(teacher_logits=teacher, student_logits=student)).backward()
    torch.testing.assert_close(student.grad, 3 * gradient, atol=1e-9, rtol=0)
    with torch.no_grad():
        quiet = loss.loss(teacher_logits=teacher, student_logits=student)
    assert not quiet.requires_grad
    torch.testing.assert_close(quiet, value, rtol=1e-12, atol=1e-14)
    with torch.inference_mode():
        assert float(loss.loss(teacher_logits=teacher.clone(), student_logits=student.clone())) == pytest.approx(
            float(value), rel=1e-12, abs=1e-14
        )


@each_loss
def test_the_teacher_is_a_constant_and_nothing_is_overwritten(name):
    loss, (teacher, student) = CASES[name], logits()
    teacher.requires_grad_()
    student.requires_grad_()
    before = teacher.detach().clone(), student.detach().clone()
    loss.loss(teacher_logits=teacher, student_logits=student).backward()
    assert teacher.grad is None
    assert torch.equal(teacher, before[0])
    assert torch.equal(student, before[1])


# -- masks and rows that cannot be used --------------------------------------------------------------------------------
@each_loss
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("held", [0.0, math.nan, INF])
def test_everything_hidden_is_zero(name, reduction, held):
    x = torch.full((3, 4, V), held)
    mask = torch.zeros(3, 4, dtype=torch.bool)
    value, gradient = trained(CASES[name], x, x, mask=mask, reduction=reduction)
    assert not value.any()
    assert not gradient.any()


@each_loss
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_hidden_positions_are_as_if_they_were_not_there(name, reduction):
    loss, (teacher, student) = CASES[name], logits()
    mask = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 0, 1]], dtype=torch.bool)
    expected = trained(loss, teacher[mask], student[mask], reduction=reduction)
    teacher[~mask], student[~mask] = INF, math.nan
    value, gradient = trained(loss, teacher, student, mask=mask, reduction=reduction)
    assert not gradient[~mask].any()
    if reduction == "none":
        assert not value[~mask].any()
        value = value[mask]
    torch.testing.assert_close((value, gradient[mask]), expected, atol=1e-9, rtol=0)


@each_loss
@pytest.mark.parametrize("side", ["teacher_logits", "student_logits"])
@pytest.mark.parametrize("kind", ["nan", "inf", "all -inf"])
def test_a_row_that_cannot_be_used_is_named(name, side, kind):
    """With reduction="none" it is NaN, and the other rows are what they were."""
    loss, (teacher, student) = CASES[name], logits()
    right = loss.loss(teacher_logits=teacher, student_logits=student, reduction="none")
    bad = teacher if side == "teacher_logits" else student
    bad[1, 2] = -INF if kind == "all -inf" else bad[1, 2]
    bad[1, 2, 3] = {"nan": math.nan, "inf": INF, "all -inf": -INF}[kind]
    value, _ = trained(loss, teacher, student, reduction="none")
    assert torch.isnan(value[1, 2])
    if loss.name != BATCH:
        keep = torch.ones(3, 4, dtype=torch.bool)
        keep[1, 2] = False
        torch.testing.assert_close(value[keep], right[keep], atol=1e-9, rtol=0)
    where = r"\[1, 2\]" if kind == "all -inf" else r"\[1, 2, 3\]"
    with pytest.raises(kd.NonFiniteLossError, match=side + where):
        loss.loss(teacher_logits=teacher, student_logits=student)


# -- boundary ----------------------------------------------------------------------------------------------------------
def boundary(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    teacher, student = logits(3, shape=(V,))
    one_hot = torch.where(torch.eye(V, dtype=torch.bool), 0.0, -INF).double()
    left, right = (torch.arange(V) < 3).expand(V, V), (torch.arange(V) >= 3).expand(V, V)
    if kind.startswith("gap"):
        gap = float(kind.split()[1]) * torch.eye(V, dtype=torch.float64)
        return {"teacher": (gap, student), "student": (teacher, gap), "both": (gap, gap.roll(1, 0)),
                "same": (gap + teacher, gap)}[kind.split()[2]]  # fmt: skip
    return {
        "equal": (teacher, teacher),
        "one-hot teacher": (one_hot, student),
        "one-hot student": (teacher, one_hot),
        "one-hot, the same": (one_hot, one_hot),
        "one-hot, another": (one_hot, one_hot.roll(1, 0)),
        "disjoint": (teacher.masked_fill(left, -INF), student.masked_fill(right, -INF)),
        "disjoint, the other way": (teacher.masked_fill(right, -INF), student.masked_fill(left, -INF)),
        "impossible in both": (teacher.masked_fill(left, -INF), student.masked_fill(left, -INF)),
    }[kind]


BOUNDARIES = ["equal", "one-hot teacher", "one-hot student", "one-hot, the same", "one-hot, another", "disjoint",
              "disjoint, the other way", "impossible in both",
              *(f"gap {gap} {on}" for gap in (40, 200, 800) for on in ("teacher", "student", "both", "same")),
              ]  # fmt: skip


@each_loss
@pytest.mark.parametrize("kind", BOUNDARIES)
def test_boundary_cases_in_every_precision(name, kind):
    loss, (teacher, student) = CASES[name], boundary(kind)
    signed = "entropic" in name or "dense" in name  # the others are never negative
    for temperature in (1.0, 3.0):
        for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
            t, z = teacher.to(dtype), student.to(dtype)
            value, gradient = trained(loss, t, z, reduction="none", temperature=temperature)
            computed = torch.float64 if dtype == torch.float64 else torch.float32
            assert value.dtype == computed
            assert gradient.dtype == dtype
            infinite = (torch.isneginf(z) & ~torch.isneginf(t)).any(-1) & (loss.name in INFINITE)
            assert torch.equal(torch.isinf(value), infinite)
            assert torch.isfinite(gradient).all()
            assert loss.name in INFINITE or not gradient[torch.isneginf(z)].any()
            exact = trained(loss, t.double(), z.double(), reduction="none", temperature=temperature)
            # float32 stops at marginals of 1e-5; half precision rounds the gradient when it is returned
            close = {torch.float64: 1e-9, torch.float32: 2e-4}.get(dtype, 2e-2)
            if not (kind == "equal" and "w1(cost=dense" in name):  # a kink, where every subgradient is right
                off = moving(loss, gradient.double() - exact[1], z.double() / temperature)
                assert off.abs().max() <= close * max(1.0, float(exact[1].abs().max()))
            close = max(close if dtype == torch.float64 else 2e-4, 1e-9)
            relative = 1e-12 if dtype == torch.float64 else 1e-6  # values of 800
            torch.testing.assert_close(value.double(), exact[0], atol=close, rtol=relative)
            assert signed or (value >= -(1e-9 if dtype == torch.float64 else 2e-5)).all()
            small = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 3e-2)
            total = moving(loss, gradient, z.double() / temperature).sum(-1)
            assert total.abs().max() <= small * max(1.0, float(gradient.double().abs().max()))


@each_loss
def test_equal_laws_cost_nothing_where_the_loss_is_a_distance(name):
    """All but an entropic bias, a cost that is no metric, independent coupling, another softmax, a batch (SinKD)."""
    loss, (teacher, _) = CASES[name], logits()
    biased = (
        "relative, form=full",
        "entropic",
        "sharp, form=full",
        "emo",
        "wkd",
        "w1(cost=dense",
        "sinkd",
        "geometric",
    )
    value, gradient = trained(loss, teacher, teacher, reduction="none")
    if any(word in name for word in biased):
        assert (value.abs() > 1e-3).any()
    elif "dense" in name:
        torch.testing.assert_close(value, torch.zeros_like(value), atol=1e-9, rtol=0)
    else:
        torch.testing.assert_close(value, torch.zeros_like(value), atol=1e-12, rtol=0)
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-8, rtol=0)


# -- shapes ------------------------------------------------------------------------------------------------------------
@each_loss
def test_strides_and_leading_axes_do_not_matter(name):
    loss, (teacher, student) = CASES[name], logits()
    expected = trained(loss, teacher, student)
    scattered = teacher.permute(1, 0, 2).contiguous().permute(1, 0, 2), student.permute(2, 0, 1).contiguous()
    student = scattered[1].permute(1, 2, 0)
    assert not student.is_contiguous()
    assert not scattered[0].is_contiguous()
    torch.testing.assert_close(trained(loss, scattered[0], student), expected, rtol=1e-9, atol=1e-9)
    flat = trained(loss, teacher.reshape(12, V), student.reshape(12, V))
    torch.testing.assert_close((flat[0], flat[1].reshape(3, 4, V)), expected, rtol=1e-9, atol=1e-9)


@each_loss
def test_one_row_and_no_rows(name):
    loss, (teacher, student) = CASES[name], logits()
    for reduction in ("mean", "sum", "none"):
        value, gradient = trained(loss, teacher[0, 0], student[0, 0], reduction=reduction)
        assert value.shape == ()
        assert gradient.shape == (V,)
        for shape in ((0, V), (2, 0, V)):
            value, gradient = trained(loss, torch.zeros(shape), torch.zeros(shape), reduction=reduction)
            assert value.shape == (shape[:-1] if reduction == "none" else ())
            assert not value.any()
            assert gradient.shape == shape
    assert loss.value(torch.softmax(teacher[0, 0], -1).numpy(), torch.softmax(student[0, 0], -1).numpy()).shape == ()
    for shape in ((0, V), (2, 0, V)):
        assert loss.value(np.zeros(shape), np.zeros(shape)).shape == shape[:-1]
        empty = loss.logit_gradient(teacher_logits=np.zeros(shape), student_logits=np.zeros(shape))
        assert empty.shape == shape


@pytest.mark.parametrize("tokens", [1, 2])
def test_tiny_vocabularies(tokens):
    generator = torch.Generator().manual_seed(4)
    teacher, student = torch.randn(2, 3, tokens, generator=generator, dtype=torch.float64)
    for name, loss in made(tokens).items():
        value, gradient = trained(loss, teacher, student)
        assert torch.isfinite(value), name
        assert moving(loss, gradient, student).sum(-1).abs().max() < 1e-12, name
        if tokens == 1:
            assert not gradient.any(), name
            assert "w1(cost=dense" in name or abs(value) < 1e-12, name  # its only entry is not 0


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].name not in ("sinkd", "uld")])
def test_another_vocabulary_is_named(name):
    loss, (teacher, student) = CASES[name], (x[..., :5] for x in logits())
    laws = [torch.softmax(x, -1) for x in (teacher, student)]
    wrong = r"_logits has 5 tokens, .* has 6: they must agree"
    for call in (
        lambda: loss.loss(teacher_logits=teacher, student_logits=student),
        lambda: loss.value(*laws),
        lambda: loss.logit_gradient(teacher_logits=teacher, student_logits=student),
    ):
        with pytest.raises(ValueError, match=wrong):
            call()


# -- algebra and copies ------------------------------------------------------------------------------------------------
@each_loss
def test_sums_scales_and_the_classic_mixture(name):
    loss, (teacher, student) = CASES[name], logits()
    forward = kd.divergence("fkl")
    together = trained(forward + 0.5 * loss, teacher, student)
    alone, half = trained(forward, teacher, student), trained(loss, teacher, student)
    torch.testing.assert_close(together[0], alone[0] + 0.5 * half[0], rtol=1e-9, atol=0)
    torch.testing.assert_close(together[1], alone[1] + 0.5 * half[1], rtol=0, atol=1e-9)
    assert str(loss) in str(forward + 0.5 * loss)
    labels = torch.randint(0, V, (3, 4), generator=torch.Generator().manual_seed(6))
    mixed, _ = trained(kd.classic(soft=loss, labels=labels, a=0.3, temperature=2.0), teacher, student)
    hard = torch.nn.functional.cross_entropy(student.flatten(0, 1), labels.flatten())
    more = {"labels": labels} if loss.name == "wkd" else {}
    soft, _ = trained(loss, teacher, student, temperature=2.0, **more)
    assert float(mixed) == pytest.approx(float(0.7 * hard + 0.3 * soft), rel=1e-9)


@each_loss
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))])
def test_copies_compute_the_same(name, copied):
    loss, (teacher, student) = CASES[name], logits()
    torch.testing.assert_close(trained(copied(loss), teacher, student), trained(loss, teacher, student), rtol=0, atol=0)
    assert repr(copied(loss)) == repr(loss)


@each_loss
@pytest.mark.parametrize("factor", [7.5, -300.25])
def test_a_shift_of_logits_changes_nothing(name, factor):
    loss, (teacher, student) = CASES[name], logits()
    moved = trained(loss, teacher + factor, student - factor)
    torch.testing.assert_close(moved, trained(loss, teacher, student), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].name != BATCH])
def test_rows_do_not_see_each_other(name):
    loss, (teacher, student) = CASES[name], logits()
    together = loss.logit_gradient(teacher_logits=teacher, student_logits=student)
    for i in range(3):
        for j in range(4):
            row = loss.logit_gradient(teacher_logits=teacher[i, j], student_logits=student[i, j])
            torch.testing.assert_close(together[i, j], row, rtol=0, atol=1e-8)


# -- bad arguments of the functions beside the losses ------------------------------------------------------------------
LAW = np.full(V, 1 / V)
POINTS = np.random.default_rng(1).normal(size=(V, 3))
LINE, EMBEDDING = TokenCost.line(np.arange(V)), TokenCost.embedding(POINTS)
STRETCH = kd.transport.distortion(LINE, EMBEDDING)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kd.w1(LAW, LAW, POINTS), r"^cost: expected a kdtheory\.TokenCost, got ndarray"),
        (lambda: kd.w1_topk(LAW, LAW, POINTS, 3), r"^cost: expected a kdtheory\.TokenCost, got ndarray"),
        (lambda: kd.sinkhorn(LAW, LAW, POINTS, 0.1), r"^cost: expected a kdtheory\.TokenCost, got ndarray"),
        (lambda: kd.transport.w1_from_tree(LAW, LAW, POINTS, STRETCH), r"^tree: expected a kdtheory\.TokenCost"),
        (lambda: kd.transport.w1_from_tree(LAW, LAW, LINE, (1, 2)), r"^bounds = \(1, 2\): 0 <= low <= high"),
        (lambda: kd.transport.w1_from_tree(LAW, LAW, LINE, None), r"^bounds = None"),
        (lambda: kd.transport.distortion(POINTS, EMBEDDING), r"^tree: expected a kdtheory\.TokenCost"),
        (lambda: kd.transport.distortion(LINE, POINTS), r"^cost: expected a kdtheory\.TokenCost"),
        (lambda: kd.divergence("sliced_w1", cost=EMBEDDING, seed=-1), r"^seed = -1: give an integer >= 0"),
        (lambda: kd.divergence("sliced_w1", cost=EMBEDDING, seed="x"), r"^seed = 'x': give an integer >= 0"),
        (
            lambda: kd.transport.topk.truncate(torch.zeros(2, V - 1), EMBEDDING, 2),
            r"^difference has 5 tokens, cost = embedding\(V=6\) has 6",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_directions_and_embeddings_of_any_length(scale):
    """Their squares leave the floats; the directions do not."""
    p, q = np.random.default_rng(2).dirichlet(np.ones(V), size=2)
    directions = np.random.default_rng(3).normal(size=(4, 3))
    found, expected = (kd.sliced_w1(p, q, POINTS, x) for x in (scale * directions, directions))
    assert float(found.lower) == pytest.approx(float(expected.lower), rel=1e-12)
    found, expected = (kd.divergence("emo", embedding=x).value(p, q) for x in (scale * POINTS, POINTS))
    assert float(found) == pytest.approx(float(expected), rel=1e-12)
