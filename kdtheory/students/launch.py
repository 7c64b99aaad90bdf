"""One task on as many processes as `accelerate` starts: one, several GPUs, or several nodes.

accelerate launch -m kdtheory.students.launch --profile gpu --out build/students/gpu --kind warm --seed 0

On processors alone: ``torchrun --nproc_per_node 2 -m kdtheory.students.launch …``; `accelerate` leaves those to MPI.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def main(
    out: Annotated[Path, typer.Option(help="Folder of the experiment; its `work` holds the task's files.")],
    kind: Annotated[str, typer.Option(help="teacher, warm (hard-label start) or student.")],
    profile: Annotated[str, typer.Option(help="smoke, cpu or gpu.")] = "gpu",
    seed: Annotated[int, typer.Option(help="Training seed; the teacher has none of its own.")] = 0,
    loss: Annotated[str, typer.Option(help="Loss of a student.")] = "fkl",
    rate: Annotated[float, typer.Option(help="Learning rate of a student; 0: the first of the profile's grid.")] = 0.0,
) -> None:
    """Train one task where its experiment will look for it; a checkpoint there is resumed.

    A student needs the teacher, its stored distributions and the warm start of its seed.
    """
    from kdtheory.students import corpus, profiles, sweep, tokens
    from kdtheory.students.tasks import Task, Workspace
    from kdtheory.students.train import processes

    settings = profiles.get(profile)
    with processes(settings).main_process_first():  # the others find the tokens stored
        _, _, key = tokens.prepare(
            corpus.load(settings.corpus),
            vocabulary=settings.vocabulary,
            length=settings.length,
            folder=out / "work" / "tokens",
        )
    workspace = Workspace(out / "work", settings, key)
    tasks = {
        "teacher": workspace.teacher_task(),
        "warm": workspace.warm_task(seed),
        "student": Task("student", seed, loss, rate or settings.learning_rates[0]),
    }
    if kind not in tasks:
        raise typer.BadParameter(f"{kind!r}: choose teacher, warm or student", param_hint="--kind")
    sweep.execute(tasks[kind], workspace, lambda name, step, steps: None)


if __name__ == "__main__":
    typer.run(main)
