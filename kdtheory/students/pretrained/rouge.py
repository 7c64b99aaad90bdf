"""ROUGE-L of a model's responses to prompts, as the distillation literature reports it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

Reference = str | Sequence[str]


def score(responses: Sequence[str], references: Sequence[Reference]) -> np.ndarray:
    """ROUGE-L F-measure × 100 of each response, Porter-stemmed (Lin, 2004; gu2024minillm, Section 3.1).

    Parameters
    ----------
    responses : sequence of str
        N texts.
    references : sequence of str or of sequence of str
        One or several for each response; the best one counts.

    Returns
    -------
    ndarray, shape (N,)
        0 to 100. A text without a letter or digit of ASCII scores 0: the measure has no other words.

    Raises
    ------
    ValueError
        If the numbers differ, there are none, or a response has no reference.
    """
    if len(responses) != len(references) or not len(responses):
        raise ValueError(f"{len(responses)} responses and {len(references)} references: give one or more, as many each")
    scorer = _scorer()
    lists = [[entry] if isinstance(entry, str) else list(entry) for entry in references]
    if bare := [index for index, entry in enumerate(lists) if not entry]:
        raise ValueError(f"references[{bare[0]}] is empty: give at least one text")
    pairs = zip(lists, responses, strict=True)
    return np.array([100 * max(scorer.score(r, text)["rougeL"].fmeasure for r in several) for several, text in pairs])


def respond(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    vocabulary: int,
    positions: int | None = None,
    new_tokens: int = 256,
    batch: int = 16,
    seed: int | None = None,
) -> list[str]:
    """Responses of a model, greedy or sampled.

    Parameters
    ----------
    model : nn.Module
        A causal language model of `transformers`, on any device; its mode is restored afterwards.
    tokenizer : transformers tokenizer
        With a padding token.
    prompts : sequence of str
        As `instructions.Data.prompts` has them: special tokens as text.
    vocabulary : int
        V; padding columns of the logits after it are never generated.
    positions : int, optional
        Of the model. A prompt that leaves fewer than `new_tokens` gets what is left.
    new_tokens : int
        At most this many for each response.
    batch : int
        Prompts at a time, padded on the left.
    seed : int, optional
        None decodes greedily; a number samples from the model's own distribution (temperature 1, all tokens). The
        samples depend on `batch`; the global generators are left as they were.

    Returns
    -------
    list of str
        In the order of the prompts, without special tokens.

    Raises
    ------
    ValueError
        If a prompt is empty or longer than `positions`; the message names it.
    """
    ids = tokenizer(list(prompts), add_special_tokens=False, verbose=False)["input_ids"]
    budgets = [_budget(index, len(row), positions, new_tokens) for index, row in enumerate(ids)]
    order = sorted(range(len(ids)), key=lambda index: (budgets[index], len(ids[index])))
    responses = [""] * len(ids)
    with _decoding(model, tokenizer, vocabulary, seed):
        # one budget for a batch: below `new_tokens` it means one length, so no row is cut because of its neighbours
        for budget, group in itertools.groupby(order, key=budgets.__getitem__):
            members = list(group)
            for start in range(0, len(members), batch):
                rows = members[start : start + batch]
                texts = _continue(model, tokenizer, [ids[index] for index in rows], budget)
                for index, text in zip(rows, texts, strict=True):
                    responses[index] = text
    return responses


def _budget(index: int, size: int, positions: int | None, new_tokens: int) -> int:
    if not size or (positions is not None and size > positions):
        raise ValueError(f"prompts[{index}] has {size} tokens: it must have 1 to {positions or 'any number'}")
    return new_tokens if positions is None else min(new_tokens, positions + 1 - size)  # the last one is not read


def _continue(model: nn.Module, tokenizer: Any, rows: list[list[int]], budget: int) -> list[str]:
    width = max(map(len, rows))
    tokens = torch.full((len(rows), width), tokenizer.pad_token_id)
    attention = torch.zeros_like(tokens)
    for row, ids in enumerate(rows):
        tokens[row, width - len(ids) :] = torch.tensor(ids)
        attention[row, width - len(ids) :] = 1
    device = next(model.parameters()).device
    whole = model.generate(input_ids=tokens.to(device), attention_mask=attention.to(device), max_new_tokens=budget)
    return [text.strip() for text in tokenizer.batch_decode(whole[:, width:], skip_special_tokens=True)]


@contextmanager
def _decoding(model: Any, tokenizer: Any, vocabulary: int, seed: int | None) -> Iterator[None]:
    """Evaluation mode, plain decoding and a seeded generator; mode, configuration and generators come back.

    A model's own generation settings (penalties, top-k) would change what is measured; its end tokens are kept.
    """
    from transformers import GenerationConfig

    training, settings = model.training, model.generation_config
    width = model.config.get_text_config().vocab_size
    ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    model.generation_config = GenerationConfig(
        do_sample=seed is not None,
        **({"top_k": 0, "top_p": 1.0, "temperature": 1.0} if seed is not None else {}),
        eos_token_id=sorted({tokenizer.eos_token_id, *(end for end in ends if end is not None and end < vocabulary)}),
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=list(range(vocabulary, width)) or None,
    )
    devices = [device for device in {weight.device for weight in model.parameters()} if device.type == "cuda"]
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            if seed is not None:
                torch.manual_seed(seed)
            model.eval()
            yield
    finally:
        model.train(training)
        model.generation_config = settings


def _scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise ValueError("ROUGE-L needs the package rouge-score: pip install 'kdtheory[students]'") from None
    return RougeScorer(["rougeL"], use_stemmer=True)
