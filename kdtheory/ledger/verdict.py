"""Verdicts, and the rules that compute one from evidence."""

from collections.abc import Sequence
from enum import StrEnum

from kdtheory.ledger.evidence import GENERAL, Evidence

SEEDS_FOR_A_VERDICT = 10  # a sign-flip test on 5 seeds cannot go below p = 1/16; fewer than 10 seeds are a pilot
NOT_INSTALLED = "evidence not installed"


class Verdict(StrEnum):
    """What the evidence says about a statement."""

    PROVED = "PROVED"
    PROVED_IF = "PROVED-IF"
    CORRECTED = "CORRECTED"
    REFUTED = "REFUTED"
    SUPPORTED = "SUPPORTED"
    UNSUPPORTED = "UNSUPPORTED"
    UNDECIDED = "UNDECIDED"
    OPEN = "OPEN"


def decide(evidence: Sequence[Evidence], *, scope: str = GENERAL, condition: str = "") -> tuple[Verdict, str]:
    """Compute the verdict that the evidence supports.

    Parameters
    ----------
    evidence
        Everything the check returned.
    scope
        What the statement covers, e.g. "scalar identity", "V = 3", "all V".
    condition
        The named condition of a statement that holds only under it; empty otherwise.

    Returns
    -------
    verdict, reason
        The reason is one sentence: which evidence decided, or what is missing.
    """
    experiments = [item for item in evidence if item.kind == "experiment"]
    if experiments:
        return _from_experiments(experiments)
    for item in evidence:
        if item.role in ("supports", "inside condition", "attempted refutation") and item.shows_failure:
            return Verdict.REFUTED, f"counterexample: {item.says}"
    proved, why = _proved(evidence, scope)
    written = _with_role(evidence, "refutes as written")
    if written:
        return _from_written(written, proved, why)
    if condition or _with_role(evidence, "inside condition") or _with_role(evidence, "outside condition"):
        return _from_condition(evidence, condition, proved, why)
    return (Verdict.PROVED, why) if proved else (Verdict.OPEN, why)


def _with_role(evidence: Sequence[Evidence], role: str) -> list[Evidence]:
    return [item for item in evidence if item.role == role]


def _proved(evidence: Sequence[Evidence], scope: str) -> tuple[bool, str]:
    """Whether the (right) statement is proved, and by what or why not."""
    asserting = _with_role(evidence, "supports") + _with_role(evidence, "inside condition")
    attempts = _with_role(evidence, "attempted refutation")
    failed = [item for item in asserting + attempts if item.ok is False]
    if failed:
        return False, f"not established: {failed[0].says}"
    for item in asserting:
        if item.ok and item.kind == "formal":
            return True, f"formal: {item.says}"
        if item.ok and item.kind == "proof" and any(attempt.ok for attempt in attempts):
            return True, f"proof: {item.says}"
        if item.ok and item.kind in ("symbolic", "exact", "interval") and item.scope == scope:
            return True, f"{item.kind}: {item.says}"
    return False, _what_is_missing(asserting, scope)


def _what_is_missing(asserting: Sequence[Evidence], scope: str) -> str:
    for item in asserting:
        if item.data.get("installed") is False:
            return item.says
    if any(item.kind == "proof" and item.ok for item in asserting):
        return "the proof has no attempted refutation beside it"
    if any(item.ok is None for item in asserting):
        return "undecided: " + next(item.says for item in asserting if item.ok is None)
    kinds = ", ".join(sorted({item.kind for item in asserting})) or "none"
    return f"evidence of kind {kinds} does not prove a statement of scope {scope!r}"


def _from_written(written: Sequence[Evidence], proved: bool, why: str) -> tuple[Verdict, str]:
    """CORRECTED takes both halves; a counterexample alone refutes."""
    if not all(item.shows_failure for item in written):
        return Verdict.OPEN, "no counterexample to the statement as written"
    if proved:
        return Verdict.CORRECTED, f"{written[0].says} Right: {why}"
    if why.startswith(NOT_INSTALLED):
        return Verdict.OPEN, why
    return Verdict.REFUTED, f"counterexample: {written[0].says}"


def _from_condition(evidence: Sequence[Evidence], condition: str, proved: bool, why: str) -> tuple[Verdict, str]:
    """PROVED-IF takes a named condition, a proof under it, and evidence of both sides."""
    if not condition:
        return Verdict.OPEN, "evidence of a condition, but the claim names none"
    if not any(item.ok for item in _with_role(evidence, "inside condition")):
        return Verdict.OPEN, why if not proved else "nothing shows the statement inside its condition"
    if not any(item.shows_failure for item in _with_role(evidence, "outside condition")):
        return Verdict.OPEN, "nothing shows that the statement fails outside its condition"
    return (Verdict.PROVED_IF, f"if {condition}: {why}") if proved else (Verdict.OPEN, why)


def _from_experiments(experiments: Sequence[Evidence]) -> tuple[Verdict, str]:
    """Stored runs decide by their rule; missing ones, pilots and unfinished training never do."""
    for item in experiments:
        if item.data.get("installed") is False:
            return Verdict.OPEN, item.says
    for item in experiments:
        seeds = int(item.data.get("seeds", 0))
        if seeds < SEEDS_FOR_A_VERDICT:
            return Verdict.UNDECIDED, f"pilot ({seeds} seeds, {SEEDS_FOR_A_VERDICT} needed): {item.says}"
        if item.ok is None:
            return Verdict.UNDECIDED, item.says
    rejected = [item for item in experiments if item.ok is False]
    if rejected:
        return Verdict.UNSUPPORTED, rejected[0].says
    return Verdict.SUPPORTED, experiments[0].says
