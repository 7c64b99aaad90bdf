"""One training loop for teacher, warm start and students: through `accelerate`, on one process, GPUs or nodes.

`kdtheory.students.launch` runs a single task with as many processes as there are.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kdtheory.students import evaluate, losses, models, provenance, store, text_losses
from kdtheory.students.data import Lesson, batch_rows, select
from kdtheory.students.profiles import Profile, Shape
from kdtheory.students.tasks import Task, Workspace
from kdtheory.students.teacher import Teacher
from kdtheory.students.token_metrics import TokenMetrics
from kdtheory.students.tokens import Blocks

Report = Callable[[str, int, int], None]
_RAMP = 20  # steps of linear learning-rate warm-up
_PRETRAINING_EVALUATIONS = 10


def silent(name: str, step: int, steps: int) -> None:
    """A `Report` that says nothing."""


class Trainer:
    """Trains one task, checkpointing at every point of its curve, and evaluates it.

    Parameters
    ----------
    task : Task
        What to train.
    workspace : Workspace
        Where its files go; a checkpoint there is resumed bit for bit on one device.
    blocks : Blocks
        All token blocks.
    lesson : Lesson, optional
        The teacher's distributions; needed by students.
    report : callable
        Called with (task name, step, steps).
    """

    def __init__(
        self, task: Task, workspace: Workspace, blocks: Blocks, lesson: Lesson | None, report: Report = silent
    ) -> None:
        profile = workspace.profile
        self.task, self.workspace, self.report, self.profile = task, workspace, report, profile
        self.accelerator = processes(profile)
        self.batch, self.steps, shape = _size(task, profile)
        if self.batch % self.accelerator.num_processes:
            raise ValueError(f"batch = {self.batch} is not a multiple of {self.accelerator.num_processes} processes")
        self.every = max(self.steps // (profile.evaluations if lesson else _PRETRAINING_EVALUATIONS), 1)
        self.lesson = lesson
        self.blocks, self.held_out = _blocks(task, profile, blocks, lesson)
        # teacher and warm start learn from hard labels, before there is a teacher to take a metric from
        metrics = lesson.metrics if lesson else TokenMetrics(torch.zeros(0, 0))
        self.loss = text_losses.build(task.loss, metrics=metrics, transport_weight=profile.transport_weight)
        model = models.build(profile, shape, seed=task.seed)
        if task.kind == "student":
            model.load_state_dict(workspace.weights(workspace.warm_task(task.seed)))
        optimizer = torch.optim.AdamW(model.parameters(), lr=task.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.step, self.curve = 0, list[dict[str, float]]()
        self.seconds = {"wall": 0.0, "cpu": 0.0}  # of training alone, without evaluation

    def run(self, *, stop_at: int | None = None) -> dict[str, Any] | None:
        """Train to the end, evaluate and store; returns the facts, or None if stopped at `stop_at` steps."""
        self._resume()
        if self.step == 0:
            self._evaluate()
        while self.step < self.steps:
            if self.step == stop_at:
                return None
            self._advance(min(self.step + self.every, self.steps))
            self._evaluate()
            self._save()
        return self._finish()

    # -- the loop ----------------------------------------------------------------------------------------------------
    def _advance(self, end: int) -> None:
        self.model.train()
        wall, cpu = time.perf_counter(), time.process_time()
        while self.step < end:
            for group in self.optimizer.param_groups:
                group["lr"] = self._rate()
            self.accelerator.backward(self._batch_loss())
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
            self.report(self.task.name, self.step, self.steps)
        self.seconds["wall"] += time.perf_counter() - wall
        self.seconds["cpu"] += time.process_time() - cpu

    def _rate(self) -> float:
        """Learning rate of this step: linear decay for the teacher, constant for those that must show a plateau."""
        ramp = min(1.0, (self.step + 1) / _RAMP)
        decay = 1 - self.step / self.steps if self.task.kind == "teacher" else 1.0
        return self.task.learning_rate * ramp * decay

    def _batch_loss(self) -> Tensor:
        rows = batch_rows(self.task.kind, self.task.seed, self.step, batch=self.batch, count=len(self.blocks))
        own = slice(self.accelerator.process_index, None, self.accelerator.num_processes)  # equal parts: means average
        rows, places = rows[own], torch.arange(self.batch)[own]
        tokens = torch.from_numpy(self.blocks[rows]).to(self.accelerator.device)
        log_p = None
        if self.lesson and losses.needs_teacher(self.task.loss):
            log_p = self.lesson.teachers["train"].log_probs(rows).to(self.accelerator.device)
        with self.accelerator.autocast():
            student_logits = models.logits(self.model, tokens[:, :-1])
        mask = text_losses.counted(self.task.loss, step=self.step, rows=places, length=self.profile.length)
        mask = None if mask is None else mask.to(tokens.device)
        return losses.training_loss(
            self.loss, self.task.loss, student_logits=student_logits, log_p=log_p, labels=tokens[:, 1:], mask=mask
        )

    def _evaluate(self) -> None:
        teacher: Teacher | None = self.lesson.teachers["curve"] if self.lesson else None
        point = evaluate.curve_point(
            self.model, self.held_out, teacher, loss=self.loss, name=self.task.loss, device=self.accelerator.device
        )
        tokens = self.step * self.batch * self.profile.length
        spent = {"seconds": self.seconds["wall"], "cpu_seconds": self.seconds["cpu"]}
        self.curve.append({"step": self.step, "tokens": tokens, **spent, **point})

    # -- files -------------------------------------------------------------------------------------------------------
    def _state(self) -> dict[str, Any]:
        weights = self.accelerator.unwrap_model(self.model).state_dict()
        progress = {"step": self.step, "curve": self.curve, "seconds": self.seconds}
        return {"model": weights, "optimizer": self.optimizer.state_dict(), **progress}

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            key = self.workspace.key(self.task)
            store.write_checkpoint(self.workspace.path(self.task, ".checkpoint"), self._state(), key=key)

    def _resume(self) -> None:
        path = self.workspace.path(self.task, ".checkpoint")
        if not path.exists():
            return
        state, _ = store.read_checkpoint(path, key=self.workspace.key(self.task), device=self.accelerator.device)
        self.accelerator.unwrap_model(self.model).load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.curve, self.seconds = state["step"], state["curve"], state["seconds"]

    def _finish(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"kind": self.task.kind, "loss": self.task.loss, "seed": self.task.seed}
        facts |= {"learning_rate": self.task.learning_rate, "steps": self.steps, "curve": self.curve}
        facts |= {"parameters": models.parameters(self.model), "train_seconds": dict(self.seconds)}
        if self.lesson:
            facts["metrics"] = evaluate.student_metrics(
                self.model,
                self.lesson.blocks["test"],
                self.lesson.teachers["test"],
                tree=self.lesson.metrics.tree,
                device=self.accelerator.device,
            )
        facts |= {"peak_memory_mib": peak_memory_mib(), "device": device_name(), "threads": torch.get_num_threads()}
        facts["commit"] = provenance.commit()
        if self.accelerator.is_main_process:
            key, weights = self.workspace.key(self.task), self.accelerator.unwrap_model(self.model).state_dict()
            weights = {name: value.cpu() for name, value in weights.items()}
            facts["weights_sha256"] = store.write_checkpoint(
                self.workspace.path(self.task, ".weights"), weights, key=key
            )
            store.write_json(self.workspace.path(self.task, ".json"), facts, key=key)
            self.workspace.path(self.task, ".checkpoint").unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()
        return facts


def processes(profile: Profile) -> Any:
    """The `Accelerator` of this process: alone, or one of those that a launcher started."""
    from accelerate import Accelerator

    return Accelerator(mixed_precision=profile.precision, cpu=not torch.cuda.is_available())


def _size(task: Task, profile: Profile) -> tuple[int, int, Shape]:
    if task.kind == "teacher":
        return profile.teacher_batch, profile.teacher_steps, profile.teacher
    return profile.batch, profile.warm_steps if task.kind == "warm" else profile.steps, profile.student


def _blocks(task: Task, profile: Profile, blocks: Blocks, lesson: Lesson | None) -> tuple[Any, Any]:
    """Training and held-out blocks: the teacher reads all text, its students the selected blocks."""
    chosen = lesson.blocks if lesson else select(blocks, profile)
    return (blocks.train if task.kind == "teacher" else chosen["train"]), chosen["curve"]


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far, in MiB; of the GPU where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def device_name() -> str:
    """The GPU's name, or the processor's."""
    import platform

    return torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
