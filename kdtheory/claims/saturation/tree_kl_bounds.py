"""Theorems 23 and 24 of chapter 03: tree-KL from hard labels, and what it says of the tree distance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import sympy as sp

import kdtheory as kd
from kdtheory.claims.saturation import oracles, trees
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric, symbolic


# -- Theorem 23 --------------------------------------------------------------------------------------------------------
def _labels(power: int) -> Evidence:
    """Σ_y p_y times the slope at δ_y minus the slope at p; P/Q to a power other than 1 is not linear."""
    p = [*sp.symbols("p1:3", positive=True), 1 - sum(sp.symbols("p1:3", positive=True))]
    q = [*sp.symbols("q1:3", positive=True), 1 - sum(sp.symbols("q1:3", positive=True))]

    def slope(law: list[Any]) -> Any:
        terms = zip(trees.WEIGHTS, trees.EDGES, strict=True)
        return sum(w * (1 - (sum(law[i] for i in e) / sum(q[i] for i in e)) ** power) for w, e in terms if 0 in e)

    one_hot = [[sp.Integer(int(i == y)) for i in range(3)] for y in range(3)]
    mean = sum(p[y] * slope(one_hot[y]) for y in range(3))
    return symbolic.identity(
        mean, slope(p), role="attempted refutation", scope="V = 3", says="the mean slope over labels is that of p"
    )


def _sampled_fails_by(name: str) -> Callable[[np.random.Generator], trees.Point]:
    """Σ_y p_y ∇T(δ_y, q) against ∇T(p, q), by the library, on random trees."""

    def violation(rng: np.random.Generator) -> trees.Point:
        tree = trees.drawn(rng)
        size = tree.below.shape[1]
        p, z = trees.laws(rng, size)
        loss = kd.divergence(name, cost=kd.TokenCost.tree(tree.parent, tree.weight, size))
        hard = np.where(np.eye(size) > 0, 0.0, -np.inf)
        each = loss.logit_gradient(teacher_logits=hard, student_logits=np.tile(z, (size, 1)))
        soft = loss.logit_gradient(teacher_logits=np.log(p), student_logits=z)
        return float(np.abs(p @ each - soft).max()), {"parent": tree.parent.tolist(), "p": p.tolist(), "z": z.tolist()}

    return violation


def _attempt_sampled(name: str) -> Evidence:
    return numeric.attempt(
        _sampled_fails_by(name),
        draws=200,
        oracle="the mean over all labels, weighted with their probabilities",
        tolerance=1e-11,
        because=trees.ROUNDING,
        says=f"{name}: the gradient of a sampled label is unbiased",
    )


@claim(
    "saturation.tree-kl-labels",
    statement=r"\mathbb{E}\, \nabla_z T(\hat p, q) = \nabla_z T(p, q) \text{ for the frequencies } \hat p \text{ of } m"
    r" \ge 1 \text{ labels from } p;\ \mathbb{E}\, T(\hat p, q) - T(p, q) \text{ does not depend on } q",
    source="kdtheory, Theorem 23",
    expected=Verdict.PROVED,
    domain="any rooted tree, any teacher, softmax students",
    uses=("saturation.tree-kl-proper",),
    proof=Anchor("03_saturation#tree-kl-labels", sha256="39c41856dda98d07"),
)
def labels() -> list[Evidence]:
    """Linear in the teacher, in symbols, and by the library's gradients on random trees."""
    return [_labels(1), _attempt_sampled("tree_kl")]


@labels.control
def _() -> Evidence:
    """Squares of P/Q, as in a χ² on the tree, must not pass."""
    return _labels(2)


@labels.control
def _() -> Evidence:
    """W1 on the same trees must not pass."""
    return _attempt_sampled("w1")


# -- Theorem 24 --------------------------------------------------------------------------------------------------------
def _bound_fails_by(teacher: float, constant: float) -> Callable[[np.random.Generator], trees.Point]:
    """W² against constant · H̄ · T, relative to the latter, with H̄ = teacher · E_p h + (1 - teacher) · E_q h."""

    def violation(rng: np.random.Generator) -> trees.Point:
        tree = trees.drawn(rng)
        p, z = trees.laws(rng, tree.below.shape[1])
        if rng.random() < 0.5:  # near each other, where the bound is tight
            z = np.log(p) + rng.normal(size=len(p)) * 0.1
        q = oracles.softmax(z)
        mean = float((teacher * p + (1 - teacher) * q) @ tree.height)
        distance = float(tree.weight @ np.abs(tree.below @ (p - q)))
        bound = constant * mean * float(tree.value(p, q))
        return float(distance**2 / bound - 1) if bound > 1e-12 else -1.0, {"p": p.tolist(), "q": q.tolist()}

    return violation


def _attempt_bound(teacher: float = 1 / 3, constant: float = 2.0) -> Evidence:
    return numeric.attempt(
        _bound_fails_by(teacher, constant),
        draws=3000,
        oracle="both distances by their definitions, on random trees",
        tolerance=1e-3,
        because="where p and q are so close that T is 1e-12, its terms cancel to three digits",
        says="W² <= 2 H̄ T",
    )


def _second_derivative() -> Evidence:
    x = sp.Symbol("x", positive=True)
    v = (2 * x + 4) * (x * sp.log(x) - x + 1) - 3 * (x - 1) ** 2
    return symbolic.identity(sp.diff(v, x, 2), 4 * (sp.log(x) + 1 / x - 1), says="v'' of the scalar inequality")


def _star(weights: tuple[str, str]) -> Evidence:
    """One edge with P = 1/4, Q = 1/2: 3(P - Q)² <= (aP + bQ) k(P, Q), in intervals."""
    a, b = (sp.Rational(x) for x in weights)
    P, Q = sp.Rational(1, 4), sp.Rational(1, 2)
    k = P * sp.log(P / Q) - P + Q
    return exact.check(3 * (P - Q) ** 2, "<=", (a * P + b * Q) * k, says=f"3(P - Q)² <= ({a}P + {b}Q) k(P, Q)")


def _sharp(constant: int) -> list[Evidence]:
    """Two tokens on a star, p = (1/2, 1/2), q = (1/2 + ε, 1/2 - ε): W² over H̄ T tends to 2."""
    e = sp.Symbol("e", positive=True)
    half = sp.Rational(1, 2)
    T = sum(half * sp.log(half / b) - half + b for b in (half + e, half - e))
    found = sp.limit((2 * e) ** 2 / T, e, 0)
    return symbolic.compare(derived=found, right=sp.Integer(constant), scope="V = 2")


@claim(
    "saturation.tree-kl-bound",
    statement=r"W(p, q)^2 \le 2 \bar H\, T(p, q),\ \bar H = \sum_i (\tfrac13 p_i + \tfrac23 q_i) h_i \le H;\ \text{the"
    r" constant is the best};\ \text{by levels: } W^2 \le 2 \big(\sum_l w_l\big) \sum_l w_l\, KL(P^{(l)} \| Q^{(l)})",
    source="kdtheory, Theorem 24",
    expected=Verdict.PROVED,
    domain="any rooted tree with edge weights ≥ 0, any p and q; last part: all tokens at one depth, weights by level",
    uses=("saturation.tree-kl-proper",),
    proof=Anchor("03_saturation#tree-kl-bound", sha256="b467b4d8397ecbfd"),
)
def bound() -> list[Evidence]:
    """Random trees near and far, the scalar inequality's second derivative, a point in intervals, and the limit."""
    return [_attempt_bound(), _second_derivative(), _star(("2", "4")), *_sharp(2)]


@bound.control
def _() -> Evidence:
    """With 2/3 on the teacher and 1/3 on the student it must not pass: the weights cannot be exchanged."""
    return _attempt_bound(teacher=2 / 3)


@bound.control
def _() -> Evidence:
    """A smaller constant must not pass."""
    return _attempt_bound(constant=1.9)


@bound.control
def _() -> Evidence:
    """The same at one edge."""
    return _star(("4", "2"))
