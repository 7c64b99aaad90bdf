"""Chapter 01: the parallel lines of the Wasserstein GAN paper; where the argument holds and where it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp
from scipy.integrate import quad
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import jensenshannon
from scipy.special import expit, log_softmax, rel_entr
from scipy.stats import norm

from kdtheory.divergences import FACTORIES
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, definition, exact, numeric, symbolic

_EXAMPLE = "zhao2024week8, Example 1; arjovsky2017wgan, Example 1"
_FIGURE = "zhao2024week8, Figure 1; arjovsky2017wgan, Figure 1"
_DOMAIN = "P_θ: the law of (θ, Z), Z uniform on [0, 1]"
_ROUNDING = "float64 sums of at most 40 terms below 1"
_LINES = Anchor("01_parallel_lines#lines", sha256="0000000000000000")
_SMOOTHED = Anchor("01_parallel_lines#smoothed", sha256="0000000000000000")
_SOFTMAX = Anchor("01_parallel_lines#softmax-students", sha256="0000000000000000")

_theta, _x = sp.Symbol("theta", real=True), sp.Symbol("x", real=True)
_s, _t = sp.Symbol("s", positive=True), sp.Symbol("t", positive=True)
_TV = sp.Piecewise((0, sp.Eq(_theta, 0)), (1, True))
_JS = sp.log(2) * _TV

definition(
    "parallel_lines.manifold-hypothesis",
    statement=r"\text{all this rests on the manifold hypothesis: the law of language is a manifold in a"
    r" high-dimensional space}",
    source="zhao2024week8, second summary slide",
    rows=("S0-14",),
)


def _matched(rng: np.random.Generator, shift: float) -> tuple[float, dict[str, Any]]:
    """Optimal matching of n points on each line: at equal heights the cost is |θ|, at random ones no less."""
    theta, heights = rng.normal(), rng.random((2, 20))
    costs = []
    for target in heights:
        cost = np.hypot(theta, heights[0][:, None] - target)
        costs.append(cost[linear_sum_assignment(cost)].mean())
    wanted = abs(theta) + shift
    return float(max(abs(costs[0] - wanted), wanted - costs[1])), {"theta": theta}


def _attempt_matching(shift: float) -> Evidence:
    return numeric.attempt(
        lambda rng: _matched(rng, shift),
        draws=100,
        oracle="scipy.optimize.linear_sum_assignment on 20 points of each line",
        tolerance=1e-13,
        because=_ROUNDING,
        says="the optimal matching costs |θ| at equal heights and no less at others",
    )


@claim(
    "parallel_lines.earth-mover",
    statement=r"W(\mathbb P_0, \mathbb P_\theta) = |\theta|",
    source=_EXAMPLE,
    expected=Verdict.PROVED,
    rows=("S0-07",),
    domain=_DOMAIN,
    proof=_LINES,
)
def earth_mover() -> Evidence:
    """Every coupling moves the mean by θ; the horizontal one moves every point by exactly |θ|."""
    return _attempt_matching(0.0)


@earth_mover.control
def _() -> Evidence:
    """A distance of |θ| + 1/10 must not pass."""
    return _attempt_matching(0.1)


def _partitioned(rng: np.random.Generator, separated: bool) -> tuple[float, Any, Any]:
    """θ, and the masses of P_0 and P_θ on the cells of a random grid of the plane, with a cut between the lines or not."""
    theta = float(rng.choice([-1, 1]) * 10 ** rng.uniform(-12, 1))
    cuts = np.append(rng.uniform(-20, 20, size=4), theta / 2 if separated else [])
    cuts = np.sort(cuts[separated | (cuts < -10) | (cuts > 10)])
    heights = np.diff(np.concatenate([[0.0], np.sort(rng.random(3)), [1.0]]))
    masses = [np.outer(np.arange(cuts.size + 1) == np.searchsorted(cuts, at), heights) for at in (0.0, theta)]
    return theta, masses[0].ravel(), masses[1].ravel()


def _values(p: Any, q: Any) -> dict[str, float]:
    """The four numbers by scipy. KL in both directions must be infinite, so the smaller one counts."""
    js = float(jensenshannon(p, q)) ** 2
    return {
        "js": js,
        "js without ½": 2 * js,
        "kl": float(min(rel_entr(p, q).sum(), rel_entr(q, p).sum())),
        "tv": float(np.abs(p - q).sum()) / 2,
    }


def _attempt_partition(name: str, wanted: float, separated: bool = True) -> Evidence:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        theta, p, q = _partitioned(rng, separated)
        found = _values(p, q)[name]
        return (0.0 if found == wanted else abs(found - wanted)), {"theta": theta}

    return numeric.attempt(
        violation,
        draws=200,
        oracle="scipy (jensenshannon, rel_entr) on random grids that separate the lines, |θ| from 1e-12 to 10",
        tolerance=1e-13,
        because=_ROUNDING,
        says=f"{name} = {wanted:.4g}",
    )


def _of_disjoint(name: str) -> float:
    """The library's value at the coarsest separating partition, (1, 0) against (0, 1)."""
    return float(FACTORIES[name]().value(np.array([1.0, 0.0]), np.array([0.0, 1.0])))


def _library(name: str, wanted: float) -> Evidence:
    return numeric.compare(
        _of_disjoint(name),
        wanted,
        oracle="closed form",
        tolerance=1e-15,
        because="one rounding",
        says=f"library's {name}",
    )


@claim(
    "parallel_lines.jensen-shannon",
    statement=r"JS(\mathbb P_0, \mathbb P_\theta) = \log 2 \text{ if } \theta \ne 0, \text{ and } 0 \text{ if } \theta = 0",
    source=_EXAMPLE,
    expected=Verdict.PROVED_IF,
    rows=("S0-08",),
    domain=_DOMAIN,
    condition=r"JS = ½ KL(\cdot, m) + ½ KL(\cdot, m); the WGAN paper defines it without the two ½",
    proof=_LINES,
)
def jensen_shannon() -> list[Evidence]:
    """Two half-weighted terms of log 2 each; the sum without weights is 2 log 2."""
    term = sp.log(1 / sp.Rational(1, 2))
    return [
        exact.check((term + term) / 2, "==", sp.log(2), role="inside condition", says="with ½: JS = log 2"),
        exact.check(term + term, "==", sp.log(2), role="outside condition", says="without ½: JS = log 2"),
        _library("jsd", float(np.log(2))),
        _attempt_partition("js", float(np.log(2))),
    ]


@jensen_shannon.control
def _() -> Evidence:
    """The WGAN paper's own definition must not give log 2."""
    return _attempt_partition("js without ½", float(np.log(2)))


@claim(
    "parallel_lines.kl",
    statement=r"KL(\mathbb P_\theta \| \mathbb P_0) = KL(\mathbb P_0 \| \mathbb P_\theta) = +\infty \text{ if } \theta \ne 0,"
    r" \text{ and } 0 \text{ if } \theta = 0",
    source=_EXAMPLE,
    expected=Verdict.PROVED,
    rows=("S0-09",),
    domain=_DOMAIN,
    proof=_LINES,
)
def kl() -> list[Evidence]:
    """Each law puts mass 1 where the other puts 0."""
    return [_library("fkl", np.inf), _library("rkl", np.inf), _attempt_partition("kl", np.inf)]


@kl.control
def _() -> Evidence:
    """A grid whose cells hold both lines must not show an infinite divergence."""
    return _attempt_partition("kl", np.inf, separated=False)


@claim(
    "parallel_lines.total-variation",
    statement=r"\delta(\mathbb P_0, \mathbb P_\theta) = 1 \text{ if } \theta \ne 0, \text{ and } 0 \text{ if } \theta = 0",
    source=_EXAMPLE,
    expected=Verdict.PROVED,
    rows=("S0-10",),
    domain=_DOMAIN,
    proof=_LINES,
)
def total_variation() -> list[Evidence]:
    """The event that the first coordinate is 0 separates the two laws."""
    return [_library("tvd", 1.0), _attempt_partition("tv", 1.0)]


@total_variation.control
def _() -> Evidence:
    """A grid whose cells hold both lines must not show 1."""
    return _attempt_partition("tv", 1.0, separated=False)


def _along(value: sp.Expr, sequence: sp.Expr) -> sp.Expr:
    return sp.limit(value.subs(_theta, sequence), _t, sp.oo)


@claim(
    "parallel_lines.convergence",
    statement=r"\text{if } \theta_t \to 0, \text{ then } \mathbb P_{\theta_t} \to \mathbb P_0 \text{ in the EM distance, but"
    r" not at all in JS, KL, reverse KL or TV}",
    source=_EXAMPLE,
    expected=Verdict.PROVED_IF,
    rows=("S0-11",),
    domain=_DOMAIN,
    condition=r"\theta_t \ne 0 for infinitely many t",
    uses=tuple(f"parallel_lines.{name}" for name in ("earth-mover", "jensen-shannon", "kl", "total-variation")),
    proof=_LINES,
)
def convergence() -> list[Evidence]:
    """EM tends to 0 with |θ_t|; the others stay where they are for every θ_t ≠ 0."""
    return [
        exact.check(_along(sp.Abs(_theta), 1 / _t), "==", 0, role="inside condition", says="θ_t = 1/t: lim EM"),
        exact.check(_along(_TV, 1 / _t), ">", 0, role="inside condition", says="θ_t = 1/t: lim TV"),
        exact.check(_along(_TV, sp.Integer(0)), ">", 0, role="outside condition", says="θ_t = 0: lim TV > 0"),
        _attempt_partition("tv", 1.0),
    ]


@convergence.control
def _() -> Evidence:
    """A limit of 0 for TV along θ_t = 1/t must not pass."""
    return exact.check(_along(_TV, 1 / _t), "==", 0, says="lim TV")


def _gaussian_kl() -> sp.Expr:
    """KL(N(0, s²), N(θ, s²)) by integrating the densities."""
    density = sp.exp(-(_x**2) / (2 * _s**2)) / sp.sqrt(2 * sp.pi * _s**2)
    return sp.simplify(sp.integrate(density * ((_x - _theta) ** 2 - _x**2) / (2 * _s**2), (_x, -sp.oo, sp.oo)))


def _slope_away_from_zero(value: sp.Expr) -> sp.Expr:
    """Derivative in θ at θ = 1/10."""
    return sp.diff(value.subs(_theta, sp.Rational(1, 10) + _t), _t)


@claim(
    "parallel_lines.no-usable-gradient",
    statement=r"\text{RKL, FKL and JS provide no usable gradient for learning parallel lines}",
    source="zhao2024week8, second summary slide; arjovsky2017wgan, Section 2",
    expected=Verdict.PROVED_IF,
    rows=("S0-12",),
    domain="a family of laws that moves with θ",
    condition=r"the two laws are mutually singular for \theta \ne 0, as the lines are; blurred by N(0, s² I) they are not",
    uses=("parallel_lines.jensen-shannon", "parallel_lines.kl", "parallel_lines.smoothed"),
    proof=_LINES,
)
def no_usable_gradient() -> list[Evidence]:
    """Constant or infinite for the lines; θ/s² for blurred lines, however small s is."""
    slope = sp.diff(_gaussian_kl(), _theta)
    at = {"theta": "1/10", "s": "1/10"}
    return [
        exact.check(_slope_away_from_zero(_JS), "==", 0, role="inside condition", says="d JS/dθ at θ = 1/10"),
        exact.check(slope, "==", 0, at=at, role="outside condition", says="blurred lines: d KL/dθ = 0"),
        _attempt_partition("js", float(np.log(2))),
        _attempt_partition("kl", np.inf),
    ]


@no_usable_gradient.control
def _() -> Evidence:
    """A gradient of the blurred KL that is independent of s must not pass."""
    return symbolic.identity(sp.diff(_gaussian_kl(), _theta), _theta, says="d KL/dθ = θ")


def _blurred(kind: str, theta: float, s: float) -> float:
    """KL, TV or JS of N(0, s²) and N(θ, s²) by quadrature."""
    first, second = norm(0, s).pdf, norm(theta, s).pdf
    parts = {
        "kl": lambda x: rel_entr(first(x), second(x)),
        "tv": lambda x: abs(first(x) - second(x)) / 2,
        "js": lambda x: (
            (rel_entr(first(x), (first(x) + second(x)) / 2) + rel_entr(second(x), (first(x) + second(x)) / 2)) / 2
        ),
    }
    ends = (-9 * s, theta + 9 * s)  # beyond 9 s the densities are below 1e-17; the break is where they cross
    return float(quad(parts[kind], *ends, points=[theta / 2], epsabs=1e-13, epsrel=1e-13, limit=200)[0])


def _blurred_fails_by(js_factor: float) -> Any:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        theta, s, h = rng.uniform(0.05, 3), rng.uniform(0.3, 2), 1e-3
        up, down = ({kind: _blurred(kind, theta + side * h, s) for kind in ("kl", "tv", "js")} for side in (1, -1))
        slope = {kind: (up[kind] - down[kind]) / (2 * h) for kind in up}
        bound = js_factor * theta / s**2 * np.exp(-(theta**2) / (8 * s**2))
        errors = [
            abs(slope["kl"] - theta / s**2),
            abs(slope["tv"] - np.exp(-(theta**2) / (8 * s**2)) / (s * np.sqrt(2 * np.pi))),
            slope["js"] - bound,
            -slope["js"],
        ]
        return float(max(errors)), {"theta": theta, "s": s}

    return violation


def _attempt_blurred(js_factor: float) -> Evidence:
    return numeric.attempt(
        _blurred_fails_by(js_factor),
        draws=20,
        oracle="central difference of scipy.integrate.quad",
        tolerance=1e-5,
        because="h = 1e-3 leaves h²/6 times a third derivative, below 40 for s ≥ 0.3",
        says="slopes of KL, TV and JS between blurred lines",
    )


@claim(
    "parallel_lines.smoothed",
    statement=r"KL = \frac{\theta^2}{2 s^2},\ \frac{d\,KL}{d\theta} = \frac{\theta}{s^2};\quad \frac{d\,TV}{d\theta} ="
    r" \frac{e^{-\theta^2/8s^2}}{s\sqrt{2\pi}};\quad 0 < \frac{d\,JS}{d\theta} \le \frac{\theta}{4 s^2}"
    r" e^{-\theta^2/8s^2};\quad W = |\theta|",
    source="kdtheory, Theorem 2",
    expected=Verdict.PROVED,
    domain="both lines blurred by N(0, s² I), θ > 0",
    proof=_SMOOTHED,
)
def smoothed() -> list[Evidence]:
    """Blurring cures KL and leaves JS and TV with a gradient that dies like exp(-θ²/8s²)."""
    return [
        symbolic.identity(_gaussian_kl(), _theta**2 / (2 * _s**2), says="KL by integrating the densities"),
        _attempt_blurred(0.25),
    ]


@smoothed.control
def _() -> Evidence:
    """Half the bound on the slope of JS must not pass."""
    return _attempt_blurred(0.125)


def _entries() -> dict[str, sp.Expr]:
    """dD/dz of a coin q = x/(1 + x), x = exp(z), against a fair one, from the definitions."""
    x = sp.Symbol("x", positive=True)
    pairs = [(sp.Rational(1, 2), x / (1 + x)), (sp.Rational(1, 2), 1 / (1 + x))]
    values = {
        "FKL": sum(a * sp.log(a / b) for a, b in pairs),
        "RKL": sum(b * sp.log(b / a) for a, b in pairs),
        "JSD": sum(a * sp.log(2 * a / (a + b)) + b * sp.log(2 * b / (a + b)) for a, b in pairs) / 2,
    }
    return {name: x * sp.diff(value, x) for name, value in values.items()}


def _wrong_direction(names: tuple[str, ...], sign: int) -> Any:
    """By how much dD/dz fails to have the sign of q - p, for a random coin."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p_, z = rng.uniform(0.01, 0.99), rng.uniform(-8, 8)
        given = {"teacher_logits": np.log([p_, 1 - p_]), "student_logits": np.array([z, 0.0])}
        slopes = [float(FACTORIES[name]().logit_gradient(**given)[0]) for name in names]
        return max(-sign * slope * np.sign(expit(z) - p_) for slope in slopes), {"p": p_, "z": z}

    return violation


def _attempt_direction(sign: int) -> Evidence:
    return numeric.attempt(
        _wrong_direction(("fkl", "rkl", "jsd"), sign),
        draws=500,
        oracle="the sign of q - p",
        tolerance=0.0,
        because="a sign",
        says="FKL, RKL and JSD push the student's logit towards the teacher's",
    )


@claim(
    "parallel_lines.low-dimensional",
    statement=r"\text{so with RKLD, FKLD or JSD one cannot learn distributions on low-dimensional manifolds}",
    source="zhao2024week8, second summary slide",
    expected=Verdict.CORRECTED,
    rows=("S0-13",),
    domain="teacher and student on the same points or the same line; a coin has a support of dimension 0",
    uses=("parallel_lines.no-usable-gradient",),
    proof=_SOFTMAX,
)
def low_dimensional() -> list[Evidence]:
    """A coin at 4/5 that should be fair: all three have a gradient, and it points to the teacher, from everywhere."""
    found = [
        exact.check(entry, "==", 0, at={"x": 4}, role="refutes as written", says=f"coin at 4/5: d {name}/dz = 0")
        for name, entry in _entries().items()
    ]
    return [*found, _attempt_direction(1)]


@low_dimensional.control
def _() -> Evidence:
    """Gradients that push away from the teacher must not pass."""
    return _attempt_direction(-1)


def _full_support_fails_by(slack: float) -> Any:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(2, 20))
        z, p = rng.uniform(0, 50) * rng.normal(size=size), rng.dirichlet(np.full(size, 0.1))
        p = np.eye(size)[z.argmin()] if rng.random() < 0.5 else p
        divergence = -float(np.where(p > 0, p * log_softmax(z), 0).sum()) + float(rel_entr(p, 1).sum())
        return divergence - slack * (np.log(size) + np.ptp(z)), {"p": p.tolist(), "z": z.tolist()}

    return violation


def _attempt_full_support(slack: float) -> Evidence:
    return numeric.attempt(
        _full_support_fails_by(slack),
        draws=500,
        oracle="scipy.special.log_softmax and rel_entr",
        tolerance=1e-12,
        because="float64 sums of at most 20 terms of size 100",
        says="KL(p, softmax(z)) ≤ log V + range(z)",
    )


@claim(
    "parallel_lines.softmax-has-full-support",
    statement=r"D_{KL}(p, \mathrm{softmax}(z)) \le \log V + \max_i z_i - \min_i z_i < \infty",
    source="kdtheory, Theorem 3",
    expected=Verdict.PROVED,
    domain="finite logits, every p",
    proof=_SOFTMAX,
)
def softmax_has_full_support() -> Evidence:
    """No overlap never happens to a softmax with finite logits."""
    return _attempt_full_support(1.0)


@softmax_has_full_support.control
def _() -> Evidence:
    """Nine tenths of the bound must not pass."""
    return _attempt_full_support(0.9)


@claim(
    "parallel_lines.em-gradient",
    statement=r"\text{the EM plot is continuous and provides a usable gradient everywhere}",
    source=_FIGURE,
    expected=Verdict.PROVED_IF,
    rows=("S0-15",),
    domain=_DOMAIN,
    condition=r"\theta \ne 0 \text{ (continuity holds everywhere)}",
    uses=("parallel_lines.earth-mover",),
    proof=_LINES,
)
def em_gradient() -> list[Evidence]:
    """|θ| has slope ±1, and a kink at the one place where the lines meet."""
    right, left = (sp.limit(sp.Abs(_theta) / _theta, _theta, 0, side) for side in ("+", "-"))
    return [
        exact.check(
            _slope_away_from_zero(sp.Abs(_theta)).subs(_t, 0), "==", 1, role="inside condition", says="at 1/10"
        ),
        exact.check(right, "==", left, role="outside condition", says="θ = 0: the slopes from right and left agree"),
        _attempt_matching(0.0),
    ]


@em_gradient.control
def _() -> Evidence:
    """A slope that shrinks with θ, as that of θ²/2 does, must not pass."""
    return exact.check(_slope_away_from_zero(_theta**2 / 2).subs(_t, 0), "==", 1, says="slope at 1/10")


@claim(
    "parallel_lines.js-gradient",
    statement=r"\text{the JS plot is not continuous and does not provide a usable gradient}",
    source=_FIGURE,
    expected=Verdict.PROVED,
    rows=("S0-16",),
    domain=_DOMAIN,
    uses=("parallel_lines.jensen-shannon",),
    proof=_LINES,
)
def js_gradient() -> list[Evidence]:
    """Constant off θ = 0, with a jump there."""
    return [
        exact.check(sp.limit(_JS, _theta, 0, "+") - _JS.subs(_theta, 0), "==", sp.log(2), says="the jump at θ = 0"),
        exact.check(_slope_away_from_zero(_JS), "==", 0, says="the slope at θ = 1/10"),
        _attempt_partition("js", float(np.log(2))),
    ]


@js_gradient.control
def _() -> Evidence:
    """Continuity of JS at θ = 0 must not pass."""
    return exact.check(sp.limit(_JS, _theta, 0, "+"), "==", _JS.subs(_theta, 0), says="JS at 0+ and at 0")


@claim(
    "parallel_lines.caption",
    statement=r"\text{Distance plot between Wasserstein and KL (caption of the two panels)}",
    source="zhao2024week8, Figure 2 (caption)",
    expected=Verdict.CORRECTED,
    rows=("S0-17",),
    domain="the panel on the right, whose own caption says JS divergence",
    scope="instance",
    uses=("parallel_lines.jensen-shannon", "parallel_lines.kl"),
)
def caption() -> list[Evidence]:
    """KL is infinite off θ = 0 and has no plot; the plateau is JS's log 2."""
    return [
        exact.check(sp.log(2), "==", sp.oo, role="refutes as written", says="the plateau at θ = 1/2 is KL's value"),
        exact.check(_JS, "==", sp.log(2), at={"theta": "1/2"}, says="the plateau at θ = 1/2 is JS's value"),
    ]


@caption.control
def _() -> Evidence:
    """A plateau of TV, which is 1, must not pass for the one that is drawn."""
    return exact.check(_TV, "==", sp.log(2), at={"theta": "1/2"}, says="the plateau is TV's value")
