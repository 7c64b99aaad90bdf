from __future__ import annotations

import json

import pytest
import torch

from kdtheory.students import store


@pytest.fixture
def sealed(tmp_path):
    path = tmp_path / "result.json"
    store.write_json(path, {"fkl": 0.25, "curve": [1, 2]}, key="k1")
    return path


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "run.checkpoint"
    store.write_checkpoint(path, {"weight": torch.arange(3.0), "step": 7}, key="k1")
    return path


def test_round_trip(sealed, checkpoint):
    assert store.read_json(sealed, key="k1") == {"fkl": 0.25, "curve": [1, 2]}
    state, sha = store.read_checkpoint(checkpoint, key="k1")
    assert state["step"] == 7
    assert torch.equal(state["weight"], torch.arange(3.0))
    assert len(sha) == 64


@pytest.mark.parametrize("kept", [0, 1, 20, 100, -1])
def test_truncated_files_are_refused(sealed, checkpoint, kept):
    for path, read in ((sealed, store.read_json), (checkpoint, store.read_checkpoint)):
        path.write_bytes(path.read_bytes()[:-2] if kept < 0 else path.read_bytes()[:kept])
        with pytest.raises(store.StoredFileError, match=rf"{path.name}.*rm .*{path.name}.* run the same command"):
            read(path, key="k1")


def test_one_flipped_bit_is_refused(checkpoint):
    content = bytearray(checkpoint.read_bytes())
    content[-40] ^= 1
    checkpoint.write_bytes(content)
    with pytest.raises(store.StoredFileError, match="truncated or altered"):
        store.read_checkpoint(checkpoint, key="k1")


def test_an_edited_number_is_refused(sealed):
    record = json.loads(sealed.read_text())
    record["payload"]["fkl"] = 0.2
    sealed.write_text(json.dumps(record))
    with pytest.raises(store.StoredFileError, match="altered after it was written"):
        store.read_json(sealed)


def test_another_configuration_is_refused(sealed, checkpoint):
    with pytest.raises(store.StoredFileError, match="belongs to configuration k1, not k2"):
        store.read_json(sealed, key="k2")
    with pytest.raises(store.StoredFileError, match="belongs to configuration k1, not k2"):
        store.read_checkpoint(checkpoint, key="k2")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(store.StoredFileError, match=r"gone\.json is missing"):
        store.read_json(tmp_path / "gone.json")
    with pytest.raises(store.StoredFileError, match=r"gone\.weights is missing"):
        store.read_checkpoint(tmp_path / "gone.weights", key="k")


def test_a_failed_write_leaves_the_old_file(sealed, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(store.os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        store.write_json(sealed, {"fkl": 9.0}, key="k1")
    assert store.read_json(sealed, key="k1")["fkl"] == 0.25
    assert [path.name for path in sealed.parent.iterdir()] == [sealed.name]
