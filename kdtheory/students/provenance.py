"""What a stored run stands on: settings, seeds, versions, device, corpus, commit, costs, and the command for anyone."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from kdtheory import checkout
from kdtheory.students import EXPERIMENT
from kdtheory.students.profiles import PROFILES, Profile
from kdtheory.students.tasks import describe

_LIBRARIES = ("torch", "transformers", "tokenizers", "accelerate", "submitit", "numpy", "scipy", "statsmodels")


def collect(profile: Profile, corpus_sha256: str, rates: str, facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Provenance of a run from its finished students.

    Parameters
    ----------
    profile : Profile
        Settings, seeds and losses.
    corpus_sha256 : str
        Of the corpus.
    rates : str
        Where the learning rates come from.
    facts : sequence of dict
        Stored facts of the students.
    """
    return {
        "experiment": EXPERIMENT,
        "settings": describe(profile),
        "settings_sha256": profile.hash,
        "corpus_sha256": corpus_sha256,
        "learning_rates": {run["loss"]: run["learning_rate"] for run in facts},
        "learning_rate_source": rates,
        "versions": versions(*_LIBRARIES),
        "commit": ", ".join(sorted({run["commit"] for run in facts})),
        "device": sorted({run["device"] for run in facts}),
        "threads_per_process": sorted({run["threads"] for run in facts}),
        "student_parameters": facts[0]["parameters"],
        "cost": costs(facts),
        "peak_memory_mib": round(max(run["peak_memory_mib"] for run in facts), 1),
    }


def repeated(profile: Profile) -> str:
    """The command that repeats the experiment on real text with this profile's seeds and losses."""
    usual = PROFILES.get(profile.name)
    seeds = () if usual and profile.seeds == usual.seeds else profile.seeds
    names = () if usual and profile.losses == usual.losses else profile.losses
    return command(EXPERIMENT, profile.name, seeds=seeds, losses=names)


def command(experiment: str, profile: str, *, seeds: Sequence[int], losses: Sequence[str]) -> str:
    """The command that repeats a run; give only the seeds and losses that are not the profile's own."""
    line = f"kdtheory experiment {experiment} --profile {profile}"
    if seeds:
        line += f" --seeds {','.join(map(str, seeds))}"
    if losses:
        line += f" --losses {','.join(losses)}"
    return line


def costs(facts: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Steps per second of each loss, by wall time and by processor time, and the latter relative to forward KL."""
    speed: dict[str, dict[str, float]] = {}
    for loss in dict.fromkeys(run["loss"] for run in facts):
        runs = [run for run in facts if run["loss"] == loss]
        steps = sum(run["steps"] for run in runs)
        speed[loss] = {
            "steps_per_second": steps / sum(run["train_seconds"]["wall"] for run in runs),
            "steps_per_cpu_second": steps / sum(run["train_seconds"]["cpu"] for run in runs),
        }
    if "fkl" in speed:
        for row in speed.values():
            row["relative_to_fkl"] = row["steps_per_cpu_second"] / speed["fkl"]["steps_per_cpu_second"]
    return {loss: {name: round(value, 3) for name, value in row.items()} for loss, row in speed.items()}


def versions(*libraries: str) -> dict[str, str]:
    """Of Python and of the libraries that numbers depend on."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in libraries}}


@lru_cache(maxsize=1)
def commit() -> str:
    """The repository's commit, with ``+changes`` if the package differs from it; the version elsewhere."""
    root = checkout.root()
    if root is None or not (root / ".git").exists():
        return f"kdtheory {metadata.version('kdtheory')}"
    try:
        head = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "kdtheory")
    except (OSError, subprocess.CalledProcessError):
        return f"kdtheory {metadata.version('kdtheory')}"
    return head + ("+changes" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    answer = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return answer.stdout.strip()
