"""The experiment's protocol on anyone's own models: a trained teacher, a trained student, and text or instructions."""

from __future__ import annotations

import itertools
import math
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path

from kdtheory.students import experiment, statistics, store, tokens
from kdtheory.students.experiment import Prepared
from kdtheory.students.machine import TrainingMemoryError, out_of_memory
from kdtheory.students.pretrained import instructions
from kdtheory.students.pretrained.pair import Pair
from kdtheory.students.profiles import Profile
from kdtheory.students.progress import bars
from kdtheory.students.published import Runs
from kdtheory.students.sweep import Cluster
from kdtheory.students.tasks import Task, Workspace

HELD_OUT = 512
"""Blocks of the test split at most; the learning curves use half as many of the validation split."""


@dataclass(frozen=True)
class Request:
    """What to compare.

    Attributes
    ----------
    teacher, student : str
        Folders written by `save_pretrained`, or names on the Hugging Face Hub.
    data : str
        As in `pretrained.instructions.load`: a text, a folder, a JSONL of instructions, a data set.
    losses : tuple of str
        Of `profiles.LOSSES`, forward KL among them: every loss is compared with it.
    seeds : tuple of int
        Of the order of the batches. Ten or more make decisions verdicts, fewer a pilot.
    learning_rates : tuple of float
        The grid that each loss's rate is chosen from, by its own objective on validation text.
    length, batch, accumulate : int
        Labels of a block; blocks per step over all processes; parts that a process takes its share in.
    steps, warm_steps : int
        Optimiser steps with each loss, and of hard-label training before them, shared by the losses of a seed.
    precision : {"no", "bf16"}
    workers : int
        Processes of the sweep; 0 trains in this one.
    """

    teacher: str
    student: str
    data: str
    losses: tuple[str, ...] = ("fkl", "rkl", "w1")
    seeds: tuple[int, ...] = tuple(range(10))
    learning_rates: tuple[float, ...] = (1e-5, 3e-5, 1e-4)
    length: int = 256
    batch: int = 16
    accumulate: int = 1
    steps: int = 480
    warm_steps: int = 0
    precision: str = "no"
    workers: int = 0


def run(
    request: Request, out: Path, *, progress: bool = True, cluster: Cluster | None = None, keep: bool = False
) -> Runs:
    """Train one student per loss and seed, compare them, and write the files of a stored run.

    Parameters
    ----------
    request : Request
        Models, data and sizes.
    out : Path
        Folder; a run there is continued.
    progress : bool
        Bars with the time left, on standard error.
    cluster : Cluster, optional
        Where the sweeps run; default this machine.
    keep : bool
        Also write every student to ``OUT/models``, by `save_pretrained`: to be used, or to teach the next.

    Returns
    -------
    Runs
        Results, curves, decisions and provenance, as stored.

    Raises
    ------
    ValueError
        If the request makes no sense (`check`), or models, tokenizers or data do not fit together; the message says
        what to do.
    StoredFileError
        If a working file is damaged or belongs to another configuration; the message names it.
    TrainingMemoryError, WorkerError
        If memory does not suffice, here or in a worker; finished work is kept.
    """
    check(request)
    try:
        with bars(progress) as shown:
            shown.update("models and data", 0, 1)
            prepared = prepare(request, out / "work")
            shown.update("models and data", 1, 1)
            experiment.pretrain(prepared, bars=shown, cluster=cluster)
            runs = experiment.train(prepared, out, bars=shown, cluster=cluster)
        if keep:
            _save_students(prepared.workspace, runs, out / "models")
        return runs
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, TrainingMemoryError) or not out_of_memory(error):
            raise
        raise TrainingMemoryError(
            "out of memory outside of training, where the teacher is loaded or evaluated: take fewer workers (now "
            f"{request.workers}), smaller models or a shorter length (now {request.length})"
        ) from error


def _save_students(workspace: Workspace, runs: Runs, folder: Path) -> None:
    """One folder per loss and seed, with weights, configuration and tokenizer."""
    columns = (runs.results[name].tolist() for name in ("seed", "loss", "learning_rate"))
    for seed, loss, rate in zip(*columns, strict=True):
        task = Task("student", seed, loss, rate)
        student = workspace.pair.student()
        student.load_state_dict(workspace.weights(task))
        name = f"{task.loss.replace('/', '-')}-s{task.seed}"
        for part in (student, workspace.pair.tokenizer):
            part.save_pretrained(folder / name)


def check(request: Request) -> None:
    """Whether the request makes sense, before anything is read.

    Raises
    ------
    ValueError
        If a loss is unknown or has nothing to be compared with, there are no seeds or rates, or sizes do not fit; the
        message names the argument.
    """
    rates, losses = request.learning_rates, request.losses
    if not (rates and all(0 < rate < math.inf for rate in rates) and len(set(rates)) == len(rates)):
        raise ValueError(f"learning_rates = {rates}: give at least one, all finite and above 0, each once")
    if request.precision not in ("no", "bf16"):
        raise ValueError(f"precision = {request.precision!r}: choose no or bf16")
    if request.length < 2:
        raise ValueError(f"length = {request.length}: a block needs at least 2 tokens")
    if min(request.steps, 1 + request.warm_steps) < 1:
        raise ValueError(f"steps = {request.steps}, warm_steps = {request.warm_steps}: at least 4 and 0")
    _profile(request, vocabulary=1, sizes=(request.batch, 1, 1), corpus=request.data)
    reference = statistics.REFERENCE
    if len(set(losses)) != len(losses) or len(losses) < 2 or reference not in losses:
        raise ValueError(
            f"losses = {','.join(losses)}: give {reference}, which every loss is compared with, and at least one more, "
            "each once"
        )


def prepare(request: Request, folder: Path) -> Prepared:
    """Check models, tokenizers and data, cut the data into blocks and store them."""
    pair = Pair.load(request.teacher, request.student)
    if pair.positions is not None and request.length > pair.positions:
        raise ValueError(f"length = {request.length}, but the pair has {pair.positions} positions: take a shorter one")
    data = instructions.load(request.data, pair.tokenizer, request.length)
    sizes = (len(data.train), min(len(data.validation), HELD_OUT // 2), min(len(data.test), HELD_OUT))
    # hashes in the name: rates that were chosen on other data, or for other models in these folders, are not used
    origin = f"{request.data}, sha256 {data.sha256[:12]}; models' sha256 {pair.fingerprint[:12]}"
    profile = _profile(request, pair.vocabulary, sizes, origin)
    key = store.digest(["pair", pair.fingerprint, data.sha256, request.length, pair.vocabulary])
    blocks = tokens.Blocks(
        data.train, data.validation, data.test, prompts=tuple(data.prompts), references=tuple(data.references)
    )
    tokens.keep(blocks, folder / "tokens", key=key)
    workspace = Workspace(folder, profile, key)
    return Prepared(workspace, data.sha256, tokens.reopen(folder / "tokens", key=key), command(request))


def _profile(request: Request, vocabulary: int, sizes: tuple[int, int, int], corpus: str) -> Profile:
    common = asdict(request)
    del common["data"]
    train, curve, test = sizes
    if train < request.batch:
        raise ValueError(
            f"batch = {request.batch}, but the data have only {train} training blocks of {request.length} tokens: "
            "lower batch or length, or give more data"
        )
    return Profile(
        name="distill",
        corpus=corpus,
        vocabulary=vocabulary,
        evaluations=_evaluations(request.steps),
        train_blocks=train,
        curve_blocks=curve,
        test_blocks=test,
        # the same whatever the number of seeds, so that more of them continue a run
        tuning_seed=next(seed for seed in itertools.count(1000) if seed not in request.seeds),
        cache_teacher=False,
        **common,
    )


def _evaluations(steps: int) -> int:
    """Points of a curve: a multiple of four that divides the steps, about a dozen."""
    for count in (12, 8, 16, 20, 4):
        if steps % count == 0:
            return count
    raise ValueError(f"steps = {steps}: a curve has a point at three quarters of the steps; take a multiple of 4")


def command(request: Request) -> str:
    """The command line that repeats a request."""
    words = {
        "teacher": request.teacher,
        "student": request.student,
        "data": request.data,
        "loss": ",".join(request.losses),
        "seeds": "".join(f"{seed}," for seed in request.seeds),  # a single number would be how many
        "rates": ",".join(map(repr, request.learning_rates)),
        "length": request.length,
        "batch": request.batch,
        "accumulate": request.accumulate,
        "steps": request.steps,
        "warm-steps": request.warm_steps,
        "precision": request.precision,
    }
    return " ".join(["kdtheory distill", *(f"--{name} {shlex.quote(str(value))}" for name, value in words.items())])
