"""H12: forward KL for the head and reverse KL for the tail, asked of students that have been trained on text.

From uniform logits it is a theorem (Theorem 10 of chapter 05). Distillation does not start there.
"""

from __future__ import annotations

from kdtheory.claims.students import common
from kdtheory.ledger import Evidence, Verdict, claim, experiments

_SOURCE = "kdtheory, H12"
_DOMAIN = (
    "teacher: Zipf's law (exponent 1.2, 500 tokens) over an order that depends on the context through a network; "
    "student: one hidden layer of 128; corpus of 10000 contexts, one hard label each"
)
_SHARE = (
    "share of contexts in which a larger part of the L1 logit gradient falls on the head (fewest tokens with more than "
    "half of the teacher's mass) under forward than under reverse KL, mean over seeds, "
)

COLD = experiments.Rule(
    metric=_SHARE + "at uniform logits and for the untrained network",
    supported_if="above .95 in both",
    unsupported_if="below .95 in one",
    decide=common.every_outcome,
)
WARM = experiments.Rule(
    metric=_SHARE + "for the epoch of lowest validation cross-entropy, on held-out contexts and on those of the corpus",
    supported_if="between .50 and .75 in both",
    unsupported_if="above .90 or below .35 in one",
    decide=common.every_outcome,
)
FIT = experiments.Rule(
    metric="share of the mended error (decrease of the sum of |p - q|) on the head when total variation to the "
    "teacher was first down by .10 of its start: forward KL's student minus reverse KL's, mean over seeds",
    supported_if="above .10",
    unsupported_if="below 0",
    decide=common.every_outcome,
)


@claim(
    "students.head-tail-cold",
    statement=r"\text{At the beginning FKL focuses on the head and RKL on the tail, if the student is untrained}",
    source=_SOURCE,
    expected=Verdict.SUPPORTED,
    domain=_DOMAIN,
    scope="the stored runs",
    uses=("modes.head-and-tail",),
)
def head_tail_cold() -> Evidence:
    """Uniform logits are the theorem's case; an untrained network is only close to them."""
    measure = lambda: common.verdict("head-tail", "H12", part="cold")  # noqa: E731
    return experiments.judge(COLD, measure, says="Untrained students: the head is forward KL's.")


@head_tail_cold.control
def _() -> Evidence:
    """An untrained network that does otherwise must not support it."""
    found = {"uniform logits": "supported", "untrained network": "refuted"}
    return experiments.judge(COLD, lambda: (found, 10, True), says="Both although one does not.")


@claim(
    "students.head-tail",
    statement=r"\text{After training on hard labels FKL focuses more on the head than RKL }"
    r"\text{in 50 to 75 \% of contexts only}",
    source=_SOURCE,
    expected=Verdict.SUPPORTED,
    domain=_DOMAIN,
    scope="the stored runs",
    uses=("modes.head-and-tail", "students.head-tail-cold"),
)
def head_tail() -> Evidence:
    """Errors of a trained student fall on head and tail with either sign; nothing makes forward KL prefer the head."""
    measure = lambda: common.verdict("head-tail", "H12", part="warm")  # noqa: E731
    return experiments.judge(WARM, measure, says="After hard labels little of the head and tail rule is left.")


@head_tail.control
def _() -> Evidence:
    """Nearly all contexts on one side must not support it."""
    found = {"held out": "supported", "corpus": "refuted"}
    return experiments.judge(WARM, lambda: (found, 10, True), says="A weak majority although it is nearly all.")


_STATEMENT = r"\text{At the beginning FKL mends more on the head than RKL, and RKL more on the tail, from "
_ADAM = "; both divergences with Adam at one rate"


@claim(
    "students.head-tail-fit",
    statement=_STATEMENT + r"a student trained on hard labels}",
    source=_SOURCE,
    expected=Verdict.SUPPORTED,
    domain=_DOMAIN + _ADAM,
    scope="the stored runs",
    uses=("students.head-tail",),
)
def head_tail_fit() -> Evidence:
    """What the shares of a gradient are meant to explain; between the two stand a network and Adam."""
    measure = lambda: common.verdict("head-tail", "H12", part="fit")  # noqa: E731
    return experiments.judge(FIT, measure, says="From hard labels, forward KL mends the head sooner than reverse KL.")


@head_tail_fit.control
def _() -> Evidence:
    """A student of reverse KL that mends the head sooner must not support it."""
    return experiments.judge(FIT, lambda: ({"tenth": "refuted"}, 10, True), says="Sooner although later.")


@claim(
    "students.head-tail-fit-cold",
    statement=_STATEMENT + r"an untrained student}",
    source=_SOURCE,
    expected=Verdict.UNDECIDED,
    domain=_DOMAIN + _ADAM,
    scope="the stored runs",
    uses=("students.head-tail-cold", "modes.head-and-tail"),
)
def head_tail_fit_cold() -> Evidence:
    """There the theorem on the gradients holds, context by context."""
    measure = lambda: common.verdict("head-tail", "H12", part="fit-cold")  # noqa: E731
    return experiments.judge(FIT, measure, says="Untrained, forward KL mends the head sooner than reverse KL.")


@head_tail_fit_cold.control
def _() -> Evidence:
    """The reverse must not support it."""
    return experiments.judge(FIT, lambda: ({"tenth": "refuted"}, 10, True), says="Sooner although later.")
