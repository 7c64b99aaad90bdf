"""Rooted trees whose first nodes are tokens: checked input, path lengths, sums over subtrees and over ancestors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Integers = NDArray[np.int64]


class Bags(NamedTuple):
    """A 0/1 matrix in compressed rows: output row r sums the input rows `members[starts[r]:starts[r + 1]]`."""

    members: Tensor
    starts: Tensor

    @classmethod
    def of(cls, row: Integers, member: Integers, rows: int) -> Bags:
        order = np.argsort(row, kind="stable")
        starts = np.searchsorted(row[order], np.arange(rows))
        return cls(torch.from_numpy(member[order]), torch.from_numpy(starts))

    def sums(self, x: Tensor) -> Tensor:
        """(inputs, N) -> (rows, N). An embedding-bag kernel: 6 to 20 times a torch sparse product on one core."""
        return torch.nn.functional.embedding_bag(self.members, x, self.starts, mode="sum")

    def to(self, device: torch.device) -> Bags:
        return Bags(self.members.to(device), self.starts.to(device))


@dataclass(frozen=True, eq=False)
class RootedTree:
    """Nodes 0..N-1, of which 0..tokens-1 are tokens. Use `RootedTree.checked`."""

    parent: Integers  # (N,), -1 at the root
    weight: NDArray[np.float64]  # (N,), length of the edge to the parent, 0 at the root
    tokens: int
    downward: Integers  # nodes, parents before children

    @classmethod
    def checked(cls, parent: NDArray, weight: NDArray, tokens: int | None) -> RootedTree:
        """Validate; ValueError names the node."""
        if parent.ndim != 1 or parent.shape != weight.shape or not np.issubdtype(parent.dtype, np.integer):
            raise ValueError(
                f"parent has shape {parent.shape} ({parent.dtype}), weight {weight.shape}: both (N,), parent integer"
            )
        nodes, parent = len(parent), parent.astype(np.int64)
        outside = np.flatnonzero((parent < -1) | (parent >= nodes))
        if len(outside):
            raise ValueError(f"parent[{outside[0]}] = {parent[outside[0]]}: a node 0..{nodes - 1}, or -1 at the root")
        roots = np.flatnonzero(parent == -1)
        if len(roots) > 1:
            raise ValueError(f"parent[{roots[0]}] and parent[{roots[1]}] are both -1: a tree has one root")
        negative = np.flatnonzero((weight < 0) & (parent >= 0))
        if len(negative):
            raise ValueError(f"weight[{negative[0]}] = {weight[negative[0]]}: the length of an edge is >= 0")
        downward = _breadth_first(parent)
        if len(downward) < nodes:
            lost = np.setdiff1d(np.arange(nodes), downward)[0]
            raise ValueError(f"parent: following parents from node {lost} never reaches a root (a cycle)")
        return cls(parent, np.where(parent == -1, 0.0, weight), _count_tokens(parent, tokens), downward)

    def relabelled(self, tokens: Integers) -> tuple[Integers, NDArray[np.float64]]:
        """(parent, weight) of the tree whose token i is this one's tokens[i]; the other nodes keep their numbers."""
        old = np.concatenate([tokens, np.arange(self.tokens, len(self.parent))])
        new = np.argsort(old)
        parent = self.parent[old]
        return np.where(parent >= 0, new[parent], -1), self.weight[old]

    def distances(self) -> NDArray[np.float64]:
        """Path lengths between tokens, (tokens, tokens): one row at a time, from the parent's."""
        full = np.zeros((len(self.parent),) * 2)
        for done, node in enumerate(self.downward):
            if done:
                seen = self.downward[:done]
                full[node, seen] = full[seen, node] = full[self.parent[node], seen] + self.weight[node]
        return full[: self.tokens, : self.tokens]

    def extremes(self) -> tuple[float, float]:
        """(smallest distance between two tokens, largest), bottom-up: the best pair meets at some node."""
        near, far = np.full(len(self.parent), np.inf), np.full(len(self.parent), -np.inf)
        near[: self.tokens], far[: self.tokens] = 0.0, 0.0
        low, high = np.inf, 0.0
        for node in self.downward[:0:-1]:  # children first, without the root
            above, step = self.parent[node], self.weight[node]
            low = min(low, near[above] + near[node] + step)
            high = max(high, far[above] + far[node] + step)
            near[above] = min(near[above], near[node] + step)
            far[above] = max(far[above], far[node] + step)
        return float(low), float(high)

    # -- sums as products of 0/1 matrices -----------------------------------------------------------------------------
    def subtree_sums(self, x: Tensor) -> Tensor:
        """Sum of x (tokens, N) over the tokens below each node (and at it): (nodes, N); on the device of x."""
        down, _, _ = self._on(x)
        if len(down) > 1:  # repeated squaring works on all nodes
            x = torch.cat([x, x.new_zeros(len(self.parent) - self.tokens, x.shape[1])])
        for bags in down:
            x = bags.sums(x)
        return x

    def ancestor_sums(self, x: Tensor) -> Tensor:
        """Sum of x (nodes, N) over each token's path to the root, itself included: (tokens, N)."""
        for bags in reversed(self._on(x)[1]):
            x = bags.sums(x)
        return x[: self.tokens]

    def lengths(self, x: Tensor) -> Tensor:
        """Edge lengths (nodes, 1) in the type and on the device of x."""
        return self._on(x)[2]

    def _on(self, x: Tensor) -> tuple[list[Bags], list[Bags], Tensor]:
        key = (x.device, x.dtype)
        if key not in self._placed:
            down, up = ([bags.to(x.device) for bags in side] for side in self._factors)
            self._placed[key] = down, up, torch.from_numpy(self.weight).to(x).unsqueeze(1)
        return self._placed[key]

    @cached_property
    def _placed(self) -> dict:
        return {}

    @cached_property
    def _factors(self) -> tuple[list[Bags], list[Bags]]:
        """0/1 matrices whose product is the (nodes, tokens) subtree indicator A, and their transposes.

        A itself has as many ones as the token depths sum to: the fastest form of a bushy tree, quadratic for a
        chain. There A = (I + N)(I + N²)(I + N⁴)… with N the child-to-parent matrix: at most 2 · nodes ones each, and
        log2(depth) of them.
        """
        nodes = len(self.parent)
        depth = np.zeros(nodes, dtype=np.int64)
        for node in self.downward[1:]:
            depth[node] = depth[self.parent[node]] + 1
        squarings = int(depth.max()).bit_length()
        if (depth[: self.tokens] + 1).sum() <= 4 * nodes * max(1, squarings):
            below, above = self._ancestor_pairs()
            return [Bags.of(above, below, nodes)], [Bags.of(below, above, self.tokens)]
        every, jump = np.arange(nodes), self.parent.copy()
        down, up = [], []
        for _ in range(squarings):
            inside = jump >= 0
            child, ancestor = np.concatenate([every, every[inside]]), np.concatenate([every, jump[inside]])
            down.append(Bags.of(ancestor, child, nodes))
            up.append(Bags.of(child, ancestor, nodes))
            jump = np.where(inside, jump[jump], -1)
        return down, up

    def _ancestor_pairs(self) -> tuple[Integers, Integers]:
        """All (token, node on its path to the root) pairs."""
        token = np.arange(self.tokens)
        at, below, above = token, [token], [token]
        while len(at):
            at = self.parent[at]
            token, at = token[at >= 0], at[at >= 0]
            below.append(token)
            above.append(at)
        return np.concatenate(below), np.concatenate(above)


def _breadth_first(parent: Integers) -> Integers:
    """Nodes from the root down; nodes on or below a cycle are missing."""
    by_parent = np.argsort(parent, kind="stable")
    starts = np.searchsorted(parent[by_parent], np.arange(-1, len(parent) + 1))
    order = list(by_parent[starts[0] : starts[1]])
    for node in order:  # grows while it is read
        order.extend(by_parent[starts[node + 1] : starts[node + 2]])
    return np.array(order, dtype=np.int64)


def _count_tokens(parent: Integers, tokens: int | None) -> int:
    nodes = len(parent)
    if tokens is not None:
        if not 1 <= tokens <= nodes:
            raise ValueError(f"tokens = {tokens}: between 1 and the number of nodes, {nodes}")
        return int(tokens)
    leaf = np.ones(nodes, dtype=bool)
    leaf[parent[parent >= 0]] = False
    count = int(leaf.sum())
    late = np.flatnonzero(leaf[count:])
    if len(late):
        raise ValueError(
            f"node {count + late[0]} is a leaf: number the leaves, which are the tokens, 0..{count - 1}; "
            "or say with tokens= how many of the first nodes are tokens"
        )
    return count
