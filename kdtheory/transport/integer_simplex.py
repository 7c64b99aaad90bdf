"""The transport problem in integers: network simplex pivots from a start that floats suggest.

Supplies, demands and costs are integers (rationals over a common denominator), so flows, potentials and reduced costs
are integers too and nothing is rounded. Floats only propose: the first spanning tree, and which cells to look at.
Nodes of the tree are the rows 0..n-1 and the columns n..n+m-1; a cell (i, j) is an edge from row i to column n + j.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Cell = tuple[int, int]
Array = NDArray[np.float64]
MAX_PIVOTS = 100_000
_ROUNDING = 1e-15  # more than what a reduced cost in floats loses, relative to its three terms: four roundings


class Solution(NamedTuple):
    """Positive flows, potentials with u_i + v_j <= C_ij (equal on flows), and the number of exact pivots."""

    flow: dict[Cell, int]
    u: list[int]
    v: list[int]
    pivots: int


def solve(a: list[int], b: list[int], C: list[list[int]]) -> Solution:
    """Cheapest flow from supplies a > 0 (n) to demands b > 0 (m), sum(a) = sum(b), at costs C (n, m).

    Raises
    ------
    RuntimeError
        If the optimum is not reached within `MAX_PIVOTS` pivots.
    """
    n = len(a)
    scale = max(1, max(abs(c) for row in C for c in row))
    prices = np.array([[c / scale for c in row] for row in C])
    flow = _start(a, b, prices)
    standing = 0  # pivots in a row that moved nothing
    for pivots in range(MAX_PIVOTS):
        w = _potentials(flow, C, n)
        cell = _entering(C, prices, w, scale, first=standing > n)
        if cell is None:
            return Solution({at: x for at, x in flow.items() if x}, w[:n], w[n:], pivots)
        # in the long run of such pivots the first cell that fits enters and leaves (Bland): no tree comes twice
        standing = 0 if _pivot(flow, cell, n, len(b)) else standing + 1
    raise RuntimeError(f"{MAX_PIVOTS} pivots on {n} x {len(b)} tokens did not reach the optimum")


# -- a first tree ------------------------------------------------------------------------------------------------------
def _start(a: list[int], b: list[int], prices: Array) -> dict[Cell, int]:
    """Flows on a spanning tree, exactly feasible, close to the solution that POT finds in floats."""
    total = sum(a)
    plan, reduced = _floats(np.array([x / total for x in a]), np.array([x / total for x in b]), prices)
    tree = _spanning(plan, reduced)
    left = a + b
    flow = {cell: _ship(left, cell, len(a)) for cell in _leaves_first(tree, len(a) + len(b), len(a))}
    rows = [i for i in range(len(a)) if left[i]]
    if not rows:
        return flow
    # a flow of -1e-17 in floats: the tree cannot carry all; the rest goes where it costs least, and pivots mend it
    columns = [j for j in range(len(b)) if left[len(a) + j]]
    for cell in sorted(((i, j) for i in rows for j in columns), key=lambda at: reduced[at]):
        flow[cell] = flow.get(cell, 0) + _ship(left, cell, len(a))
    carried = np.zeros_like(prices)
    for cell, x in flow.items():
        carried[cell] = x > 0
    return {cell: flow.get(cell, 0) for cell in _spanning(carried, reduced)}


def _floats(a: Array, b: Array, prices: Array) -> tuple[Array, Array]:
    """POT's plan and reduced costs. A warning of its is no matter: the pivots do not rely on it."""
    from ot.lp import emd

    plan, log = emd(a / a.sum(), b / b.sum(), prices, numItermax=10**8, log=True, check_marginals=False)
    return plan, prices - log["u"][:, None] - log["v"]


def _spanning(plan: Array, reduced: Array) -> list[Cell]:
    """A spanning tree: the cells of the plan, and those that become tight as its pieces are moved together.

    A basis of the float solver may be joined through its artificial root. Raising the potentials of the pieces
    reached so far (and lowering their columns') until a cell to another piece is tight keeps them feasible, whence
    Dijkstra's order: `time` is when a node is reached, and a cell from a row i is tight at time_i + reduced_ij.
    """
    n, m = plan.shape
    tree, piece = _forest(plan)
    reduced, time = np.maximum(reduced, 0), np.full(n + m, np.inf)
    tight, by = np.full(m, np.inf), np.zeros(m, dtype=np.int64)  # earliest cell to each column, and its row
    joined, now = piece[0], 0.0
    while True:
        members = piece == joined
        time[members] = now
        rows = np.flatnonzero(members[:n])
        if len(rows):  # a column whose mass the float plan left out is a piece without rows
            nearest = reduced[rows].argmin(0)
            since = now + reduced[rows[nearest], np.arange(m)]
            by = np.where(since < tight, rows[nearest], by)
            tight = np.minimum(tight, since)
        waiting = np.where(np.isinf(time[n:]), tight, np.inf)
        j = int(waiting.argmin())
        if np.isinf(waiting[j]):
            break
        tree.append((int(by[j]), j))
        joined, now = piece[n + j], tight[j]
    lost = np.flatnonzero(np.isinf(time[:n]))  # rows whose mass the float plan left out: no column leads to them
    return tree + [(int(i), int((reduced[i] - time[n:]).argmin())) for i in lost]


def _forest(plan: Array) -> tuple[list[Cell], NDArray[np.int64]]:
    """Cells of a plan without those that would close a cycle, and the piece that each node belongs to."""
    n, m = plan.shape
    group, forest = list(range(n + m)), []
    for i, j in np.argwhere(plan > 0).tolist():
        x, y = _root(group, i), _root(group, n + j)
        if x != y:
            group[x] = y
            forest.append((i, j))
    return forest, np.array([_root(group, node) for node in range(n + m)])


def _root(group: list[int], node: int) -> int:
    while group[node] != node:
        group[node] = group[group[node]]
        node = group[node]
    return node


def _leaves_first(tree: Iterable[Cell], nodes: int, n: int) -> Iterator[Cell]:
    """Cells of a tree, each one the last of one of its two nodes."""
    cells = _by_node(tree, nodes, n)
    leaves = [node for node in range(nodes) if len(cells[node]) == 1]
    for node in leaves:  # grows while it is read
        if cells[node]:
            cell = i, j = cells[node].pop()
            other = n + j if node == i else i
            cells[other].discard(cell)
            if len(cells[other]) == 1:
                leaves.append(other)
            yield cell


def _by_node(tree: Iterable[Cell], nodes: int, n: int) -> list[set[Cell]]:
    cells: list[set[Cell]] = [set() for _ in range(nodes)]
    for i, j in tree:
        cells[i].add((i, j))
        cells[n + j].add((i, j))
    return cells


def _ship(left: list[int], cell: Cell, n: int) -> int:
    """Send as much as both ends of the cell have left."""
    i, j = cell
    amount = min(left[i], left[n + j])
    left[i] -= amount
    left[n + j] -= amount
    return amount


# -- pivots ------------------------------------------------------------------------------------------------------------
def _potentials(tree: Iterable[Cell], C: list[list[int]], n: int) -> list[int]:
    """w (n + m) with w_i + w_{n+j} = C_ij on the tree and w_0 = 0."""
    cells = _by_node(tree, n + len(C[0]), n)
    w: list[int] = [0] * len(cells)
    stack = [(0, (-1, -1))]
    while stack:
        node, came = stack.pop()
        for cell in cells[node]:
            if cell != came:
                i, j = cell
                other = n + j if node == i else i
                w[other] = C[i][j] - w[node]
                stack.append((other, cell))
    return w


def _entering(C: list[list[int]], prices: Array, w: list[int], scale: int, first: bool) -> Cell | None:
    """A cell with negative reduced cost: about the most negative one, or the first in order; None at the optimum."""
    n = len(C)
    near = np.array([x / scale for x in w])
    reduced = prices - near[:n, None] - near[n:]
    terms = np.abs(prices) + np.abs(near[:n, None]) + np.abs(near[n:])
    suspects = np.flatnonzero(reduced <= _ROUNDING * terms + 1e-300)  # others are positive, whatever floats lost
    if not first:
        suspects = suspects[np.argsort(reduced.ravel()[suspects], kind="stable")]
    cells = (divmod(at, len(C[0])) for at in suspects.tolist())
    return next(((i, j) for i, j in cells if C[i][j] < w[i] + w[n + j]), None)


def _pivot(flow: dict[Cell, int], entering: Cell, n: int, m: int) -> int:
    """Send as much as possible around the cycle that the cell closes; the first emptied cell leaves the tree."""
    cycle = _path(_by_node(flow, n + m, n), n + entering[1], entering[0], n)
    less, more = cycle[::2], cycle[1::2]
    step = min(flow[cell] for cell in less)
    leaving = min(cell for cell in less if flow[cell] == step)
    for cell in less:
        flow[cell] -= step
    for cell in more:
        flow[cell] += step
    del flow[leaving]
    flow[entering] = step
    return step


def _path(cells: list[set[Cell]], start: int, goal: int, n: int) -> list[Cell]:
    """Cells on the way from one node to another; `cells` lists those of the tree at each node."""
    came: dict[int, tuple[int, Cell]] = {start: (start, (-1, -1))}
    stack = [start]
    while goal not in came:
        node = stack.pop()
        for cell in cells[node]:
            other = n + cell[1] if node == cell[0] else cell[0]
            if other not in came:
                came[other] = node, cell
                stack.append(other)
    way = []
    while goal != start:
        goal, cell = came[goal]
        way.append(cell)
    return way[::-1]
