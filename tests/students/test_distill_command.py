"""`kdtheory distill` on the screen: what it prints and writes, and with which status it ends."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pandas as pd
import pytest
from typer.testing import CliRunner

from kdtheory import cli, distill_command
from kdtheory.students import distill, published
from kdtheory.students.distill import Request
from kdtheory.students.train import Trainer
from tests.students import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A teacher, a student, instructions and a text."""
    folder, words = tmp_path_factory.mktemp("own"), tiny.tokenizer()
    tiny.save(folder / "teacher", tiny.gpt2(), words)
    tiny.save(folder / "student", tiny.llama(), words)
    tiny.instructions(folder / "instructions.jsonl")
    (folder / "text.txt").write_text("".join(f"{line} {n}\n" for n in range(40) for line in tiny.LINES))
    return folder


@pytest.fixture
def invoke(folder, tmp_path, monkeypatch):
    """The command with small sizes, which options of the same name replace."""
    monkeypatch.setenv("COLUMNS", "80")
    sizes = {"--length": "24", "--batch": "4", "--steps": "4", "--rates": "1e-2", "--seeds": "2", "--loss": "fkl,rkl"}
    paths = {"--teacher": folder / "teacher", "--student": folder / "student", "--data": folder / "instructions.jsonl"}

    def call(**changes: object):
        given = {**sizes, **paths, "--out": tmp_path / "out", **{f"--{name}": value for name, value in changes.items()}}
        return CliRunner().invoke(cli.app, ["distill", *(str(word) for pair in given.items() for word in pair)])

    return call


@pytest.mark.parametrize("data", ["instructions.jsonl", "text.txt"])
def test_from_two_models_and_data_to_a_decision_table_and_a_plot(data, invoke, folder, tmp_path):
    shown = invoke(data=folder / data)
    assert shown.exit_code == 0, shown.output
    runs = published.load(tmp_path / "out")  # checks the manifest
    instructions = data.endswith("jsonl")
    assert ("rouge_l" in runs.results) == instructions
    assert len(runs.results) == 4
    assert {row["metric"] for row in runs.decisions["comparisons"]} >= {"fkl", "w1", "cross_entropy"}
    assert runs.decisions["pilot"]
    assert runs.provenance["corpus_sha256"]
    for ending, start in ((".png", b"\x89PNG"), (".pdf", b"%PDF")):
        assert (tmp_path / "out" / f"decisions{ending}").read_bytes().startswith(start)
    for words in (
        "reverse KL minus forward KL",
        "2 (a pilot: directions, no verdicts)",
        "decisions.png",
        "results.csv",
    ):
        assert words in shown.stdout
    assert ("ROUGE-L" in shown.stdout) == instructions
    assert max(len(line) for line in shown.stdout.splitlines() if str(tmp_path) not in line) <= 80
    assert "…" not in shown.stdout
    assert "Loading weights" not in shown.stderr
    mean = runs.results.groupby("loss")["cross_entropy"].mean()
    assert all(f"{mean[loss]:.3g}" in shown.stdout for loss in ("fkl", "rkl"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "fkl,kl"}, "'kl' is unknown; known: hard, classic"),
        ({"loss": "rkl,w1"}, "give fkl, which every loss is compared with"),
        ({"seeds": "two"}, "--seeds: entry 0 is 'two'; give whole numbers"),
        ({"seeds": "0"}, "seeds = (): give at least one"),
        ({"rates": "1e-3,x"}, "--rates: entry 1 is 'x'; give positive numbers"),
        ({"rates": "-1"}, "--rates: entry 0 is '-1'"),
        ({"rates": "inf"}, "--rates: entry 0 is 'inf'"),
        ({"rates": ","}, "--rates: give at least one learning rate"),
        ({"steps": "30"}, "take a multiple of 4"),
        ({"precision": "fp8"}, "choose no or bf16"),
        ({"accumulate": "3"}, "accumulate = 3 must divide batch = 4"),
        ({"slurm": "partition=gpu"}, "--slurm: this machine has no srun"),
    ],
)
def test_an_option_that_makes_no_sense_ends_with_2_before_anything_is_read(changes, message, invoke, monkeypatch):
    monkeypatch.setattr(distill_command.shutil, "which", lambda name: None)
    shown = invoke(teacher="/nowhere", **changes)
    assert (shown.exit_code, message in shown.output) == (2, True), shown.output
    assert "/nowhere" not in shown.output


def test_a_file_in_the_place_of_the_folder_ends_with_2(invoke, tmp_path):
    (tmp_path / "out").write_text("")
    shown = invoke(teacher="/nowhere")
    assert (shown.exit_code, "is a file; give a folder" in shown.output) == (2, True)


@pytest.mark.parametrize("case", ["teacher", "data", "empty", "tokens", "length", "batch"])
def test_models_or_data_that_do_not_fit_end_with_1(case, invoke, folder, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    tiny.save(tmp_path / "other", tiny.llama(), tiny.tokenizer(lines=["something else entirely, twice, twice"]))
    changes, message = {
        "teacher": ({"teacher": "/nowhere"}, "teacher: '/nowhere' was tried as a folder (there is none)"),
        "data": ({"data": "/nowhere.jsonl"}, "there is no file or folder '/nowhere.jsonl'"),
        "empty": ({"data": tmp_path / "empty.jsonl"}, "empty.jsonl is empty"),
        "tokens": ({"student": tmp_path / "other"}, "the tokenizers differ in"),
        "length": ({"length": 64}, "length = 64, but the pair has 48 positions"),
        "batch": ({"batch": 400}, "batch = 400, but the data have only"),
    }[case]
    shown = invoke(**changes)
    assert (shown.exit_code, message in shown.output) == (1, True), shown.output
    assert "Traceback" not in shown.output


def test_memory_that_does_not_suffice_ends_with_1_and_what_to_do(invoke, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes")

    monkeypatch.setattr(Trainer, "_loss", refuse)
    shown = invoke()
    assert (shown.exit_code, "take a larger accumulate (now 1; same gradient)" in shown.output) == (1, True)


def test_a_folder_that_cannot_be_written_ends_with_1(invoke, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "work").write_text("in the way")
    shown = invoke()
    assert (shown.exit_code, str(tmp_path / "out" / "work") in shown.output) == (1, True), shown.output


@pytest.fixture
def asked(monkeypatch):
    """What the command would run: (request, cluster)."""
    calls = []

    def note(request, out, *, cluster=None, keep=False):
        calls.append((request, cluster))
        raise ValueError("noted")

    monkeypatch.setattr(distill, "run", note)
    return calls


def test_options_of_slurm_become_parameters_of_submitit(invoke, asked, monkeypatch):
    monkeypatch.setattr(distill_command.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert invoke(slurm="partition=gpu, gpus_per_node=1,mem_gb=40,qos=long", workers=4).exit_code == 1
    (request, cluster) = asked[0]
    assert (cluster.name, request.workers) == ("slurm", 4)
    assert cluster.parameters == {"slurm_partition": "gpu", "gpus_per_node": 1, "mem_gb": 40, "slurm_qos": "long"}
    assert invoke(slurm="partition=gpu").exit_code == 1
    assert asked[1][0].workers == 1  # not in this process
    assert invoke(slurm="partition").exit_code == 2
    assert len(asked) == 2


@pytest.mark.parametrize("seeds", [(0,), (5,), (0, 1, 2)])
def test_the_stored_command_repeats_the_request(seeds, asked):
    """A single seed is not a number of seeds, and a path may hold spaces."""
    request = Request("my teacher", "s", "d'.jsonl", seeds=seeds, learning_rates=(1.5e-5, 1e-4), warm_steps=3)
    for wanted in (request, replace(request, precision="bf16", losses=("fkl", "w1+hard"), accumulate=4)):
        CliRunner().invoke(cli.app, shlex.split(distill.command(wanted))[1:])
        assert asked[-1][0] == wanted


def test_what_would_make_decisions_better_is_said():
    """Losses that still fall, and rates at the edge of the grid; nothing where all is well."""
    checks = [{"loss": "fkl", "converged": True}, {"loss": "w1", "converged": False}]
    origin = {"settings": {"learning_rates": [0.1, 0.2, 0.3]}, "learning_rates": {"fkl": 0.2, "w1": 0.3}}
    runs = published.Runs(pd.DataFrame(), pd.DataFrame(), {"convergence": checks}, origin)
    steps, rates = distill_command._advice(runs)
    assert steps.endswith("undecided: w1. Take more --steps.")
    assert "--rates: w1 0.3." in rates
    well = json.loads(json.dumps(origin).replace("0.3}", "0.2}"))
    assert distill_command._advice(replace(runs, decisions={"convergence": checks[:1]}, provenance=well)) == []
