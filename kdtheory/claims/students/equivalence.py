"""H3: whether the loss stops mattering once the student can be its teacher, on networks that are really trained.

Theorem 1 of chapter 05 says that the minimiser is one; it does not say that training arrives there.
"""

from __future__ import annotations

from kdtheory.claims.students import common
from kdtheory.ledger import Evidence, Verdict, claim, experiments

_SOURCE = "kdtheory, H3"
_LOSSES = r"\text{FKL, RKL, JSD, SKL and SRKL } (\alpha = 0.1)"
_DOMAIN = (
    "one-hidden-layer teachers and students, {}, 100 contexts, 30 tokens, shared start on hard labels sampled from the "
    "teacher, full-batch Adam, rate per loss"
)
_WIDE = _DOMAIN.format("256 hidden units (over-capacity)")
_TV = "total variation between the students of {}, mean over {} contexts, over that between start and teacher"

RULE = experiments.Rule(
    metric=_TV.format("every two of the five losses", "the trained")
    + "; forward KL of each of the five to the teacher over the start's; geometric means over seeds",
    supported_if="all ten distances are at most .10 and all five shares of forward KL at most .01",
    unsupported_if="some distance exceeds .25, or some share of forward KL .0625",
    decide=common.every_outcome,
)
UNSEEN = experiments.Rule(
    metric=_TV.format("every two of the five losses", "held-out") + ", geometric mean over seeds",
    supported_if="all ten are at most .10",
    unsupported_if="one exceeds .25",
    decide=common.every_outcome,
)
TRANSPORT = experiments.Rule(
    metric=_TV.format("forward KL and of total variation, and of forward KL and of W1", "the trained")
    + "; forward KL of the latter two to the teacher over the start's; geometric means over seeds",
    supported_if="both distances are at most .10 and both shares of forward KL at most .01",
    unsupported_if="one distance exceeds .25, or one share of forward KL .0625",
    decide=common.every_outcome,
)
CAPACITY = experiments.Rule(
    metric=_TV.format("forward and of reverse KL", "the trained") + ", geometric mean over seeds",
    supported_if="at least .25",
    unsupported_if="at most .10",
    decide=common.every_outcome,
)
_ONE_APART = {"fkl and rkl": "supported", "fkl and srkl": "refuted"}


@claim(
    "students.equivalence",
    statement=_LOSSES + r"\text{ lead an over-capacity student from the same start to the same } q",
    source=_SOURCE,
    expected=Verdict.SUPPORTED,
    domain=_WIDE,
    scope="the stored runs",
    uses=("modes.realisable",),
)
def equivalence() -> Evidence:
    """One minimiser; what training adds is whether the students get there."""
    measure = lambda: common.verdict("equivalence", "H3", part="main")  # noqa: E731
    return experiments.judge(RULE, measure, says="The five losses end as one student, and that is the teacher.")


@equivalence.control
def _() -> Evidence:
    """Two students that ended apart must not support it."""
    return experiments.judge(RULE, lambda: (_ONE_APART, 10, True), says="One student although two are apart.")


@claim(
    "students.equivalence-unseen",
    statement=_LOSSES + r"\text{ lead an over-capacity student to the same } q \text{ on contexts it has not seen}",
    source=_SOURCE,
    expected=Verdict.UNDECIDED,
    domain=_WIDE.replace("100 contexts", "100 contexts to train on and 100 held out"),
    scope="the stored runs",
    uses=("students.equivalence",),
)
def equivalence_unseen() -> Evidence:
    """No theorem: an over-capacity network is free there. Nearly linear training, though, would give one answer."""
    measure = lambda: common.verdict("equivalence", "H3", part="unseen")  # noqa: E731
    return experiments.judge(UNSEEN, measure, says="The five losses end as one student on unseen contexts too.")


@equivalence_unseen.control
def _() -> Evidence:
    """As above."""
    return experiments.judge(UNSEEN, lambda: (_ONE_APART, 10, True), says="One student although two are apart.")


@claim(
    "students.equivalence-transport",
    statement=r"\text{TV and } W_1 \text{ lead an over-capacity student to the same } q \text{ as FKL}",
    source=_SOURCE,
    expected=Verdict.UNSUPPORTED,
    domain=_WIDE + ", tokens on a line for W1",
    scope="the stored runs",
    uses=("modes.realisable",),
)
def equivalence_transport() -> Evidence:
    """The same minimiser; but neither gradient shrinks on the way, so a constant step does not settle."""
    measure = lambda: common.verdict("equivalence", "H3", part="transport")  # noqa: E731
    return experiments.judge(TRANSPORT, measure, says="TV's and W1's students end as forward KL's.")


@equivalence_transport.control
def _() -> Evidence:
    """A student that stalled must not support it."""
    found = {"fkl and tvd": "supported", "forward KL of w1": "refuted"}
    return experiments.judge(TRANSPORT, lambda: (found, 10, True), says="Both arrive although one stalled.")


@claim(
    "students.equivalence-capacity",
    statement=r"\text{A student of two hidden units ends elsewhere under FKL than under RKL}",
    source=_SOURCE,
    expected=Verdict.SUPPORTED,
    domain=_DOMAIN.format("2 hidden units"),
    scope="the stored runs",
    uses=("students.equivalence",),
)
def equivalence_capacity() -> Evidence:
    """The contrast: the margin of `students.equivalence` must be able to fail."""
    measure = lambda: common.verdict("equivalence", "H3", part="narrow")  # noqa: E731
    return experiments.judge(CAPACITY, measure, says="Without capacity the loss decides where the student ends.")


@equivalence_capacity.control
def _() -> Evidence:
    """Two students within the margin must not support it."""
    return experiments.judge(CAPACITY, lambda: ({"fkl and rkl": "refuted"}, 10, True), says="Apart although equal.")
