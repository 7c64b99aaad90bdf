"""The guard of the notebooks' guard: stored outputs that are compared, and a comparison that bites."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from kdtheory.reproduce import notebooks

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SANITIZE = ROOT / "notebooks" / "sanitize.cfg"
MOST_CELLS, MOST_LINES, MOST_IGNORED = 20, 12, 4
LEAKS = re.compile(r"0x[0-9a-fA-F]{6,}|/(?:home|root|Users|tmp|opt|usr|work)/|\.venv|site-packages|ipykernel_\d")
IGNORED = re.compile(r"^# NBVAL_(IGNORE_OUTPUT|SKIP)", re.MULTILINE)

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def for_gpu(cell):
    return "gpu" in cell.metadata.get("tags", [])


def texts(cell):
    """Everything nbval may compare, as text."""
    for output in cell.outputs:
        yield output.get("text", "")
        yield from (str(value) for kind, value in output.get("data", {}).items() if kind.startswith("text/"))
        yield "\n".join(output.get("traceback", []))


def is_compared(cell):
    return not IGNORED.search(cell.source) and not for_gpu(cell) and any(text.strip() for text in texts(cell))


# -- what a stored notebook looks like ---------------------------------------------------------------------------------
def test_there_are_notebooks():
    assert {"01_parallel_lines", "02_gradients", "09_students"} <= {path.stem for path in NOTEBOOKS}


@each_notebook
def test_it_was_executed_in_order(path):
    counts = [cell.execution_count for cell in code_cells(path) if not for_gpu(cell)]
    assert counts == list(range(1, len(counts) + 1))


@each_notebook
def test_some_outputs_are_compared_and_few_are_ignored(path):
    cells = code_cells(path)
    assert sum(map(is_compared, cells)) >= 2
    assert sum(bool(IGNORED.search(cell.source)) for cell in cells) <= min(MOST_IGNORED, len(cells) // 2)


@each_notebook
def test_a_cell_whose_output_is_ignored_shows_a_picture_alone(path):
    for cell in code_cells(path):
        if IGNORED.search(cell.source):
            kinds = [kind for output in cell.outputs for kind in output.get("data", {"text": ""})]
            assert set(kinds) == {"image/png", "text/plain"}, cell.source


@each_notebook
def test_no_error_no_warning_no_svg(path):
    for cell in code_cells(path):
        assert [output.get("name") for output in cell.outputs if output.get("name") == "stderr"] == []
        assert [output.output_type for output in cell.outputs if output.output_type == "error"] == []
        assert not any("image/svg+xml" in output.get("data", {}) for output in cell.outputs)


@each_notebook
def test_it_tells_a_story_and_holds_no_logic(path):
    cells = code_cells(path)
    assert len(cells) <= MOST_CELLS
    for cell in cells:
        assert len(cell.source.splitlines()) <= MOST_LINES, cell.source
        logic = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.While)
        assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, logic)], cell.source


@each_notebook
def test_outputs_and_sources_hold_no_address_and_no_path(path):
    for cell in nbformat.read(path, as_version=4).cells:
        found = [cell.source, *(texts(cell) if cell.cell_type == "code" else [])]
        assert [match[0] for text in found for match in LEAKS.finditer(text)] == []


def test_leaks_would_be_found():
    assert LEAKS.search("<object at 0x7f12ab34cd56>")
    assert LEAKS.search("ipykernel_12/3.py:1: UserWarning")
    assert not LEAKS.search("value 0x1 of 3 / 4")


# -- nbval bites -------------------------------------------------------------------------------------------------------
def changed(path, target, words):
    """A copy whose stored outputs differ: each first occurrence of a word is replaced. Returns the cells' numbers."""
    book, cells = nbformat.read(path, as_version=4), []
    for find, replace in words.items():
        printed = [cell for cell in book.cells if find in "".join(texts(cell) if cell.cell_type == "code" else [])]
        assert printed, f"{path.name} prints {find!r} nowhere"
        (output,) = printed[0].outputs
        output["text"] = output["text"].replace(find, replace, 1)
        cells.append(printed[0].execution_count - 1)
    nbformat.write(book, target)
    return cells


def test_nbval_passes_the_stored_outputs_and_fails_changed_ones(tmp_path):
    """Two copies in one run: as stored, and with another verdict in one cell and another number in one."""
    path = ROOT / "notebooks" / "01_parallel_lines.ipynb"
    (tmp_path / "stored.ipynb").write_bytes(path.read_bytes())
    words = {"CORRECTED   parallel_lines.caption": "PROVED      parallel_lines.caption", "0.6931": "0.6932"}
    cells = changed(path, tmp_path / "altered.ipynb", words)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-o",
        "addopts=",
        "-rf",
        "-q",
    ]
    command += ["--nbval", "--nbval-current-env", "--nbval-sanitize-with", str(SANITIZE), "--rootdir", str(tmp_path)]
    ended = subprocess.run([*command, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False)
    failed = re.findall(r"^FAILED (\S+)\.ipynb::Cell (\d+)", ended.stdout, re.MULTILINE)
    assert ended.returncode == 1, ended.stdout[-3000:]
    assert sorted(failed) == sorted(("altered", str(cell)) for cell in cells), ended.stdout[-3000:]


def test_a_cell_for_a_gpu_is_skipped_where_there_is_none(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    cells = [new_code_cell("print(1)"), new_code_cell("print(2)", metadata={"tags": ["gpu"]})]
    nbformat.write(new_notebook(cells=cells), tmp_path / "a.ipynb")
    notebooks.execute(tmp_path / "a.ipynb", tmp_path / "b.ipynb")
    first, second = code_cells(tmp_path / "b.ipynb")
    assert (first.outputs[0]["text"], second.outputs) == ("1\n", [])


def test_a_failing_cell_is_an_error_that_names_notebook_and_cause(tmp_path):
    nbformat.write(new_notebook(cells=[new_code_cell("1 / 0")]), tmp_path / "bad.ipynb")
    with pytest.raises(RuntimeError, match=r"bad.ipynb: ZeroDivisionError: division by zero"):
        notebooks.execute(tmp_path / "bad.ipynb", tmp_path / "out.ipynb")
    assert not (tmp_path / "out.ipynb").exists()
