"""`kdtheory distill`: the protocol of chapter 09 on anyone's own models."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from kdtheory.console import console, fail, listed, numbers

if TYPE_CHECKING:
    import pandas as pd

    from kdtheory.students.published import Runs


def distill(
    teacher: Annotated[str, typer.Option(help="Trained model: a folder of save_pretrained, or a name on the Hub.")],
    student: Annotated[str, typer.Option(help="Where every student begins; same tokenizer as the teacher.")],
    data: Annotated[str, typer.Option(help="Text, folder, JSONL of instructions, data set, or stdlib.")],
    loss: Annotated[str, typer.Option(help="Losses, separated by commas.")] = "fkl,rkl,w1",
    seeds: Annotated[str, typer.Option(help="How many, or which, as 0,1,2. Ten or more give verdicts.")] = "10",
    out: Annotated[Path, typer.Option(help="Folder of results; a run there is continued.")] = Path("build/distill"),
    steps: Annotated[int, typer.Option(min=4, help="Optimiser steps with each loss.")] = 480,
    warm_steps: Annotated[int, typer.Option(min=0, help="Steps of hard labels before, shared by the losses.")] = 0,
    length: Annotated[int, typer.Option(min=2, help="Tokens of a block.")] = 256,
    batch: Annotated[int, typer.Option(min=1, help="Blocks per step.")] = 16,
    accumulate: Annotated[int, typer.Option(min=1, help="Parts a batch is taken in, to save memory.")] = 1,
    rates: Annotated[str, typer.Option(help="Learning rates to choose from, for each loss.")] = "1e-5,3e-5,1e-4",
    precision: Annotated[str, typer.Option(help="no or bf16.")] = "no",
    workers: Annotated[int, typer.Option(min=0, help="Processes of the sweep; 0: this one.")] = 0,
    slurm: Annotated[str, typer.Option(help="Run workers on Slurm, as partition=gpu,gpus_per_node=1.")] = "",
) -> None:
    """Compare losses on your own teacher and student, and end with a decision table and a plot.

    Reads the two models, which need one tokenizer, and the data. Writes results, curves, decisions and provenance to
    OUT, the plot as OUT/decisions.pdf and .png, and what it resumes from to OUT/work. Exit status 1 if models or data
    do not fit, memory does not suffice or a worker died; 2 if an option does not fit.
    """
    try:
        from kdtheory.students import distill as protocol
        from kdtheory.students.sweep import Cluster, WorkerError
    except ModuleNotFoundError as missing:
        fail(f"{missing.name} is not installed: pip install 'kdtheory[students]'", 1)
    request = protocol.Request(
        teacher,
        student,
        data,
        losses=tuple(listed(loss)),
        seeds=tuple(range(int(seeds))) if seeds.strip().isdecimal() else tuple(numbers(seeds)),
        learning_rates=_rates(rates),
        length=length,
        batch=batch,
        accumulate=accumulate,
        steps=steps,
        warm_steps=warm_steps,
        precision=precision,
        workers=workers or bool(slurm),
    )
    try:
        protocol.check(request)
    except ValueError as misfit:
        fail(misfit, 2)
    try:
        runs = protocol.run(request, out, cluster=Cluster("slurm", _slurm(slurm)) if slurm else None)
    except (ValueError, MemoryError, WorkerError) as error:
        fail(error, 1)
    _report(runs, out)


def _rates(text: str) -> tuple[float, ...]:
    parts = listed(text)
    for index, part in enumerate(parts):
        try:
            valid = float(part) > 0
        except ValueError:
            valid = False
        if not valid:
            fail(f"--rates: entry {index} is {part!r}; give positive numbers separated by commas, such as 1e-5,1e-4", 2)
    if not parts:
        fail("--rates: give at least one learning rate", 2)
    return tuple(float(part) for part in parts)


def _slurm(text: str) -> dict[str, Any]:
    """Parameters of submitit: Slurm's own get its prefix, those that every executor knows do not."""
    parameters: dict[str, Any] = {}
    for part in listed(text):
        name, given, value = part.partition("=")
        if not given:
            fail(f"--slurm: {part!r} is not name=value, such as partition=gpu", 2)
        common = name in ("gpus_per_node", "cpus_per_task", "mem_gb", "timeout_min", "nodes", "tasks_per_node")
        parameters[name if common else f"slurm_{name}"] = int(value) if value.isdecimal() else value
    return parameters


def _report(runs: "Runs", out: Path) -> None:
    """Means, decisions and the plot."""
    import pandas as pd

    from kdtheory.figures import save, style
    from kdtheory.figures.students import students_metrics
    from kdtheory.students.statistics import measured

    screen = console()
    metrics = measured(runs.results)
    means = runs.results.groupby("loss", sort=False)[metrics].mean()
    screen.print(means.round(4).to_string(), soft_wrap=True)
    comparisons = pd.DataFrame(runs.decisions["comparisons"])
    if not comparisons.empty:
        screen.print(_decisions(comparisons, metrics))
        with style.apply():
            files = save.figure_files(students_metrics(comparisons))
        for ending, content in files.items():
            (out / f"decisions{ending}").write_bytes(content)
    for check in runs.decisions["convergence"]:
        if not check["converged"]:
            screen.print(f"{style.title(check['loss'])} has not reached its plateau: take more steps", soft_wrap=True)
    kind = "a pilot: directions, no verdicts" if runs.decisions["pilot"] else "by the rules of chapter 09"
    screen.print(f"{runs.decisions['seeds']} seeds ({kind}); everything is in {out}", soft_wrap=True)


def _decisions(comparisons: "pd.DataFrame", metrics: list[str]) -> Table:
    """A row for each pair of students, a column for each metric."""
    from kdtheory.figures import style

    table = Table("student of", "against", *metrics, title="held-out metrics: is the first student's lower or higher?")
    for (loss, reference), rows in comparisons.groupby(["loss", "reference"], sort=False):
        words = rows.set_index("metric")["decision"].str.removeprefix("pilot: ").str.replace(" (not converged)", "*")
        table.add_row(style.title(loss), style.title(reference), *(words[name] for name in metrics))
    table.caption = "* a loss has not reached its plateau"
    return table
