from __future__ import annotations

import hashlib
import sysconfig
from pathlib import Path

import pytest

from kdtheory.students import corpus


def test_split_is_by_file_and_disjoint(text_folder):
    loaded = corpus.load(str(text_folder))
    paths = [path for split in corpus.SPLITS for path, _ in loaded.files[split]]
    assert sorted(paths) == sorted(path.name for path in text_folder.iterdir())
    assert len(set(paths)) == len(paths)


def test_split_depends_on_the_path_alone(text_folder, tmp_path):
    """A file keeps its split when others come and go, and wherever the folder lies."""
    before = {path: split for split in corpus.SPLITS for path, _ in corpus.load(str(text_folder)).files[split]}
    for name in before:
        (tmp_path / name).write_text((text_folder / name).read_text() + "\n# longer\n")
    (tmp_path / "another.py").write_text("x = 1\n")
    after = {path: split for split in corpus.SPLITS for path, _ in corpus.load(str(tmp_path)).files[split]}
    assert {path: after[path] for path in before} == before


def test_split_shares():
    """Binomial(10000, share): five standard deviations are 200 files."""
    splits = [corpus.split_of(f"package/module_{index}.py") for index in range(10_000)]
    for split, share in zip(corpus.SPLITS, (0.8, 0.1, 0.1), strict=True):
        assert abs(splits.count(split) - 10_000 * share) < 200


def test_split_of_a_known_path():
    """The rule spelled out once more: first eight bytes of the sha256, modulo 100."""
    bucket = int(hashlib.sha256(b"json/decoder.py").hexdigest()[:16], 16) % 100
    expected = "train" if bucket < 80 else "validation" if bucket < 90 else "test"
    assert corpus.split_of("json/decoder.py") == expected


def test_hash_sees_content_and_name(tmp_path):
    def build(name: str, changed: str, renamed: str) -> str:
        folder = tmp_path / name
        folder.mkdir()
        for index in range(60):
            (folder / f"m{index}.py").write_text(f"value = {index}\n")
        (folder / "m7.py").write_text(changed)
        (folder / "m8.py").rename(folder / renamed)
        return corpus.load(str(folder)).sha256

    base = build("a", "value = 7\n", "m8.py")
    assert build("b", "value = 7\n", "m8.py") == base
    assert build("c", "value = 8\n", "m8.py") != base
    assert build("d", "value = 7\n", "m99.py") != base


def test_standard_library_is_read_without_its_tests():
    loaded = corpus.load("stdlib")
    paths = {path for split in corpus.SPLITS for path, _ in loaded.files[split]}
    assert "json/decoder.py" in paths
    assert not [path for path in paths if {"test", "tests", "site-packages", "idlelib"} & set(Path(path).parts)]
    text = dict(loaded.files[corpus.split_of("json/decoder.py")])["json/decoder.py"]
    assert text == (Path(sysconfig.get_path("stdlib")) / "json" / "decoder.py").read_text(encoding="utf-8")


def test_one_text_file_is_cut_at_line_ends(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("".join(f"line {index}\n" for index in range(100)))
    loaded = corpus.load(str(path))
    parts = [loaded.texts(split)[0] for split in corpus.SPLITS]
    assert "".join(parts) == path.read_text()
    assert [part.count("\n") for part in parts] == [80, 10, 10]


@pytest.mark.parametrize(("name", "message"), [("missing", "neither"), ("empty", "empty"), ("short.txt", "empty")])
def test_what_is_wrong_is_named(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "short.txt").write_text("one line")
    with pytest.raises(ValueError, match=f"corpus: .*{message}"):
        corpus.load(str(tmp_path / name))
