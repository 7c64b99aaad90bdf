"""Claims on drawn tokens and on other vocabularies: as recorded, by their rules, and never without runs."""

import re

import pytest
import torch

from kdtheory import checkout, claims
from kdtheory.claims.students import labels, tokenizers
from kdtheory.ledger import REGISTRY, Claim, Verdict, experiments
from kdtheory.ledger.runner import run_claim
from kdtheory.students import controlled, published
from kdtheory.students.controlled import label_rules, tokenizer_rules
from kdtheory.students.controlled import tokenizers as experiment

claims.load("students")
MODULES = (labels.__name__, tokenizers.__name__)
ITEMS = [item for item in REGISTRY if isinstance(item, Claim) and item.check.__module__ in MODULES]


def test_all_four_are_found():
    assert len(ITEMS) == 4


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.id)
def test_the_verdict_is_the_recorded_one_and_the_control_is_caught(item):
    assert run_claim(item).failures == ()


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.id)
def test_without_the_stored_runs_nothing_is_claimed(item, monkeypatch):
    def missing(name):
        raise checkout.EvidenceNotInstalledError("evidence not installed: here")

    monkeypatch.setattr(published, "stored", missing)
    assert run_claim(item).verdict is Verdict.OPEN


@pytest.mark.parametrize("rule", [labels.RULE, labels.WHOLE, tokenizers.RULE, tokenizers.BESIDE])
def test_one_refuted_outcome_refutes_and_one_undecided_leaves_it_open(rule):
    def decided(*words, seeds=10, plateau=True):
        found = {str(index): word for index, word in enumerate(words)}
        return experiments.judge(rule, lambda: (found, seeds, plateau), says="").ok

    assert decided("supported", "supported") is True
    assert decided("supported", "undecided") is None
    assert decided("undecided", "refuted") is False
    assert decided("supported", "supported", plateau=False) is None


@pytest.mark.parametrize(
    ("rule", "regions"), [(labels.RULE, label_rules.REGIONS), (tokenizers.RULE, tokenizer_rules.REGIONS)]
)
def test_the_rules_in_words_hold_the_registered_numbers(rule, regions):
    words = {float(number) for number in re.findall(r"-?\d*\.\d+", rule.supported_if + rule.unsupported_if)}
    assert words == set(label_rules.numbers(regions).values())


def test_sorted_transport_finds_hardly_more_of_a_relabelling_than_independent_ones():
    """What chapter 09 says of the best relabelling: against every context relabelled by itself."""
    settings = experiment.EXPERIMENT.profile("cpu").conditions["aligned"].settings
    given = experiment.problem(settings, tuple(range(10)), torch.device("cpu"))
    found = []
    for seed, log_p in enumerate(given.log_p[:, : settings.contexts]):
        generator = torch.Generator().manual_seed(seed)
        shuffled = torch.stack([row[torch.randperm(len(row), generator=generator)] for row in log_p])
        found.append(experiment.agreement(log_p, shuffled, given.partner[seed])["best_relabelling"])
    results = controlled.stored("tokenizers").results
    seen = results[(results["condition"] == "aligned") & (results["loss"] == "uld")]["best_relabelling"]
    assert abs(seen.mean() - sum(found) / 10) < 0.1
    assert seen.mean() < 0.6
