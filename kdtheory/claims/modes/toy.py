"""Section 5.7: the toy of adaptive KL, one free logit per token, gradient descent; where 200 epochs are too few."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from flint import arb, ctx

from kdtheory.claims.modes.enclosures import number
from kdtheory.ledger import INSTANCE, Evidence, Verdict, claim, exact, numeric

COUNTS = (3, 9, 18, 14, 6, 2, 2, 5, 11, 15, 10, 5)
"""Teacher: two humps on twelve tokens, in hundredths, full support."""
WRONG, GAP, EPOCHS, RATE = 5, 12, 200, 1
"""The confident start has token 5 (teacher .02) ahead by 12 nats; 200 epochs of full-batch descent at rate 1."""


_BITS = 2400  # the balls of 200 steps widen by up to a factor of 10 each


def teacher() -> Any:
    """The teacher in float64, shape (12,)."""
    return np.array(COUNTS) / sum(COUNTS)


def descend(loss: str, logits: list[arb], epochs: int, rate: int = RATE) -> list[arb]:
    """Student after gradient descent in balls: the result holds for exact arithmetic."""
    p = [number(Fraction(count, sum(COUNTS))) for count in COUNTS]
    z = list(logits)
    for _ in range(epochs):
        q = _softmax(z)
        z = [a - rate * b for a, b in zip(z, _gradient(loss, p, q), strict=True)]
    return _softmax(z)


def _softmax(z: list[arb]) -> list[arb]:
    weights = [a.exp() for a in z]
    total = sum(weights, arb(0))
    return [weight / total for weight in weights]


def _gradient(loss: str, p: list[arb], q: list[arb]) -> list[arb]:
    if loss == "fkl":
        return [b - a for a, b in zip(p, q, strict=True)]
    ratios = [(b / a).log() for a, b in zip(p, q, strict=True)]
    mean = sum((b * ratio for b, ratio in zip(q, ratios, strict=True)), arb(0))
    return [b * (ratio - mean) for b, ratio in zip(q, ratios, strict=True)]


def tv_after(loss: str, gap: int, epochs: int = EPOCHS) -> arb:
    """Total variation to the teacher at the end, from token 5 ahead by `gap`, as a ball."""
    with ctx.workprec(_BITS):
        start = [arb(gap if token == WRONG else 0) for token in range(len(COUNTS))]
        q = descend(loss, start, epochs)
        p = [number(Fraction(count, sum(COUNTS))) for count in COUNTS]
        return sum((abs(a - b) for a, b in zip(p, q, strict=True)), arb(0)) / 2


def _converged(loss: str, gap: int, role: Any, level: str = "1/1000") -> Evidence:
    """TV below the level after 200 epochs."""
    found = tv_after(loss, gap)
    below = True if found < number(level) else False if found > number(level) else None
    ok = None if below is None else below is not (role == "outside condition")
    data = {"counterexample": {"TV": found.str(6), "gap": gap}} if below is False else {}
    start = f"token {WRONG} ahead by {gap} nats" if gap else "zero logits"
    says = f"{loss} from {start}: TV after {EPOCHS} epochs is {found.str(6)}, below {level}: {below}."
    return Evidence("interval", role, ok, says, INSTANCE, data)


def valley_bound() -> Fraction:
    """½ Σ of min(peaks) - valley over disjoint triples peak-valley-peak: below every single-humped student's TV."""
    p = [Fraction(count, sum(COUNTS)) for count in COUNTS]
    triples = ((2, 5, 9), (3, 6, 8))
    return sum((min(p[i], p[k]) - p[j] for i, j, k in triples), Fraction(0)) / 2


def single_humped(rng: np.random.Generator, size: int) -> Any:
    """A random law that rises to one peak and falls."""
    weights, peak = np.sort(rng.exponential(size=size) ** rng.uniform(0.3, 3)), int(rng.integers(0, size))
    left = rng.permutation(size - 1)[:peak]
    rest = np.setdiff1d(np.arange(size - 1), left)
    return np.concatenate([np.sort(weights[left]), [weights[-1]], np.sort(weights[rest])[::-1]]) / weights.sum()


def _closer(rng: np.random.Generator, factor: float) -> tuple[float, dict[str, Any]]:
    q = single_humped(rng, len(COUNTS))
    distance = float(np.abs(teacher() - q).sum() / 2)
    return factor * float(valley_bound()) - distance, {"q": q.tolist()}


def _attempt(factor: float) -> Evidence:
    return numeric.attempt(
        lambda rng: _closer(rng, factor),
        draws=3000,
        oracle="½ Σ|p - q| of random single-humped laws",
        tolerance=0.0,
        because="the bound is a rational number, and random laws stay away from equality",
        says="no single-humped student is nearer than the bound",
    )


@claim(
    "modes.both-converge",
    statement=r"\text{on the toy data FKL and RKL have both converged to the teacher after 200 epochs}",
    source="lossdesigns, AKL slides; wu2024akl, Figure 2",
    expected=Verdict.PROVED_IF,
    rows=("S1-18",),
    domain="twelve tokens, two humps, full-batch gradient descent at rate 1; converged: TV below 1/1000",
    condition="teacher with full support, one free logit per token, start near uniform, an adequate step",
    scope=INSTANCE,
    uses=("modes.realisable",),
)
def both_converge() -> list[Evidence]:
    """From zero logits both arrive; from a confident mistake RKL does not move, and a single hump never arrives."""
    return [
        _converged("fkl", 0, "inside condition"),
        _converged("rkl", 0, "inside condition"),
        _converged("fkl", GAP, "supports"),
        _converged("rkl", GAP, "outside condition"),
        exact.check(
            valley_bound(),
            "<",
            Fraction(1, 1000),
            role="outside condition",
            says="least TV that the valley forces on every student with one hump < 1/1000",
        ),
        _attempt(1.0),
    ]


@both_converge.control
def _() -> Evidence:
    """RKL from the confident mistake must not pass as converged."""
    return _converged("rkl", GAP, "supports")


@both_converge.control
def _() -> Evidence:
    """Twice the valley's bound must be beaten by some single-humped student."""
    return _attempt(2.0)
