"""What a GPU is for: dense bfloat16 Sinkhorn at 32768 tokens, top-k as a training loss, closed forms, whole steps.

``python -m tests.benchmarks --device cuda [--part NAME]``. Each part writes its table when it is finished and is
skipped when the table is there: delete the file to measure again. ``--device cpu`` runs the same code, tiny.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import kdtheory as kd
from kdtheory import TokenCost
from kdtheory.divergences.protocol import Loss
from kdtheory.transport.entropic import kernels, scaling
from kdtheory.transport.entropic.evaluate import per_row
from kdtheory.transport.topk import W1TopK
from tests.benchmarks import bench_steps, timing
from tests.benchmarks.bench_transport import embeddings
from tests.benchmarks.timing import DisagreementError, Loop

EPSILON = 0.05
SIZES = {"cuda": (4096, 32768, 128), "cpu": (16, 256, 32)}  # rows, V, kept tokens
ITERATIONS = 50
DENSE_MS, TOPK_FKL, CLOSED_FKL = 40.0, 10.0, 2.0  # targets


def logits(rows: int, tokens: int, device: str) -> tuple[Tensor, Tensor]:
    """Teacher's and student's, float32, on the device: scale 4, noise 1."""
    draw = torch.Generator(device).manual_seed(rows + tokens)
    teacher = 4 * torch.randn(rows, tokens, generator=draw, device=device)
    student = teacher + torch.randn(rows, tokens, generator=draw, device=device)
    return teacher, student.requires_grad_()


def synchronised(job: Callable[[], object], device: str) -> Callable[[], None]:
    """The job, and the wait until the device is done with it."""

    def run() -> None:
        job()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def training_step(loss: Loss, at: tuple[Tensor, Tensor], device: str) -> Callable[[], None]:
    teacher, student = at

    def step() -> None:
        value = loss.loss(teacher_logits=teacher, student_logits=student)
        torch.autograd.grad(value, student)

    return synchronised(step, device)


def row(part: str, case: str, rows: int, tokens: int, ms: float, **more: float) -> dict[str, object]:
    return {"part": part, "case": case, "rows": rows, "V": tokens, "ms": ms, **more}


# -- parts -------------------------------------------------------------------------------------------------------------
def dense(device: str) -> Iterator[dict[str, object]]:
    """One sweep over the whole batch with the kernel in bfloat16, and two bare products of that shape."""
    rows, tokens, _ = SIZES[device]
    start = time.perf_counter()
    cost = TokenCost.embedding(embeddings(tokens))
    kernel = kernels.shared(cost, EPSILON, torch.device(device), torch.bfloat16)
    made = time.perf_counter() - start
    log_p, log_q = (z.detach().log_softmax(-1) for z in logits(rows, tokens, device))
    check_dense(cost, kernel, log_p[:2], log_q[:2])
    left = torch.rand(rows, tokens, device=device, dtype=torch.bfloat16)

    def sweeps(n: int) -> None:
        synchronised(lambda: scaling.solve(kernel, log_p, log_q, 0.0, n), device)()

    def products(n: int) -> None:
        synchronised(lambda: [left @ kernel.K for _ in range(n)], device)()

    times = timing.per_iteration({"sweep": Loop(sweeps, 8, 24), "product": Loop(products, 4, 20)}, 5, time.perf_counter)
    ms = 1e3 * times["sweep"]
    yield row(
        "dense", "sinkhorn sweep, bfloat16 kernel", rows, tokens, ms, kernel_seconds=made,
        share_of_product_rate=2 * times["product"] / times["sweep"], target_ms=DENSE_MS, reached=ms <= DENSE_MS,
    )  # fmt: skip


def check_dense(cost: TokenCost, kernel: kernels.Dense, log_p: Tensor, log_q: Tensor) -> None:
    """A bfloat16 half step against float64 on the CPU: 2^-8 in K and 2^-8 in the weights, relative, so in the logs."""
    found = kernel.log_sums(log_q).double().cpu()
    exact = kernels.Streamed(cost, EPSILON, torch.device("cpu"), torch.float64).log_sums(log_q.double().cpu())
    error = float((found - exact).abs().max())
    if not error <= 3 * 2**-8:
        raise DisagreementError(f"the bfloat16 kernel's sums differ from float64's by {error:.2g} in the logarithm")


def topk(device: str) -> Iterator[dict[str, object]]:
    """Forward and backward through selection and 50 sweeps of the k × k problems, against forward KL."""
    rows, tokens, k = SIZES[device]
    cost, at = TokenCost.embedding(embeddings(tokens)), logits(rows, tokens, device)
    losses = {"50 sweeps": topk_loss(cost, k, ITERATIONS), "1 sweep: selection": topk_loss(cost, k, 1)}
    check_topk(cost, at, k, losses["50 sweeps"])
    jobs = {name: training_step(loss, at, device) for name, loss in losses.items()}
    jobs["fkl"] = training_step(kd.divergence("fkl"), at, device)
    times = timing.interleaved(jobs, 5, time.perf_counter)
    for name in losses:
        ratio = times[name] / times["fkl"]
        yield row(
            "topk", f"top-{k}, {name}", rows, tokens, 1e3 * times[name], fkl_ms=1e3 * times["fkl"], of_fkl=ratio,
            target_of_fkl=TOPK_FKL, reached=ratio <= TOPK_FKL,
        )  # fmt: skip


def topk_loss(cost: TokenCost, k: int, iterations: int) -> W1TopK:
    """Relative value of the kept tokens' problem after a fixed number of sweeps."""

    def inner(difference: Tensor, costs: Tensor) -> tuple[Tensor, Tensor]:
        found = per_row(costs, difference, EPSILON, tol=0.0, max_iter=iterations)
        return found.value().to(difference.dtype), found.slopes().q.to(difference.dtype)

    return W1TopK(cost=cost, k=k, solver=inner)


def check_topk(cost: TokenCost, at: tuple[Tensor, Tensor], k: int, loss: W1TopK) -> None:
    """The value lies between the exact one of the same kept tokens and that plus ε log k: KL(Γ‖p⊗q) <= log k."""
    teacher, student = (z.detach()[:2] for z in at)
    found = loss.loss(teacher_logits=teacher, student_logits=student, reduction="none").double().cpu()
    exact = W1TopK(cost=cost, k=k).loss(teacher_logits=teacher, student_logits=student, reduction="none").double().cpu()
    above = (found - exact) / exact.abs().max()
    if not ((above >= -1e-3).all() and (found - exact <= EPSILON * np.log(k)).all()):
        raise DisagreementError(f"top-k by Sinkhorn {found.tolist()} against exact {exact.tolist()}")


def closed(device: str) -> Iterator[dict[str, object]]:
    """Line and total variation, forward and backward, against forward KL."""
    rows, tokens, _ = SIZES[device]
    at = logits(rows, tokens, device)
    line = TokenCost.line(np.random.default_rng(tokens).uniform(size=tokens))
    losses = {"fkl": kd.divergence("fkl"), "tvd": kd.divergence("tvd"), "w1 line": kd.divergence("w1", cost=line)}
    small = tuple(z.detach()[:2] for z in at)
    for name, loss in losses.items():
        check_closed(name, loss, small)
    times = timing.interleaved(
        {name: training_step(loss, at, device) for name, loss in losses.items()}, 10, time.perf_counter
    )
    for name in ("tvd", "w1 line"):
        ratio = times[name] / times["fkl"]
        yield row(
            "closed", f"{name} step", rows, tokens, 1e3 * times[name], fkl_ms=1e3 * times["fkl"], of_fkl=ratio,
            target_of_fkl=CLOSED_FKL, reached=ratio <= CLOSED_FKL,
        )  # fmt: skip


def check_closed(name: str, loss: Loss, at: tuple[Tensor, Tensor]) -> None:
    """float32 on the device against float64 on the CPU."""
    on_cpu = {"teacher_logits": at[0].double().cpu(), "student_logits": at[1].double().cpu(), "reduction": "none"}
    found = loss.loss(teacher_logits=at[0], student_logits=at[1], reduction="none").double().cpu()
    exact = loss.loss(**on_cpu)
    if not torch.allclose(found, exact, rtol=1e-4, atol=0):
        raise DisagreementError(f"{name}: {found.tolist()} on the device, {exact.tolist()} in float64")


PARTS: dict[str, Callable[[str], Iterator[dict[str, object]]]] = {
    "dense": dense,
    "topk": topk,
    "closed": closed,
    "steps": bench_steps.on_device,
}


def run(device: str, parts: list[str] | None, out: Path) -> None:
    """Measure the parts asked for that have no table yet."""
    if device not in SIZES:
        raise SystemExit(f"--device {device}: cuda or cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: this torch sees no CUDA device; run it on a machine with a GPU")
    for name in parts or PARTS:
        if name not in PARTS:
            raise SystemExit(f"--part {name}: one of {', '.join(PARTS)}")
        path = out / f"{device}_{name}.csv"
        if path.exists():
            print(f"{name}: {path} is there, skipped")
            continue
        table = pd.DataFrame(list(PARTS[name](device)))
        table["torch"] = torch.__version__
        table["machine"] = torch.cuda.get_device_name() if device == "cuda" else "CPU, tiny sizes: no measurement"
        out.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, index=False, float_format="%.4g")
        print(table.to_string(index=False), f"\nwrote {path}", flush=True)
