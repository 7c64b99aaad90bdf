"""The same training however it is divided: parts of a batch, processes, and what does not fit."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kdtheory.students import tokens
from kdtheory.students.data import Lesson, batch_rows
from kdtheory.students.machine import TrainingMemoryError, processes
from kdtheory.students.tasks import Task, Workspace
from kdtheory.students.teacher import LiveTeacher
from kdtheory.students.train import Trainer

FKL = Task("student", 0, "fkl", 0.01)
CPU = torch.device("cpu")


def trainer(task: Task, workspace: Workspace, blocks: tokens.Blocks, **changes: object) -> Trainer:
    divided = Workspace(workspace.folder, replace(workspace.profile, **changes), workspace.tokens)
    return Trainer(task, divided, blocks, Lesson.open(divided, blocks, CPU))


def gradient(at: Trainer) -> torch.Tensor:
    """Of the first batch."""
    at._backward()
    found = torch.cat([weight.grad.flatten() for weight in at.body.parameters()])
    at.optimizer.zero_grad()
    return found


@pytest.fixture
def masked(prepared) -> tokens.Blocks:
    """The blocks with a third of the labels counted, unevenly: rows differ, and one has none."""
    rng = np.random.default_rng(0)
    parts = {}
    for name in ("train", "validation", "test"):
        split = getattr(prepared.blocks, name)
        shares = rng.random((len(split), 1)) ** 2
        mask = rng.random(split.tokens[:, 1:].shape) < shares
        mask[::5] = False
        mask[1, 0] = True
        parts[name] = tokens.Split(split.tokens, mask)
    return replace(prepared.blocks, **parts)


@pytest.mark.parametrize("loss", ["hard", "fkl", "w1", "fkl/16", "w1+hard"])
def test_parts_of_a_batch_have_its_gradient(loss, workspace, masked):
    """2e-6 of the largest entry: the order of sums in float32."""
    task = replace(FKL, loss=loss)
    whole = gradient(trainer(task, workspace, masked))
    for parts in (2, 4):
        part = gradient(trainer(task, workspace, masked, accumulate=parts))
        torch.testing.assert_close(part, whole, rtol=0, atol=2e-6 * float(whole.abs().max()))


def test_a_mean_of_means_is_another_gradient(workspace, masked):
    """The control: parts weighted equally, although they count different numbers of positions."""
    at = trainer(FKL, workspace, masked)
    whole = gradient(at)
    rows = batch_rows("student", 0, 0, batch=at.batch, count=len(at.split))
    counted = at._counted(rows)
    for half in (slice(0, 2), slice(2, 4)):
        (at._loss(rows[half], counted[half]) / (2 * max(int(counted[half].sum()), 1))).backward()
    naive = torch.cat([weight.grad.flatten() for weight in at.body.parameters()])
    assert (naive - whole).abs().max() > 1e-3 * whole.abs().max()


def test_a_batch_that_cannot_be_divided_is_refused(workspace, prepared):
    with pytest.raises(ValueError, match="accumulate = 3 must divide batch = 4"):
        trainer(FKL, workspace, prepared.blocks, accumulate=3)


SCRIPT = """
import sys
from pathlib import Path
from kdtheory.students import sweep
from kdtheory.students.tasks import Task, Workspace
workspace = Workspace.open(Path(sys.argv[1]))
sweep.execute(Task("student", 0, sys.argv[2], 0.01), workspace, lambda *at: None)
"""


def on_processes(count: int, folder: Path, loss: str) -> dict[str, torch.Tensor]:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"] if count > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [sys.executable, *start, str(script), str(folder), loss], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    workspace = Workspace.open(folder)
    task = replace(FKL, loss=loss)
    weights = workspace.weights(task)
    for suffix in (".json", ".weights"):
        workspace.path(task, suffix).unlink()
    return weights


@pytest.mark.parametrize("loss", ["w1", "fkl/16"])
def test_two_processes_are_one(loss, workspace):
    """Eight steps of Adam at rate .01; 2e-5: float32 sums in another order, which Adam's first steps amplify.

    The control: the eight steps move the weights by a hundred times as much.
    """
    workspace.save()
    one, two = (on_processes(count, workspace.folder, loss) for count in (1, 2))
    start = workspace.weights(workspace.warm_task(0))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=2e-5)
    assert max(float((weight - start[name]).abs().max()) for name, weight in one.items()) > 2e-3


def test_memory_that_does_not_suffice_is_explained(workspace, prepared, monkeypatch):
    at = trainer(FKL, workspace, prepared.blocks)

    def refuse(*arguments: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: not enough memory: you tried")

    monkeypatch.setattr(at, "_loss", refuse)
    with pytest.raises(TrainingMemoryError, match=r"at step 0, with 4 blocks of 16 tokens .* larger accumulate"):
        at.run()

    def fail(*arguments: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(at, "_loss", fail)
    with pytest.raises(RuntimeError, match="something else"):
        at.run()


def test_a_workspace_is_read_as_it_was_written(workspace):
    workspace.save()
    found = Workspace.open(workspace.folder)
    assert (found.profile, found.tokens) == (workspace.profile, workspace.tokens)
    assert found.key(FKL) == workspace.key(FKL)


@pytest.mark.parametrize("loss", ["fkl", "rkl", "sinkhorn/16", "fkl+hard"])
def test_the_path_of_a_gpu_in_small(loss, workspace, prepared):
    """bfloat16, a teacher that runs at each step and hands over hidden states, two parts: near float32's gradient.

    bfloat16 keeps 8 bits, and a sum over positions averages its errors: under 2 %. Losses with a kink are left out:
    their gradients jump. The control is the gradient of hard labels.
    """
    task, small = replace(FKL, loss=loss), {"accumulate": 2}
    exact = gradient(trainer(task, workspace, prepared.blocks))
    lesson = Lesson.open(workspace, prepared.blocks, CPU)
    live = {name: LiveTeacher(workspace.teacher(), split, CPU) for name, split in lesson.blocks.items()}
    rough = trainer(task, workspace, prepared.blocks, **small)
    rough.lesson = replace(lesson, teachers=live)
    assert live["train"].hidden(np.arange(2)) is not None
    rough.accelerator = processes(replace(workspace.profile, precision="bf16"))
    found = gradient(rough)
    other = gradient(trainer(replace(FKL, loss="hard"), workspace, prepared.blocks))
    assert apart(found, exact) < 0.02
    assert apart(other, exact) > 0.2


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Relative distance."""
    return float((one - other).norm() / other.norm())
