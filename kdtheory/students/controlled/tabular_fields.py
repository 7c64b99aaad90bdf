"""Fields of gradient flows in logits, for batches of students: what `kdtheory.students.controlled.flows` follows.

A field is a callable (teacher p (..., S, V), logits z (..., S, V), time (S,)) -> dz/dt = -∂D/∂z, like z. `moving` says
whether it depends on the time. Formulas are those of Theorem 1 of chapter 03, ∂D/∂z_i = -q_i (φ_i - φ̄); tests hold
every field to the library's logit gradient. The library's own gradients carry logarithms through all boundary cases
(zeros, underflow), which takes several times as long and is not needed between full-support teachers and finite logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

DIVERGENCES = ("fkl", "rkl", "jsd", "tvd", "skl", "srkl")
_SWEEPS, _NEWTON = 20, 12
_ACCURATE = 1e-11  # of the potentials, in units of ε: the field needs less
_LARGEST = 100.0  # 1/ε beyond which exp(-C/ε) leaves float64's comfort


class Field(Protocol):
    """dz/dt at a teacher, logits and a time."""

    @property
    def moving(self) -> bool:
        """Whether it depends on the time."""

    def __call__(self, p: Tensor, z: Tensor, time: Tensor) -> Tensor:
        """(..., S, V), (..., S, V), (S,) -> (..., S, V)."""


def _sign(x: Tensor, kink: float) -> Tensor:
    """The sign, or its smooth form x/√(x² + kink²)."""
    return x / torch.sqrt(x * x + kink * kink) if kink else torch.sign(x)


def _downhill(q: Tensor, phi: Tensor) -> Tensor:
    return q * (phi - (q * phi).sum(-1, keepdim=True))


@dataclass(frozen=True)
class DivergenceField:
    """An f-divergence: one of `DIVERGENCES` (JSD with β = 1/2).

    Attributes
    ----------
    name : str
    alpha : float
        Of the skewed losses.
    kink : float
        Width, in probability, over which total variation's kink at q = p is rounded; 0 for none.
    halving : float
        If positive, α is halved every so much time (skl alone).
    """

    name: str
    alpha: float = 0.1
    kink: float = 0.0
    halving: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in DIVERGENCES:
            raise ValueError(f"name = {self.name!r}; known: {', '.join(DIVERGENCES)}")

    @property
    def moving(self) -> bool:
        """Whether α falls."""
        return self.halving > 0

    def __call__(self, p: Tensor, z: Tensor, time: Tensor) -> Tensor:
        """See `Field`."""
        q = torch.softmax(z, -1)
        return _downhill(q, self._phi(p, q, time))

    def _phi(self, p: Tensor, q: Tensor, time: Tensor) -> Tensor:
        """φ(p/q) of Theorem 4 in chapter 03, up to a constant."""
        if self.name == "tvd":
            return 0.5 * _sign(p - q, self.kink)
        ratio = p / q
        if self.name == "fkl":
            return ratio
        if self.name == "rkl":
            return torch.log(ratio)
        if self.name == "jsd":
            return 0.5 * torch.log1p(ratio)
        if self.name == "skl":
            skew = self.alpha * torch.exp2(-time / self.halving)[..., None] if self.moving else self.alpha
            return (1 - skew) * ratio / (skew * ratio + 1 - skew)
        mixed = self.alpha + (1 - self.alpha) * ratio
        return torch.log(mixed) - (1 - self.alpha) * ratio / mixed


@dataclass(frozen=True)
class LineField:
    """W1 for tokens at equal distances on a line of length 1; its kinks rounded over a width `kink`."""

    kink: float = 0.0
    moving = False

    def __call__(self, p: Tensor, z: Tensor, time: Tensor) -> Tensor:
        """See `Field`."""
        q = torch.softmax(z, -1)
        signs = _sign(torch.cumsum(q - p, -1), self.kink)[..., :-1]
        left = torch.nn.functional.pad(torch.cumsum(signs, -1), (1, 0))  # edges to the left of each token
        return _downhill(q, left / (q.shape[-1] - 1))


@dataclass(frozen=True)
class SinkhornField:
    """OT_ε (relative form), or the Sinkhorn divergence S_ε, for tokens on a line of length 1; with its Jacobian.

    `kdtheory.sinkhorn` solves any problem to a certificate; along a flow the same small problem is solved thousands of
    times, and a few sweeps followed by Newton's method take a tenth of the time. Newton's matrices also give the
    derivative of the potentials.

    Attributes
    ----------
    epsilon : float
        In units of the line's length, at least 1/100.
    debiased : bool
        The Sinkhorn divergence.
    """

    epsilon: float
    debiased: bool
    moving = False

    def __post_init__(self) -> None:
        if self.epsilon < 1 / _LARGEST:
            raise ValueError(f"epsilon = {self.epsilon}: at least {1 / _LARGEST}, for kernels that are not rescaled")

    def __call__(self, p: Tensor, z: Tensor, time: Tensor) -> Tensor:
        """See `Field`; (S, V) only."""
        q = torch.softmax(z, -1)
        slope = self._cross(p, q)[0]
        if self.debiased:
            slope = slope - self._own(q)[0]
        return -q * (slope - (q * slope).sum(-1, keepdim=True))

    def jacobian(self, p: Tensor, z: Tensor) -> Tensor:
        """∂(dz/dt)/∂z, shape (S, V, V)."""
        q = torch.softmax(z, -1)
        unit = torch.eye(q.shape[-1], dtype=q.dtype, device=q.device)
        mass = unit - q[:, None, :]  # ∂ log q/∂z
        slope, column, row = self._cross(p, q)
        both = column @ row  # a Markov kernel that leaves q as it is
        along = self.epsilon * torch.linalg.solve(unit - both + q[:, None, :], both @ mass)
        if self.debiased:
            own, kernel = self._own(q)
            slope = slope - own
            along = along + self.epsilon * torch.linalg.solve(unit + kernel, kernel @ mass)
        centred = slope - (q * slope).sum(-1, keepdim=True)
        mean = (q[:, :, None] * along).sum(1) + q * centred
        return -q[:, :, None] * (mass * centred[:, :, None] + along - mean[:, None, :])

    def _kernel(self, q: Tensor) -> Tensor:
        x = torch.linspace(0, 1, q.shape[-1], dtype=q.dtype, device=q.device)
        return torch.exp(-(x[:, None] - x).abs() / self.epsilon)

    def _cross(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Potential g (S, V), and Γ as conditional laws: of the row given the column, of the column given the row."""
        kernel, a = self._kernel(q), torch.ones_like(q)
        unit = torch.eye(q.shape[-1], dtype=q.dtype, device=q.device)
        for count in range(_SWEEPS + _NEWTON):
            b = 1 / ((p * a) @ kernel)
            new = 1 / ((q * b) @ kernel)
            change = (new / a).log()
            if change.abs().max() < _ACCURATE:
                break
            if count >= _SWEEPS:
                column, row = self._laws(p, q, a, b, new, kernel)
                change = torch.linalg.solve(unit - row @ column + p[:, None, :], change)
            a = a * change.exp()
        return self.epsilon * b.log(), *self._laws(p, q, a, b, new, kernel)

    @staticmethod
    def _laws(p: Tensor, q: Tensor, a: Tensor, b: Tensor, new: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
        column = b[:, :, None] * kernel * (p * a)[:, None, :]
        return column, new[:, :, None] * kernel * (q * b)[:, None, :]

    def _own(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """The potential f of OT_ε(q, q), both sides alike, and its plan as a conditional law."""
        kernel, a = self._kernel(q), torch.ones_like(q)
        unit = torch.eye(q.shape[-1], dtype=q.dtype, device=q.device)
        for count in range(_SWEEPS + _NEWTON):
            new = 1 / ((q * a) @ kernel)
            change = (new / a).log() / 2
            if change.abs().max() < _ACCURATE:
                break
            if count >= _SWEEPS:
                law = new[:, :, None] * kernel * (q * a)[:, None, :]
                change = torch.linalg.solve(unit + law, 2 * change)
            a = a * change.exp()
        return self.epsilon * a.log(), a[:, :, None] * kernel * (q * a)[:, None, :]
