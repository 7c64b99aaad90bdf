"""Names, parameters and probabilities that are refused, and the kind of array that comes back."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import torch

import kdtheory as kd
from kdtheory.divergences import FACTORIES


@pytest.fixture
def batch(rng):
    return scipy.special.softmax(rng.normal(size=(2, 5, 7)) * 3, -1)


@pytest.mark.parametrize(
    ("p", "q", "message"),
    [
        ([[0.5, 0.5], [1.2, -0.2]], [[0.5, 0.5]] * 2, r"p\[1, 1\] = -0\.2: probabilities"),
        ([0.5, 0.5], [0.5, float("nan")], r"q\[1\] = nan"),
        ([0.5, 0.6], [0.5, 0.5], r"^p sums to 1\.1"),
        ([[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.4]], r"q\[1\] sums to 0\.9: normalise"),
        ([0.5, 0.5], [0.5, float("inf")], r"q sums to inf"),
        ([0.5, 0.5], [1.0], r"p has shape \(2,\) and q \(1,\)"),
        (1.0, 1.0, r"give both \(\.\.\., V\)"),
        ([], [], r"V >= 1"),
    ],
)
@pytest.mark.parametrize("method", ["value", "slope"])
def test_bad_probabilities_are_named(method, p, q, message):
    with pytest.raises(ValueError, match=message):
        getattr(FACTORIES["fkl"](), method)(p, q)


def test_the_same_kind_comes_back(batch):
    p, q = batch
    loss = FACTORIES["fkl"]()
    assert isinstance(loss.value(p, q), np.ndarray)
    assert loss.value(p, q).shape == (5,)
    assert loss.value(torch.tensor(p), torch.tensor(q)).dtype == torch.float64
    assert loss.value(torch.tensor(p, dtype=torch.float32), q).dtype == torch.float64
    assert loss.value([1.0], [1.0]) == 0
    assert loss.value(np.empty((0, 3)), np.empty((0, 3))).shape == (0,)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("jsd", {"beta": 0}, r"beta = 0 is the limit .*JSD/beta: forward KL"),
        ("jsd", {"beta": 1.5}, r"beta = 1\.5 lies outside \(0, 1\)"),
        ("jsd", {"alpha": 0.5}, r"jsd has no parameter 'alpha'; it takes \['beta'\]"),
        ("fkl", {"alpha": 0.5}, "takes none"),
        ("skl", {"alpha": "x"}, r"alpha = 'x': give a number"),
        ("skl", {"alpha": True}, r"give a number"),
        ("amari", {"alpha": 1.0}, r'kdtheory\.divergence\("fkl"\)'),
        ("renyi", {"alpha": float("nan")}, r"lies outside"),
        ("akl", {"mu": 1.0}, r"mu = 1 lies outside \(0, 1\)"),
    ],
)
def test_bad_parameters_are_named(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        FACTORIES[name](**parameters)


def test_names():
    expected = ["fkl", "rkl", "jsd", "tvd", "skl", "srkl", "chi2", "neyman", "hellinger2", "amari", "renyi", "akl"]
    assert [loss.name for loss in kd.divergences.ALL] == expected
    assert str(FACTORIES["skl"](alpha=0.1)) == "skl(alpha=0.1)"
    assert repr(FACTORIES["fkl"]()) == "<DivergenceLoss fkl>"
