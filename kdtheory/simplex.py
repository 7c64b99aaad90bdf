"""The multinomial manifold: softmax as a chart, tangent vectors, Fisher-Rao, e- and m-geodesics, test points.

A point is a vector of probabilities, shape (..., V); a tangent vector v at it sums to zero, the velocity of a curve of
points. The Fisher metric is <u, v>_p = Σ u v / p, and p -> 2 √p carries it to the sphere of radius 2 (chapter 04).
Batches broadcast, sizes V must agree; a ValueError names an argument that is no point or no tangent vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from kdtheory import points

Array = NDArray[np.float64]
__all__ = [
    "Pair",
    "centred_logits",
    "e_geodesic",
    "exit_time",
    "families",
    "fisher_exp",
    "fisher_geodesic",
    "fisher_inner",
    "fisher_log",
    "fisher_projection",
    "fisher_rao",
    "log_softmax",
    "logits_of",
    "m_geodesic",
    "natural_gradient",
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
    """Probabilities from logits, -inf allowed. Shapes (..., V) -> (..., V); unlike SciPy's, over tokens by default.

    Nothing is checked: a row with NaN or +inf, or of -inf alone, gives NaN.
    """
    return special.softmax(np.asarray(logits, dtype=np.float64), axis=axis)


def log_softmax(logits: ArrayLike, axis: int = -1) -> Array:
    """Logarithm of `softmax`, without underflow."""
    return special.log_softmax(np.asarray(logits, dtype=np.float64), axis=axis)


def logits_of(p: ArrayLike) -> Array:
    """Logits whose softmax is p >= 0 (scaled or not): log p, -inf at zeros. Shapes (..., V) -> (..., V)."""
    p = points.nonnegative(p, "p")
    out = np.full(p.shape, -np.inf)
    np.log(p, out=out, where=p > 0)
    return out


def centred_logits(p: ArrayLike) -> Array:
    """Inverse of the chart softmax: the logits of p that sum to zero, log p minus its mean. Shapes (..., V) -> same.

    Raises
    ------
    ValueError
        If p has a zero: only the open simplex has logits.
    """
    return project_to_tangent(np.log(points.interior(p)))


def project_to_tangent(vector: ArrayLike) -> Array:
    """Orthogonal projection onto the tangent space Σ v = 0 of the simplex. Shapes (..., V) -> (..., V)."""
    v = np.asarray(vector, dtype=np.float64)
    return v - v.mean(axis=-1, keepdims=True)


def softmax_jacobian(logits: ArrayLike) -> Array:
    """∂q_i/∂z_j = q_i(δ_ij - q_j): symmetric, zero row sums. Shapes (..., V) -> (..., V, V)."""
    q = softmax(logits)
    return q[..., :, None] * (np.eye(q.shape[-1]) - q[..., None, :])


def fisher_rao(p: ArrayLike, q: ArrayLike) -> Array:
    """Fisher-Rao distance 2 arccos Σ √(pq), in [0, π]: length on the sphere of radius 2 (`amari2000methods`, 2.3).

    Shapes (..., V), (..., V) -> (...); zeros allowed. Through the chord: arccos loses half its digits near 1.
    """
    p, q = points.closed(p, "p"), points.closed(q, "q")
    points.same_size(p=p, q=q)
    chord = np.linalg.norm(np.sqrt(p) - np.sqrt(q), axis=-1)
    return 4 * np.arcsin(np.clip(chord / 2, 0, 1))


def fisher_inner(u: ArrayLike, v: ArrayLike, p: ArrayLike) -> Array:
    """Fisher metric Σ u v / p of tangent vectors at p > 0. Shapes (..., V) three times -> (...)."""
    u, v, p = np.asarray(u, float), np.asarray(v, float), points.interior(p)
    points.same_size(u=u, v=v, p=p)
    return (u * (v / p)).sum(-1)  # u v underflows near the boundary


def fisher_projection(vector: ArrayLike, p: ArrayLike) -> Array:
    """Projection onto Σ v = 0 that is orthogonal for Σ u v / p: v - p Σ v. Shapes (..., V), (..., V) -> (..., V)."""
    v, p = np.asarray(vector, dtype=np.float64), points.interior(p)
    points.same_size(vector=v, p=p)
    return v - p * v.sum(axis=-1, keepdims=True)


def fisher_geodesic(p: ArrayLike, q: ArrayLike, t: ArrayLike) -> Array:
    """Point at time t in [0, 1] of the shortest Fisher-Rao curve from p to q: a great circle in √p. Zeros allowed.

    Parameters
    ----------
    p, q : array_like, shape (..., V)
    t : array_like, shape (...)
        Broadcasts against the batch of p and q: shape (T,) with p, q of shape (V,) gives (T, V).
    """
    p, q, t = points.closed(p, "p"), points.closed(q, "q"), points.times(t)
    angle = fisher_rao(p, q)[..., None] / 2
    root = ((1 - t) * _sinc((1 - t) * angle) * np.sqrt(p) + t * _sinc(t * angle) * np.sqrt(q)) / _sinc(angle)
    return root**2


def fisher_exp(p: ArrayLike, v: ArrayLike) -> Array:
    """Where the Fisher-Rao geodesic from p > 0 with velocity v is at time 1. Shapes (..., V), (..., V) -> (..., V).

    Raises
    ------
    ValueError
        If v is not tangent, or if the geodesic has left the open simplex by then (see `exit_time`).
    """
    p, v = points.interior(p), points.tangent(v)
    left = exit_time(p, v)
    if np.any(left <= 1):
        where = tuple(int(i) for i in np.argwhere(left <= 1)[0])
        token = int(np.argmin(np.broadcast_to(v / p, np.broadcast_shapes(p.shape, v.shape))[where]))
        raise ValueError(
            f"v is too long: the geodesic reaches the boundary, token {token}, at time {left[where]:.6g}"
            f"{f' (row {where})' if where else ''}; scale v below exit_time(p, v)"
        )
    angle = np.sqrt(fisher_inner(v, v, p))[..., None] / 2
    return p * (np.cos(angle) + _sinc(angle) * v / p / 2) ** 2


def exit_time(p: ArrayLike, v: ArrayLike) -> Array:
    """Time at which the Fisher-Rao geodesic from p > 0 with velocity v meets the boundary; inf for v = 0.

    Less than π/|v|, whatever v is: the open simplex is not geodesically complete. Shapes (..., V), (..., V) -> (...).
    """
    p, v = points.interior(p), points.tangent(v)
    speed = np.sqrt(fisher_inner(v, v, p))
    steepest = (-v / p).max(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(speed > 0, 2 / speed * np.arctan(speed / steepest), np.inf)


def fisher_log(p: ArrayLike, q: ArrayLike) -> Array:
    """Velocity at p > 0 of the shortest curve to q: `fisher_exp(p, fisher_log(p, q))` is q > 0. q may have zeros.

    Shapes (..., V), (..., V) -> (..., V). Nothing cancels when q is near p, and sums that miss 1 leave v tangent.
    """
    p, q = points.interior(p), points.closed(q, "q")
    angle = fisher_rao(p, q)[..., None] / 2
    towards = (q - p) * (np.sqrt(p) / (np.sqrt(p) + np.sqrt(q)))  # what is missing is a multiple of p
    return fisher_projection(2 * towards / _sinc(angle), p)


def m_geodesic(p: ArrayLike, q: ArrayLike, t: ArrayLike) -> Array:
    """Mixture (1 - t) p + t q at time t in [0, 1]: straight in probabilities. Shapes as in `fisher_geodesic`."""
    p, q, t = points.closed(p, "p"), points.closed(q, "q"), points.times(t)
    points.same_size(p=p, q=q)
    return (1 - t) * p + t * q


def e_geodesic(p: ArrayLike, q: ArrayLike, t: ArrayLike) -> Array:
    """Point ∝ p^(1-t) q^t: straight in logits. p, q > 0; any finite t. Shapes as in `fisher_geodesic`."""
    p, q, s = points.interior(p, "p"), points.interior(q, "q"), np.asarray(t, dtype=np.float64)[..., None]
    points.same_size(p=p, q=q)
    if not np.isfinite(s).all():
        raise ValueError("t must be finite")
    return softmax((1 - s) * np.log(p) + s * np.log(q))


def natural_gradient(q: ArrayLike, *, slope: ArrayLike | None = None, logit_gradient: ArrayLike | None = None) -> Array:
    """Natural gradient in the logits, with mean zero under q: g - Σ q g, from slopes g = ∂D/∂q or from q (g - Σ q g).

    Shapes (..., V), (..., V) -> (..., V). Times q it is the natural gradient as a tangent vector of the simplex.

    Raises
    ------
    ValueError
        If not exactly one of slope and logit_gradient is given, or q has a zero.
    """
    q = points.interior(q, "q")
    if (slope is None) == (logit_gradient is None):
        raise ValueError("natural_gradient needs slope= or logit_gradient=, and not both")
    given = np.asarray(slope if logit_gradient is None else logit_gradient, dtype=np.float64)
    points.same_size(**{"q": q, "slope" if logit_gradient is None else "logit_gradient": given})
    g = given if logit_gradient is None else given / q
    return g - (q * g).sum(axis=-1, keepdims=True)


def _sinc(x: Array) -> Array:
    """Sin x / x, 1 at 0."""
    return np.sinc(x / np.pi)


def zipf(size: int, exponent: float = 1.0) -> Array:
    """p_i ∝ i^(-exponent), i = 1..V: the long tail of a vocabulary. Shape (V,)."""
    if size < 1 or size % 1 or not np.isfinite(exponent):
        raise ValueError(
            f"size = {size}, exponent = {exponent}: a vocabulary has at least one token, its power is finite"
        )
    weight = np.arange(1, size + 1, dtype=np.float64) ** -exponent
    return weight / weight.sum()


def saturated(teacher: ArrayLike, gap: float, wrong: int = 0) -> Pair:
    """A student sure of the token `wrong`: its logit leads all others, which are equal, by `gap` nats.

    The teacher is given as probabilities, shape (V,), the pair as logits.
    """
    p = points.closed(teacher, "teacher")
    if p.ndim != 1 or not 0 <= wrong < p.size or not np.isfinite(gap):
        raise ValueError(f"teacher of shape {p.shape}, gap = {gap}, wrong = {wrong}: (V,), finite, one of 0 to V - 1")
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
