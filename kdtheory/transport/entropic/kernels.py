"""Products with the Gibbs kernel K = exp(-C/ε): the only thing a Sinkhorn iteration asks of a cost.

All kernels work on logarithms, shape (B, V): `log_sums(x)` is log Σ_j K_ij e^{x_j}, `means(x, h)` the mean of h under
the weights K_ij e^{x_j}, both for every token i, whether it holds mass or not. Subtracting a row's largest x before
the matrix product makes it safe: one term at least is K_ij >= exp(-max C/ε), so nothing underflows to zero while
max C/ε stays below `SAFE`, and what underflows is smaller than that term by twelve digits or more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from kdtheory.transport.costs import Embedding, TokenCost

SAFE = {torch.float32: 60.0, torch.float64: 650.0}  # largest max C/ε for products
_FLAT = 0.01  # smallest for float32: log K e^x is then known to 1e-7, and ε times that is 1e-5 of max C
MAX_BYTES = 1 << 32  # of a kernel that is kept: V = 32768 in float32
_BLOCK = 1 << 24  # entries of a block of C that is formed and dropped
# Smaller weights count as this much of the largest: e^x is four times slower at -inf and twenty times where it would be
# denormal. Beside the smallest sum that `SAFE` allows, V of them are below 1e-7 in float32 and 1e-16 in float64.
_LEAST = {torch.float32: -87.0, torch.float64: -700.0}


def _weights(x: Tensor) -> tuple[Tensor, Tensor]:
    """(e^{x - top}, top) with the row's largest x, (B, V) and (B, 1)."""
    top = x.amax(-1, keepdim=True)
    return (x - top).clamp_min_(_LEAST[x.dtype]).exp_(), top


class Kernel(ABC):
    """K at one ε. `transpose=True` sums over i (teacher's tokens) instead of j (student's)."""

    epsilon: float

    @abstractmethod
    def log_sums(self, x: Tensor, transpose: bool = False) -> Tensor:
        """Log Σ_j K_ij e^{x_j}: (B, V) -> (B, V)."""

    @abstractmethod
    def means(self, x: Tensor, h: Tensor, transpose: bool = False) -> Tensor:
        """Σ_j K_ij e^{x_j} h_j / Σ_j K_ij e^{x_j}: the conditional mean of h (B, V) given token i."""

    @abstractmethod
    def mean_costs(self, x: Tensor, transpose: bool = False) -> Tensor:
        """The same mean of C_ij."""

    def rows(self, index: Tensor) -> Kernel:
        """The kernel of these rows of the batch; itself where the rows share it."""
        return self


class Shared(Kernel):
    """One cost for all rows; blocks of C are formed on demand, on the device and in the precision of the solver."""

    def __init__(self, cost: TokenCost, epsilon: float, device: torch.device, dtype: torch.dtype) -> None:
        self.cost, self.epsilon, self.device, self.dtype = cost, epsilon, device, dtype

    def blocks(self, entries: int = _BLOCK) -> Iterator[tuple[slice, Tensor]]:
        """(some teacher's tokens, their rows of C), over all tokens."""
        step = max(1, entries // self.cost.V)
        for start in range(0, self.cost.V, step):
            at = slice(start, min(start + step, self.cost.V))
            yield at, self.cost.block(at, slice(None)).to(self.device, self.dtype, copy=True)

    def mean_costs(self, x: Tensor, transpose: bool = False) -> Tensor:
        weight, _ = _weights(x)
        total, costs = torch.zeros_like(x), torch.zeros_like(x)
        for at, C in self.blocks():
            K = torch.exp(-C / self.epsilon)
            if transpose:
                total += weight[:, at] @ K
                costs += weight[:, at] @ K.mul_(C)
            else:
                total[:, at] = weight @ K.T
                costs[:, at] = weight @ K.mul_(C).T
        return costs / total


class Dense(Shared):
    """K kept as a matrix: one matrix product for each sum."""

    def __init__(self, cost: TokenCost, epsilon: float, device: torch.device, dtype: torch.dtype) -> None:
        working = torch.float32 if dtype == torch.bfloat16 else dtype
        super().__init__(cost, epsilon, device, working)
        self.K = torch.empty(cost.V, cost.V, dtype=dtype, device=device)
        for at, C in self.blocks():
            self.K[at] = torch.exp(-C / epsilon)

    def _product(self, weight: Tensor, transpose: bool) -> Tensor:
        K = self.K if transpose else self.K.T
        return (weight.to(K.dtype) @ K).to(weight.dtype)

    def log_sums(self, x: Tensor, transpose: bool = False) -> Tensor:
        weight, top = _weights(x)
        return self._product(weight, transpose).log_().add_(top)

    def means(self, x: Tensor, h: Tensor, transpose: bool = False) -> Tensor:
        weight, _ = _weights(x)
        return self._product(weight * h, transpose) / self._product(weight, transpose)


class Streamed(Shared):
    """Blocks of K are formed for each sum and dropped: no V × V matrix, V² exponentials more an iteration.

    With `fast`, distances between embeddings come from float64 products of centred points, on the device: their error
    is about 1e-16 · diam²/distance, at most 1e-8 · diam, for points that nearly coincide.
    """

    def __init__(
        self, cost: TokenCost, epsilon: float, device: torch.device, dtype: torch.dtype, fast: bool = False
    ) -> None:
        super().__init__(cost, epsilon, device, dtype)
        points = cost.points.to(device) if fast and isinstance(cost, Embedding) else None
        self._points = None if points is None else points - points.mean(0)

    def blocks(self, entries: int = _BLOCK) -> Iterator[tuple[slice, Tensor]]:
        if self._points is None:
            yield from super().blocks(entries)
            return
        step = max(1, entries // self.cost.V)
        for start in range(0, self.cost.V, step):
            at = slice(start, min(start + step, self.cost.V))
            C = torch.cdist(self._points[at], self._points, compute_mode="use_mm_for_euclid_dist")
            C[torch.arange(at.stop - start), torch.arange(start, at.stop)] = 0.0
            yield at, C.to(self.dtype)

    def log_sums(self, x: Tensor, transpose: bool = False) -> Tensor:
        weight, top = _weights(x)
        return self._sums(weight, transpose).log_().add_(top)

    def means(self, x: Tensor, h: Tensor, transpose: bool = False) -> Tensor:
        weight, _ = _weights(x)
        both = self._sums(torch.cat([weight * h, weight]), transpose)
        return both[: len(h)] / both[len(h) :]

    def carried(self, x: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
        """What the plan mass_j · softmax_i(x_i - C_ij/ε), of exact column sums, takes from each row, and its cost."""
        weight = (x - x.amax(-1, keepdim=True)).exp()
        scaled = mass / self._sums(weight, transpose=True)
        taken, costs = torch.zeros_like(x), torch.zeros_like(x)
        for at, C in self.blocks():
            K = torch.exp(-C / self.epsilon)
            taken[:, at] = weight[:, at] * (scaled @ K.T)
            costs[:, at] = weight[:, at] * (scaled @ K.mul_(C).T)
        return taken, costs

    def _sums(self, weight: Tensor, transpose: bool) -> Tensor:
        out = torch.zeros_like(weight)
        for at, C in self.blocks():
            K = C.div_(-self.epsilon).exp_()
            if transpose:
                out += weight[:, at] @ K
            else:
                out[:, at] = weight @ K.T
        return out


class LogSum(Shared):
    """Past the safe range: log-sum-exp over blocks of (B, some tokens, V), hundreds of times slower than a product."""

    def log_sums(self, x: Tensor, transpose: bool = False) -> Tensor:
        return torch.cat([torch.logsumexp(z, -1) for z, _ in self._exponents(x, transpose)], -1)

    def means(self, x: Tensor, h: Tensor, transpose: bool = False) -> Tensor:
        parts = [(torch.softmax(z, -1) @ h.unsqueeze(-1)).squeeze(-1) for z, _ in self._exponents(x, transpose)]
        return torch.cat(parts, -1)

    def mean_costs(self, x: Tensor, transpose: bool = False) -> Tensor:
        return torch.cat([(torch.softmax(z, -1) * C).sum(-1) for z, C in self._exponents(x, transpose)], -1)

    def carried(self, x: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
        """See `Streamed.carried`: normalised by softmax, the columns stay exact where x itself is coarse."""
        taken, costs, start = torch.zeros_like(x), torch.zeros_like(x), 0
        for z, C in self._exponents(x, transpose=True):
            plan = torch.softmax(z, -1) * mass[:, start : (start := start + len(C))].unsqueeze(-1)
            taken += plan.sum(1)
            costs += (plan * C).sum(1)
        return taken, costs

    def _exponents(self, x: Tensor, transpose: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """(x_j - C_ij/ε of some tokens i, shape (B, some, V), and those C)."""
        step = max(1, _BLOCK // max(1, x.numel()))
        for start in range(0, self.cost.V, step):
            at = slice(start, min(start + step, self.cost.V))
            C = self.cost.block(slice(None), at).T if transpose else self.cost.block(at, slice(None))
            C = C.to(self.device, self.dtype)
            yield x.unsqueeze(1) - C / self.epsilon, C


class PerRow(Kernel):
    """Each row of the batch has its own cost (B, k, k), as after truncation to each row's own tokens."""

    def __init__(self, C: Tensor, epsilon: float) -> None:
        self.C, self.epsilon = C, epsilon
        self.K = torch.exp(-C / epsilon)

    def _product(self, weight: Tensor, matrix: Tensor, transpose: bool) -> Tensor:
        matrix = matrix.transpose(1, 2) if transpose else matrix
        return torch.bmm(matrix, weight.unsqueeze(-1)).squeeze(-1)

    def log_sums(self, x: Tensor, transpose: bool = False) -> Tensor:
        weight, top = _weights(x)
        return self._product(weight, self.K, transpose).log_().add_(top)

    def means(self, x: Tensor, h: Tensor, transpose: bool = False) -> Tensor:
        weight, _ = _weights(x)
        return self._product(weight * h, self.K, transpose) / self._product(weight, self.K, transpose)

    def mean_costs(self, x: Tensor, transpose: bool = False) -> Tensor:
        weight, _ = _weights(x)
        return self._product(weight, self.K * self.C, transpose) / self._product(weight, self.K, transpose)

    def rows(self, index: Tensor) -> PerRow:
        part = object.__new__(PerRow)
        part.C, part.epsilon, part.K = self.C[index], self.epsilon, self.K[index]
        return part


Kept = dict[tuple[float, torch.device, torch.dtype], Shared]
"""Kernels of one cost that a loss keeps from step to step."""


def shared(
    cost: TokenCost, epsilon: float, device: torch.device, precision: torch.dtype, kept: Kept | None = None
) -> Shared:
    """The cheapest kernel that is accurate: kept if it fits, float64 out of float32's range, log-sum-exp past that."""
    kept = {} if kept is None else kept
    key = (epsilon, device, precision)
    if key not in kept:
        kept[key] = _made(cost, epsilon, device, precision)
    return kept[key]


def _made(cost: TokenCost, epsilon: float, device: torch.device, precision: torch.dtype) -> Shared:
    spread = cost.diameter / epsilon
    dtype = precision if _FLAT <= spread <= SAFE[torch.float32] else torch.float64
    if spread > SAFE[torch.float64]:
        return LogSum(cost, epsilon, device, torch.float64)
    if cost.V**2 * dtype.itemsize <= MAX_BYTES:
        return Dense(cost, epsilon, device, dtype)
    return Streamed(cost, epsilon, device, torch.float32 if dtype == torch.bfloat16 else dtype, fast=True)
