"""Executing notebooks: into the build folder, or in place to store their outputs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kdtheory import checkout
from kdtheory.students import store

GPU_TAG = "gpu"
_TIMEOUT = 600  # seconds per cell
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def all_in(root: Path) -> list[Path]:
    """The notebooks of the repository, in order."""
    return sorted((root / "notebooks").glob("*.ipynb"))


def sources(notebook: Path) -> list[str]:
    """What its cells hold, without outputs: what its results depend on."""
    import nbformat

    return [f"{cell.cell_type}\n{cell.source}" for cell in nbformat.read(notebook, as_version=4).cells]


def execute(notebook: Path, target: Path, environment: Mapping[str, str] | None = None) -> Path:
    """Execute a notebook in order and write it with its outputs.

    Parameters
    ----------
    notebook, target : Path
        What to read, what to write (they may be the same).
    environment : mapping, optional
        Added to the kernel's environment.

    Raises
    ------
    RuntimeError
        If a cell fails; the message names notebook, cell and error.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    book = nbformat.read(notebook, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    skipped = {} if _has_gpu() else {"skip_cells_with_tag": GPU_TAG}
    client = NotebookClient(
        book,
        timeout=_TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=40"],  # errors only: a kernel on this machine's loopback is meant
        resources={"metadata": {"path": str(notebook.parent)}},
        **skipped,
    )
    try:
        with _environment({"OMP_NUM_THREADS": "1", **(environment or {})}):
            client.execute()
    except CellExecutionError as error:
        raise RuntimeError(f"{notebook.name}: {error.ename}: {error.evalue}") from None
    book.metadata = nbformat.from_dict(_METADATA)
    store.write_bytes(target, nbformat.writes(book).rstrip("\n").encode() + b"\n")
    return target


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def in_place(*names: str) -> None:
    """Execute notebooks of the repository and store their outputs: those named, or all."""
    for notebook in all_in(checkout.required()):
        if not names or notebook.stem in names:
            execute(notebook, notebook)
            print(notebook.name)
