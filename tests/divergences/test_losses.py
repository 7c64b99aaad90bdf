"""Training losses: autograd, dtypes, masks, reductions, temperature."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kdtheory.divergences import FACTORIES, NonFiniteLossError
from tests.divergences.cases import CASES, broken, label

SOFT = (*CASES, FACTORIES["cross_entropy"]())


@pytest.fixture
def torch_rng() -> torch.Generator:
    return torch.Generator().manual_seed(5)


@pytest.fixture
def logits(torch_rng) -> tuple[Tensor, Tensor]:
    """Teacher and student, interior, float64, shape (3, 4, 5)."""
    return tuple(2 * torch.randn(2, 3, 4, 5, generator=torch_rng, dtype=torch.float64))


def naive(loss, t: Tensor, z: Tensor) -> Tensor:
    """The definition in torch, differentiated by autograd; AKL's weights detached, as published."""
    log_p, log_q = t.log_softmax(-1), z.log_softmax(-1)
    p, q = log_p.exp(), log_q.exp()
    x = next(iter(loss.parameters.values()), None)

    def kl(a, b):
        return (a * (a / b).log()).sum(-1)

    def akl():
        gap = (p - q).abs().detach()
        order = p.argsort(-1, descending=True)
        mass = p.gather(-1, order).cumsum(-1) - p.gather(-1, order)
        head = torch.zeros_like(p).scatter(-1, order, (mass <= x).to(p))
        share = (gap * head).sum(-1) / gap.sum(-1)
        return share * kl(p, q) + (1 - share) * kl(q, p)

    forms = {
        "fkl": lambda: kl(p, q),
        "rkl": lambda: kl(q, p),
        "jsd": lambda: x * kl(p, x * p + (1 - x) * q) + (1 - x) * kl(q, x * p + (1 - x) * q),
        "tvd": lambda: (p - q).abs().sum(-1) / 2,
        "skl": lambda: kl(p, x * p + (1 - x) * q),
        "srkl": lambda: kl(q, x * q + (1 - x) * p),
        "chi2": lambda: (p * p / q).sum(-1) - 1,
        "neyman": lambda: (q * q / p).sum(-1) - 1,
        "hellinger2": lambda: 1 - (p * q).sqrt().sum(-1),
        "amari": lambda: (1 - (p**x * q ** (1 - x)).sum(-1)) / (x * (1 - x)),
        "renyi": lambda: (p**x * q ** (1 - x)).sum(-1).log() / (x - 1),
        "akl": akl,
        "cross_entropy": lambda: -(p * log_q).sum(-1),
    }
    return forms[loss.name]()


def gradient_of(function, z: Tensor) -> Tensor:
    z = z.detach().clone().requires_grad_()
    return torch.autograd.grad(function(z), z)[0]


# -- value and gradient ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("loss", SOFT, ids=label)
def test_value_and_gradient_are_those_of_the_definition(loss, logits):
    t, z = logits
    found = loss.loss(teacher_logits=t, student_logits=z, reduction="none")
    torch.testing.assert_close(found, naive(loss, t, z), rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(found, loss.value(t.softmax(-1), z.softmax(-1)), rtol=1e-11, atol=1e-14)
    ours = gradient_of(lambda z: loss.loss(teacher_logits=t, student_logits=z, reduction="sum"), z)
    torch.testing.assert_close(ours, gradient_of(lambda z: naive(loss, t, z).sum(), z), rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(ours, loss.logit_gradient(teacher_logits=t, student_logits=z), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("loss", [x for x in SOFT if not x.surrogate_gradient], ids=label)
def test_gradcheck(loss, logits):
    t, z = (x[0, :2] for x in logits)
    z = z.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: loss.loss(teacher_logits=t, student_logits=z, temperature=1.7, reduction="sum"),
        (z,),
        rtol=1e-5,
        atol=1e-7,  # central differences with h = 1e-6
    )


@pytest.mark.parametrize("name", ["fkl", "jsd", "hellinger2"])
def test_gradcheck_notices_a_wrong_gradient(name, logits):
    t, z = (x[0, :2] for x in logits)
    right = FACTORIES[name]()
    wrong = broken(right, gradient=lambda pair, **given: 1.001 * right.record.gradient(pair, **given))
    assert not torch.autograd.gradcheck(
        lambda z: wrong.loss(teacher_logits=t, student_logits=z, reduction="sum"),
        (z.clone().requires_grad_(),),
        rtol=1e-5,
        atol=1e-7,
        raise_exception=False,
    )


@pytest.mark.parametrize("loss", SOFT, ids=label)
def test_surrogate_gradient_is_an_honest_flag(loss, logits):
    """The gradient is that of the value, by central differences, exactly when the flag says so."""
    t, z = logits
    h = 1e-6  # error h² + eps/h ~ 1e-10, against gradients of order 0.1
    numeric = torch.zeros_like(z)
    for i in range(z.shape[-1]):
        step = h * torch.eye(z.shape[-1], dtype=z.dtype)[i]
        up, down = (loss.loss(teacher_logits=t, student_logits=z + sign * step, reduction="none") for sign in (1, -1))
        numeric[..., i] = (up - down) / (2 * h)
    error = (numeric - loss.logit_gradient(teacher_logits=t, student_logits=z)).abs().max()
    scale = numeric.abs().max()
    assert (error > 1e-3 * scale) if loss.surrogate_gradient else (error < 1e-7 * scale)


def test_only_adaptive_kl_is_a_surrogate():
    assert {loss.name for loss in SOFT if loss.surrogate_gradient} == {"akl"}


@pytest.mark.parametrize("loss", SOFT, ids=label)
def test_the_teacher_is_a_constant(loss, logits):
    t, z = (x.clone().requires_grad_() for x in logits)
    loss.loss(teacher_logits=t, student_logits=z).backward()
    assert t.grad is None
    assert z.grad.abs().sum() > 0


def test_no_gradient_is_computed_when_none_is_asked(logits):
    t, z = logits
    assert not FACTORIES["fkl"]().loss(teacher_logits=t, student_logits=z).requires_grad


@pytest.mark.parametrize("loss", SOFT, ids=label)
def test_many_rows_give_what_one_row_gives(loss, torch_rng):
    """Rows go through in blocks of 2^17 elements: more than one block, against row by row."""
    t, z = torch.randn(2, 7, 20_000, generator=torch_rng, dtype=torch.float64)
    together = loss.loss(teacher_logits=t, student_logits=z, reduction="none")
    alone = torch.stack([loss.loss(teacher_logits=a, student_logits=b) for a, b in zip(t, z, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-13, atol=0)


# -- dtypes ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", SOFT, ids=label)
def test_half_precision(loss, dtype, logits):
    """Computed in float32 from the rounded logits; only the gradient is rounded to the input's type."""
    t, z = (x.to(dtype) for x in logits)
    half = z.clone().requires_grad_()
    value = loss.loss(teacher_logits=t, student_logits=half)
    value.backward()
    assert value.dtype == torch.float32
    assert half.grad.dtype == dtype
    full = z.float().requires_grad_()
    reference = loss.loss(teacher_logits=t.float(), student_logits=full)
    reference.backward()
    torch.testing.assert_close(value, reference)
    unit = torch.finfo(dtype).eps
    # bf16 keeps the row gradient and the scaled one in bf16: two roundings; fp16 subnormals begin at 6e-5
    torch.testing.assert_close(half.grad.float(), full.grad, rtol=2 * unit, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("gap", [40.0, 200.0, 800.0])
@pytest.mark.parametrize("loss", SOFT, ids=label)
def test_gaps_in_training_precision(loss, gap, dtype):
    """Never NaN; where the loss is finite it is float64's, whose own accuracy other tests hold to 60 digits."""
    t = torch.tensor([[1.0, 0.5, 0.0, -1.0]], dtype=dtype)
    z = torch.tensor([[0.0, 0.0, gap, 0.0]], dtype=dtype, requires_grad=True)
    value = loss.loss(teacher_logits=t, student_logits=z, reduction="none")
    value.sum().backward()
    assert not torch.isnan(value).any()
    assert not torch.isnan(z.grad).any()
    exact = loss.loss(teacher_logits=t.double(), student_logits=z.detach().double(), reduction="none")
    if (exact < 1e38).all():  # float32's range
        torch.testing.assert_close(value.double(), exact, rtol=1e-4, atol=0)  # e^(200 · 2^-24 · a few)
    else:
        assert torch.isinf(value).all()


# -- masks and reductions ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("loss", SOFT, ids=label)
def test_hidden_rows_may_hold_anything(loss, logits):
    t, z = (x.clone() for x in logits)
    mask = torch.tensor([[True, False, True, False], [False] * 4, [True] * 4])
    expected = loss.loss(teacher_logits=t[mask], student_logits=z[mask])
    clean = gradient_of(lambda z: loss.loss(teacher_logits=t, student_logits=z, mask=mask), z)
    junk = torch.tensor([math.nan, math.inf, -math.inf, 1e300, 0.0], dtype=torch.float64)
    t[~mask], z[~mask] = junk, junk.flip(0)
    z.requires_grad_()
    value = loss.loss(teacher_logits=t, student_logits=z, mask=mask)
    value.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-14)
    assert (z.grad[~mask] == 0).all()
    torch.testing.assert_close(z.grad, clean, rtol=1e-14, atol=0)
    rows = loss.loss(teacher_logits=t, student_logits=z, mask=mask, reduction="none")
    assert rows.shape == mask.shape
    assert (rows[~mask] == 0).all()
    with pytest.raises(NonFiniteLossError):  # control: the same rows, counted
        loss.loss(teacher_logits=t, student_logits=z)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("loss", SOFT, ids=label)
def test_everything_hidden_is_zero_with_zero_gradient(loss, reduction):
    t, z = torch.full((2, 3, 4), math.nan), torch.full((2, 3, 4), math.nan, requires_grad=True)
    mask = torch.zeros(2, 3, dtype=torch.bool)
    value = loss.loss(teacher_logits=t, student_logits=z, mask=mask, reduction=reduction)
    assert (value == 0).all()
    value.sum().backward()
    assert (z.grad == 0).all()


def test_reductions(logits):
    t, z = logits
    loss = FACTORIES["fkl"]()
    mask = torch.rand(3, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    rows = naive(loss, t, z)
    arguments = {"teacher_logits": t, "student_logits": z, "mask": mask}
    torch.testing.assert_close(loss.loss(**arguments, reduction="none"), torch.where(mask, rows, 0))
    torch.testing.assert_close(loss.loss(**arguments, reduction="sum"), rows[mask].sum())
    torch.testing.assert_close(loss.loss(**arguments), rows[mask].mean())
    assert not torch.isclose(loss.loss(**arguments), rows.mean(), rtol=1e-3)


def test_one_position_without_leading_axes(logits):
    t, z = (x[0, 0] for x in logits)
    loss = FACTORIES["jsd"]()
    torch.testing.assert_close(loss.loss(teacher_logits=t, student_logits=z), naive(loss, t, z))
    assert loss.loss(teacher_logits=t, student_logits=z, mask=torch.tensor(False)) == 0


@pytest.mark.parametrize("loss", [FACTORIES["rkl"](), FACTORIES["neyman"](), FACTORIES["chi2"]()], ids=label)
def test_an_infinite_row_that_is_left_out_leaves_no_nan(loss):
    """reduction="none", then the caller keeps the finite rows: 0 · inf must not reach the student."""
    cut, full = torch.tensor([0.0, -math.inf, 1.0]), torch.tensor([0.3, 0.2, 0.1])
    teacher, student = (cut, full) if loss.name != "chi2" else (full, cut)
    t = torch.stack([teacher, full])
    z = torch.stack([student, torch.tensor([0.0, 1.0, 2.0])]).requires_grad_()
    rows = loss.loss(teacher_logits=t, student_logits=z, reduction="none")
    assert torch.isinf(rows[0])
    rows[torch.isfinite(rows)].sum().backward()
    assert (z.grad[0] == 0).all()
    assert z.grad[1].abs().sum() > 0


# -- temperature -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("temperature", [0.5, 2.0, 3])
@pytest.mark.parametrize("loss", SOFT, ids=label)
def test_temperature_scales_both_sides_and_keeps_the_size(loss, temperature, logits):
    t, z = logits
    power = 1 if loss.name == "tvd" else 2
    found = loss.loss(teacher_logits=t, student_logits=z, temperature=temperature)
    plain = loss.loss(teacher_logits=t / temperature, student_logits=z / temperature)
    assert found.item() == pytest.approx(temperature**power * plain.item(), rel=1e-13)
    assert found.item() != pytest.approx(temperature ** (3 - power) * plain.item(), rel=1e-2)
    ours = gradient_of(lambda z: loss.loss(teacher_logits=t, student_logits=z, temperature=temperature), z)
    base = loss.logit_gradient(teacher_logits=t / temperature, student_logits=z / temperature)
    torch.testing.assert_close(ours, temperature ** (power - 1) * base / 12, rtol=1e-11, atol=1e-15)
