"""A rigorous interval for the unregularised cost W = OT_C(p, q), from the potentials of an entropic problem.

Above: the plan, repaired to the right marginals (`altschuler2017near`, Algorithm 2). Below: potentials made feasible by
a c-transform (`peyre2019computational`, Section 5.1). Both hold for any potentials, converged or not, and are computed
in float64; what remains is the rounding of their own sums.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdtheory.transport.costs import TokenCost
from kdtheory.transport.entropic import kernels
from kdtheory.transport.entropic.evaluate import Evaluated
from kdtheory.transport.entropic.problem import Solved

_BLOCK = 1 << 22  # entries of a block (B, some tokens, V)


def upper(found: Evaluated, cost: TokenCost) -> Tensor:
    """Cost of a plan between p and q, (B,)."""
    phi, log_p, log_q = (x.double() for x in (found.solved.state.phi, found.log_p, found.log_q))
    p = log_p.exp()
    taken, costs = _double(found.solved, cost).carried(log_p + phi, log_q.exp())  # column sums exact
    kept = torch.where(taken > p, p / taken, 1.0)  # rows scaled down where too heavy; columns only get lighter
    missing = (p - taken).relu().sum(-1)  # moved from and to wherever it is missing, at the largest cost at most
    return found.mass * ((kept * costs).sum(-1) + missing * cost.diameter)


def lower(found: Evaluated, cost: TokenCost) -> Tensor:
    """Dual value of feasible potentials, (B,)."""
    p, q = found.log_p.double().exp(), found.log_q.double().exp()
    g = found.solved.g.double().masked_fill(q == 0, -torch.inf)
    f = _least(cost, g)
    # f is 1-Lipschitz where C is a metric, and -f >= g; elsewhere g itself is feasible with f
    on_q = -f if cost.is_metric else g
    return found.mass * ((p * f).sum(-1) + torch.where(q > 0, q * on_q, 0.0).sum(-1)).clamp(min=0)


def _least(cost: TokenCost, g: Tensor) -> Tensor:
    """min_j C_ij - g_j for every token i, (B, V)."""
    step = max(1, _BLOCK // max(1, g.numel()))
    parts = []
    for start in range(0, cost.V, step):
        C = cost.block(slice(start, start + step), slice(None)).to(g.device)
        parts.append((C - g.unsqueeze(1)).amin(-1))
    return torch.cat(parts, -1)


def _double(solved: Solved, cost: TokenCost) -> kernels.Streamed | kernels.LogSum:
    epsilon, device = solved.kernel.epsilon, solved.log_p.device
    if cost.diameter / epsilon > kernels.SAFE[torch.float64]:
        return kernels.LogSum(cost, epsilon, device, torch.float64)
    return kernels.Streamed(cost, epsilon, device, torch.float64)
