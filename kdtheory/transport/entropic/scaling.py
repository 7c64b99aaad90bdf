"""The Sinkhorn iteration for a batch of pairs: over-relaxed, safeguarded, finished rows taken out.

With scaled potentials φ = f/ε, ψ = g/ε, defined on every token, the plan is Γ_ij = p_i e^{φ_i} K_ij e^{ψ_j} q_j and one
sweep sets φ = T(ψ) = -log Σ_j K_ij q_j e^{ψ_j}, then ψ likewise. Over-relaxation takes ω times that step. Each half
step raises the concave dual Σ p φ + Σ q ψ - ΣΓ by an amount that is known before it is taken,

    gain(ω) = Σ_i p_i (ω d_i - e^{(ω-1) d_i} + e^{-d_i}),   d = T(ψ) - φ,

so a row whose gain falls below what ω promises near the solution, ω(2 - ω)/2 of the plain step's, takes the plain step
(`thibault2021overrelaxed`, Section 3, with the dual in place of their Lyapunov function). The dual thus never falls,
whatever ω. ω itself follows from the rate each row shows, as in successive over-relaxation
(`lehmann2022note`, Eq. 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kdtheory.transport.entropic.kernels import Kernel

_RATE_OVER = 8  # sweeps between two estimates of a row's rate
_FIRST, _LARGEST = 1.3, 1.95  # of ω
_MARGIN = 0.75  # of tol, at which a row stops: its last plain sweep must not end above tol by rounding
_CHECK_EVERY = {"cpu": 1}  # sweeps between two looks at the errors; each look makes a GPU wait
_CHECK_EVERY_ELSEWHERE = 8


@dataclass
class Scaling:
    """State of B rows: scaled potentials (B, V), and per row the L1 error of both marginals, sweeps, success."""

    phi: Tensor
    psi: Tensor
    error: Tensor
    iterations: Tensor
    converged: Tensor


def solve(
    kernel: Kernel, log_p: Tensor, log_q: Tensor, tol: float, max_iter: int, start: Scaling | None = None
) -> Scaling:
    """Scale until the marginals of each row's plan are within `tol` in L1, or `max_iter` sweeps are spent.

    Log-masses (B, V) of equal total, -inf allowed. Column sums are exact on return; `error` bounds the row sums' error.
    `start` gives first potentials; its sweeps are counted in.
    """
    phi, psi = (torch.zeros_like(log_p), torch.zeros_like(log_q)) if start is None else (start.phi, start.psi)
    out = _empty(log_p)
    rows = _Rows(kernel, log_p, log_q, phi, psi, tol)
    every = _CHECK_EVERY.get(log_p.device.type, _CHECK_EVERY_ELSEWHERE)
    for sweep in range(1, max_iter + 1):
        rows.sweep()
        if sweep % _RATE_OVER == 0:
            rows.adapt()
        if sweep % every == 0 or sweep == max_iter:
            rows.retire(out, sweep, everything=sweep == max_iter)
            if not len(rows.index):
                break
    out = _finished(kernel, log_p, log_q, out, tol)
    if start is not None:
        out.iterations += start.iterations
    return out


def solve_symmetric(kernel: Kernel, log_q: Tensor, tol: float, max_iter: int) -> Scaling:
    """The self-problem p = q of a symmetric kernel: φ = ψ, by averaged steps (`feydy2019sinkhorn`, Section 3.1)."""
    phi = torch.zeros_like(log_q)
    out = _empty(log_q)
    index = torch.arange(len(log_q), device=log_q.device)
    part, mass = log_q, log_q.exp()
    for sweep in range(1, max_iter + 1):
        step = -kernel.log_sums(part + phi) - phi
        error = 2 * (mass * torch.expm1(-step).abs()).sum(-1)
        done = ~(error > tol) | (sweep == max_iter)
        if done.any():
            at = index[done]
            out.phi[at], out.psi[at], out.error[at] = phi[done], phi[done], error[done]
            out.iterations[at], out.converged[at] = sweep, error[done] <= tol
            if done.all():
                break
            keep = ~done
            index, part, mass, phi, step = index[keep], part[keep], mass[keep], phi[keep], step[keep]
            kernel = kernel.rows(keep)
        phi = phi + 0.5 * step
    return out


class _Rows:
    """The rows still at work."""

    def __init__(self, kernel: Kernel, log_p: Tensor, log_q: Tensor, phi: Tensor, psi: Tensor, tol: float) -> None:
        self.kernel, self.log_p, self.log_q, self.phi, self.psi, self.tol = kernel, log_p, log_q, phi, psi, tol
        self.index = torch.arange(len(log_p), device=log_p.device)
        self.omega = log_p.new_full((len(log_p), 1), _FIRST)
        self.error = log_p.new_full((len(log_p),), torch.inf)
        self.before = self.error.clone()  # error at the last estimate of the rate
        self.columns = self.error.clone()  # error of the column sums

    def sweep(self) -> None:
        """One half step in φ, one in ψ; `error` is that of the state before."""
        step = -self.kernel.log_sums(self.log_q + self.psi) - self.phi
        relaxed, misfit = _relaxed(step, self.log_p, self.omega)
        self.error = misfit + self.columns
        self.phi = self.phi + relaxed
        step = -self.kernel.log_sums(self.log_p + self.phi, transpose=True) - self.psi
        relaxed, _ = _relaxed(step, self.log_q, self.omega)
        self.columns = (self.log_q.exp() * torch.expm1(relaxed - step).abs()).sum(-1)
        self.psi = self.psi + relaxed

    def adapt(self) -> None:
        """The best ω for the rate observed since the last estimate; kept where the rate shows none."""
        rate = (self.error / self.before) ** (1 / _RATE_OVER)
        omega = self.omega.squeeze(-1)
        plain = ((rate + omega - 1) ** 2 / (omega**2 * rate)).clamp(0, 1)  # rate of plain sweeps
        best = (2 / (1 + (1 - plain).sqrt())).clamp(1, _LARGEST)
        usable = (rate < 1) & (rate > omega - 1)
        self.omega = torch.where(usable, best, omega).unsqueeze(-1)
        self.before = self.error

    def retire(self, out: Scaling, sweep: int, everything: bool) -> None:
        """Write finished rows to `out` and go on without them; few at a time are left in, copies cost time too."""
        done = ~(self.error > _MARGIN * self.tol)  # a row of NaN is done, too
        finished = int(done.sum())
        if not everything and finished < max(1, len(done) // 16):
            return
        leaving = torch.ones_like(done) if everything else done
        at = self.index[leaving]
        out.phi[at], out.psi[at], out.iterations[at] = self.phi[leaving], self.psi[leaving], sweep
        keep = ~leaving
        self.kernel = self.kernel.rows(keep)
        for name in ("index", "log_p", "log_q", "phi", "psi", "omega", "error", "before", "columns"):
            setattr(self, name, getattr(self, name)[keep])


def _relaxed(step: Tensor, log_mass: Tensor, omega: Tensor) -> tuple[Tensor, Tensor]:
    """(Step to take, L1 misfit of the marginal before it) from the plain step."""
    mass, after = log_mass.exp(), torch.exp(log_mass - step)  # the marginal the state has
    misfit = (mass - after).abs().sum(-1)
    if not (omega > 1).any():
        return step, misfit
    plain = (mass * (step - 1) + after).sum(-1, keepdim=True)
    gain = (mass * omega * step - torch.exp(log_mass + (omega - 1) * step) + after).sum(-1, keepdim=True)
    safe = gain >= 0.5 * omega * (2 - omega) * plain
    return torch.where(safe, omega, 1.0) * step, misfit


def _finished(kernel: Kernel, log_p: Tensor, log_q: Tensor, out: Scaling, tol: float) -> Scaling:
    """A last plain sweep. The column error after its first half bounds the row error after its second.

    That is so because a half step maps the misfit of one marginal to the other by a Markov kernel.
    """
    out.phi = -kernel.log_sums(log_q + out.psi)
    step = -kernel.log_sums(log_p + out.phi, transpose=True) - out.psi
    out.error = (log_q.exp() - torch.exp(log_q - step)).abs().sum(-1)
    out.psi = out.psi + step
    out.converged = out.error <= tol
    return out


def _empty(like: Tensor) -> Scaling:
    rows = len(like)
    return Scaling(
        torch.empty_like(like),
        torch.empty_like(like),
        like.new_full((rows,), torch.inf),
        torch.zeros(rows, dtype=torch.int64, device=like.device),
        torch.zeros(rows, dtype=torch.bool, device=like.device),
    )
