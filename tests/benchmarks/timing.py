"""Interleaved medians in one process on one thread, and nothing timed before it agrees with its peer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


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

    def error(self) -> float:
        """Largest difference, relative to the largest entry."""
        expected = np.asarray(self.peer(), dtype=np.float64)
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


def interleaved(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each job; the jobs take turns, so that a slow minute of the machine hits all of them."""
    for job in jobs.values():
        job()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(case: Case, floor: Callable[[], object], repeats: int) -> dict[str, object]:
    """One line of the table: check, then time ours, the peer and the floor (forward KL, forward and backward)."""
    error = case.check()
    times = interleaved({"ours": case.ours, "peer": case.peer, "floor": floor}, repeats)
    peer = times["peer"] * (case.rows / case.peer_rows if case.peer_rows else 1)
    return {
        "case": case.name,
        "rows": case.rows,
        "V": case.tokens,
        "ours_ms": 1e3 * times["ours"],
        "peer": case.peer_name,
        "peer_ms": 1e3 * peer,
        "speedup": peer / times["ours"],
        "of_fkl": times["ours"] / times["floor"],
        "error": error,
    }
