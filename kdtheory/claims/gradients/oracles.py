"""Oracles of chapter 02, independent of `kdtheory.divergences`: definitions typed again, complex steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import sympy as sp
from numpy.typing import NDArray

Array = NDArray[Any]
COMPLEX_STEP = "complex step, Im D(z + ih)/h, of the definition typed again"
ROUNDING = "a complex step subtracts nothing; at most 12 terms of size 1e3 in float64 leave 1e-12 of the largest"

PARAMETERS: dict[str, dict[str, float]] = {"jsd": {"beta": 0.3}, "skl": {"alpha": 0.1}, "srkl": {"alpha": 0.1}}
PARAMETERS |= {"amari": {"alpha": 0.7}, "renyi": {"alpha": 2.0}, "akl": {"w_h": 0.3, "w_t": 0.7}}


def _kl(a: Array, b: Array) -> Any:
    return (a * np.log(a / b)).sum()


def _power_sum(p: Array, q: Array, alpha: float) -> Any:
    return (p**alpha * q ** (1 - alpha)).sum()


def _jsd(p: Array, q: Array, beta: float) -> Any:
    m = beta * p + (1 - beta) * q
    return beta * _kl(p, m) + (1 - beta) * _kl(q, m)


DEFINITIONS: dict[str, Callable[..., Any]] = {
    "fkl": _kl,
    "rkl": lambda p, q: _kl(q, p),
    "jsd": _jsd,
    "tvd": lambda p, q: (np.sign((p - q).real) * (p - q)).sum() / 2,  # |p - q|, analytic on either side of the kink
    "skl": lambda p, q, alpha: _kl(p, alpha * p + (1 - alpha) * q),
    "srkl": lambda p, q, alpha: _kl(q, alpha * q + (1 - alpha) * p),
    "chi2": lambda p, q: (p**2 / q).sum() - 1,
    "neyman": lambda p, q: (q**2 / p).sum() - 1,
    "hellinger2": lambda p, q: 1 - np.sqrt(p * q).sum(),
    "amari": lambda p, q, alpha: (1 - _power_sum(p, q, alpha)) / (alpha * (1 - alpha)),
    "renyi": lambda p, q, alpha: np.log(_power_sum(p, q, alpha)) / (alpha - 1),
    "akl": lambda p, q, w_h, w_t: w_h * _kl(p, q) + w_t * _kl(q, p),
}


def softmax(z: Array) -> Array:
    """Softmax of real or complex logits, shape (V,)."""
    weights = np.exp(z - z.real.max())
    return weights / weights.sum()


def derivatives(function: Callable[[Array], Any], at: Array) -> Array:
    """All partial derivatives of an analytic function at a real point, shape (V,) -> (V,)."""
    step = 1e-30
    found = [np.imag(function(at + 1j * step * unit)) / step for unit in np.eye(at.size)]
    return np.array(found, dtype=np.float64)


def logit_gradient(name: str, p: Array, z: Array) -> Array:
    """∂D(p, softmax(z))/∂z_i by complex steps, at the parameters of `PARAMETERS`."""
    definition, given = DEFINITIONS[name], PARAMETERS.get(name, {})
    return derivatives(lambda moved: definition(p, softmax(moved), **given), z)


def slope(name: str, p: Array, q: Array) -> Array:
    """∂D/∂q_i by complex steps, off the simplex, at the parameters of `PARAMETERS`."""
    definition, given = DEFINITIONS[name], PARAMETERS.get(name, {})
    return derivatives(lambda moved: definition(p, moved, **given), q)


class Draw(NamedTuple):
    """A random teacher p and student logits z with q = softmax(z), shape (V,), V from 2 to 12."""

    p: Array
    z: Array
    q: Array

    def point(self, **more: Any) -> dict[str, Any]:
        """The draw as JSON, for the record of a counterexample."""
        return {"p": self.p.tolist(), "z": self.z.tolist()} | more


def draw(rng: np.random.Generator, spread: float = 2.0) -> Draw:
    """A flat Dirichlet teacher and Gaussian student logits."""
    size = int(rng.integers(2, 13))
    z = spread * rng.normal(size=size)
    return Draw(rng.dirichlet(np.ones(size)), z, softmax(z))


class SymbolicSoftmax(NamedTuple):
    """A student q_i = x_i/Σx with x = exp(z), and a teacher on the simplex, both for V tokens in positive symbols."""

    p: list[sp.Expr]
    q: list[sp.Expr]
    x: list[sp.Symbol]

    def derivative(self, expression: sp.Expr, i: int) -> sp.Expr:
        """∂/∂z_i = x_i ∂/∂x_i: through the softmax itself, not through a formula for its Jacobian."""
        return self.x[i] * sp.diff(expression, self.x[i])


def symbolic_softmax(size: int) -> SymbolicSoftmax:
    """Teacher and student of V = size tokens."""
    x = list(sp.symbols(f"x1:{size + 1}", positive=True))
    y = list(sp.symbols(f"y1:{size + 1}", positive=True))
    return SymbolicSoftmax([a / sum(y) for a in y], [a / sum(x) for a in x], x)


def expectation(weights: Sequence[Any], values: Sequence[Any]) -> Any:
    """Σ w v, in whatever arithmetic the arguments bring."""
    return sum((a * b for a, b in zip(weights, values, strict=True)), 0 * weights[0])
