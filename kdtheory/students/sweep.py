"""Many tasks on a few processes: `submitit` starts them here or on a Slurm cluster, files tell them apart.

Workers take tasks from one list; a task is taken by creating its claim file, so that nobody else takes it. What a
worker leaves behind (a result, a checkpoint) is the same as what a single process would leave. The supervisor watches
progress files and the workers themselves: a worker that dies is reported with its log, never waited for.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from kdtheory.students import store
from kdtheory.students.profiles import Profile
from kdtheory.students.progress import Bars
from kdtheory.students.tasks import Task, Workspace

_HEARTBEAT = 1.0  # seconds between progress files, and between looks at them
_TIMEOUT_MINUTES = 7 * 24 * 60
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


class WorkerError(RuntimeError):
    """A worker died or a task failed; finished tasks are kept, and running the same command again continues."""


@dataclass(frozen=True)
class Cluster:
    """Where the workers run.

    Attributes
    ----------
    name : {"local", "slurm"}
        Executor of `submitit`.
    parameters : dict
        Passed to ``AutoExecutor.update_parameters``, e.g. ``{"slurm_partition": "gpu", "gpus_per_node": 1}``.
    """

    name: str = "local"
    parameters: dict[str, Any] = field(default_factory=dict)


def run(tasks: Sequence[Task], workspace: Workspace, *, stage: str, bars: Bars, cluster: Cluster | None = None) -> None:
    """Run the tasks that are not finished.

    Parameters
    ----------
    tasks : sequence of Task
        In the order in which workers take them.
    workspace : Workspace
        With the corpus tokenised and, for students, the teacher stored.
    stage : str
        Label of the progress bar.
    bars : Bars
        Where progress goes.
    cluster : Cluster, optional
        Default: processes on this machine. A profile with ``workers=0`` runs everything in this process.

    Raises
    ------
    WorkerError
        If a worker died or a task failed; the message names tasks and logs.
    """
    todo = [task for task in tasks if not workspace.finished(task)]
    if not todo:
        return
    total = sum(_steps(task, workspace.profile) for task in todo)
    if workspace.profile.workers == 0:
        _in_process(todo, workspace, stage, bars, total)
    else:
        _submitted(todo, workspace, stage, bars, total, cluster or Cluster())
    if missing := [task.name for task in todo if not workspace.finished(task)]:
        raise WorkerError(
            f"{len(missing)} of {len(todo)} tasks of stage {stage!r} have no result: {', '.join(missing)}"
        )


def work(todo: list[Task], workspace: Workspace, board: Path, slot: int, owner: int | None) -> int:
    """A worker: take tasks until none is left; returns how many it finished. Runs in a process of its own."""
    import torch

    torch.set_num_threads(1)  # measured: one thread per process is fastest, and results depend on the thread count
    done = 0
    for task in todo:
        if not _claim(board / f"{task.name}.claim", slot):
            continue
        execute(task, workspace, _Heartbeat(board, slot, owner))
        (board / f"{task.name}.done").touch()
        done += 1
    return done


def execute(task: Task, workspace: Workspace, report: Any) -> dict[str, Any] | None:
    """Train one task in this process, from what the earlier stages stored."""
    from kdtheory.students.train import Trainer

    blocks = _blocks(workspace)
    lesson = _lesson(workspace) if task.kind == "student" else None
    return Trainer(task, workspace, blocks, lesson, report).run()


@lru_cache(maxsize=1)
def _blocks(workspace: Workspace) -> Any:
    """Opened once per process, for all its tasks."""
    from kdtheory.students import tokens

    return tokens.reopen(workspace.folder / "tokens", key=workspace.tokens)


@lru_cache(maxsize=1)
def _lesson(workspace: Workspace) -> Any:
    from kdtheory.students import machine
    from kdtheory.students.data import Lesson

    return Lesson.open(workspace, _blocks(workspace), machine.device())


class _Heartbeat:
    """Writes where a worker stands, and stops the worker when the process that started it is gone."""

    def __init__(self, board: Path, slot: int, owner: int | None) -> None:
        self._path, self._owner, self._last = board / f"worker-{slot}.json", owner, 0.0

    def __call__(self, name: str, step: int, steps: int) -> None:
        if time.monotonic() - self._last < _HEARTBEAT:
            return
        self._last = time.monotonic()
        store.write_bytes(self._path, json.dumps({"task": name, "step": step, "steps": steps}).encode())
        if self._owner is not None and not _alive(self._owner):
            raise WorkerError(f"process {self._owner}, which started this worker, is gone; stopping at {name}")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _claim(path: Path, slot: int) -> bool:
    try:
        with path.open("x") as stream:
            stream.write(str(slot))
    except FileExistsError:
        return False
    return True


def _steps(task: Task, profile: Profile) -> int:
    return {"teacher": profile.teacher_steps, "warm": profile.warm_steps, "student": profile.steps}[task.kind]


def _in_process(todo: Sequence[Task], workspace: Workspace, stage: str, bars: Bars, total: int) -> None:
    before = 0
    with one_thread():  # as in a worker, so that the numbers are the same
        for task in todo:
            execute(task, workspace, lambda name, step, steps, offset=before: bars.update(stage, offset + step, total))
            before += _steps(task, workspace.profile)
            bars.update(stage, before, total)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: results depend on the number of threads, and one is fastest at this size."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _submitted(todo: list[Task], workspace: Workspace, stage: str, bars: Bars, total: int, cluster: Cluster) -> None:
    logs = workspace.folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    board = Path(tempfile.mkdtemp(prefix="board-", dir=workspace.folder))
    count = min(workspace.profile.workers, len(todo))
    owner = os.getpid() if cluster.name == "local" else None
    jobs: list[Any] = []
    try:
        executor = _executor(logs, cluster)
        with _environment(_ONE_THREAD):
            jobs = [executor.submit(work, todo, workspace, board, slot, owner) for slot in range(count)]
        _watch(jobs, todo, workspace, board, stage, bars, total)
    finally:
        for job in jobs:
            if not job.done():
                job.cancel()
        shutil.rmtree(board, ignore_errors=True)


def _executor(logs: Path, cluster: Cluster) -> Any:
    import submitit
    import torch

    executor = submitit.AutoExecutor(folder=logs / "%j", cluster=cluster.name)
    # submitit's local executor hides every GPU that is not asked for
    defaults = {"timeout_min": _TIMEOUT_MINUTES, "cpus_per_task": 1, "gpus_per_node": torch.cuda.device_count()}
    executor.update_parameters(**{**defaults, **cluster.parameters})
    return executor


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _watch(
    jobs: list[Any], todo: list[Task], workspace: Workspace, board: Path, stage: str, bars: Bars, total: int
) -> None:
    """Until every worker has ended: move the bar. Then say which of them failed, and where its log is."""
    sizes = {task.name: _steps(task, workspace.profile) for task in todo}
    while True:
        ended = all(job.done() for job in jobs)
        finished = {name for name in sizes if (board / f"{name}.done").exists()}
        steps = sum(sizes[name] for name in finished)
        for path in board.glob("worker-*.json"):
            with contextlib.suppress(ValueError, OSError):  # a file being replaced is read at the next look
                at = json.loads(path.read_text())
                steps += at["step"] if at["task"] not in finished else 0
        bars.update(stage, steps, total)
        if ended:
            break
        time.sleep(_HEARTBEAT / 4)
    failures = [text for slot, job in enumerate(jobs) if (text := _failure(job, slot, board))]
    if failures:
        left = len(todo) - len(finished)
        raise WorkerError(
            f"stage {stage!r}: {len(failures)} of {len(jobs)} workers failed, {left} of {len(todo)} tasks are left\n"
            + "\n".join(failures)
            + "\nFinished tasks and checkpoints are kept: run the same command again to continue."
        )


def _failure(job: Any, slot: int, board: Path) -> str:
    error = _exception(job)
    if error is None:
        return ""
    at = board / f"worker-{slot}.json"
    place = json.loads(at.read_text())["task"] if at.exists() else "before its first step"
    # submitit puts the worker's traceback between dashed lines; a worker that was killed has none
    parts = re.split(r"\n-{10,}\n", str(error))
    cause = parts[1].strip().splitlines()[-1] if "Traceback" in str(error) else " ".join(parts[0].split())
    return f"  worker {slot} ({place}): {cause}\n    log: {job.paths.stderr}"


def _exception(job: Any) -> Exception | None:
    """What a worker ended with; a result that is late on a shared file system is waited for, but not for ever."""
    try:
        return job.exception()
    except Exception as error:  # submitit raises its own kinds for a worker that left no result
        return error
