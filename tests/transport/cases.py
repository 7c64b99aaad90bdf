"""What the transport tests run over: one cost of each kind, families of points, oracles that are not ours."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import torch
from scipy.optimize import linprog
from scipy.sparse import coo_array, vstack
from scipy.sparse.csgraph import shortest_path
from scipy.spatial.distance import cdist

import kdtheory as kd
from kdtheory import TokenCost

torch.set_num_threads(1)

# a tree on six leaves (0-5) and four inner nodes (6-9, root 9), with uneven edges
PARENT = np.array([6, 6, 7, 7, 8, 9, 8, 8, 9, -1])
WEIGHT = np.array([0.5, 1.25, 0.75, 2.0, 1.0, 3.0, 0.3, 0.6, 1.1, 0.0])
POSITIONS = np.array([0.3, 2.0, -1.0, 5.5, 2.25, 0.9])
POINTS = np.random.default_rng(7).normal(size=(6, 3))
TEACHER_ROWS = np.random.default_rng(8).uniform(0.2, 3.0, size=(6, 6))  # neither symmetric nor zero on the diagonal
FAMILIES = tuple(kd.simplex.families(np.random.default_rng(11)))
TAIL = np.random.default_rng(12).normal(size=(2, 6))
# teacher and student sure of the same token: what separates them is 1e-17 of the mass
AGREEING = kd.simplex.Pair("both sure of one token", TAIL[0] + 41 * np.eye(6)[2], TAIL[1] + 40 * np.eye(6)[2])


def path_lengths(parent, weight) -> np.ndarray:
    """Distances between all nodes by scipy's shortest paths."""
    child = np.flatnonzero(parent >= 0)
    graph = coo_array((weight[child], (child, parent[child])), shape=(len(parent),) * 2)
    return shortest_path(graph.tocsr(), directed=False)


COSTS = {
    "zero_one": (TokenCost.zero_one(6), 1.0 - np.eye(6)),
    "line": (TokenCost.line(POSITIONS), cdist(POSITIONS[:, None], POSITIONS[:, None])),
    "tree": (TokenCost.tree(PARENT, WEIGHT), path_lengths(PARENT, WEIGHT)[:6, :6]),
    "embedding": (TokenCost.embedding(POINTS), cdist(POINTS, POINTS)),
    "cosine": (TokenCost.embedding(POINTS, metric="cosine"), np.sqrt(2 * cdist(POINTS, POINTS, "cosine"))),
    "dense": (TokenCost.dense(TEACHER_ROWS), TEACHER_ROWS),
}
METRICS = tuple(name for name in COSTS if name != "dense")
CLOSED = ("zero_one", "line", "tree")


def label(x: object) -> str:
    """Readable parameter ids."""
    return x.name if isinstance(x, kd.simplex.Pair) else str(x)


def probabilities(pair: kd.simplex.Pair) -> tuple[np.ndarray, np.ndarray]:
    """Teacher and student distributions of a pair of logits, shape (V,)."""
    return kd.simplex.softmax(pair.teacher_logits), kd.simplex.softmax(pair.student_logits)


def linear_program(p, q, C) -> float:
    """Optimal transport by scipy's HiGHS, without the column of the largest mass.

    The sums of p and q differ by an ulp, and a missing column of mass 0 could not take up the difference.
    """
    rows, columns = C.shape
    kept = np.arange(columns) != np.argmax(q)
    at = np.arange(rows * columns)
    ones = np.ones(rows * columns)
    row_sums = coo_array((ones, (at // columns, at)), shape=(rows, rows * columns))
    column_sums = coo_array((ones, (at % columns, at)), shape=(columns, rows * columns)).tocsr()[kept]
    marginals = vstack([row_sums, column_sums]), np.concatenate([p, q[kept]])
    sharp = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}  # 1e-7 unless told otherwise
    found = linprog(C.ravel(), A_eq=marginals[0], b_eq=marginals[1], method="highs", options=sharp)
    assert found.status == 0, found.message
    return found.fun


# -- W1 on a tree and its logit gradient in 60 digits ------------------------------------------------------------------
def as_tree(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """(edges x tokens) 0/1 matrix of what lies below each edge, and the lengths: W1 = Σ length · |below (q - p)|."""
    if kind == "zero_one":
        return np.eye(6, dtype=int), np.full(6, 0.5)
    if kind == "line":
        order = np.argsort(POSITIONS)
        below = np.array([np.isin(np.arange(6), order[: k + 1]) for k in range(5)], dtype=int)
        return below, np.diff(POSITIONS[order])
    below = np.zeros((9, 6), dtype=int)
    for token in range(6):
        node = token
        while node != 9:
            below[node, token], node = 1, PARENT[node]
    return below, WEIGHT[:9]


def softmax_mp(logits) -> list[mp.mpf]:
    powers = [mp.exp(mp.mpf(float(z))) if np.isfinite(z) else mp.mpf(0) for z in logits]
    return [x / mp.fsum(powers) for x in powers]


def exact_value(kind: str, pair: kd.simplex.Pair) -> mp.mpf:
    with mp.workdps(400):  # gaps of 800 nats and sums that must vanish
        p, q = softmax_mp(pair.teacher_logits), softmax_mp(pair.student_logits)
        below, length = as_tree(kind)
        surplus = [mp.fsum(q[i] - p[i] for i in np.flatnonzero(edge)) for edge in below]
        return mp.fsum(mp.mpf(float(w)) * abs(s) for w, s in zip(length, surplus, strict=True))


def exact_logit_gradient(kind: str, pair: kd.simplex.Pair) -> tuple[np.ndarray, np.ndarray]:
    """Gradient by the chain rule (sign(0) = 0) and the sum of each entry's absolute terms; g is 0 at the top token."""
    with mp.workdps(400):
        p, q = softmax_mp(pair.teacher_logits), softmax_mp(pair.student_logits)
        below, length = as_tree(kind)
        sign = [_sign(mp.fsum(q[i] - p[i] for i in np.flatnonzero(edge))) for edge in below]
        g = [mp.fsum(mp.mpf(float(w)) * s * int(edge[i]) for w, s, edge in zip(length, sign, below, strict=True))
             for i in range(6)]  # fmt: skip
        top = int(np.argmax(pair.student_logits))
        g = [x - g[top] for x in g]
        mean, size = (
            mp.fsum(a * b for a, b in zip(q, g, strict=True)),
            mp.fsum(a * abs(b) for a, b in zip(q, g, strict=True)),
        )
        found = [float(a * (b - mean)) for a, b in zip(q, g, strict=True)]
        return np.array(found), np.array([float(a * (abs(b) + size)) for a, b in zip(q, g, strict=True)])


def _sign(x: mp.mpf) -> int:
    """0 for what is zero but for the 400th digit."""
    return 0 if abs(x) < mp.mpf(10) ** -390 else int(mp.sign(x))
