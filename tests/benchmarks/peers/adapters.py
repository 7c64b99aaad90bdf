"""Every API on trial behind one signature: a pair in, value, gradient in q and plan out."""

from __future__ import annotations

import importlib
import importlib.metadata
import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass

import numpy as np

from tests.benchmarks.peers.problems import Pair


@dataclass(frozen=True)
class Answer:
    """Value, gradient in q (V,) or None where the API gives none, plan (V, V) or None where it gives none."""

    value: float
    gradient: np.ndarray | None = None
    plan: np.ndarray | None = None


@dataclass(frozen=True)
class Peer:
    """One way to call one library.

    `functional` is what its documentation says the value is: w1, sharp, entropic, relative or divergence; ours also
    "reduced relative" and the like. `derivative` says where the gradient comes from.
    """

    library: str
    call: str
    functional: str
    derivative: str
    run: Callable[[Pair], Answer]

    def answer(self, pair: Pair) -> Answer:
        """`run` without its warnings and prints, which are not what is measured."""
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return self.run(pair)


DISTRIBUTIONS = {"POT": "POT", "geomloss": "geomloss", "OTT-JAX": "ott-jax", "kdtheory": "kdtheory"}
_MODULES = {
    "POT": "tests.benchmarks.peers.pot",
    "geomloss": "tests.benchmarks.peers.geomlosses",
    "OTT-JAX": "tests.benchmarks.peers.ott_jax",
    "kdtheory": "tests.benchmarks.peers.own",
}


def installed() -> dict[str, list[Peer]]:
    """Peers of every library that is here; the others are left out, and the caller can see which."""
    found = {}
    for library, distribution in DISTRIBUTIONS.items():
        try:
            importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
        found[library] = importlib.import_module(_MODULES[library]).peers()
    return found


def version(library: str) -> str:
    return importlib.metadata.version(DISTRIBUTIONS[library])


def torch_answer(run: Callable[..., tuple], pair: Pair, differentiable: bool = True) -> Answer:
    """Call `run(C, p, q)` on float64 tensors, q requiring a gradient; it returns (value, plan or None)."""
    import torch

    C, p, q = (torch.from_numpy(x.copy()) for x in (pair.C, pair.p, pair.q))
    value, plan = run(C, p, q.requires_grad_(differentiable))
    gradient = None
    if value.requires_grad:
        (slope,) = torch.autograd.grad(value, q, allow_unused=True)
        gradient = None if slope is None else slope.numpy()
    return Answer(float(value.detach()), gradient, None if plan is None else plan.detach().numpy())


def missing() -> set[str]:
    """Libraries that are not installed."""
    return set(DISTRIBUTIONS) - set(installed())
