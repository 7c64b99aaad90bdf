"""One record of an instruction data set as prompt, response and ending, in the formats that are in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_PREAMBLE = "Below is an instruction that describes a task"
_REQUEST = "Write a response that appropriately completes the request.\n\n"
_FORMATS = (
    "'prompt' and 'completion'; 'instruction' (with 'input' or 'context' if there is one) and 'output' or 'response'; "
    "or 'messages'"
)


@dataclass(frozen=True)
class Example:
    """Three texts, tokenised one by one so that a response's tokens are its own.

    Attributes
    ----------
    prompt : str
        Special tokens are in it as text; tokenise it with ``add_special_tokens=False``.
    response : str
        What is counted, together with the ending.
    ending : str
        The end token, or what the chat template writes after the assistant's turn.
    """

    prompt: str
    response: str
    ending: str


def is_document(record: Mapping[str, Any]) -> bool:
    """Whether a record is plain text: a field ``text``, and none that makes it an instruction."""
    return "text" in record and not {"messages", "prompt", "completion", "instruction"} & set(record)


def document(record: Mapping[str, Any], place: str) -> str:
    """The text of such a record, which may be empty; raises ValueError if it is no text."""
    return _text(record, "text", place) if record["text"] != "" else ""


def example(record: Mapping[str, Any], place: str, tokenizer: Any) -> Example:
    """Read one record.

    Parameters
    ----------
    record : mapping
        ``prompt``/``completion`` is taken word for word; ``instruction``/``input``/``output`` and
        ``instruction``/``context``/``response`` are put into the template of gu2024minillm's code;
        ``messages`` go through the tokenizer's chat template, the last of them being the response.
    place : str
        Where it stands, for messages: ``"data.jsonl, line 3"``.
    tokenizer : transformers tokenizer
        Gives the chat template, the end token, and the start token if it puts one before every text.

    Raises
    ------
    ValueError
        If a field is missing, empty or no text; the message names place and field.
    """
    if "messages" in record:
        return _chat(record["messages"], place, tokenizer)
    if "prompt" in record or "completion" in record:
        prompt, response = _text(record, "prompt", place), _text(record, "completion", place)
    elif "instruction" in record:
        prompt = _alpaca(_text(record, "instruction", place), _context(record, place))
        response = _text(record, "response" if "response" in record else "output", place)
    else:
        raise ValueError(f"{place}: no instruction among the fields {sorted(record)}: give {_FORMATS}")
    return Example(_start(tokenizer) + prompt, response, tokenizer.eos_token)


def _alpaca(instruction: str, context: str) -> str:
    if not context:
        return f"{_PREAMBLE}. {_REQUEST}### Instruction:\n{instruction}\n\n### Response:\n"
    head = f"{_PREAMBLE}, paired with an input that provides further context. {_REQUEST}"
    return f"{head}### Instruction:\n{instruction}\n\n### Input:\n{context}\n\n### Response:\n"


def _context(record: Mapping[str, Any], place: str) -> str:
    field = "context" if "context" in record else "input"
    value = record.get(field) or ""
    return _text(record, field, place) if not isinstance(value, str) or value.strip() else ""


def _chat(messages: Any, place: str, tokenizer: Any) -> Example:
    turns = _turns(messages, place)
    response = turns[-1]["content"].strip()  # many templates trim it
    if not tokenizer.chat_template:
        prompt = "".join(f"### {turn['role'].capitalize()}:\n{turn['content']}\n\n" for turn in turns[:-1])
        return Example(f"{_start(tokenizer)}{prompt}### Assistant:\n", response, tokenizer.eos_token)
    prompt = tokenizer.apply_chat_template(turns[:-1], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    turn = whole.removeprefix(prompt).lstrip() if whole.startswith(prompt) else ""
    # without the newline that many templates write after the turn: it is never generated
    ending = turn.removeprefix(response).strip() if turn.startswith(response) else ""
    return Example(prompt, response, ending or tokenizer.eos_token)


def _turns(messages: Any, place: str) -> list[dict[str, str]]:
    if not isinstance(messages, list) or len(messages) < 2:
        raise ValueError(f"{place}: 'messages' must be a list of at least two turns, a user's and the assistant's")
    for index, turn in enumerate(messages):
        if not isinstance(turn, Mapping):
            raise ValueError(f"{place}: messages[{index}] is no object with 'role' and 'content'")
        for field in ("role", "content"):
            _text(turn, field, f"{place}, messages[{index}]")
    if messages[-1]["role"] != "assistant":
        raise ValueError(f"{place}: the last message is the {messages[-1]['role']}'s: it must be the assistant's")
    return messages


def _text(record: Mapping[str, Any], field: str, place: str) -> str:
    if field not in record:
        raise ValueError(f"{place}: no field {field!r} beside {sorted(record)}: give {_FORMATS}")
    value = record[field]
    if not isinstance(value, str):
        raise ValueError(f"{place}: {field!r} is of type {type(value).__name__}: it must be text")
    if not value.strip():
        raise ValueError(f"{place}: {field!r} is empty: fill it in, or leave the record out")
    return value


def _start(tokenizer: Any) -> str:
    """The start token's text if the tokenizer puts it before every text, as its model was trained."""
    starts = tokenizer.bos_token_id is not None and tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
    return tokenizer.bos_token if starts else ""
