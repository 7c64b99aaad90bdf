"""Chapter 05: every claim comes out as recorded, its numbers by other means, and a broken formula is caught."""

from fractions import Fraction

import mpmath as mp
import numpy as np
import pytest
from flint import arb
from scipy.integrate import quad
from scipy.optimize import linprog, minimize_scalar
from scipy.stats import norm

from kdtheory import claims
from kdtheory.claims.modes import (
    enclosures,
    events,
    fits,
    gaussian,
    head_tail,
    location,
    log_linear,
    separation,
    single_peak,
    toy,
)
from kdtheory.ledger import REGISTRY, Claim, Verdict
from kdtheory.ledger.runner import run_claim

claims.load("modes")
CHAPTER = [
    item
    for item in REGISTRY
    if item.chapter == "modes" and "low-rank" not in item.id  # those stand on stored runs and are tested beside them
]
ROWS = {"S0-02", "S0-06", "S2-02", "S2-03", "S2-23", *(f"S3-0{number}" for number in range(1, 7))}
ROWS |= {f"S1-{number:02}" for number in (8, 9, 11, 12, *range(14, 27))}


@pytest.mark.parametrize("item", [item for item in CHAPTER if isinstance(item, Claim)], ids=lambda item: item.id)
def test_verdict_is_the_recorded_one_and_controls_are_caught(item):
    assert run_claim(item).failures == ()


def test_every_row_of_the_chapter_is_settled():
    assert {row for item in CHAPTER for row in item.rows} == ROWS


# -- enclosures against quadrature of the densities themselves ---------------------------------------------------------
def _reverse_kl(mu, sigma, m, w):
    def integrand(x):
        log_p = np.logaddexp(np.log(w) + norm.logpdf(x, -m, 1), np.log1p(-w) + norm.logpdf(x, m, 1))
        return norm.pdf(x, mu, sigma) * (norm.logpdf(x, mu, sigma) - log_p)

    ends = mu - 12 * sigma, mu + 12 * sigma
    return quad(integrand, *ends, limit=400, epsabs=1e-11, points=[-m, 0, m])[0]


POINTS = [("1/2", "3/2", "2", "1/2"), ("-4", "1", "4", "3/5"), ("0", "13/5", "14/5", "1/2"), ("3", "2/5", "4", "3/5")]


@pytest.mark.parametrize(("mu", "sigma", "m", "w"), POINTS)
def test_ball_of_reverse_kl_holds_the_integral(mu, sigma, m, w):
    pair, at = enclosures.Pair(m, w), (enclosures.number(mu), enclosures.number(sigma))
    found = enclosures.at_precision(lambda: pair.reverse_kl(*at))
    exact = _reverse_kl(*(float(Fraction(value)) for value in (mu, sigma, m, w)))
    assert float(found.rad()) < 1e-6
    assert abs(float(found.mid()) - exact) < 1e-6


@pytest.mark.parametrize(("mu", "sigma", "m", "w"), POINTS)
def test_gradient_is_the_central_difference(mu, sigma, m, w):
    point = [float(Fraction(value)) for value in (mu, sigma, m, w)]
    pair = enclosures.Pair(m, w)
    found = enclosures.at_precision(lambda: pair.gradient(enclosures.number(mu), enclosures.number(sigma)))
    for index, ball in enumerate(found):
        step = np.eye(4)[index] * 1e-4
        difference = (_reverse_kl(*(point + step)) - _reverse_kl(*(point - step))) / 2e-4
        # 1e-5: step² times a third derivative of at most m³ = 64, and quad's 1e-11 over the step
        assert float(ball.mid()) == pytest.approx(difference, abs=1e-5)


def test_lower_bound_of_a_cell_is_below_the_value_anywhere_in_it():
    rng, pair = np.random.default_rng(3), enclosures.Pair("4", "3/5")
    for _ in range(8):
        cell = enclosures.Cell(
            Fraction(int(rng.integers(-500, 500)), 100),
            Fraction(int(rng.integers(60, 400)), 100),
            Fraction(int(rng.integers(1, 40)), 100),
            Fraction(int(rng.integers(1, 40)), 100),
        )
        bound = float(enclosures.at_precision(lambda cell=cell: enclosures.lower_bound(pair, cell)).upper())
        for a, b in rng.uniform(-1, 1, size=(4, 2)):
            mu, sigma = float(cell.mu) + a * float(cell.h), float(cell.sigma) + b * float(cell.k)
            assert _reverse_kl(mu, sigma, 4.0, 0.6) >= bound - 1e-7


def test_branch_and_bound_says_no_where_the_level_is_too_high():
    pair = enclosures.Pair("2")
    cell = enclosures.rectangle(("0", "1"), ("1", "3"))
    decided, _ = enclosures.at_precision(lambda: enclosures.everywhere_above(pair, arb("0.3"), cell))
    assert decided is False


# -- spot values -------------------------------------------------------------------------------------------------------
def test_log_linear_optima_in_fifty_digits():
    with mp.workdps(50):
        odds = mp.mpf(99) / 2
        t = mp.findroot(lambda t: t * (2 + mp.cosh(t)) / mp.sinh(t) - mp.log(odds), 3.4)
        a = mp.mpf("0.495")
        x = (a + mp.sqrt(a * a + 4 * a * (1 - a))) / (2 * (1 - a))
    assert log_linear.OPTIMA["rkl"] == pytest.approx(float(t), abs=1e-7)
    assert log_linear.OPTIMA["tvd"] == log_linear.OPTIMA["w1"] == pytest.approx(float(mp.log(x)), abs=1e-7)


@pytest.mark.parametrize("peak", range(3))
def test_w1_of_the_single_peak_students_by_linear_programming(peak):
    p, q = (np.array([float(x) for x in law]) for law in (single_peak.TEACHER, single_peak.student(peak)))
    cost = np.abs(np.subtract.outer(single_peak.POSITIONS, single_peak.POSITIONS)).ravel()
    rows = np.vstack([np.kron(np.eye(3), np.ones(3)), np.kron(np.ones(3), np.eye(3))])
    plan = linprog(cost, A_eq=rows, b_eq=np.concatenate([p, q]), method="highs")
    assert plan.fun == pytest.approx(float(single_peak.w1(single_peak.TEACHER, single_peak.student(peak))), abs=1e-9)


@pytest.mark.parametrize("loss", fits.LOSSES)
def test_two_quadratures_agree_on_each_fit(loss):
    first, second = (fits.fit(loss, method=method) for method in ("grid", "panels"))
    for key in ("mu", "sigma", "void"):
        assert first[key] == pytest.approx(second[key], abs=4e-3), key  # W1 and TV have kinks between nodes


def test_w2_fit_is_the_quantile_correlation():
    teacher, u = fits.Mixture(), (np.arange(200_000) + 0.5) / 200_000
    x = np.linspace(-12, 12, 200_001)
    quantiles = np.interp(u, teacher.cdf(x), x)
    assert fits.fit("w2")["sigma"] == pytest.approx(float((quantiles * norm.ppf(u)).mean()), abs=2e-3)


def test_dirac_under_w1_is_the_median():
    teacher = fits.Mixture()
    median = minimize_scalar(lambda x: abs(teacher.cdf(x) - 0.5), bounds=(-6, 0), method="bounded").x
    assert location.best_location("w1", teacher, 0.0) == pytest.approx(median, abs=0.01)


def test_critical_half_distance_lies_between_the_certified_ones():
    def gap(m):
        centred = minimize_scalar(lambda s: separation.value(0.0, s, m), bounds=(1, 5), method="bounded").fun
        return centred - separation.value(*separation.optimum(m)[:2], m)

    assert gap(float(separation.LOW)) == pytest.approx(0, abs=1e-9)
    assert gap(float(separation.HIGH)) > 1e-4


def test_toy_in_balls_is_the_toy_in_float64():
    p, z = toy.teacher(), np.zeros(len(toy.COUNTS))
    for _ in range(toy.EPOCHS):
        q = np.exp(z) / np.exp(z).sum()
        z = z - q * (np.log(q / p) - (q * np.log(q / p)).sum())
    q = np.exp(z) / np.exp(z).sum()
    assert float(toy.tv_after("rkl", 0).mid()) == pytest.approx(np.abs(p - q).sum() / 2, rel=1e-9)


def test_single_humped_draws_have_one_hump():
    rng = np.random.default_rng(0)
    for _ in range(50):
        signs = np.sign(np.diff(toy.single_humped(rng, 12)))
        assert (np.diff(signs[signs != 0]) <= 0).all()


def test_shares_at_a_uniform_start_are_those_of_the_closed_form():
    p = np.array([0.4, 0.3, 0.2, 0.1])
    forward, backward = np.abs(p - 0.25), np.abs(np.log(p) - np.log(p).mean())
    expected = (forward[:2].sum() / forward.sum(), backward[:2].sum() / backward.sum())
    assert head_tail.shares(p, np.full(4, 0.25), 2) == pytest.approx(expected, abs=1e-12)


# -- broken formulas ---------------------------------------------------------------------------------------------------
def _broken(id):
    return run_claim(REGISTRY[id]).failures


def test_a_wrong_sign_in_the_reverse_kl_of_balls_is_caught(monkeypatch):
    right = enclosures.Pair.reverse_kl
    monkeypatch.setattr(enclosures.Pair, "reverse_kl", lambda self, mu, sigma: right(self, mu, sigma) + 2 * sigma.log())
    assert _broken("modes.gaussian-fit")


def test_a_cell_bound_that_promises_too_much_is_caught(monkeypatch):
    monkeypatch.setattr(gaussian, "BOX", (("-3.9", "-3.8"), ("0.98", "1.02")))
    monkeypatch.setattr(gaussian.optimum_in, "__defaults__", (gaussian.BOX,))
    assert _broken("modes.gaussian-fit")


def test_a_wrong_odds_function_is_caught(monkeypatch):
    monkeypatch.setattr(log_linear, "_odds", lambda t: t * (1 + t.cosh()) / t.sinh())
    assert REGISTRY["modes.log-linear-threshold"].expected is Verdict.PROVED
    assert _broken("modes.log-linear-threshold")


def test_a_teacher_with_another_heaviest_token_is_caught(monkeypatch):
    monkeypatch.setattr(single_peak, "TEACHER", (Fraction(2, 5), Fraction(3, 10), Fraction(3, 10)))
    assert _broken("modes.single-peak-students")


def test_a_teacher_without_valley_is_caught(monkeypatch):
    monkeypatch.setattr(toy, "COUNTS", (3, 6, 9, 12, 14, 15, 13, 10, 8, 5, 3, 2))
    assert _broken("modes.both-converge")


def test_a_price_that_is_too_high_is_caught(monkeypatch):
    monkeypatch.setattr(events, "_leaving_out", lambda rng, factor: (1.0, {"p": [1.0]}))
    assert run_claim(REGISTRY["modes.rkl-may-leave-out"]).verdict is Verdict.REFUTED
