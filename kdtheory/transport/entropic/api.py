"""`sinkhorn`: entropic optimal transport for a batch of pairs, with errors and bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kdtheory.divergences import checks
from kdtheory.transport import closed_forms
from kdtheory.transport.api import Potentials, WithSlopes, check_vocabulary
from kdtheory.transport.costs import TokenCost
from kdtheory.transport.entropic import bounds
from kdtheory.transport.entropic.evaluate import Evaluated, Settings


@dataclass(frozen=True, eq=False)
class SinkhornResult:
    """What `sinkhorn` returns: one entry per pair; arrays of the kind (numpy or torch) that went in, float64.

    Attributes
    ----------
    value : array, shape (...)
        The functional, in units of cost.
    potentials : Potentials
        Entropic potentials f, g of the problem solved, shape (..., V), defined on every token. They satisfy
        Γ_ij = p_i q_j exp((f_i + g_j - C_ij)/ε), and f_i + g_j <= C_ij only in the limit ε -> 0.
    marginal_error : array, shape (...)
        Bound on the L1 error of the plan's row sums, per unit of mass; its column sums are exact. Both up to rounding,
        1e-15 · max C/ε.
    iterations : array of int, shape (...)
        Sweeps spent, warm-up at larger ε included.
    converged : array of bool, shape (...)
        Whether `marginal_error` is at most `tol`.
    lower, upper : array, shape (...)
        Rigorous interval for the unregularised W = OT_C(p, q), whatever the functional, converged or not: feasible
        potentials below, a plan with the right marginals above. Computed when first asked for: B·V² operations each.
    """

    value: Any
    potentials: Potentials
    marginal_error: Any
    iterations: Any
    converged: Any
    _bound: Callable[[Callable[[Evaluated, TokenCost], Tensor]], Any] = field(repr=False)

    @cached_property
    def lower(self) -> Any:
        """Rigorous lower bound on W, shape (...)."""
        return self._bound(bounds.lower)

    @cached_property
    def upper(self) -> Any:
        """Rigorous upper bound on W, shape (...)."""
        return self._bound(bounds.upper)

    def __getstate__(self) -> dict[str, Any]:
        """Numbers alone, the bounds among them: a pickle holds no V × V kernel."""
        return {**vars(self), "lower": self.lower, "upper": self.upper, "_bound": None}


def sinkhorn(
    p: Any,
    q: Any,
    cost: TokenCost,
    epsilon: float,
    functional: str = "relative",
    form: str = "full",
    tol: float | None = None,
    max_iter: int = 10_000,
    precision: str = "float64",
) -> SinkhornResult:
    """Entropic optimal transport between teacher and student (`cuturi2013sinkhorn`; `feydy2019sinkhorn`, Eq. 3).

    Zero masses, disjoint supports and costs that are not symmetric are ordinary input. No V × V matrix is kept where it
    would exceed 4 GiB, and nothing of size B·V².

    Parameters
    ----------
    p, q : array_like, shape (..., V)
        Teacher (rows of C) and student (columns). Each row sums to 1 within 1e-6 and is divided by its sum.
    cost : TokenCost
        Over the same V tokens.
    epsilon : float > 0
        Regularisation in units of cost; the λ of `cuturi2013sinkhorn` is 1/ε.
    functional : {"relative", "entropic", "sharp", "divergence"}
        ⟨Γ, C⟩ + ε KL(Γ ‖ p ⊗ q); ⟨Γ, C⟩ - ε H(Γ); ⟨Γ, C⟩, all at the optimal Γ; and the Sinkhorn divergence, the first
        less half its values at (p, p) and (q, q).
    form : {"full", "reduced"}
        "reduced" leaves the common mass min(p, q) where it is: m · OT_ε((p - q)₊/m, (q - p)₊/m) with m = TV(p, q).
        Another functional, zero at p = q without debiasing and nearer to W1; for metric costs, "relative" and "sharp".
    tol : float, optional
        L1 error of the marginals to reach, per unit of mass: default 1e-9 in float64, 1e-5 in float32 and bfloat16.
        Rounding limits it to 1e-15 · max C/ε, which is the default past max C/ε = 1e6.
    max_iter : int
        Sweeps for each of the problems solved.
    precision : {"float64", "float32", "bfloat16"}
        Of the matrix products. "bfloat16" keeps the kernel in bfloat16 for the first sweeps and finishes in float32.
        Where max C/ε > 60 float32 cannot hold the kernel, and where it is < 0.01 it cannot tell K from 1: float64 is
        used; past 650, log-sum-exp.

    Returns
    -------
    SinkhornResult
        With torch input, `value` is differentiable in p and q, with the gradient of the functional asked for.

    Raises
    ------
    ValueError
        If an argument does not fit; names the argument and the index.
    NotAMetricError
        If form = "reduced" and the cost is not a metric; names the tokens.

    Warns
    -----
    SinkhornWarning
        If a row spends `max_iter` sweeps; `converged` says which.

    Examples
    --------
    >>> result = sinkhorn([0.5, 0.5], [0.1, 0.9], TokenCost.zero_one(2), epsilon=0.1, functional="divergence")
    >>> round(float(result.value), 4)
    0.3566
    """
    settings = Settings(cost, epsilon, functional, form, tol, max_iter, precision).checked()
    a, b, restore = checks.probabilities(p, q)
    check_vocabulary(cost, a.shape[-1], "p")
    shape, V = a.shape, a.shape[-1]
    a, b = (x.reshape(-1, V) / x.reshape(-1, V).sum(-1, keepdim=True) for x in (a, b))

    def shaped(x: Tensor) -> Tensor:
        return (x.double() if x.is_floating_point() else x).reshape(shape if x.ndim == 2 else shape[:-1])

    with torch.autocast(a.device.type, enabled=False):  # it would take matrix products in bfloat16
        found = Evaluated.of(settings, a.log(), b.log(), closed_forms.balanced_difference(a, b))
        value = shaped(found.value())
        if any(isinstance(x, Tensor) and x.requires_grad for x in (p, q)):
            p, q = (x if isinstance(x, Tensor) else shaped(mine) for x, mine in ((p, a), (q, b)))
            value = WithSlopes.apply(p, q, value, *(shaped(slope) for slope in found.slopes()))
    return SinkhornResult(
        restore(value),
        Potentials(restore(shaped(found.solved.f)), restore(shaped(found.solved.g))),
        restore(shaped(torch.stack([state.error for state in found.states]).amax(0))),
        restore(shaped(torch.stack([state.iterations for state in found.states]).sum(0))),
        restore(shaped(torch.stack([state.converged for state in found.states]).all(0))),
        lambda bound: restore(shaped(bound(found, cost))),
    )
