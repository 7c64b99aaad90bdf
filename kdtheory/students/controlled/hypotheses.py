"""Three-way tests of registered hypotheses: one number per seed, held against the regions its rule names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from kdtheory.students import statistics

POWER = 0.8
"""Power at which the smallest detectable difference is stated."""
Scale = Literal["linear", "log"]


@dataclass(frozen=True)
class Region:
    """What a rule asks of the mean over seeds.

    Attributes
    ----------
    low, high : float
        Supported within [low, high].
    refuted_below, refuted_above : float, optional
        Refuted below or above these; by default `low` and `high`. Between is undecided by rule.
    """

    low: float = -math.inf
    high: float = math.inf
    refuted_below: float | None = None
    refuted_above: float | None = None

    def __post_init__(self) -> None:
        below, above = self.outside
        if not (below <= self.low <= self.high <= above) or (math.isinf(self.low) and math.isinf(self.high)):
            raise ValueError(f"{self}: needs refuted_below <= low <= high <= refuted_above, and one finite bound")

    @property
    def outside(self) -> tuple[float, float]:
        """(refuted below, refuted above)."""
        below = self.low if self.refuted_below is None else self.refuted_below
        return below, self.high if self.refuted_above is None else self.refuted_above


@dataclass(frozen=True)
class Comparison:
    """One outcome of one hypothesis over seeds.

    Attributes
    ----------
    estimate, low, high : float
        Mean over seeds and its 95 % t interval; on the scale "log" the geometric mean and that of the logarithms.
    p : float
        Exact two-sided sign-flip p-value: inside the region the larger of those of its finite bounds, outside that of
        the bound that is broken, 1 between.
    effect : float
        Distance of the mean from the nearest bound of the region over the seeds' standard deviation, positive inside.
    mde : float
        Smallest distance from a bound that a two-sided t test of these seeds detects with power .8 (in logarithms on
        the scale "log").
    """

    hypothesis: str
    outcome: str
    region: Region
    scale: Scale
    seeds: int
    estimate: float
    low: float
    high: float
    p: float
    effect: float
    mde: float
    converged: bool
    censored: int
    bounds: Literal["", "below", "above"]
    about: dict[str, Any] = field(default_factory=dict)

    def decision(self, p_holm: float) -> str:
        """``supported``, ``refuted``, ``undecided`` or ``undecided (not converged)``; "pilot: " below ten seeds."""
        pilot = self.seeds < statistics.CONFIRMATORY_SEEDS
        word = "undecided" if self.converged else "undecided (not converged)"
        if self.converged and (pilot or p_holm < statistics.LEVEL):
            word = self._word()
        return f"pilot: {word}" if pilot else word

    def _word(self) -> str:
        """What the interval says; censored numbers are bounds and may not say what more time could overturn."""
        below, above = self.region.outside
        may_fall, may_rise = (self.censored > 0 and self.bounds != name for name in ("below", "above"))
        if may_fall and may_rise:  # nobody said which way the censored numbers err
            return "undecided"
        inside_low = self.low >= self.region.low and not (may_fall and math.isfinite(self.region.low))
        inside_high = self.high <= self.region.high and not (may_rise and math.isfinite(self.region.high))
        if inside_low and inside_high:
            return "supported"
        if (self.high < below and not may_rise) or (self.low > above and not may_fall):
            return "refuted"
        return "undecided"


def compared(
    hypothesis: str,
    outcome: str,
    values: Sequence[float],
    region: Region,
    *,
    converged: bool = True,
    censored: int = 0,
    bounds: Literal["", "below", "above"] = "",
    scale: Scale = "linear",
    **about: Any,
) -> Comparison:
    """Hold one number per seed against a region.

    Parameters
    ----------
    hypothesis, outcome : str
        Label (H1 ...) and what is measured.
    values : sequence of float
        One per seed.
    region : Region
        In the units of `values`, on either scale.
    converged : bool
        Whether everything that is compared has reached its plateau (True for times, which need none).
    censored : int
        Seeds whose number is only a bound.
    bounds : {"", "below", "above"}
        What the censored numbers are: "below": lower bounds of the true ones, which lie above them; "above": upper
        bounds. They support only what a true number could not overturn.
    scale : {"linear", "log"}
        "log" for positive ratios: geometric mean, interval and test of logarithms.
    **about
        Further columns of the row.

    Raises
    ------
    ValueError
        If there is no value, one is not finite, or not positive on the scale "log" (the message gives its index).
    """
    x = np.asarray(values, dtype=np.float64)
    if scale == "log" and (x <= 0).any():
        index = int(np.flatnonzero(x <= 0)[0])
        raise ValueError(f"{outcome}: values[{index}] is {x[index]}: the scale 'log' takes positive numbers")
    with np.errstate(divide="ignore"):
        x = np.log(x) if scale == "log" else x
        limits = np.array([region.low, region.high, *region.outside])
        limits = np.log(np.maximum(limits, 0)) if scale == "log" else limits
    mean, low, high = statistics.interval(x.tolist())
    spread = float(x.std(ddof=1)) if len(x) > 1 else math.nan
    back = math.exp if scale == "log" else float
    return Comparison(
        hypothesis, outcome, region, scale, len(x), back(mean), _safe(back, low), _safe(back, high),
        p=_p(x, mean, *limits), effect=_effect(mean, spread, limits[0], limits[1]), mde=_mde(spread, len(x)),
        converged=converged, censored=int(censored), bounds=bounds, about=about,
    )  # fmt: skip


def _safe(back: Any, x: float) -> float:
    return back(x) if math.isfinite(x) and x < 700 else (0.0 if x < 0 and back is math.exp else x)


def _p(x: np.ndarray, mean: float, low: float, high: float, below: float, above: float) -> float:
    if low <= mean <= high:
        return max(statistics.paired((x - bound).tolist()).p for bound in (low, high) if math.isfinite(bound))
    if mean < below or mean > above:
        return statistics.paired((x - (below if mean < below else above)).tolist()).p
    return 1.0


def _effect(mean: float, spread: float, low: float, high: float) -> float:
    distance = min(mean - low, high - mean)
    return distance / spread if spread > 0 else math.copysign(math.inf, distance) if distance else 0.0


def _mde(spread: float, seeds: int) -> float:
    from statsmodels.stats.power import TTestPower

    if seeds < 2 or not spread > 0:
        return math.nan if seeds < 2 else 0.0
    return spread * float(TTestPower().solve_power(nobs=seeds, alpha=statistics.LEVEL, power=POWER))


def family(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Rows of one Holm family, each with its decision.

    Raises
    ------
    ValueError
        If the family is so large that the exact test of so few seeds could never decide in it.
    """
    seeds = min((item.seeds for item in comparisons), default=0)
    smallest = 2.0 ** (1 - seeds)  # p-value of a sign-flip test
    if seeds >= statistics.CONFIRMATORY_SEEDS and len(comparisons) * smallest >= statistics.LEVEL:
        raise ValueError(
            f"a family of {len(comparisons)} on {seeds} seeds cannot decide: the smallest p, {smallest:.3g}, times "
            f"that is above {statistics.LEVEL}; ask less at once, or run more seeds"
        )
    adjusted = statistics.holm([item.p for item in comparisons])
    return [_row(item, p_holm) for item, p_holm in zip(comparisons, adjusted, strict=True)]


def _row(item: Comparison, p_holm: float) -> dict[str, Any]:
    below, above = item.region.outside
    names = ("scale", "seeds", "estimate", "low", "high", "p", "effect", "mde", "converged", "censored", "bounds")
    numbers = {name: getattr(item, name) for name in names}
    limits = {"region_low": item.region.low, "region_high": item.region.high, "below": below, "above": above}
    row = {"hypothesis": item.hypothesis, "outcome": item.outcome, **item.about, **limits, **numbers}
    plain = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
    }
    return plain | {"p_holm": p_holm, "decision": item.decision(p_holm)}
