"""Theorem 9 of chapter 07: the entropic programme, the form of its plan, and both ends of λ."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp
from scipy.special import rel_entr

from kdtheory.claims.transport import finite
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric, symbolic

_PROOF = Anchor("07_transport#entropic-programme", sha256="3273d403d43ee81a")
_TOLERANCE = 1e-9
_BECAUSE = "marginals to 1e-12, potentials below 20 in float64"

_COST = sp.Matrix([[0, 1, 2], [2, 0, 1], [1, 2, 0]])  # a one-way ring: two tokens would not do, transposing
_KERNEL = _COST.applyfunc(lambda c: sp.Rational(1, 2) ** c)  # a 2 x 2 cost changes it by f_i + g_j only; λ = log 2
_LAMBDA = sp.log(2)


def _draw(rng: np.random.Generator) -> tuple[finite.Array, finite.Array, finite.Array, float]:
    """p, q > 0 of different sizes, a cost without symmetry, ε between 1/10 and 2 times its range."""
    m, n = (int(k) for k in rng.integers(2, 6, size=2))
    cost = rng.uniform(-1, 1, size=(m, n))
    return finite.law(rng, m), finite.law(rng, n), cost, float(finite.osc(cost) * 10 ** rng.uniform(-1, 0.3))


def _objective(plan: finite.Array, cost: finite.Array, epsilon: float) -> float:
    return float((plan * cost).sum()) - epsilon * finite.entropy(plan)


def _other_plan(rng: np.random.Generator, plan: finite.Array) -> finite.Array:
    """Another plan with the same sums: a random circulation added, as far as the entries allow."""
    circulation = rng.normal(size=plan.shape)
    circulation -= circulation.mean(0)
    circulation -= circulation.mean(1)[:, None]
    room = float((plan[circulation < 0] / -circulation[circulation < 0]).min())
    return np.asarray(plan + float(rng.uniform(0.01, 0.9)) * room * circulation)


def _point(p: finite.Array, q: finite.Array, cost: finite.Array, epsilon: float) -> dict[str, Any]:
    return {"p": p.tolist(), "q": q.tolist(), "cost": cost.tolist(), "epsilon": epsilon}


def _minimiser_fails_by(kernel: Any) -> Any:
    """The plan u K v with the right sums, K from λ by `kernel`: other plans must cost more, by ε KL."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q, cost, epsilon = _draw(rng)
        plan = finite.scaled(p, q, cost, kernel(epsilon))[2]
        other = _other_plan(rng, plan)
        more = _objective(other, cost, epsilon) - _objective(plan, cost, epsilon)
        return abs(more - epsilon * float(rel_entr(other, plan).sum())), _point(p, q, cost, epsilon)

    return violation


def _attempt_minimiser(kernel: Any = lambda epsilon: epsilon) -> Evidence:
    return numeric.attempt(
        _minimiser_fails_by(kernel),
        draws=40,
        oracle=f"{finite.NEWTON}; the objective itself",
        tolerance=_TOLERANCE,
        because=_BECAUSE,
        says="every other plan costs ε KL(Γ, Γ_λ) more",
    )


def _two_tokens(kernel: Any) -> Evidence:
    """p = q = (½, ½), C = 1 - I, plans (½ - t, t; t, ½ - t): the slope in t at the plan of the kernel."""
    rate, t = sp.Symbol("lambda", positive=True), sp.Symbol("t", positive=True)
    entropy = -2 * (t * sp.log(t) + (sp.Rational(1, 2) - t) * sp.log(sp.Rational(1, 2) - t))
    k = kernel(rate)
    slope = sp.diff(2 * t - entropy / rate, t).subs(t, k / (2 * (1 + k)))
    return symbolic.identity(slope, 0, role="attempted refutation", scope="V = 2", says="slope of the objective")


@claim(
    "transport.entropic-programme",
    statement=r"W_\lambda(P, Q) = \min\{\langle \Gamma, C\rangle - H(\Gamma)/\lambda\} \text{ over the same plans, with"
    r" } K = \exp(-\lambda C)",
    source="lossdesigns, Sinkhorn; cuturi2013sinkhorn, Section 4",
    expected=Verdict.PROVED,
    rows=("S1-55",),
    domain="p, q > 0, any real cost, ε = 1/λ > 0; one minimiser, and it is u_i K_ij v_j",
    uses=("transport.duality",),
    proof=_PROOF,
)
def entropic_programme() -> list[Evidence]:
    """Two tokens in symbols; other plans at random, dearer by exactly ε KL."""
    return [_two_tokens(lambda rate: sp.exp(-rate)), _attempt_minimiser()]


@entropic_programme.control
def _() -> list[Evidence]:
    """λ for 1/λ, K = exp(-C/λ), must not give the minimiser."""
    return [_two_tokens(lambda rate: sp.exp(-1 / rate)), _attempt_minimiser(lambda epsilon: 1 / epsilon)]


def _value(plan: sp.Matrix) -> sp.Expr:
    return sum(x * c + x * sp.log(x) / _LAMBDA for x, c in zip(plan, _COST, strict=True))


def _exact_form(kernel: sp.Matrix) -> list[Evidence]:
    """u = (1, 2, 1), v = (3, 1, 1) in rationals: the plan u K v against two neighbours with the same sums."""
    plan = sp.Matrix(3, 3, lambda i, j: (1, 2, 1)[i] * kernel[i, j] * (3, 1, 1)[j])
    plan = plan / sum(plan)
    circulation = sp.Matrix([[0, 1, -1], [-1, 0, 1], [1, -1, 0]])
    return [
        exact.check(_value(plan), "<", _value(plan + step * circulation), says=f"W_λ at u K v and {step} beside it")
        for step in (sp.Rational(1, 100), -sp.Rational(1, 100))
    ]


def _form_fails_by(scale_marginals: bool) -> Any:
    """log Γ + λC of the minimiser must be a_i + b_j; `scale_marginals` takes an iterate with one sum wrong instead."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q, cost, epsilon = _draw(rng)
        epsilon = max(epsilon, 0.3 * finite.osc(cost))  # else the least entries of a plan are lost in its sums
        f, g, _ = finite.scaled(p, q, cost, epsilon)
        plan = finite.smoothed(p, q, cost, epsilon)
        if scale_marginals:
            plan = plan * rng.uniform(0.5, 1, size=(p.size, 1))
            plan = plan * (q / plan.sum(0))
        rest = np.log(plan) + cost / epsilon
        rest = rest - rest[:1] - rest[:, :1] + rest[0, 0]
        value = _objective(plan, cost, epsilon)
        errors = [np.abs(rest).max() * epsilon, abs(value - float(f @ p + g @ q)), (f[:, None] + g - cost).max()]
        return float(max(errors)), _point(p, q, cost, epsilon)

    return violation


def _attempt_form(scale_marginals: bool = False) -> Evidence:
    return numeric.attempt(
        _form_fails_by(scale_marginals),
        draws=40,
        oracle="scipy.optimize.minimize (trust-exact) over the plans; the objective itself",
        tolerance=_TOLERANCE,
        because="entries above 1e-6 that are sums of numbers below 1 in float64: logarithms are good to 1e-10",
        says="Γ = u K v, value ⟨f, p⟩ + ⟨g, q⟩, feasible prices",
    )


@claim(
    "transport.scaling-form",
    statement=r"\Gamma_{ij} = u_i K_{ij} v_j",
    source="lossdesigns, Sinkhorn; cuturi2013sinkhorn, Lemma 2",
    expected=Verdict.PROVED,
    rows=("S1-57",),
    domain="p, q > 0: a plan has this form if and only if it is the minimiser. Every iterate has the form, only the"
    " fixed point is a plan",
    uses=("transport.entropic-programme",),
    proof=_PROOF,
)
def scaling_form() -> list[Evidence]:
    """An asymmetric cost in rationals, decided by intervals; random programmes."""
    return [*_exact_form(_KERNEL), _attempt_form()]


@scaling_form.control
def _() -> list[Evidence]:
    """The transposed kernel, and an iterate of the same form with wrong row sums, must not pass."""
    return [*_exact_form(_KERNEL.T), _attempt_form(True)]


def _limits_fail_by(shrink: float) -> Any:
    """Parts 5 and 6 of the theorem, with the entropies in the bounds from above multiplied by `shrink`."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q, cost, epsilon = _draw(rng)
        if rng.random() < 0.5:
            epsilon *= 10
        plan, colder = (finite.scaled(p, q, cost, e)[2] for e in (epsilon, epsilon / 1.5))
        value, sharp = finite.highs(p, q, cost)[0], float((plan * cost).sum())
        entropies = shrink * finite.entropy(p), shrink * finite.entropy(q)
        objective, independent = _objective(plan, cost, epsilon), np.outer(p, q)
        errors = [
            value - sharp,
            sharp - value - epsilon * min(entropies),
            objective - value + epsilon * max(finite.entropy(p), finite.entropy(q)),
            value - epsilon * sum(entropies) - objective,
            float((colder * cost).sum()) - sharp,
            finite.entropy(colder) - finite.entropy(plan),
            float(rel_entr(plan, independent).sum()) - shrink * float((independent * cost).sum() - value) / epsilon,
        ]
        return float(max(errors)), _point(p, q, cost, epsilon)

    return violation


def _attempt_limits(shrink: float = 1.0) -> Evidence:
    return numeric.attempt(
        _limits_fail_by(shrink),
        draws=60,
        oracle=f"{finite.NEWTON}; {finite.HIGHS}",
        tolerance=1e-8,
        because=finite.SOLVER,
        says="bounds by ε times an entropy, monotone in λ, KL to the independent plan",
    )


def _ends(relative: bool = True) -> list[Evidence]:
    """p = q = (½, ½), C = 1 - I: values at λ = 1/1000, against the cost ½ of p ⊗ q, and at λ = 10 against T_C = 0."""

    def value(rate: Any, sharp: bool) -> sp.Expr:
        k = sp.exp(-rate)
        t, stay = k / (2 * (1 + k)), 1 / (2 * (1 + k))  # the plan is (stay, t; t, stay)
        entropy = -2 * (t * sp.log(t) + stay * sp.log(stay))
        return 2 * t - (0 if sharp else (entropy - (2 * sp.log(2) if relative else 0)) / rate)

    small, half, name = sp.Rational(1, 1000), sp.Rational(1, 2), "W_λ + (H(p) + H(q))/λ" if relative else "W_λ"
    both = ((True, "⟨Γ_λ, C⟩"), (False, name))
    return [
        exact.check(half - value(small, True), "<", small, says="two tokens, λ = 1/1000: ½ - ⟨Γ_λ, C⟩ < 1/1000"),
        exact.check(half - value(small, False), "<", small, says=f"two tokens, λ = 1/1000: ½ - ({name}) < 1/1000"),
        *(exact.check(value(small, x), "<", half, says=f"two tokens, λ = 1/1000: {n} < ½") for x, n in both),
        exact.check(value(sp.Integer(10), True), "<", small, says="two tokens, λ = 10: ⟨Γ_λ, C⟩ < 1/1000"),
    ]


@claim(
    "transport.entropic-limits",
    statement=r"T_C \le \langle \Gamma_\lambda, C\rangle \le T_C + \tfrac1\lambda \min(H(p), H(q));\ \lambda \to"
    r" \infty: W_\lambda, \langle \Gamma_\lambda, C\rangle \to T_C;\ \lambda \to 0: \langle \Gamma_\lambda, C\rangle"
    r" \text{ and } W_\lambda + \tfrac1\lambda (H(p) + H(q)) \to \langle p \otimes q, C\rangle,\ W_\lambda \to -\infty",
    source="kdtheory, Theorem 9; cuturi2013sinkhorn, Section 3; peyre2019computational, Proposition 4.1",
    expected=Verdict.PROVED,
    domain="p, q > 0, not both one token; any real cost",
    uses=("transport.entropic-programme",),
    proof=_PROOF,
)
def entropic_limits() -> list[Evidence]:
    """Two tokens by intervals; random programmes over two decades of λ."""
    return [*_ends(), _attempt_limits()]


@entropic_limits.control
def _() -> list[Evidence]:
    """Three tenths of the entropies, and a limit of W_λ itself at λ → 0, must not pass."""
    return [_attempt_limits(0.3), *_ends(relative=False)]
