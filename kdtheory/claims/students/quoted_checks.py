"""Checks that the claims on quoted tables share: decimals compared exactly, p-values enclosed, scipy as the oracle."""

from __future__ import annotations

from flint import arb
from scipy import stats

from kdtheory.claims.students import tables
from kdtheory.claims.students.tables import READINGS, Reading, Table
from kdtheory.ledger import Evidence, exact, interval, numeric
from kdtheory.ledger.evidence import Role

BEYOND, WITHIN = ("0", "1/20"), ("1/20", "1")
"""Where p lies if a difference is beyond the printed ±, and if it is not."""


def above(table: Table, first: str, second: str, column: str, role: Role = "supports") -> Evidence:
    """first > second in a column, in exact decimals."""
    pair = (table.mean(name, column) for name in (first, second))
    return exact.check(next(pair), ">", next(pair), role=role, says=f"{column}: {first} above {second}")


def between(table: Table, first: str, second: str, column: str, reading: Reading) -> tables.Welch:
    """Welch's test of two entries of a column."""
    return tables.welch(table.entry(first, column), table.entry(second, column), reading)


def p_within(p: arb, low: str, high: str, says: str, role: Role = "supports") -> Evidence:
    """Whether a p-value lies in [low, high] whatever the printed digits were rounded from."""
    return interval.within(lambda: p, low, high, says=says, role=role)


def p_of_pair(
    table: Table, pair: tuple[str, str], column: str, bounds: tuple[str, str], role: Role = "supports"
) -> list[Evidence]:
    """The p-value of a pair in a column, under both readings of ±."""
    names = f"{column}: p of {pair[0]} against {pair[1]}"
    return [
        p_within(between(table, *pair, column, reading).p, *bounds, f"{names}, ± as {reading}", role)
        for reading in READINGS
    ]


def against_scipy(table: Table, pairs: list[tuple[str, str, str]]) -> Evidence:
    """t and p of the printed numbers against scipy's test from summary statistics."""
    ours, theirs = [], []
    for first, second, column in pairs:
        a, b = table.entry(first, column), table.entry(second, column)
        for reading in READINGS:
            scale = 5**0.5 if reading == "standard error" else 1.0
            found = stats.ttest_ind_from_stats(
                float(a.mean), scale * float(a.spread or 0), 5, float(b.mean), scale * float(b.spread or 0), 5, False
            )
            mine = tables.welch(a, b, reading)
            ours += [mine.t, float(tables.p_value(mine.squared, mine.freedom))]
            theirs += [float(found.statistic), float(found.pvalue)]
    return numeric.compare(
        ours,
        theirs,
        oracle="scipy.stats.ttest_ind_from_stats",
        tolerance=1e-9,
        because="a dozen float operations and scipy's incomplete beta function",
        says="t and p of the printed numbers",
    )
