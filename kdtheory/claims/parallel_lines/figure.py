"""Chapter 01, the figure: what the plots of EM and JS against θ show, and what its caption says."""

from __future__ import annotations

import numpy as np
import sympy as sp

from kdtheory.claims.parallel_lines.lines import (
    DOMAIN,
    JS,
    PROOF,
    TV,
    along,
    attempt_matching,
    attempt_partition,
    slope_away_from_zero,
    t,
    theta,
)
from kdtheory.ledger import Evidence, Verdict, claim, exact

_FIGURE = "zhao2024week8, Figure 1; arjovsky2017wgan, Figure 1"


@claim(
    "parallel_lines.em-gradient",
    statement=r"\text{the EM plot is continuous and provides a usable gradient everywhere}",
    source=_FIGURE,
    expected=Verdict.PROVED_IF,
    rows=("S0-15",),
    domain=DOMAIN,
    condition=r"\theta \ne 0 \text{ (continuity holds everywhere)}",
    uses=("parallel_lines.earth-mover",),
    proof=PROOF,
)
def em_gradient() -> list[Evidence]:
    """|θ| has slope ±1, and a kink at the one place where the lines meet."""
    right, left = (sp.limit(sp.Abs(theta) / theta, theta, 0, side) for side in ("+", "-"))
    return [
        exact.check(slope_away_from_zero(sp.Abs(theta)).subs(t, 0), "==", 1, role="inside condition", says="at 1/10"),
        exact.check(right, "==", left, role="outside condition", says="θ = 0: the slopes from right and left agree"),
        attempt_matching(0.0),
    ]


@em_gradient.control
def _() -> Evidence:
    """A slope that shrinks with θ, as that of θ²/2 does, must not pass."""
    return exact.check(slope_away_from_zero(theta**2 / 2).subs(t, 0), "==", 1, says="slope at 1/10")


@claim(
    "parallel_lines.js-gradient",
    statement=r"\text{the JS plot is not continuous and does not provide a usable gradient}",
    source=_FIGURE,
    expected=Verdict.PROVED,
    rows=("S0-16",),
    domain=DOMAIN,
    uses=("parallel_lines.jensen-shannon",),
    proof=PROOF,
)
def js_gradient() -> list[Evidence]:
    """Constant off θ = 0, with a jump there."""
    return [
        exact.check(along(JS, 1 / t) - JS.subs(theta, 0), "==", sp.log(2), says="the jump at θ = 0"),
        exact.check(slope_away_from_zero(JS), "==", 0, says="the slope at θ = 1/10"),
        attempt_partition("js", float(np.log(2))),
    ]


@js_gradient.control
def _() -> Evidence:
    """Continuity of JS at θ = 0 must not pass."""
    return exact.check(along(JS, 1 / t), "==", JS.subs(theta, 0), says="JS at 0+ and at 0")


@claim(
    "parallel_lines.caption",
    statement=r"\text{Distance plot between Wasserstein and KL (caption of the two panels)}",
    source="zhao2024week8, Figure 2 (caption)",
    expected=Verdict.CORRECTED,
    rows=("S0-17",),
    domain="the panel on the right, whose own caption says JS divergence",
    scope="instance",
    uses=("parallel_lines.jensen-shannon", "parallel_lines.kl"),
)
def caption() -> list[Evidence]:
    """KL is infinite off θ = 0 and has no plot; the plateau is JS's log 2."""
    return [
        exact.check(sp.log(2), "==", sp.oo, role="refutes as written", says="the plateau at θ = 1/2 is KL's value"),
        exact.check(JS, "==", sp.log(2), at={"theta": "1/2"}, says="the plateau at θ = 1/2 is JS's value"),
    ]


@caption.control
def _() -> Evidence:
    """A plateau of TV, which is 1, must not pass for the one that is drawn."""
    return exact.check(TV, "==", sp.log(2), at={"theta": "1/2"}, says="the plateau is TV's value")
