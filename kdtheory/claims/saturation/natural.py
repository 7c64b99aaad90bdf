"""Theorems 17 and 18 of chapter 03: under the natural gradient nothing stalls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import sympy as sp

import kdtheory as kd
from kdtheory import dynamics
from kdtheory.claims.gradients import oracles as definitions
from kdtheory.claims.saturation import oracles
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, numeric, symbolic

_FLOW = "our flow is integrated with tolerance 1e-9 per step"


def _direction(metric: bool) -> Evidence:
    """J(g - ḡ), or g - ḡ itself, against the logit gradient through the softmax, in symbols, V = 3."""
    student = definitions.symbolic_softmax(3)
    g = list(sp.symbols("g1:4", real=True))
    mean = definitions.expectation(student.q, g)
    centred = [slope - mean for slope in g]
    moved = sum(student.derivative(student.q[0], j) * centred[j] for j in range(3))  # J = ∂q/∂z, by differentiation
    return symbolic.identity(
        moved if metric else centred[0],
        student.derivative(mean, 0),
        role="attempted refutation",
        scope="V = 3",
        says="J(g - ḡ) = ∇_z D",
    )


def _path_fails_by(name: str, decay: float) -> Callable[[np.random.Generator], tuple[float, dict[str, Any]]]:
    """Our natural flow at three times against q = p + (q₀ - p)e^{-t}, or the geodesic of logarithms."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(2, 30))
        p, z = rng.dirichlet(np.full(size, 0.5)), oracles.confident(rng, size, float(rng.uniform(0, 20)))[0]
        p = np.maximum(p, 1e-9) / np.maximum(p, 1e-9).sum()
        times = np.array([0.1, 1.0, 3.0])
        ended = dynamics.flow(
            kd.divergence(name),
            teacher_logits=np.log(p),
            student_logits=z,
            geometry="natural",
            until=dynamics.reaches(0, 1 - 1e-12),  # not reached: the teacher is not that sure
            horizon=4.0,
            at=times,
        )
        start, fades = oracles.softmax(z), np.exp(-decay * times)[:, None]
        expected = p + (start - p) * fades
        if name == "rkl":
            logs = np.log(p) + (np.log(start) - np.log(p)) * fades
            expected = np.stack([oracles.softmax(row) for row in logs])
        found = np.stack([oracles.softmax(row) for row in ended.path])
        return float(np.abs(found - expected).max()), {"p": p.tolist(), "z": z.tolist()}

    return violation


def _attempt_path(name: str, decay: float = 1.0) -> Evidence:
    return numeric.attempt(
        _path_fails_by(name, decay),
        draws=12,
        oracle="the closed form of Theorem 17",
        tolerance=1e-7,
        because=_FLOW,
        says=f"{name}: kdtheory.dynamics.flow, natural geometry, at t = 0.1, 1 and 3",
    )


def _times(name: str, formula: Callable[[Any, Any, int, int], float], says: str) -> Evidence:
    """SciPy's event-located time of the natural flow against a formula of (p, z, y, k)."""
    p = np.array([0.7, 0.15, 0.1, 0.05])
    found, expected = [], []
    for gap in (1.0, 8.0, 25.0):
        z = np.array([0.0, 0.3, gap, -0.4])
        margin = (lambda at: at[0] - at[2]) if name == "rkl" else (lambda at: float(oracles.softmax(at)[0] - 0.5))
        slope = oracles.slopes(name, p)
        found.append(formula(p, z, 0, 2))
        method = "LSODA" if name == "rkl" else "RK45"
        expected.append(oracles.escape_time(slope, z, margin, natural=True, method=method))
    return numeric.compare(
        found,
        expected,
        oracle="scipy.integrate.solve_ivp on slopes typed by hand, event located by root finding",
        tolerance=1e-6,
        because=oracles.INTEGRATED,
        role="attempted refutation",
        says=says,
    )


def _half(p: Any, z: Any, y: int, k: int) -> float:
    return float(np.log((p[y] - oracles.softmax(z)[y]) / (p[y] - 0.5)))


def _closes(p: Any, z: Any, y: int, k: int) -> float:
    return float(np.log(1 + (z[k] - z[y]) / np.log(p[y] / p[k])))


@claim(
    "saturation.natural-gradient",
    statement=r"\dot z = -(g - \bar g):\ \text{FKL } q(t) = p + (q(0) - p)e^{-t},\ q_y = \tfrac12 \text{ at } \log"
    r" \tfrac{p_y - q_y(0)}{p_y - 1/2};\ \text{RKL } z(t) = \log p + (z(0) - \log p)e^{-t} \text{ up to a constant, a"
    r" gap } \Delta \text{ closes at } \log(1 + \Delta / \log \tfrac{p_y}{p_k});\ |g_i - g_j| \le L: \text{ no gap"
    r" closes"
    r" before } \Delta / L",
    source="kdtheory, Theorem 17; amari2000methods",
    expected=Verdict.PROVED,
    domain="any V; FKL: p_y > 1/2 > q_y(0), zeros in p allowed; RKL: p > 0, p_y > p_k",
    uses=("gradients.chain-rule",),
    proof=Anchor("03_saturation#natural-gradient", sha256="91e8aca22b7ef9b0"),
)
def natural_gradient() -> list[Evidence]:
    """The direction in symbols, our flow against the closed forms, SciPy's event times against the formulas."""
    return [
        _direction(True),
        _attempt_path("fkl"),
        _attempt_path("rkl"),
        _times("fkl", _half, "forward KL: time until q_y = 1/2, gaps of 1, 8 and 25"),
        _times("rkl", _closes, "reverse KL: time until the gap closes, gaps of 1, 8 and 25"),
    ]


@natural_gradient.control
def _() -> Evidence:
    """Half the rate must not pass."""
    return _attempt_path("fkl", 0.5)


@natural_gradient.control
def _() -> Evidence:
    """The natural direction in place of the Euclidean one must not pass."""
    return _direction(False)


def _replicator_fails_by(speed: float) -> Callable[[np.random.Generator], tuple[float, dict[str, Any]]]:
    """Our natural flow of W1 on random positions, one-hot teacher: gaps at two times, and the escape time."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(2, 12))
        x, z = 3 * rng.normal(size=size), 4 * rng.normal(size=size)
        y = int(rng.integers(size))
        teacher = np.where(np.arange(size) == y, 0.0, -np.inf)
        times = np.array([0.05, 0.2])
        ended = dynamics.flow(
            kd.divergence("w1", cost=kd.TokenCost.line(x)),
            teacher_logits=teacher,
            student_logits=z,
            geometry="natural",
            until=dynamics.reaches(y, 1 - 1e-9),
            horizon=0.3,
            at=times,
        )
        distance = np.abs(x - x[y])
        expected = (z - z[y]) - speed * times[:, None] * distance
        found = ended.path - ended.path[:, [y]]
        kept = len(ended.path)
        error = np.abs(found - expected[:kept]).max() if kept else 0.0
        return float(error), {"x": x.tolist(), "z": z.tolist(), "y": y}

    return violation


def _attempt_replicator(speed: float) -> Evidence:
    return numeric.attempt(
        _replicator_fails_by(speed),
        draws=20,
        oracle="z_j - z_y = Δ_j - t d(j, y)",
        tolerance=1e-7,
        because=_FLOW,
        says="W1 on a line: gaps fall at the rate of the distance",
    )


def _cold(V: int) -> Evidence:
    teacher = np.where(np.arange(V) == 3, 0.0, -np.inf)
    found = dynamics.flow(
        kd.divergence("w1", cost=kd.TokenCost.zero_one(V)),
        teacher_logits=teacher,
        student_logits=np.zeros(V),
        until=dynamics.reaches(3),
        geometry="natural",
    )
    return numeric.compare(
        found.time,
        np.log(V - 1),
        oracle="log(V - 1)",
        tolerance=1e-7,
        because=_FLOW,
        role="attempted refutation",
        says=f"W1 with the 0-1 metric from uniform logits, V = {V}",
    )


def _slackness_fails_by(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    """Where the monotone plan on a line moves mass from y to k, the slope differs by their distance."""
    size = int(rng.integers(2, 9))
    p, q = rng.dirichlet(np.ones(size)), rng.dirichlet(np.ones(size))
    plan, row, column, left, right = np.zeros((size, size)), 0, 0, p.copy(), q.copy()
    while row < size and column < size:  # north-west corner: optimal on a line
        moved = min(left[row], right[column])
        plan[row, column] += moved
        left[row] -= moved
        right[column] -= moved
        row, column = (row + 1, column) if left[row] <= right[column] else (row, column + 1)
    g = oracles.line_slopes(p, q)
    distance = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    off = np.where(plan > 1e-12, np.abs((g[None, :] - g[:, None]) - distance), 0.0)
    return float(off.max()), {"p": p.tolist(), "q": q.tolist()}


@claim(
    "saturation.natural-transport",
    statement=r"W_1,\ \dot z = -(g - \bar g):\ z_k - z_y \text{ falls at the rate } d(k, y) \text{ while an optimal"
    r" plan"
    r" moves mass from the teacher's } y \text{ to the student's } k;\ p = \delta_y:\ z_j - z_y = \Delta_j - t\,"
    r" d(j, y),"
    r" \text{ so a gap closes at } \Delta_k / d(k, y), \text{ and from uniform logits, 0-1 metric, } q_y = \tfrac12"
    r" \text{"
    r" at } \log(V - 1)",
    source="kdtheory, Theorem 18",
    expected=Verdict.PROVED,
    domain="a metric on V tokens",
    uses=("saturation.natural-gradient", "gradients.w1-gradient-bound"),
    proof=Anchor("03_saturation#natural-transport", sha256="a201fa978a634575"),
)
def natural_transport() -> list[Evidence]:
    """Our flow on random lines, from uniform logits, and complementary slackness on random plans."""
    return [
        _attempt_replicator(1.0),
        _cold(5),
        _cold(2000),
        numeric.attempt(
            _slackness_fails_by,
            draws=100,
            oracle="north-west corner plan on the line 0, 1, …",
            tolerance=1e-12,
            because="slopes are whole numbers",
            says="g_k - g_y = d(k, y) where the plan moves mass",
        ),
    ]


@natural_transport.control
def _() -> Evidence:
    """Gaps that fall at half the distance must not pass."""
    return _attempt_replicator(0.5)
