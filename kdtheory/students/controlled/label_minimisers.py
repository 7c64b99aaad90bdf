"""What a student of drawn tokens should become: expected losses over the draws, and their exact minimisers.

p̂ is the empirical law of m independent tokens of the teacher p; m = 0 stands for p itself. The formulas are those of
chapter 06: one-hot transport (Theorem 8), batches on a line (Theorem 9), skew KL from hard labels (Theorem 11).
Everything is float64, shape (..., V) for laws and (...) for values.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kdtheory.transport import TokenCost
from kdtheory.transport.costs import Line

SKEW = 0.1
"""α of skew KL."""


@lru_cache(maxsize=8)
def line(tokens: int) -> TokenCost:
    """Equidistant tokens on a line of length 1."""
    return TokenCost.line(np.linspace(0.0, 1.0, tokens))


@lru_cache(maxsize=8)
def binary_tree(tokens: int) -> TokenCost:
    """Tokens as leaves of a complete binary tree, each edge half as long as the one above it, diameter 1.

    Raises
    ------
    ValueError
        If the number of tokens is not a power of two, at least 4.
    """
    depth = int(math.log2(tokens))
    if tokens != 2**depth or depth < 2:
        raise ValueError(f"tokens = {tokens}: a complete binary tree has 4, 8, 16 ... leaves")
    # leaves come first; then the inner nodes level by level upwards, the root last
    parent, weight, start, length = [], [], 0, 2.0 ** (1 - depth)
    for size in (tokens >> level for level in range(depth)):
        parent += [start + size + index // 2 for index in range(size)]
        weight += [length] * size
        start, length = start + size, 2 * length
    tree = TokenCost.tree([*parent, -1], [*weight, 0.0], tokens)
    return TokenCost.tree([*parent, -1], [*(x / tree.diameter for x in weight), 0.0], tokens)


def medoid(p: Tensor, cost: TokenCost) -> Tensor:
    """The token with the least expected cost under p, (..., V) -> (...)."""
    return (p @ cost.matrix().to(p)).argmin(-1)


def binomial(F: Tensor, m: int) -> Tensor:
    """P(K = j) of K ~ Bin(m, F) for j = 0..m: (...) -> (..., m + 1); F strictly between 0 and 1."""
    j = torch.arange(m + 1, dtype=F.dtype, device=F.device)
    ways = math.lgamma(m + 1) - torch.lgamma(j + 1) - torch.lgamma(m - j + 1)
    return (ways + j * F.log().unsqueeze(-1) + (m - j) * torch.log1p(-F).unsqueeze(-1)).exp()


def cumulative(p: Tensor) -> Tensor:
    """p_1 + ... + p_k for k < V, kept inside (0, 1)."""
    tiny = torch.finfo(p.dtype).tiny
    return p.cumsum(-1)[..., :-1].clamp(tiny, 1 - 2.0**-53)


def line_minimiser(p: Tensor, m: int) -> Tensor:
    """The law whose distribution function is, at each token, the smallest median of Bin(m, F_k) / m."""
    below = binomial(cumulative(p), m).cumsum(-1) < 0.5
    G = below.sum(-1).to(p.dtype) / m
    zero, one = torch.zeros_like(p[..., :1]), torch.ones_like(p[..., :1])
    return torch.cat([zero, G, one], -1).diff(dim=-1)


def sharpened(p: Tensor, skew: float = SKEW) -> Tensor:
    """Minimiser of E SKL(δ_y, q): (max(α, λ p_y) - α) / (1 - α), λ by bisection."""
    total = 1 + (p.shape[-1] - 1) * skew
    low, high = torch.zeros_like(p[..., :1]), total / p.amax(-1, keepdim=True)
    for _ in range(200):
        middle = (low + high) / 2
        small = torch.clamp(middle * p, min=skew).sum(-1, keepdim=True) < total
        low, high = torch.where(small, middle, low), torch.where(small, high, middle)
    return (torch.clamp(high * p, min=skew) - skew) / (1 - skew)


def minimiser(loss: str, p: Tensor, m: int, cost: TokenCost) -> Tensor:
    """The law that minimises `expected`, (..., V).

    Raises
    ------
    ValueError
        Where chapter 06 has no formula: transport on a tree, total variation and skew KL with m > 1.
    """
    if m == 0 or loss == "fkl":
        return p
    if loss == "w1" and m == 1:
        return functional.one_hot(medoid(p, cost), p.shape[-1]).to(p)
    if loss == "w1" and isinstance(cost, Line):
        return line_minimiser(p, m)
    if loss == "tvd" and m == 1:
        return functional.one_hot(p.argmax(-1), p.shape[-1]).to(p)
    if loss == "skl" and m == 1:
        return sharpened(p)
    raise ValueError(f"no formula for the minimiser of {loss} with m = {m} on {cost}")


def expected(loss: str, p: Tensor, q: Tensor, m: int, cost: TokenCost) -> Tensor:
    """E D(p̂, q), (..., V), (..., V) -> (...); for forward KL without the entropy of p̂: the cross-entropy.

    Raises
    ------
    ValueError
        As `minimiser`.
    """
    if loss == "fkl":
        return -torch.xlogy(p, q).sum(-1)
    if m == 0:
        from kdtheory.students.controlled.labels import build

        return build(loss, cost).per_position(p.log(), q.log())
    if loss == "w1" and m == 1:
        return ((p @ cost.matrix().to(p)) * q).sum(-1)
    if loss == "w1" and isinstance(cost, Line):
        levels = torch.arange(m + 1, dtype=p.dtype, device=p.device) / m
        error = (cumulative(q).unsqueeze(-1) - levels).abs()
        return (binomial(cumulative(p), m) * error).sum(-1) @ cost.gaps.to(p)
    if loss == "tvd" and m == 1:
        return 1 - (p * q).sum(-1)
    if loss == "skl" and m == 1:
        return -(p * (SKEW + (1 - SKEW) * q).log()).sum(-1)
    raise ValueError(f"no formula for the expectation of {loss} with m = {m} on {cost}")
