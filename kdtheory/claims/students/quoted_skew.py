"""What a quoted table of five losses on five benchmarks supports by its numbers and its own ± (`ko2024distillm`)."""

from __future__ import annotations

from flint import arb

from kdtheory.claims.students import tables
from kdtheory.claims.students.quoted_checks import BEYOND, WITHIN, above, against_scipy, between, p_of_pair, p_within
from kdtheory.claims.students.tables import AKL, DISTILLM, PRINTED, READINGS, Reading
from kdtheory.ledger import Evidence, Verdict, claim
from kdtheory.ledger.evidence import INSTANCE, Role

_AKL = "lossdesigns, Rethinking KL table; wu2024akl"
_DISTILLM = "lossdesigns, DistiLLM table; ko2024distillm"
_SKEWED, _PLAIN = ("SKL", "SRKL"), ("KLD", "RKLD")
_ELSEWHERE = tuple(column for column in DISTILLM.columns if column != "Vicuna")


@claim(
    "students.quoted-skew",
    statement=r"\text{SKL and SRKL are clearly above KLD and RKLD}",
    source=_DISTILLM,
    expected=Verdict.PROVED_IF,
    rows=("S1-46",),
    domain=f"{PRINTED}, up to their rounding; clearly: Welch's p < .05 under either reading of ±, each pair alone",
    scope=INSTANCE,
    condition="the benchmark is not Vicuna",
)
def skew() -> list[Evidence]:
    """Sixteen comparisons elsewhere; on Vicuna SRKL is below both, and no difference is beyond ±."""
    pairs = [(a, b) for a in _SKEWED for b in _PLAIN]
    inside = [above(DISTILLM, *pair, column, "inside condition") for column in _ELSEWHERE for pair in pairs]
    clear = [
        item for c in _ELSEWHERE for pair in pairs for item in p_of_pair(DISTILLM, pair, c, BEYOND, "inside condition")
    ]
    outside = [above(DISTILLM, "SRKL", name, "Vicuna", "outside condition") for name in _PLAIN]
    unclear = [item for pair in pairs for item in p_of_pair(DISTILLM, pair, "Vicuna", BEYOND, "outside condition")]
    return [
        *inside,
        *clear,
        *outside,
        *unclear,
        against_scipy(DISTILLM, [(*pair, c) for c in _ELSEWHERE for pair in pairs]),
    ]


@skew.control
def _() -> list[Evidence]:
    """On all five benchmarks it must not pass."""
    return [above(DISTILLM, a, b, column) for column in DISTILLM.columns for a in _SKEWED for b in _PLAIN]


@claim(
    "students.quoted-skew-elsewhere",
    statement=r"\text{In the other table, SKL is not clearly above FKL: on GPT-2's UnNI it is below by more than } \pm"
    r" \text{, under either reading}",
    source=_AKL,
    expected=Verdict.PROVED,
    rows=("S1-46",),
    domain=f"{PRINTED}, up to their rounding; Welch's test at .05, this column alone",
    scope=INSTANCE,
    uses=("students.quoted-skew",),
)
def skew_elsewhere() -> list[Evidence]:
    """A table of other authors, with other students, on two benchmarks that both tables have."""
    column = "GPT-2, UnNI"
    dolly = p_of_pair(AKL, ("SKL", "FKL"), "GPT-2, Dolly", WITHIN)
    return [above(AKL, "FKL", "SKL", column), *p_of_pair(AKL, ("SKL", "FKL"), column, BEYOND), *dolly]


@skew_elsewhere.control
def _() -> Evidence:
    """That SKL is above FKL there must not pass."""
    return above(AKL, "SKL", "FKL", "GPT-2, UnNI")


_SRKL_AHEAD = ("Dolly", "Self-Instruct", "Unnatural")


@claim(
    "students.quoted-skl-srkl-count",
    statement=r"\text{Neither SKL nor SRKL is ahead everywhere: SRKL is in three columns, SKL in two}",
    source=_DISTILLM,
    expected=Verdict.PROVED,
    rows=("S1-47",),
    domain=PRINTED,
    scope=INSTANCE,
)
def skl_srkl_count() -> list[Evidence]:
    """Counted."""
    ahead = [above(DISTILLM, "SRKL", "SKL", column) for column in _SRKL_AHEAD]
    return ahead + [above(DISTILLM, "SKL", "SRKL", column) for column in ("Vicuna", "Super-Natural")]


@skl_srkl_count.control
def _() -> list[Evidence]:
    """SRKL ahead in all five must not pass."""
    return [above(DISTILLM, "SRKL", "SKL", column) for column in DISTILLM.columns]


def skl_srkl_p(reading: Reading) -> dict[str, arb]:
    """Holm-adjusted p of SRKL against SKL, the five benchmarks being one family."""
    found = [between(DISTILLM, "SRKL", "SKL", column, reading) for column in DISTILLM.columns]
    return dict(zip(DISTILLM.columns, tables.holm(found), strict=True))


@claim(
    "students.quoted-skl-srkl",
    statement=r"\text{No difference between SKL and SRKL is beyond the printed } \pm",
    source=_DISTILLM,
    expected=Verdict.PROVED_IF,
    rows=("S1-47",),
    domain=f"{PRINTED}, up to their rounding; Welch's test at .05 with Holm over five benchmarks, either reading of ±",
    scope=INSTANCE,
    condition="Unnatural Instructions is left aside",
    uses=("students.quoted-skl-srkl-count",),
)
def skl_srkl() -> list[Evidence]:
    """There SRKL leads by more than ± under both readings."""
    found = []
    for reading in READINGS:
        for column, p in skl_srkl_p(reading).items():
            role: Role = "outside condition" if column == "Unnatural" else "inside condition"
            found.append(p_within(p, *WITHIN, f"{column}: Holm-adjusted p, ± as {reading}", role))
    return [*found, against_scipy(DISTILLM, [("SRKL", "SKL", column) for column in DISTILLM.columns])]


@skl_srkl.control
def _() -> list[Evidence]:
    """With Unnatural Instructions it must not pass."""
    return [p_within(skl_srkl_p(reading)["Unnatural"], *WITHIN, "Holm-adjusted p") for reading in READINGS]
