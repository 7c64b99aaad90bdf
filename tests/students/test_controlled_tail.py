"""`tail`: groups and times on cases with known answers, flows against closed forms and gradient descent, decisions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import kdtheory as kd
from kdtheory import simplex
from kdtheory.claims.geometry import smoothed
from kdtheory.students.controlled import relaxation, tail

SMALL = tail.Settings(tokens=18, steps=20)
CPU = torch.device("cpu")


def test_groups_are_octaves_of_rank():
    assert [(at.start + 1, at.stop) for at in relaxation.groups(126)] == [
        (4, 7),
        (8, 15),
        (16, 31),
        (32, 63),
        (64, 126),
    ]


def test_an_exponential_crosses_at_its_time_constant():
    times = np.geomspace(1e-3, 1e3, 4000)
    shares = np.exp(-times[:, None] / np.array([0.5, 7.0, 1e9]))
    found = relaxation.crossings(times, shares)
    np.testing.assert_allclose(found[:2], [0.5, 7.0], rtol=1e-3)
    assert np.isnan(found[2])


def test_the_slope_of_a_power_law_is_its_power():
    p = simplex.zipf(126, 1.0)
    times = np.array([p[at].mean() ** -2 for at in relaxation.groups(126)])
    assert relaxation.slope(p, 5 * times) == pytest.approx(-2, abs=1e-9)


def test_a_uniform_teacher_relaxes_at_the_rate_of_its_probability():
    log_p = torch.full((15,), -np.log(15.0), dtype=torch.float64)
    start = relaxation.Start(log_p, log_p + torch.randn(15, generator=torch.Generator().manual_seed(100)).double())
    times = relaxation.linear_times(relaxation.fisher_hessian(log_p.exp().numpy(), 0.5), start)
    np.testing.assert_allclose(times, 2 * 15, rtol=1e-3)  # κ p = 1/30; 1e-3: the grid of times


@pytest.mark.parametrize("metric", ["embedding", "line"])
def test_the_hessian_is_that_of_plain_sinkhorn_iterations(metric):
    given = tail.problem(replace(SMALL, metric=metric), 100)
    p = SMALL.teacher()
    ours = relaxation.sinkhorn_hessian(p, given.cost, 0.7)
    np.testing.assert_allclose(ours, smoothed.logit_hessian(p, given.cost.matrix().numpy(), 0.7), atol=1e-9)


def test_costs_have_mean_distance_one_and_seeds_differ():
    for metric in ("embedding", "line"):
        matrix = tail.problem(replace(SMALL, metric=metric), 100).cost.matrix().numpy()
        assert matrix[~np.eye(18, dtype=bool)].mean() == pytest.approx(1, abs=1e-9)
    other = tail.problem(SMALL, 101).cost.matrix().numpy()
    assert abs(other - tail.problem(SMALL, 100).cost.matrix().numpy()).max() > 0.1


@pytest.mark.parametrize("loss", ["jsd", "sinkhorn"])
def test_a_flow_near_the_teacher_is_the_linear_one(loss):
    settings = replace(SMALL, noise=0.01)
    (found,) = tail.simulate(settings, loss, (100,), CPU)
    for k in range(len(relaxation.groups(18))):
        assert found.metrics[f"time_{k}"] == pytest.approx(found.metrics[f"closed_{k}"], rel=0.03)


def test_flow_time_is_rate_times_steps_of_gradient_descent():
    given, loss, rate = tail.problem(SMALL, 100), kd.divergence("fkl"), 0.05
    end, path = relaxation.flow(loss, given.start)
    times = relaxation.flow_times(given.start, end, path)
    z, log_p, steps = given.start.logits.numpy().copy(), given.start.log_p.numpy(), 0
    first = relaxation.errors(log_p, z)
    reached = np.full(first.size, np.nan)
    while np.isnan(reached).any():
        z -= rate * (simplex.softmax(z) - np.exp(log_p))
        steps += 1
        now = relaxation.errors(log_p, z) <= relaxation.FITTED * first
        reached[now & np.isnan(reached)] = rate * steps
    np.testing.assert_allclose(times, reached, rtol=0.02)


def test_adam_and_flow_do_not_depend_on_the_other_seeds():
    settings = replace(SMALL, optimizer="adam")
    both, alone = (tail.simulate(settings, "fkl", seeds, CPU)[-1] for seeds in ((100, 101), (101,)))
    assert both.metrics == pytest.approx(alone.metrics, rel=1e-9, nan_ok=True)
    assert len(both.curve) == 21


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="metric = 'plane'"):
        tail.Settings(metric="plane")
    with pytest.raises(ValueError, match="known: fkl"):
        tail.build("w1", tail.problem(SMALL, 100), SMALL)


def _table(steeper: float, late: float = 0.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng, rows = np.random.default_rng(0), []
    for loss, slope in (("fkl", -1.0), ("sinkhorn", -1.0 + steeper)):
        for seed in range(10):
            value = slope + rng.normal(scale=0.05)
            late_here = late if loss == "sinkhorn" and seed == 0 else 0.0
            about = {"condition": "embedding", "loss": loss, "seed": seed, "censored": late_here}
            rows.append({**about, "slope": value, "closed_slope": value})
    curves = [
        {"condition": "embedding", "loss": loss, "seed": 0, "step": k, "objective": 0.1**k}
        for loss in ("fkl", "sinkhorn")
        for k in range(21)
    ]
    return pd.DataFrame(rows), pd.DataFrame(curves)


@pytest.mark.parametrize(
    ("steeper", "late", "word"),
    [(-1.0, 0, "supported"), (-2.0, 0, "refuted"), (-1.4, 0, "undecided"), (0.0, 0, "refuted"), (-1.0, 1, "undecided")],
)
def test_decisions_on_known_tables(steeper, late, word):
    rows = tail.decide(*_table(steeper, late))["tests"]
    (main,) = [row for row in rows if row["part"] == "main"]
    assert main["decision"] == word
