"""The benchmarks' own instruments: the clock, the comparison, the reference that peers are measured against."""

from __future__ import annotations

import itertools
import math

import numpy as np
import ot
import pytest
import torch

import kdtheory as kd
from kdtheory import figures
from kdtheory.figures import transport_peers
from tests.benchmarks import __main__ as command
from tests.benchmarks import bench_gpu, bench_sinkhorn, bench_steps, timing, worst
from tests.benchmarks.peers import problems, reference, trial
from tests.benchmarks.peers.adapters import Answer, Peer
from tests.benchmarks.timing import Case, DisagreementError, Loop

PAIR = problems.pair(0)


# -- timing ------------------------------------------------------------------------------------------------------------
class Clock:
    """Seconds that pass only when a job says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds


def test_the_first_run_of_a_short_job_does_not_count_and_jobs_take_turns():
    clock, order = Clock(), []
    first = itertools.chain([9e-1], itertools.repeat(0.1))

    def job(name, seconds):
        order.append(name)
        clock.spend(seconds)

    times = timing.interleaved({"a": lambda: job("a", next(first)), "b": lambda: job("b", 0.2)}, 3, clock)
    assert times == pytest.approx({"a": 0.1, "b": 0.2})
    assert order == ["a", "b"] * 4


def test_the_first_run_of_a_long_job_counts():
    clock, runs = Clock(), []

    def job():
        runs.append(1)
        clock.spend(5.0)

    assert timing.interleaved({"long": job}, 2, clock) == {"long": 5.0}
    assert len(runs) == 2


def test_set_up_cancels_in_the_time_of_an_iteration():
    clock = Clock()
    loop = Loop(lambda n: clock.spend(0.7 + 0.01 * n), 2, 12)
    assert timing.per_iteration({"loop": loop}, 3, clock) == {"loop": pytest.approx(0.01)}


def case(**changes):
    known = {"name": "x", "rows": 2, "tokens": 3, "peer_name": "peer", "tolerance": 1e-3}
    jobs = {"ours": lambda: np.array([1.0, 2.0]), "peer": lambda: np.array([1.0, 2.001])}
    return Case(**{**known, **jobs, **changes})


def test_one_percent_is_noticed():
    assert case().check() == pytest.approx(5e-4, rel=1e-3)
    command.self_check(case())
    with pytest.raises(DisagreementError, match="differs from peer"):
        case(ours=lambda: np.array([1.01, 2.02])).check()
    with pytest.raises(SystemExit, match="1 % off passes"):
        command.self_check(case(tolerance=0.1))


def test_an_oracle_stands_in_for_a_peer_that_computes_something_else():
    assert case(peer=lambda: np.array([7.0, 7.0]), oracle=lambda: np.array([1.0, 2.0])).check() == 0.0


@pytest.mark.parametrize(
    ("target", "speed", "of_fkl", "reached"),
    [(10, 12, 1, "yes"), (10, 9, 1, "no"), (-1.5, 1, 1.4, "yes"), (-1.5, 1, 1.6, "no"), (0, 1, 1, "")],
)
def test_targets_are_compared_the_right_way_round(target, speed, of_fkl, reached):
    assert timing.line(case(target=target), 0.0, 1.0, speed, of_fkl)["reached"] == reached


# -- the reference -----------------------------------------------------------------------------------------------------
def test_reference_agrees_with_pot_where_pot_converges():
    plan = ot.bregman.sinkhorn_log(PAIR.p, PAIR.q, PAIR.C, PAIR.epsilon, stopThr=1e-14, numItermax=20000)
    sharp = (plan * PAIR.C).sum()
    entropic = sharp + PAIR.epsilon * (plan * np.log(plan)).sum()
    relative = sharp + PAIR.epsilon * (plan * np.log(plan / np.outer(PAIR.p, PAIR.q))).sum()
    known = {"sharp": sharp, "entropic": entropic, "relative": relative, "w1": ot.emd2(PAIR.p, PAIR.q, PAIR.C)}
    for name, value in known.items():
        found = reference.value(name, PAIR.p, PAIR.q[None], PAIR.C, PAIR.epsilon)[0]
        assert float(found) == pytest.approx(value, rel=1e-11), name


def test_reference_divergence_vanishes_at_p_and_is_the_difference_elsewhere():
    """Against 0-1 costs and two tokens, whose optimal plan solves a quadratic equation."""
    C, epsilon, p, q = 1 - np.eye(2), 0.3, np.array([0.3, 0.7]), np.array([0.6, 0.4])

    def value(a, b):
        ratio = math.exp(-2 / epsilon)  # x (1 - a - b + x) ratio = (a - x)(b - x), x = plan[0, 0]
        roots = np.roots([1 - ratio, -(a[0] + b[0]) - ratio * (1 - a[0] - b[0]), a[0] * b[0]]).real
        (x,) = [root for root in roots if max(0, a[0] + b[0] - 1) < root < min(a[0], b[0])]
        plan = np.array([[x, a[0] - x], [b[0] - x, 1 - a[0] - b[0] + x]])
        return (plan * C).sum() + epsilon * (plan * np.log(plan / np.outer(a, b))).sum()

    found = reference.value("divergence", p, np.array([q, p]), C, epsilon)
    assert float(found[0]) == pytest.approx(value(p, q) - value(p, p) / 2 - value(q, q) / 2, rel=1e-10)
    assert abs(float(found[1])) < 1e-15


def test_reduced_value_moves_only_what_differs():
    surplus, deficit, mass = bench_sinkhorn.reduced(PAIR.p, PAIR.q)
    found = reference.value("reduced sharp", PAIR.p, PAIR.q[None], PAIR.C, PAIR.epsilon)[0]
    there, here = surplus > 0, deficit > 0
    plan = ot.bregman.sinkhorn_log(
        surplus[there], deficit[here], PAIR.C[np.ix_(there, here)], PAIR.epsilon, stopThr=1e-14, numItermax=20000
    )
    assert float(found) == pytest.approx(mass * (plan * PAIR.C[np.ix_(there, here)]).sum(), rel=1e-11)


# -- the trial ---------------------------------------------------------------------------------------------------------
def answering(gradient):
    value = float(reference.value("relative", PAIR.p, PAIR.q[None], PAIR.C, PAIR.epsilon)[0])
    return trial.judge(Peer("x", "x", "relative", "x", None), Answer(value, gradient), PAIR)


def test_trial_passes_the_gradient_and_not_that_of_another_functional():
    """A constant does not matter, the sharp value's gradient, a flipped sign and an entropy's slope do."""
    exact = reference.gradient("relative", PAIR.p, PAIR.q, PAIR.C, PAIR.epsilon)
    assert answering(exact + 3.0)["gradient_error"] < 1e-12
    assert answering(-exact)["gradient_error"] == pytest.approx(2.0)
    assert answering(reference.gradient("sharp", PAIR.p, PAIR.q, PAIR.C, PAIR.epsilon))["gradient_error"] > 0.05
    assert answering(exact + PAIR.epsilon * np.log(PAIR.q))["gradient_error"] > 0.05


def test_trial_says_where_a_gradient_is_not_finite():
    pair = problems.without(PAIR, slice(0, 4), slice(4, 8))
    exact = np.zeros(problems.TOKENS)
    exact[pair.q > 0] = reference.gradient("relative", pair.p, pair.q, pair.C, pair.epsilon)
    peer, value = Peer("x", "x", "relative", "x", None), trial.expected("relative", pair)[0]
    outside, inside = exact.copy(), exact.copy()
    outside[5], inside[0] = -np.inf, np.nan
    assert trial.judge(peer, Answer(value, outside), pair)["unusable"] == 1
    assert trial.judge(peer, Answer(value, outside), pair)["gradient_error"] < 1e-12
    assert trial.judge(peer, Answer(value, inside), pair)["gradient_error"] == math.inf


def test_stored_peers_hold_ours_and_every_library(root):
    """Ours is right and finite everywhere; that several of the others are not is what the table is for."""
    stored = figures.load_data("transport_peers", root / "figures" / "data")
    assert set(stored["library"]) == set(transport_peers._SHADES)
    ours = stored[stored["library"] == "kdtheory"]
    assert {"w1", "relative", "entropic", "sharp", "divergence", "reduced relative", "reduced sharp"} == set(
        ours["functional"]
    )
    assert (ours[["gradient_error", "zero_gradient_error"]] < 1e-6).all(axis=None)  # default tolerance 1e-9
    assert set(ours["zero_gradient"]) == {"finite"}
    assert not stored["gradient_error"].min() >= 1e-6


# -- worst cases -------------------------------------------------------------------------------------------------------
def test_an_interval_that_misses_the_exact_value_is_an_error():
    cost, (p, q) = kd.TokenCost.line(np.linspace(0, 1, worst.TOKENS)), next(worst.pairs(np.random.default_rng(0)))[1]
    known = worst.exact(p, q, cost.matrix().numpy())
    found = worst.measured(p, q, cost, 0.05, "reduced", known)
    assert found["late"] == 0
    assert 0 < found["width"] < 0.1
    with pytest.raises(DisagreementError, match="misses the exact value"):
        worst.measured(p, q, cost, 0.05, "reduced", known + 0.1)


def test_stored_worst_cases_hold_every_cost_and_form(root):
    stored = figures.load_data("transport_worst_table", root / "figures" / "data")
    assert set(stored["form"]) == {"full", "reduced"}
    assert stored["cost"].nunique() == 7
    assert stored["late"].sum() > 0  # the table shows where the iteration does not get through


# -- steps -------------------------------------------------------------------------------------------------------------
def test_the_peak_of_a_step_is_what_it_holds_beyond_its_result():
    """Up to 64 bytes: torch may hold the two numbers as tensors."""
    x = torch.ones(1000, 1000)
    assert 0 <= bench_steps.peak(lambda: ((x + 1) * 2,)) - x.nbytes <= 64
    assert 0 <= bench_steps.peak(lambda: (torch.add(x, 1).mul_(2),)) <= 64


def test_a_step_that_differs_from_the_reference_is_noticed():
    problem, fkl = bench_steps.Problem(5, 30), kd.divergence("fkl")
    step, reference = problem.ours(fkl), problem.reference("fkl", fkl)
    assert bench_steps.agreement("fkl", step, reference, problem) < 1e-5
    with pytest.raises(DisagreementError, match="differs from the whole logits"):
        bench_steps.agreement("fkl", problem.ours(kd.divergence("rkl")), reference, problem)


@pytest.mark.parametrize(
    ("name", "tokens", "seconds", "buffers", "reached"),
    [
        ("fkl", 32768, 1.14, 1.9, "yes"),
        ("fkl", 32768, 1.16, 1.9, "no"),
        ("fkl", 32768, 1.14, 2.1, "no"),
        ("akl", 32768, 9.0, 9.0, ""),
        ("fkl", 1024, 9.0, 9.0, ""),
    ],
)
def test_f_divergences_are_held_to_their_bound(name, tokens, seconds, buffers, reached):
    problem = bench_steps.Problem(1, 4)
    problem.tokens = tokens
    known = {"hard": 1.0, "hard, torch on whole logits": 1.0}
    line = bench_steps._row(name, problem, {**known, name: seconds}, {**known, name: buffers}, 0.0)
    assert line["reached"] == reached


# -- GPU ---------------------------------------------------------------------------------------------------------------
@pytest.mark.skipif(torch.cuda.is_available(), reason="says that there is no GPU")
def test_without_a_gpu_the_benchmark_says_so(tmp_path):
    with pytest.raises(SystemExit, match="sees no CUDA device"):
        bench_gpu.run("cuda", None, tmp_path)


def test_a_finished_part_is_skipped_and_an_unknown_one_refused(tmp_path, capsys):
    (tmp_path / "cpu_closed.csv").write_text("done")
    bench_gpu.run("cpu", ["closed"], tmp_path)
    assert "skipped" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="one of dense, topk, closed"):
        bench_gpu.run("cpu", ["dence"], tmp_path)


def test_parts_run_at_a_tiny_size(tmp_path):
    bench_gpu.run("cpu", None, tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == {"cpu_dense", "cpu_topk", "cpu_closed", "cpu_steps"}
