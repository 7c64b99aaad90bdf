"""Training resumes bit for bit, shares what it must share, and never starts from a damaged file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdtheory.students import models, store, sweep
from kdtheory.students.data import Lesson
from kdtheory.students.tasks import Task, Workspace
from kdtheory.students.train import Trainer

FKL = Task("student", 0, "fkl", 0.01)


def trainer(task: Task, workspace: Workspace, prepared, seen: list | None = None) -> Trainer:
    lesson = Lesson.open(workspace, prepared.blocks, torch.device("cpu")) if task.kind == "student" else None
    report = (lambda *at: seen.append(at)) if seen is not None else (lambda *at: None)
    return Trainer(task, workspace, prepared.blocks, lesson, report)


@pytest.mark.parametrize("task", [FKL, replace(FKL, loss="w1"), Task("warm", 9, "hard", 0.01)], ids=str)
def test_resume_is_bit_exact(task, workspace, prepared, tmp_path):
    """Stopped after half of the steps and begun again in a new trainer, against a run in one piece."""
    whole = trainer(task, workspace, prepared).run()
    expected = workspace.weights(task)
    workspace.path(task, ".json").unlink()
    workspace.path(task, ".weights").unlink()

    assert trainer(task, workspace, prepared).run(stop_at=4) is None
    assert workspace.path(task, ".checkpoint").exists()
    assert not workspace.finished(task)
    seen: list = []
    resumed = trainer(task, workspace, prepared, seen).run()
    assert [step for _, step, _ in seen] == [5, 6, 7, 8]
    for name, weight in workspace.weights(task).items():
        assert torch.equal(weight, expected[name]), name
    assert resumed.get("metrics") == whole.get("metrics")
    unclocked = [
        [{name: value for name, value in at.items() if not name.endswith("seconds")} for at in run["curve"]]
        for run in (resumed, whole)
    ]
    np.testing.assert_equal(*unclocked)
    assert not workspace.path(task, ".checkpoint").exists()


def test_a_step_depends_on_the_optimiser_state(workspace, prepared):
    """The control of the test above: a resume that forgot Adam's moments ends elsewhere."""
    trainer(FKL, workspace, prepared).run()
    expected = workspace.weights(FKL)
    for suffix in (".json", ".weights"):
        workspace.path(FKL, suffix).unlink()
    trainer(FKL, workspace, prepared).run(stop_at=4)
    path, key = workspace.path(FKL, ".checkpoint"), workspace.key(FKL)
    state, _ = store.read_checkpoint(path, key=key)
    state["optimizer"]["state"] = {}
    store.write_checkpoint(path, state, key=key)
    trainer(FKL, workspace, prepared).run()
    found = workspace.weights(FKL)
    assert not all(torch.equal(found[name], expected[name]) for name in expected)


def test_damaged_checkpoints_are_never_used(workspace, prepared):
    trainer(FKL, workspace, prepared).run(stop_at=4)
    path = workspace.path(FKL, ".checkpoint")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(store.StoredFileError, match=r"truncated or altered.*not used: delete it"):
        trainer(FKL, workspace, prepared).run()
    other = replace(FKL, learning_rate=0.02)
    path.write_bytes(content)
    path.rename(workspace.path(other, ".checkpoint"))
    with pytest.raises(store.StoredFileError, match="belongs to configuration"):
        trainer(other, workspace, prepared).run()


def test_damaged_warm_start_is_never_used(workspace, prepared):
    path = workspace.path(workspace.warm_task(0), ".weights")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(store.StoredFileError, match=path.name):
        trainer(FKL, workspace, prepared)


def test_losses_share_weights_and_batches(workspace, prepared):
    """Before the first step all students of a seed are one; they differ from another seed's."""
    runs = [trainer(replace(FKL, loss=loss), workspace, prepared) for loss in ("fkl", "rkl", "w1")]
    first = runs[0].body.net.state_dict()
    for run in runs[1:]:
        for name, weight in run.body.net.state_dict().items():
            assert torch.equal(weight, first[name])
    other = trainer(replace(FKL, seed=1), workspace, prepared)
    assert not torch.equal(next(iter(other.model.parameters())), next(iter(runs[0].model.parameters())))


def test_training_lowers_its_objective(workspace, prepared):
    """The warm start's own objective falls, and the student's."""
    curve = workspace.result(workspace.warm_task(0))["curve"]
    assert curve[0]["objective"] == pytest.approx(np.log(300), rel=0.02)
    assert curve[-1]["objective"] < curve[0]["objective"] - 0.01
    student = trainer(FKL, workspace, prepared).run()
    assert student["curve"][-1]["fkl"] < student["curve"][0]["fkl"]
    assert student["curve"][-1]["fkl"] == student["curve"][-1]["objective"]


def test_initial_weights_leave_the_global_generator_alone(profile):
    before = torch.random.get_rng_state()
    one, same, other = (models.build(profile, profile.student, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [next(iter(model.parameters())) for model in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_gpt2_students_train_without_a_cache(text_folder, tmp_path):
    """The other architecture, and a teacher that runs at each step: the path of large vocabularies."""
    from kdtheory.students import experiment
    from tests.students.conftest import tiny

    profile = tiny(text_folder, architecture="gpt2", cache_teacher=False, seeds=(0,), losses=("fkl", "w1"))
    runs = experiment.run(profile, tmp_path, progress=False)
    assert list(runs.results["loss"]) == ["fkl", "w1"]
    assert np.isfinite(runs.results["fkl"]).all()
    assert not (tmp_path / "work" / "teacher").exists()


def test_keys_see_everything_a_run_depends_on(workspace, profile):
    key = workspace.key(FKL)
    assert workspace.key(replace(FKL, learning_rate=0.02)) != key
    assert workspace.key(replace(FKL, seed=1)) != key
    for change in ({"steps": 16}, {"batch": 8}, {"transport_weight": 2.0}, {"test_blocks": 4}):
        changed = Workspace(workspace.folder, replace(profile, **change), workspace.tokens)
        assert _key_or_missing(changed) != key, change
    assert Workspace(workspace.folder, replace(profile, workers=3, name="other"), workspace.tokens).key(FKL) == key


def _key_or_missing(workspace: Workspace) -> str:
    """A changed warm start has another file, which is not there: the strictest difference."""
    try:
        return workspace.key(FKL)
    except store.StoredFileError:
        return "missing"


def test_a_task_runs_from_what_is_stored(workspace):
    facts = sweep.execute(FKL, workspace, lambda *at: None)
    assert facts == workspace.result(FKL)
    assert facts["threads"] == torch.get_num_threads()
