"""Sums and multiples of losses, hard labels, and classic distillation, against torch's own functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from kdtheory.divergences import FACTORIES, NonFiniteLossError, classic

FKL, RKL, TVD = (FACTORIES[name]() for name in ("fkl", "rkl", "tvd"))
HARD = FACTORIES["cross_entropy"]()


@pytest.fixture
def batch():
    """Teacher, student, labels; float64, (6, 5)."""
    generator = torch.Generator().manual_seed(3)
    t, z = 2 * torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    return t, z.requires_grad_(), torch.randint(5, (6,), generator=generator)


def value_and_grad(function, z):
    value = function(z)
    return value.detach(), torch.autograd.grad(value, z)[0]


def assert_same(found, expected, z):
    for ours, theirs in zip(value_and_grad(found, z), value_and_grad(expected, z), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-14)


def kl_div(t, z, temperature=1.0):
    log_q, p = (z / temperature).log_softmax(-1), (t / temperature).softmax(-1)
    return F.kl_div(log_q, p, reduction="batchmean")


# -- hard labels -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_hard_labels_are_torchs_cross_entropy(batch, temperature):
    """Labels have no temperature: the hard loss ignores it."""
    _, z, y = batch
    assert_same(
        lambda z: HARD.loss(student_logits=z, labels=y, temperature=temperature), lambda z: F.cross_entropy(z, y), z
    )


def test_hard_labels_with_a_mask_are_torchs_ignore_index(batch):
    _, z, y = batch
    mask = torch.tensor([True, False, True, True, False, True])
    padded = torch.where(mask, y, -100)
    found = HARD.loss(student_logits=z, labels=padded, mask=mask)
    torch.testing.assert_close(found, F.cross_entropy(z, padded, ignore_index=-100), rtol=1e-13, atol=0)
    assert not torch.isclose(found, F.cross_entropy(z, y), rtol=1e-3)


def test_soft_labels_are_torchs_cross_entropy_with_probabilities(batch):
    t, z, _ = batch
    assert_same(lambda z: HARD.loss(teacher_logits=t, student_logits=z), lambda z: F.cross_entropy(z, t.softmax(-1)), z)


def test_labels_win_over_the_teacher(batch):
    t, z, y = batch
    found = HARD.loss(teacher_logits=t, student_logits=z, labels=y)
    torch.testing.assert_close(found, F.cross_entropy(z, y))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_hard_labels_in_half_precision(batch, dtype):
    _, z, y = batch
    half = z.detach().to(dtype).requires_grad_()
    value = HARD.loss(student_logits=half, labels=y)
    value.backward()
    assert half.grad.dtype == dtype
    torch.testing.assert_close(value, F.cross_entropy(half.detach().float(), y))


@pytest.mark.parametrize("label", [-1, 5, -100])
def test_labels_out_of_range(batch, label):
    _, z, y = batch
    y[4] = label
    with pytest.raises(ValueError, match=rf"position 4 holds {label}, outside 0\.\.4: hide padding"):
        HARD.loss(student_logits=z, labels=y)


@pytest.mark.parametrize("loss", [HARD, classic(FKL, a=0.5)], ids=str)
def test_a_label_the_student_excludes(loss):
    z = torch.zeros(2, 3, 4)
    z[1, 2, 3] = -math.inf
    t = torch.zeros(2, 3, 4)
    t[1, 2, 3] = -math.inf
    y = torch.zeros(2, 3, dtype=torch.long)
    assert torch.isfinite(loss.loss(teacher_logits=t, student_logits=z, labels=y))
    y[1, 2] = 3
    with pytest.raises(NonFiniteLossError, match=r"position \[1, 2\], token 3: the label has student logit -inf"):
        loss.loss(teacher_logits=t, student_logits=z, labels=y)


def test_labels_or_teacher_are_needed(batch):
    with pytest.raises(ValueError, match="teacher_logits is missing"):
        HARD.loss(student_logits=batch[1])


# -- classic distillation ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("a", "temperature"), [(0.5, 2.0), (0.9, 4.0), (0.1, 1.0), (1.0, 3.0), (0.0, 2.0)])
def test_classic_is_hintons_mixture(batch, a, temperature):
    t, z, y = batch
    expected = lambda z: a * temperature**2 * kl_div(t, z, temperature) + (1 - a) * F.cross_entropy(z, y)  # noqa: E731
    loss = classic(FKL, labels=y, a=a, temperature=temperature)
    assert_same(lambda z: loss.loss(teacher_logits=t, student_logits=z), expected, z)
    later = classic(FKL, a=a, temperature=temperature)
    assert_same(lambda z: later.loss(teacher_logits=t, student_logits=z, labels=y), expected, z)
    exchanged = (1 - a) * temperature**2 * kl_div(t, z, temperature) + a * F.cross_entropy(z, y)
    if a != 0.5:
        assert not torch.isclose(loss.loss(teacher_logits=t, student_logits=z), exchanged, rtol=1e-3)


def test_classic_with_total_variation_takes_one_power_of_temperature(batch):
    t, z, y = batch
    tv = ((t / 3).softmax(-1) - (z / 3).softmax(-1)).abs().sum(-1).mean() / 2
    found = classic(TVD, labels=y, a=0.25, temperature=3.0).loss(teacher_logits=t, student_logits=z)
    torch.testing.assert_close(found, 0.25 * 3 * tv + 0.75 * F.cross_entropy(z, y), rtol=1e-12, atol=0)


def test_classic_with_a_mask(batch):
    t, z, y = batch
    mask = torch.tensor([True, False, True, True, False, True])
    found = classic(FKL, labels=torch.where(mask, y, -100), temperature=2.0).loss(
        teacher_logits=t, student_logits=z, mask=mask
    )
    expected = 0.5 * 4 * kl_div(t[mask], z[mask], 2.0) + 0.5 * F.cross_entropy(z[mask], y[mask])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_classic_keeps_its_labels_in_sums(batch):
    """The hard half must not turn into the teacher's cross-entropy when the mixture is scaled or added to."""
    t, z, y = batch
    held = classic(FKL, labels=y, a=0.3)
    arguments = {"teacher_logits": t, "student_logits": z}
    plain = held.loss(**arguments)
    torch.testing.assert_close((2.0 * held).loss(**arguments), 2 * plain)
    torch.testing.assert_close((held + RKL).loss(**arguments), plain + RKL.loss(**arguments))
    torch.testing.assert_close((RKL + 0.5 * held).loss(**arguments), RKL.loss(**arguments) + 0.5 * plain)
    soft = 0.3 * FKL + 0.7 * HARD
    assert not torch.isclose(plain, soft.loss(**arguments), rtol=1e-3)


def test_classic_without_labels_says_so(batch):
    t, z, y = batch
    for loss in (classic(FKL), 0.5 * classic(FKL), classic(FKL) + RKL):
        with pytest.raises(ValueError, match="classic: labels is missing"):
            loss.loss(teacher_logits=t, student_logits=z)
    with pytest.raises(ValueError, match="different labels"):
        classic(FKL, labels=y) + classic(RKL, labels=y.clone())
    with pytest.raises(ValueError, match="teacher_logits is missing"):
        classic(FKL, labels=y).loss(student_logits=z)
    classic(FKL, labels=y, a=0.0).loss(student_logits=z)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"a": 1.5}, r"a = 1\.5: the weight of the soft part"),
        ({"a": math.nan}, r"a = nan"),
        ({"temperature": -1}, r"temperature = -1"),
    ],
)
def test_classic_checks_its_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        classic(FKL, **arguments)
    with pytest.raises(ValueError, match="soft: expected a loss"):
        classic("fkl")


# -- sums --------------------------------------------------------------------------------------------------------------
def test_sums_are_linear_in_value_and_gradient(batch):
    t, z, _ = batch
    loss = FKL + 0.5 * RKL
    arguments = {"teacher_logits": t, "student_logits": z}
    torch.testing.assert_close(loss.loss(**arguments), FKL.loss(**arguments) + 0.5 * RKL.loss(**arguments))
    p, q = t.softmax(-1).numpy(), z.detach().softmax(-1).numpy()
    np.testing.assert_allclose(loss.value(p, q), FKL.value(p, q) + 0.5 * RKL.value(p, q), rtol=1e-14)
    found = loss.logit_gradient(**arguments)
    parts = [part.logit_gradient(**arguments) for part in (FKL, RKL)]
    torch.testing.assert_close(found, parts[0] + 0.5 * parts[1])
    assert not torch.allclose(found, parts[0] + parts[1], rtol=1e-3)


@pytest.mark.parametrize("loss", [FKL + 0.5 * TVD, classic(FKL, a=0.3, temperature=2.0)], ids=str)
def test_value_and_gradient_of_a_sum_belong_together(loss, batch):
    """Central differences of `value` through the softmax, h = 1e-6: error about 1e-10."""
    t, z = batch[0][0].numpy(), batch[1][0].detach().numpy()

    def value(x):
        return loss.value(np.exp(t) / np.exp(t).sum(), np.exp(x) / np.exp(x).sum())

    numeric = [(value(z + h) - value(z - h)) / 2e-6 for h in 1e-6 * np.eye(5)]
    np.testing.assert_allclose(loss.logit_gradient(teacher_logits=t, student_logits=z), numeric, atol=1e-8)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_temperature_reaches_every_part(batch, temperature):
    t, z, _ = batch
    arguments = {"teacher_logits": t, "student_logits": z, "temperature": temperature}
    expected = FKL.loss(**arguments) + 0.5 * TVD.loss(**arguments)
    torch.testing.assert_close((FKL + 0.5 * TVD).loss(**arguments), expected)


def test_weight_zero_drops_an_infinite_part():
    t, z = torch.tensor([[0.0, -math.inf]]), torch.zeros(1, 2)
    arguments = {"teacher_logits": t, "student_logits": z}
    assert (FKL + 0.0 * RKL).loss(**arguments) == FKL.loss(**arguments)
    with pytest.raises(NonFiniteLossError, match=r"fkl \+ 0\.1 \* rkl: position \[0\], token 1"):
        (FKL + 0.1 * RKL).loss(**arguments)


def test_names_and_nesting(batch):
    t, z, _ = batch
    arguments = {"teacher_logits": t, "student_logits": z}
    nested = 2 * (FKL + 0.5 * (RKL + TVD)) + 0.25 * FACTORIES["skl"](alpha=0.3)
    assert str(nested) == "2 * fkl + rkl + tvd + 0.25 * skl(alpha=0.3)"
    assert str(classic(FKL, a=0.5, temperature=2.0)) == "0.5 * fkl@T=2 + 0.5 * cross_entropy"
    assert str(0 * FKL) == "0"
    flat = 2 * FKL + RKL + TVD + 0.25 * FACTORIES["skl"](alpha=0.3)
    torch.testing.assert_close(nested.loss(**arguments), flat.loss(**arguments))
    assert (FKL * 0.5).loss(**arguments) == (0.5 * FKL).loss(**arguments)
    assert (FKL + FACTORIES["akl"]()).surrogate_gradient
    assert not nested.surrogate_gradient


@pytest.mark.parametrize(
    "wrong", [lambda: FKL + 1, lambda: FKL * "2", lambda: FKL * RKL, lambda: "rkl" + FKL, lambda: FKL + torch.zeros(1)]
)
def test_only_losses_add_and_only_numbers_scale(wrong):
    with pytest.raises(TypeError):
        wrong()


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_weights_are_finite(weight):
    with pytest.raises(ValueError, match=rf"weight of fkl is {weight}"):
        weight * FKL
