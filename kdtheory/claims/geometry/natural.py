"""Section 4.6 of chapter 04: the gradient of a loss in the Fisher metric."""

from __future__ import annotations

from typing import Any

import numpy as np

from kdtheory import simplex
from kdtheory.claims.gradients import oracles
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, numeric, symbolic

_SMOOTH = [name for name in oracles.DEFINITIONS if name not in ("tvd", "akl")]


def _natural_fails_by(read: Any) -> Evidence:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        name, point = _SMOOTH[int(rng.integers(len(_SMOOTH)))], oracles.draw(rng, spread=1.0)
        given = oracles.PARAMETERS.get(name, {})
        gradient, q = oracles.logit_gradient(name, point.p, point.z), point.q
        x = read(q, gradient)
        solved = np.linalg.lstsq(np.diag(q) - np.outer(q, q), gradient, rcond=1e-10)[0]
        scale = np.abs(solved).max()
        unlike = np.ptp(x - solved) / scale
        variance = float(q @ (oracles.slope(name, point.p, q) - q @ oracles.slope(name, point.p, q)) ** 2)
        value = float(oracles.DEFINITIONS[name](point.p, q, **given))
        chi_square = float((point.p**2 / q).sum() - 1)
        decrease = abs(float(gradient @ x) - variance) / variance
        too_large = (value**2 - variance * chi_square) / (variance * chi_square)
        return max(unlike, decrease, too_large), {"loss": name} | point.point()

    return numeric.attempt(
        violation,
        draws=150,
        oracle="least-squares solution of J x = ∇_z F, ∇_z F and slopes by complex step of the definitions typed again",
        tolerance=1e-8,
        because="J's condition number, up to 1e5 at spread 1, times float64 rounding of sums of size 1e3",
        says="g - ḡ solves J x = ∇F; the decrease is Var_q g; D² ≤ Var_q g · χ²",
    )


@claim(
    "geometry.natural-gradient",
    statement=r"\text{the Fisher gradient of } D \text{ is } q(g - \bar g) \text{ on the simplex and } g - \bar g"
    r" \text{ in the logits (mod constants), of square length } \mathrm{Var}_q(g), \text{ for forward KL } \chi^2(p,"
    r" q);"
    r"\ D^2 \le \mathrm{Var}_q(g)\, \chi^2(p, q) \text{ for convex } D",
    source="kdtheory, Theorem 17; amari2000methods",
    expected=Verdict.PROVED,
    domain="q in the open simplex, D differentiable there",
    uses=("gradients.chain-rule", "geometry.fisher-rao"),
    proof=Anchor("04_geometry#natural-gradient", sha256="2479694d30e77842"),
)
def natural_gradient() -> list[Evidence]:
    """J x = ∇F solved numerically for every smooth divergence; forward KL's variance in symbols."""
    student = oracles.symbolic_softmax(3)
    pairs = list(zip(student.p, student.q, strict=True))
    variance = symbolic.identity(
        sum(b * (1 - a / b) ** 2 for a, b in pairs),
        sum(a**2 / b for a, b in pairs) - 1,
        role="attempted refutation",
        scope="V = 3",
        says="Var_q of forward KL's slopes is χ²",
    )
    return [variance, _natural_fails_by(lambda q, gradient: simplex.natural_gradient(q, logit_gradient=gradient))]


@natural_gradient.control
def _() -> Evidence:
    """The Euclidean logit gradient in the natural one's place must not pass."""
    return _natural_fails_by(lambda q, gradient: gradient)
