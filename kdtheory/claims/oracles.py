"""Oracles that several chapters share, independent of `kdtheory.divergences` and `kdtheory.transport`."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import sympy as sp
from numpy.typing import NDArray
from scipy.optimize import linprog

Array = NDArray[Any]
SHARP = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
"""HiGHS leaves constraints open by 1e-7 unless told otherwise; 1e-10 is the least that it accepts."""


class Transport(NamedTuple):
    """Least cost of a plan from p to q, and a subgradient of it in q, shape (V,)."""

    value: float
    slopes: Array


def optimal_transport(p: Array, q: Array, cost: Array) -> Transport:
    """Minimum of ⟨Γ, C⟩ by linear programming (HiGHS).

    One marginal is redundant, and floats seldom add up: the equation of the student's largest mass is left out, because
    an empty column could not make up for the difference.
    """
    size = p.size
    rows, columns = np.kron(np.eye(size), np.ones(size)), np.kron(np.ones(size), np.eye(size))
    kept = np.delete(np.arange(size), q.argmax())
    marginals = np.vstack([rows, columns[kept]]), np.concatenate([p, q[kept]])
    solved = linprog(cost.ravel(), A_eq=marginals[0], b_eq=marginals[1], options=SHARP)
    if solved.status != 0:
        raise RuntimeError(f"linprog stopped: {solved.message}")
    slopes = np.zeros(size)
    slopes[kept] = solved.eqlin.marginals[size:]
    return Transport(float(solved.fun), slopes)


def exact_kl(p: Iterable[Any], q: Iterable[Any]) -> sp.Expr:
    """Σ p log(p/q) in exact numbers or symbols; oo where q = 0 < p."""
    total: sp.Expr = sp.Integer(0)
    for a, b in zip(map(sp.sympify, p), map(sp.sympify, q), strict=True):
        if a.is_zero:
            continue
        total += sp.oo if b.is_zero else a * sp.log(a / b)
    return total


def exact_js(p: Iterable[Any], q: Iterable[Any]) -> sp.Expr:
    """Jensen-Shannon with weights ½ in exact numbers."""
    pairs = [(sp.sympify(a), sp.sympify(b)) for a, b in zip(p, q, strict=True)]
    m = [(a + b) / 2 for a, b in pairs]
    return (exact_kl([a for a, _ in pairs], m) + exact_kl([b for _, b in pairs], m)) / 2


def exact_tv(p: Iterable[Any], q: Iterable[Any]) -> Fraction:
    """½ Σ |p - q| in rationals."""
    return sum((abs(Fraction(a) - Fraction(b)) for a, b in zip(p, q, strict=True)), Fraction(0)) / 2


def exact_line_w1(x: Iterable[Any], p: Iterable[Any], q: Iterable[Any]) -> Fraction:
    """W1 on the line in rationals: Σ gap · |surplus to the left|."""
    rows = sorted((Fraction(a), Fraction(b) - Fraction(c)) for a, b, c in zip(x, p, q, strict=True))
    total, surplus = Fraction(0), Fraction(0)
    for (left, more), (right, _) in pairwise(rows):
        surplus += more
        total += (right - left) * abs(surplus)
    return total
