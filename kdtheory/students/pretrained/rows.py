"""Records of a JSONL file, of a folder of them, or of a Hugging Face data set, with the splits they come in."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from kdtheory.students.corpus import SPLITS, split_of
from kdtheory.students.pretrained.source import is_path

Rows = dict[str, list[tuple[str, dict[str, Any]]]]
"""For each split of the source: (place for messages, record). A source without splits is all ``train``."""

JSONL = (".jsonl", ".ndjson", ".json")
_ALIASES = {"valid": "validation", "val": "validation", "dev": "validation"}
_FORMATS = (
    "'stdlib', a text file, a folder of texts, a JSONL file of instructions, a folder with train.jsonl, "
    "a folder written by save_to_disk, or the name of a data set on the Hugging Face Hub"
)
_Item = TypeVar("_Item")


def read(source: str) -> Rows:
    """Records of `source`.

    Raises
    ------
    ValueError
        If there is nothing at `source`, a line is no JSON object, a split has a name of its own, or the optional
        package `datasets` is needed and not installed.
    """
    path = Path(source)
    if path.is_file():
        return {"train": _jsonl(path)}
    if (path / "train.jsonl").is_file():
        return _named({file.stem: _jsonl(file) for file in sorted(path.glob("*.jsonl"))}, source)
    return _dataset(source)


def is_saved(path: Path) -> bool:
    """Whether `datasets` wrote this folder with `save_to_disk`."""
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def assign(rows: dict[str, list[_Item]], key: Callable[[_Item], Hashable]) -> tuple[dict[str, list[_Item]], int]:
    """Final splits, without an example in two of them.

    A split that the source has is kept. One that it lacks is drawn from the source's ``train`` by the sha256 of the
    example's key. A key that is in two splits stays in the later of train, validation and test.

    Returns
    -------
    (dict, int)
        The splits, and how many examples were taken out of an earlier one.
    """
    found: dict[str, list[_Item]] = {split: list(rows.get(split, ())) for split in SPLITS}
    found["train"] = []
    for item in rows.get("train", ()):
        drawn = split_of(str(key(item)))
        found["train" if drawn in rows else drawn].append(item)
    held: set[Hashable] = set()
    removed = 0
    for split in reversed(SPLITS):
        kept = [item for item in found[split] if key(item) not in held]
        removed += len(found[split]) - len(kept)
        held |= {key(item) for item in kept}
        found[split] = kept
    return found, removed


def _jsonl(path: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not UTF-8 (byte {error.start}): write it in UTF-8") from None
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines would cut at U+2028 inside a string
        place = f"{path.name}, line {number}"
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{place}: invalid JSON ({error}): write one object per line") from None
        if not isinstance(record, dict):
            raise ValueError(f"{place}: a JSON {type(record).__name__}, not an object: write one object per line")
        rows.append((place, record))
    if not rows:
        raise ValueError(f"{path.name} is empty: write one JSON object per line")
    return rows


def _dataset(source: str) -> Rows:
    path = Path(source)
    if not path.exists() and (is_path(source) or path.suffix in (*JSONL, ".txt")):
        raise ValueError(f"data: there is no file or folder {source!r}: give {_FORMATS}")
    try:
        import datasets
    except ImportError:
        raise ValueError(
            f"data: {source!r} is not a file, and reading it as a Hugging Face data set needs the package datasets: "
            f"pip install datasets; or give {_FORMATS}"
        ) from None
    try:
        loaded = datasets.load_from_disk(source) if is_saved(path) else datasets.load_dataset(source)
    except Exception as error:  # the package raises its own and its file systems' many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"data: {source!r} is not a file, and as a Hugging Face data set it failed ({reason}): give {_FORMATS}"
        ) from error
    splits = loaded if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}
    return _named({name: _places(name, records) for name, records in splits.items()}, source)


def _places(split: str, records: Iterable[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    # an Arrow table has every column in every row: a field that a record lacks is None
    filled = ({name: value for name, value in record.items() if value is not None} for record in records)
    return [(f"{split}, row {number}", record) for number, record in enumerate(filled)]


def _named(splits: Rows, source: str) -> Rows:
    rows = {_ALIASES.get(name, name): records for name, records in splits.items()}
    if unknown := sorted(set(rows) - set(SPLITS)):
        raise ValueError(
            f"data: {source!r} has the splits {sorted(splits)}; {unknown[0]!r} is none of {list(SPLITS)}: "
            "rename the splits that you want, leave out the others and save it again"
        )
    if "train" not in rows:
        raise ValueError(f"data: {source!r} has the splits {sorted(splits)}, but no 'train': name one of them so")
    return rows
