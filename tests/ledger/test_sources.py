"""Every statement found in the sources is accounted for, and the table agrees with the claims."""

import re
from collections import Counter

import pytest

from kdtheory import claims
from kdtheory.ledger import Registry, sources

ROWS = sources.rows()
STATEMENTS = {"S0": 26, "S1": 63, "S2": 23, "S3": 20}  # statements counted in the four sources
CHAPTER_02 = ["S0-04", "S0-19", *(f"S1-{number}" for number in range(32, 46) if number != 38)]  # S1-38 is in 06
CHAPTER_01 = [f"S0-{number:02}" for number in range(7, 18)]


def test_all_132_rows_are_there_once():
    assert Counter(row.row[:2] for row in ROWS) == STATEMENTS
    assert [row.row for row in ROWS] == [f"{s}-{n:02}" for s, count in STATEMENTS.items() for n in range(1, count + 1)]


def test_one_source_has_one_key():
    assert Counter(row.source for row in ROWS) == {
        "zhao2024week8": 26,
        "lossdesigns": 63,
        "minillmnotes": 23,
        "forumpost": 20,
    }


def test_rows_are_filled_in():
    assert all(row.place.strip() and row.statement.strip() and re.fullmatch(r"[a-z_]+", row.chapter) for row in ROWS)


def test_coverage_counts_every_row():
    coverage = sources.coverage()
    assert sum(total for _, total in coverage.values()) == 132
    assert all(0 <= registered <= total for registered, total in coverage.values())


def test_table_and_claims_agree():
    assert sources.disagreements(claims.load()) == []


@pytest.mark.parametrize("row", CHAPTER_01 + CHAPTER_02)
def test_finished_chapters_are_registered(row):
    (found,) = (entry for entry in ROWS if entry.row == row)
    assert found.claim


def test_definitions_have_no_verdict_and_statements_have_one():
    registry = claims.load()
    for row in ROWS:
        for id in row.claim:
            is_claim = hasattr(registry[id], "expected")
            assert is_claim is (row.kind not in ("DEF", "HIST")), f"{row.row} ({row.kind}) and {id}"


def test_disagreements_are_found(monkeypatch):
    registry = Registry()
    registry.definition("test.known", statement="s", source="kdtheory", rows=("S0-01", "S9-99"))
    table = (sources.Row("S0-02", "k", "p", "s", "DEF", "test", ("test.known", "test.unknown")), ROWS[0])
    monkeypatch.setattr(sources, "rows", lambda: table)
    found = "\n".join(sources.disagreements(registry))
    for sentence in ("'test.unknown' is not registered", "whose rows do not name it", "no row S9-99", "names S0-01"):
        assert sentence in found


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("row,source", "source,row", 1), "columns"),
        (lambda text: text + text.splitlines()[-1] + "\n", "occurs twice"),
        (lambda text: text.replace(",DEF,", ",MAYBE,", 1), "MAYBE"),
    ],
)
def test_a_malformed_table_is_refused(change, says, tmp_path, monkeypatch):
    (tmp_path / "sources.csv").write_text(change((sources.files("kdtheory.claims") / "sources.csv").read_text()))
    monkeypatch.setattr(sources, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match=says):
        sources.rows()
