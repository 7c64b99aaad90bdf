"""What there is to train, and where its files lie."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from kdtheory.students import store
from kdtheory.students.profiles import Profile

_FORMAT = 1  # raised when the meaning of a stored file changes


@dataclass(frozen=True)
class Task:
    """One training run.

    Attributes
    ----------
    kind : {"teacher", "warm", "student"}
        The teacher and the warm start learn from hard labels, the student with its loss.
    seed : int
        Of the initial weights and of the order of the batches; students share those of their warm start.
    loss : str
        Short name; ``"hard"`` for teacher and warm start.
    learning_rate : float
        Of AdamW.
    """

    kind: str
    seed: int
    loss: str
    learning_rate: float

    @property
    def name(self) -> str:
        """A file-system name, e.g. ``student-fkl-s0-lr0.003``; no folder hides in ``fkl/16``."""
        return f"{self.kind}-{self.loss.replace('/', ':')}-s{self.seed}-lr{self.learning_rate:g}"


@dataclass(frozen=True)
class Workspace:
    """Folder of an experiment's working files, and the keys that say what each file was made from.

    A key is a sha256 over everything a file depends on: settings, corpus, versions, kind of device, and the content
    of the files it was computed from. File names carry its beginning, so that another configuration finds no file.
    """

    folder: Path
    profile: Profile
    tokens: str

    def base(self) -> list[Any]:
        """What every trained weight depends on."""
        versions = [metadata.version(name) for name in ("torch", "transformers")]
        profile = self.profile
        return [_FORMAT, self.tokens, versions, _device_kind(), profile.precision, profile.architecture, profile.length]

    def key(self, task: Task) -> str:
        """Key of a task's files; for a student the teacher and the warm start must have been trained."""
        p, own = self.profile, asdict(task)
        if task.kind == "teacher":
            size = [asdict(p.teacher), p.teacher_batch, p.teacher_steps]
        elif task.kind == "warm":
            size = [asdict(p.student), p.batch, p.warm_steps, p.train_blocks]
        else:
            size = [self.sealed(self.teacher_task()), self.sealed(self.warm_task(task.seed)), p.batch, p.steps]
            size += [p.evaluations, p.train_blocks, p.curve_blocks, p.test_blocks, p.transport_weight, p.cache_teacher]
        return store.digest([*self.base(), own, size])

    def teacher_task(self) -> Task:
        """The teacher."""
        return Task("teacher", 0, "hard", self.profile.teacher_learning_rate)

    def warm_task(self, seed: int) -> Task:
        """The hard-label warm start that all students of a seed share."""
        return Task("warm", seed, "hard", self.profile.warm_learning_rate)

    def cache_key(self, split: str) -> str:
        """Key of the teacher's stored log-probabilities on a split."""
        p = self.profile
        size = {"train": p.train_blocks, "curve": p.curve_blocks, "test": p.test_blocks}[split]
        return store.digest([*self.base(), "cache", split, size, self.sealed(self.teacher_task())])

    def path(self, task: Task, suffix: str) -> Path:
        """``.json`` (finished: facts), ``.weights`` (finished) or ``.checkpoint`` (under way)."""
        folder = "runs" if task.kind == "student" else "pretrained"
        return self.folder / folder / f"{task.name}-{self.key(task)[:12]}{suffix}"

    def cache_path(self, split: str) -> Path:
        """Array file of the teacher's log-probabilities on a split."""
        return self.folder / "teacher" / f"{split}-{self.cache_key(split)[:12]}.bin"

    def finished(self, task: Task) -> bool:
        """Whether the task's result is there (it is validated when read)."""
        return self.path(task, ".json").exists()

    def result(self, task: Task) -> dict[str, Any]:
        """Facts of a finished task; `StoredFileError` if they are missing, damaged or made for something else."""
        return store.read_json(self.path(task, ".json"), key=self.key(task))

    def weights(self, task: Task) -> dict[str, torch.Tensor]:
        """Trained weights of a finished task, on the CPU."""
        return store.read_checkpoint(self.path(task, ".weights"), key=self.key(task))[0]

    def sealed(self, task: Task) -> str:
        """sha256 of a finished task's weights."""
        return self.result(task)["weights_sha256"]


def _device_kind() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def describe(profile: Profile) -> dict[str, Any]:
    """Settings of a profile as plain values, seeds and losses included."""
    return json.loads(json.dumps({"name": profile.name, **asdict(profile)}))
