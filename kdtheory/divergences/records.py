"""One record per divergence: the symbolic definition, and its fast path in log space.

A record is turned into a `Loss` by giving its parameters numbers: `SKEW_KL(alpha=0.1)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from kdtheory.divergences import checks, derive, latex
from kdtheory.divergences.logspace import LogPair, centred
from kdtheory.divergences.protocol import Loss
from kdtheory.divergences.symbols import m


@dataclass(frozen=True)
class Parameter:
    """A numeric parameter: default, open interval (low, high), and what to use at values that are left out."""

    default: float
    low: float
    high: float
    excluded: Mapping[float, str] = field(default_factory=dict)  # value -> what to use instead

    def check(self, divergence: str, name: str, value: Any) -> float:
        """The value as a float; ValueError outside the domain."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{divergence}: {name} = {value!r}: give a number")
        if float(value) in self.excluded:
            raise ValueError(f"{divergence}: {name} = {value:g} is the limit {self.excluded[float(value)]}")
        if not self.low < value < self.high:
            raise ValueError(f"{divergence}: {name} = {value:g} lies outside ({self.low:g}, {self.high:g})")
        return float(value)


@dataclass(frozen=True)
class Divergence:
    """D(p, q) = outer(Σ_i term(p_i, q_i)), in nats. `term` (and `outer`, where there is one) is the only formula.

    Attributes
    ----------
    name, title : str
        Short name for code, long name for readers.
    term : sympy.Expr
        Summand in the symbols p (teacher) and q (student) of one token, the parameters, and m where there is a mixture.
    mixture : sympy.Expr or None
        What m stands for.
    source : str
        Bibliography key and place.
    summand : callable
        (LogPair, **parameters) -> (..., V): the fast path of `term`, plus terms that vanish on the simplex.
    gradient : callable
        (LogPair, **parameters) -> (..., V): logit gradient, never NaN.
    slope : callable
        (LogPair, **parameters) -> (..., V): ∂D/∂q, shifted to be 0 at p = q.
    outer : sympy.Expr or None
        The last step as a function of S = Σ term, where D is not itself a sum over tokens.
    finish : callable or None
        Fast path of the whole value where there is an `outer` step: (LogPair, **parameters) -> (...).
    """

    name: str
    title: str
    term: sp.Expr
    source: str
    summand: Callable[..., Tensor]
    gradient: Callable[..., Tensor]
    slope: Callable[..., Tensor]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    mixture: sp.Expr | None = None
    outer: sp.Expr | None = None
    finish: Callable[..., Tensor] | None = None
    temperature_power: int = 2

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def summand_in_p_and_q(self) -> sp.Expr:
        """`term` with the mixture written out."""
        return self.term if self.mixture is None else self.term.subs(m, self.mixture)

    def __call__(self, **given: Any) -> DivergenceLoss:
        unknown = sorted(set(given) - set(self.parameters))
        if unknown:
            raise ValueError(
                f"{self.name} has no parameter {unknown[0]!r}; it takes {sorted(self.parameters) or 'none'}"
            )
        values = {
            key: spec.check(self.name, key, given.get(key, spec.default)) for key, spec in self.parameters.items()
        }
        return DivergenceLoss(self, values)


def slope_gradient(slope: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Logit gradient q(g - ḡ) of a slope that is infinite at most where q = 0."""
    return lambda pair, **parameters: centred(pair, slope(pair, **parameters))


class DivergenceLoss(Loss):
    """A divergence with its parameters set. Made by `kdtheory.divergence`."""

    def __init__(self, record: Divergence, parameters: dict[str, float]) -> None:
        self.record = record
        self.name = record.name
        self.parameters = parameters
        self.temperature_power = record.temperature_power

    def per_position(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        return self._value(LogPair(log_p, log_q))

    def value_and_gradient(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        pair = LogPair(log_p, log_q)
        return self._value(pair), self.record.gradient(pair, **self.parameters)

    def _value(self, pair: LogPair) -> Tensor:
        if self.record.finish is not None:
            return self.record.finish(pair, **self.parameters)
        return self.record.summand(pair, **self.parameters).sum(-1)

    def culprit(self, log_p: Tensor, log_q: Tensor) -> int | None:
        infinite = torch.isinf(self.record.summand(LogPair(log_p, log_q), **self.parameters))
        return int(infinite.nonzero()[0]) if infinite.any() else None

    def slope(self, p: Any, q: Any) -> Any:
        """∂D/∂q_i, the weight on ∇q_i, as the definition is written (constants included), float64.

        Parameters
        ----------
        p, q : array_like, shape (..., V)
            Probabilities; the slope is infinite at a zero where the derivative is.

        Returns
        -------
        numpy.ndarray or torch.Tensor, shape (..., V)

        Raises
        ------
        ValueError
            As `value` does.
        """
        log_p, log_q, restore = checks.log_probabilities(p, q)
        at_teacher = derive.slope_at_teacher(self.record).subs(derive.symbols(self.parameters))
        return restore(self.record.slope(LogPair(log_p, log_q), **self.parameters) + float(at_teacher))

    def latex(self, part: str = "slope") -> str:
        """What the derivation found, as LaTeX: "definition", "slope", "logits" (∂D/∂z_i), "sample" (token weights)."""
        return latex.render(self.record, part)
