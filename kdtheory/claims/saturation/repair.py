"""Theorems 19 and 20 of chapter 03: a term of forward KL, and temperature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.integrate import quad

import kdtheory as kd
from kdtheory import dynamics
from kdtheory.claims.saturation import oracles
from kdtheory.claims.saturation.bounds import bounded_slopes
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, numeric

_Point = tuple[float, dict[str, Any]]


def _norm_fails_by(factor: float) -> Callable[[np.random.Generator], _Point]:
    def violation(rng: np.random.Generator) -> _Point:
        size, weight = int(rng.integers(2, 9)), float(rng.uniform(0, 3))
        p, (z, _) = rng.dirichlet(np.ones(size)), oracles.confident(rng, size, float(rng.uniform(0, 6)))
        q = oracles.softmax(z)
        slope, L, kind = bounded_slopes(rng, p)
        g = -p / q + weight * slope(q)
        left = min(1 - q.max(), 0.5)
        bound = np.abs(p - q).sum() - factor * 2 * weight * L * left * (1 - left)
        return float(bound - np.abs(q * (g - q @ g)).sum()), {"p": p.tolist(), "z": z.tolist(), "loss": kind}

    return violation


def _attempt_norm(factor: float) -> Evidence:
    return numeric.attempt(
        _norm_fails_by(factor),
        draws=1500,
        oracle="slopes typed by hand",
        tolerance=1e-12,
        because="float64 sums of at most 8 terms",
        says="‖∇_z(FKL + λD)‖₁ ≥ 2 TV - 2λL d(1 - d)",
    )


def _leaving_fails_by(factor: float) -> Callable[[np.random.Generator], _Point]:
    """Time to leave a mistake by SciPy, against factor · Δ/(m - λ/2).

    Forward KL + λ · total variation, or + λ q_y, which pulls away from the right token.
    """

    def violation(rng: np.random.Generator) -> _Point:
        away, weight = bool(rng.random() < 0.5), float(rng.uniform(0, 1))
        size = 2 if away else int(rng.integers(2, 6))  # small leads over one other token come near the bound
        z, k = oracles.confident(rng, size, float(10 ** rng.uniform(-1, 1)))
        y = (k + 1) % size
        p = np.full(size, 0.06 / size)
        p[y] += 0.94
        margin = p[y] - p[k] - weight / 2
        q = oracles.softmax(z)
        if q[k] <= 0.5 or margin <= 0.05:
            return -1.0, {}

        def slope(at: Any) -> Any:
            return -p / at + weight * (np.eye(size)[y] if away else np.sign(at - p) / 2)

        found = oracles.escape_time(slope, z, oracles.leaving(k), method="RK45")
        return float(found - factor * (z[k] - z[y]) / margin), {"p": p.tolist(), "z": z.tolist(), "λ": weight}

    return violation


def _attempt_leaving(factor: float) -> Evidence:
    return numeric.attempt(
        _leaving_fails_by(factor),
        draws=15,
        oracle="scipy.integrate.solve_ivp (RK45), located events",
        tolerance=1e-6,
        because="rtol = atol = 1e-10 per step",
        says="leaving by Δ/(m - λL/2)",
    )


def _two_tokens(weight: float) -> Evidence:
    """Our flow of the combined loss against the integral."""
    gap = 9.0
    loss = kd.divergence("fkl") + weight * kd.divergence("tvd")
    found = dynamics.flow(loss, teacher_logits=[0.0, -np.inf], student_logits=[0.0, gap]).time
    integral = quad(lambda u: (1 + np.exp(u)) * (1 + np.exp(-u)) / (1 + np.exp(u) + 2.0) / 2, 0, gap, epsrel=1e-12)[0]
    return numeric.compare(
        found,
        integral,
        oracle="scipy.integrate.quad of the integral with λ = 2",
        tolerance=1e-7,
        because="our flow is integrated with tolerance 1e-9 per step",
        role="attempted refutation",
        says="forward KL + 2 TV, two tokens, a gap of 9",
    )


@claim(
    "saturation.mixture",
    statement=r"E = FKL + \lambda D,\ |g_i - g_j| \le L \text{ for } D:\ \|\nabla_z E\|_1 \ge 2\,TV - 2\lambda L d(1 -"
    r" d);\quad m = p_y - p_k > \tfrac12 \lambda L \Rightarrow q_k \text{ falls to } \tfrac12 \text{ by } \Delta/(m -"
    r" \tfrac12 \lambda L);\quad V = 2, D = TV: T = \tfrac12 \int_0^\Delta \tfrac{(1 + e^u)(1 + e^{-u})}{1 + e^u +"
    r" \lambda}\, du",
    source="kdtheory, Theorem 19",
    expected=Verdict.PROVED,
    domain="gradient flow in the logits, q_k(0) > 1/2, Δ = z_k - z_y at the start; third part: p = (1, 0)",
    uses=("gradients.bounded-slopes", "gradients.fkl-bounded-in-logits", "saturation.escape-formula"),
    proof=Anchor("03_saturation#mixture", sha256="b8e57cadba30c2bb"),
)
def mixture() -> list[Evidence]:
    """The norm at random students, the time by SciPy, the integral against our own flow of the sum."""
    return [_attempt_norm(1.0), _attempt_leaving(1.0), _two_tokens(2.0)]


@mixture.control
def _() -> Evidence:
    """A third of the deduction must not pass."""
    return _attempt_norm(1 / 3)


@mixture.control
def _() -> Evidence:
    """Half the time must not pass."""
    return _attempt_leaving(0.45)


def _scaling_fails_by(power: float) -> Callable[[np.random.Generator], _Point]:
    """Time for τ^a D(p, softmax(z/τ)) by SciPy, against τ^(power - a) T(Δ/τ) from the closed forms."""

    def violation(rng: np.random.Generator) -> _Point:
        tau, gap = float(rng.uniform(0.5, 5)), float(rng.uniform(0.5, 8))
        name, a = [("tvd", 1.0), ("fkl", 2.0), ("fkl", 0.0), ("tvd", 2.0)][int(rng.integers(4))]
        cooled = gap / tau

        def slope(q: Any) -> Any:
            return np.array([-1.0 if name == "tvd" else -1 / q[0], 0.0])

        def velocity(z: Any) -> Any:  # -∇ of τ^a D(softmax(z/τ)): the chain rule gives τ^(a-1)
            q = oracles.softmax(z / tau)
            g = slope(q)
            return -(tau ** (a - 1)) * q * (g - q @ g)

        found = _time_of(velocity, gap)
        closed = cooled + np.sinh(cooled) if name == "tvd" else (cooled + 1 - np.exp(-cooled)) / 2
        return abs(tau ** (power - a) * closed / found - 1), {"τ": tau, "gap": gap, "loss": name, "a": a}

    return violation


def _time_of(velocity: Callable[[Any], Any], gap: float) -> float:
    from scipy.integrate import solve_ivp

    def crossing(_: float, z: Any) -> float:
        return float(z[0] - z[1])

    crossing.terminal = True  # type: ignore[attr-defined]
    found = solve_ivp(
        lambda _, z: velocity(z), (0, 1e9), [0.0, gap], method="LSODA", events=crossing, rtol=1e-10, atol=1e-10
    )
    return float(found.t_events[0][0])


def _attempt_scaling(power: float) -> Evidence:
    return numeric.attempt(
        _scaling_fails_by(power),
        draws=30,
        oracle=oracles.SCIPY,
        tolerance=1e-6,
        because=oracles.INTEGRATED,
        says="times at temperature τ",
    )


@claim(
    "saturation.temperature",
    statement=r"F_\tau(z) = \tau^a D(p, \mathrm{softmax}(z/\tau)):\ \text{what } F_1 \text{ reaches from gap } \Delta"
    r" \text{ at } T(\Delta), F_\tau \text{ reaches at } \tau^{2 - a}\, T(\Delta/\tau); \text{ TV, } a = 1: \Delta +"
    r" \tau"
    r" \sinh(\Delta/\tau)",
    source="kdtheory, Theorem 20; hinton2015distilling",
    expected=Verdict.PROVED,
    domain="gradient flow in the logits; events in terms of softmax(z/τ)",
    uses=("saturation.escape-closed-forms",),
    proof=Anchor("03_saturation#temperature", sha256="5d88090952598e6e"),
)
def temperature() -> Evidence:
    """SciPy's flow of the scaled loss against the scaled closed forms, for three powers a."""
    return _attempt_scaling(2.0)


@temperature.control
def _() -> Evidence:
    """The factor τ^(1 - a) must not pass."""
    return _attempt_scaling(1.0)
