"""Byte-pair encoding trained on the train split, and fixed blocks of tokens."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from kdtheory.students import store
from kdtheory.students.corpus import SPLITS, Corpus

END = "<|endoftext|>"
_BYTES = 256  # every byte is a token, so that nothing is unknown


@dataclass(frozen=True)
class Blocks:
    """Token blocks of the three splits.

    Attributes
    ----------
    train, validation, test : ndarray of int64, shape (N, T + 1)
        Consecutive, non-overlapping; block[:-1] is the input and block[1:] the next tokens.
    bytes_per_token : float
        Of the test split, UTF-8.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    bytes_per_token: float


def train_tokenizer(corpus: Corpus, vocabulary: int) -> Tokenizer:
    """Byte-level BPE with `vocabulary` tokens, the end of a document included.

    Raises
    ------
    ValueError
        If the vocabulary cannot hold the 256 bytes and the end token, or the text is too small to fill it.
    """
    if vocabulary <= _BYTES:
        raise ValueError(f"vocabulary = {vocabulary}: a byte-level BPE needs more than {_BYTES}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus.texts("train"), trainer)
    if (size := tokenizer.get_vocab_size()) != vocabulary:
        raise ValueError(
            f"vocabulary = {vocabulary}, but the text yields only {size} tokens: give more text or ask less"
        )
    return tokenizer


def encode(tokenizer: Tokenizer, texts: list[str], length: int, split: str) -> np.ndarray:
    """Documents joined by the end token and cut into blocks of `length` + 1 tokens, (N, length + 1) int64."""
    end = [tokenizer.token_to_id(END)]
    return cut(np.concatenate([np.array(item.ids + end) for item in tokenizer.encode_batch(texts)]), length, split)


def cut(stream: np.ndarray, length: int, split: str) -> np.ndarray:
    """A stream of tokens (M,) as blocks of `length` + 1 tokens, (N, length + 1) int64; the rest is left out."""
    # block k starts at the last token of block k - 1: every token is predicted exactly once
    count = (len(stream) - 1) // length
    if count < 1:
        raise ValueError(f"corpus: the {split} split has {len(stream)} tokens, fewer than one block of {length + 1}")
    starts = np.arange(count)[:, None] * length
    return stream[starts + np.arange(length + 1)].astype(np.int64)


def prepare(corpus: Corpus, *, vocabulary: int, length: int, folder: Path) -> tuple[Blocks, Tokenizer, str]:
    """Blocks and tokenizer, cached in `folder`.

    Returns
    -------
    (Blocks, Tokenizer, str)
        The last is the key: it names the corpus, the vocabulary and the block length.

    Raises
    ------
    ValueError
        If a split is smaller than one block, or the cache is damaged (the message names the file).
    """
    key = store.digest(["tokens", 1, corpus.sha256, vocabulary, length])
    stem = f"tokens-{key[:12]}"
    stamp, arrays, model = folder / f"{stem}.json", folder / f"{stem}.npz", folder / f"{stem}.tokenizer.json"
    if not stamp.exists():
        tokenizer = train_tokenizer(corpus, vocabulary)
        blocks = {split: encode(tokenizer, corpus.texts(split), length, split) for split in SPLITS}
        _write(arrays, model, blocks, tokenizer)
        size = sum(len(text.encode()) for text in corpus.texts("test"))
        facts = {
            "bytes_per_token": size / max(blocks["test"].size - len(blocks["test"]), 1),
            "blocks": {split: len(blocks[split]) for split in SPLITS},
            "sha256": {path.name: store.file_digest(path) for path in (arrays, model)},
        }
        store.write_json(stamp, facts, key=key)
    return reopen(folder, key=key), Tokenizer.from_file(str(model)), key


def reopen(folder: Path, *, key: str) -> Blocks:
    """Blocks that `prepare` stored under this key.

    Raises
    ------
    StoredFileError
        If a file is missing, truncated or altered; the message names it.
    """
    stem = f"tokens-{key[:12]}"
    stamp = folder / f"{stem}.json"
    facts = store.read_json(stamp, key=key)
    for name in (f"{stem}.npz", f"{stem}.tokenizer.json"):
        path = folder / name
        if not path.exists() or store.file_digest(path) != facts["sha256"][name]:
            raise store.StoredFileError(
                f"{path} is missing or altered; it is not used: delete {stamp} and run the same command again"
            )
    with np.load(folder / f"{stem}.npz") as stored:
        blocks = {split: stored[split].astype(np.int64) for split in SPLITS}
    return Blocks(**blocks, bytes_per_token=facts["bytes_per_token"])


def _write(arrays: Path, model: Path, blocks: dict[str, np.ndarray], tokenizer: Tokenizer) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **{split: block.astype(np.uint32) for split, block in blocks.items()})  # type: ignore[arg-type]
    store.write_bytes(arrays, buffer.getvalue())
    store.write_bytes(model, json.dumps(json.loads(tokenizer.to_str()), sort_keys=False).encode())
