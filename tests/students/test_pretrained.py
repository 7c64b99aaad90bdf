"""Pairs of models: what is read, what is cut, what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

import kdtheory as kd
from kdtheory.students.pretrained.pair import Pair
from tests.students import tiny


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    words = tiny.tokenizer()
    return tiny.save(root / "teacher", tiny.gpt2(), words), tiny.save(root / "student", tiny.llama(), words)


@pytest.fixture(scope="module")
def pair(folders):
    return Pair.load(*folders)


@pytest.fixture
def copy(folders, tmp_path):
    """Path of a teacher that a test may damage."""
    return shutil.copytree(folders[0], tmp_path / "copy")


def refused(teacher, student):
    """Message of the error."""
    with pytest.raises(ValueError, match=r".") as caught:
        Pair.load(str(teacher), str(student))
    return str(caught.value)


# -- what is read ------------------------------------------------------------------------------------------------------
def test_the_pair_shares_the_tokens_of_the_tokenizer(pair):
    assert pair.vocabulary == len(pair.tokenizer) < 300
    assert pair.positions == tiny.POSITIONS  # the smaller of 64 and 48


def test_models_are_fresh_and_in_float32(pair, folders):
    first, second = pair.student(), pair.student()
    assert first is not second
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)
    with torch.no_grad():
        next(first.parameters()).zero_()
    assert next(pair.student().parameters()).abs().sum() > 0  # the control: the first one did change
    assert next(first.parameters()).abs().sum() == 0


def test_weights_in_half_precision_are_read_in_float32(folders, tmp_path):
    half = tiny.save(tmp_path / "half", tiny.gpt2().bfloat16(), tiny.tokenizer())
    assert {weight.dtype for weight in Pair.load(half, folders[1]).teacher().parameters()} == {torch.float32}
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"  # the control


def test_the_end_token_pads_where_no_token_does(pair, folders, tmp_path):
    assert pair.tokenizer.pad_token == tiny.END
    words = tiny.tokenizer(special=(tiny.END, "<pad>"), eos_token=tiny.END, pad_token="<pad>")
    own = tiny.save(tmp_path / "own", tiny.gpt2(), words)
    assert Pair.load(own, own).tokenizer.pad_token == "<pad>"


# -- padding columns ---------------------------------------------------------------------------------------------------
def forward_kl(teacher, student):
    """By hand, in float64: mean over positions of Σ p log p/q."""
    log_p, log_q = (z - np.logaddexp.reduce(z, axis=-1, keepdims=True) for z in (teacher, student))
    return (np.exp(log_p) * (log_p - log_q)).sum(-1).mean()


@torch.no_grad()
def test_the_loss_on_cut_logits_is_the_one_over_real_tokens(pair):
    teacher, student = pair.teacher(), pair.student()
    tokens = torch.arange(24).reshape(2, 12)
    wide = [model(input_ids=tokens).logits.double().numpy() for model in (teacher, student)]
    assert [z.shape[-1] for z in wide] == [300, 320]
    cut = [pair.logits(model, tokens) for model in (teacher, student)]
    V = len(pair.tokenizer)
    assert [z.shape for z in cut] == [(2, 12, V)] * 2
    loss = kd.divergence("fkl").loss(teacher_logits=cut[0], student_logits=cut[1]).item()
    # 1e-5: float32 sums over V tokens
    assert loss == pytest.approx(forward_kl(*(z[..., :V] for z in wide)), rel=1e-5)
    assert loss != pytest.approx(forward_kl(*(z[..., :300] for z in wide)), rel=1e-3)  # the control: padding kept


@torch.no_grad()
def test_what_padding_rows_hold_changes_nothing(pair):
    student, tokens = pair.student(), torch.arange(12)[None]
    before = torch.log_softmax(pair.logits(student, tokens), -1)
    wide = torch.log_softmax(student(input_ids=tokens).logits, -1)
    student.lm_head.weight[pair.vocabulary :] = 30.0
    assert torch.equal(torch.log_softmax(pair.logits(student, tokens), -1), before)
    changed = torch.log_softmax(student(input_ids=tokens).logits, -1)
    assert (changed - wide).abs().max() > 1  # the control


def test_logits_are_a_view_and_bounded_by_the_positions(pair):
    model = pair.student()
    assert pair.logits(model, torch.zeros(1, tiny.POSITIONS, dtype=torch.long))._is_view()
    with pytest.raises(ValueError, match=f"length = {tiny.POSITIONS + 1}.*{tiny.POSITIONS} positions"):
        pair.logits(model, torch.zeros(1, tiny.POSITIONS + 1, dtype=torch.long))


# -- what is refused ---------------------------------------------------------------------------------------------------
def test_other_tokens_are_refused_by_the_first_that_differs(folders, tmp_path):
    ours = tiny.tokenizer()
    theirs = tiny.tokenizer(lines=[*tiny.LINES[:2], "zebra zebra zebra"])
    student = tiny.save(tmp_path / "other", tiny.llama(), theirs)
    message = refused(folders[0], student)
    a, b = ours.get_vocab(), theirs.get_vocab()
    differing = {token for token in a.keys() | b.keys() if a.get(token) != b.get(token)}
    first = min(differing, key=lambda token: (min(v[token] for v in (a, b) if token in v), token))
    assert f"differ in {len(differing)} of {len(a.keys() | b.keys())} tokens" in message
    assert repr(first) in message
    for side, vocabulary in (("teacher", a), ("student", b)):
        place = f"id {vocabulary[first]}" if first in vocabulary else "no token"
        assert f"{place} of the {side}" in message
    assert "kd.TokenCost.embedding" in message


def test_two_swapped_ids_are_found(folders, tmp_path):
    student = shutil.copytree(folders[1], tmp_path / "swapped")
    path = student / "tokenizer.json"
    words = json.loads(path.read_text())
    vocabulary = words["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    path.write_text(json.dumps(words))
    message = refused(folders[0], student)
    assert "differ in 2 of" in message
    assert f"'A', is id {vocabulary['B']} of the teacher" in message
    assert f"id {vocabulary['A']} of the student" in message


def test_fewer_logits_than_tokens_are_refused(folders, tmp_path):
    narrow = tiny.save(tmp_path / "narrow", tiny.llama(280), tiny.tokenizer())
    assert "student" in (message := refused(folders[0], narrow))
    assert f"280 logits, fewer than the {len(tiny.tokenizer())} tokens" in message
    assert "resize_token_embeddings" in message


def test_a_folder_that_is_not_there(folders, tmp_path):
    message = refused(folders[0], tmp_path / "nothing")
    assert "student" in message
    assert "tried as a folder (there is none)" in message
    assert "no name of the Hugging Face Hub" in message


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """An empty cache of the Hub, and no network to wait for."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_name_that_the_hub_does_not_give(folders, offline):
    message = refused("someone/their-model", folders[1])
    assert message.startswith("teacher: 'someone/their-model' was tried as a folder")
    assert "as a name of the Hugging Face Hub" in message
    assert "hf download someone/their-model" in message


def test_a_name_in_the_cache_is_used_at_its_commit(folders, offline):
    commits = ["a" * 40, "b" * 40]
    root = offline / "models--someone--their-model"
    prints = []
    (root / "refs").mkdir(parents=True)
    for commit in commits:
        shutil.copytree(folders[0], root / "snapshots" / commit)
        (root / "refs" / "main").write_text(commit)
        pair = Pair.load("someone/their-model", folders[1])
        assert pair._teacher.commit == commit
        prints.append(pair.fingerprint)
    assert torch.equal(
        next(pair.teacher().parameters()), next(Pair.load(folders[0], folders[1]).teacher().parameters())
    )
    assert prints[0] != prints[1]


def test_a_folder_without_configuration_or_weights(copy, folders):
    (copy / "model.safetensors").rename(copy / "model.aside")
    assert "no weights" in refused(copy, folders[1])
    (copy / "config.json").unlink()
    assert "no config.json" in refused(copy, folders[1])


def test_a_folder_without_a_tokenizer(copy):
    """On both sides: transformers makes the same empty one twice."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    assert f"teacher: {str(copy)!r} holds no tokenizer" in refused(copy, copy)


def test_a_damaged_tokenizer(copy, folders):
    (copy / "tokenizer.json").write_text("{")
    assert f"teacher: the tokenizer of {str(copy)!r} cannot be read" in refused(copy, folders[1])


def test_a_tokenizer_without_an_end(copy, folders):
    path = copy / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token": None}))
    assert "no end token" in refused(copy, folders[1])


def test_missing_weights_are_not_filled_at_random(copy, folders):
    weights = load_file(copy / "model.safetensors")
    name = "transformer.h.0.mlp.c_fc.weight"
    del weights[name]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=rf"teacher: .*lack 1 tensors.*{name}"):
        Pair.load(str(copy), folders[1]).teacher()


def test_truncated_weights_are_refused(copy, folders):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"teacher: the model of .* cannot be read"):
        Pair.load(str(copy), folders[1]).teacher()


def test_an_encoder_decoder_is_refused(folders, tmp_path):
    config = T5Config(vocab_size=300, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    other = tiny.save(tmp_path / "t5", T5ForConditionalGeneration(config), tiny.tokenizer())
    assert "student: " in (message := refused(folders[0], other))
    assert "is a t5 model, an encoder-decoder" in message


@pytest.fixture
def masked(tmp_path):
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    tiny.save(tmp_path / "bert", BertForMaskedLM(BertConfig(vocab_size=300, **size)), tiny.tokenizer())
    return tmp_path / "bert"


def test_a_masked_language_model_is_refused_by_its_name(folders, masked):
    assert "saved as BertForMaskedLM, not as a causal" in refused(folders[0], masked)


def test_a_model_that_sees_later_tokens_is_refused_by_what_it_does(folders, masked):
    """The same weights, under a causal name and without a decoder's mask; the pair's own models pass."""
    path = masked / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": ["BertLMHeadModel"]}))
    with pytest.raises(ValueError, match=r"student: .*is not causal: the logits of a position change"):
        Pair.load(folders[0], str(masked)).student()


# -- fingerprint -------------------------------------------------------------------------------------------------------
def test_the_fingerprint_follows_the_content_not_the_path(copy, folders, pair):
    assert Pair.load(str(copy), folders[1]).fingerprint == pair.fingerprint
    (copy / "notes.log").write_text("not part of the model")
    assert Pair.load(str(copy), folders[1]).fingerprint == pair.fingerprint


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_the_fingerprint_changes_with_one_byte(copy, folders, pair, name):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[:-1] + b"\x01" if name.endswith("tensors") else content + b"\n")
    assert Pair.load(str(copy), folders[1]).fingerprint != pair.fingerprint


def test_the_fingerprint_knows_the_sides(folders, pair):
    assert Pair.load(*reversed(folders)).fingerprint != pair.fingerprint
