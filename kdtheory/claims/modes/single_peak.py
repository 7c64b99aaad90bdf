"""Theorem 5 of chapter 05: three students with one peak each; f-divergences and W1 choose different ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import sympy as sp

from kdtheory.claims.oracles import exact_js, exact_kl, exact_line_w1, exact_tv
from kdtheory.ledger import Evidence, Verdict, claim, exact

POSITIONS = (0, 1, 10)
TEACHER = (Fraction(3, 10), Fraction(3, 10), Fraction(2, 5))
FLOOR = Fraction(3, 50)

Law = Sequence[Fraction]


def student(peak: int) -> list[Fraction]:
    """(1 - η) δ_peak + η/3, η = 3/50."""
    return [(1 - FLOOR) * (token == peak) + FLOOR / 3 for token in range(3)]


def w1(p: Law, q: Law) -> Fraction:
    """∫|F_p - F_q| over the positions."""
    return exact_line_w1(POSITIONS, p, q)


def expected_distance(p: Law, q: Law) -> Fraction:
    """E|x - y| with independent x ~ p, y ~ q: what a drawn answer costs."""
    pairs = [(a * b, abs(x - y)) for a, x in zip(p, POSITIONS, strict=True) for b, y in zip(q, POSITIONS, strict=True)]
    return sum((mass * distance for mass, distance in pairs), Fraction(0))


def nll(p: Law, q: Law) -> sp.Expr:
    """E_p[-log q]."""
    return -sum((sp.sympify(a) * sp.log(sp.sympify(b)) for a, b in zip(p, q, strict=True)), sp.Integer(0))


LOSSES: dict[str, Callable[[Law, Law], Any]] = {
    "fkl": exact_kl,
    "rkl": lambda p, q: exact_kl(q, p),
    "jsd": exact_js,
    "tvd": exact_tv,
    "w1": w1,
}


def _chooses(name: str, peak: int) -> list[Evidence]:
    """The student with that peak has a smaller loss than each of the other two."""
    loss = LOSSES[name]
    return [
        exact.check(
            loss(TEACHER, student(peak)), "<", loss(TEACHER, student(other)), says=f"{name}: {peak} before {other}"
        )
        for other in range(3)
        if other != peak
    ]


@claim(
    "modes.single-peak-students",
    statement=r"\text{tokens at } 0, 1, 10,\ p = (.3, .3, .4),\ q_j = .94\, \delta_j + .02:\ FKL, RKL, JSD, TV"
    r" \text{ choose } j = 2;\ W_1 \text{ chooses } j = 1, \text{ with lower expected distance and higher NLL}",
    source="kdtheory, Theorem 5",
    expected=Verdict.PROVED,
    domain="expected distance 5.636 against 3.944, NLL 2.3635 against 2.7506",
    scope="instance",
)
def single_peak_students() -> list[Evidence]:
    """W1 takes the token in the middle, near which most mass lies; the others take the most probable token."""
    far, near = student(2), student(1)
    return [
        *(item for name in ("fkl", "rkl", "jsd", "tvd") for item in _chooses(name, 2)),
        *_chooses("w1", 1),
        exact.check(expected_distance(TEACHER, far), "==", "1409/250", says="expected distance of j = 2"),
        exact.check(expected_distance(TEACHER, near), "==", "493/125", says="expected distance of j = 1"),
        exact.check(nll(TEACHER, far), "<", "23636/10000", says="NLL of j = 2"),
        exact.check(nll(TEACHER, near), ">", "27505/10000", says="NLL of j = 1"),
    ]


@single_peak_students.control
def _() -> list[Evidence]:
    """W1 choosing the most probable token must not pass."""
    return _chooses("w1", 2)


@single_peak_students.control
def _() -> list[Evidence]:
    """Forward KL choosing the middle token must not pass."""
    return _chooses("fkl", 1)
