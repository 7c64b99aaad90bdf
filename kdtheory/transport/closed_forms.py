"""Costs for which W1 and a Kantorovich potential are sums: 0-1, line and tree.

All are trees (a star with edges ½, a path, the tree itself): with S_e the surplus q - p on one side of edge e,

    W1 = Σ_e w_e |S_e|,    g_i = Σ_{e above i} w_e sign(S_e),    f = -g,

because every plan moves at least |S_e| across e and moving only surplus attains it (`le2019tree`, Proposition 1;
line: `peyre2019computational`, Remark 2.30). g is 1-Lipschitz whatever values in [-1, 1] the signs take, so
Σ g (q - p) <= W1 always. sign(0) = 0 picks the middle of the subdifferential; at p = q that is the zero potential.

Functions take the difference q - p, shape (..., V), on any device. S_e carries a rounding error of about
eps · TV(p, q), so a sum smaller than that may come with the sign of a point that close to q.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from kdtheory.transport.costs import Line, TokenCost, Tree

_NODES = 512  # of a tree, in one product


def balanced(difference: Tensor, top: Tensor) -> Tensor:
    """Make the difference q - p sum to zero, by its entry at the token `top` (shape (..., 1)).

    At a token that holds nearly all of p and q, q - p keeps no digits; minus the sum of the others keeps them all.
    """
    return _balance(difference.clone(), top)


def balanced_difference(p: Tensor, q: Tensor) -> Tensor:
    """q - p, shape (..., V), `balanced` at the token with the largest probability."""
    return _balance(q - p, _argmax(torch.maximum(p, q)))


def _balance(difference: Tensor, top: Tensor) -> Tensor:
    """`balanced`, in place."""
    difference.scatter_(-1, top, 0.0)
    return difference.scatter_(-1, top, -difference.sum(-1, keepdim=True))


def _argmax(x: Tensor) -> Tensor:
    """Index of the largest entry, (..., V) -> (..., 1). On a CPU numpy's is ten times as fast as torch's."""
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return x.argmax(-1, keepdim=True)
    return torch.from_numpy(np.asarray(x.detach().numpy().argmax(-1))).unsqueeze(-1)


def _zero_one(cost: TokenCost, difference: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    return 0.5 * difference.abs().sum(-1), lambda: 0.5 * torch.sign(difference)


def _line(cost: Line, difference: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    device = difference.device
    gaps = cost.gaps.to(difference)
    in_order = difference if cost.in_order else difference.index_select(-1, cost.order.to(device))
    surplus = in_order.cumsum(-1)[..., :-1]  # left of each gap

    def potential() -> Tensor:
        slope = (gaps * torch.sign(surplus)).cumsum(-1)  # a move to the right takes surplus off the left
        g = -torch.cat([torch.zeros_like(difference[..., :1]), slope], -1)
        return g if cost.in_order else g.index_select(-1, cost.inverse.to(device))

    return surplus.abs() @ gaps, potential


def _tree(cost: Tree, difference: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
    shape, tree = difference.shape, cost.rooted
    surplus = tree.subtree_sums(difference.reshape(-1, shape[-1]).T.contiguous())  # (nodes, rows)
    lengths = tree.lengths(surplus)
    # in parts: one product over all nodes adds up its float32 terms one after the other, and rounds as many times
    parts = zip(lengths.split(_NODES), surplus.split(_NODES), strict=True)
    value = torch.stack([(length.T @ part.abs()).squeeze(0) for length, part in parts]).sum(0).reshape(shape[:-1])
    return value, lambda: tree.ancestor_sums(lengths * torch.sign(surplus)).T.reshape(shape)


_SOLVERS: dict[str, Callable[..., tuple[Tensor, Callable[[], Tensor]]]] = {
    "zero_one": _zero_one,
    "line": _line,
    "tree": _tree,
}


def known(cost: TokenCost) -> bool:
    """Whether W1 under this cost has a closed form."""
    return cost.kind in _SOLVERS


def value(cost: TokenCost, difference: Tensor) -> Tensor:
    """W1 for a difference q - p that sums to zero, (..., V) -> (...), in units of cost."""
    return _SOLVERS[cost.kind](cost, difference)[0]


def value_and_potential(cost: TokenCost, difference: Tensor) -> tuple[Tensor, Tensor]:
    """`value`, and the potential g (..., V): a (sub)gradient of W1 in q, up to a constant per row."""
    total, potential = _SOLVERS[cost.kind](cost, difference)
    return total, potential()
