"""The chapter that registers the experiment and the code that decides it hold the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdtheory.students import profiles, statistics, text_losses

CHAPTER = Path(__file__).parents[2] / "proofs" / "09_students.md"


@pytest.fixture(scope="module")
def text() -> str:
    return " ".join(CHAPTER.read_text(encoding="utf-8").split())


def test_the_rules_are_registered_with_their_numbers(text):
    assert f"let $m$ be {100 * statistics.MARGIN:g} % of the reference's mean" in text
    assert f"Holm-adjusted exact sign-flip $p < {statistics.LEVEL:g}".replace("0.", ".") in text
    assert f"With fewer than {statistics.CONFIRMATORY_SEEDS} seeds a comparison is a pilot" in text
    assert f"at most {100 * statistics.PLATEAU_SHARE:g} % of the change since the warm start" in text
    assert f"at most {100 * statistics.PLATEAU_CHANGE:g} % of the final value" in text
    assert statistics.PLATEAU_CHANGE == statistics.MARGIN / 2


WORDS = {
    "hard": "Hard labels;",
    "classic": "the classic mixture",
    "fkl": "forward KL;",
    "rkl": "reverse KL;",
    "symmetric": "half of each;",
    "jsd.1": r"Jensen-Shannon with $\beta = .1, .5, .9$",
    "jsd": r"Jensen-Shannon with $\beta = .1, .5, .9$",
    "jsd.9": r"Jensen-Shannon with $\beta = .1, .5, .9$",
    "tvd": "total variation;",
    "skl": r"skew KL and skew reverse KL ($\alpha = 0.1$)",
    "srkl": r"skew KL and skew reverse KL ($\alpha = 0.1$)",
    "akl": "adaptive KL;",
    "w1": "$W_1$ on a token tree",
    "w1-line": "and on a line;",
    "fkl+w1": r"forward KL + $\lambda W_1$",
    "fkl+hard": "forward KL, reverse KL and $W_1$ with hard labels (half of each)",
    "rkl+hard": "forward KL, reverse KL and $W_1$ with hard labels (half of each)",
    "w1+hard": "forward KL, reverse KL and $W_1$ with hard labels (half of each)",
    "fkl/16": "a forward KL on the same positions",
    "w1-topk/16": "Top-k $W_1$ (32 tokens)",
    "sinkhorn/16": r"the Sinkhorn divergence ($\varepsilon$ a tenth of the diameter)",
    "sinkd/16": "SinKD",
}


def test_the_losses_are_registered(text):
    assert f"of the mixed loss is {profiles.CPU.transport_weight:g}" in text.replace(r"$\lambda$ ", "")
    assert tuple(WORDS) == profiles.LOSSES
    for words in WORDS.values():
        assert words in text
    assert (text_losses.KEPT, text_losses.EPSILON, text_losses.EVERY) == (32, 0.1, 16)
    few = {"classic", "symmetric", "jsd.1", "jsd.9", "srkl", "akl", "w1-line"} | {n for n in WORDS if n.endswith("/16")}
    assert set(profiles.CPU.pilots) == few


def test_results_are_generated_and_not_typed(text):
    assert "<!-- generated:students-decisions -->" in text
    assert "<!-- /generated -->" in text
