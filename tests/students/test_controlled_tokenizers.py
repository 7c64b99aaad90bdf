"""Students with another vocabulary: relabelling, cost and chance against other means, and the decisions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import kdtheory as kd
from kdtheory.students.controlled import tokenizer_rules, tokenizers

CPU = torch.device("cpu")
SMALL = tokenizers.Settings(tokens=6, contexts=8, test=8, features=3, hidden=8, steps=20)


@pytest.fixture(scope="module")
def given():
    return tokenizers.problem(SMALL, (4, 5), CPU)


def test_the_relabelled_teacher_is_the_teacher_in_another_order(given):
    moved = tokenizers.relabelled(given.log_p, given.partner, 6)
    for seed in range(2):
        for token in range(6):
            assert torch.equal(moved[seed, :, given.partner[seed, token]], given.log_p[seed, :, token])
    larger = tokenizers.relabelled(given.log_p, given.partner, 7)
    assert torch.allclose(larger.exp().sum(-1), torch.ones(2, 16))


def test_partners_share_their_embedding_when_aligned_and_no_longer_when_scrambled(given):
    teacher, student = given.embeddings[0, :6], given.embeddings[0, 6:]
    assert torch.allclose(student[given.partner[0]], teacher)
    scrambled = tokenizers.problem(replace(SMALL, scrambled=True), (4,), CPU)
    both = scrambled.embeddings[0]
    assert not torch.allclose(both[6:][scrambled.partner[0]], both[:6])
    assert torch.allclose(both[6:].sort(0).values, both[:6].sort(0).values)  # the same points


def test_noise_moves_by_the_share_of_the_nearest_neighbour_that_was_asked_for():
    points = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 1.0]])
    assert float(tokenizers.nearest(points)) == pytest.approx((3 + 1 + 1) / 3)
    noisy, still = (tokenizers.problem(replace(SMALL, noise=noise), (4,), CPU) for noise in (0.5, 0.0))
    moved = (noisy.embeddings - still.embeddings)[0, 6:].norm(dim=1)
    assert torch.allclose(moved, 0.5 * tokenizers.nearest(still.embeddings[0, :6]).expand(6), rtol=1e-4)


def test_sorted_transport_is_blind_to_the_order_and_transport_is_not(given):
    values = {}
    for name in ("uld", "w1", "tree", "index", "relabelled"):
        loss = tokenizers.build(name, SMALL, given)
        right = tokenizers.relabelled(given.log_p, given.partner, 6)
        values[name] = loss(given.log_p, right), loss(given.log_p, right.flip(-1))
    assert values["uld"][0].abs().max() < 1e-6
    assert values["uld"][1].abs().max() < 1e-6
    for name in ("w1", "tree", "relabelled"):
        assert values[name][0].abs().max() < 1e-6
        assert values[name][1].min() > 0.1
    assert values["index"][0].min() > 0.1


def test_transport_between_the_vocabularies_is_that_of_the_rectangular_problem(given):
    import ot

    logits = torch.randn(2, 16, 6, generator=torch.Generator().manual_seed(0))
    found = tokenizers.build("w1", SMALL, given)(given.log_p, logits)
    p, q = given.log_p[1].double().softmax(-1).numpy(), logits[1].double().softmax(-1).numpy()
    C = torch.cdist(*given.embeddings[1].double().split(6)).numpy()
    wanted = np.mean([ot.emd2(a, b, C) for a, b in zip(p, q, strict=True)])
    assert float(found[1]) == pytest.approx(wanted, rel=1e-5)


def test_the_sinkhorn_divergence_sees_the_order_too(given):
    loss = tokenizers.build("sinkhorn", SMALL, given)
    right = tokenizers.relabelled(given.log_p, given.partner, 6)
    assert (loss(given.log_p, right) < loss(given.log_p, right.flip(-1))).all()


def test_agreement_undoes_the_relabelling_and_knows_chance():
    partner = torch.tensor([2, 0, 1])
    log_p = torch.eye(3)[[0, 1, 1, 2]].log()
    logits = torch.eye(3)[[2, 0, 1, 1]]
    found = tokenizers.agreement(log_p, logits, partner)  # tokens wanted: 2, 0, 0, 1; given: 2, 0, 1, 1
    assert found["agreement"] == 0.75
    assert found["chance"] == pytest.approx(0.25 * 0.25 + 0.5 * 0.25 + 0.25 * 0.5)
    assert found["above"] == pytest.approx(found["agreement"] - found["chance"])
    assert found["best_relabelling"] == 0.75
    shifted = tokenizers.agreement(log_p, logits.roll(1, -1), partner)
    assert shifted["agreement"] == 0
    assert shifted["best_relabelling"] == 0.75


def test_a_seed_does_not_depend_on_the_others_and_runs_are_deterministic():
    alone = tokenizers.simulate(SMALL, "tree", (3,), CPU)[0].metrics
    together, again = (tokenizers.simulate(SMALL, "tree", (8, 3), CPU)[1].metrics for _ in range(2))
    assert together == again
    assert together == pytest.approx(alone, rel=1e-3, abs=1e-5)


def test_a_table_says_nothing_about_contexts_it_was_not_trained_on():
    found = tokenizers.simulate(replace(SMALL, hidden=0), "uld", (1,), CPU)[0].metrics
    assert np.isnan(found["held_out"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"steps": 30}, "steps = 30"), ({"tokens": 1}, "tokens = 1"), ({"extra": -1}, "too small")],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


def test_an_unknown_loss_is_named(given):
    with pytest.raises(ValueError, match="'rkl' is unknown"):
        tokenizers.build("rkl", SMALL, given)


def test_a_cost_is_a_metric_on_both_vocabularies(given):
    cost = tokenizers.union(given.embeddings[0])
    assert cost.is_metric
    assert cost.V == 12
    assert isinstance(cost, kd.TokenCost)


# -- decisions on made-up numbers ------------------------------------------------------------------------------------
def made_up(uld=0.0, w1=0.8, left=0.01, plateau=True):
    """Results and curves of ten seeds that come out as asked."""
    rows, curves = [], []
    for name, item in tokenizers.EXPERIMENT.profile("cpu").conditions.items():
        for loss in item.losses:
            above = w1 if loss in ("w1", "tree") and name != "scrambled" else uld
            for seed in range(10):
                names = {"condition": name, "loss": loss, "seed": seed}
                rows.append(names | {"above": above + 0.01 * np.sin(seed), "left": left * (1 + 0.01 * np.cos(seed))})
                values = zip((0, 300, 400), (9.0, 1.0 if plateau else 3.0, 1.0), strict=True)
                curves += [names | {"step": step, "objective": y} for step, y in values]
    return pd.DataFrame(rows), pd.DataFrame(curves)


def words(tests, part="main"):
    return {row["outcome"]: row["decision"] for row in tests if row["part"] == part}


def test_numbers_inside_all_regions_support_the_hypothesis():
    found = tokenizer_rules.decide(*made_up())["tests"]
    assert set(words(found).values()) == set(words(found, "beside").values()) == {"supported"}
    assert len(words(found)) == 5
    assert len(words(found, "beside")) == 6


def test_a_leak_or_a_failure_to_transfer_refutes_it():
    assert words(tokenizer_rules.decide(*made_up(uld=0.2))["tests"])["ULD: agreement above chance"] == "refuted"
    found = words(tokenizer_rules.decide(*made_up(w1=0.0))["tests"])
    assert found["W1, noisy: agreement above chance"] == "refuted"


def test_between_the_bounds_and_without_a_plateau_nothing_is_decided():
    found = words(tokenizer_rules.decide(*made_up(w1=0.3, left=0.1))["tests"])
    assert found["W1, aligned: agreement above chance"] == "undecided"
    assert found["ULD: final over first loss"] == "undecided"
    assert set(words(tokenizer_rules.decide(*made_up(plateau=False))["tests"]).values()) == {
        "undecided (not converged)"
    }
