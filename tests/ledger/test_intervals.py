"""Ball arithmetic: boxes are proved or refuted rigorously, never guessed."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import sympy as sp
from flint import arb, ctx

from kdtheory.ledger import interval


def binary_kl(p, q):
    return p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()


AWAY = {"p": ("1/100", "2/5"), "q": ("1/2", "99/100")}  # the two sides of Pinsker's inequality do not touch here


def test_a_true_inequality_is_proved_on_the_whole_box():
    found = interval.certify(lambda p, q: 2 * (p - q) ** 2 - binary_kl(p, q), AWAY, says="Pinsker", strict=True)
    assert found.ok is True
    assert found.kind == "interval"
    assert found.scope.startswith("box p in [1/100, 2/5]")


def test_a_false_inequality_gets_a_counterexample_that_another_library_confirms():
    found = interval.certify(lambda p, q: 3 * (p - q) ** 2 - binary_kl(p, q), AWAY, says="Pinsker with 3")
    assert found.ok is False
    p, q = (mpmath.mpf(at.numerator) / at.denominator for at in map(Fraction, found.counterexample.values()))
    assert 3 * (p - q) ** 2 > p * mpmath.log(p / q) + (1 - p) * mpmath.log((1 - p) / (1 - q))


def test_a_failure_that_only_a_small_part_shows_is_found():
    found = interval.certify(lambda x: interval.ball("1/1000000") - (x - 1) ** 2, {"x": (0, 3)}, says="narrow")
    assert found.ok is False
    assert abs(Fraction(found.counterexample["x"]) - 1) < Fraction(1, 1000)


def test_roles_that_hope_for_failure():
    assert interval.certify(lambda x: x, {"x": (1, 2)}, says="x <= 0", role="refutes as written").ok is True
    assert interval.certify(lambda x: -x, {"x": (1, 2)}, says="-x <= 0", role="refutes as written").ok is False


def test_touching_sides_stay_undecided_and_say_where():
    found = interval.certify(lambda x: 2 * x * (1 - x) - interval.ball("1/2"), {"x": (0, 1)}, says="s", strict=True)
    assert found.ok is False  # equality at 1/2 refutes the strict inequality
    found = interval.certify(lambda x: (x - x) * x, {"x": (0, 1)}, says="a difference that balls widen", boxes=40)
    assert found.ok is None
    assert "undecided after 40 parts" in found.says


def test_where_the_residual_is_zero_the_weak_inequality_holds_and_the_strict_one_fails():
    assert interval.certify(lambda x: x - 1, {"x": (1, 1)}, says="x <= 1").ok is True
    assert interval.certify(lambda x: x - 1, {"x": (1, 1)}, says="x < 1", strict=True).ok is False


def test_slopes_of_opposite_sign_do_not_cancel():
    box = {"x": (0, 1), "y": (0, 1)}
    assert interval.certify(lambda x, y: x - y - interval.ball("1/2"), box, says="fails at (1, 0)").ok is False
    assert interval.certify(lambda x, y: x - y - interval.ball("11/10"), box, says="holds").ok is True


def test_what_balls_cannot_carry_is_not_taken_for_proved():
    assert interval.certify(lambda x: x.log() - 10, {"x": (-1, 1)}, says="log", boxes=50).ok is None
    assert interval.certify(lambda x: abs(x) - 1, {"x": ("-3/4", "1/2")}, says="no series, still proved").ok is True


def test_mean_value_form_needs_few_parts_where_terms_cancel():
    parabola = interval.certify(lambda x: x * (1 - x) - interval.ball("26/100"), {"x": (0, 1)}, says="parabola")
    assert parabola.ok is True
    assert parabola.data["parts"] < 100


def test_a_number_in_an_interval():
    assert interval.within(lambda: arb(2).log(), "0.693147", "0.693148", says="log 2").ok is True
    outside = interval.within(lambda: arb(2).log(), "0.7", "0.8", says="log 2")
    assert outside.ok is False
    assert outside.counterexample
    assert interval.within(lambda: arb(1, 1), "0.5", 1, says="a wide ball").ok is None


def test_a_ball_holds_its_ends_and_nothing_leaks():
    before = ctx.prec, ctx.cap
    third = interval.ball("1/3")
    assert (third * 3).contains(1)
    both = interval.ball("1/3", "2/3")
    assert both.contains(interval.ball("1/3"))
    assert both.contains(interval.ball("2/3"))
    interval.certify(lambda x: x, {"x": (-2, -1)}, says="x <= 0", bits=64)
    assert (ctx.prec, ctx.cap) == before


@pytest.mark.parametrize(
    ("box", "error", "says"),
    [
        ({"x": (0.5, 1)}, TypeError, "lower bound of x = 0.5 is a float"),
        ({"x": (1, 0)}, ValueError, "x: the lower bound 1 is above the upper bound 0"),
        ({}, ValueError, "box is empty"),
        ({"x": (0, "inf")}, ValueError, "upper bound of x = 'inf': write an exact number"),
        ({"x": (None, 1)}, TypeError, "lower bound of x = None is no number"),
        ({"x": (np.float32(0.5), 1)}, TypeError, "lower bound of x = .* is a float"),
    ],
)
def test_bad_boxes(box, error, says):
    with pytest.raises(error, match=says):
        interval.certify(lambda **_: arb(0), box, says="")


def test_exact_numbers_of_other_libraries():
    assert interval.ball(np.int64(3)) == interval.ball(sp.Integer(3)) == arb(3)
    with pytest.raises(ValueError, match="the lower bound 2 is above the upper bound 1"):
        interval.ball(2, 1)


def test_a_float_is_not_taken_for_a_ball():
    """`math.log` takes the middle of a ball: log x < 1/2 would hold on [1, 2]."""
    with pytest.raises(TypeError, match="the residual returned float"):
        interval.certify(lambda x: math.log(x) - 0.5, {"x": (1, 2)}, says="log")
    with pytest.raises(ValueError, match=r"the residual at .* lies outside its own ball"):
        interval.certify(lambda x: interval.ball(0) + math.log(x) - 0.5, {"x": (1, 2)}, says="log")
    with pytest.raises(TypeError, match="the value returned float"):
        interval.within(lambda: 0.5, 0, 1, says="half")
    with pytest.raises(ValueError, match="boxes = 0"):
        interval.certify(lambda x: x, {"x": (1, 2)}, says="x", boxes=0)
