"""Theorem 7 of chapter 07: from a float solver's basis to a proof in rationals, and the library's certificates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from kdtheory.claims.transport import finite
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric

_PROOF = Anchor("07_transport#basis-completion", sha256="3eb91b441b9a56c0")

Completion = Callable[[Sequence[finite.Edge], list[list[Fraction]]], finite.Tree]


def _pieces(edges: Sequence[finite.Edge], rows: int, columns: int) -> list[int]:
    """For each vertex the smallest vertex of its piece."""
    return [min(finite.reach(edges, rows, at)) for at in range(rows + columns)]


def _shortest(edges: Sequence[finite.Edge], slack: list[list[Fraction]]) -> finite.Tree:
    """Theorem 7.4 by Dijkstra's algorithm: add the cell that is tight first, seen from the first row's piece."""
    rows, columns = len(slack), len(slack[0])
    piece, time = _pieces(edges, rows, columns), {0: Fraction(0)}
    tree = list(edges)
    while len(tree) < rows + columns - 1:
        steps = [
            (time[piece[i]] + slack[i][j], (i, j))
            for i, j in product(range(rows), range(columns))
            if piece[i] in time and piece[rows + j] not in time
        ]
        arrival, cell = min(steps)
        time[piece[rows + cell[1]]] = arrival
        tree.append(cell)
    return tuple(tree)


def _greedy(edges: Sequence[finite.Edge], slack: list[list[Fraction]]) -> finite.Tree:
    """What the control does: the smallest reduced costs first, whatever the pieces' prices become."""
    rows, tree = len(slack), list(edges)
    for _, (i, j) in sorted((x, (i, j)) for i, row in enumerate(slack) for j, x in enumerate(row)):
        if rows + j not in finite.reach(tree, rows, i):
            tree.append((i, j))
    return tuple(tree)


def _problem(rng: np.random.Generator) -> tuple[list[Fraction], list[Fraction], list[list[Fraction]]]:
    """Multiples of 1/6 on few tokens, p = q in every other draw; tokens without mass are left out."""
    m, n = int(rng.integers(2, 4)), int(rng.integers(2, 5))
    p = [x for x in finite.integers(rng, m, 6) if x]
    q = [x for x in finite.integers(rng, n, 6) if x]
    if rng.random() < 0.5:
        p = q = [Fraction(1, 3)] * 3
    return p, q, finite.rational_cost(rng, len(p), len(q), most=20)


def _completion_fails_by(complete: Completion) -> Any:
    """From a plan and prices inside the set of optimal prices: the completed tree has to be feasible on both sides."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q, cost = _problem(rng)
        solution = finite.solve(p, q, cost)
        if solution is None:
            raise RuntimeError("no tree is feasible on both sides")
        plan = {edge: mass for edge, mass in solution.plan.items() if mass}
        corners = [(f, g) for f, g in finite.feasible_potentials(cost) if finite.prices(f, g, p, q) == solution.value]
        f, g = (
            [sum(column) / len(corners) for column in zip(*side, strict=True)] for side in zip(*corners, strict=True)
        )
        slack = [[c - f[i] - g[j] for j, c in enumerate(row)] for i, row in enumerate(cost)]
        tree = complete(list(plan), slack)
        flow, prices = finite.flow(tree, p, q), finite.potentials(tree, cost)
        same = {edge: mass for edge, mass in flow.items() if mass} == plan
        return (0.0 if same and finite.affordable(*prices, cost) else np.inf), {"p": [str(x) for x in p]}

    return violation


def _attempt_completion(complete: Completion = _shortest) -> Evidence:
    return numeric.attempt(
        _completion_fails_by(complete),
        draws=25,
        oracle=finite.TREES,
        tolerance=0.0,
        because=finite.EXACT,
        says="shortest paths complete the support of a plan to a tree that is feasible on both sides",
    )


def _library_fails_by(transposed: bool) -> Any:
    """`certify_w1` against the cheapest of all trees; zeros, ties, p = q and costs below 0 included."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        from kdtheory.transport.certificate import certify_w1

        size = int(rng.integers(1, 4))
        p, q = finite.integers(rng, size, 6), finite.integers(rng, size, 6)
        q = list(p) if rng.random() < 0.3 else q
        cost = finite.rational_cost(rng, size, size)
        given = [list(row) for row in zip(*cost, strict=True)] if transposed else cost
        value = certify_w1(p, q, given).value
        return float(abs(value - finite.least(p, q, cost))), {"p": [str(x) for x in p], "q": [str(x) for x in q]}

    return violation


def _attempt_library(transposed: bool = False) -> Evidence:
    return numeric.attempt(
        _library_fails_by(transposed),
        draws=60,
        oracle=finite.TREES,
        tolerance=0.0,
        because=finite.EXACT,
        says="certify_w1 finds T_C",
    )


def _certified(cost: list[list[int]], p: list[Fraction], q: list[Fraction]) -> Fraction:
    from kdtheory.transport.certificate import certify_w1

    return certify_w1(p, q, cost).value


@claim(
    "transport.basis-completion",
    statement=r"\text{feasible prices and a plan on a forest } \varphi \text{ of tight cells: some spanning tree } \tau"
    r" \supseteq \varphi \text{ has } \Gamma^\tau \ge 0,\ f^\tau_i + g^\tau_j \le C_{ij} \text{; shortest paths find it"
    r" in } O(mn)",
    source="kdtheory, Theorem 7",
    expected=Verdict.PROVED,
    domain="any cost; part 4 (shortest paths): every piece of φ has a row and a column",
    uses=("transport.rational-certificate", "transport.linear-programme"),
    proof=_PROOF,
)
def basis_completion() -> list[Evidence]:
    """Shifting the prices of whole pieces is a system of difference constraints; its vertices are spanning trees."""
    line = [[0, 1, 3], [1, 0, 2], [3, 2, 0]]
    third, floats = finite.fractions("1/3", "2/3", 0), [Fraction(0.1), Fraction(0.2), Fraction(0.7)]
    law = [x / sum(floats) for x in floats]
    by_hand = 3 * law[0] + 2 * law[1]
    return [
        exact.check(_certified(line, third, finite.fractions(0, "1/2", "1/2")), "==", "4/3", says="0, 1, 3 on a line"),
        exact.check(_certified(line, law, finite.fractions(0, 0, 1)), "==", by_hand, says="the floats 0.1, 0.2, 0.7"),
        exact.check(_certified(line, law, law), "==", 0, says="p = q"),
        _attempt_completion(),
        _attempt_library(),
    ]


@basis_completion.control
def _() -> list[Evidence]:
    """Completing by the smallest reduced costs, and certifying for the transposed cost, must not pass."""
    return [_attempt_completion(_greedy), _attempt_library(transposed=True)]
