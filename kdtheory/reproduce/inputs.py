"""What a step depends on, as one hash: code (not its comments), files, versions, settings."""

from __future__ import annotations

import ast
import hashlib
import json
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from kdtheory.students import store

_LIBRARIES = ("numpy", "scipy", "sympy", "torch", "pot", "pandas", "matplotlib", "transformers", "tokenizers")


def digest(*parts: Any) -> str:
    """Hexadecimal sha256 of anything JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def code(package: Path, *names: str, without: Iterable[str] = ()) -> str:
    """Hash of the named modules and subpackages: what Python executes, so that comments and docstrings are free.

    Parameters
    ----------
    package : Path
        Folder of the package.
    *names : str
        Files or folders in it; none means all of it.
    without : iterable of str
        Files to leave out, relative to the package.
    """
    places = [package / name for name in names] or [package]
    files = {file for place in places for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place])}
    left_out = {package / name for name in without}
    return digest({str(file.relative_to(package)): _executed(file) for file in sorted(files - left_out)})


def _executed(file: Path) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and _documented(node):
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _documented(node: Any) -> bool:
    first = node.body[0] if node.body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


def files(*places: Path) -> str:
    """Hash of the contents of files and folders (those that exist), by relative name."""
    found = {}
    for place in places:
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_file():
                found[f"{place.name}/{file.relative_to(place)}"] = store.file_digest(file)
    return digest(found)


def versions() -> dict[str, str]:
    """Python and the libraries that results depend on."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _LIBRARIES}}
