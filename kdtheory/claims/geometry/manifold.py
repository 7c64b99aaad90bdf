"""Section 4.6 of chapter 04: softmax as a chart, what dimension does not imply, Fisher-Rao."""

from __future__ import annotations

from typing import Any

import mpmath as mp
import numpy as np
import sympy as sp
from scipy.special import softmax

from kdtheory import simplex
from kdtheory.claims.gradients import oracles
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric, symbolic

_SIZES = (2, 3, 12, 300, 20_000)


def _draw_logits(rng: np.random.Generator) -> Any:
    """Logits from flat to saturated, V from 2 to 20,000."""
    return rng.choice([0.1, 2.0, 60.0]) * rng.normal(size=int(rng.choice(_SIZES)))


def _chart_misses(centre: Any) -> Evidence:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        z = _draw_logits(rng)
        found, shift = simplex.centred_logits(softmax(z + rng.normal())), centre(z)
        return float(np.abs(found - (z - shift)).max() / (1 + np.ptp(z))), {"V": z.size, "z": z[:8].tolist()}

    return numeric.attempt(
        violation,
        draws=40,
        oracle="the logits that went in, moved to sum zero; scipy.special.softmax",
        tolerance=1e-14,
        because="a logarithm of size range(z) rounds at 1e-16 of it, and so does the mean of 20,000",
        says="the chart inverts softmax, V up to 20,000",
    )


def _volume(size: int, factors: int) -> Evidence:
    """det ∂(q_1..q_{V-1})/∂(z_1..z_{V-1}) at z_V = 0, by differentiating the softmax, against q_1 ⋯ q_factors."""
    x = list(sp.symbols(f"x1:{size}", positive=True))
    q = [a / (1 + sum(x)) for a in (*x, sp.Integer(1))]
    matrix = sp.Matrix([[a * sp.diff(b, a) for a in x] for b in q[:-1]])
    right = sp.prod(q[:factors])
    return symbolic.identity(
        matrix.det(), right, role="attempted refutation", scope=f"V = {size}", says="volume element is the product of q"
    )


@claim(
    "geometry.softmax-chart",
    statement=r"\mathrm{softmax} : \{z : \textstyle\sum z = 0\} \to \Delta^\circ \text{ is a diffeomorphism with"
    r" inverse }"
    r" \log q - \tfrac1V \textstyle\sum \log q_j;\ J = \mathrm{diag}(q) - qq^\top \text{ has kernel } \mathbb R 1,"
    r" \text{ image } \{\textstyle\sum v = 0\}, \text{ and volume element } q_1 \cdots q_V",
    source="kdtheory, Theorem 14; amari2000methods, Section 2.3",
    expected=Verdict.PROVED,
    domain="V >= 2",
    proof=Anchor("04_geometry#softmax-chart", sha256="8096d2697592d652"),
)
def softmax_chart() -> list[Evidence]:
    """There and back at V from 2 to 20,000; the Jacobian's determinant in symbols."""
    return [_chart_misses(np.mean), _volume(3, 3), _volume(4, 4)]


@softmax_chart.control
def _() -> list[Evidence]:
    """Centring at the largest logit, and a volume element without its last factor, must not pass."""
    return [_chart_misses(np.max), _volume(3, 2)]


def _overlap_fails_by(scale: float) -> Evidence:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.choice(_SIZES))
        z = rng.uniform(0, 10) * rng.normal(size=size)
        moved = z + rng.uniform(0, 4) * rng.normal(size=size)
        if rng.random() < 0.5:  # two values of the difference, balanced: where the bound is attained
            length, head = rng.uniform(0, 20), np.arange(size) < size // 2
            mass = 1 / (1 + np.exp(length / 2))
            z = np.log(np.where(head, mass / head.sum(), (1 - mass) / (~head).sum()))
            moved = z + length * head
        total_variation = np.abs(softmax(z) - softmax(moved)).sum() / 2
        bound = np.tanh(scale * np.ptp(moved - z) / 4)
        return float(total_variation - bound), {"V": size, "z": z[:8].tolist(), "other": moved[:8].tolist()}

    return numeric.attempt(
        violation,
        draws=60,
        oracle="scipy.special.softmax and ½ Σ |q - q'|",
        tolerance=1e-14,
        because="a float64 sum of terms that add up to 1; half of the draws attain the bound",
        says="TV ≤ tanh(range(z - z')/4), V up to 20,000",
    )


def _attained(bound: Any) -> Evidence:
    """q' = (1/9, 2/9, 2/3) and q = (2/9, 4/9, 1/3): logits apart by log 4 on two tokens."""
    q, other = [sp.Rational(a, 9) for a in (2, 4, 3)], [sp.Rational(a, 9) for a in (1, 2, 6)]
    total = sum(abs(a - b) for a, b in zip(q, other, strict=True)) / 2
    return exact.check(total, "==", bound(sp.log(4)), says="three tokens whose logits differ by (log 4, log 4, 0): TV")


def _tanh(x: Any) -> Any:
    return (sp.exp(2 * x) - 1) / (sp.exp(2 * x) + 1)


@claim(
    "geometry.overlap-without-dimension",
    statement=r"TV(\mathrm{softmax}(z), \mathrm{softmax}(z')) \le \tanh\big(\tfrac14 \mathrm{range}(z - z')\big) < 1"
    r" \text{ for every } V, \text{ and for every } V \text{ it is attained}",
    source="kdtheory, Theorem 15",
    expected=Verdict.PROVED,
    domain="V >= 2; range = max - min",
    uses=("geometry.softmax-chart",),
    proof=Anchor("04_geometry#overlap-without-dimension", sha256="dfa26ec21ebc4fb1"),
)
def overlap_without_dimension() -> list[Evidence]:
    """The dimension of the parameter manifold does not occur in what two students can fail to share."""
    return [_attained(lambda x: _tanh(x / 4)), _overlap_fails_by(1.0)]


@overlap_without_dimension.control
def _() -> list[Evidence]:
    """The bound with an eighth of the range must not pass."""
    return [_attained(lambda x: _tanh(x / 8)), _overlap_fails_by(0.5)]


def _pull_back(i: int, j: int, radius: Any) -> Evidence:
    student = oracles.symbolic_softmax(3)
    on_sphere = [radius * sp.sqrt(a) for a in student.q]
    pulled = sum(student.derivative(a, i) * student.derivative(a, j) for a in on_sphere)
    right = student.q[i] * (int(i == j) - student.q[j])
    says = f"radius {radius}: metric in the logits, entry ({i + 1}, {j + 1}), is that of J"
    return symbolic.identity(pulled, right, role="attempted refutation", scope="V = 3", says=says)


def _geodesic_equation(wave: Any) -> Evidence:
    """2 γ″/γ - (γ′/γ)², the Euler-Lagrange expression of ∫ Σ γ′²/γ under Σ γ = 1, must be the same for all tokens."""
    r, dr = sp.symbols("r dr", positive=True)  # r = a cos t + b sin t, so that r' = dr and r'' = -r
    curve, first = wave(r), sp.diff(wave(r), r)
    second = sp.diff(first, r) * dr**2 - first * r
    return symbolic.identity(
        2 * second / curve - (first * dr / curve) ** 2,
        sp.Integer(-4),
        role="attempted refutation",
        says="γ = r² with r″ = -r satisfies Euler-Lagrange",
    )


def _near_boundary(rng: np.random.Generator) -> tuple[Any, Any]:
    size = int(rng.choice([2, 3, 12, 300], p=[0.3, 0.3, 0.3, 0.1]))
    p = simplex.zipf(size, float(rng.uniform(0.5, 4))) if rng.random() < 0.5 else rng.dirichlet(np.full(size, 0.3))
    q = rng.dirichlet(np.ones(size)) if rng.random() < 0.5 else softmax(np.log(p) + 1e-6 * rng.normal(size=size))
    p, q = np.maximum(p, 1e-60), np.maximum(q, 1e-60)
    return p / p.sum(), q / q.sum()


def _maps_miss(turn: float) -> Evidence:
    """Distance, velocity and midpoint from `kdtheory.simplex` against the definitions in 60 digits."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q = _near_boundary(rng)
        with mp.workdps(60):
            a, b = ([mp.mpf(float(x)) for x in row] for row in (p, q))
            a, b = ([x / mp.fsum(row) for x in row] for row in (a, b))
            angle = mp.acos(mp.fsum(mp.sqrt(x * y) for x, y in zip(a, b, strict=True)))
            half = [(mp.sqrt(x) + mp.sqrt(y)) / (2 * mp.cos(angle / 2)) for x, y in zip(a, b, strict=True)]
            towards = [
                turn * angle / mp.sin(angle) * (mp.sqrt(x * y) - x * mp.cos(angle)) for x, y in zip(a, b, strict=True)
            ]
        distance = abs(float(simplex.fisher_rao(p, q) - turn * angle))
        middle = np.abs(simplex.fisher_geodesic(p, q, 0.5) / np.array([float(x * x) for x in half]) - 1).max()
        velocity = np.abs(simplex.fisher_log(p, q) - np.array([float(x) for x in towards])).max()
        arrived = np.abs(simplex.fisher_exp(p, simplex.fisher_log(p, q)) - q).max()
        return float(max(distance, middle, velocity, arrived)), {"p": p[:8].tolist(), "q": q[:8].tolist()}

    return numeric.attempt(
        violation,
        draws=20,
        oracle="2 arccos Σ√(pq), the normalised mean of √p and √q, and γ′(0), in mpmath with 60 digits",
        tolerance=1e-13,
        because="float64: 300 terms, and laws that sum to 1 up to 1e-16, which mpmath divides out",
        says="distance, midpoint, logarithm and exponential",
    )


@claim(
    "geometry.fisher-rao",
    statement=r"q \mapsto 2\sqrt q \text{ is an isometry onto the sphere of radius } 2;\ \text{metric in logits } J;"
    r"\ d = 2 \arccos \textstyle\sum \sqrt{p_i q_i} < \pi;\ H^2 = 1 - \cos \tfrac d2;\ \text{geodesics are great"
    r" circles"
    r" in } \sqrt q;\ \log_p q = \tfrac{d}{\sin (d/2)} (\sqrt{pq} - p \cos \tfrac d2)",
    source="kdtheory, Theorem 16; amari2000methods, Section 2.3",
    expected=Verdict.PROVED,
    domain="p, q in the open simplex",
    uses=("geometry.softmax-chart",),
    proof=Anchor("04_geometry#fisher-rao", sha256="a5315e9ea4503aa3"),
)
def fisher_rao() -> list[Evidence]:
    """The pull-back in symbols, the geodesic equation in symbols, the maps of `simplex` in 60 digits."""
    return [
        _pull_back(0, 0, sp.Integer(2)),
        _pull_back(0, 1, sp.Integer(2)),
        _geodesic_equation(lambda r: r**2),
        _maps_miss(2),
    ]


@fisher_rao.control
def _() -> list[Evidence]:
    """The unit sphere, and great circles without the square, must not pass."""
    return [_pull_back(0, 0, sp.Integer(1)), _geodesic_equation(lambda r: r**4), _maps_miss(1)]


def _first_zero(p: Any, v: Any) -> float:
    """Earliest t > 0 at which an entry of cos(|v|t/2) √p + sin(|v|t/2) v/(√p |v|) vanishes: bisection in each entry."""
    speed = np.sqrt((v * v / p).sum())
    times = []
    for a, b in zip(np.sqrt(p), v / (np.sqrt(p) * speed), strict=True):
        low, high = 0.0, 2 * np.pi / speed  # a full half-turn: every entry changes its sign once
        for _ in range(80):
            middle = (low + high) / 2
            root = a * np.cos(speed * middle / 2) + b * np.sin(speed * middle / 2)
            low, high = (middle, high) if root > 0 else (low, middle)
        times.append(low)
    return float(min(times))


def _exit_misses(factor: float) -> Evidence:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, v = rng.dirichlet(np.full(int(rng.integers(2, 9)), 0.5)), None
        p = np.maximum(p, 1e-9) / np.maximum(p, 1e-9).sum()
        v = simplex.fisher_projection(rng.normal(size=p.size) * p, p)
        speed = np.sqrt((v * v / p).sum())
        found = factor * simplex.exit_time(p, v)
        error = abs(found / _first_zero(p, v) - 1)
        return float(max(error, found * speed - np.pi)), {"p": p.tolist(), "v": v.tolist()}

    return numeric.attempt(
        violation,
        draws=40,
        oracle="bisection for the first zero of each entry of the great circle",
        tolerance=1e-12,
        because="80 halvings leave 1e-24; the entries of the circle round at 1e-16, at a slope of order 1",
        says="time at which a geodesic leaves, below π/|v|",
    )


@claim(
    "geometry.incomplete",
    statement=r"\text{the Fisher-Rao geodesic from } p \text{ with velocity } v \ne 0 \text{ meets the boundary at }"
    r" t^* = \tfrac{2}{|v|} \arctan \tfrac{|v|}{\max_i (-v_i/p_i)} < \tfrac{\pi}{|v|}",
    source="kdtheory, Theorem 16",
    expected=Verdict.PROVED,
    domain="p in the open simplex, v tangent",
    uses=("geometry.fisher-rao",),
    proof=Anchor("04_geometry#fisher-rao", sha256="a5315e9ea4503aa3"),
)
def incomplete() -> list[Evidence]:
    """From the middle of two tokens at speed 1 the boundary is a quarter of the great circle's π away, at π/2."""
    half = simplex.exit_time([0.5, 0.5], [0.5, -0.5])
    middle = numeric.compare(
        half, np.pi / 2, oracle="half the diameter π", tolerance=1e-15, because="one arc tangent", says="V = 2, centre"
    )
    return [middle, _exit_misses(1.0)]


@incomplete.control
def _() -> Evidence:
    """Half the time must not pass."""
    return _exit_misses(0.5)
