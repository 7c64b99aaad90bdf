"""The checks that make evidence: each on something true, something false and something it cannot decide."""

import math
from fractions import Fraction

import numpy as np
import pytest
import sympy as sp

from kdtheory.ledger import Verdict, decide, exact, experiments, numeric, symbolic

p, q, d = sp.symbols("p q d", positive=True)
SLOPE = sp.diff(q * sp.log(q / p), q)


def test_compare_corrects_the_reverse_kl_slope():
    written, right = symbolic.compare(derived=SLOPE, written=sp.log(q / p) - 1, right=sp.log(q / p) + 1)
    assert (written.ok, right.ok) == (True, True)
    assert written.counterexample == {"p": "1/2", "q": "1/2", "left": "1", "right": "-1"}
    assert decide([written, right], scope="scalar identity")[0] is Verdict.CORRECTED


def test_compare_needs_something_to_compare_with():
    with pytest.raises(ValueError, match="right="):
        symbolic.compare(derived=SLOPE)


@pytest.mark.parametrize("wrong", [q / p + 1, -sp.log(q / p) + 1, sp.log(p / q) + 1, 2 * sp.log(q / p) + 1])
def test_identity_catches_a_wrong_formula(wrong):
    evidence = symbolic.identity(SLOPE, wrong)
    assert evidence.ok is False
    at = {sp.Symbol(name, positive=True): sp.Rational(evidence.counterexample[name]) for name in ("p", "q")}
    assert abs(float((SLOPE - wrong).subs(at))) > 1e-9  # float evaluation of an exactly nonzero number


def test_identity_that_is_true_as_written_does_not_refute():
    assert symbolic.identity(SLOPE, sp.log(q / p) + 1, role="refutes as written").ok is False


def test_identity_in_a_region():
    assert symbolic.identity(sp.Abs(p - q), p - q, given={p: q + d}).ok is True
    assert symbolic.identity(sp.Abs(p - q), p - q).ok is False
    assert symbolic.identity(sp.Abs(p - q), p - q, where=lambda at: at[p] > at[q]).ok is None


def test_points_of_a_region_lie_in_it():
    p1, p2, p3 = sp.symbols("p1:4", positive=True)
    evidence = symbolic.identity(p1 + p2 + 2 * p3, 1, given={p3: 1 - p1 - p2}, scope="V = 3")
    point = {name: Fraction(evidence.counterexample[name]) for name in ("p1", "p2", "p3")}
    assert sum(point.values()) == 1
    assert min(point.values()) > 0


def test_identity_up_to_a_constant():
    assert symbolic.identity(SLOPE, sp.log(q / p) - 7, up_to_constant_in=(p, q)).ok is True
    assert symbolic.identity(SLOPE, sp.log(q) - 7, up_to_constant_in=(p, q)).ok is False


def test_identity_that_nothing_decides():
    unknown = sp.Function("f")(p)
    evidence = symbolic.identity(unknown, unknown + sp.Function("g")(p))
    assert evidence.ok is None
    assert decide([evidence], scope="scalar identity")[0] is Verdict.OPEN


@pytest.mark.parametrize(
    ("left", "relation", "right", "kind", "holds"),
    [
        (Fraction(1, 3), "==", "1/3", "exact", True),
        (Fraction(1, 3), "<", "1/3", "exact", False),
        (2 * sp.log(2), "==", sp.log(4), "exact", True),
        (sp.log(2), "<", "7/10", "interval", True),
        (sp.log(2), "==", "693147/1000000", "interval", False),
        (sp.exp(sp.sqrt(163) * sp.pi / 3), "==", 640320, "interval", False),
        (sp.Max(sp.log(2), "1/2"), ">=", "69/100", "interval", True),
        (sp.oo, ">", 10**9, "exact", True),
        (3, ">=", sp.oo, "exact", False),
        (sp.log(q), "<=", q - 1, "interval", True),
    ],
)
def test_relation_at_a_point(left, relation, right, kind, holds):
    evidence = exact.check(left, relation, right, at={"q": "1/2"})
    assert (evidence.kind, evidence.ok) == (kind, holds)
    assert bool(evidence.counterexample) is not holds
    opposite = exact.check(left, relation, right, at={"q": "1/2"}, role="refutes as written")
    assert opposite.ok is not holds


def test_relation_too_close_to_tell_is_undecided():
    tiny = sp.Rational(1, 10**200)
    assert exact.check(sp.log(2 + tiny), ">", sp.log(2)).ok is None


def test_exact_refuses_floats_and_missing_values():
    with pytest.raises(TypeError, match="float"):
        exact.check(q, "<", 1, at={"q": 0.1})
    with pytest.raises(ValueError, match="no value for q"):
        exact.check(q, "<", 1)


NUMBERS = [
    (sp.log(3), math.log(3)),
    (sp.sqrt(2), math.sqrt(2)),
    (sp.exp(sp.Rational(1, 3)), math.exp(1 / 3)),
    (sp.pi**2, math.pi**2),
    (sp.Rational(3, 7) ** sp.E, (3 / 7) ** math.e),
    (sp.Abs(sp.log(sp.Rational(1, 3))) - 2, math.log(3) - 2),
]


@pytest.mark.parametrize(("number", "value"), NUMBERS, ids=str)
def test_enclosure_holds_the_number(number, value):
    bounds = exact.enclose(number)
    assert float(bounds.a) == pytest.approx(value, rel=1e-14)  # `math` is within some units of 1e-16
    assert float(bounds.delta) < 1e-25  # thirty digits


def test_numbers_agree_within_a_stated_tolerance():
    stated = {"oracle": "closed form", "tolerance": 1e-12, "because": "rounding"}
    close = numeric.compare([1.0, np.inf], [1.0 + 1e-13, np.inf], **stated)
    assert close.ok is True
    assert close.data["error"] == pytest.approx(1e-13, rel=1e-2)  # 1 + 1e-13 is rounded to a multiple of 2.2e-16
    far = numeric.compare([1.0, 2.0], [1.0, 2.1], **stated)
    assert far.ok is False
    assert far.counterexample == {"index": [1], "ours": 2.0, "oracle": 2.1}


@pytest.mark.parametrize(("ours", "theirs"), [(np.nan, np.nan), (np.nan, 0.0), (np.inf, -np.inf), (np.inf, 1.0)])
def test_a_number_that_is_not_one_never_agrees(ours, theirs):
    assert numeric.compare(ours, theirs, oracle="o", tolerance=1e9, because="any").ok is False


@pytest.mark.parametrize(
    "change", [{"oracle": ""}, {"because": ""}, {"theirs": [1.0, 2.0]}, {"ours": [], "theirs": []}]
)
def test_a_comparison_states_what_it_stands_on(change):
    stated = {"ours": [1.0], "theirs": [1.0], "oracle": "o", "tolerance": 1e-12, "because": "rounding"}
    with pytest.raises(ValueError, match=r"oracle|shape"):
        numeric.compare(**(stated | change))


def test_attempted_refutation_survives_or_not():
    def square_is_large(bound):
        def violation(rng):
            x = rng.random()
            return bound - x * x, {"x": x}

        return violation

    stated = {"draws": 50, "oracle": "arithmetic", "tolerance": 0.0, "because": "exact comparison"}
    assert numeric.attempt(square_is_large(0.0), **stated).ok is True
    failed = numeric.attempt(square_is_large(0.5), **stated)
    assert failed.ok is False
    assert failed.counterexample["x"] ** 2 < 0.5
    assert numeric.attempt(lambda rng: (np.nan, {}), **stated).ok is False
    with pytest.raises(ValueError, match="draws"):
        numeric.attempt(square_is_large(0.0), **(stated | {"draws": 0}))


RULE = experiments.Rule(
    metric="difference of held-out forward KL, nats, paired over seeds",
    supported_if="above 0.1",
    unsupported_if="below 0",
    decide=lambda value: True if value > 0.1 else False if value < 0 else None,
)


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        ((0.2, 10, True), Verdict.SUPPORTED),
        ((-0.2, 10, True), Verdict.UNSUPPORTED),
        ((0.05, 10, True), Verdict.UNDECIDED),
        ((0.2, 10, False), Verdict.UNDECIDED),
        ((0.2, 3, True), Verdict.UNDECIDED),
    ],
)
def test_experiment_is_judged_by_its_rule(measured, verdict):
    assert decide([experiments.judge(RULE, lambda: measured, says="h")])[0] is verdict


def test_missing_runs_are_not_installed(tmp_path):
    def measure():
        return (tmp_path / "runs.json").read_text(), 10, True

    verdict, reason = decide([experiments.judge(RULE, measure, says="h")])
    assert verdict is Verdict.OPEN
    assert reason.startswith("evidence not installed")
