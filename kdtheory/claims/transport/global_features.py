"""Theorem 2 of chapter 07: transport sees more than the f-divergences exactly as far as its metric does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import sympy as sp
from scipy.special import rel_entr

from kdtheory.claims.transport import finite
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric

_PROOF = Anchor("07_transport#global-features", sha256="d8bdc7527df49ffb")
_TEACHER = finite.fractions("1/3", "1/3", "1/3")
_NEAR = finite.fractions("1/6", "1/2", "1/3")  # a sixth from the first token to the second
_FAR = finite.fractions("1/6", "1/3", "1/2")  # … to the third
_LINE = [[abs(Fraction(x - y)) for y in (0, 1, 3)] for x in (0, 1, 3)]
_SAME = [[Fraction(int(i != j)) for j in range(3)] for i in range(3)]
Law = Sequence[Any]


def _kl(p: Law, q: Law) -> Any:
    pairs = [(sp.sympify(a), sp.sympify(b)) for a, b in zip(p, q, strict=True)]
    return sum((sp.oo if b == 0 else a * sp.log(a / b) for a, b in pairs if a != 0), sp.Integer(0))


def _jsd(p: Law, q: Law) -> Any:
    m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return (_kl(p, m) + _kl(q, m)) / 2


def _tv(p: Law, q: Law) -> Any:
    return sum((abs(a - b) for a, b in zip(p, q, strict=True)), Fraction(0)) / 2


def _w1(metric: list[list[Fraction]]) -> Callable[[Law, Law], Fraction]:
    return lambda p, q: finite.least(p, q, metric)


def _confused() -> list[Evidence]:
    """Both students look alike to KL in both directions, JSD and TV."""
    divergences = {"KL": _kl, "reverse KL": lambda p, q: _kl(q, p), "JSD": _jsd, "TV": _tv}
    return [
        exact.check(d(_TEACHER, _NEAR), "==", d(_TEACHER, _FAR), says=f"{name} of the near and of the far student")
        for name, d in divergences.items()
    ]


def _told_apart(metric: list[list[Fraction]], says: str, **more: Any) -> Evidence:
    near, far = (_w1(metric)(_TEACHER, student) for student in (_NEAR, _FAR))
    return exact.check(near, "<", far, says=f"{says}: W1 of the near student < that of the far one", **more)


def _same_difference() -> list[Evidence]:
    """Two pairs on two tokens with the same q - p: one W1, two values of each KL and of JSD."""
    first = finite.fractions("1/2", "1/2"), finite.fractions("3/4", "1/4")
    second = finite.fractions("3/4", "1/4"), finite.fractions(1, 0)
    apart = [[Fraction(int(i != j)) for j in range(2)] for i in range(2)]
    found = [exact.check(finite.least(*first, apart), "==", finite.least(*second, apart), says="same q - p: W1")]
    for name, d in (("KL", _kl), ("reverse KL", lambda p, q: _kl(q, p)), ("JSD", _jsd)):
        found.append(exact.check(d(*first), "<", d(*second), says=f"same q - p: {name}"))
    return found


def _pairs_only(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    """Relabelling: f-divergences stay, W1 goes along with the metric, and is TV if all distances are 1."""
    size = int(rng.integers(2, 6))
    p, q, metric = finite.law(rng, size), finite.law(rng, size), finite.distances(rng, size)
    order = rng.permutation(size)
    divergences = (
        lambda a, b: rel_entr(a, b).sum(),
        lambda a, b: rel_entr(a, (a + b) / 2).sum() + rel_entr(b, (a + b) / 2).sum(),
        lambda a, b: (a * a / b).sum(),
    )
    errors = [abs(d(p, q) - d(p[order], q[order])) for d in divergences]
    moved = finite.highs(p[order], q[order], metric[np.ix_(order, order)])[0]
    errors.append(abs(moved - finite.highs(p, q, metric)[0]))
    errors.append(abs(finite.highs(p, q, 1 - np.eye(size))[0] - np.abs(p - q).sum() / 2))
    return float(max(errors)), {"p": p.tolist(), "q": q.tolist(), "order": order.tolist()}


def _student_alone(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    """Relabelling one of the two only."""
    size = int(rng.integers(2, 6))
    p, q, order = finite.law(rng, size), finite.law(rng, size), rng.permutation(size)
    return float(abs(rel_entr(p, q).sum() - rel_entr(p, q[order]).sum())), {"p": p.tolist(), "q": q.tolist()}


def _attempt(fails: Any, says: str) -> Evidence:
    return numeric.attempt(
        fails, draws=60, oracle=f"scipy.special; {finite.HIGHS}", tolerance=1e-8, because=finite.SOLVER, says=says
    )


@claim(
    "transport.global-features",
    statement=r"\text{Wasserstein attends more to the global features of the distributions than KLD and JSD do}",
    source="lossdesigns, Wasserstein distance",
    expected=Verdict.PROVED_IF,
    rows=("S1-53",),
    domain="read as: W1 tells apart students that every f-divergence confuses, by where their mass lies",
    condition="two distances between different tokens differ; else W1 is a multiple of TV and sees no more than it",
    uses=("geometry.kantorovich-rubinstein", "geometry.w1-against-tv"),
    proof=_PROOF,
)
def global_features() -> list[Evidence]:
    """Tokens at 0, 1, 3 and the uniform teacher: a sixth goes to the near or to the far token."""
    return [
        *_confused(),
        *_same_difference(),
        _told_apart(_LINE, "tokens at 0, 1, 3", role="inside condition"),
        _told_apart(_SAME, "0-1 metric", role="outside condition"),
        _attempt(_pairs_only, "relabelling changes no f-divergence, and W1 only through the metric"),
    ]


@global_features.control
def _() -> list[Evidence]:
    """The 0-1 metric must not tell them apart, nor may KL survive a relabelling of the student alone."""
    return [_told_apart(_SAME, "0-1 metric"), _attempt(_student_alone, "KL survives a relabelling of the student")]
