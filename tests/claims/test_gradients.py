"""Chapter 02: every claim comes out as recorded, its numbers by other means, and a broken formula is caught."""

from dataclasses import replace

import mpmath as mp
import numpy as np
import pytest
import sympy as sp

from kdtheory import claims
from kdtheory.claims.gradients import chain_rule, oracles, reverse_kl, skew_kl
from kdtheory.divergences.symbols import alpha, p, q
from kdtheory.ledger import REGISTRY, Claim, Verdict
from kdtheory.ledger.runner import run_claim
from tests import oracles as typed_again

claims.load("gradients")
CHAPTER = [item for item in REGISTRY if item.chapter == "gradients"]
ROWS = {"S0-04", "S0-19", *(f"S1-{number}" for number in (32, 33, 34, 35, 36, 37, 39, 40, 41, 42, 43, 44, 45))}


@pytest.mark.parametrize("item", [item for item in CHAPTER if isinstance(item, Claim)], ids=lambda item: item.id)
def test_verdict_is_the_recorded_one_and_controls_are_caught(item):
    assert run_claim(item).failures == ()


def test_every_row_of_the_chapter_is_settled():
    assert {row for item in CHAPTER for row in item.rows} == ROWS


@pytest.mark.parametrize("name", [name for name in oracles.DEFINITIONS if name != "akl"])
def test_the_chapters_oracle_agrees_with_the_tests_oracle(name):
    rng = np.random.default_rng(7)
    t, z = rng.normal(size=(2, 5))
    expected = typed_again.logit_gradient(name, t, z, **oracles.PARAMETERS.get(name, {}))
    # 1e-14: a complex step in float64 against one in 60 digits, terms of size 1
    assert np.abs(oracles.logit_gradient(name, oracles.softmax(t), z) - [float(x) for x in expected]).max() < 1e-14


def test_skew_reverse_kl_numbers_of_the_chapter():
    at = {p: sp.Rational(1, 2), q: sp.Rational(4, 5), alpha: sp.Rational(1, 10)}
    right = typed_again.logit_gradient("srkl", [0.0, 0.0], [float(np.log(4)), 0.0], alpha=mp.mpf(1) / 10)[0]
    assert float(reverse_kl._entry(reverse_kl._RIGHT).subs(at)) == pytest.approx(float(right), abs=1e-14)
    assert round(float(right), 4) == 0.1852
    assert round(float(reverse_kl._entry(reverse_kl._WRITTEN).subs(at)), 4) == 0.2064


BROKEN = {
    "rkl": q * sp.log(p / q),
    "tvd": sp.Abs(p - q),
    "skl": p * sp.log(p / (alpha * q + (1 - alpha) * p)),
    "srkl": q * sp.log(q / (alpha * p + (1 - alpha) * q)),
    "chi2": q**2 / p - q,
    "hellinger2": p - sp.sqrt(p * q) / 2,
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_definition_changes_the_verdict_of_the_table(name, monkeypatch):
    broken = replace(chain_rule._RECORDS[name], term=BROKEN[name], mixture=None)
    monkeypatch.setitem(chain_rule._RECORDS, name, broken)
    assert run_claim(REGISTRY["gradients.logit-table"]).verdict is not Verdict.PROVED


def test_a_broken_definition_changes_the_verdict_of_its_own_claim(monkeypatch):
    monkeypatch.setattr(skew_kl, "_SKL", replace(skew_kl._SKL, mixture=(1 - alpha) * p + alpha * q))
    result = run_claim(REGISTRY["gradients.skl-slope"])
    assert result.verdict is Verdict.REFUTED
    assert result.failures
