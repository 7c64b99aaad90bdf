"""Section 7.4 of chapter 07: three functionals under one symbol, and their gradients."""

from __future__ import annotations

from typing import Any

import mpmath as mp
import numpy as np
import sympy as sp

from kdtheory.claims.transport import regularised
from kdtheory.claims.transport.regularised import MPMATH, Array, Solution
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric
from kdtheory.ledger.evidence import Role

_HALF, _THIRD, _SIXTH = sp.Rational(1, 2), sp.Rational(1, 3), sp.Rational(1, 6)
_ROUNDED = "float64 scaling to 1e-14, condition of the linear system below 1e3"


def two_token_values(p: Any, q: Any, scalings: tuple[Any, Any], k: Any) -> dict[str, Any]:
    """The three values for C = 1 − I and ε = 1/log(1/k), by definition, from a plan with the scalings (α, β).

    The plan α_i K_ij β_j with K = ((1, k), (k, 1)) must have the marginals p and q; this is checked exactly.
    """
    alpha, beta = scalings
    kernel = sp.Matrix([[1, k], [k, 1]])
    plan = sp.Matrix(2, 2, lambda i, j: alpha[i] * kernel[i, j] * beta[j])
    if list(plan * sp.ones(2, 1)) != list(p) or list(plan.T * sp.ones(2, 1)) != list(q):
        raise ValueError(f"the plan {plan.tolist()} does not have the marginals {p} and {q}")
    epsilon = 1 / sp.log(1 / k)
    sharp = plan[0, 1] + plan[1, 0]
    relative = sharp + epsilon * sum(plan[i, j] * sp.log(plan[i, j] / (p[i] * q[j])) for i in (0, 1) for j in (0, 1))
    entropic = sharp + epsilon * sum(x * sp.log(x) for x in plan)
    return {"sharp": sharp, "relative": relative, "entropic": entropic, "epsilon": epsilon}


def _written(left: str, right: str, role: Role) -> Evidence:
    """p = q = (1/2, 1/2), cost 1 off the diagonal, λ = log 2: the plan is ((1/3, 1/6), (1/6, 1/3))."""
    half = (_HALF, _HALF)
    found = two_token_values(half, half, ((_THIRD, _THIRD), (1, 1)), _HALF)
    return exact.check(
        found[left],
        "==",
        found[right],
        role=role,
        says=f"{left} = {right} for p = q = (1/2, 1/2), C = 1 − I, λ = log 2",
    )


def _same_plan(shift: float) -> Evidence:
    """Entropic = relative − ε H(p) − ε H(q), and no plan does better in the entropic programme."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q, cost, epsilon = regularised.random_problem(rng)
        found = regularised.solve(p, q, cost, epsilon)
        entropies = regularised.entropy(p) + regularised.entropy(q)
        off = abs(found.relative - (1 + shift) * epsilon * entropies - found.entropic)
        turn = np.zeros_like(cost)
        turn[np.ix_((0, 1), (0, 1))] = rng.choice((-1, 1)) * np.array([[1, -1], [-1, 1]])
        other = found.plan + rng.uniform(0, 1) * found.plan.min() * turn
        rival = float((other * cost).sum()) - epsilon * regularised.entropy(other)
        return max(off, found.entropic - rival), regularised.point(p, q, cost, epsilon)

    return numeric.attempt(
        violation,
        draws=30,
        oracle="sums over the plan, by definition; rival plans with the same marginals",
        tolerance=1e-11,
        because="plans scaled to 1e-14, times ε ≤ 4.5 and 16 terms",
        says="entropic = relative − ε(H(p) + H(q)), with one plan",
    )


@claim(
    "transport.three-functionals",
    statement=r"W_\lambda(P, Q) = \min_\Gamma \{\langle \Gamma, C\rangle - \tfrac1\lambda H(\Gamma)\} \text{ and"
    r" } W_\lambda(P, Q) = \langle \Gamma, C\rangle \text{ for the minimising } \Gamma",
    source="lossdesigns, Sinkhorn algorithm; cuturi2013sinkhorn",
    expected=Verdict.CORRECTED,
    rows=("S1-58",),
    uses=("transport.entropic-programme",),
    domain="all p, q, C; right: one plan, three values, entropic = sharp − εH(Γ) = relative − εH(p) − εH(q), ε = 1/λ",
    proof=Anchor("07_transport#three-functionals", sha256="9eea93818ab92156"),
)
def three_functionals() -> list[Evidence]:
    """Two tokens in exact numbers: 1/3 is not the minimum of the programme, nor is it the relative value."""
    return [_written("sharp", "entropic", "refutes as written"), _same_plan(0.0)]


@three_functionals.control
def _() -> list[Evidence]:
    """An entropy counted with a tenth too much must not pass; nor a functional be said to differ from itself."""
    return [_same_plan(0.1), _written("sharp", "sharp", "refutes as written")]


def gradients(found: Solution, p: Array, q: Array, cost: Array, epsilon: float) -> dict[str, Array]:
    """Gradients in q of the three functionals, shape (V,) each, up to a constant."""
    slope = regularised.epsilon_derivatives(found, p, q, cost, epsilon)[1]
    return {"relative": found.g, "entropic": found.g + epsilon * np.log(q), "sharp": found.g - epsilon * slope}


def _moved(q: list[Any], token: int, step: Any) -> list[Any]:
    return [x + step * ((j == token) - (j == 0)) for j, x in enumerate(q)]


def central(value: Any, q: Array, step: float = 1e-8) -> Array:
    """Central differences of a value of q along e_j − e_0, j ≥ 1, in mpmath: shape (V − 1,)."""
    law = regularised.in_digits(q)
    sides = [[value(_moved(law, j, side * mp.mpf(step))) for side in (1, -1)] for j in range(1, q.size)]
    return np.array([float((up - down) / (2 * mp.mpf(step))) for up, down in sides])


def _gradient_fails(name: str, formula: Any) -> Evidence:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q, cost, epsilon = regularised.random_problem(rng, symmetric=name == "divergence")
        given = formula(p, q, cost, epsilon)
        with mp.workdps(regularised.DIGITS):
            teacher, eps = regularised.in_digits(p), mp.mpf(epsilon)

            def value(law: list[Any]) -> Any:
                cross = regularised.precise(teacher, law, cost, eps)
                if name != "divergence":
                    return getattr(cross, name)
                return cross.relative - regularised.precise(law, law, cost, eps).relative / 2

            found = central(value, q)
        return float(np.abs(given[1:] - given[0] - found).max()), regularised.point(p, q, cost, epsilon)

    return numeric.attempt(
        violation,
        draws=3,
        oracle=f"central differences of the value, {MPMATH}",
        tolerance=1e-9,
        because=_ROUNDED + "; h = 1e-8 squared times third derivatives",
        says=f"gradient of {name} in q",
    )


def towards_new_token(name: str, p: Array, q: Array, cost: Array, epsilon: float, *, own: float = 1.0) -> float:
    """Slope along e_last − e_0 where q, shape (V − 1,), has nothing on the last of V tokens: potentials extended to it.

    g_last from the second equation of the potentials, f being that of the tokens with mass.
    """
    inner = cost[:, :-1]

    def difference(found: Solution, masses: Array, columns: Array) -> float:
        last = -epsilon * np.log(masses @ np.exp((found.f - columns[:, -1]) / epsilon))
        return float(last - found.g[0])

    found = regularised.solve(p, q, inner, epsilon)
    slope = difference(found, p, cost)
    if name == "divergence":
        return slope - own * difference(regularised.solve(q, q, inner[:-1], epsilon), q, cost[:-1])
    if name == "sharp":  # the linear system's row for the last token
        f_slope, g_slope = regularised.epsilon_derivatives(found, p, q, inner, epsilon)
        exponents = (found.f + found.g[0] + slope - cost[:, -1]) / epsilon
        slope -= epsilon * float(p * np.exp(exponents) @ (exponents - f_slope) - g_slope[0])
    return slope


def _boundary_fails(name: str, own: float = 1.0) -> Evidence:
    """A student without mass on the last token receives some."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q, cost, epsilon = regularised.random_problem(rng, symmetric=name == "divergence")
        q = q[:-1] / q[:-1].sum()
        with mp.workdps(regularised.DIGITS):
            teacher, student, eps = regularised.in_digits(p), regularised.in_digits(q), mp.mpf(epsilon)

            def value(law: list[Any]) -> Any:
                cross = regularised.precise(teacher, law, cost[:, : len(law)], eps)
                if name != "divergence":
                    return getattr(cross, name)
                return cross.relative - regularised.precise(law, law, cost, eps).relative / 2

            h = mp.mpf("1e-11")
            found = (value([student[0] - h, *student[1:], h]) - value(student)) / h
        off = abs(towards_new_token(name, p, q, cost, epsilon, own=own) - float(found))
        return off, regularised.point(p, q, cost, epsilon)

    return numeric.attempt(
        violation,
        draws=3,
        oracle=f"one-sided differences of the value, {MPMATH}",
        tolerance=1e-8,
        because=_ROUNDED + "; h = 1e-11 times second derivatives",
        says=f"derivative of {name} towards a token without mass",
    )


def _of(name: str) -> Any:
    return lambda p, q, cost, eps: gradients(regularised.solve(p, q, cost, eps), p, q, cost, eps)[name]


def _divergence_gradient(own: float) -> Any:
    def formula(p: Array, q: Array, cost: Array, eps: float) -> Array:
        return np.asarray(regularised.solve(p, q, cost, eps).g - own * regularised.solve(q, q, cost, eps).g)

    return formula


@claim(
    "transport.functional-gradients",
    statement=r"\nabla_q: \text{ relative } g,\ \text{entropic } g + \varepsilon \log q,\ \text{sharp } g -"
    r" \varepsilon\, \partial g / \partial \varepsilon,\ \text{divergence } g_{pq} - g_{qq}, \text{ each up to a"
    r" constant}",
    source="kdtheory, Theorem 15; feydy2019sinkhorn",
    expected=Verdict.PROVED,
    domain="any cost, ε > 0; the divergence for a symmetric cost; one-sided, with the potentials extended, where q has"
    " zeros",
    uses=("transport.three-functionals",),
    proof=Anchor("07_transport#functional-gradients", sha256="22eb1e751ebc2767"),
)
def functional_gradients() -> list[Evidence]:
    """Each formula against differences of its own value, for costs without symmetry; and at the simplex' boundary."""
    formulas = {name: _of(name) for name in ("relative", "entropic", "sharp")}
    formulas["divergence"] = _divergence_gradient(1.0)
    boundary = [_boundary_fails(name) for name in ("relative", "sharp", "divergence")]
    return [*(_gradient_fails(name, formula) for name, formula in formulas.items()), *boundary]


@functional_gradients.control
def _() -> list[Evidence]:
    """The relative potential as the gradient of other functionals, half the own potential, both, must not pass."""
    return [
        _gradient_fails("sharp", _of("relative")),
        _gradient_fails("entropic", _of("relative")),
        _gradient_fails("divergence", _divergence_gradient(0.5)),
        _boundary_fails("divergence", own=0.5),
    ]
