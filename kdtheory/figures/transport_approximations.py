"""What keeping a few tokens costs: error, bound and lower bound of the collapsed W1, with dropping beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kdtheory.figures import style
from kdtheory.figures.datasets import computed
from kdtheory.figures.registry import figure

VOCABULARY, WIDTH, CLUSTERS = 600, 16, 40
PAIRS = 6
KEPT = (2, 4, 8, 16, 32, 64, 128, 256)
SHAPES = {"peaked": 4.0, "flat": 1.0, "synonyms": 4.0}
"""Standard deviation of the teacher's logits, in nats. The student's differ by a standard normal; "synonyms": they are
the teacher's, permuted within each cluster of tokens, so that all mass moves a short way."""
TITLES = {"peaked": "peaked laws", "flat": "flat laws", "synonyms": "peaked, moves within clusters"}


def _embeddings(rng: np.random.Generator) -> tuple[Any, Any]:
    """Clusters of spread ½ around random centres, and the cluster of each token."""
    centres, cluster = rng.normal(size=(CLUSTERS, WIDTH)), rng.integers(0, CLUSTERS, size=VOCABULARY)
    return centres[cluster] + 0.5 * rng.normal(size=(VOCABULARY, WIDTH)), cluster


def _laws(rng: np.random.Generator, shape: str, cluster: Any) -> tuple[Any, Any]:
    teacher = SHAPES[shape] * rng.normal(size=VOCABULARY)
    student = teacher + rng.normal(size=VOCABULARY)
    if shape == "synonyms":
        for tokens in (np.flatnonzero(cluster == c) for c in range(CLUSTERS)):
            student[tokens] = teacher[rng.permutation(tokens)]
    p, q = (np.exp(z - z.max()) for z in (teacher, student))
    return p / p.sum(), q / q.sum()


def _dropped(p: Any, q: Any, points: Any, kept: Any) -> float:
    """W1 of the laws on the kept tokens alone, renormalised."""
    from kdtheory.transport import TokenCost, w1

    return float(w1(p[kept] / p[kept].sum(), q[kept] / q[kept].sum(), TokenCost.embedding(points[kept])).value)


@computed("transport_truncation.csv")
def TRUNCATION() -> pd.DataFrame:
    """Columns shape (of `SHAPES`), k, curve, mean: means over pairs of quantities relative to the exact W1."""
    from kdtheory.transport import TokenCost, w1
    from kdtheory.transport.topk import w1_topk

    rng = np.random.default_rng(7)
    points, cluster = _embeddings(rng)
    cost = TokenCost.embedding(points)
    rows = []
    for shape in SHAPES:
        for _ in range(PAIRS):
            p, q = _laws(rng, shape, cluster)
            exact = float(w1(p, q, cost).value)
            for k in KEPT:
                found = w1_topk(p, q, cost, k)
                by_size, by_teacher = (np.argsort(-x, kind="stable")[:k] for x in (abs(q - p), p))
                relative = {
                    "error": abs(float(found.value) - exact),
                    "bound": float(found.error_bound),
                    "lower": exact - float(found.lower),
                    "dropped": abs(_dropped(p, q, points, by_size) - exact),
                    "teacher": abs(_dropped(p, q, points, by_teacher) - exact),
                }
                rows += [{"shape": shape, "k": k, "curve": c, "mean": x / exact} for c, x in relative.items()]
    return pd.DataFrame(rows).groupby(["shape", "k", "curve"], sort=False)["mean"].mean().reset_index()


_LOOK: dict[str, tuple[str, str, str]] = {  # label, line, colour
    "bound": ("bound on the error", "--", "w1"),
    "error": ("error, tail collapsed", "-", "w1"),
    "lower": ("gap of the lower bound", ":", "w1"),
    "dropped": ("error, tail dropped", "-", "hard"),
    "teacher": ("error, teacher's top k alone", "--", "hard"),
}


@figure(TRUNCATION, claims=("transport.collapse-bound", "transport.mcshane-lower", "transport.drop-renormalise"))
def transport_truncation(table: pd.DataFrame) -> Figure:
    """Mean error of W1 from k of 600 tokens, relative to the exact W1, for three kinds of laws."""
    fig, axes = style.blank(style.DOUBLE_COLUMN, columns=3, sharey=True)
    for ax, (shape, title) in zip(axes, TITLES.items(), strict=True):
        for curve, (label, line, loss) in _LOOK.items():
            rows = table[(table["shape"] == shape) & (table["curve"] == curve)]
            ax.plot(rows["k"], rows["mean"], line, marker="o", markersize=2, color=style.colour(loss), label=label)
        ax.set(xscale="log", yscale="log", xlabel="tokens kept, k", title=title)
        ax.set_xticks(KEPT, [str(k) for k in KEPT])
        ax.minorticks_off()
    axes[0].set_ylabel("relative to the exact W1")
    axes[0].legend(fontsize=6.5, loc="lower left")
    return fig
