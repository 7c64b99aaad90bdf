"""Theorems 21 and 22 of chapter 03: forward KL on every scale of a token tree, and what a sure student is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import sympy as sp

import kdtheory as kd
from kdtheory.claims.gradients import oracles as definitions
from kdtheory.claims.saturation import oracles, trees
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric, symbolic

_COMPLEX = f"{definitions.COMPLEX_STEP}; 0/1 matrix of what lies below each edge, by walking up from every token"


# -- Theorem 21 --------------------------------------------------------------------------------------------------------
def _symbolic(centred: bool) -> Evidence:
    """∂T/∂z_0 through the softmax by differentiation, against q_0 (g_0 - ḡ)."""
    student = definitions.symbolic_softmax(3)
    p = [*sp.symbols("p1:3", positive=True), 1 - sum(sp.symbols("p1:3", positive=True))]
    P, Q = ([sum(x[i] for i in edge) for edge in trees.EDGES] for x in (p, student.q))
    value = sum(w * (a * sp.log(a / b) - a + b) for w, a, b in zip(trees.WEIGHTS, P, Q, strict=True))
    slope = sum(w * (1 - a / b) for w, a, b, edge in zip(trees.WEIGHTS, P, Q, trees.EDGES, strict=True) if 0 in edge)
    mean = sum(w * (b - a) for w, a, b in zip(trees.WEIGHTS, P, Q, strict=True)) if centred else 0
    return symbolic.identity(
        student.derivative(value, 0),
        student.q[0] * (slope - mean),
        role="attempted refutation",
        scope="V = 3",
        says="∂T/∂z_i = q_i (g_i - ḡ)",
    )


def _gradient_fails_by(own: float) -> Callable[[np.random.Generator], trees.Point]:
    """The recursion of the fourth part and the library's gradient, against a complex step."""

    def violation(rng: np.random.Generator) -> trees.Point:
        tree = trees.drawn(rng)
        size = tree.below.shape[1]
        p, z = trees.laws(rng, size)
        q = oracles.softmax(z)
        expected = definitions.derivatives(lambda at: tree.value(p, definitions.softmax(at)), z)
        P, Q = tree.below @ p, tree.below @ q
        root = int(np.flatnonzero(tree.parent < 0)[0])
        Q[root] = 1.0
        rising = np.zeros(len(P))
        for node in _downward(tree.parent):
            above = tree.parent[node]
            rising[node] = own * tree.weight[node] * (Q[node] - P[node])
            rising[node] += (Q[node] / Q[above] * rising[above]) if Q[above] else 0.0
        share = np.where(Q[:size] > 0, q / np.where(Q[:size] > 0, Q[:size], 1.0), 0.0)
        found = share * rising[:size] - q * (own * tree.weight @ (Q - P))
        cost = kd.TokenCost.tree(tree.parent, tree.weight, size)
        ours = kd.divergence("tree_kl", cost=cost).logit_gradient(teacher_logits=np.log(p), student_logits=z)
        off = max(np.abs(found - expected).max(), np.abs(ours - expected).max() if own == 1 else 0.0)
        return float(off), {"parent": tree.parent.tolist(), "p": p.tolist(), "z": z.tolist()}

    return violation


def _downward(parent: Any) -> list[int]:
    """All nodes but the root, parents before children."""
    depth = {int(np.flatnonzero(parent < 0)[0]): 0}
    while len(depth) < len(parent):
        depth |= {
            node: depth[int(above)] + 1
            for node, above in enumerate(parent)
            if node not in depth and above >= 0 and int(above) in depth
        }
    return [node for node, at in sorted(depth.items(), key=lambda item: item[1]) if at]


def _attempt_gradient(own: float = 1.0) -> Evidence:
    return numeric.attempt(
        _gradient_fails_by(own),
        draws=150,
        oracle=_COMPLEX,
        tolerance=1e-10,
        because=trees.ROUNDING,
        says="the recursion over the tree, and kd.divergence('tree_kl')",
    )


def _order_fails_by(slack: float) -> Callable[[np.random.Generator], trees.Point]:
    """Midpoint convexity in q, 0 <= T <= slack · H · FKL, and stationarity at p only."""

    def violation(rng: np.random.Generator) -> trees.Point:
        tree = trees.drawn(rng)
        p, z = trees.laws(rng, tree.below.shape[1])
        q, other = oracles.softmax(z), rng.dirichlet(np.ones(len(p)))
        middle = tree.value(p, (q + other) / 2) - (tree.value(p, q) + tree.value(p, other)) / 2
        forward = float((p * np.log(p / q) - p + q).sum())
        above = tree.value(p, q) - slack * tree.height.max() * forward
        return float(max(middle, above, -tree.value(p, q))), {"parent": tree.parent.tolist(), "p": p.tolist()}

    return violation


def _attempt_order(slack: float = 1.0) -> Evidence:
    return numeric.attempt(
        _order_fails_by(slack),
        draws=600,
        oracle="the definition typed again, on random trees",
        tolerance=1e-11,
        because=trees.ROUNDING,
        says="T is convex in q and 0 <= T <= H FKL",
    )


def _blind(weight_of_third: int) -> Evidence:
    """Two branches and no edge at the tokens: p and q with equal branches are not told apart; an edge at each tells."""
    p = [sp.Rational(x) for x in ("1/4", "1/4", "1/2")]
    q = [sp.Rational(x) for x in ("1/8", "3/8", "1/2")]
    terms = [(1, [0, 1]), (1, [2]), (weight_of_third, [0]), (weight_of_third, [1])]
    value = sum(
        w * (sum(p[i] for i in e) * sp.log(sum(p[i] for i in e) / sum(q[i] for i in e))
             - sum(p[i] for i in e) + sum(q[i] for i in e))
        for w, e in terms
    )  # fmt: skip
    if weight_of_third == 0:
        return exact.check(value, "==", 0, says="T of p ≠ q with equal branches, without edges at the tokens,")
    return exact.check(value, ">", 0, says="T of p ≠ q with equal branches, with edges at the tokens,")


@claim(
    "saturation.tree-kl-proper",
    statement=r"T = \sum_e w_e [P_e \log \tfrac{P_e}{Q_e} - P_e + Q_e]:\ T \ge 0,\ \text{convex in } q,\ T \le H\,"
    r" FKL;\ \text{zero only at } q = p \text{ iff the edges and the constant span } \mathbb{R}^V;\ \partial_i T ="
    r" \sum_{e \ni i} w_e (Q_e - P_e) \tfrac{q_i}{Q_e} - q_i \sum_e w_e (Q_e - P_e) \text{ in } O(N);\ \text{FKL} +"
    r" \lambda T \text{ is stationary at } p \text{ only}",
    source="kdtheory, Theorem 21",
    expected=Verdict.PROVED,
    domain="any rooted tree with N nodes and edge weights ≥ 0, softmax students; stationarity: p > 0",
    uses=("gradients.chain-rule",),
    proof=Anchor("03_saturation#tree-kl-proper", sha256="54bbb69bb02faf23"),
)
def proper() -> list[Evidence]:
    """The gradient in symbols and against complex steps on random trees, the order by attempts, both sides of iff."""
    return [_symbolic(True), _attempt_gradient(), _attempt_order(), _blind(0), _blind(1)]


@proper.control
def _() -> Evidence:
    """Without the mean of the slopes it must not pass."""
    return _symbolic(False)


@proper.control
def _() -> Evidence:
    """Nine tenths of the gradient must not pass."""
    return _attempt_gradient(0.9)


@proper.control
def _() -> Evidence:
    """Half of the height must not bound it."""
    return _attempt_order(0.5)


# -- Theorem 22 --------------------------------------------------------------------------------------------------------
def _saturated_fails_by(whole: bool) -> Callable[[np.random.Generator], trees.Point]:
    """Entry k and norm of the gradient at a gap of 45, against S_k (or the expected distance, halved)."""

    def violation(rng: np.random.Generator) -> trees.Point:
        tree = trees.drawn(rng)
        size = tree.below.shape[1]
        p, z = trees.laws(rng, size)
        k = int(rng.integers(size))
        z = np.clip(z, -4, 4)
        z[k] += 45.0
        away = tree.below[:, k] == 0
        P = tree.below @ p
        limit = float(tree.weight[away] @ P[away])
        if whole:
            limit = (limit + float(tree.weight[~away] @ (1 - P[~away]))) / 2
        cost = kd.TokenCost.tree(tree.parent, tree.weight, size)
        gradient = kd.divergence("tree_kl", cost=cost).logit_gradient(teacher_logits=np.log(p), student_logits=z)
        off = max(abs(gradient[k] - limit), abs(np.abs(gradient).sum() - 2 * limit))
        return float(off), {"parent": tree.parent.tolist(), "weight": tree.weight.tolist(), "p": p.tolist(), "k": k}

    return violation


def _attempt_saturated(whole: bool = False) -> Evidence:
    return numeric.attempt(
        _saturated_fails_by(whole),
        draws=300,
        oracle="S_k from the 0/1 matrix of what lies below each edge",
        tolerance=1e-12,
        because="what is left of the limit at a gap of 37 is below e^-37 · 14 · weights = 1e-14, and sums round",
        says="∂_k T and half of ‖∇T‖₁ at a saturated student",
    )


def _limit(name: str) -> list[Evidence]:
    """Three tokens, two on a branch, q_2 = s (1 - c), q_1 = s c, q_0 = 1 - s, s → 0: the limit in symbols."""
    s, c, *p = sp.symbols("s c p0:3", positive=True)
    q = [1 - s, s * c, s * (1 - c)]
    P, Q = ([sum(x[i] for i in edge) for edge in trees.EDGES] for x in (p, q))
    flow = [w * (b - a) for w, a, b in zip(trees.WEIGHTS, P, Q, strict=True)]
    entry = sum(f * q[0] / b for f, b, e in zip(flow, Q, trees.EDGES, strict=True) if 0 in e) - q[0] * sum(flow)
    written = {
        "S": trees.WEIGHTS[1] * p[1] + trees.WEIGHTS[2] * p[2],
        "all": trees.WEIGHTS[1] * p[1] + trees.WEIGHTS[2] * p[2] + trees.WEIGHTS[3] * (p[0] + p[1]),
    }[name]
    found = sp.limit(sp.simplify(entry), s, 0)
    return symbolic.compare(derived=sp.expand(found), right=written, scope="V = 3")


def _halves(equal: bool) -> Evidence:
    """S_k is half of the expected distance on an ultrametric tree, and nothing on a chain from k up."""
    if equal:  # branches {0, 1} and {2}: heights 3 = 1 + 2 = 3
        weight, p = {(0,): 1, (1,): 1, (0, 1): 2, (2,): 3}, [sp.Rational(1, 6), sp.Rational(1, 3), sp.Rational(1, 2)]
    else:  # 1 above 0: the only edge has 0 below it
        weight, p = {(0,): 1}, [sp.Integer(0), sp.Integer(1), sp.Integer(0)]
    saved = sum(w * sum(p[i] for i in e) for e, w in weight.items() if 0 not in e)
    distance = saved + sum(w * (1 - sum(p[i] for i in e)) for e, w in weight.items() if 0 in e)
    if equal:
        return exact.check(2 * saved, "==", distance, says="2 S_0 = E d(I, 0) with equal heights")
    return exact.check(saved, "<", distance / 2, says="S_0 = 0 < E d(I, 0)/2 where the teacher's token lies above")


@claim(
    "saturation.tree-kl-saturated",
    statement=r"q \to \delta_k:\ \partial_k T \to S_k = \sum_{e \not\ni k} w_e P_e,\ \|\nabla_z T\|_1 \to 2 S_k;\ "
    r" \partial_k (FKL + \lambda T) \to 1 - p_k + \lambda S_k;\ \mathbb{E} d(I, k) = S_k + \sum_{e \ni k} w_e (1 -"
    r" P_e),\ \text{and } S_k = \tfrac12 \mathbb{E} d(I, k) \text{ if all tokens have one height}",
    source="kdtheory, Theorem 22",
    expected=Verdict.PROVED,
    domain="any rooted tree, any teacher, along every sequence of softmax students that tends to δ_k",
    uses=("saturation.tree-kl-proper", "gradients.fkl-bounded-in-logits"),
    proof=Anchor("03_saturation#tree-kl-saturated", sha256="7e203295f5fb8cc6"),
)
def saturated() -> list[Evidence]:
    """The limit in symbols, random trees at a gap of at least 37, and the two cases of the third part in rationals."""
    return [*_limit("S"), _attempt_saturated(), _halves(True), _halves(False)]


@saturated.control
def _() -> Evidence:
    """Half of the expected distance, on trees of unequal heights, must not pass."""
    return _attempt_saturated(whole=True)


@saturated.control
def _() -> list[Evidence]:
    """Counting the edges above k as well must not pass."""
    return _limit("all")
