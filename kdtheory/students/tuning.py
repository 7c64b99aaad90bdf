"""Learning rates: one grid for all losses, each loss judged by its own objective on validation text.

The tuning seed is not among the evaluation seeds. The chosen rates are stored with the published runs, under the hash
of the settings they were chosen for, and used again wherever that hash fits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdtheory.students import published, store, sweep
from kdtheory.students.profiles import Profile
from kdtheory.students.progress import Bars
from kdtheory.students.sweep import Cluster
from kdtheory.students.tasks import Task, Workspace

FILE = "learning_rates.json"


@dataclass(frozen=True)
class Rates:
    """Learning rate of each loss, and where it comes from."""

    chosen: dict[str, float]
    source: str


def rates(workspace: Workspace, *, bars: Bars, cluster: Cluster | None = None, anew: bool = False) -> Rates:
    """Learning rates of the profile's losses: the only one there is, stored ones that fit, or tuned now.

    Raises
    ------
    StoredFileError
        If a stored file is damaged. One that was chosen for other settings is not used, and that is said.
    """
    profile = workspace.profile
    if len(profile.learning_rates) == 1:
        return Rates(dict.fromkeys(profile.losses, profile.learning_rates[0]), "fixed by the profile, not tuned")
    known = {} if anew else _stored(workspace, bars)
    if missing := [loss for loss in profile.losses if loss not in known]:
        return tune(workspace, missing, known, bars=bars, cluster=cluster)
    return Rates(_chosen(known, profile), f"stored ({FILE})")


Tried = dict[str, list[dict[str, Any]]]
"""What the tuning seed found: for each loss, a row per learning rate."""


def tune(
    workspace: Workspace, losses: Sequence[str], known: Tried, *, bars: Bars, cluster: Cluster | None = None
) -> Rates:
    """Train these losses at every rate of the grid with the tuning seed, and store the table with what was known."""
    p = workspace.profile
    warm = workspace.warm_tasks([p.tuning_seed])
    sweep.run(warm, workspace, stage="warm start (tuning)", bars=bars, cluster=cluster)
    grid = [Task("student", p.tuning_seed, loss, rate) for loss in losses for rate in p.learning_rates]
    sweep.run(grid, workspace, stage="learning rates", bars=bars, cluster=cluster)
    tried = {**known, **{loss: [] for loss in losses}}
    for task in grid:
        tried[task.loss].append({"loss": task.loss, "learning_rate": task.learning_rate, **_outcome(workspace, task)})
    table = [row for rows in tried.values() for row in rows]
    chosen = choose(table)
    payload = {"profile": p.name, "seed": p.tuning_seed, "grid": list(p.learning_rates), "table": table}
    path = workspace.folder.parent / FILE
    store.write_json(path, {**payload, "chosen": chosen, "at_edge": at_edge(chosen, p.learning_rates)}, key=p.hash)
    return Rates(_chosen(tried, p), f"tuned on validation text with seed {p.tuning_seed}")


def _chosen(tried: Tried, profile: Profile) -> dict[str, float]:
    return choose([row for loss in profile.losses for row in tried[loss]])


def choose(table: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The rate with the smallest held-out objective, per loss; ties go to the smaller rate.

    Raises
    ------
    ValueError
        If a loss diverged at every rate.
    """
    chosen: dict[str, float] = {}
    for loss in dict.fromkeys(row["loss"] for row in table):
        rows = [row for row in table if row["loss"] == loss and math.isfinite(row["objective"])]
        if not rows:
            raise ValueError(f"{loss}: no learning rate of the grid gave a finite objective; add smaller ones")
        best = min(rows, key=lambda row: (row["objective"], row["learning_rate"]))
        chosen[loss] = best["learning_rate"]
    return chosen


def at_edge(chosen: dict[str, float], grid: Sequence[float]) -> list[str]:
    """Losses whose best rate is the smallest or the largest of the grid: a wider one might serve them better."""
    return [loss for loss, rate in chosen.items() if rate in (min(grid), max(grid))]


def _outcome(workspace: Workspace, task: Task) -> dict[str, float]:
    last = workspace.result(task)["curve"][-1]
    return {"objective": last["objective"], "fkl": last["fkl"], "cross_entropy": last["cross_entropy"]}


def _stored(workspace: Workspace, bars: Bars) -> Tried:
    """What this folder and the published run hold for these settings; the former counts first."""
    found: Tried = {}
    # nothing that is published was chosen for anyone's own models
    places = (workspace.folder.parent, None if workspace.profile.pretrained else published.folder())
    for folder in places:
        if folder and (path := folder / FILE).exists():
            found = {**_fitting(path, workspace.profile, bars), **found}
    return found


def _fitting(path: Path, profile: Profile, bars: Bars) -> Tried:
    try:
        stored = store.read_json(path, key=profile.hash)
    except store.StoredFileError as error:
        if "belongs to configuration" not in str(error):
            raise
        bars.say(f"{path.name} was chosen for other settings and is not used here")
        return {}
    return {loss: [row for row in stored["table"] if row["loss"] == loss] for loss in stored["chosen"]}
