"""One Gaussian fitted to a mixture of two, by each loss: two numerical methods that share no formula.

Method "grid": trapezoidal sums on a uniform grid, W1 by distribution functions, W2 by its closed form. Method "panels":
Gauss-Legendre panels, W1 and W2 along the monotone coupling. They agree to three digits; neither is a proof.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import ndtr, ndtri, rel_entr

LOSSES = ("fkl", "rkl", "jsd", "skl", "srkl", "tvd", "w1", "w2")
SKEW = 0.1
VOID = 1.5
_DEPTH = 1e-300


@dataclass(frozen=True)
class Mixture:
    """w N(-m, 1) + (1 - w) N(m, 1)."""

    m: float = 4.0
    w: float = 0.6

    def density(self, x: Any) -> Any:
        """Density at x."""
        return self.w * normal(x, -self.m, 1.0) + (1 - self.w) * normal(x, self.m, 1.0)

    def cdf(self, x: Any) -> Any:
        """Distribution function."""
        return self.w * ndtr(x + self.m) + (1 - self.w) * ndtr(x - self.m)

    def scores(self, x: Any) -> Any:
        """Φ⁻¹(F(x)), where the monotone coupling to N(0, 1) sends x."""
        above = self.w * ndtr(-x - self.m) + (1 - self.w) * ndtr(self.m - x)
        below = self.cdf(x)
        return np.clip(np.where(below < above, ndtri(below), -ndtri(above)), -38, 38)

    def void(self) -> float:
        """Mass of |x| < 1.5."""
        return float(self.cdf(VOID) - self.cdf(-VOID))


def normal(x: Any, mu: float, sigma: float) -> Any:
    """Density of N(mu, sigma²)."""
    return np.exp(-(((x - mu) / sigma) ** 2) / 2) / (sigma * np.sqrt(2 * np.pi))


def void(mu: float, sigma: float) -> float:
    """Mass of |x| < 1.5 under N(mu, sigma²)."""
    return float(ndtr((VOID - mu) / sigma) - ndtr((-VOID - mu) / sigma))


def integrand(loss: str, p: Any, q: Any) -> Any:
    """Pointwise divergence density (not for the transport losses)."""
    p, q = np.maximum(p, _DEPTH), np.maximum(q, _DEPTH)
    half = (p + q) / 2
    mixed = {"skl": SKEW * p + (1 - SKEW) * q, "srkl": SKEW * q + (1 - SKEW) * p}
    terms: dict[str, Callable[[], Any]] = {
        "fkl": lambda: rel_entr(p, q),
        "rkl": lambda: rel_entr(q, p),
        "jsd": lambda: (rel_entr(p, half) + rel_entr(q, half)) / 2,
        "skl": lambda: rel_entr(p, mixed["skl"]),
        "srkl": lambda: rel_entr(q, mixed["srkl"]),
        "tvd": lambda: np.abs(p - q) / 2,
    }
    return terms[loss]()


def on_grid(loss: str, teacher: Mixture) -> Callable[[float, float], float]:
    """Loss of N(mu, sigma²) as a function of both, by trapezoidal sums."""
    x = np.linspace(-40, 40, 16001)
    step, p, cdf = x[1] - x[0], teacher.density(x), teacher.cdf(x)

    def value(mu: float, sigma: float) -> float:
        if loss == "w1":
            return float(np.abs(cdf - ndtr((x - mu) / sigma)).sum() * step)
        if loss == "w2":
            scale = normal(teacher.scores(x), 0.0, 1.0).sum() * step  # E[X Z] along the monotone coupling
            second, mean = 1 + teacher.m**2, (1 - 2 * teacher.w) * teacher.m
            return float(np.sqrt(second + mu**2 + sigma**2 - 2 * mu * mean - 2 * sigma * scale))
        return float(integrand(loss, p, normal(x, mu, sigma)).sum() * step)

    return value


def on_panels(loss: str, teacher: Mixture) -> Callable[[float, float], float]:
    """The same by Gauss-Legendre panels."""
    ends = np.linspace(-40, 40, 1201)
    nodes, weights = np.polynomial.legendre.leggauss(6)
    half, middle = np.diff(ends) / 2, (ends[1:] + ends[:-1]) / 2
    x, weight = (middle[:, None] + half[:, None] * nodes).ravel(), (half[:, None] * weights).ravel()
    p, z = teacher.density(x), teacher.scores(x)

    def value(mu: float, sigma: float) -> float:
        if loss in ("w1", "w2"):
            power = int(loss[1])
            return float((weight * p * np.abs(x - mu - sigma * z) ** power).sum() ** (1 / power))
        return float((weight * integrand(loss, p, normal(x, mu, sigma))).sum())

    return value


_METHODS = {"grid": on_grid, "panels": on_panels}
STARTS = ((-4.0, 1.0), (4.0, 1.0), (-0.8, 4.0), (-3.0, 2.0))


def fit(loss: str, teacher: Mixture = Mixture(), method: str = "grid", width: float | None = None) -> dict[str, float]:
    """Best of several starts: keys mu, sigma, value, void. `width` fixes σ."""
    value = _METHODS[method](loss, teacher)

    def of(v: Any) -> float:
        return value(float(v[0]), float(np.exp(v[1])) if width is None else width)

    starts = [np.array([mu, np.log(sigma)][: 2 if width is None else 1]) for mu, sigma in STARTS]
    coarse = min((minimize(of, start, method="Nelder-Mead", options={"maxiter": 25}) for start in starts), key=_value)
    best = minimize(of, coarse.x, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-13})
    mu, sigma = float(best.x[0]), float(np.exp(best.x[1])) if width is None else width
    return {"mu": mu, "sigma": sigma, "value": float(best.fun), "void": void(mu, sigma)}


def _value(found: Any) -> float:
    return float(found.fun)
