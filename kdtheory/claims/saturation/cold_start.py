"""Theorems 15 and 16 of chapter 03: from uniform logits, log V against V."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import sympy as sp
from mpmath import mp
from scipy.integrate import quad

import kdtheory as kd
from kdtheory import dynamics
from kdtheory.claims.saturation import oracles
from kdtheory.claims.saturation.bounds import bounded_slopes
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric, symbolic


def _ceiling(M: Any) -> Any:
    """The bound on dM/dt per unit of L."""
    return M**2 * (1 - M)


def _growth_fails_by(factor: float) -> Callable[[np.random.Generator], tuple[float, dict[str, Any]]]:
    """dM/dt <= L M²(1 - M), M = max q, at random students, half of them nearly uniform."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(2, 40))
        p = rng.dirichlet(np.full(size, 0.5))
        z = rng.normal(size=size) * rng.choice([0.0, 0.01, 1.0, 3.0])
        if rng.random() < 0.3:  # a few tokens share the top, the rest is far below: the worst case of the proof
            z = np.where(np.arange(size) < rng.integers(1, size + 1), 0.0, -20.0)
        q = oracles.softmax(z)
        slope, L, kind = bounded_slopes(rng, p)
        g = slope(q)
        downhill = -q * (g - q @ g)
        top = q.max()
        rates = [q[j] * (downhill[j] - q @ downhill) for j in np.flatnonzero(q == top)]
        excess = (max(rates) / L - factor * _ceiling(top)) / top**2
        return float(excess), {"p": p.tolist(), "z": z.tolist(), "loss": kind, "g": g.tolist()}

    return violation


def _attempt_growth(factor: float) -> Evidence:
    return numeric.attempt(
        _growth_fails_by(factor),
        draws=3000,
        oracle="slopes typed by hand",
        tolerance=1e-10,
        because="float64 sums of at most 40 terms, divided by M² >= 1/1600",
        says="dM/dt ≤ L M²(1 - M)",
    )


def _attains_the_ceiling(V: int) -> Evidence:
    """Uniform student, slope 0 at one token and 1 at the others: its dq/dt in rationals."""
    M = Fraction(1, V)
    downhill = [M * (1 - M), *[-M * M] * (V - 1)]
    rate = M * (downhill[0] - M * sum(downhill))
    return exact.check(rate, "==", _ceiling(M), says=f"one right token, uniform student, V = {V}: dM/dt at L = 1")


def _forward(V: Any, log: Any = np.log) -> Any:
    return (V - 1) * (log(V - 1) + (V - 2) / (V - 1)) / V


def _total(V: Any, log: Any = np.log) -> Any:
    return V - 2 + 2 * (1 - 1 / V) * log(V - 1)


def _flow(name: str, V: int, **given: Any) -> float:
    teacher = np.full(V, -np.inf)
    teacher[0] = 0.0
    loss = kd.divergence(name, **given)
    return dynamics.flow(loss, teacher_logits=teacher, student_logits=np.zeros(V), until=dynamics.reaches(0)).time


def _lower(V: Any, L: float = 1.0) -> Any:
    return (V - 2 + np.log(V - 1)) / L


def _flows_respect_the_bound() -> Evidence:
    """Our own flows from uniform logits: bound / time, which must not exceed 1."""
    V = 1000
    line = {"cost": kd.TokenCost.line(np.linspace(0, 1, V))}
    shares = [
        _lower(V) / _flow("tvd", V),
        _lower(V, 9.0) / _flow("skl", V, alpha=0.1),
        _lower(V) / _flow("w1", V, **line),
    ]
    return numeric.compare(
        np.maximum(shares, 1.0),
        np.ones(3),
        oracle="the lower bound of Theorem 15",
        tolerance=1e-9,
        because="the flow's relative tolerance per step",
        role="attempted refutation",
        says="TV, skew KL and W1 on a line, V = 1000: bound over time is at most 1",
    )


@claim(
    "saturation.cold-start-bounded",
    statement=r"|g_i - g_j| \le L,\ M = \max_j q_j \le \tfrac12:\quad \dot M \le L M^2 (1 - M);\quad \text{from } z"
    r" = 0:"
    r" \ T\big(M = \tfrac12\big) \ge \frac{V - 2 + \log(V - 1)}{L}",
    source="kdtheory, Theorem 15",
    expected=Verdict.PROVED,
    domain="gradient flow in the logits, any V, subgradients allowed",
    uses=("gradients.bounded-slopes", "saturation.transport-stalls"),
    proof=Anchor("03_saturation#cold-start-bounded", sha256="f84cde9ed13ff21e"),
)
def cold_start_bounded() -> list[Evidence]:
    """The differential inequality at random students, equality at uniform ones, and our own flows at V = 1000."""
    return [_attempt_growth(1.0), *(_attains_the_ceiling(V) for V in (2, 3, 10)), _flows_respect_the_bound()]


@cold_start_bounded.control
def _() -> Evidence:
    """Nine tenths of the bound on dM/dt must not pass: it is sharp."""
    return _attempt_growth(0.9)


_w, _V = sp.Symbol("w", positive=True), sp.Symbol("V", positive=True)
_x = sp.exp(_w) / (sp.exp(_w) + _V - 1)


def _integral_in_symbols(fall: sp.Expr, closed: sp.Expr, name: str) -> Evidence:
    """∫ from 0 to log(V - 1), by SymPy, against the closed form."""
    y = sp.Symbol("y", positive=True)
    integrand = sp.simplify((1 / (_x * (1 - _x) * fall)).subs(_w, sp.log(y))) / y
    total = sp.integrate(sp.apart(sp.together(sp.expand(integrand)), y), (y, 1, _V - 1)) * (_V - 1) / _V
    s = sp.Symbol("s", positive=True)  # V = 2 + s
    return symbolic.identity(
        total.subs(_V, 2 + s), closed.subs(_V, 2 + s), role="attempted refutation", says=f"{name}: the integral"
    )


def _by_quadrature(name: str, V: int) -> float:
    """The integral of Theorem 16 with Φ typed by hand."""
    offset = {"jsd": -0.7 * np.log(0.7), "amari": 1 / 0.21, "hellinger2": 1.0}[name]

    def integrand(w: float) -> float:
        x = np.exp(w) / (np.exp(w) + V - 1)
        return float(1 / (x * (1 - x) * (oracles.phi(name, 1 / x, np.log) + offset)))

    return (V - 1) / V * quad(integrand, 0, np.log(V - 1), epsabs=0, epsrel=1e-11)[0]


def _flow_against_closed_forms(skew: float = 1 / 9) -> Evidence:
    sizes = (10, 1000)
    expected, found = [], []
    for V in sizes:
        expected += [_forward(V), _total(V), _forward(V) + skew * _total(V), (V - 2) / V]
        found += [_flow("fkl", V), _flow("tvd", V), _flow("skl", V, alpha=0.1), _flow("chi2", V)]
        expected += [_by_quadrature("jsd", V), _by_quadrature("amari", V)]
        found += [_flow("jsd", V, beta=0.3), _flow("amari", V, alpha=0.7)]
    return numeric.compare(
        found,
        expected,
        oracle="closed forms, and scipy.integrate.quad with Φ typed by hand for JSD and Amari",
        tolerance=1e-7,
        because="the flow is integrated with tolerance 1e-9 per step, the norm is a mean over tokens",
        relative_to=expected,
        role="attempted refutation",
        says="kdtheory.dynamics.flow from uniform logits, V = 10 and 1000",
    )


def _asymptotic(name: str) -> Evidence:
    """T over its leading term at V = 10^60 (Amari) and over a range of V for JSD, whose next term is 1/log V."""
    with mp.workdps(30):
        if name == "amari":
            V = mp.mpf(10) ** 60
            integral = mp.mpf("0.7") * mp.quad(
                lambda t: mp.exp(t * mp.mpf("-0.3")) * (1 + mp.exp(t)) ** mp.mpf("1.3"), [-mp.log(V - 1), -60, -20, 0]
            )
            ratio = integral / (mp.mpf("0.7") / mp.mpf("0.3") * V ** mp.mpf("0.3"))
        else:  # t = log y; the integrand's peak is at the lower end
            V = mp.exp(mp.mpf(4000))
            low = -mp.log(V - 1)

            def integrand(t: Any) -> Any:
                y = mp.exp(low + t)
                return (1 + y) ** 2 / y / mp.log(1 + mp.mpf(3) / 7 * (1 + y) / y) / V

            total = mp.quad(integrand, [0, 1, 5, 20, 60, 120])
            ratio = total * mp.log(V)
    return numeric.compare(
        float(ratio),
        1.0,
        oracle="mpmath.quad of Theorem 16's integral, 30 digits",
        tolerance=2e-3,
        because="relative order V^(-0.3) for Amari; 2/log V = 5e-4 for JSD at log V = 4000",
        role="attempted refutation",
        says=f"{name}: time over its leading term as V grows",
    )


@claim(
    "saturation.cold-start-exact",
    statement=r"p = \delta_y,\ z(0) = 0,\ q_y \to \tfrac12:\ T_{FKL} = \tfrac{V - 1}{V}\big(\log(V - 1) + \tfrac{V -"
    r" 2}{V - 1}\big),\ T_{TV} = V - 2 + 2(1 - \tfrac1V)\log(V - 1),\ T_{SKL} = T_{FKL} + \tfrac{\alpha}{1 - \alpha}"
    r" T_{TV},\ T_{\chi^2} = \tfrac{V - 2}{V};\ \text{Amari}_{\alpha < 1} \sim \tfrac{\alpha}{1 - \alpha} V^{1 -"
    r" \alpha},"
    r"\ JSD \sim \tfrac{V}{(1 - \beta) \log V}",
    source="kdtheory, Theorem 16",
    expected=Verdict.PROVED,
    domain="gradient flow in V logits, one-hot teacher",
    uses=("saturation.ratio-form", "saturation.escape-formula"),
    proof=Anchor("03_saturation#cold-start-exact", sha256="802c6fe9294c1f17"),
)
def cold_start_exact() -> list[Evidence]:
    """The integrals by SymPy, our own flows of V logits (no symmetry assumed), the asymptotics by mpmath."""
    return [
        _integral_in_symbols(1 / _x, _forward(_V, sp.log), "FKL"),
        _integral_in_symbols(sp.Integer(1), _total(_V, sp.log), "TV"),
        _integral_in_symbols(1 / _x**2, (_V - 2) / _V, "χ²"),
        _flow_against_closed_forms(),
        _asymptotic("amari"),
        _asymptotic("jsd"),
    ]


@cold_start_exact.control
def _() -> Evidence:
    """Total variation without its logarithm must not pass."""
    return _integral_in_symbols(sp.Integer(1), _V - 2, "TV")


@cold_start_exact.control
def _() -> Evidence:
    """Skew KL with α in place of α/(1 - α) must not pass."""
    return _flow_against_closed_forms(skew=0.1)
