"""The experiment `students`, stage by stage: corpus, tokens, teacher and warm starts, students, statistics.

Each stage reads what the earlier ones stored and is skipped where its result is up to date, so that a killed run
continues and a second run does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kdtheory.students import corpus, machine, provenance, published, sweep, tokens, tuning
from kdtheory.students.data import select
from kdtheory.students.evaluate import teacher_facts
from kdtheory.students.profiles import Profile
from kdtheory.students.progress import Bars, bars
from kdtheory.students.published import Runs
from kdtheory.students.sweep import Cluster
from kdtheory.students.tasks import Task, Workspace
from kdtheory.students.teacher import CachedTeacher, LiveTeacher, Teacher, write_cache


@dataclass(frozen=True)
class Prepared:
    """What the stages before the students leave: workspace, corpus sha256, token blocks, the command for anyone."""

    workspace: Workspace
    corpus_sha256: str
    blocks: tokens.Blocks
    command: str


def run(
    profile: Profile,
    out: Path,
    *,
    seeds: Sequence[int] | None = None,
    losses: Sequence[str] | None = None,
    resume: bool = True,
    progress: bool = True,
    cluster: Cluster | None = None,
    tune: bool = False,
) -> Runs:
    """Run the experiment, or what is left of it.

    Parameters
    ----------
    profile : Profile
        Sizes; `kdtheory.students.profiles.get("cpu")`.
    out : Path
        Folder for ``results.csv``, ``curves.csv``, ``decisions.json``, ``provenance.json`` and ``manifest.json``;
        working files go to its subfolder ``work``.
    seeds, losses : sequence, optional
        Instead of those of the profile.
    resume : bool
        False trains every student anew; corpus, tokens, teacher and warm starts are kept.
    progress : bool
        Bars with the time left, on standard error.
    cluster : Cluster, optional
        Where the sweeps run; default this machine.
    tune : bool
        Choose the learning rates here and now, even if stored ones fit.

    Returns
    -------
    Runs
        Results, curves, decisions and provenance, as stored.

    Raises
    ------
    ValueError
        If an argument does not fit, or the corpus is too small.
    StoredFileError
        If a working file is damaged or belongs to another configuration; the message names it.
    WorkerError
        If a worker died; finished work is kept.
    """
    profile = replace(profile, seeds=tuple(seeds or profile.seeds), losses=tuple(losses or profile.losses))
    with bars(progress) as shown:
        prepared = prepare(profile, out / "work", bars=shown, cluster=cluster)
        return train(prepared, out, bars=shown, cluster=cluster, resume=resume, tune=tune)


def train(
    prepared: Prepared,
    out: Path,
    *,
    bars: Bars,
    cluster: Cluster | None = None,
    resume: bool = True,
    tune: bool = False,
) -> Runs:
    """Learning rates, students, and the files of the stored run; see `run`."""
    workspace, profile = prepared.workspace, prepared.workspace.profile
    rates = tuning.rates(workspace, bars=bars, cluster=cluster, anew=tune)
    todo = [
        Task("student", seed, loss, rates.chosen[loss])
        for seed in profile.seeds
        for loss in profile.losses
        if seed in profile.seeds_of(loss)
    ]
    if not resume:
        _forget(workspace, todo)
    sweep.run(todo, workspace, stage="students", bars=bars, cluster=cluster)
    return publish(prepared, todo, rates, out)


def prepare(profile: Profile, folder: Path, *, bars: Bars, cluster: Cluster | None = None) -> Prepared:
    """Corpus, tokens, teacher and warm starts, and the teacher's stored log-probabilities."""
    bars.update("corpus and tokens", 0, 1)
    prepared = begin(profile, folder)
    select(prepared.blocks, profile)  # a corpus that is too small is an error now, not after the teacher
    bars.update("corpus and tokens", 1, 1)
    pretrain(prepared, bars=bars, cluster=cluster)
    return prepared


def begin(profile: Profile, folder: Path) -> Prepared:
    """Corpus and tokens alone: what a folder's files belong to."""
    source = corpus.load(profile.corpus)
    blocks, _, key = tokens.prepare(
        source, vocabulary=profile.vocabulary, length=profile.length, folder=folder / "tokens"
    )
    return Prepared(Workspace(folder, profile, key), source.sha256, blocks, provenance.repeated(profile))


def pretrain(prepared: Prepared, *, bars: Bars, cluster: Cluster | None = None) -> None:
    """Teacher and warm starts, and the teacher's stored log-probabilities."""
    workspace = prepared.workspace
    workspace.save()
    sweep.run(workspace.pretraining(), workspace, stage="teacher, warm starts", bars=bars, cluster=cluster)
    if workspace.profile.cache_teacher:
        _store_teacher(workspace, prepared.blocks, bars)


def _store_teacher(workspace: Workspace, blocks: tokens.Blocks, bars: Bars) -> None:
    """Log-probabilities of the training blocks in half precision, of the held-out ones in single precision."""
    for split, chosen in select(blocks, workspace.profile).items():
        path, key = workspace.cache_path(split), workspace.cache_key(split)
        stage = f"teacher on {split} text"
        if not path.with_suffix(".json").exists():
            dtype = "float16" if split == "train" else "float32"
            report = partial(bars.update, stage)
            write_cache(workspace.teacher(), chosen, path, key=key, dtype=dtype, device=machine.device(), report=report)
        CachedTeacher(path, key=key, verify=True)


def _forget(workspace: Workspace, todo: Sequence[Task]) -> None:
    for task in todo:
        for suffix in (".json", ".weights", ".checkpoint"):
            workspace.path(task, suffix).unlink(missing_ok=True)


def publish(prepared: Prepared, todo: Sequence[Task], rates: tuning.Rates, out: Path) -> Runs:
    """Collect the finished students, compare them, and write the five files of a stored run."""
    workspace, profile = prepared.workspace, prepared.workspace.profile
    facts = [workspace.result(task) for task in todo]
    origin = provenance.collect(profile, prepared.corpus_sha256, rates.source, facts)
    origin |= {"command": prepared.command, "bytes_per_token": prepared.blocks.bytes_per_token}
    origin["teacher"] = _about_teacher(workspace, prepared.blocks)
    return published.save(out, facts, origin)


def _about_teacher(workspace: Workspace, blocks: tokens.Blocks) -> dict[str, Any]:
    """Size and training time of the teacher, its cross-entropy and entropy on the test blocks."""
    test = select(blocks, workspace.profile)["test"]
    if workspace.profile.cache_teacher:
        teacher: Teacher = CachedTeacher(workspace.cache_path("test"), key=workspace.cache_key("test"))
    else:
        teacher = LiveTeacher(workspace.teacher(), test, machine.device())
    facts: dict[str, Any] = teacher_facts(teacher, test)
    warm = [workspace.result(task) for task in workspace.warm_tasks(workspace.profile.seeds)]
    facts["warm_start_seconds"] = [float(np.round(run["train_seconds"]["wall"], 1)) for run in warm]
    if workspace.profile.pretrained:
        return {**facts, "pair_sha256": workspace.pair.fingerprint}
    trained = workspace.result(workspace.teacher_task())
    return {
        **facts,
        "parameters": trained["parameters"],
        "train_seconds": trained["train_seconds"],
        "weights_sha256": trained["weights_sha256"],
    }
