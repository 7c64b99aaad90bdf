"""Theorem 6 of chapter 03: every form of optimal transport stalls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from kdtheory.claims.oracles import optimal_transport
from kdtheory.claims.saturation import oracles
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, numeric


def _sinkhorn(p: Any, q: Any, cost: Any, epsilon: float) -> tuple[float, Any]:
    """Relative OT_ε and the student's potential, by plain Sinkhorn iterations in the log domain."""
    f, g = np.zeros(p.size), np.zeros(q.size)
    for _ in range(3000):
        f_new = -epsilon * np.log(np.exp((g - cost) / epsilon) @ q)
        g = -epsilon * np.log(np.exp((f_new[:, None] - cost) / epsilon).T @ p)
        if np.abs(f_new - f).max() < 1e-14:
            break
        f = f_new
    return float(f @ p + g @ q), g


def _transport_fails_by(factor: float) -> Callable[[np.random.Generator], tuple[float, dict[str, Any]]]:
    """‖∇_z‖₁ - bound for OT with any cost (HiGHS), relative and entropic OT_ε and Sinkhorn divergence."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size, epsilon = int(rng.integers(2, 5)), float(rng.uniform(0.3, 2))
        p = rng.dirichlet(np.ones(size))
        points = rng.normal(size=(size, 2))
        cost = rng.uniform(0, 3, size=(size, size)) if rng.random() < 0.5 else cdist(points, points)
        q = oracles.softmax(oracles.confident(rng, size, float(rng.uniform(0, 4)))[0])
        osc = float(np.ptp(cost, axis=1).max())
        left = min(1 - q.max(), 0.5)
        bound = factor * 2 * osc * left * (1 - left)
        potentials = {"sharp": optimal_transport(p, q, cost).slopes, "relative": _sinkhorn(p, q, cost, epsilon)[1]}
        norms = {name: np.abs(q * (g - q @ g)).sum() - bound for name, g in potentials.items()}
        entropic = potentials["relative"] + epsilon * np.log(q)
        entropy = -float(q @ np.log(q))
        norms["entropic"] = np.abs(q * (entropic - q @ entropic)).sum() - bound - factor * 2 * epsilon * entropy
        symmetric = (cost + cost.T) / 2
        width = float(np.ptp(symmetric, axis=1).max())
        debiased = _sinkhorn(p, q, symmetric, epsilon)[1] - _sinkhorn(q, q, symmetric, epsilon)[1]
        norms["debiased"] = np.abs(q * (debiased - q @ debiased)).sum() - factor * 4 * width * left * (1 - left)
        worst = max(norms, key=norms.__getitem__)
        return float(norms[worst]), {"loss": worst, "p": p.tolist(), "q": q.tolist(), "cost": cost.tolist()}

    return violation


def _slope_is_the_potential(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    """∂OT_ε/∂z by central differences of Sinkhorn's value, against q(g - ḡ)."""
    p, z, cost, h = rng.dirichlet(np.ones(3)), rng.normal(size=3), rng.uniform(0, 2, size=(3, 3)), 1e-4
    q = oracles.softmax(z)
    g = _sinkhorn(p, q, cost, 0.7)[1]
    moved = [
        [_sinkhorn(p, oracles.softmax(z + side * h * unit), cost, 0.7)[0] for side in (1, -1)] for unit in np.eye(3)
    ]
    expected = np.array([(up - down) / (2 * h) for up, down in moved])
    return float(np.abs(q * (g - q @ g) - expected).max()), {"p": p.tolist(), "z": z.tolist(), "cost": cost.tolist()}


def _attempt_transport(factor: float) -> Evidence:
    return numeric.attempt(
        _transport_fails_by(factor),
        draws=60,
        oracle="scipy.optimize.linprog (HiGHS) and Sinkhorn iterations written here",
        tolerance=1e-8,
        because="HiGHS' dual feasibility 1e-9; Sinkhorn's fixed point to 1e-14 per step",
        says="the bounds on transport losses",
    )


@claim(
    "saturation.transport-stalls",
    statement=r"\|\nabla_z \mathrm{OT}_C\|_1, \|\nabla_z \mathrm{OT}_\varepsilon\|_1 \le 2\,\mathrm{osc}\, d(1 -"
    r" d);\quad"
    r" -\varepsilon H \text{ form: } {} + 2\varepsilon H(q);\quad \|\nabla_z S_\varepsilon\|_1 \le 4\,\mathrm{osc}\,"
    r" d(1 - d);\quad d = \min(\tfrac12, 1 - \max_k q_k)",
    source="kdtheory, Theorem 6",
    expected=Verdict.PROVED,
    domain="p, q > 0; any cost C with osc = max |C_ki - C_kj|; symmetric C for the Sinkhorn divergence S_ε",
    uses=("gradients.bounded-slopes",),
    proof=Anchor("03_saturation#transport-stalls", sha256="ff595b7c0c116874"),
)
def transport_stalls() -> list[Evidence]:
    """Linear programs and Sinkhorn iterations at students from undecided to sure."""
    return [
        _attempt_transport(1.0),
        numeric.attempt(
            _slope_is_the_potential,
            draws=10,
            oracle="central difference of the value of Sinkhorn iterations written here",
            tolerance=1e-7,
            because="h = 1e-4 leaves h²/6 times a third derivative of a function of size 2",
            says="the slope of the relative form is its potential",
        ),
    ]


@transport_stalls.control
def _() -> Evidence:
    """A third of the bounds must not pass."""
    return _attempt_transport(1 / 3)
