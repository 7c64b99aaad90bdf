"""Saving: the picture, byte-reproducible, and beside it a JSON that says what it stands on."""

from __future__ import annotations

import hashlib
import io
import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from kdtheory.figures import datasets, style
from kdtheory.figures.registry import Plot

_NO_DATES = {"CreationDate": None, "ModDate": None}
_NO_SOFTWARE = {"Software": None}


def figure_files(figure: Figure) -> dict[str, bytes]:
    """PDF and PNG of a figure, by file ending; the same bytes whenever data, code and versions are the same."""
    with style.apply():
        return {
            ".pdf": _bytes(figure, "pdf", metadata=_NO_DATES),
            ".png": _bytes(figure, "png", metadata=_NO_SOFTWARE),
        }


def _bytes(figure: Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()


def save(plot: Plot, data: pd.DataFrame, files: dict[str, bytes], out: Path) -> Path:
    """Write the files of one figure or table, and its provenance.

    Parameters
    ----------
    plot : Plot
        What was drawn.
    data : DataFrame
        What it was drawn from.
    files : dict of str to bytes
        Content by file ending (".pdf", ".png", ".tex", ".csv").
    out : Path
        Folder.

    Returns
    -------
    Path
        The JSON file.
    """
    out.mkdir(parents=True, exist_ok=True)
    for ending, content in files.items():
        (out / f"{plot.name}{ending}").write_bytes(content)
    record = {
        "title": plot.title,
        "source": plot.source,
        "claims": list(plot.claims),
        "data": plot.data.place,
        "data_sha256": datasets.digest(data),
        "code_sha256": code(plot),
        "files_sha256": {f"{plot.name}{ending}": _sha256(content) for ending, content in sorted(files.items())},
        "versions": versions(),
    }
    path = out / f"{plot.name}.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def code(plot: Plot) -> dict[str, str]:
    """sha256 of the files that decide how it looks: its module, and the style (figures) or the layout (tables)."""
    home = Path(__file__).parent
    shared = [home / "style.py", style.FILE] if plot.kind == "figure" else [home / "tables.py"]
    return {path.name: _sha256(path.read_bytes()) for path in (plot.code, *shared)}


def stale(plot: Plot, out: Path, data: Path | None = None) -> list[str]:
    """Why a published figure or table does not stand on today's data and code; empty if it does.

    Parameters
    ----------
    plot : Plot
        Which one.
    out : Path
        Folder of the published files.
    data : Path, optional
        Data folder; default that of the repository.
    """
    path = out / f"{plot.name}.json"
    if not path.exists():
        return [f"{path.name} is missing"]
    record = json.loads(path.read_text(encoding="utf-8"))
    found = []
    if record["data_sha256"] != datasets.digest(plot.data.load(data)):
        found.append(f"its data ({plot.data.place}) changed since it was drawn")
    found += [
        f"{name} changed since it was drawn"
        for name, sha in code(plot).items()
        if record["code_sha256"].get(name) != sha
    ]
    if record["claims"] != list(plot.claims):
        found.append("its list of claims changed since it was drawn")
    for name, sha in record["files_sha256"].items():
        if not (out / name).exists() or _sha256((out / name).read_bytes()) != sha:
            found.append(f"{name} is missing or not the file that was drawn")
    return found


def versions() -> dict[str, str]:
    """Python, and the libraries a picture depends on."""
    libraries = ("kdtheory", "matplotlib", "numpy", "pandas")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in libraries}}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
