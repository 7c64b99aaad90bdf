"""Chapter 09: what stored student-teacher runs say about the central question."""

from __future__ import annotations

from typing import Any

from kdtheory.ledger import Evidence, Verdict, claim, definition, experiments

_METRICS = ("cross_entropy", "w1")
_REFERENCES = ("fkl", "rkl")

definition(
    "students.classic-mixture",
    statement=r"L = a L_{soft} + (1 - a) L_{hard}; at temperature T, L_{soft} is multiplied by T^2",
    source="zhao2024week8, first summary slide; hinton2015distilling, Section 2",
    rows=("S0-01",),
)


def _decide(decisions: dict[str, str]) -> bool | None:
    """Lower everywhere supports; higher anywhere does not; the rest is between. The word "pilot: " is not read."""
    words = [decision.removeprefix("pilot: ") for decision in decisions.values()]
    if "higher" in words:
        return False
    return True if all(word == "lower" for word in words) else None


RULE = experiments.Rule(
    metric="held-out cross-entropy on real text, and W1 on the teacher's token tree: student trained on tree-W1 minus "
    "the student trained on forward KL, and minus the one on reverse KL, paired over training seeds",
    supported_if="lower by the three-way rule in both metrics against both references",
    unsupported_if="higher by the three-way rule in either metric against either reference",
    decide=_decide,
)


def _measured() -> tuple[dict[str, str], int, bool]:
    from kdtheory.students import published

    runs = published.load(published.stored())
    rows: list[dict[str, Any]] = [
        row
        for row in runs.decisions["comparisons"]
        if row["loss"] == "w1" and row["metric"] in _METRICS and row["reference"] in _REFERENCES
    ]
    decisions = {f"{row['metric']} against {row['reference']}": row["decision"] for row in rows}
    return decisions, min(row["seeds"] for row in rows), all(row["converged"] for row in rows)


@claim(
    "students.wasserstein-beats-kl",
    statement=r"\text{For students that learn categorical distributions, Wasserstein is better than KLD and RKLD}",
    source="zhao2024week8, slide 'next week'",
    expected=Verdict.UNDECIDED,
    rows=("S0-26",),
    domain="two-layer transformer students of a four-layer teacher on real text, shared warm start, AdamW",
    scope="the stored runs",
)
def wasserstein_beats_kl() -> Evidence:
    """A pilot: three seeds show a direction, ten are needed for a verdict."""
    return experiments.judge(RULE, _measured, says="W1 on the token tree beats forward and reverse KL.")


@wasserstein_beats_kl.control
def _() -> Evidence:
    """One metric in which W1 is worse, on ten converged seeds, must not support it."""
    places = {f"{metric} against {reference}": "lower" for metric in _METRICS for reference in _REFERENCES}
    places["w1 against fkl"] = "higher"
    return experiments.judge(RULE, lambda: (places, 10, True), says="W1 beats both although it is worse in one metric.")
