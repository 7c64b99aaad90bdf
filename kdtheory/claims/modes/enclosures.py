"""Reverse KL of one Gaussian to a mixture of two unit Gaussians, in ball arithmetic; branch and bound over (μ, σ).

Teacher w₁ N(-m, 1) + w₂ N(m, 1), student X ~ N(μ, σ²). With b = ½ log(w₂/w₁) and Y = mX + b ~ N(M, S²),

    RKL = -log σ - ½ + (μ² + σ² + m²)/2 - log(2 √(w₁w₂)) - E log cosh Y.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from flint import acb, arb, ctx, fmpq

BITS = 64
_REACH = 16  # |Y| beyond which e^{-2|Y|} is put into the error bound
_ACCURACY = arb(2) ** -22

Kernel = Callable[[Any], Any]  # of e^{-2y}, y >= 0


def number(value: int | str | Fraction) -> arb:
    """An exact rational as a ball."""
    exact = Fraction(value)
    return arb(fmpq(exact.numerator, exact.denominator))


def normal_cdf(x: arb) -> arb:
    """Φ(x)."""
    return (1 + (x / arb(2).sqrt()).erf()) / 2


def _integral(kernel: Kernel, mean: arb, deviation: arb, sign: int) -> arb:
    """∫_0^∞ kernel(e^{-2y}) (φ(y; M, S) + sign φ(y; -M, S)) dy, for a kernel with |kernel(e)| <= 4 e."""
    m, s = acb(mean), acb(deviation)
    scale = 1 / ((2 * acb.pi()).sqrt() * s)

    def integrand(y: Any, _: bool) -> Any:
        near, far = (y - m) / s, (y + m) / s
        return kernel((-2 * y).exp()) * scale * ((-near * near / 2).exp() + sign * (-far * far / 2).exp())

    inner = acb.integral(integrand, 0, _REACH, rel_tol=_ACCURACY, abs_tol=_ACCURACY).real
    return inner + arb(0, 4 * (arb(-2 * _REACH)).exp().upper())


def mean_log_cosh(mean: arb, deviation: arb) -> arb:
    """E log cosh Y = E|Y| - log 2 + E log(1 + e^{-2|Y|})."""
    z = mean / deviation
    folded = deviation * (2 / arb.pi()).sqrt() * (-z * z / 2).exp() + mean * (z / arb(2).sqrt()).erf()
    return folded - arb(2).log() + _integral(lambda e: (1 + e).log(), mean, deviation, 1)


def mean_tanh(mean: arb, deviation: arb) -> arb:
    """E tanh Y; tanh y = sign(y) (1 - 2 e^{-2|y|} / (1 + e^{-2|y|}))."""
    sign = (mean / deviation / arb(2).sqrt()).erf()
    return sign - _integral(lambda e: 2 * e / (1 + e), mean, deviation, -1)


def mean_sech2(mean: arb, deviation: arb) -> arb:
    """E sech² Y."""
    return _integral(lambda e: 4 * e / (1 + e) ** 2, mean, deviation, 1)


@dataclass(frozen=True)
class Pair:
    """The teacher w N(-m, 1) + (1 - w) N(m, 1), exact rationals."""

    half_distance: str
    left: str = "1/2"

    @property
    def m(self) -> arb:
        """Half-distance m."""
        return number(self.half_distance)

    @property
    def tilt(self) -> arb:
        """b = ½ log(w₂/w₁)."""
        w = Fraction(self.left)
        return (number((1 - w) / w)).log() / 2

    def reverse_kl(self, mu: arb, sigma: arb) -> arb:
        """KL(N(μ, σ²) ‖ teacher)."""
        w = Fraction(self.left)
        m = self.m
        weights = (4 * number(w * (1 - w))).log() / 2
        square = (mu * mu + sigma * sigma + m * m - 1) / 2
        return square - sigma.log() - weights - mean_log_cosh(m * mu + self.tilt, m * sigma)

    def gradient(self, mu: arb, sigma: arb) -> tuple[arb, arb]:
        """(∂/∂μ, ∂/∂σ) of `reverse_kl`; the second by Stein's identity."""
        m, mean = self.m, self.m * mu + self.tilt
        first = mu - m * mean_tanh(mean, m * sigma)
        return first, sigma - 1 / sigma - m * m * sigma * mean_sech2(mean, m * sigma)

    def void(self, width: str) -> arb:
        """Teacher's mass of |x| < width."""
        w, c, m = number(self.left), number(width), self.m
        at = [normal_cdf(c + m) - normal_cdf(m - c), normal_cdf(c - m) - normal_cdf(-c - m)]
        return w * at[0] + (1 - w) * at[1]


def void_of(mu: arb, sigma: arb, width: str) -> arb:
    """Mass that N(μ, σ²) puts on |x| < width."""
    c = number(width)
    return normal_cdf((c - mu) / sigma) - normal_cdf((-c - mu) / sigma)


@dataclass(frozen=True)
class Cell:
    """|μ - mu| <= h, |σ - sigma| <= k."""

    mu: Fraction
    sigma: Fraction
    h: Fraction
    k: Fraction

    def quarters(self) -> list[Cell]:
        """Cut across the longer side."""
        if self.h >= self.k:
            return [Cell(self.mu + s * self.h / 2, self.sigma, self.h / 2, self.k) for s in (-1, 1)]
        return [Cell(self.mu, self.sigma + s * self.k / 2, self.h, self.k / 2) for s in (-1, 1)]


def lower_bound(pair: Pair, cell: Cell) -> arb:
    """A number below `reverse_kl` on the cell.

    The part without E log cosh is convex, so its tangent is below it. E log cosh Y has second differential
    m² E[sech²Y (dμ + Z dσ)²] <= m² (√a |dμ| + √c |dσ|)² with a = sup E sech²Y and c = sup E Z² sech²Y; both are at most
    1, and since ∫ sech²(mx) dx = 2/m, also at most (2/m) sup φ/σ and (2/m) sup z²φ/σ.
    """
    mu, sigma, h, k, m = *map(number, (cell.mu, cell.sigma, cell.h, cell.k)), pair.m
    d_mu, d_sigma = pair.gradient(mu, sigma)
    peak = 2 / (m * (sigma - k) * (2 * arb.pi()).sqrt())
    a, c = arb.min(arb(1), peak), arb.min(arb(1), peak * 2 * arb(-1).exp())
    bend = m * (a.sqrt() * h + c.sqrt() * k)
    return pair.reverse_kl(mu, sigma) - abs(d_mu) * h - abs(d_sigma) * k - bend * bend / 2


def everywhere_above(
    pair: Pair,
    level: arb,
    whole: Cell,
    skip: Callable[[Cell], bool] = lambda cell: False,
    bound: Callable[[Pair, Cell], arb] = lower_bound,
    cells: int = 6000,
) -> tuple[bool | None, int]:
    """Whether `bound` > level on a cell, outside the parts that `skip` says are settled otherwise.

    Returns
    -------
    decided, cells looked at
        True: proved. False: a midpoint is below the level. None: `cells` parts did not decide.
    """
    queue, used = [(-1.0, 0, whole)], 0
    while queue:
        _, _, cell = heapq.heappop(queue)
        used += 1
        if skip(cell) or bound(pair, cell) > level:
            continue
        if pair.reverse_kl(number(cell.mu), number(cell.sigma)) < level:
            return False, used
        if used >= cells:
            return None, used
        for half, part in enumerate(cell.quarters()):
            heapq.heappush(queue, (-float(part.h + part.k), 2 * used + half, part))
    return True, used


def rectangle(mu: tuple[str, str], sigma: tuple[str, str]) -> Cell:
    """The cell mu[0] <= μ <= mu[1], sigma[0] <= σ <= sigma[1]."""
    (left, right), (low, high) = map(Fraction, mu), map(Fraction, sigma)
    return Cell((left + right) / 2, (low + high) / 2, (right - left) / 2, (high - low) / 2)


def inside(cell: Cell, other: Cell) -> bool:
    """Whether `cell` lies in `other`."""
    across = abs(cell.mu - other.mu) + cell.h <= other.h
    return across and abs(cell.sigma - other.sigma) + cell.k <= other.k


def at_precision(compute: Callable[[], Any]) -> Any:
    """Run at the working precision of this module."""
    with ctx.workprec(BITS):
        return compute()
