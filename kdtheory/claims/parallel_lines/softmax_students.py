"""Theorem 3 of chapter 01: low dimension is no obstacle, and a softmax overlaps with everything."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp
from scipy.special import expit, log_softmax, rel_entr

from kdtheory.divergences import FACTORIES
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, definition, exact, numeric

_SOFTMAX = Anchor("01_parallel_lines#softmax-students", sha256="b8a82cd04174ff83")

definition(
    "parallel_lines.manifold-hypothesis",
    statement=r"\text{all this rests on the manifold hypothesis: the law of language is a manifold in a"
    r" high-dimensional space}",
    source="zhao2024week8, second summary slide",
    rows=("S0-14",),
)


def _entries() -> dict[str, sp.Expr]:
    """dD/dz of a coin q = x/(1 + x), x = exp(z), against a fair one, from the definitions."""
    x = sp.Symbol("x", positive=True)
    pairs = [(sp.Rational(1, 2), x / (1 + x)), (sp.Rational(1, 2), 1 / (1 + x))]
    values = {
        "FKL": sum(a * sp.log(a / b) for a, b in pairs),
        "RKL": sum(b * sp.log(b / a) for a, b in pairs),
        "JSD": sum(a * sp.log(2 * a / (a + b)) + b * sp.log(2 * b / (a + b)) for a, b in pairs) / 2,
    }
    return {name: x * sp.diff(value, x) for name, value in values.items()}


def _wrong_direction(names: tuple[str, ...], sign: int) -> Any:
    """By how much dD/dz fails to have the sign of q - p, for a random coin."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p_, z = rng.uniform(0.01, 0.99), rng.uniform(-8, 8)
        given = {"teacher_logits": np.log([p_, 1 - p_]), "student_logits": np.array([z, 0.0])}
        slopes = [float(FACTORIES[name]().logit_gradient(**given)[0]) for name in names]
        return max(-sign * slope * np.sign(expit(z) - p_) for slope in slopes), {"p": p_, "z": z}

    return violation


def _attempt_direction(sign: int) -> Evidence:
    return numeric.attempt(
        _wrong_direction(("fkl", "rkl", "jsd"), sign),
        draws=500,
        oracle="the sign of q - p",
        tolerance=0.0,
        because="a sign",
        says="FKL, RKL and JSD push the student's logit towards the teacher's",
    )


@claim(
    "parallel_lines.low-dimensional",
    statement=r"\text{so with RKLD, FKLD or JSD one cannot learn distributions on low-dimensional manifolds}",
    source="zhao2024week8, second summary slide",
    expected=Verdict.CORRECTED,
    rows=("S0-13",),
    domain="teacher and student on the same points or the same line; a coin has a support of dimension 0",
    uses=("parallel_lines.no-usable-gradient",),
    proof=_SOFTMAX,
)
def low_dimensional() -> list[Evidence]:
    """A coin at 4/5 that should be fair: all three have a gradient, and it points to the teacher, from everywhere."""
    found = [
        exact.check(entry, "==", 0, at={"x": 4}, role="refutes as written", says=f"coin at 4/5: d {name}/dz = 0")
        for name, entry in _entries().items()
    ]
    return [*found, _attempt_direction(1)]


@low_dimensional.control
def _() -> Evidence:
    """Gradients that push away from the teacher must not pass."""
    return _attempt_direction(-1)


def _full_support_fails_by(slack: float) -> Any:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(2, 20))
        z, p = rng.uniform(0, 50) * rng.normal(size=size), rng.dirichlet(np.full(size, 0.1))
        p = np.eye(size)[z.argmin()] if rng.random() < 0.5 else p
        divergence = -float(np.where(p > 0, p * log_softmax(z), 0).sum()) + float(rel_entr(p, 1).sum())
        return divergence - slack * (np.log(size) + np.ptp(z)), {"p": p.tolist(), "z": z.tolist()}

    return violation


def _attempt_full_support(slack: float) -> Evidence:
    return numeric.attempt(
        _full_support_fails_by(slack),
        draws=500,
        oracle="scipy.special.log_softmax and rel_entr",
        tolerance=1e-12,
        because="float64 sums of at most 20 terms of size 100",
        says="KL(p, softmax(z)) ≤ log V + range(z)",
    )


@claim(
    "parallel_lines.softmax-has-full-support",
    statement=r"D_{KL}(p, \mathrm{softmax}(z)) \le \log V + \max_i z_i - \min_i z_i < \infty",
    source="kdtheory, Theorem 3",
    expected=Verdict.PROVED,
    domain="finite logits, every p",
    proof=_SOFTMAX,
)
def softmax_has_full_support() -> Evidence:
    """No overlap never happens to a softmax with finite logits."""
    return _attempt_full_support(1.0)


@softmax_has_full_support.control
def _() -> Evidence:
    """Nine tenths of the bound must not pass."""
    return _attempt_full_support(0.9)
