"""Theorem 1 of chapter 05: a student that can be the teacher has one optimum for all losses; what that leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import sympy as sp
from scipy.optimize import minimize

from kdtheory.claims.gradients import oracles
from kdtheory.claims.oracles import exact_kl
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric

PROOF = Anchor("05_modes#realisable", sha256="120e53264bf9fdc8")
TEACHER = sp.Matrix(["99/200", "1/100", "99/200"])
_CONVEX = ("fkl", "rkl", "jsd", "tvd", "skl", "srkl", "chi2", "neyman", "hellinger2", "amari")


def log_linear(t: str) -> list[sp.Expr]:
    """q_t ∝ (e^t, 1, e^{-t})."""
    weights = [sp.exp(sp.Rational(t)), sp.Integer(1), sp.exp(-sp.Rational(t))]
    return [weight / sum(weights) for weight in weights]


def _bound_fails(power: float) -> Any:
    """D <= ‖p/q‖^power ‖∇D‖ for a random loss, teacher and student; the gradient by complex steps."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        name = str(rng.choice(_CONVEX))
        at = oracles.draw(rng, spread=float(rng.uniform(0.1, 4)))
        value = float(np.real(oracles.DEFINITIONS[name](at.p, at.q, **oracles.PARAMETERS.get(name, {}))))
        size = np.linalg.norm(oracles.logit_gradient(name, at.p, at.z))
        bound = float(np.linalg.norm(at.p / at.q) ** power * size)
        return (value - bound) / max(value, 1e-6), at.point(loss=name)

    return violation


def _attempt(power: float) -> Evidence:
    return numeric.attempt(
        _bound_fails(power),
        draws=300,
        oracle=oracles.COMPLEX_STEP,
        tolerance=1e-9,
        because="relative rounding of float64 sums over at most 12 tokens, where D is at least 1e-6",
        says="D <= ‖p/q‖ ‖∇D‖ for ten convex losses",
    )


@claim(
    "modes.realisable",
    statement=r"D \text{ convex in } q,\ D(p) = 0,\ q = \mathrm{softmax}(z):\quad"
    r" D(q) \le -\sum_i \tfrac{p_i}{q_i} \tfrac{\partial D}{\partial z_i} \le \|p/q\|_2 \|\nabla_z D\|_2",
    source="kdtheory, Theorem 1",
    expected=Verdict.PROVED,
    domain="finite logits, one free logit per token; D differentiable at q, or any subgradient",
    proof=PROOF,
)
def realisable() -> Evidence:
    """So every stationary point is a global minimum: q = p for every loss that vanishes only there."""
    return _attempt(1.0)


@realisable.control
def _() -> Evidence:
    """Without the factor ‖p/q‖ the bound must fail: a confident wrong student has a small gradient."""
    return _attempt(0.0)


def _optimum(name: str, teacher: Any) -> Any:
    """Minimiser over free logits, by BFGS with the typed definition."""
    definition, given = oracles.DEFINITIONS[name], oracles.PARAMETERS.get(name, {})
    value = lambda z: float(np.real(definition(teacher, oracles.softmax(z), **given)))  # noqa: E731
    found = minimize(value, np.zeros(teacher.size), jac=lambda z: oracles.logit_gradient(name, teacher, z), tol=1e-12)
    return oracles.softmax(found.x)


def _one_minimiser(names: Sequence[str], target: Any, role: Any = "inside condition") -> Evidence:
    teacher = np.array(TEACHER, dtype=float).ravel()
    return numeric.compare(
        [_optimum(name, teacher) for name in names],
        [target] * len(names),
        oracle="the teacher itself",
        tolerance=1e-5,
        because="BFGS stops at a gradient of 1e-12 or where float64 values no longer fall; conditioning 1/p_min = 100",
        role=role,
        says=f"free logits, minimisers of {', '.join(names)}",
    )


@claim(
    "modes.same-minimiser",
    statement=r"\text{softmax outputs are discrete and need not be Gaussian, so after enough training forward and"
    r" reverse KL give the same result}",
    source="lossdesigns, AKL slides; wu2024akl, Section 3",
    expected=Verdict.PROVED_IF,
    rows=("S1-21",),
    condition=r"the student's family contains the teacher (or has it as a limit); discreteness is not the reason",
    uses=("modes.realisable", "modes.log-linear"),
    proof=PROOF,
)
def same_minimiser() -> list[Evidence]:
    """Discrete and not Gaussian, but log-linear: forward KL stays uniform, reverse KL moves to one mode."""
    return [
        _one_minimiser(("fkl", "rkl", "jsd", "hellinger2"), np.array(TEACHER, dtype=float).ravel()),
        _attempt(1.0),
        exact.check(
            exact_kl(log_linear("0"), TEACHER),
            "<=",
            exact_kl(log_linear("7/2"), TEACHER),
            role="outside condition",
            says="q_t ∝ (e^t, 1, e^-t): t = 0, forward KL's optimum, is at least as good for reverse KL as t = 7/2",
        ),
    ]


@same_minimiser.control
def _() -> Evidence:
    """The uniform law must not pass as the common minimiser."""
    return _one_minimiser(("fkl", "rkl"), np.full(3, 1 / 3))


@claim(
    "modes.same-objective",
    statement=r"\text{mean- and mode-seeking do not hold for language models: forward and reverse KL share the same}"
    r" \text{ optimisation objective}",
    source="lossdesigns, AKL slides; wu2024akl, Section 3",
    expected=Verdict.CORRECTED,
    rows=("S1-23",),
    domain="right: different objectives with one minimiser if the family contains p, else in general different ones",
    uses=("modes.realisable", "modes.log-linear"),
    proof=PROOF,
)
def same_objective() -> list[Evidence]:
    """Two tokens show that the objectives differ; three tokens and one parameter, that the minimisers may."""
    p, q = ["1/2", "1/2"], ["9/10", "1/10"]
    return [
        exact.check(
            exact_kl(p, q), "==", exact_kl(q, p), role="refutes as written", says="the objectives at one student"
        ),
        exact.check(
            exact_kl(log_linear("0"), TEACHER),
            "<=",
            exact_kl(log_linear("7/2"), TEACHER),
            role="refutes as written",
            says="one minimiser for a log-linear student",
        ),
        _attempt(1.0),
    ]


@same_objective.control
def _() -> Evidence:
    """The two divergences at a point where they agree must not pass as a refutation."""
    p, q = ["1/4", "3/4"], ["3/4", "1/4"]
    return exact.check(
        exact_kl(p, q), "==", exact_kl(q, p), role="refutes as written", says="the objectives at mirrored laws"
    )


@claim(
    "modes.no-conflict",
    statement=r"\text{no conflict: the earlier conclusions (mean- and mode-seeking) rest on stronger assumptions}",
    source="lossdesigns, AKL slides",
    expected=Verdict.PROVED,
    rows=("S1-26",),
    domain=r"teacher (.495, .01, .495): minimisers agree over all students and differ over the one-parameter family",
    scope="instance",
    uses=("modes.realisable", "modes.log-linear"),
)
def no_conflict() -> list[Evidence]:
    """One teacher, two families: the assumption about the student decides, not the loss."""
    teacher = list(TEACHER)
    return [
        exact.check(
            exact_kl(log_linear("7/2"), teacher),
            "<",
            exact_kl(log_linear("0"), teacher),
            says="log-linear, RKL: t = 7/2 before t = 0",
        ),
        exact.check(
            exact_kl(teacher, log_linear("0")),
            "<",
            exact_kl(teacher, log_linear("7/2")),
            says="log-linear, FKL: t = 0 before t = 7/2",
        ),
        exact.check(exact_kl(teacher, teacher), "==", 0, says="over all students both reach 0, at q = p:"),
    ]


@no_conflict.control
def _() -> Evidence:
    """Forward KL preferring the one-sided student must not pass."""
    return exact.check(exact_kl(list(TEACHER), log_linear("7/2")), "<", exact_kl(list(TEACHER), log_linear("0")))
