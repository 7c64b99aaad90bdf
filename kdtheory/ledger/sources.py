"""The statements found in the sources, and which claim settles each: `kdtheory/claims/sources.csv`."""

import csv
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Literal, get_args

from kdtheory.ledger.claim import Registry

RowKind = Literal["TRUE", "COND", "WRONG", "EMP", "DEF", "HIST"]
COLUMNS = ("row", "source", "place", "statement", "kind", "chapter", "claim")


@dataclass(frozen=True)
class Row:
    """One statement of a source.

    Attributes
    ----------
    row
        Its name, e.g. "S1-43".
    source, place
        Bibliography key, and where in it.
    statement
        What the source says, restated.
    kind
        What we expected of it before checking: TRUE, COND (true under a condition), WRONG (as written), EMP (takes an
        experiment), DEF (a definition) or HIST (history). The verdict is the claim's.
    chapter
        The chapter that settles it.
    claim
        Ids of the claims or definitions that settle it; empty: not yet registered.
    """

    row: str
    source: str
    place: str
    statement: str
    kind: str
    chapter: str
    claim: tuple[str, ...]


def rows() -> tuple[Row, ...]:
    """All rows, in the order of the sources.

    Raises
    ------
    ValueError
        If the table is malformed: another header, a repeated row, or an unknown kind.
    """
    with as_file(files("kdtheory.claims") / "sources.csv") as path, path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"sources.csv: columns are {reader.fieldnames}, expected {list(COLUMNS)}")
        found = [Row(**(record | {"claim": tuple(record["claim"].split())})) for record in reader]
    names = [row.row for row in found]
    for row in found:
        if row.kind not in get_args(RowKind):
            raise ValueError(f"sources.csv, {row.row}: kind {row.kind!r} is none of {', '.join(get_args(RowKind))}")
        if names.count(row.row) > 1:
            raise ValueError(f"sources.csv: row {row.row} occurs twice")
    return tuple(found)


def coverage() -> dict[str, tuple[int, int]]:
    """Chapter -> (rows registered, rows in total), in the order of the chapters' first rows."""
    counts: dict[str, tuple[int, int]] = {}
    for row in rows():
        registered, total = counts.get(row.chapter, (0, 0))
        counts[row.chapter] = (registered + bool(row.claim), total + 1)
    return counts


def disagreements(registry: Registry) -> list[str]:
    """Where the table and the registered claims contradict each other, one sentence each."""
    table = {row.row: row for row in rows()}
    found = []
    for row in table.values():
        for id in row.claim:
            if id not in registry:
                found.append(f"sources.csv, {row.row}: {id!r} is not registered")
            elif row.row not in registry[id].rows:
                found.append(f"sources.csv gives {row.row} to {id}, whose rows do not name it")
    for item in registry:
        for name in item.rows:
            if name not in table:
                found.append(f"{item.id}: sources.csv has no row {name}")
            elif item.id not in table[name].claim:
                found.append(
                    f"{item.id} names {name}, which sources.csv gives to {' '.join(table[name].claim) or 'nobody'}"
                )
    return found
