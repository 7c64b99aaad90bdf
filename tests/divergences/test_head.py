"""Losses from hidden states, against the loss of the whole logits and autograd."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import kdtheory as kd
from kdtheory.divergences import FACTORIES, NonFiniteLossError, head
from kdtheory.divergences.protocol import Loss
from tests.divergences.cases import label

TOKENS, WIDTH, LEAD = 7, 3, (2, 5)
LINE = kd.TokenCost.line(np.linspace(0, 1, TOKENS) ** 2)
TREE = kd.TokenCost.tree([-1, 0, 0, 1, 1, 2, 2], [0.0, 1.0, 0.5, 0.25, 0.5, 0.75, 1.0], tokens=TOKENS)
fkl, w1 = kd.divergence("fkl"), kd.divergence("w1", cost=LINE)
TRANSPORT = (
    w1,
    kd.divergence("w1", cost=TREE),
    kd.divergence("sliced_w1", cost=kd.TokenCost.embedding(np.random.default_rng(3).normal(size=(TOKENS, 2)))),
    kd.divergence("sinkhorn", cost=LINE, epsilon=0.3),
    kd.divergence("sinkd"),
    kd.divergence("uld"),
    kd.divergence("wkd", cost=LINE, epsilon=0.3),
    kd.divergence("tree_kl", cost=TREE, weight=0.5),
)
SUMS = (
    fkl + 0.5 * w1,
    0.3 * kd.divergence("cross_entropy") + fkl + kd.divergence("sinkd"),
    kd.classic(fkl, a=0.3, temperature=2.0),
)
LOSSES = (*kd.divergences.ALL, kd.divergence("cross_entropy"), *TRANSPORT, *SUMS)


@pytest.fixture
def draw() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.fixture
def student(draw) -> dict[str, Tensor]:
    shapes = {"hidden": (*LEAD, WIDTH), "weight": (TOKENS, WIDTH), "bias": (TOKENS,)}
    return {key: torch.randn(shape, generator=draw, dtype=torch.float64) for key, shape in shapes.items()}


@pytest.fixture
def taught(draw) -> dict[str, Tensor]:
    return {
        "teacher_logits": 2 * torch.randn(*LEAD, TOKENS, generator=draw, dtype=torch.float64),
        "labels": torch.randint(TOKENS, LEAD, generator=draw),
    }


MASK = torch.tensor([[True, False, True, True, False], [False, True, True, True, True]])


def values_and_gradients(function, student: dict[str, Tensor]) -> list[Tensor]:
    leaves = {key: x.detach().clone().requires_grad_() for key, x in student.items()}
    value = function(**leaves)
    (3 * value).backward()  # 3: backward must scale by what comes from above
    return [value.detach(), *(x.grad for x in leaves.values())]


def whole(loss: Loss, **given):
    """The reference: all logits at once, differentiated by autograd."""

    def value(hidden, weight, bias=None):
        return loss.loss(student_logits=torch.nn.functional.linear(hidden, weight, bias), **given)

    return value


def chunked(loss: Loss, **given):
    return lambda **student: kd.head_loss(loss, **student, **given)


def agree(found: list[Tensor], expected: list[Tensor], rtol: float) -> bool:
    """Each array to rtol of its largest entry."""
    return all(
        a.shape == b.shape and a.dtype == b.dtype and (a - b).abs().max() <= rtol * b.abs().max()
        for a, b in zip(found, expected, strict=True)
    )


# -- value and gradients -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("settings", [{}, {"reduction": "sum", "mask": MASK}, {"temperature": 1.7}], ids=str)
@pytest.mark.parametrize("loss", LOSSES, ids=label)
def test_value_and_gradients_are_those_of_the_whole_logits(loss, settings, student, taught):
    """1e-12: products of 3 and sums of 10 terms in another order."""
    given = {**taught, **settings}
    expected = values_and_gradients(whole(loss, **given), student)
    for chunk in (1, 3, None):
        assert agree(values_and_gradients(chunked(loss, chunk=chunk, **given), student), expected, 1e-12), chunk


@pytest.mark.parametrize("loss", [fkl, kd.divergence("jsd"), SUMS[0]], ids=label)
def test_the_comparison_notices_a_dropped_chunk_and_a_wrong_scale(loss, student, taught, monkeypatch):
    expected = values_and_gradients(whole(loss, **taught), student)
    wrong_scale = values_and_gradients(lambda **x: 1.0001 * kd.head_loss(loss, **x, **taught), student)
    assert not agree(wrong_scale, expected, 1e-12)
    add, calls = head._add_product, []

    def first_chunks_only(total, left, right):
        calls.append(1)
        if len(calls) < 4:
            add(total, left, right)

    monkeypatch.setattr(head, "_add_product", first_chunks_only)
    found = values_and_gradients(chunked(loss, chunk=3, **taught), student)
    assert len(calls) == 4
    assert not agree(found, expected, 1e-3)
    assert agree(found[:2] + found[3:], expected[:2] + expected[3:], 1e-12)  # only the embeddings' gradient is wrong


@pytest.mark.parametrize("name", ["fkl", "jsd"])
def test_gradients_by_central_differences(name, student, taught):
    """1e-8: h = 1e-6 leaves h² + eps/h = 2e-10 of values near 1."""
    loss, h = kd.divergence(name), 1e-6
    _, *gradients = values_and_gradients(chunked(loss, chunk=4, mask=MASK, **taught), student)
    for key, gradient in zip(student, gradients, strict=True):
        for index in np.ndindex(*gradient.shape):
            ends = []
            for step in (h, -h):
                moved = {other: x.clone() for other, x in student.items()}
                moved[key][index] += step
                ends.append(kd.head_loss(loss, **moved, mask=MASK, **taught).item())
            numeric = 3 * (ends[0] - ends[1]) / (2 * h)
            assert gradient[index].item() == pytest.approx(numeric, rel=0, abs=1e-8)
            assert gradient[index].item() == 0 or 1.01 * gradient[index] != pytest.approx(numeric, rel=0, abs=1e-8)


@pytest.mark.parametrize("biased", [False, True])
def test_the_teacher_may_be_hidden_states_and_a_head(biased, student, taught, draw):
    states, embeddings, bias = (
        torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_()
        for shape in ((*LEAD, 4), (TOKENS, 4), (TOKENS,))
    )
    teacher = (states, embeddings, bias) if biased else (states, embeddings)
    logits = torch.nn.functional.linear(*teacher)
    for mask in (None, MASK):
        expected = values_and_gradients(whole(fkl, teacher_logits=logits, mask=mask), student)
        found = values_and_gradients(chunked(fkl, teacher=teacher, mask=mask, chunk=3), student)
        assert agree(found, expected, 1e-12)
    assert states.grad is None
    assert embeddings.grad is None


def test_a_teacher_that_is_not_contiguous_and_half_precision_log_probabilities(student, taught, draw):
    longer = torch.randn(LEAD[0], LEAD[1] + 1, TOKENS, generator=draw).log_softmax(-1).half()
    expected = values_and_gradients(whole(fkl, teacher_logits=longer[:, :-1]), student)
    assert agree(values_and_gradients(chunked(fkl, teacher_logits=longer[:, :-1], chunk=4), student), expected, 1e-12)
    assert not agree(values_and_gradients(chunked(fkl, teacher_logits=longer[:, 1:], chunk=4), student), expected, 1e-3)


@pytest.mark.parametrize("tokens", [4096, 5000])
@pytest.mark.parametrize("name", ["fkl", "rkl", "srkl", "renyi"])
def test_float32_at_a_larger_vocabulary(name, tokens, draw):
    """Against float64 as good as the whole logits are in float32 (1e-7 to 3e-5 here, the rounding of the logits);
    twice that and 1e-6 for sums of thousands of terms in another order."""
    student = {"hidden": torch.randn(40, 16, generator=draw), "weight": torch.randn(tokens, 16, generator=draw)}
    teacher, loss = 3 * torch.randn(40, tokens, generator=draw), kd.divergence(name)
    wide = {key: x.double() for key, x in student.items()}
    exact = values_and_gradients(whole(loss, teacher_logits=teacher.double()), wide)

    def errors(function) -> np.ndarray:
        found = values_and_gradients(function, student)
        return np.array([float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, exact, strict=True)])

    allowed = 2 * errors(whole(loss, teacher_logits=teacher)) + 1e-6
    assert (errors(chunked(loss, teacher_logits=teacher, chunk=16)) <= allowed).all()
    assert (errors(lambda **x: 1.001 * kd.head_loss(loss, **x, teacher_logits=teacher)) > allowed).all()


@pytest.mark.parametrize("loss", [fkl, kd.divergence("jsd"), SUMS[2]], ids=label)
def test_bfloat16(loss, student, taught):
    """The logits are the model's own; gradients to two roundings of bfloat16 (2^-8 each) of the largest entry."""
    half = {key: x.bfloat16() for key, x in student.items()}
    found = values_and_gradients(chunked(loss, chunk=3, **taught), half)
    expected = values_and_gradients(whole(loss, **taught), half)
    assert found[0].dtype == torch.float32
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-6)
    assert agree(found, expected, 2**-7)


def test_bfloat16_embeddings_are_summed_in_float32(draw):
    """Sums of 4096 equal chunks: in bfloat16 they would stop at 256 times one of them."""
    hidden = torch.ones(4096, 1, dtype=torch.bfloat16)
    weight = torch.tensor([[0.0], [1.0]], dtype=torch.bfloat16, requires_grad=True)
    loss = kd.divergence("cross_entropy")
    kd.head_loss(
        loss, hidden=hidden, weight=weight, labels=torch.ones(4096).long(), reduction="sum", chunk=1
    ).backward()
    one = 1 / (1 + math.e)  # softmax of token 0
    assert weight.grad[0].item() == pytest.approx(4096 * one, rel=2**-7)


def test_half_precision_gradients_survive_until_the_loss_scale(draw):
    """Slopes of 1e-9 lie below fp16's smallest number and reach the hidden states through a scale of 2^16."""
    teacher, hidden = torch.tensor([[0.0, -20.0]]), torch.ones(1, 1, dtype=torch.float16, requires_grad=True)
    weight = torch.tensor([[0.0], [-19.0]], dtype=torch.float16)
    (2.0**16 * kd.head_loss(fkl, hidden=hidden, weight=weight, teacher_logits=teacher)).backward()
    exact = -19 * (1 / (1 + math.exp(19)) - 1 / (1 + math.exp(20))) * 2.0**16
    assert hidden.grad.item() == pytest.approx(exact, rel=1e-3)


def test_autocast_multiplies_in_its_dtype_and_keeps_the_gradients(student, taught):
    single = {key: x.float() for key, x in student.items()}
    rounded = values_and_gradients(chunked(fkl, **taught), {key: x.bfloat16() for key, x in student.items()})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = values_and_gradients(chunked(fkl, chunk=4, **taught), single)
    assert [x.dtype for x in found] == [torch.float32] * 4
    assert found[0].item() == pytest.approx(rounded[0].item(), rel=1e-6)
    assert agree(found, [x.float() for x in rounded], 2**-7)
    plain = kd.head_loss(fkl, **single, **taught).item()
    assert found[0].item() != pytest.approx(plain, rel=1e-6)


# -- what is not computed, and not held --------------------------------------------------------------------------------
def test_no_gradient_is_computed_when_none_is_asked(student, taught, monkeypatch):
    monkeypatch.setattr(Loss, "positions_and_gradient", None)
    leaves = {key: x.requires_grad_() for key, x in student.items()}
    with torch.no_grad():
        value = kd.head_loss(fkl, **leaves, **taught)
    assert value.item() == pytest.approx(whole(fkl, **taught)(**leaves).item(), rel=1e-13)
    with pytest.raises(TypeError):  # control: with gradients it is called
        kd.head_loss(fkl, **leaves, **taught)


def test_frozen_embeddings_get_no_gradient(student, taught, monkeypatch):
    monkeypatch.setattr(head, "_add_product", None)
    hidden = student["hidden"].requires_grad_()
    kd.head_loss(fkl, hidden=hidden, weight=student["weight"], **taught).backward()
    reference = student["hidden"].detach().clone().requires_grad_()
    whole(fkl, **taught)(reference, student["weight"]).backward()
    torch.testing.assert_close(hidden.grad, reference.grad, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("loss", "rows"), [(fkl, 3), (kd.divergence("sinkd"), 10), (SUMS[1], 10)], ids=label)
def test_the_loss_sees_one_chunk_at_a_time(loss, rows, student, taught, monkeypatch):
    seen, kept = [], type(loss).positions_and_gradient

    def counting(self, logits, *rest):
        seen.append(len(logits))
        return kept(self, logits, *rest)

    monkeypatch.setattr(type(loss), "positions_and_gradient", counting)
    values_and_gradients(chunked(loss, chunk=3, **taught), student)
    assert max(seen) == rows


def test_backward_hands_the_gradients_over_once(student, taught):
    value = kd.head_loss(fkl, **{key: x.requires_grad_() for key, x in student.items()}, **taught)
    value.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="backward a second time"):
        value.backward()


# -- masks -------------------------------------------------------------------------------------------------------------
def test_hidden_positions_may_hold_anything(student, taught):
    expected = values_and_gradients(chunked(SUMS[0], mask=MASK, chunk=4, **taught), student)
    student["hidden"][~MASK] = math.nan
    taught["teacher_logits"][~MASK] = math.inf
    found = values_and_gradients(chunked(SUMS[0], mask=MASK, chunk=4, **taught), student)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    with pytest.raises(NonFiniteLossError):
        kd.head_loss(SUMS[0], **student, **taught)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("loss", [fkl, kd.divergence("sinkd"), SUMS[2]], ids=label)
def test_everything_hidden_is_zero_with_zero_gradient(loss, reduction, student, taught):
    given = {**taught, "mask": torch.zeros(LEAD, dtype=torch.bool), "reduction": reduction}
    found = values_and_gradients(chunked(loss, **given), student)
    assert all((x == 0).all() for x in found)


def test_an_empty_sum_is_zero_with_zero_gradient(student, taught):
    assert all((x == 0).all() for x in values_and_gradients(chunked(0.0 * fkl, **taught), student))


def test_one_position_without_leading_axes(student, taught):
    given = {key: x[0, 0] for key, x in taught.items()}
    student["hidden"] = student["hidden"][0, 0]
    for mask in (None, torch.tensor(True)):
        expected = values_and_gradients(whole(SUMS[2], mask=mask, **given), student)
        assert agree(values_and_gradients(chunked(SUMS[2], mask=mask, **given), student), expected, 1e-12)


def test_labels_held_by_classic_are_used(student, taught):
    held = kd.classic(fkl, labels=taught["labels"], a=0.3, temperature=2.0)
    free = kd.classic(fkl, a=0.3, temperature=2.0)
    teacher = taught["teacher_logits"]
    found = kd.head_loss(held, **student, teacher_logits=teacher)
    assert found.item() == kd.head_loss(free, **student, **taught).item()
    other = (taught["labels"] + 1) % TOKENS
    assert found.item() != kd.head_loss(held, **student, teacher_logits=teacher, labels=other).item()


# -- errors ------------------------------------------------------------------------------------------------------------
def test_a_row_that_is_not_finite_is_named_as_loss_does(student, taught):
    taught["teacher_logits"][1, 3, 2] = -math.inf
    for mask in (None, MASK):
        for chunk in (3, None):
            with pytest.raises(NonFiniteLossError, match=r"rkl: position \[1, 3\], token 2: .*infinite there"):
                kd.head_loss(kd.divergence("rkl"), **student, **taught, mask=mask, chunk=chunk)
    student["hidden"][1, 2] = math.nan
    with pytest.raises(NonFiniteLossError, match=r"student_logits\[1, 2, 0\] is nan"):
        kd.head_loss(fkl, **student, **taught, chunk=3)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"loss": "fkl"}, 'loss: expected a loss such as kdtheory.divergence'),
        ({"reduction": "none"}, r"reduction = 'none'.*Loss\.loss"),
        ({"chunk": 0}, "chunk = 0: give a positive integer"),
        ({"hidden": torch.ones(2, 5, 4).double()}, r"weight has shape \(7, 3\) and hidden \(2, 5, 4\)"),
        ({"hidden": torch.ones(2, 5, 3).float()}, "hidden is torch.float32 and weight torch.float64"),
        ({"hidden": torch.ones(2, 5, 3).long()}, "hidden: expected a floating-point tensor"),
        ({"bias": torch.ones(6).double()}, r"bias: expected a tensor of shape \(7,\)"),
        ({"teacher_logits": torch.ones(2, 5, 8)}, r"teacher_logits has shape \(2, 5, 8\), student_logits \(2, 5, 7\)"),
        ({"teacher": (torch.ones(2, 5, 4), torch.ones(7, 4))}, "both given"),
        ({"teacher_logits": None, "teacher": torch.ones(2, 5, 7)}, r"teacher: expected \(hidden, weight\)"),
        ({"teacher_logits": None, "teacher": (torch.ones(2, 5, 4), torch.ones(8, 4))}, r"makes logits \(2, 5, 8\)"),
        ({"teacher_logits": None}, "fkl: teacher_logits is missing"),
        ({"labels": torch.ones(2, 4).long()}, r"labels: expected an integer tensor of shape \(2, 5\)"),
        ({"mask": torch.ones(2, 5)}, "mask: expected a bool tensor"),
        ({"temperature": 0}, "temperature = 0"),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, dict) else "",
)  # fmt: skip
def test_arguments_that_do_not_fit_are_named(changed, message, student, taught):
    given = {"loss": FACTORIES["fkl"](), **student, **taught, **changed}
    with pytest.raises(ValueError, match=message):
        kd.head_loss(given.pop("loss"), **given)
