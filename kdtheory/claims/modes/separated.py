"""Theorem 7 of chapter 05: among separated modes reverse KL takes the one of largest mass."""

from __future__ import annotations

from typing import Any

import mpmath as mp
import numpy as np
import sympy as sp
from flint import arb

from kdtheory.claims.modes import enclosures
from kdtheory.claims.modes.gaussian import BOX, SEPARATED, attempt_void, fkl_void, optimum_in
from kdtheory.claims.oracles import exact_kl
from kdtheory.ledger import Evidence, Verdict, claim, exact, interval, numeric


def _right_mode() -> arb:
    """Largest mass that an RKL optimum puts on x > 0."""
    return 1 - enclosures.normal_cdf(-interval.ball(*BOX[0]) / interval.ball(*BOX[1]))


@claim(
    "modes.rkl-major-mode",
    statement=r"RKL \text{ focuses on regions of high } p, \text{ seeks the major modes, abandons low } p"
    r" \text{ (low void probability), and need not fit all samples of the teacher}",
    source="zhao2024week8, first summary slide; minillmnotes, introduction and appendix; gu2024minillm, Section 2.1",
    expected=Verdict.PROVED_IF,
    rows=("S0-06", "S2-03", "S2-23"),
    domain=r"as the separation grows, the RKL optimum tends to the component of largest weight w_1, RKL to -\log w_1",
    condition="misspecified student and separated modes; with free logits the only stationary point is q = p",
    uses=("modes.gaussian-fit", "modes.realisable"),
    proof=SEPARATED,
)
def rkl_major_mode() -> list[Evidence]:
    """At half-distance 4 the optimum leaves out 40 percent of the teacher; with two free logits that is no optimum."""
    return [
        optimum_in(),
        interval.within(_right_mode, 0, "1/10000", role="inside condition", says="mass of an RKL optimum on x > 0"),
        exact.check(
            exact_kl(["1", "0"], ["3/5", "2/5"]),
            "<=",
            exact_kl(["3/5", "2/5"], ["3/5", "2/5"]),
            role="outside condition",
            says="free logits, p = (3/5, 2/5): leaving out the second token is optimal for RKL",
        ),
        attempt_void("rkl", 0.05),
    ]


@rkl_major_mode.control
def _() -> Evidence:
    """The FKL Gaussian must not pass as one that leaves the void empty."""
    return interval.within(fkl_void, 0, "1/100", says="void mass of the FKL fit")


def _tall_and_wide() -> list[Evidence]:
    """.4 N(-4, .1²) + .6 N(4, 1): N(4, 1) costs at most -log .6; nine tenths left of 0 cost more."""
    left = sp.Rational(2, 5) + sp.Rational(3, 10) * sp.exp(-8)  # Φ(-4) <= e^{-8}/2
    nine = sp.Rational(9, 10)
    binary = nine * sp.log(nine / left) + (1 - nine) * sp.log((1 - nine) / (1 - left))
    heights = [sp.Rational(2, 5) * 10, sp.Rational(3, 5)]  # times 1/√(2π)
    return [
        exact.check(heights[0], ">", heights[1], says="the peak of weight .4 is the taller one:"),
        exact.check(binary, ">", -sp.log(sp.Rational(3, 5)), says="RKL of any law with 9/10 of its mass left of 0 >"),
    ]


def _wide_is_best(wanted: float) -> Evidence:
    """The RKL value of N(4, 1) for .4 N(-4, .1²) + .6 N(4, 1), by mpmath."""

    def integrand(x: Any) -> Any:
        p = mp.mpf("0.4") * mp.npdf(x, -4, mp.mpf("0.1")) + mp.mpf("0.6") * mp.npdf(x, 4, 1)
        return mp.npdf(x, 4, 1) * mp.log(mp.npdf(x, 4, 1) / p)

    return numeric.compare(
        float(mp.quad(integrand, [-6, -4.5, -3.5, 0, 2, 4, 6, 12])),
        wanted,
        oracle="-log .6, the separated limit",
        tolerance=1e-3,
        because="the components overlap by less than Φ(-4) = 3e-5",
        role="attempted refutation",
        says="RKL of N(4, 1)",
    )


@claim(
    "modes.largest-mass-not-tallest",
    statement=r"RKL: \text{ the most probable mode of } p \text{ corresponds to that of } q",
    source="forumpost, reverse KL",
    expected=Verdict.CORRECTED,
    rows=("S3-04",),
    domain=r"right: among separated modes RKL takes the one of largest mass, at -\log w_1, however low its peak",
    uses=("modes.rkl-may-leave-out",),
    proof=SEPARATED,
)
def largest_mass_not_tallest() -> list[Evidence]:
    """A peak of 2/5 beside three tokens of 1/5: the uniform law on the three beats the peak."""
    p = ["1/5", "1/5", "1/5", "2/5"]
    return [
        exact.check(
            exact_kl(["0", "0", "0", "1"], p),
            "<=",
            exact_kl(["1/3", "1/3", "1/3", "0"], p),
            role="refutes as written",
            says="p = (1/5, 1/5, 1/5 | 2/5): RKL of the most probable mode (0, 0, 0, 1) <= RKL of (1/3, 1/3, 1/3, 0)",
        ),
        *_tall_and_wide(),
        _wide_is_best(-float(np.log(0.6))),
    ]


@largest_mass_not_tallest.control
def _() -> Evidence:
    """The price of the tall peak, -log .4, must not pass as that of the wide one."""
    return _wide_is_best(-float(np.log(0.4)))
