"""Registering, running and reporting claims, in registries of their own."""

import importlib
import io
import json
from contextlib import contextmanager

import pytest
import sympy as sp
from rich.console import Console

from kdtheory import claims
from kdtheory.ledger import REGISTRY, Anchor, Evidence, RegistrationError, Registry, Verdict, report, runner, symbolic

p, q = sp.symbols("p q", positive=True)
FIELDS = {"id", "chapter", "statement", "source", "verdict", "expected", "evidence", "control", "seconds"}


@pytest.fixture
def registry():
    return Registry()


def add(registry, id="test.identity", *, check=None, control=None, **fields):
    stated = {"statement": "p + p = 2p", "source": "kdtheory", "expected": Verdict.PROVED, "scope": "scalar identity"}
    made = registry.claim(id, **(stated | fields))(check or (lambda: symbolic.identity(p + p, 2 * p)))
    made.control(control or (lambda: symbolic.identity(p + p, 3 * p)))
    return made


def the_result(registry):
    (result,) = runner.run(registry=registry)
    return result


def test_a_sound_claim_passes(registry):
    add(registry)
    result = the_result(registry)
    assert (result.verdict, result.failures) == (Verdict.PROVED, ())
    assert [control.outcome for control in result.controls] == ["caught"]


def test_a_changed_verdict_fails(registry):
    add(registry, expected=Verdict.CORRECTED)
    (failure,) = the_result(registry).failures
    assert "verdict is PROVED, recorded is CORRECTED" in failure


@pytest.mark.parametrize(
    ("control", "outcome"),
    [
        (lambda: symbolic.identity(p, p), "passed"),
        (lambda: [], "passed"),
        (lambda: Evidence("numeric", "supports", None, "no idea"), "undecided"),
        (lambda: 1 / 0, "raised"),
        (lambda: [symbolic.identity(p, p), symbolic.identity(p, q)], "caught"),
    ],
)
def test_a_control_must_fail(registry, control, outcome):
    add(registry, control=control)
    result = the_result(registry)
    assert result.controls[0].outcome == outcome
    assert bool(result.failures) is (outcome != "caught")
    if outcome in ("passed", "undecided"):
        assert "broken check" in result.failures[0]


def test_one_broken_control_of_two_is_found(registry):
    add(registry).control(lambda: symbolic.identity(q, q))
    assert len(the_result(registry).failures) == 1


def test_a_failed_check_fails_whatever_the_verdict(registry):
    failing = Evidence("numeric", "supports", False, "off by one")
    add(registry, check=lambda: [symbolic.identity(p, p), failing], expected=Verdict.OPEN)
    assert any("off by one" in failure for failure in the_result(registry).failures)


def test_an_exception_is_reported_and_loses_no_other_claim(registry):
    add(registry, "test.raises", check=lambda: {}["missing"])
    add(registry, "test.sound")
    raised, sound = runner.run(registry=registry)
    assert "KeyError: 'missing'" in raised.error
    assert "KeyError" in raised.failures[0]
    assert sound.failures == ()


def test_a_check_returns_evidence(registry):
    add(registry, check=lambda: True)
    assert "a check returns Evidence" in the_result(registry).failures[0]


def test_a_claim_without_a_control_is_refused(registry):
    registry.claim("test.bare", statement="s", source="kdtheory", expected="PROVED")(lambda: [])
    with pytest.raises(RegistrationError, match=r"test\.bare has no control"):
        runner.run(registry=registry)


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "test.identity"},
        {"id": "no-chapter"},
        {"id": "test.Upper"},
        {"id": "test.two", "statement": " "},
        {"id": "test.two", "source": ""},
        {"id": "test.two", "rows": ("S1-4",)},
    ],
)
def test_what_cannot_be_registered(registry, fields):
    add(registry)
    with pytest.raises(RegistrationError):
        add(registry, **fields)


def test_an_unknown_expected_verdict_is_refused(registry):
    with pytest.raises(ValueError, match="TRUE"):
        add(registry, expected="TRUE")


def test_claims_use_known_claims_and_not_themselves(registry):
    add(registry, "test.a", uses=("test.b",))
    with pytest.raises(RegistrationError, match=r"test\.b.*not registered"):
        registry.validate()
    add(registry, "test.b", uses=("test.a",))
    with pytest.raises(RegistrationError, match="circle"):
        registry.validate()


def test_a_definition_has_no_verdict(registry):
    registry.definition("test.skl", statement="s", source="ko2024distillm, Eq. 3", rows=("S1-39",))
    result = the_result(registry)
    assert (result.verdict, result.expected, result.failures) == (None, None, ())


def test_selection_by_chapter_and_id(registry):
    for id in ("one.a", "one.b", "two.c"):
        add(registry, id)
    assert [result.id for result in runner.run(["two", "one.b"], registry=registry)] == ["one.b", "two.c"]
    with pytest.raises(runner.UnknownNameError) as error:
        runner.run(["one.bb"], registry=registry)
    assert "one.b" in error.value.matches


def test_json_has_the_documented_fields(registry, tmp_path):
    add(registry, check=lambda: symbolic.compare(derived=p, written=q, right=p), expected=Verdict.CORRECTED)
    add(registry, "test.raises", check=lambda: 1 / 0)
    registry.definition("test.defined", statement="s", source="kdtheory")
    report.save_json(runner.run(registry=registry), tmp_path / "new" / "out.json")
    saved = json.loads((tmp_path / "new" / "out.json").read_text())
    assert list(saved) == ["claims"]
    assert all(set(entry) >= FIELDS for entry in saved["claims"])
    corrected, raised, defined = saved["claims"]
    assert (corrected["verdict"], corrected["chapter"]) == ("CORRECTED", "test")
    assert corrected["evidence"][0]["data"]["counterexample"] == {"p": "1/2", "q": "1/3", "left": "1/2", "right": "1/3"}
    assert corrected["control"][0]["outcome"] == "caught"
    assert "ZeroDivisionError" in raised["error"]
    assert defined["verdict"] is None


def test_the_table_names_verdicts_failures_and_tally(registry):
    add(registry)
    add(registry, "test.changed", expected=Verdict.REFUTED)
    console = Console(record=True, width=120, file=io.StringIO())
    report.print_results(console, runner.run(registry=registry))
    text = console.export_text()
    assert "PROVED, recorded REFUTED" in text
    assert "FAILED test.changed" in text
    assert "2 claims: 2 PROVED; 1 failed" in text


def test_missing_evidence_fails_in_a_checkout_and_not_in_an_installation(registry, monkeypatch):
    add(registry, check=list, proof=Anchor("02_none#here", "0" * 64))
    monkeypatch.setattr("kdtheory.ledger.proofs.chapters", lambda: None)
    assert the_result(registry).failures  # a checkout that has lost its chapters
    monkeypatch.setattr(runner.checkout, "root", lambda: None)
    result = the_result(registry)
    assert (result.verdict, result.not_installed, result.failures) == (Verdict.OPEN, True, ())


CHAPTER = """
import os
import sympy as sp
from kdtheory.ledger import claim, symbolic

p, q = sp.symbols("p q", positive=True)

def add(slug, check):
    stated = {"statement": "s", "source": "kdtheory", "expected": "PROVED", "scope": "scalar identity"}
    made = claim("paralleltest." + slug, **stated)(check)
    made.control(lambda: symbolic.identity(p, q))

add("sound", lambda: symbolic.identity(p, p))
add("dies", lambda: os._exit(3))
add("raises", lambda: 1 / 0)
add("last", lambda: symbolic.identity(q, q))
"""


def test_parallel_run_loses_nothing_when_a_worker_dies(tmp_path, monkeypatch):
    """A chapter of its own, run in worker processes; the registry is given back as it was."""
    (tmp_path / "paralleltest.py").write_text(CHAPTER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(REGISTRY, "_items", {})
    monkeypatch.setattr(claims, "load", lambda: importlib.import_module("paralleltest") and REGISTRY)
    arrived = []

    @contextmanager
    def progress(total):
        assert total == 4
        yield arrived.append

    results = {result.id.split(".")[1]: result for result in runner.run(workers=2, progress=progress)}
    assert list(results) == ["sound", "dies", "raises", "last"]
    assert len(arrived) == 4
    assert results["sound"].failures == results["last"].failures == ()
    assert "died" in results["dies"].failures[0]
    assert "ZeroDivisionError" in results["raises"].failures[0]


def test_definitions_are_found_in_the_modules_of_their_chapter():
    """They register in modules of a package, which a worker process that imports the package alone would miss."""
    found = runner.run(["gradients.skl-definition", "modes.akl-weights"], workers=2)
    assert [result.failures for result in found] == [(), ()]
