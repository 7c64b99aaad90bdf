"""Entropic transport as a training loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdtheory.divergences import logspace
from kdtheory.divergences.protocol import Loss
from kdtheory.transport import closed_forms
from kdtheory.transport.api import check_vocabulary
from kdtheory.transport.costs import TokenCost
from kdtheory.transport.entropic import kernels
from kdtheory.transport.entropic.evaluate import Evaluated, Settings


class Sinkhorn(Loss):
    """Entropic transport between teacher and student; by default the Sinkhorn divergence S_ε.

    Zero, one-hot and disjoint distributions are ordinary input and the value is finite. The logit gradient is
    q_i (g_i - Σ_j q_j g_j) with the functional's own slope g.

    Parameters
    ----------
    cost : TokenCost
        Ground cost. All positions go through one matrix product, in the precision of the logits (float32 for half
        precision), float64 where max C/ε asks for it.
    epsilon : float > 0
        Regularisation in units of cost.
    functional, form, max_iter
        As in `kdtheory.sinkhorn`.
    tol : float
        L1 error of the marginals in training, per unit of mass, at least 3e-6: what float32 reaches. Evaluation in
        float64 goes to 1e-9. Where q is near p and ε a few hundredths of the diameter, sweeps of the full form crawl:
        a smaller `max_iter`, or form = "reduced", keeps the step's price.
    """

    name = "sinkhorn"
    whole_batch = True

    def __init__(
        self,
        *,
        cost: TokenCost,
        epsilon: float,
        functional: str = "divergence",
        form: str = "full",
        tol: float = 1e-5,
        max_iter: int = 1000,
    ) -> None:
        self.settings = Settings(cost, epsilon, functional, form, tol, max_iter, "float32").checked()
        self.parameters = {"cost": cost, "epsilon": epsilon, "functional": functional, "form": form}
        self._kept: kernels.Kept = {}
        # S_ε is quadratic around p = q; the others have a kink or a slope there
        self.temperature_power = 2 if functional == "divergence" else 1

    def per_position(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        found, _ = self._evaluated(log_p, log_q)
        return found.value().to(log_q.dtype).reshape(log_q.shape[:-1])

    def value_and_gradient(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        found, pair = self._evaluated(log_p, log_q)
        slope = found.slopes().q.to(log_q.dtype)
        # a constant cancels; without it the products of the dominating token are exact zeros
        slope = slope - slope.gather(-1, pair.log_q.argmax(-1, keepdim=True))
        gradient = logspace.centred(pair, slope)
        return found.value().to(log_q.dtype).reshape(log_q.shape[:-1]), gradient.reshape(log_q.shape)

    def _evaluated(self, log_p: Tensor, log_q: Tensor) -> tuple[Evaluated, logspace.LogPair]:
        V = log_q.shape[-1]
        check_vocabulary(self.settings.cost, V, "student_logits")
        pair = logspace.LogPair(log_p.reshape(-1, V), log_q.reshape(-1, V))
        difference = closed_forms.balanced(pair.difference, pair.top.argmax(-1, keepdim=True))
        settings = self.settings
        if log_q.dtype == torch.float64:
            settings = settings._replace(precision="float64", tol=None)
        return Evaluated.of(settings, pair.log_p, pair.log_q, difference, self._kept), pair

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}  # gigabytes that the next step makes again
