"""The Sinkhorn iteration for a batch of pairs: over-relaxed, safeguarded, finished rows taken out.

With scaled potentials φ = f/ε, ψ = g/ε, defined on every token, the plan is Γ_ij = p_i e^{φ_i} K_ij e^{ψ_j} q_j and one
sweep sets φ = T(ψ) = -log Σ_j K_ij q_j e^{ψ_j}, then ψ likewise. Over-relaxation takes ω times that step. Each half
step raises the concave dual Σ p φ + Σ q ψ - ΣΓ by an amount that is known before it is taken,

    gain(ω) = Σ_i p_i (ω d_i - e^{(ω-1) d_i} + e^{-d_i}),   d = T(ψ) - φ,

so a row whose gain falls below half of what ω promises near the solution, ω(2 - ω) times the plain step's gain, takes
the plain step (as in `thibault2021overrelaxed`, with the dual in place of their Lyapunov function). The dual thus never
falls, whatever ω in [1, 2), and the plans converge (chapter 07, `safeguarded-relaxation`). ω itself follows from the
rate each row shows, as in successive over-relaxation (`lehmann2022note`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kdtheory.transport.entropic.kernels import Kernel

_RATE_OVER = 8  # sweeps between two estimates of a row's rate
_FIRST, _LARGEST = 1.3, 1.95  # of ω
_SHRINK = 0.98  # of ω - 1 where the rate does not tell the best
_QUIET = 16.0  # times the amplified rounding, which products and sums multiply: what a row's error must be above
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
    out = empty(log_p)
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
    """The self-problem p = q of a symmetric kernel: φ = ψ, by averaged steps (`feydy2019sinkhorn`, Section 3.1).

    A last plain sweep, as in `solve`, makes the column sums exact and carries the potentials to tokens without mass,
    which the averaged steps leave behind.
    """
    phi = torch.zeros_like(log_q)
    out = empty(log_q)
    index = torch.arange(len(log_q), device=log_q.device)
    part, mass, here = log_q, log_q.exp(), kernel
    for sweep in range(1, max_iter + 1):
        step = -here.log_sums(part + phi) - phi
        error = 2 * (mass * torch.expm1(-step).abs()).sum(-1)  # of rows and columns, which miss alike
        done = ~(error > _MARGIN * tol) | (sweep == max_iter)
        if done.any() or not len(done):
            at = index[done]
            out.psi[at], out.iterations[at] = phi[done], sweep
            if done.all():
                break
            keep = ~done
            index, part, mass, phi, step = index[keep], part[keep], mass[keep], phi[keep], step[keep]
            here = here.rows(keep)
        phi = phi + 0.5 * step
    return _finished(kernel, log_q, log_q, out, tol)


class _Rows:
    """The rows still at work."""

    def __init__(self, kernel: Kernel, log_p: Tensor, log_q: Tensor, phi: Tensor, psi: Tensor, tol: float) -> None:
        self.kernel, self.log_p, self.log_q, self.phi, self.psi, self.tol = kernel, log_p, log_q, phi, psi, tol
        self.p, self.q = log_p.exp(), log_q.exp()
        self.index = torch.arange(len(log_p), device=log_p.device)
        self.omega = log_p.new_full((len(log_p), 1), _FIRST)
        self.error = log_p.new_full((len(log_p),), torch.inf)
        self.before = self.error.clone()  # error at the last estimate of the rate
        self.columns = self.error.clone()  # error of the column sums

    def sweep(self) -> None:
        """One half step in φ, one in ψ; `error` is that of the state before."""
        step = self.kernel.log_sums(self.log_q + self.psi).add_(self.phi).neg_()
        relaxed, misfit = _relaxed(step, self.p, self.log_p, self.omega)
        self.error = misfit + self.columns
        self.phi = relaxed.add_(self.phi)
        step = self.kernel.log_sums(self.log_p + self.phi, transpose=True).add_(self.psi).neg_()
        relaxed, _ = _relaxed(step, self.q, self.log_q, self.omega)
        self.columns = torch.sub(relaxed, step, out=step).expm1_().mul_(self.q).abs_().sum(-1)
        self.psi = relaxed.add_(self.psi)

    def adapt(self) -> None:
        """Towards the best ω for the rate observed since the last estimate.

        A rate of ω - 1 or less says that ω is the best or above it, not by how much: then ω - 1 shrinks by a little.
        """
        rate = (self.error / self.before) ** (1 / _RATE_OVER)
        omega = self.omega.squeeze(-1)
        plain = ((rate + omega - 1) ** 2 / (omega**2 * rate)).clamp(0, 1)  # rate of plain sweeps
        best = (2 / (1 + (1 - plain).sqrt())).clamp(1, _LARGEST)
        usable = (rate < 1) & (rate > omega - 1)
        best = torch.minimum(best, (omega + _LARGEST) / 2)  # early rates are those of the way there
        lower = torch.where(torch.isfinite(self.before), 1 + _SHRINK * (omega - 1), omega)
        self.omega = torch.minimum(torch.where(usable, best, lower), self._quiet()).unsqueeze(-1)
        self.before = self.error

    def _quiet(self) -> Tensor:
        """The largest ω at which rounding does not set the error.

        Potentials carry their rounding into the marginals, and over-relaxation amplifies it by ω/(2 - ω), so that in
        float32 a row could hover above `tol` for ever. Near the end ω therefore falls to 1, where nothing is amplified.
        """
        size = (self.p * self.phi.abs()).sum(-1) + (self.q * self.psi.abs()).sum(-1)
        amplified = self.error / (_QUIET * torch.finfo(size.dtype).eps * size.clamp_min(1.0))
        return (2 * amplified / (1 + amplified)).clamp_min(1.0).nan_to_num(_LARGEST)

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
        for name in ("index", "p", "q", "log_p", "log_q", "phi", "psi", "omega", "error", "before", "columns"):
            setattr(self, name, getattr(self, name)[keep])


def _relaxed(step: Tensor, mass: Tensor, log_mass: Tensor, omega: Tensor) -> tuple[Tensor, Tensor]:
    """(Step to take, L1 misfit of the marginal before it) from the plain step."""
    if (step.abs().amax(-1) > 1).any():
        misfit, gain, plain = _long_gains(step, mass, log_mass, omega)
    else:
        misfit, gain, plain = _short_gains(step, mass, omega)
    safe = gain >= 0.5 * omega * (2 - omega) * plain
    return torch.where(safe, omega, 1.0) * step, misfit


def _short_gains(step: Tensor, mass: Tensor, omega: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(Misfit, gain of the relaxed step, gain of the plain one) where no step is longer than 1.

    Short steps gain about their square: expm1 keeps the digits. Large arrays are reused, each new one costs time.
    """
    back = torch.neg(step).expm1_().mul_(mass)  # what the marginal has beyond its mass
    misfit = back.abs().sum(-1)
    work = mass * step
    plain = (work + back).sum(-1, keepdim=True)
    gain = back.addcmul_(work, omega).sub_(torch.mul(step, omega - 1, out=work).expm1_().mul_(mass))
    return misfit, gain.sum(-1, keepdim=True), plain


def _long_gains(step: Tensor, mass: Tensor, log_mass: Tensor, omega: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same for steps of any length: exponentials of the masses' logarithms cannot overflow."""
    after = torch.exp(log_mass - step)
    misfit = (mass - after).abs().sum(-1)
    long = step.abs() > 1
    back = torch.where(long, after - mass, mass * torch.expm1(-step))
    ahead = torch.where(long, torch.exp(log_mass + (omega - 1) * step) - mass, mass * torch.expm1((omega - 1) * step))
    plain = (mass * step + back).sum(-1, keepdim=True)
    return misfit, (mass * omega * step + back - ahead).sum(-1, keepdim=True), plain


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


def empty(like: Tensor) -> Scaling:
    """The state of rows (B, V) before anything is known."""
    rows = len(like)
    return Scaling(
        torch.empty_like(like),
        torch.empty_like(like),
        like.new_full((rows,), torch.inf),
        torch.zeros(rows, dtype=torch.int64, device=like.device),
        torch.zeros(rows, dtype=torch.bool, device=like.device),
    )
