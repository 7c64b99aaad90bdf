"""What a ground metric is worth to a limited student (H5), along which curve (H15), and whether repairs keep it (H13).

The rules were fixed, with their numbers, on pilot seeds (100 to 102) before the ten seeds they judge were run.
"""

from __future__ import annotations

from collections.abc import Callable

from kdtheory.claims.students import common
from kdtheory.ledger import Evidence, Verdict, claim, experiments

_DOMAIN = (
    "linear softmax students of rank 2 and networks with two hidden units, 30 tokens, 300 contexts to train on and 500 "
    "held out, full teacher distributions, ground metric: average-linkage tree of the teacher's token embeddings, "
    "teacher and metric drawn anew for every seed, Adam from a cold start"
)
_REFUTED = "refuted"
Decisions = dict[str, str]


def _measured(hypothesis: str) -> Callable[[], tuple[Decisions, int, bool]]:
    return lambda: common.verdict("metric", hypothesis)


def _by_student(decisions: Decisions) -> dict[str, dict[str, Decisions]]:
    """Kind of student -> loss -> outcome -> decision; outcomes are called "what, loss, kind"."""
    found: dict[str, dict[str, Decisions]] = {}
    for outcome, word in decisions.items():
        what, loss, kind = outcome.rsplit(", ", 2)
        found.setdefault(kind, {}).setdefault(loss, {})[what] = word
    return found


def _loss(outcomes: Decisions) -> bool | None:
    """All four outcomes supported: True. One refuted, or an interval that includes 0: False."""
    if _REFUTED in outcomes.values():
        return False
    if any(word == "undecided" for what, word in outcomes.items() if what.startswith("sign")):
        return False
    return True if set(outcomes.values()) == {"supported"} else None


def _good_metric(decisions: Decisions) -> bool | None:
    """For both kinds of student some loss has to pass; a kind for which every loss fails is enough against it."""
    kinds = [[_loss(outcomes) for outcomes in losses.values()] for losses in _by_student(decisions).values()]
    if any(all(found is False for found in losses) for losses in kinds):
        return False
    return True if kinds and all(True in losses for losses in kinds) else None


def _rule(cost: str) -> experiments.Rule:
    return experiments.Rule(
        metric=f"held-out gain in {cost} over forward KL's student (share of the latter's {cost}, original metric), "
        "its forward KL over forward KL's, and the gain after training on the permuted tree; paired over seeds, 95 % t "
        "intervals, exact sign-flip p with Holm",
        supported_if="for either kind of student, with W1 or with FKL followed by W1: the gain is at least .10, the "
        "ratio of forward KL is above 1, and the permuted tree's gain is below half of the gain",
        unsupported_if="for one kind of student, with both: the gain is below .10, or its interval includes 0, or "
        "forward KL is not raised, or the permuted tree keeps at least half",
        decide=_good_metric,
    )


D_COST, EXCESS = _rule("d-cost"), _rule("excess d-cost")
_NAMES = [f"{loss}, {kind}" for kind in ("rank 2", "two hidden units") for loss in ("W1", "FKL→W1")]


def _kept_when_scrambled() -> tuple[Decisions, int, bool]:
    """A gain of which every scrambled metric keeps half."""
    found = {f"{what}, {name}": "supported" for name in _NAMES for what in ("gain", "sign of the gain", "ratio")}
    return found | {f"scrambled, {name}": _REFUTED for name in _NAMES}, 10, True


@claim(
    "students.metric-gain",
    statement=r"\text{Where the student is limited and the cost is } d \text{, training on } W_1 \text{ (or on FKL, "
    r"then on } W_1\text{) lowers the held-out expected } d\text{-cost by at least 10 \% and raises FKL}",
    source="kdtheory, H5",
    expected=Verdict.UNSUPPORTED,
    domain=_DOMAIN,
    scope="the stored runs",
)
def metric_gain() -> Evidence:
    """Most of the d-cost is the teacher's own uncertainty, which no student can save."""
    return experiments.judge(D_COST, _measured("H5"), says="W1 lowers the d-cost of limited students by a tenth.")


@metric_gain.control
def _() -> Evidence:
    """A gain that a scrambled metric keeps is not the metric's."""
    return experiments.judge(D_COST, _kept_when_scrambled, says="Any metric will do.")


@claim(
    "students.metric-gain-excess",
    statement=r"\text{The same for the excess } d\text{-cost over the teacher's own best decisions}",
    source="kdtheory, H5",
    expected=Verdict.UNSUPPORTED,
    domain=_DOMAIN,
    scope="the stored runs",
    uses=("students.metric-gain",),
)
def metric_gain_excess() -> Evidence:
    """The part of the d-cost that a student can save."""
    measured = _measured("H5 excess")
    return experiments.judge(EXCESS, measured, says="W1 lowers the excess d-cost of limited students by a tenth.")


@metric_gain_excess.control
def _() -> Evidence:
    """As above."""
    return experiments.judge(EXCESS, _kept_when_scrambled, says="Any metric will do.")


CONTROLS = experiments.Rule(
    metric="held-out gain in d-cost of W1's student over forward KL's, original metric, after training on the permuted "
    "tree, on a tree of unrelated points, on the 0-1 metric, and at full rank; paired over seeds",
    supported_if="below .05 in all seven",
    unsupported_if="above .05 in any",
    decide=common.every_outcome,
)


@claim(
    "students.metric-gain-elsewhere",
    statement=r"W_1 \text{ does not win on a metric that means nothing, nor where the student can be the teacher}",
    source="kdtheory, H5, controls",
    expected=Verdict.SUPPORTED,
    domain=_DOMAIN,
    scope="the stored runs",
    uses=("students.metric-gain",),
)
def metric_gain_elsewhere() -> Evidence:
    """Conditions (a) and (b) of the bound on task losses, each broken in turn."""
    return experiments.judge(CONTROLS, _measured("H5 controls"), says="No gain without capacity limit and metric.")


@metric_gain_elsewhere.control
def _() -> Evidence:
    """A gain on one meaningless metric must not support it."""
    found = {"gain in d-cost, scrambled metric": "supported", "gain in d-cost, random metric": _REFUTED}
    return experiments.judge(CONTROLS, lambda: (found, 10, True), says="No gain although there is one.")


CURVE = experiments.Rule(
    metric="over nine metrics from the true tree to the permuted one: Spearman's correlation, per seed, of W1's gain "
    "in |E_p l - E_q l| over forward KL with corr(d(i, j), |l_i - l_j|), l the first axis of the embeddings; and the "
    "gain at the permuted end",
    supported_if="for both kinds of student the correlation is at least .5 and the gain at the end within .05 of 0",
    unsupported_if="for either, the correlation is below .5 or the gain at the end further than .05 from 0",
    decide=common.every_outcome,
)


@claim(
    "students.metric-gain-curve",
    statement=r"\text{The gain of } W_1 \text{ on a task loss } l \text{ grows with } \rho = \mathrm{corr}(d(i,j), "
    r"|l_i - l_j|) \text{ and is zero at } \rho \approx 0",
    source="kdtheory, H15",
    expected=Verdict.UNSUPPORTED,
    domain=_DOMAIN,
    scope="the stored runs",
    uses=("students.metric-gain",),
)
def metric_gain_curve() -> Evidence:
    """The Lipschitz constant of the task decides what W1 controls."""
    return experiments.judge(CURVE, _measured("H15"), says="The gain follows the metric's correlation with the task.")


@metric_gain_curve.control
def _() -> Evidence:
    """A gain that grows with ρ and is not zero at ρ = 0 must not support it."""
    found = {"Spearman of gain and ρ, rank 2": "supported", "gain on the scrambled metric, rank 2": _REFUTED}
    return experiments.judge(CURVE, lambda: (found, 10, True), says="It need not begin at zero.")


def _repaired(decisions: Decisions) -> bool | None:
    """Half of nothing is no gain: where W1 itself gains nothing, this decides nothing."""
    own = [word for outcome, word in decisions.items() if outcome.startswith("sign of W1's own gain")]
    if not own or any(word != "supported" for word in own):
        return None
    return common.every_outcome(decisions)


REPAIRS = experiments.Rule(
    metric="held-out gain in d-cost over forward KL's student, minus half of W1's gain; paired over seeds",
    supported_if="at least 0 for the natural-gradient surrogate and for FKL + λ S_ε, with both kinds of student",
    unsupported_if="below 0 for any of these four; undecided unless W1's own gain is above 0 for both kinds",
    decide=_repaired,
)


@claim(
    "students.repairs-keep-metric-gain",
    statement=r"W_1 \text{ with its natural gradient, and FKL} + \lambda S_\varepsilon \text{, reach at least half of "
    r"the gain that } W_1 \text{ has where a limited student is judged by } d",
    source="kdtheory, H13",
    expected=Verdict.UNDECIDED,
    domain=_DOMAIN,
    scope="the stored runs",
    uses=("students.metric-gain",),
)
def repairs_keep_metric_gain() -> Evidence:
    """A repair of the saturated start must not cost what the metric is for."""
    return experiments.judge(REPAIRS, _measured("H13"), says="The repaired losses keep half of W1's gain.")


@repairs_keep_metric_gain.control
def _() -> Evidence:
    """A repair that loses more than half of a gain that is there must not support it."""
    found = {"sign of W1's own gain in d-cost, rank 2": "supported", "minus half of W1's, natural W1, rank 2": _REFUTED}
    return experiments.judge(REPAIRS, lambda: (found, 10, True), says="Half of the gain is kept although it is lost.")
