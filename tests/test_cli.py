"""The command line: what it prints, what it writes, and with which status it ends."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from kdtheory import cli
from kdtheory.ledger import ClaimResult, Evidence, RegistrationError, Verdict, runner

COMMANDS = ("verify", "show", "list", "experiment", "figures", "reproduce")
HEAVY = {"torch", "numpy", "scipy", "sympy", "pandas", "matplotlib", "ot", "transformers", "kdtheory.ledger"}


@pytest.fixture
def invoke(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(cli.app, list(arguments))


def result(**changes):
    stated = {"verdict": Verdict.PROVED, "expected": Verdict.PROVED, "reason": "because", "seconds": 0.1}
    caught = (runner.ControlResult("control", "caught"),)
    return ClaimResult("test.claim", "p = p", "kdtheory", **({"controls": caught} | stated | changes))


@pytest.mark.parametrize("module", ["kdtheory", "kdtheory.cli"])
def test_nothing_heavy_is_imported_at_the_top(module):
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert module in loaded
    assert not HEAVY & set(loaded)


def test_help_names_every_command(invoke):
    shown = invoke("--help")
    assert shown.exit_code == 0
    assert all(command in shown.output for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_is_read_and_written(invoke, command):
    shown = invoke(command, "--help")
    assert shown.exit_code == 0
    assert "Reads" in shown.output
    assert "rites" in shown.output


@pytest.mark.parametrize(
    "arguments", [("verify", "gradient"), ("show", "gradients.rkl-slop"), ("list", "--chapter", "gradient")]
)
def test_an_unknown_name_ends_with_2_and_a_hint(invoke, arguments):
    shown = invoke(*arguments)
    assert shown.exit_code == 2
    assert "did you mean" in shown.output
    assert "gradients" in shown.output


def test_an_unknown_experiment_ends_with_2(invoke):
    shown = invoke("experiment", "teachers")
    assert shown.exit_code == 2
    assert "there is: students" in shown.output


def test_verify_writes_json_and_ends_with_0(invoke, monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "run", lambda names, **options: [result()])
    shown = invoke("verify", "--json", str(tmp_path / "out.json"))
    assert shown.exit_code == 0
    assert "1 claims: 1 PROVED; none failed" in shown.output
    assert json.loads((tmp_path / "out.json").read_text())["claims"][0]["id"] == "test.claim"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"verdict": Verdict.OPEN}, "verdict is OPEN, recorded is PROVED"),
        ({"evidence": (Evidence("numeric", "supports", False, "off"),)}, "check failed: off"),
        ({"controls": (runner.ControlResult("flipped sign", "passed"),)}, "broken check: control passed: flipped sign"),
        ({"error": "Traceback\nValueError: [bad]"}, "raised ValueError: [bad]"),
    ],
)
def test_verify_ends_with_1_on_any_failure_and_still_writes_json(invoke, monkeypatch, tmp_path, changes, says):
    monkeypatch.setattr(runner, "run", lambda names, **options: [result(), result(**changes)])
    shown = invoke("verify", "--json", str(tmp_path / "out.json"))
    assert shown.exit_code == 1
    assert says in shown.output
    assert json.loads((tmp_path / "out.json").read_text())["claims"][1]["failures"]


def test_a_broken_registry_ends_with_1(invoke, monkeypatch):
    def run(names, **options):
        raise RegistrationError("test.claim has no control")

    monkeypatch.setattr(runner, "run", run)
    shown = invoke("verify")
    assert shown.exit_code == 1
    assert "has no control" in shown.output


def test_show_prints_statement_evidence_and_control(invoke):
    shown = invoke("show", "gradients.rkl-slope")
    assert shown.exit_code == 0
    for part in (
        "CORRECTED",
        "statement",
        "refutes as written",
        "counterexample",
        "control caught",
        "proofs/02_gradients",
    ):
        assert part in shown.output


def test_list_shows_verdicts_and_coverage(invoke):
    shown = invoke("list", "--chapter", "gradients")
    assert shown.exit_code == 0
    assert "gradients.rkl-slope" in shown.output
    assert "statements of the sources settled: gradients" in shown.output
    assert "parallel_lines" not in shown.output


def test_an_unknown_figure_ends_with_2(invoke, tmp_path):
    shown = invoke("figures", "gradient_against_gab", "--out", str(tmp_path))
    assert shown.exit_code == 2
    assert "no figure or table is called" in shown.output
    assert list(tmp_path.iterdir()) == []


def test_figures_without_their_data_end_with_1(invoke, tmp_path, monkeypatch):
    monkeypatch.setenv("KDTHEORY_DATA", str(tmp_path / "none"))
    shown = invoke("figures", "verdicts", "--out", str(tmp_path / "out"))
    assert shown.exit_code == 1
    assert "not installed" in shown.output


def test_a_damaged_experiment_ends_with_1(invoke, tmp_path, monkeypatch):
    from kdtheory.students import experiment
    from kdtheory.students.store import StoredFileError

    def run(profile, out, **options):
        raise StoredFileError(f"{out / 'work' / 'a.json'} is truncated")

    monkeypatch.setattr(experiment, "run", run)
    shown = invoke("experiment", "students", "--profile", "smoke", "--out", str(tmp_path))
    assert shown.exit_code == 1
    assert "is truncated" in shown.output


def test_an_experiment_gets_the_seeds_and_losses_asked_for(invoke, tmp_path, monkeypatch):
    from kdtheory.students import experiment

    asked = {}

    def run(profile, out, **options):
        asked.update(options)
        raise ValueError("seen enough")

    monkeypatch.setattr(experiment, "run", run)
    invoke("experiment", "students", "--out", str(tmp_path), "--seeds", "3, 5", "--losses", "fkl,w1")
    assert (asked["seeds"], asked["losses"]) == ([3, 5], ["fkl", "w1"])


def test_a_seed_that_is_no_number_ends_with_2(invoke, tmp_path):
    shown = invoke("experiment", "students", "--out", str(tmp_path), "--seeds", "0,one")
    assert shown.exit_code == 2
    assert "entry 1 is 'one'" in shown.output


@pytest.mark.parametrize("name", ["students", "low-rank"])
@pytest.mark.parametrize(("option", "message"), [(("--losses", "kl"), "'kl' is unknown"), (("--seeds", "1,1"), "once")])
def test_a_loss_or_seed_that_does_not_fit_ends_with_2_before_anything_runs(invoke, tmp_path, name, option, message):
    shown = invoke("experiment", name, "--profile", "smoke", "--out", str(tmp_path), *option)
    assert shown.exit_code == 2
    assert message in shown.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("agrees", "status"), [(True, 0), (False, 1)])
def test_reproduce_ends_with_1_on_a_contradiction(invoke, tmp_path, monkeypatch, agrees, status):
    from kdtheory import reproduce

    asked = {}
    monkeypatch.setattr(reproduce, "reproduce", lambda out, **options: asked.update(options, out=out) or agrees)
    shown = invoke("reproduce", "--out", str(tmp_path), "--profile", "smoke")
    assert shown.exit_code == status
    assert (asked["out"], asked["profile"]) == (tmp_path, "smoke")
