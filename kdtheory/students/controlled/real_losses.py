"""Losses between distributions over ordered levels, by the names that `real-metric` gives them.

Costs are scaled to diameter 1. ``fkl-then-w1`` is forward KL for the first half of the steps and W1 after it. The
ending ``-scrambled`` is the control: the same loss with the levels in a random order, so that the cost has the same
distances between the wrong tokens. The 0-1 cost makes W1 total variation: ``tvd``, ``fkl-then-tvd``. Tree-KL takes the
balanced binary tree over the levels, in which two are as far apart as the smallest interval that holds both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

import kdtheory as kd
from kdtheory.divergences import logspace
from kdtheory.divergences.protocol import Loss
from kdtheory.students.controlled.real_data import LEVELS
from kdtheory.transport.repaired import tree_from_order

SCRAMBLED = "-scrambled"
_THEN = "-then-"
_POSITIONS = np.linspace(0.0, 1.0, LEVELS)
_PARAMETERS: dict[str, dict[str, Any]] = {"skl": {"alpha": 0.1}}
LOSSES = (
    "fkl",
    "rkl",
    "jsd",
    "tvd",
    "skl",
    "w1",
    "cramer",
    "fkl-then-w1",
    "fkl+w1",
    "fkl+tree_kl",
    "w1-scrambled",
    "fkl-then-w1-scrambled",
    "fkl-then-tvd",
    "fkl+w1-scrambled",
    "fkl+tree_kl-scrambled",
)


class Cramer(Loss):
    """∫ (F_q - F_p)² along levels at equal distances on a line of length 1, by the distribution functions F.

    Half the energy distance, which is the Sinkhorn divergence's limit for large ε; against a single level it is the
    ranked probability score. Logit gradient q (g - ḡ) with g_i = 2 Σ_{k >= i} (F_q(k) - F_p(k)) / (V - 1).
    """

    name = "cramer"

    def per_position(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        return self._surplus(log_p, log_q).square().mean(-1)

    def value_and_gradient(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        surplus = self._surplus(log_p, log_q)
        above = 2 / surplus.shape[-1] * surplus.flip(-1).cumsum(-1).flip(-1)
        slope = torch.nn.functional.pad(above, (0, 1))  # nothing lies above the last level
        return surplus.square().mean(-1), logspace.centred(logspace.LogPair(log_p, log_q), slope)

    @staticmethod
    def _surplus(log_p: Tensor, log_q: Tensor) -> Tensor:
        """F_q - F_p below each of the V - 1 gaps."""
        return (log_q.exp() - log_p.exp()).cumsum(-1)[..., :-1]


def is_scrambled(name: str) -> bool:
    """Whether the loss takes a random order for that of the levels."""
    return name.endswith(SCRAMBLED)


def phases(name: str, weight: float) -> tuple[Loss, ...]:
    """The losses that are minimised one after the other under this name, each for its part of the steps.

    Raises
    ------
    ValueError
        If the name is none of `LOSSES`.
    """
    if name not in LOSSES:
        raise ValueError(f"loss {name!r} is unknown; known: {', '.join(LOSSES)}")
    return tuple(_built(part, weight) for part in name.removesuffix(SCRAMBLED).split(_THEN))


def _built(name: str, weight: float) -> Loss:
    if name == "fkl+tree_kl":
        return kd.divergence("fkl") + kd.divergence(
            "tree_kl", cost=kd.TokenCost.tree(*tree_from_order(_POSITIONS)), weight=weight
        )
    if name == "fkl+w1":
        return kd.divergence("fkl") + weight * _built("w1", weight)
    if name == "w1":
        return kd.divergence("w1", cost=kd.TokenCost.line(_POSITIONS))
    if name == "cramer":
        return Cramer()
    return kd.divergence(name, **_PARAMETERS.get(name, {}))
