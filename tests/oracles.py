"""Independent oracles for the divergences: definitions typed again, in multiple precision.

Nothing here imports `kdtheory`. Values are the textbook sums, evaluated by mpmath with as many digits as the numbers
span; derivatives are complex steps, Im D(x + ih)/h, which subtract nothing and so lose no digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import mpmath as mp

DIGITS = 60
Number = Any  # mpf or mpc


def working_digits(*logits: Sequence[float]) -> int:
    """Digits that still resolve 60 digits of the smallest product of probabilities these logits make."""
    finite = [float(z) for row in logits for z in row if math.isfinite(z)]
    spread = max(finite) - min(finite) if finite else 0.0
    return DIGITS + int(1.5 * spread)


def softmax(logits: Sequence[Number]) -> list[Number]:
    """Probabilities from logits (float, mpf or mpc; -inf gives an exact zero)."""
    weights = [mp.mpf(0) if _is_minus_infinity(z) else mp.exp(z) for z in logits]
    total = mp.fsum(weights)
    return [w / total for w in weights]


def _is_minus_infinity(z: Number) -> bool:
    return not isinstance(z, mp.mpc) and z == -mp.inf


def real(x: Number) -> mp.mpf:
    return mp.re(x)


def absolute(x: Number) -> Number:
    """|x| as an analytic function on either side of 0, so that a complex step sees its derivative (0 at the kink)."""
    return mp.sign(real(x)) * x


def kl(a: Sequence[Number], b: Sequence[Number]) -> Number:
    """Σ a log(a/b), with 0 log 0 = 0 and +inf where b = 0 < a."""
    total = mp.mpf(0)
    for x, y in zip(a, b, strict=True):
        if x == 0:
            continue
        if y == 0:
            return mp.inf
        total += x * mp.log(x / y)
    return total


def _mixture(weight: Number, a: Sequence[Number], b: Sequence[Number]) -> list[Number]:
    return [weight * x + (1 - weight) * y for x, y in zip(a, b, strict=True)]


def _power_sum(p: Sequence[Number], q: Sequence[Number], a: Number, b: Number) -> Number:
    """Σ p^a q^b over tokens with mass, +inf where a negative power meets a zero."""
    total = mp.mpf(0)
    for x, y in zip(p, q, strict=True):
        if (x == 0 and a > 0) or (y == 0 and b > 0):
            continue
        if x == 0 or y == 0:
            if x == 0 and y == 0:
                continue
            return mp.inf
        total += mp.exp(a * mp.log(x) + b * mp.log(y))
    return total


def fkl(p, q):
    return kl(p, q)


def rkl(p, q):
    return kl(q, p)


def jsd(p, q, beta):
    beta = mp.mpf(beta)
    m = _mixture(beta, p, q)
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


def tvd(p, q):
    return mp.fsum(absolute(x - y) for x, y in zip(p, q, strict=True)) / 2


def skl(p, q, alpha):
    return kl(p, _mixture(mp.mpf(alpha), p, q))


def srkl(p, q, alpha):
    return kl(q, _mixture(mp.mpf(alpha), q, p))


def chi2(p, q):
    return _power_sum(p, q, 2, -1) - 1


def neyman(p, q):
    return _power_sum(q, p, 2, -1) - 1


def hellinger2(p, q):
    return 1 - _power_sum(p, q, mp.mpf(1) / 2, mp.mpf(1) / 2)


def amari(p, q, alpha):
    alpha = mp.mpf(alpha)
    return (1 - _power_sum(p, q, alpha, 1 - alpha)) / (alpha * (1 - alpha))


def renyi(p, q, alpha):
    alpha = mp.mpf(alpha)
    total = _power_sum(p, q, alpha, 1 - alpha)
    return mp.inf if total in (0, mp.inf) else mp.log(total) / (alpha - 1)


def akl_head(p: Sequence[Number], mu: float) -> set[int]:
    """The fewest tokens whose mass exceeds mu, largest first, ties to the lower index."""
    head: set[int] = set()
    mass = mp.mpf(0)
    for i in sorted(range(len(p)), key=lambda i: (-p[i], i)):
        if mass > mu:
            break
        head.add(i)
        mass += p[i]
    return head


def akl_weights(p, q, mu, detached=True):
    """(weight of forward KL, weight of reverse KL); a half each at p = q."""
    head = akl_head(p, mu)
    gaps = [absolute(x - (real(y) if detached else y)) for x, y in zip(p, q, strict=True)]
    total = mp.fsum(gaps)
    if total == 0:
        return mp.mpf(1) / 2, mp.mpf(1) / 2
    forward = mp.fsum(gaps[i] for i in head) / total
    return forward, 1 - forward


def akl(p, q, mu, detached=True):
    """Detached: weights see the real part only, so a complex step does not differentiate them."""
    forward, reverse = akl_weights(p, q, mu, detached)
    parts = [w * kl(a, b) for w, a, b in ((forward, p, q), (reverse, q, p)) if w != 0]
    return mp.fsum(parts) if all(mp.isfinite(part) for part in parts) else mp.inf


def cross_entropy(p, q):
    if any(x != 0 and y == 0 for x, y in zip(p, q, strict=True)):
        return mp.inf
    return -mp.fsum(x * mp.log(y) for x, y in zip(p, q, strict=True) if x != 0)


VALUES: dict[str, Callable[..., Number]] = {
    f.__name__: f for f in (fkl, rkl, jsd, tvd, skl, srkl, chi2, neyman, hellinger2, amari, renyi, akl, cross_entropy)
}


# -- derivatives -------------------------------------------------------------------------------------------------------
def _step() -> mp.mpf:
    return mp.mpf(10) ** -(mp.mp.dps)


def derivative(function: Callable[[list[Number]], Number], at: Sequence[Number], i: int) -> mp.mpf:
    """∂ function/∂x_i by a complex step; its error is of order h² ~ 10^(-2 dps)."""
    moved = [mp.mpf(x) for x in at]
    moved[i] = mp.mpc(moved[i], _step())
    return mp.im(function(moved)) / _step()


def value(name: str, teacher_logits: Sequence[float], student_logits: Sequence[float], **parameters) -> mp.mpf:
    """D(softmax(t), softmax(z))."""
    with mp.workdps(working_digits(teacher_logits, student_logits)):
        p, q = (softmax([mp.mpf(float(x)) for x in row]) for row in (teacher_logits, student_logits))
        found = mp.re(VALUES[name](p, q, **parameters))
        return _chopped(found)


def _chopped(x: mp.mpf) -> mp.mpf:
    """0 in place of what rounding leaves at p = q."""
    return mp.mpf(0) if abs(x) < mp.mpf(10) ** (10 - mp.mp.dps) else x


def logit_gradient(
    name: str, teacher_logits: Sequence[float], student_logits: Sequence[float], **parameters
) -> list[mp.mpf]:
    """dD/dz through the softmax, 0 at a -inf student logit (where nothing moves)."""
    with mp.workdps(working_digits(teacher_logits, student_logits)):
        p = softmax([mp.mpf(float(x)) for x in teacher_logits])
        z = [mp.mpf(float(x)) for x in student_logits]

        def of_logits(moved):
            return VALUES[name](p, softmax(moved), **parameters)

        return [mp.mpf(0) if z[i] == -mp.inf else _chopped(derivative(of_logits, z, i)) for i in range(len(z))]


def shifted_slopes(name: str, p: list[mp.mpf], q: list[mp.mpf], **parameters) -> list[mp.mpf]:
    """∂D/∂q_i, shifted to be 0 at p = q; entries where q = 0 are given as 0 (nothing moves there)."""
    if name == "akl":
        weights = akl_weights(p, q, **parameters)
        rows = [shifted_slopes(part, p, q) for part in ("fkl", "rkl")]
        return [weights[0] * f + weights[1] * r for f, r in zip(*rows, strict=True)]
    half = [mp.mpf(1) / 2] * 2
    origin = derivative(lambda x: VALUES[name](half, x, **parameters), half, 0)
    return [
        derivative(lambda x: VALUES[name](p, x, **parameters), q, i) - origin if q[i] != 0 else mp.mpf(0)
        for i in range(len(q))
    ]


def absolute_terms(
    name: str, teacher_logits: Sequence[float], student_logits: Sequence[float], **parameters
) -> list[mp.mpf]:
    """Per entry i of the logit gradient Σ_{j≠i} q_i q_j (g_i - g_j): the sum of |q_i q_j g_i| + |q_i q_j g_j|."""
    with mp.workdps(working_digits(teacher_logits, student_logits)):
        p, q = (softmax([mp.mpf(float(x)) for x in row]) for row in (teacher_logits, student_logits))
        g = shifted_slopes(name, p, q, **parameters)
        indices = range(len(q))
        return [_chopped(mp.fsum(q[i] * q[j] * (abs(g[i]) + abs(g[j])) for j in indices if j != i)) for i in indices]
