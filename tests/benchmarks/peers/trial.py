"""The trial: each peer against the reference, with and without zero masses. Numbers are the worst over the pairs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np
import pandas as pd

from tests.benchmarks.peers import problems, reference
from tests.benchmarks.peers.adapters import Answer, Peer, installed, version
from tests.benchmarks.peers.problems import Pair

COLUMNS = {
    "value_error": "relative error of the value",
    "gradient_error": "relative L2 error of the gradient in q along the simplex",
    "own_gradient_error": "the same against central differences of the peer's own value, first pair",
    "zero_value_error": "value_error, worst over the pairs with zero masses",
    "zero_marginal_error": "L1 error of the plan's two marginals there",
    "zero_gradient_error": "gradient_error on the student's support there",
    "zero_gradient": "is it finite there: everywhere, only on the student's support, not even there; or is there none",
    "refused": "pairs with zero masses that raise an error",
}
STEP = 1e-3  # of q's smallest mass: the peers compute in float64, and stop early


@cache
def _expected(functional: str, key: tuple) -> tuple[float, np.ndarray]:
    pair = _PAIRS[key]
    value = float(reference.value(functional, pair.p, pair.q[None], pair.C, pair.epsilon)[0])
    return value, reference.gradient(functional, pair.p, pair.q, pair.C, pair.epsilon)


_PAIRS: dict[tuple, Pair] = {}


def expected(functional: str, pair: Pair) -> tuple[float, np.ndarray]:
    """Reference value, and gradient on the student's support."""
    key = (pair.p.tobytes(), pair.q.tobytes(), pair.epsilon)
    _PAIRS[key] = pair
    return _expected(functional, key)


def tangent(gradient: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The part of a gradient that moves mass within the support."""
    inside = np.asarray(gradient, dtype=np.float64)[q > 0]
    return inside - inside.mean()


def relative(found: np.ndarray, exact: np.ndarray) -> float:
    """L2 error relative to the exact one's norm; a one-token support has no tangent and no error."""
    size = float(np.linalg.norm(exact))
    return 0.0 if size == 0 else float(np.linalg.norm(found - exact)) / size


def judge(peer: Peer, answer: Answer, pair: Pair) -> dict[str, float]:
    """Errors of one answer; NaN where the API gives no gradient or no plan, inf where it gives something not finite."""
    value, gradient = expected(peer.functional, pair)
    found = {
        "value_error": _finite(abs(answer.value - value) / abs(value)),
        "gradient_error": math.nan,
        "marginal_error": math.nan,
        "unusable": _NONE,
    }
    if answer.gradient is not None:
        inside = bool(np.isfinite(answer.gradient[pair.q > 0]).all())
        found["unusable"] = (_SUPPORT if inside else _NOWHERE) * (not np.isfinite(answer.gradient).all())
        found["gradient_error"] = relative(tangent(answer.gradient, pair.q), gradient) if inside else math.inf
    if answer.plan is not None:
        missed = abs(answer.plan.sum(1) - pair.p).sum() + abs(answer.plan.sum(0) - pair.q).sum()
        found["marginal_error"] = _finite(float(missed))
    return found


_SUPPORT, _NOWHERE, _NONE = 1, 2, 3
_WORDS = {0: "finite", _SUPPORT: "finite on the support", _NOWHERE: "not finite", _NONE: "none"}


def _finite(x: float) -> float:
    return float(x) if math.isfinite(x) else math.inf


def own_gradient_error(peer: Peer, pair: Pair) -> float:
    """The gradient against central differences of the value it came with."""
    gradient = peer.answer(pair).gradient
    if gradient is None:
        return math.nan

    def values(moved: np.ndarray) -> np.ndarray:
        rows = (Pair(pair.p, row, pair.C, pair.points, pair.epsilon) for row in moved)
        return np.array([peer.answer(row).value for row in rows])

    differences = reference.central_differences(values, pair.q, STEP * float(pair.q.min()))
    return relative(tangent(gradient, pair.q), differences)


def worst(rows: Iterable[dict[str, float]]) -> dict[str, float]:
    """Column-wise maximum; NaN only where every row has it."""
    return pd.DataFrame(list(rows)).max(skipna=True).to_dict()


def row(peer: Peer) -> dict[str, object]:
    """One line of the table."""
    found = worst(judge(peer, peer.answer(pair), pair) for pair in problems.positive())
    zero, refused = _zero_masses(peer)
    return {
        "library": peer.library, "version": version(peer.library), "call": peer.call,
        "functional": peer.functional, "derivative": peer.derivative,
        "value_error": found["value_error"], "gradient_error": found["gradient_error"],
        "own_gradient_error": own_gradient_error(peer, problems.pair(0)),
        "zero_value_error": zero["value_error"], "zero_marginal_error": zero["marginal_error"],
        "zero_gradient_error": zero["gradient_error"],
        "zero_gradient": _WORDS[int(zero["unusable"])], "refused": refused,
    }  # fmt: skip


def _zero_masses(peer: Peer) -> tuple[dict[str, float], str]:
    """Worst errors over the pairs with zeros, and the kinds of pairs that raise an error."""
    found, refused = [], {}
    for kind, pair in problems.with_zeros():
        try:
            answer = peer.answer(pair)
        except Exception as error:  # any refusal, of any library, is a result here
            refused[kind] = type(error).__name__
        else:
            found.append(judge(peer, answer, pair))
    if not found:
        return {
            **dict.fromkeys(("value_error", "marginal_error", "gradient_error"), math.nan),
            "unusable": _NONE,
        }, "all"
    return worst(found), "; ".join(f"{kind}: {error}" for kind, error in refused.items())


def table(libraries: Iterable[str] | None = None) -> Iterator[dict[str, object]]:
    """Rows, as they are finished."""
    for library, peers in installed().items():
        if libraries is None or library in libraries:
            yield from map(row, peers)
