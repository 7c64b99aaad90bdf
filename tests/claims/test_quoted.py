"""Quoted tables: transcription, Welch's test by other means, and verdicts that bite."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from kdtheory import claims
from kdtheory.claims.students import quoted_methods, tables
from kdtheory.claims.students.tables import AKL, DISTILLM, READINGS, SINKD, Quoted
from kdtheory.ledger import REGISTRY, Verdict, experiments
from kdtheory.ledger.runner import run_claim

claims.load("students")
ITEMS = [item for item in REGISTRY if item.id.startswith("students.quoted-")]


def test_every_row_of_quoted_tables_has_its_claims():
    rows = [row for item in ITEMS for row in item.rows]
    assert set(rows) == {"S1-27", "S1-29", "S1-30", "S1-31", "S1-46", "S1-47", "S1-60"}


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.id)
def test_the_verdict_is_the_recorded_one_and_the_control_is_caught(item):
    assert run_claim(item).failures == ()


@pytest.mark.parametrize("table", [AKL, DISTILLM, SINKD], ids=lambda table: table.source)
def test_tables_are_complete(table):
    assert {len(row) for row in table.rows.values()} == {len(table.columns)}
    printed = {entry.spread is not None for row in table.rows.values() for entry in row}
    assert len(printed) == 1


def test_sums_of_the_transcribed_tables():
    """Added by hand from the slides, row by row and column by column: a wrong digit shows."""
    totals = {name: float(sum(entry.mean for entry in row)) for name, row in DISTILLM.rows.items()}
    assert totals == pytest.approx({"KLD": 94.73, "RKLD": 96.33, "JSD": 104.18, "SKL": 108.18, "SRKL": 108.41})
    assert float(sum(AKL.mean("AKL", column) for column in AKL.columns)) == pytest.approx(151.82)
    assert float(sum(AKL.mean("FKL", column) for column in AKL.columns)) == pytest.approx(136.60)
    assert float(sum(AKL.mean("RKL", column) for column in AKL.columns)) == pytest.approx(140.59)
    assert float(sum(SINKD.mean("SinKD", column) for column in SINKD.columns)) == pytest.approx(665.5)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("pair", [("RKL", "FKL"), ("SKL", "SRKL")])
def test_welch_is_scipys(pair, reading):
    scale = 1.0 if reading == "standard deviation" else 5**0.5
    for column in AKL.columns:
        a, b = (AKL.entry(name, column) for name in pair)
        ours = tables.welch(a, b, reading)
        theirs = stats.ttest_ind_from_stats(
            float(a.mean), scale * float(a.spread), 5, float(b.mean), scale * float(b.spread), 5, equal_var=False
        )
        assert ours.t == pytest.approx(theirs.statistic, rel=1e-12)
        assert float(tables.p_value(ours.squared, ours.freedom)) == pytest.approx(theirs.pvalue, rel=1e-9)
        assert float(ours.p_low) <= theirs.pvalue <= float(ours.p_high)


def test_the_bounds_cover_everything_that_rounds_to_the_printed_digits():
    a, b = AKL.entry("AKL", "LLaMA, S-NI"), AKL.entry("FKL+RKL", "LLaMA, S-NI")
    found = tables.welch(a, b, "standard deviation")
    shifts = np.array(list(product((-1, 0, 1), repeat=4))) * 0.005
    p = [
        stats.ttest_ind_from_stats(31.37 + d[0], 0.23 + d[1], 5, 30.98 + d[2], 0.31 + d[3], 5, equal_var=False).pvalue
        for d in shifts
    ]
    assert float(found.p_low) <= min(p) < 0.05 < max(p) <= float(found.p_high)
    assert tables.beyond(found) == "rounding decides"


def test_equal_spreads_have_eight_degrees_of_freedom_and_equal_means_p_one():
    same = Quoted(Fraction(1), Fraction(1, 10))
    found = tables.welch(same, same, "standard deviation")
    assert found.freedom == 8
    assert found.t == 0
    assert float(found.p_high) == pytest.approx(1)
    assert tables.beyond(found) == "no"


def test_holm_is_statsmodels():
    found = [tables.welch(DISTILLM.entry("SRKL", c), DISTILLM.entry("SKL", c), READINGS[0]) for c in DISTILLM.columns]
    for name in ("p_low", "p_high"):
        ours = [float(p) for p in tables._holm([getattr(test, name) for test in found])]
        theirs = multipletests([float(getattr(test, name)) for test in found], method="holm")[1]
        assert ours == pytest.approx(theirs)


def test_without_spread_there_is_no_test():
    with pytest.raises(ValueError, match="without ±"):
        tables.welch(Quoted(Fraction(1)), Quoted(Fraction(2)), READINGS[0])


def test_a_malformed_table_is_refused():
    with pytest.raises(ValueError, match="not 2 entries"):
        tables._read("x", "a | b", "FKL | 1.0")


def test_t_values_of_the_differences():
    t = [tables.welch(AKL.entry("RKL", c), AKL.entry("FKL", c), READINGS[0]).t for c in AKL.columns]
    assert t == pytest.approx([-2.9, 5.5, 2.1, 5.9, 3.2, 17.8], abs=0.05)


def test_no_number_of_decodings_decides_about_a_method():
    assert all(run_claim(REGISTRY[f"students.quoted-{name}-method"]).verdict is Verdict.UNDECIDED
               for name in ("akl", "distillm", "sinkd"))  # fmt: skip
    shown = {column: str(lead) for column, lead in quoted_methods.leads(SINKD, ("SinKD",)).items()}
    rule = quoted_methods.METHOD
    assert experiments.judge(rule, lambda: ({k: Fraction(v) for k, v in shown.items()}, 10, True), says="").ok is True


@pytest.mark.parametrize(
    ("table", "method", "column", "value", "claim"),
    [
        (AKL, "AKL", "GPT-2, Dolly", "23.40", "students.quoted-akl-best"),
        (AKL, "RKL", "GPT-2, Dolly", "23.50", "students.quoted-rkl"),
        (AKL, "FKL+RKL", "LLaMA, Dolly", "23.90", "students.quoted-combination"),
        (DISTILLM, "SRKL", "Vicuna", "16.20", "students.quoted-skew"),
        (DISTILLM, "SRKL", "Unnatural", "28.10", "students.quoted-skl-srkl"),
        (SINKD, "SinKD", "QNLI", "90.2", "students.quoted-sinkd-best"),
    ],
)
def test_another_printed_number_changes_the_verdict(table, method, column, value, claim, monkeypatch):
    row = list(table.rows[method])
    index = table.columns.index(column)
    row[index] = Quoted(Fraction(value), row[index].spread)
    monkeypatch.setitem(table.rows, method, tuple(row))
    assert run_claim(REGISTRY[claim]).failures
