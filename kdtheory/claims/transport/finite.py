"""Oracles of sections 7.1 and 7.3, independent of `kdtheory.transport`: spanning trees in fractions, HiGHS, scipy."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog, minimize

Array = NDArray[Any]
Law = Sequence[Fraction]
Matrix = Sequence[Sequence[Fraction]]
Edge = tuple[int, int]
Tree = tuple[Edge, ...]

HIGHS = "scipy.optimize.linprog (HiGHS)"
TREES = "all spanning trees, in fractions"
NEWTON = "scipy.optimize.minimize (trust-exact) on the dual"
SHARP = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
SOLVER = "HiGHS keeps a dozen constraints to 1e-10 each, times costs below 10"
EXACT = "fractions: no rounding"


class Solution(NamedTuple):
    """An optimal tree: value of the programme, the tree's plan and its potentials."""

    value: Fraction
    plan: dict[Edge, Fraction]
    f: list[Fraction]
    g: list[Fraction]


def fractions(*numbers: Any) -> list[Fraction]:
    """Numbers such as "1/2" as fractions."""
    return [Fraction(x) for x in numbers]


def equations(rows: int, columns: int) -> Array:
    """The matrix A of AΓ = (row sums, column sums), shape (rows + columns, rows · columns)."""
    return np.vstack([np.kron(np.eye(rows), np.ones(columns)), np.kron(np.ones(rows), np.eye(columns))])


@cache
def trees(rows: int, columns: int) -> tuple[Tree, ...]:
    """All spanning trees of the complete bipartite graph: sets of rows + columns - 1 edges that connect everything."""
    edges = list(product(range(rows), range(columns)))
    return tuple(chosen for chosen in combinations(edges, rows + columns - 1) if connects(chosen, rows, columns))


def connects(edges: Sequence[Edge], rows: int, columns: int) -> bool:
    """Whether every row and column can be reached from the first row along the edges."""
    return len(reach(edges, rows)) == rows + columns


def reach(edges: Sequence[Edge], rows: int, start: int = 0) -> set[int]:
    """Vertices joined to `start`; row i is vertex i, column j vertex rows + j."""
    seen, todo = {start}, [start]
    while todo:
        at = todo.pop()
        for i, j in edges:
            for here, there in ((i, rows + j), (rows + j, i)):
                if here == at and there not in seen:
                    seen.add(there)
                    todo.append(there)
    return seen


def flow(tree: Tree, p: Law, q: Law) -> dict[Edge, Fraction]:
    """The matrix on the tree with row sums p and column sums q, possibly negative: leaves first."""
    left, below, open_edges = list(p), list(q), list(tree)
    found: dict[Edge, Fraction] = {}
    while open_edges:
        rows, columns = [[edge[side] for edge in open_edges] for side in (0, 1)]
        i, j = next(e for e in open_edges if rows.count(e[0]) == 1 or columns.count(e[1]) == 1)
        mass = left[i] if rows.count(i) == 1 else below[j]
        found[i, j] = mass
        left[i], below[j] = left[i] - mass, below[j] - mass
        open_edges.remove((i, j))
    return found


def potentials(tree: Tree, cost: Matrix) -> tuple[list[Fraction], list[Fraction]]:
    """f, g with f_i + g_j = C_ij on the tree and f_1 = 0."""
    f: dict[int, Fraction] = {0: Fraction(0)}
    g: dict[int, Fraction] = {}
    while len(f) + len(g) <= len(tree):
        for i, j in tree:
            if i in f and j not in g:
                g[j] = cost[i][j] - f[i]
            elif j in g and i not in f:
                f[i] = cost[i][j] - g[j]
    return [f[i] for i in sorted(f)], [g[j] for j in sorted(g)]


def spend(plan: dict[Edge, Fraction], cost: Matrix) -> Fraction:
    """⟨Γ, C⟩."""
    return sum((mass * cost[i][j] for (i, j), mass in plan.items()), Fraction(0))


def prices(f: Law, g: Law, p: Law, q: Law) -> Fraction:
    """⟨f, p⟩ + ⟨g, q⟩."""
    pairs = [*zip(f, p, strict=True), *zip(g, q, strict=True)]
    return sum((a * b for a, b in pairs), Fraction(0))


def affordable(f: Law, g: Law, cost: Matrix) -> bool:
    """f_i + g_j ≤ C_ij everywhere."""
    return all(f[i] + g[j] <= cost[i][j] for i in range(len(f)) for j in range(len(g)))


def least(p: Law, q: Law, cost: Matrix) -> Fraction:
    """T_C(p, q) from the primal side alone: the cheapest of all trees whose flow is not negative."""
    plans = (flow(tree, p, q) for tree in trees(len(p), len(q)))
    return min(spend(plan, cost) for plan in plans if min(plan.values()) >= 0)


def dearest(p: Law, q: Law, cost: Matrix) -> Fraction:
    """T_C(p, q) from the dual side alone: the largest price among the trees whose potentials are feasible."""
    return max(prices(f, g, p, q) for f, g in feasible_potentials(cost))


def feasible_potentials(cost: Matrix) -> list[tuple[list[Fraction], list[Fraction]]]:
    """The vertices of the dual polyhedron (f_1 = 0)."""
    pairs = (potentials(tree, cost) for tree in trees(len(cost), len(cost[0])))
    return [(f, g) for f, g in pairs if affordable(f, g, cost)]


def solve(p: Law, q: Law, cost: Matrix) -> Solution | None:
    """A tree that is feasible on both sides, or None if there is none."""
    for tree in trees(len(p), len(q)):
        plan = flow(tree, p, q)
        f, g = potentials(tree, cost)
        if min(plan.values()) >= 0 and affordable(f, g, cost):
            return Solution(spend(plan, cost), plan, f, g)
    return None


def integers(rng: np.random.Generator, size: int, parts: int) -> list[Fraction]:
    """A random law of multiples of 1/parts, zeros and ties not excepted."""
    cuts = np.sort(rng.integers(0, parts + 1, size=size - 1))
    return [Fraction(int(k), parts) for k in np.diff([0, *cuts, parts])]


def rational_cost(rng: np.random.Generator, rows: int, columns: int, most: int = 6) -> list[list[Fraction]]:
    """Small random whole numbers, with many ties."""
    return [[Fraction(int(k)) for k in row] for row in rng.integers(-1, most, size=(rows, columns))]


def highs(p: Array, q: Array, cost: Array) -> tuple[float, Array]:
    """T_C and an optimal vertex, shape (m, n), by the dual simplex method; the largest column's equation is dropped."""
    dropped = p.size + q.argmax()  # an empty column could not make up for a last bit by which the masses differ
    solved = linprog(
        cost.ravel(),
        A_eq=np.delete(equations(p.size, q.size), dropped, 0),
        b_eq=np.delete(np.concatenate([p, q]), dropped),
        method="highs-ds",
        options=SHARP,
    )
    if solved.status != 0:
        raise RuntimeError(f"linprog stopped: {solved.message}")
    return float(solved.fun), solved.x.reshape(cost.shape)


def scaled(p: Array, q: Array, cost: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """(f, g, Γ) of the entropic programme: the smooth concave dual maximised by a trust-region Newton method."""
    rows = p.size

    def plan(x: Array) -> Array:
        return np.exp((x[:rows, None] + x[None, rows:] - cost) / epsilon)

    def value(x: Array) -> float:
        return float(epsilon * plan(x).sum() - x[:rows] @ p - x[rows:] @ q)

    def slope(x: Array) -> Array:
        found = plan(x)
        return np.concatenate([found.sum(1) - p, found.sum(0) - q])

    def curvature(x: Array) -> Array:
        found = plan(x)
        blocks = np.block([[np.diag(found.sum(1)), found], [found.T, np.diag(found.sum(0))]])
        ray = np.concatenate([np.ones(rows), -np.ones(q.size)])  # along it nothing changes: make it curved
        return np.asarray((blocks + np.outer(ray, ray)) / epsilon)

    start = np.concatenate([epsilon * np.log(p), epsilon * np.log(q) + cost.mean()])
    x = minimize(value, start, jac=slope, hess=curvature, method="trust-exact", options={"gtol": 1e-9}).x
    for _ in range(3):  # Newton's last steps, below what the objective resolves
        x = x - np.linalg.solve(curvature(x), slope(x))
    error = np.abs(slope(x)).max()
    if error > 1e-12:
        raise RuntimeError(f"the dual was not maximised: marginal error {error:.2g}")
    return x[:rows], x[rows:], plan(x)


def smoothed(p: Array, q: Array, cost: Array, epsilon: float) -> Array:
    """Γ of the entropic programme from the primal side alone: ⟨Γ, C⟩ - ε H(Γ) minimised over p ⊗ q + circulations."""
    rows, columns = cost.shape
    least = np.einsum("ai,bj->abij", *(np.eye(k)[:-1] - np.eye(k)[-1] for k in (rows, columns)))
    basis = least.reshape(-1, rows * columns).T
    start, prices = np.outer(p, q).ravel(), cost.ravel()

    def value(y: Array) -> float:
        x = start + basis @ y
        return float(x @ prices + epsilon * (x * np.log(x)).sum()) if x.min() > 0 else np.inf

    def slope(y: Array) -> Array:
        return np.asarray(basis.T @ (prices + epsilon * np.log(start + basis @ y)))

    def curvature(y: Array) -> Array:
        return np.asarray(basis.T @ (basis * (epsilon / (start + basis @ y))[:, None]))

    y = np.zeros(basis.shape[1])
    y = minimize(value, y, jac=slope, hess=curvature, method="trust-exact", options={"gtol": 1e-6}).x
    for _ in range(3):  # Newton's last steps, below what the objective resolves
        y = y - np.linalg.solve(curvature(y), slope(y))
    return np.asarray((start + basis @ y).reshape(cost.shape))


def law(rng: np.random.Generator, size: int, least: float = 1e-3) -> Array:
    """A random law, peaked to flat, every entry about `least` or more."""
    p = rng.dirichlet(np.full(size, 10 ** rng.uniform(-0.5, 1))) + least
    return np.asarray(p / p.sum())


def distances(rng: np.random.Generator, size: int) -> Array:
    """Euclidean distances of random points in the plane."""
    points = rng.normal(size=(size, 2))
    return np.asarray(np.linalg.norm(points[:, None] - points, axis=-1))


def osc(x: Any) -> float:
    """max - min."""
    return float(np.ptp(np.asarray(x)))


def entropy(x: Any) -> float:
    """-Σ x log x over the positive entries."""
    x = np.asarray(x)
    x = x[x > 0]
    return float(-(x * np.log(x)).sum())
