"""Statements on a whole box or about one real number, decided by ball arithmetic (Arb, `johansson2017arb`)."""

import heapq
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from numbers import Rational, Real
from typing import Any

from flint import arb, arb_series, ctx, fmpq

from kdtheory.ledger.evidence import INSTANCE, Evidence, Role, as_hoped

Number = int | str | Fraction
Sides = tuple[tuple[Fraction, Fraction], ...]
_BITS = 128


def certify(
    residual: Callable[..., arb],
    box: Mapping[str, tuple[Number, Number]],
    *,
    says: str,
    strict: bool = False,
    role: Role = "supports",
    boxes: int = 20_000,
    bits: int = _BITS,
) -> Evidence:
    """Prove `residual <= 0` on a whole box by branch and bound, or find a point where it is positive.

    Parameters
    ----------
    residual
        Takes the coordinates by name, each a ball (`flint.arb`), and returns a ball that encloses the residual
        there; divisions and logarithms that a ball cannot carry come out as NaN and are split further. If it is
        made of + - * / and the methods log, exp, sqrt, sin, cos, it is also fed power series, and the mean value
        form sharpens the enclosure. Constants are exact too: `ball("1/10")`, never 0.1; nothing of `math` or NumPy,
        which silently take the middle of a ball; and no branches: an `if` or Python's `max` on balls decides by
        chance, `arb.max` does not. Where both sides of an inequality touch, divide
        the touching factor out first: no subdivision proves 0 <= 0.
    box
        Coordinate -> (low, high), exact: integers, Fractions or text such as "1/10". Floats are refused.
    says
        The statement, in words; what was found is appended.
    strict
        Prove `< 0` instead.
    role
        With "refutes as written" or "outside condition" success means that it fails somewhere.
    boxes
        Number of parts after which the answer is "undecided".
    bits
        Precision of the balls.

    Returns
    -------
    Evidence
        Of kind `interval`. ok is None if `boxes` parts did not decide; the sentence then tells where it stuck.

    Raises
    ------
    TypeError
        If a bound is a float or no number, or the residual returns something else than a ball.
    ValueError
        If the box is empty, a side has low > high, boxes < 1, or the residual is seen to be no enclosure.
    """
    if not box:
        raise ValueError("box is empty: name at least one coordinate, such as {'q': ('1/100', 1)}")
    if boxes < 1:
        raise ValueError(f"boxes = {boxes}: look at one part at least")
    names, whole = tuple(box), tuple(_side(name, *ends) for name, ends in box.items())
    with ctx.workprec(bits), _series_of(2):
        _check_enclosure(residual, names, whole)
        outcome, used, at = _search(residual, names, whole, strict, boxes)
    described = "box " + ", ".join(f"{name} in [{low}, {high}]" for name, (low, high) in zip(names, whole, strict=True))
    ok = as_hoped(outcome, role)
    data: dict[str, Any] = {"parts": used, "bits": bits}
    if outcome is None:
        found = f"undecided after {used} parts, stuck near {_point(names, at)}"
    elif outcome:
        found = f"holds on the whole {described} ({used} parts)"
    else:
        data["counterexample"] = _point(names, at)
        found = f"fails at {data['counterexample']}"
    return Evidence("interval", role, ok, f"{says}: {found}.", described, data)


def _check_enclosure(residual: Callable[..., arb], names: tuple[str, ...], whole: Sides) -> None:
    """Two corners of the box: what the residual returns there must meet what it returns for the box."""
    enclosure = _at(residual, names, whole)
    for end in (0, 1):
        corner = tuple((side[end], side[end]) for side in whole)
        if not _at(residual, names, corner).overlaps(enclosure):
            place = _point(names, tuple(side[end] for side in whole))
            raise ValueError(f"the residual at {place} lies outside its own ball for the whole box: is a float in it?")


@contextmanager
def _series_of(terms: int) -> Iterator[None]:
    before, ctx.cap = ctx.cap, terms
    try:
        yield
    finally:
        ctx.cap = before


def _search(
    residual: Callable[..., arb], names: tuple[str, ...], whole: Sides, strict: bool, boxes: int
) -> tuple[bool | None, int, tuple[Fraction, ...]]:
    """(holds everywhere, parts looked at, where it fails or stuck). The widest part is taken first."""
    queue, used = [(-1.0, 0, whole)], 0
    while queue:
        _, _, sides = heapq.heappop(queue)
        middle = tuple((low + high) / 2 for low, high in sides)
        used += 1
        if _settled(_at(residual, names, sides), strict):
            continue
        here = _at(residual, names, tuple((m, m) for m in middle))
        if (here >= 0) if strict else (here > 0):
            return False, used, middle
        if _settled(_mean_value(residual, names, sides, here), strict):
            continue
        if used >= boxes:
            return None, used, middle
        for number, part in enumerate(_halves(sides, whole)):
            heapq.heappush(queue, (-float(max(_shares(part, whole))), 2 * used + number, part))
    return True, used, ()


def _settled(value: arb, strict: bool) -> bool:
    return bool(value < 0 if strict else value <= 0)  # comparisons of balls hold for every pair of their members


def _at(residual: Callable[..., arb], names: tuple[str, ...], sides: Sides) -> arb:
    return _ball_from("residual", residual(**{name: ball(*side) for name, side in zip(names, sides, strict=True)}))


def _ball_from(what: str, value: object) -> arb:
    if not isinstance(value, arb):  # a float compares as well, but proves nothing
        raise TypeError(f"the {what} returned {type(value).__name__} {value}: return a ball (flint.arb)")
    return value


def _mean_value(residual: Callable[..., arb], names: tuple[str, ...], sides: Sides, here: arb) -> arb:
    """Value at the middle + Σ (partial derivative on the part) (part - middle): its error is of second order."""
    balls = {name: ball(low, high) for name, (low, high) in zip(names, sides, strict=True)}
    total = here
    for name, (low, high) in zip(names, sides, strict=True):
        moving = {other: arb_series([around, 1 if other == name else 0]) for other, around in balls.items()}
        try:
            series = residual(**moving)
        except (AttributeError, TypeError, ValueError, ZeroDivisionError):  # not an analytic expression, or a pole
            return arb.nan()
        total = total + (series[1] if isinstance(series, arb_series) else 0) * (balls[name] - ball((low + high) / 2))
    return total


def _shares(part: Sides, whole: Sides) -> list[Fraction]:
    """How much of each side of the whole box the part still spans."""
    pairs = zip(part, whole, strict=True)
    return [(high - low) / (top - bottom) if top > bottom else Fraction(0) for (low, high), (bottom, top) in pairs]


def _halves(sides: Sides, whole: Sides) -> tuple[Sides, Sides]:
    """The part cut in two across the side that is longest relative to the whole box."""
    shares = _shares(sides, whole)
    cut = shares.index(max(shares))
    low, high = sides[cut]
    middle = (low + high) / 2
    return (
        (*sides[:cut], (low, middle), *sides[cut + 1 :]),
        (*sides[:cut], (middle, high), *sides[cut + 1 :]),
    )


def within(
    value: Callable[[], arb], low: Number, high: Number, *, says: str, role: Role = "supports", bits: int = _BITS
) -> Evidence:
    """Decide whether a real number lies in [low, high], from a ball around it.

    Parameters
    ----------
    value
        Returns a ball (`flint.arb`) that encloses the number; called at the working precision.
    low, high
        Exact bounds: integers, Fractions or text such as "0.4651".
    says
        What the number is.
    role, bits
        As for `certify`.

    Returns
    -------
    Evidence
        Of kind `interval` and scope "instance". ok is None if the ball is too wide to tell.

    Raises
    ------
    TypeError
        If a bound is a float or no number, or value returns something else than a ball.
    ValueError
        If low > high.
    """
    bottom, top = _side("low, high", low, high)
    with ctx.workprec(bits):
        found = _ball_from("value", value())
        inside = bool(found >= ball(bottom, bottom)) and bool(found <= ball(top, top))
        outside = bool(found < ball(bottom, bottom)) or bool(found > ball(top, top))
        shown = found.str(15)
    outcome = True if inside else False if outside else None
    data: dict[str, Any] = {"ball": shown, "low": str(bottom), "high": str(top)}
    if outcome is False:
        data["counterexample"] = {"value": shown}
    verb = {True: "lies in", False: "is not in", None: "may or may not lie in"}[outcome]
    ok = as_hoped(outcome, role)
    return Evidence("interval", role, ok, f"{says} = {shown} {verb} [{low}, {high}].", INSTANCE, data)


def ball(low: Number, high: Number | None = None) -> arb:
    """The smallest ball at the working precision that holds [low, high], or the number `low`. Errors as `within`."""
    first, last = _side("the ball", low, low if high is None else high)
    ends = [arb(fmpq(end.numerator, end.denominator)) for end in (first, last)]
    return ends[0] if first == last else ends[0].union(ends[1])


def _exact(name: str, number: Number) -> Fraction:
    if isinstance(number, Fraction):
        return number
    if isinstance(number, Rational):  # of NumPy or SymPy
        return Fraction(int(number.numerator), int(number.denominator))
    if not isinstance(number, str):
        word = "a float" if isinstance(number, Real) else "no number"
        raise TypeError(f"{name} = {number!r} is {word}: write an exact number, such as '1/10' or Fraction(1, 10)")
    try:
        return Fraction(number)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{name} = {number!r}: write an exact number, such as '1/10'") from None


def _side(name: str, low: Number, high: Number) -> tuple[Fraction, Fraction]:
    first, last = _exact(f"lower bound of {name}", low), _exact(f"upper bound of {name}", high)
    if first > last:
        raise ValueError(f"{name}: the lower bound {low} is above the upper bound {high}")
    return first, last


def _point(names: tuple[str, ...], at: tuple[Fraction, ...]) -> dict[str, str]:
    return {name: str(value) for name, value in zip(names, at, strict=True)}
