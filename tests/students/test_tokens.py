from __future__ import annotations

import numpy as np
import pytest

from kdtheory.students import corpus, store, tokens
from kdtheory.students.data import batch_rows, select


@pytest.fixture(scope="module")
def loaded(text_folder):
    return corpus.load(str(text_folder))


def test_blocks_hold_the_text_and_predict_every_token_once(loaded, tmp_path):
    blocks, tokenizer, _ = tokens.prepare(loaded, vocabulary=300, length=16, folder=tmp_path)
    text = tokenizer.decode(
        [*blocks.train.tokens[0, :1], *blocks.train.tokens[:, 1:].ravel()], skip_special_tokens=False
    )
    whole = "".join(document + tokens.END for document in loaded.texts("train"))
    assert whole.startswith(text)
    assert len(text) > 0.99 * len(whole)
    assert (blocks.train.tokens[1:, 0] == blocks.train.tokens[:-1, -1]).all()


def test_tokenizer_learns_from_the_train_split_alone(loaded):
    def vocabulary(changed: str) -> str:
        files = dict(loaded.files)
        files[changed] = tuple((path, text[::-1]) for path, text in files[changed])
        return tokens.train_tokenizer(corpus.Corpus("changed", files, ""), 300).to_str()

    unchanged = tokens.train_tokenizer(loaded, 300).to_str()
    assert vocabulary("test") == unchanged
    assert vocabulary("validation") == unchanged
    assert vocabulary("train") != unchanged  # the control


def test_cache_is_reused_and_guarded(loaded, tmp_path):
    first, _, key = tokens.prepare(loaded, vocabulary=300, length=16, folder=tmp_path)
    again, _, _ = tokens.prepare(loaded, vocabulary=300, length=16, folder=tmp_path)
    np.testing.assert_array_equal(first.train.tokens, again.train.tokens)
    arrays = next(tmp_path.glob("*.npz"))
    arrays.write_bytes(arrays.read_bytes()[:-100])
    with pytest.raises(store.StoredFileError, match=f"{arrays.name}.*delete"):
        tokens.reopen(tmp_path, key=key)


def test_masks_and_prompts_are_kept(tmp_path):
    rng = np.random.default_rng(0)
    parts = [tokens.Split(rng.integers(0, 9, (n, 5)), rng.random((n, 4)) < 0.5) for n in (3, 2)]
    kept = tokens.Blocks(*parts, tokens.Split(parts[0].tokens), None, ("a", "b", "c"), ("d", "e", "f"))
    tokens.keep(kept, tmp_path, key="k" * 64)
    found = tokens.reopen(tmp_path, key="k" * 64)
    for split in corpus.SPLITS:
        np.testing.assert_array_equal(getattr(found, split).tokens, getattr(kept, split).tokens)
    np.testing.assert_array_equal(found.train.mask, parts[0].mask)
    assert found.test.mask is None
    assert found.test.counted().all()
    assert (found.prompts, found.references, found.bytes_per_token) == (kept.prompts, kept.references, None)


def test_vocabulary_bounds(loaded):
    with pytest.raises(ValueError, match="vocabulary = 256"):
        tokens.train_tokenizer(loaded, 256)
    small = corpus.Corpus("small", dict.fromkeys(corpus.SPLITS, (("a", "ab ab\n"),)), "")
    with pytest.raises(ValueError, match="yields only"):
        tokens.train_tokenizer(small, 1000)


def test_a_text_shorter_than_a_block_is_refused(loaded):
    tokenizer = tokens.train_tokenizer(loaded, 300)
    with pytest.raises(ValueError, match="fewer than one block of 17"):
        tokens.encode(tokenizer, ["abc"], 16, "test")


def test_too_few_blocks_are_refused(prepared, profile):
    from dataclasses import replace

    with pytest.raises(ValueError, match="train_blocks = 1000000"):
        select(prepared.blocks, replace(profile, train_blocks=1_000_000))


def test_batches_are_a_function_of_seed_and_step():
    """An epoch visits every block once; another seed, kind or epoch has another order."""
    epoch = [tuple(batch_rows("student", 0, step, batch=4, count=12)) for step in range(3)]
    assert sorted(sum(epoch, ())) == list(range(12))
    assert [tuple(batch_rows("student", 0, step, batch=4, count=12)) for step in range(3)] == epoch
    others = (("student", 1, 0), ("warm", 0, 0), ("student", 0, 3))
    for kind, seed, first in others:
        assert [tuple(batch_rows(kind, seed, first + step, batch=4, count=12)) for step in range(3)] != epoch


def test_a_batch_larger_than_the_text_is_refused():
    with pytest.raises(ValueError, match="batch = 13"):
        batch_rows("student", 0, 0, batch=13, count=12)
