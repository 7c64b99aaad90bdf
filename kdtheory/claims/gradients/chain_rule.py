"""Theorems 1, 2, 3 and 9 of chapter 02: chain rule, table of logit gradients, one drawn token, bounded slopes."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
import sympy as sp

from kdtheory.claims.gradients import oracles
from kdtheory.divergences import RECORDS, AdaptiveKL, derive
from kdtheory.divergences.symbols import S, alpha, beta, p, q
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, numeric, symbolic

_RECORDS = {**RECORDS, "akl": AdaptiveKL.symbolic()}
_w_h, _w_t = sp.symbols("w_h w_t", positive=True)  # adaptive KL's weights, constants of its gradient
_log = sp.log(q / p)
_m_js, _m_skew, _m_reverse = beta * p + (1 - beta) * q, alpha * p + (1 - alpha) * q, alpha * q + (1 - alpha) * p
_h = sp.log(q / _m_reverse) - alpha * q / _m_reverse

# Typed by hand as in chapter 02: slope; then own, closed, open of ∂D/∂z_i = own_i - q_i (closed + Σ_j open_j).
_SLOPES = {
    "fkl": -p / q,
    "rkl": _log + 1,
    "jsd": (1 - beta) * sp.log(q / _m_js),
    "tvd": sp.sign(q - p) / 2,
    "skl": -(1 - alpha) * p / _m_skew,
    "srkl": sp.log(q / _m_reverse) + 1 - alpha * q / _m_reverse,
    "chi2": -((p / q) ** 2),
    "neyman": 2 * q / p,
    "hellinger2": -sp.sqrt(p / q) / 2,
    "amari": -((p / q) ** alpha) / alpha,
    "renyi": -((p / q) ** alpha) / S,
    "akl": -_w_h * p / q + _w_t * (_log + 1),
}
_LOGITS = {
    "fkl": (-p, -1, 0),
    "rkl": (q * _log, 0, q * _log),
    "jsd": ((1 - beta) * q * sp.log(q / _m_js), 0, (1 - beta) * q * sp.log(q / _m_js)),
    "tvd": (q * sp.sign(q - p) / 2, 0, q * sp.sign(q - p) / 2),
    "skl": (-(1 - alpha) * p * q / _m_skew, 0, -(1 - alpha) * p * q / _m_skew),
    "srkl": (q * _h, 0, q * _h),
    "chi2": (-(p**2) / q, 0, -(p**2) / q),
    "neyman": (2 * q**2 / p, 0, 2 * q**2 / p),
    "hellinger2": (-sp.sqrt(p * q) / 2, 0, -sp.sqrt(p * q) / 2),
    "amari": (-(p**alpha) * q ** (1 - alpha) / alpha, 0, -(p**alpha) * q ** (1 - alpha) / alpha),
    "renyi": (-(p**alpha) * q ** (1 - alpha) / S, -1, 0),
    "akl": (_w_t * q * _log - _w_h * p, -_w_h, _w_t * q * _log),
}


def _through_softmax(size: int, entry: Any) -> Evidence:
    """A linear D = Σ g q has every slope there is: differentiate it through the softmax and compare one entry."""
    student = oracles.symbolic_softmax(size)
    g = list(sp.symbols(f"g1:{size + 1}", real=True))
    value = oracles.expectation(student.q, g)
    return symbolic.identity(
        student.derivative(value, 0),
        entry(student.q, g),
        role="attempted refutation",
        scope=f"V = {size}",
        says=f"∂/∂z_1 through the softmax, V = {size}",
    )


def _chain_rule_fails_by(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    point = oracles.draw(rng)
    name = str(rng.choice(list(oracles.DEFINITIONS)))
    g = oracles.slope(name, point.p, point.q)
    found = point.q * (g - point.q @ g)
    error = np.abs(found - oracles.logit_gradient(name, point.p, point.z)).max()
    return float(error / (1 + (point.q * np.abs(g)).max())), point.point(divergence=name)


@claim(
    "gradients.chain-rule",
    statement=r"\frac{\partial D}{\partial z_i} = q_i\Big(g_i - \sum_j q_j g_j\Big),\quad"
    r" \sum_i \frac{\partial D}{\partial z_i} = 0,\quad g \text{ and } g + c \text{ give the same}",
    source="kdtheory, Theorem 1",
    expected=Verdict.PROVED,
    domain="q = softmax(z); D differentiable at q, with slopes g = ∂D/∂q",
    proof=Anchor("02_gradients#chain-rule", sha256="39a0d2e45927edda"),
)
def chain_rule() -> list[Evidence]:
    """Differentiate the softmax itself; then the definitions, both sides of the rule by complex steps."""
    return [
        _through_softmax(4, lambda q, g: q[0] * (g[0] - oracles.expectation(q, g))),
        numeric.attempt(
            _chain_rule_fails_by,
            draws=200,
            oracle=oracles.COMPLEX_STEP,
            tolerance=1e-12,
            because=oracles.ROUNDING,
            says="the chain rule on twelve divergences",
        ),
    ]


@chain_rule.control
def _() -> Evidence:
    """The plain mean of the slopes in place of the mean under q must not pass."""
    return _through_softmax(3, lambda q, g: q[0] * (g[0] - sum(g) / 3))


def _derived_entry_fails_by(name: str, rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    teacher, weight = (rng.integers(1, 40, size=4) for _ in range(2))
    p_, q_ = ([sp.Rational(int(a), int(row.sum())) for a in row] for row in (teacher, weight))
    record, given = _RECORDS[name], oracles.PARAMETERS.get(name, {})
    derived = np.array([float(entry) for entry in derive.logit_gradient(record).at(record, p_, q_, **given)])
    expected = oracles.logit_gradient(name, teacher / teacher.sum(), np.log(weight))
    ties = name == "tvd" and any(a == b for a, b in zip(p_, q_, strict=True))
    error = 0.0 if ties else float(np.abs(derived - expected).max() / (1 + np.abs(expected).max()))
    return error, {"divergence": name, "p": teacher.tolist(), "exp z": weight.tolist()}


def _parts(own: Any, closed: Any, open_: Any) -> sp.Expr:
    """The three parts in one expression, kept apart by two marks."""
    first, second = sp.symbols("mark_closed mark_open", positive=True)
    return sp.sympify(own) + first * sp.sympify(closed) + second * sp.sympify(open_)


def _derived_parts(name: str) -> sp.Expr:
    record = _RECORDS[name]
    found = derive.logit_gradient(record)
    return derive.written_out(record, _parts(found.own, found.closed, found.open))


@claim(
    "gradients.logit-table",
    statement=r"\text{the slopes and logit gradients of the table, for FKL, RKL, JSD}_\beta\text{, TV, SKL}_\alpha"
    r"\text{, SRKL}_\alpha\text{, }\chi^2\text{, Neyman, Hellinger, Amari}_\alpha\text{, Rényi}_\alpha\text{, AKL}",
    source="kdtheory, Theorem 2",
    expected=Verdict.PROVED,
    domain="p, q > 0; total variation where no p_i = q_i; adaptive KL at constant weights",
    uses=("gradients.chain-rule",),
    proof=Anchor("02_gradients#logit-table", sha256="545631a851d7cff4"),
)
def logit_table() -> list[Evidence]:
    """What SymPy derives from the definitions equals what was typed by hand, and the derivative through the softmax."""
    slopes = [
        symbolic.identity(
            derive.written_out(_RECORDS[name], derive.slope(_RECORDS[name])), typed, says=f"slope of {name}, derived"
        )
        for name, typed in _SLOPES.items()
    ]
    logits = [
        symbolic.identity(_derived_parts(name), _parts(*typed), says=f"logit gradient of {name}, derived")
        for name, typed in _LOGITS.items()
    ]
    names = cycle(_RECORDS)
    tried = numeric.attempt(
        lambda rng: _derived_entry_fails_by(next(names), rng),
        draws=3 * len(_RECORDS),
        oracle=oracles.COMPLEX_STEP,
        tolerance=1e-12,
        because=oracles.ROUNDING,
        says="the derived logit gradients",
    )
    return [*slopes, *logits, tried]


@logit_table.control
def _() -> Evidence:
    """Reverse KL without the mean Σ q log(q/p) subtracted must not pass."""
    return symbolic.identity(_derived_parts("rkl"), _parts(q * _log, 0, 0), says="rkl without its mean")


@logit_table.control
def _() -> list[Evidence]:
    """A factor 2 dropped from Neyman's slope must not pass."""
    return symbolic.compare(derived=derive.slope(_RECORDS["neyman"]), right=q / p)


def estimate(weight: list[Any], law: list[Any], student: oracles.SymbolicSoftmax, i: int) -> sp.Expr:
    """E[weight(y) ∂q_y/∂z_i] for y drawn from the law, by differentiating the softmax."""
    return oracles.expectation(law, [w * student.derivative(s, i) for w, s in zip(weight, student.q, strict=True)])


def _one_token(weigh: Any, right: Any, says: str, role: Any = "attempted refutation") -> Evidence:
    student = oracles.symbolic_softmax(3)
    g, a = list(sp.symbols("g1:4", real=True)), list(sp.symbols("a1:4", real=True))
    law, weight = weigh(student, g, a)
    return symbolic.identity(
        estimate(weight, law, student, 0), right(student.q, g, a), role=role, scope="V = 3", says=says
    )


def _gradient(q_: list[Any], g: list[Any]) -> sp.Expr:
    return q_[0] * (g[0] - oracles.expectation(q_, g))


@claim(
    "gradients.one-drawn-token",
    statement=r"\nabla_z D = E_{y \sim p}\big[p_y^{-1} g_y \nabla_z q_y\big] = E_{y \sim q}\big[g_y \nabla_z \log"
    r" q_y\big];\ \text{with } g_y + a_y \text{ in place of } g_y \text{ both stay true iff } a \text{ is constant}",
    source="kdtheory, Theorem 3",
    expected=Verdict.PROVED,
    domain="p, q > 0; y ~ q needs only q > 0",
    uses=("gradients.chain-rule",),
    proof=Anchor("02_gradients#one-drawn-token", sha256="80f383bf6179ad75"),
)
def one_drawn_token() -> list[Evidence]:
    """The expectation over the drawn token, summed in symbols for three tokens."""
    return [
        _one_token(
            lambda s, g, a: (s.p, [(x + y) / t for x, y, t in zip(g, a, s.p, strict=True)]),
            lambda q_, g, a: _gradient(q_, g) + _gradient(q_, a),
            "y ~ p, weight (g + a)/p: the gradient plus q(a - ā)",
        ),
        _one_token(
            lambda s, g, a: (s.q, [(x + y) / t for x, y, t in zip(g, a, s.q, strict=True)]),
            lambda q_, g, a: _gradient(q_, g) + _gradient(q_, a),
            "y ~ q, weight g + a on the score: the gradient plus q(a - ā)",
        ),
    ]


@one_drawn_token.control
def _() -> Evidence:
    """A token drawn from the student but weighted by 1/p must not pass as unbiased."""
    return _one_token(
        lambda s, g, a: (s.q, [x / t for x, t in zip(g, s.p, strict=True)]), lambda q_, g, a: _gradient(q_, g), "y ~ q"
    )


def _bound_fails_by(factor: float) -> Any:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        z = rng.uniform(0, 12) * rng.normal(size=int(rng.integers(2, 13)))
        q_ = oracles.softmax(z)
        signs = np.where(np.arange(z.size) == q_.argmax(), 1.0, rng.choice([-1.0, 1.0], size=z.size))
        g = np.where(
            rng.random() < 0.5, signs, rng.uniform(-1, 1, size=z.size)
        )  # L = 2: vertices of the box, or inside
        gradient = oracles.derivatives(lambda moved: oracles.softmax(moved) @ g, z)
        left = min(np.delete(q_, q_.argmax()).sum(), 0.5)
        bound = factor * np.ptp(g) * left * (1 - left)
        return float(np.abs(gradient).sum() - bound), {"z": z.tolist(), "g": g.tolist()}

    return violation


@claim(
    "gradients.bounded-slopes",
    statement=r"|g_i - g_j| \le L \text{ for all } i, j \;\Rightarrow\; \|\nabla_z D\|_1 \le 2 L d (1 - d) \le 2 L"
    r" (1 - \max_k q_k),\quad d = \min(\tfrac12, 1 - \max_k q_k)",
    source="kdtheory, Theorem 9",
    expected=Verdict.PROVED,
    domain="q = softmax(z)",
    uses=("gradients.chain-rule",),
    proof=Anchor("02_gradients#bounded-slopes", sha256="798ea73a0fab4747"),
)
def bounded_slopes() -> Evidence:
    """Random slopes, half of them at the vertices of the box, students from flat to saturated."""
    return numeric.attempt(
        _bound_fails_by(2.0),
        draws=800,
        oracle="complex step of Σ g q through the softmax",
        tolerance=1e-13,
        because="float64 sums of at most 12 terms of size 1",
        says="the bound 2Ld(1 - d)",
    )


@bounded_slopes.control
def _() -> Evidence:
    """The bound without its factor 2 must not pass: it is sharp."""
    return numeric.attempt(
        _bound_fails_by(1.0),
        draws=800,
        oracle="complex step",
        tolerance=1e-13,
        because="as above",
        says="half the bound",
    )
