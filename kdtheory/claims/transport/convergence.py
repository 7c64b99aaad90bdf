"""Theorems 10 and 12 of chapter 07: how fast matrix scaling converges, what an unfinished iterate already proves."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from scipy.special import rel_entr

from kdtheory.claims.transport import finite
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric

_CONTRACTION = Anchor("07_transport#contraction", sha256="bca8cf726230c7f4")
_STOPPING = Anchor("07_transport#stopping", sha256="8d861fa077d8f4b9")
_BECAUSE = "float64 sums of a dozen terms; the oracle's marginals are right to 1e-12"


def hilbert(x: finite.Array, y: finite.Array) -> float:
    """Hilbert's distance of two positive rays."""
    return finite.osc(np.log(x / y))


def spread(cost: finite.Array) -> float:
    """Δ_C = max C_il + C_kj - C_ij - C_kl: over all pairs of rows, the range of their difference."""
    return max(finite.osc(a - b) for a in cost for b in cost)


def _cost(rng: np.random.Generator) -> tuple[finite.Array, float]:
    """A metric, or any matrix; and ε."""
    m, n = (int(k) for k in rng.integers(2, 6, size=2))
    cost = finite.distances(rng, m) if rng.random() < 0.4 else rng.uniform(-1, 1, size=(m, n))
    return cost, float(finite.osc(cost) * 10 ** rng.uniform(-0.8, 0.5))


def _quarter(angle: float) -> float:
    return float(np.tanh(angle / 4))


def _contraction_fails_by(factor: Any) -> Any:
    """Random and nearly worst pairs: images against κ d_H and Δ; sweeps against κ² and the distance that is left."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        cost, epsilon = _cost(rng)
        kernel, angle = np.exp(-cost / epsilon), spread(cost) / epsilon
        kappa = factor(angle)
        x, y = np.exp(rng.normal(size=(2, kernel.shape[1])) * 10 ** rng.uniform(-2, 1))
        image = hilbert(kernel @ x, kernel @ y)
        p, q = (finite.law(rng, size) for size in kernel.shape)
        f, _, _ = finite.scaled(p, q, cost, epsilon)
        limit, u = np.exp(f / epsilon), p / (kernel @ y)
        later = p / (kernel @ (q / (kernel.T @ u)))
        away = hilbert(u, limit)
        errors = [image - kappa * hilbert(x, y), image - angle, hilbert(later, limit) - kappa**2 * away]
        errors += [away * (1 - kappa**2) - hilbert(u, later), angle - 2 * finite.osc(cost) / epsilon]
        return float(max(errors)), {"K": kernel.tolist(), "x": x.tolist(), "y": y.tolist()}

    return violation


def _attempt_contraction(factor: Any = _quarter) -> Evidence:
    return numeric.attempt(
        _contraction_fails_by(factor),
        draws=60,
        oracle=f"Hilbert's distance itself; {finite.NEWTON}",
        tolerance=1e-9,
        because=_BECAUSE,
        says="images contract by tanh(Δ/4), sweeps by its square",
    )


def _attained(share: float) -> Evidence:
    """The pair of the proof must come within 1e-3 of κ: no constant `share` · κ can do."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        kernel = np.exp(rng.uniform(-1, 1, size=(3, 4)))
        log = np.log(kernel)
        gaps = {
            (i, k, int(np.argmax(log[i] - log[k])), int(np.argmin(log[i] - log[k]))) for i in range(3) for k in range(3)
        }
        i, k, j, other = max(gaps, key=lambda at: finite.osc(log[at[0]] - log[at[1]]))
        angle = finite.osc(log[i] - log[k])
        y = np.full(4, 1e-8)
        y[j], y[other] = 1.0, np.sqrt(kernel[i, j] * kernel[k, j] / (kernel[i, other] * kernel[k, other]))
        x = y.copy()
        x[other] *= np.exp(1e-4)
        ratio = hilbert(kernel @ x, kernel @ y) / hilbert(x, y)
        return float(share * _quarter(angle) - ratio), {"K": kernel.tolist(), "y": y.tolist()}

    return numeric.attempt(
        violation,
        draws=20,
        oracle="Hilbert's distance itself",
        tolerance=1e-3,
        because="x and y are 1e-4 apart and 1e-8 away from two tokens",
        says=f"some pair attains {share:g} tanh(Δ/4)",
    )


def _metric_angle(factor: int) -> list[Evidence]:
    """Tokens at 0, 1, 3: Δ_C in fractions against `factor` times the diameter."""
    cost = [finite.fractions(*(abs(x - y) for y in (0, 1, 3))) for x in (0, 1, 3)]
    four = [
        cost[i][second] + cost[k][first] - cost[i][first] - cost[k][second]
        for i in range(3)
        for k in range(3)
        for first in range(3)
        for second in range(3)
    ]
    return [exact.check(max(four), "==", 3 * factor, says="tokens at 0, 1, 3: Δ_C against the diameter 3")]


@claim(
    "transport.contraction",
    statement=r"d_H(Kx, Ky) \le \kappa\, d_H(x, y),\ \kappa = \tanh(\Delta/4),\ \Delta = \max \log \frac{K_{ij} K_{kl}}"
    r"{K_{il} K_{kj}} \le \frac{2\,\mathrm{osc}(C)}{\varepsilon};\ \text{each sweep contracts by } \kappa^2,"
    r" \text{ and the plans tend to } \Gamma_\lambda",
    source="kdtheory, Theorem 10; birkhoff1957extensions; franklin1989scaling",
    expected=Verdict.PROVED,
    domain="K > 0, p, q > 0; the constant is best possible; Δ = 2 diam/ε for a metric",
    uses=("transport.scaling-form",),
    proof=_CONTRACTION,
)
def contraction() -> list[Evidence]:
    """Random kernels and rays, the worst pair of each, Δ of a metric in fractions."""
    return [_attempt_contraction(), _attained(1.0), *_metric_angle(2)]


@contraction.control
def _() -> list[Evidence]:
    """tanh(Δ/8) as a bound, 1.1 tanh(Δ/4) as attained, and Δ_C = diam must not pass."""
    return [_attempt_contraction(lambda angle: np.tanh(angle / 8)), _attained(1.1), *_metric_angle(1)]


def _start(rng: np.random.Generator) -> tuple[Any, ...]:
    """Cost, ε, p, q, first v, sweeps; one in five nearly attains ½ Δ_C δ: a law to turn round, prices against it."""
    if rng.random() < 0.2:
        p = np.array([0.9, 0.1]) + rng.uniform(-0.02, 0.02) * np.array([1, -1])
        return 1 - np.eye(2), 0.05, p, p[::-1].copy(), np.array([1.0, 1e-12]), 1
    cost, epsilon = _cost(rng)
    p, q = (finite.law(rng, size) for size in cost.shape)
    return cost, epsilon, p, q, np.exp(rng.normal(size=q.size)), int(rng.integers(1, 12))


def _sweeps(rng: np.random.Generator) -> dict[str, Any]:
    """A few sweeps from a random start: everything Theorem 12 speaks of."""
    cost, epsilon, p, q, v, sweeps = _start(rng)
    kernel = np.exp(-cost / epsilon)
    errors: list[float] = []
    for _ in range(sweeps):
        u = p / (kernel @ v)
        v = q / (kernel.T @ u)
        plan = u[:, None] * kernel * v
        errors.append(float(np.abs(plan.sum(1) - p).sum()))
    f, g = epsilon * np.log(u), epsilon * np.log(v)
    return {"p": p, "q": q, "cost": cost, "epsilon": epsilon, "plan": plan, "f": f, "g": g, "errors": errors}


def _point(at: dict[str, Any]) -> dict[str, Any]:
    return {name: np.asarray(at[name]).tolist() for name in ("p", "q", "cost", "epsilon")}


def _stopping_fails_by(share: float, near: float) -> Any:
    """Parts 1 to 3, the bounds from above multiplied by `share`, ½ Δ_C δ alone by `near`."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        at = _sweeps(rng)
        p, q, cost, epsilon, plan, f, g = (at[k] for k in ("p", "q", "cost", "epsilon", "plan", "f", "g"))
        exact_f, exact_g, best = finite.scaled(p, q, cost, epsilon)
        delta, angle, rows = at["errors"][-1], spread(cost), plan.sum(1)
        gap = float((exact_f - f) @ p + (exact_g - g) @ q)
        contracted = epsilon * delta / (2 * (1 - _quarter(angle / epsilon) ** 2)) * finite.osc(np.log(p / rows))
        lower = float(f @ p + (cost - f[:, None]).min(0) @ q)
        value = finite.highs(p, q, cost)[0]
        failures = [
            np.abs(plan.sum(0) - q).max(),
            max(np.diff(at["errors"]), default=0.0),
            delta**2 - share * 2 * angle / (epsilon * len(at["errors"])),
            -gap,
            abs(gap - epsilon * float(rel_entr(best, plan).sum())),
            gap - near * share * angle * delta / 2,
            gap - share * contracted,
            lower - value,
            float(f @ p + g @ q) + epsilon * finite.entropy(q) - lower,
        ]
        return float(max(failures)), _point(at)

    return violation


def _attempt_stopping(share: float = 1.0, near: float = 1.0) -> Evidence:
    return numeric.attempt(
        _stopping_fails_by(share, near),
        draws=50,
        oracle=f"{finite.NEWTON}; {finite.HIGHS}",
        tolerance=1e-8,
        because=finite.SOLVER,
        says="error never rises, gap ≤ ½ Δ_C δ, completed prices below T_C",
    )


@claim(
    "transport.stopping",
    statement=r"0 \le W_\lambda - \langle f, p\rangle - \langle g, q\rangle = \varepsilon D_{KL}(\Gamma_\lambda,"
    r" \Gamma) \le \tfrac12 \Delta_C \delta,\ \delta = \|\Gamma 1 - p\|_1;\ \delta^2 \le \tfrac{2 \Delta_C}"
    r"{\varepsilon l};\ \langle f, p\rangle + \langle g, q\rangle + \varepsilon H(q) \le \langle f, p\rangle +"
    r" \langle f^c, q\rangle \le T_C",
    source="kdtheory, Theorem 12",
    expected=Verdict.PROVED,
    domain="after l >= 1 sweeps that end with a v-update; p, q > 0, any real cost",
    uses=("transport.contraction", "transport.duality", "transport.entropic-programme"),
    proof=_STOPPING,
)
def stopping() -> Evidence:
    """One to eleven sweeps, some from the worst start, against Newton's method and linear programming."""
    return _attempt_stopping()


@stopping.control
def _() -> list[Evidence]:
    """A twentieth of the bounds, and nine tenths of ½ Δ_C δ, must not pass."""
    return [_attempt_stopping(0.05), _attempt_stopping(near=0.9)]


def rounded(plan: finite.Array, p: finite.Array, q: finite.Array) -> finite.Array:
    """The plan of part 4: rows cut down to p, what is missing spread as a rank-one matrix."""
    kept = np.minimum(1, p / plan.sum(1))[:, None] * plan
    rows, columns = p - kept.sum(1), q - kept.sum(0)
    return np.asarray(kept + np.outer(rows, columns) / rows.sum())


def _rounding_fails_by(share: float) -> Any:
    """Parts 4 and 5, the bounds from above multiplied by `share`."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        at = _sweeps(rng)
        p, q, cost, plan, f, delta = (*(at[k] for k in ("p", "q", "cost", "plan", "f")), at["errors"][-1])
        if delta < 1e-9:
            return 0.0, {}
        whole, span, rows = rounded(plan, p, q), finite.osc(cost), plan.sum(1)
        upper, lower = float((whole * cost).sum()), float(f @ p + (cost - f[:, None]).min(0) @ q)
        width = at["epsilon"] * finite.entropy(rows) + (finite.osc(f) + span) * delta / 2
        failures = [
            np.abs(whole.sum(1) - p).max(),
            np.abs(whole.sum(0) - q).max(),
            -whole.min(),
            np.abs(whole - plan).sum() - share * delta,
            finite.highs(p, q, cost)[0] - upper,
            upper - float((plan * cost).sum()) - share * span * delta / 2,
            upper - lower - share * width,
        ]
        return float(max(failures)), _point(at)

    return violation


def _attempt_rounding(share: float = 1.0) -> Evidence:
    return numeric.attempt(
        _rounding_fails_by(share),
        draws=50,
        oracle=f"{finite.HIGHS}; the definition of a plan",
        tolerance=1e-8,
        because=finite.SOLVER,
        says="a plan within δ, at ½ osc(C) δ more, and the width of the interval",
    )


def _far_corner(share: str) -> Evidence:
    """Γ = I/2, p = (1, 0), q = (½, ½), C = (0, 1; 0, 0): rounding moves ½ from the cheapest to the dearest entry."""
    plan, p = [finite.fractions("1/2", 0), finite.fractions(0, "1/2")], finite.fractions(1, 0)
    cost = [finite.fractions(0, 1), finite.fractions(0, 0)]
    kept = [[min(Fraction(1), a / sum(row)) * x for x in row] for a, row in zip(p, plan, strict=True)]
    missing = [a - sum(row) for a, row in zip(p, kept, strict=True)]
    columns = [Fraction(1, 2) - sum(row[j] for row in kept) for j in range(2)]
    whole = {(i, j): kept[i][j] + missing[i] * columns[j] / sum(missing) for i in range(2) for j in range(2)}
    rise = finite.spend(whole, cost)  # ⟨Γ, C⟩ = 0
    return exact.check(rise, "==", Fraction(share), says="Γ = I/2 to p = (1, 0), δ = 1, osc(C) = 1: rise of the cost")


@claim(
    "transport.rounding",
    statement=r"\bar\Gamma = X\Gamma + \tfrac2\delta (p - X\Gamma 1)(q - (X\Gamma)^\top 1)^\top \in \Pi(p, q):\ T_C \le"
    r" \langle \bar\Gamma, C\rangle \le \langle \Gamma, C\rangle + \tfrac12 \mathrm{osc}(C) \|\Gamma 1 - p\|_1;\ \text{"
    r"the interval has width} \le \varepsilon H(r) + \tfrac12 (\mathrm{osc} f + \mathrm{osc}\, C) \delta",
    source="kdtheory, Theorem 12; altschuler2017near, Lemma 7",
    expected=Verdict.PROVED,
    domain="Γ ≥ 0 with column sums q and row sums r; the width after a sweep that ends with a v-update",
    uses=("transport.stopping",),
    proof=_STOPPING,
)
def rounding() -> list[Evidence]:
    """Two tokens in fractions attain the bound; random sweeps against linear programming."""
    return [_far_corner("1/2"), _attempt_rounding()]


@rounding.control
def _() -> list[Evidence]:
    """Half the bounds must not pass."""
    return [_far_corner("1/4"), _attempt_rounding(0.5)]
