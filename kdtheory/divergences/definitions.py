"""The twelve divergences. The SymPy `term` is the only formula written by hand; `derive` finds the rest.

A new divergence is one more record here: its term, its source, and the same summand and slope in log space
(`logspace`); the laws in the tests pick it up from `RECORDS`.
"""

from __future__ import annotations

import math

import sympy as sp

from kdtheory.divergences import logspace, renyi, summands
from kdtheory.divergences.records import Divergence, Parameter, slope_gradient
from kdtheory.divergences.symbols import S, alpha, beta, m, p, q

_KL_LIMITS = {0.0: 'forward KL: kdtheory.divergence("fkl")', 1.0: "0 for every pair"}
_REVERSE_LIMITS = {0.0: 'reverse KL: kdtheory.divergence("rkl")', 1.0: "0 for every pair"}
_ENDS = {0.0: 'reverse KL: kdtheory.divergence("rkl")', 1.0: 'forward KL: kdtheory.divergence("fkl")'}
_RENYI_ENDS = {0.0: "-log of the student's mass on the teacher's support", 1.0: _ENDS[1.0]}
_JSD_ENDS = {0.0: "0 for every pair (JSD/beta: forward KL)", 1.0: "0 for every pair (JSD/(1-beta): reverse KL)"}

FORWARD_KL = Divergence(
    name="fkl",
    title="forward KL",
    term=p * sp.log(p / q),
    source="hinton2015distilling, Section 2",
    summand=summands.forward_kl,
    slope=lambda pair: -pair.log_ratio.expm1(),
    gradient=lambda pair: logspace.power_gradient(pair, kappa=1, scale=1.0),
)

REVERSE_KL = Divergence(
    name="rkl",
    title="reverse KL",
    term=q * sp.log(q / p),
    source="gu2024minillm, Eq. 1",
    summand=summands.reverse_kl,
    slope=summands.reverse_kl_slope,
    gradient=summands.reverse_kl_gradient,
)

JENSEN_SHANNON = Divergence(
    name="jsd",
    title="Jensen-Shannon",
    term=beta * p * sp.log(p / m) + (1 - beta) * q * sp.log(q / m),
    mixture=beta * p + (1 - beta) * q,
    source="agarwal2024gkd, Eq. 1; lin1991divergence",
    parameters={"beta": Parameter(0.5, 0, 1, _JSD_ENDS)},
    summand=summands.jensen_shannon,
    slope=summands.jensen_shannon_slope,
    gradient=slope_gradient(summands.jensen_shannon_slope),
)

TOTAL_VARIATION = Divergence(
    name="tvd",
    title="total variation",
    term=sp.Abs(p - q) / 2,
    source="ji2023tailr, Eq. 3",
    summand=summands.total_variation,
    slope=summands.total_variation_slope,
    gradient=slope_gradient(summands.total_variation_slope),
    temperature_power=1,
)

SKEW_KL = Divergence(
    name="skl",
    title="skew KL",
    term=p * sp.log(p / m),
    mixture=alpha * p + (1 - alpha) * q,
    source="ko2024distillm, Eq. 3",
    parameters={"alpha": Parameter(0.1, 0, 1, _KL_LIMITS)},
    summand=summands.skew_kl,
    slope=summands.skew_kl_slope,
    gradient=slope_gradient(summands.skew_kl_slope),
)

SKEW_REVERSE_KL = Divergence(
    name="srkl",
    title="skew reverse KL",
    term=q * sp.log(q / m),
    mixture=alpha * q + (1 - alpha) * p,
    source="ko2024distillm, Section 3.1",
    parameters={"alpha": Parameter(0.1, 0, 1, _REVERSE_LIMITS)},
    summand=summands.skew_reverse_kl,
    slope=summands.skew_reverse_kl_slope,
    gradient=slope_gradient(summands.skew_reverse_kl_slope),
)

CHI_SQUARE = Divergence(
    name="chi2",
    title="chi-square",
    term=p**2 / q - p,
    source="csiszar1967information",
    summand=summands.chi_square,
    slope=lambda pair: -(2 * pair.log_ratio).expm1(),
    gradient=lambda pair: logspace.power_gradient(pair, kappa=2, scale=1.0),
)

NEYMAN = Divergence(
    name="neyman",
    title="Neyman chi-square",
    term=q**2 / p - p,
    source="csiszar1967information",
    summand=summands.neyman,
    slope=summands.neyman_slope,
    gradient=summands.neyman_gradient,
)

HELLINGER = Divergence(
    name="hellinger2",
    title="squared Hellinger",
    term=p - sp.sqrt(p * q),
    source="csiszar1967information",
    summand=summands.hellinger,
    slope=lambda pair: -0.5 * (0.5 * pair.log_ratio).expm1(),
    gradient=lambda pair: logspace.power_gradient(pair, kappa=0.5, scale=0.5),
)

AMARI = Divergence(
    name="amari",
    title="Amari alpha",
    term=(p - p**alpha * q ** (1 - alpha)) / (alpha * (1 - alpha)),
    source="amari2000methods, Section 3.5",
    parameters={"alpha": Parameter(0.5, 0, math.inf, _ENDS)},
    summand=summands.amari,
    slope=lambda pair, alpha: -(alpha * pair.log_ratio).expm1() / alpha,
    gradient=lambda pair, alpha: logspace.power_gradient(pair, kappa=alpha, scale=1 / alpha),
)

RENYI = Divergence(
    name="renyi",
    title="Rényi",
    term=p**alpha * q ** (1 - alpha),
    outer=sp.log(S) / (alpha - 1),
    source="renyi1961measures, Eq. 3.3",
    parameters={"alpha": Parameter(2.0, 0, math.inf, _RENYI_ENDS)},
    summand=renyi.summand,
    slope=renyi.slope,
    gradient=renyi.gradient,
    finish=renyi.value,
)

SEPARABLE = (
    FORWARD_KL,
    REVERSE_KL,
    JENSEN_SHANNON,
    TOTAL_VARIATION,
    SKEW_KL,
    SKEW_REVERSE_KL,
    CHI_SQUARE,
    NEYMAN,
    HELLINGER,
    AMARI,
)
RECORDS = {record.name: record for record in (*SEPARABLE, RENYI)}
