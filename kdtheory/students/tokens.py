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
class Split:
    """Blocks of one split.

    Attributes
    ----------
    tokens : ndarray of int64, shape (N, T + 1)
        tokens[:, :-1] is the input and tokens[:, 1:] the labels; padded on the right.
    mask : ndarray of bool, shape (N, T), or None
        True = this label is counted: the response and its ending of an instruction. None: all are, as in a text.
    """

    tokens: np.ndarray
    mask: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def part(self, rows: np.ndarray) -> Split:
        """The blocks with these numbers."""
        return Split(self.tokens[rows], None if self.mask is None else self.mask[rows])

    def counted(self) -> np.ndarray:
        """The mask, written out."""
        return np.ones(self.tokens[:, 1:].shape, dtype=bool) if self.mask is None else self.mask


@dataclass(frozen=True)
class Blocks:
    """Token blocks of the three splits; in a text they are consecutive and do not overlap.

    Attributes
    ----------
    train, validation, test : Split
    bytes_per_token : float or None
        Of a text's test split, UTF-8.
    prompts, references : tuple of str
        Of the test split's instructions, in the order of its blocks; empty for a text.
    """

    train: Split
    validation: Split
    test: Split
    bytes_per_token: float | None = None
    prompts: tuple[str, ...] = ()
    references: tuple[str, ...] = ()


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
    key = store.digest(["tokens", 2, corpus.sha256, vocabulary, length])
    model = folder / f"{_stem(key)}.tokenizer.json"
    if not _stamp(folder, key).exists():
        tokenizer = train_tokenizer(corpus, vocabulary)
        train, validation, test = (Split(encode(tokenizer, corpus.texts(split), length, split)) for split in SPLITS)
        density = sum(len(text.encode()) for text in corpus.texts("test")) / test.counted().sum()
        store.write_bytes(model, json.dumps(json.loads(tokenizer.to_str()), sort_keys=False).encode())
        keep(Blocks(train, validation, test, float(density)), folder, key=key)
    return reopen(folder, key=key), Tokenizer.from_file(str(model)), key


def keep(blocks: Blocks, folder: Path, *, key: str) -> None:
    """Store blocks under a key, with the sha256 of every file of that key."""
    arrays = folder / f"{_stem(key)}.npz"
    buffer = io.BytesIO()
    content = {split: getattr(blocks, split).tokens.astype(np.uint32) for split in SPLITS}
    masks = {f"{split}_mask": getattr(blocks, split).mask for split in SPLITS}
    np.savez(buffer, **content, **{name: mask for name, mask in masks.items() if mask is not None})
    store.write_bytes(arrays, buffer.getvalue())
    facts = {
        "bytes_per_token": blocks.bytes_per_token,
        "blocks": {split: len(getattr(blocks, split)) for split in SPLITS},
        "prompts": list(blocks.prompts),
        "references": list(blocks.references),
        "sha256": {path.name: store.file_digest(path) for path in _files(folder, key)},
    }
    store.write_json(_stamp(folder, key), facts, key=key)


def _stem(key: str) -> str:
    return f"tokens-{key[:12]}"


def _stamp(folder: Path, key: str) -> Path:
    return folder / f"{_stem(key)}.json"


def _files(folder: Path, key: str) -> list[Path]:
    """What the stamp vouches for."""
    return [path for path in sorted(folder.glob(f"{_stem(key)}.*")) if path != _stamp(folder, key)]


def reopen(folder: Path, *, key: str) -> Blocks:
    """Blocks that `keep` stored under this key.

    Raises
    ------
    StoredFileError
        If a file is missing, truncated or altered; the message names it.
    """
    stamp = _stamp(folder, key)
    facts = store.read_json(stamp, key=key)
    for name, sealed in facts["sha256"].items():
        path = folder / name
        if not path.exists() or store.file_digest(path) != sealed:
            raise store.StoredFileError(
                f"{path} is missing or altered; it is not used: delete {stamp} and run the same command again"
            )
    with np.load(folder / f"{_stem(key)}.npz") as stored:
        train, validation, test = (
            Split(stored[split].astype(np.int64), stored.get(f"{split}_mask")) for split in SPLITS
        )
    texts = (tuple(facts[name]) for name in ("prompts", "references"))
    return Blocks(train, validation, test, facts["bytes_per_token"], *texts)
