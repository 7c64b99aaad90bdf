"""Theorem 4 of chapter 07: prices, slopes, and optimality that can be certified by adding fractions."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
from scipy.optimize import linprog

from kdtheory.claims.transport import finite
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric

_PROOF = Anchor("07_transport#duality", sha256="be7a940e8b48305c")
_P, _Q = finite.fractions("1/2", "1/3", "1/6"), finite.fractions("1/6", 0, "5/6")
_COST = [finite.fractions(*row) for row in ((0, 2, 5), (1, -1, 3), (4, 1, 2))]


def _dual(p: finite.Array, q: finite.Array, cost: finite.Array, slack: float = 0.0) -> float:
    """max ⟨f, p⟩ + ⟨g, q⟩ over f_i + g_j ≤ C_ij + slack, by HiGHS on the dual programme itself."""
    rows = finite.equations(p.size, q.size).T
    limits = cost.ravel() + slack
    bounds = [(0, 0)] + [(None, None)] * (p.size + q.size - 1)
    solved = linprog(-np.concatenate([p, q]), A_ub=rows, b_ub=limits, bounds=bounds, options=finite.SHARP)
    return -float(solved.fun)


def _duality_fails_by(slack: float, pick: Any) -> Any:
    """Primal against dual value; any prices, completed by the c-transform, against the primal value."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        m, n = (int(k) for k in rng.integers(1, 6, size=2))
        p, q, cost = finite.law(rng, m, 0.0), finite.law(rng, n, 0.0), rng.normal(size=(m, n))
        value = finite.highs(p, q, cost)[0]
        f = rng.normal(size=m)
        g = pick(cost - f[:, None], axis=0)
        below = float(f @ p + g @ q)
        back = (cost - g).min(axis=1)  # prices of the rows, given those of the columns: at least as good
        better = float(back @ p + g @ q)
        spread = finite.osc(g) - max(finite.osc(row) for row in cost)
        gap = abs(value - _dual(p, q, cost, slack))
        return max(gap, below - value, better - value, below - better, spread), {"p": p.tolist(), "cost": cost.tolist()}

    return violation


def _attempt_duality(slack: float = 0.0, pick: Any = np.min) -> Evidence:
    return numeric.attempt(
        _duality_fails_by(slack, pick),
        draws=30,
        oracle=f"{finite.HIGHS} on both programmes",
        tolerance=1e-8,
        because=finite.SOLVER,
        says="primal = dual, and completed prices bound from below",
    )


def _slack(plan: dict[finite.Edge, Fraction], f: finite.Law, g: finite.Law) -> Fraction:
    """Σ Γ_ij (C_ij - f_i - g_j)."""
    return sum((mass * (_COST[i][j] - f[i] - g[j]) for (i, j), mass in plan.items()), Fraction(0))


@claim(
    "transport.duality",
    statement=r"T_C(p, q) = \max_{f_i + g_j \le C_{ij}} \langle f, p\rangle + \langle g, q\rangle;\ \langle f, p\rangle"
    r" + \langle f^c, q\rangle \le T_C(p, q) \text{ for every } f;\ \text{both optimal} \iff f_i + g_j = C_{ij} \text{"
    r" where } \Gamma_{ij} > 0",
    source="kdtheory, Theorem 4; peyre2019computational, Section 2.5",
    expected=Verdict.PROVED,
    domain="any real cost, laws of the same mass, zeros allowed",
    uses=("transport.linear-programme",),
    proof=_PROOF,
)
def duality() -> list[Evidence]:
    """Three tokens in fractions, from each side alone; random programmes and random prices."""
    value = finite.least(_P, _Q, _COST)
    plan = {(i, j): a * b for i, a in enumerate(_P) for j, b in enumerate(_Q)}
    f, g = finite.fractions(0, 1, -2), finite.fractions(0, -3, 1)
    gap = finite.spend(plan, _COST) - finite.prices(f, g, _P, _Q)
    return [
        exact.check(value, "==", finite.dearest(_P, _Q, _COST), says="3 tokens: cheapest tree and dearest prices"),
        exact.check(gap, "==", _slack(plan, f, g), says="3 tokens: gap of any plan and any prices"),
        _attempt_duality(),
    ]


@duality.control
def _() -> list[Evidence]:
    """Prices that may exceed the cost by 1/10, and completion by the maximum, must not pass."""
    return [_attempt_duality(slack=0.1), _attempt_duality(pick=np.max)]


def _step(rng: np.random.Generator, q: finite.Law) -> list[Fraction]:
    """A direction that stays in the simplex: towards a random law."""
    towards = finite.integers(rng, len(q), 12)
    return [b - a for a, b in zip(q, towards, strict=True)]


def _generic(p: finite.Law, q: finite.Law) -> bool:
    """No set of rows has the mass of a set of columns, but both empty and both full; no token is without mass."""
    own, other = ({sum(part) for k in range(1, len(law)) for part in combinations(law, k)} for law in (p, q))
    return min(*p, *q) > 0 and not own & other


def _slopes_fail_by(choose: Any, generic: Any) -> Any:
    """T_C(p, q + tv) = T_C(p, q) + t max ⟨g, v⟩ for small t, in fractions; subgradients; one slope if generic."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        parts = int(rng.choice([12, 60]))  # the finer ones mostly have no two equal partial sums
        p, q = finite.integers(rng, 3, parts), finite.integers(rng, 3, parts)
        q = list(p) if rng.random() < 0.3 else q
        cost, step = finite.rational_cost(rng, 3, 3), _step(rng, q)
        short = Fraction(1, 10**6)  # below every breakpoint: vertices of the dual have prices below 30
        vertices = finite.feasible_potentials(cost)
        value = max(finite.prices(f, g, p, q) for f, g in vertices)
        slopes = [
            sum(a * b for a, b in zip(g, step, strict=True)) for f, g in vertices if finite.prices(f, g, p, q) == value
        ]
        near = [a + short * b for a, b in zip(q, step, strict=True)]
        far = [a + b for a, b in zip(q, step, strict=True)]
        moved = finite.least(p, near, cost) - value - short * choose(slopes)
        support = value + max(slopes) - finite.least(p, far, cost)
        kink = max(slopes) - min(slopes) if generic(p, q) else Fraction(0)
        return float(max(abs(moved), support, kink)), {"p": p, "q": q, "cost": cost, "step": step}

    return violation


def _attempt_slopes(choose: Any = max, generic: Any = _generic) -> Evidence:
    return numeric.attempt(
        _slopes_fail_by(choose, generic),
        draws=25,
        oracle=finite.TREES,
        tolerance=0.0,
        because=finite.EXACT,
        says="derivative from the right = largest slope of an optimal g; only one without equal partial sums",
    )


@claim(
    "transport.potentials-are-slopes",
    statement=r"T_C(p, q') \ge T_C(p, q) + \langle g, q' - q\rangle;\ \tfrac{d}{dt} T_C(p, q + tv)|_{0+} = \max"
    r" \langle g, v\rangle \text{ over optimal } g;\ \text{differentiable if no } p(I) = q(J) \text{ but the trivial}",
    source="kdtheory, Theorem 4; peyre2019computational, Section 9",
    expected=Verdict.PROVED,
    domain="any real cost, laws of the same mass; derivatives along the simplex",
    uses=("transport.duality", "geometry.polyhedral"),
    proof=_PROOF,
)
def potentials_are_slopes() -> Evidence:
    """Three tokens in fractions: values from primal trees, slopes from dual trees, ties and q = p included."""
    return _attempt_slopes()


@potentials_are_slopes.control
def _() -> list[Evidence]:
    """The smallest slope in place of the largest, and one slope everywhere, must fail at a kink."""
    return [_attempt_slopes(min), _attempt_slopes(generic=lambda p, q: True)]


def _certificate_fails_by(parts: int, coarser: int) -> Any:
    """No tree feasible on both sides, or a plan, potential or value with a denominator too large."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        m, n = ((3, 3), (2, 4), (4, 2), (3, 2))[int(rng.integers(4))]
        p, q = finite.integers(rng, m, parts), finite.integers(rng, n, parts)
        cost = finite.rational_cost(rng, m, n)
        if m == n and rng.random() < 0.4:
            q = list(p)
        found = finite.solve(p, q, cost)
        if found is None:
            return 1.0, {"p": p, "q": q, "cost": cost}
        whole = [x * parts / coarser for x in found.plan.values()] + found.f + found.g
        broken = any(x.denominator != 1 for x in whole) or found.value != finite.prices(found.f, found.g, p, q)
        floats = [np.array(x, dtype=float) for x in (p, q, cost)]
        error = abs(float(found.value) - finite.highs(*floats)[0])
        return float(broken) + error, {"p": p, "q": q, "cost": cost}

    return violation


def _attempt_certificate(coarser: int = 1) -> Evidence:
    return numeric.attempt(
        _certificate_fails_by(12, coarser),
        draws=30,
        oracle=f"{finite.TREES}; {finite.HIGHS}",
        tolerance=1e-8,
        because=finite.SOLVER,
        says="a tree feasible on both sides, in multiples of 1/12 and whole prices",
    )


def _every_tree_balances(proof: bool) -> list[Evidence]:
    """The worst tree on three tokens: its two sums agree though it is not optimal."""
    worst = max(finite.trees(3, 3), key=lambda tree: finite.spend(finite.flow(tree, _P, _Q), _COST))
    plan, (f, g) = finite.flow(worst, _P, _Q), finite.potentials(worst, _COST)
    both = finite.spend(plan, _COST), finite.prices(f, g, _P, _Q)
    found = [exact.check(*both[:1], "==", both[1], says="the dearest tree: ⟨Γ, C⟩ and ⟨f, p⟩ + ⟨g, q⟩")]
    if not proof:
        found.append(exact.check(both[0], "==", finite.least(_P, _Q, _COST), says="hence its value is T_C"))
    return found


@claim(
    "transport.rational-certificate",
    statement=r"p, q \in \tfrac1N \mathbb Z,\ C \in \tfrac1M \mathbb Z \Rightarrow \text{ some spanning tree has a plan"
    r" in } \tfrac1N \mathbb Z \text{ and potentials in } \tfrac1M \mathbb Z, \text{ both feasible, hence optimal; }"
    r" T_C \in \tfrac1{MN} \mathbb Z",
    source="kdtheory, Theorem 4",
    expected=Verdict.PROVED,
    domain="rational laws of the same mass and rational costs; degenerate cases (zeros, ties, q = p) included",
    uses=("transport.duality",),
    proof=_PROOF,
)
def rational_certificate() -> list[Evidence]:
    """All trees on up to four tokens a side, with zeros, ties and q = p; equality alone holds for every tree."""
    return [*_every_tree_balances(True), _attempt_certificate()]


@rational_certificate.control
def _() -> list[Evidence]:
    """Equality of the two sums without feasibility, and a grid twice as coarse, must not pass."""
    return [*_every_tree_balances(False), _attempt_certificate(2)]
