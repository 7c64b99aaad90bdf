"""`make mutants`: break one formula at a time in a copy of the repository and report which checks notice.

python -m tests.mutations [WORD]...     only mutants whose description or file holds one of the words
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import NamedTuple

from tests.mutations.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
WORKERS = int(os.environ.get("WORKERS", "2"))
_LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info")


class Outcome(NamedTuple):
    """What the checks said about one mutant: the first line of the failure, or nothing where they passed."""

    mutant: Mutant
    by_claims: str
    by_tests: str

    @property
    def caught(self) -> bool:
        return bool(self.by_claims or self.by_tests)

    @property
    def as_expected(self) -> bool:
        return self.caught is not bool(self.mutant.survives)


_VERIFY = r"""
import sys
from kdtheory.ledger import run
failed = [f"FAILED {result.id}: {result.failures[0]}" for result in run(sys.argv[1:], workers=1) if result.failures]
print(*failed, sep="\n")
raise SystemExit(bool(failed))
"""


def _verify(folder: Path, chapters: tuple[str, ...]) -> str:
    return _failure(folder, [sys.executable, "-c", _VERIFY, *chapters]) if chapters else ""


def _test(folder: Path, tests: tuple[str, ...]) -> str:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts="]
    return _failure(folder, [*command, *tests]) if tests else ""


def _failure(folder: Path, command: list[str]) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    telling = [line for line in lines if line.startswith(("FAILED", "ERROR"))] or lines[-1:] or ["failed"]
    return telling[0]


def outcome(mutant: Mutant, folder: Path) -> Outcome:
    """Apply the edit in `folder`, run the checks, take it back."""
    file = folder / mutant.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(
            f"{mutant.what}: {mutant.old!r} occurs {text.count(mutant.old)} times in {mutant.file}, not once"
        )
    file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        return Outcome(mutant, _verify(folder, mutant.chapters), _test(folder, mutant.tests))
    finally:
        file.write_text(text, encoding="utf-8")


def sound(folder: Path, mutants: list[Mutant]) -> list[str]:
    """The control: what fails although nothing was broken."""
    chapters = tuple(sorted({name for mutant in mutants for name in mutant.chapters}))
    tests = tuple(sorted({name for mutant in mutants for name in mutant.tests}))
    return [found for found in (_verify(folder, chapters), _test(folder, tests)) if found]


def run(mutants: list[Mutant]) -> Iterator[Outcome]:
    """Outcomes in order, `WORKERS` at a time, each worker in a copy of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        copies: Queue[Path] = Queue()
        for number in range(WORKERS):
            shutil.copytree(ROOT, Path(scratch) / str(number), ignore=_LEFT_OUT)
            copies.put(Path(scratch) / str(number))
        if failed := sound(copies.queue[0], mutants):
            raise SystemExit(f"the checks fail although nothing is broken: {failed}")

        def one(mutant: Mutant) -> Outcome:
            folder = copies.get()
            try:
                return outcome(mutant, folder)
            finally:
                copies.put(folder)

        with ThreadPoolExecutor(WORKERS) as pool:
            yield from pool.map(one, mutants)


def main(words: list[str]) -> int:
    """Run the chosen mutants and print the report; 1 if one survived (or was caught although it changes nothing)."""
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.what + mutant.file for word in words)]
    if not chosen:
        raise SystemExit(f"no mutant mentions {', '.join(words)}")
    outcomes = []
    for found in run(chosen):
        outcomes.append(found)
        verdict = "caught" if found.caught else "SURVIVED"
        print(f"{verdict:8}  {found.mutant.what}  [{found.mutant.file}]", flush=True)
        for who, what in (("claims", found.by_claims), ("tests", found.by_tests)):
            if what:
                print(f"          {who}: {what[:150]}", flush=True)
        if found.mutant.survives:
            print(f"          changes nothing: {found.mutant.survives}")
    caught = sum(found.caught for found in outcomes)
    print(f"{caught} of {len(outcomes)} caught; {sum(bool(found.by_claims) for found in outcomes)} by claims")
    return 0 if all(found.as_expected for found in outcomes) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
