"""Theorems 31 to 33 of chapter 07: tokens collapsed onto a few kept ones, with the error bounded from both sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from kdtheory.claims.oracles import Array, exact_line_w1, optimal_transport
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric

HIGHS = "scipy.optimize.linprog (HiGHS)"
SOLVER = "HiGHS keeps at most 14 constraints to 1e-10 each, times distances below 10"
Fails = Callable[[np.random.Generator], tuple[float, dict[str, Any]]]
Numbers = Sequence[Any]


def scene(rng: np.random.Generator, most: int = 7) -> tuple[Array, Array, Array]:
    """Teacher, student (a third of them close to it, some with zeros) and points of the plane, most x 2."""
    size = int(rng.integers(3, most + 1))
    points = rng.normal(size=(size, 2))
    p, q = rng.dirichlet(np.full(size, 10 ** rng.uniform(-1, 1)), size=2)
    kind = rng.random()
    if kind < 0.3:
        q = 0.99 * p + 0.01 * q
    elif kind < 0.6:
        q = np.where(rng.random(size) < 0.4, 0.0, q)
        q[int(rng.integers(size))] += 0.1
        q = q / q.sum()
    return p, q, points


def crowded(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """As `scene`; now and then two tokens on one point, or equal laws."""
    p, q, points = scene(rng)
    points[1] = points[0] if rng.random() < 0.2 else points[1]
    return p, (p if rng.random() < 0.05 else q), points


def distances(points: Array) -> Array:
    """Euclidean distances between rows."""
    return np.asarray(np.linalg.norm(points[:, None] - points, axis=-1))


def signed_w1(delta: Array, cost: Array) -> float:
    """W1 of a difference that sums to zero, by HiGHS on its negative and positive parts (mass 1)."""
    p, q = np.maximum(-delta, 0), np.maximum(delta, 0)
    mass = min(p.sum(), q.sum())  # they differ by rounding
    if mass == 0:
        return 0.0
    return float(mass * optimal_transport(p / p.sum(), q / q.sum(), cost).value)


def collapse(delta: Array, goal: Array) -> Array:
    """Each token's entry added to that of its goal; a vector on all tokens."""
    out = np.zeros_like(delta)
    np.add.at(out, goal, delta)
    return out


def price(delta: Array, goal: Array, cost: Array) -> float:
    """β: what the collapse moves, times how far."""
    return float(np.abs(delta) @ cost[np.arange(delta.size), goal])


def goals(rng: np.random.Generator, delta: Array, cost: Array, at_random: bool) -> Array:
    """Where each token goes: nearest of the k largest; or any of any set."""
    size = delta.size
    k = int(rng.integers(1, size))
    kept = rng.permutation(size)[:k] if at_random else np.argsort(-np.abs(delta), kind="stable")[:k]
    goal = kept[rng.integers(0, k, size=size)] if at_random else kept[cost[:, kept].argmin(1)]
    goal[kept] = kept
    return np.asarray(goal)


def exact_collapse(x: Numbers, delta: Numbers, kept: Sequence[int]) -> tuple[Fraction, Fraction]:
    """(W1 after moving each token of a line to its nearest kept one, price of the moves), in fractions."""
    place, moved = [Fraction(a) for a in x], [Fraction(a) for a in delta]
    near = [min((abs(place[s] - a), s) for s in kept)[1] for a in place]
    after = [sum((m for m, s in zip(moved, near, strict=True) if s == t), Fraction(0)) for t in range(len(place))]
    cost = sum((abs(m) * abs(a - place[s]) for m, a, s in zip(moved, place, near, strict=True)), Fraction(0))
    return line_norm(x, after), cost


def line_norm(x: Numbers, delta: Numbers) -> Fraction:
    """W1 of a difference on the line."""
    return exact_line_w1(x, [0] * len(delta), delta)


def _bound_fails_by(factor: float) -> Fails:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q, points = crowded(rng)
        cost, delta = distances(points), q - p
        goal = goals(rng, delta, cost, bool(rng.random() < 0.5))
        whole, part = signed_w1(delta, cost), signed_w1(collapse(delta, goal), cost)
        record = {"p": p.tolist(), "q": q.tolist(), "points": points.tolist(), "goal": goal.tolist()}
        return abs(whole - part) - factor * price(delta, goal, cost), record

    return violation


def _attempt_bound(factor: float = 1.0) -> Evidence:
    return numeric.attempt(
        _bound_fails_by(factor),
        draws=60,
        oracle=HIGHS,
        tolerance=1e-8,
        because=SOLVER,
        says="|W1 - Ŵ| ≤ β for the nearest of the largest, and for any goals in any set",
    )


_TAIL_OUTSIDE, _TAIL_INSIDE = (0, -1, 3), (0, 1, 3)
_DELTA = ("-3/5", "-2/5", 1)


def _attained(x: Numbers, sign: int) -> Evidence:
    after, bound = exact_collapse(x, _DELTA, (0, 2))
    return exact.check(line_norm(x, _DELTA) - after, "==", sign * bound, says=f"positions {x}: W1 - Ŵ = {sign:+d} · β")


def _invisible() -> list[Evidence]:
    """Two tokens, each with neighbours that take exactly what it gives."""
    x, delta = (0, "1/10", "-1/10", 1, "11/10", "9/10"), ("1/4", "-1/8", "-1/8", "-1/4", "1/8", "1/8")
    after, bound = exact_collapse(x, delta, (0, 3))
    return [
        exact.check(after, "==", 0, says="cells that cancel: Ŵ"),
        exact.check(line_norm(x, delta), "==", bound, says="cells that cancel: W1 against β"),
    ]


def _jump() -> list[Evidence]:
    delta = ("-1/2", "-1/2", 1)
    (first, a), (second, b) = (exact_collapse(_TAIL_INSIDE, delta, kept) for kept in ((0, 2), (1, 2)))
    return [exact.check(first - second, "==", a + b, says="a tie at positions 0, 1, 3: the jump is β + β'")]


@claim(
    "transport.collapse-bound",
    statement=r"|W_1 - \hat W| \le \beta = \sum_{j \notin S} |\delta_j| d(j, \pi(j)),\quad \hat W = W_1(\pi_\# \delta)"
    r" \text{: attained from both sides}",
    source="kdtheory, Theorem 31",
    expected=Verdict.PROVED,
    domain="metric costs, any kept set S and any π into S that fixes S",
    uses=("geometry.kantorovich-rubinstein",),
    proof=Anchor("07_transport#collapse", sha256="33ba1d96e5dc590f"),
)
def collapse_bound() -> list[Evidence]:
    """W1 is a norm of δ, and e_j - e_i has norm d(i, j)."""
    return [_attempt_bound(), _attained(_TAIL_OUTSIDE, +1), _attained(_TAIL_INSIDE, -1), *_invisible(), *_jump()]


@collapse_bound.control
def _() -> Evidence:
    """Nine tenths of the bound must not pass."""
    return _attempt_bound(0.9)


def dual(delta: Array, cost: Array) -> Array:
    """A 1-Lipschitz function with Σ δ f = W1: HiGHS' prices of the demanded tokens, made into one function."""
    p, q, demand = np.maximum(-delta, 0), np.maximum(delta, 0), delta > 0
    if min(p.sum(), q.sum()) == 0:
        return np.zeros_like(delta)
    found = optimal_transport(p / p.sum(), q / q.sum(), cost)
    return np.asarray((found.slopes[demand] - cost[:, demand]).max(1))


def _extensions(f: Array, kept: Array, cost: Array, steep: float) -> tuple[Array, Array]:
    """Largest and smallest extension with Lipschitz constant `steep`."""
    to_kept = steep * cost[kept]
    return (f[:, None] + to_kept).min(0), (f[:, None] - to_kept).max(0)


def _lower_fails_by(steep: float) -> Fails:
    """Both sums at most W1, for dual solutions and for any numbers; for the former at least Ŵ - β."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q, points = crowded(rng)
        cost, delta, solved = distances(points), q - p, bool(rng.random() < 0.7)
        goal = goals(rng, delta, cost, at_random=False)
        kept, after = np.unique(goal), collapse(delta, goal)
        f = dual(after[kept], cost[np.ix_(kept, kept)]) if solved else rng.normal(size=kept.size)
        duals = [float(delta @ h) for h in _extensions(f, kept, cost, steep)]
        least = signed_w1(after, cost) - price(delta, goal, cost) if solved else -np.inf
        record = {"p": p.tolist(), "q": q.tolist(), "points": points.tolist(), "kept": kept.tolist()}
        return max(max(duals) - signed_w1(delta, cost), least - min(duals)), record

    return violation


def _attempt_lower(steep: float = 1.0) -> Evidence:
    return numeric.attempt(
        _lower_fails_by(steep),
        draws=40,
        oracle=HIGHS,
        tolerance=1e-8,
        because=SOLVER,
        says="Ŵ - β ≤ L ≤ W1, for either extension",
    )


def _covered(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    """With the whole support kept, L = W1."""
    p, q, points = scene(rng)
    cost, delta = distances(points), (q - p) * (rng.random(p.size) < 0.6)
    delta[0] -= delta.sum()
    kept = np.flatnonzero(delta)
    if kept.size < 2:
        return 0.0, {}
    f = dual(delta[kept], cost[np.ix_(kept, kept)])
    lower = max(float(delta @ h) for h in _extensions(f, kept, cost, 1.0))
    return abs(lower - signed_w1(delta, cost)), {"delta": delta.tolist(), "points": points.tolist()}


@claim(
    "transport.mcshane-lower",
    statement=r"\hat W - \beta \le L = \max_\pm \textstyle\sum_j \delta_j f^\pm_j \le W_1,\quad f^+_j = \min_{s \in S}"
    r" (f_s + d(s, j)),\ f^-_j = \max_{s \in S} (f_s - d(s, j));\ L = W_1 \text{ if } S \text{ covers } \delta",
    source="kdtheory, Theorem 32; mcshane1934extension",
    expected=Verdict.PROVED,
    domain="metric costs; L ≤ W1 for any numbers f_s, the rest for dual solutions of the collapsed problem",
    uses=("geometry.kantorovich-rubinstein", "transport.collapse-bound"),
    proof=Anchor("07_transport#mcshane", sha256="f25c6ccb4e9e1fdb"),
)
def mcshane_lower() -> list[Evidence]:
    """The extension is 1-Lipschitz on all tokens, so it is a dual candidate of the whole problem."""
    cover = numeric.attempt(
        _covered, draws=25, oracle=HIGHS, tolerance=1e-8, because=SOLVER, says="support kept: L = W1"
    )
    return [_attempt_lower(), cover]


@mcshane_lower.control
def _() -> Evidence:
    """An extension of slope 1.1 must not pass as a lower bound."""
    return _attempt_lower(1.1)


def _gradient_fails_by(pulled_back: bool) -> Fails:
    """Central differences of Ŵ by HiGHS along e_i - e_j, kept set and goals fixed."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        _, _, points = scene(rng, most=6)
        size, step = len(points), 1e-5
        p, q = rng.dirichlet(np.ones(size), size=2)
        cost, delta = distances(points), q - p
        goal = goals(rng, delta, cost, at_random=False)
        kept = np.unique(goal)
        f = np.zeros(size)
        f[kept] = dual(collapse(delta, goal)[kept], cost[np.ix_(kept, kept)])
        slope = f[goal] if pulled_back else f
        i, j = rng.permutation(size)[:2]
        move = step * (np.eye(size)[i] - np.eye(size)[j])
        ahead, behind = (signed_w1(collapse(delta + s * move, goal), cost) for s in (1, -1))
        here = signed_w1(collapse(delta, goal), cost)
        if abs(ahead + behind - 2 * here) > 1e-9:  # a kink within the step: then there is no derivative
            return 0.0, {}
        error = abs((ahead - behind) / (2 * step) - (slope[i] - slope[j]))
        return float(error), {"p": p.tolist(), "q": q.tolist(), "points": points.tolist(), "goal": goal.tolist()}

    return violation


def _attempt_gradient(pulled_back: bool = True) -> Evidence:
    return numeric.attempt(
        _gradient_fails_by(pulled_back),
        draws=30,
        oracle=f"central differences of {HIGHS}",
        tolerance=1e-4,
        because="piecewise linear, so exact up to HiGHS' 1e-10 over a step of 1e-5",
        says="the derivative of Ŵ at a moved token is its goal's potential",
    )


@claim(
    "transport.collapse-gradient",
    statement=r"\partial \hat W / \partial q_j = g_{\pi(j)} \text{ up to a constant},\quad"
    r" \mathrm{osc}(g \circ \pi) \le \mathrm{diam}(S)",
    source="kdtheory, Theorem 33",
    expected=Verdict.PROVED,
    domain="kept set and goals held fixed, which they are away from ties of |δ|; unique potentials (else subgradients)",
    uses=("transport.collapse-bound",),
    proof=Anchor("07_transport#collapse-gradient", sha256="1f75f01251ca85ba"),
)
def collapse_gradient() -> Evidence:
    """A norm of a linear map of δ; the transpose of the collapse copies the goal's potential."""
    return _attempt_gradient()


@collapse_gradient.control
def _() -> Evidence:
    """A gradient that is zero on the tail must not pass."""
    return _attempt_gradient(pulled_back=False)
