"""Theorems 12 to 14 of chapter 03: escape from a confident mistake in any vocabulary, by flow and by descent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import kdtheory as kd
from kdtheory import dynamics
from kdtheory.claims.saturation import oracles
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, numeric

_Point = tuple[float, dict[str, Any]]


def bounded_slopes(rng: np.random.Generator, p: Any) -> tuple[oracles.Slopes, float, str]:
    """A loss with bounded slopes, typed by hand, the bound L, and its name."""
    kind = str(rng.choice(["tvd", "skl", "w1", "fixed"]))
    if kind == "skl":
        return oracles.slopes("skl", p), 9.0, kind
    if kind == "w1":  # tokens at 0, 1, …, V-1
        return (lambda q: oracles.line_slopes(p, q)), float(p.size - 1), kind
    if kind == "fixed":  # a linear loss, its slopes at the vertices of the box
        g = rng.choice([0.0, 1.0], size=p.size)
        return (lambda q: g), 1.0, kind
    return (lambda q: np.sign(q - p) / 2), 1.0, kind


def _mass_fails_by(factor: float) -> Callable[[np.random.Generator], _Point]:
    """The inequality behind Theorem 12: d(1 - q_k)/dt <= 2L s²(1 - s)², s = 1 - q_k, at random students."""

    def violation(rng: np.random.Generator) -> _Point:
        size = int(rng.integers(2, 9))
        p = rng.dirichlet(np.ones(size))
        z, k = oracles.confident(rng, size, float(rng.uniform(0, 6)))
        z[int(rng.integers(size))] += rng.uniform(0, 4)
        k = int(z.argmax())
        q = oracles.softmax(z)
        slope, L, kind = bounded_slopes(rng, p)
        g = slope(q)
        downhill = -q * (g - q @ g)
        s = 1 - q[k]
        if s > 0.5:
            return -1.0, {}
        grows = -q[k] * (downhill[k] - q @ downhill)
        scale = 2 * L * (s * (1 - s)) ** 2
        return float(grows / scale - factor), {"p": p.tolist(), "z": z.tolist(), "loss": kind}

    return violation


def _attempt_mass(factor: float) -> Evidence:
    return numeric.attempt(
        _mass_fails_by(factor),
        draws=2000,
        oracle="slopes typed by hand",
        tolerance=1e-9,
        because="float64 sums of at most 8 terms, divided by s² >= 1e-5",
        says="d(1 - q_k)/dt ≤ 2L s²(1 - s)²",
    )


def _odds(z: Any) -> float:
    q = oracles.softmax(z)
    return float(np.log(q.max() / (1 - q.max())))


def _time_fails_by(rng: np.random.Generator) -> _Point:
    """The bound against SciPy's flow of total variation and skew KL."""
    size, name = int(rng.integers(2, 6)), str(rng.choice(["tvd", "skl"]))
    z, k = oracles.confident(rng, size, float(rng.uniform(1.5, 5)))
    p = np.full(size, 0.04 / size)
    p[(k + 1) % size] += 0.96
    v, L = _odds(z), 1.0 if name == "tvd" else 9.0
    slope = (lambda q: np.sign(q - p) / 2) if name == "tvd" else oracles.slopes(name, p)
    if v <= 0:
        return -1.0, {}
    found = oracles.escape_time(slope, z, oracles.leaving(k), method="RK45")
    return float(1 - found * L / (v + np.sinh(v))), {"p": p.tolist(), "z": z.tolist(), "loss": name}


def _attained(factor: float) -> Evidence:
    """Two tokens and total variation: equality, by our own flow."""
    gaps = np.array([1.0, 8.0, 25.0])
    found = [
        dynamics.flow(kd.divergence("tvd"), teacher_logits=[0.0, -np.inf], student_logits=[0.0, gap]).time
        for gap in gaps
    ]
    return numeric.compare(
        found,
        factor * (gaps + np.sinh(gaps)),
        oracle="v₀ + sinh v₀",
        tolerance=1e-7,
        because="the flow is integrated with relative tolerance 1e-9 per step",
        relative_to=np.sinh(gaps),
        role="attempted refutation",
        says="total variation, two tokens: kdtheory.dynamics.flow attains the bound",
    )


@claim(
    "saturation.escape-bounded",
    statement=r"|g_i - g_j| \le L:\quad T\big(q_k \to \tfrac12\big) \ge \frac{v_0 + \sinh v_0}{L},\quad v_0 = \log"
    r" \frac{q_k(0)}{1 - q_k(0)} \ge \Delta - \log(V - 1); \text{ attained by TV at } V = 2",
    source="kdtheory, Theorem 12",
    expected=Verdict.PROVED,
    domain="gradient flow in the logits, any V, subgradients allowed, q_k(0) > 1/2",
    uses=("gradients.bounded-slopes", "saturation.transport-stalls", "saturation.escape-closed-forms"),
    proof=Anchor("03_saturation#escape-bounded", sha256="8d365ea076f9144e"),
)
def escape_bounded() -> list[Evidence]:
    """The differential inequality at random students, the time against SciPy's flows, equality for two tokens."""
    return [
        _attempt_mass(1.0),
        numeric.attempt(
            _time_fails_by,
            draws=8,
            oracle="scipy.integrate.solve_ivp (RK45), located events",
            tolerance=1e-6,
            because="rtol = atol = 1e-10 per step",
            says="the lower bound on the escape time",
        ),
        _attained(1.0),
    ]


@escape_bounded.control
def _() -> Evidence:
    """Half the constant must not pass: it is attained."""
    return _attempt_mass(0.5)


@escape_bounded.control
def _() -> Evidence:
    """A bound larger by a tenth must not pass as attained."""
    return _attained(1.1)


def _forward_kl_fails_by(slack: float) -> Callable[[np.random.Generator], _Point]:
    """Both statements of Theorem 13, with `slack` as a factor on the upper bound Δ/m."""

    def violation(rng: np.random.Generator) -> _Point:
        size = int(rng.integers(2, 7))
        z, k = oracles.confident(rng, size, float(rng.uniform(1, 14)))
        p = rng.dirichlet(np.full(size, 0.7))
        y = int(p.argmax())
        gap, m, v = z[k] - z[y], p[y] - p[k], _odds(z)
        if m < 0.05 or v <= 0:
            return -1.0, {}
        slope = oracles.slopes("fkl", p)
        overtakes = oracles.escape_time(slope, z, lambda at: at[y] - at[k])
        leaves = oracles.escape_time(slope, z, oracles.leaving(k))
        worst = max(gap / (1 + m) - overtakes, overtakes - slack * gap / m, v / 2 - leaves, leaves - gap / m)
        return float(worst), {"p": p.tolist(), "z": z.tolist()}

    return violation


def _attempt_forward_kl(slack: float) -> Evidence:
    return numeric.attempt(
        _forward_kl_fails_by(slack),
        draws=40,
        oracle=oracles.SCIPY,
        tolerance=1e-6,
        because=oracles.INTEGRATED,
        says="Δ/(1 + m) < T ≤ Δ/m, and v₀/2 < T ≤ Δ/m for leaving",
    )


@claim(
    "saturation.escape-forward-kl",
    statement=r"\text{forward KL, } m = p_y - p_k > 0:\ z_y \text{ overtakes } z_k \text{ at } \frac{\Delta}{1 + m} < T"
    r" \le \frac{\Delta}{m};\quad q_k \text{ falls to } \tfrac12 \text{ at } \tfrac12 v_0 < T \le \frac{\Delta}{m}",
    source="kdtheory, Theorem 13",
    expected=Verdict.PROVED,
    domain="gradient flow in the logits, any V; Δ = z_k - z_y > 0 at the start; second part: q_k(0) > 1/2",
    uses=("gradients.fkl-bounded-in-logits",),
    proof=Anchor("03_saturation#escape-forward-kl", sha256="681a25cf6e7f1401"),
)
def escape_forward_kl() -> Evidence:
    """Random teachers and confident students, by SciPy."""
    return _attempt_forward_kl(1.0)


@escape_forward_kl.control
def _() -> Evidence:
    """Half the upper bound must not pass."""
    return _attempt_forward_kl(0.5)


def _steps_fail_by(factor: float) -> Callable[[np.random.Generator], _Point]:
    """Steps of gradient descent, counted here by hand, against both lower bounds."""

    def violation(rng: np.random.Generator) -> _Point:
        cold = bool(rng.random() < 0.5)
        size = int(rng.integers(20, 60)) if cold else int(rng.integers(2, 6))
        z, k = (np.zeros(size), 0) if cold else oracles.confident(rng, size, float(rng.uniform(1, 4)))
        p = np.zeros(size)
        p[(k + 1) % size] = 1.0
        name, rate = str(rng.choice(["tvd", "skl"])), float(rng.uniform(0.3, 3))
        slope: oracles.Slopes = (lambda q: -p) if name == "tvd" else oracles.slopes("skl", p)
        L = 1.0 if name == "tvd" else 9.0
        q = oracles.softmax(z)
        if not cold and q[k] <= 0.5:
            return -1.0, {}
        bound = (size - 2 if cold else q[k] / (1 - q[k]) - 1) / (2 * rate * L)
        count = 0
        while (q.max() < 0.5 if cold else q[k] > 0.5) and count < 5000:
            g = slope(q)
            z = z - rate * q * (g - q @ g)
            q, count = oracles.softmax(z), count + 1
        return float(factor * bound - count), {"V": size, "loss": name, "rate": rate, "cold": cold, "steps": count}

    return violation


def _attempt_steps(factor: float) -> Evidence:
    return numeric.attempt(
        _steps_fail_by(factor),
        draws=60,
        oracle="gradient descent written here",
        tolerance=0.0,
        because="steps are whole numbers",
        says="the bounds on the number of steps",
    )


def _sign_slopes(p: Any) -> oracles.Slopes:
    return lambda q: np.sign(q - p) / 2


def _library_descent() -> Evidence:
    """Our own descent against a loop in plain numpy, from uniform logits, V = 50."""
    expected, found = [], []
    for name, rate in (("tvd", 1.0), ("fkl", 1.0), ("skl", 0.5)):
        p = np.full(50, 0.02 / 49)
        p[7] = 0.98
        slope = _sign_slopes(p) if name == "tvd" else oracles.slopes(name, p)
        z, count = np.zeros(50), 0
        while oracles.softmax(z)[7] < 0.5:
            q = oracles.softmax(z)
            z, count = z - rate * q * (slope(q) - q @ slope(q)), count + 1
        expected.append(count)
        loss = kd.divergence(name)
        ended = dynamics.descend(
            loss,
            teacher_logits=np.log(p),
            student_logits=np.zeros(50),
            until=dynamics.reaches(7),
            learning_rate=rate,
        )
        found.append(ended.steps)
    return numeric.compare(
        found,
        expected,
        oracle="a loop in numpy on slopes typed by hand",
        tolerance=0.0,
        because="steps are whole numbers",
        says="kdtheory.dynamics.descend: steps for TV, forward KL and skew KL at V = 50",
    )


@claim(
    "saturation.descent-steps",
    statement=r"|g_i - g_j| \le L,\ z \leftarrow z - \eta \nabla_z D:\ \text{from odds } o = \tfrac{1 - q_k}{q_k} < 1"
    r" \text{ at least } \tfrac{1/o - 1}{2 \eta L} \text{ steps until } q_k \le \tfrac12; \text{ from } z = 0 \text{ at"
    r" least } \tfrac{V - 2}{2 \eta L} \text{ until some } q_j \ge \tfrac12",
    source="kdtheory, Theorem 14",
    expected=Verdict.PROVED,
    domain="gradient descent on a table of logits, any η > 0",
    uses=("gradients.bounded-slopes",),
    proof=Anchor("03_saturation#descent-steps", sha256="d07fc5d322bcd06f"),
)
def descent_steps() -> list[Evidence]:
    """Steps counted by a loop, at random rates; our own descent against another loop."""
    return [_attempt_steps(1.0), _library_descent()]


@descent_steps.control
def _() -> Evidence:
    """A bound ten times as large must not pass."""
    return _attempt_steps(10.0)
