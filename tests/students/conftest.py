"""A corpus of one standard package, and a profile of seconds, shared by the tests of this folder."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from kdtheory.students import experiment
from kdtheory.students.profiles import Profile, Shape
from kdtheory.students.progress import Bars
from kdtheory.students.tasks import Workspace


def tiny(corpus: Path, **changes: object) -> Profile:
    """Everything as small as it goes, in this process."""
    settings: dict = {
        "name": "tiny",
        "corpus": str(corpus),
        "vocabulary": 300,
        "length": 16,
        "batch": 4,
        "teacher": Shape(16, 1, 2),
        "student": Shape(8, 1, 2),
        "teacher_batch": 4,
        "teacher_steps": 12,
        "warm_steps": 8,
        "steps": 8,
        "evaluations": 4,
        "train_blocks": 40,
        "curve_blocks": 4,
        "test_blocks": 8,
        "seeds": (0, 1),
        "losses": ("hard", "classic", "fkl", "w1"),
        "workers": 0,
    }
    return Profile(**{**settings, **changes})


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for file in sorted(Path(asyncio.__file__).parent.glob("*.py")):
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="session")
def profile(text_folder) -> Profile:
    return tiny(text_folder)


@pytest.fixture(scope="session")
def prepared(profile, tmp_path_factory) -> experiment.Prepared:
    """Tokens, teacher, warm starts and the teacher's stored log-probabilities. Read it, or copy it."""
    return experiment.prepare(profile, tmp_path_factory.mktemp("prepared"), bars=Bars())


@pytest.fixture
def workspace(prepared, tmp_path) -> Workspace:
    """A copy of the prepared workspace that a test may damage."""
    shutil.copytree(prepared.workspace.folder, tmp_path / "work")
    return Workspace(tmp_path / "work", prepared.workspace.profile, prepared.workspace.tokens)
