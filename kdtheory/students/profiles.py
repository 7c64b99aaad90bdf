"""Sizes of the experiment: `smoke` (seconds), `cpu` (the main job), `gpu` (what a write-up reports)."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, replace
from typing import Any

from kdtheory.students.store import digest

LOSSES = (
    *("hard", "classic", "fkl", "rkl", "symmetric", "jsd.1", "jsd", "jsd.9", "tvd", "skl", "srkl", "akl"),
    *("w1", "w1-line", "fkl+w1", "fkl+hard", "rkl+hard", "w1+hard", "fkl/16", "w1-topk/16", "sinkhorn/16", "sinkd/16"),
)
"""Losses of the experiment, in the order of its tables; `kdtheory.students.losses` says what each one is."""

PILOT_SEEDS = 3
_NOT_SETTINGS = ("name", "seeds", "losses", "pilots", "workers", "accumulate")


@dataclass(frozen=True)
class Shape:
    """A GPT: width (features), layers, heads. The feed-forward width is 4 times (llama, gated: 8/3 times) the width."""

    width: int
    layers: int
    heads: int


@dataclass(frozen=True)
class Profile:
    """Everything that a run depends on, apart from the corpus and the versions of the libraries.

    Attributes
    ----------
    corpus : str
        ``"stdlib"``, or the path of a text file or of a folder of ``.py``, ``.txt``, ``.md`` and ``.rst`` files.
    vocabulary, length, batch : int
        Tokens; tokens per block; blocks per step over all processes.
    accumulate : int
        Parts that a process takes its share of a batch in, one after the other: less memory, the same gradient.
    architecture : {"gpt2", "llama"}
        Family of `transformers` configurations, for teacher and student.
    teacher, student : Shape or str
        What to build and train, or, for both, a folder or name of trained models (`Pair`).
    teacher_steps, warm_steps, steps : int
        Optimiser steps of the teacher, of the shared hard-label warm start, and of each student after it.
    teacher_batch : int
        Blocks per step of the teacher.
    evaluations : int
        Points of each learning curve after the warm start; a multiple of four, so that the last quarter is one.
    train_blocks, curve_blocks, test_blocks : int
        Blocks the students learn from; validation blocks of the curves; test blocks of the final metrics.
    seeds, tuning_seed : tuple of int, int
        Evaluation seeds, and the seed learning rates are chosen with; it is not among them.
    losses, pilots : tuple of str
        What is compared; those of them that have the first `PILOT_SEEDS` seeds only.
    learning_rates : tuple of float
        The grid, one for all losses. With a single entry nothing is tuned.
    transport_weight : float
        λ of FKL + λ W1, for a token tree of diameter 1.
    cache_teacher : bool
        Store the teacher's log-probabilities (fp16) of all training blocks; otherwise the teacher runs at each step.
    precision : {"no", "bf16"}
        Mixed precision of `accelerate`.
    workers : int
        Processes of the sweep, one thread each; 0 runs everything in this process.
    """

    name: str
    vocabulary: int = 512
    length: int = 64
    batch: int = 16
    accumulate: int = 1
    architecture: str = "llama"
    teacher: Shape | str = Shape(128, 4, 4)
    student: Shape | str = Shape(32, 2, 2)
    corpus: str = "stdlib"
    teacher_batch: int = 16
    teacher_steps: int = 1800
    teacher_learning_rate: float = 3e-3
    warm_steps: int = 3000
    warm_learning_rate: float = 8e-3
    steps: int = 960
    evaluations: int = 12
    train_blocks: int = 8192
    curve_blocks: int = 64
    test_blocks: int = 512
    seeds: tuple[int, ...] = (0, 1, 2)
    losses: tuple[str, ...] = LOSSES
    pilots: tuple[str, ...] = ()
    learning_rates: tuple[float, ...] = (3e-3,)
    tuning_seed: int = 1000
    transport_weight: float = 1.0
    cache_teacher: bool = True
    precision: str = "no"
    workers: int = 2

    def __post_init__(self) -> None:
        if self.evaluations % 4 or self.steps % self.evaluations:
            raise ValueError(
                f"profile {self.name}: evaluations = {self.evaluations} must be a multiple of 4 that divides "
                f"steps = {self.steps}, so that the last quarter of a curve begins at one of its points"
            )
        if self.tuning_seed in self.seeds:
            raise ValueError(f"tuning_seed = {self.tuning_seed} is also an evaluation seed: choose another")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds = {self.seeds}: give at least one, each once")
        if unknown := [name for name in (*self.losses, *self.pilots) if name not in LOSSES]:
            raise ValueError(f"losses: {unknown[0]!r} is unknown; known: {', '.join(LOSSES)}")
        if self.batch < 1 or self.accumulate < 1 or self.batch % self.accumulate:
            raise ValueError(f"accumulate = {self.accumulate} must divide batch = {self.batch}, both at least 1")
        if isinstance(self.teacher, str) != isinstance(self.student, str):
            raise ValueError("teacher, student: give two shapes, or two folders or names of trained models")
        if self.architecture not in ("gpt2", "llama"):
            raise ValueError(f"architecture = {self.architecture!r}: choose gpt2 or llama")

    def __str__(self) -> str:
        return self.name

    @classmethod
    def read(cls, fields: dict[str, Any]) -> Profile:
        """A profile out of JSON, as `tasks.describe` writes it."""
        shapes = {side: Shape(**fields[side]) for side in ("teacher", "student") if isinstance(fields[side], dict)}
        lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        return cls(**{**fields, **shapes, **lists})

    @property
    def pretrained(self) -> bool:
        """Whether teacher and student are trained models, and nothing is pretrained here but a warm start."""
        return isinstance(self.teacher, str)

    def settings(self) -> dict[str, Any]:
        """What the numbers depend on: all fields but the name, the seeds, the losses and the division of work."""
        fields = asdict(self)
        return {key: fields[key] for key in fields if key not in _NOT_SETTINGS}

    def seeds_of(self, loss: str) -> tuple[int, ...]:
        """Seeds that a loss is trained with."""
        return self.seeds[:PILOT_SEEDS] if loss in self.pilots else self.seeds

    def spot_check(self) -> Profile:
        """What `kdtheory reproduce` trains again: the losses that are no pilots, with a pilot's seeds."""
        losses = tuple(name for name in self.losses if name not in self.pilots)
        return replace(self, losses=losses, pilots=(), seeds=self.seeds[:PILOT_SEEDS])

    @property
    def hash(self) -> str:
        """sha256 of `settings`: runs with the same hash differ in seed, loss and learning rate only."""
        return digest(self.settings())


SMOKE = Profile(
    name="smoke",
    vocabulary=256 + 44,
    length=32,
    batch=8,
    teacher=Shape(32, 2, 2),
    student=Shape(16, 1, 2),
    teacher_batch=8,
    teacher_steps=60,
    warm_steps=24,
    steps=24,
    evaluations=4,
    train_blocks=128,
    curve_blocks=16,
    test_blocks=32,
    losses=("hard", "classic", "fkl", "rkl", "tvd", "w1", "fkl+w1", "w1+hard", "fkl/16", "sinkhorn/16"),
    workers=1,
)
CPU = Profile(
    name="cpu",
    seeds=tuple(range(10)),
    pilots=(
        *("classic", "symmetric", "jsd.1", "jsd.9", "srkl", "akl", "w1-line"),
        *("fkl/16", "w1-topk/16", "sinkhorn/16", "sinkd/16"),
    ),
    learning_rates=(5e-4, 1e-3, 2e-3, 4e-3, 8e-3),
)
GPU = Profile(
    name="gpu",
    vocabulary=8192,
    length=256,
    batch=64,
    teacher=Shape(512, 8, 8),
    student=Shape(192, 4, 4),
    teacher_batch=64,
    teacher_steps=2000,
    teacher_learning_rate=1e-3,
    warm_steps=1000,
    warm_learning_rate=2e-3,
    steps=3000,
    evaluations=20,
    train_blocks=8192,
    curve_blocks=64,
    test_blocks=512,
    seeds=tuple(range(10)),
    learning_rates=(5e-4, 1e-3, 2e-3, 4e-3),
    cache_teacher=False,
    precision="bf16",
    workers=1,
)
PROFILES = {profile.name: profile for profile in (SMOKE, CPU, GPU)}


def get(name: str, **changes: Any) -> Profile:
    """The profile called `name`, with some fields changed.

    Raises
    ------
    ValueError
        If the name is unknown, or a change does not fit.
    """
    if name not in PROFILES:
        close = difflib.get_close_matches(name, PROFILES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"no profile is called {name!r}{hint} Known: {', '.join(PROFILES)}")
    return replace(PROFILES[name], **changes)
