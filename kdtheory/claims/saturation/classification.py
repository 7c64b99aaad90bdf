"""Theorem 4 of chapter 03: which losses vanish at a confident mistake, which explode, and which do neither."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp

from kdtheory.claims.gradients import oracles as definitions
from kdtheory.claims.saturation import oracles
from kdtheory.claims.saturation.exponent import NAMES, generator
from kdtheory.claims.saturation.oracles import r
from kdtheory.divergences import RECORDS
from kdtheory.divergences.symbols import alpha, p, q
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric, symbolic

_LIMITS = dict.fromkeys(NAMES, 0) | {"fkl": 1, "chi2": sp.oo}


def _limit_of(name: str, expected: Any, a: Any = None) -> Evidence:
    f = generator(name) if a is None else RECORDS["amari"].summand_in_p_and_q.subs({alpha: a, p: r, q: 1})
    s = sp.Symbol("s", positive=True)  # r = 1 + s: beyond total variation's kink
    psi = ((r * sp.diff(f, r) - f) / r).subs(r, 1 + s)
    says = f"lim φ/r of {name}" + ("" if a is None else f" at α = {a}")
    return exact.check(sp.limit(psi, s, sp.oo), "==", expected, role="attempted refutation", says=says)


def _renyi_fails_by(sign: int) -> Any:
    """Rényi at a confident mistake, p_k > 0: norm 2 for α > 1 in the limit, 0 for α < 1."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        a, size = float(rng.choice([0.4, 2.0, 3.0])), int(rng.integers(2, 8))
        p_, (z, _) = rng.dirichlet(np.full(size, 3.0)), oracles.confident(rng, size, 120.0)
        found = definitions.derivatives(
            lambda moved: definitions.DEFINITIONS["renyi"](p_, definitions.softmax(moved), a), z
        )
        expected = 2.0 if sign * (a - 1) > 0 else 0.0
        return float(abs(np.abs(found).sum() - expected)), {"p": p_.tolist(), "z": z.tolist(), "alpha": a}

    return violation


def _attempt_renyi(sign: int) -> Evidence:
    return numeric.attempt(
        _renyi_fails_by(sign),
        draws=60,
        oracle=definitions.COMPLEX_STEP,
        tolerance=1e-10,
        because="a lead of 120 nats leaves exp(-0.6 · 120) = 1e-31; float64 sums 1e-12",
        says="Rényi: ‖∇‖₁ → 2 for α > 1 and → 0 for α < 1",
    )


@claim(
    "saturation.classification",
    statement=r"\lim \varphi(r)/r = 1 \text{ (FKL)};\ 0 \text{ (RKL, JSD, TV, SKL, SRKL, Neyman, Hellinger, Amari}"
    r"_{\alpha<1});\ \infty\ (\chi^2, \text{Amari}_{\alpha>1});\ \text{Rényi}_{\alpha > 1} \text{ is bounded and"
    r" bounded"
    r" away from 0, Rényi}_{\alpha<1} \text{ vanishes if } p_k > 0",
    source="kdtheory, Theorem 4",
    expected=Verdict.PROVED,
    domain="RKL, Neyman: p > 0",
    uses=("saturation.critical-exponent", "gradients.logit-table"),
    proof=Anchor("03_saturation#classification", sha256="a57345f610951019"),
)
def classification() -> list[Evidence]:
    """Limits in symbols, from the library's definitions; φ as typed in the chapter; Rényi by complex steps."""
    typed = [
        symbolic.identity(
            r * sp.diff(generator(name), r) - generator(name),
            oracles.phi(name, r),
            up_to_constant_in=(r,),
            role="attempted refutation",
            says=f"φ of {name} as typed in the chapter",
        )
        for name in NAMES
        if name != "tvd"
    ]
    return [
        *typed,
        *(_limit_of(name, expected) for name, expected in _LIMITS.items()),
        _limit_of("amari", sp.oo, sp.Rational(3, 2)),
        _attempt_renyi(1),
    ]


@classification.control
def _() -> Evidence:
    """Jensen-Shannon classified with forward KL must not pass."""
    return _limit_of("jsd", 1)


@classification.control
def _() -> Evidence:
    """Rényi with the two cases exchanged must not pass."""
    return _attempt_renyi(-1)
