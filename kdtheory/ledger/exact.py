"""Statements at a point, decided in exact rationals or by rigorous interval enclosure; never by floats."""

from collections.abc import Mapping
from functools import reduce
from operator import add, mul
from typing import Any, Literal

import sympy as sp
from mpmath import iv
from mpmath.ctx_iv import ivmpf

from kdtheory.ledger.evidence import INSTANCE, Evidence, Role, as_hoped

Relation = Literal["==", "<=", "<", ">=", ">"]
Point = Mapping[Any, Any]  # symbol or its name -> rational number

_DIGITS = (30, 60, 120)  # working precision of successive enclosures


def check(
    left: Any,
    relation: Relation,
    right: Any,
    *,
    at: Point | None = None,
    role: Role = "supports",
    scope: str = INSTANCE,
    says: str = "",
) -> Evidence:
    """Decide `left relation right` at one point.

    Parameters
    ----------
    left, right
        SymPy expressions, or anything SymPy reads exactly (int, Fraction, "3/10"). Floats are refused.
    relation
        "==", "<=", "<", ">=" or ">".
    at
        Values of the free symbols: rationals, by symbol or by name.
    role
        With "refutes as written" or "outside condition" the relation is what somebody stated; success means it fails.
    says
        What is compared, in words; the numbers are appended.

    Returns
    -------
    Evidence
        `exact` when rational arithmetic (or simplification to zero) decides, `interval` when an enclosure does;
        ok is None when 120 digits cannot tell the sides apart and SymPy cannot equate them.
    """
    a, b = (evaluate(side, at) for side in (left, right))
    sign, rational = _sign(a, b)
    holds = None if sign is None else _holds(sign, relation)
    ok = as_hoped(holds, role)
    values = {"left": show(a), "right": show(b)}
    point = {str(key): show(sp.sympify(value)) for key, value in (at or {}).items()}
    data: dict[str, Any] = {"relation": relation, "at": point, **values}
    if holds is False:
        data["counterexample"] = point | values
    where = f" at {', '.join(f'{key} = {value}' for key, value in point.items())}" if point else ""
    outcome = {True: "holds", False: "fails", None: "undecided"}[holds]
    sentence = f"{says or 'left ' + relation + ' right'} {outcome}{where}: {values['left']} against {values['right']}."
    return Evidence("exact" if rational else "interval", role, ok, sentence, scope, data)


def evaluate(expression: Any, at: Point | None = None) -> sp.Expr:
    """The expression at a point, as an exact SymPy number.

    Raises
    ------
    TypeError
        If a float appears: write "1/10" or Fraction(1, 10).
    ValueError
        If a symbol is left without a value.
    """
    expression = sp.sympify(expression)
    by_name = {str(key): sp.sympify(value) for key, value in (at or {}).items()}
    values = {symbol: by_name[symbol.name] for symbol in expression.free_symbols if symbol.name in by_name}
    number = sp.sympify(expression.subs(values, simultaneous=True)).doit()
    if any(part.has(sp.Float) for part in (number, *by_name.values())):
        raise TypeError(f"{expression} at {by_name} holds a float: write exact numbers, such as '1/10'")
    if number.free_symbols:
        raise ValueError(f"no value for {', '.join(sorted(map(str, number.free_symbols)))} in {expression}")
    return number


def show(number: sp.Expr) -> str:
    """A number for readers: rationals exactly, others to twelve digits."""
    if number.is_Rational or not number.is_finite:
        return str(number)
    return f"{sp.N(number, 12)}"


def _holds(sign: int, relation: Relation) -> bool:
    return {"==": sign == 0, "<=": sign <= 0, "<": sign < 0, ">=": sign >= 0, ">": sign > 0}[relation]


def _sign(a: sp.Expr, b: sp.Expr) -> tuple[int | None, bool]:
    """Sign of a − b on the extended reals (None: undecided), and whether rational arithmetic found it."""
    if a in (sp.zoo, sp.nan) or b in (sp.zoo, sp.nan):
        return None, True
    if a.is_infinite or b.is_infinite:
        return (0 if a == b else 1 if a == sp.oo or b == -sp.oo else -1), True
    difference = a - b
    if difference.is_Rational:
        return int(sp.sign(difference)), True
    for digits in _DIGITS:
        bounds = enclose(difference, digits)
        if bounds is not None and bounds.a > 0:
            return 1, False
        if bounds is not None and bounds.b < 0:
            return -1, False
    return (0, True) if sp.simplify(sp.expand_log(difference)) == 0 else (None, False)


def enclose(number: sp.Expr, digits: int = 30) -> ivmpf | None:
    """A rigorous interval around a number made of rationals, + · ^, log, exp, |·|, min and max; None for others."""
    before, iv.dps = iv.dps, digits
    try:
        return _interval(number)
    except (NotImplementedError, ValueError, ZeroDivisionError):
        return None
    finally:
        iv.dps = before


def _interval(number: sp.Expr) -> ivmpf:
    if number.is_Rational:
        return iv.mpf(int(number.p)) / int(number.q)
    parts = [_interval(part) for part in number.args]
    if isinstance(number, sp.Add):
        return reduce(add, parts)
    if isinstance(number, sp.Mul):
        return reduce(mul, parts)
    if isinstance(number, sp.Pow):
        if number.exp.is_Integer:
            return parts[0] ** int(number.exp)
        return iv.exp(parts[1] * iv.log(parts[0]))
    if isinstance(number, sp.Min | sp.Max):
        low, high = [part.a for part in parts], [part.b for part in parts]
        pick = min if isinstance(number, sp.Min) else max
        return iv.mpf([pick(low), pick(high)])
    functions = {sp.log: iv.log, sp.exp: iv.exp, sp.Abs: abs}
    if number.func in functions:
        return functions[number.func](parts[0])
    if number in (sp.E, sp.pi):
        return iv.exp(1) if number == sp.E else +iv.pi
    raise NotImplementedError(number.func)
