"""ROUGE-L against hand-computed subsequences; responses against a loop without padding."""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
import pytest
import torch

from kdtheory.students.pretrained import rouge
from tests.students import tiny

pytest.importorskip("rouge_score")


# -- score -------------------------------------------------------------------------------------------------------------
def test_identical_disjoint_and_by_hand():
    responses = ["the cat sat on the mat", "one two", "the cat is on the mat today", "", "!?"]
    references = ["the cat sat on the mat", "three four", "the cat sat on the mat", "a", "a"]
    # third: the subsequence is "the cat on the mat", 5 words of 7 and of 6: F = 2·5 / (7 + 6)
    np.testing.assert_allclose(rouge.score(responses, references), [100, 0, 1000 / 13, 0, 0], atol=1e-12)


def test_order_counts():
    """Longest common subsequence, not common words: 1 of 3 here."""
    np.testing.assert_allclose(rouge.score(["one two three"], ["three two one"]), [100 / 3])


def test_words_are_stemmed():
    assert rouge.score(["the dogs barked"], ["the dog barks"]) == [100]
    assert rouge.score(["the dogs barked"], ["the cat slept"])[0] == pytest.approx(100 / 3)  # the control


def test_the_best_reference_counts():
    several = rouge.score(["a b c d"], [["x y", "a b", "a b c"]])
    np.testing.assert_allclose(several, [100 * 2 * 3 / 7])
    assert several > rouge.score(["a b c d"], ["a b"])


def test_an_independent_subsequence():
    """Recursion over all prefixes; words of digits have no stem."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = (tuple(rng.integers(0, 4, size=rng.integers(1, 9)).astype(str)) for _ in range(2))

        @cache
        def common(i, j, a=a, b=b):
            if not (i and j):
                return 0
            return max(common(i - 1, j), common(i, j - 1), common(i - 1, j - 1) + (a[i - 1] == b[j - 1]))

        expected = 200 * common(len(a), len(b)) / (len(a) + len(b))
        assert rouge.score([" ".join(a)], [" ".join(b)])[0] == pytest.approx(expected)


def test_what_does_not_match_is_refused():
    with pytest.raises(ValueError, match="2 responses and 1 references"):
        rouge.score(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="0 responses"):
        rouge.score([], [])
    with pytest.raises(ValueError, match=r"references\[1\] is empty"):
        rouge.score(["a", "b"], ["a", []])


def test_the_package_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(ValueError, match=r"rouge-score: pip install 'kdtheory\[students\]'"):
        rouge.score(["a"], ["a"])


# -- respond -----------------------------------------------------------------------------------------------------------
PROMPTS = ["the cat", "a dog ran to the cat and sat", "to", "Write a response to the cat on the mat. "]


@pytest.fixture(scope="module")
def words():
    made = tiny.tokenizer()
    made.pad_token = made.eos_token
    return made


@torch.no_grad()
def greedy(model, words, prompt, new_tokens, *, inputs):
    """Token by token, one prompt, no padding; `inputs` is the longest input that the model may read."""
    ids = words(prompt).input_ids
    start = len(ids)
    while len(ids) - start < new_tokens and len(ids) <= inputs:
        logits = model(torch.tensor([ids])).logits[0, -1, : len(words)]
        ids.append(int(logits.argmax()))
        if ids[-1] == words.eos_token_id:
            break
    return words.decode(ids[start:], skip_special_tokens=True).strip()


@pytest.mark.parametrize("build", [tiny.gpt2, tiny.llama])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_greedy_responses_do_not_know_the_padding(build, batch, words):
    model = build()
    found = rouge.respond(model, words, PROMPTS, vocabulary=len(words), new_tokens=12, batch=batch)
    expected = [greedy(model, words, prompt, 12, inputs=48) for prompt in PROMPTS]
    assert found == expected
    assert len(set(expected)) > 2  # the control: the prompts do matter


def test_padding_columns_are_never_generated(words):
    model = tiny.llama()
    V = len(words)
    before = rouge.respond(model, words, PROMPTS, vocabulary=V, new_tokens=6)
    with torch.no_grad():
        head = model.lm_head.weight
        head[V:] = 100 * head[:1] * torch.tensor([[1.0], [-1.0]]).repeat(320, 1)[: 320 - V]  # one of the two wins
    assert rouge.respond(model, words, PROMPTS, vocabulary=V, new_tokens=6) == before
    assert rouge.respond(model, words, PROMPTS, vocabulary=320, new_tokens=6) != before  # the control


def test_a_prompt_near_the_last_position_gets_what_is_left(words):
    model = tiny.gpt2()  # its position table ends at 64: one more input is an error
    long = "the cat sat on the mat " * 20
    ids = words(long).input_ids
    prompts = [words.decode(ids[:size]) for size in (3, 60, 62, 64)]
    assert [len(words(prompt).input_ids) for prompt in prompts] == [3, 60, 62, 64]
    found = rouge.respond(model, words, prompts, vocabulary=len(words), positions=64, new_tokens=12)
    assert found == [greedy(model, words, prompt, 12, inputs=64) for prompt in prompts]
    with pytest.raises(ValueError, match=r"prompts\[1\] has 65 tokens"):
        rouge.respond(model, words, ["a", words.decode(ids[:65])], vocabulary=len(words), positions=64)
    with pytest.raises(ValueError, match=r"prompts\[0\] has 0 tokens"):
        rouge.respond(model, words, [""], vocabulary=len(words))


def test_a_response_ends_at_the_end_token(words):
    model = tiny.gpt2()
    whole = rouge.respond(model, words, PROMPTS[:1], vocabulary=len(words), new_tokens=12)[0]
    ids = words(PROMPTS[0]).input_ids
    with torch.no_grad():
        first = int(model(torch.tensor([ids])).logits[0, -1, : len(words)].argmax())
    model.generation_config.eos_token_id = [first]  # a chat model's end of turn stands there
    assert rouge.respond(model, words, PROMPTS[:1], vocabulary=len(words), new_tokens=12)[0] == words.decode([first])
    assert len(whole) > len(words.decode([first]))


def test_the_models_own_settings_do_not_count_and_come_back(words):
    model = tiny.gpt2()
    before = rouge.respond(model, words, PROMPTS, vocabulary=len(words), new_tokens=12)
    model.generation_config.repetition_penalty = 5.0
    settings = model.generation_config
    model.train()
    assert rouge.respond(model, words, PROMPTS, vocabulary=len(words), new_tokens=12) == before
    assert model.generation_config is settings
    assert model.training
    model.eval()
    ids = torch.tensor([words(PROMPTS[0]).input_ids])
    penalised = model.generate(ids, max_new_tokens=12, pad_token_id=0)[0, ids.shape[1] :]
    assert words.decode(penalised, skip_special_tokens=True).strip() != before[0]  # the control


def test_samples_follow_their_seed_alone(words):
    model = tiny.llama()
    state = torch.get_rng_state()
    one, again, other = (
        rouge.respond(model, words, PROMPTS, vocabulary=len(words), new_tokens=12, seed=seed) for seed in (1, 1, 2)
    )
    assert one == again != other
    assert torch.equal(torch.get_rng_state(), state)


def test_samples_come_from_the_models_distribution(words):
    """First token of many samples against softmax over the real tokens; no top-k or other filter."""
    model = tiny.llama()
    with torch.no_grad():
        model.lm_head.weight.mul_(0.1)  # flat: `transformers` would by default keep 50 of the tokens
        logits = model(torch.tensor([words(PROMPTS[0]).input_ids])).logits[0, -1, : len(words)]
    count = 4000
    texts = rouge.respond(model, words, PROMPTS[:1] * count, vocabulary=len(words), new_tokens=1, batch=count, seed=0)
    assert len(set(texts)) > 100
    p = torch.softmax(logits.double(), -1)
    printable = [t for t in range(len(words)) if words.decode([t]).strip() in set("abcdefgh")]
    for token in printable:
        text = words.decode([token]).strip()
        same = [t for t in range(len(words)) if words.decode([t], skip_special_tokens=True).strip() == text]
        mean = p[same].sum().item()
        # 4.5 standard errors of a binomial share, for a handful of tokens
        assert abs(texts.count(text) / count - mean) < 4.5 * (mean * (1 - mean) / count) ** 0.5
    assert len(printable) >= 8
