"""Section 7.7 of chapter 07: WKD's cost between classes, and its two terms."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import sympy as sp
import torch

from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric
from kdtheory.transport.costs import NotAMetricError
from kdtheory.transport.published.wkd import WKD, alignment, class_cost

F = Fraction
_U, _V = np.array([1.0, -1.0, 0.0]) / np.sqrt(2), np.array([1.0, 1.0, -2.0]) / np.sqrt(6)


def fan(angle: float) -> Any:
    """Three classes of three examples with one feature, at the angles 0, θ, 2θ: alignment cos² of the angle between."""
    return np.stack([np.cos(k * angle) * _U + np.sin(k * angle) * _V for k in range(3)])[..., None]


def excess(kappa: Any, x: Any) -> tuple[sp.Expr, sp.Expr]:
    """C_02, and C_01 + C_12, of the fan with sin²θ = x."""
    kappa, x = sp.sympify(kappa), sp.sympify(x)
    return 1 - sp.exp(-4 * kappa * x * (1 - x)), 2 * (1 - sp.exp(-kappa * x))


def _by_traces(features: Any, i: int, j: int) -> float:
    """tr(K_i H K_j H), normalised, from the definition."""
    n = features.shape[1]
    centre = np.eye(n) - 1 / n

    def hsic(a: int, b: int) -> float:
        first, second = (features[k] @ features[k].T for k in (a, b))
        return float(np.trace(first @ centre @ second @ centre))

    return hsic(i, j) / np.sqrt(hsic(i, i) * hsic(j, j))


def worst_triangle(cost: Any) -> float:
    """Largest C_ik − C_ij − C_jk."""
    return float((cost[:, None, :] - cost[:, :, None] - cost[None]).max())


def _cost_fails_by(power: float) -> Evidence:
    """The fan is refused, the alignment is that of the definition, and the power of the cost is a metric."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        kappa = float(rng.uniform(0.1, 8))
        features = rng.normal(size=(5, 4, 2)) if rng.random() < 0.5 else fan(float(rng.uniform(0.01, 0.2)))
        similarity = alignment(features).numpy()
        cost = class_cost(similarity, kappa).matrix().numpy()
        definition = max(
            abs(similarity[i, j] - _by_traces(features, i, j)) for i in range(len(features)) for j in range(i)
        )
        refused = _refused(class_cost(alignment(fan(0.3 / np.sqrt(1 + kappa))), kappa))
        wrong = [definition, worst_triangle(cost**power), float(not refused)]
        return max(wrong), {"kappa": kappa, "features": features.tolist()}

    return numeric.attempt(
        violation,
        draws=40,
        oracle="traces of the definition; all triples",
        tolerance=1e-7,
        because="roots of costs that are zero up to 1e-15",
        says=f"alignment; the fan is refused; C^{power:g} satisfies all triangles",
    )


def _refused(cost: Any) -> bool:
    try:
        cost.check_metric()
    except NotAMetricError:
        return True
    return False


@claim(
    "transport.wkd-cost",
    statement=r"C_{ij} = 1 - e^{-\kappa (1 - \mathrm{CKA}_{ij})} \text{ is not a metric: for every } \kappa > 0"
    r" \text{ some classes have } C_{02} > C_{01} + C_{12};\ \sqrt{C} \text{ is a (pseudo-)metric}",
    source="lv2024wkd; kdtheory, Theorem 44",
    expected=Verdict.PROVED,
    domain="linear kernel; the same for cosines in place of CKA",
    proof=Anchor("07_transport#wkd-cost", sha256="f37c8429f3317d84"),
)
def wkd_cost() -> list[Evidence]:
    """Near zero it is the square of a distance."""
    triangles = [
        exact.check(*_triangle(k, x), says=f"C_02 against C_01 + C_12, κ = {k}, sin²θ = {x}")
        for k, x in ((F(1, 2), F(1, 10)), (F(1), F(1, 10)), (F(10), F(1, 100)))
    ]
    return [_cost_fails_by(0.5), *triangles]


def _triangle(kappa: Fraction, x: Fraction) -> tuple[sp.Expr, Any, sp.Expr]:
    direct, detour = excess(kappa, x)
    return direct, ">", detour


@wkd_cost.control
def _() -> Evidence:
    """That the cost itself, not its root, is a metric must not pass."""
    return _cost_fails_by(1.0)


def aligned(x: tuple[Fraction, ...], y: tuple[Fraction, ...]) -> Fraction:
    """CKA of two classes with one feature: the squared correlation, exact."""
    n = len(x)
    a, b = ([v - sum(z, F(0)) / n for v in z] for z in (x, y))
    dot = [sum((s * t for s, t in zip(*pair, strict=True)), F(0)) for pair in ((a, b), (a, a), (b, b))]
    return dot[0] ** 2 / (dot[1] * dot[2])


_LISTED, _RELISTED = (F(-1), F(0), F(1)), (F(0), F(-1), F(1))


@claim(
    "transport.wkd-order",
    statement=r"\text{CKA between two classes, and with it WKD's cost, changes when the examples of one class are}"
    r" \text{ listed in another order: } 1 \text{ becomes } \tfrac14",
    source="lv2024wkd; kornblith2019similarity; kdtheory, Theorem 44",
    expected=Verdict.PROVED,
    scope="instance",
    domain="three examples, one feature",
)
def wkd_order() -> list[Evidence]:
    """CKA compares examples that belong together; those of two classes do not."""
    listed, relisted = ([float(v) for v in x] for x in (_LISTED, _RELISTED))
    found = alignment(np.array([listed, listed, relisted])[..., None])
    return [
        exact.check(aligned(_LISTED, _LISTED), "==", 1, says="one order"),
        exact.check(aligned(_LISTED, _RELISTED), "==", F(1, 4), says="the same examples in another order"),
        numeric.compare(
            [found[0, 1], found[0, 2]], [1.0, 0.25], oracle="squared correlation", tolerance=1e-14, because="float64"
        ),
    ]


@wkd_order.control
def _() -> Evidence:
    """That the order does not matter must not pass."""
    return exact.check(aligned(_LISTED, _LISTED), "==", aligned(_LISTED, _RELISTED), says="two orders")


def target_term(p: tuple[Fraction, ...], q: tuple[Fraction, ...], labels: tuple[Fraction, ...]) -> sp.Expr:
    """E_{t ~ labels}[−p_t log q_t]."""
    return -sum(sp.sympify(r * a) * sp.log(sp.sympify(b)) for a, b, r in zip(p, q, labels, strict=True))


def escort(p: tuple[Fraction, ...], labels: tuple[Fraction, ...]) -> tuple[Fraction, ...]:
    """The law proportional to labels · p."""
    weights = [a * r for a, r in zip(p, labels, strict=True)]
    return tuple(w / sum(weights) for w in weights)


def _target_fails_by(minimiser: Any) -> Evidence:
    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        p, q, labels = rng.dirichlet(np.ones(4), size=3) + 1e-3
        best = minimiser(p, labels)
        best = best / best.sum()
        q = 0.9 * best + 0.1 * q / q.sum()
        return float((labels * p) @ (np.log(q) - np.log(best))), {"p": p.tolist(), "labels": labels.tolist()}

    return numeric.attempt(
        violation,
        draws=60,
        oracle="another student nearby",
        tolerance=1e-14,
        because="float64 logarithms",
        says="no student below the law proportional to p times the labels' law",
    )


def _falls_fails(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    """The target's logit raised, the others left: the loss must fall by the first term's fall."""
    teacher, student = torch.from_numpy(rng.normal(size=(2, 1, 4)))
    raised = student + torch.tensor([float(rng.uniform(0.5, 3)), 0.0, 0.0, 0.0])
    loss, labels = WKD(cost=class_cost(alignment(rng.normal(size=(4, 5, 2)))), epsilon=0.2), torch.tensor([0])
    first, second = (
        float(loss.loss(teacher_logits=teacher, student_logits=x, labels=labels)) for x in (student, raised)
    )
    fall = float(teacher.softmax(-1)[0, 0] * (raised.log_softmax(-1) - student.log_softmax(-1))[0, 0])
    return max(second - first, abs(first - second - fall) - 2e-9), {"teacher": teacher.tolist()}


_TEACHER = (F(1, 2), F(3, 10), F(1, 5))


@claim(
    "transport.wkd-target",
    statement=r"-p_t \log q_t + \gamma D(p_{\setminus t}, q_{\setminus t}) \text{ falls as } q_t \to 1,"
    r" \text{ whatever } p_t > 0;\ E_{t \sim r}[-w_t \log q_t] \text{ is smallest at } q \propto r w,"
    r" \text{ for } r = w = p \text{ at } q \propto p^2",
    source="lv2024wkd; kdtheory, Theorem 45",
    expected=Verdict.PROVED,
    domain="D any finite function of the laws given that the token is not t; weights w >= 0",
    proof=Anchor("07_transport#wkd-target", sha256="e66b0486c7404b32"),
)
def wkd_target() -> list[Evidence]:
    """The weight p_t in front makes the cross-entropy improper."""
    sharp = escort(_TEACHER, _TEACHER)
    falls = numeric.attempt(
        _falls_fails,
        draws=6,
        oracle="the library's loss at two students with equal shares outside the target",
        tolerance=-1e-9,
        because="strict: the plan is solved to about 1e-9",
        says="nearer to q_t = 1 is smaller",
    )
    return [
        falls,
        _target_fails_by(lambda p, labels: p * labels),
        exact.check(
            target_term(_TEACHER, sharp, _TEACHER),
            "<",
            target_term(_TEACHER, _TEACHER, _TEACHER),
            says="q ∝ p² against p",
        ),
        exact.check(sharp[0], "==", F(25, 38), says="p = (1/2, 3/10, 1/5): first entry of the minimiser"),
    ]


@wkd_target.control
def _() -> Evidence:
    """That the teacher itself is the best must not pass."""
    return _target_fails_by(lambda p, labels: p)
