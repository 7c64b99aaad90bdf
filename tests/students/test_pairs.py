"""H17: the spread of W1/TV on metrics where it is known, and the whole measurement on the smallest students."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import linprog
from typer.testing import CliRunner

import kdtheory as kd
from kdtheory import cli
from kdtheory.claims.students import common
from kdtheory.students import experiment, pairs, published, store, sweep

TOKENS = 24


def drawn_pairs(seed, count=200, tokens=TOKENS):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, count, tokens, generator=generator, dtype=torch.float64)
    return torch.log_softmax(logits, -1)


# -- the statistic -----------------------------------------------------------------------------------------------------
def test_equal_distances_make_w1_total_variation_and_the_spread_0():
    (log_p, log_q), cost = drawn_pairs(0), pairs.normalised(torch.eye(TOKENS, dtype=torch.float64))
    bins = pairs.measured(log_p, log_q, cost)
    np.testing.assert_allclose(bins[["low", "median", "high"]], 1.0, rtol=1e-12)  # rounding of a sum of 24 numbers
    assert pairs.spread(bins) < 1e-12


def test_a_metric_of_two_far_clusters_spreads():
    points = torch.eye(TOKENS, dtype=torch.float64) + 20.0 * (torch.arange(TOKENS) < 12)[:, None]
    (log_p, log_q), cost = drawn_pairs(0), pairs.normalised(points)
    assert pairs.spread(pairs.measured(log_p, log_q, cost)) > 2 * pairs.REGION.high


def test_the_mean_distance_is_1_and_coinciding_tokens_are_refused():
    points = torch.tensor([[0.0], [1.0], [5.0]], dtype=torch.float64)
    distances = pairs.normalised(points).block(slice(None), slice(None)).numpy()
    np.testing.assert_allclose(distances, [[0, 0.3, 1.5], [0.3, 0, 1.2], [1.5, 1.2, 0]], rtol=1e-12)
    with pytest.raises(ValueError, match="coincide"):
        pairs.normalised(torch.ones(4, 2, dtype=torch.float64))


def test_the_spread_by_hand():
    """Eleven ratios 1, 1.1, ..., 2 in every bin: quantiles 1.1, 1.5 and 1.9. Between bins the ratio doubles."""
    ratio, bins = np.linspace(1, 2, 11), np.repeat(np.arange(10), 11)
    tv = 0.05 * (1 + bins) + np.tile(np.linspace(0, 0.01, 11), 10)
    order = np.random.default_rng(0).permutation(110)
    found = pairs.binned((tv * np.tile(ratio, 10) * 2.0**bins)[order], tv[order])
    np.testing.assert_allclose(found[["low", "median", "high"]], np.outer(2.0 ** np.arange(10), [1.1, 1.5, 1.9]))
    np.testing.assert_allclose(found["tv"], 0.05 * np.arange(1, 11) + 0.005)
    assert pairs.spread(found) == pytest.approx(0.8 / 1.5, rel=1e-12)


def test_what_total_variation_explains_is_no_spread():
    tv = np.random.default_rng(0).permutation(np.repeat(np.arange(1, 11) / 20, 30))
    assert pairs.spread(pairs.binned(tv**2, tv)) < 1e-12
    assert pairs.spread(pairs.binned(tv[::-1] ** 2, tv)) > pairs.REGION.high


def test_equal_pairs_and_too_few_of_them_are_errors():
    tv = np.full(20, 0.1, dtype=np.float64)
    with pytest.raises(ValueError, match=r"tv\[7\] is not positive"):
        pairs.binned(tv, np.where(np.arange(20) == 7, 0.0, tv))
    with pytest.raises(ValueError, match="9 positions do not fill 10 bins"):
        pairs.binned(tv[:9], tv[:9])


def test_w1_is_that_of_a_linear_program():
    log_p, log_q = drawn_pairs(1, count=3, tokens=7)
    generator = torch.Generator().manual_seed(2)
    cost = pairs.normalised(torch.randn(7, 3, generator=generator, dtype=torch.float64))
    distances = cost.block(slice(None), slice(None)).numpy()
    rows, columns = np.kron(np.eye(7), np.ones(7)), np.kron(np.ones(7), np.eye(7))
    expected = [
        linprog(distances.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([p, q])).fun
        for p, q in zip(log_p.exp().numpy(), log_q.exp().numpy(), strict=True)
    ]
    np.testing.assert_allclose(kd.w1(log_p.exp(), log_q.exp(), cost).value, expected, rtol=1e-9)  # HiGHS: about 1e-10


@pytest.mark.parametrize("count", [512 * 64, 1000, 37])
def test_positions_are_spread_evenly_over_the_text_and_over_the_places_of_a_block(count):
    places = pairs.drawn(count)
    assert len(places) == min(count, pairs.POSITIONS)
    assert set(np.diff(places)) <= {count // len(places), count // len(places) + 1}
    if count == 512 * 64:
        assert np.bincount(places % 64, minlength=64).min() > 1000 / 64 / 2


# -- the measurement ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def students(profile, tmp_path_factory):
    out = tmp_path_factory.mktemp("students")
    experiment.run(profile, out, progress=False, losses=["fkl"])
    return out


@pytest.fixture(scope="module")
def measured(profile, students, tmp_path_factory):
    out = tmp_path_factory.mktemp("pairs")
    return out, pairs.run(profile, students, out, progress=False)


def test_a_row_per_condition_seed_and_bin(measured, profile):
    _, runs = measured
    wanted = [(condition, seed) for seed in profile.seeds for condition in pairs.CONDITIONS]
    assert list(zip(runs.results["condition"], runs.results["seed"], strict=True)) == wanted
    assert len(runs.curves) == pairs.BINS * len(wanted)
    assert (runs.curves["low"] <= runs.curves["median"]).all()
    assert (runs.curves["median"] <= runs.curves["high"]).all()
    for row in runs.results.itertuples():
        bins = runs.curves[(runs.curves["condition"] == row.condition) & (runs.curves["seed"] == row.seed)]
        assert row.spread == pytest.approx(pairs.spread(bins), rel=1e-6)  # stored with nine digits
    same_tv = runs.curves.pivot(index=["seed", "bin"], columns="condition", values="tv")
    assert (same_tv["own"] == same_tv["permuted"]).all()


def test_teacher_and_student_are_read_at_the_same_position(profile, students):
    ready = pairs.finished(profile, students)
    body = pairs._student(ready.workspace, ready.students[1])
    log_p, log_q = pairs.pairs(body, ready.lesson)
    blocks, chosen = ready.lesson.blocks["test"].tokens, pairs.drawn(8 * 16)
    assert log_p.shape == log_q.shape == (len(chosen), profile.vocabulary)
    for index in (0, 17, 127):
        block, place = divmod(int(chosen[index]), 16)
        with torch.no_grad():
            alone = body.net(input_ids=torch.from_numpy(blocks[block : block + 1, : place + 1])).logits[0, -1]
        expected = torch.log_softmax(alone.double(), -1)
        torch.testing.assert_close(log_q[index], expected, rtol=1e-5, atol=1e-5)  # float32, another batch shape
        stored = ready.lesson.teachers["test"].log_probs(np.array([block]))[0, place].double()
        torch.testing.assert_close(log_p[index], stored, rtol=1e-6, atol=1e-6)  # renormalised float32


def test_the_claims_read_it_and_two_seeds_are_a_pilot(measured, monkeypatch):
    out, runs = measured
    monkeypatch.setattr(published, "stored", lambda name: out)
    decisions, seeds, _ = common.verdict("pairs", "H17")
    assert (list(decisions), seeds) == (["spread of W1/TV at equal TV"], 2)
    (row,) = runs.decisions["tests"]
    assert row["decision"].startswith("pilot: ")
    own = runs.results.query("condition == 'own'")["spread"]
    assert row["estimate"] == pytest.approx(own.mean(), rel=1e-12)
    permuted = runs.results.query("condition == 'permuted'")["spread"]
    ratio = np.sqrt(np.prod(own.to_numpy() / permuted.to_numpy()))
    assert runs.decisions["own_over_permuted"]["mean"] == pytest.approx(ratio, rel=1e-12)


def test_provenance_names_students_and_command(measured, profile):
    facts = measured[1].provenance
    assert facts["command"] == "kdtheory experiment pairs --profile tiny --seeds 0,1"
    assert list(facts["students_sha256"]) == [str(seed) for seed in profile.seeds]
    assert facts["settings"]["positions"] == pairs.POSITIONS


def test_a_second_measurement_is_the_same(measured, profile, students, tmp_path, monkeypatch):
    out, _ = measured
    monkeypatch.setattr(sweep, "execute", lambda *arguments: pytest.fail("trained"))
    pairs.run(profile, students, tmp_path, progress=False)
    for name in ("results.csv", "curves.csv", "decisions.json"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()


def ten_seeds(own, start=1.0):
    rows = [
        {"condition": condition, "seed": seed, "spread": value + 0.001 * seed}
        for seed in range(10)
        for condition, value in (("own", own), ("permuted", 0.1))
    ]
    return pd.DataFrame(rows).assign(objective_start=start, objective_late=0.5, objective_final=0.499)


@pytest.mark.parametrize(
    ("own", "start", "word"),
    [
        (0.2, 1.0, "supported"),
        (0.3, 1.0, "refuted"),
        (0.2455, 1.0, "undecided"),
        (0.2, 0.501, "supported"),  # by the change relative to the value
    ],
)
def test_the_registered_rule(own, start, word):
    decided = pairs.decide(ten_seeds(own, start), pd.DataFrame())
    assert not decided["pilot"]
    assert [row["decision"] for row in decided["tests"]] == [word]


def test_without_the_plateau_of_forward_kl_nothing_is_decided():
    moving = ten_seeds(0.2).assign(objective_late=0.6)
    (row,) = pairs.decide(moving, pd.DataFrame())["tests"]
    assert row["decision"] == "undecided (not converged)"


# -- the command -------------------------------------------------------------------------------------------------------
def test_missing_students_say_what_to_run_first(profile, tmp_path, monkeypatch):
    with pytest.raises(store.StoredFileError, match="seed 0: run `kdtheory experiment students --profile tiny"):
        pairs.run(profile, tmp_path, tmp_path / "out", progress=False)
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(cli.app, ["experiment", "pairs", "--profile", "smoke"])
    assert shown.exit_code == 1
    assert "run `kdtheory experiment students --profile smoke` first" in shown.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "says"), [(("--losses", "fkl"), "leave out --losses"), (("--tune",), "leave out --tune")]
)
def test_options_that_do_not_fit_end_with_2(option, says):
    shown = CliRunner().invoke(cli.app, ["experiment", "pairs", *option])
    assert shown.exit_code == 2
    assert says in shown.output
