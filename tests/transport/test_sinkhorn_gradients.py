"""Each functional's gradient against central differences of values computed elsewhere."""

import numpy as np
import pytest
import torch

import kdtheory as kd
from kdtheory import TokenCost
from tests.transport import entropic_oracle as oracle

V, STEP = 6, 1e-5


def pair(rng):
    return rng.dirichlet(3 * np.ones(V)), rng.dirichlet(3 * np.ones(V))


def differences(value, at):
    """Directional derivatives along e_i - e_0, by central differences."""
    out = []
    for i in range(1, V):
        direction = np.zeros(V)
        direction[i], direction[0] = STEP, -STEP
        out.append((value(at + direction) - value(at - direction)) / (2 * STEP))
    return np.array(out)


def ours(p, q, cost, epsilon, functional, form="full"):
    p, q = (torch.tensor(x, requires_grad=True) for x in (p, q))
    kd.sinkhorn(p, q, cost, epsilon, functional, form, tol=1e-12).value.backward()
    return (p.grad[1:] - p.grad[0]).numpy(), (q.grad[1:] - q.grad[0]).numpy()


@pytest.mark.parametrize("functional", ["relative", "entropic", "sharp", "divergence"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_gradients_belong_to_their_values(functional, symmetric, rng):
    C = rng.uniform(0.2, 1, size=(V, V))
    C = C + C.T if symmetric else C
    np.fill_diagonal(C, 0)
    p, q = pair(rng)
    epsilon = 0.2 * C.max()
    at_p, at_q = ours(p, q, TokenCost.dense(C), epsilon, functional)
    # 1e-7: central differences with step 1e-5, third derivatives of order 1/p²
    expected_p = differences(lambda x: oracle.value(functional, x, q, C, epsilon), p)
    expected_q = differences(lambda x: oracle.value(functional, p, x, C, epsilon), q)
    np.testing.assert_allclose(at_p, expected_p, atol=1e-7 * C.max())
    np.testing.assert_allclose(at_q, expected_q, atol=1e-7 * C.max())


@pytest.mark.parametrize("functional", ["relative", "sharp"])
def test_gradients_of_the_reduced_form(functional, rng):
    cost = TokenCost.embedding(rng.normal(size=(V, 2)))
    C, (p, q) = cost.matrix().numpy(), pair(rng)
    epsilon = 0.2 * cost.diameter
    at_p, at_q = ours(p, q, cost, epsilon, functional, "reduced")
    expected_p = differences(lambda x: oracle.reduced(functional, x, q, C, epsilon), p)
    expected_q = differences(lambda x: oracle.reduced(functional, p, x, C, epsilon), q)
    np.testing.assert_allclose(at_p, expected_p, atol=1e-6)
    np.testing.assert_allclose(at_q, expected_q, atol=1e-6)


def test_the_potential_is_not_the_gradient_of_the_sharp_value(rng):
    """The control: three gradients of three functionals, none close to another."""
    cost, (p, q) = TokenCost.embedding(rng.normal(size=(V, 2))), pair(rng)
    found = [ours(p, q, cost, 0.3 * cost.diameter, name)[1] for name in ("relative", "entropic", "sharp")]
    for i in range(3):
        for j in range(i):
            assert abs(found[i] - found[j]).max() > 0.05 * abs(found[i]).max()


def test_small_epsilon_needs_a_hard_linear_system(rng):
    """ε = 0.01 · diam: the system behind the sharp gradient is badly conditioned."""
    cost, (p, q) = TokenCost.line(np.sort(rng.uniform(size=V))), pair(rng)
    C, epsilon = cost.matrix().numpy(), 0.01 * cost.diameter
    _, at_q = ours(p, q, cost, epsilon, "sharp")
    expected = differences(lambda x: oracle.value("sharp", p, x, C, epsilon), q)
    np.testing.assert_allclose(at_q, expected, atol=1e-5)


@pytest.mark.parametrize("functional", ["relative", "entropic", "sharp", "divergence"])
def test_zero_masses_give_finite_gradients(functional, rng):
    """At q_j = 0 the derivative is one-sided; along tokens with mass it is the ordinary one."""
    cost, (p, q) = TokenCost.embedding(rng.normal(size=(V, 2))), pair(rng)
    p[5], q[4] = 0, 0
    p, q = p / p.sum(), q / q.sum()
    C, epsilon = cost.matrix().numpy(), 0.2 * cost.diameter
    at_p, at_q = ours(p, q, cost, epsilon, functional)
    assert np.isfinite(at_p).all()
    assert np.isfinite(at_q).all()

    def along(i):
        direction = np.zeros(V)
        direction[i], direction[0] = STEP, -STEP
        ahead, behind = (oracle.value(functional, p, q + s * direction, C, epsilon) for s in (1, -1))
        return (ahead - behind) / (2 * STEP)

    for i in (1, 2, 3, 5):
        assert at_q[i - 1] == pytest.approx(along(i), abs=1e-6)
    if functional == "relative":  # one-sided at the empty token: forward difference, error of order STEP
        direction = np.zeros(V)
        direction[4], direction[0] = 1e-6, -1e-6
        forward = oracle.value(functional, p, q + direction, C, epsilon) - oracle.value(functional, p, q, C, epsilon)
        assert at_q[3] == pytest.approx(forward / 1e-6, abs=1e-4)
