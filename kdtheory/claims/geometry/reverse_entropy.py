"""Theorem 2 of chapter 04: reverse KL as cross-entropy minus the student's entropy."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp

from kdtheory.claims.geometry import distances as d
from kdtheory.claims.oracles import exact_kl
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact

_PROOF = Anchor("04_geometry#reverse-entropy", sha256="7260daa46671009b")


def _objective(p: d.Array, q: d.Array, weight: float) -> float:
    return d.cross_entropy(q, p) - weight * d.entropy(q)


def _beaten_by(optimum: Any) -> d.Fails:
    """By how much a random student beats the claimed optimum of CE(q, p) - λ H(q)."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q = d.pair(rng, zeros=False)
        weight = float(rng.choice([0.1, 0.5, 1.0, 2.0]))
        best = optimum(p, weight)
        q = (1 - 0.01) * best + 0.01 * q if rng.random() < 0.5 else q
        return _objective(p, best, weight) - _objective(p, q, weight), d.point(p, q, weight=weight)

    return violation


def _tempered(p: d.Array, weight: float) -> d.Array:
    powered = p ** (1 / weight)
    return powered / powered.sum()


def _attempt_optimum(optimum: Any, says: str) -> Evidence:
    return d.attempt(_beaten_by(optimum), says, oracle="scipy.special.entr and logarithms")


@claim(
    "geometry.reverse-kl-objective",
    statement=r"\arg\min_\theta KL(q_\theta, p) = \arg\min_\theta\, CE(q_\theta, p) - H(q_\theta)",
    source="lossdesigns, RKLD",
    expected=Verdict.PROVED,
    rows=("S1-06",),
    domain="p > 0; every set of students",
    uses=("geometry.cross-entropy-minus-entropy",),
    proof=_PROOF,
)
def reverse_kl_objective() -> list[Evidence]:
    """The two objectives are one function; so the teacher is its minimiser."""
    q = ["1/2", "1/2"]
    direct = exact_kl(q, ["9/10", "1/10"])
    split = -(sp.log(sp.Rational(9, 10)) + sp.log(sp.Rational(1, 10))) / 2 - sp.log(2)
    return [
        exact.check(direct, "==", split, says="p = (9/10, 1/10), q = (1/2, 1/2): KL(q, p) against CE - H"),
        _attempt_optimum(lambda p, weight: _tempered(p, weight), "CE(q, p) - λ H(q) is smallest at q ∝ p^(1/λ)"),
    ]


@reverse_kl_objective.control
def _() -> Evidence:
    """CE(q, p) without the entropy is not reverse KL."""
    split = -(sp.log(sp.Rational(9, 10)) + sp.log(sp.Rational(1, 10))) / 2
    return exact.check(exact_kl(["1/2", "1/2"], ["9/10", "1/10"]), "==", split, says="KL(q, p) = CE(q, p)")


def _corner_fails_by(weight: float) -> d.Fails:
    """With the entropy (weight 1) a student with a zero is beaten by one that moves 1e-6 of its mass there."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(2, 8))
        p, q = d.law(rng, size, zeros=False), d.law(rng, size, zeros=False)
        missing = int(p.argmin())  # the token that cross-entropy alone would never fill
        q[missing] = 0.0
        q /= q.sum()
        step = min(1e-6, float(p[missing]) * 1e-3)
        moved = (1 - step) * q + step * np.eye(size)[missing]
        return _objective(p, moved, weight) - _objective(p, q, weight), d.point(p, q, token=missing)

    return violation


def _attempt_corner(weight: float) -> Evidence:
    return d.attempt(_corner_fails_by(weight), "filling a zero of the student lowers reverse KL")


@claim(
    "geometry.entropy-against-collapse",
    statement=r"H(q) \text{ keeps } KL(q, p) \text{ from degenerating to a tiny region: without it the minimiser is}"
    r"\text{ a Dirac at } \arg\max p, \text{ with it it is } p",
    source="lossdesigns, RKLD: mode-seeking",
    expected=Verdict.PROVED,
    rows=("S1-13",),
    domain="p > 0, students in the whole simplex",
    uses=("geometry.reverse-kl-objective",),
    proof=_PROOF,
)
def entropy_against_collapse() -> list[Evidence]:
    """Cross-entropy alone is linear and prefers the Dirac; with the entropy the teacher wins, and no zero survives."""
    p, dirac = ["3/5", "2/5"], [1, 0]
    alone = [-sum(sp.sympify(b) * sp.log(sp.sympify(a)) for a, b in zip(p, q, strict=True)) for q in (dirac, p)]
    return [
        exact.check(alone[0], "<", alone[1], says="p = (3/5, 2/5), CE(q, p) alone: the Dirac against q = p"),
        exact.check(
            exact_kl(dirac, p), ">", exact_kl(p, p), says="with the entropy: KL at the Dirac against KL at q = p"
        ),
        _attempt_corner(1.0),
        _attempt_optimum(lambda p, weight: _tempered(p, weight), "CE(q, p) - λ H(q) is smallest at q ∝ p^(1/λ)"),
    ]


@entropy_against_collapse.control
def _() -> Evidence:
    """Without the entropy, filling the zero at the least likely token must not help."""
    return _attempt_corner(0.0)
