"""Theorem 4 of chapter 05: the three-token family q_t ∝ (e^t, 1, e^{-t}) and the teacher (a, b, a)."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

import numpy as np
import sympy as sp
from flint import arb
from scipy.optimize import minimize_scalar

from kdtheory.claims.gradients import oracles
from kdtheory.claims.oracles import optimal_transport
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, interval, numeric
from kdtheory.ledger.interval import ball

_PROOF = Anchor("05_modes#log-linear", sha256="11a6a5ae9c86d4a9")
A, B = sp.Rational(99, 200), sp.Rational(1, 100)
_HALF = "1/2"


def _student(t: Any) -> list[Any]:
    """q_t of balls or power series, in e^{-t} so that nothing overflows."""
    e = (-t).exp()
    total = 1 + e + e * e
    return [1 / total, e / total, e * e / total]


def _teacher() -> list[arb]:
    return [ball("99/200"), ball("1/100"), ball("99/200")]


def jsd(t: Any) -> Any:
    """JSD of teacher and q_t."""
    pairs = [(p, q, (p + q) / 2) for p, q in zip(_teacher(), _student(t), strict=True)]
    return reduce(add, [(p * (p / m).log() + q * (q / m).log()) / 2 for p, q, m in pairs])


def _jsd_slope(t: Any) -> Any:
    """d JSD/dt = Σ q (x - x̄) ½ log(q/m), x = (1, 0, -1)."""
    q = _student(t)
    mean = q[0] - q[2]
    logs = [(b / ((p + b) / 2)).log() / 2 for p, b in zip(_teacher(), q, strict=True)]
    return q[0] * (1 - mean) * logs[0] - q[1] * mean * logs[1] - q[2] * (1 + mean) * logs[2]


def _two_events(u: Any) -> Any:
    """JSD of (a, 1 - a) and (u, 1 - u): a lower bound on JSD of any student with q_1 = u."""
    pairs = [(ball("99/200"), u), (ball("101/200"), 1 - u)]
    return reduce(add, [(p * (2 * p / (p + q)).log() + q * (2 * q / (p + q)).log()) / 2 for p, q in pairs])


def _jsd_centre() -> list[Evidence]:
    """JSD'' > 0 on [0, 1/4], JSD' > 0 on [1/4, 4], and beyond it a larger value than at 0."""
    from flint import arb_series

    def bend(t: Any) -> Any:
        moved = _jsd_slope(arb_series([t, 1]))
        return -moved[1]

    return [
        interval.certify(bend, {"t": (0, "1/4")}, strict=True, says="JSD'' > 0, as -JSD'' < 0"),
        interval.certify(lambda t: -_jsd_slope(t), {"t": ("1/4", 4)}, strict=True, says="JSD' > 0, as -JSD' < 0"),
        interval.within(
            lambda: _two_events(ball("98/100")) - jsd(ball(0)),
            "5/100",
            1,
            says="t >= 4 has q_1 >= .98; JSD there - JSD(0)",
        ),
        interval.within(lambda: _student(ball(4))[0], "98/100", 1, says="q_1 at t = 4"),
    ]


def _odds(t: Any) -> Any:
    """ℓ(t) = t (2 + cosh t)/sinh t, whose crossing of log(a/b) is reverse KL's optimum."""
    return t * (2 + t.cosh()) / t.sinh()


def _crossing(low: str, high: str) -> list[Evidence]:
    """ℓ rises, so signs at two ends locate the one crossing."""
    level = sp.log(A / B)
    ends = [sp.Rational(low), sp.Rational(high)]
    values = [t * (2 + (sp.exp(t) + sp.exp(-t)) / 2) * 2 / (sp.exp(t) - sp.exp(-t)) for t in ends]
    return [
        exact.check(values[0], "<", level, says=f"ℓ({low}) < log(a/b)"),
        exact.check(values[1], ">", level, says=f"ℓ({high}) > log(a/b)"),
    ]


def tv_optimum() -> sp.Expr:
    """e^t of the TV and W1 optimum: the root of (1 - a) x² - a x - a."""
    return (A + sp.sqrt(A**2 + 4 * A * (1 - A))) / (2 * (1 - A))


def _typed(name: str, t: float) -> float:
    """A loss at t by its definition; W1 by linear programming over plans, with positions 0, 1, 2."""
    p, q = np.array([0.495, 0.01, 0.495]), oracles.softmax(np.array([t, 0.0, -t]))
    if name != "w1":
        return float(np.real(oracles.DEFINITIONS[name](p, q, **({"beta": 0.5} if name == "jsd" else {}))))
    return optimal_transport(p, q, np.abs(np.subtract.outer(np.arange(3), np.arange(3)))).value


def _beats(optima: dict[str, float]) -> Any:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        name = str(rng.choice(list(optima)))
        t = float(rng.choice([-1, 1]) * 10 ** rng.uniform(-2, 1))
        return _typed(name, optima[name]) - _typed(name, t), {"loss": name, "t": t}

    return violation


def _attempt(optima: dict[str, float]) -> Evidence:
    return numeric.attempt(
        _beats(optima),
        draws=250,
        oracle="definitions typed again, W1 by scipy.optimize.linprog",
        tolerance=1e-9,
        because="linprog's feasibility tolerance; optima to six digits, where the losses are flat or have slope < 1",
        says="no other t is better than the optimum of its loss",
    )


OPTIMA = {"fkl": 0.0, "hellinger2": 0.0, "jsd": 0.0, "rkl": 3.4595752, "tvd": 0.4667571, "w1": 0.4667571}


def found_optima() -> dict[str, float]:
    """Minimisers in t >= 0 by bounded scalar search, for figures and as a second method."""
    return {
        name: float(minimize_scalar(lambda t, n=name: _typed(n, t), bounds=(0, 8), method="bounded").x)
        for name in OPTIMA
    }


@claim(
    "modes.log-linear",
    statement=r"q_t \propto (e^t, 1, e^{-t}),\ p = (.495, .01, .495):\ \text{FKL, JSD, Hellinger}^2\ t = 0;"
    r"\ \text{RKL}\ |t| = 3.459\ldots;\ \text{TV and } W_1\ (0, 1, 2)\ |t| = .466\ldots",
    source="kdtheory, Theorem 4",
    expected=Verdict.PROVED,
    domain=r"all t; for (a, b, a) in general RKL leaves t = 0 exactly if a > e^3 b",
    proof=_PROOF,
)
def log_linear_optima() -> list[Evidence]:
    """FKL and Hellinger for every a and b; RKL by a rising function; TV and W1 in closed form; JSD by enclosure."""
    return [
        *_jsd_centre(),
        *_crossing("34595/10000", "34596/10000"),
        exact.check(sp.log(tv_optimum()), ">", sp.Rational(466, 1000), says="TV and W1: |t| > .466"),
        exact.check(sp.log(tv_optimum()), "<", sp.Rational(467, 1000), says="TV and W1: |t| < .467"),
        _attempt(OPTIMA),
    ]


@log_linear_optima.control
def _() -> Evidence:
    """RKL's optimum at 0 must not pass."""
    return _attempt(OPTIMA | {"rkl": 0.0})


@log_linear_optima.control
def _() -> list[Evidence]:
    """A crossing between 3 and 3.4 must not pass."""
    return _crossing("3", "3400/1000")


_a, _b = sp.symbols("a b", positive=True)


def _leaves_centre(ratio: str) -> float:
    """Reverse KL's optimal |t| for a/b = ratio, by bounded search on the definition."""
    b = 1 / (1 + 2 * float(sp.Rational(ratio)))
    p = np.array([(1 - b) / 2, b, (1 - b) / 2])
    value = lambda t: float(np.real(oracles.DEFINITIONS["rkl"](p, oracles.softmax(np.array([t, 0.0, -t])))))  # noqa: E731
    grid = np.linspace(0, 8, 161)
    return float(grid[int(np.argmin([value(t) for t in grid]))])


def _threshold(wanted: list[bool]) -> Evidence:
    return numeric.compare(
        [_leaves_centre(ratio) > 0.1 for ratio in ("18", "19", "22", "40")],
        wanted,
        oracle="the rule log(a/b) > 3 (e³ = 20.0855…), typed as truth values",
        tolerance=0.0,
        because="truth values",
        role="attempted refutation",
        says="a/b = 18, 19, 22, 40: RKL's optimum on a grid of t is off the centre",
    )


@claim(
    "modes.log-linear-threshold",
    statement=r"q_t \propto (e^t, 1, e^{-t}),\ p = (a, b, a):\ \text{reverse KL leaves } t = 0 \iff a > e^3 b",
    source="kdtheory, Theorem 4",
    expected=Verdict.PROVED,
    domain="a, b > 0, 2a + b = 1; FKL and Hellinger stay at 0 for all of them",
    proof=_PROOF,
)
def log_linear_threshold() -> list[Evidence]:
    """t (2 + cosh t)/sinh t rises from 3."""
    return [
        interval.certify(
            lambda t: 3 - _odds(t), {"t": ("1/2", 10)}, strict=True, role="attempted refutation", says="3 < ℓ(t)"
        ),
        _threshold([False, False, True, True]),
    ]


@log_linear_threshold.control
def _() -> Evidence:
    """A threshold at a = 2 e³ b must not pass."""
    return _threshold([False, False, False, False])


__all__ = ["OPTIMA", "A", "B", "found_optima", "jsd", "tv_optimum"]
