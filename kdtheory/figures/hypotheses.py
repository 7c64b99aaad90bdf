"""The registered hypotheses: their rules, the verdict of each, and every outcome that was tested."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd

from kdtheory.figures.datasets import Dataset
from kdtheory.figures.registry import table

_LABEL = re.compile(r"kdtheory, (H\d+.*)")


def _order(label: str) -> int:
    """Of "H5" and "H5, controls" alike: 5."""
    return int(re.findall(r"\d+", label)[0])


def _registered(path: Path) -> pd.DataFrame:
    """One row per claim that tests a hypothesis: label, claim, rule in words, verdict; in the order of the labels."""
    rows = []
    for claim in json.loads(path.read_text(encoding="utf-8"))["claims"]:
        found = _LABEL.fullmatch(claim["source"])
        judged = [item["data"] for item in claim["evidence"] if "supported_if" in item.get("data", {})]
        if found and judged:
            rule = {name: judged[0][name] for name in ("metric", "supported_if", "unsupported_if")}
            rows.append({"hypothesis": found[1], "claim": claim["id"], **rule, "verdict": claim["verdict"]})
    columns = ("hypothesis", "claim", "metric", "supported_if", "unsupported_if", "verdict")
    found_rows = pd.DataFrame(rows, columns=list(columns))
    return found_rows.sort_values("hypothesis", key=lambda labels: labels.map(_order), kind="stable", ignore_index=True)


def _outcomes(path: Path) -> pd.DataFrame:
    """Every test of every stored run, with the experiment it belongs to; in the order of the labels."""
    rows: list[dict[str, Any]] = []
    for file in sorted(path.glob("*/decisions.json")):
        decided = json.loads(file.read_text(encoding="utf-8"))
        rows += [{"experiment": file.parent.name, **row} for row in decided.get("tests", [])]
    frame = pd.DataFrame(rows)
    return frame.sort_values("hypothesis", key=lambda labels: labels.map(_order), kind="stable", ignore_index=True)


REGISTERED = Dataset("verdicts.json", _registered)
OUTCOMES = Dataset("runs", _outcomes)


@table(REGISTERED)
def students_rules(registered: pd.DataFrame) -> pd.DataFrame:
    """The registered rules, in words."""
    heads = {"metric": "what is measured", "supported_if": "supported if", "unsupported_if": "unsupported if"}
    return registered[["hypothesis", *heads]].rename(columns=heads)


@table(REGISTERED)
def students_verdicts(registered: pd.DataFrame) -> pd.DataFrame:
    """Hypothesis, claim and the verdict computed from the stored runs."""
    return registered[["hypothesis", "claim", "verdict"]]


@table(OUTCOMES)
def students_hypotheses(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Every outcome: estimate over seeds with its interval, what the rule asks, effect size, power, decision."""
    rows = [
        {
            "hypothesis": row["hypothesis"],
            "outcome": row["outcome"],
            "estimate (95 %)": _estimate(row),
            "supported within": _region(row["region_low"], row["region_high"]),
            "effect size": _number(row["effect"]),
            "detectable": _number(row["mde"]) if row["decision"].endswith("undecided") else "",
            "seeds": str(row["seeds"]),
            "decision": row["decision"] + (f", {row['censored']:.0f} censored" if row["censored"] else ""),
        }
        for _, row in outcomes.iterrows()
    ]
    return pd.DataFrame(rows)


def _estimate(row: Any) -> str:
    return f"{_number(row['estimate'])} ({_number(row['low'])} to {_number(row['high'])})"


def _region(low: Any, high: Any) -> str:
    low, high = _number(low), _number(high)
    if low and high:
        return f"{low} to {high}"
    return f"above {low}" if low else f"below {high}"


def _number(value: Any) -> str:
    """Three digits; nothing for what is missing or infinite."""
    return "" if value is None or not math.isfinite(value) else f"{value:.3g}"
