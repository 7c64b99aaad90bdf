"""Text and instructions as blocks: masks, templates, splits, and every refusal."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from kdtheory.students import corpus
from kdtheory.students.corpus import SPLITS
from kdtheory.students.pretrained import instructions, records
from tests.students import tiny

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def words():
    made = tiny.tokenizer()
    made.pad_token = made.eos_token
    return made


@pytest.fixture(scope="module")
def chat_words():
    """End token of a text and end of a turn are two tokens, as in several families."""
    made = tiny.tokenizer(special=(tiny.END, "<|im_start|>", "<|im_end|>"), eos_token=tiny.END, pad_token=tiny.END)
    made.chat_template = CHAT
    return made


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def simple(count, start=0):
    return [{"prompt": f"the cat {n} sat on", "completion": f" mat number {n}!"} for n in range(start, start + count)]


def refused(source, words, length=32):
    with pytest.raises(ValueError, match=r".") as caught:
        instructions.load(str(source), words, length)
    return str(caught.value)


def counted(words, split, row):
    """Text of the labels that count."""
    return words.decode(split.tokens[row, 1:][split.mask[row]])


# -- masks -------------------------------------------------------------------------------------------------------------
def test_the_counted_tokens_are_the_response_and_the_end(words, tmp_path):
    data = instructions.load(write(tmp_path / "d.jsonl", simple(80)), words, 32)
    seen = {}
    for split in SPLITS:
        part = getattr(data, split)
        assert part.tokens.dtype == np.int64
        assert part.mask.dtype == bool
        assert part.tokens.shape == (data.counts[split], 33)
        assert part.mask.shape == (data.counts[split], 32)
        for row in range(len(part.tokens)):
            seen[words.decode(part.tokens[row]).split(" mat")[0]] = counted(words, part, row)
    assert seen == {row["prompt"]: row["completion"] + tiny.END for row in simple(80)}
    everything = sum(getattr(data, split).mask.size for split in SPLITS)
    assert sum(getattr(data, split).mask.sum() for split in SPLITS) < 0.7 * everything  # the control: not all count


def test_blocks_are_prompt_response_end_and_padding(words, tmp_path):
    data = instructions.load(write(tmp_path / "d.jsonl", simple(80)), words, 32)
    for prompt, response, tokens, mask in zip(
        data.prompts, data.references, data.test.tokens, data.test.mask, strict=True
    ):
        parts = [words(text, add_special_tokens=False).input_ids for text in (prompt, response)]
        whole = [*parts[0], *parts[1], words.eos_token_id]
        assert tokens.tolist() == whole + [words.pad_token_id] * (33 - len(whole))
        assert np.flatnonzero(mask).tolist() == list(range(len(parts[0]) - 1, len(whole) - 1))


def test_long_responses_are_cut_and_long_prompts_dropped(words, tmp_path):
    rows = [*simple(80), {"prompt": "a dog", "completion": "x" * 100}, {"prompt": "y" * 100, "completion": "z"}]
    data = instructions.load(write(tmp_path / "d.jsonl", rows), words, 32)
    assert (data.counts["truncated"], data.counts["dropped"]) == (1, 1)
    assert sum(data.counts[split] for split in SPLITS) == 81
    texts = [counted(words, getattr(data, s), row) for s in SPLITS for row in range(data.counts[s])]
    (cut,) = (text for text in texts if text.startswith("x"))
    assert set(cut) == {"x"}  # no end: the response did not end here
    assert not any("z" in text for text in texts)


def test_a_prompt_that_leaves_one_token_is_kept(words, tmp_path):
    size = len(words("y" * 20, add_special_tokens=False).input_ids)
    rows = [*simple(80), {"prompt": "y" * 20, "completion": "z"}]
    path = write(tmp_path / "d.jsonl", rows)
    longest = max(len(words(row["prompt"]).input_ids) for row in simple(80))
    assert longest < size
    assert instructions.load(path, words, size).counts["dropped"] == 0
    assert instructions.load(path, words, size - 1).counts["dropped"] == 1  # the control


# -- formats -----------------------------------------------------------------------------------------------------------
HEAD = "Below is an instruction that describes a task"
REQUEST = "Write a response that appropriately completes the request.\n\n### Instruction:\n"


@pytest.mark.parametrize(
    ("record", "prompt"),
    [
        ({"prompt": "Why?", "completion": "So."}, "Why?"),
        ({"instruction": "Why?", "input": "", "output": "So."}, f"{HEAD}. {REQUEST}Why?\n\n### Response:\n"),
        (
            {"instruction": "Why?", "context": "Rain.", "response": "So.", "category": "qa"},
            f"{HEAD}, paired with an input that provides further context. {REQUEST}"
            "Why?\n\n### Input:\nRain.\n\n### Response:\n",
        ),
        (
            {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]},
            "### User:\nWhy?\n\n### Assistant:\n",
        ),
    ],
    ids=["completion", "alpaca", "dolly", "messages"],
)
def test_formats(record, prompt, words):
    assert records.example(record, "here", words) == records.Example(prompt, "So.", tiny.END)


def test_a_chat_goes_through_the_template_and_ends_with_its_turn(chat_words, tmp_path):
    turns = [
        {"role": "system", "content": "So. Be brief."},  # the response's text is in it as well
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So."},
    ]
    example = records.example({"messages": turns}, "here", chat_words)
    assert example.prompt == (
        "<|im_start|>system\nSo. Be brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert (example.response, example.ending) == ("So.", "<|im_end|>")
    rows = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}."}]}
        for n in range(80)
    ]
    data = instructions.load(write(tmp_path / "d.jsonl", rows), chat_words, 48)
    ends = [counted(chat_words, data.test, row) for row in range(data.counts["test"])]
    assert ends == [f"{reference}<|im_end|>" for reference in data.references]


def test_a_start_token_stands_before_a_prompt_where_the_tokenizer_puts_it():
    from tokenizers.processors import TemplateProcessing

    made = tiny.tokenizer(special=(tiny.END, "<s>"), eos_token=tiny.END, bos_token="<s>")
    record = {"prompt": "Why?", "completion": "So."}
    assert records.example(record, "here", made).prompt == "Why?"  # the control: it has one, and does not put it
    made.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    prompt = records.example(record, "here", made).prompt
    assert prompt == "<s>Why?"
    assert made(prompt, add_special_tokens=False).input_ids == made("Why?").input_ids


# -- splits ------------------------------------------------------------------------------------------------------------
def prompts(words, part):
    return {words.decode(row[: mask.argmax() + 1]) for row, mask in zip(part.tokens, part.mask, strict=True)}


def test_splits_follow_the_prompt_and_share_none(words, tmp_path):
    rows = simple(300)
    twice = [*rows, *({**row, "completion": " again"} for row in rows)]
    data = instructions.load(write(tmp_path / "d.jsonl", twice), words, 32)
    found = {split: prompts(words, getattr(data, split)) for split in SPLITS}
    assert found == {
        split: {row["prompt"] for row in rows if corpus.split_of(row["prompt"]) == split} for split in SPLITS
    }
    assert [data.counts[split] for split in SPLITS] == [2 * len(found[split]) for split in SPLITS]
    assert 0.7 < data.counts["train"] / 600 < 0.9
    assert data.counts["repeated"] == 0


def test_splits_do_not_depend_on_the_order(words, tmp_path):
    rows = simple(80)
    one = instructions.load(write(tmp_path / "a.jsonl", rows), words, 32)
    other = instructions.load(write(tmp_path / "b.jsonl", rows[::-1]), words, 32)
    assert prompts(words, one.test) == prompts(words, other.test)
    assert one.sha256 != other.sha256  # the order of batches is part of the data


def test_own_splits_are_kept_and_leaks_taken_out_of_train(words, tmp_path):
    write(tmp_path / "train.jsonl", simple(20))
    write(tmp_path / "valid.jsonl", simple(5, start=15))
    write(tmp_path / "test.jsonl", simple(5, start=18))
    data = instructions.load(str(tmp_path), words, 32)
    assert [data.counts[split] for split in SPLITS] == [15, 3, 5]
    assert data.counts["repeated"] == 5 + 2
    assert prompts(words, data.test) == {row["prompt"] for row in simple(5, start=18)}


def test_a_split_that_is_lacking_is_drawn_from_train(words, tmp_path):
    write(tmp_path / "train.jsonl", simple(80))
    write(tmp_path / "test.jsonl", simple(5, start=100))
    data = instructions.load(str(tmp_path), words, 32)
    drawn = {row["prompt"] for row in simple(80) if corpus.split_of(row["prompt"]) == "validation"}
    assert prompts(words, data.validation) == drawn != set()
    assert data.counts["test"] == 5
    assert data.counts["train"] == 80 - len(drawn)


# -- text --------------------------------------------------------------------------------------------------------------
def test_text_is_joined_by_the_end_and_counted_everywhere(words, text_folder):
    data = instructions.load(str(text_folder), words, 64)
    documents = corpus.load(str(text_folder)).texts("train")
    whole = "".join(text + tiny.END for text in documents)
    text = words.decode([*data.train.tokens[0, :1], *data.train.tokens[:, 1:].ravel()])
    assert whole.startswith(text)
    assert len(text) > 0.99 * len(whole)
    assert data.train.mask.all()
    assert (data.prompts, data.references) == ([], [])
    assert data.sha256 == corpus.load(str(text_folder)).sha256


def test_the_standard_library_and_a_single_file(words, text_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(corpus.sysconfig, "get_path", lambda name: str(text_folder))
    folder = instructions.load("stdlib", words, 64)
    assert folder.counts == instructions.load(str(text_folder), words, 64).counts
    (tmp_path / "one.txt").write_text("the cat sat on the mat\n" * 100)
    data = instructions.load(str(tmp_path / "one.txt"), words, 16)
    size = len(words("the cat sat on the mat\n" * 80).input_ids) + 1
    assert data.counts["train"] == (size - 1) // 16


def test_records_of_text_are_documents_unless_they_instruct(words, tmp_path):
    rows = [{"text": f"the cat {n} sat on the mat, and a dog {n} ran"} for n in range(80)]
    data = instructions.load(write(tmp_path / "d.jsonl", rows), words, 16)
    assert data.test.mask.all()
    assert data.counts["repeated"] == 0
    assert not records.is_document({"text": "a", "instruction": "b", "output": "c"})  # Alpaca has both


# -- refusals ----------------------------------------------------------------------------------------------------------
GOOD = json.dumps({"prompt": "a", "completion": "b"})
CHATTY = '{"messages": [{"role": "user", "content": "a"}, %s]}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'prompt'}", "line 2: invalid JSON"),
        ("[1]", "line 2: a JSON list, not an object"),
        ('{"prompt": "a"}', r"line 2: no field 'completion' beside \['prompt'\]"),
        ('{"completion": "a"}', "line 2: no field 'prompt'"),
        ('{"instruction": "a", "input": "b"}', "line 2: no field 'output'"),
        ('{"question": "a"}', r"line 2: no instruction among the fields \['question'\]"),
        ('{"prompt": "a", "completion": " "}', "line 2: 'completion' is empty"),
        ('{"prompt": "", "completion": "b"}', "line 2: 'prompt' is empty"),
        ('{"instruction": "a", "output": ""}', "line 2: 'output' is empty"),
        ('{"instruction": "a", "input": 3, "output": "b"}', "line 2: 'input' is of type int"),
        ('{"prompt": "a", "completion": ["b"]}', "line 2: 'completion' is of type list"),
        ('{"messages": []}', "line 2: 'messages' must be a list of at least two turns"),
        (CHATTY % '"b"', r"line 2: messages\[1\] is no object"),
        (CHATTY % '{"role": "assistant"}', r"line 2, messages\[1\]: no field 'content'"),
        (CHATTY % '{"role": "user", "content": "b"}', "line 2: the last message is the user's"),
    ],
)
def test_a_damaged_line_is_named(line, message, words, tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text(f"{GOOD}\n{line}\n{GOOD}\n")
    with pytest.raises(ValueError, match=rf"d\.jsonl, {message}"):
        instructions.load(str(path), words, 32)


def test_blank_lines_count_as_lines(words, tmp_path):
    (tmp_path / "d.jsonl").write_text(f"{GOOD}\n\n{{\n")
    assert "line 3: invalid JSON" in refused(tmp_path / "d.jsonl", words)


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file(content, words, tmp_path):
    (tmp_path / "d.jsonl").write_text(content)
    assert "d.jsonl is empty" in refused(tmp_path / "d.jsonl", words)
    (tmp_path / "d.txt").write_text(content)
    assert "split" in (message := refused(tmp_path / "d.txt", words))
    assert "is empty" in message


def test_a_file_that_is_not_text(words, tmp_path):
    (tmp_path / "d.jsonl").write_bytes(b'{"prompt": "\xff"}')
    assert "d.jsonl is not UTF-8 (byte 12)" in refused(tmp_path / "d.jsonl", words)


@pytest.mark.parametrize("name", ["nothing.jsonl", "nothing.txt", "./nothing", "/nothing/at/all"])
def test_a_file_that_is_not_there(name, words):
    assert f"there is no file or folder {name!r}: give 'stdlib'" in refused(name, words)


def test_all_prompts_too_long(words, tmp_path):
    path = write(tmp_path / "d.jsonl", [{"prompt": "y" * 100, "completion": "z"}] * 3)
    assert "the prompts of all 3 examples" in (message := refused(path, words))
    assert "take a larger length" in message


def test_a_split_without_an_example(words, tmp_path):
    message = refused(write(tmp_path / "d.jsonl", simple(2)), words)
    where = [corpus.split_of(row["prompt"]) for row in simple(2)]
    assert "is empty (2 examples: " in message
    assert all(f"{split} {where.count(split)}" in message for split in SPLITS)
    assert "some dozens are needed" in message


def test_too_short_a_block(words, tmp_path):
    assert "length = 1" in refused(write(tmp_path / "d.jsonl", simple(80)), words, length=1)


def test_a_split_of_another_name(words, tmp_path):
    for name in ("train", "extra"):
        write(tmp_path / f"{name}.jsonl", simple(5))
    assert "'extra' is none of" in refused(tmp_path, words)


def test_the_package_for_data_sets_is_named_where_it_is_missing(words, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    message = refused("someone/their-data", words)
    assert "'someone/their-data' is not a file" in message
    assert "pip install datasets" in message


def test_a_data_set_that_is_nowhere(words, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    message = refused("someone/their-data", words)
    assert "as a Hugging Face data set it failed (" in message
    assert "give 'stdlib', a text file" in message


# -- Hugging Face data sets --------------------------------------------------------------------------------------------
def table(rows):
    """A data set; with a given fingerprint, because some versions of the package fail to pickle the table for one."""
    datasets, arrow = pytest.importorskip("datasets"), pytest.importorskip("pyarrow")
    return datasets.Dataset(arrow.Table.from_pylist(rows), fingerprint="rows")


def test_a_saved_data_set_gives_what_the_same_lines_give(words, tmp_path):
    rows = [{**row, "note": None} for row in simple(80)]
    table(rows).save_to_disk(str(tmp_path / "saved"))
    saved = instructions.load(str(tmp_path / "saved"), words, 32)
    lines = instructions.load(write(tmp_path / "d.jsonl", simple(80)), words, 32)
    assert saved.sha256 == lines.sha256
    np.testing.assert_array_equal(saved.test.tokens, lines.test.tokens)


def test_a_saved_data_set_keeps_its_splits_and_names_rows(words, tmp_path):
    datasets = pytest.importorskip("datasets")
    parts = {"train": simple(6), "validation": simple(2, start=10), "test": simple(3, start=20)}
    splits = datasets.DatasetDict({name: table(rows) for name, rows in parts.items()})
    splits.save_to_disk(str(tmp_path / "saved"))
    assert [instructions.load(str(tmp_path / "saved"), words, 32).counts[split] for split in SPLITS] == [6, 2, 3]
    splits["test"] = table([*simple(1), {"prompt": "a", "completion": None}])
    splits.save_to_disk(str(tmp_path / "damaged"))
    assert "test, row 1: no field 'completion'" in refused(tmp_path / "damaged", words)


def test_a_data_set_of_text(words, tmp_path):
    rows = [{"text": f"the cat {n} sat on the mat" * (n % 2)} for n in range(80)]  # empty rows, as wikitext has
    table(rows).save_to_disk(str(tmp_path / "saved"))
    assert instructions.load(str(tmp_path / "saved"), words, 8).train.mask.all()
