"""Stored runs: written together with their checksums, and read only if those fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kdtheory import checkout
from kdtheory.checkout import EvidenceNotInstalledError
from kdtheory.students import EXPERIMENT, statistics, store

MANIFEST = "manifest.json"
Decide = Callable[[pd.DataFrame, pd.DataFrame], dict[str, Any]]
FILES = ("results.csv", "curves.csv", "decisions.json", "provenance.json")


@dataclass(frozen=True)
class Runs:
    """A stored run.

    Attributes
    ----------
    results : DataFrame
        One row per loss and seed: loss, seed, learning_rate, steps, the metrics of `kdtheory.students.evaluate`,
        steps_per_second.
    curves : DataFrame
        Held-out curves: loss, seed, step, tokens, seconds, objective, fkl, cross_entropy.
    decisions : dict
        ``comparisons`` and ``convergence`` (lists of dicts), ``rule`` (its numbers), ``pilot`` (bool).
    provenance : dict
        Settings, seeds, versions, device, corpus sha256, commit, speed, memory, command.
    """

    results: pd.DataFrame
    curves: pd.DataFrame
    decisions: dict[str, Any]
    provenance: dict[str, Any]


def save(out: Path, facts: Sequence[dict[str, Any]], provenance: dict[str, Any]) -> Runs:
    """Write ``results.csv``, ``curves.csv``, ``decisions.json``, ``provenance.json`` and their manifest."""
    results = pd.DataFrame([_row(run) for run in facts])
    curves = pd.DataFrame(
        [{"loss": run["loss"], "seed": run["seed"], **point} for run in facts for point in run["curve"]]
    )
    return write(out, results, curves, decide, provenance)


def write(out: Path, results: pd.DataFrame, curves: pd.DataFrame, decide: Decide, provenance: dict[str, Any]) -> Runs:
    """Write the files of a stored run and their manifest.

    Parameters
    ----------
    out : Path
        Folder.
    results, curves : DataFrame
        One row per run, and one per run and evaluated step.
    decide : callable
        (results, curves) -> decisions. What is decided is what is stored: it sees the rounded numbers.
    provenance : dict
        With ``settings_sha256``, the key of the manifest.
    """
    texts = {"results.csv": _csv(results), "curves.csv": _csv(curves)}
    results, curves = (_read_csv(texts[name]) for name in ("results.csv", "curves.csv"))
    texts["decisions.json"] = _json(decide(results, curves))
    texts["provenance.json"] = _json(provenance)
    for name, text in texts.items():
        store.write_bytes(out / name, text.encode())
    manifest = {name: store.digest(text.encode()) for name, text in texts.items()}
    store.write_json(out / MANIFEST, manifest, key=provenance["settings_sha256"])
    return Runs(results, curves, json.loads(texts["decisions.json"]), json.loads(texts["provenance.json"]))


def decide(results: pd.DataFrame, curves: pd.DataFrame) -> dict[str, Any]:
    """Comparisons and convergence checks of a run, with the rule they follow."""
    rows, checks = statistics.table(results, curves)
    seeds = int(results["seed"].nunique())
    rule = {
        "level": statistics.LEVEL,
        "margin": statistics.MARGIN,
        "plateau_share": statistics.PLATEAU_SHARE,
        "plateau_change": statistics.PLATEAU_CHANGE,
        "confirmatory_seeds": statistics.CONFIRMATORY_SEEDS,
    }
    pilot = seeds < statistics.CONFIRMATORY_SEEDS
    return {"pilot": pilot, "seeds": seeds, "rule": rule, "comparisons": rows, "convergence": checks}


def load(path: Path) -> Runs:
    """Read a stored run.

    Raises
    ------
    StoredFileError
        If a file is missing, truncated or altered; the message names it.
    """
    manifest = store.read_json(path / MANIFEST)
    texts: dict[str, str] = {}
    for name in FILES:
        file = path / name
        content = file.read_bytes() if file.exists() else b""
        if store.digest(content) != manifest.get(name):
            raise store.StoredFileError(
                f"{file} is missing, truncated or altered (sha256 differs from {MANIFEST}); it is not used: "
                "restore it, or run the experiment again"
            )
        texts[name] = content.decode()
    results, curves = (_read_csv(texts[name]) for name in ("results.csv", "curves.csv"))
    return Runs(results, curves, json.loads(texts["decisions.json"]), json.loads(texts["provenance.json"]))


def folder(experiment: str = EXPERIMENT) -> Path | None:
    """Folder of the published runs in this repository, or None in an installed package."""
    root = checkout.root()
    return None if root is None else root / "figures" / "data" / "runs" / experiment


def stored(experiment: str = EXPERIMENT) -> Path:
    """Folder of the published run.

    Raises
    ------
    EvidenceNotInstalledError
        If this is an installed package without the repository, or nothing has been published yet.
    """
    place = folder(experiment)
    if place is None or not (place / MANIFEST).exists():
        raise EvidenceNotInstalledError(
            f"evidence not installed: the stored runs of {experiment!r} come with the repository, not with the "
            f"package; clone it, or run `kdtheory experiment {experiment}`"
        )
    return place


def _row(run: dict[str, Any]) -> dict[str, Any]:
    row = {name: run[name] for name in ("loss", "seed", "learning_rate", "steps")}
    speed = run["steps"] / run["train_seconds"]["wall"]
    return {**row, **run["metrics"], "steps_per_second": speed}


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, float_format="%.9g", lineterminator="\n")


def _read_csv(text: str) -> pd.DataFrame:
    from io import StringIO

    return pd.read_csv(StringIO(text), dtype={"loss": str})


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"
