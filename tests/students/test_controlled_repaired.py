"""`repaired`: the tree and its teachers, losses against the library, seeds, and every way a rule can end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import kdtheory as kd
from kdtheory.students.controlled import repaired, repaired_losses, repaired_rules, repaired_task
from kdtheory.students.controlled.repaired import Settings

CPU = torch.device("cpu")
SMALL = Settings(train=12, valid=6, test=8, steps=20, warm_steps=4)


# -- set-up ------------------------------------------------------------------------------------------------------------
def test_tree_of_the_tokens():
    """Distances from the digits of a token's number in base (4, 4, 2), written down apart."""
    distance = repaired_task.cost().matrix().numpy()
    for i in range(32):
        for j in range(32):
            same = (i // 8 == j // 8, i // 2 == j // 2, i == j)
            height = 0 if same[2] else 1 / 14 if same[1] else 3 / 14 if same[0] else 7 / 14
            assert distance[i, j] == pytest.approx(2 * height, abs=1e-15)
    assert repaired_task.star().matrix().numpy() == pytest.approx(1 - np.eye(32))


def test_squared_distances_of_embeddings_are_the_trees():
    """Over many draws E‖E_i - E_j‖² = 2 · distance (mean square length 1): a Brownian motion."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([repaired_task.embeddings(6, generator) for _ in range(3000)]).double()
    squared = (draws.unsqueeze(2) - draws.unsqueeze(1)).square().sum(-1).mean(0)
    # standard error of a mean of 3000 values with relative standard deviation √(2/6): 1 %
    assert torch.allclose(squared, 2 * repaired_task.cost().matrix(), rtol=0.05, atol=1e-12)
    assert float(draws.square().sum(-1).mean()) == pytest.approx(1, rel=0.02)


def test_decisions_are_judged_by_hand():
    generator = torch.Generator().manual_seed(1)
    log_p, logits = torch.randn(2, 1, 3, 32, generator=generator, dtype=torch.float64).log_softmax(-1) * 2
    log_p = log_p.log_softmax(-1)
    q = logits.softmax(-1)
    found = repaired_task.measure(log_p, q)
    C, paid, least = repaired_task.cost().matrix().numpy(), [], []
    for row in range(3):
        p = log_p[0, row].exp().numpy()
        choice = min(range(32), key=lambda k: float(C[k] @ q[0, row].numpy()))
        paid.append(C[choice] @ p)
        least.append(min(C @ p))
    assert float(found["d_cost"]) == pytest.approx(np.mean(paid), rel=1e-12)
    assert float(found["excess"]) == pytest.approx(np.mean(paid) - np.mean(least), rel=1e-9)
    assert float(found["kl"]) == pytest.approx(float(kd.divergence("fkl").value(log_p.exp(), q).mean()), rel=1e-12)
    one_hot = torch.nn.functional.one_hot(q.argmax(-1), 32).double()
    missing = repaired_task.measure(log_p, one_hot)
    assert float(missing["impossible"]) == 1
    assert torch.isnan(missing["nll"]).all()


# -- losses ------------------------------------------------------------------------------------------------------------
def _laws(seeds: int = 2):
    generator = torch.Generator().manual_seed(2)
    teacher, student = torch.randn(2, seeds, 5, 32, generator=generator, dtype=torch.float64) * 2
    scrambled = torch.stack([torch.randperm(32, generator=generator) for _ in range(seeds)])
    return teacher.log_softmax(-1), student, scrambled


def test_a_scrambled_tree_is_the_tree_over_other_tokens():
    log_p, logits, scrambled = _laws()
    found = repaired_losses.objective("fkl+tree-scrambled-3")(log_p, logits, scrambled)
    for seed in range(2):
        order = scrambled[seed].numpy()
        parent, weight = repaired_task.tree()
        back = np.argsort(order)
        over = np.concatenate([parent[back], parent[32:]]), np.concatenate([weight[back], weight[32:]])
        # token order[i] of the teacher stands where token i stood
        loss = kd.divergence("fkl") + 3.0 * kd.divergence("tree_kl", cost=kd.TokenCost.tree(*over))
        expected = loss.value(log_p[seed].exp(), logits[seed].softmax(-1)).mean()
        assert float(found[seed]) == pytest.approx(float(expected), rel=1e-12)


def test_the_star_is_a_multiple_of_forward_kl():
    log_p, logits, scrambled = _laws()
    plain = repaired_losses.objective("fkl")(log_p, logits, scrambled)
    star = repaired_losses.objective("fkl+tree-star-3")(log_p, logits, scrambled)
    torch.testing.assert_close(star, 2.5 * plain)  # 1 + λ/2


@pytest.mark.parametrize(
    ("name", "expected"),
    [("fkl", ("fkl", 1.0)), ("fkl+tree-0.3", ("fkl+tree", 0.3)), ("fkl-t-2", ("fkl-t", 2.0)),
     ("natural-w1", ("natural-w1", 1.0)), ("fkl+tree-scrambled-3", ("fkl+tree-scrambled", 3.0))],
)  # fmt: skip
def test_names(name, expected):
    assert repaired_losses.split(name) == expected
    with pytest.raises(ValueError, match=r"is unknown; known"):
        repaired_losses.split(name + "x")


def test_every_loss_of_every_profile_is_known():
    for profile in repaired.EXPERIMENT.profiles.values():
        log_p, logits, scrambled = _laws()
        for loss in profile.losses():
            assert torch.isfinite(repaired_losses.objective(loss)(log_p, logits, scrambled)).all()
            q = repaired_losses.link(loss)(logits)
            torch.testing.assert_close(q.sum(-1), torch.ones(2, 5, dtype=torch.float64))


# -- training ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("loss", ["fkl+tree-3", "fkl+tree-scrambled-3", "geometric-0.1"])
def test_a_seed_does_not_depend_on_its_batch(loss):
    alone = repaired.simulate(SMALL, loss, (101,), CPU)[0]
    together = repaired.simulate(SMALL, loss, (100, 101), CPU)[1]
    assert together.metrics == pytest.approx(alone.metrics, rel=1e-3, abs=1e-4, nan_ok=True)  # float32 products
    again = repaired.simulate(SMALL, loss, (101,), CPU)[0]
    assert again.metrics == pytest.approx(alone.metrics, rel=0, abs=0, nan_ok=True)


def test_losses_share_all_but_the_loss():
    first = [repaired.simulate(SMALL, loss, (100,), CPU)[0].curve[0] for loss in ("fkl", "fkl-slow", "fkl-long")]
    assert first[0] == first[1] == first[2]
    assert len(repaired.simulate(SMALL, "fkl-long", (100,), CPU)[0].curve) == 21
    assert repaired.rate(SMALL, "fkl-fast") == 3 * repaired.rate(SMALL, "fkl")


def test_a_realisable_student_is_the_teacher_in_the_end():
    found = repaired.simulate(replace(SMALL, rank=6, train=60, steps=400, warm_steps=100), "fkl+tree-3", (100,), CPU)
    assert found[0].metrics["kl"] < 0.05


def test_a_confidently_wrong_student():
    """Starts far, is seen to repair, and the wrong start is another teacher's: the logits' scale is that of `wrong`."""
    wrong = Settings(rank=6, train=10, valid=1, test=1, steps=600, wrong_scale=30.0)
    found = repaired.simulate(wrong, "fkl+tree-3", (100, 101), CPU)
    slow = repaired.simulate(replace(wrong, steps=20), "w1", (100,), CPU)[0]
    assert min(outcome.metrics["start_tv"] for outcome in found) > 0.8
    assert all(outcome.metrics["censored"] == 0 and outcome.metrics["steps"] < 600 for outcome in found)
    assert slow.metrics["censored"] == 1
    assert slow.metrics["steps"] == 20
    assert len(found[0].curve) == 21


@pytest.mark.parametrize("bad", [{"rank": 7}, {"rank": 2, "wrong_scale": 1.0}, {"train": 0}])
def test_bad_settings_are_named(bad):
    with pytest.raises(ValueError, match=r"rank =|train, valid"):
        Settings(**bad)


# -- rules -------------------------------------------------------------------------------------------------------------
def _results(seeds: int = 10, noise: float = 0.002, **excess: float) -> pd.DataFrame:
    """A table in which everything is as H16 wants it, but for what `excess` says."""
    rng, rows = np.random.default_rng(0), []
    costs = {"fkl": 0.2, "fkl+tree-1": 0.19, "fkl+tree-3": 0.175, "fkl+tree-10": 0.17, "fkl+w1-1": 0.197,
             "fkl+w1-3": 0.194, "fkl+w1-10": 0.18, "fkl+tree-scrambled-3": 0.203, "fkl+tree-star-3": 0.2,
             **dict.fromkeys(repaired_rules.TUNED, 0.2)}  # fmt: skip
    costs |= {name.replace("_plus_", "+").replace("_", "-"): value for name, value in excess.items() if name != "full"}
    prices = {"fkl+tree-1": 0.0, "fkl+tree-3": 0.004, "fkl+tree-10": 0.02, "fkl+w1-1": 0.002, "fkl+w1-3": 0.008,
              "fkl+w1-10": 0.03}  # fmt: skip
    for seed in range(seeds):

        def row(condition, loss, cost, price=0.0, seed=seed):
            at = cost + noise * rng.normal()
            nll = 2.0 * (1 + price + 1e-4 * rng.normal())
            same = {"nll": nll, "kl": nll - 1, "excess": at, "d_cost": at + 0.2, "w1": at, "tv": at, "agreement": 0.5}
            same |= {"valid_nll": nll, "valid_excess": at, "impossible": 0.0}
            rows.append({"condition": condition, "loss": loss, "seed": seed, **same})

        for loss, cost in costs.items():
            row("rank-2", loss, cost, prices.get(loss, 0.0))
        row("rank-6", "fkl", 0.001)
        row("rank-6", "fkl+tree-3", 0.001 - excess.get("full", 0.0))
        for loss, steps in (("fkl", 800), ("fkl+tree-3", 400), ("w1", 1500)):
            late = float(loss == "w1")
            rows.append({"condition": "confidently-wrong", "loss": loss, "seed": seed, "steps": steps + seed,
                         "censored": late, "gap": 8.0, "start_tv": 0.9, "tv": 0.5})  # fmt: skip
    return pd.DataFrame(rows)


def _curves(results: pd.DataFrame, flat: bool = True) -> pd.DataFrame:
    rows = results[results["condition"] != "confidently-wrong"][["condition", "loss", "seed"]]
    steps = {0: 2.0, 15: 1.0, 20: 1.0 if flat else 0.5}
    return pd.concat([rows.assign(step=step, objective=value) for step, value in steps.items()])


def _decisions(**excess: float) -> dict[str, str]:
    results = _results(**excess)
    found = repaired_rules.decide(results, _curves(results))
    return {row["outcome"]: row["decision"] for row in found["tests"]}


def test_all_as_registered_is_supported():
    assert set(_decisions().values()) == {"supported"}


@pytest.mark.parametrize(
    ("excess", "outcome"),
    [
        ({"fkl_plus_tree_3": 0.199}, "gain in excess d-cost"),
        ({"fkl_plus_tree_scrambled_3": 0.18}, "gain on the scrambled tree minus a third of the gain"),
        ({"fkl_plus_tree_star_3": 0.18}, "gain on the 0-1 tree minus a third of the gain"),
        ({"fkl_t_2": 0.15}, "gain over forward KL at temperature 2"),
        ({"fkl_plus_w1_1": 0.16}, "gain over FKL + λ W1 at the same price"),
        ({"full": 0.02}, "gain at full rank"),
    ],
)
def test_each_outcome_can_be_refuted(excess, outcome):
    decisions = _decisions(**excess)
    assert decisions[outcome] == "refuted"


def test_between_the_bounds_nothing_is_decided():
    """A gain near 8 %, interval on both sides: undecided; an interval that reaches 0: refuted, as registered."""
    assert _decisions(fkl_plus_tree_3=0.1841)["gain in excess d-cost"] == "undecided"
    wide = _results(noise=0.03, fkl_plus_tree_3=0.19)
    row = next(row for row in repaired_rules.decide(wide, _curves(wide))["tests"] if row["part"] == "gain")
    assert row["low"] <= 0 <= row["high"]
    assert row["decision"] == "refuted"


def test_a_price_whose_interval_includes_zero_is_no_refutation():
    row = {"outcome": "cross-entropy above forward KL's", "part": "gain", "converged": True, "low": -0.001}
    assert repaired_rules.registered(row | {"decision": "undecided"})["decision"] == "undecided"
    gain = row | {"outcome": repaired_rules.GAINED, "decision": "pilot: undecided"}
    assert repaired_rules.registered(gain)["decision"] == "pilot: refuted"


def test_no_plateau_no_decision_and_few_seeds_are_a_pilot():
    results = _results()
    found = repaired_rules.decide(results, _curves(results, flat=False))["tests"]
    assert {row["decision"] for row in found if row["part"] != "escape"} == {"undecided (not converged)"}
    few = _results(seeds=3)
    assert all(row["decision"].startswith("pilot: ") for row in repaired_rules.decide(few, _curves(few))["tests"])


def test_late_escapes_do_not_support():
    results = _results()
    results.loc[(results["loss"] == "fkl+tree-3") & results["censored"].notna(), "censored"] = 1.0
    row = repaired_rules.decide(results, _curves(results))["tests"][-1]
    assert row["decision"] == "undecided"


def test_a_late_forward_kl_supports():
    """Its true time is longer, and the ratio smaller."""
    results = _results()
    results.loc[(results["loss"] == "fkl") & results["censored"].notna(), "censored"] = 1.0
    assert repaired_rules.decide(results, _curves(results))["tests"][-1]["decision"] == "supported"
    results.loc[(results["loss"] == "fkl+tree-3") & results["censored"].notna(), "censored"] = 1.0
    assert repaired_rules.decide(results, _curves(results))["tests"][-1]["decision"] == "undecided"


@pytest.mark.parametrize(("price", "decision"), [(0.0, "supported"), (0.005, "undecided"), (0.02, "refuted")])
def test_a_price_of_nothing_is_no_refutation(price, decision):
    results = _results()
    rows = (results["loss"] == "fkl+tree-3") & (results["condition"] == "rank-2")
    results.loc[rows, "nll"] = 2 * (1 + price) + 0.004 * np.linspace(-1, 1, 10)
    row = repaired_rules.decide(results, _curves(results))["tests"][1]
    assert row["outcome"] == "cross-entropy above forward KL's"
    assert row["decision"] == decision


def test_best_on_path_by_hand():
    """Two students, cross-entropy 2 and 2.02: .5 % of 2 is half of the way, where the cost is the mean of the two."""
    results = _results(noise=0.0, seeds=2)
    results.loc[results["loss"] == "fkl+tree-1", ["valid_nll", "excess", "valid_excess"]] = [2.02, 0.1, 0.1]
    results.loc[results["loss"] == "fkl", ["valid_nll", "excess", "valid_excess"]] = [2.0, 0.2, 0.2]
    found = repaired_rules.best_on_path(results, ("fkl", "fkl+tree-1"))
    assert found == pytest.approx([0.15, 0.15], rel=1e-12)


def test_every_student_stands_beside_forward_kls():
    results = _results()
    found = repaired_rules.decide(results, _curves(results))
    rows = {(row["condition"], row["loss"]): row for row in found["fronts"]}
    assert rows["rank-2", "fkl"]["excess_change"] == 0
    assert rows["rank-2", "fkl+tree-3"]["excess_low"] < -0.025 < rows["rank-2", "fkl+tree-3"]["excess_high"]
    assert {row["loss"]: row["censored"] for row in found["escapes"]} == {"fkl": 0, "fkl+tree-3": 0, "w1": 10}
