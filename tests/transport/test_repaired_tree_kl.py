"""Tree-KL against its definition in 400 digits, fractions, and what theory says of a saturated student."""

from __future__ import annotations

from fractions import Fraction

import mpmath as mp
import numpy as np
import pytest
import torch

import kdtheory as kd
from kdtheory import TokenCost
from kdtheory.transport import tree_from_embedding, tree_from_order
from kdtheory.transport.repaired.levels import Levels
from tests.transport.cases import AGREEING, COSTS, FAMILIES, PARENT, as_tree, label, softmax_mp

TREE = COSTS["tree"][0]
LOSS = kd.divergence("tree_kl", cost=TREE)
BELOW, LENGTH = as_tree("tree")
CHAIN = TokenCost.tree([-1, 0, 1, 2, 3, 4], [0, 1.0, 0.5, 2.0, 0.25, 1.5], tokens=6)  # every node a token


def below_of(cost: TokenCost) -> tuple[np.ndarray, np.ndarray]:
    """(edges x tokens) 0/1 matrix and lengths, by walking up from every token."""
    parent, weight = cost.rooted.parent, cost.rooted.weight
    below = np.zeros((len(parent), cost.V), dtype=int)
    for token in range(cost.V):
        node = token
        while parent[node] >= 0:
            below[node, token], node = 1, parent[node]
    return below, weight


def exact(pair, below=BELOW, length=LENGTH):
    """(value, logit gradient, sums of absolute terms of the gradient) in 400 digits; tokens with p = q = 0 drop out."""
    with mp.workdps(400):
        p, q = softmax_mp(pair.teacher_logits), softmax_mp(pair.student_logits)
        value, flow = mp.mpf(0), []
        for edge, weight in zip(below, length, strict=True):
            P, Q = (mp.fsum(x[i] for i in np.flatnonzero(edge)) for x in (p, q))
            value += mp.mpf(float(weight)) * _term(P, Q)
            flow.append((mp.mpf(float(weight)), P, Q))
        gradient, size = [], []
        for i in range(len(p)):
            terms = [w * (Q - P) * q[i] / Q for (w, P, Q), edge in zip(flow, below, strict=True) if edge[i] and Q > 0]
            terms += [-w * P / int(edge.sum()) for (w, P, Q), edge in zip(flow, below, strict=True)
                      if edge[i] and Q == 0]  # fmt: skip
            mean = [-q[i] * w * (Q - P) for w, P, Q in flow]
            parts = [w * (Q + P) * (q[i] / Q if Q > 0 else 1) for (w, P, Q), edge in zip(flow, below, strict=True)
                     if edge[i]] + [q[i] * w * (Q + P) for w, P, Q in flow]  # fmt: skip
            gradient.append(float(mp.fsum(terms) + mp.fsum(mean)))
            size.append(float(mp.fsum(parts)))
        return float(value) if mp.isfinite(value) else np.inf, np.array(gradient), np.array(size)


def _term(P, Q):
    if P == 0:
        return Q
    return mp.inf if Q == 0 else P * mp.log(P / Q) - P + Q


# -- value and gradient ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("pair", [*FAMILIES, AGREEING], ids=label)
def test_value_and_gradient_in_400_digits(pair):
    value, gradient, size = exact(pair)
    p, q = (kd.simplex.softmax(x) for x in (pair.teacher_logits, pair.student_logits))
    logs = [
        torch.log_softmax(torch.tensor(np.asarray(x, float)), -1) for x in (pair.teacher_logits, pair.student_logits)
    ]
    ours = float(LOSS.per_position(*logs))
    if np.isfinite(value):
        assert ours == pytest.approx(value, rel=1e-12, abs=1e-15)
    else:
        assert ours == np.inf
    if p.min() > 1e-300 and q.min() > 1e-300:
        assert float(LOSS.value(p, q)) == pytest.approx(value, rel=1e-12, abs=1e-15)
    ours = LOSS.logit_gradient(teacher_logits=pair.teacher_logits, student_logits=pair.student_logits)
    assert np.all(np.abs(ours - gradient) <= 1e-12 * size + 1e-300)
    assert abs(ours.sum()) <= 1e-12 * max(1.0, np.abs(ours).max())


@pytest.mark.parametrize("gap", [40.0, 90.0, 200.0, 800.0])
@pytest.mark.parametrize("cost", [TREE, CHAIN], ids=["tree", "chain"])
def test_both_ways_to_masses_agree_across_the_edge_of_the_floats(cost, gap, rng):
    """Rows with and without underflow in one batch; a chain has tokens at inner nodes."""
    loss = kd.divergence("tree_kl", cost=cost)
    teacher, student = rng.normal(size=(2, 12, 6))
    student[np.arange(6), np.arange(6)] += gap
    below, length = below_of(cost)
    ours = loss.logit_gradient(teacher_logits=teacher, student_logits=student)
    for row in range(12):
        pair = kd.simplex.Pair("row", teacher[row], student[row])
        value, gradient, size = exact(pair, below, length)
        # 1e-12: a log-probability of -800 is known to 1e-13, and so is its exponential
        assert np.all(np.abs(ours[row] - gradient) <= 1e-12 * size)
        log_p, log_q = (torch.log_softmax(torch.tensor(x[row]), -1) for x in (teacher, student))
        assert float(loss.per_position(log_p, log_q)) == pytest.approx(value, rel=1e-13)


def test_impossible_subtrees_take_the_limit_of_common_logits(rng):
    """-inf against logits that go there together: -1e4 stands for the limit, in 400 digits."""
    teacher, student = rng.normal(size=(2, 6))
    for lost in ([0, 1], [2], [0, 1, 2, 3], [5]):
        gone, far = student.copy(), student.copy()
        gone[lost], far[lost] = -np.inf, -1e4
        _, gradient, size = exact(kd.simplex.Pair("far", teacher, far))
        ours = LOSS.logit_gradient(teacher_logits=teacher, student_logits=gone)
        assert np.all(np.abs(ours - gradient) <= 1e-12 * size + 1e-14)
        assert float(LOSS.value(kd.simplex.softmax(teacher), kd.simplex.softmax(gone))) == np.inf


def test_masses_and_shares_by_hand(rng):
    for cost in (TREE, CHAIN):
        levels, (below, _) = Levels(cost.rooted), below_of(cost)
        below[cost.rooted.parent < 0] = 1
        z = torch.tensor(rng.normal(size=(6, 4)) * 300)
        log_mass = levels.log_masses(z)
        for node, edge in enumerate(below):
            torch.testing.assert_close(log_mass[node], torch.logsumexp(z[edge > 0], 0), rtol=1e-15, atol=1e-12)
        flow = torch.tensor(rng.normal(size=(len(below), 4)))
        share = (
            (z.unsqueeze(0) - log_mass.unsqueeze(1)).masked_fill(torch.tensor(below).unsqueeze(2) == 0, -np.inf).exp()
        )
        expected = (share * flow.unsqueeze(1)).sum(0)
        torch.testing.assert_close(levels.shared_sums(z, log_mass, flow), expected, rtol=1e-11, atol=1e-12)


# -- what it is --------------------------------------------------------------------------------------------------------
def test_a_star_of_unit_edges_is_forward_kl(rng):
    star, (p, q) = TokenCost.tree([6] * 6 + [-1], [1.0] * 6 + [0.0]), rng.dirichlet(np.ones(6), size=(2, 5))
    np.testing.assert_allclose(
        kd.divergence("tree_kl", cost=star).value(p, q), kd.divergence("fkl").value(p, q), rtol=1e-13
    )


def test_weights_levels_and_sums(rng):
    p, q = rng.dirichlet(np.ones(6), size=2)
    once = float(LOSS.value(p, q))
    assert float(kd.divergence("tree_kl", cost=TREE, weight=2.5).value(p, q)) == pytest.approx(2.5 * once, rel=1e-14)
    levels = kd.divergence("tree_kl", cost=TREE, levels=[1.0, 0.0, 3.0])
    depth = np.array([_depth(node) for node in range(9)])
    assert depth.max() == 3
    assert float(levels.value(p, q)) == pytest.approx(_by_hand(p, q, np.array([1.0, 0.0, 3.0])[depth - 1]), rel=1e-13)
    both = kd.divergence("fkl") + 0.5 * LOSS
    assert float(both.value(p, q)) == pytest.approx(float(kd.divergence("fkl").value(p, q)) + 0.5 * once, rel=1e-14)
    assert LOSS.temperature_power == 2


def _depth(node: int) -> int:
    return 0 if PARENT[node] < 0 else 1 + _depth(PARENT[node])


def _by_hand(p, q, weights) -> float:
    P, Q = BELOW @ p, BELOW @ q
    return float(weights @ (P * np.log(P / Q) - P + Q))


def test_saturated_student_is_told_how_far_it_is(rng):
    """Entry k tends to Σ of w_e P_e over the edges that k is not below: in fractions, and ours at a gap of 60."""
    p = [Fraction(n, 21) for n in (1, 2, 3, 4, 5, 6)]
    weight = [Fraction(str(w)) for w in LENGTH]
    teacher = np.log(np.array([float(x) for x in p]))
    for k in range(6):
        limit = sum(
            w * sum(p[i] for i in range(6) if edge[i]) for w, edge in zip(weight, BELOW, strict=True) if not edge[k]
        )
        gradient = LOSS.logit_gradient(teacher_logits=teacher, student_logits=rng.normal(size=6) + 60 * np.eye(6)[k])
        assert gradient[k] == pytest.approx(float(limit), rel=1e-12)
        assert np.abs(gradient).sum() == pytest.approx(2 * float(limit), rel=1e-12)


def test_linear_in_a_hard_label(rng):
    """The mean gradient over sampled labels is the gradient of the soft teacher."""
    teacher, student = rng.normal(size=(2, 6)) * 2
    p = kd.simplex.softmax(teacher)
    hard = np.where(np.eye(6) > 0, 0.0, -np.inf)
    each = LOSS.logit_gradient(teacher_logits=hard, student_logits=np.tile(student, (6, 1)))
    soft = LOSS.logit_gradient(teacher_logits=teacher, student_logits=student)
    np.testing.assert_allclose(p @ each, soft, atol=1e-14)


def test_it_bounds_the_tree_distance(rng):
    """W1² <= 2 H · tree-KL with H the height of the tree."""
    height = max(BELOW.T @ LENGTH)
    for scale in (0.3, 3.0, 30.0):
        p, q = (kd.simplex.softmax(rng.normal(size=(300, 6)) * scale) for _ in range(2))
        assert np.all(kd.w1(p, q, TREE).value ** 2 <= 2 * height * LOSS.value(p, q) * (1 + 1e-12))


# -- arguments ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [kind for kind in COSTS if kind != "tree"])
def test_what_is_no_tree_is_refused(kind):
    with pytest.raises(ValueError, match=r"tree_kl: cost = .* is not a tree: give TokenCost\.tree"):
        kd.divergence("tree_kl", cost=COSTS[kind][0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cost": np.eye(6)}, r"^cost: expected a kdtheory\.TokenCost, got ndarray"),
        ({"cost": TREE, "weight": 0.0}, r"^weight = 0.0: give a positive finite number"),
        ({"cost": TREE, "levels": [1.0, 2.0]}, r"levels = \[1.0, 2.0\]: one number >= 0 for each of the 3 levels"),
        ({"cost": TREE, "levels": [1.0, -2.0, 0.0]}, r"one number >= 0 for each of the 3 levels"),
        ({"cost": TREE, "depth": 2}, r"^tree_kl: .*unexpected keyword argument 'depth'"),
        ({}, r"^tree_kl: .*missing .*'cost'"),
    ],
)
def test_bad_arguments_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        kd.divergence("tree_kl", **given)


def test_the_token_that_makes_it_infinite_is_named():
    teacher = torch.zeros(1, 6)
    with pytest.raises(kd.NonFiniteLossError, match=r"position \[0\], token 2"):
        LOSS.loss(teacher_logits=teacher, student_logits=torch.tensor([[0.0, 0.0, -np.inf, 0.0, 0.0, 0.0]]))


# -- ordered tokens ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("V", [1, 2, 3, 5, 17, 64])
def test_tree_over_ordered_tokens(V, rng):
    """Every node an interval; path length = extent of the smallest node with both, at least their distance."""
    x = rng.permutation(np.cumsum(rng.uniform(0.1, 2.0, size=V)))
    parent, weight = tree_from_order(x)
    cost = TokenCost.tree(parent, weight)
    assert cost.V == V
    assert Levels(cost.rooted).depth.max() == int(np.ceil(np.log2(V))) if V > 1 else True
    below, _ = below_of(cost)
    below[-1] = 1
    distance = cost.matrix().numpy()
    assert np.all(distance >= np.abs(x[:, None] - x) - 1e-12)
    rank = np.argsort(np.argsort(x))
    for edge in below:
        assert np.ptp(rank[edge > 0]) == edge.sum() - 1
    for i in range(V):
        for j in range(i):
            both = [edge for edge in below if edge[i] and edge[j]]
            smallest = min(both, key=lambda edge: edge.sum())
            assert distance[i, j] == pytest.approx(np.ptp(x[smallest > 0]), rel=1e-12)


def test_ordered_tree_in_training():
    generator = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, 10, 30, 17, generator=generator)
    loss = kd.divergence("fkl") + 0.5 * kd.divergence("tree_kl", cost=TokenCost.tree(*tree_from_order(np.arange(17))))
    student.requires_grad_()
    loss.loss(teacher_logits=teacher, student_logits=student, reduction="none").mean(1).sum().backward()
    assert torch.isfinite(student.grad).all()
    assert float(student.grad.sum(-1).abs().max()) < 1e-6


def test_positions_are_checked():
    with pytest.raises(ValueError, match=r"x\[1\] = nan"):
        tree_from_order([0.0, np.nan])


def test_of_embeddings(rng):
    cost = TokenCost.tree(*tree_from_embedding(rng.normal(size=(40, 4))))
    p, q = rng.dirichlet(np.ones(40), size=2)
    below, length = below_of(cost)
    P, Q = below @ p, below @ q
    expected = float(length @ np.where(P > 0, P * np.log(np.where(P > 0, P / np.maximum(Q, 1e-300), 1)) - P + Q, 0))
    assert float(kd.divergence("tree_kl", cost=cost).value(p, q)) == pytest.approx(expected, rel=1e-12)
