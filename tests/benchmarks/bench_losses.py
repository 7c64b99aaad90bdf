"""Losses against peers: torch's own divergences, scipy's and POT's optimal transport."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import ot
import torch
from scipy.sparse import csr_array
from scipy.stats import wasserstein_distance
from torch import Tensor
from torch.nn.functional import kl_div

import kdtheory as kd
from kdtheory import TokenCost
from tests.benchmarks.timing import Case

FULL = [(2048, 512), (512, 4096), (128, 32768)]
QUICK = [(64, 96)]
EXACT_ROWS = 4  # a network simplex takes seconds a row at V = 4096, and the peer's time is proportional to its rows
EXACT_TOKENS = 512
CLUSTERED_TOKENS = 4096  # V²/2 distances of the clustering

Logits = tuple[Tensor, Tensor]


def logits(rows: int, tokens: int) -> Logits:
    """Teacher's and student's logits in float32: peaked teacher, student near it.

    No token has p = q to 1e-4: below 1e-6 the sign of p - q, which is TV's gradient, is everybody's own rounding.
    """
    draw = torch.Generator().manual_seed(rows + tokens)
    teacher = 4 * torch.randn(rows, tokens, generator=draw)
    student = teacher + torch.randn(rows, tokens, generator=draw)
    undecided = (teacher.log_softmax(-1) - student.log_softmax(-1)).abs() < 1e-4
    return teacher, (student + 1e-3 * undecided).requires_grad_()


def training_step(loss: Callable[[Tensor, Tensor], Tensor], at: Logits) -> Callable[[], np.ndarray]:
    """Forward and backward; returns the gradient."""
    teacher, student = at

    def step() -> np.ndarray:
        (gradient,) = torch.autograd.grad(loss(teacher, student), student)
        return gradient.numpy()

    return step


def ours(name: str, **parameters) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss of this library as a function of teacher's and student's logits."""
    loss = kd.divergence(name, **parameters)
    return lambda teacher, student: loss.loss(teacher_logits=teacher, student_logits=student)


def forward_kl_floor(at: Logits) -> Callable[[], np.ndarray]:
    """What everything is compared to: our forward KL, forward and backward."""
    return training_step(ours("fkl"), at)


# -- peers -------------------------------------------------------------------------------------------------------------
def torch_forward_kl(teacher: Tensor, student: Tensor) -> Tensor:
    log_p, log_q = teacher.log_softmax(-1), student.log_softmax(-1)
    return kl_div(log_q, log_p, log_target=True, reduction="batchmean")


def torch_reverse_kl(teacher: Tensor, student: Tensor) -> Tensor:
    log_p, log_q = teacher.log_softmax(-1), student.log_softmax(-1)
    return kl_div(log_p, log_q, log_target=True, reduction="batchmean")


def torch_jsd(teacher: Tensor, student: Tensor) -> Tensor:
    """Jensen-Shannon with the mixture in log space, as in trl's GKD trainer."""
    log_p, log_q = teacher.log_softmax(-1), student.log_softmax(-1)
    log_m = torch.logsumexp(torch.stack([log_p, log_q]), 0) - np.log(2)
    halves = (kl_div(log_m, x, log_target=True, reduction="batchmean") for x in (log_p, log_q))
    return 0.5 * sum(halves, start=torch.zeros(()))


def torch_tvd(teacher: Tensor, student: Tensor) -> Tensor:
    return 0.5 * (teacher.softmax(-1) - student.softmax(-1)).abs().sum(-1).mean()


PEERS = {"fkl": torch_forward_kl, "rkl": torch_reverse_kl, "jsd": torch_jsd, "tvd": torch_tvd}


def divergence_cases(rows: int, tokens: int) -> Iterator[Case]:
    """Forward and backward against torch's autograd, gradients compared."""
    at = logits(rows, tokens)
    for name, peer in PEERS.items():
        # 1e-4: the peers cancel in float32 at the dominating token
        yield Case(
            f"{name} step", rows, tokens, "torch autograd",
            training_step(ours(name), at), training_step(peer, at), tolerance=1e-4,
        )  # fmt: skip


# -- transport ---------------------------------------------------------------------------------------------------------
def distributions(at: Logits) -> tuple[np.ndarray, np.ndarray]:
    return tuple(torch.softmax(z.detach().double(), -1).numpy() for z in at)


def position_values(cost: TokenCost, at: Logits) -> Callable[[], np.ndarray]:
    """W1 of each row, forward only, from float32 logits."""
    loss, (teacher, student) = kd.divergence("w1", cost=cost), (at[0], at[1].detach())
    return lambda: loss.loss(teacher_logits=teacher, student_logits=student, reduction="none").numpy()


def scipy_line(x: np.ndarray, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.array([wasserstein_distance(x, x, a, b) for a, b in zip(p, q, strict=True)])


def pot_line(x: np.ndarray, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.array([ot.emd2_1d(x, x, a, b, metric="euclidean") for a, b in zip(p, q, strict=True)])


def pot_exact(C: np.ndarray, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """POT's network simplex on the whole problem."""
    return np.array([ot.emd2(a, b * (a.sum() / b.sum()), C) for a, b in zip(p, q, strict=True)])


def line_cases(rows: int, tokens: int) -> Iterator[Case]:
    """W1 on a line. 1e-5: ours starts from float32 logits."""
    at, x = logits(rows, tokens), np.random.default_rng(tokens).uniform(size=tokens)
    p, q = distributions(at)
    values = position_values(TokenCost.line(x), at)
    yield Case("w1 line", rows, tokens, "scipy loop", values, lambda: scipy_line(x, p, q), tolerance=1e-5)
    yield Case("w1 line", rows, tokens, "POT emd2_1d loop", values, lambda: pot_line(x, p, q), tolerance=1e-5)


def embeddings(tokens: int) -> np.ndarray:
    """Points in 16 dimensions, in clusters."""
    rng = np.random.default_rng(tokens)
    return rng.normal(size=(32, 16))[rng.integers(32, size=tokens)] + 0.5 * rng.normal(size=(tokens, 16))


def tree_cases(rows: int, tokens: int) -> Iterator[Case]:
    """W1 on a tree over clustered embeddings: values and a training step."""
    if tokens > CLUSTERED_TOKENS:
        return
    parent, weight = kd.transport.tree_from_embedding(embeddings(tokens))
    cost, at = TokenCost.tree(parent, weight), logits(rows, tokens)
    few, (p, q) = min(rows, EXACT_ROWS), distributions(at)
    if tokens <= EXACT_TOKENS:
        C = cost.matrix().numpy()
        yield Case(
            "w1 tree", rows, tokens, "POT emd2 loop", position_values(cost, at),
            lambda: pot_exact(C, p[:few], q[:few]), tolerance=1e-5, peer_rows=few,  # float32 logits
        )  # fmt: skip
        # 1e-3: in float32 the two round subtree sums apart, and a sum at rounding level may take the other sign
        step, peer = training_step(ours("w1", cost=cost), at), dense_tree_step(parent, weight, at)
        yield Case("w1 tree step", rows, tokens, "autograd, dense 0/1", step, peer, tolerance=1e-3)
    below = subtree_indicator(parent, tokens)
    yield Case(
        "w1 tree", rows, tokens, "scipy sparse product", position_values(cost, at),
        lambda: weight @ abs(below @ (q - p).T), tolerance=1e-5,
    )  # fmt: skip


def subtree_indicator(parent: np.ndarray, tokens: int) -> csr_array:
    """(nodes, tokens) 0/1 matrix: which tokens lie below (or at) a node."""
    node, token = np.arange(tokens), np.arange(tokens)
    rows, columns = [], []
    while len(node):
        rows.append(node)
        columns.append(token)
        inside = parent[node] >= 0
        node, token = parent[node][inside], token[inside]
    at = np.concatenate(rows), np.concatenate(columns)
    return csr_array((np.ones(len(at[0])), at), shape=(len(parent), tokens))


def dense_tree_step(parent: np.ndarray, weight: np.ndarray, at: Logits) -> Callable[[], np.ndarray]:
    """W1 on the tree by torch's autograd through the dense subtree indicator."""
    indicator = torch.from_numpy(subtree_indicator(parent, at[0].shape[-1]).toarray()).float()
    length = torch.from_numpy(weight).float()

    def value(teacher: Tensor, student: Tensor) -> Tensor:
        surplus = (student.softmax(-1) - teacher.softmax(-1)) @ indicator.T
        return (surplus.abs() @ length).mean()

    return training_step(value, at)


def exact_cases(rows: int, tokens: int) -> Iterator[Case]:
    """Exact W1 for embeddings: the reduced problem against POT's on the whole one, float64 on both sides."""
    tokens, rows = min(tokens, EXACT_TOKENS), EXACT_ROWS
    cost, (p, q) = TokenCost.embedding(embeddings(tokens)), distributions(logits(rows, tokens))
    C = cost.matrix().numpy()
    yield Case(
        "w1 embedding", rows, tokens, "POT emd2 loop",
        lambda: kd.w1(p, q, cost).value, lambda: pot_exact(C, p, q), tolerance=1e-10,
    )  # fmt: skip


def cases(sizes: list[tuple[int, int]]) -> Iterator[Case]:
    """All cases at all sizes."""
    for rows, tokens in sizes:
        for make in (divergence_cases, line_cases, tree_cases):
            yield from make(rows, tokens)
    yield from exact_cases(*sizes[0])
