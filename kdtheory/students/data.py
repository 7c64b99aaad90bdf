"""What the students see: fixed training and held-out blocks, batches by seed, the teacher's distributions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from kdtheory.students.profiles import Profile
from kdtheory.students.tasks import Workspace
from kdtheory.students.teacher import CachedTeacher, LiveTeacher, Teacher
from kdtheory.students.token_metrics import TokenMetrics
from kdtheory.students.tokens import Blocks, Split

_SELECTION = 20_240_601  # seed of the choice of blocks: one choice for all profiles, seeds and losses
STREAMS = {"teacher": 1, "warm": 2, "student": 3}


@lru_cache(maxsize=4)
def _order(stream: int, seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([stream, seed, epoch]).permutation(count)


def batch_rows(kind: str, seed: int, step: int, *, batch: int, count: int) -> np.ndarray:
    """Rows of the batch at a step: a function of its arguments alone, hence the same for every loss and after a resume.

    Parameters
    ----------
    kind : {"teacher", "warm", "student"}
        Each kind has an order of its own.
    seed, step, batch, count : int
        Training seed, optimiser step, blocks per batch, blocks in all.

    Raises
    ------
    ValueError
        If a batch has more blocks than there are.
    """
    if batch > count:
        raise ValueError(f"batch = {batch} is larger than the {count} training blocks: lower it or give more text")
    epoch, position = divmod(step, count // batch)
    return _order(STREAMS[kind], seed, epoch, count)[position * batch : (position + 1) * batch]


def select(blocks: Blocks, profile: Profile) -> dict[str, Split]:
    """The fixed blocks of the students: ``train``, ``curve`` (validation split) and ``test``.

    Raises
    ------
    ValueError
        If the corpus has fewer blocks than the profile asks for.
    """
    wanted = {
        "train": (blocks.train, profile.train_blocks),
        "curve": (blocks.validation, profile.curve_blocks),
        "test": (blocks.test, profile.test_blocks),
    }
    chosen = {}
    for index, (name, (source, size)) in enumerate(wanted.items()):
        if len(source) < size:
            raise ValueError(
                f"{name}_blocks = {size}, but the corpus has only {len(source)} blocks of {profile.length} tokens "
                "there: give more text or a smaller profile"
            )
        chosen[name] = source.part(selected(index, len(source), size))
    return chosen


def selected(index: int, available: int, size: int) -> np.ndarray:
    """Numbers of the blocks taken out of the index-th of train, curve and test, in their order."""
    return np.sort(np.random.default_rng([_SELECTION, index]).permutation(available)[:size])


@dataclass(frozen=True)
class Lesson:
    """Blocks and teachers of the three sets, and the metrics between tokens."""

    blocks: dict[str, Split]
    teachers: dict[str, Teacher]
    metrics: TokenMetrics

    @classmethod
    def open(cls, workspace: Workspace, blocks: Blocks, device: torch.device) -> Lesson:
        """Open the stored teacher, or load the teacher model where the profile does not cache it.

        Raises
        ------
        StoredFileError
            If the teacher or its stored log-probabilities are missing or damaged.
        """
        profile, chosen = workspace.profile, select(blocks, workspace.profile)
        body = workspace.teacher()
        metrics = TokenMetrics(body.head()[0].detach().double())
        if profile.cache_teacher:
            teachers: dict[str, Teacher] = {
                split: CachedTeacher(workspace.cache_path(split), key=workspace.cache_key(split)) for split in chosen
            }
            return cls(chosen, teachers, metrics)
        return cls(chosen, {split: LiveTeacher(body, part, device) for split, part in chosen.items()}, metrics)
