"""Chapter 06: every claim comes out as recorded, spot values by other means, and a broken formula is caught."""

from fractions import Fraction

import numpy as np
import pytest

from kdtheory import claims
from kdtheory.claims.noise import estimators, outliers, samples, transport, unbiased
from kdtheory.ledger import REGISTRY, Claim, Verdict
from kdtheory.ledger.runner import run_claim

claims.load("noise")
CHAPTER = [item for item in REGISTRY if item.chapter == "noise"]


@pytest.mark.parametrize("item", [item for item in CHAPTER if isinstance(item, Claim)], ids=lambda item: item.id)
def test_verdict_is_the_recorded_one_and_controls_are_caught(item):
    assert run_claim(item).failures == ()


def test_every_row_of_the_chapter_is_settled():
    assert {row for item in CHAPTER for row in item.rows} == {"S1-38"}


def test_forward_kl_variance_by_simulation():
    rng = np.random.default_rng(1)
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.2, 0.7])
    drawn = q - np.eye(3)[rng.choice(3, size=200_000, p=p)]
    # 0.01: five standard errors of 200,000 draws are below it
    assert drawn.var(axis=0).sum() == pytest.approx(float(estimators.variance(q, p, -p / q)), abs=0.01)
    assert estimators.variance(q, p, -p / q) == pytest.approx(1 - 0.38)


def test_medians_and_probabilities_of_the_chapter():
    assert [transport.median(m, Fraction(3, 10)) for m in (1, 2, 3, 5)] == [0, 1, 1, 1]
    assert samples.missing((Fraction(1, 2), Fraction(1, 2)), 2) == Fraction(1, 2)
    assert 100 * outliers.fkl_fit() == Fraction(119, 20)


def test_dropped_tokens_get_nothing_and_the_law_sums_to_one():
    law = unbiased.sharpened((Fraction(8, 10), Fraction(15, 100), Fraction(5, 100)), Fraction(1, 2))
    assert sum(law) == 1
    assert law[2] == 0


@pytest.mark.parametrize(
    ("module", "name", "broken", "claim"),
    [
        (estimators, "variance", estimators.second_moment, "noise.drawn-token-variance"),
        (transport, "median", lambda m, theta: m, "noise.batch-median"),
        (unbiased, "sharpened", lambda p, skew: list(p), "noise.skew-sharpens"),
        (samples, "missing", lambda p, n: sum((1 - a) ** n for a in p), "noise.samples-missing"),
        (outliers, "fkl_fit", lambda: outliers.CLEAN, "noise.outlier-toy"),
    ],
)
def test_a_broken_formula_changes_the_verdict(module, name, broken, claim, monkeypatch):
    recorded = REGISTRY[claim].expected
    monkeypatch.setattr(module, name, broken)
    result = run_claim(REGISTRY[claim])
    assert result.verdict is not recorded or result.verdict is Verdict.OPEN
    assert result.failures
