"""Section 4.9 of chapter 04: second order at the teacher, of f-divergences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import sympy as sp

from kdtheory import simplex
from kdtheory.claims.gradients import oracles
from kdtheory.divergences import RECORDS, derive
from kdtheory.divergences.symbols import alpha, beta
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, numeric, symbolic

TABLE: Mapping[str, sp.Expr] = {
    "fkl": sp.Integer(1),
    "rkl": sp.Integer(1),
    "jsd": beta * (1 - beta),
    "skl": (1 - alpha) ** 2,
    "srkl": (1 - alpha) ** 2,
    "chi2": sp.Integer(2),
    "neyman": sp.Integer(2),
    "hellinger2": sp.Rational(1, 4),
    "amari": sp.Integer(1),
    "renyi": alpha,
}
"""κ = f''(1) as the chapter prints it."""


def _rows(table: Mapping[str, sp.Expr]) -> list[Evidence]:
    found = {name: derive.curvature(record) for name, record in RECORDS.items()}
    smooth = {name: value for name, value in found.items() if value is not None}
    if set(smooth) != set(table):
        raise ValueError(f"the table lists {sorted(table)}, the records with a curvature are {sorted(smooth)}")
    return [
        symbolic.identity(smooth[name], right, says=f"curvature of {RECORDS[name].title}")
        for name, right in table.items()
    ]


def _kappa(name: str) -> float:
    given = {sp.Symbol(key, positive=True): value for key, value in oracles.PARAMETERS.get(name, {}).items()}
    return float(TABLE[name].subs(given))


def _hessian_fails_by(form: Any) -> Evidence:
    """Second derivatives in the logits at q = p, and D against κ d²/2 nearby, of the definitions typed again."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        name, h = str(rng.choice(list(TABLE))), 1e-5
        z = rng.normal(size=int(rng.integers(2, 6)))
        teacher = oracles.softmax(z)
        columns = [
            oracles.logit_gradient(name, teacher, z + h * unit) - oracles.logit_gradient(name, teacher, z - h * unit)
            for unit in np.eye(z.size)
        ]
        error = np.abs(np.array(columns) / (2 * h) - _kappa(name) * form(teacher)).max()
        near = oracles.softmax(z + 1e-3 * rng.normal(size=z.size))
        distance = 2 * np.arcsin(np.sqrt(((np.sqrt(teacher) - np.sqrt(near)) ** 2).sum()) / 2) * 2
        value = oracles.DEFINITIONS[name](teacher, near, **oracles.PARAMETERS.get(name, {}))
        beyond = abs(value / (distance**2 / 2) - _kappa(name)) - 50 * distance  # the O(d) of the statement, d ~ 1e-3
        return float(max(error, beyond)), {"loss": name, "z": z.tolist()}

    return numeric.attempt(
        violation,
        draws=60,
        oracle="central differences of complex-step gradients; d from the chord of √p and √q",
        tolerance=1e-8,
        because="h = 1e-5 leaves h² times fourth derivatives, at most 1e2; D ~ 1e-6 is known to 1e-16, or 1e-10 of it",
        says="logit Hessian κ(diag p - ppᵀ) at q = p, and D = κ d²/2 + O(d³)",
    )


def _fisher(p: Any) -> Any:
    return np.diag(p) - np.outer(p, p)


@claim(
    "geometry.curvature",
    statement=r"\text{at } q = p \text{ the Hessian of an } f\text{-divergence is } f''(1)\,\mathrm{diag}(1/p) \text{"
    r" in}"
    r" q \text{ and } f''(1)(\mathrm{diag}\,p - pp^\top) \text{ in the logits; } D = \tfrac12 f''(1) d^2 + O(d^3);"
    r"\ f''(1):"
    r"\ FKL, RKL, \text{Amari } 1,\ JSD\ \beta(1 - \beta),\ SKL, SRKL\ (1 - \alpha)^2,\ \chi^2 \text{ (both) } 2,"
    r"\ H^2\ \tfrac14,"
    r"\ \text{R\'enyi } \alpha",
    source="kdtheory, Theorem 24; amari2000methods, Section 3.2",
    expected=Verdict.PROVED,
    domain="p in the open simplex; total variation has a kink",
    uses=("geometry.fisher-rao", "gradients.logit-table"),
    proof=Anchor("04_geometry#curvature", sha256="7fba5fd396c1d019"),
)
def curvature() -> list[Evidence]:
    """Every record's curvature derived by SymPy against the table; the Hessians by finite differences."""
    return [*_rows(TABLE), _hessian_fails_by(_fisher)]


@curvature.control
def _() -> list[Evidence]:
    """A table with JSD's factor missing, and a Hessian without its rank-one part, must not pass."""
    return [*_rows({**TABLE, "jsd": beta}), _hessian_fails_by(np.diag)]


def _spectrum_fails_by(lower: Any, upper: Any) -> Evidence:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(2, 40))
        p = rng.dirichlet(np.full(size, 0.5)) + 1e-7 if rng.random() < 0.5 else simplex.zipf(size, rng.uniform(0, 3))
        p = np.sort(p / p.sum())
        values = np.linalg.eigvalsh(_fisher(p))
        gaps = [lower(p) - values[1], values[1] - upper(p[0], size), upper(p[-1], size) - values[-1]]
        return float(max(*gaps, (p[:-1] - values[1:]).max(), (values - p).max())), {"p": p.tolist()}

    return numeric.attempt(
        violation,
        draws=120,
        oracle="numpy.linalg.eigvalsh",
        tolerance=1e-14,
        because="LAPACK's backward error, a few 1e-16 of the largest entry, which is below 1",
        says="interlacing, and both ends of the spectrum",
    )


def _centred(mass: Any, size: int) -> Any:
    return size / (size - 1) * mass * (1 - mass)


@claim(
    "geometry.fisher-spectrum",
    statement=r"\lambda(\mathrm{diag}\,p - pp^\top):\ p_{(k)} \le \lambda_{k+1} \le p_{(k+1)},\ p_{(1)} \le \lambda_2"
    r" \le"
    r" \tfrac{V}{V-1} p_{(1)}(1 - p_{(1)}),\ \tfrac{V}{V-1} p_{(V)}(1 - p_{(V)}) \le \lambda_V \le p_{(V)}",
    source="kdtheory, Theorem 25",
    expected=Verdict.PROVED,
    domain="p in the open simplex, sorted; eigenvalues ascending, λ_1 = 0",
    uses=("geometry.curvature",),
    proof=Anchor("04_geometry#fisher-spectrum", sha256="b144fd531cd29f11"),
)
def fisher_spectrum() -> list[Evidence]:
    """Random and Zipf laws; for two tokens the improved upper bound is the eigenvalue."""
    a = sp.Symbol("a", positive=True)
    trace = a * (1 - a) + (1 - a) * a
    right = 2 * a * (1 - a)
    two = symbolic.identity(trace, right, role="attempted refutation", scope="V = 2", says="λ_2 = 2 p (1 - p)")
    return [two, _spectrum_fails_by(lambda p: p[0], _centred)]


@fisher_spectrum.control
def _() -> Evidence:
    """The second smallest probability as a lower bound must not pass."""
    return _spectrum_fails_by(lambda p: p[1], _centred)
