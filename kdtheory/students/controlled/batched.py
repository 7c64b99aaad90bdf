"""Many small students as one tensor program: the leading dimension of every tensor is the seed.

Each seed draws from its own generator on the CPU, so that what it draws does not depend on the others; its objective
is a mean over its own contexts, and the optimiser works entry by entry, so that its path does not either (up to the
rounding of batched matrix products).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

Point = dict[str, float]
Observe = Callable[[list[Tensor], int], dict[str, Tensor]]


def draws(seeds: Sequence[int], make: Callable[[torch.Generator], Any]) -> Any:
    """What `make` draws for each seed (a tensor, or a tuple or list of them), stacked along a new first dimension."""
    found = [make(torch.Generator().manual_seed(seed)) for seed in seeds]
    if isinstance(found[0], Tensor):
        return torch.stack(found)
    return type(found[0])(torch.stack(parts) for parts in zip(*found, strict=True))


def mlp_weights(generator: torch.Generator, sizes: Sequence[int]) -> list[Tensor]:
    """Weights and biases of one network with layers of these sizes; entries of variance 1/(inputs), biases 0."""
    weights: list[Tensor] = []
    for rows, columns in itertools.pairwise(sizes):
        weights += [torch.randn(rows, columns, generator=generator) / math.sqrt(rows), torch.zeros(columns)]
    return weights


def mlp(parameters: Sequence[Tensor], features: Tensor) -> Tensor:
    """Logits (S, N, V) of S networks with tanh hidden layers, for features (S, N, d) or (N, d) shared by all."""
    hidden = features
    layers = list(zip(parameters[::2], parameters[1::2], strict=True))
    for depth, (weight, bias) in enumerate(layers):
        hidden = hidden @ weight + bias.unsqueeze(-2)
        if depth + 1 < len(layers):
            hidden = torch.tanh(hidden)
    return hidden


def low_rank(parameters: Sequence[Tensor], features: Tensor) -> Tensor:
    """Logits x A B + b: (S, N, d), (S, d, r), (S, r, V), (S, V) -> (S, N, V)."""
    first, second, bias = parameters
    return features @ first @ second + bias.unsqueeze(-2)


def per_seed(loss: Any, *, teacher_logits: Tensor, student_logits: Tensor, **options: Any) -> Tensor:
    """Mean loss over the contexts of each seed: (S, N, V), (S, N, V) -> (S,), differentiable in the student."""
    each = loss.loss(teacher_logits=teacher_logits, student_logits=student_logits, reduction="none", **options)
    return each.mean(-1)


def train(
    parameters: Sequence[Tensor],
    objective: Callable[[list[Tensor]], Tensor],
    *,
    steps: int,
    rate: float | Callable[[int], float],
    optimizer: Literal["adam", "sgd"] = "adam",
    points: int = 20,
    observe: Observe | None = None,
) -> tuple[list[Tensor], list[list[Point]]]:
    """Minimise every seed's objective from its own parameters.

    Parameters
    ----------
    parameters : sequence of Tensor, shape (S, ...)
        First values; not changed.
    objective : callable
        Parameters -> (S,), one mean loss per seed.
    steps : int
        A multiple of `points`.
    rate : float or callable
        Learning rate, or its value at a step (from 0).
    optimizer : {"adam", "sgd"}
    points : int
        Points of the learning curve after step 0; 0 for none.
    observe : callable, optional
        (parameters, step) -> numbers (S,) of a point, without gradients; default: the objective.

    Returns
    -------
    (list of Tensor, list of list of dict)
        Last parameters, and for each seed its curve: ``step`` and the numbers observed.

    Raises
    ------
    ValueError
        If `steps` is not a positive multiple of `points`.
    """
    if steps < 1 or (points and steps % points):
        raise ValueError(f"steps = {steps}: a positive multiple of {points}, the points of a curve")
    weights = [weight.detach().clone().requires_grad_() for weight in parameters]
    moved: torch.optim.Optimizer
    first = rate(0) if callable(rate) else rate
    moved = (
        torch.optim.SGD(weights, lr=first) if optimizer == "sgd" else torch.optim.Adam(weights, lr=first, fused=True)
    )
    curves: list[list[Point]] = [[] for _ in range(len(weights[0]))]
    look = observe or (lambda now, _: {"objective": objective(now)})
    for step in range(steps + 1):
        if points and step % (steps // points) == 0:
            _observed(curves, step, weights, look)
        if step == steps:
            break
        for group in moved.param_groups:
            group["lr"] = rate(step) if callable(rate) else rate
        moved.zero_grad()
        objective(weights).sum().backward()
        moved.step()
    return [weight.detach() for weight in weights], curves


@torch.no_grad()
def _observed(curves: list[list[Point]], step: int, weights: list[Tensor], look: Observe) -> None:
    found = {name: values.double().tolist() for name, values in look(weights, step).items()}
    for index, curve in enumerate(curves):
        curve.append({"step": step, **{name: values[index] for name, values in found.items()}})
