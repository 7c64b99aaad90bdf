"""Theorem 1 of chapter 04: KL, cross-entropy and likelihood."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from kdtheory.claims.geometry import distances as d
from kdtheory.claims.oracles import exact_kl
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact

_PROOF = Anchor("04_geometry#cross-entropy", sha256="16d2322d89aae96e")
_KLD, _RKLD = "lossdesigns, KLD", "lossdesigns, RKLD"


def _identity_fails_by(sign: int) -> d.Fails:
    """KL(p, q) = CE(p, q) - H(p), and the same for (q, p); both infinite together."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q = d.pair(rng)
        gaps = []
        for a, b in ((p, q), (q, p)):
            left, right = d.kl(a, b), d.cross_entropy(a, b) - sign * d.entropy(a)
            gaps.append(0.0 if left == right else abs(left - right))
        return max(gaps), d.point(p, q)

    return violation


@claim(
    "geometry.cross-entropy-minus-entropy",
    statement=r"KL(p, q) = E_p[-\log q] - H(p),\qquad KL(q, p) = E_q[-\log p] - H(q)",
    source=f"{_KLD}; {_RKLD}",
    expected=Verdict.PROVED,
    rows=("S1-01", "S1-05"),
    domain="all p, q; as numbers in [0, ∞]",
    proof=_PROOF,
)
def cross_entropy_minus_entropy() -> Evidence:
    """The entropy is finite, so the sum splits, or both sides are infinite."""
    return d.attempt(_identity_fails_by(1), "KL = CE - H in both directions")


@cross_entropy_minus_entropy.control
def _() -> Evidence:
    """CE + H must not pass."""
    return d.attempt(_identity_fails_by(-1), "KL = CE + H")


def _minimisers_differ(swap: bool) -> d.Fails:
    """A random one-parameter family of students: where KL and CE are smallest, by golden section on each."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(3, 7))
        p, start, slope = d.law(rng, size, zeros=False), rng.normal(size=size), rng.normal(size=size)

        def best(value: Any) -> float:
            found = minimize_scalar(lambda t: value(softmax(start + t * slope)), bounds=(-9, 9), method="bounded")
            return float(found.x)

        first = best(lambda q: d.kl(q, p) if swap else d.kl(p, q))
        second = best(lambda q: d.cross_entropy(q, p) if swap else d.cross_entropy(p, q))
        return abs(first - second), {"p": p.tolist(), "start": start.tolist(), "slope": slope.tolist()}

    return violation


def _attempt_minimisers(swap: bool) -> Evidence:
    return d.attempt(
        _minimisers_differ(swap),
        "one minimiser for KL and CE" + (", reverse" if swap else ""),
        draws=40,
        tolerance=1e-3,
        oracle="scipy.optimize.minimize_scalar on either function along a line of logits",
        because="bounded search stops at xatol = 1e-5, and a flat minimum costs up to the root of 1e-8 in t",
    )


@claim(
    "geometry.same-minimisers",
    statement=r"\arg\min_\theta KL(p, q_\theta) = \arg\min_\theta E_p[-\log q_\theta]"
    r" = \arg\max_\theta E_p[\log q_\theta]",
    source=_KLD,
    expected=Verdict.PROVED,
    rows=("S1-02",),
    domain="every set of students; p fixed",
    uses=("geometry.cross-entropy-minus-entropy",),
    proof=_PROOF,
)
def same_minimisers() -> Evidence:
    """They differ by the teacher's entropy, which is finite and does not depend on the student."""
    return _attempt_minimisers(False)


@same_minimisers.control
def _() -> Evidence:
    """The same for reverse KL, whose entropy is the student's, must not pass."""
    return _attempt_minimisers(True)


def _log_likelihood(samples: list[int], q: list[Any]) -> sp.Expr:
    return sum((sp.log(sp.sympify(q[token])) for token in samples), sp.Integer(0))


_HALF, _NINE = ["1/2", "1/2"], ["9/10", "1/10"]


def _empirical_fails_by(with_entropy: bool) -> d.Fails:
    """Σ_k log q(x_k) = -n (KL(p̂, q) + H(p̂)) for random samples."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q = d.pair(rng, zeros=False)
        x = rng.choice(p.size, size=int(rng.integers(1, 30)), p=p)
        counted = np.bincount(x, minlength=p.size) / x.size
        right = d.kl(counted, q) + (d.entropy(counted) if with_entropy else 0.0)
        return abs(np.log(q[x]).mean() + right), d.point(p, q, samples=x.tolist())

    return violation


def _attempt_empirical(with_entropy: bool) -> Evidence:
    return d.attempt(_empirical_fails_by(with_entropy), "mean log-likelihood = -KL(p̂, q) - H(p̂)")


@claim(
    "geometry.samples-for-expectation",
    statement=r"\arg\max_\theta E_p[\log q_\theta] \approx \arg\max_\theta \sum_x \log q_\theta(x)",
    source=_KLD,
    expected=Verdict.PROVED_IF,
    rows=("S1-03",),
    domain="students in a closed set; ≈: limit points of the maximisers, almost surely",
    condition="x runs through independent samples of p, not once through the vocabulary",
    uses=("geometry.cross-entropy-minus-entropy",),
    proof=_PROOF,
)
def samples_for_expectation() -> list[Evidence]:
    """Ten samples in proportion 9 : 1 prefer q = p to the uniform student; the sum over the support does not."""
    samples = [0] * 9 + [1]
    return [
        exact.check(
            _log_likelihood(samples, _NINE),
            ">",
            _log_likelihood(samples, _HALF),
            role="inside condition",
            says="p = (9/10, 1/10), samples in this proportion: Σ log q at q = p against q uniform",
        ),
        exact.check(
            _log_likelihood([0, 1], _NINE),
            ">",
            _log_likelihood([0, 1], _HALF),
            role="outside condition",
            says="each token once: Σ log q at q = p exceeds that at q uniform",
        ),
        _attempt_empirical(True),
    ]


@samples_for_expectation.control
def _() -> Evidence:
    """Without the entropy of the samples it must not pass."""
    return _attempt_empirical(False)


@claim(
    "geometry.maximum-likelihood",
    statement=r"= \arg\max_\theta \prod_x q_\theta(x):\ \text{minimising KL, minimising cross-entropy and maximum}"
    r"\text{ likelihood are equivalent}",
    source=_KLD,
    expected=Verdict.PROVED_IF,
    rows=("S1-04",),
    domain="every set of students",
    condition="the first argument of KL is the empirical distribution of the samples"
    " (the teacher itself only in the limit of many)",
    uses=("geometry.samples-for-expectation",),
    proof=_PROOF,
)
def maximum_likelihood() -> list[Evidence]:
    """Exactly so for the empirical distribution; after one toss of a fair coin likelihood prefers the sure student."""
    toss, sure = [0], [1, 0]
    return [
        exact.check(
            -exact_kl(sure, _HALF) - 0,
            "==",
            _log_likelihood(toss, _HALF),
            role="inside condition",
            says="one toss: -KL(p̂, q) - H(p̂) against log-likelihood at q = (1/2, 1/2)",
        ),
        exact.check(
            _log_likelihood(toss, _HALF),
            ">=",
            _log_likelihood(toss, sure),
            role="outside condition",
            says="fair coin, one toss: the minimiser q = p of KL(p, ·) has the largest likelihood",
        ),
        _attempt_empirical(True),
    ]


@maximum_likelihood.control
def _() -> Evidence:
    """A likelihood that is largest at the teacher for one toss must not pass."""
    return exact.check(_log_likelihood([0], _HALF), ">=", _log_likelihood([0], [1, 0]), says="likelihood at q = p")
