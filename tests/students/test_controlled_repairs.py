"""`repairs`: starts, losses, escape times against theory, seeds apart, and rules that can come out three ways."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import kdtheory as kd
from kdtheory.students.controlled import batched, repair_rules, repairs, saturated
from kdtheory.students.controlled.escape import Plan, escape
from kdtheory.students.controlled.line_losses import QuickSinkhorn, RoundedW1

CPU = torch.device("cpu")
LINE = kd.TokenCost.line(np.linspace(0, 1, 8))
SMALL = repairs.Settings(contexts=12, bad=2, tokens=8, features=6, steps=60, fit_steps=300, gap=4.0)


@pytest.fixture
def logits():
    draw = torch.Generator().manual_seed(5)
    teacher = torch.randn(6, 8, generator=draw)
    student = 2 * torch.randn(6, 8, generator=draw)
    student[0, 3] += 12  # saturated
    student[1] = teacher[1] + 0.01 * student[1]
    return teacher, student


# -- where students start --------------------------------------------------------------------------------------------
def test_all_seeds_at_once_start_where_each_of_them_starts_alone():
    together = saturated.starts(SMALL.beginning(), (100, 101))
    for index, seed in enumerate((100, 101)):
        alone = saturated.start(SMALL.beginning(), seed)
        assert torch.equal(together.features[index], alone.features)
        assert torch.equal(together.log_p[index], alone.log_p)
        ours = batched.mlp([weight[index] for weight in together.weights], alone.features)
        assert torch.allclose(ours, saturated.network(alone.weights, alone.features), atol=0.02)  # 300 steps of Adam
        assert torch.allclose(together.gaps[index], alone.gaps, atol=0.02)


def test_the_gap_is_the_log_odds_of_the_wrong_token():
    settings = replace(SMALL, fit_steps=800)
    begin = saturated.starts(settings.beginning(), (100,))
    bad = begin.features[:, : settings.bad]
    q = batched.mlp(begin.weights, bad).double().softmax(-1).amax(-1)
    assert (q / (1 - q)).log().mean() == pytest.approx(settings.gap, abs=0.05)
    (outcome,) = repairs.simulate(replace(settings, steps=1), "fkl", (100,), CPU)
    assert outcome.metrics["initial_gap"] == pytest.approx(float((q / (1 - q)).log().mean()), abs=1e-5)


def test_a_cold_start_knows_nothing_of_the_good_contexts_and_is_as_wrong_in_the_bad_ones():
    settings = replace(SMALL, fit_steps=800)
    begin = saturated.starts(settings.beginning(), (100,), cold=True)
    q = batched.mlp(begin.weights, begin.features).softmax(-1)
    assert (q[:, settings.bad :] - 1 / settings.tokens).abs().max() < 0.02
    assert q[:, : settings.bad].amax(-1).min() > 0.95


# -- losses ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("epsilon", [0.1, 1 / 3, 1.0])
def test_the_quick_sinkhorn_divergence_is_the_librarys(logits, epsilon):
    quick, ours = QuickSinkhorn(cost=LINE, epsilon=epsilon), kd.divergence("sinkhorn", cost=LINE, epsilon=epsilon)
    both = {"teacher_logits": logits[0].double(), "student_logits": logits[1].double()}
    scale = ours.logit_gradient(**both).abs().sum(-1)
    error = (quick.logit_gradient(**both) - ours.logit_gradient(**both)).abs().sum(-1)
    assert (error < 1e-4 * (scale + epsilon)).all()  # its sweeps end at changes of 1e-5 in a potential over ε
    p, q = (x.double().softmax(-1) for x in logits)
    assert quick.value(p, q) == pytest.approx(ours.value(p, q), abs=1e-5)


def test_rounded_w1_is_w1_far_from_the_teacher_and_quadratic_near_it(logits):
    rounded, w1 = RoundedW1(cost=LINE, width=1e-4), kd.divergence("w1", cost=LINE)
    p, q = (x.double().softmax(-1).numpy() for x in logits)
    assert np.all(np.abs(rounded.value(p, q) - w1.value(p, q)) <= 1e-4)
    slight = p + 1e-3 * (q - p)
    wide = RoundedW1(cost=LINE, width=0.5)
    assert wide.value(p, slight) == pytest.approx(wide.value(p, p + 2e-3 * (q - p)) / 4, rel=1e-4)


def test_the_gradient_of_rounded_w1_is_that_of_its_value(logits):
    loss = RoundedW1(cost=LINE, width=0.05)
    teacher, student = (x.double() for x in logits)
    student.requires_grad_()
    value = loss.per_position(teacher.log_softmax(-1), student.log_softmax(-1)).sum()
    (through,) = torch.autograd.grad(value, student)
    closed = loss.logit_gradient(teacher_logits=teacher, student_logits=student.detach())
    assert torch.allclose(torch.as_tensor(closed), through, atol=1e-12)


# -- escape ----------------------------------------------------------------------------------------------------------
def test_two_tokens_escape_at_the_closed_form():
    """Theorem 10 of chapter 03: forward KL needs (Δ + 1 - e^-Δ)/2, total variation Δ + sinh Δ, until q_1 = 1/2."""
    gap, rate = 3.0, 0.02
    for name, expected in (("fkl", (gap + 1 - math.exp(-gap)) / 2), ("tvd", gap + math.sinh(gap))):
        loss, teacher = kd.divergence(name), torch.tensor([[[40.0, 0.0]]])

        def objective(now, _, loss=loss, teacher=teacher):
            return batched.per_seed(loss, teacher_logits=teacher, student_logits=now[0])

        _, times, curves = escape(
            [torch.tensor([[[0.0, gap]]])],
            objective,
            lambda now: now[0].softmax(-1)[..., 1].mean(-1),
            threshold=0.5,
            plan=Plan(10**5, rate, "sgd", curve=True),
            observe=lambda now, _: {"objective": now[0].sum((1, 2))},
        )
        assert rate * times[0] == pytest.approx(expected, rel=0.02)
        assert [point["step"] for point in curves[0]][:4] == [0, 1, 2, 3]
        assert curves[0][-1]["step"] > 0.7 * times[0]


def test_natural_gradient_w1_in_a_table_takes_the_time_of_the_natural_flow():
    """The flow of `kdtheory.dynamics`, another integrator, in the one bad context of a table."""
    settings = replace(SMALL, bad=1, tabular=True, learning_rate=0.01, steps=5000, fit_steps=800)
    (outcome,) = repairs.simulate(settings, "natural_w1", (100,), CPU)
    begin = saturated.starts(settings.beginning(), (100,))
    log_p, logits = (x[0, 0].double().numpy() for x in (begin.log_p, batched.mlp(begin.weights, begin.features)))
    p = np.exp(log_p)

    def near(q):
        return 0.5 * np.abs(p - q).sum(-1) - repairs.REPAIRED

    expected = _natural_time(p, logits, near)
    assert outcome.metrics["flow_time"] == pytest.approx(expected, rel=0.03)


def _natural_time(p, logits, near, step=1e-2):
    """Euler steps of z' = -φ, with φ from the exact solver."""
    time, z = 0.0, logits.copy()
    softmax = lambda x: np.exp(x - x.max()) / np.exp(x - x.max()).sum()  # noqa: E731
    while near(softmax(z)) > 0:
        z = z - step * np.asarray(kd.w1(p, softmax(z), cost=LINE).potentials.g)
        time += step
    return time


def test_a_seed_does_not_depend_on_its_batch():
    for loss, changes in (("w1", {}), ("sinkhorn", {}), ("fkl", {"batch": 4}), ("natural_w1", {"tabular": True})):
        settings = replace(SMALL, curve=True, whole=True, steps=20, **changes)
        both = repairs.simulate(settings, loss, (100, 101), CPU)
        (alone,) = repairs.simulate(settings, loss, (101,), CPU)
        assert both[1].metrics == pytest.approx(alone.metrics, rel=1e-3, abs=1e-5), loss
        assert [point["step"] for point in both[1].curve] == [point["step"] for point in alone.curve]


def test_the_same_run_twice_is_the_same_numbers():
    runs = [repairs.simulate(replace(SMALL, curve=True), "fkl+w1", (100, 101), CPU) for _ in range(2)]
    assert runs[0] == runs[1]


def test_weight_and_temperature_reach_the_loss():
    times = {
        weight: repairs.simulate(replace(SMALL, weight=weight, whole=True), "fkl+w1", (100,), CPU)[0].metrics["tv"]
        for weight in (0.0, 30.0)
    }
    plain = repairs.simulate(replace(SMALL, whole=True), "fkl", (100,), CPU)[0].metrics["tv"]
    assert times[0.0] == pytest.approx(plain, rel=1e-5)
    assert times[30.0] != pytest.approx(plain, rel=1e-2)


# -- rules -----------------------------------------------------------------------------------------------------------
def table(laws, seeds=10, spread=0.02, late=()):
    """Repair times by law: {(conditions, loss): gap -> time}."""
    rows, draw = [], np.random.default_rng(0)
    for (names, loss), law in laws.items():
        for name in names:
            gap = float(name.rsplit("-", 1)[-1]) if "gap" in name else 14.0
            for seed in range(seeds):
                time = law(gap) * math.exp(spread * draw.normal())
                censored = float((name, loss) in late)
                rows.append({"condition": name, "loss": loss, "seed": seed, "flow_time": time, "repair_steps": 5 * time,
                             "initial_gap": gap, "censored": censored, "budget_share": min(time, 1.0)})  # fmt: skip
    return pd.DataFrame(rows)


def decided(laws, part, **options):
    rows = repair_rules.decide(table(laws, **options), pd.DataFrame())["tests"]
    return {row["outcome"]: row["decision"] for row in rows if row["part"] == part}


GAPS = repair_rules.series()
EXPONENTIAL, LINEAR = (lambda gap: math.exp(gap)), (lambda gap: gap)


@pytest.mark.parametrize(
    ("law", "word"),
    [(EXPONENTIAL, "supported"), (LINEAR, "refuted"), (lambda gap: math.exp(0.7 * gap), "undecided")],
)
def test_slopes_come_out_three_ways(law, word):
    assert list(decided({(GAPS, "w1"): law}, "slopes").values()) == [word]


def test_forward_kl_has_to_be_flat():
    assert list(decided({(GAPS, "fkl"): LINEAR}, "slopes").values()) == ["supported"]
    assert list(decided({(GAPS, "fkl"): EXPONENTIAL}, "slopes").values()) == ["refuted"]


def test_a_censored_time_makes_the_slope_a_lower_bound():
    late = {("gap-9", "w1")}
    assert list(decided({(GAPS, "w1"): EXPONENTIAL}, "slopes", late=late).values()) == ["undecided"]
    steep = {(GAPS, "w1"): lambda gap: math.exp(1.4 * gap)}
    assert list(decided(steep, "slopes", late=late).values()) == ["refuted"]
    early = {("gap-3", "w1")}
    assert list(decided(steep, "slopes", late=early).values()) == ["undecided"]


def test_a_rate_that_sets_the_times_itself_decides_nothing():
    laws = {(GAPS, "tvd"): EXPONENTIAL, (("half-gap-7",), "tvd"): lambda gap: 2 * math.exp(7)}
    assert list(decided(laws, "slopes").values()) == ["undecided (not converged)"]


def test_terms_temperature_and_natural_gradient():
    prefix = {(repair_rules.series("natural-"), "natural_w1"): LINEAR}
    assert set(decided(prefix, "natural").values()) == {"supported"}
    wrong = {(repair_rules.series("natural-"), "natural_w1"): EXPONENTIAL}
    assert set(decided(wrong, "natural").values()) == {"refuted"}
    slow = {(("gap-9",), "fkl"): LINEAR, (("gap-9-weight-3",), "fkl+sinkhorn"): lambda _: 18.0}
    assert list(decided(slow, "fkl+sinkhorn").values()) == ["refuted"]
    halved = {(repair_rules.series("temperature-2-"), "w1"): lambda gap: math.exp(gap / 2)}
    assert list(decided(halved, "temperature").values()) == ["supported"]


def test_a_censored_w1_supports_the_lead_and_a_censored_forward_kl_nothing():
    laws = {(("adam",), "fkl"): lambda _: 50.0, (("adam",), "w1"): lambda _: 1500.0}
    assert list(decided(laws, "adam", late={("adam", "w1")}).values()) == ["supported"]
    assert list(decided(laws, "adam", late={("adam", "fkl")}).values()) == ["undecided"]


def test_the_kink_is_to_blame_only_if_rounding_it_helps():
    laws = {(("adam-gap-9",), "rounded_w1"): lambda _: 0.3, (("adam-gap-9",), "w1"): lambda _: 1.0}
    assert set(decided(laws, "kink", spread=0.0, late={("adam-gap-9", "w1")}).values()) == {"supported"}
    stuck = {(("adam-gap-9",), "rounded_w1"): lambda _: 1.0}
    assert set(decided(stuck, "kink", spread=0.0, late={("adam-gap-9", "rounded_w1")}).values()) == {"refuted"}


def test_families_are_small_enough_for_ten_seeds_to_decide():
    rows = repair_rules.decide(
        table({(tuple(item), loss): EXPONENTIAL for item, loss in _everything()}), pd.DataFrame()
    )["tests"]
    for hypothesis in ("H1", "H13"):
        assert 0 < sum(row["hypothesis"] == hypothesis for row in rows) * 2 / 2**10 < 0.05


def _everything():
    conditions = repairs.EXPERIMENT.profile("cpu").conditions
    return [((name,), loss) for name, item in conditions.items() for loss in item.losses]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: repairs.Settings(bad=0), "bad = 0"),
        (lambda: repairs.Settings(optimizer="lion"), "'lion'"),
        (lambda: repairs.Settings(tokens=2), "tokens = 2"),
        (lambda: repairs.Settings(batch=5, tabular=True), "batch"),
        (lambda: repairs.build("kl", repairs.Settings()), "'kl' is unknown"),
        (lambda: QuickSinkhorn(cost=LINE, epsilon=0.05), "below a tenth"),
        (lambda: RoundedW1(cost=LINE, width=0.0), "width = 0.0"),
        (lambda: RoundedW1(cost=kd.TokenCost.zero_one(4), width=0.1), "expected TokenCost.line"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
