"""Batched Sinkhorn against POT: end to end at a verified marginal error, per iteration, growth and memory.

POT is called the way its users call it: float64, one pair after the other. Nothing is timed before its value agrees.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache

import numpy as np
import ot
import torch

from kdtheory import TokenCost
from kdtheory.transport.entropic import kernels, scaling
from kdtheory.transport.entropic.api import SinkhornResult, sinkhorn
from tests.benchmarks import timing
from tests.benchmarks.bench_losses import logits
from tests.benchmarks.bench_transport import distributions, embeddings
from tests.benchmarks.timing import Case, DisagreementError, Loop

EPSILON = 0.05
TOLERANCE = 1e-5  # L1 error of the two marginals together, verified in float64 for both sides
FULL = [(256, 1000), (256, 4096)]
QUICK = [(16, 128)]
PEER_ROWS = {1000: 16, 4096: 4}  # POT needs up to half a minute a row
LOG_TARGET, TARGET, END_TARGET, SHARE_TARGET = 400.0, 12.0, 60.0, 0.75
MEMORY_BOUND = 6.0  # times (V² + B V) float64 numbers; B V² would be hundreds


@lru_cache(maxsize=2)
def problem(rows: int, tokens: int) -> tuple[np.ndarray, np.ndarray, TokenCost, np.ndarray]:
    """(p, q, cost, C): Gaussian logits of scale 4, student's noise 1, clustered embeddings, largest cost 1."""
    p, q = distributions(logits(rows, tokens))
    cost = TokenCost.embedding(embeddings(tokens))
    return p, q, cost, cost.matrix().numpy()


def solved(rows: int, tokens: int, form: str) -> SinkhornResult:
    p, q, cost, _ = problem(rows, tokens)
    return sinkhorn(p, q, cost, EPSILON, functional="sharp", form=form, tol=TOLERANCE, precision="float32")


kept = lru_cache(maxsize=4)(solved)


@lru_cache(maxsize=2)
def chosen(rows: int, tokens: int) -> np.ndarray:
    """The rows POT solves: from the easiest to the hardest of the batch, one from the middle of each equal part."""
    order, few = np.argsort(np.asarray(kept(rows, tokens, "full").iterations)), min(rows, PEER_ROWS.get(tokens, 4))
    return order[((np.arange(few) + 0.5) * rows / few).astype(int)]


def reduced(p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The two surpluses, normalised, and the mass that was taken out."""
    surplus, deficit = (p - q).clip(0), (q - p).clip(0)
    return surplus / surplus.sum(), deficit / deficit.sum(), float(surplus.sum())


# -- POT ---------------------------------------------------------------------------------------------------------------
def pot_plan(
    p: np.ndarray, q: np.ndarray, C: np.ndarray, iterations: int, solver: Callable = ot.bregman.sinkhorn_knopp
) -> np.ndarray:
    """POT's plan after a number of iterations, on the tokens that hold mass."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "did not converge": the number of iterations is the point
        return solver(p, q, C, EPSILON, numItermax=iterations, stopThr=0)


def iterations_needed(p: np.ndarray, q: np.ndarray, C: np.ndarray) -> int:
    """Fewest iterations, in steps of ten, after which POT's plan is within the tolerance: found before it is timed."""
    K, u = np.exp(C / -EPSILON), np.full(len(p), 1 / len(p))
    for iteration in range(1, 20_001):
        v = q / (K.T @ u)
        u = p / (K @ v)
        if iteration % 10 == 0 and abs(v * (K.T @ u) - q).sum() <= 0.9 * TOLERANCE:
            return iteration
    raise DisagreementError("POT's iteration does not reach the tolerance in 20000 iterations")


class PotRows:
    """POT on some rows, full or reduced problem: sharp values, and the time of their iterations alone."""

    def __init__(self, rows: int, tokens: int, form: str) -> None:
        p, q, _, C = problem(rows, tokens)
        self.pairs = []
        for i in chosen(rows, tokens):
            a, b, mass = reduced(p[i], q[i]) if form == "reduced" else (p[i], q[i], 1.0)
            used_a, used_b = a > 0, b > 0  # POT divides by the masses
            own = np.ascontiguousarray(C[np.ix_(used_a, used_b)])
            self.pairs.append((a[used_a], b[used_b], own, mass, iterations_needed(a[used_a], b[used_b], own)))

    def run(self) -> None:
        """What is timed."""
        for p, q, C, _, iterations in self.pairs:
            pot_plan(p, q, C, iterations)

    @cached_property
    def values(self) -> np.ndarray:
        """mass · ⟨Γ, C⟩ of each row; DisagreementError if a plan is not within the tolerance."""
        found = []
        for p, q, C, mass, iterations in self.pairs:
            plan = pot_plan(p, q, C, iterations)
            error = float(abs(plan.sum(1) - p).sum() + abs(plan.sum(0) - q).sum())
            if not error <= TOLERANCE:
                raise DisagreementError(f"POT's plan misses its marginals by {error:.2g} > {TOLERANCE:g}")
            found.append(mass * float((plan * C).sum()))
        return np.array(found)


# -- end to end --------------------------------------------------------------------------------------------------------
def check_marginals(rows: int, tokens: int, form: str) -> None:
    """Ours, from the potentials alone, in float64: the marginals of p_i e^{f_i/ε} K_ij e^{g_j/ε} q_j."""
    p, q, _, C = problem(rows, tokens)
    f, g = kept(rows, tokens, form).potentials
    K = np.exp(-C / EPSILON)
    for i in chosen(rows, tokens):
        a, b, _ = reduced(p[i], q[i]) if form == "reduced" else (p[i], q[i], 1.0)
        u, v = a * np.exp(np.asarray(f[i]) / EPSILON), b * np.exp(np.asarray(g[i]) / EPSILON)
        error = float(abs(u * (K @ v) - a).sum() + abs(v * (K.T @ u) - b).sum())
        if not error <= TOLERANCE:
            raise DisagreementError(f"{form} form, row {i}: marginals missed by {error:.2g} > {TOLERANCE:g}")


def cases(sizes: list[tuple[int, int]]) -> Iterator[Case]:
    """⟨Γ, C⟩ from a plan within 1e-5 of its marginals, from distributions to value, in both forms.

    The reduced form's value is compared with POT's on the reduced problem, and timed beside POT's on either: on the
    whole problem, as its users call it, and on the reduced one, which is smaller and easier.
    """
    for rows, tokens in sizes:
        whole, part = PotRows(rows, tokens, "full"), PotRows(rows, tokens, "reduced")
        yield end_to_end("full", rows, tokens, whole, whole, "POT sinkhorn loop")
        yield end_to_end("reduced", rows, tokens, whole, part, "POT sinkhorn loop")
        yield end_to_end("reduced", rows, tokens, part, part, "POT sinkhorn loop, reduced")


def end_to_end(form: str, rows: int, tokens: int, timed: PotRows, same: PotRows, name: str) -> Case:
    """One comparison. 1e-4: marginal errors of 1e-5 times costs of up to 1, relative to values of about a tenth."""
    check_marginals(rows, tokens, form)
    at = chosen(rows, tokens)
    return Case(
        f"sinkhorn, {form}, to 1e-5", rows, tokens, name,
        lambda: np.asarray(solved(rows, tokens, form).value)[at], timed.run,
        tolerance=1e-4, peer_rows=len(at), oracle=lambda: same.values, repeats=3 if tokens < 4096 else 1,
        target=END_TARGET * (tokens == 4096 and form == "reduced" and timed is not same),
    )  # fmt: skip


# -- per iteration -----------------------------------------------------------------------------------------------------
def own_loop(
    rows: int, tokens: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> Callable[[int], object]:
    """`run(n)`: n over-relaxed sweeps of all rows, as `kd.sinkhorn` makes them."""
    p, q, cost, _ = problem(rows, tokens)
    kernel = kernels.shared(cost, EPSILON, torch.device("cpu"), torch.float32)
    log_p, log_q = (torch.from_numpy(x).log().float() for x in (p, q))
    return lambda n: scaling.solve(kernel, log_p, log_q, 0.0, n)


def pot_loop(rows: int, tokens: int, solver: Callable) -> Callable[[int], object]:
    """`run(n)`: n iterations of one row."""
    p, q, _, C = problem(rows, tokens)
    return lambda n: pot_plan(p[0], q[0], C, n, solver)


def product_loop(rows: int, tokens: int) -> Callable[[int], object]:
    """`run(n)`: n products (B, V) @ (V, V) in float32: the machine's own rate."""
    left, right = torch.rand(rows, tokens), torch.rand(tokens, tokens)

    def run(n: int) -> None:
        for _ in range(n):
            left @ right

    return run


def per_iteration(quick: bool, rows: int, tokens: int) -> Iterator[dict[str, object]]:
    """One sweep of the whole batch against one iteration of POT, per pair; and against two bare matrix products.

    To be timed after `cases` of the same size, which compare the results.
    """
    loops = {
        "ours": Loop(own_loop(rows, tokens), 2, 10 + 200 * quick),
        "POT sinkhorn": Loop(pot_loop(rows, tokens, ot.bregman.sinkhorn_knopp), 10, 110),
        "POT sinkhorn_log": Loop(pot_loop(rows, tokens, ot.bregman.sinkhorn_log), 1, 5 + 50 * quick),
        "2 matrix products": Loop(product_loop(rows, tokens), 1, 9 + 1000 * quick),
    }
    times = timing.per_iteration(loops, 1 if quick else 3)
    large = tokens == 4096
    targets = {"POT sinkhorn": TARGET, "POT sinkhorn_log": LOG_TARGET, "2 matrix products": SHARE_TARGET}
    for name, target in targets.items():
        peer = 2 * times[name] if "products" in name else rows * times[name]
        case = Case("sinkhorn, per iteration", rows, tokens, name, tuple, tuple, 0.0, target=target * large)
        yield timing.line(case, 0.0, times["ours"], peer, float("nan"))


# -- growth and memory -------------------------------------------------------------------------------------------------
def growth(quick: bool) -> Iterator[dict[str, object]]:
    """Time of an iteration against B and V: per pair it falls with B until the product is busy, and grows like V²."""
    for tokens in (64, 128) if quick else (512, 1024, 2048, 4096):
        for rows in (1, 4) if quick else (1, 16, 64, 256):
            many = 2 + int(min(200, max(4, 4e10 / (4 * rows * tokens**2))))
            loops = {
                "ours": Loop(own_loop(rows, tokens), 2, many),
                "product": Loop(product_loop(rows, tokens), 1, many),
            }
            times = timing.per_iteration(loops, 1 if quick else 3)
            yield {
                "rows": rows,
                "V": tokens,
                "ms_per_iteration": 1e3 * times["ours"],
                "ms_per_pair": 1e3 * times["ours"] / rows,
                "gflops": 4e-9 * rows * tokens**2 / times["ours"],
                "share_of_product_rate": 2 * times["product"] / times["ours"],
            }


def memory(quick: bool) -> Iterator[dict[str, object]]:
    """Peak memory of one call beyond its input, in a process of its own, in units of V² + B V float64 numbers."""
    for rows, tokens in [(64, 256)] if quick else [(16, 1024), (256, 1024), (16, 4096), (256, 4096)]:
        command = [sys.executable, "-m", "tests.benchmarks.peak", str(rows), str(tokens)]
        extra = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)["extra_bytes"]
        unit = 8 * (tokens**2 + rows * tokens)
        if not quick and extra > MEMORY_BOUND * unit:
            raise DisagreementError(f"sinkhorn (rows={rows}, V={tokens}) takes {extra / unit:.1f} x (V² + B V) numbers")
        yield {
            "rows": rows,
            "V": tokens,
            "extra_mib": extra / 2**20,
            "of_v2_plus_bv": extra / unit,
            "of_bv2": extra / (8 * rows * tokens**2),
        }


def show(line: dict[str, object]) -> dict[str, object]:
    """Print a line of `growth` or `memory`."""
    print("  ".join(f"{key} {value:.4g}" for key, value in line.items()), flush=True)
    return line
