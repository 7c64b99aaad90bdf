"""The tables of registered hypotheses say what ledger and stored runs say, and nothing else."""

from __future__ import annotations

import json
import re

import pytest

from kdtheory import claims
from kdtheory.claims.students import common
from kdtheory.figures import hypotheses
from kdtheory.ledger import Claim
from kdtheory.students import controlled, published

LABELLED = {item.id: item for item in claims.load() if isinstance(item, Claim) and hypotheses._LABEL.match(item.source)}
RUNS = sorted(file.parent.name for file in published.folder().parent.glob("*/decisions.json"))
ROWS = [(name, row) for name in RUNS for row in controlled.stored(name).decisions.get("tests", [])]
TESTED = {(name, row["hypothesis"]) for name, row in ROWS}


def bare(label):
    """H5 of "H5, controls"."""
    return re.match(r"H\d+", label)[0]


def test_every_registered_hypothesis_has_a_rule_and_every_tested_one_a_claim():
    stored = hypotheses.REGISTERED.load()
    assert set(stored["claim"]) == set(LABELLED)
    assert set(map(bare, [label for _, label in TESTED])) <= set(map(bare, stored["hypothesis"]))
    assert (stored[["metric", "supported_if", "unsupported_if"]].map(len) > 0).all().all()


def test_every_outcome_that_was_tested_is_shown_once():
    shown = hypotheses.students_hypotheses(hypotheses.OUTCOMES.load())
    assert set(controlled.NAMES) < set(RUNS)
    assert len(shown) == len(ROWS)
    assert not shown.duplicated(["hypothesis", "outcome"]).any()


def test_labels_are_sorted_as_numbers(tmp_path):
    def claim(label):
        data = {"metric": "m", "supported_if": "s", "unsupported_if": "u"}
        return {
            "id": f"students.{label}",
            "source": f"kdtheory, {label}",
            "verdict": "OPEN",
            "evidence": [{"data": data}],
        }

    (tmp_path / "verdicts.json").write_text(json.dumps({"claims": [claim("H11"), claim("H2"), claim("H2, network")]}))
    assert list(hypotheses.REGISTERED.load(tmp_path)["hypothesis"]) == ["H2", "H2, network", "H11"]


def test_a_row_shows_power_only_where_nothing_was_decided_and_counts_what_was_censored(tmp_path):
    row = {"hypothesis": "H1", "outcome": "x", "region_low": None, "region_high": 1.5, "estimate": 2.0, "low": 1.0}
    row |= {"high": 3.0, "effect": -0.5, "mde": 0.25, "seeds": 10, "censored": 2}
    folder = tmp_path / "runs" / "some"
    folder.mkdir(parents=True)
    tests = [row | {"decision": "undecided"}, row | {"decision": "refuted", "censored": 0}]
    (folder / "decisions.json").write_text(json.dumps({"tests": tests}))
    shown = hypotheses.students_hypotheses(hypotheses.OUTCOMES.load(tmp_path))
    assert list(shown["detectable"]) == ["0.25", ""]
    assert list(shown["decision"]) == ["undecided, 2 censored", "refuted"]
    assert list(shown["estimate (95 %)"]) == ["2 (1 to 3)"] * 2
    assert list(shown["supported within"]) == ["below 1.5"] * 2


@pytest.mark.parametrize(
    ("decisions", "found"),
    [
        ({"a": "supported", "b": "supported"}, True),
        ({"a": "supported", "b": "refuted"}, False),
        ({"a": "supported", "b": "undecided"}, None),
        ({"a": "undecided (not converged)"}, None),
    ],
)
def test_outcomes_combine(decisions, found):
    assert common.every_outcome(decisions) is found


def test_a_hypothesis_that_no_stored_run_tests_is_an_error():
    name, _ = sorted(TESTED)[0]
    with pytest.raises(LookupError, match="H99"):
        common.tests(name, "H99")
