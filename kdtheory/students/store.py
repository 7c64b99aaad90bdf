"""Files that are written whole or not at all, and are never used when damaged or made for another configuration."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

_MAGIC = b"kdtheory-checkpoint 1"


class StoredFileError(ValueError):
    """A stored file is missing, damaged, or belongs to another configuration; the message says what to do."""


def digest(value: Any) -> str:
    """Hexadecimal sha256 of bytes, or of anything JSON can hold (keys sorted, no spaces)."""
    if not isinstance(value, bytes):
        value = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(value).hexdigest()


def file_digest(path: Path) -> str:
    """Hexadecimal sha256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Write through a temporary file and `os.replace`, so that a kill leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide a shared build from its readers
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, payload: Any, *, key: str) -> None:
    """Write a sealed JSON file: the payload, the key of the configuration it belongs to, and its own sha256."""
    record = {"key": key, "sha256": digest([key, payload]), "payload": payload}
    write_bytes(path, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())


def read_json(path: Path, *, key: str | None = None) -> Any:
    """Payload of a sealed JSON file.

    Parameters
    ----------
    path : Path
        File written by `write_json`.
    key : str, optional
        Configuration it must belong to; None accepts any.

    Raises
    ------
    StoredFileError
        If the file is missing, truncated, altered, or made for another configuration.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        payload, sealed, made_for = record["payload"], record["sha256"], record["key"]
    except FileNotFoundError:
        raise StoredFileError(f"{path} is missing: run the experiment that writes it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise StoredFileError(f"{path} is truncated or not a result file ({error}); {_remedy(path)}") from None
    if digest([made_for, payload]) != sealed:
        raise StoredFileError(f"{path} was altered after it was written (sha256 differs); {_remedy(path)}")
    if key is not None and made_for != key:
        raise StoredFileError(f"{path} belongs to configuration {made_for[:12]}, not {key[:12]}; {_remedy(path)}")
    return payload


def write_checkpoint(path: Path, state: Any, *, key: str) -> str:
    """Write tensors and plain values; returns the sha256 of the stored body."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    body = buffer.getvalue()
    sealed = digest(body)
    write_bytes(path, b" ".join((_MAGIC, sealed.encode(), key.encode())) + b"\n" + body)
    return sealed


def read_checkpoint(path: Path, *, key: str, device: str | torch.device = "cpu") -> tuple[Any, str]:
    """State written by `write_checkpoint`, and its sha256.

    Raises
    ------
    StoredFileError
        If the file is missing, truncated, altered, or made for another configuration.
    """
    try:
        header, _, body = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        raise StoredFileError(f"{path} is missing: run the stage that writes it") from None
    words = header[:400].decode("ascii", "replace").split(" ")
    if not header.startswith(_MAGIC + b" ") or len(words) != 4:
        raise StoredFileError(f"{path} is not a checkpoint of kdtheory; {_remedy(path)}")
    sealed, made_for = words[2], words[3]
    if digest(body) != sealed:
        raise StoredFileError(f"{path} is truncated or altered (sha256 differs); {_remedy(path)}")
    if made_for != key:
        raise StoredFileError(f"{path} belongs to configuration {made_for[:12]}, not {key[:12]}; {_remedy(path)}")
    return torch.load(io.BytesIO(body), map_location=device, weights_only=True), sealed


def _remedy(path: Path) -> str:
    return f"it is not used: delete it (rm '{path}') and run the same command again"
