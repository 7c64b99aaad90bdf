"""The protocol on anyone's own models: tiny ones, in the real formats."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM, GraniteConfig, GraniteForCausalLM

import kdtheory as kd
from kdtheory.students import distill, models, train
from kdtheory.students.data import Lesson
from kdtheory.students.distill import Request
from kdtheory.students.machine import TrainingMemoryError
from kdtheory.students.tasks import Task, Workspace
from kdtheory.students.train import Trainer
from tests.students import tiny

CPU = torch.device("cpu")
FKL = Task("student", 0, "fkl", 0.01)
ROWS = np.arange(4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A teacher, a student with wider logits, and instructions."""
    folder, words = tmp_path_factory.mktemp("own"), tiny.tokenizer()
    tiny.save(folder / "teacher", tiny.gpt2(), words)
    tiny.save(folder / "student", tiny.llama(), words)
    tiny.instructions(folder / "data.jsonl")
    return folder


@pytest.fixture
def request_(folder) -> Request:
    sizes = {"length": 24, "batch": 4, "steps": 4, "learning_rates": (0.01,), "seeds": (0,)}
    paths = (str(folder / name) for name in ("teacher", "student", "data.jsonl"))
    return Request(*paths, losses=("fkl", "rkl"), **sizes)


@pytest.fixture(scope="module")
def words(folder):
    return tiny.tokenizer()


def trainer(request: Request, out: Path, task: Task = FKL) -> Trainer:
    prepared = distill.prepare(request, out / "work")
    return Trainer(task, prepared.workspace, prepared.blocks, Lesson.open(prepared.workspace, prepared.blocks, CPU))


def total(at: Trainer, rows: np.ndarray = ROWS) -> torch.Tensor:
    """The training loss, summed over the counted positions of some blocks."""
    return at._loss(rows, torch.from_numpy(at.split.part(rows).counted()))


def value(at: Trainer) -> float:
    return float(total(at).detach())


def by_hand(at: Trainer) -> torch.Tensor:
    """Forward KL from the models' own logits, position by position."""
    tokens = torch.from_numpy(at.split.tokens[ROWS])
    pair = at.workspace.pair
    with torch.no_grad():
        log_p, log_q = (
            torch.log_softmax(model(input_ids=tokens[:, :-1]).logits[..., : pair.vocabulary].double(), -1)
            for model in (pair.teacher(), at.body.net)
        )
    return (log_p.exp() * (log_p - log_q)).sum(-1)[torch.from_numpy(at.split.part(ROWS).counted())].sum()


def gradient(at: Trainer) -> torch.Tensor:
    at.optimizer.zero_grad()
    total(at).backward()
    return torch.cat([weight.grad.flatten() for weight in at.body.parameters()])


# -- what is learnt ----------------------------------------------------------------------------------------------------
def test_padding_on_either_side_changes_nothing(request_, folder, words, tmp_path):
    """Bit for bit: the padding columns are cut before any sum. Uncut they would hold nearly all probability."""
    sized = tiny.gpt2(width := len(words)), tiny.llama(width)
    learnt = {}
    for padding in (0, 64):
        names = []
        for side, model in zip(("teacher", "student"), sized, strict=True):
            if padding:
                model.resize_token_embeddings(width + padding, mean_resizing=False)
                with torch.no_grad():
                    for layer in {model.get_input_embeddings(), model.get_output_embeddings()}:
                        layer.weight[width:] = 3 * layer.weight[:padding]
            names.append(tiny.save(tmp_path / f"{side}{padding}", model, words))
        at = trainer(replace(request_, teacher=names[0], student=names[1]), tmp_path / f"out{padding}")
        at.run()
        learnt[padding] = at.workspace.weights(FKL)
    raw = torch.softmax(at.workspace.pair.teacher()(torch.arange(9)[None]).logits, -1)
    assert raw[..., width:].sum(-1).mean() > 0.2  # the control: there was something to cut
    start = sized[1].state_dict()
    for name, weight in learnt[0].items():
        torch.testing.assert_close(learnt[64][name][: len(weight)], weight, rtol=0, atol=0)
    assert any((learnt[64][name] - weight).abs().max() > 1e-3 for name, weight in start.items())


def test_only_the_response_is_counted(request_, tmp_path, monkeypatch):
    at = trainer(request_, tmp_path)
    counted = torch.from_numpy(at.split.part(ROWS).counted())
    taken = train.head_loss

    def with_labels(changed: torch.Tensor) -> float:
        def other(loss, *, labels, **given):
            return taken(kd.divergence("cross_entropy"), labels=torch.where(changed, labels.flip(-1), labels), **given)

        monkeypatch.setattr(train, "head_loss", other)
        return value(at)

    asked = with_labels(torch.zeros_like(counted))
    assert with_labels(~counted) == asked
    assert with_labels(counted) != asked


def test_the_counted_tokens_are_the_response_and_its_end(request_, folder, words, tmp_path):
    at = trainer(replace(request_), tmp_path)
    said = {words.decode(row[1:][mask]) for row, mask in zip(at.split.tokens, at.split.counted(), strict=True)}
    assert said == {f"{response}{tiny.END}" for response in tiny.RESPONSES}


def test_the_training_loss_is_forward_kl(request_, tmp_path):
    """1e-5: float32."""
    at = trainer(request_, tmp_path)
    assert at.body.plain_head
    torch.testing.assert_close(total(at).double(), by_hand(at), rtol=1e-5, atol=0)


def capped(words) -> Gemma2ForCausalLM:
    shape = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape |= {"num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": tiny.POSITIONS}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    return Gemma2ForCausalLM(Gemma2Config(vocab_size=len(words), final_logit_softcapping=3.0, **shape, **ends))


def scaled(words) -> GraniteForCausalLM:
    shape = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "max_position_embeddings": tiny.POSITIONS}
    return GraniteForCausalLM(GraniteConfig(vocab_size=len(words), logits_scaling=4.0, **shape, **ends))


@pytest.mark.parametrize("make", [capped, scaled])
def test_a_head_that_is_not_a_product_is_used_as_it_is(make, request_, words, tmp_path):
    """1e-5: float32. The control: a product of hidden states and embeddings would give another loss."""
    torch.manual_seed(0)
    model = tiny.spread(make(words))
    at = trainer(replace(request_, student=tiny.save(tmp_path / "student", model, words)), tmp_path)
    assert not at.body.plain_head
    expected = by_hand(at)
    torch.testing.assert_close(total(at).double(), expected, rtol=1e-5, atol=0)
    at.body.plain_head = True
    assert abs(value(at) / float(expected) - 1) > 0.01


def test_a_cap_is_seen_far_below_it(words):
    """Logits of .01 under a cap of 3: the product is right to 1e-5, until the student has learnt something."""
    model = capped(words).eval()
    with torch.no_grad():
        model.model.norm.weight.fill_(-0.99)  # gemma adds 1
    body, tokens = models.Body(model, len(words)), torch.arange(4)[None]
    hidden, (weight, _) = model.model(tokens)[0], body.head()
    torch.testing.assert_close(hidden @ weight.T, body.logits(tokens), rtol=1e-3, atol=1e-6)
    assert not body.plain_head
    model.config.final_logit_softcapping = None
    assert models.Body(model, len(words)).plain_head


def test_tied_embeddings_get_both_gradients(request_, folder, tmp_path):
    """Through the chunked head as through plain logits, to float32 rounding; the head's share is not small."""
    at = trainer(replace(request_, student=str(folder / "teacher"), teacher=str(folder / "student")), tmp_path)
    assert at.body.net.lm_head.weight is at.body.net.transformer.wte.weight
    chunked = gradient(at)
    at.body.plain_head = False
    plain = gradient(at)
    torch.testing.assert_close(chunked, plain, rtol=0, atol=1e-5 * float(plain.abs().max()))
    at.body.plain_head = True
    weight, bias = at.body.head()
    at.body.head = lambda: (weight.detach(), bias)  # the control: the input's share alone
    assert (gradient(at) - plain).abs().max() > 1e-2 * plain.abs().max()


def test_bf16_is_close_and_not_the_same(request_, tmp_path):
    """2e-2: logits of a few units, rounded to 8 bits."""
    whole = value(trainer(request_, tmp_path))
    half = value(trainer(replace(request_, precision="bf16"), tmp_path))
    assert half == pytest.approx(whole, rel=2e-2)
    assert half != whole


def test_a_student_that_is_the_teacher_starts_at_zero(request_, folder, tmp_path):
    """1e-10: float32 log-probabilities of one side only, squared; another student is at more than a nat."""
    same, other = (
        trainer(replace(request_, student=str(folder / name)), tmp_path / name) for name in ("teacher", "student")
    )
    for at in (same, other):
        at._evaluate()
    assert 0 <= same.curve[0]["fkl"] < 1e-10
    assert other.curve[0]["fkl"] > 1


# -- resuming ----------------------------------------------------------------------------------------------------------
def test_a_killed_student_continues_bit_for_bit(request_, folder, words, tmp_path):
    """Of a student whose configuration asks for dropout: a step is a function of weights and batch alone."""
    swapped = replace(request_, student=str(folder / "teacher"), teacher=str(folder / "student"))
    assert AutoModelForCausalLM.from_pretrained(folder / "teacher").config.resid_pdrop > 0
    assert trainer(swapped, tmp_path / "killed").run(stop_at=2) is None
    torch.manual_seed(99)
    at = trainer(swapped, tmp_path / "killed")
    at.run()
    whole = trainer(swapped, tmp_path / "whole")
    whole.run()
    again, once = (x.workspace.weights(FKL) for x in (at, whole))
    assert all(torch.equal(again[name], weight) for name, weight in once.items())
    assert [p["objective"] for p in at.curve] == [p["objective"] for p in whole.curve]


def test_a_run_is_continued_and_a_second_one_does_nothing(request_, tmp_path):
    tuned = replace(request_, learning_rates=(0.01, 1e-4), losses=("fkl", "tvd"))
    first = distill.run(tuned, tmp_path, progress=False)
    stamps = written(tmp_path)
    assert distill.run(tuned, tmp_path, progress=False).results.equals(first.results)
    assert written(tmp_path) == stamps
    more = distill.run(replace(tuned, seeds=(0, 1)), tmp_path, progress=False)
    assert {name: stamp for name, stamp in written(tmp_path).items() if name in stamps} == stamps
    assert len(written(tmp_path)) == len(stamps) + 4  # .json and .weights of two students
    lost = next((tmp_path / "work" / "runs").glob("student-fkl-s0-*.json"))
    lost.unlink()
    repeated = distill.run(replace(tuned, seeds=(0, 1)), tmp_path, progress=False)
    assert {name for name, stamp in written(tmp_path).items() if stamp != stamps.get(name, stamp)} == {
        lost.name,
        lost.with_suffix(".weights").name,
    }
    numbers = [runs.results.drop(columns="steps_per_second") for runs in (more, repeated)]
    assert numbers[0].equals(numbers[1])


def written(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "work" / "runs").iterdir()}


def test_other_files_at_the_same_path_are_noticed(request_, folder, words, tmp_path):
    data, teacher = tmp_path / "data.jsonl", tmp_path / "teacher"
    tiny.instructions(data)
    tiny.save(teacher, tiny.gpt2(), words)
    asked = replace(request_, data=str(data), teacher=str(teacher))
    made = [distill.prepare(asked, tmp_path / "work").workspace for _ in range(2)]
    tiny.instructions(data, count=130)
    made.append(distill.prepare(asked, tmp_path / "work").workspace)
    changed = tiny.gpt2()
    with torch.no_grad():
        changed.transformer.wte.weight[5] += 1
    tiny.save(teacher, changed, words)
    made.append(distill.prepare(asked, tmp_path / "work").workspace)
    keys = [(workspace.profile.hash, workspace.tokens, workspace.key(FKL)) for workspace in made]
    assert keys[0] == keys[1]  # the control
    for values in zip(*keys[1:], strict=True):
        assert len(set(values)) == 3


def test_losses_of_a_seed_share_the_warm_start(request_, tmp_path):
    runs = distill.run(replace(request_, warm_steps=4, seeds=(0, 1)), tmp_path, progress=False)
    assert len(list((tmp_path / "work" / "pretrained").glob("warm-hard-s*.weights"))) == 2
    start = runs.curves[runs.curves["step"] == 0].pivot(index="seed", columns="loss", values="fkl")
    assert (start["fkl"] == start["rkl"]).all()
    assert start["fkl"][0] != start["fkl"][1]
    cold = trainer(request_, tmp_path / "cold")
    cold._evaluate()
    assert not np.isclose(start["fkl"], cold.curve[0]["fkl"], rtol=1e-3).any()


def test_a_rate_that_diverges_is_not_chosen(request_, tmp_path):
    wild = Task("student", 1000, "fkl", 1e30)
    at = trainer(replace(request_, learning_rates=(0.01, 1e30)), tmp_path, wild)
    assert at.run()["curve"][-1]["objective"] == math.inf
    assert "metrics" not in at.workspace.result(wild)
    with pytest.raises(ValueError, match=r"student-fkl-s0-lr1e\+30, step \d: .* is nan"):
        trainer(request_, tmp_path, replace(wild, seed=0)).run()


def test_workers_change_nothing(request_, tmp_path):
    results = []
    for workers in (0, 2):
        runs = distill.run(replace(request_, workers=workers), tmp_path / str(workers), progress=False)
        results.append(runs.results.drop(columns="steps_per_second"))
    assert results[0].equals(results[1])


# -- what does not fit -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"losses": ("fkl", "kl")}, "losses: 'kl' is unknown; known: hard"),
        ({"losses": ("rkl", "w1")}, "losses = rkl,w1: give fkl, which every loss is compared with"),
        ({"losses": ("fkl",)}, "at least one more"),
        ({"losses": ("fkl", "w1", "w1")}, "each once"),
        ({"seeds": ()}, "seeds = \\(\\): give at least one"),
        ({"seeds": (1, 1)}, "each once"),
        ({"learning_rates": ()}, "learning_rates = \\(\\): give at least one"),
        ({"learning_rates": (0.1, math.inf)}, "all finite and above 0"),
        ({"learning_rates": (0.1, 0.1)}, "each once"),
        ({"steps": 30}, "steps = 30: .* take a multiple of 4"),
        ({"accumulate": 3}, "accumulate = 3 must divide batch = 4"),
        ({"length": 1}, "length = 1: a block needs at least 2"),
        ({"precision": "fp8"}, "precision = 'fp8': choose no or bf16"),
    ],
)
def test_a_request_without_sense_is_refused_before_anything_is_read(change, message, request_, tmp_path):
    nowhere = replace(request_, teacher="/nowhere")
    with pytest.raises(ValueError, match=message):
        distill.run(replace(nowhere, **change), tmp_path)
    with pytest.raises(ValueError, match="/nowhere"):  # the control: it would be read now
        distill.run(nowhere, tmp_path, progress=False)


def test_too_long_and_too_few_blocks(request_, tmp_path):
    with pytest.raises(ValueError, match=f"length = 64, but the pair has {tiny.POSITIONS} positions: take a shorter"):
        distill.prepare(replace(request_, length=64), tmp_path)
    with pytest.raises(ValueError, match=r"batch = 400, but the data have only \d+ training blocks of 24 tokens"):
        distill.prepare(replace(request_, batch=400), tmp_path)


def test_memory_that_does_not_suffice_outside_of_training(request_, tmp_path, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Workspace, "teacher", refuse)
    with pytest.raises(TrainingMemoryError, match="where the teacher is loaded or evaluated: take fewer workers"):
        distill.run(request_, tmp_path, progress=False)


def test_models_are_loaded_without_bars(folder, capfd):
    """The control: `transformers` on its own draws one, before and after."""
    for draws in (True, False, True):
        if draws:
            AutoModelForCausalLM.from_pretrained(folder / "student")
        else:
            distill.Pair.load(str(folder / "teacher"), str(folder / "student")).student()
        assert ("Loading weights" in capfd.readouterr().err) == draws


def test_kept_students_are_models_to_use_or_to_teach_the_next(request_, tmp_path):
    """Loaded again they hold the trained weights, which differ between losses, and are taken as a teacher."""
    distill.run(request_, tmp_path, progress=False, keep=True)
    found = {}
    for loss in request_.losses:
        place = tmp_path / "models" / f"{loss}-s0"
        found[loss] = AutoModelForCausalLM.from_pretrained(place).state_dict()
    workspace = Workspace.open(tmp_path / "work")
    for name, weight in workspace.weights(FKL).items():
        assert torch.equal(found["fkl"][name], weight), name
    assert any(not torch.equal(found["rkl"][name], weight) for name, weight in found["fkl"].items())
    chained = replace(request_, teacher=str(tmp_path / "models" / "fkl-s0"))
    assert distill.prepare(chained, tmp_path / "next").workspace.pair.vocabulary > 0
