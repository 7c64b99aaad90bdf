"""Section 7.5 of chapter 07: what subtracting the two own values gives, when it is positive, and what it leaves."""

from __future__ import annotations

from typing import Any

import mpmath as mp
import numpy as np
import sympy as sp
from scipy.sparse.csgraph import shortest_path

from kdtheory.claims.transport import regularised
from kdtheory.claims.transport.regularised import MPMATH, Array, debiased
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric, symbolic

_FLOAT = "scaling in float64, from the definition"
_SCALED = "values scaled to 1e-13, times ε ≤ 4.5"


def _values_differ(name: str) -> Evidence:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q, cost, epsilon = regularised.random_problem(rng)
        off = debiased(name, p, q, cost, epsilon) - debiased("relative", p, q, cost, epsilon)
        return abs(off), regularised.point(p, q, cost, epsilon)

    return numeric.attempt(
        violation,
        draws=30,
        oracle=_FLOAT,
        tolerance=1e-11,
        because=_SCALED,
        says=f"debiased {name} = debiased relative",
    )


def _sharp_is_a_slope(weight: float) -> Evidence:
    """Debiased sharp against S_ε − weight · ε ∂S_ε/∂ε, the derivative by differences in mpmath."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q, cost, epsilon = regularised.random_problem(rng)
        with mp.workdps(regularised.DIGITS):
            first, second = regularised.in_digits(p), regularised.in_digits(q)
            eps, h = mp.mpf(epsilon), mp.mpf("1e-8")
            up, down, here = (
                debiased("relative", first, second, cost, eps + side * h, by=regularised.precise) for side in (1, -1, 0)
            )
            sharp = debiased("sharp", first, second, cost, eps, by=regularised.precise)
            off = float(abs(sharp - here + weight * eps * (up - down) / (2 * h)))
        return off, regularised.point(p, q, cost, epsilon)

    return numeric.attempt(
        violation,
        draws=3,
        oracle=f"central differences in ε, {MPMATH}",
        tolerance=1e-11,
        because="h = 1e-8 squared times third derivatives; 30 digits over h",
        says=f"debiased sharp = S_ε − {weight:g} ε ∂S_ε/∂ε",
    )


@claim(
    "transport.debiased-values",
    statement=r"\text{the entropic and the relative value have one debiased value } S_\varepsilon;\ \text{the sharp one"
    r" has } S_\varepsilon - \varepsilon\, \partial S_\varepsilon / \partial \varepsilon = \tfrac{d}{d\lambda} (\lambda"
    r" S_{1/\lambda}),\ \text{so } \lambda S_{1/\lambda} \text{ is its integral over } (0, \lambda)",
    source="kdtheory, Theorem 21; feydy2019sinkhorn",
    expected=Verdict.PROVED,
    domain="all p, q, any cost, ε = 1/λ > 0",
    uses=("transport.three-functionals", "transport.epsilon-path"),
    proof=Anchor("07_transport#debiased-values", sha256="31767c4e00aef9fe"),
)
def debiased_values() -> list[Evidence]:
    """Random problems; the derivative in ε by differences of the values."""
    return [_values_differ("entropic"), _sharp_is_a_slope(1.0)]


@debiased_values.control
def _() -> list[Evidence]:
    """The sharp value in place of the entropic one, and half the slope, must not pass."""
    return [_values_differ("sharp"), _sharp_is_a_slope(0.5)]


def bipartite_cost() -> Array:
    """Shortest paths of the complete bipartite graph of 2 + 3 tokens, from its edges."""
    side = np.array([0, 0, 1, 1, 1])
    return np.asarray(shortest_path((side[:, None] != side).astype(float), unweighted=True))


def bipartite_value(x: Any) -> Any:
    """S_ε/ε, p uniform on the two and q on the three tokens, x = exp(−2/ε), by definition from the plans.

    Across, all costs are 1 and the plan is p ⊗ q. The self-plan of m tokens at mutual distance 2 is
    (1 on the diagonal, x off it) / (m (1 + (m − 1) x)).
    """

    def own(size: int) -> Any:
        diagonal = 1 / (size * (1 + (size - 1) * x))
        entries = [(size, diagonal, 0), (size * (size - 1), x * diagonal, 2)]
        inverse_epsilon = sp.log(1 / x) / 2
        return sum(n * mass * (far * inverse_epsilon + sp.log(mass * size**2)) for n, mass, far in entries)

    return sp.log(1 / x) / 2 - (own(2) + own(3)) / 2


def _at_bipartite(relation: Any, x: str, role: Any) -> Evidence:
    found = bipartite_value(sp.Rational(x))
    return exact.check(found, relation, 0, role=role, says=f"K_(2,3), exp(−2/ε) = {x}: S_ε/ε {relation} 0")


def _bipartite_is_right() -> Evidence:
    """The closed value against the definition on all five tokens, masses of 1e-12 where p or q is 0."""
    rows = np.array([[1, 1, 0, 0, 0], [0, 0, 1, 1, 1]], dtype=float) + 1e-12
    p, q = rows / rows.sum(1, keepdims=True)
    epsilon = -2 / np.log(0.75)
    return numeric.compare(
        [float(epsilon * bipartite_value(sp.Rational(3, 4)))],
        [debiased("relative", p, q, bipartite_cost(), epsilon)],
        oracle=f"{_FLOAT}; scipy's shortest paths",
        tolerance=1e-9,
        because="masses of 1e-12 in place of 0, times log 1e12",
        role="attempted refutation",
        says="S_ε on K_(2,3)",
    )


def _positive_kernel_fails(kind: str) -> Evidence:
    """S_ε over random costs with a positive semidefinite kernel exp(−C/ε), or without that ("any")."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(2, 6))
        p, q = (0.999 * x + 0.001 / size for x in rng.dirichlet(np.full(size, 0.5), size=2))
        if kind == "positive":  # a Gram matrix of positive features: a kernel that need not stay positive at other ε
            features = rng.uniform(0.05, 1, size=(size, int(rng.integers(1, size + 1))))
            cost, epsilon = -np.log(features @ features.T), 1.0
        else:
            cost, epsilon = bipartite_cost()[:size, :size], float(rng.uniform(4, 8))
            side = np.array([1.0, 1, 0, 0, 0])[:size]
            p, q = (0.999 * x / x.sum() + 0.001 / size for x in (side + 1e-9, 1 + 1e-9 - side))
        return -debiased("relative", p, q, cost, epsilon), regularised.point(p, q, cost, epsilon)

    return numeric.attempt(
        violation,
        draws=40,
        oracle=_FLOAT,
        tolerance=1e-12,
        because=_SCALED,
        says=f"S_ε ≥ 0, costs: {kind}",
    )


@claim(
    "transport.debiased-positivity",
    statement=r"W_\lambda^{Unbiased}(P, Q) = W_\lambda(P, Q) - \tfrac12 W_\lambda(P, P) - \tfrac12 W_\lambda(Q, Q)"
    r" \text{ is a divergence: } 0 \text{ at } P = Q,\ \ge 0",
    source="lossdesigns, Unbiased Sinkhorn divergence; feydy2019sinkhorn",
    expected=Verdict.PROVED_IF,
    rows=("S1-62",),
    domain="W_λ the entropic or the relative value, C symmetric; 0 at P = Q always",
    condition="exp(−C/ε) is positive semidefinite; necessary as well, and S_ε = 0 only at p = q if it is definite",
    uses=("transport.debiased-values", "geometry.sinkhorn-tail"),
    proof=Anchor("07_transport#debiased-positivity", sha256="a35f939613022c75"),
)
def debiased_positivity() -> list[Evidence]:
    """Kernels that are Gram matrices; and the graph metric of K_(2,3), where S_ε < 0 exactly if ε > 2 / log 2."""
    return [
        _positive_kernel_fails("positive"),
        _bipartite_is_right(),
        _at_bipartite(">=", "1/4", "inside condition"),
        _at_bipartite(">=", "3/4", "outside condition"),
    ]


@debiased_positivity.control
def _() -> list[Evidence]:
    """The graph metric at large ε must not pass as positive, nor at small ε as negative."""
    return [_positive_kernel_fails("any"), _at_bipartite(">=", "1/4", "outside condition")]


def _kernel_fails(family: str) -> Evidence:
    """Least eigenvalue of exp(−C/ε) over random tokens and ε."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(3, 9))
        points = rng.normal(size=(size, int(rng.integers(1, 4)))) * np.exp(rng.uniform(-2, 2))
        apart = points[:, None] - points
        if family == "tree":
            parent = [int(rng.integers(0, k)) for k in range(1, size)]
            edges = np.zeros((size, size))
            edges[range(1, size), parent] = rng.uniform(0.01, 2, size=size - 1)
            cost = shortest_path(edges, directed=False)
        elif family == "graph":
            cost = bipartite_cost()
        else:
            power = {"Euclidean": 1.0, "squared Euclidean": 2.0, "0-1": 0.0}[family]
            cost = np.linalg.norm(apart, axis=-1) ** power if power else 1 - np.eye(size)
            cost = np.abs(apart).sum(-1) if family == "Euclidean" and rng.uniform() < 0.5 else cost
        epsilon = float(np.exp(rng.uniform(-1, 2)))
        return -float(np.linalg.eigvalsh(np.exp(-cost / epsilon))[0]), {"cost": cost.tolist(), "epsilon": epsilon}

    return numeric.attempt(
        violation,
        draws=40,
        oracle="numpy.linalg.eigvalsh",
        tolerance=1e-12,
        because="LAPACK: 1e-16 of the norm, which is at most 8",
        says=f"exp(−C/ε) is positive semidefinite for {family} costs",
    )


@claim(
    "transport.negative-type",
    statement=r"\exp(-C/\varepsilon) \succeq 0 \text{ for all } \varepsilon > 0 \iff \eta^\top C \eta \le 0 \text{ for"
    r" all } \textstyle\sum_i \eta_i = 0;\ \text{so for tokens on a line, on a tree, with the 0-1 cost, in } \ell_1"
    r" \text{ or Euclidean space, with } |x - y| \text{ or } |x - y|^2",
    source="kdtheory, Theorem 23; schoenberg1938metric",
    expected=Verdict.PROVED,
    domain="symmetric C",
    uses=("transport.debiased-positivity",),
    proof=Anchor("07_transport#negative-type", sha256="44d72e381adb8cad"),
)
def negative_type() -> list[Evidence]:
    """Eigenvalues for random tokens, and the polynomial of K_(2,3) that both sides of the criterion share."""
    families = ("Euclidean", "squared Euclidean", "0-1", "tree")
    return [*(_kernel_fails(family) for family in families), _threshold(sp.Rational(1, 2)), _form(">")]


def _form(relation: exact.Relation) -> Evidence:
    """K_(2,3) is not of negative type: η = (3, 3, −2, −2, −2) adds up to 0."""
    eta = sp.Matrix([3, 3, -2, -2, -2])
    form = (eta.T * sp.Matrix(5, 5, lambda i, j: int(bipartite_cost()[i, j])) * eta)[0]
    return exact.check(form, relation, 0, says=f"K_(2,3), η = (3, 3, −2, −2, −2): ηᵀCη {relation} 0")


def _threshold(root: Any) -> Evidence:
    """det exp(−C/ε) of K_(2,3) is 2 (1 − x)⁴ (1/2 − x) with x = exp(−2/ε): it changes sign at x = 1/2."""
    k = sp.Symbol("k", positive=True)
    kernel = sp.Matrix(5, 5, lambda i, j: k ** int(bipartite_cost()[i, j]))
    right = 2 * (1 - k**2) ** 4 * (root - k**2)
    return symbolic.identity(
        kernel.det(), right, role="attempted refutation", scope="V = 5", says=f"det of K_(2,3)'s kernel, root {root}"
    )


@negative_type.control
def _() -> list[Evidence]:
    """The graph metric of K_(2,3), in kernel and form, and another root, must not pass."""
    return [_kernel_fails("graph"), _threshold(sp.Rational(1, 3)), _form("<=")]
