"""``python -m tests.benchmarks [--quick] [--out DIRECTORY]``: losses beside their peers, a table with ratios."""

from __future__ import annotations

import argparse
import dataclasses
import platform
from pathlib import Path

import pandas as pd
import torch

from tests.benchmarks import bench_losses
from tests.benchmarks.timing import Case, DisagreementError, measure


def self_check(case: Case) -> None:
    """The comparison must notice a result that is 1 % off; otherwise it compares nothing."""
    broken = dataclasses.replace(case, ours=lambda: 1.01 * case.ours())
    try:
        broken.check()
    except DisagreementError:
        return
    raise SystemExit(f"{case.name}: a result 1 % off passes the comparison with {case.peer_name}")


def run(quick: bool) -> pd.DataFrame:
    """Check and measure every case; prints lines as they are finished."""
    sizes, repeats = (bench_losses.QUICK, 1) if quick else (bench_losses.FULL, 7)
    lines = []
    for case in bench_losses.cases(sizes):
        self_check(case)
        floor = bench_losses.forward_kl_floor(bench_losses.logits(case.rows, case.tokens))
        line = measure(case, floor, repeats)
        print(
            f"{line['case']:14s} rows {line['rows']:5d}  V {line['V']:6d}  ours {line['ours_ms']:9.2f} ms"
            f"  {line['of_fkl']:6.2f} x FKL step  {line['speedup']:7.1f} x {line['peer']}  (error {line['error']:.1g})",
            flush=True,
        )
        lines.append(line)
    return pd.DataFrame(lines)


def main() -> None:
    """Parse arguments, run, write the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, one repeat: agreement with the peers only")
    parser.add_argument("--out", type=Path, help="directory for losses.csv (default: build/benchmarks, none if quick)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    try:
        table = run(given.quick)
    except DisagreementError as error:
        raise SystemExit(str(error)) from None
    out = given.out or (None if given.quick else Path("build/benchmarks"))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        table["torch"], table["machine"] = torch.__version__, f"{platform.machine()}, one thread"
        table.to_csv(out / "losses.csv", index=False, float_format="%.4g")
        print(f"wrote {out / 'losses.csv'}")
    print(f"{len(table)} results agree with their peers")


if __name__ == "__main__":
    main()
