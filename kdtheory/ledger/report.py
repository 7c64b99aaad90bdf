"""Results of a run for people (tables per chapter, one claim in full) and for programs (JSON)."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from kdtheory.ledger.claim import Claim, Definition
from kdtheory.ledger.evidence import Evidence
from kdtheory.ledger.runner import ClaimResult
from kdtheory.ledger.verdict import Verdict

_STYLE = {
    Verdict.PROVED: "green",
    Verdict.PROVED_IF: "green",
    Verdict.CORRECTED: "yellow",
    Verdict.REFUTED: "red",
    Verdict.SUPPORTED: "cyan",
    Verdict.UNSUPPORTED: "magenta",
    Verdict.UNDECIDED: "dim",
    Verdict.OPEN: "dim",
}
_MARK = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[dim]?[/]"}


def to_json(results: Iterable[ClaimResult]) -> dict[str, Any]:
    """The results as `{"claims": [{"id", "chapter", "statement", "source", "verdict", "expected", "evidence", …}]}`."""
    return {"claims": [_claim_json(result) for result in results]}


def _claim_json(result: ClaimResult) -> dict[str, Any]:
    return {
        "id": result.id,
        "chapter": result.chapter,
        "statement": result.statement,
        "source": result.source,
        "verdict": result.verdict and result.verdict.value,
        "expected": result.expected and result.expected.value,
        "evidence": [item.to_json() for item in result.evidence],
        "control": [
            {
                "says": control.says,
                "outcome": control.outcome,
                "evidence": [item.to_json() for item in control.evidence],
                "error": control.error,
            }
            for control in result.controls
        ],
        "seconds": round(result.seconds, 3),
        "rows": list(result.rows),
        "reason": result.reason,
        "failures": list(result.failures),
        "error": result.error,
    }


def save_json(results: Iterable[ClaimResult], path: Path) -> None:
    """Write `to_json` to a file, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(to_json(results), indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )


@contextmanager
def progress(console: Console, total: int) -> Iterator[Callable[[ClaimResult], None]]:
    """A bar with the time left; yields what to call with each result."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("claims", total=total)

        def advance(result: ClaimResult) -> None:
            bar.update(task, advance=1, description=result.id)

        yield advance


def print_results(console: Console, results: Sequence[ClaimResult]) -> None:
    """One table per chapter, definitions left out; then failures, the tally and the ten slowest."""
    claims = [result for result in results if result.expected is not None]
    for chapter in dict.fromkeys(result.chapter for result in claims):
        console.print(_chapter_table(chapter, [result for result in claims if result.chapter == chapter]))
    for result in claims:
        for failure in result.failures:
            console.print(f"[red]FAILED[/] [bold]{result.id}[/]: {escape(failure)}", soft_wrap=True)
        if result.error:
            console.print(escape(result.error.rstrip()), style="dim", soft_wrap=True)
    if len(claims) > 1:
        slowest = sorted(claims, key=lambda result: -result.seconds)[:10]
        console.print("slowest: " + ", ".join(f"{result.id} {result.seconds:.1f} s" for result in slowest), style="dim")
    console.print(_tally(claims, len(results) - len(claims)))


def _chapter_table(chapter: str, claims: Sequence[ClaimResult]) -> Table:
    table = Table(title=chapter, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("claim", overflow="fold", min_width=16)
    table.add_column("verdict", overflow="fold", min_width=9)
    table.add_column("evidence", min_width=12)
    table.add_column("control", overflow="fold", min_width=7)
    table.add_column("s", justify="right", min_width=4)
    for result in claims:
        table.add_row(
            result.id.removeprefix(f"{chapter}."),
            _verdict(result),
            _kinds(result.evidence),
            _controls(result),
            f"{result.seconds:.1f}",
        )
    return table


def _verdict(result: ClaimResult) -> str:
    if result.verdict is None:
        return "definition"
    shown = f"[{_STYLE[result.verdict]}]{result.verdict}[/]"
    if result.verdict is result.expected:
        return shown
    if result.not_installed:
        return f"{shown}[dim], not installed; recorded {result.expected}[/]"
    return f"{shown}[red], recorded {result.expected}[/]"


def _kinds(evidence: Sequence[Evidence]) -> str:
    counts = Counter(item.kind for item in evidence)
    return ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in counts.items())


def _controls(result: ClaimResult) -> str:
    broken = [control.outcome for control in result.controls if control.outcome != "caught"]
    if broken:
        return f"[red]{', '.join(broken)}[/]"
    return f"{len(result.controls)} caught" if len(result.controls) > 1 else "caught" if result.controls else ""


def _tally(claims: Sequence[ClaimResult], definitions: int) -> str:
    counts = Counter(result.verdict for result in claims)
    parts = [f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict]]
    failed = sum(bool(result.failures) for result in claims)
    missing = sum(result.not_installed for result in claims)
    parts += [f"{definitions} definitions"] if definitions else []
    parts += [f"{missing} with evidence not installed"] if missing else []
    ending = f"[red]{failed} failed[/]" if failed else "[green]none failed[/]"
    return f"{len(claims)} claims: {', '.join(parts)}; {ending}"


def print_claim(console: Console, item: Claim | Definition, result: ClaimResult) -> None:
    """One claim in full: statement, source, verdict, evidence, controls, place of the proof."""
    console.print(f"[bold]{result.id}[/]  {_verdict(result)}")
    fields = {"statement": result.statement, "source": result.source, "rows": ", ".join(result.rows)}
    if isinstance(item, Claim):
        fields |= {"domain": item.domain, "scope": item.scope, "condition": item.condition}
        fields |= {
            "uses": ", ".join(item.uses),
            "because": result.reason,
            "proof": item.proof.path if item.proof else "",
        }
    for name, text in fields.items():
        if text:
            console.print(f"  {name:<10}{escape(text)}", soft_wrap=True, highlight=False)
    for found in result.evidence:
        console.print(f"  {_MARK[found.ok]} {found.kind}, {found.role}: {escape(found.says)}", soft_wrap=True)
        for key in ("counterexample", "tolerance", "because", "oracle"):
            if key in found.data:
                console.print(f"      {key}: {escape(_short(found.data[key]))}", soft_wrap=True, style="dim")
    for control in result.controls:
        console.print(f"  control {control.outcome}: {escape(control.says)}", soft_wrap=True)
    for failure in result.failures:
        console.print(f"  [red]FAILED[/] {escape(failure)}", soft_wrap=True)
    if result.error:
        console.print(escape(result.error.rstrip()), style="dim", soft_wrap=True)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} = {item}" for key, item in value.items())
    return str(value)


def print_list(console: Console, items: Sequence[Claim | Definition], coverage: Mapping[str, tuple[int, int]]) -> None:
    """Claims with their recorded verdicts, then coverage of the sources: chapter -> (rows settled, rows)."""
    table = Table("claim", "recorded", "statement", box=None)
    for item in items:
        recorded = f"[{_STYLE[item.expected]}]{item.expected}[/]" if isinstance(item, Claim) else "[dim]definition[/]"
        table.add_row(item.id, recorded, escape(item.statement))
    console.print(table)
    settled = ", ".join(f"{chapter} {done}/{total}" for chapter, (done, total) in coverage.items())
    console.print(f"statements of the sources settled: {settled}", soft_wrap=True)
