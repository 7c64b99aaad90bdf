"""What `derive` finds against theorem 1's table typed by hand, and against SymPy's own derivative through a softmax."""

from __future__ import annotations

import dataclasses

import mpmath as mp
import pytest
import sympy as sp

import kdtheory as kd
from kdtheory.divergences import RECORDS, derive
from kdtheory.divergences.symbols import S, alpha, beta, p, q
from tests import oracles

m_jsd = beta * p + (1 - beta) * q
m_skl = alpha * p + (1 - alpha) * q
m_srkl = alpha * q + (1 - alpha) * p

# theorem 1, column g (up to an additive constant of the token index)
SLOPES = {
    "fkl": -p / q,
    "rkl": sp.log(q / p),
    "jsd": (1 - beta) * sp.log(q / m_jsd),
    "tvd": sp.sign(q - p) / 2,
    "skl": -(1 - alpha) * p / m_skl,
    "srkl": sp.log(q / m_srkl) - alpha * q / m_srkl,
    "chi2": -((p / q) ** 2),
    "neyman": 2 * q / p,
    "hellinger2": -sp.sqrt(p / q) / 2,
    "amari": -((p / q) ** alpha) / alpha,
    "renyi": -((p / q) ** alpha) / S,
}
CURVATURES = {
    "fkl": 1,
    "rkl": 1,
    "jsd": beta * (1 - beta),
    "tvd": None,
    "skl": (1 - alpha) ** 2,
    "srkl": (1 - alpha) ** 2,
    "chi2": 2,
    "neyman": 2,
    "hellinger2": sp.Rational(1, 4),
    "amari": 1,
    "renyi": alpha,
}
# (term, slope, q · slope) as q → 0, (term, slope) as p → 0; parameters 1/2, Rényi 2
LIMITS = {
    "fkl": {"term_student_zero": sp.oo, "slope_student_zero": -sp.oo, "own_term_student_zero": -p,
            "term_teacher_zero": 0, "slope_teacher_zero": 0},
    "rkl": {"term_student_zero": 0, "slope_student_zero": -sp.oo, "own_term_student_zero": 0,
            "term_teacher_zero": sp.oo, "slope_teacher_zero": sp.oo},
    "jsd": {"term_student_zero": p * sp.log(2) / 2, "slope_student_zero": -sp.oo, "own_term_student_zero": 0,
            "term_teacher_zero": q * sp.log(2) / 2, "slope_teacher_zero": sp.log(2) / 2},
    "tvd": {"term_student_zero": p / 2, "slope_student_zero": -sp.Rational(1, 2), "own_term_student_zero": 0,
            "term_teacher_zero": q / 2, "slope_teacher_zero": sp.Rational(1, 2)},
    "skl": {"term_student_zero": p * sp.log(2), "slope_student_zero": -1, "own_term_student_zero": 0,
            "term_teacher_zero": 0, "slope_teacher_zero": 0},
    "srkl": {"term_student_zero": 0, "slope_student_zero": -sp.oo, "own_term_student_zero": 0,
             "term_teacher_zero": q * sp.log(2), "slope_teacher_zero": sp.log(2)},
    "chi2": {"term_student_zero": sp.oo, "slope_student_zero": -sp.oo, "own_term_student_zero": -sp.oo,
             "term_teacher_zero": 0, "slope_teacher_zero": 0},
    "neyman": {"term_teacher_zero": sp.oo, "slope_teacher_zero": sp.oo, "slope_student_zero": 0,
               "own_term_student_zero": 0},
    "hellinger2": {"slope_student_zero": -sp.oo, "own_term_student_zero": 0, "term_teacher_zero": 0,
                   "slope_teacher_zero": 0, "term_student_zero": p},
    "amari": {"slope_student_zero": -sp.oo, "own_term_student_zero": 0, "term_teacher_zero": 0,
              "slope_teacher_zero": 0, "term_student_zero": 4 * p},
    "renyi": {"term_student_zero": sp.oo, "slope_student_zero": -sp.oo, "own_term_student_zero": -sp.oo,
              "term_teacher_zero": 0, "slope_teacher_zero": 0},
}  # fmt: skip
PARAMETERS = {"jsd": [sp.Rational(1, 3), sp.Rational(9, 10)], "skl": [sp.Rational(1, 10), sp.Rational(1, 2)],
              "srkl": [sp.Rational(1, 10), sp.Rational(1, 2)], "amari": [sp.Rational(1, 2), 2, 3],
              "renyi": [sp.Rational(1, 2), 2, 3]}  # fmt: skip
SETTINGS = [
    (record, {next(iter(record.parameters)): value}) if value is not None else (record, {})
    for record in RECORDS.values()
    for value in PARAMETERS.get(record.name, [None])
]
TEACHER = [sp.Rational(1, 2), sp.Rational(1, 3), sp.Rational(1, 6)]
WEIGHTS = sp.symbols("x_1:4", positive=True)  # exp(z_i)
POINT = dict(zip(WEIGHTS, (1, 4, 9), strict=True))  # q = 1/14, 4/14, 9/14; squares, so that roots stay exact


def named(setting) -> str:
    return setting.name if hasattr(setting, "name") else ",".join(map(str, setting.values()))


def definition(name: str, a: list, b: list, **parameters) -> sp.Expr:
    """The textbook sums, typed again in SymPy."""
    x = next(iter(parameters.values()), None)

    def kl(c, d):
        return sum(s * sp.log(s / t) for s, t in zip(c, d, strict=True))

    def mix(c, d):
        return [x * s + (1 - x) * t for s, t in zip(c, d, strict=True)]

    def power(c, d):
        return sum(s**c_ * t**d_ for s, t in zip(a, b, strict=True) for c_, d_ in [(c, d)])

    sums = {
        "fkl": lambda: kl(a, b),
        "rkl": lambda: kl(b, a),
        "jsd": lambda: x * kl(a, mix(a, b)) + (1 - x) * kl(b, mix(a, b)),
        "tvd": lambda: sum(sp.Abs(s - t) for s, t in zip(a, b, strict=True)) / 2,
        "skl": lambda: kl(a, mix(a, b)),
        "srkl": lambda: kl(b, mix(b, a)),
        "chi2": lambda: power(2, -1) - 1,
        "neyman": lambda: power(-1, 2) - 1,
        "hellinger2": lambda: 1 - power(sp.Rational(1, 2), sp.Rational(1, 2)),
        "amari": lambda: (1 - power(x, 1 - x)) / (x * (1 - x)),
        "renyi": lambda: sp.log(power(x, 1 - x)) / (x - 1),
    }
    return sums[name]()


def exact_gradient(name: str, **parameters) -> list[sp.Expr]:
    """∂D/∂z_i at rational p and softmax(z) = x/Σx: the chain rule is SymPy's, ∂/∂z_i = x_i ∂/∂x_i."""
    total = sum(WEIGHTS)
    value = definition(name, TEACHER, [x / total for x in WEIGHTS], **parameters)
    return [(x * sp.diff(value, x)).subs(POINT) for x in WEIGHTS]


def vanishes(expression: sp.Expr) -> bool:
    """Exactly zero: logarithms of rationals expanded into those of primes, roots reduced."""
    if abs(sp.N(expression, 30)) > 1e-20:
        return False
    expanded = sp.expand(sp.expand_log(sp.sympify(expression), force=True, factor=True))
    return expanded == 0 or sp.radsimp(sp.simplify(expanded)) == 0


def student() -> list[sp.Expr]:
    total = sum(POINT.values())
    return [sp.Rational(value, total) for value in POINT.values()]


def test_every_record_is_in_the_tables():
    assert set(SLOPES) == set(CURVATURES) == set(LIMITS) == set(RECORDS)
    assert {loss.name for loss in kd.divergences.ALL} == set(RECORDS) | {"akl"}


@pytest.mark.parametrize("record", RECORDS.values(), ids=named)
def test_slope_is_theorem_1_up_to_a_constant(record):
    difference = derive.written_out(record, derive.slope(record)) - SLOPES[record.name]
    residue = [sp.simplify(sp.expand_log(sp.diff(difference, x), force=True)) for x in (p, q)]
    if record.name == "tvd":
        residue = [difference.subs({p: a, q: b}) for a, b in ((1, 2), (2, 1), (3, 7))]
    assert all(value == 0 for value in residue)


@pytest.mark.parametrize("record", RECORDS.values(), ids=named)
def test_a_wrong_slope_is_noticed(record):
    """Control: a flipped sign in the definition differs by more than a constant."""
    flipped = dataclasses.replace(record, term=-record.term)
    difference = derive.written_out(record, derive.slope(flipped)) - SLOPES[record.name]
    at = [difference.subs({p: a, q: b, alpha: 2, beta: sp.Rational(1, 3), S: 1}) for a, b in ((1, 2), (2, 1))]
    assert sp.N(at[0] - at[1]) != 0


@pytest.mark.parametrize(("record", "given"), SETTINGS, ids=named)
def test_term_sums_to_the_definition(record, given):
    values = derive.symbols(given)
    total = sum(
        record.summand_in_p_and_q.subs(values).subs({p: a, q: b}) for a, b in zip(TEACHER, student(), strict=True)
    )
    total = total if record.outer is None else record.outer.subs(values).subs(S, total)
    assert vanishes(total - definition(record.name, TEACHER, student(), **given))
    assert not vanishes(total - 2 * definition(record.name, TEACHER, student(), **given))


@pytest.mark.parametrize(("record", "given"), SETTINGS, ids=named)
def test_logit_gradient_is_sympys_own_derivative_through_a_softmax(record, given):
    found = derive.logit_gradient(record).at(record, TEACHER, student(), **given)
    expected = exact_gradient(record.name, **given)
    assert all(vanishes(a - b) for a, b in zip(found, expected, strict=True))
    assert vanishes(sum(found))
    assert not vanishes(found[0] + expected[0])  # control: the sign
    swapped = derive.logit_gradient(record).at(record, student(), TEACHER, **given)
    assert not vanishes(swapped[0] - expected[0])  # control: the arguments


@pytest.mark.parametrize(("record", "given"), SETTINGS, ids=named)
def test_sampled_weights_average_to_the_gradient(record, given):
    """Σ_y law(y) · weight(y) · ∇_z q_y, by enumeration, for tokens drawn from the teacher and from the student."""
    values = derive.symbols(given)
    weights = derive.sampled(record)
    a, b = TEACHER, student()
    total = sum(record.term.subs(values).subs({p: x, q: y}) for x, y in zip(a, b, strict=True)) if record.outer else 1
    expected = exact_gradient(record.name, **given)

    def average(weight, law):
        chosen = derive.written_out(record, weight).subs(values).subs(S, total)
        per_token = [law[y] * chosen.subs({p: a[y], q: b[y]}) for y in range(3)]
        return [sum(per_token[y] * b[y] * (int(y == i) - b[i]) for y in range(3)) for i in range(3)]

    for weight, law, other in ((weights.from_teacher, a, b), (weights.from_student, b, a)):
        assert all(vanishes(x - y) for x, y in zip(average(weight, law), expected, strict=True))
        assert not all(vanishes(x - y) for x, y in zip(average(weight, other), expected, strict=True))
    assert sp.simplify(weights.score - q * weights.from_student) == 0


@pytest.mark.parametrize("record", RECORDS.values(), ids=named)
def test_curvature(record):
    expected = CURVATURES[record.name]
    found = derive.curvature(record)
    assert found is None if expected is None else sp.simplify(found - expected) == 0


@pytest.mark.parametrize(("record", "given"), [x for x in SETTINGS if x[0].name != "tvd"], ids=named)
def test_curvature_is_the_second_order_of_the_value(record, given):
    """D(p, p + εv) = ε²/2 · f''(1) Σ v²/p + O(ε³), at ε = 1e-20 with 60 digits."""
    with mp.workdps(oracles.DIGITS):
        a = [mp.mpf(x.p) / x.q for x in TEACHER]
        v = [mp.mpf(1), mp.mpf(2), mp.mpf(-3)]
        e = mp.mpf(10) ** -20
        numbers = {key: mp.mpf(sp.Rational(x).p) / sp.Rational(x).q for key, x in given.items()}
        value = oracles.VALUES[record.name](a, [x + e * y for x, y in zip(a, v, strict=True)], **numbers)
        measured = 2 * value / e**2 / mp.fsum(y * y / x for x, y in zip(a, v, strict=True))
    predicted = derive.curvature(record).subs(derive.symbols(given))
    assert float(measured) == pytest.approx(float(predicted), rel=1e-12)
    assert float(measured) != pytest.approx(2 * float(predicted), rel=1e-3)


@pytest.mark.parametrize("record", RECORDS.values(), ids=named)
def test_limits(record):
    given = {"renyi": {"alpha": 2}}.get(record.name, dict.fromkeys(record.parameters, sp.Rational(1, 2)))
    found = derive.limits(record, **given)
    for field, expected in LIMITS[record.name].items():
        value = getattr(found, field)
        assert value == expected or sp.simplify(value - expected) == 0, field


def test_limits_decide_who_stalls():
    """Theorem 2: only forward KL's own-token term tends to a finite non-zero limit; α moves Amari's across."""
    bounded = {
        name for name, record in RECORDS.items() if derive.limits(record).own_term_student_zero not in (0, -sp.oo)
    }
    assert bounded == {"fkl"}
    assert derive.limits(RECORDS["amari"], alpha=sp.Rational(1, 2)).own_term_student_zero == 0
    assert derive.limits(RECORDS["amari"], alpha=2).own_term_student_zero == -sp.oo


@pytest.mark.parametrize("record", RECORDS.values(), ids=named)
def test_simplex_gradient_is_tangent_and_gives_the_directional_derivative(record):
    given = dict.fromkeys(record.parameters, sp.Integer(2) if record.name == "renyi" else sp.Rational(1, 3))
    numbers = {}
    for (a, b), x, y in zip(derive.tokens(3), TEACHER, student(), strict=True):
        numbers |= {a: x, b: y}
    found = derive.simplex_gradient(record, 3).subs(derive.symbols(given)).subs(numbers)
    assert vanishes(sum(found))
    t = sp.Symbol("t", real=True)
    direction = [1, 2, -3]
    moved = [y + t * v for y, v in zip(student(), direction, strict=True)]
    expected = sp.diff(definition(record.name, TEACHER, moved, **given), t).subs(t, 0)
    assert abs(sp.N(found.dot(sp.Matrix(direction)) - expected, 40)) < 1e-30
    assert abs(sp.N(found.dot(sp.Matrix(direction)) + expected, 40)) > 1e-3
