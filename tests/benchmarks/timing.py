"""Interleaved medians in one process on one thread, and nothing timed before it agrees with its peer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

_LONG = 2.0  # seconds


class DisagreementError(AssertionError):
    """Ours and the peer's result differ by more than the case allows."""


@dataclass(frozen=True)
class Case:
    """One quantity computed by us and by a peer, on inputs that both close over.

    `ours` and `peer` return arrays that must agree within `tolerance`, relative to the largest entry; the reason for
    its size stands where the case is made.
    """

    name: str
    rows: int
    tokens: int
    peer_name: str
    ours: Callable[[], np.ndarray]
    peer: Callable[[], np.ndarray]
    tolerance: float
    peer_rows: int = 0  # rows the peer computes, if fewer: its time is scaled up
    oracle: Callable[[], np.ndarray] | None = None  # what ours must equal, where the timed peer computes something else
    repeats: int = 7
    target: float = 0.0  # least speedup, or, if negative, -(largest share of the forward KL step); 0: none

    def error(self) -> float:
        """Largest difference, relative to the largest entry."""
        expected = np.asarray((self.oracle or self.peer)(), dtype=np.float64)
        found = np.asarray(self.ours(), dtype=np.float64)[: len(expected)]
        if found.shape != expected.shape:
            raise DisagreementError(f"{self.name}: shapes {found.shape} and {expected.shape}")
        return float(abs(found - expected).max() / abs(expected).max())

    def check(self) -> float:
        """`error`, or `DisagreementError` if it is too large."""
        error = self.error()
        if not error <= self.tolerance:
            raise DisagreementError(
                f"{self.name} (rows={self.rows}, V={self.tokens}): differs from {self.peer_name} by {error:.2g} "
                f"> {self.tolerance:g}"
            )
        return error


@dataclass(frozen=True)
class Loop:
    """An iteration: `run(n)` makes n of them."""

    run: Callable[[int], object]
    few: int
    many: int


def interleaved(
    jobs: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Median seconds of each job; the jobs take turns, so that a slow minute of the machine hits all of them.

    Processor seconds, which on one thread are wall seconds less the time other people's processes had; a GPU needs
    the wall clock. The first run of a short job warms caches and does not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(repeats + 1):
        for name, job in jobs.items():
            if len(seconds[name]) < repeats:
                start = clock()
                job()
                elapsed = clock() - start
                if turn > 0 or elapsed >= _LONG:
                    seconds[name].append(elapsed)
    return {name: statistics.median(values) for name, values in seconds.items()}


def per_iteration(
    loops: dict[str, Loop], repeats: int, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Median seconds of one iteration of each loop: what `many` cost more than `few`, so that set-up cancels."""
    jobs = {}
    for name, loop in loops.items():
        jobs[f"{name} few"] = partial(loop.run, loop.few)
        jobs[f"{name} many"] = partial(loop.run, loop.many)
    times = interleaved(jobs, repeats, clock)
    return {
        name: (times[f"{name} many"] - times[f"{name} few"]) / (loop.many - loop.few) for name, loop in loops.items()
    }


def measure(case: Case, floor: Callable[[], object], repeats: int) -> dict[str, object]:
    """One line of the table: check, then time ours, the peer and the floor (forward KL, forward and backward)."""
    error = case.check()
    times = interleaved({"ours": case.ours, "peer": case.peer, "floor": floor}, repeats)
    peer = times["peer"] * (case.rows / case.peer_rows if case.peer_rows else 1)
    return line(case, error, times["ours"], peer, times["ours"] / times["floor"])


def line(case: Case, error: float, ours: float, peer: float, of_fkl: float) -> dict[str, object]:
    """A row of the table, from seconds."""
    reached = peer / ours >= case.target if case.target >= 0 else of_fkl <= -case.target
    return {
        "case": case.name,
        "rows": case.rows,
        "V": case.tokens,
        "ours_ms": 1e3 * ours,
        "peer": case.peer_name,
        "peer_ms": 1e3 * peer,
        "speedup": peer / ours,
        "of_fkl": of_fkl,
        "error": error,
        "target": _target(case.target),
        "reached": "" if case.target == 0 else ("yes" if reached else "no"),
    }


def _target(number: float) -> str:
    if number == 0:
        return ""
    return f">= {number:g} x" if number > 0 else f"<= {-number:g} FKL"
