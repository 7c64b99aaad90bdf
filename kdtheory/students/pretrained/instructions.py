"""Text or instructions as blocks of tokens in three splits, with the positions that count."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdtheory.students import corpus, store, tokens
from kdtheory.students.corpus import SPLITS
from kdtheory.students.pretrained import records, rows
from kdtheory.students.pretrained.records import Example
from kdtheory.students.tokens import Split


@dataclass(frozen=True)
class Data:
    """What `load` read.

    Attributes
    ----------
    name : str
        The source, as it was given.
    train, validation, test : Split
        tokens (N, T + 1), padded on the right, and mask (N, T): every label of a text counts, and the response and
        its ending of an instruction. No example is in two of them.
    prompts, references : list of str
        Of the test split's instructions, for ROUGE-L: prompts in the order of its blocks, tokenised with
        ``add_special_tokens=False``, and whole responses. Empty for text.
    counts : dict of str to int
        ``train``, ``validation``, ``test``: blocks. For instructions also ``truncated``: responses cut at the block's
        end; ``dropped``: examples left out because the prompt fills the block; and, for every source with records,
        ``repeated``: taken out of a split because a later one holds the same prompt or text.
    sha256 : str
        Over the examples or documents of the splits, before they are tokenised.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    prompts: list[str]
    references: list[str]
    counts: dict[str, int]
    sha256: str


def load(source: str, tokenizer: Any, length: int) -> Data:
    """Read text or instructions.

    Parameters
    ----------
    source : str
        ``"stdlib"``, a text file or a folder of texts: documents joined by the end token and cut into blocks.
        A JSONL file, a folder with ``train.jsonl`` (and ``validation.jsonl``, ``test.jsonl``), a folder written by
        `datasets`' `save_to_disk`, or a data set's name: one example per record (`records.example`) or, where
        records have a field ``text``, documents.
    tokenizer : transformers tokenizer
        With an end token and a padding token, as `Pair.tokenizer` has them.
    length : int
        T, the labels of a block.

    Returns
    -------
    Data
        Splits are the source's own, or 80/10/10 by the sha256 of the prompt (text: of the file's path).

    Raises
    ------
    ValueError
        If nothing is there, a record is damaged (the message names line and field), no example fits into a block, or
        a split is left empty.
    """
    if length < 2:
        raise ValueError(f"length = {length}: a block needs at least 2 labels")
    path = Path(source)
    holds_records = path.suffix in rows.JSONL or (path / "train.jsonl").is_file() or rows.is_saved(path)
    if source == "stdlib" or (path.exists() and not holds_records):
        found = corpus.load(source)
        return _text(source, {split: found.texts(split) for split in SPLITS}, found.sha256, {}, tokenizer, length)
    read = rows.read(source)
    if all(records.is_document(record) for part in read.values() for _, record in part):
        documents = {split: [records.document(record, place) for place, record in part] for split, part in read.items()}
        texts, repeated = rows.assign(documents, key=lambda text: text)
        return _text(source, texts, store.digest(texts), {"repeated": repeated}, tokenizer, length)
    return _instructions(source, read, tokenizer, length)


def _text(
    name: str, texts: dict[str, list[str]], sha256: str, counts: dict[str, int], tokenizer: Any, length: int
) -> Data:
    splits = {}
    for split in SPLITS:
        documents = [text for text in texts[split] if text.strip()]
        if not documents:
            raise ValueError(_empty(name, split, {key: len(value) for key, value in texts.items()}, "documents", 0))
        stream = np.concatenate([np.array([*ids, tokenizer.eos_token_id]) for ids in _ids(tokenizer, documents)])
        blocks = tokens.cut(stream, length, split)
        splits[split] = Split(blocks, np.ones((len(blocks), length), dtype=bool))
    sizes = {split: len(part.tokens) for split, part in splits.items()}
    return Data(name, **splits, prompts=[], references=[], counts=sizes | counts, sha256=sha256)


def _instructions(name: str, read: rows.Rows, tokenizer: Any, length: int) -> Data:
    examples = {
        split: [records.example(record, place, tokenizer) for place, record in part] for split, part in read.items()
    }
    assigned, repeated = rows.assign(examples, key=lambda example: example.prompt)
    blocks = {split: _blocks(assigned[split], tokenizer, length) for split in SPLITS}
    total = sum(len(part) for part in assigned.values())
    dropped = total - sum(len(part.kept) for part in blocks.values())
    if dropped == total:
        raise ValueError(
            f"data: the prompts of all {total} examples of {name!r} fill a block of {length} labels and leave no room "
            "for a response: take a larger length"
        )
    sizes = {split: len(part.kept) for split, part in blocks.items()}
    for split in SPLITS:
        if not sizes[split]:
            raise ValueError(_empty(name, split, sizes, "examples", dropped))
    held = blocks["test"].kept
    content = {split: [[e.prompt, e.response, e.ending] for e in part] for split, part in assigned.items()}
    return Data(
        name,
        **{split: part.split for split, part in blocks.items()},
        prompts=[example.prompt for example in held],
        references=[example.response for example in held],
        counts=sizes
        | {"truncated": sum(part.truncated for part in blocks.values()), "dropped": dropped, "repeated": repeated},
        sha256=store.digest(content),
    )


@dataclass(frozen=True)
class _Blocks:
    split: Split
    kept: list[Example]
    truncated: int


def _blocks(examples: list[Example], tokenizer: Any, length: int) -> _Blocks:
    """One padded block per example whose prompt leaves room for a token of the response."""
    prompts, responses, endings = (
        _ids(tokenizer, [getattr(example, part) for example in examples]) for part in ("prompt", "response", "ending")
    )
    fits = [index for index, prompt in enumerate(prompts) if len(prompt) <= length]
    blocks = np.full((len(fits), length + 1), tokenizer.pad_token_id, dtype=np.int64)
    mask = np.zeros((len(fits), length), dtype=bool)
    truncated = 0
    for row, index in enumerate(fits):
        whole = [*prompts[index], *responses[index], *endings[index]]
        truncated += len(whole) > length + 1
        used = whole[: length + 1]
        blocks[row, : len(used)] = used
        mask[row, max(len(prompts[index]), 1) - 1 : len(used) - 1] = True  # the label at t is the token at t + 1
    return _Blocks(Split(blocks, mask), [examples[index] for index in fits], truncated)


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    # verbose=False: documents are longer than the model on purpose, they are cut afterwards
    return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []


def _empty(name: str, split: str, sizes: dict[str, int], what: str, dropped: int) -> str:
    spread = ", ".join(f"{key} {size}" for key, size in sizes.items())
    long = f"; {dropped} more were dropped for long prompts" if dropped else ""
    return (
        f"data: the {split} split of {name!r} is empty ({sum(sizes.values())} {what}: {spread}{long}): give more "
        f"{what} (they are drawn 80/10/10 by hash, so some dozens are needed), or a data set with its own splits"
    )
