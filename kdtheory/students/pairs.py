"""H17: whether W1 on a language model's own token metric says more than total variation (chapter 09, 9.3 and 9.5).

Reads the students of forward KL that the experiment on real text trained, and trains nothing. At positions of the test
text W1 to the teacher is computed exactly, on Euclidean distances between the teacher's output embeddings. Where
W1 is a multiple of total variation the ratio of the two does not spread.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

import kdtheory as kd
from kdtheory.students import PAIRS, experiment, losses, provenance, published, statistics, store, tuning
from kdtheory.students.controlled.hypotheses import Region, compared, family
from kdtheory.students.data import Lesson
from kdtheory.students.machine import device, device_name
from kdtheory.students.models import Body
from kdtheory.students.profiles import PROFILES, Profile
from kdtheory.students.progress import bars
from kdtheory.students.published import Runs
from kdtheory.students.sweep import one_thread
from kdtheory.students.tasks import Task, Workspace, describe
from kdtheory.transport import TokenCost

LOSS = "fkl"
POSITIONS = 1000
BINS = 10
QUANTILES = (0.1, 0.5, 0.9)
REGION = Region(high=0.25)
CONDITIONS = ("own", "permuted")
"""The teacher's embeddings, and the same ones dealt to other tokens."""
_PERMUTATION = 17  # stream of the permutations, one a seed
_CHUNK = 32  # blocks per forward pass: bounds memory
_PLATEAU = ("objective_start", "objective_late", "objective_final")
Array = NDArray[np.float64]


# -- the statistic -----------------------------------------------------------------------------------------------------
def normalised(embedding: Tensor) -> TokenCost:
    """Euclidean distances of the rows (V, width), divided by their mean over pairs of distinct tokens.

    Raises
    ------
    ValueError
        If all rows coincide.
    """
    distances = TokenCost.embedding(embedding).block(slice(None), slice(None))
    count = len(distances)
    mean = float(distances.sum()) / (count * (count - 1))
    if not mean > 0:
        raise ValueError("the token metric is 0: all embeddings of the teacher coincide")
    return TokenCost.embedding(embedding / mean)


def drawn(count: int) -> NDArray[np.int64]:
    """At most `POSITIONS` of `count` positions, evenly spaced.

    The step is a fraction: a whole one that divides the length of a block would see the same places of every block.
    """
    size = min(POSITIONS, count)
    return np.arange(size) * count // size


def binned(w1: Array, tv: Array) -> pd.DataFrame:
    """Quantiles of W1/TV in `BINS` bins of equal numbers of positions, ordered by total variation.

    Parameters
    ----------
    w1, tv : ndarray of float64, shape (N,)
        Of the same pairs; sizes of bins differ by one where N is no multiple.

    Returns
    -------
    DataFrame
        A row per bin: bin, tv (mean), low, median, high (`QUANTILES` of the ratio).

    Raises
    ------
    ValueError
        If there are fewer pairs than bins, or a pair has p = q, where the ratio is 0/0.
    """
    if len(tv) < BINS:
        raise ValueError(f"tv: {len(tv)} positions do not fill {BINS} bins; give more test text")
    if not (tv > 0).all():
        raise ValueError(
            f"tv[{int(np.argmin(tv > 0))}] is not positive: student and teacher agree exactly there, and W1/TV is 0/0; "
            "no position is left out silently, and two trained networks have none"
        )
    ratio, rows = w1 / tv, []
    for index, part in enumerate(np.array_split(np.argsort(tv, kind="stable"), BINS)):
        low, median, high = np.quantile(ratio[part], QUANTILES)
        rows.append({"bin": index, "tv": tv[part].mean(), "low": low, "median": median, "high": high})
    return pd.DataFrame(rows)


def spread(bins: pd.DataFrame) -> float:
    """The statistic: median over bins of (high - low) / median."""
    return float(((bins["high"] - bins["low"]) / bins["median"]).median())


def measured(log_p: Tensor, log_q: Tensor, cost: TokenCost) -> pd.DataFrame:
    """`binned` for log-probabilities (N, V) of teacher and student, float64, with exact W1."""
    w1 = kd.w1(log_p.exp(), log_q.exp(), cost).value
    return binned(w1.numpy(), kd.divergence("tvd").per_position(log_p, log_q).numpy())


# -- the students ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Finished:
    """What the experiment on real text left: working files, lesson, and forward KL's student of each seed."""

    workspace: Workspace
    lesson: Lesson
    students: tuple[Task, ...]
    corpus_sha256: str


def finished(profile: Profile, folder: Path) -> Finished:
    """Open the students of forward KL in the folder of the experiment on real text.

    Raises
    ------
    StoredFileError
        If one is missing, damaged or made for something else; the message says what to run first.
    """
    work = folder / "work"
    for seed in profile.seeds:
        if not any((work / "runs").glob(f"student-{LOSS}-s{seed}-lr*.json")):
            line = provenance.repeated(profile)
            raise store.StoredFileError(f"{work / 'runs'} holds no student of {LOSS}, seed {seed}: run `{line}` first")
    begun = experiment.begin(replace(profile, losses=(LOSS,)), work)
    workspace = begun.workspace
    with bars(False) as silent:
        rate = tuning.rates(workspace, bars=silent).chosen[LOSS]
    lesson = Lesson.open(workspace, begun.blocks, device())
    students = tuple(Task("student", seed, LOSS, rate) for seed in profile.seeds)
    return Finished(workspace, lesson, students, begun.corpus_sha256)


@torch.no_grad()
def pairs(student: Body, lesson: Lesson) -> tuple[Tensor, Tensor]:
    """Log-probabilities (N, V) of teacher and student, float64, at the drawn positions of the test blocks."""
    student, blocks, found = student.to(device()).eval(), lesson.blocks["test"].tokens, []
    length = blocks.shape[1] - 1
    block, place = np.divmod(drawn(len(blocks) * length), length)
    for start in range(0, len(blocks), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(blocks)))
        here = np.isin(block, rows)
        at = torch.from_numpy(block[here] - start), torch.from_numpy(place[here])
        logits = student.logits(torch.from_numpy(blocks[rows, :-1]).to(device()))
        both = (lesson.teachers["test"].log_probs(rows), logits)
        found.append([losses.float64_log_softmax(values.cpu()[at]) for values in both])
    log_p, log_q = (torch.cat(parts) for parts in zip(*found, strict=True))
    return log_p, log_q


# -- the run -----------------------------------------------------------------------------------------------------------
def run(profile: Profile, students: Path, out: Path, *, progress: bool = True) -> Runs:
    """Measure the students of forward KL of all seeds of the profile, and store what was found.

    Parameters
    ----------
    profile : Profile
        Of the experiment on real text.
    students : Path
        Its folder, such as ``build/students/cpu``.
    out : Path
        Folder for ``results.csv`` (a row per condition and seed), ``curves.csv`` (a row per condition, seed and bin),
        ``decisions.json``, ``provenance.json`` and their manifest.
    progress : bool
        A bar with the time left, on standard error.

    Raises
    ------
    StoredFileError
        If a student is missing or damaged; the message says what to run first.
    """
    start, results, curves = time.process_time(), [], []
    with bars(progress) as shown, one_thread():
        ready = finished(profile, students)
        own = normalised(ready.lesson.metrics.embedding)
        for done, task in enumerate(ready.students):
            shown.update(PAIRS, done, len(ready.students))
            order = np.random.default_rng([_PERMUTATION, task.seed]).permutation(own.V)
            log_p, log_q = pairs(_student(ready.workspace, task), ready.lesson)
            for condition, cost in zip(CONDITIONS, (own, own.permuted(order)), strict=True):
                bins = measured(log_p, log_q, cost)
                about: dict[str, Any] = {"condition": condition, "seed": task.seed}
                curves.append(bins.assign(**about)[[*about, *bins]])
                results.append({**about, "spread": spread(bins), **_objective(ready.workspace, task)})
        shown.update(PAIRS, len(ready.students), len(ready.students))
    origin = _provenance(profile, ready) | {"cpu_seconds": round(time.process_time() - start, 1)}
    return published.write(out, pd.DataFrame(results), pd.concat(curves), decide, origin)


def _student(workspace: Workspace, task: Task) -> Body:
    body = workspace.beginner(task)
    body.net.load_state_dict(workspace.weights(task))
    return body


def _objective(workspace: Workspace, task: Task) -> dict[str, float]:
    """What the plateau rule asks of a curve: its objective at the start, after three quarters and at the end."""
    curve = {point["step"]: point["objective"] for point in workspace.result(task)["curve"]}
    steps = workspace.profile.steps
    return dict(zip(_PLATEAU, (curve[0], curve[3 * steps // 4], curve[steps]), strict=True))


def decide(results: pd.DataFrame, curves: pd.DataFrame) -> dict[str, Any]:
    """The registered test of the own metric; beside it, without a rule, its spread over that of the permuted one."""
    wide = results.pivot(index="seed", columns="condition", values="spread")
    own = results[results["condition"] == "own"]
    plateau = statistics.convergence(LOSS, (0, 3, 4), [float(own[name].mean()) for name in _PLATEAU])
    outcome = "spread of W1/TV at equal TV"
    test = compared("H17", outcome, wide["own"].tolist(), REGION, converged=plateau.converged)
    return {
        "pilot": len(wide) < statistics.CONFIRMATORY_SEEDS,
        "seeds": len(wide),
        "rule": {"supported_below": REGION.high, "refuted_above": REGION.outside[1], "bins": BINS},
        "tests": family([test]),
        "convergence": [asdict(plateau)],
        "own_over_permuted": _ratio(wide["own"].tolist(), wide["permuted"].tolist()),
    }


def _ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, float | None]:
    """Geometric mean over seeds with its 95 % interval."""
    found = statistics.interval(np.log(np.divide(above, below)).tolist())._asdict()
    return {name: math.exp(value) if math.isfinite(value) else None for name, value in found.items()}


def _provenance(profile: Profile, ready: Finished) -> dict[str, Any]:
    usual = profile.name in PROFILES and profile.seeds == PROFILES[profile.name].seeds
    settings = {"students": describe(ready.workspace.profile), "positions": POSITIONS, "bins": BINS}
    facts = [ready.workspace.result(task) for task in ready.students]
    return {
        "experiment": PAIRS,
        "command": provenance.command(PAIRS, profile.name, seeds=() if usual else profile.seeds, losses=()),
        "settings": settings,
        "settings_sha256": store.digest(settings),
        "corpus_sha256": ready.corpus_sha256,
        "teacher_sha256": ready.workspace.sealed(ready.workspace.teacher_task()),
        "students_sha256": {str(run["seed"]): run["weights_sha256"] for run in facts},
        "versions": provenance.versions("torch", "transformers", "numpy", "scipy", "pot", "statsmodels"),
        "commit": ", ".join(sorted({provenance.commit(), *(run["commit"] for run in facts)})),
        "device": device_name(),
        "threads_per_process": 1,
    }
