"""What a controlled experiment is made of. All of it is fixed before the runs, and all of it goes into their keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from kdtheory.students.store import digest

if TYPE_CHECKING:
    import pandas as pd
    import torch

Decide = Callable[["pd.DataFrame", "pd.DataFrame"], dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """A condition and a loss: one tensor program for all seeds (of teacher, contexts and initial weights alike)."""

    condition: str
    loss: str

    @property
    def name(self) -> str:
        """A file-system name, e.g. ``gap-3_fkl+w1``."""
        return f"{self.condition}_{self.loss}"


@dataclass(frozen=True)
class Outcome:
    """What the training of one seed leaves.

    Attributes
    ----------
    metrics : dict of str to float
        One number each; NaN where there is none (a censored time says so in a metric of its own).
    curve : list of dict
        ``step`` (from 0), ``objective`` (the mean of the loss that is minimised), and other metrics at that step.
    """

    metrics: dict[str, float]
    curve: list[dict[str, float]]


Simulate = Callable[[Any, str, tuple[int, ...], "torch.device"], list[Outcome]]
"""(settings, loss, seeds, device) -> one outcome per seed, in their order; deterministic on one machine."""


def one_by_one(simulate: Callable[[Any, str, int], Outcome]) -> Simulate:
    """For an experiment that trains seed after seed, on the CPU whatever the device."""
    return lambda settings, loss, seeds, _: [simulate(settings, loss, seed) for seed in seeds]


@dataclass(frozen=True)
class Condition:
    """Settings (a frozen dataclass of plain values) and the losses that are run under them."""

    settings: Any
    losses: tuple[str, ...]


@dataclass(frozen=True)
class Profile:
    """A size of an experiment: its conditions by name, its seeds, and the torch device it runs on."""

    name: str
    conditions: Mapping[str, Condition]
    seeds: tuple[int, ...] = tuple(range(10))
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds = {self.seeds}: give at least one, each once")
        if not all(0 <= seed < 2**63 for seed in self.seeds):
            raise ValueError(f"seeds = {self.seeds}: whole numbers from 0 to 2^63 - 1")

    def restricted(self, seeds: tuple[int, ...], losses: tuple[str, ...]) -> Profile:
        """The same with other seeds and only these losses; empty means unchanged.

        Raises
        ------
        ValueError
            If a loss is in no condition; the message lists those that are.
        """
        known = self.losses()
        if unknown := [loss for loss in losses if loss not in known]:
            raise ValueError(f"losses: {unknown[0]!r} is unknown here; known: {', '.join(known)}")
        wanted = losses or tuple(known)
        kept = {
            name: replace(item, losses=tuple(loss for loss in item.losses if loss in wanted))
            for name, item in self.conditions.items()
        }
        kept = {name: item for name, item in kept.items() if item.losses}
        return replace(self, conditions=kept, seeds=tuple(seeds) or self.seeds)

    def losses(self) -> list[str]:
        """Every loss of some condition, once."""
        return list(dict.fromkeys(loss for item in self.conditions.values() for loss in item.losses))

    def tasks(self) -> list[Task]:
        """All of them, condition by condition."""
        return [Task(name, loss) for name, item in self.conditions.items() for loss in item.losses]

    def settings(self) -> dict[str, Any]:
        """Everything that the numbers depend on, as plain values."""
        return {name: {**asdict(item.settings), "losses": list(item.losses)} for name, item in self.conditions.items()}


@dataclass(frozen=True)
class Experiment:
    """A registered experiment.

    Attributes
    ----------
    id : str
        Name on the command line and of the folder of its stored runs.
    profiles : dict
        Sizes by name: ``smoke`` (seconds), ``cpu`` (what is published), and for most ``gpu`` (more seeds, larger).
    simulate : callable
        See `Simulate`. A seed's numbers depend on the other seeds by rounding at most.
    decide : callable
        (results, curves) -> decisions; `results` has a row per task, `curves` one per task and step.
    rule : dict
        The numbers of the decision rules, stored with the decisions.
    version : int
        Raised when `simulate` changes, so that stored work is not taken for its result.
    """

    id: str
    profiles: Mapping[str, Profile]
    simulate: Simulate
    decide: Decide
    rule: Mapping[str, float]
    version: int = 1

    def profile(self, name: str) -> Profile:
        """The profile called `name`; ValueError if there is none."""
        if name not in self.profiles:
            raise ValueError(f"{self.id} has no profile {name!r}; there is: {', '.join(self.profiles)}")
        return self.profiles[name]

    def key(self, profile: Profile, task: Task) -> str:
        """Sha256 over everything a task's numbers depend on."""
        from importlib import metadata

        settings = asdict(profile.conditions[task.condition].settings)
        about = [self.id, self.version, settings, task.loss, list(profile.seeds), profile.device]
        return digest([*about, metadata.version("torch")])
