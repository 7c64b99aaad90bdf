"""Theorem 1, part 4, of chapter 05: which laws a softmax has, what is discrete in it, where forward KL is least."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp
from scipy.special import rel_entr

from kdtheory.claims.gradients import oracles
from kdtheory.claims.modes.realisable import PROOF, TEACHER
from kdtheory.claims.oracles import exact_kl
from kdtheory.ledger import Evidence, Verdict, claim, exact, numeric, symbolic


def _reached(rng: np.random.Generator, temperature: float) -> tuple[float, dict[str, Any]]:
    target = rng.dirichlet(np.full(int(rng.integers(2, 40)), 0.3)) + 1e-12
    target /= target.sum()
    return float(np.abs(oracles.softmax(temperature * np.log(target)) / target - 1).max()), {"p": target.tolist()}


def _attempt_shape(temperature: float) -> Evidence:
    return numeric.attempt(
        lambda rng: _reached(rng, temperature),
        draws=100,
        oracle="the target law itself",
        tolerance=1e-12,
        because="exp(log p) in float64, relative, logs up to 28",
        says="softmax(log p) = p",
    )


@claim(
    "modes.any-shape",
    statement=r"\text{the output of a softmax need not follow a Gaussian distribution}",
    source="lossdesigns, AKL slides; wu2024akl, Section 3",
    expected=Verdict.PROVED,
    rows=("S1-19",),
    domain="every law with full support is softmax(log p); a law with a valley between two peaks is one of them",
    proof=PROOF,
)
def any_shape() -> list[Evidence]:
    """A discretised Gaussian in the position has q_2² >= q_1 q_3; (.495, .01, .495) has not."""
    a, b, c = TEACHER
    return [
        exact.check(b**2, "<", a * c, says="(.495, .01, .495) is not log-concave in the position, as Gaussians are,"),
        _attempt_shape(1.0),
    ]


@any_shape.control
def _() -> Evidence:
    """At temperature 1/2 the softmax of log p is another law."""
    return _attempt_shape(2.0)


_x, _c = sp.Symbol("x", real=True), sp.Symbol("c", positive=True)


@claim(
    "modes.logits-are-reals",
    statement=r"\text{the distribution of the logits is discrete}",
    source="lossdesigns, AKL slides",
    expected=Verdict.CORRECTED,
    rows=("S1-20",),
    domain="right: the law of the token is discrete; the logits are real numbers, and any real vector is one",
    proof=PROOF,
)
def logits_are_reals() -> list[Evidence]:
    """One logit z = x of a context x uniform on [0, 1]: no value has positive probability; tokens' masses add to 1."""
    at = sp.Rational(1, 2)
    return [
        exact.check(
            sp.integrate(1, (_x, at, at)),
            ">",
            0,
            role="refutes as written",
            says="z = x, x uniform on [0, 1]: the value 1/2 carries mass, as an atom of a discrete law must,",
        ),
        symbolic.identity(
            sum(oracles.symbolic_softmax(3).q),
            sp.Integer(1),
            role="attempted refutation",
            scope="V = 3",
            says="the masses of the tokens add to 1",
        ),
        _attempt_shape(1.0),
    ]


@logits_are_reals.control
def _() -> Evidence:
    """An atom that is there must not pass as missing: a context with two values puts half the mass on one logit."""
    return exact.check(sp.Rational(1, 2), ">", 0, role="refutes as written", says="a two-valued context's atom")


def _optimality(sign: int) -> list[Evidence]:
    student = oracles.symbolic_softmax(3)
    divergence = sum((a * sp.log(a / b) for a, b in zip(student.p, student.q, strict=True)), sp.Integer(0))
    return [
        symbolic.identity(
            student.derivative(divergence, i),
            sign * (student.q[i] - student.p[i]),
            role="attempted refutation",
            scope="V = 3",
            says=f"∂FKL/∂z_{i + 1} = q_{i + 1} - p_{i + 1}",
        )
        for i in range(3)
    ]


def _fkl_of(p: Any, q: Any) -> float:
    return float(rel_entr(p, q).sum())


def _beats_p(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    at = oracles.draw(rng)
    return _fkl_of(at.p, at.p) - _fkl_of(at.p, at.q), at.point()


@claim(
    "modes.larger-than-large",
    statement=r"p(x) \text{ large} \Rightarrow q(x) \text{ must be even larger than } p(x) \text{ to minimise } FKL",
    source="forumpost, forward KL",
    expected=Verdict.CORRECTED,
    rows=("S3-01",),
    domain=r"right: the optimum is q = p; \partial FKL/\partial z = q - p pushes down every token with q > p",
    uses=("modes.realisable",),
    proof=PROOF,
)
def larger_than_large() -> list[Evidence]:
    """p = (3/5, 2/5): moving on to q = (7/10, 3/10) costs; the optimum is p itself."""
    p = ["3/5", "2/5"]
    return [
        exact.check(
            exact_kl(p, ["7/10", "3/10"]),
            "<=",
            exact_kl(p, p),
            role="refutes as written",
            says="FKL at q = (7/10, 3/10) is no larger than at q = p = (3/5, 2/5)",
        ),
        *_optimality(1),
        numeric.attempt(
            _beats_p,
            draws=200,
            oracle="scipy.special.rel_entr",
            tolerance=0.0,
            because="no rounding: it is 0 at q = p",
            says="no student beats q = p",
        ),
    ]


@larger_than_large.control
def _() -> list[Evidence]:
    """A gradient of the other sign, p - q, must not pass."""
    return _optimality(-1)
