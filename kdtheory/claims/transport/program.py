"""Theorems 1 and 3 of chapter 07: the distance with its root, and the linear programme as a graph."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import sympy as sp

from kdtheory.claims.transport import finite
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric
from kdtheory.ledger.evidence import Role

Fails = Callable[[np.random.Generator], tuple[float, dict[str, Any]]]
_ORDER = Anchor("07_transport#order", sha256="a29c52e89f3dd57a")
_PROGRAMME = Anchor("07_transport#programme", sha256="9406cff4ff046eb8")


def _order_fails_by(rooted: bool) -> Fails:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(2, 6))
        metric, r = finite.distances(rng, size), float(rng.uniform(1, 4))
        laws = [finite.law(rng, size, 0.0) for _ in range(3)]
        if rng.random() < 0.3:
            laws = list(np.eye(size)[rng.integers(size, size=3)])

        def distance(a: finite.Array, b: finite.Array, order: float = r) -> float:
            value = finite.highs(a, b, metric**order)[0]
            value = 0.0 if value < 1e-9 else value  # equal laws: no root of rounding
            return value ** (1 / order) if rooted else value

        a, b, c = laws
        first, second, whole = distance(a, b), distance(b, c), distance(a, c)
        errors = [whole - first - second, abs(first - distance(b, a))]
        if rooted:
            errors.append(distance(a, b, 1.0) - first)
        if 0 < min(first, second, whole) < 0.02:  # the root magnifies the solver's error here
            return 0.0, {}
        return max(errors), {"laws": [law.tolist() for law in laws], "metric": metric.tolist(), "r": r}

    return violation


def _attempt_order(rooted: bool = True) -> Evidence:
    return numeric.attempt(
        _order_fails_by(rooted),
        draws=25,
        oracle=finite.HIGHS,
        tolerance=1e-4,
        because="HiGHS to 1e-10 each way; the root of order r at W >= 0.02 magnifies by W^(1 - r) / r <= 0.02^-3 / 4",
        says="triangle inequality, symmetry and growth with the order",
    )


def _line_cost(i: int, j: int, order: int) -> Any:
    """T between two single tokens of the line 0, 1, 2 for the cost |x - y|^order, by all trees."""
    cost = [[sp.Integer(abs(a - b)) ** order for b in range(3)] for a in range(3)]
    start, end = (finite.fractions(*(int(k == at) for k in range(3))) for at in (i, j))
    return finite.least(start, end, [finite.fractions(*row) for row in cost])


def _rooted_triangle(order: int, root: bool) -> list[Evidence]:
    power = sp.Rational(1, order) if root else sp.Integer(1)
    legs = [sp.sympify(_line_cost(i, j, order)) ** power for i, j in ((0, 2), (0, 1), (1, 2))]
    says = f"tokens 0, 1, 2, order {order}, {'with' if root else 'without'} the root: T(e_0, e_2) against the two legs"
    return [exact.check(legs[0], "<=", legs[1] + legs[2], says=says)]


@claim(
    "transport.wasserstein-order",
    statement=r"W^p(P, Q) = \Bigl(\inf_\gamma \iint \gamma c\Bigr)^{1/p},\ c = \|x - y\|^p, \text{ with marginals } P"
    r" \text{ and } Q",
    source="lossdesigns, Wasserstein distance; villani2009optimal, Definition 6.1",
    expected=Verdict.PROVED,
    rows=("S1-52",),
    domain="a finite vocabulary with a metric, order at least 1; it should be written W_p, p being no power",
    uses=("geometry.wasserstein-definition",),
    proof=_ORDER,
)
def wasserstein_order() -> list[Evidence]:
    """The infimum is a minimum, and its root is a metric, by gluing plans; equality on a line for two steps of one."""
    return [*_rooted_triangle(2, True), *_rooted_triangle(3, True), _attempt_order()]


@wasserstein_order.control
def _() -> list[Evidence]:
    """Without the root the triangle inequality must fail, on the line and at random."""
    return [*_rooted_triangle(2, False), _attempt_order(False)]


def rank(rows: int, columns: int) -> int:
    """Rank of the equations, by SymPy's elimination in rationals."""
    return int(sp.Matrix(finite.equations(rows, columns).astype(int).tolist()).rank())


def _bases(rows: int, columns: int) -> tuple[int, set[int]]:
    """How many sets of rows + columns - 1 columns of A (last row dropped) have determinant ≠ 0, and which values."""
    matrix = finite.equations(rows, columns)[:-1]
    chosen = combinations(range(rows * columns), rows + columns - 1)
    found = [round(float(np.linalg.det(matrix[:, list(at)]))) for at in chosen]  # whole numbers of size 0 or 1
    return sum(d != 0 for d in found), {abs(d) for d in found}


def _ranks(formula: Any, role: Role = "supports") -> list[Evidence]:
    return [
        exact.check(rank(n, n), "==", formula(n), role=role, says=f"rank of A for {n} and {n} tokens")
        for n in range(1, 6)
    ]


def _one_row_less() -> list[Evidence]:
    """Each row of A is a combination of the others: leaving it out keeps the rank."""
    matrix = sp.Matrix(finite.equations(3, 3).astype(int).tolist())
    ranks = [matrix.extract([i for i in range(6) if i != drop], list(range(9))).rank() for drop in range(6)]
    return [exact.check(min(ranks), "==", 5, says="3 and 3 tokens: least rank without one of the six equations")]


def _spanning_trees() -> list[Evidence]:
    """Bases against spanning trees, and Scoins' count m^(n-1) n^(m-1)."""
    found = []
    for m, n in ((2, 2), (2, 3), (3, 3)):
        bases, values = _bases(m, n)
        says = f"{m} and {n} tokens: bases of A and spanning trees of K_{m},{n}"
        found.append(exact.check(bases, "==", len(finite.trees(m, n)), role="attempted refutation", says=says))
        found.append(exact.check(bases, "==", m ** (n - 1) * n ** (m - 1), role="attempted refutation", says=says))
        found.append(exact.check(max(values), "==", 1, role="attempted refutation", says="their determinants: ±1"))
    return found


def _subset_sums() -> Evidence:
    """Each entry of each tree's matrix against p(I) - q(J), the part of the tree on the row's side of the edge."""
    p, q = finite.fractions("1/2", "1/3", "1/6"), finite.fractions("1/7", "2/7", "4/7")
    wrong = 0
    for tree in finite.trees(3, 3):
        for edge, mass in finite.flow(tree, p, q).items():
            part = finite.reach([e for e in tree if e != edge], 3, edge[0])
            wrong += mass != sum(p[v] if v < 3 else -q[v - 3] for v in part)
    return exact.check(wrong, "==", 0, role="attempted refutation", says="81 trees: entries other than p(I) - q(J)")


def _entries_exceed(spare: int) -> Evidence:
    """Positive entries of a vertex that HiGHS returns, against m + n - 1 + spare; and a cycle in them counts as one."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        m, n = (int(k) for k in rng.integers(1, 7, size=2))
        p, q, cost = finite.law(rng, m), finite.law(rng, n), rng.normal(size=(m, n))
        plan = finite.highs(p, q, cost)[1]
        edges = [(int(i), int(j)) for i, j in np.argwhere(plan > 1e-11)]  # rounding of the flows: 1e-15
        parts = {frozenset(finite.reach(edges, m, vertex)) for vertex in range(m + n)}
        cycles = len(edges) - (m + n - len(parts))
        return float(max(len(edges) - (m + n - 1 + spare), cycles)), {"p": p.tolist(), "q": q.tolist()}

    return numeric.attempt(
        violation,
        draws=40,
        oracle=f"{finite.HIGHS}, dual simplex",
        tolerance=0.0,
        because="entries are counted",
        says=f"an optimal vertex is a forest with at most m + n - {1 - spare} entries",
    )


@claim(
    "transport.linear-programme",
    statement=r"W = \min\{\langle \Gamma, C\rangle : A \Gamma = b,\ \Gamma \ge 0\}",
    source="lossdesigns, Wasserstein distance, linear program; peyre2019computational, Section 3",
    expected=Verdict.PROVED,
    rows=("S1-54",),
    domain="finite vocabularies; rank A = m + n - 1, one equation is redundant and any one may be dropped",
    uses=("geometry.wasserstein-definition",),
    proof=_PROGRAMME,
)
def linear_programme() -> list[Evidence]:
    """Ranks in rationals, bases counted against spanning trees, vertices of random programmes."""
    return [*_ranks(lambda n: 2 * n - 1), *_one_row_less(), *_spanning_trees(), _subset_sums(), _entries_exceed(0)]


@linear_programme.control
def _() -> list[Evidence]:
    """Rank 2n, and vertices with one entry less than m + n - 1, must not pass."""
    return [*_ranks(lambda n: 2 * n), _entries_exceed(-1)]
