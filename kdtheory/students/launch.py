"""One task on as many processes as `accelerate` starts: one, several GPUs, or several nodes.

accelerate launch -m kdtheory.students.launch build/students/gpu --profile gpu --kind teacher
accelerate launch -m kdtheory.students.launch build/distill --kind student --loss fkl --seed 0 --rate 1e-4

The first begins an experiment; the second continues one whose folder says what it is, such as that of `kdtheory
distill`. On processors alone: ``torchrun --nproc_per_node 2 -m kdtheory.students.launch …``; `accelerate` leaves those
to MPI.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kdtheory.students.tasks import Workspace


def main(
    out: Annotated[Path, typer.Argument(help="Folder of the experiment; its `work` holds the task's files.")],
    kind: Annotated[str, typer.Option(help="teacher, warm (hard-label start) or student.")],
    profile: Annotated[str, typer.Option(help="smoke, cpu or gpu: begin there. Default: what the folder says.")] = "",
    seed: Annotated[int, typer.Option(help="Training seed; the teacher has none of its own.")] = 0,
    loss: Annotated[str, typer.Option(help="Loss of a student.")] = "fkl",
    rate: Annotated[float, typer.Option(help="Learning rate of a student; 0: the first of the profile's grid.")] = 0.0,
) -> None:
    """Train one task where its experiment will look for it; a checkpoint there is resumed.

    A student needs the teacher, its stored distributions and the warm start of its seed.
    """
    from kdtheory.students import sweep
    from kdtheory.students.tasks import Task, Workspace

    folder = out / "work"
    workspace = _begun(folder, profile) if profile else Workspace.open(folder)
    tasks = {
        "teacher": workspace.teacher_task(),
        "warm": workspace.warm_task(seed),
        "student": Task("student", seed, loss, rate or workspace.profile.learning_rates[0]),
    }
    if kind not in tasks:
        raise typer.BadParameter(f"{kind!r}: choose teacher, warm or student", param_hint="--kind")
    if workspace.profile.pretrained and kind != "student" and tasks[kind] not in workspace.warm_tasks([seed]):
        raise typer.BadParameter(f"{kind!r}: this profile begins with given weights", param_hint="--kind")
    sweep.execute(tasks[kind], workspace, lambda name, step, steps: None)


def _begun(folder: Path, profile: str) -> Workspace:
    """The workspace of a profile, its tokens stored by the first process while the others wait."""
    from kdtheory.students import experiment, profiles
    from kdtheory.students.machine import processes

    settings = profiles.get(profile)
    with processes(settings).main_process_first():
        return experiment.begin(settings, folder).workspace


if __name__ == "__main__":
    typer.run(main)
