"""Claims that stored runs of the controlled experiments decide: as recorded, by their rules, and never without runs."""

import pytest

from kdtheory import checkout, claims
from kdtheory.claims.modes import networks as modes
from kdtheory.claims.saturation import networks as saturation
from kdtheory.ledger import REGISTRY, Claim, Verdict, experiments
from kdtheory.ledger.runner import run_claim
from kdtheory.students import published

claims.load("saturation")
claims.load("modes")
ITEMS = [item for item in REGISTRY if isinstance(item, Claim) and item.check.__module__.endswith(".networks")]


def test_all_nine_are_found():
    assert len(ITEMS) == 9


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.id)
def test_the_verdict_is_the_recorded_one_and_the_control_is_caught(item):
    assert run_claim(item).failures == ()


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.id)
def test_without_the_stored_runs_nothing_is_claimed(item, monkeypatch):
    def missing(name):
        raise checkout.EvidenceNotInstalledError("evidence not installed: here")

    for module in (modes, saturation):
        module._runs.cache_clear()
    monkeypatch.setattr(published, "stored", missing)
    assert run_claim(item).verdict is Verdict.OPEN


def decided(rule, value, seeds=10, plateau=True):
    return experiments.judge(rule, lambda: (value, seeds, plateau), says="").ok


def test_the_stall_takes_both_the_time_and_the_distance():
    assert decided(saturation.STALL, {"repair time": "above", "final W1": "above"}) is True
    assert decided(saturation.STALL, {"repair time": "above", "final W1": "undecided"}) is None
    assert decided(saturation.STALL, {"repair time": "below", "final W1": "above"}) is False
    assert decided(saturation.STALL, {"repair time": "above", "final W1": "above"}, plateau=False) is None


def test_the_advantage_ends_where_it_was_predicted_and_nowhere_else():
    right = {**dict.fromkeys(saturation._LASTS, "above"), **dict.fromkeys(saturation._ENDS, "below")}
    assert decided(saturation.ENDS, right) is True
    assert decided(saturation.ENDS, right | {"gap-3": "undecided"}) is None
    assert decided(saturation.ENDS, right | {"gap-3": "below"}) is False
    assert decided(saturation.ENDS, right | {"tabular": "above"}) is False


def test_a_loss_wins_its_criterion_against_all_or_not_at_all():
    assert decided(modes.UNSEEN, {"a": "lower", "b": "lower"}) is True
    assert decided(modes.UNSEEN, {"a": "lower", "b": "undecided (not converged)"}) is None
    assert decided(modes.UNSEEN, {"a": "lower", "b": "higher"}) is False


def test_a_gain_of_a_tenth_is_the_whole_interval():
    assert decided(modes.GAIN, {"w1": (0.11, 0.2), "decision_cost": (0.12, 0.3)}) is True
    assert decided(modes.GAIN, {"w1": (0.05, 0.2), "decision_cost": (0.12, 0.3)}) is None
    assert decided(modes.GAIN, {"w1": (0.11, 0.2), "decision_cost": (-0.1, 0.05)}) is False


def test_what_is_left_at_full_rank_decides_capacity():
    assert decided(modes.CAPACITY, {"kl": "vanished", "w1": "vanished"}) is True
    assert decided(modes.CAPACITY, {"kl": "vanished", "w1": "undecided"}) is None
    assert decided(modes.CAPACITY, {"kl": "vanished", "w1": "left"}) is False
