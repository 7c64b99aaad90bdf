"""The ledger's verdicts as a table."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from kdtheory.figures.datasets import Dataset
from kdtheory.figures.registry import table


def _verdicts(path: Path) -> pd.DataFrame:
    """Columns id, chapter, statement, source, verdict, expected, rows; definitions have no verdict and are left out."""
    claims = json.loads(path.read_text(encoding="utf-8"))["claims"]
    columns = ("id", "chapter", "statement", "source", "verdict", "expected", "rows", "failures")
    found = [claim for claim in claims if claim["expected"] is not None]
    table = pd.DataFrame([{name: claim[name] for name in columns} for claim in found], columns=list(columns))
    return table.assign(rows=table["rows"].map(", ".join), failures=table["failures"].map(len))


VERDICTS = Dataset("verdicts.json", _verdicts)
"""Written by `kdtheory verify --json figures/data/verdicts.json`."""


@table(VERDICTS)
def verdicts(found: pd.DataFrame) -> pd.DataFrame:
    """Every claim with its statement, source and computed verdict."""
    return pd.DataFrame(
        {
            "claim": found["id"],
            "statement": [f"${text}$" for text in found["statement"]],
            "source": found["source"],
            "verdict": found["verdict"],
        }
    )
