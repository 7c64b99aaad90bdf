"""`real-metric`: data against their sources, losses and metrics against other formulas, what a seed shares, rules."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

import kdtheory as kd
from kdtheory.students.controlled import real_data, real_losses, real_metric, real_rule, real_settings

CPU = torch.device("cpu")
SMALL = real_settings.SMOKE["co2"].settings
SEEDS = (100, 101)


# -- data ------------------------------------------------------------------------------------------------------------
def test_a_pixel_is_predicted_from_what_was_read_before_it():
    contexts, grey = real_data.load("digits"), real_data.images()
    assert len(contexts) == grey.numel() == 1797 * 64
    for image, row, column in ((0, 3, 4), (5, 0, 0), (1796, 7, 7)):
        at = 64 * image + 8 * row + column
        assert contexts.following[at] == grey[image, row, column]
        seen = [
            grey[image, r, c] / 16 if 0 <= r < 8 and 0 <= c < 8 else 0.0
            for r in range(row - 3, row + 1)
            for c in range(column - 3, column + 4)
            if r < row or c < column
        ]
        assert contexts.features[at, :24].tolist() == pytest.approx([float(x) for x in seen])
        assert contexts.features[at, 24:].nonzero().flatten().tolist() == [row, 8 + column]


def test_the_series_is_quantised_and_windowed():
    contexts, values = real_data.load("co2"), real_data.deviations().to_numpy()
    levels = real_data.quantised(values)
    assert np.array_equal(np.isnan(levels), np.isnan(values))
    finite = values[np.isfinite(values)]
    assert real_data.STEP * real_data.LEVELS > np.ptp(finite) > real_data.STEP * (real_data.LEVELS - 1)  # none is cut
    week = next(w for w in range(300, 400) if np.isfinite(levels[w - 8 : w + 1]).all() and w % 104 >= 8)
    found = (contexts.features * 8 + 8 - torch.from_numpy(levels[week - 8 : week])).abs().amax(1)
    at = int(found.argmin())
    assert found[at] < 1e-5
    middle = (finite.min() + finite.max()) / 2
    assert abs((contexts.following[at] - 8) * real_data.STEP + middle - values[week]) <= real_data.STEP / 2 + 1e-9


def test_a_split_divides_no_group_and_reports_what_is_missing():
    contexts = real_data.load("co2")
    parts = real_data.split(contexts, torch.Generator().manual_seed(1), shares=(0.5, 0.5), sizes=(800, 700))
    groups = [set(contexts.group[part].tolist()) for part in parts]
    assert groups[0].isdisjoint(groups[1])
    assert [len(part.unique()) for part in parts] == [800, 700]
    with pytest.raises(ValueError, match="were asked for"):
        real_data.split(contexts, torch.Generator(), shares=(0.1,), sizes=(800,))
    with pytest.raises(ValueError, match="unknown"):
        real_data.load("mnist")


# -- losses and metrics ----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def pair():
    generator = torch.Generator().manual_seed(0)
    return (3 * torch.randn(2, 2, 5, real_data.LEVELS, generator=generator, dtype=torch.float64)).unbind(0)


def test_cramer_is_half_the_energy_distance(pair):
    teacher, student = pair
    p, q = teacher.softmax(-1), student.softmax(-1)
    C = kd.TokenCost.line(np.linspace(0, 1, real_data.LEVELS)).matrix()
    energy = 2 * (p @ C * q).sum(-1) - (p @ C * p).sum(-1) - (q @ C * q).sum(-1)
    loss = real_losses.Cramer()
    torch.testing.assert_close(loss.value(p, q), energy / 2)
    student = student.clone().requires_grad_()
    surplus = (student.softmax(-1) - p).cumsum(-1)[..., :-1]
    (slope,) = torch.autograd.grad(surplus.square().mean(-1).sum(), student)
    torch.testing.assert_close(loss.logit_gradient(teacher_logits=teacher, student_logits=student.detach()), slope)


@pytest.mark.parametrize("name", ["w1", "fkl+tree_kl", "fkl"])
def test_a_scrambled_loss_is_that_of_the_permuted_cost(pair, name):
    teacher, student = pair
    order = torch.stack([torch.randperm(real_data.LEVELS, generator=torch.Generator().manual_seed(s)) for s in (1, 2)])
    (loss,) = real_losses.phases(name, 2.0)
    found = real_metric._mean(loss, teacher, student, order)
    costs = {
        "w1": kd.TokenCost.line(np.linspace(0, 1, real_data.LEVELS)),
        "fkl+tree_kl": kd.TokenCost.tree(*kd.transport.tree_from_order(np.linspace(0, 1, real_data.LEVELS))),
    }
    for seed in range(2):
        direct = loss
        if name in costs:
            cost = costs[name].permuted(order[seed].argsort())  # token order[i] takes the place of level i
            direct = kd.divergence("w1", cost=cost)
            if name != "w1":
                direct = kd.divergence("fkl") + kd.divergence("tree_kl", cost=cost, weight=2.0)
        torch.testing.assert_close(
            found[seed], direct.value(teacher[seed].softmax(-1), student[seed].softmax(-1)).mean()
        )
    if name == "fkl":
        torch.testing.assert_close(found, real_metric._mean(loss, teacher, student, None))


def test_metrics_of_a_context_by_hand():
    p = torch.full((1, 1, 17), 1e-9, dtype=torch.float64)
    q = p.clone()
    p[..., 4], q[..., 4], q[..., 10] = 1, 0.4, 0.6
    p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    found = {name: float(x) for name, x in real_metric.measure(p.log(), q.log(), torch.tensor([[5]])).items()}
    assert found["cost"] == 5  # the median is level 10
    assert found["teacher_cost"] == 1
    assert found["expected"] == pytest.approx(6, abs=1e-6)
    assert found["w1"] == pytest.approx(0.6 * 6, abs=1e-6)
    assert found["kl"] == pytest.approx(-math.log(0.4), abs=1e-6)
    assert found["crps"] == pytest.approx(0.4**2 * 1 + 0.6**2 * 5, abs=1e-6)
    assert found["teacher_crps"] == pytest.approx(1, abs=1e-6)


# -- simulation ------------------------------------------------------------------------------------------------------
def test_seeds_share_no_rounding_worth_the_name_and_losses_share_their_start():
    both = real_metric.simulate(SMALL, "fkl-then-w1", SEEDS, CPU)
    again = real_metric.simulate(SMALL, "fkl-then-w1", SEEDS, CPU)
    alone = real_metric.simulate(SMALL, "fkl-then-w1", SEEDS[1:], CPU)[0]
    assert both == again
    for name, value in alone.metrics.items():
        assert both[1].metrics[name] == pytest.approx(value, rel=1e-4), name
    assert [point["step"] for point in alone.curve] == list(range(0, SMALL.steps + 1, SMALL.steps // 20))
    w1 = real_metric.simulate(SMALL, "w1", SEEDS, CPU)
    assert w1[0].curve[0] == both[0].curve[0]
    assert {k: v for k, v in w1[0].metrics.items() if k.startswith("teacher")} == {
        k: v for k, v in both[0].metrics.items() if k.startswith("teacher")
    }


def test_training_students_lowers_their_own_loss_and_parts_stay_apart():
    for loss in ("fkl", "cramer", "w1-scrambled", "fkl+tree_kl"):
        curve = real_metric.simulate(SMALL, loss, SEEDS, CPU)[0].curve
        assert curve[-1]["objective"] < curve[0]["objective"], loss
    begin = real_metric.given(SMALL, SEEDS, CPU)
    for seed in range(2):
        groups = [set(begin.contexts.group[part[seed]].tolist()) for part in begin.rows]
        assert sum(map(len, groups)) == len(set.union(*groups))


# -- rules -----------------------------------------------------------------------------------------------------------
def _results(*, saved, kept=0.0, kl=1.2, tree=0.0, nll=1.0, zero_one=0.0, seeds=10):
    """A made-up run: forward KL's student costs 2, its teacher 1.5; `saved`, `kept` and `tree` in levels."""
    noise = np.random.default_rng(0).normal(0, 0.005, (seeds, 9))
    costs = {"fkl": 2.0, "w1": 2 - saved, "fkl-then-w1": 2 - saved, "fkl+tree_kl": 2 - tree}
    costs |= {f"{name}-scrambled": 2 - kept for name in ("w1", "fkl-then-w1", "fkl+tree_kl")}
    costs |= {"tvd": 2 - zero_one, "fkl-then-tvd": 2 - zero_one}
    rows, points = [], []
    for condition in real_rule.SOURCES:
        for index, (loss, cost) in enumerate(costs.items()):
            for seed in range(seeds):
                about = {"condition": condition, "loss": loss, "seed": seed}
                shift = noise[seed, index]
                moved = loss != "fkl"
                rows.append({**about, "cost": cost + shift, "teacher_cost": 1.5, "kl": 0.1 * (kl if moved else 1),
                             "nll": 1.5 * (nll if moved else 1), "w1": 1.0, "crps": 1.0})  # fmt: skip
                points += [{**about, "step": step, "objective": 1.0 if step == 0 else 0.1} for step in range(5)]
    return pd.DataFrame(rows), pd.DataFrame(points)


def _words(decided, hypothesis):
    return {
        row["outcome"].split(",")[0]: row["decision"] for row in decided["tests"] if row["hypothesis"] == hypothesis
    }


@pytest.mark.parametrize(
    ("saved", "raw", "excess"),
    [
        (0.3, "supported", "supported"),
        (0.1, "refuted", "supported"),
        (0.02, "refuted", "refuted"),
        (0.05, "refuted", "undecided"),
    ],
)
def test_a_gain_is_held_against_its_own_base(saved, raw, excess):
    decided = real_rule.decide(*_results(saved=saved))
    assert _words(decided, "H5r")["gain in d-cost"] == raw
    assert _words(decided, "H5r excess")["gain in excess d-cost"] == excess
    row = next(row for row in decided["gains"] if row["condition"] == "digits" and row["loss"] == "w1")
    assert row["d-cost gain"] == pytest.approx(saved / 2, abs=0.01)
    assert row["excess d-cost gain"] == pytest.approx(saved / 0.5, abs=0.02)


def test_the_controls_and_the_price_are_held_too():
    fine, bad = (real_rule.decide(*_results(saved=0.3, kept=kept, kl=kl)) for kept, kl in ((0.05, 1.2), (0.25, 0.9)))
    assert set(_words(fine, "H5r").values()) == {"supported"}
    assert _words(bad, "H5r")["scrambled gain in d-cost minus half the gain"] == "refuted"
    assert _words(bad, "H5r")["forward KL ratio"] == "refuted"


def test_the_zero_one_cost_is_held_against_half_the_gain():
    for kept, word in ((0.02, "supported"), (0.2, "refuted"), (0.1, "undecided")):
        decided = real_rule.decide(*_results(saved=0.2, zero_one=kept))
        rows = [row for row in decided["tests"] if row["hypothesis"] == "H5r 0-1"]
        assert [row["decision"] for row in rows] == [word] * 2


def test_tree_kl_is_judged_by_gain_price_and_scrambling():
    fine = real_rule.decide(*_results(saved=0.1, tree=0.1, nll=1.001))
    assert set(_words(fine, "H16r").values()) == {"supported"}
    dear = real_rule.decide(*_results(saved=0.1, tree=0.1, kept=0.09, nll=1.02))
    assert list(_words(dear, "H16r").values()) == ["supported", "refuted", "refuted"]


def test_few_seeds_are_a_pilot_and_without_plateau_nothing_is_decided():
    assert all(
        row["decision"].startswith("pilot: ") for row in real_rule.decide(*_results(saved=0.3, seeds=3))["tests"]
    )
    results, curves = _results(saved=0.3)
    curves.loc[curves["loss"] == "w1", "objective"] = 1.0 - 0.2 * curves["step"]
    words = {row["outcome"]: row["decision"] for row in real_rule.decide(results, curves)["tests"]}
    assert words["gain in d-cost, W1, pixels of digits"] == "undecided (not converged)"
    assert words["gain in d-cost, FKL→W1, pixels of digits"] == "supported"


def test_where_the_teacher_is_no_better_no_excess_is_decided():
    results, curves = _results(saved=0.3)
    results["teacher_cost"] = 2.5
    words = _words(real_rule.decide(results, curves), "H5r excess")
    assert set(words.values()) == {"undecided (not converged)"}


def test_every_loss_has_a_rate_and_wrong_settings_are_refused():
    for profile in real_metric.EXPERIMENT.profiles.values():
        for item in profile.conditions.values():
            assert all(item.settings.rate(loss) > 0 for loss in item.losses)
    with pytest.raises(ValueError, match="steps"):
        real_settings.Settings(steps=30)
    with pytest.raises(ValueError, match="none for the loss"):
        real_settings.Settings(rates=()).rate("w1")
    with pytest.raises(ValueError, match="unknown"):
        real_losses.phases("emd", 1.0)
