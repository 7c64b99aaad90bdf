"""Values of an entropic plan and their gradients in both distributions.

With R = ⟨Γ, C⟩ + ε KL(Γ ‖ p ⊗ q) = Σ p f + Σ q g at the optimum (`peyre2019computational`, Section 4.4):

    relative   R                       gradient in q, up to a constant:  g
    entropic   R - ε H(p) - ε H(q)                                      g + ε log q
    sharp      ⟨Γ, C⟩ = R - ε ∂R/∂ε                                     g - ε ∂g/∂ε
    divergence R(p, q) - ½ R(p, p) - ½ R(q, q)                          g_pq - ½ (f_qq + g_qq)

Each gradient belongs to its value: the potentials are no gradient of ⟨Γ, C⟩.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kdtheory.divergences.logspace import times
from kdtheory.transport.entropic.problem import Solved

NAMES = ("relative", "entropic", "sharp", "divergence")
_CG_STEPS = 1000


class Slopes(NamedTuple):
    """Gradients in p and q, (B, V), each up to a constant per row."""

    p: Tensor
    q: Tensor


def relative(solved: Solved) -> Tensor:
    """R, (B,)."""
    return (solved.log_p.exp() * solved.f).sum(-1) + (solved.log_q.exp() * solved.g).sum(-1)


def value(name: str, solved: Solved) -> Tensor:
    """`relative`, `entropic` or `sharp`, (B,)."""
    if name == "sharp":  # over the columns, whose sums are exact
        return (solved.log_q.exp() * solved.kernel.mean_costs(solved.weights_p, transpose=True)).sum(-1)
    total = relative(solved)
    if name == "entropic":
        negentropy = sum(times(x.exp(), x).sum(-1) for x in (solved.log_p, solved.log_q))
        total = total + solved.kernel.epsilon * negentropy
    return total


def slopes(name: str, solved: Solved) -> Slopes:
    """Gradients of the same.

    Where a token has no mass, the entropic slope is -inf; it comes without its logarithm there, because what it is
    multiplied with on the way to a logit, q log q, is 0.
    """
    epsilon = solved.kernel.epsilon
    if name == "entropic":
        logs = (torch.where(torch.isneginf(x), 0.0, x) for x in (solved.log_p, solved.log_q))
        return Slopes(*(own + epsilon * log for own, log in zip((solved.f, solved.g), logs, strict=True)))
    if name == "sharp":
        f_epsilon, g_epsilon = in_epsilon(solved)
        return Slopes(solved.f - epsilon * f_epsilon, solved.g - epsilon * g_epsilon)
    return Slopes(solved.f, solved.g)


def in_epsilon(solved: Solved) -> tuple[Tensor, Tensor]:
    """Derivatives ∂f/∂ε, ∂g/∂ε of the potentials at fixed p and q, (B, V) each.

    Differentiating f_i = -ε log Σ_j q_j e^{(g_j - C_ij)/ε} gives f' + A g' = r, and likewise g' + B f' = s, with A and
    B the conditional means under the plan's rows and columns. (I - BA) g' = s - B r is solved by conjugate gradients in
    the inner product of q, in which BA is self-adjoint with spectrum in [0, 1].
    """
    kernel, at_q, at_p, epsilon = solved.kernel, solved.weights_q, solved.weights_p, solved.kernel.epsilon

    def over_rows(h: Tensor) -> Tensor:
        return kernel.means(at_q, h)

    def over_columns(h: Tensor) -> Tensor:
        return kernel.means(at_p, h, transpose=True)

    r = (solved.f + over_rows(solved.g) - kernel.mean_costs(at_q)) / epsilon
    s = (solved.g + over_columns(solved.f) - kernel.mean_costs(at_p, transpose=True)) / epsilon
    scaled = solved.state.phi, solved.state.psi
    # what cancels in r and s leaves noise of this size; a system without signal, as for one-hot p, is nothing but that
    noise = 4 * torch.finfo(r.dtype).eps * torch.maximum(*(x.abs().amax(-1, keepdim=True) for x in scaled))
    h = _conjugate_gradients(lambda x: x - over_columns(over_rows(x)), s - over_columns(r), solved.log_q.exp(), noise)
    f_epsilon = r - over_rows(h)
    return f_epsilon, s - over_columns(f_epsilon)


def _conjugate_gradients(operator, target: Tensor, mass: Tensor, noise: Tensor) -> Tensor:
    """Solve operator(x) = target up to a constant per row, self-adjoint and >= 0 in Σ mass · x · y.

    Stops at residuals of size `noise` (B, 1); of the steps taken, the one with the smallest residual is returned.
    """

    def inner(x: Tensor, y: Tensor) -> Tensor:
        return (mass * x * y).sum(-1, keepdim=True)

    def centred(x: Tensor) -> Tensor:
        return x - (mass * x).sum(-1, keepdim=True)

    residual = centred(target)
    x, direction, size = torch.zeros_like(target), residual, inner(residual, residual)
    enough = torch.maximum(size * torch.finfo(target.dtype).eps ** 1.5, noise**2)
    best, least = x, size
    for _ in range(_CG_STEPS):
        if not (size > enough).any():  # a row of NaN has had enough, too
            break
        image = centred(operator(direction))
        curvature = inner(direction, image)
        length = torch.where((size > enough) & (curvature > 0), size / curvature, 0.0)
        x, residual = x + length * direction, residual - length * image
        before, size = size, inner(residual, residual)
        best, least = torch.where(size < least, x, best), torch.minimum(size, least)
        direction = residual + torch.where(before > 0, size / before, 0.0) * direction
    return best
