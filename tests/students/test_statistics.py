"""Against a textbook, an enumeration by hand, and the false-positive rate the rules promise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from kdtheory.students import statistics
from kdtheory.students.evaluate import METRICS

SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
"""Cushny and Peebles 1905, extra hours of sleep, drug 2 minus drug 1: the sample of Student's 1908 paper."""


def test_t_interval_of_students_own_example():
    """mean 1.58, s.d. 1.23, t(.975, 9) = 2.262: printed in every table; 5e-4: its four digits."""
    result = statistics.paired(SLEEP)
    half = 2.262157 * np.std(SLEEP, ddof=1) / math.sqrt(10)
    assert result.mean == pytest.approx(1.58)
    assert result.low == pytest.approx(1.58 - half, abs=5e-4)
    assert result.high == pytest.approx(1.58 + half, abs=5e-4)
    assert result.low == pytest.approx(0.70, abs=0.005)  # R: t.test(extra ~ group, paired = TRUE)
    assert result.high == pytest.approx(2.46, abs=0.005)


@pytest.mark.parametrize("values", [SLEEP, [0.5], [2.0, 2.0]])
def test_the_interval_alone_is_that_of_the_paired_comparison(values):
    whole = statistics.paired(values)
    assert statistics.interval(values) == (whole.mean, whole.low, whole.high)


@pytest.mark.parametrize("size", [2, 3, 5, 8, 10])
def test_sign_flip_is_exact(size):
    d = np.random.default_rng(size).normal(0.3, 1.0, size)
    flips = [abs(np.dot(signs, d)) for signs in itertools.product((-1, 1), repeat=size)]
    expected = np.mean([flip >= abs(d.sum()) * (1 - 1e-12) for flip in flips])  # 1e-12: ties up to rounding
    assert statistics.paired(d).p == pytest.approx(expected, abs=1e-15)


def test_smallest_p_values():
    """Two sides of 2^n patterns: .25, .0625 and .00195 for three, five and ten seeds."""
    for seeds, p in ((3, 0.25), (5, 0.0625), (10, 2 / 1024)):
        assert statistics.paired([1.0 + 0.01 * seed for seed in range(seeds)]).p == pytest.approx(p)


def test_degenerate_samples():
    single = statistics.paired([0.5])
    assert (single.low, single.high, single.p) == (-math.inf, math.inf, 1.0)
    same = statistics.paired([0.0, 0.0, 0.0])
    assert (same.mean, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("values", [[], [0.1, float("nan")], [0.1, float("inf")]])
def test_differences_that_are_no_numbers_are_refused(values):
    with pytest.raises(ValueError, match="differences"):
        statistics.paired(values)


def test_holm_by_hand():
    """Sorted: .01·4, .02·3, .03·2 and .04·1, each at least the one before."""
    assert statistics.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert statistics.holm([]) == []


def decision(differences: list[float], p_holm: float = 0.0, converged: bool = True) -> str:
    result = statistics.paired(differences)
    return statistics.decide(result, p_holm=p_holm, reference=1.0, converged=converged)


def test_three_way_decision():
    noise = [0.001 * (-1) ** index for index in range(10)]
    assert decision([-0.05 + e for e in noise]) == "lower"
    assert decision([0.05 + e for e in noise]) == "higher"
    assert decision([-0.005 + e for e in noise]) == "undecided"  # clear, but below one per cent
    assert decision([-0.05 + 100 * e for e in noise]) == "undecided"  # large, but not clear
    assert decision([-0.05 + e for e in noise], p_holm=0.06) == "undecided"
    assert decision([-0.05 + e for e in noise], converged=False) == "undecided (not converged)"


def test_fewer_than_ten_seeds_are_a_pilot():
    clear = [-0.05, -0.051, -0.049]
    assert decision(clear, p_holm=0.25) == "pilot: lower"
    assert decision([-d for d in clear], p_holm=0.25) == "pilot: higher"
    assert decision(clear, converged=False) == "pilot: undecided (not converged)"
    assert decision([*clear * 3], p_holm=1.0).startswith("pilot")
    assert not decision([*clear * 3, -0.05], p_holm=1.0).startswith("pilot")


@pytest.mark.parametrize("seeds", [3, 10])
def test_false_positives(seeds):
    """No effect: the 95 % interval misses 0 in 5 % of 400 samples, 2 to 8 % being three standard errors.

    The control: a percentile bootstrap, whose rate the protocol refuses, errs far more often on three seeds.
    """
    rng = np.random.default_rng(7)
    samples = rng.normal(size=(400, seeds))
    results = [statistics.paired(sample) for sample in samples]
    rate = np.mean([result.low > 0 or result.high < 0 for result in results])
    assert 0.02 < rate < 0.08
    assert np.mean([result.p < 0.05 for result in results]) <= 0.07
    if seeds == 3:
        index = rng.integers(0, 3, size=(400, 3))
        ends = np.quantile(samples[:, index].mean(-1), [0.025, 0.975], axis=1)
        assert np.mean((ends[0] > 0) | (ends[1] < 0)) > 0.15


def test_false_positives_of_the_whole_family():
    """Ten seeds, ten losses, no effect: some verdict in at most 5 % of families; more than 5 of 24 has p = .003."""
    rng = np.random.default_rng(11)
    families = 0
    for _ in range(24):
        results = [statistics.paired(rng.normal(size=10)) for _ in range(10)]
        adjusted = statistics.holm([result.p for result in results])
        words = [
            statistics.decide(result, p_holm=p, reference=0.0, converged=True)
            for result, p in zip(results, adjusted, strict=True)
        ]
        families += any(word != "undecided" for word in words)
    assert families <= 5


def curve(final_quarter: float, total: float = 1.0, level: float = 10.0) -> statistics.Convergence:
    objective = [level, level - 0.5 * (total - final_quarter), level - (total - final_quarter), level - total]
    return statistics.convergence("fkl", [0, 40, 60, 80], objective)


def test_plateau_rule_on_both_sides():
    share, change = statistics.PLATEAU_SHARE, statistics.PLATEAU_CHANGE
    assert curve(0.99 * share).converged
    assert not curve(1.01 * share, level=2.0).converged
    small = 0.99 * change * 9.0  # relative to the final value 9
    assert curve(small, total=1.0).converged
    assert not curve(1.02 * max(change * 9.0, share)).converged
    assert statistics.convergence("x", [0, 3, 4], [2.0, 2.0, 2.0]).converged
    rising = statistics.convergence("x", [0, 3, 4], [1.0, 1.0, 1.5])
    assert not rising.converged


def test_plateau_of_exponential_decay():
    """exp(-t/τ): the last quarter holds e^{-3T/4τ} - e^{-T/τ} of 1 - e^{-T/τ}: 5.8 % at T = 3 τ and 4.1 % at T = 3.6 τ.

    Without a floor, so that the final value is small and only the share can pass.
    """
    steps = [0, 25, 50, 75, 100]
    for ratio, expected in ((3.0, False), (3.6, True), (1.0, False)):
        values = [math.exp(-ratio * step / 100) for step in steps]
        share = (values[3] - values[4]) / (values[0] - values[4])
        result = statistics.convergence("x", steps, values)
        assert result.share == pytest.approx(share)
        assert result.converged is expected


def test_curves_without_the_needed_points_are_refused():
    with pytest.raises(ValueError, match="three quarters"):
        statistics.convergence("fkl", [0, 50, 100], [3.0, 2.0, 1.0])


def frames(effect: float, seeds: int, drift: float = 0.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(3)
    rows, points = [], []
    for seed in range(seeds):
        shared = rng.normal(1.0, 0.05)
        for loss in ("fkl", "rkl", "w1"):
            value = shared * (1 + (effect if loss == "w1" else 0.0)) + rng.normal(0, 0.001)
            rows.append({"loss": loss, "seed": seed, **dict.fromkeys(METRICS, value)})
            for step, objective in ((0, 2.0), (75, 1.0 + (drift if loss == "w1" else 0.0)), (100, 1.0)):
                points.append({"loss": loss, "seed": seed, "step": step, "objective": objective})
    return pd.DataFrame(rows), pd.DataFrame(points)


def test_table_pairs_by_seed():
    """The effect of 5 % is as large as the spread between seeds; pairing sees it."""
    rows, checks = statistics.table(*frames(0.05, 10))
    found = {(row["metric"], row["loss"], row["reference"]): row["decision"] for row in rows}
    assert found["w1", "w1", "fkl"] == "higher"
    assert found["w1", "w1", "rkl"] == "higher"
    assert found["w1", "rkl", "fkl"] == "undecided"
    assert len(rows) == 3 * len(METRICS)
    assert all(check["converged"] for check in checks)


def test_table_holds_back_without_a_plateau():
    rows, _ = statistics.table(*frames(0.05, 3, drift=0.2))
    found = {(row["loss"], row["reference"]): row["decision"] for row in rows if row["metric"] == "fkl"}
    assert found["w1", "fkl"] == "pilot: undecided (not converged)"
    assert found["rkl", "fkl"] == "pilot: undecided"


def test_losses_with_fewer_seeds_are_pilots_and_leave_the_family_alone():
    """Ten seeds of two losses, three of another: the third decides nothing and changes no adjusted p-value."""
    rng = np.random.default_rng(3)
    rows = [
        {"loss": loss, "seed": seed, **{metric: 1.0 + rng.normal() / 100 + shift for metric in METRICS}}
        for loss, shift, seeds in (("fkl", 0.0, 10), ("rkl", 0.1, 10), ("akl", 0.2, 3))
        for seed in range(seeds)
    ]
    results = pd.DataFrame(rows)
    curves = pd.DataFrame(
        [
            {"loss": row["loss"], "seed": row["seed"], "step": step, "objective": 1.0}
            for row in rows
            for step in (0, 3, 4)
        ]
    )
    found, _ = statistics.table(results, curves)
    by_loss = {row["loss"]: row for row in found if row["metric"] == "tv"}
    assert by_loss["rkl"]["decision"] == "higher"
    assert by_loss["akl"]["decision"] == "pilot: higher"
    assert (by_loss["akl"]["seeds"], by_loss["rkl"]["seeds"]) == (3, 10)
    alone, _ = statistics.table(results[results["loss"] != "akl"], curves[curves["loss"] != "akl"])
    assert {row["metric"]: row["p_holm"] for row in alone} == {
        row["metric"]: row["p_holm"] for row in found if row["loss"] == "rkl"
    }


def test_losses_without_a_common_seed_are_refused():
    rows = [{"loss": loss, "seed": seed, **dict.fromkeys(METRICS, 1.0)} for seed, loss in enumerate(("fkl", "rkl"))]
    curves = pd.DataFrame([{**row, "step": step, "objective": 1.0} for row in rows for step in (0, 3, 4)])
    with pytest.raises(ValueError, match="rkl and fkl have no seed"):
        statistics.table(pd.DataFrame(rows), curves)


def test_a_diverged_run_is_not_left_out():
    results, curves = frames(0.05, 3)
    results.loc[1, "tv"] = float("nan")
    with pytest.raises(ValueError, match="tv of rkl, seed 0 is nan"):
        statistics.table(results, curves)
