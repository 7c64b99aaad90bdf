"""Theorems 10 and 11 of chapter 05: head and tail at the beginning of training, and adaptive KL's weights."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import sympy as sp
from flint import arb

from kdtheory.claims.gradients import oracles
from kdtheory.claims.modes.enclosures import number
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, definition, exact, interval, numeric

_PROOF = Anchor("05_modes#head-and-tail", sha256="48a14ce51f815524")
_WEIGHTS = Anchor("05_modes#akl-weights", sha256="60a23d45fabeb065")
_AKL = "lossdesigns, AKL slides; wu2024akl"

definition(
    "modes.akl-weights",
    statement=r"AKL = \frac{g_{head}}{g_{head} + g_{tail}} FKL + \frac{g_{tail}}{g_{head} + g_{tail}} RKL,"
    r" g = \sum |p - q|"
    r" over the fewest tokens with teacher mass above one half (head) and over the others (tail); the weights are held"
    r" constant in the gradient; at p = q they read 0/0, and are taken as one half each",
    source="lossdesigns, AKL slides; wu2024akl, Eqs. 9-11",
    rows=("S1-25",),
)


def shares(teacher: Any, student: Any, top: int) -> tuple[float, float]:
    """Part of ‖∇‖₁ that the teacher's `top` most probable tokens carry: (forward KL, reverse KL), by complex steps."""
    order = np.argsort(-teacher)
    found = [np.abs(oracles.logit_gradient(name, teacher, np.log(student)))[order] for name in ("fkl", "rkl")]
    return float(found[0][:top].sum() / found[0].sum()), float(found[1][:top].sum() / found[1].sum())


def head_size(teacher: Any, mass: float = 0.5) -> int:
    """Number of most probable tokens whose mass exceeds `mass`."""
    return int((np.cumsum(np.sort(teacher)[::-1]) <= mass).sum()) + 1


def _reversed_shares(rng: np.random.Generator, sharpness: float) -> tuple[float, dict[str, Any]]:
    """RKL's head share minus FKL's, largest over all head sizes; the student is p^sharpness (0: uniform)."""
    size = int(rng.integers(3, 30))
    p = rng.dirichlet(np.full(size, 10 ** rng.uniform(-0.5, 1))) + 1e-6
    p /= p.sum()
    q = p**sharpness / (p**sharpness).sum()
    found = [np.subtract(*shares(p, q, top)[::-1]) for top in range(1, size)]
    return float(max(found)), {"p": p.tolist(), "top": int(np.argmax(found)) + 1}


def _attempt(sharpness: float) -> Evidence:
    return numeric.attempt(
        lambda rng: _reversed_shares(rng, sharpness),
        draws=60,
        oracle=oracles.COMPLEX_STEP,
        tolerance=1e-9,
        because="float64; log(q/p) - RKL cancels to 1e-15 of terms up to log 10⁶",
        says=f"every teacher, every head, student ∝ p^{sharpness:g}: FKL's head share is at least RKL's",
    )


def _exact_shares(teacher: Sequence[Fraction], student: Sequence[Fraction], top: int) -> tuple[sp.Expr, sp.Expr]:
    """Head shares from the table of logit gradients (chapter 02), teacher in descending order."""
    p, q = ([sp.sympify(x) for x in law] for law in (teacher, student))
    mean = sum(b * sp.log(b / a) for a, b in zip(p, q, strict=True))
    forward = [abs(b - a) for a, b in zip(p, q, strict=True)]
    backward = [abs(b * (sp.log(b / a) - mean)) for a, b in zip(p, q, strict=True)]
    return sum(forward[:top]) / sum(forward), sum(backward[:top]) / sum(backward)


def _zipf_share(name: str) -> Any:
    """Head share of a Zipf teacher (exponent 6/5, 1000 tokens, 7 in the head) at uniform logits, as a ball."""

    def value() -> arb:
        weights = [arb(rank) ** (-number("6/5")) for rank in range(1, 1001)]
        if name == "fkl":
            mean = sum(weights, arb(0)) / 1000
            sizes = [abs(weight - mean) for weight in weights]
        else:
            logs = [weight.log() for weight in weights]
            mean = sum(logs, arb(0)) / 1000
            sizes = [abs(log - mean) for log in logs]
        return sum(sizes[:7], arb(0)) / sum(sizes, arb(0))

    return value


def _sharpened() -> tuple[sp.Expr, sp.Expr]:
    """p = (3, 2, 1)/6 and the student ∝ p², head of two tokens."""
    return _exact_shares([Fraction(k, 6) for k in (3, 2, 1)], [Fraction(k, 14) for k in (9, 4, 1)], 2)


@claim(
    "modes.head-and-tail",
    statement=r"\text{at the beginning of training FKL focuses on the head and RKL on the tail}",
    source=f"{_AKL}, Section 3",
    expected=Verdict.PROVED_IF,
    rows=("S1-24",),
    domain=r"focus: share of \|\nabla_z D\|_1 on the k most probable tokens; FKL's is at least RKL's, for all p, k",
    condition="training starts from uniform logits (or close to them, where the inequality is strict)",
    uses=("gradients.logit-table",),
    proof=_PROOF,
)
def head_and_tail() -> list[Evidence]:
    """At uniform logits the gradients are p - 1/V and (log p - mean)/V: the logarithm flattens the head."""
    forward, backward = _sharpened()
    return [
        interval.within(_zipf_share("fkl"), "0.350", "0.351", role="inside condition", says="Zipf, head share of FKL"),
        interval.within(_zipf_share("rkl"), "0.0449", "0.045", role="inside condition", says="Zipf, head share of RKL"),
        exact.check(
            forward,
            ">=",
            backward,
            role="outside condition",
            says="p = (1/2, 1/3, 1/6), sharpened student ∝ p²: head share of FKL >= that of RKL",
        ),
        _attempt(0.0),
    ]


@head_and_tail.control
def _() -> Evidence:
    """From sharpened students, q ∝ p², the rule must fail."""
    return _attempt(2.0)


def _cosine(teacher: Sequence[Fraction]) -> sp.Expr:
    """cos² of the angle between p - 1/V and log p - mean."""
    p = [sp.sympify(x) for x in teacher]
    size = len(p)
    mean = sum(sp.log(x) for x in p) / size
    first, second = [x - sp.Rational(1, size) for x in p], [sp.log(x) - mean for x in p]
    return (sum(a * b for a, b in zip(first, second, strict=True)) ** 2) / (
        sum(a * a for a in first) * sum(b * b for b in second)
    )


def _angle(rng: np.random.Generator, values: int) -> tuple[float, dict[str, Any]]:
    """How parallel the two first gradients are for a teacher of 12 tokens with that many different values."""
    distinct = np.cumsum(rng.uniform(0.2, 1, size=values))
    p = np.concatenate([distinct, rng.choice(distinct, size=12 - values)])
    p /= p.sum()
    first, second = (oracles.logit_gradient(name, p, np.zeros(12)) for name in ("fkl", "rkl"))
    cosine = float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))
    return 1e-9 - (1 - cosine), {"p": p.tolist(), "cosine": cosine}


def _attempt_angle(values: int) -> Evidence:
    return numeric.attempt(
        lambda rng: _angle(rng, values),
        draws=150,
        oracle=oracles.COMPLEX_STEP,
        tolerance=0.0,
        because="1 - cos is above 1e-9 when the three values differ by at least 0.2 parts",
        says=f"teachers with {values} different values: the first steps point in different directions",
    )


@claim(
    "modes.early-training-differs",
    statement=r"\text{FKL and RKL behave differently early in training}",
    source=f"{_AKL}, Section 3",
    expected=Verdict.PROVED,
    rows=("S1-22",),
    domain=r"from uniform logits: first steps \propto p - 1/V and \tfrac1V (\log p - \text{mean}); parallel exactly if"
    r" p takes at most two values",
    uses=("gradients.logit-table",),
    proof=_PROOF,
)
def early_training_differs() -> list[Evidence]:
    """Three tokens (3, 2, 1)/6: the directions differ; (2, 1, 1)/4: they are the same."""
    return [
        exact.check(
            _cosine([Fraction(k, 6) for k in (3, 2, 1)]), "<", 1, says="p = (1/2, 1/3, 1/6): cos² of the angle"
        ),
        exact.check(
            _cosine([Fraction(k, 4) for k in (2, 1, 1)]), "==", 1, says="p = (1/2, 1/4, 1/4): cos² of the angle"
        ),
        _attempt_angle(3),
    ]


@early_training_differs.control
def _() -> Evidence:
    """Teachers with two values must fail: there the first steps are parallel."""
    return _attempt_angle(2)


def _published_weight(rng: np.random.Generator, spill: float) -> tuple[float, dict[str, Any]]:
    """AKL of the library for students below p on the head and above it on the tail (spill: not quite), off ½ and ½."""
    import kdtheory as kd

    p = np.sort(rng.dirichlet(np.ones(int(rng.integers(3, 20)))))[::-1]
    top = head_size(p)
    moved = float(rng.uniform(0.05, 0.5)) * p[:top]
    q = p.copy()
    q[:top] -= moved
    q[top:] += moved.sum() / (p.size - top) if top < p.size else 0.0
    q[0] += spill * q[-1]
    q[-1] -= spill * q[-1]
    if top == p.size:
        return 0.0, {"p": p.tolist()}
    loss: Any = kd.divergence("akl")
    value = float(loss.value(p, q))
    forward, backward = float(kd.divergence("fkl").value(p, q)), float(kd.divergence("rkl").value(p, q))
    return abs(value - (forward + backward) / 2) / (abs(forward - backward) + 1e-3), {"p": p.tolist(), "q": q.tolist()}


def _attempt_halves(spill: float) -> Evidence:
    return numeric.attempt(
        lambda rng: _published_weight(rng, spill),
        draws=100,
        oracle="(FKL + RKL)/2 against the adaptive KL of the library",
        tolerance=1e-9,
        because="float64 sums of at most 20 terms, divided by at least 1e-3",
        says="students below p on the head and above p on the tail: AKL = (FKL + RKL)/2",
    )


@claim(
    "modes.akl-half-weights",
    statement=r"q \le p \text{ on the head},\ q \ge p \text{ on the tail},\ q \ne p"
    r" \ \Rightarrow\ AKL = \tfrac12 (FKL + RKL)",
    source="kdtheory, Theorem 11",
    expected=Verdict.PROVED,
    domain=r"likewise with the signs exchanged; so AKL adapts nothing at a uniform start if the head is {p > 1/V}",
    uses=("modes.akl-weights",),
    proof=_WEIGHTS,
)
def akl_half_weights() -> list[Evidence]:
    """What the head lacks the tail has: both sums of |p - q| are the same number."""
    p, q = ["3/5", "3/10", "1/10"], ["1/3", "1/3", "1/3"]
    gaps = [abs(sp.Rational(a) - sp.Rational(b)) for a, b in zip(p, q, strict=True)]
    return [
        exact.check(gaps[0], "==", gaps[1] + gaps[2], says="p = (3/5, 3/10, 1/10), uniform student: g_head = g_tail,"),
        _attempt_halves(0.0),
    ]


@akl_half_weights.control
def _() -> Evidence:
    """If one tail token gives mass to the head the weights must differ from one half."""
    return _attempt_halves(0.9)
