"""Progress of the stages, with the time left: bars on a terminal, a line per tenth in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Bars:
    """Where the stages report; this one stays silent."""

    def update(self, stage: str, done: float, total: float) -> None:
        """Set a stage's progress; the first call begins it."""

    def say(self, text: str) -> None:
        """Print a line of its own."""


class _Terminal(Bars):
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, int] = {}

    def update(self, stage: str, done: float, total: float) -> None:
        if stage not in self._bars:
            self._bars[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._bars[stage], completed=done, total=total)  # type: ignore[arg-type]

    def say(self, text: str) -> None:
        self._progress.console.print(text, highlight=False)


class _Log(Bars):
    """A line whenever another tenth of a stage is done; a log has no bar to redraw."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stages: dict[str, tuple[float, float, int]] = {}  # start, done at the start, tenths printed

    def update(self, stage: str, done: float, total: float) -> None:
        now, tenth = time.monotonic(), int(10 * done / total)
        start, first, printed = self._stages.setdefault(stage, (now, done, -1))
        if tenth == printed:
            return
        self._stages[stage] = (start, first, tenth)
        left = (now - start) / (done - first) * (total - done) if done > first else None
        rest = f", {left / 60:.1f} min left" if left else ""
        self.say(f"{stage}: {done:.0f} of {total:.0f}{rest}")

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)


@contextmanager
def bars(enabled: bool = True) -> Iterator[Bars]:
    """Progress on standard error; silent when `enabled` is False."""
    console = Console(stderr=True)
    if not enabled:
        yield Bars()
    elif not console.is_terminal:
        yield _Log(console)
    else:
        columns = (TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console) as progress:
            yield _Terminal(progress)
