"""The tables of results that the sources quote, as printed, and what follows from them by arithmetic and Welch's t.

All numbers are decimals read exactly. The ± of two tables comes from decoding one trained student with five seeds. The
tables do not say whether it is the standard deviation of the five numbers or the standard error of their mean; every t
value is therefore given under both readings, with the rounding of the printed digits enclosed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal

from flint import arb, ctx

from kdtheory.ledger.interval import ball

Reading = Literal["standard deviation", "standard error"]
READINGS: tuple[Reading, ...] = ("standard deviation", "standard error")
DECODINGS = 5
HALF = Fraction(1, 200)
"""Half a unit of the last printed digit of the tables with ±."""
LEVEL = Fraction(1, 20)
PRINTED = "the printed numbers"


@dataclass(frozen=True)
class Quoted:
    """A printed mean and, where there is one, its ±; in points of the metric."""

    mean: Fraction
    spread: Fraction | None = None


@dataclass(frozen=True)
class Table:
    """A table: columns, and for each method a row of entries.

    Attributes
    ----------
    source : str
        Bibliography key.
    students : tuple of str
        Methods that are students of the same teacher.
    """

    source: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[Quoted, ...]]
    students: tuple[str, ...]

    def entry(self, method: str, column: str) -> Quoted:
        """What is printed there."""
        return self.rows[method][self.columns.index(column)]

    def mean(self, method: str, column: str) -> Fraction:
        """The mean printed there."""
        return self.entry(method, column).mean

    def best_other(self, column: str, *but: str) -> str:
        """The student with the highest mean in a column, those named left out."""
        return max((name for name in self.students if name not in but), key=lambda name: self.mean(name, column))


def _read(source: str, columns: str, text: str, but: tuple[str, ...] = ()) -> Table:
    rows = {}
    for line in text.strip().splitlines():
        name, _, numbers = line.partition("|")
        entries = [item.split("±") for item in numbers.split()]
        rows[name.strip()] = tuple(Quoted(*(Fraction(part) for part in item)) for item in entries)
    names = tuple(name.strip() for name in columns.split("|"))
    if any(len(row) != len(names) for row in rows.values()):
        raise ValueError(f"table of {source}: a row has not {len(names)} entries")
    return Table(source, names, rows, tuple(name for name in rows if name not in but))


AKL = _read(
    "wu2024akl",
    "GPT-2, Dolly | GPT-2, S-NI | GPT-2, UnNI | LLaMA, Dolly | LLaMA, S-NI | LLaMA, UnNI",
    """
    teacher | 26.98±0.27 27.25±0.16 31.61±0.16 26.73±0.65 32.75±0.24 34.61±0.08
    SFT     | 23.01±0.18 16.48±0.28 18.43±0.09 22.05±0.38 27.79±0.20 25.96±0.13
    SeqKD   | 23.30±0.38 16.35±0.17 18.51±0.04 22.67±0.57 26.97±0.32 27.35±0.06
    FKL     | 23.46±0.56 16.63±0.48 19.27±0.06 22.24±0.38 28.07±0.41 26.93±0.09
    RKL     | 22.62±0.34 17.88±0.17 19.35±0.06 23.95±0.53 28.90±0.41 27.89±0.08
    SKL     | 23.47±0.49 16.51±0.29 18.46±0.08 23.29±0.54 29.89±0.18 29.15±0.20
    SRKL    | 23.25±0.22 17.54±0.30 19.31±0.10 22.09±0.22 29.60±0.38 28.81±0.16
    FKL+RKL | 23.36±0.53 17.83±0.23 20.37±0.08 24.08±0.51 30.98±0.31 30.48±0.10
    AKL     | 23.88±0.46 19.15±0.21 21.97±0.13 24.40±0.42 31.37±0.23 31.05±0.17
    """,
    but=("teacher",),
)
"""Rouge-L; GPT-2 1.5B to 120M and LLaMA 6.7B to TinyLLaMA 1.1B."""
DISTILLM = _read(
    "ko2024distillm",
    "Dolly | Self-Instruct | Vicuna | Super-Natural | Unnatural",
    """
    KLD  | 23.52±0.22 11.23±0.46 15.92±0.41 20.68±0.16 23.38±0.13
    RKLD | 23.82±0.34 10.90±0.58 16.11±0.46 22.47±0.21 23.03±0.11
    JSD  | 24.34±0.35 12.01±0.54 15.21±0.61 25.08±0.36 27.54±0.07
    SKL  | 24.80±0.12 12.86±0.34 16.20±0.57 26.26±0.41 28.06±0.08
    SRKL | 25.21±0.27 12.98±0.24 15.77±0.39 25.83±0.15 28.62±0.10
    """,
)
"""Rouge-L."""
SINKD = _read(
    "cui2024sinkd",
    "CoLA | SST-2 | MNLI-m | MNLI-mm | MRPC | RTE | QNLI | QQP",
    """
    RKL   | 53.9 91.6 82.9 83.4 90.5 67.1 90.1 91.1
    JS    | 54.2 92.2 83.1 83.7 90.7 68.9 90.3 91.2
    TVD   | 54.1 92.1 83.3 83.8 90.9 70.0 90.2 91.2
    SinKD | 60.2 93.1 83.8 84.2 91.3 71.1 90.5 91.3
    """,
)
"""Seven tasks of GLUE, MNLI with two numbers; no ± is printed."""


@dataclass(frozen=True)
class Welch:
    """Welch's two-sided test of two printed means, each of five decodings.

    Attributes
    ----------
    sign, squared : int, Fraction
        Sign of first minus second, and t², of the numbers as printed.
    freedom : Fraction
        Degrees of freedom of the numbers as printed.
    p_low, p_high : arb
        Bounds of the p-value over everything that rounds to the printed digits, as balls.
    """

    sign: int
    squared: Fraction
    freedom: Fraction
    p_low: arb
    p_high: arb

    @property
    def t(self) -> float:
        """t as printed."""
        return self.sign * float(self.squared) ** 0.5

    @property
    def p(self) -> arb:
        """A ball that holds the p-value of all numbers that round to the printed ones."""
        return self.p_low.union(self.p_high)


def welch(first: Quoted, second: Quoted, reading: Reading) -> Welch:
    """Compare two entries of a table.

    Raises
    ------
    ValueError
        If one of them has no ±.
    """
    if first.spread is None or second.spread is None:
        raise ValueError("an entry without ± says nothing about its scatter")
    shares = DECODINGS if reading == "standard deviation" else 1
    gap, spreads = first.mean - second.mean, (first.spread, second.spread)
    low, high = ([spread + side * HALF for spread in spreads] for side in (-1, 1))
    least = max(Fraction(0), abs(gap) - 2 * HALF) ** 2 * shares / _variance(high)
    most = (abs(gap) + 2 * HALF) ** 2 * shares / _variance(low)
    ratios = (low[0] / high[1]) ** 2, (high[0] / low[1]) ** 2
    few, many = min(map(_freedom, ratios)), max(map(_freedom, ratios))
    if ratios[0] <= 1 <= ratios[1]:
        many = _freedom(Fraction(1))
    return Welch(
        sign=(gap > 0) - (gap < 0),
        squared=gap**2 * shares / _variance(spreads),
        freedom=_freedom((spreads[0] / spreads[1]) ** 2),
        # for fixed degrees of freedom p falls with t; for fixed t it falls with them, since the tails get lighter
        p_low=p_value(most, many),
        p_high=p_value(least, few),
    )


def _variance(spreads: Sequence[Fraction]) -> Fraction:
    return sum((spread**2 for spread in spreads), Fraction(0))


def _freedom(ratio: Fraction) -> Fraction:
    """Welch–Satterthwaite for two means of five, from the ratio of the variances."""
    return (DECODINGS - 1) * (1 + ratio) ** 2 / (1 + ratio**2)


def p_value(squared: Fraction, freedom: Fraction) -> arb:
    """P(|T| ≥ t) for Student's t, the regularised incomplete beta function I(ν/(ν + t²); ν/2, 1/2), as a ball."""
    with ctx.workprec(128):
        return ball(freedom / (freedom + squared)).beta_lower(ball(freedom / 2), ball(Fraction(1, 2)), regularized=True)


def holm(tests: Sequence[Welch]) -> list[arb]:
    """Holm-adjusted p-values of one family, in the order given; each ball covers the rounding of the printed digits.

    Holm's adjustment rises with every p, so that the adjusted lower (upper) bounds are bounds of the adjusted p.
    """
    bounds = [_holm([test.p_low for test in tests]), _holm([test.p_high for test in tests])]
    return [low.union(high) for low, high in zip(*bounds, strict=True)]


def _holm(p: Sequence[arb]) -> list[arb]:
    order = sorted(range(len(p)), key=lambda index: float(p[index].mid()))
    if not all(p[before] <= p[after] for before, after in pairwise(order)):
        raise ArithmeticError("two p-values agree up to the precision of their balls: their order is not known")
    adjusted, largest = [arb(1)] * len(p), arb(0)
    for rank, index in enumerate(order):
        largest = largest.max(p[index] * (len(p) - rank)).min(arb(1))
        adjusted[index] = largest
    return adjusted


def beyond(test: Welch) -> str:
    """Whether the difference is beyond the printed ±: "yes" (p < .05), "no", or "rounding decides"."""
    level = ball(LEVEL)
    return "yes" if test.p_high < level else "no" if test.p_low >= level else "rounding decides"
