"""Three-way tests of hypotheses on known numbers, and the batched trainer against one seed at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

import kdtheory as kd
from kdtheory.students.controlled import batched
from kdtheory.students.controlled.hypotheses import Region, compared, family

TEN = np.array([0.9, 1.1, 1.0, 0.95, 1.05, 1.02, 0.98, 0.97, 1.03, 1.0])


def decided(values, region, **options):
    (row,) = family([compared("H0", "x", values, region, **options)])
    return row["decision"]


def test_interval_p_effect_and_power_agree_with_scipy():
    found = compared("H0", "slope", TEN, Region(0.7, 1.2))
    half = stats.t.ppf(0.975, 9) * TEN.std(ddof=1) / math.sqrt(10)
    assert (found.low, found.high) == pytest.approx((TEN.mean() - half, TEN.mean() + half), rel=1e-12)
    assert found.p == 2 / 2**10  # every seed lies on one side of both bounds
    assert found.effect == pytest.approx(min(1.0 - 0.7, 1.2 - 1.0) / TEN.std(ddof=1), rel=1e-9)
    noncentral = found.mde / TEN.std(ddof=1) * math.sqrt(10)
    critical = stats.t.ppf(0.975, 9)
    power = 1 - stats.nct.cdf(critical, 9, noncentral) + stats.nct.cdf(-critical, 9, noncentral)
    assert power == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize(
    ("region", "word"),
    [
        (Region(0.7, 1.2), "supported"),
        (Region(low=0.5), "supported"),
        (Region(high=0.5), "refuted"),
        (Region(low=1.5), "refuted"),
        (Region(high=0.5, refuted_above=1.5), "undecided"),  # between by rule
        (Region(low=1.0), "undecided"),  # the bound within the interval
        (Region(1.01, 1.2), "undecided"),
    ],
)
def test_the_three_regions(region, word):
    assert decided(TEN, region) == word


def test_without_plateau_or_with_a_family_too_large_nothing_is_decided():
    assert decided(TEN, Region(low=0.5), converged=False) == "undecided (not converged)"
    weak = compared("H0", "weak", TEN - 0.98, Region(low=0.0))
    rows = family([weak] * 20)
    assert rows[0]["p_holm"] > 0.05
    assert {row["decision"] for row in rows} == {"undecided"}
    with pytest.raises(ValueError, match="a family of 30 on 10 seeds"):
        family([weak] * 30)


def test_fewer_than_ten_seeds_make_a_pilot():
    assert decided(TEN[:3], Region(low=0.5)) == "pilot: supported"
    assert decided(TEN[:1], Region(low=0.5)) == "pilot: undecided"  # a single seed has no interval


@pytest.mark.parametrize(
    ("region", "bounds", "word"),
    [
        (Region(low=0.5), "below", "supported"),  # true times can only be longer
        (Region(high=1.5), "below", "undecided"),
        (Region(high=0.5), "below", "refuted"),
        (Region(low=1.5), "below", "undecided"),
        (Region(high=1.5), "above", "supported"),
        (Region(low=0.5), "above", "undecided"),
        (Region(low=1.5), "above", "refuted"),
        (Region(low=0.5), "", "undecided"),
    ],
)
def test_censored_numbers_support_only_what_they_bound(region, bounds, word):
    assert decided(TEN, region, censored=3, bounds=bounds) == word


def test_ratios_are_averaged_as_logarithms():
    found = compared("H0", "ratio", 4 * TEN, Region(low=3.0), scale="log")
    assert found.estimate == pytest.approx(4 * stats.gmean(TEN), rel=1e-12)
    assert found.decision(found.p) == "supported"
    with pytest.raises(ValueError, match=r"values\[1\] is -1.0"):
        compared("H0", "ratio", [1.0, -1.0], Region(low=3.0), scale="log")


def test_rows_hold_only_what_json_can():
    (row,) = family([compared("H0", "x", [1.0], Region(low=0.5), place="here")])
    assert row["low"] is None
    assert row["region_high"] is None
    assert row["place"] == "here"


@pytest.mark.parametrize("arguments", [{}, {"low": 2.0, "high": 1.0}, {"high": 1.0, "refuted_above": 0.5}])
def test_regions_that_contradict_themselves_are_refused(arguments):
    with pytest.raises(ValueError, match="needs refuted_below"):
        Region(**arguments)


# -- many students as one program --------------------------------------------------------------------------------------
def _problem(generator):
    return torch.randn(6, 3, generator=generator), torch.log_softmax(torch.randn(6, 4, generator=generator), -1)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("loss", ["fkl", "tvd"])
def test_a_seed_in_a_batch_is_the_seed_alone_by_torch_itself(optimizer, loss):
    def run(seeds):
        features, log_p = batched.draws(seeds, _problem)
        weights = batched.draws(seeds, lambda generator: batched.mlp_weights(generator, (3, 5, 4)))

        def objective(now):
            logits = batched.mlp(now, features)
            return batched.per_seed(kd.divergence(loss), teacher_logits=log_p, student_logits=logits)

        return batched.train(weights, objective, steps=20, rate=0.1, optimizer=optimizer)

    together, curves = run((4, 7, 9))
    features, log_p = _problem(torch.Generator().manual_seed(7))
    network = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4))
    first = batched.mlp_weights(torch.Generator().manual_seed(7), (3, 5, 4))
    with torch.no_grad():
        for layer, (weight, bias) in zip((network[0], network[2]), (first[:2], first[2:]), strict=True):
            layer.weight.copy_(weight.T)
            layer.bias.copy_(bias)
    kind = torch.optim.Adam if optimizer == "adam" else torch.optim.SGD
    stepping = kind(network.parameters(), lr=0.1)
    p = log_p.exp()
    for _ in range(20):
        stepping.zero_grad()
        log_q = torch.log_softmax(network(features), -1)
        each = (p * (log_p - log_q)).sum(-1) if loss == "fkl" else 0.5 * (p - log_q.exp()).abs().sum(-1)
        each.mean().backward()
        stepping.step()
    torch.testing.assert_close(together[0][1], network[0].weight.T.detach(), rtol=1e-4, atol=1e-5)
    assert [point["step"] for point in curves[1]] == list(range(21))
    assert curves[1][-1]["objective"] < curves[1][0]["objective"]


def test_the_rate_may_follow_a_schedule_and_steps_must_fit_the_curve():
    start = [torch.zeros(2, 1)]
    moved, _ = batched.train(
        start, lambda now: -now[0].sum(-1), steps=4, rate=lambda step: 1.0 + step, optimizer="sgd", points=4
    )
    assert moved[0].tolist() == [[10.0], [10.0]]
    with pytest.raises(ValueError, match="steps = 3"):
        batched.train(start, lambda now: now[0].sum(-1), steps=3, rate=1.0)
