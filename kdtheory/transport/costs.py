"""Ground costs between tokens: what it costs to move a unit of probability from the teacher's token to the student's.

"Metric" means pseudo-metric here: two different tokens may lie at distance zero (equal positions, equal embeddings,
edges of weight 0); then `min_distance` is 0 and W1 does not tell them apart. Reduction and duality need no more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from kdtheory.transport import arrays, axioms
from kdtheory.transport.arrays import real_array as real_array
from kdtheory.transport.axioms import NotAMetricError as NotAMetricError  # raised here, and asked for here
from kdtheory.transport.rooted import RootedTree

MAX_ENTRIES = 1 << 28  # of a materialised block: 2 GiB in float64, V = 16384 for a whole matrix
MAX_CHECKED = 2048  # tokens in a metric check, V³ comparisons: a few seconds here
_CHUNK = 1 << 22  # entries of a block that is only scanned


class TokenCost(ABC):
    """Cost C[i, j] >= 0 of moving mass from token i (teacher, rows) to token j (student, columns).

    Make one with `zero_one`, `line`, `tree`, `embedding` or `dense`. Data is float64 on the CPU; transport follows the
    device of its input.

    Attributes
    ----------
    V : int
        Number of tokens.
    kind : str
        Name of the constructor.
    is_metric : bool
        Known to be a (pseudo-)metric: by construction, or, for `dense`, because `check_metric` has passed.
    diameter, min_distance : float
        Largest entry, and smallest entry off the diagonal (inf if V = 1), in units of cost.
    """

    kind: ClassVar[str]
    V: int
    is_metric: bool = True

    @staticmethod
    def zero_one(V: int) -> TokenCost:
        """C[i, j] = 1 for i != j: W1 is total variation. `V` tokens."""
        return ZeroOne(V)

    @staticmethod
    def line(x: Any) -> TokenCost:
        """C[i, j] = |x_i - x_j| for positions `x`, shape (V,)."""
        return Line(x)

    @staticmethod
    def tree(parent: Any, weight: Any, tokens: int | None = None) -> TokenCost:
        """C[i, j] = length of the path between tokens i and j in a rooted tree.

        Parameters
        ----------
        parent : array_like of int, shape (N,)
            Parent of each node; -1 at the root.
        weight : array_like, shape (N,)
            Length >= 0 of the edge from a node to its parent; the root's entry is not used.
        tokens : int, optional
            Nodes 0..tokens-1 are the tokens. Default: the leaves, which must then come first.

        Raises
        ------
        ValueError
            On a cycle, several roots, a parent out of range, a negative or non-finite length; names the node.
        """
        return Tree(parent, weight, tokens)

    @staticmethod
    def embedding(E: Any, metric: str = "euclidean") -> TokenCost:
        """Distance between token embeddings `E`, shape (V, d).

        ``euclidean``: C[i, j] = ‖E_i - E_j‖. ``cosine``: the chord ‖Ê_i - Ê_j‖ = √(2 - 2 cos) of the normalised
        rows, which is a metric; 1 - cos itself is not (it is half the chord's square).
        """
        return Embedding(E, metric)

    @staticmethod
    def dense(C: Any) -> TokenCost:
        """Any C >= 0, shape (V, V), rows = teacher. Taken as non-metric until `check_metric()` has passed."""
        return Dense(C)

    @staticmethod
    def random_metric(V: int, rng: np.random.Generator, scale: float = 1.0, dim: int = 16) -> TokenCost:
        """Control: distances of `V` independent Gaussian points in `dim` dimensions, an embedding without meaning.

        Two tokens are `scale` apart on average, give or take `scale` / √(2 dim): with large `dim` nearly the 0-1 cost.
        It shares V and scale with the cost it stands in for; `permuted` shares all distances.
        """
        return Embedding(arrays.gaussian_points(ZeroOne(V).V, rng, scale, dim), "euclidean")

    def permuted(self, permutation: Any) -> TokenCost:
        """Control: the same distances between other tokens, C'[i, j] = C[permutation[i], permutation[j]].

        A cost of the same kind; ValueError unless `permutation`, shape (V,), holds each token once.
        """
        return self._permuted(arrays.permutation(permutation, self.V))

    @abstractmethod
    def _permuted(self, order: Tensor) -> TokenCost:
        """`permuted` for a checked permutation."""

    @abstractmethod
    def block(self, rows: Any, columns: Any) -> Tensor:
        """C[rows][:, columns], float64 on the CPU, for index arrays or slices."""

    def check_metric(self, rtol: float = 1e-12, max_tokens: int = MAX_CHECKED) -> None:
        """Raise `NotAMetricError` unless C is a metric. Returns at once where the construction guarantees it.

        Parameters
        ----------
        rtol : float
            An axiom fails when it is missed by more than `rtol` · max C (rounding of the caller's distances).
        max_tokens : int
            ValueError for larger V, because the triangle inequality costs V³ comparisons.
        """
        if self.is_metric:
            return
        if max_tokens < self.V:
            raise ValueError(f"V = {self.V}: a metric check costs V³; pass max_tokens={self.V} to wait for it")
        axioms.check(self.matrix(), rtol * self.diameter)
        self.is_metric = True

    @property
    def is_symmetric(self) -> bool:
        """C[i, j] = C[j, i] for all tokens: by construction, or, for `dense`, up to 1e-12 of the largest entry."""
        return True

    def matrix(self) -> Tensor:
        """The whole C, shape (V, V), float64. ValueError above V = 16384 (2 GiB)."""
        if self.V**2 > MAX_ENTRIES:
            raise ValueError(
                f"cost matrix of {self.V} x {self.V} float64 needs {self.V**2 * 8 / 2**30:.1f} GiB (limit "
                f"{MAX_ENTRIES * 8 / 2**30:g}): use .block(rows, columns), or a tree or line cost, which need none"
            )
        return self.block(slice(None), slice(None))

    @property
    def diameter(self) -> float:
        return self._extremes[1]

    @property
    def min_distance(self) -> float:
        return self._extremes[0]

    @cached_property
    def _extremes(self) -> tuple[float, float]:
        """(smallest entry off the diagonal, largest entry), by scanning a bounded number of entries at a time."""
        low, high = float("inf"), 0.0
        for start in range(0, self.V, step := max(1, _CHUNK // self.V)):
            rows = self.block(slice(start, start + step), slice(None)).clone()
            high = max(high, float(rows.max()))
            rows[torch.arange(len(rows)), torch.arange(start, start + len(rows))] = float("inf")
            low = min(low, float(rows.min()))
        return low, high

    def __str__(self) -> str:
        return f"{self.kind}(V={self.V})"

    def __repr__(self) -> str:
        return f"<TokenCost {self}>"


class ZeroOne(TokenCost):
    """See `TokenCost.zero_one`."""

    kind = "zero_one"

    def __init__(self, V: int) -> None:
        if not (isinstance(V, (int, np.integer)) and V >= 1):
            raise ValueError(f"V = {V!r}: the number of tokens is an integer >= 1")
        self.V = int(V)

    def block(self, rows: Any, columns: Any) -> Tensor:
        every = torch.arange(self.V)
        return (every[rows].unsqueeze(1) != every[columns]).double()

    def _permuted(self, order: Tensor) -> TokenCost:
        return self

    @cached_property
    def _extremes(self) -> tuple[float, float]:
        return (1.0, 1.0) if self.V > 1 else (float("inf"), 0.0)


class Line(TokenCost):
    """See `TokenCost.line`. `order` sorts the positions `x`, `inverse` undoes it, `gaps` lie between neighbours."""

    kind = "line"

    def __init__(self, x: Any) -> None:
        self.x = real_array(x, "x", 1)
        self.V = len(self.x)
        self.order = torch.argsort(self.x, stable=True)
        self.inverse = torch.argsort(self.order)
        self.gaps = self.x[self.order].diff()
        self.in_order = bool((self.order.diff() > 0).all())

    def block(self, rows: Any, columns: Any) -> Tensor:
        return (self.x[rows].unsqueeze(1) - self.x[columns]).abs()

    def _permuted(self, order: Tensor) -> TokenCost:
        return Line(self.x[order])

    @cached_property
    def _extremes(self) -> tuple[float, float]:
        return (float(self.gaps.min()), float(self.x.max() - self.x.min())) if self.V > 1 else (float("inf"), 0.0)


class Tree(TokenCost):
    """See `TokenCost.tree`. `rooted` holds the checked tree."""

    kind = "tree"

    def __init__(self, parent: Any, weight: Any, tokens: int | None) -> None:
        self.rooted = RootedTree.checked(np.asarray(parent), real_array(weight, "weight", 1).numpy(), tokens)
        self.V = self.rooted.tokens

    @cached_property
    def _distances(self) -> Tensor:
        if len(self.rooted.parent) ** 2 > 4 * MAX_ENTRIES:
            raise ValueError(f"path lengths between {self.V} tokens: too many to hold; the closed form needs none")
        return torch.from_numpy(self.rooted.distances())

    def block(self, rows: Any, columns: Any) -> Tensor:
        return self._distances[rows][:, columns]

    def _permuted(self, order: Tensor) -> TokenCost:
        return Tree(*self.rooted.relabelled(order.numpy()), self.V)

    @cached_property
    def _extremes(self) -> tuple[float, float]:
        return self.rooted.extremes()


class Embedding(TokenCost):
    """See `TokenCost.embedding`. `points` are the (normalised, for "cosine") embeddings."""

    kind = "embedding"

    def __init__(self, E: Any, metric: str) -> None:
        self.points = real_array(E, "E", 2)
        self.V, self.metric = len(self.points), metric
        if metric not in ("euclidean", "cosine"):
            raise ValueError(f'metric = {metric!r}: "euclidean" or "cosine"')
        if metric == "cosine":
            length = self.points.norm(dim=1, keepdim=True)
            if (length == 0).any():
                raise ValueError(f"E[{int((length == 0).nonzero()[0, 0])}] is zero: it has no direction for a cosine")
            self.points = self.points / length

    def block(self, rows: Any, columns: Any) -> Tensor:
        a, b = self.points[rows], self.points[columns]
        if len(a) * len(b) > MAX_ENTRIES:
            raise ValueError(f"cost block of {len(a)} x {len(b)}: above 2 GiB; take fewer tokens, or a tree cost")
        # differences, not |a|² + |b|² - 2ab, which loses half the digits of small distances
        return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")

    def _permuted(self, order: Tensor) -> TokenCost:
        other = Embedding(self.points[order], "euclidean")  # normalised once, if at all
        other.metric = self.metric
        return other


class Dense(TokenCost):
    """See `TokenCost.dense`."""

    kind = "dense"

    def __init__(self, C: Any) -> None:
        self.C = real_array(C, "C", 2)
        if self.C.shape[0] != self.C.shape[1]:
            raise ValueError(f"C has shape {tuple(self.C.shape)}: expected (V, V), rows = teacher")
        if (self.C < 0).any():
            i, j = (int(k) for k in (self.C < 0).nonzero()[0])
            raise ValueError(f"C[{i}, {j}] = {self.C[i, j].item()}: a cost is >= 0")
        self.V, self.is_metric = len(self.C), False

    def block(self, rows: Any, columns: Any) -> Tensor:
        return self.C[rows][:, columns]

    @cached_property
    def is_symmetric(self) -> bool:
        return axioms.asymmetric(self.C, 1e-12 * self.diameter) is None

    def _permuted(self, order: Tensor) -> TokenCost:
        other = Dense(self.block(order, order))
        other.is_metric = self.is_metric
        return other
