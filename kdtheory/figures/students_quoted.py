"""The tables that the sources quote: t values of their differences under both readings of the printed ±."""

from __future__ import annotations

from typing import Any

import pandas as pd

from kdtheory.figures.datasets import computed
from kdtheory.figures.registry import table

_CLAIMS = (
    "students.quoted-akl-lead",
    "students.quoted-rkl",
    "students.quoted-rkl-deficit",
    "students.quoted-combination",
    "students.quoted-skew",
    "students.quoted-skew-elsewhere",
    "students.quoted-skl-srkl-count",
    "students.quoted-skl-srkl",
)
_PAIRS = {
    "akl": (("RKL", "FKL"), ("FKL+RKL", "FKL"), ("FKL+RKL", "RKL"), ("SKL", "FKL"), ("SRKL", "RKL")),
    "distillm": (("SKL", "KLD"), ("SKL", "RKLD"), ("SRKL", "KLD"), ("SRKL", "RKLD"), ("SRKL", "SKL")),
}


@computed("students_quoted.csv")
def QUOTED() -> pd.DataFrame:
    """Columns table, column, first, second, difference, t and p (bounds over rounding) and verdict by reading of ±."""
    from kdtheory.claims.students import tables

    rows = []
    for name, source in (("akl", tables.AKL), ("distillm", tables.DISTILLM)):
        pairs = [(pair, column) for pair in _PAIRS[name] for column in source.columns]
        if name == "akl":
            leads = [(("AKL", source.best_other(column, "AKL")), column) for column in source.columns]
            pairs = leads + pairs
        for (first, second), column in pairs:
            row: dict[str, Any] = {"table": name, "column": column, "first": first, "second": second}
            row["difference"] = float(source.mean(first, column) - source.mean(second, column))
            for short, reading in zip(("sd", "se"), tables.READINGS, strict=True):
                found = tables.welch(source.entry(first, column), source.entry(second, column), reading)
                bounds = {f"p_low_{short}": float(found.p_low), f"p_high_{short}": float(found.p_high)}
                row |= {f"t_{short}": found.t, **bounds, f"beyond_{short}": tables.beyond(found)}
            rows.append(row)
    return pd.DataFrame(rows)


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    shown = pd.DataFrame(
        {
            "column": rows["column"],
            "difference": [
                f"{first} − {_bracketed(second)}: {x:+.2f}"
                for first, second, x in rows[["first", "second", "difference"]].itertuples(index=False)
            ],
        }
    )
    for short, reading in (("sd", "standard deviation"), ("se", "standard error")):
        shown[f"t, ± as {reading}"] = [f"{t:.1f}" for t in rows[f"t_{short}"]]
        shown[f"beyond ±, as {reading}"] = rows[f"beyond_{short}"]
    return shown.reset_index(drop=True)


def _bracketed(name: str) -> str:
    return f"({name})" if "+" in name else name


@table(QUOTED, claims=_CLAIMS[:4])
def students_quoted_akl(quoted: pd.DataFrame) -> pd.DataFrame:
    """Rethinking KL: adaptive KL against the next student; reverse, summed and skewed KL against the plain ones."""
    return _shown(quoted[quoted["table"] == "akl"])


@table(QUOTED, claims=_CLAIMS[4:])
def students_quoted_distillm(quoted: pd.DataFrame) -> pd.DataFrame:
    """DistiLLM: skewed against plain divergences, and against each other."""
    return _shown(quoted[quoted["table"] == "distillm"])
