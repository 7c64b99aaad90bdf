"""Metrics against direct numpy computation, and the teacher's stored distribution against the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.optimize import linprog
from scipy.spatial.distance import squareform

from kdtheory.students import evaluate, losses, models, store
from kdtheory.students.teacher import CachedTeacher, LiveTeacher, write_cache
from kdtheory.students.token_metrics import TokenMetrics
from kdtheory.students.tokens import Split


@pytest.fixture(scope="module")
def setting(prepared):
    """Teacher and warm start on the test blocks."""
    workspace, profile = prepared.workspace, prepared.workspace.profile
    from kdtheory.students.data import Lesson

    lesson = Lesson.open(workspace, prepared.blocks, torch.device("cpu"))
    student = models.build(profile, profile.student, seed=5)
    student.load_state_dict(workspace.weights(workspace.warm_task(0)))
    return lesson, models.Body(student, profile.vocabulary)


def probabilities(body: models.Body, split: Split) -> np.ndarray:
    with torch.no_grad():
        z = models.logits(body.net, torch.from_numpy(split.tokens[:, :-1])).double().numpy()
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_metrics_are_the_plain_sums(setting):
    """1e-10: rounding of sums over 300 tokens and 128 positions; the formulas are written out, in probabilities."""
    lesson, student = setting
    blocks = lesson.blocks["test"]
    q = probabilities(student, blocks)
    p = np.exp(losses.float64_log_softmax(lesson.teachers["test"].log_probs(np.arange(len(blocks)))).numpy())
    found = evaluate.student_metrics(
        student, blocks, lesson.teachers["test"], tree=lesson.metrics.tree, device=torch.device("cpu")
    )
    labels = blocks.tokens[:, 1:]
    assert found["fkl"] == pytest.approx((p * np.log(p / q)).sum(-1).mean(), rel=1e-10)
    assert found["rkl"] == pytest.approx((q * np.log(q / p)).sum(-1).mean(), rel=1e-10)
    assert found["tv"] == pytest.approx(0.5 * np.abs(p - q).sum(-1).mean(), rel=1e-10)
    chosen = np.take_along_axis(q, labels[..., None], -1)
    assert found["cross_entropy"] == pytest.approx(-np.log(chosen).mean(), rel=1e-10)
    assert found["agreement"] == (p.argmax(-1) == q.argmax(-1)).mean()
    assert tuple(found) == evaluate.METRICS


def test_tree_w1_is_the_transport_problem(setting, prepared):
    """A linear program between two positions' distributions, over the dendrogram's distances; 1e-7: HiGHS."""
    lesson, _ = setting
    weights = prepared.workspace.weights(prepared.workspace.teacher_task())
    keep = 12  # tokens: the program has 144 variables
    distances = np.asarray(lesson.metrics.tree.matrix())
    rng = np.random.default_rng(0)
    size = prepared.workspace.profile.vocabulary
    for _ in range(3):
        support = rng.choice(size, keep, replace=False)
        p, q = np.zeros(size), np.zeros(size)
        p[support], q[support] = rng.dirichlet(np.ones(keep)), rng.dirichlet(np.ones(keep))
        cost = distances[np.ix_(support, support)].ravel()
        rows = np.kron(np.eye(keep), np.ones(keep))
        columns = np.kron(np.ones(keep), np.eye(keep))
        plan = linprog(
            cost, A_eq=np.vstack([rows, columns[:-1]]), b_eq=np.r_[p[support], q[support][:-1]], method="highs"
        )
        with np.errstate(divide="ignore"):
            log_p, log_q = (torch.from_numpy(np.log(x)) for x in (p, q))
        label = torch.tensor(int(support[0]))
        assert float(evaluate.positions(log_p, log_q, label, lesson.metrics.tree)["w1"]) == pytest.approx(
            plan.fun, abs=1e-7
        )
    assert distances.max() == pytest.approx(1.0)
    assert models.embeddings(weights).shape == (size, prepared.workspace.profile.teacher.width)


def test_token_tree_orders_tokens_as_the_dendrogram_does(prepared):
    """Tree distances rank all pairs as some dendrogram of scipy does (cophenetic distances, one common scale)."""
    weights = prepared.workspace.weights(prepared.workspace.teacher_task())
    points = models.embeddings(weights).numpy()
    tree = squareform(np.asarray(TokenMetrics(torch.from_numpy(points)).tree.matrix()), checks=False)
    methods = ("average", "complete", "single", "ward", "weighted")
    correlations = {method: np.corrcoef(tree, cophenet(linkage(points, method)))[0, 1] for method in methods}
    assert max(correlations.values()) > 0.999, correlations


def test_equal_embeddings_have_no_tree():
    with pytest.raises(ValueError, match="embeddings"):
        _ = TokenMetrics(torch.ones(8, 3, dtype=torch.float64)).tree


def test_stored_teacher_is_the_model(setting, prepared, tmp_path):
    """fp16 keeps 11 bits: of log-probabilities below 16 at most 2^-8 is lost, before renormalisation."""
    lesson, _ = setting
    profile = prepared.workspace.profile
    body = prepared.workspace.teacher()
    assert body.vocabulary == profile.vocabulary
    blocks = lesson.blocks["train"]
    live = LiveTeacher(body, blocks, torch.device("cpu"))
    rows = np.array([3, 0, 17])
    stored = lesson.teachers["train"].log_probs(rows)
    torch.testing.assert_close(stored, live.log_probs(rows), atol=2**-8, rtol=0)
    assert (stored != live.log_probs(rows)).any()
    exact = np.log(probabilities(body, blocks.part(rows)))
    torch.testing.assert_close(live.log_probs(rows).double(), torch.from_numpy(exact), atol=1e-5, rtol=0)
    path = tmp_path / "single.bin"
    write_cache(body, blocks, path, key="k", dtype="float32")
    single = CachedTeacher(path, key="k", verify=True).log_probs(rows)
    torch.testing.assert_close(single, live.log_probs(rows), atol=1e-5, rtol=0)  # batch size changes the last bits


def test_damaged_teacher_is_refused(workspace):
    path, key = workspace.cache_path("train"), workspace.cache_key("train")
    CachedTeacher(path, key=key, verify=True)
    with pytest.raises(store.StoredFileError, match="belongs to configuration"):
        CachedTeacher(path, key="another")
    content = path.read_bytes()
    path.write_bytes(content[:-2])
    with pytest.raises(store.StoredFileError, match=rf"{path.name} is missing or truncated.*delete"):
        CachedTeacher(path, key=key)
    path.write_bytes(content[:-2] + b"xy")
    CachedTeacher(path, key=key)  # as long as it should be: only the checksum sees it
    with pytest.raises(store.StoredFileError, match="altered"):
        CachedTeacher(path, key=key, verify=True)


def test_curve_point_is_the_objective(setting):
    """The classic mixture written out: a T² KL(p_T, q_T) + (1 - a) (-log q[label]) with a = 1/2 and T = 2."""
    lesson, student = setting
    blocks, teacher = lesson.blocks["curve"], lesson.teachers["curve"]
    loss = losses.build("classic", cost=None, transport_weight=1.0)
    found = evaluate.curve_point(student, blocks, teacher, loss=loss, name="classic", device=torch.device("cpu"))
    q, p = probabilities(student, blocks), np.exp(teacher.log_probs(np.arange(len(blocks))).double().numpy())
    warm_p, warm_q = (np.sqrt(x) / np.sqrt(x).sum(-1, keepdims=True) for x in (p, q))
    soft = (warm_p * np.log(warm_p / warm_q)).sum(-1).mean()
    hard = -np.log(np.take_along_axis(q, blocks.tokens[:, 1:, None], -1)).mean()
    assert found["objective"] == pytest.approx(0.5 * 4 * soft + 0.5 * hard, rel=1e-6)  # 1e-6: float32 teacher
    assert found["cross_entropy"] == pytest.approx(hard, rel=1e-10)


def test_teacher_facts(setting):
    lesson, _ = setting
    blocks, teacher = lesson.blocks["test"], lesson.teachers["test"]
    p = np.exp(losses.float64_log_softmax(teacher.log_probs(np.arange(len(blocks)))).numpy())
    facts = evaluate.teacher_facts(teacher, blocks)
    assert facts["entropy"] == pytest.approx(-(p * np.log(p)).sum(-1).mean(), rel=1e-10)
    chosen = np.take_along_axis(p, blocks.tokens[:, 1:, None], -1)
    assert facts["cross_entropy"] == pytest.approx(-np.log(chosen).mean(), rel=1e-10)


def test_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="'kl' is unknown"):
        losses.build("kl", cost=None, transport_weight=1.0)


def test_masked_positions_do_not_count(setting):
    """Metrics over a mask are the plain means over its positions; the control: all positions give another number."""
    lesson, student = setting
    blocks, teacher = lesson.blocks["test"], lesson.teachers["test"]
    mask = np.random.default_rng(0).random(blocks.tokens[:, 1:].shape) < 0.3
    mask[0] = False
    arguments = {"tree": lesson.metrics.tree, "device": torch.device("cpu")}
    found = evaluate.student_metrics(student, Split(blocks.tokens, mask), teacher, **arguments)
    q = probabilities(student, blocks)
    expected = -np.log(np.take_along_axis(q, blocks.tokens[:, 1:, None], -1))[..., 0]
    assert found["cross_entropy"] == pytest.approx(expected[mask].mean(), rel=1e-10)
    assert abs(found["cross_entropy"] - expected.mean()) > 1e-3
    masked = evaluate.curve_point(
        student, Split(blocks.tokens, mask), teacher, loss=losses.build("fkl", cost=None, transport_weight=1.0),
        name="fkl", device=torch.device("cpu"),
    )  # fmt: skip
    assert masked["objective"] == pytest.approx(found["fkl"], rel=1e-6)
    assert 0 <= masked["head_share"] <= 1
    facts = evaluate.teacher_facts(teacher, Split(blocks.tokens, mask))
    p = np.exp(losses.float64_log_softmax(teacher.log_probs(np.arange(len(blocks)))).numpy())
    assert facts["entropy"] == pytest.approx(-(p * np.log(p)).sum(-1)[mask].mean(), rel=1e-10)
