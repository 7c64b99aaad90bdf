"""What the quoted tables say about methods: nothing that a rule of ten training seeds could decide.

Their ± comes from decoding one trained student five times, or is not printed at all; no column says how much two runs
of the same method differ.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from kdtheory.claims.students.quoted_checks import above
from kdtheory.claims.students.tables import AKL, DISTILLM, PRINTED, SINKD, Table
from kdtheory.ledger import Evidence, Verdict, claim, exact, experiments
from kdtheory.ledger.evidence import INSTANCE

_AKL, _DISTILLM, _SINKD = (
    f"lossdesigns, {name} table; {key}"
    for name, key in (("Rethinking KL", "wu2024akl"), ("DistiLLM", "ko2024distillm"), ("SinKD", "cui2024sinkd"))
)
_SKEWED = ("SKL", "SRKL")
_TRAINED_ONCE = 1  # training seeds of a method that the tables show


@claim(
    "students.quoted-sinkd-best",
    statement=r"\text{In the table of four losses SinKD is the best in all seven tasks}",
    source=_SINKD,
    expected=Verdict.PROVED,
    rows=("S1-60",),
    domain=f"{PRINTED}; MNLI has two numbers",
    scope=INSTANCE,
)
def sinkd_best() -> list[Evidence]:
    """Twenty-four comparisons of decimals."""
    return [above(SINKD, "SinKD", name, c) for c in SINKD.columns for name in SINKD.students if name != "SinKD"]


@sinkd_best.control
def _() -> list[Evidence]:
    """That it leads by half a point everywhere must not pass."""
    leads = (SINKD.mean("SinKD", c) - SINKD.mean(SINKD.best_other(c, "SinKD"), c) for c in SINKD.columns)
    return [exact.check(lead, ">=", "1/2", says="lead over the next loss") for lead in leads]


# -- what the tables say about methods ---------------------------------------------------------------------------------
def _higher_everywhere(leads: dict[str, Fraction]) -> bool | None:
    return all(lead > 0 for lead in leads.values())


METHOD = experiments.Rule(
    metric="lead of the method over the best other student of the table, by column; the unit is the training seed",
    supported_if="above 0 in every column, on at least ten training seeds a method",
    unsupported_if="below 0 in some column, on at least ten training seeds a method",
    decide=_higher_everywhere,
)


def leads(table: Table, methods: tuple[str, ...]) -> dict[str, Fraction]:
    """Lead of the best of `methods` over the best other student, by column."""
    return {
        column: max(table.mean(name, column) for name in methods)
        - table.mean(table.best_other(column, *methods), column)
        for column in table.columns
    }


def _judged(table: Table, methods: tuple[str, ...]) -> Evidence:
    shown: Any = {column: f"{float(lead):.2f}" for column, lead in leads(table, methods).items()}
    rule = experiments.Rule(METHOD.metric, METHOD.supported_if, METHOD.unsupported_if, _signs)
    return experiments.judge(rule, lambda: (shown, _TRAINED_ONCE, True), says="The method is the better one.")


def _signs(shown: dict[str, str]) -> bool | None:
    return _higher_everywhere({column: Fraction(lead) for column, lead in shown.items()})


def _worse_somewhere() -> Evidence:
    rule = experiments.Rule(METHOD.metric, METHOD.supported_if, METHOD.unsupported_if, _signs)
    return experiments.judge(rule, lambda: ({"a": "0.4", "b": "-0.1"}, 10, True), says="The method is the better one.")


_ONE_RUN = "one trained student a method; its decodings are not training seeds"


@claim(
    "students.quoted-akl-method",
    statement=r"\text{Training on adaptive KL gives better students than the other losses of its table}",
    source=_AKL,
    expected=Verdict.UNDECIDED,
    rows=("S1-27",),
    domain=_ONE_RUN,
    scope="the table",
    uses=("students.quoted-akl-best",),
)
def akl_method() -> Evidence:
    """Five decodings of one student measure the decoder's scatter, not the training's."""
    return _judged(AKL, ("AKL",))


@akl_method.control
def _() -> Evidence:
    """A method that is worse in one column, on ten training seeds, must not pass."""
    return _worse_somewhere()


@claim(
    "students.quoted-distillm-method",
    statement=r"\text{Training on SKL or SRKL gives better students than the other losses of their table}",
    source=_DISTILLM,
    expected=Verdict.UNDECIDED,
    rows=("S1-31",),
    domain=_ONE_RUN,
    scope="the table",
    uses=("students.quoted-skew",),
)
def distillm_method() -> Evidence:
    """As above; one of the two is the best of each column."""
    return _judged(DISTILLM, _SKEWED)


@distillm_method.control
def _() -> Evidence:
    """As above."""
    return _worse_somewhere()


@claim(
    "students.quoted-sinkd-method",
    statement=r"\text{SinKD gives better students than RKL, JS and TVD}",
    source=_SINKD,
    expected=Verdict.UNDECIDED,
    rows=("S1-60",),
    domain="one number a method and task, without ±",
    scope="the table",
    uses=("students.quoted-sinkd-best",),
)
def sinkd_method() -> Evidence:
    """No scatter of any kind is printed."""
    return _judged(SINKD, ("SinKD",))


@sinkd_method.control
def _() -> Evidence:
    """As above."""
    return _worse_somewhere()
