"""`certify_w1` against closed forms in rationals, brute force and linear programs; and that a certificate can fail."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from itertools import pairwise, permutations

import numpy as np
import pytest
import torch

import kdtheory as kd
from kdtheory import TokenCost
from kdtheory.transport import integer_simplex
from kdtheory.transport.certificate import Certificate, CertificateError, certify_w1
from tests.transport.cases import COSTS, FAMILIES, label, linear_program, probabilities

HALF = Fraction(1, 2)
LINE = [[abs(x - y) for y in (0, 1, 3)] for x in (0, 1, 3)]


def rational_law(rng, V: int, denominator: int = 60) -> list[Fraction]:
    """Multiples of 1/60, many of them zero or equal."""
    return [Fraction(int(n), denominator) for n in rng.multinomial(denominator, rng.dirichlet(np.full(V, 0.7)))]


def line_distance(x: list[Fraction], p: list[Fraction], q: list[Fraction]) -> Fraction:
    """Σ gap · |surplus on its left|, in rationals."""
    order = sorted(range(len(x)), key=lambda i: x[i])
    surplus, total = Fraction(0), Fraction(0)
    for left, right in pairwise(order):
        surplus += p[left] - q[left]
        total += (x[right] - x[left]) * abs(surplus)
    return total


# -- values ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("V", [1, 2, 3, 7, 20])
def test_rational_laws_on_a_rational_line(rng, V):
    for _ in range(10):
        x = [Fraction(int(n), 7) for n in rng.integers(-20, 20, size=V)]
        p, q = rational_law(rng, V), rational_law(rng, V)
        C = [[abs(a - b) for b in x] for a in x]
        found = certify_w1(p, q, C)
        assert found.value == line_distance(x, p, q)
        assert found.sums == (1, 1)
        assert (found.p, found.q) == (tuple(p), tuple(q))


def test_total_variation_of_rational_laws(rng):
    for _ in range(10):
        p, q = rational_law(rng, 12), rational_law(rng, 12)
        expected = sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2
        assert certify_w1(p, q, TokenCost.zero_one(12)).value == expected


@pytest.mark.parametrize("high", [3, 1000])
def test_uniform_laws_are_the_best_matching(rng, high):
    """All n! matchings (Birkhoff): integer costs with many ties, neither symmetric nor zero on the diagonal."""
    for V in (2, 3, 5):
        C = rng.integers(0, high, size=(V, V))
        best = min(sum(int(C[i, j]) for i, j in enumerate(order)) for order in permutations(range(V)))
        assert certify_w1([Fraction(1, V)] * V, [Fraction(1, V)] * V, C).value == Fraction(best, V)


@pytest.mark.parametrize("pair", FAMILIES, ids=label)
@pytest.mark.parametrize("name", COSTS)
def test_against_w1_and_the_linear_program(name, pair):
    """1e-12: rounding of `w1`. 1e-7: HiGHS' feasibility tolerance."""
    cost, C = COSTS[name]
    p, q = probabilities(pair)
    value = float(certify_w1(p, q, cost).value)
    assert kd.w1(p, q, cost).value == pytest.approx(value, rel=1e-12, abs=1e-12)
    assert linear_program(p, q, C) == pytest.approx(value, abs=1e-7)


def test_bounds_of_w1_enclose_the_certified_value(rng):
    """Up to the rounding of the two bounds themselves, sums of 40 products of order 1."""
    cost = TokenCost.embedding(rng.normal(size=(40, 4)))
    for _ in range(5):
        p, q = (kd.simplex.softmax(3 * rng.normal(size=40)) for _ in range(2))
        found, value = kd.w1(p, q, cost), float(certify_w1(p, q, cost).value)
        assert found.lower - 1e-14 <= value <= found.upper + 1e-14
        assert found.upper - found.lower <= 1e-13


# -- degenerate cases --------------------------------------------------------------------------------------------------
def degenerate(rng, V: int) -> dict[str, tuple]:
    flat, peaked = np.full(V, 1 / V), kd.simplex.softmax(20 * rng.normal(size=V))
    points, half = rng.normal(size=(V, 3)), np.where(np.arange(V) < V // 2, 0.0, 2 / V)
    distances = TokenCost.embedding(points)
    counts = [n / n.sum() for n in rng.multinomial(3 * V, flat, size=2)]
    steps = abs(np.subtract.outer(np.arange(V), np.arange(V)))
    return {
        "p = q": (peaked, peaked, distances),
        "an ulp apart": (peaked, np.nextafter(peaked, 1) / np.nextafter(peaked, 1).sum(), distances),
        "Diracs": (np.eye(V)[0], np.eye(V)[-1], distances),
        "the same Dirac": (np.eye(V)[0], np.eye(V)[0], rng.random((V, V))),
        "Dirac and flat": (np.eye(V)[1], flat, distances),
        "half zero": (half, half[::-1], distances),
        "one-hot up to 1e-300": ([1.0, 1e-300] + [0.0] * (V - 2), flat, distances),
        "ties": (*counts, steps),
        "ties of a non-metric": (*counts, rng.integers(0, 3, size=(V, V))),
        "squared": (flat, peaked, steps**2.0),
        "free": (flat, peaked, np.zeros((V, V))),
        "one price": (flat, peaked, np.full((V, V), 0.1)),
        "two tokens in one place": (flat, peaked, TokenCost.line(np.repeat(np.arange(V // 2), 2))),
        "24 decades": (flat, peaked, 10.0 ** rng.uniform(-12, 12, size=(V, V))),
        "gains": (flat, peaked, -rng.random((V, V))),
    }


@pytest.mark.parametrize("case", degenerate(np.random.default_rng(0), 4))
@pytest.mark.parametrize("V", [4, 16])
def test_degenerate_cases(case, V, rng):
    """Certified, and the float solver agrees to 1e-12 of the largest cost."""
    p, q, C = degenerate(rng, V)[case]
    found = certify_w1(p, q, C)
    prices = C.matrix().numpy() if isinstance(C, TokenCost) else np.asarray(C, dtype=float)
    lift = prices.min()
    expected = kd.w1(p, q, TokenCost.dense(prices - lift)).value + lift  # our dense costs are >= 0
    assert float(found.value) == pytest.approx(expected, abs=1e-12 * max(abs(prices).max(), 1e-30))
    assert len(found.plan) <= np.count_nonzero(p) + np.count_nonzero(q) - 1
    assert len(found.f) == len(found.g) == V


def test_exact_values_of_degenerate_cases():
    assert certify_w1([1], [1], [[0]]).value == 0
    assert certify_w1([1], [1], [[HALF]]).value == HALF
    assert certify_w1([HALF, HALF, 0], [0, HALF, HALF], LINE).value == Fraction(3, 2)
    assert certify_w1(["1/2", "1/2", 0], [HALF, HALF, 0], LINE).value == 0
    assert certify_w1([1, 0, 0], [0, 0, 1], LINE).value == 3
    # squared costs: half a unit moves two steps of 1 each, not one of 2
    assert certify_w1([HALF, HALF, 0], [0, HALF, HALF], [[0, 1, 4], [1, 0, 1], [4, 1, 0]]).value == 1


def test_floats_are_the_rationals_that_they_are():
    """0.1 + 0.2 + 0.7 is 1 - 2^-53 in floats: the law is divided by that sum, and the sum is reported."""
    p = [0.1, 0.2, 0.7]
    found = certify_w1(p, [0.0, 0.0, 1.0], LINE)
    total = sum(map(Fraction, p))
    assert found.sums == (total, 1)
    assert total != 1
    assert found.value == (3 * Fraction(0.1) + 2 * Fraction(0.2)) / total
    single = certify_w1(np.float32(p), torch.tensor([0.0, 0.0, 1.0]), np.float32(LINE))
    assert single.value == (3 * Fraction(float(np.float32(0.1))) + 2 * Fraction(float(np.float32(0.2)))) / sum(
        Fraction(float(x)) for x in np.float32(p)
    )


def test_rows_are_the_teacher():
    C = [[0, 1], [5, 0]]
    assert certify_w1([1, 0], [0, 1], C).value == 1
    assert certify_w1([0, 1], [1, 0], C).value == 5


# -- exact pivots ------------------------------------------------------------------------------------------------------
def bad_start(rng):
    """Stands in for POT: a plan and reduced costs that have nothing to do with the problem."""

    def floats(a, b, prices):
        return np.where(rng.random(prices.shape) < 0.2, 1.0, 0.0), rng.random(prices.shape)

    return floats


@pytest.mark.parametrize("V", [5, 12])
def test_pivots_reach_the_optimum_from_any_start(monkeypatch, rng, V):
    """Ties of all kinds; the expected values come from starts that POT gives."""
    problems = []
    for _ in range(10):
        p, q = rational_law(rng, V, denominator=2 * V), rational_law(rng, V, denominator=2 * V)
        C = rng.integers(0, 4, size=(V, V))
        problems.append((p, q, C, certify_w1(p, q, C).value))
    monkeypatch.setattr(integer_simplex, "_floats", bad_start(rng))
    found = [certify_w1(p, q, C) for p, q, C, _ in problems]
    assert [item.value for item in found] == [value for *_, value in problems]
    assert max(item.pivots for item in found) > 0


def test_bland_alone_terminates(monkeypatch, rng):
    """The rule against cycling, from the first pivot on."""
    entering = integer_simplex._entering
    monkeypatch.setattr(integer_simplex, "_entering", lambda *given, first: entering(*given, first=True))
    monkeypatch.setattr(integer_simplex, "_floats", bad_start(rng))
    p = [Fraction(1, 10)] * 10
    C = rng.integers(0, 3, size=(10, 10))
    assert float(certify_w1(p, p, C).value) == pytest.approx(linear_program(np.full(10, 0.1), np.full(10, 0.1), C))


def test_too_many_pivots_are_an_error(monkeypatch, rng):
    monkeypatch.setattr(integer_simplex, "_floats", bad_start(rng))
    monkeypatch.setattr(integer_simplex, "MAX_PIVOTS", 1)
    with pytest.raises(CertificateError, match="1 pivots on 12 x 12 tokens"):
        certify_w1([Fraction(1, 12)] * 12, [Fraction(1, 12)] * 12, rng.integers(0, 9, size=(12, 12)))


# -- a certificate that is no proof ------------------------------------------------------------------------------------
P, Q = [HALF, HALF, Fraction(0)], [Fraction(0), HALF, HALF]


@pytest.fixture
def certificate() -> Certificate:
    found = certify_w1(P, Q, LINE)
    found.check(P, Q, LINE)  # the control: untouched it passes
    return found


def shifted(potential: tuple, token: int, by: Fraction) -> tuple:
    return tuple(x + by * (i == token) for i, x in enumerate(potential))


TINY = Fraction(1, 2**80)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {"value": c.value + TINY}, "are not one number"),
        (lambda c: {"plan": c.plan[1:]}, "the plan moves 0, not p"),
        (lambda c: {"plan": ((*c.plan[0][:2], c.plan[0][2] + TINY), *c.plan[1:])}, "the plan moves"),
        (lambda c: {"plan": (*c.plan, (2, 0, Fraction(0)))}, "flows are positive"),
        (lambda c: {"plan": (*c.plan, (0, 0, -TINY), (0, 0, TINY))}, "flows are positive"),
        (lambda c: {"plan": ((0, 1, HALF), (1, 1, -HALF), (1, 2, HALF), (1, 1, HALF))}, "flows are positive"),
        (lambda c: {"plan": ((0, 2, HALF), (1, 1, HALF)), "value": c.value + 1}, "are not one number"),
        (lambda c: {"f": shifted(c.f, 0, TINY)}, r"f\[0\] \+ g\[\d\] = "),
        (lambda c: {"g": shifted(c.g, 2, TINY)}, r"f\[\d\] \+ g\[2\] = "),
        (lambda c: {"f": shifted(c.f, 0, -TINY)}, "are not one number"),
        (lambda c: {"f": c.f[:2]}, "2 and 3 potentials for 3 x 3 tokens"),
        (lambda c: {"p": c.q, "q": c.p}, "p: the certificate is for another law"),
    ],
)
def test_a_tampered_certificate_is_refused(certificate, change, message):
    with pytest.raises(CertificateError, match=message):
        dataclasses.replace(certificate, **change(certificate)).check(P, Q, LINE)


def test_a_certificate_is_for_one_problem(certificate):
    with pytest.raises(CertificateError, match="another law"):
        certificate.check(P, [0, 0, 1], LINE)
    with pytest.raises(CertificateError, match=r"f\[\d\] \+ g\[\d\]"):
        certificate.check(P, Q, [[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    with pytest.raises(CertificateError, match="not one number"):
        certificate.check(P, Q, [[0, 1, 4], [1, 0, 2], [4, 2, 0]])


# -- input -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("p", "q", "C", "message"),
    [
        ([0.5, 0.6], [0.5, 0.5], np.zeros((2, 2)), "p sums to 1.1"),
        (["1/2", "1/3"], [HALF, HALF], np.zeros((2, 2)), "p sums to 0.833"),
        ([1.5, -0.5], [0.5, 0.5], np.zeros((2, 2)), r"p\[1\] = -0.5"),
        ([0.5, 0.5], [0.5, np.nan], np.zeros((2, 2)), r"q\[1\] = nan"),
        ([0.5, 0.5], ["1/2", "x"], np.zeros((2, 2)), r"q\[1\] = 'x'"),
        ([[0.5, 0.5]], [0.5, 0.5], np.zeros((2, 2)), r"p has shape \(1, 2\)"),
        ([], [], np.zeros((0, 0)), r"p has shape \(0,\)"),
        ([0.5, 0.5], [0.5, 0.5], np.zeros((3, 3)), r"C has shape \(3, 3\): expected \(2, 2\)"),
        ([0.5, 0.5], [0.5, 0.5], [[0.0, np.inf], [1.0, 0.0]], r"C\[0, 1\] = inf"),
        ([0.5, 0.5], [0.5, 0.5], np.array([[0.0, np.inf], [1.0, 0.0]]), r"C\[0, 1\] = inf"),
        ([0.5, 0.5], [0.5, 0.5], TokenCost.zero_one(3), r"expected \(2, 2\)"),
        ([0.5 + 0j, 0.5], [0.5, 0.5], np.zeros((2, 2)), r"p\[0\] = "),
    ],
)
def test_bad_input_is_named(p, q, C, message):
    with pytest.raises(ValueError, match=message):
        certify_w1(p, q, C)
