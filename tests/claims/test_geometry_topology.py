"""Chapter 04, sections 4.1-4.5: verdicts as recorded, numbers by other means, broken values caught, figures as told."""

import mpmath as mp
import numpy as np
import ot
import pytest
import sympy as sp
from scipy.stats import norm

from kdtheory import claims, simplex
from kdtheory.claims import oracles
from kdtheory.claims.geometry import collapse, distances, inequalities, jensen_shannon, tails, transport_cost
from kdtheory.figures import geometry_tails, geometry_topology
from kdtheory.ledger import REGISTRY, Claim, Verdict
from kdtheory.ledger.runner import run_claim

claims.load("geometry")
NAMES = ("collapse", "cross_entropy", "inequalities", "infinite", "jensen_shannon", "reverse_entropy", "tails")
MODULES = {f"kdtheory.claims.geometry.{name}" for name in (*NAMES, "topology", "transport_cost", "wasserstein")}
PART = [item for item in REGISTRY if isinstance(item, Claim) and item.check.__module__ in MODULES]
ROWS = {f"S0-{number:02}" for number in (3, 18, 20, 21, 23, 24, 25)}
ROWS |= {f"S1-{number:02}" for number in (1, 2, 3, 4, 5, 6, 7, 10, 13, 48, 49, 50, 51)}


@pytest.mark.parametrize("item", PART, ids=lambda item: item.id)
def test_verdict_is_the_recorded_one_and_controls_are_caught(item):
    assert run_claim(item).failures == ()


def test_every_row_is_settled_by_one_claim():
    rows = [row for item in PART for row in item.rows]
    assert set(rows) == ROWS
    assert len(rows) == len(ROWS)


def test_the_oracles_values_at_places_worked_out_by_hand():
    p, q = np.array([0.5, 0.5]), np.array([1.0, 0.0])
    assert distances.kl(q, p) == pytest.approx(np.log(2), abs=1e-15)
    assert np.isinf(distances.kl(p, q))
    assert np.isinf(distances.cross_entropy(p, q))
    assert distances.js(p, q) == pytest.approx(0.75 * np.log(4 / 3), abs=1e-15)
    assert distances.tv(p, q) == 0.5
    assert distances.affinity(p, q) == pytest.approx(np.sqrt(0.5), abs=1e-15)


def test_the_linear_program_agrees_with_the_network_simplex():
    rng = np.random.default_rng(3)
    cost = distances.metric(rng, 7)
    p, q = rng.dirichlet(np.ones(7)), rng.dirichlet(np.ones(7))
    found = oracles.optimal_transport(p, q, cost)
    assert found.value == pytest.approx(ot.emd2(p, q, cost), abs=1e-9)  # HiGHS keeps 1e-10 each


def test_the_exact_line_and_the_exact_matching_agree():
    left, right = [0, 2, 5], [1, 3, 4]  # mass moves both ways
    third = ["1/3"] * 3
    by_line = oracles.exact_line_w1([*left, *right], [*third, 0, 0, 0], [0, 0, 0, *third])
    assert by_line == distances.exact_matching([[abs(a - b) for b in right] for a in left]) == 1


def test_psi_against_fifty_digits():
    with mp.workdps(50):
        u = mp.mpf("0.3")
        expected = ((1 + u) * mp.log(1 + u) + (1 - u) * mp.log(1 - u)) / 2
    assert jensen_shannon._psi(0.3) == pytest.approx(float(expected), abs=1e-15)


@pytest.mark.parametrize("weight", [0.6, 0.9, 0.5001])
def test_the_median_of_two_gaussians_lies_within_the_bound_of_the_chapter(weight):
    """Theorem 10, part 4, by bisection, for separations of 1 to 1000."""
    for separation in (1.0, 10.0, 1000.0):
        low, high = 0.0, separation
        for _ in range(200):
            middle = (low + high) / 2
            below = weight * norm.cdf(middle) + (1 - weight) * norm.cdf(middle - separation) < 0.5
            low, high = (middle, high) if below else (low, middle)
        assert 0 < low < norm.ppf(1 / (2 * weight)) + 1e-12


def test_the_wide_student_by_a_grid():
    """Theorem 10, part 5: quantiles of both laws on a fine grid, minimised over a grid of centres and widths."""
    v = (np.arange(4000) + 0.5) / 2000 - 1
    teacher = np.sign(v) + v
    centres, widths = np.linspace(-1, 1, 21), np.linspace(1, 4, 301)
    costs = np.array([[np.abs(teacher - a - b * v).mean() for b in widths] for a in centres])
    a, b = np.unravel_index(costs.argmin(), costs.shape)
    assert centres[a] == pytest.approx(0, abs=1e-12)
    assert widths[b] == pytest.approx(1 + np.sqrt(2), abs=0.01)  # the grid's step
    assert costs.min() == pytest.approx(np.sqrt(2) - 1, abs=1e-4)
    assert float(collapse._one_block()) == 1.5


def test_a_missed_entry_of_the_metric_is_noticed():
    assert transport_cost._entries_read(structured=True) == 0
    assert transport_cost._entries_read(structured=False) >= 9


BROKEN = {
    "geometry.pinsker": ("kl", lambda a, b: 0.9 * float(np.sum((a - b) ** 2))),
    "geometry.js-against-tv": ("js", lambda a, b: 2.0),
    "geometry.w1-against-tv": ("tv", lambda a, b: float(np.abs(a - b).sum())),
    "geometry.cross-entropy-minus-entropy": ("entropy", lambda a: 0.0),
    "geometry.one-topology": ("affinity", lambda a, b: float((a * b).sum())),
    "geometry.tail-weight": ("kl", lambda a, b: float(np.abs(a - b).sum()) ** 2),
}


@pytest.mark.parametrize("id", BROKEN)
def test_a_broken_distance_changes_the_verdict(id, monkeypatch):
    name, broken = BROKEN[id]
    monkeypatch.setattr(distances, name, broken)
    assert run_claim(REGISTRY[id]).verdict is not Verdict.PROVED


def test_a_broken_counterexample_is_noticed(monkeypatch):
    monkeypatch.setattr(tails, "_EXCHANGED", tails._P)
    assert run_claim(REGISTRY["geometry.long-tails"]).verdict is not Verdict.CORRECTED


def test_pinskers_constant_cannot_be_raised():
    t = sp.Rational(1, 1000)
    ratio = oracles.exact_kl([sp.Rational(1, 2) + t, sp.Rational(1, 2) - t], ["1/2", "1/2"]) / t**2
    assert 2 < sp.N(ratio) < 2.00001
    assert inequalities.d is distances


def test_the_tail_figure_shows_what_the_chapter_says():
    table = geometry_tails.LONG_TAILS.compute().pivot(index="distance", columns=["change", "place"], values="value")
    for change in geometry_tails.CHANGES:
        ratio = table[change]["tail"] / table[change]["head"]
        assert (ratio[["fkl", "rkl", "jsd", "hellinger2"]] > 1).all()
        assert ratio["tvd"] == pytest.approx(1, abs=1e-9)  # brentq solves for equal total variation to 1e-12
        assert ratio["w1"] > 2 > 1 > ratio["w1_shuffled"]
    assert np.isinf(table["missing"]["tail"]["fkl"])


def test_the_shares_of_the_tail_add_up_and_turn_with_the_student():
    shares = geometry_tails.TAIL_SHARES.compute().pivot(index="distance", columns="student", values="tail_share")
    assert shares.loc["fkl", "uniform"] < 0.5 < shares.loc["rkl", "uniform"]
    assert shares.loc["rkl", "sharper"] < 0.5 < shares.loc["fkl", "sharper"]
    p = simplex.zipf(geometry_tails.VOCABULARY)
    q = p**2 / (p**2).sum()
    terms, values = geometry_tails._contributions(p, q), geometry_tails._values(p, q)
    for name, parts in terms.items():
        assert (parts >= -1e-18).all()  # a term is a difference of rounded numbers
        assert parts.sum() == pytest.approx(values[name], rel=1e-9)


def test_the_pairs_of_the_topology_figure_keep_the_students_floor():
    pairs = geometry_topology.PAIRS_OF_LAWS.compute()
    assert (pairs["kl"] <= np.log1p(2 * pairs["tv"] ** 2 / geometry_topology.FLOOR)).all()
    assert (pairs["w1"] <= pairs["tv"] + 1e-12).all()
