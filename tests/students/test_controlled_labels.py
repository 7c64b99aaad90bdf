"""Students of drawn tokens: the exact minimisers against other means, the draws against their law, the decisions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import binom

import kdtheory as kd
from kdtheory.students.controlled import label_minimisers, label_rules, labels
from kdtheory.students.controlled.label_minimisers import expected, minimiser

CPU = torch.device("cpu")
SMALL = labels.Settings(tokens=4, contexts=5, features=3, steps=40)
TEACHER = torch.tensor([0.35, 0.3, 0.05, 0.3], dtype=torch.float64)
LINE = label_minimisers.line(4)


def teachers(count, tokens=4, seed=0):
    draws = np.random.default_rng(seed).dirichlet(np.ones(tokens), size=count)
    return torch.from_numpy(draws)


def test_the_tree_is_binary_with_halving_edges_and_diameter_one():
    C = label_minimisers.binary_tree(8).matrix()
    assert float(C.max()) == pytest.approx(1, abs=1e-15)
    # from a leaf: its sister, its cousins, the other half; with edges 1, 2, 4 the paths are 2, 6 and 14 long
    assert torch.allclose(C[0], torch.tensor([0, 2, 6, 6, 14, 14, 14, 14], dtype=torch.float64) / 14)
    with pytest.raises(ValueError, match="tokens = 6"):
        label_minimisers.binary_tree(6)


@pytest.mark.parametrize("m", [1, 2, 5, 8])
def test_expected_transport_is_the_mean_over_all_batches(m):
    rng, q = np.random.default_rng(m), teachers(1, seed=9)[0]
    batches = rng.multinomial(m, TEACHER.numpy(), size=40_000) / m
    sampled = kd.divergence("w1", cost=LINE).value(batches, np.broadcast_to(q.numpy(), batches.shape))
    exact = float(expected("w1", TEACHER, q, m, LINE))
    # 6 standard errors of 40,000 batches
    assert exact == pytest.approx(sampled.mean(), abs=6 * sampled.std() / 200)


@pytest.mark.parametrize("m", [2, 3, 8, 64])
def test_the_line_minimiser_has_scipys_binomial_medians(m):
    p = teachers(50)
    G = minimiser("w1", p, m, LINE).cumsum(-1)[:, :-1]
    F = p.cumsum(-1)[:, :-1].numpy()
    assert np.allclose(G.numpy() * m, binom.median(m, F), atol=1e-9)


@pytest.mark.parametrize(("loss", "m"), [("w1", 1), ("w1", 2), ("w1", 8), ("tvd", 1), ("skl", 1), ("fkl", 4)])
def test_no_law_does_better_than_the_minimiser(loss, m):
    for p in teachers(3, seed=3):
        best = minimiser(loss, p, m, LINE)
        assert float(best.sum()) == pytest.approx(1, abs=1e-12)
        value = float(expected(loss, p, best, m, LINE))
        others = torch.cat([teachers(300, seed=5), 0.98 * best + 0.02 * teachers(300, seed=6)])
        assert value <= float(expected(loss, p, others, m, LINE).min()) + 1e-12


def test_the_sharpened_law_is_what_a_general_minimiser_finds():
    p = TEACHER

    def cost(z):
        return float(expected("skl", p, torch.from_numpy(z).softmax(-1), 1, LINE))

    found = minimize(cost, np.zeros(4), method="BFGS", options={"gtol": 1e-9}).x
    assert np.allclose(torch.from_numpy(found).softmax(-1), minimiser("skl", p, 1, LINE), atol=1e-3)


def test_the_medoid_minimises_on_a_tree_and_one_draw_is_what_the_batch_formula_says():
    tree = label_minimisers.binary_tree(4)
    assert minimiser("w1", TEACHER, 1, tree).tolist() == [1.0, 0.0, 0.0, 0.0]
    q = teachers(1)[0]
    assert float(expected("w1", TEACHER, q, 1, tree)) == pytest.approx(float(TEACHER @ tree.matrix() @ q), abs=1e-15)
    with pytest.raises(ValueError, match="m = 2"):
        minimiser("w1", TEACHER, 2, tree)


def test_draws_have_the_teachers_law_and_are_fresh():
    settings = replace(SMALL, contexts=1, copies=20_000, samples=3)
    draw = labels.Draws(settings, (7,), TEACHER.log().float().reshape(1, 1, 4))
    first, second = draw().exp(), draw().exp()
    assert not torch.equal(first, second)
    assert torch.allclose((first * 3).round(), first * 3, atol=1e-6)
    scatter = (TEACHER * (1 - TEACHER) / 60_000).sqrt()
    assert ((first.mean(2).reshape(-1) - TEACHER).abs() < 5 * scatter).all()


def test_a_seed_does_not_depend_on_the_others_and_runs_are_deterministic():
    alone = labels.simulate(SMALL, "w1", (3,), CPU)[0]
    together = labels.simulate(SMALL, "w1", (8, 3), CPU)[1]
    again = labels.simulate(SMALL, "w1", (8, 3), CPU)[1]
    assert together.metrics == again.metrics
    assert together.metrics == pytest.approx(alone.metrics, rel=1e-4, abs=1e-6)


def test_forward_kl_of_the_whole_teacher_ends_at_it():
    found = labels.simulate(replace(SMALL, samples=0, copies=1, steps=2000), "fkl", (1,), CPU)[0]
    assert found.metrics["tv"] < 0.01
    assert found.metrics["entropy_ratio"] == pytest.approx(1, abs=0.01)


def test_a_student_of_single_tokens_goes_to_the_medoid():
    rates = (("w1", 0.3),)
    found = labels.simulate(replace(SMALL, steps=800, rates=rates), "w1", (1,), CPU)[0]
    assert found.metrics["entropy_ratio"] < 0.3
    assert found.metrics["w1_to_minimiser"] < 0.5 * found.metrics["minimiser_w1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"metric": "cube"}, "'cube'"), ({"steps": 30}, "steps = 30"), ({"tokens": 1}, "too small")],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


def test_an_unknown_loss_is_named():
    with pytest.raises(ValueError, match="'rkl' is unknown"):
        labels.build("rkl", LINE)


# -- decisions on made-up numbers ------------------------------------------------------------------------------------
def made_up(entropy=0.02, order=-1.0, tv=0.01, plateau=True, gap=0.01):
    """Results and curves of ten seeds that come out as asked."""
    rows, curves = [], []
    conditions = labels.EXPERIMENT.profile("cpu").conditions
    for name, item in conditions.items():
        m = max(1, item.settings.samples)
        for loss in item.losses:
            whole = name.endswith("full")
            for seed in range(10):
                shift = 1 + 0.01 * math.sin(seed + m)
                bias = 0.2 * m**order * shift
                ratio = shift if loss == "fkl" or whole else entropy * shift
                rows.append(
                    {"condition": name, "loss": loss, "seed": seed, "entropy_ratio": ratio, "tv": tv * shift,
                     "w1": bias, "gap": gap, "w1_to_minimiser": 0.05 * bias, "minimiser_w1": 0.2 / m}
                )  # fmt: skip
                late = 1.0 if plateau else 3.0
                steps = (0, 2250, 3000)
                values = zip(steps, (9.0, late, 1.0), strict=True)
                curves += [
                    {"condition": name, "loss": loss, "seed": seed, "step": step, "objective": y} for step, y in values
                ]
    return pd.DataFrame(rows), pd.DataFrame(curves)


def words(tests, part="main"):
    return {row["outcome"]: row["decision"] for row in tests if row["part"] == part}


def test_numbers_inside_all_regions_support_the_hypothesis():
    found = label_rules.decide(*made_up())["tests"]
    assert set(words(found).values()) == {"supported"}
    assert set(words(found, "control").values()) == {"supported"}
    assert len(words(found)) == 9


def test_a_flat_student_and_a_wrong_order_refute_it():
    assert words(label_rules.decide(*made_up(entropy=0.8))["tests"])["W1, m = 1, line: entropy ratio"] == "refuted"
    found = words(label_rules.decide(*made_up(order=-0.5))["tests"])
    assert found["order of the bias, trained"] == "refuted"
    assert found["order of the bias, exact minimiser"] == "supported"


def test_between_the_bounds_nothing_is_decided():
    found = words(label_rules.decide(*made_up(entropy=0.3, tv=0.07))["tests"])
    assert found["W1, m = 1, line: entropy ratio"] == "undecided"
    assert found["FKL, m = 1, table: TV to the teacher"] == "undecided"


def test_without_a_plateau_or_far_from_the_minimum_nothing_is_decided():
    assert set(words(label_rules.decide(*made_up(plateau=False))["tests"]).values()) == {
        "undecided (not converged)",
        "supported",  # the exact minimisers need no training
    }
    found = words(label_rules.decide(*made_up(gap=0.2))["tests"])
    assert found["W1, m = 1, line: entropy ratio"] == "undecided (not converged)"
    assert found["W1, m = 1, network: entropy ratio"] == "supported"  # its minimum is not known


def test_slopes_are_those_of_a_power_law():
    results, _ = made_up(order=-0.7)
    flat = results.assign(w1=results["condition"].str.extract(r"(\d+)", expand=False).astype(float) ** -0.7)
    assert label_rules.slopes(flat, "w1", label_rules.TRAINED) == pytest.approx([-0.7] * 10)
