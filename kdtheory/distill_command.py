"""`kdtheory distill`: the protocol of chapter 09 on anyone's own models."""

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from kdtheory.console import console, fail, listed, numbers

if TYPE_CHECKING:
    import pandas as pd

    from kdtheory.students.published import Runs

_LOOK: dict[str, Any] = {"box": SIMPLE_HEAD, "show_edge": False, "padding": (0, 1, 0, 0), "pad_edge": False}
_LOOK |= {"title_justify": "left", "title_style": "bold"}


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
    keep: Annotated[bool, typer.Option("--keep", help="Also write the students to OUT/models.")] = False,
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
    if out.exists() and not out.is_dir():
        fail(f"--out: {str(out)!r} is a file; give a folder", 2)
    cluster = Cluster("slurm", _slurm(slurm)) if slurm else None
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
        workers=workers or int(bool(slurm)),
    )
    try:
        protocol.check(request)
    except ValueError as misfit:
        fail(misfit, 2)
    try:
        runs = protocol.run(request, out, cluster=cluster, keep=keep)
        _report(runs, out)
    except (ValueError, MemoryError, OSError, WorkerError) as error:
        fail(error, 1)


def _rates(text: str) -> tuple[float, ...]:
    parts = listed(text)
    for index, part in enumerate(parts):
        try:
            valid = 0 < float(part) < math.inf
        except ValueError:
            valid = False
        if not valid:
            fail(f"--rates: entry {index} is {part!r}; give positive numbers separated by commas, such as 1e-5,1e-4", 2)
    if not parts:
        fail("--rates: give at least one learning rate", 2)
    return tuple(float(part) for part in parts)


def _slurm(text: str) -> dict[str, Any]:
    """Parameters of submitit: Slurm's own get its prefix, those that every executor knows do not."""
    if shutil.which("srun") is None:
        fail("--slurm: this machine has no srun; start the command on a node that submits jobs", 2)
    parameters: dict[str, Any] = {}
    for part in listed(text):
        name, given, value = part.partition("=")
        if not given:
            fail(f"--slurm: {part!r} is not name=value, such as partition=gpu", 2)
        common = name in ("gpus_per_node", "cpus_per_task", "mem_gb", "timeout_min", "nodes", "tasks_per_node")
        parameters[name if common else f"slurm_{name}"] = int(value) if value.isdecimal() else value
    return parameters


def _report(runs: "Runs", out: Path) -> None:
    """Means, decisions, the plot, what to change, and where everything is."""
    import pandas as pd

    from kdtheory.figures import save, style
    from kdtheory.figures.students import students_metrics
    from kdtheory.students.statistics import measured

    screen, comparisons = console(), pd.DataFrame(runs.decisions["comparisons"])
    screen.print(_means(runs.results, measured(runs.results)))
    screen.print()
    screen.print(_decisions(comparisons))
    screen.print()
    with style.apply():
        files = save.figure_files(students_metrics(comparisons))
    for ending, content in files.items():
        (out / f"decisions{ending}").write_bytes(content)
    for line in (*_advice(runs), *_places(runs, out)):
        screen.print(line, soft_wrap=True, markup=False)


def _means(results: "pd.DataFrame", metrics: list[str]) -> Table:
    """A row for each loss, a column for each metric."""
    from kdtheory.figures import style

    means = results.groupby("loss", sort=False)[metrics].mean()
    # no padding: eight numbers such as 0.000123 fit into 80 columns
    table = Table("loss", **{**_LOOK, "padding": 0}, title="Held-out metrics of the students, means over seeds")
    for metric in metrics:
        head = style.METRIC_NAMES[metric].replace("cross-", "cross-\n").replace("agreement", "agree-\nment")
        table.add_column(head, justify="right")
    for loss, row in means.iterrows():
        table.add_row(str(loss), *(f"{value:.3g}" for value in row))
    return table


def _decisions(comparisons: "pd.DataFrame") -> Table:
    """For each pair of losses, a row for each metric."""
    from kdtheory.figures import style

    table = Table("metric", **_LOOK, title="Decision table: differences between losses, paired over seeds")
    for name in ("mean", "95 % interval", "decision"):
        table.add_column(name, justify="right" if name == "mean" else "left", no_wrap=True)
    for (loss, reference), rows in comparisons.groupby(["loss", "reference"], sort=False):
        table.add_row(f"{style.title(loss)} minus {style.title(reference)}", style="bold")
        for row in rows.itertuples():
            low_high = f"{row.low:.2g} to {row.high:.2g}"
            word = str(row.decision).removeprefix("pilot: ").replace(" (not converged)", "*")
            table.add_row(f"  {style.METRIC_TITLES[str(row.metric)]}", f"{row.mean:.2g}", low_high, word)
    return table


def _advice(runs: "Runs") -> list[str]:
    """What would make the decisions better."""
    from kdtheory.students.tuning import at_edge

    lines = []
    if late := [check["loss"] for check in runs.decisions["convergence"] if not check["converged"]]:
        lines.append(f"* not at a plateau, so undecided: {', '.join(late)}. Take more --steps.")
    grid = runs.provenance["settings"]["learning_rates"]
    chosen = runs.provenance["learning_rates"]
    if len(grid) > 1 and (edge := at_edge(chosen, grid)):
        rates = ", ".join(f"{loss} {chosen[loss]:g}" for loss in edge)
        lines.append(f"The best rate is the smallest or largest of --rates: {rates}. Give wider ones.")
    return lines


def _places(runs: "Runs", out: Path) -> list[str]:
    """How many seeds there are, and the files."""
    kind = "a pilot: directions, no verdicts" if runs.decisions["pilot"] else "by the rules of chapter 09"
    return [
        f"Seeds: {runs.decisions['seeds']} ({kind}).",
        f"Plot: {out / 'decisions.png'} (.pdf). Decisions: {out / 'decisions.json'}.",
        f"Students: {out / 'results.csv'}. Curves: {out / 'curves.csv'}.",
    ]
