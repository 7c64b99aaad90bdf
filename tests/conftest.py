"""One thread per process, and the same hypothesis examples for everybody."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
# no deadline: tests never time anything; derandomised: a failure here is a failure everywhere
settings.register_profile("kdtheory", deadline=None, derandomize=True)
settings.load_profile("kdtheory")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).parents[1]
