"""Tables as LaTeX (booktabs) and CSV."""

from __future__ import annotations

import re

import pandas as pd

from kdtheory.figures import datasets

_SPECIAL = {"&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}"}
_GREEK = {"λ": r"$\lambda$", "χ²": r"$\chi^2$", "−": "$-$"}


def table_files(table: pd.DataFrame) -> dict[str, bytes]:
    """LaTeX and CSV of a table, by file ending."""
    return {".tex": to_latex(table).encode(), ".csv": datasets.to_csv(table).encode()}


def to_latex(table: pd.DataFrame) -> str:
    r"""A booktabs `tabular`; text between dollars is left as mathematics, numbers are right-aligned."""
    numeric = [table[name].dtype.kind in "if" for name in table.columns]
    columns = "".join("r" if number else "l" for number in numeric)
    rows = [" & ".join(_cell(value) for value in row) + r" \\" for row in table.itertuples(index=False)]
    head = " & ".join(_cell(name) for name in table.columns) + r" \\"
    lines = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        head,
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def to_markdown(table: pd.DataFrame) -> str:
    """A GitHub table; bars inside a cell are escaped."""
    cells = [[str(value).replace("|", r"\|") for value in row] for row in (table.columns, *table.to_numpy())]
    align = ["---:" if table[name].dtype.kind in "if" else "---" for name in table.columns]
    return "\n".join("| " + " | ".join(row) + " |" for row in (cells[0], align, *cells[1:]))


def _cell(value: object) -> str:
    parts = re.split(r"(\$[^$]*\$)", f"{value:.6g}" if isinstance(value, float) else str(value))
    return "".join(part if part.startswith("$") and len(part) > 1 else _escape(part) for part in parts)


def _escape(text: str) -> str:
    escaped = "".join(_SPECIAL.get(character, character) for character in text)
    for found, written in _GREEK.items():
        escaped = escaped.replace(found, written)
    return escaped
