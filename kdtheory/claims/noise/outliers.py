"""Theorem 16 of chapter 06: outliers, forward KL and total variation."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import comb
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import binom

from kdtheory.claims.oracles import exact_tv
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric

_PROOF = Anchor("06_noise#outliers", sha256="49b34b24ddbfdc7a")
SIZE, CLEAN, SHARE = 100, Fraction(1, 100), Fraction(1, 20)
"""Students Bin(100, θ), clean teacher Bin(100, 1/100), one outlier at 100 with the share 1/20."""


def student(theta: Fraction, size: int = SIZE) -> list[Fraction]:
    """Bin(size, θ), exact."""
    return [comb(size, k) * theta**k * (1 - theta) ** (size - k) for k in range(size + 1)]


def contaminated(teacher: Sequence[Fraction], share: Fraction = SHARE) -> list[Fraction]:
    """(1 − ε) p + ε δ at the last position."""
    last = len(teacher) - 1
    return [(1 - share) * a + share * (k == last) for k, a in enumerate(teacher)]


def fkl_fit(share: Fraction = SHARE) -> Fraction:
    """θ of forward KL: the contaminated mean over the number of positions."""
    return (1 - share) * CLEAN + share


def _score(theta: Fraction) -> Fraction:
    """Derivative in θ of the cross-entropy of the contaminated teacher, term by term."""
    laws = contaminated(student(CLEAN))
    return -sum((a * (k / theta - (SIZE - k) / (1 - theta)) for k, a in enumerate(laws)), Fraction(0))


def _search(teacher: Any, size: int) -> tuple[float, float]:
    """Fits of forward KL and total variation by numerical search; scipy's binomials."""
    counts = np.arange(size + 1)

    def cross_entropy(theta: float) -> float:
        return float(-(teacher @ binom.logpmf(counts, size, theta)))

    def distance(theta: float) -> float:
        return float(np.abs(teacher - binom.pmf(counts, size, theta)).sum() / 2)

    kl = minimize_scalar(cross_entropy, bounds=(1e-6, 1 - 1e-6), method="bounded", options={"xatol": 1e-10}).x
    steps = np.linspace(0, 1, 801)
    return float(kl), float(steps[np.argmin([distance(theta) for theta in steps])])


def _breaks(bound: float) -> Any:
    """TV of the total variation fit above `bound` · ε·TV(p, o), or forward KL's fit not at the mean."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size, clean, share = int(rng.integers(3, 40)), float(rng.uniform(0.02, 0.6)), float(rng.uniform(0.01, 0.5))
        at = int(rng.integers(0, size + 1))
        p = binom.pmf(np.arange(size + 1), size, clean)
        outlier = np.eye(size + 1)[at]
        dirty = (1 - share) * p + share * outlier
        mean = float(dirty @ np.arange(size + 1)) / size
        kl, robust = _search(dirty, size)
        moved = float(np.abs(p - binom.pmf(np.arange(size + 1), size, robust)).sum() / 2)
        allowed = bound * share * float(np.abs(p - outlier).sum() / 2)
        # 1/1600 is half a step of the search; a step moves TV by at most size · step
        excess = moved - allowed - size / 1600
        return max(excess, abs(kl - mean) - 1e-5), {"size": size, "clean": clean, "share": share, "at": at}

    return violation


def _attempt(bound: float) -> Evidence:
    return numeric.attempt(
        _breaks(bound),
        draws=12,
        oracle="scipy.optimize and a search over 801 values of θ, scipy.stats.binom",
        tolerance=1e-9,
        because="the search's step is inside the violation",
        says="total variation within 2ε TV(p, o), forward KL at the contaminated mean",
    )


@claim(
    "noise.outliers",
    statement=r"\text{forward KL is sensitive to outliers, total variation is robust: } TV(p, q_{TV}) < TV(p, q_{FKL})",
    source="ji2023tailr, Fig. 1; lossdesigns, total variation distance",
    expected=Verdict.PROVED_IF,
    rows=("S1-38",),
    condition="the teacher is contaminated and the students are a restricted family, such as one peak,"
    " that cannot hold the outlier beside the rest",
    domain=r"p_ε = (1 − ε) p + ε o: TV(p, q_{TV}) \le \inf TV(p, \cdot) + 2ε\,TV(p, o) in any family; unrestricted"
    r" students: both minimisers are p_ε",
    proof=_PROOF,
)
def outliers() -> list[Evidence]:
    """Forward KL must give the outlier mass; in a family with one peak that moves the peak."""
    clean = student(CLEAN)
    dirty = contaminated(clean)
    fitted = student(fkl_fit())
    inside = exact.check(
        exact_tv(clean, fitted),
        ">",
        2 * SHARE,
        role="inside condition",
        says="binomial students: TV(p, q_FKL) above the 2ε that total variation's fit cannot exceed",
    )
    outside = exact.check(
        exact_tv(clean, dirty),
        "<",
        exact_tv(clean, dirty),
        role="outside condition",
        says="unrestricted students, both fits are p_ε: TV(p, q_TV) < TV(p, q_FKL)",
    )
    both = exact.check(exact_tv(clean, dirty), "==", SHARE * (1 - clean[-1]), says="its distance, ε TV(p, o)")
    return [inside, outside, both, _attempt(2.0)]


@outliers.control
def _() -> Evidence:
    """A bound of zero, that total variation does not move at all, must not pass."""
    return _attempt(-0.5)


def _toy(fit: Fraction) -> list[Evidence]:
    """Forward KL's stationarity at `fit`; the bracket of total variation's fit."""
    clean = student(CLEAN)
    low, high = Fraction(7, 1000), Fraction(7, 500)
    return [
        exact.check(_score(fit), "==", 0, says=f"derivative of the cross-entropy at mean {100 * fit}"),
        exact.check(exact_tv(clean, student(low)), ">", 2 * SHARE, says="TV between means 1 and 7/10"),
        exact.check(exact_tv(clean, student(high)), ">", 2 * SHARE, says="TV between means 1 and 7/5"),
    ]


@claim(
    "noise.outlier-toy",
    statement=r"p = \mathrm{Bin}(100, \tfrac1{100}),\ \text{outlier at } 100 \text{ with } \varepsilon = \tfrac1{20}:"
    r"\ FKL \text{ fits the mean } \tfrac{119}{20}, \text{ at } TV > \tfrac45 \text{ from } p;\ TV \text{ fits one in }"
    r" (\tfrac7{10}, \tfrac75), \text{ at } TV \le \tfrac1{10}",
    source="ji2023tailr, Fig. 1 (a toy of its kind, exact); kdtheory, Theorem 16",
    expected=Verdict.PROVED,
    rows=("S1-38",),
    domain="students Bin(100, θ); the clean mean is 1",
    scope="instance",
    uses=("noise.outliers",),
    proof=_PROOF,
)
def outlier_toy() -> list[Evidence]:
    """Everything in rationals; the bracket uses that the distance grows away from the clean parameter."""
    clean = student(CLEAN)
    dirty = np.array([float(a) for a in contaminated(clean)])
    _, robust = _search(dirty, SIZE)
    near = numeric.compare(
        100 * robust,
        1.0,
        oracle="a search over 801 values of θ",
        tolerance=0.4,
        because="the bracket",
        says="TV's mean",
    )
    return [
        *_toy(fkl_fit()),
        exact.check(100 * fkl_fit(), "==", "119/20", says="mean of forward KL's fit"),
        exact.check(
            exact_tv(clean, student(fkl_fit())), ">", "4/5", says="TV of forward KL's fit from the clean teacher"
        ),
        near,
        _attempt(2.0),
    ]


@outlier_toy.control
def _() -> list[Evidence]:
    """Forward KL at the clean mean must not pass."""
    return _toy(CLEAN)
