"""Collapse of a difference q - p onto few tokens: the tail moves to its nearest kept token, and the move is paid for.

W1 is a norm of δ = q - p, and e_j - e_i has norm d(i, j). So moving each tail token j to a kept token π(j) changes W1
by at most Σ_j |δ_j| d(j, π(j)), whatever π is (chapter 07, `collapse`). A nearest π makes the bound small; a faster,
slightly worse π (`Cells`) leaves it true.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from kdtheory.divergences import checks
from kdtheory.transport import closed_forms
from kdtheory.transport.costs import Embedding, TokenCost

_CANCELS = 0.05  # of |a|² + |b|²: a smaller squared distance is computed again, by differences
_CPU_BLOCK, _GPU_BLOCK = 1 << 23, 1 << 28  # elements of a temporary: 32 MB and 1 GB in float32


class Truncation(NamedTuple):
    """A difference on k kept tokens per row. All on the device of the input.

    Attributes
    ----------
    kept : Tensor of int64, shape (B, k)
        Tokens, ascending.
    collapsed : Tensor, shape (B, k)
        Difference after the move; each row sums to 0 to the last bit that its largest entry has.
    nearest : Tensor of int64, shape (B, V)
        Position (0..k-1) in `kept` where each token goes; a kept token stays.
    bound : Tensor, shape (B,)
        Σ |δ_j| d(j, π(j)): |W1(δ) - W1(collapsed)| is at most this. NaN if it was not asked for.
    """

    kept: Tensor
    collapsed: Tensor
    nearest: Tensor
    bound: Tensor

    def pulled_back(self, potential: Tensor) -> Tensor:
        """Gradient in δ, (B, V), of a function of `collapsed` whose gradient is `potential` (B, k)."""
        return potential.gather(-1, self.nearest)


def truncate(
    difference: Tensor, cost: TokenCost, k: int, *, cells: Cells | None = None, bound: bool = True
) -> Truncation:
    """Collapse each row onto the k tokens of largest |δ| (ties: the smaller index).

    Parameters
    ----------
    difference : Tensor, shape (B, V), float32 or float64, any device
        δ = q - p; rows sum to 0 up to rounding.
    cost : TokenCost
        A metric.
    k : int
        Tokens kept, >= 1; all if k >= V.
    cells : Cells, optional
        Shared by all rows: a tail token follows its cell's centre to the kept token nearest to that centre. Costs as
        many distances as there are cells and not as there are tokens. Default: the nearest kept token of each token.
    bound : bool
        Whether to compute the bound (the distances of the moves); training does not need it.

    Returns
    -------
    Truncation
        O(k V) work per row; temporaries are blocks of bounded size, nothing is B x V x V or B x V x k.

    Raises
    ------
    NotAMetricError
        If the cost is not a metric.
    ValueError
        If k is not a positive integer, or the difference or `cells` belong to another cost.
    """
    cost.check_metric()
    checks.count(k=k)
    if difference.shape[-1] != cost.V:
        raise ValueError(f"difference has {difference.shape[-1]} tokens, cost = {cost} has {cost.V}: they must agree")
    if cells is not None and cells.cost is not cost:
        raise ValueError(f"cells were made for another cost than {cost}: use Cells(cost, count) of the same object")
    k = min(k, cost.V)
    kept = select(difference, k)
    nearest = _nearest(cost, kept, difference) if cells is None else cells.nearest(kept, difference)
    nearest.scatter_(1, kept, torch.arange(k, device=kept.device).expand_as(kept))  # a kept token stays, ties or not
    collapsed = difference.new_zeros(len(difference), k).scatter_add_(1, nearest, difference)
    collapsed = closed_forms.balanced(collapsed, collapsed.abs().argmax(-1, keepdim=True))
    moved = _moved(cost, kept, nearest, difference) if bound else difference.new_full((len(difference),), torch.nan)
    return Truncation(kept, collapsed, nearest, moved)


def select(difference: Tensor, k: int) -> Tensor:
    """The k tokens of largest |δ| in each row (B, V), ascending, (B, k). At a tie the smaller index is kept."""
    size = difference.abs().nan_to_num(nan=0.0)  # a row of NaN keeps k tokens as any other
    threshold = size.topk(k, -1, sorted=False).values.amin(-1, keepdim=True)
    chosen = size >= threshold
    if int(chosen.sum()) > k * len(size):  # somewhere the last place is shared
        above, tied = size > threshold, size == threshold
        room = k - above.sum(-1, keepdim=True)
        chosen = above | (tied & (tied.cumsum(-1, dtype=torch.int32) <= room))
    return chosen.nonzero()[:, 1].reshape(-1, k)


def kept_costs(cost: TokenCost, kept: Tensor, like: Tensor) -> Tensor:
    """Costs between the kept tokens of each row, (B, k, k), in the type and on the device of `like`."""
    if isinstance(cost, Embedding):
        return _distances(_placed(cost, like)[kept])
    rows = [cost.block(row, row) for row in kept.cpu()]
    return torch.stack(rows).to(like) if rows else like.new_zeros((0, kept.shape[1], kept.shape[1]))


class Cells:
    """A partition of the vocabulary around `count` centre tokens, made once and shared by all rows.

    Centres are chosen farthest-first, beginning with token 0 (at most twice the least possible largest radius,
    `gonzalez1985clustering`); each token belongs to its nearest centre.

    Parameters
    ----------
    cost : TokenCost
        A metric; `count` rows of its matrix are computed, one at a time.
    count : int
        Number of cells, at least 1; fewer are made when every token is at distance 0 from a centre.

    Attributes
    ----------
    centres : Tensor of int64, shape (cells,)
    cell : Tensor of int64, shape (V,)
    radius : Tensor, shape (V,)
        Distance from each token to its centre.
    """

    def __init__(self, cost: TokenCost, count: int = 1024) -> None:
        cost.check_metric()
        checks.count(count=count)
        self.cost = cost
        self.radius = torch.full((cost.V,), torch.inf, dtype=torch.float64)
        self.cell = torch.zeros(cost.V, dtype=torch.int64)
        centres: list[int] = []
        while len(centres) < min(count, cost.V):
            centre = int(self.radius.argmax()) if centres else 0
            if self.radius[centre] == 0:
                break
            distance = cost.block([centre], slice(None))[0]
            self.cell[distance < self.radius] = len(centres)
            self.radius = torch.minimum(self.radius, distance)
            centres.append(centre)
        self.centres = torch.tensor(centres)

    def nearest(self, kept: Tensor, like: Tensor) -> Tensor:
        """Position in `kept` (B, k) nearest to each token's centre, (B, V)."""
        by_cell = _nearest(self.cost, kept, like, self.centres)
        return by_cell.index_select(1, self.cell.to(kept.device))


# -- nearest kept token, and the price of going there ------------------------------------------------------------------
_PLACED: WeakKeyDictionary[TokenCost, dict[Any, Tensor]] = WeakKeyDictionary()


def _placed(cost: Embedding, like: Tensor) -> Tensor:
    """Embeddings, centred (distances between them lose fewer digits), in the type and on the device of `like`."""
    copies = _PLACED.setdefault(cost, {})
    key = (like.device, like.dtype)
    if key not in copies:
        copies[key] = (cost.points - cost.points.mean(0)).to(like)
    return copies[key]


def _block(like: Tensor, per_row: int) -> int:
    """Rows at a time, so that a temporary of `per_row` elements each stays bounded."""
    return max(1, (_CPU_BLOCK if like.device.type == "cpu" else _GPU_BLOCK) // max(1, per_row))


def _nearest(cost: TokenCost, kept: Tensor, like: Tensor, tokens: Tensor | None = None) -> Tensor:
    """Position in `kept` (B, k) nearest to each of `tokens` (all by default), (B, len(tokens))."""
    if isinstance(cost, Embedding):
        return _nearest_points(_placed(cost, like), kept, tokens)
    columns: Any = slice(None) if tokens is None else tokens
    rows = [cost.block(row, columns).argmin(0) for row in kept.cpu()]
    width = cost.V if tokens is None else len(tokens)
    return torch.stack(rows).to(kept.device) if rows else kept.new_zeros((0, width))


def _nearest_points(points: Tensor, kept: Tensor, tokens: Tensor | None) -> Tensor:
    """Nearest by matrix products: argmin over s of ½|x_s|² - x_j·x_s. Rounding may choose among near ties only."""
    queries = points if tokens is None else points[tokens.to(points.device)]
    rows, k = kept.shape
    nearest = kept.new_empty((rows, len(queries)))
    step = _block(points, len(queries) * k)
    for at in range(0, rows, step):
        chosen = points[kept[at : at + step]].reshape(-1, points.shape[1])
        scores = torch.addmm(0.5 * chosen.square().sum(1), queries, chosen.T, alpha=-1)
        nearest[at : at + step] = scores.view(len(queries), -1, k).argmin(-1).T
    return nearest


def _distances(points: Tensor) -> Tensor:
    """Euclidean distances (B, k, k) within each row of points (B, k, d).

    By matrix products, |a|² + |b|² - 2ab; where that cancels more than a digit or so, by differences.
    """
    square = points.square().sum(-1)
    scale = square.unsqueeze(2) + square.unsqueeze(1)
    squared = torch.baddbmm(scale, points, points.mT, alpha=-2)
    near = squared < _CANCELS * scale
    near.diagonal(dim1=1, dim2=2).fill_(False)
    for pairs in near.nonzero().split(_block(points, points.shape[2])):
        row, i, j = pairs.unbind(1)
        squared[row, i, j] = (points[row, i] - points[row, j]).square_().sum(-1)
    squared.diagonal(dim1=1, dim2=2).zero_()
    return squared.clamp_(min=0).sqrt_()


def _moved(cost: TokenCost, kept: Tensor, nearest: Tensor, difference: Tensor) -> Tensor:
    """Σ_j |δ_j| d(j, π(j)) of each row, (B,)."""
    goal = kept.gather(1, nearest)
    total = torch.empty_like(difference[:, 0])
    points = _placed(cost, difference) if isinstance(cost, Embedding) else None
    step = 1 if points is None else _block(points, points.numel())
    for at in range(0, len(goal), step):
        rows = slice(at, at + step)
        if points is not None:
            distance = (points[goal[rows]] - points).norm(dim=-1)
        else:
            costs = cost.block(kept[at].cpu(), slice(None)).to(difference)
            distance = costs.gather(0, nearest[rows])
        total[rows] = (difference[rows].abs() * distance).sum(-1)
    return total
