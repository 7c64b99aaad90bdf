"""Theorem 5 of chapter 03: how fast the gradient vanishes with the gap."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import mpmath as mp
import numpy as np

import kdtheory as kd
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, numeric

_P = (0.3, 0.25, 0.2, 0.15, 0.1)  # the student is sure of token 1
_K = 1
_D = np.array([3.0, 0.0, 1.0, 4.0, 2.0])  # distances to token 1, on a line
_SETTING: dict[str, dict[str, Any]] = {
    "jsd": {"beta": 0.3},
    "skl": {"alpha": 0.1},
    "srkl": {"alpha": 0.1},
    "w1": {"cost": kd.TokenCost.line([-3.0, 0.0, 1.0, 4.0, 2.0])},
}
_SETTING |= {f"amari {a}": {"alpha": a} for a in (0.7, 1.5)} | {f"renyi {a}": {"alpha": a} for a in (0.4, 2.0)}

# Definitions typed again, (p_i, q_i) -> summand; Rényi and Amari apart.
_SUMMANDS: dict[str, Callable[[Any, Any], Any]] = {
    "fkl": lambda p, q: p * mp.log(p / q),
    "rkl": lambda p, q: q * mp.log(q / p),
    "jsd": lambda p, q: (
        _tenths(3) * p * mp.log(p / (_tenths(3) * p + _tenths(7) * q))
        + _tenths(7) * q * mp.log(q / (_tenths(3) * p + _tenths(7) * q))
    ),
    "tvd": lambda p, q: abs(p - q) / 2,
    "skl": lambda p, q: p * mp.log(p / (_tenths(1) * p + _tenths(9) * q)),
    "srkl": lambda p, q: q * mp.log(q / (_tenths(1) * q + _tenths(9) * p)),
    "neyman": lambda p, q: q**2 / p,
    "hellinger2": lambda p, q: -mp.sqrt(p * q),
    "chi2": lambda p, q: p**2 / q,
}


def _tenths(n: int) -> Any:
    return mp.mpf(n) / 10


def _value(name: str, p: list[Any], q: list[Any]) -> Any:
    """The loss, up to a constant, in mpmath."""
    kind, _, given = name.partition(" ")
    if kind == "w1":
        position = dict(enumerate((-3, 0, 1, 4, 2)))
        order = sorted(position, key=position.__getitem__)
        total, surplus = mp.mpf(0), mp.mpf(0)
        for left, right in itertools.pairwise(order):
            surplus += q[left] - p[left]
            total += abs(surplus) * (position[right] - position[left])
        return total
    if kind in ("amari", "renyi"):
        a = mp.mpf(given)
        s = mp.fsum(x**a * y ** (1 - a) for x, y in zip(p, q, strict=True))
        return (1 - s) / (a * (1 - a)) if kind == "amari" else mp.log(s) / (a - 1)
    return mp.fsum(_SUMMANDS[kind](x, y) for x, y in zip(p, q, strict=True))


def _by_differences(name: str, gap: float) -> list[float]:
    """∂D/∂z_i at the saturated student: central differences of the definition in 120 digits."""
    with mp.workdps(120):
        p, h = [mp.mpf(str(x)) for x in _P], mp.mpf(10) ** -40
        z = [mp.mpf(gap if i == _K else 0) for i in range(len(p))]

        def at(i: int, by: Any) -> Any:
            weight = [mp.exp(x + (by if j == i else 0)) for j, x in enumerate(z)]
            return _value(name, p, [w / mp.fsum(weight) for w in weight])

        return [float((at(i, h) - at(i, -h)) / (2 * h)) for i in range(len(p))]


def _leading(name: str, i: int, gap: Any) -> Any:
    """-∂_i D to leading order, as in the table of Theorem 5, in mpmath."""
    kind, _, given = name.partition(" ")
    p, fades = [mp.mpf(str(x)) for x in _P], mp.exp(-gap)
    a = mp.mpf(given) if given else mp.mpf(0)
    tail = mp.fsum(x**a for j, x in enumerate(p) if j != _K)
    tenth = _tenths(1)
    return {
        "fkl": lambda: p[i],
        "rkl": lambda: gap * fades,
        "srkl": lambda: gap * fades,
        "jsd": lambda: _tenths(7) * gap * fades,
        "tvd": lambda: fades,
        "skl": lambda: (1 - tenth) ** 2 / (tenth * (1 - tenth + tenth * p[_K])) * fades,
        "neyman": lambda: 2 / p[_K] * fades,
        "hellinger2": lambda: mp.sqrt(p[i]) / 2 * mp.exp(-gap / 2),
        "chi2": lambda: p[i] ** 2 / fades,
        "amari": lambda: p[i] ** a / a * mp.exp(-(1 - a) * gap),
        "renyi": lambda: p[i] ** a / tail if a > 1 else (p[i] / p[_K]) ** a * mp.exp(-(1 - a) * gap),
        "w1": lambda: mp.mpf(_D[i]) * fades,
    }[kind]()


_ALL = (*_SUMMANDS, "amari 0.7", "amari 1.5", "renyi 0.4", "renyi 2.0", "w1")
_LOGARITHMIC = ("rkl", "srkl", "jsd")  # their next term is of relative order 1/Δ


def _library(name: str, gaps: Any) -> Any:
    """Logit gradients of the library at saturated students, shape (gaps, V)."""
    kind = name.partition(" ")[0]
    given = _SETTING.get(name, _SETTING.get(kind, {}))
    student = np.zeros((len(gaps), len(_P)))
    student[:, _K] = gaps
    teacher = np.broadcast_to(np.log(_P), student.shape)
    return kd.divergence(kind, **given).logit_gradient(teacher_logits=teacher, student_logits=student)


def _gradient_at_40(name: str) -> Evidence:
    expected = np.array(_by_differences(name, 40.0))
    return numeric.compare(
        _library(name, [40.0])[0],
        expected,
        oracle="central difference of the definition in mpmath, 120 digits",
        tolerance=1e-12,
        because="the accuracy promised for the library's gradients, relative to each entry",
        relative_to=np.abs(expected),
        says=f"{name}: the library's logit gradient at a gap of 40",
    )


def _ratio_to_leading(name: str, change: float = 1.0) -> Evidence:
    """The library's entries over the leading term; at the largest gap that float64's gradients reach."""
    gap = 600.0
    found = _library(name, [gap])[0]
    others = [i for i in range(len(_P)) if i != _K]
    with mp.workdps(30):
        ratios = [float(-found[i] / (change * _leading(name, i, mp.mpf(gap)))) for i in others]
    tolerance = 5 / gap if name in _LOGARITHMIC else 1e-12
    return numeric.compare(
        ratios,
        np.ones(len(others)),
        oracle="the leading term of Theorem 5",
        tolerance=tolerance,
        because="the next term is of relative order exp(-Δ/4) or less, and 1/Δ times |log p| + O(1) < 5 for RKL, SRKL"
        " and JSD",
        role="attempted refutation",
        says=f"{name}: -∂_i D over its leading term at a gap of {gap:g}",
    )


def _slope(name: str) -> Evidence:
    """log ‖∇‖₁ measured between gaps of 60 and 80, against the third column of the table."""
    low, high = 60.0, 80.0
    sizes = np.abs(_library(name, [low, high])).sum(-1)
    kind, _, given = name.partition(" ")
    a = float(given) if given else 0.0
    expected = {"fkl": 0.0, "hellinger2": -0.5, "chi2": 1.0, "amari": a - 1, "renyi": min(a - 1, 0.0)}.get(kind, -1.0)
    if name in _LOGARITHMIC:
        expected += np.log(high / low) / (high - low)
    return numeric.compare(
        np.log(sizes[1] / sizes[0]) / (high - low),
        expected,
        oracle="the slope that Theorem 5 states",
        tolerance=2e-3,
        because="the logarithmic losses' next term changes log ‖∇‖ by less than 3(1/60 - 1/80), divided by 20",
        says=f"{name}: measured slope of log ‖∇_z D‖₁ in the gap",
    )


@claim(
    "saturation.rates",
    statement=r"-\partial_{z_i} D \sim p_i \text{ (FKL)},\ \Delta e^{-\Delta} \text{ (RKL, SRKL)},\ (1 - \beta)\Delta"
    r" e^{-\Delta} \text{ (JSD)},\ e^{-\Delta} \text{ (TV)},\ \tfrac{(1-\alpha)^2}{\alpha(1 - \alpha + \alpha p_k)}"
    r" e^{-\Delta} \text{ (SKL)},\ \tfrac{2}{p_k} e^{-\Delta} \text{ (Neyman)},\ \tfrac12\sqrt{p_i}\, e^{-\Delta/2}"
    r" \text{ (Hellinger)},\ \tfrac1\alpha p_i^\alpha e^{-(1 - \alpha)\Delta} \text{ (Amari)},\ p_i^2 e^{\Delta}"
    r"\ (\chi^2),"
    r"\ d_{ik} e^{-\Delta}\ (W_1); \text{ Rényi}_{\alpha > 1} \text{ constant}",
    source="kdtheory, Theorem 5",
    expected=Verdict.PROVED,
    domain="p > 0; token k leads all others, which are equal, by Δ → ∞; i ≠ k",
    uses=("saturation.classification",),
    proof=Anchor("03_saturation#rates", sha256="429767f7b2736e1e"),
)
def rates() -> list[Evidence]:
    """Fourteen losses: our gradient against 120 digits, against the leading term, and its measured slope."""
    return [check(name) for name in _ALL for check in (_gradient_at_40, _ratio_to_leading, _slope)]


@rates.control
def _() -> Evidence:
    """Skew KL with the constant (1 - α)/α, which ignores the mean of the slopes, must not pass."""
    right = 0.9**2 / (0.1 * (0.9 + 0.1 * _P[_K]))
    return _ratio_to_leading("skl", change=9.0 / right)


@rates.control
def _() -> Evidence:
    """Jensen-Shannon without its factor 1 - β must not pass."""
    return _ratio_to_leading("jsd", change=1 / 0.7)
