"""Running claims: in this process, or in parallel with one chapter imported per job; nothing that fails is lost."""

import importlib
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from kdtheory import checkout
from kdtheory.ledger.claim import REGISTRY, Check, Claim, Definition, Registry
from kdtheory.ledger.evidence import Evidence, as_evidence
from kdtheory.ledger.proofs import proof
from kdtheory.ledger.verdict import NOT_INSTALLED, Verdict, decide

Outcome = Literal["caught", "passed", "undecided", "raised"]
_PRELOADED = (
    "numpy",
    "scipy",
    "sympy",
    "mpmath",
    "torch",
)  # what nearly every claim imports, loaded once for all workers


@dataclass(frozen=True)
class ControlResult:
    """What became of a nearby statement that must fail; anything but "caught" means a broken check."""

    says: str
    outcome: Outcome
    evidence: tuple[Evidence, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class ClaimResult:
    """What a run found about one claim. A definition has neither expected nor computed verdict."""

    id: str
    statement: str
    source: str
    rows: tuple[str, ...] = ()
    expected: Verdict | None = None
    verdict: Verdict | None = None
    reason: str = ""
    evidence: tuple[Evidence, ...] = ()
    controls: tuple[ControlResult, ...] = ()
    seconds: float = 0.0
    error: str = ""

    @property
    def chapter(self) -> str:
        """The topic before the dot of the id."""
        return self.id.split(".")[0]

    @property
    def not_installed(self) -> bool:
        """Whether the claim is open only because this installation lacks proofs or stored runs."""
        return self.verdict is Verdict.OPEN and self.reason.startswith(NOT_INSTALLED) and checkout.root() is None

    @property
    def failures(self) -> tuple[str, ...]:
        """Why this result makes a run fail; empty if all is well."""
        found = []
        if self.error:
            found.append(f"raised {self.error.strip().splitlines()[-1]}")
        elif self.verdict is not self.expected and not self.not_installed:
            found.append(f"verdict is {self.verdict}, recorded is {self.expected}: {self.reason}")
        found += [f"check failed: {item.says}" for item in self.evidence if item.ok is False and _must_hold(item)]
        for control in self.controls:
            if control.outcome == "raised":
                found.append(f"control raised {control.error.strip().splitlines()[-1]}")
            elif control.outcome != "caught":
                found.append(f"broken check: control {control.outcome}: {control.says}")
        return tuple(found)


def _must_hold(item: Evidence) -> bool:
    """An experiment that comes out against its hypothesis is a result, not a failed check."""
    return item.kind != "experiment"


def run_claim(item: Claim | Definition) -> ClaimResult:
    """Run one claim and its controls in this process; exceptions end up in the result."""
    if isinstance(item, Definition):
        return ClaimResult(item.id, item.statement, item.source, item.rows)
    started = time.perf_counter()
    evidence: tuple[Evidence, ...] = ()
    verdict, reason, error = Verdict.OPEN, "the check raised an exception", ""
    try:
        evidence = as_evidence(item.check()) + ((proof(item.proof),) if item.proof else ())
        verdict, reason = decide(evidence, scope=item.scope, condition=item.condition)
    except Exception:
        error = traceback.format_exc()
    controls = tuple(_run_control(item, check) for check in item.controls) or (
        ControlResult("the claim has no control", "undecided"),
    )
    seconds = time.perf_counter() - started
    return ClaimResult(
        item.id,
        item.statement,
        item.source,
        item.rows,
        item.expected,
        verdict,
        reason,
        evidence,
        controls,
        seconds,
        error,
    )


def _run_control(item: Claim, check: Check) -> ControlResult:
    says = " ".join((check.__doc__ or "control").split())
    try:
        evidence = as_evidence(check())
    except Exception:
        return ControlResult(says, "raised", error=traceback.format_exc())
    if any(found.ok is False for found in evidence):
        return ControlResult(says, "caught", evidence)
    return ControlResult(says, "undecided" if any(found.ok is None for found in evidence) else "passed", evidence)


class UnknownNameError(LookupError):
    """A name that is neither a chapter nor an id; `matches` holds names like it."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.matches = get_close_matches(name, list(known), n=5, cutoff=0.5)
        hint = f"; did you mean {' or '.join(self.matches)}?" if self.matches else ""
        super().__init__(f"no chapter or claim is called {name!r}{hint}")


Advance = Callable[[ClaimResult], None]
Progress = Callable[[int], AbstractContextManager[Advance]]


def run(
    selection: Iterable[str] = (),
    *,
    registry: Registry | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[ClaimResult]:
    """Run claims and return their results in the order of registration.

    Parameters
    ----------
    selection
        Chapters and ids; nothing selects everything.
    registry
        Claims to run in this process. By default those of `kdtheory.claims`, in parallel.
    workers
        Number of processes, by default as many as there are cores; 1 runs in this process.
    progress
        From the number of claims, a context that yields what to call with each result as it arrives.

    Raises
    ------
    UnknownNameError
        If a selected name is neither a chapter nor an id.
    RegistrationError
        If a claim lacks a control, or uses an unknown claim.
    """
    workers = workers or os.cpu_count() or 1
    context = _start_server() if registry is None and workers > 1 else None
    if registry is None:
        from kdtheory import claims  # here, because claims import the ledger

        registry = claims.load()
    registry.validate()
    items = select(registry, selection)
    results: dict[str, ClaimResult] = {}
    stream = _in_parallel(items, workers, context) if context and len(items) > 1 else map(run_claim, items)
    with (progress or _silent)(len(items)) as advance:
        for result in stream:
            results[result.id] = result
            advance(result)
    return [results[item.id] for item in items]


def _silent(total: int) -> AbstractContextManager[Advance]:
    return nullcontext(lambda result: None)


def select(registry: Registry, selection: Iterable[str]) -> list[Claim | Definition]:
    """Claims and definitions named by id or chapter, in the order of registration."""
    names = list(selection)
    known = {*registry.ids, *(item.chapter for item in registry)}
    for name in names:
        if name not in known:
            raise UnknownNameError(name, known)
    return [item for item in registry if not names or item.id in names or item.chapter in names]


def _start_server() -> Any:
    """Start the process that workers are forked from; it imports the heavy libraries while we find the claims."""
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        from multiprocessing import forkserver

        before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = "1"  # read by the libraries when the server imports them
        context.set_forkserver_preload(list(_PRELOADED))
        forkserver.ensure_running()
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
    return context


def _in_parallel(items: Sequence[Claim | Definition], workers: int, context: Any) -> Iterator[ClaimResult]:
    """Results as they arrive. When a worker dies (out of memory, a crash in C), those it left run again one by one."""
    left: list[Claim | Definition] = []
    pending: dict[Future[ClaimResult], Claim | Definition] = {}
    with ProcessPoolExecutor(min(workers, len(items)), mp_context=context, initializer=_one_thread) as pool:
        for item in items:
            if isinstance(item, Definition):  # nothing to run
                yield run_claim(item)
                continue
            try:
                pending[pool.submit(_run_by_name, item.check.__module__, item.id)] = item
            except BrokenProcessPool:
                left.append(item)
        for future in as_completed(pending):
            try:
                yield future.result()
            except BrokenProcessPool:
                left.append(pending[future])
            except Exception:
                yield _lost(pending[future], traceback.format_exc())
    if len(items) == 1:
        yield from (_lost(item, "the process that ran this claim died") for item in left)
    else:
        for item in left:
            yield from _in_parallel([item], 1, context)


def _lost(item: Claim | Definition, error: str) -> ClaimResult:
    expected = item.expected if isinstance(item, Claim) else None
    return ClaimResult(item.id, item.statement, item.source, item.rows, expected, Verdict.OPEN, error=error)


def _run_by_name(module: str, id: str) -> ClaimResult:
    importlib.import_module(module)
    return run_claim(REGISTRY[id])


def _one_thread() -> None:
    """Two processes with one thread each are faster than one with two; two with two stall."""
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
