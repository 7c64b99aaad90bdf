"""A shared network under Adam: who repairs contexts it starts confidently wrong, and where forward KL's lead ends.

The rules were fixed, with their numbers, on other seeds (100 to 102) before the ten seeds they judge were run.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from kdtheory.ledger import Evidence, Verdict, claim, experiments

_SETTING = (
    "two hidden tanh layers of width 64, 200 contexts of which 20 start with a wrong token leading by about 15 nats, "
    "20 tokens on a line, Adam, learning rate 0.001, 1500 full-batch steps"
)
_OTHERS = ("rkl", "jsd", "tvd", "skl", "srkl")
_ENDS = ("tabular",)
"""Conditions in which the factor was expected to fall below three;"""
_LASTS = (
    "sgd longer rate-0.01 rate-0.03 temperature-2 gap-1 gap-3 gap-5 gap-7 gap-9 bad-100 bad-200".split()  # noqa: SIM905
)
"""those in which it was expected to stay above. At temperature 4 nothing was predicted."""


@lru_cache(maxsize=1)
def _runs() -> Any:
    from kdtheory.students import controlled

    return controlled.stored("shared-network")


def _decided(metric: str, loss: str, condition: str = "main") -> str:
    rows = _runs().decisions["comparisons"]
    (row,) = [row for row in rows if (row["metric"], row["loss"], row["condition"]) == (metric, loss, condition)]
    return row["decision"].removeprefix("pilot: ")


def _every_seed_of_forward_kl_repaired(conditions: tuple[str, ...]) -> bool:
    rows = _runs().decisions["comparisons"]
    return all(row["reference_censored"] == 0 for row in rows if row["condition"] in conditions)


def _plateau(*losses: str) -> bool:
    rows = _runs().decisions["convergence"]
    return all(row["converged"] for row in rows if row["condition"] == "main" and row["loss"] in losses)


def _all(word: str, opposite: str) -> Any:
    """All decisions are `word`: supported; any is `opposite`: unsupported; between otherwise."""

    def decide(decisions: dict[str, str]) -> bool | None:
        if opposite in decisions.values():
            return False
        return True if all(decision == word for decision in decisions.values()) else None

    return decide


STALL = experiments.Rule(
    metric="W1-trained over forward-KL-trained student, paired ratios over seeds: steps until the bad contexts' mean "
    "total variation is at most 1/2 (a censored time counts as the budget), and their mean W1 after the budget",
    supported_if="in both, the 95 % t interval of the geometric mean lies above 3 and the Holm-adjusted sign-flip "
    "p-value of 3 is below .05, with no seed of forward KL censored",
    unsupported_if="in either, the interval lies below 3 with such a p-value",
    decide=_all("above", "below"),
)


def _stall() -> tuple[dict[str, str], int, bool]:
    found = {"repair time": _decided("repair_steps", "w1"), "final W1": _decided("w1", "w1")}
    return found, _runs().decisions["seeds"], _plateau("fkl", "w1")


@claim(
    "saturation.shared-network",
    statement=r"\text{In a shared network under Adam, } W_1 \text{ stalls on a saturated-wrong minority: it repairs it "
    r"at least 3 times slower than } \mathrm{FKL} \text{ and ends at least 3 times farther away, in } "
    r"W_1 \text{ itself}",
    source="kdtheory, Section 3.1",
    expected=Verdict.SUPPORTED,
    domain=_SETTING,
    scope="the stored runs",
)
def shared_network() -> Evidence:
    """The case people train in; the tabular theorems explain it."""
    return experiments.judge(STALL, _stall, says="W1 stalls where forward KL repairs, and loses in its own metric.")


@shared_network.control
def _() -> Evidence:
    """A final W1 below three times forward KL's must not support it, however slow the repair."""
    return experiments.judge(
        STALL, lambda: ({"repair time": "above", "final W1": "below"}, 10, True), says="W1 stalls."
    )


OTHERS = experiments.Rule(
    metric="reverse KL, Jensen-Shannon, total variation, skew KL and skew reverse KL (skew 0.1) over forward KL: "
    "paired ratios of the repair times, over seeds",
    supported_if="above 3 by the rule of saturation.shared-network, for every one of them",
    unsupported_if="below 3 by that rule, for any of them",
    decide=_all("above", "below"),
)


def _others() -> tuple[dict[str, str], int, bool]:
    found = {loss: _decided("repair_steps", loss) for loss in _OTHERS}
    return found, _runs().decisions["seeds"], _every_seed_of_forward_kl_repaired(("main",))


@claim(
    "saturation.shared-network-others",
    statement=r"\text{There every loss whose logit gradient vanishes at a confident mistake takes at least 3 times as "
    r"long as } \mathrm{FKL}",
    source="kdtheory, Section 3.1",
    expected=Verdict.SUPPORTED,
    domain=_SETTING,
    scope="the stored runs",
    uses=("saturation.shared-network",),
)
def shared_network_others() -> Evidence:
    """A time needs no plateau, only that the faster loss has got there; censoring of the slower makes it smaller."""
    return experiments.judge(OTHERS, _others, says="Every other pure loss repairs at least 3 times slower.")


@shared_network_others.control
def _() -> Evidence:
    """One loss below the factor must not support it."""
    found = dict.fromkeys(_OTHERS, "above") | {"jsd": "below"}
    return experiments.judge(OTHERS, lambda: (found, 10, True), says="All are slow although JSD is not.")


TERM = experiments.Rule(
    metric="forward KL + λ W1 over forward KL (λ = 1, line of length 1): paired ratio of the repair times, over seeds",
    supported_if="the 95 % t interval of the geometric mean lies below 1.5, Holm-adjusted sign-flip p below .05, and "
    "no seed of either is censored",
    unsupported_if="the interval lies above 1.5 with such a p-value",
    decide=_all("below", "above"),
)


def _term() -> tuple[dict[str, str], int, bool]:
    found = {"repair time": _decided("repair_steps", "fkl+w1")}
    return found, _runs().decisions["seeds"], _every_seed_of_forward_kl_repaired(("main",))


@claim(
    "saturation.network-kl-term",
    statement=r"\text{There } \mathrm{FKL} + \lambda W_1 \text{ repairs within 1.5 times the steps of } \mathrm{FKL}",
    source="kdtheory, Section 3.1",
    expected=Verdict.SUPPORTED,
    domain=_SETTING,
    scope="the stored runs",
    uses=("saturation.shared-network",),
)
def network_kl_term() -> Evidence:
    """A KL term keeps the gradient alive whatever stands beside it."""
    return experiments.judge(TERM, _term, says="A forward-KL term removes the stall of W1.")


@network_kl_term.control
def _() -> Evidence:
    """A student that needs more than 1.5 times the steps must not support it."""
    return experiments.judge(TERM, lambda: ({"repair time": "above"}, 10, True), says="It repairs as fast.")


def _as_predicted(decisions: dict[str, str]) -> bool | None:
    expected = dict.fromkeys(_ENDS, "below") | dict.fromkeys(_LASTS, "above")
    if any({decisions[name], word} == {"above", "below"} for name, word in expected.items()):
        return False
    return True if all(decisions[name] == word for name, word in expected.items()) else None


ENDS = experiments.Rule(
    metric="W1 over forward KL: paired ratio of the repair times, over seeds, one condition changed at a time",
    supported_if="below 3 for tabular logits (Adam, 0.05), and above 3 under SGD (0.1), with 3000 steps, with Adam's "
    "rate 0.01 or 0.03, at temperature 2, for gaps 1, 3, 5, 7, 9, and with half or all contexts bad",
    unsupported_if="decided the other way in any of these conditions",
    decide=_as_predicted,
)


def _ends() -> tuple[dict[str, str], int, bool]:
    conditions = (*_ENDS, *_LASTS)
    found = {name: _decided("repair_steps", "w1", name) for name in conditions}
    return found, _runs().decisions["seeds"], _every_seed_of_forward_kl_repaired(conditions)


@claim(
    "saturation.where-the-advantage-ends",
    statement=r"\text{The factor 3 in repair time disappears for tabular logits under Adam; under SGD, with more "
    r"steps, larger rates, milder gaps, a mild temperature or more bad contexts the network keeps it}",
    source="kdtheory, Section 3.1",
    expected=Verdict.SUPPORTED,
    domain=_SETTING + "; one of these changed at a time, 800 steps (1500 with all contexts bad)",
    scope="the stored runs",
    uses=("saturation.shared-network",),
)
def where_the_advantage_ends() -> Evidence:
    """Adam rescales each logit of a table on its own; in a network the good contexts share the weights."""
    return experiments.judge(ENDS, _ends, says="Only the table escapes the factor three.")


@where_the_advantage_ends.control
def _() -> Evidence:
    """A table in which W1 stays three times slower must not support it."""
    found = dict.fromkeys(_LASTS, "above") | {"tabular": "above"}
    return experiments.judge(ENDS, lambda: (found, 10, True), says="The lead ends for tables although it does not.")
