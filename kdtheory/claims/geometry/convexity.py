"""Section 4.8 of chapter 04: which losses are convex in the logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import sympy as sp

from kdtheory.claims.geometry import smoothed
from kdtheory.claims.gradients import oracles
from kdtheory.divergences import RECORDS
from kdtheory.divergences.symbols import S, p, q
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric, symbolic

_HALF = sp.Rational(1, 2)
_SETTING: dict[str, dict[str, Any]] = {
    "jsd": {"beta": _HALF},
    "skl": {"alpha": sp.Rational(1, 10)},
    "srkl": {"alpha": sp.Rational(1, 10)},
    "amari": {"alpha": _HALF},
    "renyi": {"alpha": _HALF},
}
_BOUNDED = ("tvd", "jsd", "skl", "srkl", "hellinger2", "amari")
_BOUNDED_IF_FULL = ("rkl", "neyman", "renyi")


def _value(name: str, teacher: Sequence[Any], student: Sequence[Any]) -> sp.Expr:
    """D(p, q) from the record's definition, parameters as in `_SETTING`; tokens with p = 0 by their limit."""
    record = RECORDS[name]
    given = {sp.Symbol(key, positive=True): value for key, value in _SETTING.get(name, {}).items()}
    term = record.summand_in_p_and_q.subs(given)
    pairs = zip(teacher, student, strict=True)
    at = [term.subs({p: a, q: b}) if a else sp.limit(term, p, 0, "+").subs(q, b) for a, b in pairs]
    total = sum(at, sp.Integer(0))
    return total if record.outer is None else record.outer.subs(given).subs(S, total)


def _student(*odds: Any) -> list[sp.Expr]:
    return [sp.Rational(odd) / sum(map(sp.Rational, odds)) for odd in odds]


def _middle_is_lower(name: str, role: Any = "supports") -> Evidence:
    """p = (1/2, 1/2), logit gaps log 16, log 256 and log 4096: equally spaced, so a convex F has F(middle) <= mean."""
    teacher = [_HALF, _HALF]
    low, middle, high = (_value(name, teacher, _student(odds, 1)) for odds in (16, 256, 4096))
    return exact.check(
        middle,
        ">",
        (low + high) / 2,
        role=role,
        says=f"{RECORDS[name].title}, p = (1/2, 1/2), gaps log 16, log 256, log 4096: the middle over the ends' mean",
    )


def _bounds(teacher: Any) -> dict[str, float]:
    least = teacher.min()
    always = {"tvd": 1.0, "jsd": np.log(2), "skl": np.log(10), "srkl": np.log(10), "hellinger2": 1.0, "amari": 4.0}
    full = {"rkl": np.log(1 / least), "neyman": 1 / least - 1, "renyi": np.log(1 / least)}
    return always | full


_FLOATS: dict[str, dict[str, float]] = {key: {k: float(v) for k, v in row.items()} for key, row in _SETTING.items()}


def _bound_fails_by(factor: float) -> Any:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(2, 8))
        teacher, z = rng.dirichlet(np.full(size, 0.7)) + 1e-9, rng.choice([1.0, 10.0, 30.0]) * rng.normal(size=size)
        teacher, student = teacher / teacher.sum(), oracles.softmax(z) + 1e-300
        over = {
            name: float(oracles.DEFINITIONS[name](teacher, student, **_FLOATS.get(name, {}))) / (factor * bound) - 1
            for name, bound in _bounds(teacher).items()
        }
        cost = rng.uniform(size=(size, size))
        cost = (cost + cost.T) / 2
        floored = np.maximum(student, 1e-12) / np.maximum(student, 1e-12).sum()
        spread = np.ptp(cost)
        over["S_eps"] = abs(smoothed.divergence(teacher, floored, cost, 1.0)) / (factor * spread) - 1
        worst = max(over, key=lambda name: over[name])
        return over[worst], {"loss": worst, "p": teacher.tolist(), "z": z.tolist()}

    return violation


def _attempt_bounds(factor: float) -> Evidence:
    return numeric.attempt(
        _bound_fails_by(factor),
        draws=60,
        oracle="the definitions typed again; log-domain Sinkhorn iterations for S_ε",
        tolerance=1e-12,
        because="float64 sums of at most 7 terms relative to the bound",
        says="the bounds of nine divergences and of S_ε",
    )


@claim(
    "geometry.bounded-never-convex",
    statement=r"D \circ \mathrm{softmax} \text{ bounded and not constant} \Rightarrow \text{not convex in } z:\ TV,"
    r" JSD,"
    r" SKL, SRKL, H^2, \text{Amari } \alpha < 1, W_1, OT_\varepsilon, S_\varepsilon;\ \text{for } p > 0 \text{ also }"
    r" RKL,"
    r" \text{Neyman, R\'enyi } \alpha < 1, \text{ and every } f\text{-divergence with } \lim f(r)/r < \infty",
    source="kdtheory, Theorem 21",
    expected=Verdict.PROVED,
    domain="V >= 2; transport costs unless constant",
    proof=Anchor("04_geometry#bounded-never-convex", sha256="4613e9b69075e506"),
)
def bounded_never_convex() -> list[Evidence]:
    """Two tokens: between a gap of log 16 and one of log 4096 each of them is above its chord. W1 = TV there."""
    return [*(_middle_is_lower(name) for name in (*_BOUNDED, *_BOUNDED_IF_FULL)), _attempt_bounds(1.0)]


@bounded_never_convex.control
def _() -> list[Evidence]:
    """Forward KL, which is convex, and bounds of half the size must not pass."""
    return [_middle_is_lower("fkl"), _middle_is_lower("chi2"), _attempt_bounds(0.5)]


_CONVEX: tuple[tuple[str, dict[str, float]], ...] = (
    ("fkl", {}),
    ("chi2", {}),
    ("amari", {"alpha": 1.2}),
    ("amari", {"alpha": 3.0}),
    ("renyi", {"alpha": 1.2}),
    ("renyi", {"alpha": 4.0}),
)


def _above_chord(losses: Sequence[tuple[str, dict[str, float]]]) -> Any:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        name, given = losses[int(rng.integers(len(losses)))]
        size = int(rng.integers(2, 8))
        teacher = rng.dirichlet(np.full(size, 0.7))
        alive = np.ones(size, dtype=bool)
        if rng.random() < 0.4:
            alive[int(rng.integers(size))] = size == 1
        teacher = np.where(alive, teacher, 0.0) / teacher[alive].sum()
        a, b = rng.uniform(0.1, 4) * rng.normal(size=(2, size))

        def value(z: Any) -> float:  # tokens without teacher mass contribute nothing to these sums, only to q
            return float(oracles.DEFINITIONS[name](teacher[alive], oracles.softmax(z)[alive], **given))

        chord = (value(a) + value(b)) / 2
        return (value((a + b) / 2) - chord) / (1 + abs(chord)), {"loss": name, "p": teacher.tolist(), "a": a.tolist()}

    return violation


def _attempt_convex(losses: Sequence[tuple[str, dict[str, float]]]) -> Evidence:
    return numeric.attempt(
        _above_chord(losses),
        draws=400,
        oracle="midpoint inequality with the definitions typed again, zeros in the teacher included",
        tolerance=1e-12,
        because="float64 sums of at most 7 terms relative to their size",
        says="convexity along random chords",
    )


@claim(
    "geometry.convex-in-logits",
    statement=r"FKL,\ \chi^2,\ \text{Amari and R\'enyi for } \alpha > 1 \text{ are finite and convex in the logits}",
    source="kdtheory, Theorem 22",
    expected=Verdict.PROVED,
    domain="every teacher, zeros allowed",
    uses=("gradients.fkl-smooth-convex",),
    proof=Anchor("04_geometry#convex-in-logits", sha256="e44258ff849558be"),
)
def convex_in_logits() -> list[Evidence]:
    """Chords at random; and that S is the sum of exponentials that the proof says."""
    a, b, power = sp.symbols("a b alpha", positive=True)
    same = symbolic.identity(
        a**power * b ** (1 - power),
        sp.exp(power * sp.log(a) + (power - 1) * -sp.log(b)),
        role="attempted refutation",
        says="p^α q^(1-α) = exp(α log p + (α - 1)(-log q))",
    )
    return [same, _attempt_convex(_CONVEX)]


@convex_in_logits.control
def _() -> Evidence:
    """Amari just below 1 must not pass."""
    return _attempt_convex([("amari", {"alpha": 0.9})])


def _one_hot(scale: Any) -> Evidence:
    """Rényi 1/2 of (1, 0, 0) against -log q_1, on the simplex."""
    student = oracles.symbolic_softmax(3).q
    value = _value("renyi", [sp.Integer(1), sp.Integer(0), sp.Integer(0)], student)
    return symbolic.identity(value, -scale * sp.log(student[0]), role="inside condition", scope="V = 3", says="one-hot")


def _two_left() -> Evidence:
    """p = (1/2, 1/2, 0), odds x : 1 : 1/16 for x = 16, 256, 4096; zeros in the teacher do not help."""
    teacher = [_HALF, _HALF, sp.Integer(0)]
    low, middle, high = (_value("renyi", teacher, _student(x, 1, sp.Rational(1, 16))) for x in (16, 256, 4096))
    return exact.check(
        middle,
        "<=",
        (low + high) / 2,
        role="outside condition",
        says="Rényi 1/2, teacher (1/2, 1/2, 0), odds x : 1 : 1/16: value at x = 256 against the mean of x = 16, 4096",
    )


@claim(
    "geometry.renyi-below-one",
    statement=r"\text{R\'enyi's divergence of order } 0 < \alpha < 1 \text{ is convex in the logits}",
    source="kdtheory, Theorem 23",
    expected=Verdict.PROVED_IF,
    domain="V >= 2",
    condition="the teacher is one-hot (then it is forward KL); for every other teacher it is not convex",
    uses=("geometry.bounded-never-convex",),
    proof=Anchor("04_geometry#renyi-below-one", sha256="052c21c574fb9b35"),
)
def renyi_below_one() -> list[Evidence]:
    """Forward KL in disguise for a one-hot teacher; a chord below the graph for two tokens out of three."""
    survives = numeric.attempt(
        _one_hot_fails_by,
        draws=100,
        oracle="Rényi's definition typed again at orders 0.05 to 0.95; midpoint inequality",
        tolerance=1e-12,
        because="two float64 logarithms divided by 1 - α >= 0.05",
        says="one-hot teacher: equal to -log q_y and convex",
    )
    return [_one_hot(1), _two_left(), survives]


def _one_hot_fails_by(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    order, ends = float(rng.uniform(0.05, 0.95)), 3 * rng.normal(size=(2, 4))

    def value(z: Any) -> float:
        return float(oracles.DEFINITIONS["renyi"](np.ones(1), oracles.softmax(z)[:1], alpha=order))

    off = abs(value(ends[0]) + np.log(oracles.softmax(ends[0])[0]))
    return max(off, value(ends.mean(0)) - (value(ends[0]) + value(ends[1])) / 2), {"order": order, "z": ends.tolist()}


@renyi_below_one.control
def _() -> Evidence:
    """Half of forward KL must not pass for it."""
    return _one_hot(_HALF)
