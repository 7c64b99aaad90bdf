"""What the divergence tests run over: every loss at several parameters, families of points, random logits."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import kdtheory as kd
from kdtheory.divergences import FACTORIES, RECORDS, Loss

torch.set_num_threads(1)

PARAMETERS = {
    "jsd": [{"beta": 0.1}, {"beta": 0.9}],
    "skl": [{"alpha": 0.01}, {"alpha": 0.5}],
    "srkl": [{"alpha": 0.01}, {"alpha": 0.5}],
    "amari": [{"alpha": 0.3}, {"alpha": 2.0}],
    "renyi": [{"alpha": 0.5}],
    "akl": [{"mu": 0.3}],
}
CASES: tuple[Loss, ...] = (
    *kd.divergences.ALL,
    *(FACTORIES[name](**given) for name, settings in PARAMETERS.items() for given in settings),
)
FAMILIES = tuple(kd.simplex.families(np.random.default_rng(11)))
SATURATED = tuple(pair for pair in FAMILIES if pair.name.startswith("gap"))


def label(x: object) -> str:
    """Readable parameter ids."""
    return x.name if isinstance(x, kd.simplex.Pair) else str(x)


def log_probabilities(pair: kd.simplex.Pair, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """log p and log q of a pair of logits, shape (V,)."""
    return tuple(
        torch.log_softmax(torch.as_tensor(np.asarray(x), dtype=dtype), -1)
        for x in (pair.teacher_logits, pair.student_logits)
    )


def per_position(loss: Loss, pair: kd.simplex.Pair) -> float:
    return loss.per_position(*log_probabilities(pair)).item()


def broken(loss: Loss, **changes) -> Loss:
    """The same divergence with part of its record replaced: what a test must notice."""
    return dataclasses.replace(RECORDS[loss.name], **changes)(**loss.parameters)


def _logits(size: int, extreme: bool) -> st.SearchStrategy[np.ndarray]:
    ordinary = st.floats(-30, 30, width=32)
    special = st.sampled_from([0.0, 1.0, 40.0, 95.0, 200.0, 720.0, 800.0, -720.0, -np.inf])
    return hnp.arrays(np.float64, size, elements=st.one_of(ordinary, special) if extreme else ordinary).filter(
        lambda z: np.isfinite(z).any()
    )


@st.composite
def pairs(draw, max_size: int = 6, extreme: bool = False) -> kd.simplex.Pair:
    """Teacher and student logits: interior ones, or with ties, -inf, and gaps up to 1520."""
    size = draw(st.integers(1, max_size))
    return kd.simplex.Pair("drawn", draw(_logits(size, extreme)), draw(_logits(size, extreme)))
