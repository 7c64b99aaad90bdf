"""Stored runs, judged by a rule that was fixed before they were made."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kdtheory import checkout
from kdtheory.ledger.evidence import Evidence
from kdtheory.ledger.verdict import NOT_INSTALLED


@dataclass(frozen=True)
class Rule:
    """A decision rule, written before the runs it judges.

    Attributes
    ----------
    metric
        What is measured, with its unit and over what it is paired.
    supported_if, unsupported_if
        The two regions in words; what lies between is undecided.
    decide
        The measured value -> True (supported), False (unsupported) or None (between).
    """

    metric: str
    supported_if: str
    unsupported_if: str
    decide: Callable[[Any], bool | None]


def judge(
    rule: Rule,
    measure: Callable[[], tuple[Any, int, bool]],
    *,
    says: str,
) -> Evidence:
    """Evidence of kind `experiment`.

    Parameters
    ----------
    rule
        The rule.
    measure
        Loads the stored runs: (measured value, number of seeds, has every compared loss reached its plateau).
        Raises FileNotFoundError where the runs are not there.
    says
        The hypothesis, in one sentence.

    Returns
    -------
    Evidence
        ok is the rule's decision, None without a plateau. Fewer than ten seeds never decide: see `verdict.decide`.
    """
    data: dict[str, Any] = {
        "metric": rule.metric,
        "supported_if": rule.supported_if,
        "unsupported_if": rule.unsupported_if,
    }
    try:
        value, seeds, plateau = measure()
    except FileNotFoundError as missing:
        data |= {"installed": False, "in_checkout": checkout.root() is not None}
        reason = str(missing) if NOT_INSTALLED in str(missing) else f"{NOT_INSTALLED}: {missing}"
        return Evidence("experiment", "supports", None, reason, data=data)
    decision = rule.decide(value) if plateau else None
    data |= {"value": value, "seeds": int(seeds), "plateau": bool(plateau), "decision": decision}
    note = "" if plateau else " No plateau, no decision."
    return Evidence("experiment", "supports", decision, f"{says} Measured: {value} on {seeds} seeds.{note}", data=data)
