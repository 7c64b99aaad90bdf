"""The probability simplex seen through softmax: charts, tangent vectors, distances, families of test points."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]
__all__ = [
    "Pair",
    "families",
    "fisher_rao",
    "log_softmax",
    "logits_of",
    "project_to_tangent",
    "saturated",
    "softmax",
    "softmax_jacobian",
    "zipf",
]


class Pair(NamedTuple):
    """Teacher and student logits of one test point, shape (V,), under a name that says what is special."""

    name: str
    teacher_logits: Array
    student_logits: Array


def softmax(logits: ArrayLike, axis: int = -1) -> Array:
    """Probabilities from logits, -inf allowed. Shapes (..., V) -> (..., V); unlike SciPy's, over tokens by default."""
    return special.softmax(np.asarray(logits, dtype=np.float64), axis=axis)


def log_softmax(logits: ArrayLike, axis: int = -1) -> Array:
    """Logarithm of `softmax`, without underflow."""
    return special.log_softmax(np.asarray(logits, dtype=np.float64), axis=axis)


def logits_of(p: ArrayLike) -> Array:
    """Logits whose softmax is p: log p, -inf at zeros. Shapes (..., V) -> (..., V)."""
    p = np.asarray(p, dtype=np.float64)
    out = np.full(p.shape, -np.inf)
    np.log(p, out=out, where=p > 0)
    return out


def project_to_tangent(vector: ArrayLike) -> Array:
    """Orthogonal projection onto the tangent space Σ v = 0 of the simplex. Shapes (..., V) -> (..., V)."""
    v = np.asarray(vector, dtype=np.float64)
    return v - v.mean(axis=-1, keepdims=True)


def softmax_jacobian(logits: ArrayLike) -> Array:
    """∂q_i/∂z_j = q_i(δ_ij - q_j): symmetric, zero row sums. Shapes (..., V) -> (..., V, V)."""
    q = softmax(logits)
    return q[..., :, None] * (np.eye(q.shape[-1]) - q[..., None, :])


def fisher_rao(p: ArrayLike, q: ArrayLike) -> Array:
    """Fisher-Rao distance 2 arccos Σ √(pq), in radians of the sphere of radius 2 (`amari2000methods`, Section 2.3).

    Shapes (..., V), (..., V) -> (...). Through the chord, because arccos loses half its digits near 1.
    """
    chord = np.linalg.norm(np.sqrt(np.asarray(p, float)) - np.sqrt(np.asarray(q, float)), axis=-1)
    return 4 * np.arcsin(np.clip(chord / 2, 0, 1))


def zipf(size: int, exponent: float = 1.0) -> Array:
    """p_i ∝ i^(-exponent), i = 1..V: the long tail of a vocabulary. Shape (V,)."""
    if size < 1:
        raise ValueError(f"size = {size}: a vocabulary has at least one token")
    weight = np.arange(1, size + 1, dtype=np.float64) ** -exponent
    return weight / weight.sum()


def saturated(teacher: ArrayLike, gap: float, wrong: int = 0) -> Pair:
    """A student sure of the token `wrong`: its logit leads all others, which are equal, by `gap` nats."""
    p = np.asarray(teacher, dtype=np.float64)
    student = np.zeros_like(p)
    student[wrong] = gap
    return Pair(f"saturated, gap {gap:g}", logits_of(p), student)


def families(rng: np.random.Generator, size: int = 6) -> Iterator[Pair]:
    """Test points of every kind that breaks a formula: interior, near, corner, long tail, zeros, disjoint, underflow.

    Parameters
    ----------
    rng : numpy.random.Generator
    size : int
        Number of tokens V, at least 4.
    """
    if size < 4:
        raise ValueError(f"size = {size}: the families need at least 4 tokens")
    z, t = rng.normal(size=(2, size)) * 2
    half = np.arange(size) < size // 2
    one_hot = np.where(np.arange(size) == 1, 0.0, -np.inf)
    yield Pair("interior", t, z)
    yield Pair("teacher equals student", t, t.copy())
    yield Pair("near the teacher", t, t + 1e-5 * rng.normal(size=size))
    yield Pair("uniform student", t, np.zeros(size))
    yield Pair("long tail", logits_of(zipf(size, 3.0)), logits_of(zipf(size, 3.0)[::-1]))
    for gap in (40.0, 200.0, 800.0):
        yield saturated(softmax(t), gap, wrong=int(rng.integers(size)))._replace(name=f"gap {gap:g}")
    yield Pair("one-hot teacher", one_hot, z)
    yield Pair("one-hot student", t, one_hot)
    yield Pair("both one-hot, equal", one_hot, one_hot.copy())
    yield Pair("teacher has zeros", np.where(half, t, -np.inf), z)
    yield Pair("student has zeros", t, np.where(half, z, -np.inf))
    yield Pair("both zero on the same tokens", np.where(half, t, -np.inf), np.where(half, z, -np.inf))
    yield Pair("disjoint supports", np.where(half, t, -np.inf), np.where(half, -np.inf, z))
