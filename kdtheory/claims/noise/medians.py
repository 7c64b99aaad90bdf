"""The lemma of chapter 06 on binomial medians: a batch of m samples shifts transport's minimiser by less than 1/m."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, comb, floor
from typing import Any

import numpy as np
from scipy.stats import binom

from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric

_PROOF = Anchor("06_noise#binomial-median", sha256="a8527e6cc26fc2ed")


def _at_least(m: int, k: int, theta: Fraction) -> Fraction:
    """P(Bin(m, θ) ≥ k) in rationals."""
    return sum((comb(m, j) * theta**j * (1 - theta) ** (m - j) for j in range(k, m + 1)), Fraction(0))


def _median_is_outside(upper: Any) -> Any:
    """By how much a median, from the distribution function of scipy, leaves [⌊mθ⌋, upper(mθ)]."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        m, theta = int(rng.integers(1, 400)), Fraction(int(rng.integers(1, 1000)), 1000)
        median = float(binom.median(m, float(theta)))
        return max(floor(m * theta) - median, median - upper(m * theta)), {"m": m, "theta": str(theta)}

    return violation


def _attempt(upper: Any) -> Evidence:
    return numeric.attempt(
        _median_is_outside(upper),
        draws=2000,
        oracle="scipy.stats.binom.median",
        tolerance=0.0,
        because="integers",
        says="a binomial median lies between the integers around the mean",
    )


@claim(
    "noise.binomial-median",
    statement=r"\text{every median of } \mathrm{Bin}(m, \theta) \text{ lies in } [\lfloor m\theta \rfloor,"
    r" \lceil m\theta \rceil],\ \text{so on a line the minimiser of } E\,W_1(\hat p_m, \cdot)"
    r" \text{ is within } \mathrm{diam}/m \text{ of } p",
    source="kdtheory, lemma on binomial medians; hamza1995smallest",
    expected=Verdict.PROVED,
    domain="0 ≤ θ ≤ 1, m ≥ 1",
    uses=("noise.batch-median",),
    proof=_PROOF,
)
def binomial_median() -> list[Evidence]:
    """The step the proof rests on, P(Bin(m, k/m) ≥ k) > 1/2, in rationals at its tightest k; medians by scipy."""
    least = min((_at_least(m, k, Fraction(k, m)), m, k) for m in range(2, 25) for k in range(1, m))
    return [
        exact.check(
            least[0], ">", "1/2", says=f"the least P(Bin(m, k/m) ≥ k) for m < 25, at m = {least[1]}, k = {least[2]}"
        ),
        _attempt(ceil),
    ]


@binomial_median.control
def _() -> Evidence:
    """With the floor in place of the ceiling it must not pass."""
    return _attempt(floor)
