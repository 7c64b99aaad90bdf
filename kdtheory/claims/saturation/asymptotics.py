"""Theorem 11 of chapter 03: escape times of two tokens as the gap grows."""

from __future__ import annotations

from typing import Any

import numpy as np
from mpmath import mp

from kdtheory.claims.saturation import oracles
from kdtheory.claims.saturation.escape import OFFSET, flow_time
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, numeric


def _asymptote(name: str, gap: Any, a: float = 0.7) -> Any:
    """T to leading order, Theorem 11, in mpmath."""
    big = mp.exp(gap)
    return {
        "fkl": gap / 2,
        "tvd": big / 2,
        "skl": big / 18,
        "jsd": big / (2 * mp.mpf("0.7") * gap),
        "srkl": big / (2 * gap),
        "rkl": big / (2 * gap),
        "neyman": big * mp.mpf("0.05") / 4,
        "hellinger2": 2 * mp.exp(gap / 2),
        "amari": a / (2 * (1 - a)) * mp.exp((1 - a) * gap),
    }[name]


def _rate_at(name: str, gap: Any) -> Any:
    """dT/dΔ from slopes typed by hand, in mpmath."""
    size = 1 + mp.exp(gap)
    if name in ("rkl", "neyman"):
        e, x = mp.mpf("0.05"), 1 / size
        fall = mp.log((1 - x) / e) - mp.log(x / (1 - e)) if name == "rkl" else 2 * ((1 - x) / e - x / (1 - e))
    else:
        fall = oracles.phi(name, size, mp.log) + mp.mpf(OFFSET[name])
    return size * (1 + mp.exp(-gap)) / (2 * fall)


def _asymptotic(name: str, factor: float = 1.0) -> Evidence:
    """T'(Δ) over the derivative of the leading term (a central difference), at a gap of 10⁵."""
    with mp.workdps(60):
        gap, h = mp.mpf(10) ** 5, mp.mpf(10) ** -15
        slope = (_asymptote(name, gap + h) - _asymptote(name, gap - h)) / (2 * h)
        ratio = float(_rate_at(name, gap) / (factor * slope))
    return numeric.compare(
        ratio,
        1.0,
        oracle="derivative of the leading term, central difference in mpmath, 60 digits",
        tolerance=1e-4,
        because="the next term of JSD, SRKL and RKL is of relative order 5/Δ, Δ = 1e5; of the others smaller",
        role="attempted refutation",
        says=f"{name}: T' over the derivative of its leading term at a gap of 1e5",
    )


@claim(
    "saturation.escape-asymptotics",
    statement=r"T(\Delta) \sim \tfrac12\Delta \text{ (FKL)},\ \tfrac12 e^\Delta \text{ (TV)},\ \tfrac{\alpha}{2(1 -"
    r" \alpha)} e^\Delta \text{ (SKL)},\ \tfrac{e^\Delta}{2(1 - \beta)\Delta} \text{ (JSD)},\ \tfrac{e^\Delta}{2\Delta}"
    r" \text{ (RKL, SRKL)},\ \tfrac{e}{4} e^\Delta \text{ (Neyman, } p_2 = e),\ 2e^{\Delta/2} \text{ (Hellinger)},\ "
    r" \tfrac{\alpha}{2(1 - \alpha)} e^{(1 - \alpha)\Delta} \text{ (Amari)};\ \text{bounded for } \chi^2,"
    r" \text{Amari}_{\alpha > 1}",
    source="kdtheory, Theorem 11",
    expected=Verdict.PROVED,
    domain="V = 2, p = (1, 0); RKL and Neyman: p = (1 - η, η), η < 1/2; Δ → ∞",
    uses=("saturation.escape-formula",),
    proof=Anchor("03_saturation#escape-asymptotics", sha256="e3fd582946d17cec"),
)
def escape_asymptotics() -> list[Evidence]:
    """The derivative in Δ at 10⁵ nats; χ²'s time from our own flow up to a gap of 60."""
    names = ("fkl", "tvd", "skl", "jsd", "srkl", "rkl", "neyman", "hellinger2", "amari")
    gaps = np.array([1.0, 5.0, 20.0, 60.0])
    return [
        *(_asymptotic(name) for name in names),
        numeric.compare(
            [flow_time("chi2", gap) for gap in gaps],
            (1 - np.exp(-gaps)) / 2,
            oracle="the closed form, which stays below ½",
            tolerance=1e-8,
            because="the flow is integrated with relative tolerance 1e-9 per step",
            says="χ²: kdtheory.dynamics.flow at gaps of 1 to 60",
        ),
    ]


@escape_asymptotics.control
def _() -> Evidence:
    """Jensen-Shannon without 1 - β must not pass."""
    return _asymptotic("jsd", factor=0.7)
