"""Steps run when they must and only then; published decisions stand beside reproduced ones."""

import io
import json

import pytest
from rich.console import Console

from kdtheory import checkout, reproduce
from kdtheory.reproduce import compare, inputs, steps
from kdtheory.reproduce.compare import Decision
from kdtheory.reproduce.steps import Ledger, Step
from kdtheory.students import profiles


class Bench:
    """One step that writes one file, and what it said."""

    def __init__(self, folder):
        self.folder, self.key, self.runs, self.text = folder, "inputs 1", 0, io.StringIO()
        self.console = Console(file=self.text, width=200)
        self.ledger = Ledger(folder / "stamps", folder)
        self.step = Step("the step", lambda: self.key, self.work, 5)
        self.result = folder / "result.txt"

    def work(self):
        self.runs += 1
        self.result.write_text(f"made from {self.key}")
        return [self.result]

    def run(self):
        return steps.run([self.step], self.ledger, self.console)["the step"]

    @property
    def stamp(self):
        return self.ledger.path(self.step)


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    assert made.run() == "done"
    return made


# -- stamps ------------------------------------------------------------------------------------------------------------
def test_what_is_up_to_date_is_left_alone(bench):
    assert bench.run() == "up to date"
    assert bench.runs == 1


def test_changed_inputs_run_it_again(bench):
    bench.key = "inputs 2"
    assert bench.run() == "done"
    assert bench.result.read_text() == "made from inputs 2"
    assert "its inputs changed" in bench.text.getvalue()


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("altered")])
def test_an_altered_or_missing_result_is_made_again(bench, damage):
    damage(bench.result)
    assert bench.run() == "done"
    assert bench.result.read_text() == "made from inputs 1"
    assert "result.txt is missing or was altered" in bench.text.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
        lambda path: path.write_text(""),
        lambda path: path.write_text(path.read_text().replace('"seconds"', '"minutes"')),
    ],
    ids=["truncated", "empty", "altered"],
)
def test_a_damaged_stamp_is_not_used_and_that_is_said(bench, damage):
    damage(bench.stamp)
    assert bench.run() == "done"
    assert bench.runs == 2
    assert "its stamp the-step.json is damaged and not used" in bench.text.getvalue()


def test_a_failed_step_leaves_no_stamp_and_the_others_run(bench, tmp_path):
    def fail():
        raise steps.StepError("two controls passed")

    bad = Step("bad", lambda: "k", fail, 1)
    bench.key = "inputs 3"
    outcomes = steps.run([bad, bench.step], bench.ledger, bench.console)
    assert outcomes == {"bad": "failed", "the step": "done"}
    assert "two controls passed" in bench.text.getvalue()
    assert steps.run([bad], bench.ledger, bench.console) == {"bad": "failed"}


def test_a_kill_between_steps_loses_only_the_step_it_hit(bench):
    def killed():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        steps.run([bench.step, Step("next", lambda: "k", killed, 1)], bench.ledger, bench.console)
    assert bench.run() == "up to date"


def test_two_at_once_are_refused(tmp_path):
    with steps.alone(tmp_path) as first, steps.alone(tmp_path) as second:
        assert (first, second) == (True, False)
    text = io.StringIO()
    with steps.alone(tmp_path):
        assert reproduce.reproduce(tmp_path, profile="smoke", console=Console(file=text, width=200)) is False
    assert "another process is rebuilding" in text.getvalue()
    with steps.alone(tmp_path) as again:
        assert again


def test_checkpoints_made_by_other_code_are_dropped(tmp_path):
    work, marker = tmp_path / "work", tmp_path / "marker.json"
    assert not steps.forget_unless(marker, "code 1", work)  # nothing there yet
    work.mkdir()
    assert not steps.forget_unless(marker, "code 1", work)
    assert work.exists()
    assert steps.forget_unless(marker, "code 2", work)
    assert not work.exists()
    work.mkdir()
    marker.write_text("{")
    assert steps.forget_unless(marker, "code 2", work)  # nobody knows what made them


# -- inputs ------------------------------------------------------------------------------------------------------------
SOURCE = '"""Module."""\n\n\ndef f(x):\n    """Doc."""\n    return x + 1  # plus\n'


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda text: text.replace("Doc.", "Documentation."), True),
        (lambda text: text.replace("# plus", "# one more"), True),
        (lambda text: text.replace("Module.", "A module."), True),
        (lambda text: text.replace("x + 1", "x - 1"), False),
        (lambda text: text.replace("x + 1", "x + 2"), False),
        (lambda text: text + "\ng = f\n", False),
    ],
)
def test_code_is_hashed_as_it_runs(tmp_path, change, same):
    (tmp_path / "m.py").write_text(SOURCE)
    before = inputs.code(tmp_path)
    (tmp_path / "m.py").write_text(change(SOURCE))
    assert (inputs.code(tmp_path) == before) is same


def test_a_sign_in_a_loss_trains_students_anew_and_a_statistic_does_not(tmp_path):
    """The key of the experiment depends on the losses; that of the checkpoints not on what only looks at them."""
    import shutil

    root = checkout.required()
    shutil.copytree(root / "kdtheory", tmp_path / "kdtheory", ignore=shutil.ignore_patterns("__pycache__"))

    class Places(reproduce.Places):
        package = tmp_path / "kdtheory"

    places = Places(root, tmp_path)
    before = reproduce._training_code(places)
    with (places.package / "students" / "statistics.py").open("a") as file:
        file.write("\nMARGIN = 0.02\n")
    assert reproduce._training_code(places) == before
    with (places.package / "divergences" / "logspace.py").open("a") as file:
        file.write("\nSIGN = -1\n")
    assert reproduce._training_code(places) != before


# -- comparison --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("published", "reproduced", "outcome"),
    [
        ("PROVED", "PROVED", "agrees"),
        ("PROVED", "CORRECTED", "contradicts"),
        ("SUPPORTED", "UNSUPPORTED", "contradicts"),
        ("SUPPORTED", "UNDECIDED", "undecided here"),
        ("PROVED", "OPEN", "undecided here"),
        ("UNDECIDED", "SUPPORTED", "decided here only"),
        ("UNDECIDED", "OPEN", "agrees"),
        ("lower", "lower", "agrees"),
        ("lower", "higher", "contradicts"),
        ("higher", "undecided (not converged)", "undecided here"),
        ("undecided", "higher", "decided here only"),
        ("undecided", "undecided (not converged)", "agrees"),
        (None, "lower", "not published"),
        ("lower", None, "not reproduced"),
    ],
)
def test_outcomes(published, reproduced, outcome):
    assert Decision("x", published, reproduced).outcome == outcome


def verdicts(path, **found):
    path.parent.mkdir(parents=True, exist_ok=True)
    claims = [{"id": id, "expected": "PROVED", "verdict": verdict} for id, verdict in found.items()]
    claims.append({"id": "definition", "expected": None, "verdict": None})
    path.write_text(json.dumps({"claims": claims}))


@pytest.mark.parametrize(("here", "contradictions"), [("PROVED", []), ("OPEN", []), ("REFUTED", ["a"])])
def test_report_returns_the_contradictions_and_stores_the_table(tmp_path, here, contradictions):
    places = reproduce.Places(tmp_path / "root", tmp_path / "out")
    verdicts(places.published / "verdicts.json", a="PROVED", b="PROVED")
    verdicts(places.data / "verdicts.json", a=here, b="PROVED")
    text = io.StringIO()
    found = reproduce.report(places, profiles.get("smoke"), Console(file=text, width=200))
    assert [decision.what for decision in found] == contradictions
    assert "2 decisions" in text.getvalue()
    assert (places.out / "decisions.csv").read_text().splitlines()[2].startswith("b,PROVED,PROVED,agrees")


def test_the_spot_check_is_compared_with_what_it_trained():
    """Three seeds of the losses with ten; a pilot's published decision is not missed, another's is."""
    spot = profiles.get("cpu").spot_check()
    assert spot.seeds == (0, 1, 2)
    assert {"fkl", "rkl", "w1"} <= set(spot.losses)
    assert not set(spot.losses) & set(profiles.get("cpu").pilots)
    assert spot.hash == profiles.get("cpu").hash
    there = {"tv: rkl against fkl": "lower", "tv: akl against fkl": "lower"}
    assert reproduce._shared(there, {"tv: rkl against fkl": "higher"}) == {"tv: rkl against fkl": "lower"}
    assert reproduce._shared(there, {}) == there


def test_another_corpus_is_said(tmp_path, monkeypatch):
    from kdtheory.students import published

    class Run:
        def __init__(self, corpus):
            self.provenance = {"settings_sha256": "s", "corpus_sha256": corpus, "device": ["cpu"], "versions": {}}

    for name in ("there", "here"):
        (tmp_path / name).mkdir()
        (tmp_path / name / published.MANIFEST).touch()
    monkeypatch.setattr(published, "load", lambda folder: Run(folder.name))
    (note,) = compare.circumstances(tmp_path / "there", tmp_path / "here")
    assert note.startswith("another corpus")
    assert compare.circumstances(tmp_path / "here", tmp_path / "here") == []


def test_without_the_repository_it_says_so(tmp_path, monkeypatch):
    def missing():
        raise checkout.EvidenceNotInstalledError("evidence not installed")

    monkeypatch.setattr(checkout, "required", missing)
    text = io.StringIO()
    assert reproduce.reproduce(tmp_path, console=Console(file=text, width=200)) is False
    assert "needs the repository" in text.getvalue()
    assert list(tmp_path.iterdir()) == []
