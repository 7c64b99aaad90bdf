"""Theorems 1 to 3 of chapter 03: the gradient in the ratio, the critical exponent, and the tail of f."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp

from kdtheory.claims.gradients import oracles as definitions
from kdtheory.claims.saturation import oracles
from kdtheory.claims.saturation.oracles import r
from kdtheory.divergences import RECORDS, derive
from kdtheory.divergences.symbols import alpha, beta, p, q
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric, symbolic

NAMES = ("fkl", "rkl", "jsd", "tvd", "skl", "srkl", "neyman", "hellinger2", "amari", "chi2")
_SUBLINEAR = ("jsd", "tvd", "skl", "srkl", "hellinger2", "amari")


def _parameters(name: str) -> dict[sp.Symbol, sp.Rational]:
    return {alpha: oracles.AMARI if name == "amari" else oracles.ALPHA, beta: oracles.BETA}


def generator(name: str) -> sp.Expr:
    """f of the library's record: its summand at p = r, q = 1, with the parameters of `oracles`."""
    return RECORDS[name].summand_in_p_and_q.subs(_parameters(name)).subs({p: r, q: 1})


def _ratio_form(name: str, sign: int) -> Evidence:
    slope = derive.written_out(RECORDS[name], derive.slope(RECORDS[name])).subs(_parameters(name))
    f = generator(name)
    claimed = sign * (r * sp.diff(f, r) - f)
    return symbolic.identity(
        slope, claimed.subs(r, p / q), role="attempted refutation", says=f"{name}: ∂D/∂q against -φ(p/q)"
    )


def _entry_fails_by(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    """Statement 2 of Theorem 1 against a complex step of the definition typed again, for f-divergences."""
    point, name = definitions.draw(rng), str(rng.choice(NAMES))
    found = definitions.logit_gradient(name, point.p, point.z)
    values = -oracles.slopes(name, point.p)(point.q)
    k = int(point.q.argmax())
    others = point.q @ values - point.q[k] * values[k]
    claimed = point.q[k] * (others - (1 - point.q[k]) * values[k])
    return float(abs(claimed - found[k]) / (1 + np.abs(point.q * values).sum())), point.point(divergence=name)


@claim(
    "saturation.ratio-form",
    statement=r"D = \sum_i q_i f(p_i/q_i):\quad \partial_{z_i} D = q_i\big(\bar\varphi - \varphi(r_i)\big),\quad"
    r" \varphi(r) = r f'(r) - f(r),\ r = p/q,\ \bar\varphi = \sum_j q_j \varphi(r_j);\quad \varphi \text{ is monotone}",
    source="kdtheory, Theorem 1",
    expected=Verdict.PROVED,
    domain="f convex on (0, ∞), f(1) = 0; f(0) < ∞ or p > 0",
    uses=("gradients.chain-rule",),
    proof=Anchor("03_saturation#ratio-form", sha256="96f8db03508f533a"),
)
def ratio_form() -> list[Evidence]:
    """Ten divergences: the derived slope is -φ(p/q), and the entry of the leading token by complex steps."""
    return [
        *(_ratio_form(name, -1) for name in NAMES),
        numeric.attempt(
            _entry_fails_by,
            draws=200,
            oracle=definitions.COMPLEX_STEP,
            tolerance=1e-12,
            because=definitions.ROUNDING,
            says="the entry of the leading token",
        ),
    ]


@ratio_form.control
def _() -> Evidence:
    """The slope with the sign of φ flipped must not pass."""
    return _ratio_form("jsd", 1)


def _limit_fails_by(factor: float, extra: float = 0.0) -> Any:
    """‖∇_z D‖₁ against factor · c(1 - p_k) for c · FKL + a loss with φ = o(r), at students sure of a wrong token."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size, c, name = int(rng.integers(2, 9)), float(rng.uniform(0, 3)), str(rng.choice(_SUBLINEAR))
        p_, (z, k) = rng.dirichlet(np.ones(size)), oracles.confident(rng, size, float(rng.uniform(90, 200)))
        given = definitions.PARAMETERS.get(name, {})

        def value(moved: Any) -> Any:
            student = definitions.softmax(moved)
            total = c * definitions.DEFINITIONS["fkl"](p_, student)
            total = total + definitions.DEFINITIONS[name](p_, student, **given)
            return total + extra * definitions.DEFINITIONS["chi2"](p_, student)

        norm = float(np.abs(definitions.derivatives(value, z)).sum())
        return abs(norm - factor * c * (1 - p_[k])), {"p": p_.tolist(), "z": z.tolist(), "c": c, "added": name}

    return violation


def _attempt_limit(factor: float, extra: float = 0.0) -> Evidence:
    return numeric.attempt(
        _limit_fails_by(factor, extra),
        draws=150,
        oracle=definitions.COMPLEX_STEP + ", leads of 90 to 200 nats",
        tolerance=1e-10,
        because="the added loss contributes at most exp(-0.3 · 90) = 2e-12 (Amari, α = 0.7), float64 sums 1e-15",
        says="‖∇_z D‖₁ → 2c(1 - p_k)",
    )


@claim(
    "saturation.critical-exponent",
    statement=r"\text{along every } q \to e_k,\ p_k < 1:\ \|\nabla_z D\|_1 \text{ bounded and bounded away from } 0"
    r" \iff \varphi(r) = \Theta(r);\quad \varphi(r)/r \to c:\ \partial_{z_i} D \to -c\,p_i,\ \|\nabla_z D\|_1 \to"
    r" 2c(1 - p_k);\ c = 0 \text{ vanishes},\ c = \infty \text{ explodes};\ \varphi = \Theta(r) \Rightarrow f ="
    r" \Theta(r \log r)",
    source="kdtheory, Theorem 2",
    expected=Verdict.PROVED,
    domain="f-divergences with f differentiable; f(0) < ∞ or p > 0",
    uses=("saturation.ratio-form",),
    proof=Anchor("03_saturation#critical-exponent", sha256="b27de490a3929d4f"),
)
def critical_exponent() -> list[Evidence]:
    """Forward KL plus a random loss with a smaller φ, at random confident mistakes; f/(r log r) in symbols."""
    log_tail = r * sp.log(r)
    return [
        _attempt_limit(2.0),
        *(
            exact.check(
                sp.limit((3 * log_tail + generator(name)) / log_tail, r, sp.oo),
                "==",
                3,
                role="attempted refutation",
                says=f"f/(r log r) of 3 · forward KL + {name}",
            )
            for name in ("rkl", "skl", "hellinger2", "neyman")
        ),
    ]


@critical_exponent.control
def _() -> Evidence:
    """Half the limit must not pass."""
    return _attempt_limit(1.0)


@critical_exponent.control
def _() -> Evidence:
    """A trace of χ², whose φ grows like r², must not pass."""
    return _attempt_limit(2.0, extra=1e-9)


_n = sp.Symbol("n", integer=True, positive=True)
_NODE, _NEXT = 2 ** (_n**2), 2 ** ((_n + 1) ** 2)
_ON_PIECE = _NODE * _NEXT * (2 * _n + 1) / (_NEXT - _NODE)  # φ on (2^(n²), 2^((n+1)²))


def _psi_at_end(end: sp.Expr) -> sp.Expr:
    return sp.limit(sp.powsimp(sp.simplify(_ON_PIECE / end)), _n, sp.oo)


def _piece(n: int, f: Any = None) -> Evidence:
    """φ of the chord, from its two end points in rationals."""
    a, b = sp.Integer(2) ** (n**2), sp.Integer(2) ** ((n + 1) ** 2)
    fa, fb = a * n**2, b * (n + 1) ** 2
    chord = (f or (lambda x: fa + (fb - fa) / (b - a) * (x - a)))(r)
    value = (r * sp.diff(chord, r) - chord).subs(r, (a + b) / 2)
    return exact.check(value, "==", _ON_PIECE.subs(_n, n), role="attempted refutation", says=f"φ on piece {n}")


def _oscillating() -> tuple[sp.Expr, sp.Expr]:
    """φ and ψ of f'' = (1 + ½ sin log s)/s, by integrating φ' = s f'' from 1 in u = log s."""
    u, x = sp.Symbol("u", real=True), sp.Symbol("x", real=True)
    antiderivative = sp.integrate((1 + sp.sin(u) / 2) * sp.exp(u), u)
    value = antiderivative.subs(u, x) - antiderivative.subs(u, 0)
    return sp.simplify(value * sp.exp(-x)), x


def _psi_along(phase: sp.Expr) -> sp.Expr:
    value, x = _oscillating()
    n = sp.Symbol("n", integer=True, positive=True)
    t = sp.Symbol("t", positive=True)
    periodic = sp.expand(value).subs(sp.exp(-x), 1 / t)  # exp(x) = t, apart from the periodic part
    return sp.limit(sp.simplify(periodic.subs(x, phase + 2 * sp.pi * n)), t, sp.oo)


@claim(
    "saturation.tail-of-f",
    statement=r"f(r) \sim c\, r \log r \;\Rightarrow\; \varphi(r)/r \to c, \text{ so that } \partial_{z_i} D \to"
    r" -c\,p_i"
    r" \text{ at a confident mistake}",
    source="kdtheory, Theorem 3",
    expected=Verdict.PROVED_IF,
    domain="f convex on (0, ∞), f(1) = 0",
    condition=r"\varphi(r)/r is monotone from some point on",
    uses=("saturation.critical-exponent",),
    proof=Anchor("03_saturation#tail-of-f", sha256="9c4dbe091dbd2297"),
)
def tail_of_f() -> list[Evidence]:
    """Holds for f = r log r + √r; fails for a polygon inscribed in r log₂ r, and for f'' = (1 + ½ sin log s)/s."""
    regular = r * sp.log(r) + sp.sqrt(r) - 1
    psi = (r * sp.diff(regular, r) - regular) / r
    return [
        exact.check(
            sp.limit(psi, r, sp.oo),
            "==",
            sp.limit(regular / (r * sp.log(r)), r, sp.oo),
            role="inside condition",
            says="f = r log r + √r - 1: lim φ/r = lim f/(r log r)",
        ),
        exact.check(
            _psi_at_end(_NEXT),
            "==",
            1 / sp.log(2),
            role="outside condition",
            says="polygon with nodes 2^(n²) on r log₂ r: φ/r just below the nodes tends to c = 1/log 2",
        ),
        exact.check(
            _psi_at_end(_NODE),
            "==",
            1 / sp.log(2),
            role="outside condition",
            says="the same polygon: φ/r just above the nodes tends to c",
        ),
        exact.check(
            sp.limit(_n**2 / (_n + 1) ** 2, _n, sp.oo),
            "==",
            1,
            role="attempted refutation",
            says="f/(r log₂ r) of the polygon lies between n²/(n+1)² and its inverse, which tend to 1",
        ),
        *(_piece(n) for n in (1, 2, 5)),
        *(
            exact.check(
                _psi_along(phase),
                "==",
                1,
                role="outside condition",
                says=f"f'' = (1 + ½ sin log s)/s: φ/r tends to 1 along log r = {phase} + 2πn",
            )
            for phase in (3 * sp.pi / 4, -sp.pi / 4)
        ),
    ]


@tail_of_f.control
def _() -> Evidence:
    """A curve in place of the chord must not pass as a piece of the polygon."""
    return _piece(2, lambda x: x * sp.log(x) / sp.log(2))
