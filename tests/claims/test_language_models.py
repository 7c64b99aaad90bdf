"""Claims on language models: their rules on fabricated runs, the chapter's numbers, and nothing without runs."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kdtheory import checkout, claims
from kdtheory.claims.students import language_models as claimed
from kdtheory.ledger import REGISTRY, Claim, Verdict, experiments
from kdtheory.ledger.runner import run_claim
from kdtheory.students import controlled, pairs, published

claims.load("students")
ITEMS = [item for item in REGISTRY if isinstance(item, Claim) and item.check.__module__ == claimed.__name__]
CHAPTER = " ".join((Path(__file__).parents[2] / "proofs" / "09_students.md").read_text(encoding="utf-8").split())


def test_all_four_are_found():
    assert len(ITEMS) == 4


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.id)
def test_without_the_stored_runs_nothing_is_claimed_and_the_control_is_caught(item, monkeypatch):
    def missing(name):
        raise checkout.EvidenceNotInstalledError("evidence not installed: here")

    monkeypatch.setattr(published, "stored", missing)
    result = run_claim(item)
    assert result.verdict is Verdict.OPEN
    assert [control.outcome for control in result.controls] == ["caught"]


# -- paired comparisons ------------------------------------------------------------------------------------------------
def verdict(id, monkeypatch, **stored):
    monkeypatch.setattr(controlled, "stored", lambda name: SimpleNamespace(**stored))
    return run_claim(REGISTRY[id])


def comparisons(wanted, words, seeds=10):
    rows = []
    for (loss, metric, reference), word in zip(wanted, words, strict=True):
        about = {"loss": loss, "metric": metric, "reference": reference, "seeds": seeds, "decision": word}
        rows.append(about | {"converged": "not converged" not in word})
    return {"comparisons": [*rows, {**rows[0], "metric": "rkl", "decision": "higher"}]}


LATE = "undecided (not converged)"


@pytest.mark.parametrize(
    ("words", "seeds", "found"),
    [
        (("lower", "lower"), 10, Verdict.SUPPORTED),
        (("lower", "higher"), 10, Verdict.UNSUPPORTED),
        (("higher", LATE), 10, Verdict.UNSUPPORTED),
        (("lower", "undecided"), 10, Verdict.UNDECIDED),
        (("lower", LATE), 10, Verdict.UNDECIDED),
        ((LATE, LATE), 10, Verdict.UNDECIDED),
        (("pilot: lower", "pilot: lower"), 3, Verdict.UNDECIDED),
    ],
)
def test_hard_labels_must_help_both_and_hurt_neither(monkeypatch, words, seeds, found):
    decisions = comparisons(claimed._HARD, words, seeds)
    assert verdict("students.text-hard-term", monkeypatch, decisions=decisions).verdict is found


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("lower",) * 4, Verdict.SUPPORTED),
        (("lower", "lower", "higher", "lower"), Verdict.UNSUPPORTED),
        (("lower", "lower", "undecided", "lower"), Verdict.UNDECIDED),
    ],
)
def test_wasserstein_must_win_in_both_metrics_against_both(monkeypatch, words, found):
    decisions = comparisons(claimed._BEATS, words)
    assert verdict("students.wasserstein-beats-kl", monkeypatch, decisions=decisions).verdict is found


def test_a_comparison_that_was_not_stored_is_an_error(monkeypatch):
    decisions = {"comparisons": comparisons(claimed._HARD, ("lower", "lower"))["comparisons"][1:]}
    result = verdict("students.text-hard-term", monkeypatch, decisions=decisions)
    assert "compares no cross_entropy of rkl+hard with that of rkl" in result.error


# -- head and tail along the curves ------------------------------------------------------------------------------------
SCATTER = np.array([-0.02, 0.02, -0.01, 0.01, 0.0, 0.015, -0.015, 0.005, -0.005, 0.0])
MARGIN = stats.t.ppf(0.975, 9) * SCATTER.std(ddof=1) / np.sqrt(10)  # half the interval of any mean below


def shares(means, seeds=10):
    """Curves of ten seeds whose mean share is 0.6, but at these (loss, step)."""
    rows = [
        {"loss": loss, "seed": seed, "step": step, "head_share": means.get((loss, step), 0.6) + SCATTER[seed]}
        for loss in ("fkl", "rkl")
        for step in (0, 80, 160)
        for seed in range(seeds)
    ]
    return pd.DataFrame([*rows, {"loss": "w1", "seed": 0, "step": 0, "head_share": np.nan}])


@pytest.mark.parametrize(
    ("means", "found"),
    [
        ({}, Verdict.SUPPORTED),
        ({("rkl", 80): 0.75 - 1.01 * MARGIN}, Verdict.SUPPORTED),
        ({("rkl", 80): 0.75 - 0.99 * MARGIN}, Verdict.UNDECIDED),
        ({("fkl", 160): 0.50 + 0.99 * MARGIN}, Verdict.UNDECIDED),
        ({("fkl", 160): 0.90 + 0.99 * MARGIN}, Verdict.UNDECIDED),
        ({("fkl", 160): 0.90 + 1.01 * MARGIN}, Verdict.UNSUPPORTED),
        ({("fkl", 0): 0.35 - 1.01 * MARGIN, ("rkl", 0): 0.8}, Verdict.UNSUPPORTED),
    ],
)
def test_every_point_of_both_curves_counts(monkeypatch, means, found):
    assert verdict("students.text-head-tail", monkeypatch, curves=shares(means)).verdict is found


def test_three_seeds_decide_nothing_and_curves_without_shares_are_an_error(monkeypatch):
    assert verdict("students.text-head-tail", monkeypatch, curves=shares({}, seeds=3)).verdict is Verdict.UNDECIDED
    bare = shares({}).drop(columns="head_share")
    assert "hold no head_share" in verdict("students.text-head-tail", monkeypatch, curves=bare).error


# -- registered numbers ------------------------------------------------------------------------------------------------
def numbers(rule):
    return [float(number) for number in re.findall(r"\.\d+", rule.supported_if + rule.unsupported_if)]


def test_the_rules_in_words_hold_the_numbers_of_code_and_chapter():
    assert numbers(claimed.HEAD_TAIL) == [*claimed._WEAK, claimed._STRONG, claimed._REVERSED]
    assert "within .50 to .75, the hypothesis" in CHAPTER
    assert "above .90 or below .35; in between undecided" in CHAPTER
    assert numbers(claimed.METRIC) == [pairs.REGION.high, pairs.REGION.outside[1]] == [0.25, 0.25]
    assert "lies below a quarter; refuted above it" in CHAPTER
    assert "in ten bins of equal numbers of positions" in CHAPTER
    assert "on a thousand positions a seed drawn evenly" in CHAPTER
    assert (pairs.BINS, pairs.POSITIONS, pairs.QUANTILES) == (10, 1000, (0.1, 0.5, 0.9))


@pytest.mark.parametrize(("word", "ok"), [("supported", True), ("refuted", False), ("undecided", None)])
def test_the_metric_is_judged_by_its_one_outcome(word, ok):
    assert experiments.judge(claimed.METRIC, lambda: ({"spread": word}, 10, True), says="").ok is ok
