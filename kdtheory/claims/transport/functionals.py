"""Section 7.4 of chapter 07: three functionals under one symbol, their gradients and their minimisers."""

from __future__ import annotations

from fractions import Fraction
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
    proof=Anchor("07_transport#three-functionals", sha256="5b69950dc22607fc"),
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
    source="kdtheory, Theorem 21; feydy2019sinkhorn",
    expected=Verdict.PROVED,
    domain="p, q > 0, any cost, ε > 0; the divergence for a symmetric cost",
    uses=("transport.three-functionals",),
    proof=Anchor("07_transport#functional-gradients", sha256="08e6fe56198a86dc"),
)
def functional_gradients() -> list[Evidence]:
    """Each formula against differences of its own value, for costs without symmetry."""
    formulas = {name: _of(name) for name in ("relative", "entropic", "sharp")}
    formulas["divergence"] = _divergence_gradient(1.0)
    return [_gradient_fails(name, formula) for name, formula in formulas.items()]


@functional_gradients.control
def _() -> list[Evidence]:
    """The relative potential as the gradient of the other functionals, and half the own potential, must not pass."""
    return [
        _gradient_fails("sharp", _of("relative")),
        _gradient_fails("entropic", _of("relative")),
        _gradient_fails("divergence", _divergence_gradient(0.5)),
    ]


def two_token_teacher(first: Fraction, second: Fraction, k: Fraction) -> dict[str, Any]:
    """At q = p: a rational teacher from the scalings α = (first, second), and the slope differences 1 − 2.

    K = ((1, k), (k, 1)), ε = 1/log(1/k), C = 1 − I; p_i = α_i (Kα)_i / α'Kα.
    """
    alpha = sp.Matrix([first, second])
    spread = sp.Matrix([[1, k], [k, 1]]) * alpha
    mass = (alpha.T * spread)[0]
    p = [alpha[i] * spread[i] / mass for i in (0, 1)]
    theta = 1 / sp.Rational(k) ** 2
    root = sp.sqrt((1 + 2 * (theta - 1) * p[0]) ** 2 - 4 * theta * (theta - 1) * p[0] ** 2)
    return {
        "p": p,
        "relative": sp.log(spread[1] / spread[0]) / sp.log(1 / sp.Rational(k)),
        "entropic": sp.log(alpha[0] / alpha[1]) / sp.log(1 / sp.Rational(k)),
        "sharp": (1 - 2 * p[0]) / root,
    }


def _signs(relations: dict[str, str]) -> list[Evidence]:
    """α = (2, 1), k = 1/2: the teacher is (5/7, 2/7). Slopes against differences of the values, then their signs."""
    found = two_token_teacher(Fraction(2), Fraction(1), Fraction(1, 2))
    with mp.workdps(regularised.DIGITS):
        p = [mp.mpf(int(x.p)) / int(x.q) for x in found["p"]]
        slopes = [
            -central(
                lambda law, n=name: getattr(regularised.precise(p, law, ((0, 1), (1, 0)), 1 / mp.log(2)), n), _as(p)
            )
            for name in relations
        ]
    measured = numeric.compare(
        [float(found[name]) for name in relations],
        [float(slope[0]) for slope in slopes],
        oracle=f"central differences, {MPMATH}",
        tolerance=1e-12,
        because="h = 1e-8 squared times third derivatives; 30 digits",
        role="attempted refutation",
        says="derivative along e_1 − e_2 at q = p = (5/7, 2/7)",
    )
    signs = [
        exact.check(found[name], relation, 0, says=f"derivative of {name} towards the more probable token")  # type: ignore[arg-type]
        for name, relation in relations.items()
    ]
    return [measured, *signs]


def _as(p: list[Any]) -> Array:
    return np.array([float(x) for x in p])


@claim(
    "transport.opposite-gradients",
    statement=r"V = 2,\ C = c (1 - I),\ q = p,\ p_1 > p_2:\ \text{along } e_1 - e_2 \text{ the relative and the sharp"
    r" value fall, the entropic value rises}",
    source="kdtheory, Theorem 23",
    expected=Verdict.PROVED,
    domain="V = 2, c, ε > 0; all three derivatives are 0 at the uniform teacher",
    uses=("transport.functional-gradients",),
    proof=Anchor("07_transport#opposite-gradients", sha256="1298246c09b2f9bd"),
)
def opposite_gradients() -> list[Evidence]:
    """A rational teacher: the three derivatives in closed form, by differences of the values, and their signs."""
    return _signs({"relative": "<", "sharp": "<", "entropic": ">"})


@opposite_gradients.control
def _() -> list[Evidence]:
    """One sign for all three must not pass."""
    return _signs({"relative": "<", "sharp": "<", "entropic": "<"})
