"""Chapter 03: every claim comes out as recorded, its numbers by other means, and a broken formula is caught."""

import mpmath as mp
import numpy as np
import pytest
import sympy as sp

from kdtheory import claims, figures
from kdtheory.claims.saturation import asymptotics, classification, cold_start, escape, oracles, rates, stationary
from kdtheory.ledger import REGISTRY, Claim, Verdict
from kdtheory.ledger.runner import run_claim
from tests import oracles as typed_again

claims.load("saturation")
CHAPTER = [item for item in REGISTRY if item.chapter == "saturation" and isinstance(item, Claim)]
PARAMETERS = {"jsd": {"beta": 0.3}, "skl": {"alpha": 0.1}, "srkl": {"alpha": 0.1}, "amari": {"alpha": 0.7}}


@pytest.mark.parametrize("item", CHAPTER, ids=lambda item: item.id)
def test_verdict_is_the_recorded_one_and_controls_are_caught(item):
    assert run_claim(item).failures == ()


@pytest.mark.parametrize("name", ["fkl", "rkl", "jsd", "tvd", "skl", "srkl", "neyman", "hellinger2", "amari", "chi2"])
def test_phi_of_the_chapter_gives_the_gradient_of_the_tests_oracle(name):
    rng = np.random.default_rng(11)
    t, z = rng.normal(size=(2, 5))
    p, q = oracles.softmax(t), oracles.softmax(z)
    g = oracles.slopes(name, p)(q)
    expected = typed_again.logit_gradient(name, t, z, **PARAMETERS.get(name, {}))
    # 1e-13: float64 sums of five terms of size 1, oracle in 60 digits
    assert np.abs(q * (g - q @ g) - [float(x) for x in expected]).max() < 1e-13


@pytest.mark.parametrize(
    ("name", "gap", "digits"),
    [("fkl", 20, "10.5"), ("tvd", 10, "1.1e+04"), ("skl", 20, "2.7e+07"), ("skl", 5, "11.8"), ("tvd", 2, "5.63")],
)
def test_escape_times_by_quadrature_in_mpmath(name, gap, digits):
    fall = {"fkl": lambda x: 1 / x, "tvd": lambda x: 1, "skl": lambda x: mp.mpf("0.9") / (mp.mpf("0.1") + x * 9 / 10)}
    start = 1 / (1 + mp.exp(gap))
    found = mp.quad(
        lambda v: 1 / (2 * mp.exp(v) * (1 - mp.exp(v)) ** 2 * fall[name](mp.exp(v))), [mp.log(start), -5, mp.log(0.5)]
    )  # in v = log q_1: dq = q dv
    assert float(found) == pytest.approx(float(escape._closed(name, float(gap))), rel=1e-9)
    assert float(found) == pytest.approx(float(digits), rel=0.02)


def test_cold_start_numbers():
    """V = 20000: 10.9 against 20018, and the lower bound between."""
    assert round(float(cold_start._forward(20_000)), 1) == 10.9
    assert round(float(cold_start._total(20_000))) == 20018
    assert cold_start._lower(20_000) < cold_start._total(20_000)


def test_stored_run_of_twenty_thousand_tokens_obeys_the_theorems(root):
    runs = figures.load_data("saturation_vocabulary", root / "figures" / "data").set_index(["loss", "method"])["count"]
    V, top = 20_000, 0.999
    # near the one-hot closed forms: the teacher's remaining 0.001 changes times by at most a few parts in a thousand
    assert runs["fkl", "flow"] == pytest.approx(cold_start._forward(V), rel=5 * (1 - top))
    assert runs["tvd", "flow"] == pytest.approx(cold_start._total(V), rel=5 * (1 - top))
    for loss, L in (("tvd", 1.0), ("skl", 9.0), ("w1", 1.0)):
        assert runs[loss, "flow"] >= cold_start._lower(V, L)
        assert runs[loss, "sgd"] >= (V - 2) / (2 * L)
    assert (runs.xs("adam", level="method") < 300).all()


BROKEN_PHI = {
    "saturation.classification": ("jsd", lambda x: x / 2),
    "saturation.escape-formula": ("srkl", lambda x: 2 * x),
}


@pytest.mark.parametrize("id", BROKEN_PHI)
def test_a_broken_phi_changes_the_verdict(id, monkeypatch):
    name, wrong = BROKEN_PHI[id]
    right = oracles.phi
    monkeypatch.setattr(oracles, "phi", lambda n, x, *more: wrong(x) if n == name else right(n, x, *more))
    result = run_claim(REGISTRY[id])
    assert result.verdict is not Verdict.PROVED
    assert result.failures


def test_a_broken_closed_form_changes_the_verdict(monkeypatch):
    right = escape._closed
    monkeypatch.setattr(
        escape, "_closed", lambda name, gap, lib=np: right(name, gap, lib) * (2 if name == "hellinger2" else 1)
    )
    assert run_claim(REGISTRY["saturation.escape-closed-forms"]).verdict is Verdict.REFUTED


def test_a_broken_rate_changes_the_verdict(monkeypatch):
    right = rates._leading
    monkeypatch.setattr(rates, "_leading", lambda name, i, gap: right(name, i, gap) * (2 if name == "neyman" else 1))
    assert run_claim(REGISTRY["saturation.rates"]).verdict is Verdict.REFUTED


def test_a_broken_asymptote_changes_the_verdict(monkeypatch):
    right = asymptotics._asymptote
    monkeypatch.setattr(asymptotics, "_asymptote", lambda name, gap: right(name, gap) * (2 if name == "srkl" else 1))
    assert run_claim(REGISTRY["saturation.escape-asymptotics"]).verdict is Verdict.REFUTED


def test_a_wrong_limit_changes_the_verdict(monkeypatch):
    monkeypatch.setitem(classification._LIMITS, "chi2", 1)
    assert run_claim(REGISTRY["saturation.classification"]).verdict is Verdict.REFUTED


def test_a_wrong_plan_changes_the_verdict(monkeypatch):
    monkeypatch.setattr(stationary, "_STUDENT", (sp.Rational(7, 10), sp.Rational(3, 10)))
    assert run_claim(REGISTRY["saturation.regularised-transport"]).verdict is not Verdict.PROVED
