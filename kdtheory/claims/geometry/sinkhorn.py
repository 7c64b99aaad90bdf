"""Section 4.9 of chapter 04: second order of the Sinkhorn divergence at the teacher, and its quadratic tail."""

from __future__ import annotations

from typing import Any

import mpmath as mp
import numpy as np
import sympy as sp

from kdtheory import simplex
from kdtheory.claims.geometry import smoothed
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, numeric, symbolic


def _random_cost(rng: np.random.Generator, size: int) -> Any:
    """Distances or squared distances in the plane, or any symmetric matrix with zero diagonal."""
    points = rng.normal(size=(size, 2))
    apart = np.linalg.norm(points[:, None] - points, axis=-1)
    free = rng.uniform(0.2, 2, size=(size, size))
    return (apart, apart**2, (free + free.T) / 2 * (1 - np.eye(size)))[int(rng.integers(3))]


def _second_difference(p: Any, direction: Any, cost: Any, epsilon: float) -> float:
    """d²/dt² of S_ε(p, softmax(log p + t ζ)) at 0: the definition, in mpmath with 40 digits, h = 1e-9."""
    with mp.workdps(40):
        teacher = [mp.mpf(float(x)) for x in p]
        teacher = [x / mp.fsum(teacher) for x in teacher]
        step, values = mp.mpf(10) ** -9, []
        for side in (-1, 1):
            weights = [x * mp.exp(side * step * float(d)) for x, d in zip(teacher, direction, strict=True)]
            moved = [x / mp.fsum(weights) for x in weights]
            values.append(smoothed.exact_divergence(teacher, moved, cost, mp.mpf(float(epsilon))))
        return float(mp.fsum(values) / step**2)


def _sinkhorn_hessian_fails_by(weigh: Any) -> Evidence:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(2, 4))
        p = rng.dirichlet(np.ones(size)) + rng.choice([1e-4, 0.1])
        p, cost, direction = p / p.sum(), _random_cost(rng, size), rng.normal(size=size)
        epsilon = float(cost.max() * rng.uniform(0.6, 3))
        formula = direction @ smoothed.logit_hessian(p, cost, epsilon, weigh=weigh) @ direction
        found = _second_difference(p, direction, cost, epsilon)
        return float(abs(formula / found - 1)), {"p": p.tolist(), "cost": cost.tolist(), "epsilon": epsilon}

    return numeric.attempt(
        violation,
        draws=6,
        oracle="second differences of S_ε by Sinkhorn iterations in mpmath, 40 digits",
        tolerance=1e-8,
        because="S_ε near its zero: 40 digits over h² = 1e-18, and h itself 1e-9; the formula in float64",
        says="logit Hessian ε A(I - A²)⁺ of S_ε at q = p",
    )


@claim(
    "geometry.sinkhorn-hessian",
    statement=r"\text{at } q = p \text{ the Hessian of } S_\varepsilon(p, \cdot) \text{ in the logits is }"
    r" \zeta \mapsto \varepsilon \langle \tilde\zeta, A(I - A^2)^{+} \tilde\zeta\rangle_{L^2(p)},\ \tilde\zeta ="
    r" \zeta - E_p"
    r" \zeta,\ A \text{ the Markov kernel of the plan from } p \text{ to itself}",
    source="kdtheory, Theorem 26; feydy2019sinkhorn",
    expected=Verdict.PROVED,
    domain="symmetric cost, ε > 0, p in the open simplex",
    uses=("gradients.chain-rule",),
    proof=Anchor("04_geometry#sinkhorn-hessian", sha256="86f800feff9440b3"),
)
def sinkhorn_hessian() -> Evidence:
    """The spectral formula against second differences of the value itself, for metric and other costs."""
    return _sinkhorn_hessian_fails_by(lambda x: x / (1 - x**2))


@sinkhorn_hessian.control
def _() -> Evidence:
    """A(I - A)⁺ in place of A(I - A²)⁺ must not pass."""
    return _sinkhorn_hessian_fails_by(lambda x: x / (1 - x))


def tail_constant(ratio: Any) -> Any:
    """B/ε of the tail bound, from c/ε."""
    return np.expm1(2 * ratio) * (1 + np.sinh(ratio) / 2)


def _tail_fails_by(gap: float, power: int) -> Evidence:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(2, 30))
        p = simplex.zipf(size, float(rng.uniform(0, 3)))
        cost = _random_cost(rng, size)
        spread = np.ptp(cost)
        epsilon = float(spread * rng.uniform(0.4, 4))
        values = smoothed.spectrum(p, cost, epsilon).values
        hessian = smoothed.logit_hessian(p, cost, epsilon)
        bound = epsilon * tail_constant(spread / epsilon)
        fisher = epsilon / 2 * np.sinh(spread / epsilon)
        gibbs = np.linalg.eigvalsh(np.exp(-cost / epsilon))[0]
        spare = [
            np.abs(values).max() / np.tanh(gap * spread / (2 * epsilon)) - 1,
            np.abs(np.linalg.eigvalsh(hessian / np.sqrt(np.outer(p, p)))).max() / fisher - 1,
            (np.diag(hessian) / (bound * p**power)).max() - 1,
        ]
        if gibbs > 1e-6:
            least = np.linalg.eigvalsh(hessian + np.ones((size, size)))[0]  # the constants moved out of the way
            spare += [epsilon * gibbs * p.min() ** 2 / least - 1, least * (1 - 1 / size) / (bound * p.min() ** 2) - 1]
        else:
            spare.append(-1.0 if gibbs > -1e-9 or values.min() < 0 else 1.0)
        return float(max(spare)), {"p": p.tolist(), "cost": cost.tolist(), "epsilon": epsilon}

    return numeric.attempt(
        violation,
        draws=40,
        oracle="numpy.linalg.eigvalsh of the self-plan found by Sinkhorn iterations",
        tolerance=1e-6,
        because="the least eigenvalue, down to 1e-9 of the largest, carries LAPACK's 1e-16 of it",
        says="spectral gap, Fisher bound, B p_i² and both bounds on the least eigenvalue",
    )


def _two_tokens(eigenvalue: Any) -> list[Evidence]:
    """p = (1/2, 1/2), cost c across and 0 on the diagonal, with k = e^{-c/ε}: A and its eigenvalue on (1, -1)."""
    k = sp.Symbol("k", positive=True)
    kernel = sp.Matrix([[1, k], [k, 1]]) / (1 + k)
    found = (kernel * sp.Matrix([1, -1]))[0]
    both = [
        (found, eigenvalue(k), "eigenvalue of A is tanh(c/2ε)"),
        (found / (1 - found**2), (1 / k - k) / 4, "λ/(1 - λ²) is ½ sinh(c/ε)"),
    ]
    return [
        symbolic.identity(left, right, role="attempted refutation", scope="V = 2", says=says)
        for left, right, says in both
    ]


def _negative(bipartite: bool) -> Evidence:
    """S_4 along A's last eigenvector at uniform p; for the shortest paths of K_{2,3} K is not positive semidefinite."""
    side = np.array([0, 0, 1, 1, 1]) if bipartite else np.arange(5)
    cost = np.where(side[:, None] == side, 2.0, 1.0) * (1 - np.eye(5))
    p = np.full(5, 0.2)
    found = smoothed.spectrum(p, cost, 4.0)
    moved = p * (1 + 0.1 * found.vectors[:, -1] / np.sqrt(p))
    with mp.workdps(30):
        laws = [[mp.mpf(float(x)) for x in row] for row in (p, moved / moved.sum())]
        laws = [[x / mp.fsum(row) for x in row] for row in laws]
        value = float(smoothed.exact_divergence(laws[0], laws[1], cost, mp.mpf(4)))
    data: dict[str, Any] = {"p": p.tolist(), "q": moved.tolist(), "S": value, "oracle": "mpmath, 30 digits"}
    if value >= 0:
        data["counterexample"] = dict(data)
    says = f"metric of {'K_{2,3}' if bipartite else 'five equidistant tokens'} at ε = 4: S_ε(p, q) = {value:.3g} < 0"
    return Evidence("numeric", "attempted refutation", value < 0, says, data=data)


@claim(
    "geometry.sinkhorn-tail",
    statement=r"c = \mathrm{range}(C),\ B = \varepsilon (e^{2c/\varepsilon} - 1)(1 + \tfrac12 \sinh \tfrac"
    r" c\varepsilon):"
    r"\ Q(e_i) \le B p_i^2,\ |Q| \le \tfrac\varepsilon2 \sinh \tfrac c\varepsilon \cdot J,\ \lambda_2(Q) \le"
    r" \tfrac{V}{V-1} B"
    r" p_{\min}^2, \text{ and } \lambda_2(Q) \ge \varepsilon \lambda_{\min}(K) p_{\min}^2 \text{ if } K ="
    r" e^{-C/\varepsilon}"
    r" \succ 0, C_{ii} = 0;\ K \not\succeq 0 \Rightarrow S_\varepsilon < 0 \text{ somewhere near every } p",
    source="kdtheory, Theorem 27",
    expected=Verdict.PROVED,
    domain="symmetric cost, ε > 0, p in the open simplex, Q the logit Hessian of S_ε at q = p",
    uses=("geometry.sinkhorn-hessian", "geometry.overlap-without-dimension"),
    proof=Anchor("04_geometry#sinkhorn-tail", sha256="f2f44f02da727296"),
)
def sinkhorn_tail() -> list[Evidence]:
    """Equality for two tokens in symbols; random costs and Zipf laws; a negative value on K_{2,3}."""
    return [*_two_tokens(lambda k: (1 - k) / (1 + k)), _tail_fails_by(1.0, 2), _negative(True)]


@sinkhorn_tail.control
def _() -> list[Evidence]:
    """Half the exponent in the gap, a cubic tail, and negativity for equidistant tokens (K positive), must not pass."""
    return [_tail_fails_by(0.5, 2), _tail_fails_by(1.0, 3), _negative(False)]
