"""Theorem 11 of chapter 07: the Sinkhorn update as it is printed, and what it converges to instead of the plan."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import sympy as sp
from scipy.optimize import root

from kdtheory.claims.transport import finite
from kdtheory.claims.transport.iterations import STEPS, draw, iterate, plan_of, printed, sums, sweep, times
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric

_CONVERGENCE = Anchor("07_transport#contraction", sha256="bca8cf726230c7f4")
_PROOF = Anchor("07_transport#printed-update", sha256="0f307c0451abb90d")
_BECAUSE = "tanh(2)^1200 < 1e-18 after 1200 steps or 600 sweeps, then float64 rounding; the oracle stops at 1e-12"

_ONE_WAY = [finite.fractions(1, "1/2"), finite.fractions("1/4", 1)]  # exp(-λC), λ = log 2, C = (0, 1; 2, 0)
_EVEN = [finite.fractions(1, "1/2"), finite.fractions("1/2", 1)]  # the same with C = (0, 1; 1, 0)
_TARGET = finite.fractions("6/11", "5/11")
_HALVES = finite.fractions("1/2", "1/2")


def _masses(kernel: Any, p: Any, q: Any) -> list[Fraction]:
    """Mass of Γ^l for l = 0 … 5."""
    return [sum(sums(kernel, *printed(kernel, p, q, step))[0]) for step in range(6)]


def _update_fails_by(transpose: bool, fresh: bool) -> Any:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q, kernel = draw(rng)
        step = sweep(kernel, p, q, transpose, fresh)
        start = np.ones(p.size), rng.uniform(0.2, 3, size=q.size)
        found = plan_of(kernel, *iterate(step, *start, STEPS // 2))
        target = finite.scaled(p, q, -np.log(kernel), 1.0)[2]
        return float(np.abs(found - target).max()), {"p": p.tolist(), "q": q.tolist(), "K": kernel.tolist()}

    return violation


def _attempt_update(transpose: bool = True, fresh: bool = True) -> Evidence:
    return numeric.attempt(
        _update_fails_by(transpose, fresh),
        draws=12,
        oracle=finite.NEWTON,
        tolerance=1e-9,
        because=_BECAUSE,
        says="u = p/(Kv), then v = q/(K^T u) with the new u: limit Γ_λ",
    )


def _refuted() -> list[Evidence]:
    """Mass and column sums of what the printed update returns, against those of a plan."""
    role: Any = "refutes as written"
    found = []
    for step in (6, 7):
        says = f"K = (1, 1/2; 1/2, 1), p = q = (1/2, 1/2), step {step}: mass of u K v, as of a plan"
        found.append(
            exact.check(sum(sums(_EVEN, *printed(_EVEN, _HALVES, _HALVES, step))[0]), "==", 1, role=role, says=says)
        )
        columns = sums(_ONE_WAY, *printed(_ONE_WAY, _TARGET, _TARGET, step))[1]
        says = f"K = (1, 1/2; 1/4, 1), p = q = (6/11, 5/11), step {step}: first column sum of u K v, normalised, and q"
        found.append(exact.check(columns[0] / sum(columns), "==", _TARGET[0], role=role, says=says))
    return found


@claim(
    "transport.sinkhorn-update",
    statement=r"u^{l+1} = P / (K v^l),\ v^{l+1} = Q / (K u^l)",
    source="lossdesigns, Sinkhorn; cuturi2013sinkhorn, Algorithm 1",
    expected=Verdict.CORRECTED,
    rows=("S1-56",),
    domain="p, q > 0. Right: v^{l+1} = q / (K^T u^{l+1}); as printed the mass alternates, and for an asymmetric cost"
    " the column sums are wrong as well",
    uses=("transport.scaling-form", "transport.contraction"),
    proof=_CONVERGENCE,
)
def sinkhorn_update() -> list[Evidence]:
    """Two exact two-cycles on two tokens refute it; the corrected sweep against Newton's method."""
    return [*_refuted(), _attempt_update()]


@sinkhorn_update.control
def _() -> list[Evidence]:
    """Each of the two misprints alone must not pass."""
    return [_attempt_update(transpose=False), _attempt_update(fresh=False)]


def _two_cycle_fails_by(alternates: bool) -> Any:
    """Limits along even and odd steps against c Γ_λ and Γ_λ/c; c against its enclosures and its scaling."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        symmetric = bool(rng.random() < 0.5)
        p, q, kernel = draw(rng, symmetric)
        step = sweep(kernel, p, q, transpose=not symmetric, fresh=False)
        u, v = rng.uniform(0.2, 3, size=(2, p.size))
        target = finite.scaled(p, q, -np.log(kernel), 1.0)[2]
        even, odd = (plan_of(kernel, *iterate(step, u, v, STEPS + k)) for k in (0, 1))
        c = even.sum() if alternates else 1.0
        errors = [np.abs(even / c - target).max(), np.abs(odd * c - target).max()]
        for steps in (0, 2, 4):
            early = plan_of(kernel, *iterate(step, u, v, steps))
            for quotient in (early.sum(0) / q, early.sum(1) / p):
                errors += [quotient.min() / c - 1, 1 - quotient.max() / c]
        errors.append(abs(plan_of(kernel, *iterate(step, 3 * u, v)).sum() / (3 * c) - 1))
        errors.append(abs(plan_of(kernel, *iterate(step, p / (kernel @ v), v)).sum() - 1))
        return float(max(errors)), {"p": p.tolist(), "q": q.tolist(), "K": kernel.tolist()}

    return violation


def _attempt_two_cycle(alternates: bool = True) -> Evidence:
    return numeric.attempt(
        _two_cycle_fails_by(alternates),
        draws=12,
        oracle=f"{finite.NEWTON}; the printed iteration itself",
        tolerance=1e-9,
        because=_BECAUSE,
        says="even steps → cΓ_λ, odd steps → Γ_λ/c, c within its enclosures",
    )


def _ninety_ten(mass: Any) -> list[Evidence]:
    """C = 1 - I, λ = 1, q = (½, ½): both column quotients of Γ^0 = K, between which c lies, against `mass`."""
    kernel = [[sp.Integer(1), sp.exp(-1)], [sp.exp(-1), sp.Integer(1)]]
    columns = sums(kernel, [sp.Integer(1)] * 2, [sp.Integer(1)] * 2)[1]
    return [
        exact.check(column / sp.Rational(1, 2), "==", mass, says="C = 1 - I, λ = 1, q = (1/2, 1/2): an end for c")
        for column in columns
    ]


@claim(
    "transport.two-cycle",
    statement=r"u^{l+1} = p / (K v^l),\ v^{l+1} = q / (K^\top u^l) \Rightarrow \Gamma^{2k} \to c\, \Gamma_\lambda,"
    r"\ \Gamma^{2k+1} \to \Gamma_\lambda / c;\ \min_j \Gamma^{2k}_{\cdot j} / q_j \le c \le \max_j"
    r" \Gamma^{2k}_{\cdot j} / q_j,\ \text{likewise for rows};\ c = 1 \text{ from } u^0 = p / (K v^0)",
    source="kdtheory, Theorem 11",
    expected=Verdict.PROVED,
    domain="p, q, K > 0 (K for K^T included if K is symmetric), any start; c is proportional to u^0",
    uses=("transport.scaling-form", "transport.contraction"),
    proof=_PROOF,
)
def two_cycle() -> list[Evidence]:
    """Masses 3 and 1/3 in fractions; c = 2(1 + 1/e) where both ends of its enclosure agree; random kernels."""
    masses = _masses(_EVEN, _HALVES, _HALVES)
    return [
        *(
            exact.check(mass, "==", Fraction(3) if step % 2 == 0 else Fraction(1, 3), says=f"mass at step {step}")
            for step, mass in enumerate(masses)
        ),
        *_ninety_ten(2 * (1 + sp.exp(-1))),
        _attempt_two_cycle(),
    ]


@two_cycle.control
def _() -> list[Evidence]:
    """Convergence (c = 1 from any start), and the mass of a kernel without its diagonal's double, must not pass."""
    return [_attempt_two_cycle(False), *_ninety_ten(1 + sp.exp(-1))]


def _eigenray(p: finite.Array, q: finite.Array, kernel: finite.Array) -> tuple[finite.Array, finite.Array, float]:
    """u, v, μ with v·(Ku) = q and μ u·(Kv) = p, u_1 = 1, by scipy's root finder on the logarithms."""
    size = p.size

    def split(x: finite.Array) -> tuple[finite.Array, finite.Array, float]:
        return np.exp(np.append(0.0, x[: size - 1])), np.exp(x[size - 1 : -1]), float(np.exp(x[-1]))

    def equations(x: finite.Array) -> finite.Array:
        u, v, mu = split(x)
        return np.concatenate([np.log(v * (kernel @ u) / q), np.log(mu * u * (kernel @ v) / p)])

    solved = root(equations, np.zeros(2 * size), tol=1e-13)
    if np.abs(equations(solved.x)).max() > 1e-11:
        raise RuntimeError(f"root: {solved.message}")
    return split(solved.x)


def _transposed_fails_by(drift: bool) -> Any:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q, kernel = draw(rng)
        u, v, mu = _eigenray(p, q, kernel)
        mu = mu if drift else 1.0
        limit = mu * plan_of(kernel, u, v)
        start = rng.uniform(0.2, 3, size=(2, p.size))
        printed_step = sweep(kernel, p, q, transpose=False, fresh=False)
        even, odd = (plan_of(kernel, *iterate(printed_step, start[0], start[1], STEPS + k)) for k in (0, 1))
        fresh = sweep(kernel, p, q, transpose=False)
        late = iterate(fresh, start[0], start[1], 400)
        grown = fresh(*late)[0] / late[0]
        columns = mu * q * (kernel.T @ u) / (kernel @ u)
        errors = [np.abs(x / x.sum() - limit).max() for x in (even, odd)]
        errors += [abs(even.sum() * odd.sum() * mu - 1), np.abs(grown / mu - 1).max()]
        errors += [np.abs(limit.sum(1) - p).max(), np.abs(limit.sum(0) - columns).max()]
        return float(max(errors)), {"p": p.tolist(), "q": q.tolist(), "K": kernel.tolist()}

    return violation


def _attempt_transposed(drift: bool = True) -> Evidence:
    return numeric.attempt(
        _transposed_fails_by(drift),
        draws=12,
        oracle="scipy.optimize.root on the eigenvalue equations; the printed iteration itself",
        tolerance=1e-8,
        because="1200 steps, or 400 sweeps, contract by tanh(2)^800 < 1e-12 at least; root finding to 1e-11",
        says="K for K^T: direction M, row sums p, masses with product 1/μ, drift μ per sweep",
    )


def _drift(factor: Any) -> list[Evidence]:
    """From u = (1, 1): one sweep with K for K^T, in fractions."""
    p, q = finite.fractions("8/17", "9/17"), finite.fractions("3/8", "5/8")
    v = [a / b for a, b in zip(q, times(_ONE_WAY, [1, 1]), strict=True)]
    u = [a / b for a, b in zip(p, times(_ONE_WAY, v), strict=True)]
    return [exact.check(x, "==", factor, says="K = (1, 1/2; 1/4, 1): u after one sweep from (1, 1)") for x in u]


def _swapped_columns() -> list[Evidence]:
    """p = q = (6/11, 5/11): masses 11/4 and 4/11 in turns, column sums (5/11, 6/11) after normalising."""
    found = []
    for step, mass in enumerate(_masses(_ONE_WAY, _TARGET, _TARGET)):
        found.append(
            exact.check(mass, "==", ("11/4", "4/11")[step % 2], says=f"K = (1, 1/2; 1/4, 1): mass, step {step}")
        )
    rows, columns = sums(_ONE_WAY, *printed(_ONE_WAY, _TARGET, _TARGET, 5))
    found.append(exact.check(rows[0] / sum(rows), "==", _TARGET[0], says="its first row sum, normalised, and p"))
    found.append(exact.check(columns[0] / sum(columns), "==", _TARGET[1], says="its first column sum, and the other q"))
    return found


@claim(
    "transport.transposed-kernel",
    statement=r"K \text{ for } K^\top:\ \Gamma^l / \textstyle\sum \Gamma^l \to M \text{ with row sums } p \text{ and"
    r" column sums } \mu q (K^\top u^*) / (K u^*);\ \text{masses } c, \tfrac1{c\mu};\ \text{with } u^{l+1} \text{ for }"
    r" u^l:\ u^l \sim \mu^l u^*,\ \mu = \frac{v^{*\top} K u^*}{u^{*\top} K v^*}",
    source="kdtheory, Theorem 11",
    expected=Verdict.PROVED,
    domain="p, q, K > 0, K square; (u*, v*) solves v = q/(Ku), μu = p/(Kv)",
    uses=("transport.contraction",),
    proof=_PROOF,
)
def transposed_kernel() -> list[Evidence]:
    """Two tokens in fractions, periodic from the first step; random kernels against a root finder."""
    return [*_swapped_columns(), *_drift("16/17"), _attempt_transposed()]


@transposed_kernel.control
def _() -> list[Evidence]:
    """No drift, μ = 1, must not pass."""
    return [*_drift(1), _attempt_transposed(False)]
