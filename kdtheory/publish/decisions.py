"""The decision table: advice where the stored verdicts carry it, "not settled" where they do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from kdtheory import figures
from kdtheory.figures import tables
from kdtheory.ledger import Verdict
from kdtheory.publish.situations import ADVICE, Advice

NOT_SETTLED = "not settled; until then as in the first row"
UNKNOWN = "without a verdict"
_MEASURED = (Verdict.SUPPORTED, Verdict.UNSUPPORTED)


def table(data: Path | None = None) -> pd.DataFrame:
    """One row per situation, decided by the verdicts in a data folder.

    Parameters
    ----------
    data : Path, optional
        Data folder with verdicts.json, default figures/data of the repository (or $KDTHEORY_DATA).

    Returns
    -------
    DataFrame
        Columns situation, loss, why, grounds ("theorem", "stored runs", or both), claims (ids by verdict). Where a
        verdict is missing, loss is `NOT_SETTLED`, and why says which verdict would settle it, and for what.
    """
    stored = figures.load_data("verdicts", data)
    found = dict(zip(stored["id"], map(Verdict, stored["verdict"]), strict=True))
    return pd.DataFrame([_row(situation, found) for situation in dict.fromkeys(advice.situation for advice in ADVICE)])


def to_markdown(data: Path, form: str = "") -> str:
    """The table for a page; "short": without reasons and claims.

    Ids stand without backticks: these mark the one chapter that a claim belongs to.

    Raises
    ------
    ValueError
        If the form is another word.
    """
    if form not in ("", "short"):
        raise ValueError(f"generated:decision-table: {form!r}; write short, or nothing")
    whole = table(data)
    return tables.to_markdown(whole[["situation", "loss", "grounds"]] if form else whole)


def missing(advice: Advice, found: Mapping[str, Verdict]) -> list[str]:
    """Claims whose verdict does not carry the advice, or that have none."""
    return [id for id, serve in advice.rests_on.items() if found.get(id) not in serve]


def _row(situation: str, found: Mapping[str, Verdict]) -> dict[str, str]:
    choices = [advice for advice in ADVICE if advice.situation == situation]
    settled = [advice for advice in choices if not missing(advice, found)]
    ids = dict.fromkeys(id for advice in settled or choices for id in advice.rests_on)
    if settled:
        loss, why, grounds = settled[0].loss, settled[0].why, _grounds(ids, found)
    else:
        loss, why, grounds = NOT_SETTLED, _lacks(choices, found), ""
    return {"situation": situation, "loss": loss, "why": why, "grounds": grounds, "claims": _by_verdict(ids, found)}


def _lacks(choices: Sequence[Advice], found: Mapping[str, Verdict]) -> str:
    """Each claim in the way, and the verdicts that would settle it for a loss."""
    wanted: dict[str, list[str]] = {}
    for advice in choices:
        for id in missing(advice, found):
            wanted.setdefault(id, []).append(f'{" or ".join(advice.rests_on[id])} for "{advice.loss}"')
    return "; ".join(f"{id} is {found.get(id, UNKNOWN)}, needed: {', '.join(words)}" for id, words in wanted.items())


def _grounds(ids: Iterable[str], found: Mapping[str, Verdict]) -> str:
    measured = [found[id] in _MEASURED for id in ids]
    return " and ".join(
        word for word, there in (("theorem", not all(measured)), ("stored runs", any(measured))) if there
    )


def _by_verdict(ids: Iterable[str], found: Mapping[str, Verdict]) -> str:
    known = [id for id in ids if id in found]
    listed = {verdict: ", ".join(id for id in known if found[id] == verdict) for verdict in Verdict}
    return "; ".join(f"{verdict}: {those}" for verdict, those in listed.items() if those)
