"""Sections 7.7 and 7.8 of chapter 07: claims on published losses, and broken formulas that must be caught."""

from fractions import Fraction

import numpy as np
import pytest

from kdtheory import claims
from kdtheory.claims.transport import assisted, batch_operations, batchwise, class_cost, independent
from kdtheory.claims.transport import sorted as by_rank
from kdtheory.ledger import REGISTRY, Claim, Verdict
from kdtheory.ledger.runner import run_claim

claims.load()
MODULES = (assisted, batch_operations, batchwise, class_cost, independent, by_rank)
OURS = [
    item
    for item in REGISTRY
    if isinstance(item, Claim) and item.check.__module__ in {module.__name__ for module in MODULES}
]


@pytest.mark.parametrize("item", OURS, ids=lambda item: item.id)
def test_verdict_is_the_recorded_one_and_controls_are_caught(item):
    assert run_claim(item).failures == ()


def test_the_row_of_the_source_is_settled_once():
    assert [item.id for item in OURS if "S1-59" in item.rows] == ["transport.sinkd-batch"]
    assert REGISTRY["transport.sinkd-batch"].expected is Verdict.PROVED_IF


def test_counted_operations_by_hand():
    # one sample, one class, one round: |p - q| 2, kernel 3, two divisions, one product
    assert batch_operations.operations(1, 1, 1) == 8
    # two samples, one class: cost 8, kernel 12, per round 4 additions and 8 divisions, 4 products and 3 additions
    assert batch_operations.operations(2, 1, 3) == 8 + 12 + 3 * 12 + 7


def test_two_rows_with_disjoint_support():
    k = np.exp(-20)
    assert batch_operations.sinkd(np.eye(2), np.eye(2)) == pytest.approx(4 * k / (1 + k), rel=1e-12)


def test_spot_values():
    assert by_rank.uld((Fraction(1, 2), Fraction(1, 2)), (Fraction(1), Fraction(0))) == 1
    assert independent.emo(independent.TEACHER, independent.LINE, (0, 1, 0)) == Fraction(2, 5) + Fraction(7, 10)
    assert class_cost.escort((Fraction(2, 3), Fraction(1, 3)), (Fraction(1, 2),) * 2) == (
        Fraction(2, 3),
        Fraction(1, 3),
    )
    assert class_cost.aligned((Fraction(0), Fraction(1)), (Fraction(5), Fraction(3))) == 1
    assert assisted.far((Fraction(1), Fraction(0)), (Fraction(0), Fraction(1))) == 1


@pytest.mark.parametrize(
    ("module", "name", "broken", "claim"),
    [
        (
            batch_operations,
            "sinkd",
            lambda p, q, *_, **__: float(np.abs(p - q).sum()) / 2,
            "transport.sinkd-one-sample",
        ),
        (batch_operations, "sinkd", lambda p, q, *_, **__: float(np.abs(p - q).sum()), "transport.sinkd-permutation"),
        (batch_operations, "operations", lambda b, d, t, **_: b * b * (d + t), "transport.sinkd-batch"),
        (
            batchwise,
            "by_loops",
            lambda p, q, e, t, exp: batch_operations.by_loops(p, q, e, t + 1, exp),
            "transport.sinkd-rounds",
        ),
        (batchwise, "by_loops", lambda p, q, e, t, exp: exp(p[0][0] - q[0][0]), "transport.sinkd-zero"),
        (by_rank, "uld", lambda p, q: sum(abs(a - b) for a, b in zip(p, q, strict=True)), "transport.uld-sorted"),
        (by_rank, "_mixed", lambda p: tuple(p), "transport.uld-wrong-order"),
        (independent, "separates", lambda p, cost, q: False, "transport.emo-bound"),
        (independent, "emo", lambda p, cost, q: Fraction(0), "transport.emo-bound"),
        (class_cost, "excess", lambda kappa, x: (kappa * x, 2 * kappa * x), "transport.wkd-cost"),
        (class_cost, "aligned", lambda x, y: Fraction(1), "transport.wkd-order"),
        (class_cost, "escort", lambda p, labels: p, "transport.wkd-target"),
        (
            assisted,
            "far",
            lambda p, q: sum(abs(a - b) for a, b in zip(p, q, strict=True)),
            "transport.assisted-divergence",
        ),
    ],
)
def test_a_broken_formula_changes_the_verdict(module, name, broken, claim, monkeypatch):
    recorded = REGISTRY[claim].expected
    monkeypatch.setattr(module, name, broken)
    result = run_claim(REGISTRY[claim])
    assert result.verdict is not recorded or result.verdict is Verdict.OPEN
    assert result.failures
