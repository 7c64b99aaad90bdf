"""A functional of entropic transport for a batch of pairs: which problems it needs, its value, its slopes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kdtheory.divergences import checks
from kdtheory.transport.costs import TokenCost
from kdtheory.transport.entropic import functionals, kernels, problem, scaling
from kdtheory.transport.entropic.functionals import Slopes
from kdtheory.transport.entropic.problem import Solved

FORMS = ("full", "reduced")


class Settings(NamedTuple):
    """Checked arguments of `sinkhorn` and of the loss."""

    cost: TokenCost
    epsilon: float
    functional: str
    form: str
    tol: float | None
    max_iter: int
    precision: str

    def checked(self) -> Settings:
        """Itself, or ValueError (NotAMetricError) naming the argument."""
        if not isinstance(self.cost, TokenCost):
            raise ValueError(f"cost: expected a kdtheory.TokenCost, got {type(self.cost).__name__}")
        checks.positive(epsilon=self.epsilon)
        checks.count(max_iter=self.max_iter)
        checks.choice("functional", self.functional, functionals.NAMES)
        checks.choice("form", self.form, FORMS)
        checks.choice("precision", self.precision, tuple(problem.PRECISIONS))
        if self.form == "reduced":
            if self.functional not in ("relative", "sharp"):
                reason = {
                    "divergence": "the reduced form is zero at p = q without debiasing",
                    "entropic": "its slope is infinite wherever p_j = q_j",
                }[self.functional]
                raise ValueError(f'form = "reduced" with functional = "{self.functional}": {reason}; take "full"')
            self.cost.check_metric()
        problem.check_tolerance(self.tol, self.precision, self.cost, self.epsilon)
        return self

    def tolerance(self, precision: str) -> float:
        """`tol`, or what suits the precision and is not below the rounding at this ε."""
        if self.tol is not None:
            return self.tol
        return max(problem.TOLERANCES[precision], problem.rounding(self.cost, self.epsilon))


@dataclass(frozen=True)
class Evaluated:
    """A functional at B pairs: the problem solved, the mass it moves, and for "divergence" the two self-problems."""

    functional: str
    form: str
    solved: Solved
    log_p: Tensor  # what was asked for, before it was rounded to the solver's precision, (B, V)
    log_q: Tensor
    mass: Tensor  # (B,): 1, or TV(p, q) in the reduced form
    difference: Tensor  # q - p, (B, V)
    selves: tuple[Solved, ...] = ()

    @classmethod
    def of(
        cls, settings: Settings, log_p: Tensor, log_q: Tensor, difference: Tensor, kept: kernels.Kept | None = None
    ) -> Evaluated:
        """Solve for log-probabilities and q - p, all (B, V); warns where rows do not converge."""
        tol = settings.tolerance(settings.precision)
        mass = torch.ones_like(difference[:, 0])
        if settings.form == "reduced":
            log_p, log_q, mass = _surplus(difference)
        args = (settings.epsilon, settings.precision, tol, settings.max_iter)
        solved = problem.pair(settings.cost, log_p, log_q, *args, kept)
        selves: tuple[Solved, ...] = ()
        if settings.functional == "divergence":
            selves = tuple(problem.own(solved, settings.cost, x, tol, settings.max_iter) for x in (log_p, log_q))
        problem.warn([part.state for part in (solved, *selves)], tol, settings.max_iter)
        return cls(settings.functional, settings.form, solved, log_p, log_q, mass, difference, selves)

    @property
    def states(self) -> list[scaling.Scaling]:
        """Of every problem solved."""
        return [part.state for part in (self.solved, *self.selves)]

    def value(self) -> Tensor:
        """(B,), in units of cost."""
        name = self.functional
        if name != "divergence":
            return self.mass * functionals.value(name, self.solved)
        pq, pp, qq = (functionals.relative(part) for part in (self.solved, *self.selves))
        return pq - 0.5 * pp - 0.5 * qq

    def slopes(self) -> Slopes:
        """Gradients in p and q, (B, V) each, up to a constant per row."""
        name = self.functional
        own = functionals.slopes(name, self.solved)
        if name == "divergence":
            at_p, at_q = (0.5 * (part.f + part.g) for part in self.selves)
            return Slopes(own.p - at_p, own.q - at_q)
        if self.form == "full":
            return own
        # q - p moves demand where it is positive and supply where it is negative; the middle of both where it is 0
        sign = torch.sign(self.difference).to(own.q.dtype)
        slope = torch.where(sign > 0, own.q, torch.where(sign < 0, -own.p, 0.5 * (own.q - own.p)))
        slope = torch.where(self.mass.unsqueeze(-1) > 0, slope, 0.0)
        return Slopes(-slope, slope)


def per_row(
    C: Tensor, difference: Tensor, epsilon: float, functional: str = "relative", tol: float = 1e-5, max_iter: int = 1000
) -> Evaluated:
    """The reduced form where each pair has a metric cost of its own, C (B, k, k), between its own k tokens.

    Computed in the precision of q - p (B, k), float64 where max C/ε asks for it; ValueError past float64's range.
    """
    spread = float(C.max()) / epsilon if C.numel() else 0.0
    if spread > kernels.SAFE[torch.float64]:
        raise ValueError(f"epsilon = {epsilon:g} is {spread:.0f} times smaller than the largest cost: at most 650")
    if spread > kernels.SAFE[torch.float32]:
        difference = difference.double()
    log_p, log_q, mass = _surplus(difference)
    kernel = kernels.PerRow(C.to(difference.dtype), epsilon)
    solved = Solved(kernel, log_p, log_q, scaling.solve(kernel, log_p, log_q, tol, max_iter))
    return Evaluated(functional, "reduced", solved, log_p, log_q, mass, difference)


def _surplus(difference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logarithms of (p - q)₊/m and (q - p)₊/m, and m; rows with m = 0 stay at token 0, to be weighted by 0."""
    supply, demand = (-difference).relu(), difference.relu()
    mass = demand.sum(-1)
    idle = ((mass == 0) | (supply.sum(-1) == 0)).unsqueeze(-1)  # either may have been rounded away
    mass = torch.where(idle.squeeze(-1), 0.0, mass)
    logs = (torch.log(x) - torch.log(x.sum(-1, keepdim=True)) for x in (supply, demand))
    nowhere = torch.full_like(difference[:1], -math.inf)  # one-hot: solved by one sweep, at any ε
    nowhere[:, 0] = 0.0
    log_supply, log_demand = (torch.where(idle, nowhere, x) for x in logs)
    return log_supply, log_demand, mass
