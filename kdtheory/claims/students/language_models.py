"""Chapter 09: what stored student-teacher runs on real text say (section 9.5).

The rules were fixed in that section, with their numbers, before the ten seeds they judge were run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from kdtheory.claims.students import common
from kdtheory.ledger import Evidence, Verdict, claim, definition, experiments

if TYPE_CHECKING:
    import pandas as pd

Measure = tuple[dict[str, str], int, bool]
Pairs = Sequence[tuple[str, str, str]]
_DOMAIN = "two-layer transformer students of a four-layer teacher on real text, 512 tokens, shared warm start, AdamW"

definition(
    "students.classic-mixture",
    statement=r"L = a L_{soft} + (1 - a) L_{hard}; at temperature T, L_{soft} is multiplied by T^2",
    source="zhao2024week8, first summary slide; hinton2015distilling, Section 2",
    rows=("S0-01",),
)


# -- paired comparisons ------------------------------------------------------------------------------------------------
def _decide(decisions: dict[str, str]) -> bool | None:
    """Lower everywhere supports; higher anywhere does not; the rest is between. The word "pilot: " is not read."""
    words = [decision.removeprefix(common.PILOT) for decision in decisions.values()]
    if "higher" in words:
        return False
    return True if all(word == "lower" for word in words) else None


def _compared(wanted: Pairs) -> Measure:
    """Decisions of these (loss, metric, reference) in the stored run. Each carries its own plateau check.

    Raises
    ------
    LookupError
        If one was not compared: the rule and the stored run have come apart.
    """
    from kdtheory.students import controlled

    rows = {
        (row["loss"], row["metric"], row["reference"]): row
        for row in controlled.stored("students").decisions["comparisons"]
    }
    if missing := [key for key in wanted if key not in rows]:
        loss, metric, reference = missing[0]
        raise LookupError(f"the stored run of 'students' compares no {metric} of {loss} with that of {reference}")
    chosen = [rows[key] for key in wanted]
    decisions = {f"{row['loss']}, {row['metric']} against {row['reference']}": row["decision"] for row in chosen}
    return decisions, min(row["seeds"] for row in chosen), any(row["converged"] for row in chosen)


_BEATS: Pairs = [("w1", metric, reference) for metric in ("cross_entropy", "w1") for reference in ("fkl", "rkl")]
RULE = experiments.Rule(
    metric="held-out cross-entropy on real text, and W1 on the teacher's token tree: student trained on tree-W1 minus "
    "the student trained on forward KL, and minus the one on reverse KL, paired over training seeds",
    supported_if="lower by the three-way rule in both metrics against both references",
    unsupported_if="higher by the three-way rule in either metric against either reference",
    decide=_decide,
)


@claim(
    "students.wasserstein-beats-kl",
    statement=r"\text{For students that learn categorical distributions, Wasserstein is better than KLD and RKLD}",
    source="zhao2024week8, slide 'next week'",
    expected=Verdict.UNSUPPORTED,
    rows=("S0-26",),
    domain=_DOMAIN + ", ten training seeds",
    scope="the stored runs",
)
def wasserstein_beats_kl() -> Evidence:
    """Asked of the text and of W1's own metric: better on its own metric alone would be no surprise."""
    return experiments.judge(RULE, partial(_compared, _BEATS), says="W1 on the token tree beats both KLs.")


@wasserstein_beats_kl.control
def _() -> Evidence:
    """One metric in which W1 is worse, on ten converged seeds, must not support it."""
    places = {f"{loss}, {metric} against {reference}": "lower" for loss, metric, reference in _BEATS}
    places["w1, w1 against fkl"] = "higher"
    return experiments.judge(RULE, lambda: (places, 10, True), says="W1 beats both although it is worse in one metric.")


_HARD: Pairs = [("rkl+hard", "cross_entropy", "rkl"), ("w1+hard", "cross_entropy", "w1")]
HARD = experiments.Rule(
    metric="held-out cross-entropy on real text: student trained on half reverse KL and half hard labels minus the "
    "student trained on reverse KL, and the same for tree-W1, paired over training seeds",
    supported_if="lower by the three-way rule for both",
    unsupported_if="higher by the three-way rule for either",
    decide=_decide,
)


@claim(
    "students.text-hard-term",
    statement=r"\text{A hard-label term beside RKL, and beside } W_1 \text{, keeps the student from drifting from the "
    r"text}",
    source="forumpost, training",
    expected=Verdict.SUPPORTED,
    rows=("S3-15",),
    domain=_DOMAIN,
    scope="the stored runs",
    uses=("students.classic-mixture",),
)
def text_hard_term() -> Evidence:
    """Drift is read as cross-entropy of the text, which no divergence to the teacher looks at."""
    return experiments.judge(HARD, partial(_compared, _HARD), says="Hard labels lower the cross-entropy of the text.")


@text_hard_term.control
def _() -> Evidence:
    """One mixture that is worse must not support it."""
    found = {"rkl+hard": "lower", "w1+hard": "higher"}
    return experiments.judge(HARD, lambda: (found, 10, True), says="Both are lower although one is higher.")


# -- head and tail along the curves ------------------------------------------------------------------------------------
_WEAK, _STRONG, _REVERSED = (0.50, 0.75), 0.90, 0.35
HEAD_TAIL = experiments.Rule(
    metric="share of positions of validation text in which a larger part of the L1 logit gradient falls on the head "
    "(fewest tokens with more than half of the teacher's mass) under forward than under reverse KL, at every point of "
    "the learning curves of forward and of reverse KL, mean over seeds",
    supported_if="between .50 and .75 at every point of both curves",
    unsupported_if="above .90 or below .35 at one",
    decide=lambda found: common.every_outcome({f"{loss}, {word}": word for loss in found for word in found[loss]}),
)


def _word(shares: Sequence[float]) -> str:
    """What the interval of the mean over seeds says at one point of a curve."""
    from kdtheory.students import statistics

    _, low, high = statistics.interval(shares)
    if _WEAK[0] <= low and high <= _WEAK[1]:
        return "supported"
    return "refuted" if low > _STRONG or high < _REVERSED else "undecided"


def _along(curves: pd.DataFrame) -> tuple[dict[str, dict[str, int]], int, bool]:
    """Loss -> how many points of its curve say what; shares along a curve need no plateau."""
    from kdtheory.students.evaluate import HEAD_SHARES

    if "head_share" not in curves:
        raise LookupError("the curves of the stored run of 'students' hold no head_share")
    points = curves[curves["loss"].isin(HEAD_SHARES)].groupby(["loss", "step"])["head_share"]
    words = points.agg(list).map(_word)
    return {loss: dict(Counter(words[loss])) for loss in HEAD_SHARES}, int(points.size().min()), True


def _stored_shares() -> tuple[dict[str, dict[str, int]], int, bool]:
    from kdtheory.students import controlled

    return _along(controlled.stored("students").curves)


@claim(
    "students.text-head-tail",
    statement=r"\text{On real text, while a student trained on hard labels is distilled, FKL focuses more on the head "
    r"than RKL in 50 to 75 \% of positions only}",
    source="kdtheory, H12, on text",
    expected=Verdict.SUPPORTED,
    domain=_DOMAIN,
    scope="the stored runs",
    uses=("modes.head-and-tail", "students.head-tail"),
)
def text_head_tail() -> Evidence:
    """From the warm start to the end, along the paths of both divergences."""
    says = "On text, too, little of the head and tail rule is left after hard labels, and all along."
    return experiments.judge(HEAD_TAIL, _stored_shares, says=says)


@text_head_tail.control
def _() -> Evidence:
    """A single point at which nearly all positions lie on one side must not support it."""
    found = {"fkl": {"supported": 13}, "rkl": {"supported": 12, "refuted": 1}}
    return experiments.judge(HEAD_TAIL, lambda: (found, 10, True), says="A weak majority although it is nearly all.")


# -- the model's own metric --------------------------------------------------------------------------------------------
METRIC = experiments.Rule(
    metric="pairs of teacher and forward KL's student at a thousand positions of the test text, ten bins of equal "
    "numbers ordered by TV: difference of the 10th and 90th percentile of W1/TV over its median, median over bins, "
    "mean over seeds; W1 on Euclidean distances between the teacher's output embeddings",
    supported_if="below .25",
    unsupported_if="above .25",
    decide=common.every_outcome,
)


@claim(
    "students.text-metric-is-variation",
    statement=r"\text{On distances between a language model's own token embeddings, } W_1 \text{ of teacher and "
    r"student is nearly a multiple of TV}",
    source="kdtheory, H17",
    expected=Verdict.UNDECIDED,
    domain=_DOMAIN,
    scope="the stored runs",
    uses=("geometry.w1-against-tv",),
)
def text_metric_is_variation() -> Evidence:
    """Where it is, a transport loss on that metric is total variation under another name."""
    measure: Callable[[], Measure] = partial(common.verdict, "pairs", "H17")
    return experiments.judge(METRIC, measure, says="At equal TV, W1 on the model's own metric hardly varies.")


@text_metric_is_variation.control
def _() -> Evidence:
    """A metric on which the ratio spreads must not support it."""
    return experiments.judge(METRIC, lambda: ({"spread": "refuted"}, 10, True), says="No spread although there is.")
