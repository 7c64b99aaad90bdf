"""The list of broken formulas fits the code: each edit still applies, exactly once, and changes it."""

from pathlib import Path

import pytest

from kdtheory import claims
from kdtheory.ledger.runner import select
from tests.mutations.mutants import MUTANTS

ROOT = Path(__file__).parents[1]


def test_there_are_enough_and_each_has_its_own_name():
    assert len(MUTANTS) >= 40
    assert len({mutant.what for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_the_edit_applies_exactly_once_and_something_looks_at_it(mutant):
    assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1
    assert mutant.old != mutant.new
    assert mutant.chapters or mutant.tests
    assert all((ROOT / test.partition("::")[0]).exists() for test in mutant.tests)


def test_what_is_verified_exists():
    registry = claims.load()
    for name in {name for mutant in MUTANTS for name in mutant.chapters}:
        assert select(registry, [name])
