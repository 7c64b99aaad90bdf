"""LaTeX of what the derivations found, with token indices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sympy as sp

from kdtheory.divergences import derive
from kdtheory.divergences.symbols import m, p, q

if TYPE_CHECKING:
    from kdtheory.divergences.records import Divergence


def render(record: Divergence, part: str) -> str:
    """LaTeX of one formula of a divergence.

    Parameters
    ----------
    record : Divergence
    part : {"definition", "slope", "logits", "sample"}
        The definition; ∂D/∂q_i; ∂D/∂z_i; the weight on ∇q_y for a token y drawn from p and from q.

    Raises
    ------
    ValueError
        For any other part.
    """
    parts = {"definition": _definition, "slope": _slope, "logits": _logits, "sample": _sample}
    if part not in parts:
        raise ValueError(f"latex({part!r}): one of {', '.join(map(repr, parts))}")
    return parts[part](record) + _legend(record)


def _definition(record: Divergence) -> str:
    if record.outer is None:
        return r"\sum_i " + _bracketed(record.term, "i")
    return sp.latex(record.outer)


def _slope(record: Divergence) -> str:
    return _indexed(derive.slope(record), "i")


def _logits(record: Divergence) -> str:
    gradient = derive.logit_gradient(record)
    direct = _indexed(gradient.own - q * gradient.closed, "i")
    if gradient.open == 0:
        return direct
    negative = gradient.open.could_extract_minus_sign()
    under_sum = _bracketed(-gradient.open if negative else gradient.open, "j")
    return rf"{direct} {'+' if negative else '-'} q_{{i}} \sum_j {under_sum}"


def _sample(record: Divergence) -> str:
    weights = derive.sampled(record)
    laws = (("p", weights.from_teacher), ("q", weights.from_student))
    return r" ,\quad ".join(rf"y \sim {law}:\ {_bracketed(weight, 'y')}\,\nabla q_{{y}}" for law, weight in laws)


def _legend(record: Divergence) -> str:
    if record.mixture is not None:
        return rf" ,\quad m = {sp.latex(record.mixture)}"
    if record.outer is not None:
        return rf" ,\quad S = \sum_j {_indexed(record.term, 'j')}"
    return ""


def _indexed(expression: sp.Expr, index: str) -> str:
    named = {symbol: sp.Symbol(f"{symbol.name}_{index}", positive=True) for symbol in (p, q, m)}
    return sp.latex(expression.subs(named))


def _bracketed(expression: sp.Expr, index: str) -> str:
    text = _indexed(expression, index)
    return rf"\left({text}\right)" if isinstance(expression, sp.Add) else text
