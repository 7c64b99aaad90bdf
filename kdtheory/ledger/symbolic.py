"""Identities between formulas: proved by simplifying to zero, refuted at a rational point."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from itertools import islice, product
from typing import Any

import sympy as sp

from kdtheory.ledger import exact
from kdtheory.ledger.evidence import SCALAR, Evidence, Role, as_hoped

Values = Mapping[sp.Symbol, sp.Rational]
Region = Mapping[sp.Symbol, sp.Expr]

_SMALL = sorted({Fraction(a, b) for b in range(2, 6) for a in range(1, b)}, key=lambda x: (x.denominator, x.numerator))
_TRIED = 150  # points of a full search: small rationals first, so that a counterexample is minimal
_RANDOM = 25  # of them random ones with denominators up to 997


def compare(
    *,
    derived: Any,
    right: Any = None,
    written: Any = None,
    scope: str = SCALAR,
    given: Region | None = None,
    where: Callable[[Values], bool] | None = None,
) -> list[Evidence]:
    """Hold a derived formula against the one written in a source and the one said to be right.

    Parameters
    ----------
    derived
        What the derivation found.
    right
        The formula that should equal it (evidence "supports").
    written
        The formula of the source, if it differs (evidence "refutes as written", with a minimal counterexample).
    scope, given, where
        As in `identity`.
    """
    if right is None and written is None:
        raise ValueError("compare() needs right=, written= or both")
    found = []
    if written is not None:
        found.append(
            identity(
                derived, written, role="refutes as written", scope=scope, given=given, where=where, says="as written"
            )
        )
    if right is not None:
        found.append(identity(derived, right, scope=scope, given=given, where=where, says="derived = right"))
    return found


def identity(
    left: Any,
    right: Any,
    *,
    role: Role = "supports",
    scope: str = SCALAR,
    given: Region | None = None,
    where: Callable[[Values], bool] | None = None,
    up_to_constant_in: Iterable[sp.Symbol] = (),
    says: str = "identity",
) -> Evidence:
    """Decide whether two expressions are the same function.

    Parameters
    ----------
    left, right
        SymPy expressions in positive or real symbols.
    role
        "supports" and the like hope for equality; "refutes as written" and "outside condition" for a counterexample.
    scope
        "scalar identity", or "V = n" when the sums over tokens were written out for n tokens.
    given
        A region as a substitution: {p: q + d} with d positive is q < p; {p3: 1 - p1 - p2} is the simplex. Substituted
        symbols keep their sign assumption when points are sought.
    where
        Keeps a candidate point (values of the remaining symbols); only the search for counterexamples uses it.
    up_to_constant_in
        Compare only the derivatives in these symbols: equality up to an additive constant.

    Returns
    -------
    Evidence
        Kind symbolic. ok is None if neither simplification nor any tried point decides.
    """
    given = given or {}
    left, right = sp.sympify(left), sp.sympify(right)
    sides = [(sp.diff(left, x), sp.diff(right, x)) for x in up_to_constant_in] or [(left, right)]
    found = _first_counterexample(sides, given, where, 12)
    if found is None and all(vanishes((a - b).subs(given)) for a, b in sides):
        equal: bool | None = True
    else:
        found = found or _first_counterexample(sides, given, where, _TRIED)
        equal = None if found is None else False
    ok = as_hoped(equal, role)
    data = {"left": str(left), "right": str(right)} | ({"counterexample": found} if found else {})
    return Evidence("symbolic", role, ok, _sentence(says, equal, found), scope, data)


def vanishes(expression: sp.Expr) -> bool:
    """Whether one of SymPy's simplifications turns the expression into zero (False: none did)."""
    steps: tuple[Callable[[sp.Expr], sp.Expr], ...] = (
        sp.expand,
        lambda e: sp.cancel(sp.together(e)),
        lambda e: sp.expand(sp.expand_log(e)),
        lambda e: sp.cancel(sp.together(sp.expand_log(e))),
        lambda e: sp.expand_log(sp.simplify(sp.expand_log(sp.factor(e)))),
        sp.simplify,
        lambda e: sp.simplify(sp.expand_log(sp.simplify(e))),
    )
    return any(step(expression) == 0 for step in steps)


def _first_counterexample(
    sides: list[tuple[sp.Expr, sp.Expr]], given: Region, where: Callable[[Values], bool] | None, tried: int
) -> dict[str, str] | None:
    """The first candidate point at which two sides certainly differ, with their values there."""
    for left, right in sides:
        for at in islice(_points(left.free_symbols | right.free_symbols, given, where), tried):
            if _certainly_nonzero(left - right, at):
                point = {str(symbol): str(value) for symbol, value in sorted(at.items(), key=str)}
                values = {"left": exact.evaluate(left, at), "right": exact.evaluate(right, at)}
                return point | {side: exact.show(value) for side, value in values.items()}
    return None


def _certainly_nonzero(difference: sp.Expr, at: Values) -> bool:
    try:
        number = exact.evaluate(difference, at)
    except ValueError:  # an unknown left by an integral or a sum that SymPy cannot do
        return False
    if number.is_Rational:
        return bool(number != 0)
    bounds = exact.enclose(number, 50) if number.is_finite else None
    return bounds is not None and 0 not in bounds


def _points(
    free: set[sp.Symbol], given: Region, where: Callable[[Values], bool] | None
) -> Iterator[dict[sp.Symbol, sp.Rational]]:
    """Candidate points in the region: small rationals by size, then random ones."""
    symbols = sorted((free - set(given)) | _free(given), key=str)
    for values in _rationals(symbols):
        at = {symbol: sp.Rational(value) for symbol, value in zip(symbols, values, strict=True)}
        if where is not None and not where(at):
            continue
        at |= {symbol: sp.Rational(sp.sympify(formula).subs(at)) for symbol, formula in given.items()}
        if all(value > 0 for symbol, value in at.items() if symbol.is_positive):
            yield at


def _free(given: Region) -> set[sp.Symbol]:
    return set().union(*(sp.sympify(formula).free_symbols for formula in given.values())) - set(given)


def _rationals(symbols: list[sp.Symbol]) -> Iterator[tuple[Fraction, ...]]:
    choices = [_SMALL if symbol.is_positive else [*_SMALL, *(-x for x in _SMALL)] for symbol in symbols]
    if len(symbols) <= 4:  # at most 6561 tuples for positive symbols
        yield from islice(
            sorted(product(*choices), key=lambda point: sum(value.denominator for value in point)), _TRIED - _RANDOM
        )
    draw = random.Random(20)  # candidates for refutation only; any seed is as good
    while True:
        yield tuple(Fraction(draw.randint(1, b - 1), b) for b in (draw.randint(2, 997) for _ in symbols))


def _sentence(says: str, equal: bool | None, found: Mapping[str, str] | None) -> str:
    if equal:
        return f"{says}: the difference simplifies to 0."
    if found is None:
        return f"{says}: neither simplification nor any of {_TRIED} points decides."
    where = ", ".join(f"{key} = {value}" for key, value in found.items() if key not in ("left", "right"))
    return f"{says}: differs at {where}: {found['left']} against {found['right']}."
