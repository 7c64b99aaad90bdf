"""Workers: the same numbers as one process, one task for one worker, and a death that is reported."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from kdtheory.students import profiles, store, sweep
from kdtheory.students.progress import Bars
from kdtheory.students.tasks import Task, Workspace

TASKS = [Task("student", seed, "fkl", 0.01) for seed in (0, 1)]


class Recorder(Bars):
    def __init__(self) -> None:
        self.at: list[tuple[str, float, float]] = []

    def update(self, stage: str, done: float, total: float) -> None:
        self.at.append((stage, done, total))


def with_workers(workspace: Workspace, workers: int) -> Workspace:
    return Workspace(workspace.folder, replace(workspace.profile, workers=workers), workspace.tokens)


def test_two_workers_agree_with_one_process(workspace):
    """Through submitit's local executor; metrics are equal to the last bit, because both use one thread."""
    bars = Recorder()
    sweep.run(TASKS, with_workers(workspace, 2), stage="students", bars=bars)
    apart = [workspace.result(task)["metrics"] for task in TASKS]
    assert bars.at[-1] == ("students", 16, 16)
    assert not list(workspace.folder.glob("board-*"))
    for task in TASKS:
        workspace.path(task, ".json").unlink()
    sweep.run(TASKS, with_workers(workspace, 0), stage="students", bars=Bars())
    assert [workspace.result(task)["metrics"] for task in TASKS] == apart
    sweep.run(TASKS, with_workers(workspace, 2), stage="students", bars=(idle := Recorder()))
    assert idle.at == []


def test_a_failing_task_is_reported_with_its_log(workspace):
    damaged = workspace.path(workspace.warm_task(0), ".weights")
    damaged.write_bytes(b"nothing")
    with pytest.raises(sweep.WorkerError, match=r"1 of 1 workers failed, 1 of 1 tasks are left") as caught:
        sweep.run(TASKS[:1], with_workers(workspace, 1), stage="students", bars=Bars())
    assert damaged.name in str(caught.value)
    assert "log: " in str(caught.value)
    assert "run the same command again" in str(caught.value)


def test_a_killed_worker_is_reported_and_not_waited_for(workspace, tmp_path):
    executor = sweep._executor(tmp_path / "logs", sweep.Cluster())
    jobs = [executor.submit(os._exit, 9)]
    board = tmp_path / "board"
    board.mkdir()
    store.write_bytes(board / "worker-0.json", b'{"task": "student-fkl-s0-lr0.01", "step": 3, "steps": 8}')
    with pytest.raises(sweep.WorkerError, match=r"worker 0 \(student-fkl-s0-lr0.01\): .*not produced any output"):
        sweep._watch(jobs, TASKS, workspace, board, "students", Bars(), 16)


def test_names_of_tasks_are_file_names(tmp_path):
    """A worker claims a task by a file of its name; a slash in the loss would make that a folder."""
    names = [Task("student", 0, loss, 0.01).name for loss in profiles.LOSSES]
    assert all(sweep._claim(tmp_path / f"{name}.claim", 0) for name in names)
    assert len(list(tmp_path.iterdir())) == len(profiles.LOSSES)


def test_a_task_is_taken_once(tmp_path):
    assert sweep._claim(tmp_path / "t.claim", 0)
    assert not sweep._claim(tmp_path / "t.claim", 1)


def test_an_orphan_stops(tmp_path, monkeypatch):
    """A worker whose supervisor is gone must not go on in the background; one that has it goes on."""
    monkeypatch.setattr(sweep, "_HEARTBEAT", 0.0)
    sweep._Heartbeat(tmp_path, 0, os.getpid())("student", 1, 8)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(sweep.WorkerError, match="gone; stopping at student"):
        sweep._Heartbeat(tmp_path, 0, child)("student", 1, 8)


def test_a_missing_result_is_an_error(workspace, monkeypatch):
    monkeypatch.setattr(sweep, "execute", lambda *arguments: None)
    with pytest.raises(sweep.WorkerError, match="2 of 2 tasks of stage 'students' have no result"):
        sweep.run(TASKS, with_workers(workspace, 0), stage="students", bars=Bars())
