"""OTT-JAX: the log-domain solver in float64, differentiated by the envelope, implicitly, and by unrolling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial

import jax
import numpy as np
from jax import numpy as jnp
from ott.geometry import geometry
from ott.problems.linear import linear_problem
from ott.solvers.linear import implicit_differentiation, sinkhorn

from tests.benchmarks.peers.adapters import Answer, Peer
from tests.benchmarks.peers.problems import Pair

THRESHOLD = 1e-10  # of the L1 marginal error; its default, 1e-3, is one more row


def solver(differentiation: str, threshold: float) -> sinkhorn.Sinkhorn:
    """ "envelope" holds the potentials fixed, "implicit" uses the optimality conditions, "unrolled" every iteration."""
    implicit = None if differentiation == "unrolled" else implicit_differentiation.ImplicitDiff()
    return sinkhorn.Sinkhorn(
        threshold=threshold, max_iterations=20_000 if implicit else 2_000,
        implicit_diff=implicit, use_danskin=differentiation == "envelope",
    )  # fmt: skip


@cache
def compiled(value_name: str, differentiation: str, threshold: float) -> Callable:
    """(q, p, C, epsilon) -> ((value, plan), gradient in q), compiled once."""

    def value(q: jax.Array, p: jax.Array, C: jax.Array, epsilon: float) -> tuple[jax.Array, jax.Array]:
        problem = linear_problem.LinearProblem(geometry.Geometry(cost_matrix=C, epsilon=epsilon), p, q)
        found = solver(differentiation, threshold)(problem)
        return getattr(found, value_name), found.matrix

    return jax.jit(jax.value_and_grad(value, has_aux=True))


def run(value_name: str, differentiation: str, threshold: float, pair: Pair) -> Answer:
    with jax.enable_x64(True):
        call = compiled(value_name, differentiation, threshold)
        (found, plan), gradient = call(*(jnp.asarray(x) for x in (pair.q, pair.p, pair.C)), pair.epsilon)
        return Answer(float(found), np.asarray(gradient), np.asarray(plan))


FUNCTIONAL = {"reg_ot_cost": "relative", "ent_reg_cost": "entropic", "primal_cost": "sharp"}


def peers() -> list[Peer]:
    return list(_peers())


def _peers() -> Iterator[Peer]:
    for name, functional in FUNCTIONAL.items():
        for how in ("envelope", "implicit", "unrolled") if name == "reg_ot_cost" else ("implicit", "unrolled"):
            call = f"Sinkhorn, {name}"
            yield Peer("OTT-JAX", call, functional, how, partial(run, name, how, THRESHOLD))
    yield Peer(
        "OTT-JAX", "Sinkhorn, reg_ot_cost, default threshold", "relative", "envelope",
        partial(run, "reg_ot_cost", "envelope", 1e-3),
    )  # fmt: skip
