"""Run a controlled experiment, task by task, and store it; a killed run continues, a second run does nothing."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from kdtheory.students import provenance, published, statistics, store
from kdtheory.students.controlled.design import Experiment, Profile, Task
from kdtheory.students.progress import bars
from kdtheory.students.published import Runs
from kdtheory.students.sweep import one_thread

_LIBRARIES = ("torch", "numpy", "scipy", "statsmodels")


def run(
    experiment: Experiment,
    profile: str,
    out: Path,
    *,
    seeds: Sequence[int] = (),
    losses: Sequence[str] = (),
    progress: bool = True,
) -> Runs:
    """Run the experiment, or what is left of it, in this process and on one thread (or the profile's device).

    Parameters
    ----------
    experiment : Experiment
        Such as ``kdtheory.students.controlled.get("low-rank")``.
    profile : str
        ``smoke``, ``cpu`` or, where the experiment has one, ``gpu``.
    out : Path
        Folder for results, curves, decisions, provenance and their manifest; a file per task goes to ``work``.
    seeds, losses : sequence, optional
        Instead of those of the profile.
    progress : bool
        A bar with the time left, on standard error.

    Returns
    -------
    Runs
        As stored.

    Raises
    ------
    ValueError
        If an argument does not fit, or the profile's device is missing.
    StoredFileError
        If the file of a finished task is damaged; the message names it and says what to do.
    """
    chosen = experiment.profile(profile).restricted(tuple(seeds), tuple(losses))
    facts, tasks = [], chosen.tasks()
    with bars(progress) as shown, one_thread():
        for done, task in enumerate(tasks):
            shown.update(experiment.id, done, len(tasks))
            facts.append(_result(experiment, chosen, task, out / "work"))
        shown.update(experiment.id, len(tasks), len(tasks))
    return _publish(experiment, chosen, facts, out)


def _result(experiment: Experiment, profile: Profile, task: Task, folder: Path) -> dict[str, Any]:
    """The stored facts of a task, computed and stored now if there are none."""
    key = experiment.key(profile, task)
    path = folder / f"{task.name}-{key[:12]}.json"
    if not path.exists():
        store.write_json(path, _simulated(experiment, profile, task), key=key)
    return store.read_json(path, key=key)  # the same for a run that was resumed


def _simulated(experiment: Experiment, profile: Profile, task: Task) -> dict[str, Any]:
    start = time.process_time()
    settings, device = profile.conditions[task.condition].settings, _device(profile)
    outcomes = experiment.simulate(settings, task.loss, profile.seeds, device)
    if len(outcomes) != len(profile.seeds):
        raise ValueError(f"{experiment.id}, {task.name}: {len(outcomes)} outcomes for {len(profile.seeds)} seeds")
    runs = [
        {"seed": seed, "metrics": _plain(outcome.metrics), "curve": [_plain(point) for point in outcome.curve]}
        for seed, outcome in zip(profile.seeds, outcomes, strict=True)
    ]
    about = {"condition": task.condition, "loss": task.loss}
    cost = {"cpu_seconds": round(time.process_time() - start, 3), "commit": provenance.commit()}
    return {"task": about, "runs": runs, **cost}


def _device(profile: Profile) -> torch.device:
    if profile.device == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"profile {profile.name} runs on a CUDA device and there is none here; choose cpu")
    return torch.device(profile.device)


def _publish(experiment: Experiment, profile: Profile, facts: Sequence[dict[str, Any]], out: Path) -> Runs:
    runs = [({**fact["task"], "seed": run["seed"]}, run) for fact in facts for run in fact["runs"]]
    results = pd.DataFrame([{**names, **run["metrics"]} for names, run in runs])
    curves = pd.DataFrame([{**names, "step": point["step"], **point} for names, run in runs for point in run["curve"]])

    def decide(results: pd.DataFrame, curves: pd.DataFrame) -> dict[str, Any]:
        count = len(profile.seeds)
        about = {"seeds": count, "pilot": count < statistics.CONFIRMATORY_SEEDS, "rule": dict(experiment.rule)}
        return about | experiment.decide(results, curves)

    return published.write(out, results, curves, decide, _provenance(experiment, profile, facts))


def _provenance(experiment: Experiment, profile: Profile, facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    usual = experiment.profiles[profile.name]
    seeds = () if profile.seeds == usual.seeds else profile.seeds
    losses = [] if profile.settings() == usual.settings() else profile.losses()
    settings = {"name": profile.name, "seeds": list(profile.seeds), "conditions": profile.settings()}
    return {
        "experiment": experiment.id,
        "version": experiment.version,
        "command": provenance.command(experiment.id, profile.name, seeds=seeds, losses=losses),
        "settings": json.loads(json.dumps(settings)),
        "settings_sha256": store.digest([experiment.version, profile.settings()]),
        "versions": provenance.versions(*_LIBRARIES),
        "commit": ", ".join(sorted({run["commit"] for run in facts})),
        "device": torch.cuda.get_device_name() if profile.device == "cuda" else platform.machine(),
        "threads_per_process": 1,
        "cpu_seconds": round(sum(run["cpu_seconds"] for run in facts), 1),
    }


def _plain(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no NaN: a missing number is null."""
    return {name: None if math.isnan(value := float(given)) else value for name, given in numbers.items()}
