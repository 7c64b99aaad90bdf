"""`coverage`: fits against their closed forms, counts on known students, independence of seeds, decisions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from kdtheory.students.controlled import coverage

CPU = torch.device("cpu")
SMALL = coverage.Settings(student="table", contexts=6, steps=400)
NETWORK = replace(SMALL, student="network", unseen=6, steps=20)


def _fixed(*numbers: float) -> coverage.Teachers:
    return coverage.Teachers(*(torch.tensor([[x]], dtype=torch.float64) for x in numbers))


def test_the_teacher_is_the_mixture():
    where = coverage.places(SMALL)
    p = _fixed(0.5, 4.0, 0.6).log_p(where).exp().squeeze()
    assert float(p.sum()) == pytest.approx(1)
    assert float((p * where).sum()) == pytest.approx(0.5 - 0.2 * 4, abs=1e-6)  # Theorem 6: (1 - 2w) m
    assert float((p * where**2).sum()) == pytest.approx(1 + 16 + 0.25 - 2 * 0.5 * 0.8, abs=1e-3)


def test_a_free_gaussian_under_forward_kl_has_the_moments_of_its_teacher():
    given, where = coverage.teachers(SMALL, (100,)), coverage.places(SMALL)
    (found,) = coverage.run(SMALL, "fkl", (100,), CPU, 0.05)
    p = given.log_p(where).exp()
    mean = (p * where).sum(-1)
    width = ((p * where**2).sum(-1) - mean**2).sqrt()
    # on the grid the fit is exponential, so its discrete moments are matched; the line's ends cut the widest ones
    log_q = torch.log_softmax(-0.5 * ((where - mean.unsqueeze(-1)) / width.unsqueeze(-1)) ** 2, -1)
    best = (p * (given.log_p(where) - log_q)).sum(-1).mean()
    assert found.metrics["fkl"] <= float(best) + 1e-6
    assert found.metrics["fkl"] == pytest.approx(float(best), abs=0.02)


def test_fixed_width_under_forward_kl_is_at_the_mean():
    settings = replace(SMALL, width="fixed")
    given, where = coverage.teachers(settings, (100,)), coverage.places(settings)
    (found,) = coverage.run(settings, "fkl", (100,), CPU, 0.05)
    p = given.log_p(where).exp()
    mean = (p * where).sum(-1, keepdim=True)
    best = (p * (given.log_p(where) - torch.log_softmax(-0.5 * (where - mean) ** 2, -1))).sum(-1).mean()
    assert found.metrics["fkl"] == pytest.approx(float(best), abs=2e-3)


def test_void_and_recall_of_known_students():
    given, where = _fixed(0.0, 4.0, 0.6), coverage.places(replace(SMALL, tokens=801))
    log_p = given.log_p(where)

    def of(mean: float, width: float) -> dict[str, float]:
        log_q = torch.log_softmax(-0.5 * ((where - mean) / width) ** 2, -1).expand_as(log_p)
        return {name: float(value) for name, value in coverage.measure(log_p, log_q, given, where).items()}

    spans, sits = of(-0.8, np.sqrt(409 / 25)), of(-4.0, 1.0)
    assert spans["void"] == pytest.approx(0.28, abs=0.01)  # chapter 05; .01: .03 per token, 100 of them
    assert spans["teacher_void"] == pytest.approx(0.006, abs=0.001)
    assert (spans["recall"], sits["recall"]) == (1.0, 0.5)
    assert sits["void"] < 0.01


def test_losses_of_a_seed_share_their_start_and_seeds_do_not_touch_each_other():
    both = coverage.run(NETWORK, "w1", (100, 101), CPU, 0.01)
    (alone,) = coverage.run(NETWORK, "w1", (101,), CPU, 0.01)
    assert both[1].metrics == pytest.approx(alone.metrics, rel=1e-9)
    assert both[0].metrics["void"] != both[1].metrics["void"]
    first = coverage.run(NETWORK, "fkl", (100,), CPU, 0.01)[0].curve[0]["objective"]
    assert first == coverage.run(NETWORK, "fkl", (100,), CPU, 0.1)[0].curve[0]["objective"]


def test_every_context_has_a_void():
    (found,) = coverage.run(replace(NETWORK, contexts=500, unseen=500), "fkl", (100,), CPU, 0.01)
    assert found.metrics["void_tokens"] >= 2


def _decided(void: float, recall: float, least: float = 0.1, converged: bool = True) -> dict[str, str]:
    rng, rows = np.random.default_rng(0), []
    table = {"fkl": (0.3, 1.0), "w1": (0.3 * void, recall), **dict.fromkeys(coverage.SEEKING, (0.3 * least, 0.5))}
    for loss, (mass, modes) in table.items():
        for seed in range(10):
            noise = np.exp(rng.normal(scale=0.02))
            rows.append({"condition": "c", "loss": loss, "seed": seed, "void": mass * noise, "recall": modes})
    curves = [
        {"condition": "c", "loss": loss, "seed": 0, "step": k, "objective": 0.1**k if converged else 21.0 - k}
        for loss in table
        for k in range(21)
    ]
    tests = coverage.decide(pd.DataFrame(rows), pd.DataFrame(curves))["tests"]
    return {row["outcome"].removeprefix("c: "): row["decision"] for row in tests}


def test_decisions_on_known_tables():
    good = _decided(1.0, 1.0)
    assert set(good.values()) == {"supported"}
    assert len(good) == 8
    assert _decided(0.65, 1.0)["void mass, W1 / FKL"] == "undecided"
    assert _decided(0.3, 1.0)["void mass, W1 / FKL"] == "refuted"
    assert _decided(1.0, 0.7)["mode recall, W1 - FKL"] == "refuted"
    assert _decided(1.0, 0.85)["mode recall, W1 - FKL"] == "undecided"
    assert _decided(1.0, 1.0, least=1.5)["void mass, rkl / w1"] == "refuted"
    assert _decided(1.0, 1.0, converged=False)["void mass, W1 / FKL"] == "undecided (not converged)"


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="width = 'wide'"):
        coverage.Settings(width="wide")
    with pytest.raises(ValueError, match="known: fkl"):
        coverage.build("akl", SMALL)
