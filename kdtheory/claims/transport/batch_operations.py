"""Section 7.8 of chapter 07: what SinKD costs, counted, and the loops that define it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact, numeric
from kdtheory.transport.published import SinKD

EPSILON, ROUNDS = 0.1, 20  # as published
ULPS = "sums of a few numbers of order 1 after 20 normalisations, in float64"


class Counted:
    """A number that counts the operations made with it; `made` is shared by all that stem from one."""

    def __init__(self, value: float, made: list[int]) -> None:
        self.value, self.made = value, made

    def _next(self, value: float) -> Counted:
        self.made[0] += 1
        return Counted(value, self.made)

    def __add__(self, other: Counted) -> Counted:
        return self._next(self.value + other.value)

    def __sub__(self, other: Counted) -> Counted:
        return self._next(self.value - other.value)

    def __mul__(self, other: Counted) -> Counted:
        return self._next(self.value * other.value)

    def __truediv__(self, other: Counted) -> Counted:
        return self._next(self.value / other.value)

    def __neg__(self) -> Counted:
        return self._next(-self.value)

    def __abs__(self) -> Counted:
        return self._next(abs(self.value))

    def exp(self) -> Counted:
        return self._next(float(np.exp(self.value)))


def _sum(terms: Sequence[Any]) -> Any:
    """The sum, with one operation less than terms."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def by_loops(p: Sequence[Any], q: Sequence[Any], epsilon: Any, rounds: int, exp: Any) -> Any:
    """Σ Γ_ij C_ij from the definition, one operation at a time."""
    size = range(len(p))
    cost = [[_sum([abs(a - b) for a, b in zip(x, y, strict=True)]) for y in q] for x in p]
    plan = [[exp(-(cost[i][j] / epsilon)) for j in size] for i in size]
    for _ in range(rounds):
        columns = [_sum([plan[i][j] for i in size]) for j in size]
        plan = [[plan[i][j] / columns[j] for j in size] for i in size]
        rows = [_sum(plan[i]) for i in size]
        plan = [[plan[i][j] / rows[i] for j in size] for i in size]
    return _sum([plan[i][j] * cost[i][j] for i in size for j in size])


def over_tokens(p: Sequence[Any], q: Sequence[Any], gibbs: Any, rounds: int) -> None:
    """The scaling iteration between the d tokens of one sample, kernel given."""
    size, v = range(len(p)), [x / x for x in q]
    for _ in range(rounds):
        u = [p[i] / _sum([gibbs[i][j] * v[j] for j in size]) for i in size]
        v = [q[j] / _sum([gibbs[i][j] * u[i] for i in size]) for j in size]


def operations(batch: int, tokens: int, rounds: int, *, between_tokens: bool = False) -> int:
    """How many operations the loss of a batch takes, counted."""
    made = [0]
    one = Counted(1.0, made)
    rows = [[Counted(1 / tokens, made)] * tokens] * batch
    if between_tokens:
        gibbs = [[one] * tokens] * tokens
        for row in rows:
            over_tokens(row, row, gibbs, rounds)
    else:
        by_loops(rows, rows, one, rounds, Counted.exp)
    return made[0]


def draw(rng: np.random.Generator, rows: int) -> Any:
    """Two batches, sometimes with rows that agree."""
    tokens = int(rng.integers(2, 6))
    batches = rng.dirichlet(np.full(tokens, 0.5), size=(2, rows))
    if rng.random() < 0.3:
        batches[0, :] = batches[0, 0]
    return batches


def sinkd(p: Any, q: Any, epsilon: float = EPSILON, rounds: int = ROUNDS) -> float:
    """The library's loss of the batch, at temperature 1."""
    return float(SinKD(temperature=1.0, epsilon=epsilon, iterations=rounds).value(p, q).sum())


def _definition_fails(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
    p, q = draw(rng, int(rng.integers(1, 5)))
    epsilon, rounds = float(rng.uniform(0.05, 2)), int(rng.integers(1, 8))
    loops = by_loops(p.tolist(), q.tolist(), epsilon, rounds, np.exp)
    return abs(sinkd(p, q, epsilon, rounds) / loops - 1), {"p": p.tolist(), "q": q.tolist()}


@claim(
    "transport.sinkd-batch",
    statement=r"\text{SinKD applies the Sinkhorn distance to the distillation of language models at a cost of }"
    r" O(b^2 (d + T)) \text{ against } O(b d)",
    source="lossdesigns, SinKD; cui2024sinkd",
    expected=Verdict.PROVED_IF,
    rows=("S1-59",),
    domain="b samples, d classes, T rounds of normalisation",
    condition="the transport is between the b samples of a batch, a b × b plan, and not over the d tokens",
    proof=Anchor("07_transport#sinkd-operations", sha256="472999b282b872ec"),
)
def sinkd_batch() -> list[Evidence]:
    """Counted, operation by operation."""
    sizes = [(b, d, t) for b in (1, 2, 5) for d in (1, 2, 7) for t in (1, 2, 20)]
    counted = [(b, d, t, operations(b, d, t)) for b, d, t in sizes]
    return [
        numeric.attempt(
            _definition_fails,
            draws=60,
            oracle="loops over the definition",
            tolerance=1e-12,
            because=ULPS,
            says="what is counted is the loss",
        ),
        *(
            exact.check(
                n, "==", b**2 * (3 * d + 4) + t * (4 * b**2 - 2 * b) - 1, says=f"operations, b, d, T = {b}, {d}, {t}"
            )
            for b, d, t, n in counted
        ),
        *(
            exact.check(n, "<=", 7 * b**2 * (d + t), role="inside condition", says=f"between {b} samples")
            for b, d, t, n in counted[::5]
        ),
        exact.check(
            operations(1, 8, 1, between_tokens=True),
            "<=",
            7 * (8 + 1),
            role="outside condition",
            says="over 8 tokens, b = T = 1, kernel not counted",
        ),
    ]


@sinkd_batch.control
def _() -> list[Evidence]:
    """A count without the rounds must not pass."""
    return [exact.check(operations(2, 3, t), "==", 4 * (3 * 3 + 4) - 1, says="T left out") for t in (1, 2)]
