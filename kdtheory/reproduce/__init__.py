"""Rebuild everything into one folder, doing only what is out of date, and compare it with what is published."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from kdtheory import checkout
from kdtheory.figures import datasets
from kdtheory.reproduce import compare, inputs, notebooks, steps
from kdtheory.reproduce.steps import Step, StepError

if TYPE_CHECKING:
    from kdtheory.students.profiles import Profile

_LIBRARY = ("__init__.py", "catalogue.py", "points.py", "simplex.py", "divergences", "transport")
_LOG_WIDTH = 120  # a log is no terminal: without this, rich assumes 80 columns and cuts tables
_AFTER_TRAINING = tuple(
    f"students/{name}.py"
    for name in ("statistics", "published", "progress", "provenance", "pairs", "distill", "launch")
)
"""Modules that look at finished students: a change there trains nothing anew."""


@dataclass(frozen=True)
class Places:
    """Folders: the repository, the package in it, and what is rebuilt."""

    root: Path
    out: Path

    @property
    def package(self) -> Path:
        """The code that is hashed."""
        return Path(__file__).resolve().parents[1]

    @property
    def published(self) -> Path:
        """Published data."""
        return self.root / "figures" / "data"

    @property
    def data(self) -> Path:
        """Rebuilt data, in the same layout."""
        return self.out / "figures" / "data"


def reproduce(out: Path, *, profile: str | Profile = "cpu", console: Console | None = None) -> bool:
    """Verify the ledger, train students again, draw the figures, execute the notebooks, compare the decisions.

    Students are trained with three seeds and the losses that are no pilots: a spot check, a sixth of the stored run,
    which figures and notebooks are drawn from.

    Parameters
    ----------
    out : Path
        Folder for everything; an earlier run there is continued, and what is up to date is left alone.
    profile : str or Profile
        Size of the experiment.
    console : Console, optional
        Where progress and the final tables go; default standard output.

    Returns
    -------
    bool
        False if a step failed, or a reproduced decision contradicts the published one.
    """
    console = console or _console()
    try:
        places = Places(checkout.required(), out.resolve())
    except checkout.EvidenceNotInstalledError:
        console.print(
            "[red]error[/]: reproducing needs the repository (chapters, notebooks, published runs), and this is an "
            "installed package without it: clone the repository and run `make` there",
            soft_wrap=True,
        )
        return False
    from kdtheory.students import profiles

    chosen = (profiles.get(profile) if isinstance(profile, str) else profile).spot_check()
    with steps.alone(places.out) as free:
        if free:
            return _reproduce(places, chosen, console)
    console.print(f"[red]error[/]: another process is rebuilding {places.out}: wait for it, or choose another folder")
    return False


def _reproduce(places: Places, profile: Profile, console: Console) -> bool:
    todo = plan(places, profile, console)
    outcomes = steps.run(todo, steps.Ledger(places.out / "stamps", places.out), console)
    contradicted = report(places, profile, console)
    failed = [name for name, outcome in outcomes.items() if outcome == "failed"]
    if failed:
        console.print(f"[red]failed[/]: {', '.join(failed)}")
    return not failed and not contradicted


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_LOG_WIDTH)


def plan(places: Places, profile: Profile, console: Console) -> list[Step]:
    """The steps, in order."""
    todo = [
        Step("verify ledger", partial(_verify_key, places), partial(_verify, places, console), 60),
        Step(
            "experiment students",
            partial(_experiment_key, places, profile),
            partial(_experiment, places, profile, console),
            720,
        ),
        Step("stored runs", partial(_stored_key, places), partial(_stored, places, console), 30),
        Step("figures and tables", partial(_figures_key, places), partial(_figures, places, console), 15),
    ]
    for notebook in notebooks.all_in(places.root):
        key, run = partial(_notebook_key, places, notebook), partial(_notebook, places, notebook)
        todo.append(Step(f"notebook {notebook.stem}", key, run, 15))
    return todo


# -- the ledger ------------------------------------------------------------------------------------------------------
def _verify_key(places: Places) -> str:
    names = (*_LIBRARY, "ledger", "claims", "students", "sequences", "dynamics.py")
    existing = [name for name in names if (places.package / name).exists()]
    stored = inputs.files(places.root / "proofs", places.published / "runs", places.package / "claims" / "sources.csv")
    return inputs.digest(inputs.code(places.package, *existing), stored, inputs.versions())


def _verify(places: Places, console: Console) -> Sequence[Path]:
    from kdtheory.ledger import report, runner

    path = places.data / "verdicts.json"
    path.unlink(missing_ok=True)
    results = runner.run((), progress=partial(report.progress, console))
    report.save_json(results, path)
    failures = [f"{result.id}: {failure}" for result in results for failure in result.failures]
    if failures:
        raise StepError(f"{len(failures)} failures\n  " + "\n  ".join(failures))
    return [path]


# -- the experiment --------------------------------------------------------------------------------------------------
def _training_code(places: Places) -> str:
    return inputs.code(places.package, *_LIBRARY, "students", without=[*_AFTER_TRAINING, *_controlled_code(places)])


def _controlled_code(places: Places) -> list[str]:
    return [str(file.relative_to(places.package)) for file in (places.package / "students/controlled").glob("*.py")]


def _experiment_key(places: Places, profile: Profile) -> str:
    from kdtheory.students import tuning

    rates = inputs.files(places.published / "runs" / "students" / tuning.FILE)
    everything = inputs.code(places.package, *_LIBRARY, "students", without=_controlled_code(places))
    settings = [profile.hash, list(profile.seeds), list(profile.losses)]
    return inputs.digest(everything, settings, rates, inputs.versions())


def _experiment(places: Places, profile: Profile, console: Console) -> Sequence[Path]:
    from kdtheory.students import experiment, published

    work = places.out / "students" / profile.name
    marker = places.out / "stamps" / f"training-code-{profile.name}.json"
    if steps.forget_unless(marker, _training_code(places), work):
        console.print("the code that trains students changed: earlier checkpoints are dropped")
    experiment.run(profile, work)
    return [work / name for name in (*published.FILES, published.MANIFEST)]


def _stored_key(places: Places) -> str:
    from kdtheory.students import EXPERIMENT, PAIRS, controlled

    stored = inputs.files(*(places.published / "runs" / name for name in (EXPERIMENT, PAIRS, *controlled.NAMES)))
    return inputs.digest(inputs.code(places.package, "students/controlled", *_AFTER_TRAINING), stored)


def _stored(places: Places, console: Console) -> Sequence[Path]:
    """Decide again from the stored runs, which take longer than everything else, and hand them on."""
    from kdtheory.students import EXPERIMENT, PAIRS, controlled, pairs, published

    handed_on = []
    others = {EXPERIMENT: published.decide, PAIRS: pairs.decide}
    for name in (*others, *controlled.NAMES):
        folder, target = places.published / "runs" / name, places.data / "runs" / name
        runs = published.load(folder)
        decide = others[name] if name in others else controlled.get(name).decide
        fresh = decide(runs.results, runs.curves)
        differing = [key for key in fresh if compare.words(fresh[key]) != compare.words(runs.decisions.get(key))]
        if differing:
            raise StepError(f"{name}: the stored runs no longer give the stored {', '.join(differing)}")
        console.print(f"  {name}: decided again from its stored runs; `kdtheory experiment {name}` runs them again")
        target.mkdir(parents=True, exist_ok=True)
        handed_on += [Path(shutil.copy(folder / file, target)) for file in (*published.FILES, published.MANIFEST)]
    return handed_on


# -- figures and notebooks -------------------------------------------------------------------------------------------
def _rebuilt(places: Places) -> str:
    """Hash of the rebuilt evidence (not of the data that figures compute themselves)."""
    return inputs.files(places.data / "verdicts.json", places.data / "runs")


def _figures_key(places: Places) -> str:
    style = inputs.files(places.package / "figures" / "kdtheory.mplstyle")
    drawn = inputs.code(places.package, *_LIBRARY, "dynamics.py", "claims", "figures")
    return inputs.digest(drawn, style, _rebuilt(places), inputs.versions())


def _figures(places: Places, console: Console) -> Sequence[Path]:
    from kdtheory import figures

    out = places.out / "figures"
    figures.build(out, data=places.data, report=lambda line: console.print(f"  {escape(line)}", soft_wrap=True))
    return [file for folder in (out, places.data) for file in folder.iterdir() if file.is_file()]


def _notebook_key(places: Places, notebook: Path) -> str:
    return inputs.digest(notebooks.sources(notebook), inputs.code(places.package), inputs.files(places.data))


def _notebook(places: Places, notebook: Path) -> Sequence[Path]:
    environment = {datasets.ENVIRONMENT: str(places.data)}
    return [notebooks.execute(notebook, places.out / "notebooks" / notebook.name, environment)]


# -- the comparison --------------------------------------------------------------------------------------------------
def _shared(published: dict[str, str], trained: dict[str, str]) -> dict[str, str]:
    """Published decisions about what the spot check trains; all of them if it trained nothing."""
    return {name: word for name, word in published.items() if name in trained or not trained}


def report(places: Places, profile: Profile, console: Console) -> list[compare.Decision]:
    """Print published beside reproduced decisions, store them as decisions.csv; returns the contradictions."""
    ours, theirs = places.data, places.published
    stored, again = theirs / "runs" / "students", places.out / "students" / profile.name
    trained = compare.students(again)
    parts = {
        "verdicts": compare.beside(
            compare.verdicts(theirs / "verdicts.json"), compare.verdicts(ours / "verdicts.json")
        ),
        "students": compare.beside(_shared(compare.students(stored), trained), trained),
    }
    for title, decisions in parts.items():
        console.print(compare.table(title, decisions))
    for note in compare.circumstances(stored, again):
        console.print(f"note: {escape(note)}", soft_wrap=True)
    decisions = [decision for part in parts.values() for decision in part]
    compare.to_csv(decisions, places.out / "decisions.csv")
    counts = Counter(decision.outcome for decision in decisions)
    console.print(f"{len(decisions)} decisions: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    console.print(f"everything is in {os.path.relpath(places.out)}", soft_wrap=True)
    return [decision for decision in decisions if decision.outcome == "contradicts"]
