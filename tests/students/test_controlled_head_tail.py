"""`head-tail`: its set-up against independent facts, and its rule on synthetic tables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from kdtheory.claims.students import head_tail as claims
from kdtheory.students.controlled import batched, head_tail
from kdtheory.students.controlled import head_tail_rule as rule
from kdtheory.students.controlled.head_tail_gradient import measure, shares

CPU = torch.device("cpu")
SMALL = head_tail.EXPERIMENT.profile("smoke").conditions["sft"].settings


def test_the_teacher_is_zipfs_law_in_another_order_for_every_context():
    given = head_tail.problem(SMALL, (100, 101), CPU)
    ranks = np.arange(1, SMALL.tokens + 1) ** -SMALL.exponent
    expected = torch.from_numpy(ranks / ranks.sum()).float()
    p = given.held_log_p.exp()
    torch.testing.assert_close(p.sort(-1, descending=True).values, expected.expand_as(p), rtol=1e-4, atol=0)
    assert (p.argmax(-1)[0] != p.argmax(-1)[0, 0]).any()


def test_labels_follow_the_teacher():
    """Mean surprisal of the labels under the teacher that drew them: its entropy."""
    settings = replace(SMALL, corpus=20000, prompts=20000)
    given = head_tail.problem(settings, (100,), CPU)
    surprise = -given.prompt_log_p.gather(-1, given.labels[..., None])[0, :, 0]
    law = head_tail.zipf(settings)
    error = float(surprise.std()) / 20000**0.5
    assert abs(float(surprise.mean()) + float((law.exp() * law).sum())) < 4 * error


def test_shares_by_hand():
    """p = (.6, .3, .1): the head is the first token. FKL: |q - p|; RKL: q |log(q/p) - RKL|; here from uniform q."""
    p, q = np.array([0.6, 0.3, 0.1]), np.full(3, 1 / 3)
    forward, backward = np.abs(q - p), q * np.abs(np.log(q / p) - (q * np.log(q / p)).sum())
    found = shares(torch.from_numpy(p).log(), torch.from_numpy(q).log())
    assert float(found[0]) == pytest.approx(forward[0] / forward.sum())
    assert float(found[1]) == pytest.approx(backward[0] / backward.sum())


def test_a_uniform_student_always_prefers_the_head():
    """Theorem 10 of chapter 05; and a student ∝ p² reverses it for p = (3, 2, 1)/6 with its head of two tokens."""
    p = torch.distributions.Dirichlet(torch.full((40,), 0.3)).sample((1, 50)).clamp_min(1e-6)
    p = p / p.sum(-1, keepdim=True)
    assert float(measure(p.log(), torch.zeros_like(p))["agree"]) == 1
    p = torch.tensor([[[3.0, 2, 1], [4.0, 3, 2]]])  # heads of one (mass must exceed one half: two) and of two tokens
    p = p / p.sum(-1, keepdim=True)
    assert float(measure(p.log(), 2 * p.log())["agree"]) == 0
    assert float(measure(p.log(), 2 * p.log())["sharper"]) == 1


def test_the_best_epoch_is_kept_for_each_seed():
    settings = replace(SMALL, epochs=40)
    best = head_tail.tuned(settings, (100, 101), CPU)
    given = head_tail.problem(settings, (100, 101), CPU)
    validation = head_tail._validation(settings, given, batched.mlp(best.weights, given.held))
    torch.testing.assert_close(validation, best.loss, rtol=1e-5, atol=1e-6)
    for index, curve in enumerate(best.curves):
        lowest = min(curve, key=lambda point: point["validation"])
        assert float(best.loss[index]) == lowest["validation"]
        assert float(best.epoch[index]) == lowest["step"] * settings.batch // settings.corpus
        assert curve[-1]["objective"] == lowest["validation"]


def test_a_seed_does_not_depend_on_the_others_and_repeats():
    for loss in head_tail.LOSSES:
        alone = head_tail.simulate(SMALL, loss, (101,), CPU)[0]
        together = head_tail.simulate(SMALL, loss, (100, 101), CPU)[1]
        assert alone.metrics == pytest.approx(together.metrics, rel=1e-3)  # batched products round differently
        head_tail.tuned.cache_clear()
        assert head_tail.simulate(SMALL, loss, (101,), CPU)[0] == alone


def test_divergences_start_where_they_say():
    hard = head_tail.simulate(SMALL, "hard", (100,), CPU)[0].metrics
    for start, state in (("sft", "sft"), ("scratch", "untrained")):
        begins = [
            head_tail.simulate(replace(SMALL, start=start), loss, (100,), CPU)[0].curve[0] for loss in rule.LOSSES[1:]
        ]
        assert [point["tv"] for point in begins] == pytest.approx([hard[f"{state}_tv"]] * 2)


def _tables(
    agree: float, seen: float = 0.6, heads: tuple[float, float] = (0.4, 0.9), flat: bool = True, seeds: int = 10
):
    """Results and curves: TV falls from 1 to .5, errors on head and tail from 1 to `heads` (head; tail mirrored)."""
    results, curves = [], []
    for seed in range(seeds):
        state = {"uniform_agree": 1.0, "untrained_agree": 0.99, "sft_agree": agree + 0.001 * seed}
        results.append(
            {"condition": "sft", "loss": "hard", "seed": seed, **state, "sft_seen_agree": seen + 0.001 * seed}
        )
        hard = {0: 2.0, 75: 1.0 if flat else 1.5, 100: 1.0}
        curves += [
            {"condition": "sft", "loss": "hard", "seed": seed, "step": step, "objective": value}
            for step, value in hard.items()
        ]
        for start in ("sft", "scratch"):
            for loss, (head, tail) in (("fkl", heads), ("rkl", heads[::-1])):
                results.append({"condition": start, "loss": loss, "seed": seed})
                curves += [
                    {"condition": start, "loss": loss, "seed": seed, "step": step, "objective": 1.0,
                     "tv": 1 - 0.5 * x, "head": 2 - 2 * (1 - head) * x + 0.001 * seed, "tail": 2 - 2 * (1 - tail) * x}
                    for step, x in ((0, 0.0), (75, 0.75), (100, 1.0))
                ]  # fmt: skip
    return pd.DataFrame(results), pd.DataFrame(curves)


def _words(part: str, *arguments, **options) -> list[str]:
    rows = head_tail.EXPERIMENT.decide(*_tables(*arguments, **options))["tests"]
    return [row["decision"] for row in rows if row["part"] == part]


@pytest.mark.parametrize(
    ("agree", "word"),
    [(0.6, "supported"), (0.95, "refuted"), (0.2, "refuted"), (0.8, "undecided"), (0.4, "undecided")],
)
def test_the_rule_supports_refutes_and_waits(agree, word):
    assert _words("warm", agree) == [word, "supported"]
    assert _words("cold", agree) == ["supported", "supported"]


def test_no_plateau_no_decision_and_few_seeds_make_a_pilot():
    assert _words("warm", 0.6, flat=False) == ["undecided (not converged)"] * 2
    assert _words("cold", 0.6, flat=False) == ["supported"] * 2
    assert _words("warm", 0.6, seeds=3) == ["pilot: supported"] * 2


def test_which_error_goes_first():
    """Head and tail errors start at 2; head falls to 2 · heads[0] under forward KL, to 2 · heads[1] under reverse."""
    assert _words("fit", 0.6) == _words("fit-cold", 0.6) == ["supported"]
    assert _words("fit-later", 0.6) == ["supported"] * 2
    assert _words("fit", 0.6, heads=(0.9, 0.4)) == ["refuted"]
    assert _words("fit", 0.6, heads=(0.50, 0.53)) == ["undecided"]
    rows = head_tail.EXPERIMENT.decide(*_tables(0.6))["tests"]
    found = next(row["estimate"] for row in rows if row["part"] == "fit")
    assert found == pytest.approx(0.6 / 0.7 - 0.1 / 0.7)  # .6 of the head's error and .1 of the tail's, or reversed


def test_the_error_is_read_where_tv_has_fallen_so_far():
    """TV 1, .8, .5; head and tail mend in turn: at .9 all of it on the head, at .65 as much on the tail."""
    curve = pd.DataFrame({"seed": 0, "tv": [1.0, 0.8, 0.5], "head": [1.0, 0.6, 0.6], "tail": [1.0, 1.0, 0.2]})
    assert rule.mended_on_head(curve, 0.1) == pytest.approx([1.0])
    assert rule.mended_on_head(curve, 0.35) == pytest.approx([0.4 / (0.4 + 0.4)])
    assert np.isnan(rule.mended_on_head(curve, 0.6)).all()


def test_a_student_that_never_comes_so_far_leaves_it_undecided():
    results, curves = _tables(0.6)
    curves["tv"] = 0.9 + 0.1 * curves["tv"]
    rows = head_tail.EXPERIMENT.decide(results, curves)["tests"]
    assert {row["decision"] for row in rows if row["part"] == "fit-later"} == {"undecided (not converged)"}


def test_the_words_of_the_rules_hold_its_numbers():
    numbers = {name: f"{value:.2f}"[1:] for name, value in rule.RULE.items()}
    assert numbers["cold_low"] in claims.COLD.supported_if
    assert numbers["sft_low"] in claims.WARM.supported_if
    assert numbers["sft_high"] in claims.WARM.supported_if
    assert numbers["sft_refuted_below"] in claims.WARM.unsupported_if
    assert numbers["sft_refuted_above"] in claims.WARM.unsupported_if
    assert numbers["fit_low"] in claims.FIT.supported_if
    assert rule.RULE["fit_refuted_below"] == 0
    assert f"down by {numbers['fall']}" in claims.FIT.metric
