"""Steps that run only when their inputs or outputs changed, and a stamp for each that proves it."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape

from kdtheory.students import store

Outcome = Literal["done", "up to date", "failed"]


class StepError(RuntimeError):
    """A step did its work and found something wrong; the message says what."""


@dataclass(frozen=True)
class Step:
    """Something to do, and how to know that it is done.

    Attributes
    ----------
    name : str
        For the reader, and (with dashes) the name of its stamp.
    key : callable
        () -> hash of everything it depends on, asked when its turn comes.
    run : callable
        () -> files it wrote.
    seconds : float
        How long it usually takes, until a stamp knows better.
    """

    name: str
    key: Callable[[], str]
    run: Callable[[], Sequence[Path]]
    seconds: float


class Ledger:
    """Stamps of the finished steps, in one folder.

    Parameters
    ----------
    folder : Path
        Where stamps lie.
    root : Path
        What the names of output files are relative to.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root

    def path(self, step: Step) -> Path:
        """The step's stamp."""
        return self.folder / f"{step.name.replace(' ', '-')}.json"

    def why(self, step: Step, key: str) -> str:
        """Why the step has to run; empty if it is up to date."""
        path = self.path(step)
        if not path.exists():
            return "not done yet"
        try:
            outputs = store.read_json(path, key=key)["outputs"]
        except store.StoredFileError as error:
            if "belongs to configuration" in str(error):
                return "its inputs changed"
            return f"its stamp {path.name} is damaged and not used"
        for name, sha in outputs.items():
            file = self.root / name
            if not file.exists() or store.file_digest(file) != sha:
                return f"{name} is missing or was altered"
        return ""

    def stamp(self, step: Step, key: str, outputs: Sequence[Path], seconds: float) -> None:
        """Record that the step is done."""
        names = {str(file.relative_to(self.root)): store.file_digest(file) for file in sorted(outputs)}
        store.write_json(self.path(step), {"outputs": names, "seconds": round(seconds, 1)}, key=key)

    def seconds(self, step: Step) -> float:
        """How long the step took the last time, or its own guess."""
        try:
            return float(store.read_json(self.path(step))["seconds"])
        except (store.StoredFileError, KeyError):
            return step.seconds


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Whether no other process is at work in this folder; the lock ends with the process that holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


def run(steps: Sequence[Step], ledger: Ledger, console: Console) -> dict[str, Outcome]:
    """Run what is out of date, in order; a step that fails does not keep the others from running.

    Returns
    -------
    dict of str to {"done", "up to date", "failed"}
        By name of the step.
    """
    outcomes: dict[str, Outcome] = {}
    for number, step in enumerate(steps, start=1):
        key = step.key()
        reason, head = ledger.why(step, key), f"[bold]\\[{number}/{len(steps)}] {escape(step.name)}[/]"
        if not reason:
            console.print(f"{head}: up to date", highlight=False)
            outcomes[step.name] = "up to date"
            continue
        left = sum(ledger.seconds(later) for later in steps[number - 1 :])
        expected = f"about {_minutes(ledger.seconds(step))}; at most {_minutes(left)} until everything is done"
        console.print(f"{head}: {escape(reason)}; {expected}", highlight=False, soft_wrap=True)
        outcomes[step.name] = _one(step, key, ledger, console)
    return outcomes


def _one(step: Step, key: str, ledger: Ledger, console: Console) -> Outcome:
    started = time.monotonic()
    try:
        outputs = step.run()
    except (StepError, ValueError, RuntimeError, OSError) as error:
        console.print(f"[red]failed[/] {escape(step.name)}: {escape(str(error))}", highlight=False, soft_wrap=True)
        return "failed"
    ledger.stamp(step, key, outputs, time.monotonic() - started)
    return "done"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def forget_unless(marker: Path, key: str, folder: Path) -> bool:
    """Drop a working folder that was begun with other code; returns whether it was dropped.

    Checkpoints know their settings but not the code that made them; the marker beside them does.
    """
    try:
        same = store.read_json(marker)["code"] == key
    except store.StoredFileError:
        same = False
    dropped = not same and folder.exists()
    if dropped:
        shutil.rmtree(folder)
    store.write_json(marker, {"code": key}, key=key)
    return dropped
