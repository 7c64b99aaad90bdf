"""H6: which modes a student with one peak covers, and how much of its mass lies in the void between them.

The rules were fixed, with their numbers, on other seeds (100 to 102) before the ten seeds they judge were run.
"""

from __future__ import annotations

from functools import partial

from kdtheory.claims.students import common
from kdtheory.ledger import Evidence, Verdict, claim, experiments

_SETTING = (
    "61 tokens on a line of length 24; teachers: two discretised unit Gaussians, centres 6 to 12 apart, larger "
    "weight .5 to "
    ".8; students: one discretised Gaussian per context, 64 contexts; void: between the modes, more than 2.5 widths "
    "from "
    "both; recalled: at least a quarter of the teacher's mass within 2 widths of a mode; Adam"
)
_NETWORK = _SETTING + "; mean and log width from a tanh network with 16 hidden units, judged on 64 unseen contexts"
_FIXED = (
    _SETTING + "; mean from a tanh network with 16 hidden units, width that of a mode, judged on 64 unseen contexts"
)
_TABLE = _SETTING + "; mean and log width of every context free"


def _judged(rule: experiments.Rule, part: str, condition: str, says: str) -> Evidence:
    measure = partial(common.verdict, "coverage", "H6", part=part, condition=condition)
    return experiments.judge(rule, measure, says=says)


def _broken(rule: experiments.Rule, says: str) -> Evidence:
    return experiments.judge(rule, lambda: ({"void": "refuted", "recall": "supported"}, 10, True), says=says)


COVERS = experiments.Rule(
    metric="void mass of W1's student over that of forward KL's (geometric mean over seeds), and its mode recall minus "
    "that of forward KL's",
    supported_if="the ratio's interval lies above .8, and the difference's in [-.1, .1]",
    unsupported_if="the ratio's lies below .5, or the difference's below -.2 or above .2",
    decide=common.every_outcome,
)
LEAST = experiments.Rule(
    metric="void mass of the students of reverse KL, skew reverse KL and Jensen-Shannon, each over that of forward "
    "KL's "
    "and over that of W1's (geometric means over seeds)",
    supported_if="all six intervals lie below 1",
    unsupported_if="one lies above 1",
    decide=common.every_outcome,
)
_STATEMENT = (
    r"W_1 \text{ covers modes like forward KL, and puts at least .8 times as much mass into the void between them, "
    r"where "
    r"the student is a Gaussian of "
)


@claim(
    "students.coverage",
    statement=_STATEMENT + r"free width}",
    source="kdtheory, H6",
    expected=Verdict.SUPPORTED,
    domain=_NETWORK,
    scope="the stored runs",
    uses=("modes.void-mass",),
)
def coverage() -> Evidence:
    """Wasserstein is no cure for the void: one context in chapter 05, many of them and a network here."""
    return _judged(COVERS, "covers", "network-free", "W1 covers, and fills the void, like forward KL.")


@coverage.control
def _() -> Evidence:
    """An empty void must not support it."""
    return _broken(COVERS, "The void is full although it is not.")


@claim(
    "students.coverage-table",
    statement=_STATEMENT + r"free width and every context has parameters of its own}",
    source="kdtheory, H6, table",
    expected=Verdict.SUPPORTED,
    domain=_TABLE,
    scope="the stored runs",
    uses=("students.coverage",),
)
def coverage_table() -> Evidence:
    """Without the network's share in it."""
    return _judged(COVERS, "covers", "table-free", "W1 covers, and fills the void, like forward KL.")


@coverage_table.control
def _() -> Evidence:
    """As above."""
    return _broken(COVERS, "The void is full although it is not.")


@claim(
    "students.coverage-fixed-width",
    statement=_STATEMENT + r"the width of one mode}",
    source="kdtheory, H6, fixed width",
    expected=Verdict.UNSUPPORTED,
    domain=_FIXED,
    scope="the stored runs",
    uses=("modes.location-fits",),
)
def coverage_fixed_width() -> Evidence:
    """Forward KL takes the mean, in the void; W1 a median, near the larger mode."""
    return _judged(COVERS, "covers", "network-fixed", "W1 covers, and fills the void, like forward KL.")


@coverage_fixed_width.control
def _() -> Evidence:
    """As above."""
    return _broken(COVERS, "The void is full although it is not.")


@claim(
    "students.least-void",
    statement=r"\text{Reverse KL, skew reverse KL and Jensen-Shannon put less mass into the void than forward KL "
    r"and } W_1",
    source="kdtheory, H6, least void",
    expected=Verdict.UNDECIDED,
    domain=_NETWORK,
    scope="the stored runs",
    uses=("modes.rkl-major-mode",),
)
def least_void() -> Evidence:
    """They pay for mass where the teacher has none."""
    return _judged(LEAST, "least", "network-free", "The seekers leave the void emptier than the coverers.")


@least_void.control
def _() -> Evidence:
    """One of them with the fuller void must not support it."""
    return _broken(LEAST, "The void is emptier although it is not.")
