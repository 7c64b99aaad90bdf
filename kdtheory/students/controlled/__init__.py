"""Controlled experiments: small students on synthetic teachers, where everything but the loss is held fixed.

An experiment is one `Experiment` record (`kdtheory.students.controlled.design`): its conditions, `simulate` (one
condition and loss, all seeds -> numbers) and `decide` (all numbers -> decisions, by a rule fixed beforehand). Running,
resuming, storing and checking is common to all (`kdtheory.students.controlled.runner`), and so are training many
students as one tensor program (`batched`) and three-way tests of hypotheses (`hypotheses`).

>>> from kdtheory.students import controlled
>>> controlled.run("low-rank", "smoke", folder)    # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdtheory.students.controlled.design import Experiment
    from kdtheory.students.published import Runs

_HOME = {
    "shared-network": "shared_network",
    "low-rank": "low_rank",
    "tabular": "tabular",
    "repairs": "repairs",
    "equivalence": "equivalence",
    "tail": "tail",
    "metric": "metric",
    "real-metric": "real_metric",
    "coverage": "coverage",
    "labels": "labels",
    "truncation": "truncation",
    "head-tail": "head_tail",
    "tokenizers": "tokenizers",
    "repaired": "repaired",
}
NAMES = tuple(_HOME)
"""Identifiers; the stored runs lie under ``figures/data/runs/ID/``. A new experiment is a module and a line here."""


def get(name: str) -> Experiment:
    """The experiment called `name`.

    Raises
    ------
    ValueError
        If there is none; the message lists those there are.
    """
    if name not in _HOME:
        raise ValueError(f"no controlled experiment is called {name!r}; there is: {', '.join(NAMES)}")
    return importlib.import_module(f"{__name__}.{_HOME[name]}").EXPERIMENT


def run(name: str, profile: str, *arguments: Any, **options: Any) -> Runs:
    """Run an experiment by name; see `kdtheory.students.controlled.runner.run`."""
    from kdtheory.students.controlled import runner

    return runner.run(get(name), profile, *arguments, **options)


def stored(name: str) -> Runs:
    """The published runs of an experiment, checked; `EvidenceNotInstalledError` without the repository."""
    from kdtheory.students import published

    return published.load(published.stored(name))
