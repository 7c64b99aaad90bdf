"""`kd.sinkhorn` against plain loops in extended precision, POT, and closed forms."""

import numpy as np
import ot
import pytest
import torch

import kdtheory as kd
from kdtheory import TokenCost
from tests.transport import entropic_oracle as oracle

FUNCTIONALS = ("relative", "entropic", "sharp", "divergence")


def laws(rng, V, rows=3):
    """Pairs with zeros: one in the teacher, one in the student, one in both."""
    p, q = rng.dirichlet(np.ones(V), rows), rng.dirichlet(np.ones(V), rows)
    p[0, 0] = q[1 % rows, 1] = p[-1, 2] = q[-1, 2] = 0
    return p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)


def costs(rng, V):
    return {
        "embedding": TokenCost.embedding(rng.normal(size=(V, 3))),
        "line": TokenCost.line(rng.uniform(size=V)),
        "0-1": TokenCost.zero_one(V),
        "not symmetric": TokenCost.dense(rng.uniform(size=(V, V))),
    }


@pytest.mark.parametrize("kind", ["embedding", "line", "0-1", "not symmetric"])
@pytest.mark.parametrize("functional", FUNCTIONALS)
@pytest.mark.parametrize("relative_epsilon", [0.5, 0.05])
def test_values_are_those_of_the_definition(kind, functional, relative_epsilon, rng):
    cost = costs(rng, 7)[kind]
    p, q = laws(rng, 7)
    epsilon, C = relative_epsilon * cost.diameter, cost.matrix().numpy()
    found = kd.sinkhorn(p, q, cost, epsilon, functional)
    expected = [oracle.values(a, b, C, epsilon)[functional] for a, b in zip(p, q, strict=True)]
    assert found.converged.all()
    # the value moves by at most (range of the potentials) · marginal error, 1e-9
    np.testing.assert_allclose(found.value, expected, rtol=0, atol=1e-8 * cost.diameter)


@pytest.mark.parametrize("functional", ["relative", "sharp"])
def test_the_reduced_form_moves_only_the_difference(functional, rng):
    cost = costs(rng, 7)["embedding"]
    p, q = laws(rng, 7)
    epsilon, C = 0.1 * cost.diameter, cost.matrix().numpy()
    found = kd.sinkhorn(p, q, cost, epsilon, functional, form="reduced")
    expected = [oracle.reduced(functional, a, b, C, epsilon) for a, b in zip(p, q, strict=True)]
    np.testing.assert_allclose(found.value, expected, rtol=0, atol=1e-8 * cost.diameter)


def test_the_plan_of_the_potentials_is_pots(rng):
    """POT's log-domain solver, another implementation of the same plan."""
    cost = costs(rng, 9)["not symmetric"]
    p, q = (rng.dirichlet(np.ones(9)) for _ in range(2))
    epsilon, C = 0.05 * cost.diameter, cost.matrix().numpy()
    f, g = kd.sinkhorn(p, q, cost, epsilon, tol=1e-12).potentials
    ours = np.outer(p, q) * np.exp((f[:, None] + g - C) / epsilon)
    theirs = ot.bregman.sinkhorn_log(p, q, C, epsilon, stopThr=1e-14, numItermax=100_000)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11)


def test_potentials_solve_the_fixed_point_on_every_token(rng):
    """f_i = -ε log Σ_j q_j e^{(g_j - C_ij)/ε} also where p_i = 0, and for g likewise."""
    cost = costs(rng, 8)["not symmetric"]
    p, q = laws(rng, 8)
    C = cost.matrix().numpy()
    f, g = kd.sinkhorn(p, q, cost, 0.1, tol=1e-12).potentials
    with np.errstate(divide="ignore"):
        again_f = -0.1 * np.logaddexp.reduce(np.log(q)[:, None] + (g[:, None] - C) / 0.1, axis=2)
        again_g = -0.1 * np.logaddexp.reduce(np.log(p)[:, :, None] + (f[:, :, None] - C) / 0.1, axis=1)
    np.testing.assert_allclose(f, again_f, atol=1e-11)
    np.testing.assert_allclose(g, again_g, atol=1e-11)


def test_two_tokens_in_closed_form():
    """V = 2, 0-1 cost: the plan's odds ratio is e^{2/ε}, so its off-diagonal x solves a quadratic."""
    p, q, epsilon = (0.7, 0.3), (0.4, 0.6), 0.5
    odds = np.exp(2 / epsilon)
    # Γ_12 = x, Γ_11 = .7 - x, Γ_21 = x - .3, Γ_22 = .6 - x:  (.7 - x)(.6 - x) = odds · x (x - .3)
    x = max(np.roots([1 - odds, -1.3 + 0.3 * odds, 0.42]))
    found = kd.sinkhorn(p, q, TokenCost.zero_one(2), epsilon, "sharp", tol=1e-13)
    assert found.value == pytest.approx(x + (x - 0.3), abs=1e-12)


def test_diracs_cost_their_distance():
    x = np.array([0.0, 1.0, 4.0])
    at = np.eye(3)
    for functional, own in (("relative", 0.0), ("entropic", 0.0), ("sharp", 0.0), ("divergence", 0.0)):
        found = kd.sinkhorn(at[[0, 1, 2]], at[[2, 1, 0]], TokenCost.line(x), 0.3, functional)
        np.testing.assert_allclose(found.value, [4.0, own, 4.0], atol=1e-12)


def test_equal_laws(rng):
    """Zero where it must be (divergence, reduced), positive where the entropy biases (relative, sharp)."""
    cost, p = costs(rng, 6)["line"], rng.dirichlet(np.ones(6), 2)
    assert abs(kd.sinkhorn(p, p, cost, 0.2, "divergence").value).max() <= 1e-9  # tol
    assert (kd.sinkhorn(p, p, cost, 0.2, "relative", form="reduced").value == 0).all()
    assert (kd.sinkhorn(p, p, cost, 0.2, "relative").value > 0.01).all()
    assert (kd.sinkhorn(p, p, cost, 0.2, "sharp").value > 0.01).all()


def test_shapes_and_kinds_of_arrays(rng):
    cost, p = costs(rng, 5)["line"], rng.dirichlet(np.ones(5), (2, 3))
    q = rng.dirichlet(np.ones(5), (2, 3))
    found = kd.sinkhorn(p, q, cost, 0.2)
    assert found.value.shape == found.iterations.shape == found.lower.shape == (2, 3)
    assert found.potentials.f.shape == (2, 3, 5)
    assert isinstance(found.value, np.ndarray)
    one = kd.sinkhorn(torch.tensor(p[0, 0]), torch.tensor(q[0, 0]), cost, 0.2)
    assert isinstance(one.value, torch.Tensor)
    assert one.value.shape == ()
    assert one.value.item() == pytest.approx(found.value[0, 0], abs=1e-9)
    assert kd.sinkhorn(np.empty((0, 5)), np.empty((0, 5)), cost, 0.2).value.shape == (0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 0.0}, "epsilon = 0.0"),
        ({"epsilon": float("nan")}, "epsilon = nan"),
        ({"functional": "sharpe"}, "functional = 'sharpe'"),
        ({"form": "half"}, "form = 'half'"),
        ({"form": "reduced", "functional": "divergence"}, "without debiasing"),
        ({"form": "reduced", "functional": "entropic"}, "slope is infinite"),
        ({"precision": "float16"}, "precision = 'float16'"),
        ({"tol": -1.0}, "tol = -1.0"),
        ({"tol": 1e-8, "precision": "float32"}, "float32 reaches"),
        ({"max_iter": 0}, "max_iter = 0"),
        ({"cost": TokenCost.zero_one(4)}, "has 3 tokens"),
        ({"cost": np.ones((3, 3))}, "expected a kdtheory.TokenCost"),
        ({"p": [0.5, 0.5, 0.5]}, "p sums to 1.5"),
        ({"q": [0.5, 0.7, -0.2]}, r"q\[2\] = -0.2"),
    ],
)
def test_bad_arguments_are_named(change, message):
    given = {"p": [0.2, 0.3, 0.5], "q": [0.5, 0.3, 0.2], "cost": TokenCost.zero_one(3), "epsilon": 0.1, **change}
    with pytest.raises(ValueError, match=message):
        kd.sinkhorn(**given)


def test_the_reduced_form_refuses_a_cost_that_is_no_metric():
    squared = TokenCost.dense([[0, 1, 4], [1, 0, 1], [4, 1, 0]])
    with pytest.raises(kd.transport.NotAMetricError, match=r"triple \(0, 1, 2\)"):
        kd.sinkhorn([1, 0, 0], [0, 0, 1], squared, 0.1, form="reduced")
