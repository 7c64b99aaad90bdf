"""What a quoted table of nine rows supports by its own numbers and its own ± (`wu2024akl`).

Two questions are kept apart. What the printed numbers say is arithmetic, and can be proved. What they say about the
methods is another matter (`quoted_methods`): the ± comes from decoding one trained student five times.
"""

from __future__ import annotations

from kdtheory.claims.students.quoted_checks import BEYOND, WITHIN, above, against_scipy, between, p_of_pair, p_within
from kdtheory.claims.students.tables import AKL, PRINTED, READINGS
from kdtheory.ledger import Evidence, Verdict, claim
from kdtheory.ledger.evidence import INSTANCE

_AKL = "lossdesigns, Rethinking KL table; wu2024akl"


@claim(
    "students.quoted-akl-best",
    statement=r"\text{In the table of 9 rows and 6 columns adaptive KL is the best student everywhere}",
    source=_AKL,
    expected=Verdict.PROVED,
    rows=("S1-27",),
    domain=PRINTED,
    scope=INSTANCE,
)
def akl_best() -> list[Evidence]:
    """Forty-two comparisons of decimals."""
    others = [name for name in AKL.students if name != "AKL"]
    return [above(AKL, "AKL", name, column) for column in AKL.columns for name in others]


@akl_best.control
def _() -> list[Evidence]:
    """That it is the best row, the teacher's included, must not pass."""
    return [above(AKL, "AKL", "teacher", column) for column in AKL.columns]


_CLEAR = ("GPT-2, S-NI", "GPT-2, UnNI", "LLaMA, UnNI")
_UNCLEAR = ("GPT-2, Dolly", "LLaMA, Dolly")


@claim(
    "students.quoted-akl-lead",
    statement=r"\text{Adaptive KL's lead over the next student is beyond the printed } \pm \text{ on UnNI and on"
    r" GPT-2's S-NI, and within it on both Dolly columns, under either reading of } \pm",
    source=_AKL,
    expected=Verdict.PROVED,
    rows=("S1-27",),
    domain=f"{PRINTED}, up to their rounding; Welch's test at .05, each column alone",
    scope=INSTANCE,
    uses=("students.quoted-akl-best",),
)
def akl_lead() -> list[Evidence]:
    """LLaMA's S-NI is left out: with ± as standard deviations the rounding of the printed digits decides."""
    pairs = {column: ("AKL", AKL.best_other(column, "AKL")) for column in AKL.columns}
    clear = [item for column in _CLEAR for item in p_of_pair(AKL, pairs[column], column, BEYOND)]
    unclear = [item for column in _UNCLEAR for item in p_of_pair(AKL, pairs[column], column, WITHIN)]
    return [*clear, *unclear, against_scipy(AKL, [(*pair, column) for column, pair in pairs.items()])]


@akl_lead.control
def _() -> list[Evidence]:
    """That the lead is beyond ± on Dolly must not pass."""
    return p_of_pair(AKL, ("AKL", AKL.best_other("GPT-2, Dolly", "AKL")), "GPT-2, Dolly", BEYOND)


@claim(
    "students.quoted-rkl",
    statement=r"\text{RKL has no absolute advantage over FKL: it is higher in five of the six columns, not in all}",
    source=_AKL,
    expected=Verdict.PROVED,
    rows=("S1-29",),
    domain=PRINTED,
    scope=INSTANCE,
)
def rkl() -> list[Evidence]:
    """Lower on Dolly with GPT-2."""
    rest = [above(AKL, "RKL", "FKL", column) for column in AKL.columns if column != "GPT-2, Dolly"]
    return [above(AKL, "FKL", "RKL", "GPT-2, Dolly"), *rest]


@rkl.control
def _() -> list[Evidence]:
    """Higher in all six must not pass."""
    return [above(AKL, "RKL", "FKL", column) for column in AKL.columns]


@claim(
    "students.quoted-rkl-deficit",
    statement=r"\text{On Dolly with GPT-2, RKL is below FKL by more than the printed } \pm \text{ explains}",
    source=_AKL,
    expected=Verdict.PROVED_IF,
    rows=("S1-29",),
    domain=f"{PRINTED}, up to their rounding; Welch's test at .05, this column alone",
    scope=INSTANCE,
    condition="± is the standard deviation of the five decodings, not the standard error of their mean",
    uses=("students.quoted-rkl",),
)
def rkl_deficit() -> list[Evidence]:
    """The one column that speaks against RKL speaks under one reading only."""
    column, says = "GPT-2, Dolly", "p of RKL against FKL, ± as "
    deviation, error = (between(AKL, "RKL", "FKL", column, reading).p for reading in READINGS)
    return [
        p_within(deviation, *BEYOND, says + READINGS[0], "inside condition"),
        p_within(error, *BEYOND, says + READINGS[1], "outside condition"),
        against_scipy(AKL, [("RKL", "FKL", column) for column in AKL.columns]),
    ]


@rkl_deficit.control
def _() -> Evidence:
    """The same with ± as standard errors must not pass."""
    p = between(AKL, "RKL", "FKL", "GPT-2, Dolly", READINGS[1]).p
    return p_within(p, *BEYOND, "p, ± as standard error", "inside condition")


_PARTS = ("FKL", "RKL")
_NOT_BETTER = {"GPT-2, Dolly": "FKL", "GPT-2, S-NI": "RKL"}


@claim(
    "students.quoted-combination",
    statement=r"\text{FKL + RKL is above both FKL and RKL}",
    source=_AKL,
    expected=Verdict.PROVED_IF,
    rows=("S1-30",),
    domain=PRINTED,
    scope=INSTANCE,
    condition="the column is neither Dolly nor S-NI with GPT-2",
)
def combination() -> list[Evidence]:
    """Below FKL on one column, below RKL on another; by less than ± in both."""
    inside = [
        above(AKL, "FKL+RKL", part, column, "inside condition")
        for column in AKL.columns
        if column not in _NOT_BETTER
        for part in _PARTS
    ]
    outside = [above(AKL, "FKL+RKL", part, column, "outside condition") for column, part in _NOT_BETTER.items()]
    small = [item for column, part in _NOT_BETTER.items() for item in p_of_pair(AKL, ("FKL+RKL", part), column, WITHIN)]
    return [*inside, *outside, *small]


@combination.control
def _() -> list[Evidence]:
    """Above both in all six columns must not pass."""
    return [above(AKL, "FKL+RKL", part, column) for column in AKL.columns for part in _PARTS]
