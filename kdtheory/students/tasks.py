"""What there is to train, and where its files lie."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kdtheory.students import machine, models, store
from kdtheory.students.profiles import Profile

if TYPE_CHECKING:
    from kdtheory.students.pretrained.pair import Pair

_FILE = "workspace.json"
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
        """A file-system name, e.g. ``student-fkl-s0-lr0.003``; a slash in the loss's name becomes a dash."""
        return f"{self.kind}-{self.loss.replace('/', '-')}-s{self.seed}-lr{self.learning_rate:g}"


@dataclass(frozen=True)
class Workspace:
    """Folder of an experiment's working files, and the keys that say what each file was made from.

    A key is a sha256 over everything a file depends on: settings, corpus, versions, kind of device, and the content
    of the files it was computed from. File names carry its beginning, so that another configuration finds no file.
    """

    folder: Path
    profile: Profile
    tokens: str

    def save(self) -> None:
        """Write profile and tokens to the folder, for processes that are started on their own (`launch`)."""
        store.write_json(self.folder / _FILE, {"profile": describe(self.profile), "tokens": self.tokens}, key=_FILE)

    @classmethod
    def open(cls, folder: Path) -> Workspace:
        """What `save` wrote.

        Raises
        ------
        StoredFileError
            If it is missing or damaged.
        """
        stored = store.read_json(folder / _FILE, key=_FILE)
        return cls(folder, Profile.read(stored["profile"]), stored["tokens"])

    def base(self) -> list[Any]:
        """What every trained weight depends on."""
        versions = [metadata.version(name) for name in ("torch", "transformers")]
        profile, device = self.profile, machine.device().type
        return [_FORMAT, self.tokens, versions, device, profile.precision, profile.architecture, profile.length]

    def key(self, task: Task) -> str:
        """Key of a task's files; for a student the teacher and the warm start must have been trained."""
        p, own = self.profile, asdict(task)
        if task.kind == "teacher":
            size = [asdict(p.teacher), p.teacher_batch, p.teacher_steps]  # type: ignore[arg-type]
        elif task.kind == "warm":
            student = self.pair.fingerprint if p.pretrained else asdict(p.student)  # type: ignore[arg-type]
            size = [student, p.batch, p.warm_steps, p.train_blocks]
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

    def pretraining(self) -> list[Task]:
        """What has to be trained before the students: teacher and warm starts, where they are not given."""
        teacher = [] if self.profile.pretrained else [self.teacher_task()]
        return teacher + self.warm_tasks(self.profile.seeds)

    def warm_tasks(self, seeds: Sequence[int]) -> list[Task]:
        """The warm starts of these seeds; none where students begin with the weights they are given."""
        return [self.warm_task(seed) for seed in seeds if self.profile.warm_steps]

    @cached_property
    def pair(self) -> Pair:
        """The trained models of a profile that names them."""
        from kdtheory.students.pretrained.pair import Pair

        return Pair.load(str(self.profile.teacher), str(self.profile.student))

    def teacher(self) -> models.Body:
        """The trained teacher, on the CPU."""
        if self.profile.pretrained:
            return models.Body(self.pair.teacher(), self.profile.vocabulary)
        return self._built(self.profile.teacher, 0, self.teacher_task())

    def beginner(self, task: Task) -> models.Body:
        """The model that a task begins with: random or given weights, for students those of the warm start."""
        warm = self.warm_task(task.seed) if task.kind == "student" and self.profile.warm_steps else None
        if not self.profile.pretrained:
            shape = self.profile.teacher if task.kind == "teacher" else self.profile.student
            return self._built(shape, task.seed, warm)
        body = models.Body(self.pair.student(), self.profile.vocabulary)
        if warm:
            body.net.load_state_dict(self.weights(warm))
        return body

    def _built(self, shape: Any, seed: int, trained: Task | None) -> models.Body:
        net = models.build(self.profile, shape, seed=seed)
        if trained:
            net.load_state_dict(self.weights(trained))
        return models.Body(net, self.profile.vocabulary)

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
        """sha256 of a task's weights; of given models, their fingerprint."""
        if self.profile.pretrained and (task.kind == "teacher" or not self.profile.warm_steps):
            return self.pair.fingerprint
        return self.result(task)["weights_sha256"]


def describe(profile: Profile) -> dict[str, Any]:
    """Settings of a profile as plain values, seeds and losses included."""
    return json.loads(json.dumps({"name": profile.name, **asdict(profile)}))
