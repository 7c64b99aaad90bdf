"""What follows from a definition: slopes, logit gradients, token weights, limits, curvature. All by SymPy.

Everything here is computed from `record.term` (with its mixture m and its outer step, where there are any); nothing
is looked up. D(p, q) = outer(Σ_i term), q = softmax(z), ∂q_j/∂z_i = q_j(δ_ij - q_i), hence
∂D/∂z_i = q_i(g_i - Σ_j q_j g_j) with g = ∂D/∂q (chapter 02, theorem 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import sympy as sp

from kdtheory.divergences.symbols import S, m, p, q

if TYPE_CHECKING:
    from kdtheory.divergences.records import Divergence


def symbols(parameters: Mapping[str, Any]) -> dict[sp.Symbol, sp.Expr]:
    """Parameters by name as a substitution; decimal fractions become the rationals they are written as."""
    return {sp.Symbol(name, positive=True): sp.nsimplify(value) for name, value in parameters.items()}


def tidy(expression: sp.Expr, mixture: sp.Expr | None = None) -> sp.Expr:
    """A compact equal form: logarithms collected and kept whole, the rest simplified, constants found through m."""
    by_log: dict[sp.Expr, sp.Expr] = {}
    rest = sp.Integer(0)
    for summand in sp.Add.make_args(sp.expand_mul(expression)):
        logs = [factor for factor in sp.Mul.make_args(summand) if isinstance(factor, sp.log)]
        if logs:
            by_log[logs[0]] = by_log.get(logs[0], sp.Integer(0)) + summand / logs[0]
        else:
            rest += summand
    if not rest.has(sp.sign):
        short = sp.simplify(rest)
        rest = min(sp.expand_mul(short), short, key=sp.count_ops)
    if mixture is not None:
        written_out = sp.simplify(rest.subs(m, mixture))
        rest = written_out if not written_out.has(p, q) else rest
    return sum((sp.factor(weight) * log for log, weight in by_log.items()), sp.Integer(0)) + rest


@cache
def slope(record: Divergence) -> sp.Expr:
    """∂D/∂q_i before any projection, in p, q, the parameters, m (a mixture) and S (the sum before an outer step)."""
    inner = sp.diff(record.term, q)
    if record.mixture is not None:
        inner += sp.diff(record.term, m) * sp.diff(record.mixture, q)
    whole = inner if record.outer is None else sp.diff(record.outer, S) * inner
    return tidy(whole, record.mixture)


def written_out(record: Divergence, expression: sp.Expr) -> sp.Expr:
    """The expression with the mixture m replaced by what it stands for."""
    return expression if record.mixture is None else expression.subs(m, record.mixture)


@cache
def slope_at_teacher(record: Divergence) -> sp.Expr:
    """The slope's value at p = q: the constant that no gradient sees, because Σ ∇q = 0."""
    return sp.simplify(written_out(record, slope(record)).subs(q, p).subs(S, 1))


def tokens(size: int) -> list[tuple[sp.Symbol, sp.Symbol]]:
    """Symbols (p_1, q_1), …, (p_V, q_V)."""
    return [(sp.Symbol(f"p_{i}", positive=True), sp.Symbol(f"q_{i}", positive=True)) for i in range(1, size + 1)]


def simplex_gradient(record: Divergence, size: int) -> sp.Matrix:
    """Gradient along the simplex: the slope minus its mean over V = size tokens, in symbols p_1…, q_1…."""
    columns = tokens(size)
    total = sum(record.term.subs({p: a, q: b}) for a, b in columns) if record.outer is not None else S
    values = [written_out(record, slope(record)).subs({p: a, q: b}).subs(S, total) for a, b in columns]
    return sp.Matrix([value - sum(values) / sp.Integer(size) for value in values])


@dataclass(frozen=True)
class LogitGradient:
    """∂D/∂z_i = own - q_i · (closed + Σ_j open_j): own and open in the symbols p, q of one token.

    `closed` is what Σ p = Σ q = 1 (and Σ term = S) sums for us; `open` stays under the sum (0 if nothing does).
    """

    own: sp.Expr
    closed: sp.Expr
    open: sp.Expr

    def at(self, record: Divergence, teacher: list, student: list, **parameters: object) -> list[sp.Expr]:
        """All V entries for explicit probabilities (numbers or symbols), parameters by name."""
        given = symbols(parameters)
        pairs = [{p: a, q: b} for a, b in zip(teacher, student, strict=True)]
        total = sum((record.term.subs(given).subs(pair) for pair in pairs), sp.Integer(0))
        own, closed, open_ = (
            sp.sympify(written_out(record, part)).subs(given).subs(S, total)
            for part in (self.own, self.closed, self.open)
        )
        shared = closed + sum((open_.subs(pair) for pair in pairs), sp.Integer(0))
        return [own.subs(pair) - pair[q] * shared for pair in pairs]


@cache
def logit_gradient(record: Divergence) -> LogitGradient:
    """∂D/∂z_i from the slope by the chain rule; additive constants of the slope drop out because Σ_i ∂q_i = 0."""
    return gradient_of_slope(slope(record), record)


def gradient_of_slope(weight: sp.Expr, record: Divergence | None = None) -> LogitGradient:
    """As `logit_gradient`, for any slope given in the symbols of one token."""
    mixture = None if record is None else record.mixture
    _, varying = sp.expand_mul(weight).as_independent(p, q, m, as_Add=True)
    own = tidy(q * varying, mixture)
    closed, open_ = sp.Integer(0), sp.Integer(0)
    for summand in sp.Add.make_args(sp.expand_mul(own)):
        factor, rest = summand.as_independent(p, q, m, as_Add=False)
        if rest in (p, q):
            closed += factor
        elif record is not None and record.outer is not None and sp.simplify(rest - record.term) == 0:
            closed += sp.simplify(factor * S)
        else:
            open_ += summand
    return LogitGradient(own=own, closed=closed, open=tidy(open_, mixture))


@dataclass(frozen=True)
class TokenWeights:
    """Single-token estimators of ∇D = Σ_y g(y) ∇q(y).

    A token drawn from the teacher carries the weight g/p on ∇q(y). Drawn from the student it carries g/q on ∇q(y),
    which is g on the score ∇ log q(y).
    """

    from_teacher: sp.Expr
    from_student: sp.Expr
    score: sp.Expr


@cache
def sampled(record: Divergence) -> TokenWeights:
    """Weights that make one drawn token an unbiased estimate of ∇D (any constant may be added to g)."""
    g = slope(record)
    return TokenWeights(tidy(g / p, record.mixture), tidy(g / q, record.mixture), g)


@dataclass(frozen=True)
class Limits:
    """One-sided limits of the summand, of the slope, and of the token's own logit term q·g."""

    term_student_zero: sp.Expr
    term_teacher_zero: sp.Expr
    slope_student_zero: sp.Expr
    slope_teacher_zero: sp.Expr
    own_term_student_zero: sp.Expr


@cache
def limits(record: Divergence, **parameters: object) -> Limits:
    """Limits q → 0+ at fixed p > 0 ("student zero") and p → 0+ at fixed q > 0 ("teacher zero").

    Parameters by name; those left out take the record's default, because signs of exponents decide limits.
    """
    given = symbols({name: parameters.get(name, spec.default) for name, spec in record.parameters.items()})
    term = written_out(record, record.term).subs(given)
    g = written_out(record, slope(record)).subs(given)
    towards = [(term, q), (term, p), (g, q), (g, p), (sp.expand_mul(q * g), q)]
    return Limits(*(sp.simplify(sp.limit(expression, symbol, 0, "+")) for expression, symbol in towards))


@cache
def curvature(record: Divergence) -> sp.Expr | None:
    """f''(1): the Hessian at q = p is f''(1) · diag(1/p) on tangent vectors, f''(1) · (diag p - p pᵀ) in logits.

    None where the divergence has a kink at p = q (total variation).
    """
    if record.term.has(sp.Abs):
        return None
    second = sp.simplify((p * sp.diff(written_out(record, record.term), q, 2)).subs(q, p))
    return second if record.outer is None else sp.simplify(second * sp.diff(record.outer, S).subs(S, 1))
