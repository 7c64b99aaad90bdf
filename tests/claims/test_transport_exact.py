"""Section 7.2: every claim comes out as recorded, spot values by other means, and a broken formula is caught."""

from fractions import Fraction

import numpy as np
import pytest

from kdtheory import claims
from kdtheory.claims.transport import certificates, finite, inexact
from kdtheory.ledger import REGISTRY, Verdict
from kdtheory.ledger.runner import run_claim
from kdtheory.transport import certificate

claims.load("transport")
IDS = ("transport.float-marginals", "transport.basis-completion", "transport.plan-repair")


@pytest.mark.parametrize("name", IDS)
def test_verdict_is_the_recorded_one_and_controls_are_caught(name):
    assert run_claim(REGISTRY[name]).failures == ()


def test_both_controls_of_a_claim_bite():
    assert not inexact._attempt_dropping(lambda p, q, k: True).ok
    assert not inexact._attempt_dropping(share=0.1).ok
    assert not certificates._attempt_completion(certificates._greedy).ok
    assert not certificates._attempt_library(transposed=True).ok


def test_completion_of_the_diagonal_is_a_star():
    """P = q under a metric: the diagonal, and the first token's distances to the others (the example of the text)."""
    x = [0, 1, 3, 7]
    distances = [[Fraction(abs(a - b)) for b in x] for a in x]
    tree = certificates._shortest([(i, i) for i in range(4)], distances)
    assert sorted(tree) == sorted([(i, i) for i in range(4)] + [(0, 1), (0, 2), (0, 3)])
    f, g = finite.potentials(tree, distances)
    assert g == [Fraction(t) for t in x]
    assert f == [-t for t in g]
    assert finite.affordable(f, g, distances)


def test_the_library_completes_by_shortest_paths():
    """No exact pivot is needed at p = q, where a network simplex' own basis has V of the 2V - 1 cells."""
    rng = np.random.default_rng(5)
    points = rng.normal(size=(40, 4))
    p = rng.dirichlet(np.ones(40))
    found = certificate.certify_w1(p, p, np.linalg.norm(points[:, None] - points, axis=-1))
    assert found.pivots == 0
    assert found.value == 0


@pytest.mark.parametrize(
    ("module", "name", "broken", "claim"),
    [
        (inexact, "_enough", lambda p, q, k: True, "transport.float-marginals"),
        (inexact, "_ULP", Fraction(-1, 2**53), "transport.float-marginals"),
        (certificates, "_shortest", certificates._greedy, "transport.basis-completion"),
        (certificate, "_everywhere", lambda u, rows, v, columns, C: (u, v), "transport.basis-completion"),
        (finite, "least", lambda p, q, cost: Fraction(2), "transport.plan-repair"),
    ],
)
def test_a_broken_formula_changes_the_verdict(module, name, broken, claim, monkeypatch):
    monkeypatch.setattr(module, name, broken)
    if name in ("_enough", "_shortest"):  # defaults of the checks
        check = inexact._attempt_dropping if name == "_enough" else certificates._attempt_completion
        assert not check(broken).ok
        return
    result = run_claim(REGISTRY[claim])
    assert result.failures or result.verdict is Verdict.OPEN
