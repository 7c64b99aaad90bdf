"""Theorem 1 of chapter 01: EM, JS, KL and TV between the lines, and what converges when they approach."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr

from kdtheory.divergences import FACTORIES
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric

_EXAMPLE = "zhao2024week8, Example 1; arjovsky2017wgan, Example 1"
_ROUNDING = "float64 sums of at most 40 terms below 1"
DOMAIN = "P_θ: the law of (θ, Z), Z uniform on [0, 1]"
PROOF = Anchor("01_parallel_lines#lines", sha256="15a21201a7ada4b3")

theta, t = sp.Symbol("theta", real=True), sp.Symbol("t", positive=True)
TV = sp.Piecewise((0, sp.Eq(theta, 0)), (1, True))
JS = sp.log(2) * TV


def _matched(rng: np.random.Generator, shift: float) -> tuple[float, dict[str, Any]]:
    """Optimal matching of n points on each line: at equal heights the cost is |θ|, at random ones no less."""
    theta, heights = rng.normal(), rng.random((2, 20))
    costs = []
    for target in heights:
        cost = np.hypot(theta, heights[0][:, None] - target)
        costs.append(cost[linear_sum_assignment(cost)].mean())
    wanted = abs(theta) + shift
    return float(max(abs(costs[0] - wanted), wanted - costs[1])), {"theta": theta}


def attempt_matching(shift: float) -> Evidence:
    """Try to find a matching of the lines that contradicts W = |θ| + shift."""
    return numeric.attempt(
        lambda rng: _matched(rng, shift),
        draws=100,
        oracle="scipy.optimize.linear_sum_assignment on 20 points of each line",
        tolerance=1e-13,
        because=_ROUNDING,
        says="the optimal matching costs |θ| at equal heights and no less at others",
    )


@claim(
    "parallel_lines.earth-mover",
    statement=r"W(\mathbb P_0, \mathbb P_\theta) = |\theta|",
    source=_EXAMPLE,
    expected=Verdict.PROVED,
    rows=("S0-07",),
    domain=DOMAIN,
    proof=PROOF,
)
def earth_mover() -> Evidence:
    """Every coupling moves the mean by θ; the horizontal one moves every point by exactly |θ|."""
    return attempt_matching(0.0)


@earth_mover.control
def _() -> Evidence:
    """A distance of |θ| + 1/10 must not pass."""
    return attempt_matching(0.1)


def _partitioned(rng: np.random.Generator, separated: bool) -> tuple[float, Any, Any]:
    """θ, and the masses of P_0 and P_θ on a random grid of the plane, with a cut between the lines or without."""
    theta = float(rng.choice([-1, 1]) * 10 ** rng.uniform(-12, 1))
    cuts = np.append(rng.uniform(-20, 20, size=4), theta / 2 if separated else [])
    cuts = np.sort(cuts[separated | (cuts < -10) | (cuts > 10)])
    heights = np.diff(np.concatenate([[0.0], np.sort(rng.random(3)), [1.0]]))
    masses = [np.outer(np.arange(cuts.size + 1) == np.searchsorted(cuts, at), heights) for at in (0.0, theta)]
    return theta, masses[0].ravel(), masses[1].ravel()


def _values(p: Any, q: Any) -> dict[str, float]:
    """The four numbers by scipy. KL in both directions must be infinite, so the smaller one counts."""
    js = float(jensenshannon(p, q)) ** 2
    return {
        "js": js,
        "js without ½": 2 * js,
        "kl": float(min(rel_entr(p, q).sum(), rel_entr(q, p).sum())),
        "tv": float(np.abs(p - q).sum()) / 2,
    }


def attempt_partition(name: str, wanted: float, separated: bool = True) -> Evidence:
    """Try to find a grid (separating the lines, or not) on which a divergence is not the wanted number."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        theta, p, q = _partitioned(rng, separated)
        found = _values(p, q)[name]
        return (0.0 if found == wanted else abs(found - wanted)), {"theta": theta}

    return numeric.attempt(
        violation,
        draws=200,
        oracle="scipy (jensenshannon, rel_entr) on random grids that separate the lines, |θ| from 1e-12 to 10",
        tolerance=1e-13,
        because=_ROUNDING,
        says=f"{name} = {wanted:.4g}",
    )


def _of_disjoint(name: str) -> float:
    """The library's value at the coarsest separating partition, (1, 0) against (0, 1)."""
    return float(FACTORIES[name]().value(np.array([1.0, 0.0]), np.array([0.0, 1.0])))


def _library(name: str, wanted: float) -> Evidence:
    return numeric.compare(
        _of_disjoint(name),
        wanted,
        oracle="closed form",
        tolerance=1e-15,
        because="one rounding",
        says=f"library's {name}",
    )


@claim(
    "parallel_lines.jensen-shannon",
    statement=r"JS(\mathbb P_0, \mathbb P_\theta) = \log 2 \text{ if } \theta \ne 0,"
    r" \text{ and } 0 \text{ if } \theta = 0",
    source=_EXAMPLE,
    expected=Verdict.PROVED_IF,
    rows=("S0-08",),
    domain=DOMAIN,
    condition=r"JS = ½ KL(\cdot, m) + ½ KL(\cdot, m); the WGAN paper defines it without the two ½",
    proof=PROOF,
)
def jensen_shannon() -> list[Evidence]:
    """Two half-weighted terms of log 2 each; the sum without weights is 2 log 2."""
    term = sp.log(1 / sp.Rational(1, 2))
    return [
        exact.check((term + term) / 2, "==", sp.log(2), role="inside condition", says="with ½: JS = log 2"),
        exact.check(term + term, "==", sp.log(2), role="outside condition", says="without ½: JS = log 2"),
        _library("jsd", float(np.log(2))),
        attempt_partition("js", float(np.log(2))),
    ]


@jensen_shannon.control
def _() -> Evidence:
    """The WGAN paper's own definition must not give log 2."""
    return attempt_partition("js without ½", float(np.log(2)))


@claim(
    "parallel_lines.kl",
    statement=r"KL(\mathbb P_\theta \| \mathbb P_0) = KL(\mathbb P_0 \| \mathbb P_\theta) = +\infty"
    r" \text{ if } \theta \ne 0, \text{ and } 0 \text{ if } \theta = 0",
    source=_EXAMPLE,
    expected=Verdict.PROVED,
    rows=("S0-09",),
    domain=DOMAIN,
    proof=PROOF,
)
def kl() -> list[Evidence]:
    """Each law puts mass 1 where the other puts 0."""
    return [_library("fkl", np.inf), _library("rkl", np.inf), attempt_partition("kl", np.inf)]


@kl.control
def _() -> Evidence:
    """A grid whose cells hold both lines must not show an infinite divergence."""
    return attempt_partition("kl", np.inf, separated=False)


@claim(
    "parallel_lines.total-variation",
    statement=r"\delta(\mathbb P_0, \mathbb P_\theta) = 1 \text{ if } \theta \ne 0,"
    r" \text{ and } 0 \text{ if } \theta = 0",
    source=_EXAMPLE,
    expected=Verdict.PROVED,
    rows=("S0-10",),
    domain=DOMAIN,
    proof=PROOF,
)
def total_variation() -> list[Evidence]:
    """The event that the first coordinate is 0 separates the two laws."""
    return [_library("tvd", 1.0), attempt_partition("tv", 1.0)]


@total_variation.control
def _() -> Evidence:
    """A grid whose cells hold both lines must not show 1."""
    return attempt_partition("tv", 1.0, separated=False)


def along(value: sp.Expr, sequence: sp.Expr) -> sp.Expr:
    """Limit of a function of θ along a sequence in t."""
    return sp.limit(value.subs(theta, sequence), t, sp.oo)


@claim(
    "parallel_lines.convergence",
    statement=r"\text{if } \theta_t \to 0, \text{ then } \mathbb P_{\theta_t} \to \mathbb P_0 \text{ in the EM"
    r" distance, but not at all in JS, KL, reverse KL or TV}",
    source=_EXAMPLE,
    expected=Verdict.PROVED_IF,
    rows=("S0-11",),
    domain=DOMAIN,
    condition=r"\theta_t \ne 0 for infinitely many t",
    uses=tuple(f"parallel_lines.{name}" for name in ("earth-mover", "jensen-shannon", "kl", "total-variation")),
    proof=PROOF,
)
def convergence() -> list[Evidence]:
    """EM tends to 0 with |θ_t|; the others stay where they are for every θ_t ≠ 0."""
    return [
        exact.check(along(sp.Abs(theta), 1 / t), "==", 0, role="inside condition", says="θ_t = 1/t: lim EM"),
        exact.check(along(TV, 1 / t), ">", 0, role="inside condition", says="θ_t = 1/t: lim TV"),
        exact.check(along(TV, sp.Integer(0)), ">", 0, role="outside condition", says="θ_t = 0: lim TV > 0"),
        attempt_partition("tv", 1.0),
    ]


@convergence.control
def _() -> Evidence:
    """A limit of 0 for TV along θ_t = 1/t must not pass."""
    return exact.check(along(TV, 1 / t), "==", 0, says="lim TV")


def slope_away_from_zero(value: sp.Expr) -> sp.Expr:
    """Derivative in θ at θ = 1/10."""
    return sp.diff(value.subs(theta, sp.Rational(1, 10) + t), t)
