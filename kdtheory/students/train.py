"""One training loop for teacher, warm start and students: through `accelerate`, on one process, GPUs or nodes.

`kdtheory.students.launch` runs a single task with as many processes as there are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdtheory.divergences.checks import NonFiniteLossError
from kdtheory.divergences.head import head_loss
from kdtheory.students import evaluate, losses, machine, models, provenance, store, text_losses
from kdtheory.students.data import Lesson, batch_rows, select, selected
from kdtheory.students.models import Body
from kdtheory.students.profiles import Profile
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
        self.accelerator = machine.processes(profile)
        self.batch, self.steps = _size(task, profile)
        if self.batch % (self.accelerator.num_processes * profile.accumulate):
            raise ValueError(
                f"batch = {self.batch} is not a multiple of {self.accelerator.num_processes} processes times "
                f"accumulate = {profile.accumulate}"
            )
        self.every = max(self.steps // (profile.evaluations if lesson else _PRETRAINING_EVALUATIONS), 1)
        self.lesson, self.blocks = lesson, blocks
        chosen = lesson.blocks if lesson else select(blocks, profile)
        self.split = blocks.train if task.kind == "teacher" else chosen["train"]  # the teacher reads all text
        self.held_out = chosen["curve"]
        # teacher and warm start learn from hard labels, before there is a teacher to take a metric from
        metrics = lesson.metrics if lesson else TokenMetrics(torch.zeros(0, 0))
        self.loss = text_losses.build(task.loss, metrics=metrics, transport_weight=profile.transport_weight)
        body = workspace.beginner(task)
        optimizer = torch.optim.AdamW(body.parameters(), lr=task.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
        self.model, self.optimizer = self.accelerator.prepare(body, optimizer)
        self.body: Body = self.accelerator.unwrap_model(self.model)
        self.step, self.curve = 0, list[dict[str, float]]()
        self.seconds = {"wall": 0.0, "cpu": 0.0}  # of training alone, without evaluation

    def run(self, *, stop_at: int | None = None) -> dict[str, Any] | None:
        """Train to the end, evaluate and store; returns the facts, or None if stopped at `stop_at` steps.

        Raises
        ------
        TrainingMemoryError
            If the memory of the machine or of its GPU does not suffice; the last checkpoint is kept.
        """
        try:
            return self._run(stop_at)
        except NonFiniteLossError as error:
            if not (self._tunes and self.curve):
                raise NonFiniteLossError(f"{self.task.name}, step {self.step}: {error}") from error
            return self._finish(diverged=True)
        except (MemoryError, RuntimeError) as error:
            if not machine.out_of_memory(error):
                raise
            part = self.batch // (self.accelerator.num_processes * self.profile.accumulate)
            raise machine.TrainingMemoryError(
                f"out of memory in {self.task.name} at step {self.step}, with {part} blocks of {self.profile.length} "
                f"tokens at a time over {self.profile.vocabulary} tokens: take a larger accumulate (now "
                f"{self.profile.accumulate}; same gradient), a shorter length, or precision bf16"
            ) from error

    def _run(self, stop_at: int | None) -> dict[str, Any] | None:
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
        self.model.eval()  # no dropout, which given models may have: a step is a function of weights and batch alone
        wall, cpu = time.perf_counter(), time.process_time()
        while self.step < end:
            for group in self.optimizer.param_groups:
                group["lr"] = self._rate()
            self._backward()
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

    def _backward(self) -> None:
        """Gradient of the mean over the whole batch's counted positions, part by part and process by process."""
        rows = batch_rows(self.task.kind, self.task.seed, self.step, batch=self.batch, count=len(self.split))
        counted = self._counted(rows)
        count = self.accelerator.num_processes
        own = slice(self.accelerator.process_index, None, count)
        # processes average their gradients, which are sums over positions divided by the whole batch's count
        scale = count / max(int(counted.sum()), 1)
        parts = np.array_split(np.arange(self.batch)[own], self.profile.accumulate)
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                self.accelerator.backward(scale * self._loss(rows[part], counted[part]))

    def _counted(self, rows: np.ndarray) -> Tensor:
        """Which positions of the batch count, (B, T): those of the text or response that the loss looks at."""
        counted = torch.from_numpy(self.split.part(rows).counted())
        seen = text_losses.counted(
            self.task.loss, step=self.step, rows=torch.arange(len(rows)), length=counted.shape[1]
        )
        return counted if seen is None else counted & seen

    def _loss(self, rows: np.ndarray, counted: Tensor) -> Tensor:
        """Sum over the counted positions of these blocks."""
        tokens = torch.from_numpy(self.split.tokens[rows]).to(self.accelerator.device)
        given: dict[str, Any] = {"labels": tokens[:, 1:], "reduction": "sum"}
        given["mask"] = None if counted.all() else counted.to(tokens.device)
        with self.accelerator.autocast():
            if self.lesson and losses.needs_teacher(self.task.loss):
                given |= self._taught(self.lesson.teachers["train"], rows)
            states = self.model(tokens[:, :-1])
            if not self.body.plain_head:
                return self.loss.loss(student_logits=states, **given)
            weight, bias = self.body.head()
            return head_loss(self.loss, hidden=states, weight=weight, bias=bias, **given)

    def _taught(self, teacher: Teacher, rows: np.ndarray) -> dict[str, Any]:
        """What the teacher says of these blocks, without its logits where hidden states will do."""
        hidden = teacher.hidden(rows) if self.body.plain_head else None
        if hidden is not None:
            return {"teacher": hidden}
        return {"teacher_logits": teacher.log_probs(rows).to(self.accelerator.device)}

    def _evaluate(self) -> None:
        teacher: Teacher | None = self.lesson.teachers["curve"] if self.lesson else None
        point = evaluate.curve_point(
            self.body, self.held_out, teacher, loss=self.loss, name=self.task.loss, device=self.accelerator.device
        )
        tokens = self.step * self.batch * self.profile.length
        spent = {"seconds": self.seconds["wall"], "cpu_seconds": self.seconds["cpu"]}
        self.curve.append({"step": self.step, "tokens": tokens, **spent, **point})

    # -- files -------------------------------------------------------------------------------------------------------
    def _state(self) -> dict[str, Any]:
        weights = self.body.net.state_dict()
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
        self.body.net.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.curve, self.seconds = state["step"], state["curve"], state["seconds"]

    @property
    def _tunes(self) -> bool:
        """Whether this run only chooses a learning rate: by the end of its curve."""
        return self.task.kind == "student" and self.task.seed == self.profile.tuning_seed

    def _finish(self, diverged: bool = False) -> dict[str, Any]:
        if diverged:
            self.curve.append({**self.curve[-1], "step": self.step, "objective": math.inf})
        facts: dict[str, Any] = {"kind": self.task.kind, "loss": self.task.loss, "seed": self.task.seed}
        facts |= {"learning_rate": self.task.learning_rate, "steps": self.steps, "curve": self.curve}
        facts |= {"parameters": models.parameters(self.body), "train_seconds": dict(self.seconds)}
        if self.lesson and not self._tunes:
            facts["metrics"] = self._metrics(self.lesson)
        facts |= {"peak_memory_mib": machine.peak_memory_mib(), "device": machine.device_name()}
        facts |= {"threads": torch.get_num_threads(), "commit": provenance.commit()}
        if self.accelerator.is_main_process:
            key, weights = self.workspace.key(self.task), self.body.net.state_dict()
            weights = {name: value.cpu() for name, value in weights.items()}
            facts["weights_sha256"] = store.write_checkpoint(
                self.workspace.path(self.task, ".weights"), weights, key=key
            )
            store.write_json(self.workspace.path(self.task, ".json"), facts, key=key)
            self.workspace.path(self.task, ".checkpoint").unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()
        return facts

    def _metrics(self, lesson: Lesson) -> dict[str, float]:
        """On the test blocks; of instructions also ROUGE-L of the student's own responses."""
        split, device = lesson.blocks["test"], self.accelerator.device
        found = evaluate.student_metrics(
            self.body, split, lesson.teachers["test"], tree=lesson.metrics.tree, device=device
        )
        if self.blocks.prompts:
            found["rouge_l"] = self._rouge(len(split))
        return found

    def _rouge(self, size: int) -> float:
        from kdtheory.students.pretrained import rouge

        chosen = selected(2, len(self.blocks.prompts), size)  # those of the test blocks
        prompts, references = (
            [texts[row] for row in chosen] for texts in (self.blocks.prompts, self.blocks.references)
        )
        pair, profile = self.workspace.pair, self.profile
        said = rouge.respond(
            self.body.net, pair.tokenizer, prompts, vocabulary=profile.vocabulary, positions=pair.positions,
            new_tokens=profile.length,
        )  # fmt: skip
        return float(rouge.score(said, references).mean())


def _size(task: Task, profile: Profile) -> tuple[int, int]:
    """Blocks per step and steps."""
    if task.kind == "teacher":
        return profile.teacher_batch, profile.teacher_steps
    return profile.batch, profile.warm_steps if task.kind == "warm" else profile.steps
