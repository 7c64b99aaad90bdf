"""Published decisions beside reproduced ones: agrees, undecided here, decided here only, or contradicts."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from rich.table import Table

Outcome = Literal["agrees", "undecided here", "decided here only", "contradicts", "not reproduced", "not published"]
_UNDECIDED = ("UNDECIDED", "OPEN", "undecided", "undecided (not converged)")
_COLOUR = {"agrees": "green", "contradicts": "red"}


@dataclass(frozen=True)
class Decision:
    """One decision, published and reproduced (None where there is none)."""

    what: str
    published: str | None
    reproduced: str | None

    @property
    def outcome(self) -> Outcome:
        """How they stand to each other; only "contradicts" is a failure."""
        if self.published is None:
            return "not published"
        if self.reproduced is None:
            return "not reproduced"
        if self.published == self.reproduced:
            return "agrees"
        published, reproduced = self.published in _UNDECIDED, self.reproduced in _UNDECIDED
        if published and reproduced:
            return "agrees"
        if reproduced:
            return "undecided here"
        return "decided here only" if published else "contradicts"


def verdicts(path: Path) -> dict[str, str]:
    """Verdict by claim id; empty without the file."""
    if not path.exists():
        return {}
    claims = json.loads(path.read_text(encoding="utf-8"))["claims"]
    return {claim["id"]: claim["verdict"] for claim in claims if claim["expected"] is not None}


def students(folder: Path) -> dict[str, str]:
    """Decision of each comparison, without the word "pilot"; empty without a stored run."""
    from kdtheory.students import published

    if not (folder / published.MANIFEST).exists():
        return {}
    rows = published.load(folder).decisions["comparisons"]
    return {
        f"{row['metric']}: {row['loss']} against {row['reference']}": row["decision"].removeprefix("pilot: ")
        for row in rows
    }


def words(value: Any) -> Any:
    """A decision record without its numbers, which differ in the last digits between machines."""
    if isinstance(value, dict):
        return {key: words(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [words(item) for item in value]
    return value if isinstance(value, str | bool) else None


def beside(published: dict[str, str], reproduced: dict[str, str]) -> list[Decision]:
    """Every decision of either side, in the order of the published ones."""
    return [Decision(name, published.get(name), reproduced.get(name)) for name in {**published, **reproduced}]


def circumstances(published: Path, reproduced: Path) -> list[str]:
    """What differs between two stored runs of the students and explains differences: settings, corpus, versions."""
    from kdtheory.students import published as runs

    if not all((folder / runs.MANIFEST).exists() for folder in (published, reproduced)):
        return []
    there, here = (runs.load(folder).provenance for folder in (published, reproduced))
    notes = []
    for field, words in (
        ("settings_sha256", "settings"),
        ("corpus_sha256", "corpus (another release of Python has another standard library)"),
        ("device", "device"),
        ("versions", "versions"),
    ):
        if there[field] != here[field]:
            notes.append(f"another {words}: published {_short(there[field])}, here {_short(here[field])}")
    return notes


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    return str(value)[:12] if isinstance(value, str) else str(value)


def table(title: str, decisions: list[Decision]) -> Table:
    """For the terminal."""
    shown = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in ("decision", "published", "reproduced", ""):
        shown.add_column(name, no_wrap=True)
    for decision in decisions:
        colour = _COLOUR.get(decision.outcome, "yellow")
        outcome = f"[{colour}]{decision.outcome}[/]"
        shown.add_row(decision.what, decision.published or "-", decision.reproduced or "-", outcome)
    return shown


def to_csv(decisions: list[Decision], path: Path) -> None:
    """The same table as a file."""
    rows = [{**asdict(decision), "outcome": decision.outcome} for decision in decisions]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"), encoding="utf-8")
