"""Chapter 01: every claim comes out as recorded; transport cost by another library; broken values are caught."""

from fractions import Fraction
from itertools import product

import numpy as np
import ot
import pytest

from kdtheory import claims
from kdtheory.claims.parallel_lines import lines, moving, sequences, smoothed, truncation
from kdtheory.figures import parallel_lines_products
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


def test_overlap_of_coins_by_enumeration():
    a, b, total = Fraction(1, 2), Fraction(3, 5), Fraction(0)
    for string in product((0, 1), repeat=6):
        chances = [np.prod([coin if toss else 1 - coin for toss in string]) for coin in (a, b)]
        total += min(chances)
    assert sequences.coin_overlap(a, b, 6) == total


def test_overlap_of_1600_tosses_against_the_normal_approximation():
    """Both counts are nearly normal with one width, and cross halfway: 1 - TV = 2 Φ(-Δ/2), Δ = 0.1 √T/width."""
    from scipy.stats import norm

    exact = float(sequences.coin_overlap(Fraction(1, 2), Fraction(3, 5), 1600))
    widths = np.sqrt([0.25, 0.24])
    assert exact == pytest.approx(2 * norm.cdf(-0.1 * 40 / widths.sum()), rel=0.1)  # 10%: far tail of a lattice law


def test_products_of_the_figure_against_exact_overlaps():
    table = parallel_lines_products.PRODUCTS.compute().set_index("steps")
    for steps in (1, 10, 100):
        exact = float(sequences.coin_overlap(Fraction(1, 2), Fraction(3, 5), steps))
        assert table.loc[steps, "overlap_tv"] == pytest.approx(exact, rel=1e-10)
    assert np.isfinite(table).all().all()
    assert (table["overlap_tv"] <= table["affinity"]).all()
    assert (table["overlap_tv"] >= table["affinity"] ** 2 / 2).all()


def test_floored_reverse_kl_at_a_place_worked_out_by_hand():
    p, kept, floor = np.array([0.5, 0.5, 0.0, 0.0]), np.array([True, True, False, False]), 1e-6
    q, teacher = np.full(4, 0.25), truncation._floored(p, kept, floor)
    by_hand = 0.5 * np.log(0.25 / (0.5 - 1e-6)) + 0.5 * np.log(0.25e6)
    assert float((q * np.log(q / teacher)).sum()) == pytest.approx(by_hand, abs=1e-14)


def test_shared_points_of_two_laws():
    assert moving.overlap([0, 1], ["1/3", "2/3"], [1, 2], ["1/4", "3/4"]) == Fraction(1, 4)


def test_a_wrong_law_of_sequences_is_caught(monkeypatch):
    monkeypatch.setattr(sequences, "product", lambda p, steps: p)
    assert run_claim(REGISTRY["parallel_lines.returns-long-sequences"]).failures


def test_a_teacher_that_is_not_cut_is_caught(monkeypatch):
    draw = truncation._draw

    def uncut(rng):
        p, kept, z, q = draw(rng)
        return (p + 0.1) / (p + 0.1).sum(), kept, z, q

    monkeypatch.setattr(truncation, "_draw", uncut)
    assert run_claim(REGISTRY["parallel_lines.returns-truncated-teacher"]).failures
