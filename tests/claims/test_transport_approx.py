"""Chapter 07, approximations: claims come out as recorded, spot values by other means, a broken formula is caught."""

from fractions import Fraction

import numpy as np
import ot
import pytest

from kdtheory import claims
from kdtheory.claims.transport import dropping, sliced, tree, truncation
from kdtheory.ledger import REGISTRY, Verdict
from kdtheory.ledger.runner import run_claim

claims.load("transport")
MINE = (
    "collapse-bound",
    "mcshane-lower",
    "collapse-gradient",
    "drop-renormalise",
    "metric-sandwich",
    "linkage",
    "ultrametric-line",
    "sliced-lower",
    "sliced-sphere",
    "sliced-blind",
)


@pytest.mark.parametrize("slug", MINE)
def test_verdict_is_the_recorded_one_and_controls_are_caught(slug):
    assert run_claim(REGISTRY[f"transport.{slug}"]).failures == ()


def test_the_chapters_numbers_by_pot():
    """Six tokens, clusters of half-width 1/100: W1 = 7/1600, and 1/30 after dropping."""
    x = np.array([0, 0.01, -0.01, 1, 1.01, 0.99])
    p, q = (np.array(law) / 32 for law in (dropping._P, dropping._Q))
    assert ot.wasserstein_1d(x, x, p, q) == pytest.approx(7 / 1600)
    kept = [0, 3]
    assert ot.wasserstein_1d(x[kept], x[kept], p[kept] / p[kept].sum(), q[kept] / q[kept].sum()) == pytest.approx(
        1 / 30
    )


def test_the_cost_of_selecting_by_size():
    """Chapter 07: moving 1/5 by 99 where 3/10 by 1 would do."""
    delta = ("-1/2", "3/10", "1/5")
    assert truncation.exact_collapse((0, 1, 100), delta, (0, 1))[1] == Fraction(99, 5)
    assert truncation.exact_collapse((0, 1, 100), delta, (0, 2))[1] == Fraction(3, 10)


def test_a_ghost_and_a_sphere():
    assert sliced.ghost([(1, 0), (0, 1)]) == {(0, 0): 1, (0, 1): -1, (-1, 0): -1, (-1, 1): 1}
    drawn = np.random.default_rng(0).normal(size=(200_000, 5))
    seen = np.abs(drawn[:, 0]) / np.linalg.norm(drawn, axis=1)
    # 0.003: five standard errors
    assert seen.mean() == pytest.approx(float(sliced.sphere_constant(5)), abs=0.003)


def test_clustering_in_fractions_is_scipys():
    points = np.random.default_rng(4).integers(-50, 50, size=8)
    for method, height in (("single", min), ("complete", max), ("average", tree.mean)):
        ours = np.array(tree.joined(tree.line(*map(int, points)), height), dtype=float)
        theirs = tree.ultrametric(np.abs(np.subtract.outer(points, points)).astype(float), method)
        if len(np.unique(np.diff(np.sort(points)))) == len(points) - 1:  # ties may be broken either way
            np.testing.assert_allclose(ours, theirs)


@pytest.mark.parametrize(
    ("module", "name", "broken", "claim"),
    [
        (truncation, "price", lambda delta, goal, cost: 0.5 * float(np.abs(delta) @ cost[range(len(goal)), goal]), 0),
        (truncation, "dual", lambda delta, cost: np.zeros_like(delta), 1),
        (truncation, "dual", lambda delta, cost: -np.sign(delta), 2),
        (dropping, "renormalised", lambda law, kept: [Fraction(a) / 32 for a in law], 3),
        (tree, "ratios", lambda above, below: (0.0, 1.0), 4),
        (tree, "ultrametric", lambda cost, method: cost, 5),
        (tree, "joined", lambda cost, height: cost, 6),
        (sliced, "rational_basis", lambda width: [[Fraction(1)] + [Fraction(0)] * (width - 1)] * width, 7),
        (sliced, "slices", lambda p, q, points, directions: 2 * np.abs(q - p).sum() * np.ones(len(directions)), 7),
        (sliced, "sphere_constant", lambda width: 1 / width, 8),
        (sliced, "ghost", lambda directions: {(0, 0): 1, (1, 1): -1}, 9),
    ],
)
def test_a_broken_formula_changes_the_verdict(module, name, broken, claim, monkeypatch):
    item = REGISTRY[f"transport.{MINE[claim]}"]
    monkeypatch.setattr(module, name, broken)
    result = run_claim(item)
    assert result.verdict is not item.expected or result.verdict is Verdict.OPEN
    assert result.failures
