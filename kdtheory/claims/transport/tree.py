"""Theorems 35 to 37 of chapter 07: transport under a tree metric in place of another metric."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import combinations, product
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import squareform

from kdtheory.claims.oracles import Array, optimal_transport
from kdtheory.claims.transport.truncation import HIGHS, SOLVER, distances, scene
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric

Fails = Callable[[np.random.Generator], tuple[float, dict[str, Any]]]
Rational = Fraction
Table = list[list[Fraction]]


def ultrametric(cost: Array, method: str) -> Array:
    """Heights at which tokens meet in scipy's dendrogram."""
    return np.asarray(squareform(cophenet(linkage(squareform(cost, checks=False), method))))


def ratios(above: Array, below: Array) -> tuple[float, float]:
    """Smallest and largest quotient off the diagonal."""
    rest = ~np.eye(len(below), dtype=bool)
    return float((above[rest] / below[rest]).min()), float((above[rest] / below[rest]).max())


def _sandwich_fails_by(shrink: float) -> Fails:
    """a T ≤ T' ≤ b T for metrics and for costs that are none; the library's interval for one tree."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q, points = scene(rng)
        cost = distances(points) ** (1 if rng.random() < 0.7 else 2)
        other = ultrametric(cost, "average") if rng.random() < 0.7 else cost * rng.uniform(0.2, 3, size=cost.shape)
        low, high = ratios(other, cost)
        first, second = optimal_transport(p, q, cost).value, optimal_transport(p, q, other).value
        if rng.random() < 0.3:  # two Dirac laws at the extreme pair
            rest = np.where(np.eye(len(cost), dtype=bool), -np.inf, other / np.where(cost == 0, 1, cost))
            i, j = np.unravel_index(rest.argmax(), rest.shape)
            first, second = cost[i, j], other[i, j]
        record = {"p": p.tolist(), "q": q.tolist(), "cost": cost.tolist(), "other": other.tolist()}
        return float(max(low * first - second, second - shrink * high * first)), record

    return violation


def _attempt_sandwich(shrink: float = 1.0) -> Evidence:
    return numeric.attempt(
        _sandwich_fails_by(shrink),
        draws=50,
        oracle=HIGHS,
        tolerance=1e-8,
        because=SOLVER,
        says="a T_C ≤ T_C' ≤ b T_C",
    )


def _library_fails(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    """The library's interval from a tree against HiGHS on the embedding's distances."""
    from kdtheory.transport import TokenCost, tree_from_embedding
    from kdtheory.transport.tree_bounds import distortion, w1_from_tree

    p, q, points = scene(rng)
    method = ("single", "average", "complete", "ward")[int(rng.integers(4))]
    tree = TokenCost.tree(*tree_from_embedding(points, method))
    found = w1_from_tree(p, q, tree, distortion(tree, TokenCost.embedding(points)))
    whole = optimal_transport(p, q, distances(points)).value
    record = {"p": p.tolist(), "q": q.tolist(), "points": points.tolist(), "method": method}
    return float(max(found.lower - whole, whole - found.upper)), record


@claim(
    "transport.metric-sandwich",
    statement=r"a C \le C' \le b C \implies a\, T_C \le T_{C'} \le b\, T_C,\quad a = \min C'/C,\ b = \max C'/C"
    r" \text{: both attained}",
    source="kdtheory, Theorem 35",
    expected=Verdict.PROVED,
    domain="any two costs on the same tokens, metrics or not",
    proof=Anchor("07_transport#metric-sandwich", sha256="1a414419722b6b8f"),
)
def metric_sandwich() -> list[Evidence]:
    """The same plans, entry by entry."""
    library = numeric.attempt(
        _library_fails,
        draws=25,
        oracle=HIGHS,
        tolerance=1e-8,
        because=SOLVER,
        says="the library's interval from a dendrogram holds W1",
    )
    return [_attempt_sandwich(), library]


@metric_sandwich.control
def _() -> Evidence:
    """Nine tenths of the largest quotient must not bound T_C' from above."""
    return _attempt_sandwich(0.9)


def joined(cost: Table, height: Callable[[list[Fraction]], Fraction]) -> Table:
    """Agglomerative clustering in fractions: the heights at which tokens meet."""
    size = len(cost)
    clusters = [[i] for i in range(size)]
    found = [[Fraction(0)] * size for _ in range(size)]
    while len(clusters) > 1:
        pairs = [(height([cost[i][j] for i, j in product(a, b)]), x, y) for (x, a), (y, b) in _pairs(clusters)]
        least, x, y = min(pairs)
        for i, j in product(clusters[x], clusters[y]):
            found[i][j] = found[j][i] = least
        clusters[x] += clusters.pop(y)
    return found


def _pairs(clusters: list[list[int]]) -> Any:
    return combinations(enumerate(clusters), 2)


def mean(heights: list[Fraction]) -> Fraction:
    """Average linkage."""
    return sum(heights, Fraction(0)) / len(heights)


def line(*places: int) -> Table:
    """Distances on a line."""
    return [[Fraction(abs(a - b)) for a in places] for b in places]


def _linkage_fails_by(methods: tuple[str, str]) -> Fails:
    """First below d, second above, average with the same sum; single linkage as the largest of minimax paths."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        points = rng.normal(size=(int(rng.integers(3, 9)), int(rng.integers(1, 4))))
        cost = distances(points)
        low, high, single, middle = (ultrametric(cost, method) for method in (*methods, "single", "average"))
        minimax = cost.copy()
        for k in range(len(cost)):  # Floyd and Warshall: the smallest largest step of a path
            minimax = np.minimum(minimax, np.maximum(minimax[:, k, None], minimax[k]))
        errors = (low - cost, cost - high, abs(middle.sum() - cost.sum()), np.abs(minimax - single))
        return float(max(np.max(error) for error in errors)), {"points": points.tolist()}

    return violation


def _attempt_linkage(methods: tuple[str, str] = ("single", "complete")) -> Evidence:
    return numeric.attempt(
        _linkage_fails_by(methods),
        draws=100,
        oracle="scipy.cluster.hierarchy, minimax paths by Floyd and Warshall",
        tolerance=1e-11,
        because="sums of at most 56 distances below 10",
        says="single ≤ d ≤ complete, average keeps the sum, single = minimax path",
    )


def _three_points() -> list[Evidence]:
    cost = line(0, 1, 3)
    single, complete, average = (joined(cost, height) for height in (min, max, mean))
    return [
        exact.check(average[0][2], "<", cost[0][2], says="0, 1, 3, average: first and last meet below their distance"),
        exact.check(average[1][2], ">", cost[1][2], says="0, 1, 3, average: second and last meet above theirs"),
        exact.check(average[1][2], "==", Fraction(5, 2), says="0, 1, 3, average: height of the second joining"),
        exact.check(single[0][2], "<=", cost[0][2], says="0, 1, 3, single"),
        exact.check(complete[1][2], ">=", cost[1][2], says="0, 1, 3, complete"),
    ]


@claim(
    "transport.linkage",
    statement=r"\text{dendrograms: } W_1^{single} \le W_1 \le W_1^{complete} \text{, single the best ultrametric from"
    r" below; average on neither side: } \textstyle\sum u = \sum d",
    source="kdtheory, Theorem 36",
    expected=Verdict.PROVED,
    domain="agglomerative clustering of a metric; average: unless d is itself the dendrogram's distance",
    uses=("transport.metric-sandwich",),
    proof=Anchor("07_transport#linkage", sha256="b96d3bb237221e37"),
)
def linkages() -> list[Evidence]:
    """A pair meets at the least, largest or mean distance between the clusters that it joins."""
    return [*_three_points(), _attempt_linkage()]


@linkages.control
def _() -> list[Evidence]:
    """Average linkage must not pass as a bound, from below or from above."""
    return [_attempt_linkage(("average", "complete")), _attempt_linkage(("single", "average"))]


def spread(table: Table, cost: Table) -> Fraction:
    """Largest over smallest quotient of two tables off the diagonal."""
    quotients = [table[i][j] / cost[i][j] for i, j in combinations(range(len(cost)), 2)]
    return max(quotients) / min(quotients)


def random_ultrametric(rng: np.random.Generator, size: int) -> Table:
    """Clusters joined at random, at heights that do not decrease."""
    clusters, height = [[i] for i in range(size)], Fraction(0)
    found = [[Fraction(0)] * size for _ in range(size)]
    while len(clusters) > 1:
        x, y = sorted(rng.permutation(len(clusters))[:2].tolist())
        if rng.random() < 0.5:
            x, y = 0, 1
        height += Fraction(int(rng.integers(0, 4)), 2) + (height == 0)
        for i, j in product(clusters[x], clusters[y]):
            found[i][j] = found[j][i] = height
        clusters[x] += clusters.pop(y)
    return found


def _line_fails_by(table_of: Callable[[np.random.Generator, int], Table]) -> Fails:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(2, 9))
        table = table_of(rng, size)
        amount = size - 1 - spread(table, line(*range(size)))
        return float(amount), {"table": [[str(x) for x in row] for row in table]}

    return violation


def _attempt_line(table_of: Callable[[np.random.Generator, int], Table]) -> Evidence:
    return numeric.attempt(
        _line_fails_by(table_of),
        draws=300,
        oracle="fractions",
        tolerance=0.0,
        because="exact; the quotient of two fractions is rounded once, after the sign is decided",
        says="b/a ≥ n - 1 for ultrametrics on n equally spaced points",
    )


def _single_fails(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    """Points of the plane, half of the time stretched to nearly a line, where the bound is nearly attained."""
    points = rng.normal(size=(int(rng.integers(2, 9)), 2))
    if rng.random() < 0.5:
        points[:, 0], points[:, 1] = np.arange(len(points)), 0.01 * points[:, 1]
    cost = distances(points)
    excess = cost - (len(cost) - 1) * ultrametric(cost, "single")
    return float(excess[~np.eye(len(cost), dtype=bool)].max()), {"points": points.tolist()}


@claim(
    "transport.ultrametric-line",
    statement=r"a |i - j| \le u(i, j) \le b |i - j| \text{ with an ultrametric } u \implies b/a \ge n - 1"
    r" \text{: attained by single linkage, which has } d \le (n - 1) u \text{ for every metric;}"
    r" \text{ a path-shaped tree has } a = b",
    source="kdtheory, Theorem 37",
    expected=Verdict.PROVED,
    domain="n points at equal distances on a line; from the other side, any metric on n points",
    uses=("transport.metric-sandwich",),
    proof=Anchor("07_transport#ultrametric-line", sha256="c8b37f158c895c32"),
)
def ultrametric_line() -> list[Evidence]:
    """Some neighbours are as far apart as the ends."""
    attained = [
        exact.check(spread(joined(line(*range(n)), min), line(*range(n))), "==", n - 1, says=f"single, {n} points")
        for n in (2, 3, 5, 9)
    ]
    others = [
        exact.check(spread(joined(line(*range(n)), height), line(*range(n))), ">=", n - 1, says=f"{name}, {n} points")
        for n in (3, 6, 8)
        for name, height in (("complete", max), ("average", mean))
    ]
    worst = numeric.attempt(
        _single_fails,
        draws=100,
        oracle="scipy.cluster.hierarchy",
        tolerance=1e-12,
        because="one product of a distance below 10",
        says="single linkage: d ≤ (n - 1) u",
    )
    return [*attained, *others, _attempt_line(random_ultrametric), worst]


@ultrametric_line.control
def _() -> Evidence:
    """The line's own metric, which is no ultrametric, must not obey it."""
    return _attempt_line(lambda rng, size: line(*range(size)))
