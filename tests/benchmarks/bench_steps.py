"""What each loss costs a training step: output embeddings, loss, gradients, against hard cross-entropy.

A step takes the student's last hidden states (N, 768) and its output embeddings (V, 768) to the gradients of both. With
nothing of the network below, this is the strictest reading of "relative to a step". The teacher's logits are given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

import kdtheory as kd
from kdtheory import TokenCost
from kdtheory.divergences import RECORDS
from kdtheory.divergences.protocol import Loss
from tests.benchmarks.bench_losses import PEERS
from tests.benchmarks.bench_transport import embeddings, halved_tree
from tests.benchmarks.timing import Case, DisagreementError, interleaved

WIDTH = 768
FULL = [(2048, 1024), (1024, 8192), (512, 32768)]
QUICK = [(24, 96)]
DEVICE = {"cuda": (4096, 32768), "cpu": (24, 96)}
BOUND_AT, TIME, MEMORY = 32768, 1.15, 1.0
"""Where every f-divergence is held to at most 15 % more time than hard labels and one more (N, V) buffer."""
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Of the largest entry of the gradient in the hidden states: float32's rounding of logits, and in bfloat16 of logits of
size 10 by 0.03 and of slopes by 0.004."""

Step = Callable[[], tuple[Tensor, ...]]


class Problem:
    """Hidden states, embeddings, teacher's logits and labels of N positions."""

    def __init__(self, rows: int, tokens: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        draw = torch.Generator().manual_seed(rows + tokens)
        hidden, taught = (torch.randn(rows, WIDTH, generator=draw) for _ in range(2))
        weight = 0.1 * torch.randn(tokens, WIDTH, generator=draw)
        self.rows, self.tokens = rows, tokens
        self.hidden, self.weight = (x.to(device, dtype).requires_grad_() for x in (hidden, weight))
        self.states = (hidden + 0.3 * taught).to(device, dtype)  # the teacher's, near the student's
        with torch.no_grad():
            self.teacher = self.states @ self.weight.T
            log_p, log_q = (z.float().log_softmax(-1) for z in (self.teacher, self.logits()))
            self.teacher += 1e-3 * ((log_p - log_q).abs() < 1e-4)  # where p = q, tvd's sign is everybody's own rounding
        self.labels = torch.randint(tokens, (rows,), generator=draw).to(device)

    def gradients(self, value: Callable[[], Tensor]) -> Step:
        """A step: forward and backward."""
        return lambda: torch.autograd.grad(value(), (self.hidden, self.weight))

    def ours(self, loss: Loss) -> Step:
        """A step through `kd.head_loss`; hard labels do not look at the teacher."""
        given = {"teacher_logits": self.teacher, "labels": self.labels}
        return self.gradients(lambda: kd.head_loss(loss, hidden=self.hidden, weight=self.weight, **given))

    def plain(self) -> Step:
        """Torch's own hard cross-entropy on the whole logits."""
        return self.gradients(lambda: functional.cross_entropy(self.logits().float(), self.labels))

    def logits(self) -> Tensor:
        return self.hidden @ self.weight.T

    def reference(self, name: str, loss: Loss) -> Step:
        """The step to agree with: torch's formula differentiated by autograd where there is one, else `Loss.loss`."""
        if name == "hard":
            return self.plain()
        if name in PEERS:
            return self.gradients(lambda: PEERS[name](self.teacher.float(), self.logits().float()))
        return self.gradients(
            lambda: loss.loss(student_logits=self.logits(), teacher_logits=self.teacher, labels=self.labels)
        )


def losses(tokens: int) -> dict[str, Loss]:
    """The losses of the experiment, then the other f-divergences."""
    points = embeddings(tokens)
    line, tree = TokenCost.line(points[:, 0]), TokenCost.tree(*halved_tree(points))
    named = {"hard": kd.divergence("cross_entropy"), "classic": kd.classic(kd.divergence("fkl"), temperature=2.0)}
    named |= {name: kd.divergence(name) for name in ("fkl", "rkl", "jsd", "tvd", "skl", "srkl", "akl")}
    on_tree = kd.divergence("w1", cost=tree)
    named |= {"w1, tree": on_tree, "w1, line": kd.divergence("w1", cost=line), "fkl + w1": named["fkl"] + on_tree}
    return named | {name: kd.divergence(name) for name in RECORDS if name not in named}


def agreement(name: str, step: Step, reference: Step, problem: Problem) -> float:
    """Largest difference of the gradient in the hidden states; ten times the tolerance must not pass."""

    found, expected = (job()[0].float().cpu().numpy() for job in (step, reference))
    tolerance = TOLERANCES[problem.hidden.dtype]

    def case(factor: float) -> Case:
        at = problem.rows, problem.tokens
        return Case(name, *at, "the whole logits", lambda: factor * found, lambda: expected, tolerance)

    try:
        case(1 + 10 * tolerance).check()
    except DisagreementError:
        return case(1).check()
    raise SystemExit(f"{name}: a result {10 * tolerance:.0%} off passes the comparison")


# -- memory ------------------------------------------------------------------------------------------------------------
def peak(step: Step) -> int:
    """Most bytes that torch holds during a step beyond those before it and the gradients that it returns."""
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        returned = sum(gradient.nbytes for gradient in step())
        return torch.cuda.max_memory_allocated() - before - returned
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        returned = sum(gradient.nbytes for gradient in step())
    events = profile.profiler.kineto_results.events()  # every allocation of a tensor
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return int(np.cumsum([0] + [size for _, size in changes]).max()) - returned


# -- tables ------------------------------------------------------------------------------------------------------------
def rows(quick: bool) -> Iterator[dict[str, object]]:
    """Every loss at every vocabulary on the CPU, in float32."""
    for positions, tokens in QUICK if quick else FULL:
        yield from measured(Problem(positions, tokens), losses(tokens), 1 if quick else 3, time.process_time)


def measured(
    problem: Problem,
    chosen: dict[str, Loss],
    repeats: int,
    clock: Callable[[], float],
    peers: dict[str, Step] | None = None,
) -> Iterator[dict[str, object]]:
    """Check every step, then time them in turns; `peers` are timed beside ours."""
    steps = {name: problem.ours(loss) for name, loss in chosen.items()}
    errors = {
        name: agreement(name, step, problem.reference(name, chosen[name]), problem) for name, step in steps.items()
    }
    steps |= {"hard, torch on whole logits": problem.plain(), **(peers or {})}
    buffer = problem.rows * problem.tokens * problem.hidden.element_size()
    memory = {name: peak(step) / buffer for name, step in steps.items()}
    seconds = interleaved({name: _waiting(step) for name, step in steps.items()}, repeats, clock)
    for name in steps:
        yield _row(name, problem, seconds, memory, errors.get(name, float("nan")))


def _waiting(step: Step) -> Callable[[], None]:
    def run() -> None:
        step()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()

    return run


def _row(
    name: str, problem: Problem, seconds: dict[str, float], memory: dict[str, float], error: float
) -> dict[str, object]:
    of_hard, more = seconds[name] / seconds["hard"], memory[name] - memory["hard"]
    bound = name in RECORDS and problem.tokens >= BOUND_AT
    return {
        "case": name,
        "rows": problem.rows,
        "V": problem.tokens,
        "dtype": str(problem.hidden.dtype).removeprefix("torch."),
        "ms": 1e3 * seconds[name],
        "of_hard": of_hard,
        "of_torch": seconds[name] / seconds["hard, torch on whole logits"],
        "peak_buffers": memory[name],
        "more_than_hard": more,
        "error": error,
        "target": f"<= {TIME:g} x and {MEMORY:g} more" if bound else "",
        "reached": "" if not bound else ("yes" if of_hard <= TIME and more <= MEMORY else "no"),
    }


def show(line: dict[str, object]) -> dict[str, object]:
    """Print a line when it is finished."""
    target = f"; target {line['target']}: {line['reached']}" if line["target"] else ""
    print(
        f"{line['case']:28s} rows {line['rows']:5d}  V {line['V']:6d}  {line['ms']:9.2f} ms"
        f"  {line['of_hard']:6.3f} x hard  {line['of_torch']:6.3f} x torch's"
        f"  peak {line['peak_buffers']:5.2f} B·T·V  (error {line['error']:.1g}{target})",
        flush=True,
    )
    return line


# -- GPU ---------------------------------------------------------------------------------------------------------------
def on_device(device: str) -> Iterator[dict[str, object]]:
    """The same on a device, in bfloat16 on a GPU, beside Liger's fused linear losses where they are installed."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    problem = Problem(*DEVICE[device], device=device, dtype=dtype)
    yield from measured(problem, losses(problem.tokens), 5, time.perf_counter, liger(problem))


def liger(problem: Problem) -> dict[str, Step]:
    """Liger's fused linear cross-entropy and Jensen-Shannon; it needs Triton, so a CPU has none."""
    if problem.hidden.device.type != "cuda":
        print("liger-kernel needs a GPU: not compared")
        return {}
    try:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss
        from liger_kernel.transformers.fused_linear_jsd import LigerFusedLinearJSD
    except ImportError as missing:
        print(f"liger-kernel is not compared: {missing}")
        return {}
    hard, jsd = LigerFusedLinearCrossEntropyLoss(), LigerFusedLinearJSD(jsd_beta=0.5)
    at, teacher = (problem.hidden, problem.weight), (problem.states, problem.weight.detach())
    return {
        "hard, liger": problem.gradients(lambda: hard(problem.weight, problem.hidden, problem.labels)),
        "jsd, liger (teacher multiplied out)": problem.gradients(lambda: jsd(*at, *teacher, None)),
    }
