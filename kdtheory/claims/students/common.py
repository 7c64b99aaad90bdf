"""What the claims of chapter 09 share: the tests of a hypothesis in a stored run, and how outcomes combine."""

from __future__ import annotations

from typing import Any

PILOT = "pilot: "


def tests(experiment: str, hypothesis: str) -> list[dict[str, Any]]:
    """Rows of the stored run that test this hypothesis.

    Raises
    ------
    EvidenceNotInstalledError
        If the run is not stored here.
    LookupError
        If the run tests nothing of that name: the rule and the experiment have come apart.
    """
    from kdtheory.students import controlled

    rows = [row for row in controlled.stored(experiment).decisions["tests"] if row["hypothesis"] == hypothesis]
    if not rows:
        raise LookupError(f"the stored run of {experiment!r} holds no test of {hypothesis}")
    return rows


def verdict(experiment: str, hypothesis: str, **about: str) -> tuple[dict[str, str], int, bool]:
    """(Decision of every outcome, seeds, has everything that was compared reached its plateau).

    `about` keeps the rows with these entries, e.g. ``part="main"``, where a hypothesis has several claims.
    """
    rows = [row for row in tests(experiment, hypothesis) if all(row[name] == word for name, word in about.items())]
    if not rows:
        raise LookupError(f"the stored run of {experiment!r} holds no test of {hypothesis} with {about}")
    decisions = {row["outcome"]: row["decision"].removeprefix(PILOT) for row in rows}
    return decisions, min(row["seeds"] for row in rows), all(row["converged"] for row in rows)


def every_outcome(decisions: dict[str, str]) -> bool | None:
    """All outcomes supported: True; one refuted: False; otherwise between."""
    words = set(decisions.values())
    if "refuted" in words:
        return False
    return True if words == {"supported"} else None
