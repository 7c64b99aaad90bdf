"""Logarithms of subtree masses, and sums over ancestors weighted by shares, where probabilities leave the floats."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kdtheory.transport.rooted import RootedTree


class Level(NamedTuple):
    """Nodes at one depth: `child` (k,), their parents `parent` (u,) once each, and `owner` (k,), indices into those."""

    child: Tensor
    parent: Tensor
    owner: Tensor


class Levels:
    """A rooted tree from its deepest edges up. One pass touches each node once: O(nodes) per row of masses.

    Arrays are (nodes, N) or (tokens, N): one column per distribution.
    """

    def __init__(self, tree: RootedTree) -> None:
        self.tokens, self.nodes = tree.tokens, len(tree.parent)
        self.depth = depths(tree)
        self._levels = [
            _level(tree, at) for at in [np.flatnonzero(self.depth == d) for d in range(self.depth.max(), 0, -1)]
        ]
        self._below = _tokens_below(tree)
        self._placed: dict[torch.device, tuple[list[Level], Tensor]] = {}

    def log_masses(self, log_x: Tensor) -> Tensor:
        """Log of the mass of each subtree by log-sum-exp, (tokens, N) -> (nodes, N); -inf where there is none."""
        mass = torch.cat([log_x, log_x.new_full((self.nodes - self.tokens, log_x.shape[1]), -torch.inf)])
        for child, parent, owner in self._on(log_x)[0]:
            own, part = mass[parent], mass[child]
            top = own.scatter_reduce(0, owner.unsqueeze(1).expand_as(part), part, "amax")
            top = top.masked_fill(torch.isneginf(top), 0.0)  # an empty subtree: 0 · e^0
            total = (own - top).exp().index_add(0, owner, (part - top[owner]).exp())
            mass[parent] = top + total.log()
        return mass

    def shared_sums(self, log_x: Tensor, log_mass: Tensor, flow: Tensor) -> Tensor:
        """Sum over a token's ancestors e (itself included) of flow_e · x_i / X_e, with X the subtree masses.

        Shares x_i / X_e lie in [0, 1] and are formed from logarithms. In a subtree without mass they are those of
        equal masses, the limit when its logits go to -inf together.

        Shapes (tokens, N), (nodes, N), (nodes, N) -> (tokens, N).
        """
        levels, below = self._on(log_x)
        flow = flow.clone()
        for child, parent, owner in reversed(levels):
            share = _share(log_mass[child], log_mass[parent][owner], below[child] / below[parent][owner])
            flow[child] += share * flow[parent][owner]
        here = slice(0, self.tokens)
        return _share(log_x, log_mass[here], 1 / below[here]) * flow[here]

    def _on(self, x: Tensor) -> tuple[list[Level], Tensor]:
        if x.device not in self._placed:
            levels = [Level(*(index.to(x.device) for index in level)) for level in self._levels]
            self._placed[x.device] = levels, self._below.to(x.device)
        levels, below = self._placed[x.device]
        return levels, below.to(x.dtype)


def depths(tree: RootedTree) -> np.ndarray:
    """Number of edges between each node and the root."""
    depth = np.zeros(len(tree.parent), dtype=np.int64)
    for node in tree.downward[1:]:
        depth[node] = depth[tree.parent[node]] + 1
    return depth


def _tokens_below(tree: RootedTree) -> Tensor:
    """(nodes, 1) number of tokens in each subtree; at least 1, so that a leaf without a token divides nothing by 0."""
    count = np.zeros(len(tree.parent))
    count[: tree.tokens] = 1
    for node in tree.downward[:0:-1]:
        count[tree.parent[node]] += count[node]
    return torch.from_numpy(np.maximum(count, 1)).unsqueeze(1)


def _level(tree: RootedTree, nodes: np.ndarray) -> Level:
    parent, owner = np.unique(tree.parent[nodes], return_inverse=True)
    return Level(*(torch.from_numpy(np.asarray(index)) for index in (nodes, parent, owner)))


def _share(log_part: Tensor, log_whole: Tensor, equal: Tensor) -> Tensor:
    """Part / whole, and `equal` where the whole is 0."""
    return torch.where(torch.isneginf(log_whole), equal, (log_part - log_whole).exp())
