"""One entropic problem for a batch of pairs: what is solved, at which precision, and its optimal potentials."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdtheory.divergences import checks
from kdtheory.transport.costs import TokenCost
from kdtheory.transport.entropic import kernels, scaling
from kdtheory.transport.entropic.kernels import Kernel
from kdtheory.transport.entropic.scaling import Scaling

PRECISIONS = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}
TOLERANCES = {"float64": 1e-9, "float32": 1e-5, "bfloat16": 1e-5}  # float32 sums stall near 2e-6
_FLOORS = {"float64": 1e-13, "float32": 3e-6, "bfloat16": 3e-6}
_COARSEST = 1e-2  # rounding past which nothing is left of a plan
_ROUGH = 1e-2  # marginal error to which bfloat16 scalings are taken; they are good to 2e-3
_WARM_UP_PAST, _STAGE, _STAGE_TOL = 300.0, 4.0, 1e-3  # ε-scaling pays only for max C/ε in the hundreds


class SinkhornWarning(RuntimeWarning):
    """Some rows spent `max_iter` sweeps before their marginals were within `tol`."""


@dataclass(frozen=True)
class Solved:
    """Optimal scaled potentials of B pairs, with what is needed to evaluate functionals of their plans."""

    kernel: Kernel
    log_p: Tensor
    log_q: Tensor
    state: Scaling

    @property
    def f(self) -> Tensor:
        """Teacher's potential on every token, (B, V), in units of cost."""
        return self.kernel.epsilon * self.state.phi

    @property
    def g(self) -> Tensor:
        """Student's potential on every token, (B, V), in units of cost."""
        return self.kernel.epsilon * self.state.psi

    @property
    def weights_q(self) -> Tensor:
        """Logarithms of q_j e^{ψ_j}: with K_ij, the plan's row i up to a factor."""
        return self.log_q + self.state.psi

    @property
    def weights_p(self) -> Tensor:
        """Logarithms of p_i e^{φ_i}: with K_ij, the plan's column j up to a factor."""
        return self.log_p + self.state.phi


def pair(
    cost: TokenCost,
    log_p: Tensor,
    log_q: Tensor,
    epsilon: float,
    precision: str,
    tol: float,
    max_iter: int,
    kept: kernels.Kept | None = None,
) -> Solved:
    """Solve OT_ε between p and q, log-masses (B, V) of total 1. Kernels are taken from, and left in, `kept`."""
    kernel = kernels.shared(cost, epsilon, log_p.device, PRECISIONS[precision], kept)
    log_p, log_q = log_p.to(kernel.dtype), log_q.to(kernel.dtype)
    start = _warm_start(cost, log_p, log_q, epsilon, max_iter)
    if isinstance(kernel, kernels.Dense) and kernel.K.dtype == torch.bfloat16:
        start = scaling.solve(kernel, log_p, log_q, max(tol, _ROUGH), max_iter, start)
        kernel = kernels.shared(cost, epsilon, log_p.device, torch.float32, kept)
    start = _same(cost, kernel, log_p, log_q, tol, max_iter, start)
    return Solved(kernel, log_p, log_q, scaling.solve(kernel, log_p, log_q, tol, max_iter, start))


def _same(
    cost: TokenCost, kernel: Kernel, log_p: Tensor, log_q: Tensor, tol: float, max_iter: int, start: Scaling | None
) -> Scaling | None:
    """`start`, but p's own potentials where p and q agree within tol and the cost is symmetric: sweeps crawl there.

    A quarter of tol for the laws and half for the problem: such rows are finished with their first sweep.
    """
    same = torch.nonzero((log_p.exp() - log_q.exp()).abs().sum(-1) <= 0.25 * tol)[:, 0]
    if not len(same) or not cost.is_symmetric:
        return start
    found = scaling.solve_symmetric(kernel, log_p[same], 0.5 * tol, max_iter)
    if start is None:
        start = scaling.empty(log_p)
        start.phi, start.psi = torch.zeros_like(log_p), torch.zeros_like(log_q)
    start.phi[same], start.psi[same] = found.phi, found.psi
    start.iterations[same] = found.iterations
    return start


def own(solved: Solved, cost: TokenCost, log_q: Tensor, tol: float, max_iter: int) -> Solved:
    """Solve OT_ε between q and itself, with the kernel of `solved`."""
    log_q, kernel = log_q.to(solved.log_q.dtype), solved.kernel
    if cost.is_symmetric:
        return Solved(kernel, log_q, log_q, scaling.solve_symmetric(kernel, log_q, tol, max_iter))
    return Solved(kernel, log_q, log_q, scaling.solve(kernel, log_q, log_q, tol, max_iter))


def rounding(cost: TokenCost, epsilon: float) -> float:
    """Relative rounding of a marginal: exponents of size max C/ε keep float64's 16 digits before e^x takes them."""
    return 4 * torch.finfo(torch.float64).eps * cost.diameter / epsilon


def check_tolerance(tol: float | None, precision: str, cost: TokenCost, epsilon: float) -> None:
    """Raise ValueError for a tolerance, or an ε, below what the precision can reach."""
    coarse = rounding(cost, epsilon)
    if coarse > _COARSEST:
        raise ValueError(
            f"epsilon = {epsilon!r} is {cost.diameter / epsilon:.0e} times smaller than the largest cost: float64 "
            "holds 16 digits. Raise it, or take kdtheory.w1, the limit of epsilon -> 0"
        )
    if tol is None:
        return
    checks.positive(tol=tol)
    if tol < coarse:
        raise ValueError(f"tol = {tol!r}: float64 reaches {coarse:.1e} at epsilon = {epsilon!r}; raise either")
    if tol < _FLOORS[precision]:
        remedy = "raise it" if precision == "float64" else 'raise it, or take precision="float64"'
        raise ValueError(f"tol = {tol!r}: {precision} reaches {_FLOORS[precision]:g} at best; {remedy}")


def warn(states: Sequence[Scaling], tol: float, max_iter: int) -> None:
    """Say once which rows have not converged, if any, in one of the problems solved for them."""
    error = torch.stack([state.error for state in states]).amax(0)
    late = torch.nonzero(error > tol)[:, 0]
    if not len(late):
        return
    worst = int(late[error[late].argmax()])
    warnings.warn(
        f"{len(late)} of {len(error)} rows have not converged in max_iter = {max_iter} sweeps; row {worst} "
        f"misses its marginals by {error[worst].item():.2g} > tol = {tol:g}: raise max_iter, tol or epsilon",
        SinkhornWarning,
        stacklevel=4,  # the caller of `sinkhorn`
    )


def _warm_start(cost: TokenCost, log_p: Tensor, log_q: Tensor, epsilon: float, max_iter: int) -> Scaling | None:
    """ε-scaling: potentials from larger ε, for an ε so small that plain sweeps travel slowly."""
    stages = [epsilon * _STAGE]
    while cost.diameter > 10 * stages[-1]:
        stages.append(stages[-1] * _STAGE)
    state, before = None, epsilon
    if cost.diameter > _WARM_UP_PAST * epsilon:
        for at in (*reversed(stages), epsilon):
            if state is not None:
                state.phi, state.psi = state.phi * (before / at), state.psi * (before / at)
            if at > epsilon:
                kernel, before = kernels.shared(cost, at, log_p.device, log_p.dtype), at
                state = scaling.solve(kernel, log_p, log_q, _STAGE_TOL, max_iter, state)
    return state
