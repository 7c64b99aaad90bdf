"""The whole pipeline, small: it ends with stored runs that can be trusted, and a second run does nothing."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from kdtheory import checkout
from kdtheory.students import experiment, profiles, published, store, sweep
from kdtheory.students.evaluate import METRICS
from tests.students.conftest import tiny


@pytest.fixture(scope="module")
def done(profile, tmp_path_factory):
    out = tmp_path_factory.mktemp("experiment")
    return out, experiment.run(profile, out, progress=False)


def test_results_cover_every_loss_and_seed(done, profile):
    _, runs = done
    pairs = list(zip(runs.results["loss"], runs.results["seed"], strict=True))
    assert pairs == [(loss, seed) for seed in profile.seeds for loss in profile.losses]
    assert np.isfinite(runs.results[list(METRICS)].to_numpy()).all()
    assert set(runs.curves["step"]) == {0, 2, 4, 6, 8}
    start = runs.curves[(runs.curves["step"] == 0) & (runs.curves["loss"] != "hard")]
    assert (start.groupby("seed")["fkl"].nunique() == 1).all()  # one warm start per seed


def test_decisions_follow_from_the_stored_numbers(done):
    _, runs = done
    again = json.loads(json.dumps(published.decide(runs.results, runs.curves)))
    assert again == runs.decisions
    assert runs.decisions["pilot"]
    assert all(row["decision"].startswith("pilot: ") for row in runs.decisions["comparisons"])
    assert {row["loss"] for row in runs.decisions["convergence"]} == set(runs.results["loss"])


def test_provenance_is_complete(done, profile):
    _, runs = done
    facts = runs.provenance
    assert facts["settings"]["seeds"] == list(profile.seeds)
    assert facts["settings_sha256"] == profile.hash
    assert facts["cost"]["fkl"]["relative_to_fkl"] == 1.0
    assert facts["threads_per_process"] == [1]
    for name in ("corpus_sha256", "commit", "device", "versions", "peak_memory_mib", "teacher", "learning_rate_source"):
        assert facts[name], name
    assert facts["command"] == "kdtheory experiment students --profile tiny --seeds 0,1 --losses hard,classic,fkl,w1"


def test_a_second_run_trains_nothing(done, profile, monkeypatch):
    out, runs = done
    monkeypatch.setattr(sweep, "execute", lambda *arguments: pytest.fail("trained again"))
    again = experiment.run(profile, out, progress=False)
    pd.testing.assert_frame_equal(again.results, runs.results)
    with pytest.raises(BaseException, match="trained again"):
        experiment.run(profile, out, progress=False, losses=["fkl"], resume=False)


def test_load_gives_what_was_saved(done):
    out, runs = done
    loaded = published.load(out)
    pd.testing.assert_frame_equal(loaded.results, runs.results)
    pd.testing.assert_frame_equal(loaded.curves, runs.curves)
    assert (loaded.decisions, loaded.provenance) == (runs.decisions, runs.provenance)


@pytest.mark.parametrize("name", [*published.FILES, published.MANIFEST])
@pytest.mark.parametrize("damage", ["altered", "truncated", "missing"])
def test_damaged_runs_are_refused(done, tmp_path, name, damage):
    out, _ = done
    for file in (*published.FILES, published.MANIFEST):
        (tmp_path / file).write_bytes((out / file).read_bytes())
    path, content = tmp_path / name, (out / name).read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-9] if damage == "truncated" else content.replace(b"1", b"2", 1))
    with pytest.raises(store.StoredFileError, match=name):
        published.load(tmp_path)


def test_an_installed_package_says_that_evidence_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(checkout, "__file__", str(tmp_path / "site" / "kdtheory" / "checkout.py"))
    with pytest.raises(checkout.EvidenceNotInstalledError, match=r"evidence not installed: .*clone"):
        published.stored("students")


def test_a_corpus_that_is_too_small_is_refused_before_training(text_folder, tmp_path):
    with pytest.raises(ValueError, match="test_blocks = 100000"):
        experiment.run(tiny(text_folder, test_blocks=100_000), tmp_path, progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tuning_seed": 1}, "tuning_seed"),
        ({"seeds": ()}, "seeds"),
        ({"seeds": (1, 1)}, "seeds"),
        ({"losses": ("fkl", "kl")}, "'kl' is unknown"),
        ({"evaluations": 3}, "evaluations"),
        ({"steps": 10}, "steps"),
        ({"architecture": "rnn"}, "architecture"),
    ],
)
def test_profiles_that_do_not_fit_are_refused(text_folder, change, message):
    with pytest.raises(ValueError, match=message):
        tiny(text_folder, **change)


def test_profiles_by_name():
    assert profiles.get("smoke", workers=0).workers == 0
    with pytest.raises(ValueError, match="did you mean 'smoke'"):
        profiles.get("smok")
    assert profiles.get("cpu").hash == profiles.get("cpu", seeds=(5,), losses=("fkl",), workers=1).hash
    assert profiles.get("cpu").hash != profiles.get("cpu", steps=2400).hash


@pytest.mark.smoke
def test_smoke_profile_on_the_standard_library(tmp_path):
    """Ten losses on three seeds, on the source of the running Python."""
    profile = profiles.get("smoke", workers=0)
    runs = experiment.run(profile, tmp_path, progress=False)
    assert len(runs.results) == len(profile.losses) * 3
    assert np.isfinite(runs.results[list(METRICS)].to_numpy()).all()
    pairs = {(row["loss"], row["reference"]) for row in runs.decisions["comparisons"]}
    assert {loss for loss, reference in pairs if reference == "fkl"} == {*profile.losses} - {"fkl"}
    assert {("w1", "rkl"), ("w1+hard", "w1"), ("sinkhorn/16", "fkl/16")} <= pairs
    assert len(runs.decisions["comparisons"]) == len(pairs) * len(METRICS)
    assert all(row["decision"].startswith("pilot: ") for row in runs.decisions["comparisons"])
    warm = runs.curves[runs.curves["step"] == 0].groupby("seed")["fkl"].first()
    best = runs.results[runs.results["loss"] == "fkl"].set_index("seed")["fkl"]
    assert (best < warm).all()
