"""The teacher's distribution at every position: stored once in half precision, or computed at each step."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from kdtheory.students import models, store
from kdtheory.students.tokens import Split

_CHUNK = 64  # blocks per forward pass: bounds memory, changes no number


class Teacher(Protocol):
    """Anything that gives the teacher's log-probabilities."""

    def log_probs(self, rows: np.ndarray) -> Tensor:
        """Log-probabilities (B, T, V), float32, of the blocks with these row numbers."""

    def hidden(self, rows: np.ndarray) -> tuple[Tensor, ...] | None:
        """Hidden states and head that give them, where there are any."""


class CachedTeacher:
    """Log-probabilities read from a memory-mapped file.

    Parameters
    ----------
    path : Path
        Written by `write_cache`.
    key : str
        Configuration it must belong to.
    verify : bool
        Also compare the sha256 of the whole file (a second per gigabyte).

    Raises
    ------
    StoredFileError
        If the file is missing, truncated, altered, or made for another configuration.
    """

    def __init__(self, path: Path, *, key: str, verify: bool = False) -> None:
        facts = store.read_json(path.with_suffix(".json"), key=key)
        self.shape, dtype = tuple(facts["shape"]), np.dtype(facts["dtype"])
        remedy = f"it is not used: delete {path.with_suffix('.json')} and run the same command again"
        if not path.exists() or path.stat().st_size != np.prod(self.shape) * dtype.itemsize:
            raise store.StoredFileError(f"{path} is missing or truncated; {remedy}")
        if verify and store.file_digest(path) != facts["sha256"]:
            raise store.StoredFileError(f"{path} was altered after it was written (sha256 differs); {remedy}")
        self._stored = np.memmap(path, dtype=dtype, mode="r", shape=self.shape)

    def log_probs(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(self._stored[rows]).float()

    def hidden(self, rows: np.ndarray) -> tuple[Tensor, ...] | None:
        return None


class LiveTeacher:
    """Log-probabilities from a forward pass of the model; for vocabularies too large to cache."""

    def __init__(self, body: models.Body, split: Split, device: torch.device) -> None:
        self._body, self._split, self._device = body.to(device).eval(), split, device

    @torch.no_grad()
    def log_probs(self, rows: np.ndarray) -> Tensor:
        return torch.log_softmax(self._body.logits(self._tokens(rows)).float(), dim=-1)

    @torch.no_grad()
    def hidden(self, rows: np.ndarray) -> tuple[Tensor, ...] | None:
        """(hidden states (B, T, d), output embeddings (V, d)[, bias]); None where the head is not that simple."""
        if not self._body.plain_head:
            return None
        weight, bias = self._body.head()
        head = (weight.detach(),) if bias is None else (weight.detach(), bias.detach())
        return (self._body(self._tokens(rows)), *head)

    def _tokens(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(self._split.tokens[rows, :-1]).to(self._device)


def write_cache(
    body: models.Body,
    split: Split,
    path: Path,
    *,
    key: str,
    dtype: str = "float16",
    device: torch.device | str = "cpu",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Store the log-probabilities of a model on all blocks, chunk by chunk.

    Parameters
    ----------
    body : Body
        The teacher.
    split : Split
        N blocks; the last token of each is a label only.
    path : Path
        Raw array (N, T, V) of `dtype`; its shape, key and sha256 go into the ``.json`` beside it.
    report : callable
        Called with (blocks done, blocks in all).
    """
    live = LiveTeacher(body, split, torch.device(device))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    total, sha = len(split), hashlib.sha256()
    shape = (total, split.tokens.shape[1] - 1, 0)
    try:
        with temporary.open("wb") as stream:
            for start in range(0, total, _CHUNK):
                rows = np.arange(start, min(start + _CHUNK, total))
                values = live.log_probs(rows)
                shape = (*shape[:2], values.shape[-1])
                content = values.cpu().numpy().astype(dtype).tobytes()
                sha.update(content)
                stream.write(content)
                report(int(rows[-1]) + 1, total)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    facts = {"shape": list(shape), "dtype": dtype, "sha256": sha.hexdigest()}
    store.write_json(path.with_suffix(".json"), facts, key=key)
