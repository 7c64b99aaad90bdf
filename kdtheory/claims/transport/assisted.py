"""Section 7.7 of chapter 07: an assistant between teacher and student."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import sympy as sp
from scipy.optimize import minimize_scalar

from kdtheory.claims.geometry import smoothed
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric, symbolic

F = Fraction
LINE = np.array([0.0, 1.0, 3.0, 3.5])


def _w1(p: Any, q: Any) -> float:
    """∫|F − G| on the line."""
    return float(np.diff(LINE) @ np.abs(np.cumsum(p - q)[:-1]))


def _assistant_fails_by(threshold: float) -> Evidence:
    """For W1 and TV: no student below the teacher while the share is at most `threshold`, below the assistant after."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, a, q = rng.dirichlet(np.full(4, 0.7), size=3)
        q = q + (1 - (t := rng.random())) * ((p, a)[int(rng.integers(2))] - q) * (t < 0.8)
        share = float(rng.random())
        wrong = []
        for distance in (_w1, lambda x, y: float(np.abs(x - y).sum()) / 2):
            best = p if share <= threshold else a
            values = [(1 - share) * distance(p, x) + share * distance(a, x) for x in (best, q)]
            wrong += [values[0] - values[1], distance(p, q) - distance(p, a) - distance(a, q)]
        return max(wrong), {"p": p.tolist(), "a": a.tolist(), "q": q.tolist(), "share": share}

    return numeric.attempt(
        violation,
        draws=200,
        oracle="another student",
        tolerance=1e-14,
        because="sums of four numbers below 4",
        says="the assistant does nothing below a share of one half, and replaces the teacher above",
    )


@claim(
    "transport.assisted-metric",
    statement=r"(1 - s) D(p, q) + s D(a, q) \text{ with a metric } D \text{ is smallest at } q = p \text{ for } s <"
    r" \tfrac12, \text{ at } q = a \text{ for } s > \tfrac12;\ D(p, q) \le D(p, a) + D(a, q)",
    source="kdtheory, Theorem 46",
    expected=Verdict.PROVED,
    domain="s = 1/2: all q with D(p, q) + D(q, a) = D(p, a)",
    proof=Anchor("07_transport#assisted-metric", sha256="64521ed63df2c3de"),
)
def assisted_metric() -> list[Evidence]:
    """The triangle inequality, twice."""
    return [_assistant_fails_by(0.5)]


@assisted_metric.control
def _() -> Evidence:
    """A teacher that stays the best up to a share of 3/4 must not pass."""
    return _assistant_fails_by(0.75)


def far(p: tuple[Fraction, ...], q: tuple[Fraction, ...]) -> Fraction:
    """S_∞ for the 0-1 metric: −½ (p − q)ᵀ C (p − q) = ½ Σ (p − q)²."""
    return sum(((a - b) ** 2 for a, b in zip(p, q, strict=True)), F(0)) / 2


def _divergence_fails_by(steps: int, share: float | None) -> Evidence:
    """Many small steps cost less than one large one; with an assistant something on the way to it beats the teacher."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        points = rng.normal(size=(3, 2))
        cost = np.linalg.norm(points[:, None] - points, axis=-1)
        epsilon = float(cost.max() * rng.uniform(0.5, 3))
        p, a = (rng.dirichlet(np.ones(3)) + 0.1 for _ in range(2))
        p, a = p / p.sum(), a / a.sum()
        s = float(rng.uniform(0.1, 0.9)) if share is None else share
        path = [p + (a - p) * k / steps for k in range(steps + 1)]
        walked = sum(smoothed.divergence(x, y, cost, epsilon) for x, y in pairwise(path))
        whole = smoothed.divergence(p, a, cost, epsilon)
        mixed = [
            (1 - s) * smoothed.divergence(p, q, cost, epsilon) + s * smoothed.divergence(a, q, cost, epsilon)
            for q in (p + (a - p) / 2**k for k in (1, 3, 5))
        ]
        wrong = [walked / whole - 0.9, min(mixed) / (s * whole) - 1 if s else 0.0]
        return max(wrong), {"p": p.tolist(), "a": a.tolist(), "epsilon": epsilon, "share": s}

    return numeric.attempt(
        violation,
        draws=4,
        oracle="S_ε by Sinkhorn iterations in log space",
        tolerance=-1e-6,
        because="strict: S_ε to 1e-13 here",
        says="S_ε adds up to less over small steps, and its minimum leaves the teacher for any share",
    )


@claim(
    "transport.assisted-divergence",
    statement=r"S_\varepsilon \text{ violates the triangle inequality; for } a \ne p,\ 0 < s < 1"
    r" \text{ the minimum of } (1 - s) S_\varepsilon(p, \cdot) + s S_\varepsilon(a, \cdot) \text{ is at neither } p"
    r" \text{ nor } a;\ s = 1: \text{ at } a, \text{ wherever } p \text{ is}",
    source="zhuang2025bridging; kdtheory, Theorem 47; feydy2019sinkhorn, Theorem 1",
    expected=Verdict.PROVED,
    domain="symmetric C, exp(-C/ε) positive definite, p, a in the open simplex; limit ε → ∞: least at (1 - s) p + s a",
    uses=("geometry.sinkhorn-hessian", "transport.debiased-positivity"),
    proof=Anchor("07_transport#assisted-divergence", sha256="0ceb01e6acb725a9"),
)
def assisted_divergence() -> list[Evidence]:
    """What is smooth at its zero cannot be a distance."""
    p, a, q = (F(1), F(0)), (F(1, 2), F(1, 2)), (F(0), F(1))
    s, m = F(1, 3), (F(5, 6), F(1, 6))
    mixed = [(1 - s) * far(p, x) + s * far(a, x) for x in (m, p, a)]
    return [
        _divergence_fails_by(2, None),
        exact.check(far(p, q), ">", far(p, a) + far(a, q), says="ε → ∞, two tokens: end to end against two halves"),
        exact.check(mixed[0], "<", min(mixed[1:]), says="ε → ∞, s = 1/3: the mixture against both ends"),
    ]


@assisted_divergence.control
def _() -> Evidence:
    """One step in place of many must not pass as shorter."""
    return _divergence_fails_by(1, None)


_m, _c, _e, _r = sp.symbols("m c epsilon rho", positive=True)
_ENTROPY = _m * sp.log(_m) - _m + 1


def _point_fails(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    """Cost of moving one point to another with soft marginals, by a scalar minimisation over the mass moved."""
    x, y = rng.normal(size=(2, int(rng.integers(1, 6))))
    cost, epsilon, rho = float(((x - y) ** 2).sum() / 2), float(rng.uniform(0.01, 1)), float(rng.uniform(0.5, 20))
    target = sp.lambdify(_m, (_m * _c + (_e + 2 * _r) * _ENTROPY).subs({_c: cost, _e: epsilon, _r: rho}))
    found = minimize_scalar(target, bounds=(1e-12, 2), method="bounded", options={"xatol": 1e-10})
    closed = (epsilon + 2 * rho) * -np.expm1(-cost / (epsilon + 2 * rho))
    return abs(found.fun - closed), {"x": x.tolist(), "y": y.tolist(), "epsilon": epsilon, "rho": rho}


def _stationary(mass: sp.Expr) -> Evidence:
    value = _m * _c + (_e + 2 * _r) * _ENTROPY
    return symbolic.identity(sp.diff(value, _m).subs(_m, mass), 0, says="slope in the mass, at the mass given")


@claim(
    "transport.assisted-one-point",
    statement=r"S_\varepsilon(\delta_x, \delta_y) = C(x, y) \text{ for every } \varepsilon \text{ if } C(x, x) ="
    r" C(y, y) = 0: \tfrac12 \Vert x - y\Vert^2 \text{ for that cost; with marginals penalised by } \rho\,"
    r" \mathrm{KL}:\ (\varepsilon + 2\rho)(1 - e^{-C/(\varepsilon + 2\rho)})",
    source="zhuang2025bridging; kdtheory, Theorem 48",
    expected=Verdict.PROVED,
    domain="a batch of scores handed over as one point",
    proof=Anchor("07_transport#assisted-one-point", sha256="c816d4eecb20ec1f"),
)
def assisted_one_point() -> list[Evidence]:
    """Between two points there is one plan."""
    return [
        numeric.attempt(
            _point_fails,
            draws=25,
            oracle="scipy.optimize.minimize_scalar over the mass moved",
            tolerance=1e-8,
            because="the minimum is flat: the square of the search's error in the mass",
            says="value with soft marginals",
        ),
        _stationary(sp.exp(-_c / (_e + 2 * _r))),
    ]


@assisted_one_point.control
def _() -> Evidence:
    """The mass with one marginal penalised in place of two must not pass."""
    return _stationary(sp.exp(-_c / (_e + _r)))
