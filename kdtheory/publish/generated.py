"""Blocks of Markdown that are written by evidence, never by hand.

A block stands between `<!-- generated:NAME -->` and `<!-- /generated -->`, in README.md or in a chapter of proofs/.
`python -m kdtheory.publish.generated` (part of `make figures`) rewrites every block; a test fails where one differs
from what the stored evidence says.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from kdtheory import checkout, figures
from kdtheory.figures import style, tables, text_data
from kdtheory.ledger import Verdict
from kdtheory.publish import decisions

_BLOCK = re.compile(r"(<!-- generated:([a-z0-9_ :-]+) -->\n)(.*?)(<!-- /generated -->)", re.DOTALL)
_TABLE_ROW = re.compile(r"^\s*\|.*\|\s*$")
_MEASURED = re.compile(
    r"(?<![\w.])[-+−]?\d+\.\d+|\b(PROVED|PROVED-IF|CORRECTED|REFUTED|SUPPORTED|UNSUPPORTED|UNDECIDED)\b"
)

_CONFIRMATORY = "confirmatory"

Writer = Callable[[Path, str], str]
"""(data folder, argument after the second colon of the block's name) -> Markdown."""
BLOCKS: dict[str, Writer] = {}


def block(name: str) -> Callable[[Writer], Writer]:
    """Register a function as the writer of the blocks of this name (decorator)."""

    def register(writer: Writer) -> Writer:
        BLOCKS[name] = writer
        return writer

    return register


def pages(root: Path) -> list[Path]:
    """The files that may hold blocks."""
    return [root / "README.md", *sorted((root / "proofs").glob("*.md"))]


def render(text: str, data: Path) -> str:
    """The text with every block written anew.

    Raises
    ------
    ValueError
        If a block has an unknown name, or is opened and not closed.
    """
    if text.count("<!-- generated:") != len(_BLOCK.findall(text)):
        raise ValueError("a generated block is not closed, or its name is not made of a-z, 0-9, _, '-', ':' and spaces")
    return _BLOCK.sub(lambda found: f"{found[1]}{_write(found[2], data)}\n{found[4]}", text)


def _write(name: str, data: Path) -> str:
    kind, _, argument = name.partition(":")
    if kind not in BLOCKS:
        raise ValueError(f"no generated block is called {kind!r}; known: {', '.join(sorted(BLOCKS))}")
    return BLOCKS[kind](data, argument).rstrip("\n")


def update(root: Path, data: Path | None = None) -> list[Path]:
    """Rewrite the blocks of README.md and the chapters; returns the files that changed."""
    changed = []
    for page in pages(root):
        if not page.exists():
            continue
        text = page.read_text(encoding="utf-8")
        fresh = render(text, data or root / "figures" / "data")
        if fresh != text:
            page.write_text(fresh, encoding="utf-8")
            changed.append(page)
    return changed


def typed_by_hand(text: str) -> list[str]:
    """Table rows outside any block that hold a decimal number or a verdict: they belong into a block."""
    bare = _BLOCK.sub("", text)
    return [line for line in bare.splitlines() if _TABLE_ROW.match(line) and _MEASURED.search(line)]


# -- the blocks ------------------------------------------------------------------------------------------------------
@block("verdicts")
def verdict_table(data: Path, chapter: str) -> str:
    """Claims with source and verdict; of one chapter, in the order of its text, if it is named."""
    found = figures.load_data("verdicts", data)
    if chapter:
        text = _BLOCK.sub("", "".join(path.read_text(encoding="utf-8") for path in _chapters() if chapter in path.stem))
        found = found[found["chapter"] == chapter]
        found = found.sort_values("id", kind="stable", key=lambda ids: ids.map(lambda name: text.find(f"`{name}`")))
    if found.empty:
        raise ValueError(f"generated:verdicts: no claim of chapter {chapter!r} in {data / 'verdicts.json'}")
    columns = {"claim": [f"`{name}`" for name in found["id"]], "source": found["source"], "verdict": found["verdict"]}
    return tables.to_markdown(pd.DataFrame(columns))


@block("verdict-table")
def verdict_overview(data: Path, _: str) -> str:
    """Chapter by chapter: how many claims have which verdict."""
    found = figures.load_data("verdicts", data)
    counts = pd.crosstab(found["chapter"], found["verdict"])
    verdicts = [str(verdict) for verdict in Verdict if verdict in counts.columns]
    chapters = {name.partition("_")[2]: name for name in sorted(path.stem for path in _chapters())}
    rows = [
        {"chapter": f"[{name[:2]} {topic}](proofs/{name}.md)", **{word: counts.loc[topic, word] for word in verdicts}}
        for topic, name in chapters.items()
        if topic in counts.index
    ]
    return tables.to_markdown(pd.DataFrame(rows))


def _chapters() -> list[Path]:
    return list((checkout.required() / "proofs").glob("*.md"))


block("decision-table")(decisions.to_markdown)


@block("gradients-table")
def gradient_table(data: Path, _: str) -> str:
    """Definition, slope and logit gradient of every divergence, as derived; no stored data."""
    from kdtheory.divergences import ALL

    losses: tuple[Any, ...] = ALL
    rows = [
        {
            "loss": style.title(loss.name),
            "$D(p, q)$": _inline(loss.latex("definition")),
            r"$\partial D / \partial q_i$": _inline(loss.latex("slope").split(r" ,\quad")[0]),
            r"$\partial D / \partial z_i$": _inline(loss.latex("logits").split(r" ,\quad")[0]),
        }
        for loss in losses
    ]
    return tables.to_markdown(pd.DataFrame(rows))


def _inline(formula: str) -> str:
    r"""Between dollars, without bars, which end a table's cell, and without \operatorname, which GitHub refuses."""
    for found, written in (
        (r"\left|", r"\left\lvert "),
        (r"\right|", r"\right\rvert "),
        (r"\operatorname", r"\mathrm"),
    ):
        formula = formula.replace(found, written)
    return f"${formula}$"


@block("students-decisions")
def student_decisions(data: Path, words: str) -> str:
    """Loss × metric: decision against forward KL.

    Of some metrics if they are named; of the losses with the most seeds if one word is ``confirmatory``.
    """
    rows = figures.load_data("students_metrics", data)
    rows = rows[rows["reference"] == text_data.REFERENCE]
    if _CONFIRMATORY in words.split():
        rows = text_data.with_most_seeds(rows)
    chosen = [word for word in words.split() if word != _CONFIRMATORY] or list(dict.fromkeys(rows["metric"]))
    if unknown := sorted(set(chosen) - set(rows["metric"])):
        raise ValueError(
            f"generated:students-decisions: no metric is called {unknown[0]!r}; known: "
            f"{', '.join(dict.fromkeys(rows['metric']))}, and the word {_CONFIRMATORY!r}"
        )
    wide = rows.pivot(index="loss", columns="metric", values="decision").loc[list(dict.fromkeys(rows["loss"])), chosen]
    same = rows["seeds"].nunique() == 1
    short = wide.map(lambda decision: decision.removeprefix("pilot: ") if same else decision)
    short = short.rename(columns=style.METRIC_NAMES)
    short.insert(0, "loss", [style.title(name) for name in wide.index])
    return tables.to_markdown(short) + f"\n\n{_how(data, rows['seeds'])}"


def _how(data: Path, counts: pd.Series) -> str:
    facts = students_provenance(data)
    seeds = text_data.words_for_seeds(counts)
    steps, vocabulary = facts["settings"]["steps"], facts["settings"]["vocabulary"]
    return (
        f"Loss minus forward KL on held-out text, `{facts['settings']['name']}` profile, {seeds}, "
        f"{steps} steps after a shared warm start, {vocabulary} tokens, device: {', '.join(facts['device'])}."
    )


def students_provenance(data: Path) -> dict:
    """Provenance of the stored run of the students."""
    from kdtheory.students import published

    return published.load(data / "runs" / "students").provenance


@block("students-speed")
def student_speed(data: Path, _: str) -> str:
    """Steps per second of each loss, by processor time, and relative to forward KL."""
    cost = students_provenance(data)["cost"]
    rows = [
        {
            "loss": style.title(name),
            "steps per second": row["steps_per_second"],
            "relative to forward KL": row["relative_to_fkl"],
        }
        for name, row in cost.items()
    ]
    return tables.to_markdown(
        pd.DataFrame(rows).map(lambda value: f"{value:.2f}" if isinstance(value, float) else value)
    )


@block("students-convergence")
def student_convergence(data: Path, _: str) -> str:
    """Which losses have reached their plateau, and how far the last quarter of the steps still moved them."""
    from kdtheory.students import published

    checks = published.load(data / "runs" / "students").decisions["convergence"]
    rows = [
        {
            "loss": style.title(check["loss"]),
            "share of the change in the last quarter": f"{check['share']:.3f}",
            "relative change": f"{check['change']:.4f}",
            "plateau": "yes" if check["converged"] else "no",
        }
        for check in checks
    ]
    return tables.to_markdown(pd.DataFrame(rows))


@block("students-setting")
def student_setting(data: Path, _: str) -> str:
    """What the stored run stands on: models, seeds, corpus, device, versions, commit."""
    facts = students_provenance(data)
    settings = facts["settings"]
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    lines = [
        f"- command: `{facts['command']}`, commit `{facts['commit'][:12]}`, device {', '.join(facts['device'])}",
        f"- corpus: {settings['corpus']}, sha256 `{facts['corpus_sha256'][:16]}`; {settings['vocabulary']} tokens, "
        f"{facts['bytes_per_token']:.2f} bytes each; blocks of {settings['length']}",
        f"- teacher {facts['teacher']['parameters']:,} parameters; student {facts['student_parameters']:,}; "
        f"seeds {', '.join(map(str, settings['seeds']))}",
        f"- learning rates: {facts['learning_rate_source']}",
        f"- versions: {versions}",
    ]
    return "\n".join(lines)


@block("table")
def published_table(data: Path, name: str) -> str:
    """The table of this name (`kdtheory figures NAME`), as Markdown."""
    if name not in figures.load():
        raise ValueError(f"generated:table: no table is called {name!r}")
    return tables.to_markdown(_table(name, data))


def _table(name: str, data: Path) -> pd.DataFrame:
    plot = figures.load()[name]
    return plot.draw(plot.data.load(data))


def outdated(root: Path, data: Path | None = None) -> dict[str, str]:
    """Pages whose blocks differ from the stored evidence: name -> the text they should hold."""
    found = {}
    for page in pages(root):
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        fresh = render(text, data or root / "figures" / "data")
        if fresh != text:
            found[page.name] = fresh
    return found


def main() -> None:
    """Rewrite every block of the repository and say which pages changed."""
    for page in update(checkout.required()):
        print(page.name)


if __name__ == "__main__":
    main()
