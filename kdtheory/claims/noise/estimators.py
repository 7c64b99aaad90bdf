"""Theorems 1 to 3 and 7 of chapter 06: the variance of one drawn token's gradient, for every estimator."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import sympy as sp

from kdtheory.claims.gradients import oracles
from kdtheory.divergences import RECORDS, derive
from kdtheory.divergences.symbols import alpha, beta, p, q
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric, symbolic

Law = Any
"""Probabilities, in whatever arithmetic: a list of rationals or SymPy numbers, or an array."""
_NAMES = ("fkl", "rkl", "jsd", "tvd", "skl", "srkl", "chi2", "neyman", "hellinger2", "amari", "renyi")
_TEACHER = [Fraction(1, 5), Fraction(1, 5), Fraction(3, 5)]
_STUDENT = [Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)]
ENUMERATED = "enumeration over the tokens, with complex steps of the definitions typed again"
ROUNDING = "float64 sums of at most 12 terms, divided by the largest second moment"


def second_moment(student: Law, law: Law, slopes: Law) -> Any:
    """Σ q²/r g² (1 − 2q + Q), in whatever arithmetic the arguments bring."""
    total = sum(b * b for b in student)
    return sum(b * b / r * g * g * (1 - 2 * b + total) for b, r, g in zip(student, law, slopes, strict=True))


def squared_gradient(student: Law, slopes: Law) -> Any:
    """Σ q²(g − ḡ)²."""
    mean = sum(b * g for b, g in zip(student, slopes, strict=True))
    return sum((b * (g - mean)) ** 2 for b, g in zip(student, slopes, strict=True))


def variance(student: Law, law: Law, slopes: Law) -> Any:
    """Theorem 1.2: trace of the covariance of (q_y/r_y) g_y (e_y − q), y ~ r."""
    return second_moment(student, law, slopes) - squared_gradient(student, slopes)


def best_constant(student: Law, law: Law, slopes: Law) -> Any:
    """Theorem 1.3: −Σ w g / Σ w."""
    total = sum(b * b for b in student)
    weights = [b * b / r * (1 - 2 * b + total) for b, r in zip(student, law, strict=True)]
    return -sum(w * g for w, g in zip(weights, slopes, strict=True)) / sum(weights)


def drawn(student: Law, law: Law, slopes: Law) -> list[list[Any]]:
    """The vectors X_y themselves."""
    return [
        [b / r * g * (int(i == y) - other) for i, other in enumerate(student)]
        for y, (b, r, g) in enumerate(zip(student, law, slopes, strict=True))
    ]


def scatter(vectors: Any, law: Law) -> Any:
    """E‖X − E X‖² of a vector that takes the given values with the given probabilities."""
    mean = [sum(r * x for r, x in zip(law, column, strict=True)) for column in zip(*vectors, strict=True)]
    return sum(
        r * sum((x - m) ** 2 for x, m in zip(vector, mean, strict=True)) for r, vector in zip(law, vectors, strict=True)
    )


def _batch_of_two(student: Law, law: Law, slopes: Law) -> Any:
    """Variance of the mean of two independent copies, by enumeration over the pairs."""
    single = drawn(student, law, slopes)
    pairs = list(product(range(len(law)), repeat=2))
    means = [[(a + b) / 2 for a, b in zip(single[i], single[j], strict=True)] for i, j in pairs]
    return scatter(means, [law[i] * law[j] for i, j in pairs])


def _enumerated(name: str, point: oracles.Draw, law: Any, constant: float) -> tuple[Any, Any, Any]:
    """Mean error, variance by enumeration and slopes; scores and gradients by complex steps, no formula of ours."""
    slopes = oracles.slope(name, point.p, point.q) + constant
    vectors = [
        slopes[y] / law[y] * oracles.derivatives(lambda moved, y=y: oracles.softmax(moved)[y], point.z)  # type: ignore[misc]
        for y in range(point.z.size)
    ]
    error = np.abs(law @ np.array(vectors) - oracles.logit_gradient(name, point.p, point.z)).max()
    return error, scatter(vectors, law), slopes


def _formula_is_off(formula: Callable[..., Any]) -> Any:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        point, name = oracles.draw(rng, spread=1.0), _NAMES[int(rng.integers(len(_NAMES)))]
        law = [point.p, point.q, rng.dirichlet(np.full(point.z.size, 5.0))][int(rng.integers(3))]
        constant = float(rng.normal())
        error, enumerated, slopes = _enumerated(name, point, law, constant)
        scale = 1 + float(second_moment(point.q, law, slopes))
        off = abs(formula(point.q, law, slopes) - enumerated) / scale
        return float(max(off, error / scale)), point.point(name=name, law=law.tolist(), constant=constant)

    return violation


def _attempt(formula: Callable[..., Any], draws: int = 150) -> Evidence:
    return numeric.attempt(
        _formula_is_off(formula),
        draws=draws,
        oracle=ENUMERATED,
        tolerance=1e-11,
        because=ROUNDING,
        says="E X = ∇D and the formula for the variance, eleven divergences, three laws",
    )


@claim(
    "noise.drawn-token-variance",
    statement=r"X_y = \frac{q_y}{r_y}(g_y + c)(e_y - q),\ y \sim r:\quad E X = \nabla_z D,\quad \mathrm{Var}\, X ="
    r" \sum_y \frac{q_y^2}{r_y}(g_y + c)^2 (1 - 2 q_y + Q) - \|\nabla_z D\|^2,\quad"
    r" c^* = -\frac{\sum w g}{\sum w}",
    source="kdtheory, Theorem 1",
    expected=Verdict.PROVED,
    domain="r > 0; any slopes, any constant; n copies: divided by n; two tokens: 0 at the best constant",
    uses=("gradients.chain-rule", "gradients.one-drawn-token"),
    proof=Anchor("06_noise#drawn-token", sha256="b01c870557f2e359"),
)
def drawn_token_variance() -> list[Evidence]:
    """Second moment minus squared mean; the score of token y has squared length 1 − 2q_y + Q."""
    slopes = [2 * b / a for a, b in zip(_TEACHER, _STUDENT, strict=True)]
    items = [_attempt(variance)]
    for says, law in (("y ~ p", _TEACHER), ("y ~ q", _STUDENT)):
        closed = variance(_STUDENT, law, slopes)
        items.append(exact.check(closed, "==", scatter(drawn(_STUDENT, law, slopes), law), says=f"Neyman, {says}"))
        items.append(exact.check(_batch_of_two(_STUDENT, law, slopes), "==", closed / 2, says=f"two tokens, {says}"))
        best = best_constant(_STUDENT, law, slopes)
        least = variance(_STUDENT, law, [g + best for g in slopes])
        for step in (Fraction(-1, 1000), Fraction(1, 1000)):
            near = scatter(drawn(_STUDENT, law, [g + best + step for g in slopes]), law)
            items.append(exact.check(near, ">", least, says=f"variance at c* {float(step):+} against c*, {says}"))
    pair, other, three = [Fraction(1, 3), Fraction(2, 3)], [Fraction(1, 7), Fraction(6, 7)], [5, -1]
    shifted = [g + best_constant(pair, other, three) for g in three]
    return [*items, exact.check(scatter(drawn(pair, other, shifted), other), "==", 0, says="two tokens, at c*")]


@drawn_token_variance.control
def _() -> Evidence:
    """The second moment alone, without the squared mean, must not pass."""
    return _attempt(second_moment, 20)


_mixed_p = alpha * p + (1 - alpha) * q
_mixed_q = alpha * q + (1 - alpha) * p
_middle = beta * p + (1 - beta) * q
_BY_HAND: dict[str, tuple[sp.Expr, sp.Expr]] = {  # name: (A for y ~ p, A for y ~ q), as in the chapter
    "fkl": (sp.Integer(-1), -p / q),
    "rkl": (q / p * sp.log(q / p), sp.log(q / p)),
    "jsd": ((1 - beta) * q / p * sp.log(q / _middle), (1 - beta) * sp.log(q / _middle)),
    "skl": (-(1 - alpha) * q / _mixed_p, -(1 - alpha) * p / _mixed_p),
    "srkl": (
        q / p * (sp.log(q / _mixed_q) - alpha * q / _mixed_q),
        sp.log(q / _mixed_q) - alpha * q / _mixed_q,
    ),
    "chi2": (-p / q, -(p**2) / q**2),
    "neyman": (2 * q**2 / p**2, 2 * q / p),
    "hellinger2": (-sp.sqrt(q / p) / 2, -sp.sqrt(p / q) / 2),
}
_FREE = {"rkl": 1, "srkl": 1}


def _row(name: str, written: tuple[sp.Expr, sp.Expr]) -> list[Evidence]:
    """A_y of the table against the slope derived from the definition, weighted by q/r."""
    slope = derive.written_out(RECORDS[name], derive.slope(RECORDS[name])) - _FREE.get(name, 0)
    return [
        symbolic.identity(slope * q / law, by_hand, says=f"{name}, y ~ {law}")
        for law, by_hand in zip((p, q), written, strict=True)
    ]


def _sign_row(overestimated: bool) -> list[Evidence]:
    """Total variation on one side of its kink."""
    d = sp.Symbol("d", positive=True)
    given = {q: p + d} if overestimated else {p: q + d}
    slope = derive.slope(RECORDS["tvd"])
    half = sp.Rational(1 if overestimated else -1, 2)
    says = f"tvd, q {'>' if overestimated else '<'} p"
    return [
        symbolic.identity(slope * q / law, half * q / law, given=given, says=f"{says}, y ~ {law}") for law in (p, q)
    ]


@claim(
    "noise.estimator-table",
    statement=r"\text{the estimators } A_y (e_y - q) \text{ of } \nabla_z D \text{ for } y \sim p \text{ and } y \sim q"
    r" \text{ are those of the table}",
    source="kdtheory, Theorem 2",
    expected=Verdict.PROVED,
    domain="nine divergences, p, q > 0; reverse KL and skew reverse KL without their constant 1",
    scope="scalar identity",
    uses=("noise.drawn-token-variance", "gradients.logit-table"),
    proof=Anchor("06_noise#estimator-table", sha256="5cc9901f2edbf50e"),
)
def estimator_table() -> list[Evidence]:
    """Each weight is the derived slope times q/r."""
    rows = [item for name, written in _BY_HAND.items() for item in _row(name, written)]
    return [*rows, *_sign_row(True), *_sign_row(False)]


@estimator_table.control
def _() -> list[Evidence]:
    """The two columns of forward KL exchanged must not pass."""
    return _row("fkl", (_BY_HAND["fkl"][1], _BY_HAND["fkl"][0]))


def _simpson(law: Law) -> Any:
    return 1 - sum(a * a for a in law)


def _fkl_is_off(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    point = oracles.draw(rng, spread=float(rng.uniform(0.1, 4)))
    error, enumerated, _ = _enumerated("fkl", point, point.p, 0.0)
    length = max(
        float(np.linalg.norm(oracles.derivatives(lambda z, y=y: np.log(oracles.softmax(z)[y]), point.z)))  # type: ignore[misc]
        - np.sqrt(2) * (1 - point.q[y])
        for y in range(point.q.size)
    )
    return max(float(abs(enumerated - _simpson(point.p))), float(error), length), point.point()


def _fkl_instances(says: str, claimed: Law | None) -> list[Evidence]:
    students = (_STUDENT, _TEACHER, [Fraction(1, 1000), Fraction(998, 1000), Fraction(1, 1000)])
    items = []
    for student in students:
        slopes = [-a / b for a, b in zip(_TEACHER, student, strict=True)]
        spread = scatter(drawn(student, _TEACHER, slopes), _TEACHER)
        items.append(exact.check(spread, "==", _simpson(claimed or student), says=says))
    return items


@claim(
    "noise.fkl-variance",
    statement=r"y \sim p:\ \mathrm{Var}(q - e_y) = 1 - \textstyle\sum_i p_i^2 \text{ for every student; reverse KL,"
    r" } y \sim q, \text{ at } q = p:\ c^2 (1 - \sum_i p_i^2)",
    source="kdtheory, Theorem 3",
    expected=Verdict.PROVED,
    domain=r"and \|q - e_y\| \le \sqrt2 (1 - q_y); (q_y/p_y - 1)(e_y - q) is unbiased too, with variance 0 at q = p",
    uses=("noise.drawn-token-variance", "gradients.fkl-sampled"),
    proof=Anchor("06_noise#forward-kl", sha256="4f5a357b7a41f71d"),
)
def fkl_variance() -> list[Evidence]:
    """The student only shifts the one-hot vector of the drawn token."""
    on_policy = [
        exact.check(
            scatter(drawn(_TEACHER, _TEACHER, [c] * 3), _TEACHER),
            "==",
            c * c * _simpson(_TEACHER),
            says=f"reverse KL with constant {c} at q = p",
        )
        for c in (-1, 0, 1)
    ]
    weighted = [1 - a / b for a, b in zip(_TEACHER, _STUDENT, strict=True)]
    vectors = drawn(_STUDENT, _TEACHER, weighted)
    mean = [sum(a * x for a, x in zip(_TEACHER, column, strict=True)) for column in zip(*vectors, strict=True)]
    unbiased = [
        exact.check(m, "==", b - a, says="mean of (q/p − 1)(e_y − q)")
        for m, a, b in zip(mean, _TEACHER, _STUDENT, strict=True)
    ]
    attempt = numeric.attempt(
        _fkl_is_off,
        draws=100,
        oracle=ENUMERATED,
        tolerance=1e-11,
        because=ROUNDING,
        says="variance 1 − Σp², length at most √2 (1 − q_y)",
    )
    return [attempt, *_fkl_instances("variance is 1 − Σp²", _TEACHER), *on_policy, *unbiased]


@fkl_variance.control
def _() -> list[Evidence]:
    """1 − Σq², the student's in place of the teacher's, must not pass."""
    return _fkl_instances("variance is 1 − Σq²", None)
