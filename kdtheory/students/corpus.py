"""Real text with nothing to download: the source of the running CPython's standard library, split by file."""

from __future__ import annotations

import hashlib
import itertools
import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from kdtheory.students.store import digest

SPLITS = ("train", "validation", "test")
_SHARES = (80, 90, 100)  # upper ends, in percent
_SKIPPED = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__"}
_TEXT = {".py", ".txt", ".md", ".rst"}


@dataclass(frozen=True)
class Corpus:
    """Texts of the three splits, and the sha256 over every path and content.

    Attributes
    ----------
    name : str
        ``"stdlib"``, or the path that was read.
    files : dict of str to tuple of (path, text)
        For each split, its documents in the order of their paths.
    sha256 : str
        Over the sorted (path, content) pairs of all splits.
    """

    name: str
    files: dict[str, tuple[tuple[str, str], ...]]
    sha256: str

    def texts(self, split: str) -> list[str]:
        """Documents of one split."""
        return [text for _, text in self.files[split]]


def split_of(path: str) -> str:
    """The split of a file, from the sha256 of its relative POSIX path: 80 % train, 10 % validation, 10 % test."""
    bucket = int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") % 100
    return next(split for split, end in zip(SPLITS, _SHARES, strict=True) if bucket < end)


def load(source: str) -> Corpus:
    """Read a corpus.

    Parameters
    ----------
    source : str
        ``"stdlib"``; a folder, whose ``.py``, ``.txt``, ``.md`` and ``.rst`` files are split by file; or one text file,
        which is cut at line ends into its first 80 %, next 10 % and last 10 %.

    Raises
    ------
    ValueError
        If nothing is there, or a split would be empty.
    """
    if source == "stdlib":
        root = Path(sysconfig.get_path("stdlib"))
        documents = _folder(root, {".py"})
    elif (root := Path(source)).is_dir():
        documents = _folder(root, _TEXT)
    elif root.is_file():
        return _single(source, root)
    else:
        raise ValueError(f"corpus: {source!r} is neither 'stdlib' nor a file or folder that exists")
    files = {split: tuple(item for item in documents if split_of(item[0]) == split) for split in SPLITS}
    return _checked(source, files)


def _folder(root: Path, suffixes: set[str]) -> list[tuple[str, str]]:
    found: list[Path] = []
    for folder, names, files in os.walk(root):
        # config-3.x-<platform> and _sysconfigdata hold the paths of the machine that built Python
        names[:] = [name for name in names if name not in _SKIPPED and not name.startswith(("config-", "."))]
        found += [Path(folder, name) for name in files if Path(name).suffix in suffixes]
    relative = sorted((path.relative_to(root).as_posix(), path) for path in found)
    return [(name, _read(path)) for name, path in relative if not name.startswith("_sysconfigdata")]


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")


def _single(source: str, path: Path) -> Corpus:
    lines = _read(path).splitlines(keepends=True)
    ends = [len(lines) * share // 100 for share in (0, *_SHARES)]
    parts = ("".join(lines[start:end]) for start, end in itertools.pairwise(ends))
    files: dict[str, tuple[tuple[str, str], ...]]
    files = {split: ((f"{path.name}[{split}]", text),) for split, text in zip(SPLITS, parts, strict=True)}
    return _checked(source, files)


def _checked(source: str, files: dict[str, tuple[tuple[str, str], ...]]) -> Corpus:
    for split in SPLITS:
        if not any(text.strip() for _, text in files[split]):
            count = sum(len(documents) for documents in files.values())
            raise ValueError(
                f"corpus: the {split} split of {source!r} is empty ({count} documents in all): "
                "give more files, or one text file of at least ten lines"
            )
    pairs = sorted((name, digest(text.encode())) for documents in files.values() for name, text in documents)
    return Corpus(source, files, digest(pairs))
