"""Entropic transport for section 4.9, by plain Sinkhorn iterations: in float64, and in mpmath as an oracle."""

from __future__ import annotations

from typing import Any, NamedTuple

import mpmath as mp
import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

Array = NDArray[np.float64]


def self_potential(p: Array, cost: Array, epsilon: float, *, steps: int = 10_000) -> Array:
    """The vector a with Σ_j p_j exp((a_i + a_j - C_ij)/ε) = 1 for all i, shape (V,), for a symmetric cost, p > 0.

    Averaged (symmetric) Sinkhorn steps, which converge at the rate (1 - λ)/2 for eigenvalues λ of the self-plan.

    Raises
    ------
    RuntimeError
        If it has not settled to 1e-15 of its size after `steps`.
    """
    a = np.zeros_like(p)
    for _ in range(steps):
        new = 0.5 * (a - epsilon * logsumexp((a - cost) / epsilon + np.log(p), axis=1))
        if np.abs(new - a).max() <= 1e-15 * (1 + np.abs(new).max()):
            return new
        a = new
    raise RuntimeError(f"Sinkhorn did not settle in {steps} steps: raise epsilon = {epsilon:g} or steps")


def kernel(p: Array, cost: Array, epsilon: float) -> Array:
    """The Markov kernel A of the plan from p to itself, shape (V, V): rows sum to 1, p_i A_ij symmetric."""
    a = self_potential(p, cost, epsilon)
    return p * np.exp((a[:, None] + a - cost) / epsilon)


class Spectrum(NamedTuple):
    """Eigenvalues of A on functions of mean zero, descending, and eigenvectors in the basis √p (orthonormal)."""

    values: Array
    vectors: Array


def spectrum(p: Array, cost: Array, epsilon: float) -> Spectrum:
    """Spectrum of A on L: of √p A /√p with the eigenvector √p of the eigenvalue 1 taken out."""
    root = np.sqrt(p)
    symmetric = root[:, None] * kernel(p, cost, epsilon) / root
    values, vectors = np.linalg.eigh((symmetric + symmetric.T) / 2 - 2 * np.outer(root, root))
    return Spectrum(values[:0:-1], vectors[:, :0:-1])  # -1 = 1 - 2 is the least, as all others exceed -1


def logit_hessian(p: Array, cost: Array, epsilon: float, *, weigh: Any = lambda x: x / (1 - x**2)) -> Array:
    """Hessian of S_ε in the logits at q = p: √p v ε λ/(1 - λ²) vᵀ √p over the spectrum, shape (V, V)."""
    values, vectors = spectrum(p, cost, epsilon)
    frame = np.sqrt(p)[:, None] * vectors
    return epsilon * (frame * weigh(values)) @ frame.T


def nonzero_eigenvalues(p: Array, cost: Array, epsilon: float) -> Array:
    """Eigenvalues of `logit_hessian` off the constants, ascending, shape (V - 1,), for positive definite exp(-C/ε).

    As squares of the singular values of its factor, which keep their digits where the eigenvalues are tiny.
    """
    values, vectors = spectrum(p, cost, epsilon)
    factor = np.sqrt(p)[:, None] * vectors * np.sqrt(epsilon * values / (1 - values**2))
    return np.asarray(np.linalg.svd(factor, compute_uv=False)[::-1] ** 2, dtype=np.float64)


def relative(p: Array, q: Array, cost: Array, epsilon: float, *, steps: int = 20_000) -> float:
    """OT_ε(p, q) = min ⟨Γ, C⟩ + ε KL(Γ, p ⊗ q), for p, q > 0, by log-domain Sinkhorn."""
    f, g, log_p, log_q = np.zeros_like(p), np.zeros_like(q), np.log(p), np.log(q)
    for _ in range(steps):
        f = -epsilon * logsumexp((g - cost) / epsilon + log_q, axis=1)
        new = -epsilon * logsumexp((f[:, None] - cost) / epsilon + log_p[:, None], axis=0)
        if np.abs(new - g).max() <= 1e-14 * (1 + np.abs(new).max()):
            return float(p @ f + q @ new)
        g = new
    raise RuntimeError(f"Sinkhorn did not settle in {steps} steps: raise epsilon = {epsilon:g}")


def divergence(p: Array, q: Array, cost: Array, epsilon: float) -> float:
    """S_ε(p, q) for a symmetric cost and p, q > 0."""
    own = sum(float(law @ self_potential(law, cost, epsilon)) for law in (p, q))  # OT_ε(p, p) = 2 Σ p a
    return relative(p, q, cost, epsilon) - own


def exact_divergence(p: list[Any], q: list[Any], cost: Array, epsilon: Any) -> Any:
    """S_ε by mpmath at its working precision, plain alternating Sinkhorn for all three terms, from the definition."""
    size = range(len(p))
    gibbs = [[mp.exp(-mp.mpf(float(cost[i, j])) / epsilon) for j in size] for i in size]

    def value(a: list[Any], b: list[Any]) -> Any:
        v, before = [mp.mpf(1)] * len(b), mp.inf
        while True:
            u = [1 / mp.fsum(gibbs[i][j] * v[j] * b[j] for j in size) for i in size]
            v = [1 / mp.fsum(gibbs[i][j] * u[i] * a[i] for i in size) for j in size]
            now = epsilon * (mp.fdot(a, map(mp.log, u)) + mp.fdot(b, map(mp.log, v)))
            if abs(now - before) <= mp.eps:
                return now
            before = now

    return value(p, q) - (value(p, p) + value(q, q)) / 2
