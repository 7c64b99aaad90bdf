"""The command line. Nothing heavy is imported at the top, so that `kdtheory --help` answers at once."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from kdtheory.console import console, fail, listed, numbers
from kdtheory.distill_command import distill
from kdtheory.students import EXPERIMENT, PAIRS, controlled

app = typer.Typer(
    name="kdtheory",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="Claims about knowledge distillation that run: verify them, repeat their experiments, draw their figures.",
)


EXPERIMENTS = (EXPERIMENT, PAIRS, *controlled.NAMES)


class Profile(StrEnum):
    """Size of an experiment."""

    smoke = "smoke"
    cpu = "cpu"
    gpu = "gpu"


app.command()(distill)


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="[CHAPTER | ID]...", help="Default: everything.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write all results there, as JSON.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")] = None,
) -> None:
    """Run claims and their controls, and print a table per chapter.

    Reads the claims of kdtheory/claims, the chapters in proofs/ and the stored runs in figures/data/runs. Writes
    nothing, or FILE. Exit status 1 if a verdict differs from the recorded one, a check failed or a control passed;
    2 if a name is unknown.
    """
    from functools import partial

    from kdtheory.ledger import RegistrationError, report, runner

    screen = console()
    try:
        results = runner.run(names or (), workers=workers, progress=partial(report.progress, screen))
    except runner.UnknownNameError as error:
        fail(error, 2)
    except RegistrationError as error:
        fail(error, 1)
    report.print_results(screen, results)
    if json is not None:
        report.save_json(results, json)
    if any(result.failures for result in results):
        raise typer.Exit(1)


@app.command()
def show(id: Annotated[str, typer.Argument(metavar="ID", help="Such as gradients.rkl-slope.")]) -> None:
    """Run one claim and print its statement, verdict, evidence, control and the place of its proof.

    Reads the same as verify; writes nothing. Exit status 1 if the claim fails, 2 if there is none of this name.
    """
    from kdtheory import claims
    from kdtheory.ledger import report, runner

    registry = claims.load()
    if id not in registry:
        fail(runner.UnknownNameError(id, registry.ids), 2)
    item = registry[id]
    result = runner.run_claim(item)
    report.print_claim(console(), item, result)
    if result.failures:
        raise typer.Exit(1)


@app.command("list")
def list_claims(chapter: Annotated[str | None, typer.Option(help="Only this chapter.")] = None) -> None:
    """List claims and definitions with the recorded verdicts, and how many statements of the sources are settled.

    Reads the claims of kdtheory/claims and its sources.csv; runs no check and writes nothing. Exit status 2 if there
    is no such chapter.
    """
    from kdtheory import claims
    from kdtheory.ledger import report, runner, sources

    registry = claims.load()
    coverage = sources.coverage()
    known = {*coverage, *(item.chapter for item in registry)}
    if chapter is not None and chapter not in known:
        fail(runner.UnknownNameError(chapter, known), 2)
    items = [item for item in registry if chapter in (None, item.chapter)]
    report.print_list(console(), items, {name: counts for name, counts in coverage.items() if chapter in (None, name)})


@app.command()
def experiment(
    id: Annotated[str, typer.Argument(metavar="ID", help=f"Which experiment: {', '.join(EXPERIMENTS)}.")],
    profile: Annotated[Profile, typer.Option(help="smoke: under a minute; cpu: minutes; gpu: hours.")] = Profile.cpu,
    out: Annotated[Path | None, typer.Option(help="Default: build/ID/PROFILE.", show_default=False)] = None,
    seeds: Annotated[str, typer.Option(help="Training seeds, as 0,1,2. Default: the profile's.")] = "",
    losses: Annotated[str, typer.Option(help="Losses, as fkl,rkl,w1. Default: the profile's.")] = "",
    tune: Annotated[bool, typer.Option("--tune", help="First choose each loss's learning rate on validation.")] = False,
) -> None:
    """Run (or resume) an experiment: train students, evaluate them, store the results.

    Reads what an earlier run left in OUT and, for the experiment on real text (students), the corpus (source and
    documentation of the running Python). Writes results, curves, decisions and provenance to OUT, and what it resumes
    from to OUT/work. pairs measures the finished students of forward KL in build/students/PROFILE and trains nothing.
    Exit status 1 if a stored file is missing or damaged, the corpus is too small or a worker died; 2 if there is no
    such experiment, or it has no such profile, option, loss or seed.
    """
    if id not in EXPERIMENTS:
        fail(f"no experiment is called {id!r}; there is: {', '.join(EXPERIMENTS)}", 2)
    if id != EXPERIMENT and tune:
        fail(f"{id} has fixed learning rates: leave out --tune", 2)
    if id == PAIRS and losses:
        fail(f"{id} reads the students of forward KL: leave out --losses", 2)
    folder = out or Path("build") / id / profile.value
    chosen: dict[str, Any] = {"seeds": numbers(seeds), "losses": listed(losses)}
    try:
        from kdtheory.students import experiment, pairs, profiles
        from kdtheory.students.sweep import WorkerError
    except ModuleNotFoundError as missing:
        fail(f"{missing.name} is not installed: pip install 'kdtheory[students]'", 1)
    try:
        if id in controlled.NAMES:
            controlled.get(id).profile(profile.value).restricted(**chosen)
        else:
            size = profiles.get(profile.value, **{name: tuple(given) for name, given in chosen.items() if given})
    except ValueError as misfit:
        fail(misfit, 2)
    try:
        if id in controlled.NAMES:
            runs, by = controlled.run(id, profile.value, folder, **chosen), ["condition", "loss"]
        elif id == PAIRS:
            runs, by = pairs.run(size, Path("build") / EXPERIMENT / profile.value, folder), ["condition"]
        else:
            runs, by = experiment.run(profiles.get(profile.value), folder, tune=tune, **chosen), ["loss"]
    except (ValueError, WorkerError) as error:
        fail(error, 1)
    screen = console()
    means = runs.results.groupby(by, sort=False).mean(numeric_only=True)
    hidden = ["seed", "learning_rate", "steps", "steps_per_second"]
    screen.print(means.drop(columns=hidden, errors="ignore").round(4).to_string(), soft_wrap=True)
    kind = "a pilot" if runs.decisions["pilot"] else "confirmatory"
    count = runs.decisions["seeds"]
    screen.print(f"{count} seed{'s' * (count != 1)} ({kind}); results and decisions are in {folder}", soft_wrap=True)


@app.command()
def figures(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Default: all.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for figures and tables.")] = Path("figures"),
) -> None:
    """Draw figures and tables from their data, each with a JSON that says what it stands on.

    Reads figures/data of the repository (stored runs and verdicts), and computes anew, and stores there, what takes
    seconds. Writes PDF, PNG, .tex, .csv and .json to OUT. Exit status 1 if the data are missing, 2 if there is no such
    figure.
    """
    from kdtheory import figures

    screen = console()
    try:
        figures.build(out, names or None, report=lambda line: screen.print(escape(line), soft_wrap=True))
    except figures.EvidenceNotInstalledError as missing:
        fail(missing, 1)
    except ValueError as unknown:
        fail(unknown, 2)


@app.command()
def reproduce(
    out: Annotated[Path, typer.Option(help="Folder for everything that is rebuilt.")] = Path("build"),
    profile: Annotated[Profile, typer.Option(help="Size of the experiment.")] = Profile.cpu,
) -> None:
    """Rebuild everything: ledger, experiment, figures, notebooks; then compare with what is published.

    Reads the repository and what an earlier run left in OUT; does only what is out of date. Writes to OUT alone. Exit
    status 1 if a step failed or a reproduced decision contradicts the published one.
    """
    from kdtheory import reproduce

    if not reproduce.reproduce(out, profile=profile.value, console=console()):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
