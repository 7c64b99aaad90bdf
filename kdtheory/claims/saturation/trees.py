"""Trees for the claims on tree-KL: drawn at random, with what lies below each edge written down token by token."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import sympy as sp
from numpy.typing import NDArray

Point = tuple[float, dict[str, Any]]
ROUNDING = "float64 sums of some dozen terms whose absolute values sum to less than 1e3"
WEIGHTS = sp.symbols("w1:5", positive=True)
EDGES = ((0,), (1,), (2,), (0, 1))
"""Three tokens, the first two on a common branch."""


class Drawn(NamedTuple):
    """A tree: parents and edge weights (tokens first), and the (edges x tokens) 0/1 matrix B."""

    parent: NDArray[np.int64]
    weight: NDArray[np.float64]
    below: NDArray[np.int64]

    @property
    def height(self) -> NDArray[np.float64]:
        return self.below.T @ self.weight

    def value(self, p: Any, q: Any) -> Any:
        """T(p, q) as it is defined, real or complex; p > 0."""
        P, Q = self.below @ p, self.below @ q
        counted = P > 0  # an edge without tokens below
        P, Q, w = P[counted], Q[counted], self.weight[counted]
        return (w * (P * np.log(P / Q) - P + Q)).sum()


def drawn(rng: np.random.Generator) -> Drawn:
    """A random recursive tree; tokens are any of its nodes, at least two, numbered first."""
    nodes = int(rng.integers(3, 14))
    tokens = int(rng.integers(2, nodes + 1))
    grown = np.array([-1] + [rng.integers(node) for node in range(1, nodes)])
    order = rng.permutation(nodes)  # new number of each node
    parent = np.empty(nodes, dtype=np.int64)
    parent[order] = np.where(grown < 0, -1, order[grown])
    weight = np.where(parent < 0, 0.0, rng.exponential(size=nodes))
    below = np.zeros((nodes, tokens), dtype=np.int64)
    for token in range(tokens):
        node = token
        while parent[node] >= 0:
            below[node, token], node = 1, parent[node]
    return Drawn(parent, weight, below)


def laws(rng: np.random.Generator, size: int) -> tuple[Any, Any]:
    """A teacher without zeros and a student's logits, near and far."""
    p = rng.dirichlet(np.full(size, 0.5)) + 1e-6
    return p / p.sum(), rng.normal(size=size) * rng.choice([0.1, 1.0, 5.0])
