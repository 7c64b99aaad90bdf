"""Sizes and rates of `real-metric`, chosen on pilot seeds.

Narrow students: forward KL's pays clearly more than its teacher on the digits; a single unit, the narrowest there is,
on the series, whose next value is a peak that moves, which one number describes well.

Rates: of the grid 0.003, 0.01, 0.03, 0.1 (digits) and 0.1, 0.3 (series, after 0.01 and 0.03 had turned out too slow for
the first losses) the one with the lowest validation value of the loss's own objective, mean of the last three points of
its curve, pilot seed 100, runs of 3000 steps. Where 0.3 is best, that is the edge of the grid. Wide students: 0.01, not
tuned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from kdtheory.students.controlled import real_losses
from kdtheory.students.controlled.design import Condition

POINTS = 20
"""Of a learning curve."""


@dataclass(frozen=True)
class Settings:
    """One condition.

    Attributes
    ----------
    source : {"digits", "co2"}
    width, teacher_width : int
        Units of the student's only hidden layer, and of each of the teacher's two.
    shares, sizes : tuple of three
        Of training, validation and test part: share of the groups, and contexts.
    batch, steps : int
        Adam steps on batches of this size, for students.
    teacher_steps, teacher_rate
        The same for the teacher: stopped near its lowest validation loss.
    rates : tuple of (str, float)
        Adam's rate per loss, constant.
    weight : float
        λ of the mixed losses, costs scaled to diameter 1.
    """

    source: str = "digits"
    width: int = 4
    teacher_width: int = 64
    shares: tuple[float, ...] = (0.7, 0.05, 0.25)
    sizes: tuple[int, ...] = (76800, 2048, 12800)
    batch: int = 128
    steps: int = 2000
    teacher_steps: int = 6000
    teacher_rate: float = 1e-2
    rates: tuple[tuple[str, float], ...] = ()
    weight: float = 3.2

    def __post_init__(self) -> None:
        if self.steps < 1 or self.steps % (2 * POINTS):
            raise ValueError(f"steps = {self.steps}: a positive multiple of {2 * POINTS}, so that halves have points")
        if len(self.shares) != 3 or len(self.sizes) != 3:
            raise ValueError("shares and sizes: three each, of training, validation and test part")

    def rate(self, loss: str) -> float:
        """Adam's rate of a loss; ValueError if there is none."""
        if loss not in dict(self.rates):
            raise ValueError(f"rates: none for the loss {loss!r}; there is one for {', '.join(dict(self.rates))}")
        return dict(self.rates)[loss]


_SLOWER = ("jsd", "skl", "cramer", "w1-scrambled", "fkl+tree_kl-scrambled")
_DIGITS = Settings(rates=tuple((loss, 0.01 if loss in _SLOWER else 0.03) for loss in real_losses.LOSSES))
_FASTER = ("fkl", "skl", "fkl+tree_kl", "fkl+w1", "w1-scrambled", "fkl-then-w1-scrambled")
_CO2 = Settings(
    source="co2",
    width=1,
    shares=(0.5, 0.15, 0.35),
    sizes=(800, 100, 500),
    steps=3000,
    teacher_steps=1200,
    teacher_rate=3e-3,
    rates=tuple((loss, 0.3 if loss in _FASTER else 0.1) for loss in real_losses.LOSSES),
)
_ALL, _FEW = real_losses.LOSSES, ("fkl", "w1", "fkl-then-w1")
_JUDGED = (
    *_FEW,
    "tvd",
    "fkl-then-tvd",
    "fkl+tree_kl",
    "w1-scrambled",
    "fkl-then-w1-scrambled",
    "fkl+tree_kl-scrambled",
)
_WIDE, _WIDE_RATES = 64, tuple((loss, 0.01) for loss in _FEW)
CPU = {
    "digits": Condition(_DIGITS, _ALL),
    "digits-wide": Condition(replace(_DIGITS, width=_WIDE, rates=_WIDE_RATES), _FEW),
    "co2": Condition(_CO2, _ALL),
    "co2-wide": Condition(replace(_CO2, width=_WIDE, rates=_WIDE_RATES), _FEW),
}


def _smaller(item: Condition) -> Condition:
    """The same within a moment: few steps, contexts and units."""
    sizes = (640, 64, 256) if item.settings.source == "digits" else (200, 50, 100)
    settings = replace(item.settings, sizes=sizes, batch=16, steps=40, teacher_steps=40, teacher_width=16, width=4)
    return Condition(settings, tuple(loss for loss in item.losses if loss in _JUDGED))


def _larger(item: Condition) -> Condition:
    """More units for the teacher, larger batches, and four times the steps for students."""
    return Condition(replace(item.settings, batch=512, steps=4 * item.settings.steps, teacher_width=256), item.losses)


SMOKE = {name: _smaller(item) for name, item in CPU.items()}
GPU = {name: _larger(item) for name, item in CPU.items()}
