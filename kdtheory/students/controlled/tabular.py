"""`tabular`: a table of logits for one context, from a confident mistake or from uniform logits (H1, H2, H11).

A seed is a random teacher; all losses and all gaps of a seed share it. What is measured is the time of the gradient
flow, dz/dt = -∂D/∂z, until an event: gradient descent at a fixed rate η takes time/η steps, whatever η is, as long as
it is small. Beside it, and deciding nothing: the time at the speed of forward KL's gradient (norm-matched), steps of
gradient descent at one rate for all losses, and steps of Adam.

*Confident mistake.* 20 tokens at equal distances on a line of length 1, as in Section 3.1. The teacher's logits are
Gaussian with standard deviation 2, so that all tokens have some mass. A random token k to which the teacher gives less
than 1/20 leads a student that holds all others equal; the event is TV(p, q) <= 1/2. The size of the mistake is
measured in two ways: as the lead Δ of k over every other token, which is chapter 03's gap, and as the log-odds of k
against all others together, log q_k/(1 - q_k), which is the quantity in Theorem 12 there. With two tokens these are
the same; with 20 the lead is larger by log 19.

*Cold start.* Uniform logits; the teacher gives 1 - η to a random token y, log η uniform between log .001 and log .01,
and spreads η over the rest in proportion to e^N(0, 1); W1 on a line of length 1, y anywhere on it (at the same share of
its length for all V of a seed). The event is q_y >= 1/2.

Nothing was tuned on outcomes. Numerical settings (tolerance, width of the rounded kinks, stride) come from the seeds
100 to 102, and the conditions called ``fine`` repeat some runs with finer ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from kdtheory.students.controlled import batched, flows, tabular_rule
from kdtheory.students.controlled.design import Condition, Experiment, Outcome, Profile
from kdtheory.students.controlled.tabular_fields import DivergenceField, Field, LineField, SinkhornField

LOSSES = ("fkl", "rkl", "jsd", "skl", "srkl", "tvd", "w1", "ot", "sinkhorn")
"""``ot`` is OT_ε in its relative form, ``sinkhorn`` the debiased S_ε."""
ANNEALED = {"annealed": 1.0, "annealed-slow": 10.0}
"""Skew KL whose α is halved every so many units of time. The first is the one that is judged."""
COLD = ("fkl", "rkl", "jsd", "skl", "tvd", "w1")
_POINTS = 4


@dataclass(frozen=True)
class Settings:
    """One condition.

    Attributes
    ----------
    tokens : int
    gap : float
        Size of the mistake in nats; 0 for a cold start.
    odds : bool
        Whether `gap` is the wrong token's log-odds; otherwise its lead over each other token.
    alpha : float
        Of the skewed losses.
    epsilon : float
        Regularisation of ``ot`` and ``sinkhorn``, in lengths of the line.
    spread : float
        Standard deviation of the teacher's logits (confident mistake).
    tolerance, kink : float
        Of `flows.implicit`: nats per step, and the probability over which kinks are rounded.
    stride : float
        Of `flows.explicit`, in nats.
    integration_steps : int
        At most.
    rate, descent_steps : float, int
        Of gradient descent; 0 steps: not run.
    adam_rate, adam_steps : float, int
        The same for Adam.
    """

    tokens: int = 20
    gap: float = 0.0
    odds: bool = False
    alpha: float = 0.1
    epsilon: float = 0.1
    spread: float = 2.0
    tolerance: float = 1e-4
    kink: float = 3e-5
    stride: float = 0.05
    integration_steps: int = 20_000
    rate: float = 1.0
    descent_steps: int = 0
    adam_rate: float = 0.05
    adam_steps: int = 0

    def __post_init__(self) -> None:
        if self.tokens < 2:
            raise ValueError(f"tokens = {self.tokens}: at least two")
        if self.gap < 0:
            raise ValueError(f"gap = {self.gap}: positive, or 0 for a cold start")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha = {self.alpha}: between 0 and 1")


def mistaken(settings: Settings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Teacher (V,) and the student's first logits (V,): one wrong token leads, all others are equal."""
    tokens = settings.tokens
    p = torch.softmax(settings.spread * torch.randn(tokens, generator=generator, dtype=torch.float64), -1)
    unlikely = torch.nonzero(p < 1 / tokens)[:, 0]
    wrong = unlikely[torch.randint(len(unlikely), (1,), generator=generator)]
    lead = settings.gap + (math.log(tokens - 1) if settings.odds else 0.0)
    return p, torch.zeros_like(p).index_fill(0, wrong, lead)


def confident(settings: Settings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Teacher (V,) that is nearly sure of one token, and uniform logits."""
    place, share = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    top, rest = round(place * (settings.tokens - 1)), 10 ** (-3 + share)
    noise = torch.randn(settings.tokens, generator=generator, dtype=torch.float64)
    noise[top] = -math.inf
    p = rest * torch.softmax(noise, -1)
    p[top] = 1 - rest
    return p, torch.zeros_like(p)


def build(loss: str, settings: Settings, *, kink: float) -> Field:
    """The field of a loss; ValueError if it has none here."""
    if loss == "w1":
        return LineField(kink)
    if loss in ("ot", "sinkhorn"):
        return SinkhornField(settings.epsilon, debiased=loss == "sinkhorn")
    if loss in ANNEALED:
        return DivergenceField("skl", settings.alpha, halving=ANNEALED[loss])
    return DivergenceField(loss, settings.alpha, kink)


def total_variation(p: Tensor, z: Tensor) -> Tensor:
    """TV between teacher and student, (S, V), (S, V) -> (S,)."""
    return 0.5 * (torch.softmax(z, -1) - p).abs().sum(-1)


def missing(p: Tensor, z: Tensor) -> Tensor:
    """1 - q_y for the teacher's most likely token y."""
    top = p.argmax(-1, keepdim=True)
    return 1 - (z.gather(-1, top)[:, 0] - torch.logsumexp(z, -1)).exp()


def simulate(settings: Settings, loss: str, seeds: tuple[int, ...], device: torch.device) -> list[Outcome]:
    """Follow the flow of every seed until the event; then descent and Adam where they are asked for."""
    make, progress = (mistaken, total_variation) if settings.gap else (confident, missing)
    p, z = (x.to(device) for x in batched.draws(seeds, lambda generator: make(settings, generator)))
    limits = {"most": settings.integration_steps}
    if settings.gap:
        smooth = build(loss, settings, kink=settings.kink)
        trace = flows.implicit(smooth, p, z, progress, tolerance=settings.tolerance, **limits)
    else:
        trace = flows.explicit(build(loss, settings, kink=0.0), p, z, progress, stride=settings.stride, **limits)
    columns = {
        "flow_time": trace.time,
        "censored": trace.censored,
        "matched_time": trace.matched,
        "lower_bound": lower_bound(loss, settings, p, z),
        **_steps(loss, settings, p, z, progress),
    }
    theory = {"one_hot": one_hot(loss, settings), "integration_steps": float(trace.steps)}
    listed = {name: values.double().tolist() for name, values in columns.items()}
    return [
        Outcome({name: values[row] for name, values in listed.items()} | theory, curve(trace.path[row]))
        for row in range(len(seeds))
    ]


def _steps(loss: str, settings: Settings, p: Tensor, z: Tensor, progress: flows.Progress) -> dict[str, Tensor]:
    """Steps of gradient descent and of Adam on the loss itself (kinks not rounded), NaN where not run."""
    nothing = torch.full_like(p[:, 0], math.nan)
    found: dict[str, Tensor] = {}
    for name, rate, most in (
        ("sgd", settings.rate, 0 if loss in ("ot", "sinkhorn") else settings.descent_steps),
        ("adam", settings.adam_rate, settings.adam_steps),
    ):
        pair = (nothing, nothing)
        if most:
            exact = build(loss, settings, kink=0.0)
            pair = flows.steps_until(exact, p, z, progress, rate=rate, optimizer=name, most=most)  # type: ignore[arg-type]
        found |= {f"{name}_steps": pair[0], f"{name}_censored": pair[1]}
    return found


def curve(path: list[tuple[float, float]]) -> list[dict[str, float]]:
    """Points equally spaced in time: ``step`` from 0 to `_POINTS`, ``time``, ``objective``: what has to fall to 1/2.

    That is the total variation to the teacher after a mistake, and 1 - q_y from a cold start.
    """
    times, values = (np.array(column) for column in zip(*path, strict=True))
    at = times[-1] * np.arange(_POINTS + 1) / _POINTS
    shown = np.interp(at, times, values)
    return [
        {"step": step, "time": float(time), "objective": float(value)}
        for step, (time, value) in enumerate(zip(at, shown, strict=True))
    ]


def oscillation(loss: str, settings: Settings) -> float:
    """Largest difference of two slopes (Theorem 12's L); infinite where slopes are unbounded."""
    known = {"tvd": 1.0, "w1": 1.0, "ot": 1.0, "sinkhorn": 2.0, "skl": (1 - settings.alpha) / settings.alpha}
    return known.get(loss, math.inf)


def lower_bound(loss: str, settings: Settings, p: Tensor, z: Tensor) -> Tensor:
    """What Theorem 12 (mistake) or 15 (cold start) of chapter 03 says the flow needs at least; 0 where neither does.

    At TV = 1/2 the wrong token has q_k <= 1/2 + p_k; Theorem 12's inequality is integrated up to there, or up to 1/2.
    """
    bound = oscillation(loss, settings)
    if not settings.gap:
        return torch.full_like(p[:, 0], (settings.tokens - 2 + math.log(settings.tokens - 1)) / bound)
    wrong = z.argmax(-1, keepdim=True)
    start = torch.logit(torch.softmax(z, -1).gather(-1, wrong)[:, 0])
    end = torch.logit((0.5 + p.gather(-1, wrong)[:, 0]).clamp(max=1 - 1e-12))
    return (start + torch.sinh(start) - end - torch.sinh(end)).clamp_min(0) / bound


def one_hot(loss: str, settings: Settings) -> float:
    """Theorem 16 of chapter 03: time from a cold start if the teacher were one-hot; NaN where it has no form."""
    from scipy.integrate import quad

    V = settings.tokens
    if settings.gap or loss not in ("fkl", "tvd", "skl", "jsd"):
        return math.nan
    forward = (V - 1) / V * (math.log(V - 1) + (V - 2) / (V - 1))
    total = V - 2 + 2 * (1 - 1 / V) * math.log(V - 1)
    if loss == "jsd":

        def integrand(w: float) -> float:  # with e^w = (V - 1) θ
            theta = math.exp(w) / (V - 1)
            return (1 + theta) ** 2 / (theta * math.log1p((1 + theta) / theta))

        return 2 * (V - 1) / V * quad(integrand, 0.0, math.log(V - 1), limit=200)[0]
    return {"fkl": forward, "tvd": total, "skl": forward + settings.alpha / (1 - settings.alpha) * total}[loss]


def mistakes(tokens: int, losses: tuple[str, ...], descents: tuple[int, int]) -> dict[str, Condition]:
    """Confident mistakes of every size; `descents`: most steps of gradient descent (small gaps only) and of Adam."""
    base, found = Settings(tokens=tokens), {}
    annealed = (*losses, *ANNEALED)
    for gap in tabular_rule.GAPS:
        lead = replace(base, gap=float(gap))
        most = descents[0] if gap <= tabular_rule.FINE_GAP else 0
        found[f"lead-{gap}"] = Condition(lead, losses)
        found[f"odds-{gap}"] = Condition(replace(lead, odds=True, descent_steps=most, adam_steps=descents[1]), annealed)
    fine = replace(base, gap=float(tabular_rule.FINE_GAP), odds=True, tolerance=1e-5, kink=1e-5)
    found[f"odds-{tabular_rule.FINE_GAP}-fine"] = Condition(fine, annealed)
    for gap in tabular_rule.SKEW_GAPS:
        for alpha in tabular_rule.SKEWS:
            skewed = replace(base, gap=float(gap), odds=True, alpha=alpha)
            found[f"skew-{alpha:g}-gap-{gap}"] = Condition(skewed, ("skl",))
    return found


def cold_starts(sizes: tuple[int, ...], descents: tuple[int, int]) -> dict[str, Condition]:
    """Cold starts for these vocabularies; gradient descent up to the second of them."""
    found = {}
    for size in sizes:
        most = descents[0] if size <= sizes[1] else 0
        found[f"vocabulary-{size}"] = Condition(Settings(tokens=size, descent_steps=most, adam_steps=descents[1]), COLD)
    found[f"vocabulary-{sizes[1]}-fine"] = Condition(Settings(tokens=sizes[1], stride=0.0125), COLD)
    return found


_SIZES, _DESCENTS = (100, 1000, 10_000, 100_000), (20_000, 2000)
_SMOKE = mistakes(4, ("fkl", "skl", "tvd"), (200, 0)) | cold_starts((20, 50, 100), (200, 200))
_CPU = mistakes(20, LOSSES, _DESCENTS) | cold_starts(_SIZES, _DESCENTS)
_GPU = mistakes(100, LOSSES, _DESCENTS) | cold_starts((*_SIZES, 300_000), _DESCENTS)
EXPERIMENT = Experiment(
    id="tabular",
    profiles={
        "smoke": Profile("smoke", _SMOKE, seeds=(0, 1, 2)),
        "cpu": Profile("cpu", _CPU),
        "gpu": Profile("gpu", _GPU, tuple(range(30)), "cuda"),
    },
    simulate=simulate,
    decide=tabular_rule.decide,
    rule=tabular_rule.RULE,
)
