"""LaTeX of the derived formulas: well formed, indexed, and the formula it says it is."""

from __future__ import annotations

import re

import pytest

import kdtheory as kd
from kdtheory.divergences import FACTORIES

PARTS = ("definition", "slope", "logits", "sample")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("loss", kd.divergences.ALL, ids=str)
def test_latex_is_well_formed(loss, part):
    text = loss.latex(part)
    assert text.count("{") == text.count("}")
    assert len(re.findall(r"\\left", text)) == len(re.findall(r"\\right", text))
    assert "_{" in text
    formula = text.split(r" ,\quad m =")[0].replace(r"\sim p", "").replace(r"\sim q", "")
    assert not re.search(r"(?<![a-zA-Z])[pqm](?![_a-zA-Z])", formula), "a probability without its token"
    if part == "sample":
        assert r"y \sim p" in text
        assert r"y \sim q" in text
        assert text.count(r"\nabla q_{y}") == 2


@pytest.mark.parametrize(
    ("name", "part", "pieces"),
    [
        ("fkl", "slope", [r"\frac{p_{i}}{q_{i}}", "-"]),
        ("fkl", "logits", ["- p_{i} + q_{i}"]),
        ("rkl", "slope", [r"\log", "1"]),
        ("rkl", "logits", [r"\sum_j", r"\log"]),
        ("skl", "slope", ["m_{i}", r"\alpha", r"m = "]),
        ("jsd", "slope", [r"\beta", "m_{i}"]),
        ("tvd", "slope", [r"\operatorname{sign}"]),
        ("chi2", "logits", [r"- \frac{p_{i}^{2}}{q_{i}} + q_{i} \sum_j \frac{p_{j}^{2}}{q_{j}}"]),
        ("neyman", "logits", [r"\frac{2 q_{i}^{2}}{p_{i}} - q_{i} \sum_j \frac{2 q_{j}^{2}}{p_{j}}"]),
        (
            "tvd",
            "logits",
            [r"- \frac{q_{i} \operatorname{sign}{\left(p_{i} - q_{i} \right)}}{2} + q_{i} \sum_j \frac{q_{j}"],
        ),
        ("renyi", "logits", [r"q_{i} - \frac{p_{i}^{\alpha} q_{i}^{1 - \alpha}}{S}", r"S = \sum_j"]),
        ("akl", "slope", ["w_{h}", "w_{t}"]),
    ],
)
def test_latex_says_what_the_formula_is(name, part, pieces):
    text = FACTORIES[name]().latex(part)
    assert all(piece in text for piece in pieces), text


def test_unknown_latex_is_refused():
    with pytest.raises(ValueError, match=r"latex\('nonsense'\): one of 'definition', 'slope', 'logits', 'sample'"):
        FACTORIES["fkl"]().latex("nonsense")
