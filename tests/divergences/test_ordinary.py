"""The short formulas of ordinary blocks, and the place of the largest token, against the ones for everything."""

from __future__ import annotations

import math

import pytest
import torch

from kdtheory.divergences import logspace
from kdtheory.divergences.records import DivergenceLoss
from tests.divergences.cases import CASES, label

ORDINARY = [loss for loss in CASES if isinstance(loss, DivergenceLoss)]


def draw(noise: float, rows: int = 6, tokens: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(int(100 * noise))
    teacher = 4 * torch.randn(rows, tokens, generator=generator, dtype=torch.float64)
    student = teacher + noise * torch.randn(rows, tokens, generator=generator, dtype=torch.float64)
    return teacher.log_softmax(-1), student.log_softmax(-1)


def both(loss, log_p, log_q, monkeypatch):
    """(value, gradient) as an ordinary block has it, and by the formulas for everything."""
    short = loss.value_and_gradient(log_p, log_q)
    with monkeypatch.context() as patch:
        patch.setattr(logspace.LogPair, "_plain", False)
        return short, loss.value_and_gradient(log_p, log_q)


@pytest.mark.parametrize("noise", [0.1, 1.0, 8.0])
@pytest.mark.parametrize("loss", ORDINARY, ids=label)
def test_both_ways_agree(loss, noise, monkeypatch):
    """r ~ noise holds 1e-14/noise of itself, r² twice that; 1/α or 1/β more where a mixture holds that share only."""
    at = draw(noise)
    assert logspace.LogPair(*at).ordinary()
    (value, gradient), (known, expected) = both(loss, *at, monkeypatch)
    allowed = 1e-11 / min(1, noise)
    torch.testing.assert_close(value, known, rtol=allowed, atol=0)
    assert ((gradient - expected).abs().sum(-1) <= allowed * expected.abs().sum(-1)).all()
    off = (1.0001 * gradient - expected).abs().sum(-1)  # control
    assert (off > allowed * expected.abs().sum(-1)).all()


@pytest.mark.parametrize("loss", ORDINARY, ids=label)
def test_the_short_way_is_taken(loss, monkeypatch):
    """Control of the test above: a wrong excess shows in the value where the block is ordinary, and only there."""
    at = draw(1.0)
    known = loss.value_and_gradient(*at)[0]
    right = logspace.LogPair._new_excess
    monkeypatch.setattr(logspace.LogPair, "_new_excess", lambda *given: right(*given) + 1e-3 * right(*given) ** 2)
    short, general = both(loss, *at, monkeypatch)
    assert not torch.allclose(short[0], known, rtol=1e-6)
    torch.testing.assert_close(general[0], known, rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    ("log_q", "ordinary"),
    [([-1.0, -600.0], True), ([-1.0, -700.0], False), ([0.0, -math.inf], False), ([math.nan, -1.0], False)],
)
def test_extreme_blocks_are_not_ordinary(log_q, ordinary):
    teacher = torch.tensor([[-0.5, -1.0]], dtype=torch.float64)
    pair = logspace.LogPair(teacher, torch.tensor([log_q], dtype=torch.float64))
    assert pair.ordinary() == ordinary
    assert not pair.ordinary(2.0) or math.isfinite(pair.excess(2.0).max())


def test_a_steep_power_leaves_the_ordinary_range():
    pair = logspace.LogPair(*(torch.tensor([x], dtype=torch.float32) for x in ([-0.1, -2.0], [-60.0, -1e-3])))
    assert pair.ordinary()
    assert not pair.ordinary(2.0)  # e^120 is no float32


@pytest.mark.parametrize("tokens", [7, 4096, 5000, 50257])
def test_place_of_the_largest(tokens):
    x = torch.randn(5, tokens, generator=torch.Generator().manual_seed(tokens))
    x[1, -1], x[2, 0], x[3] = 9.0, 9.0, -math.inf
    x[3, tokens // 2] = -1.0
    x[4, [tokens // 3, -1]] = 9.0  # equal: the first
    found = logspace.largest(x)
    assert found.squeeze(-1).tolist() == x.argmax(-1).tolist()
    assert found[1:, 0].tolist() == [tokens - 1, 0, tokens // 2, tokens // 3]
