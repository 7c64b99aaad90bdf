"""Chapter 01: every claim comes out as recorded; transport cost by another library; broken values are caught."""

import numpy as np
import ot
import pytest

from kdtheory import claims
from kdtheory.claims.parallel_lines import lines, smoothed
from kdtheory.ledger import REGISTRY, Claim, Verdict
from kdtheory.ledger.runner import run_claim

claims.load("parallel_lines")
CHAPTER = [item for item in REGISTRY if item.chapter == "parallel_lines"]


@pytest.mark.parametrize("item", [item for item in CHAPTER if isinstance(item, Claim)], ids=lambda item: item.id)
def test_verdict_is_the_recorded_one_and_controls_are_caught(item):
    assert run_claim(item).failures == ()


def test_every_row_of_the_chapter_is_settled():
    assert {row for item in CHAPTER for row in item.rows} == {f"S0-{number:02}" for number in range(7, 18)}


@pytest.mark.parametrize("theta", [-2.0, 1e-3, 0.7])
def test_earth_movers_distance_by_the_network_simplex(theta):
    heights = (np.arange(30) + 0.5) / 30
    points = [np.stack([np.full(30, at), heights], axis=1) for at in (0.0, theta)]
    weights = np.full(30, 1 / 30)
    # 1e-12: sums of 30 float64 terms
    assert ot.emd2(weights, weights, ot.dist(*points, metric="euclidean")) == pytest.approx(abs(theta), abs=1e-12)


def test_slopes_of_the_blurred_lines_at_a_place_worked_out_by_hand():
    slope = smoothed._slopes(theta=2.0, s=1.0, h=1e-3)
    assert slope["kl"] == pytest.approx(2.0, abs=1e-6)  # h²/6 times a third derivative below 1
    assert slope["tv"] == pytest.approx(np.exp(-0.5) / np.sqrt(2 * np.pi), abs=1e-6)
    assert 0 < slope["js"] < 0.5 * np.exp(-0.5)


def test_a_wrong_value_of_the_library_is_caught(monkeypatch):
    right = lines._of_disjoint
    monkeypatch.setattr(lines, "_of_disjoint", lambda name: 2 * right(name))
    assert run_claim(REGISTRY["parallel_lines.jensen-shannon"]).failures
    assert run_claim(REGISTRY["parallel_lines.total-variation"]).verdict is not Verdict.PROVED
