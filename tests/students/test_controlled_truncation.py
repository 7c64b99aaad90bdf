"""`truncation`: cut teachers, changes of gradients against closed forms, failures, independence of seeds, decisions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import rel_entr

import kdtheory as kd
from kdtheory.students.controlled import batched, truncated, truncation

CPU = torch.device("cpu")
SMALL = truncation.Settings(keep=4, tokens=24, contexts=8, features=4, rank=2, steps=20, warm_steps=20)
WHOLE = replace(SMALL, keep=0)


@pytest.fixture
def given():
    return truncation.problem(WHOLE, (100, 101), CPU)


@pytest.fixture
def log_q(given):
    return torch.log_softmax(batched.low_rank(given.weights, given.features), -1)


def test_cutting_keeps_the_most_probable_and_renormalises(given):
    whole, cut = given.log_p.exp(), truncated.cut(given.log_p, 4).exp()
    assert ((cut > 0).sum(-1) == 4).all()
    torch.testing.assert_close(cut.sum(-1), torch.ones_like(cut[..., 0]))
    kept = truncated.kept_mass(given.log_p, 4)
    torch.testing.assert_close(cut.max(-1).values * kept, whole.max(-1).values)
    assert torch.equal(truncated.cut(given.log_p, 0), given.log_p)


def test_a_floor_is_under_every_token_that_was_cut(given):
    floored = truncated.cut(given.log_p, 4, 1e-3).exp()
    torch.testing.assert_close(floored.sum(-1), torch.ones_like(floored[..., 0]))
    assert ((floored - 1e-3).abs() < 1e-15).sum(-1).min() >= 20


def test_forward_kl_changes_by_the_change_of_the_teacher(given, log_q):
    cut = truncated.cut(given.log_p, 4)
    p, r, q = (x.exp().flatten(1) for x in (given.log_p, cut, log_q))
    found = truncated.gradient_change(kd.divergence("fkl"), given.log_p, cut, log_q)
    torch.testing.assert_close(found, (p - r).norm(dim=1) / (q - p).norm(dim=1))


def test_reverse_kl_grows_as_the_theorem_says(given, log_q):
    found = truncated.floor_growth(given.log_p, log_q, 4)
    assert (found["r2"] > 0.98).all()
    assert ((found["coefficient"] - 1).abs() < 0.1).all()
    assert (found["growth"] > 1.5).all()


def test_reverse_kl_is_infinite_and_a_step_on_it_loses_every_parameter(given, log_q):
    cut = truncated.cut(given.log_p, 4)
    assert np.isinf(rel_entr(log_q.exp().numpy(), cut.exp().numpy()).sum(-1)).all()
    assert (truncated.lost_in_one_step(cut, given.features, given.weights) == 1).all()
    assert (truncated.lost_in_one_step(given.log_p, given.features, given.weights) == 0).all()


@pytest.mark.parametrize("loss", ["w1", "srkl"])
def test_seeds_do_not_touch_each_other(loss):
    both = truncation.simulate(SMALL, loss, (100, 101), CPU)[1]
    (alone,) = truncation.simulate(SMALL, loss, (101,), CPU)
    assert both.metrics == pytest.approx(alone.metrics, rel=1e-6)


def test_an_uncut_teacher_changes_nothing():
    (whole,) = truncation.simulate(WHOLE, "fkl", (100,), CPU)
    assert whole.metrics["kept"] == pytest.approx(1)
    (floored,) = truncation.simulate(replace(SMALL, floor=1e-8), "rkl", (100,), CPU)
    assert np.isfinite(floored.metrics["tv"])


def _decided(change: float, ratio: float, rate: float = 1.0) -> dict[str, str]:
    rng, rows = np.random.default_rng(0), []
    for condition in (truncation.WHOLE, truncation.USUAL):
        for seed in range(10):
            noise = 1 + 0.005 * rng.normal()
            about = {"condition": condition, "loss": "fkl", "seed": seed}
            tv = 0.2 * (ratio if condition == truncation.USUAL else 1.0) * noise
            rows.append({**about, "tv": tv, "change_start": change * noise, "change_trained": change * noise})
    for seed in range(10):
        about = {"condition": truncation.USUAL, "loss": "rkl", "seed": seed}
        rows.append({**about, "infinite": rate, "lost": rate, "r2": 0.999, "coefficient": 1.01})
    curves = [
        {"condition": condition, "loss": "fkl", "seed": 0, "step": k, "objective": 0.1**k}
        for condition in (truncation.WHOLE, truncation.USUAL)
        for k in range(21)
    ]
    tests = truncation.decide(pd.DataFrame(rows), pd.DataFrame(curves))["tests"]
    return {row["outcome"]: row["decision"] for row in tests}


def test_decisions_on_known_tables():
    good = _decided(0.02, 1.0)
    assert set(good.values()) == {"supported"}
    assert len(good) == 7
    bad = _decided(0.08, 1.2, rate=0.3)
    assert [word for word in bad.values() if word == "refuted"] == [
        "refuted"
    ] * 5  # two rates, two gradients, one student
    assert "undecided" in _decided(0.05, 1.05).values()


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="keep = 24"):
        replace(SMALL, keep=24)
    with pytest.raises(ValueError, match="floor"):
        replace(SMALL, floor=0.1)
    with pytest.raises(ValueError, match="only for a cut teacher"):
        replace(WHOLE, floor=1e-3)
