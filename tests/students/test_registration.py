"""The chapter that registers the experiment and the code that decides it hold the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdtheory.students import losses, profiles, statistics

CHAPTER = Path(__file__).parents[2] / "proofs" / "09_students.md"


@pytest.fixture(scope="module")
def text() -> str:
    return " ".join(CHAPTER.read_text(encoding="utf-8").split())


def test_the_rules_are_registered_with_their_numbers(text):
    assert f"let $m$ be {100 * statistics.MARGIN:g} % of the reference's mean" in text
    assert f"Holm-adjusted exact sign-flip $p < {statistics.LEVEL:g}".replace("0.", ".") in text
    assert f"With fewer than {statistics.CONFIRMATORY_SEEDS} seeds a run is a pilot" in text
    assert f"at most {100 * statistics.PLATEAU_SHARE:g} % of the change since the warm start" in text
    assert f"at most {100 * statistics.PLATEAU_CHANGE:g} % of the final value" in text
    assert statistics.PLATEAU_CHANGE == statistics.MARGIN / 2


def test_the_losses_are_registered(text):
    assert f"$\\lambda$ of the mixed loss is {profiles.CPU.transport_weight:g}" in text
    for title in losses.TITLES.values():
        name = title.lower().replace("wasserstein-1 (token tree)", "$w_1$ on a token tree")
        assert name.replace("λ wasserstein-1", "$\\lambda w_1$") in text.lower(), title
    assert tuple(losses.TITLES) == profiles.LOSSES


def test_results_are_generated_and_not_typed(text):
    assert "<!-- generated:students-decisions -->" in text
    assert "<!-- /generated -->" in text
