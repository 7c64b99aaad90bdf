"""`equivalence`: its set-up against independent facts, and its rule on synthetic tables."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from kdtheory.claims.students import equivalence as claims
from kdtheory.students.controlled import batched, equivalence
from kdtheory.students.controlled import equivalence_rule as rule

CPU = torch.device("cpu")
SMALL = replace(
    equivalence.EXPERIMENT.profile("smoke").conditions["wide"].settings, contexts=8, test=8, tokens=5, hidden=16
)


def test_the_wide_student_can_be_any_teacher_and_the_narrow_one_cannot():
    """The last layer alone: hidden values of the trained contexts have full rank, or that of two units."""
    for condition, least in (("wide", None), ("narrow", 3)):
        settings = equivalence.EXPERIMENT.profile("cpu").conditions[condition].settings
        given = equivalence.problem(replace(settings, sft_steps=1), (100,), CPU)
        features = given.features[0, : settings.contexts].double()
        first, bias = (weight[0].double() for weight in given.weights[:2])
        hidden = torch.cat([torch.tanh(features @ first + bias), torch.ones(len(features), 1).double()], -1)
        assert int(torch.linalg.matrix_rank(hidden)) == (least or settings.contexts)


def test_labels_follow_the_teacher_and_the_start_learns_from_them():
    given = equivalence.problem(replace(SMALL, sft_steps=1000, sft_rate=3e-3), (100, 101), CPU)
    log_q = torch.log_softmax(batched.mlp(given.weights, given.features[:, :8]).double(), -1)
    distance = 0.5 * (log_q.exp() - given.log_p[:, :8].double().exp()).abs().sum(-1).mean(-1)
    assert (distance < 0.1).all()  # hard labels alone reach the teacher, as their expectation is forward KL


def test_a_seed_does_not_depend_on_the_others_and_repeats():
    equivalence.trained.cache_clear()
    alone = equivalence.simulate(SMALL, "rkl", (101,), CPU)[0]
    together = equivalence.simulate(SMALL, "rkl", (100, 101), CPU)[1]
    assert alone.metrics == pytest.approx(together.metrics, rel=1e-4)  # batched products round differently
    equivalence.trained.cache_clear()
    assert equivalence.simulate(SMALL, "rkl", (101,), CPU)[0] == alone


def test_students_of_a_seed_share_their_start_but_for_the_other_one():
    found = {loss: equivalence.simulate(SMALL, loss, (100,), CPU)[0] for loss in equivalence.LOSSES}
    starts = {loss: outcome.metrics["start_tv"] for loss, outcome in found.items()}
    assert len({starts[loss] for loss in (*rule.DIVERGENCES, *rule.TRANSPORT)}) == 1
    assert starts[rule.AGAIN] != starts["fkl"]
    assert found["rkl"].curve[0]["tv_to_fkl"] == 0
    assert found["rkl"].metrics["tv_to_fkl"] == found["rkl"].curve[-1]["tv_to_fkl"]


def test_distances_are_those_of_the_definition():
    p = torch.tensor([[[0.5, 0.5], [1.0, 0.0]]], dtype=torch.float64).log()
    q = torch.tensor([[[0.25, 0.75], [0.5, 0.5]]], dtype=torch.float64).log()
    assert float(equivalence._variation(p, q)) == pytest.approx((0.25 + 0.5) / 2)
    assert float(equivalence._forward_kl(p, q)) == pytest.approx(
        (0.5 * np.log(2) + 0.5 * np.log(2 / 3) + np.log(2)) / 2
    )


def _tables(distances: dict[tuple[str, str], float], kl: float = 1e-3, last: float = 0.1, seeds: int = 10):
    """Results and curves in which every pair is 0.01 apart, but for those given; starts are 1 from the teacher."""
    noise = np.random.default_rng(0)
    results, curves = [], []
    for condition, (place, loss), seed in itertools.product(("wide", "narrow"), enumerate(rule.LOSSES), range(seeds)):
        row = {"condition": condition, "loss": loss, "seed": seed, "start_tv": 1.0, "start_tv_test": 1.0}
        row |= {"start_kl": 1.0, "kl": kl * float(noise.uniform(0.9, 1.1))}
        for other in rule.LOSSES[:place]:
            apart = distances.get((other, loss), 0.6 if condition == "narrow" else 0.01)
            row |= {name: apart * float(noise.uniform(0.9, 1.1)) for name in (f"tv_to_{other}", f"tv_to_{other}_test")}
        results.append(row)
        objective = {0: 1.0, 75: last, 100: 0.1}
        curves += [
            {"condition": condition, "loss": loss, "seed": seed, "step": step, "objective": value}
            for step, value in objective.items()
        ]
    return pd.DataFrame(results), pd.DataFrame(curves)


def _words(part: str, *arguments, **options) -> dict[str, str]:
    rows = equivalence.EXPERIMENT.decide(*_tables(*arguments, **options))["tests"]
    return {row["outcome"]: row["decision"] for row in rows if row["part"] == part}


def test_the_rule_supports_refutes_and_waits():
    assert set(_words("main", {}).values()) == {"supported"}
    assert len(_words("main", {})) == 15
    assert set(_words("unseen", {}).values()) == {"supported"}
    assert set(_words("transport", {}).values()) == {"supported"}
    assert set(_words("narrow", {}).values()) == {"supported"}
    assert list(_words("main", {("rkl", "skl"): 0.4}).values()).count("refuted") == 1
    assert list(_words("main", {("rkl", "skl"): 0.15}).values()).count("undecided") == 1
    assert set(_words("narrow", {("fkl", "rkl"): 0.05}).values()) == {"refuted"}
    assert set(_words("main", {}, last=0.3).values()) == {"undecided (not converged)"}
    assert set(_words("main", {}, seeds=3).values()) == {"pilot: supported"}


def test_students_that_stand_still_are_not_the_same():
    """They are no distance apart, but have not reached the teacher."""
    found = _words("main", {}, kl=1.0)
    assert list(found.values()).count("refuted") == len(rule.DIVERGENCES)


def test_without_a_margin_noise_passes():
    """Two students that are far apart, equally bad: the rule on forward KL alone calls them the same."""
    decided = equivalence.EXPERIMENT.decide(*_tables({("fkl", "rkl"): 0.9}))
    row = next(row for row in decided["pairs"] if (row["first"], row["second"]) == ("fkl", "rkl"))
    assert row["no_margin"]
    assert row["tv"] == pytest.approx(0.9, rel=0.1)


def test_the_words_of_the_rules_hold_its_numbers():
    for words in (claims.RULE, claims.UNSEEN, claims.TRANSPORT):
        assert f"{rule.SAME:.2f}"[1:] in words.supported_if
        assert f"{rule.OTHER:.2f}"[1:] in words.unsupported_if
    for words in (claims.RULE, claims.TRANSPORT):
        assert f"{rule.SAME_KL:.2f}"[1:] in words.supported_if
        assert f"{rule.OTHER_KL:.4f}"[1:] in words.unsupported_if
    assert f"{rule.OTHER:.2f}"[1:] in claims.CAPACITY.supported_if
    assert f"{rule.SAME:.2f}"[1:] in claims.CAPACITY.unsupported_if
