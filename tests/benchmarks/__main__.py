"""``python -m tests.benchmarks``: ours beside its peers, tables with ratios.

python -m tests.benchmarks [--quick] [--only NAME] [--out DIRECTORY]   # losses, transport, sinkhorn, students, steps
python -m tests.benchmarks --device cuda [--part NAME]                 # what needs a GPU, part by part
python -m tests.benchmarks --peers                                     # errors of everybody's gradients, stored
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import torch

from tests.benchmarks import bench_losses, bench_sinkhorn, bench_steps, bench_students, bench_transport
from tests.benchmarks.timing import Case, DisagreementError, measure

BUILD = Path("build/benchmarks")
STORED = Path("figures/data")


def self_check(case: Case) -> None:
    """The comparison must notice a result that is 1 % off; otherwise it compares nothing."""
    broken = dataclasses.replace(case, ours=lambda: 1.01 * case.ours())
    try:
        broken.check()
    except DisagreementError:
        return
    raise SystemExit(f"{case.name}: a result 1 % off passes the comparison with {case.peer_name}")


def show(line: dict[str, object]) -> dict[str, object]:
    """Print a line when it is finished."""
    note = f"error {line['error']:.1g}" + (f"; target {line['target']}: {line['reached']}" if line["target"] else "")
    print(
        f"{line['case']:26s} rows {line['rows']:5d}  V {line['V']:6d}  ours {line['ours_ms']:9.2f} ms"
        f"  {line['of_fkl']:7.2f} x FKL step  {line['speedup']:7.1f} x {line['peer']}  ({note})",
        flush=True,
    )
    return line


def cases(module, quick: bool, sizes: list[tuple[int, int]] | None = None) -> Iterable[dict[str, object]]:
    """Check and measure every case of a module."""
    for case in module.cases(sizes or (module.QUICK if quick else module.FULL)):
        self_check(case)
        floor = bench_losses.forward_kl_floor(bench_losses.logits(case.rows, case.tokens))
        yield measure(case, floor, 1 if quick else case.repeats)


def sinkhorn(quick: bool) -> Iterable[dict[str, object]]:
    for sizes in bench_sinkhorn.QUICK if quick else bench_sinkhorn.FULL:
        yield from cases(bench_sinkhorn, quick, [sizes])
        yield from bench_sinkhorn.per_iteration(quick, *sizes)


def growth(quick: bool) -> Iterable[dict[str, object]]:
    return bench_sinkhorn.growth(quick)


def memory(quick: bool) -> Iterable[dict[str, object]]:
    return bench_sinkhorn.memory(quick)


TABLES: dict[str, tuple[Callable[[bool], Iterable[dict[str, object]]], Callable]] = {
    "losses": (lambda quick: cases(bench_losses, quick), show),
    "transport": (lambda quick: cases(bench_transport, quick), show),
    "sinkhorn": (sinkhorn, show),
    "growth": (growth, bench_sinkhorn.show),
    "memory": (memory, bench_sinkhorn.show),
    "students": (bench_students.rows, bench_students.show),
    "steps": (bench_steps.rows, bench_steps.show),
}


def write(lines: list[dict[str, object]], path: Path, machine: str) -> None:
    """The table with what it was measured on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(lines)
    table["torch"], table["machine"] = torch.__version__, f"{machine}, one thread, processor time"
    table.to_csv(path, index=False, float_format="%.4g")
    print(f"wrote {path}")


def publish(measured: Path, names: list[str]) -> None:
    """Store the table of steps, and those of transport, of this run and of earlier ones for what was not run now."""
    if "steps" in names:
        pd.read_csv(measured / "steps.csv").to_csv(STORED / "steps_bench.csv", index=False)
        print(f"stored {STORED / 'steps_bench.csv'}")
    if not {"transport", "sinkhorn", "growth", "memory"} & set(names):
        return
    tables = {name: pd.read_csv(measured / f"{name}.csv") for name in ("transport", "sinkhorn", "growth", "memory")}
    pd.concat([tables["transport"], tables["sinkhorn"]]).to_csv(STORED / "transport_bench.csv", index=False)
    memory = tables["memory"].drop(columns=["torch", "machine"])
    tables["growth"].merge(memory, how="left", on=["rows", "V"]).to_csv(STORED / "transport_growth.csv", index=False)
    print(f"stored {STORED / 'transport_bench.csv'} and {STORED / 'transport_growth.csv'}")


def compare(quick: bool, names: list[str], out: Path | None, store: bool, machine: str) -> None:
    """Every table asked for; nothing is timed before it agrees."""
    lines: dict[str, list[dict[str, object]]] = {}
    for name in names:
        make, printed = TABLES[name]
        lines[name] = [printed(line) for line in make(quick)]
        if out is not None:
            write(lines[name], out / f"{name}.csv", machine)
    print(f"{sum(map(len, lines.values()))} results agree with their peers or hold their bound")
    if store and out is not None:
        publish(out, names)


def peers(out: Path) -> None:
    """Errors of everybody's values and gradients, stored: figures/data/transport_peers.csv."""
    from kdtheory.figures import datasets
    from tests.benchmarks.peers import adapters, trial

    rows = []
    for row in trial.table():
        rows.append(row)
        print(
            f"{row['library']:10s} {row['call']:44s} {row['derivative']:15s} gradient {row['gradient_error']:.1e}",
            flush=True,
        )
    for library in sorted(adapters.missing()):
        print(f"{library} is not installed: its rows are missing, and nothing is stored")
    if not adapters.missing():
        (out / "transport_peers.csv").write_text(datasets.to_csv(pd.DataFrame(rows)), encoding="utf-8")
        print(f"wrote {out / 'transport_peers.csv'}")


def worst(out: Path) -> None:
    """Hard inputs of `kd.sinkhorn`, stored: figures/data/transport_worst.csv."""
    from kdtheory.figures import datasets
    from tests.benchmarks import worst as hard

    rows = []
    for row in hard.rows():
        rows.append(row)
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    (out / "transport_worst.csv").write_text(datasets.to_csv(pd.DataFrame(rows)), encoding="utf-8")
    print(f"wrote {out / 'transport_worst.csv'}")


def main() -> None:
    """Parse arguments, run, write the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, one repeat: agreement with the peers only")
    parser.add_argument("--only", choices=sorted(TABLES), action="append", help="one table (may be repeated)")
    parser.add_argument("--device", help="cpu or cuda: the GPU benchmark instead (cpu: tiny, to try the code)")
    parser.add_argument("--part", action="append", help="a part of the GPU benchmark (may be repeated)")
    parser.add_argument("--peers", action="store_true", help="gradient errors and zero masses of every peer instead")
    parser.add_argument("--worst", action="store_true", help="worst cases of Sinkhorn over hard inputs instead")
    parser.add_argument(
        "--store", action="store_true", help="also store the tables of transport and steps in figures/data"
    )
    parser.add_argument("--machine", default=platform.machine(), help="words for the tables: what it was measured on")
    parser.add_argument("--out", type=Path, help="directory of the tables (default: build/benchmarks, none if quick)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    try:
        if given.peers:
            peers(given.out or STORED)
        elif given.worst:
            worst(given.out or STORED)
        elif given.device:
            from tests.benchmarks import bench_gpu

            bench_gpu.run(given.device, given.part, given.out or BUILD)
        else:
            if given.store and given.quick:
                parser.error("--store: not with --quick, which measures nothing")
            out = given.out or (None if given.quick else BUILD)
            compare(given.quick, given.only or list(TABLES), out, given.store, given.machine)
    except DisagreementError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
