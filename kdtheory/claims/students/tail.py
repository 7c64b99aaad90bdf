"""H4: how the time to fit a token depends on its probability, under f-divergences and under smoothed transport.

The rules were fixed, with their numbers, on other seeds (100 to 102) before the ten seeds they judge were run.
"""

from __future__ import annotations

from functools import partial

from kdtheory.claims.students import common
from kdtheory.ledger import Evidence, Verdict, claim, experiments

_SETTING = (
    "126 tokens, Zipf teacher of exponent 1, table of logits that begins at the teacher's plus Gaussian noise of .2 "
    "nats, "
    "gradient flow; time at which the root mean square error of an octave of ranks (from rank 4 on) has fallen to 1/e"
)
_EMBEDDING = _SETTING + "; Euclidean distances of clustered random embeddings, mean distance 1"
_LINE = _SETTING + "; random places on a line, mean distance 1"
_SLOPES = "least-squares slope of log time against log probability, mean over seeds"
_REGION = "slope of the Sinkhorn divergence minus slope of forward KL"


def _judged(rule: experiments.Rule, part: str, says: str) -> Evidence:
    return experiments.judge(rule, partial(common.verdict, "tail", "H4", part=part), says=says)


def _broken(rule: experiments.Rule, says: str) -> Evidence:
    return experiments.judge(rule, lambda: ({"one": "supported", "other": "refuted"}, 10, True), says=says)


def _difference(metric: str) -> experiments.Rule:
    return experiments.Rule(
        metric=f"{_SLOPES}: {_REGION}, {metric}",
        supported_if="the interval lies in [-1.4, -.6]",
        unsupported_if="it lies below -1.4 or above -.6",
        decide=common.every_outcome,
    )


EMBEDDING = _difference("embeddings, ε = mean distance")
SMALL = _difference("embeddings, ε = .3 mean distances")
LINE = _difference("tokens on a line, ε = mean distance")


@claim(
    "students.tail",
    statement=r"\text{With tokens at embeddings, } S_\varepsilon \text{ needs a time } \propto 1/p_r^2 "
    r"\text{ for tokens of probability } p_r, \text{ where forward KL needs } 1/p_r",
    source="kdtheory, H4",
    expected=Verdict.SUPPORTED,
    domain=_EMBEDDING,
    scope="the stored runs",
    uses=("geometry.sinkhorn-tail", "geometry.fisher-spectrum"),
)
def tail() -> Evidence:
    """The theorem bounds the curvature along one token; here all tokens move at once."""
    return _judged(EMBEDDING, "main", "Smoothed transport pays one more power of the probability.")


@tail.control
def _() -> Evidence:
    """One difference outside its interval must not support it."""
    return _broken(EMBEDDING, "One more power although there is none.")


@claim(
    "students.tail-small-epsilon",
    statement=r"\text{The same with } \varepsilon = .3 \text{ mean distances}",
    source="kdtheory, H4, smaller ε",
    expected=Verdict.SUPPORTED,
    domain=_EMBEDDING,
    scope="the stored runs",
    uses=("students.tail",),
)
def tail_small_epsilon() -> Evidence:
    """Where the bounds of chapter 04 say little, their constant being of the order exp(3 diam/ε)."""
    return _judged(SMALL, "epsilon", "One more power with a smaller ε too.")


@tail_small_epsilon.control
def _() -> Evidence:
    """As above."""
    return _broken(SMALL, "One more power although there is none.")


@claim(
    "students.tail-line",
    statement=r"\text{With tokens on a line, } S_\varepsilon \text{ needs a time } \propto 1/p_r^2, \text{ where "
    r"forward "
    r"KL needs } 1/p_r",
    source="kdtheory, H4, line",
    expected=Verdict.UNSUPPORTED,
    domain=_LINE,
    scope="the stored runs",
    uses=("students.tail",),
)
def tail_line() -> Evidence:
    """On a line frequent neighbours crowd around a rare token: slower still is expected."""
    return _judged(LINE, "line", "One more power of the probability on a line.")


@tail_line.control
def _() -> Evidence:
    """As above."""
    return _broken(LINE, "One more power although there is none.")


CROWDED = experiments.Rule(
    metric=f"{_SLOPES}: {_REGION}, tokens on a line, plus 1 + 1/s for Zipf's exponent s = 1",
    supported_if="the interval lies in [-.4, .4]",
    unsupported_if="it lies below -.4 or above .4",
    decide=common.every_outcome,
)


@claim(
    "students.tail-line-crowded",
    statement=r"\text{With tokens on a line, } S_\varepsilon \text{ needs a time } \propto 1/p_r^{2 + 1/s} \text{ "
    r"for } "
    r"p_r \propto r^{-s}",
    source="kdtheory, H4, crowded line",
    expected=Verdict.UNDECIDED,
    domain=_LINE,
    scope="the stored runs",
    uses=("students.tail-line",),
)
def tail_line_crowded() -> Evidence:
    """The r-th token has a more frequent one at distance 1/r; only that gap tells it apart."""
    return _judged(CROWDED, "line-expected", "A further factor r on a line.")


@tail_line_crowded.control
def _() -> Evidence:
    """As above."""
    return _broken(CROWDED, "A further factor although there is none.")


DIVERGENCES = experiments.Rule(
    metric=f"{_SLOPES}: forward KL, reverse KL, Jensen-Shannon, skew KL and skew reverse KL (α = .1)",
    supported_if="all five intervals lie in [-1.2, -.8]",
    unsupported_if="one lies below -1.2 or above -.8",
    decide=common.every_outcome,
)


@claim(
    "students.tail-divergences",
    statement=r"\text{f-divergences fit a token of probability } p_r \text{ in a time } \propto 1/p_r",
    source="kdtheory, H4, divergences",
    expected=Verdict.SUPPORTED,
    domain=_SETTING,
    scope="the stored runs",
    uses=("geometry.curvature", "geometry.fisher-spectrum"),
)
def tail_divergences() -> Evidence:
    """They share one Hessian at the teacher up to a factor."""
    return _judged(DIVERGENCES, "divergences", "One power of the probability for all of them.")


@tail_divergences.control
def _() -> Evidence:
    """As above."""
    return _broken(DIVERGENCES, "One power although one has two.")


CLOSED = experiments.Rule(
    metric=f"{_SLOPES}: the flow's minus that of the flow linearised at the teacher, for the Sinkhorn divergence and "
    "forward KL, embeddings, first errors of .02 nats",
    supported_if="both intervals lie in [-.1, .1]",
    unsupported_if="one lies below -.1 or above .1",
    decide=common.every_outcome,
)


@claim(
    "students.tail-closed-form",
    statement=r"\text{The Hessian at the teacher predicts how the times of the flow depend on the probability}",
    source="kdtheory, H4, closed form",
    expected=Verdict.SUPPORTED,
    domain=_EMBEDDING.replace(".2 nats", ".02 nats"),
    scope="the stored runs",
    uses=("geometry.curvature", "geometry.sinkhorn-hessian"),
)
def tail_closed_form() -> Evidence:
    """The flow is integrated with numerical derivatives of the loss's gradient; the Hessian is not used there."""
    return _judged(CLOSED, "closed", "The closed form has the flow's slope.")


@tail_closed_form.control
def _() -> Evidence:
    """As above."""
    return _broken(CLOSED, "The slopes agree although one does not.")


ADAM = experiments.Rule(
    metric=f"{_SLOPES}, times in steps of Adam at rate .002: {_REGION}, embeddings",
    supported_if="the interval lies in [-.3, .3]",
    unsupported_if="it lies below -.3 or above .3",
    decide=common.every_outcome,
)


@claim(
    "students.tail-adam",
    statement=r"\text{Under Adam the tail is no slower for } S_\varepsilon \text{ than for forward KL}",
    source="kdtheory, H4, Adam",
    expected=Verdict.UNDECIDED,
    domain=_EMBEDDING.replace("gradient flow", "full-batch Adam"),
    scope="the stored runs",
    uses=("students.tail",),
)
def tail_adam() -> Evidence:
    """An optimiser that divides by the size of the gradient does not know that it is small."""
    return _judged(ADAM, "adam", "Adam removes the difference.")


@tail_adam.control
def _() -> Evidence:
    """As above."""
    return _broken(ADAM, "No difference although there is one.")
