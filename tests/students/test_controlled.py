"""Controlled experiments end to end, small: stored runs that can be trusted, resumed, and refused when damaged."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from kdtheory import cli
from kdtheory.students import controlled, published, statistics, store
from kdtheory.students.controlled import compare, design, low_rank, runner, saturated, shared_network

IDS = controlled.NAMES


@pytest.fixture(scope="module", params=IDS)
def done(request, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param)
    return request.param, out, controlled.run(request.param, "smoke", out, progress=False)


def test_a_smoke_run_covers_every_task_and_is_a_pilot(done):
    name, _, runs = done
    tasks = controlled.get(name).profile("smoke").tasks()
    listed = list(runs.results[["condition", "loss", "seed"]].itertuples(index=False, name=None))
    assert listed == [(task.condition, task.loss, seed) for task in tasks for seed in (0, 1, 2)]
    assert runs.decisions["pilot"]
    assert runs.decisions["seeds"] == 3
    decided = [row["decision"] for kind in ("comparisons", "tests") for row in runs.decisions.get(kind, [])]
    assert decided
    assert all("pilot" in decision for decision in decided)
    assert runs.provenance["command"] == f"kdtheory experiment {name} --profile smoke"
    assert runs.provenance["threads_per_process"] == 1


def test_losses_of_a_seed_share_their_start(done):
    name, _, runs = done
    if name not in ("shared-network", "low-rank"):
        return  # the modules of the others have their own test, with their own metrics
    first = runs.curves[(runs.curves["step"] == 0) & (runs.curves["condition"] == runs.curves["condition"].iloc[0])]
    if "tv" in first:
        assert (first.groupby("seed")["tv"].nunique() == 1).all()
    else:
        assert first[first["loss"] == "fkl"]["objective"].nunique() == 3  # a seed is another problem


def test_decisions_follow_from_the_stored_numbers(done):
    name, out, runs = done
    loaded = published.load(out)
    pd.testing.assert_frame_equal(loaded.results, runs.results)
    again = json.loads(json.dumps(controlled.get(name).decide(loaded.results, loaded.curves)))
    assert again == {key: runs.decisions[key] for key in again}


@pytest.mark.parametrize("name", IDS)
def test_a_second_run_simulates_nothing_and_a_killed_one_continues(tmp_path, name):
    experiment, calls = controlled.get(name), []
    losses = next(iter(experiment.profile("smoke").conditions.values())).losses[:2]

    def counted(settings, loss, seeds, device):
        calls.append((loss, seeds))
        return experiment.simulate(settings, loss, seeds, device)

    def run():
        calls.clear()
        watched = replace(experiment, simulate=counted, decide=lambda results, curves: {})  # seconds, and not the point
        return runner.run(watched, "smoke", tmp_path, seeds=(0, 1), losses=losses, progress=False)

    first = run()
    assert 2 * len(calls) == len(first.results)
    second = run()
    assert calls == []
    pd.testing.assert_frame_equal(second.results, first.results)
    lost = sorted((tmp_path / "work").glob(f"*_{losses[-1]}-????????????.json"))[0]
    lost.unlink()  # as if killed before this task
    resumed = run()
    assert calls == [(losses[-1], (0, 1))]
    pd.testing.assert_frame_equal(resumed.results, first.results)  # the same numbers, bit by bit


@pytest.mark.parametrize("damage", ["altered", "truncated"])
def test_a_damaged_task_is_refused(done, tmp_path, damage):
    name, out, _ = done
    for file in (out / "work").iterdir():
        store.write_bytes(tmp_path / "work" / file.name, file.read_bytes())
    path = sorted((tmp_path / "work").iterdir())[0]
    content = path.read_bytes()
    path.write_bytes(content[:-9] if damage == "truncated" else content.replace(b'"seed": 0', b'"seed": 1', 1))
    with pytest.raises(store.StoredFileError, match=path.name.replace("+", r"\+")):
        controlled.run(name, "smoke", tmp_path, progress=False)


@pytest.mark.parametrize("name", published.FILES)
def test_a_damaged_run_is_refused(done, tmp_path, name):
    _, out, _ = done
    for file in (*published.FILES, published.MANIFEST):
        (tmp_path / file).write_bytes((out / file).read_bytes())
    (tmp_path / name).write_bytes((out / name).read_bytes().replace(b"1", b"2", 1))
    with pytest.raises(store.StoredFileError, match=name):
        published.load(tmp_path)


def test_other_settings_never_find_the_stored_task():
    experiment = controlled.get("shared-network")
    profile = experiment.profile("smoke")
    task = profile.tasks()[0]
    item = profile.conditions[task.condition]
    other = design.Profile(
        "smoke", {task.condition: design.Condition(replace(item.settings, gap=5.0), item.losses)}, profile.seeds
    )
    assert experiment.key(profile, task) != experiment.key(other, task)
    assert experiment.key(profile, task) != replace(experiment, version=2).key(profile, task)


# -- the stored, published runs --------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", IDS)
def test_published_runs_belong_to_the_registered_settings_and_decide_anew(name):
    runs, experiment = controlled.stored(name), controlled.get(name)
    registered = experiment.profile("cpu")
    assert runs.provenance["settings_sha256"] == store.digest([experiment.version, registered.settings()])
    assert runs.provenance["settings"]["seeds"] == list(range(10))
    assert not runs.decisions["pilot"]
    assert len(runs.results) == len(registered.tasks()) * len(registered.seeds)
    again = json.loads(json.dumps(experiment.decide(runs.results, runs.curves)))
    assert again == {key: runs.decisions[key] for key in again}


# -- statistics on known cases ---------------------------------------------------------------------------------------
def test_ratios_on_a_known_case():
    reference = np.array([10.0, 20, 30, 40, 50, 60, 70, 80, 90, 100])
    spread = np.exp(np.tile([0.1, -0.1], 5))
    found = compare.ratio(4 * reference * spread, reference, factor=3.0)
    half = 2.2621571628 * np.std(np.log(spread), ddof=1) / math.sqrt(10)  # Student's t, 9 degrees of freedom, 97.5 %
    assert found.ratio == pytest.approx(4.0, rel=1e-12)
    assert (found.low, found.high) == pytest.approx((4 * math.exp(-half), 4 * math.exp(half)), rel=1e-9)
    assert found.p == pytest.approx(2 / 2**10)
    assert found.decision(found.p) == "above"
    assert found.decision(0.06) == "undecided"
    assert compare.ratio(reference, reference * spread, factor=3.0).decision(0.01) == "below"


def test_censored_times_support_only_what_they_bound():
    ones, tens = np.ones(10), np.full(10, 10.0)
    late = [True] + [False] * 9
    assert compare.ratio(tens, ones, factor=3.0, censored=late).decision(0.01) == "above"
    assert compare.ratio(ones, ones, factor=3.0, censored=late).decision(0.01) == "undecided"
    assert compare.ratio(tens, ones, factor=3.0, reference_censored=late).decision(0.01) == "undecided"


def test_fewer_than_ten_seeds_are_a_pilot():
    assert compare.ratio([10.0, 11, 12], [1.0, 1, 1], factor=3.0).decision(1.0) == "pilot: above"


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_ratio_refuses_what_has_no_logarithm(bad):
    with pytest.raises(ValueError, match=r"values\[1\]"):
        compare.ratio([1.0, bad], [1.0, 1.0], factor=3.0)
    with pytest.raises(ValueError, match="one number per seed"):
        compare.ratio([1.0], [1.0, 1.0], factor=3.0)


def test_a_missing_seed_is_not_left_out_silently():
    rows = [{"condition": "a", "loss": loss, "seed": seed, "w1": 1.0} for loss in ("fkl", "w1") for seed in (0, 1)]
    with pytest.raises(ValueError, match="lacks a seed"):
        compare.wide(pd.DataFrame(rows[:-1]), "a", "w1")


# -- the two students ------------------------------------------------------------------------------------------------
def test_the_network_starts_confidently_wrong_where_it_should_and_right_elsewhere():
    begin = saturated.start(shared_network.Settings().beginning(), 0)
    logits = saturated.network(begin.weights, begin.features)
    q, p = logits.softmax(-1), begin.log_p.exp()
    tv = 0.5 * (p - q).abs().sum(-1)
    assert begin.gaps.min() > 14
    assert tv[:20].min() > 0.9
    assert tv[20:].max() < 0.2
    assert (p.sum(-1) - 1).abs().max() < 1e-5


def test_a_repair_that_never_comes_is_censored_at_the_budget():
    settings = shared_network.Settings(steps=20, fit_steps=400)
    outcome = shared_network.simulate(settings, "w1", 0)
    assert outcome.metrics["censored"] == 1
    assert outcome.metrics["repair_steps"] == 20
    assert outcome.curve == []


def test_decision_cost_is_that_of_the_medoid():
    C = torch.tensor([[0.0, 1, 2], [1, 0, 1], [2, 1, 0]]).double()
    p, q = torch.tensor([[0.0, 0.0, 1.0]]).double(), torch.tensor([[0.4, 0.2, 0.4]]).double()
    assert low_rank.decision_cost(p, q, C).tolist() == [1.0]  # q's medoid is the middle, its mode an end


def test_conditions_that_begin_alike_share_the_fit():
    profile = controlled.get("shared-network").profile("cpu")
    beginnings = {(item.settings.beginning(), seed) for item in profile.conditions.values() for seed in profile.seeds}
    tasks = {(task.condition, seed) for task in profile.tasks() for seed in profile.seeds}
    assert len(beginnings) < len(tasks)
    assert saturated.start.cache_info().maxsize >= len(profile.seeds)


def test_a_full_rank_student_can_be_the_teacher():
    settings = low_rank.Settings(rank=16, steps=400)
    assert low_rank.simulate(settings, "fkl", 0).metrics["kl"] < 1e-3


@pytest.mark.parametrize("profile", ["smoke", "cpu"])
def test_conditions_are_named_after_their_rank_and_the_highest_is_full(profile):
    conditions = controlled.get("low-rank").profile(profile).conditions
    assert all(name.startswith(f"rank-{item.settings.rank}") for name, item in conditions.items())
    highest = max((item.settings for item in conditions.values()), key=lambda settings: settings.rank)
    assert highest.rank == highest.features


def test_capacity_compares_with_the_highest_rank_that_was_run():
    distance = {"rank-2": 4.0, "rank-10": 1.0, "rank-8": 2.0, "rank-2-well-sampled": 9.0}
    rows = [
        {"condition": name, "loss": loss, "seed": seed, **dict.fromkeys(low_rank.METRICS, apart * (loss == "w1"))}
        for name, apart in distance.items()
        for loss in ("fkl", "w1")
        for seed in (0, 1)
    ]
    found = low_rank._capacity(pd.DataFrame(rows))
    assert [(row["narrow"], row["full"]) for row in found] == [(4.0, 1.0)] * len(low_rank.METRICS)
    assert low_rank._capacity(pd.DataFrame(rows[:4])) == []  # the narrow rank alone


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: shared_network.Settings(bad=0), "bad = 0"),
        (lambda: shared_network.Settings(optimizer="lion"), "'lion'"),
        (lambda: shared_network.Settings(steps=30), "steps = 30"),
        (lambda: low_rank.Settings(rank=17), "rank = 17"),
        (lambda: low_rank.Settings(tokens=31), "tokens = 31"),
        (lambda: low_rank.Settings(steps=30), "steps = 30"),
        (lambda: shared_network.build("kl", shared_network.Settings()), "'kl' is unknown"),
        (lambda: low_rank.build("kl", low_rank.Settings(), None), "'kl' is unknown"),
        (lambda: controlled.get("low"), "there is: shared-network, low-rank"),
        (lambda: controlled.get("low-rank").profile("gpu"), "no profile 'gpu'"),
        (lambda: controlled.get("low-rank").profile("cpu").restricted((), ("kl",)), "'kl' is unknown here"),
        (lambda: design.Profile("x", {}, seeds=(1, 1)), "each once"),
        (lambda: design.Profile("x", {}, seeds=(2**70,)), "whole numbers from 0"),
        (lambda: shared_network.Settings(steps=0), "steps = 0"),
        (lambda: shared_network.Settings(tokens=1), "tokens = 1"),
        (lambda: low_rank.Settings(test=0), "test = 0"),
        (lambda: compare.ratio([2.0, 3.0], [1.0, 1.0], factor=3, censored=[1]), "censored has 1 entries for 2 seeds"),
        (lambda: compare.ratio([2.0], [1.0], factor=0), "factor = 0"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# -- the command -----------------------------------------------------------------------------------------------------
def test_the_command_runs_an_experiment_with_the_seeds_and_losses_asked_for(tmp_path):
    arguments = ("--profile", "smoke", "--seeds", "4,5", "--losses", "fkl,rkl,jsd,tvd,w1", "--out", str(tmp_path))
    shown = CliRunner().invoke(cli.app, ["experiment", "low-rank", *arguments])
    assert shown.exit_code == 0, shown.output
    assert "2 seeds (a pilot)" in shown.output
    runs = published.load(tmp_path)
    assert sorted(set(runs.results["seed"])) == [4, 5]
    assert runs.provenance["command"].endswith("--seeds 4,5 --losses fkl,rkl,jsd,tvd,w1")


@pytest.mark.parametrize(
    ("option", "message"), [(("--tune",), "leave out --tune"), (("--profile", "gpu"), "no profile 'gpu'")]
)
def test_the_command_refuses_options_that_do_not_fit(option, message):
    shown = CliRunner().invoke(cli.app, ["experiment", "low-rank", *option])
    assert shown.exit_code == 2
    assert message in shown.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_profile_for_a_gpu_says_that_there_is_none(tmp_path):
    experiment = controlled.get("low-rank")
    there = replace(experiment, profiles={"gpu": replace(experiment.profile("smoke"), name="gpu", device="cuda")})
    with pytest.raises(ValueError, match="CUDA device and there is none"):
        runner.run(there, "gpu", tmp_path, progress=False)


def test_there_are_enough_seeds_for_the_holm_family_of_repair_times():
    """With ten seeds the smallest sign-flip p is 2/1024: a family of more than 25 could never decide."""
    repairs = [
        row for row in controlled.stored("shared-network").decisions["comparisons"] if row["metric"] == "repair_steps"
    ]
    assert len(repairs) * 2 / 2**10 < statistics.LEVEL
