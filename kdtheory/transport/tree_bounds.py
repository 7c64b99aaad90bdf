"""How far a tree metric is from the cost it stands for, and what that says about W1.

If low · d <= d_T <= high · d on all pairs, the same plans show low · W1 <= W1_T <= high · W1 (chapter 07,
`metric-sandwich`), and both constants are attained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdtheory.transport.api import w1
from kdtheory.transport.closed_forms import known
from kdtheory.transport.costs import TokenCost

_BLOCK = 1 << 22  # entries of each cost at a time
_Found = tuple[float, tuple[int, int] | None]


class Distortion(NamedTuple):
    """low · d <= d_T <= high · d, with the pairs of tokens that attain the two (None if no pair decides)."""

    low: float
    high: float
    low_pair: tuple[int, int] | None
    high_pair: tuple[int, int] | None


@dataclass(frozen=True, eq=False)
class TreeW1Result:
    """`value` is W1 under the tree; lower <= W1 under the cost it stands for <= upper. Arrays as they went in, (...).

    lower = value / high and upper = value / low: 0 and inf where the distortion is unbounded on that side.
    """

    value: Any
    lower: Any
    upper: Any


def distortion(tree: TokenCost, cost: TokenCost) -> Distortion:
    """Smallest and largest d_T(i, j) / d(i, j) over all pairs of tokens.

    Parameters
    ----------
    tree : TokenCost
        The metric that approximates: `TokenCost.tree`, or any other.
    cost : TokenCost
        The metric it stands for, over the same tokens.

    Returns
    -------
    Distortion
        Pairs at distance 0 in both decide nothing; d = 0 < d_T makes high infinite. (1, 1) if nothing decides.
        V² work, in blocks.

    Raises
    ------
    NotAMetricError
        If one of the costs is not a metric.
    ValueError
        If the vocabularies differ.
    """
    for name, given in (("tree", tree), ("cost", cost)):
        _check(name, given)
        given.check_metric()
    if tree.V != cost.V:
        raise ValueError(f"tree = {tree} and cost = {cost}: give both over the same tokens")
    low: _Found = (float("inf"), None)
    high: _Found = (-float("inf"), None)
    step = max(1, _BLOCK // cost.V)
    for start in range(0, cost.V, step):
        rows = slice(start, start + step)
        above, below = tree.block(rows, slice(None)), cost.block(rows, slice(None))
        ratio = above / below  # x/0 = inf; 0/0 = NaN decides nothing
        low = min(low, _extreme(ratio.nan_to_num(nan=torch.inf, posinf=torch.inf), start, "argmin"), key=_ratio)
        high = max(high, _extreme(ratio.nan_to_num(nan=-1.0, posinf=torch.inf), start, "argmax"), key=_ratio)
    if high[0] < 0:  # one token, or all of them at distance 0
        return Distortion(1.0, 1.0, None, None)
    return Distortion(low[0], high[0], low[1], high[1])


def w1_from_tree(p: Any, q: Any, tree: TokenCost, bounds: Distortion) -> TreeW1Result:
    """W1 under the tree, in closed form, and the interval that it gives for W1 under the cost it stands for.

    Parameters
    ----------
    p, q : array_like, shape (..., V)
        Teacher and student probabilities, as in `w1`.
    tree : TokenCost
        A cost with a closed form.
    bounds : Distortion
        `distortion(tree, cost)`, computed once.

    Returns
    -------
    TreeW1Result
        With torch input, all three are differentiable in p and q.
    """
    _check("tree", tree)
    if not known(tree):
        raise ValueError(f"tree = {tree}: give a cost with a closed form, TokenCost.tree(parent, weight)")
    if not isinstance(bounds, Distortion) or not 0 <= bounds.low <= bounds.high:
        raise ValueError(f"bounds = {bounds}: 0 <= low <= high, from distortion(tree, cost)")
    value = w1(p, q, tree).value
    lower = value / bounds.high if bounds.high > 0 else value  # high = 0: the tree sees nothing, and value is 0
    upper = value / bounds.low if bounds.low > 0 else value + torch.inf
    return TreeW1Result(value, lower, upper)


def _check(name: str, given: object) -> None:
    if not isinstance(given, TokenCost):
        raise ValueError(f"{name}: expected a kdtheory.TokenCost, got {type(given).__name__}")


def _ratio(found: _Found) -> float:
    return found[0]


def _extreme(ratio: Tensor, start: int, which: str) -> _Found:
    """Value of the extreme of a block of rows, and its pair."""
    at = int(getattr(ratio, which)())
    i, j = divmod(at, ratio.shape[1])
    return float(ratio[i, j]), (start + i, j)
