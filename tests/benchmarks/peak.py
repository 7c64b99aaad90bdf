"""``python -m tests.benchmarks.peak ROWS V``: peak memory of one `kd.sinkhorn` call beyond what was held before it."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import torch

from kdtheory import TokenCost
from kdtheory.transport.entropic.api import sinkhorn
from tests.benchmarks.bench_losses import logits
from tests.benchmarks.bench_transport import distributions, embeddings


def resident() -> int:
    """Bytes held now (Linux; elsewhere this benchmark cannot run)."""
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])


def peak_of(call) -> int:
    """Largest growth of the resident memory while `call` runs, sampled every millisecond, and at its end."""
    before, peak, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], resident() - before)
            time.sleep(1e-3)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = call()
    finally:
        done.set()
        watcher.join()
    peak[0] = max(peak[0], resident() - before)
    del result
    return peak[0]


def main() -> None:
    rows, tokens = (int(argument) for argument in sys.argv[1:])
    torch.set_num_threads(1)
    p, q = distributions(logits(rows, tokens))
    cost = TokenCost.embedding(embeddings(tokens))
    small = TokenCost.embedding(embeddings(32))
    a, b = distributions(logits(2, 32))
    sinkhorn(a, b, small, 0.05, tol=1e-5, precision="float32")  # libraries load what they need
    extra = peak_of(lambda: sinkhorn(p, q, cost, 0.05, form="reduced", tol=1e-5, precision="float32"))
    print(json.dumps({"rows": rows, "V": tokens, "extra_bytes": extra}))


if __name__ == "__main__":
    main()
