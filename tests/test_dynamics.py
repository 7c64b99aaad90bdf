"""Flows and descents against closed forms, mpmath's and a hand-written integrator, torch's optimisers; bad input."""

import time

import mpmath as mp
import numpy as np
import pytest
import torch

import kdtheory as kd
from kdtheory import dynamics
from kdtheory.simplex import softmax

SURE = [0.0, -np.inf]
P = np.array([0.5, 0.2, 0.2, 0.1])
Z = np.array([0.0, 3.0, -1.0, 0.5])


@pytest.mark.parametrize("gap", [1.0, 10.0, 30.0])
@pytest.mark.parametrize(
    ("name", "closed"),
    [
        ("fkl", lambda gap: (gap + 1 - np.exp(-gap)) / 2),
        ("tvd", lambda gap: gap + np.sinh(gap)),
        ("chi2", lambda gap: (1 - np.exp(-gap)) / 2),
    ],
)
def test_two_tokens_escape_at_the_closed_form(name, closed, gap):
    ended = dynamics.flow(kd.divergence(name), teacher_logits=SURE, student_logits=[0.0, gap])
    assert ended.escaped
    assert ended.time == pytest.approx(closed(gap), rel=1e-7)  # 1e-9 per step
    # dq/dt <= 1/8 there, and a float64 cannot tell times apart by less than eps · time
    assert softmax(ended.logits)[0] == pytest.approx(0.5, abs=1e-9 + np.finfo(float).eps * ended.time)


def by_hand(name, q):
    """-∂D/∂z from slopes typed again."""
    m = (P + q) / 2
    g = {"fkl": -P / q, "rkl": np.log(q / P), "jsd": np.log(q / m) / 2}[name]
    return -(g - q @ g)


def runge_kutta(name, z, until, natural, steps=4000):
    h = until / steps

    def velocity(at):
        q = softmax(at)
        return by_hand(name, q) * (1 if natural else q)

    for _ in range(steps):
        a = velocity(z)
        b = velocity(z + h / 2 * a)
        c = velocity(z + h / 2 * b)
        d = velocity(z + h * c)
        z = z + h / 6 * (a + 2 * b + 2 * c + d)
    return z


@pytest.mark.parametrize("geometry", ["euclidean", "natural"])
@pytest.mark.parametrize("name", ["fkl", "rkl", "jsd"])
def test_path_agrees_with_a_hand_written_runge_kutta(name, geometry):
    ended = dynamics.flow(
        kd.divergence(name),
        teacher_logits=np.log(P),
        student_logits=Z,
        until=dynamics.reaches(0, 0.999),
        geometry=geometry,
        horizon=2.0,
        at=[0.0, 1.0],
    )
    assert not ended.escaped
    assert ended.time == 2.0
    assert ended.path.shape == (2, 4)
    np.testing.assert_array_equal(ended.path[0], Z)
    expected = runge_kutta(name, Z, 1.0, geometry == "natural")
    np.testing.assert_allclose(ended.path[1], expected, atol=1e-7)  # 1e-9 per step; RK4's h⁴ = 4e-15
    np.testing.assert_allclose(ended.logits, runge_kutta(name, Z, 2.0, geometry == "natural"), atol=1e-7)


def test_path_agrees_with_mpmath():
    """Reverse KL, three tokens, by mpmath's Taylor series."""
    p = [mp.mpf(x) for x in ("0.6", "0.3", "0.1")]

    def velocity(_, z):
        weight = [mp.exp(x) for x in z]
        q = [w / mp.fsum(weight) for w in weight]
        g = [mp.log(a / b) for a, b in zip(q, p, strict=True)]
        mean = mp.fsum(a * b for a, b in zip(q, g, strict=True))
        return [-a * (b - mean) for a, b in zip(q, g, strict=True)]

    expected = mp.odefun(velocity, 0, [0, 2, 1])(3)
    ended = dynamics.flow(
        kd.divergence("rkl"),
        teacher_logits=[float(mp.log(x)) for x in p],
        student_logits=[0, 2, 1],
        until=dynamics.reaches(0, 0.99),
        horizon=3.0,
    )
    np.testing.assert_allclose(ended.logits, [float(x) for x in expected], atol=1e-8)


def test_twenty_thousand_tokens_take_seconds():
    V = 20_000
    teacher = np.where(np.arange(V) == 5, 0.0, -np.inf)
    start = time.process_time()
    for name, closed in (
        ("tvd", V - 2 + 2 * (1 - 1 / V) * np.log(V - 1)),
        ("fkl", (V - 1) / V * (np.log(V - 1) + (V - 2) / (V - 1))),
    ):
        ended = dynamics.flow(
            kd.divergence(name), teacher_logits=teacher, student_logits=np.zeros(V), until=dynamics.reaches(5)
        )
        assert ended.time == pytest.approx(closed, rel=1e-7)
    assert time.process_time() - start < 20


def torch_steps(make, loss, size):
    z = torch.tensor(Z, requires_grad=True)
    optimiser = make([z])
    for _ in range(size):
        optimiser.zero_grad()
        loss.loss(student_logits=z, teacher_logits=torch.tensor(np.log(P))).backward()
        optimiser.step()
    return z.detach().numpy()


@pytest.mark.parametrize("name", ["fkl", "jsd"])
@pytest.mark.parametrize(
    ("optimiser", "rate", "make"),
    [
        ("sgd", 0.7, lambda z: torch.optim.SGD(z, lr=0.7)),
        ("adam", 0.05, lambda z: torch.optim.Adam(z, lr=0.05)),
    ],
)
def test_steps_are_those_of_torch(name, optimiser, rate, make):
    loss = kd.divergence(name)
    ended = dynamics.descend(
        loss,
        teacher_logits=np.log(P),
        student_logits=Z,
        until=dynamics.reaches(0, 0.9999),
        optimiser=optimiser,
        learning_rate=rate,
        max_steps=50,
    )
    assert (ended.steps, ended.escaped) == (50, False)
    np.testing.assert_allclose(ended.logits, torch_steps(make, loss, 50), atol=1e-12)  # float64, 50 steps


def test_descent_counts_the_first_step_that_gets_there():
    loss, size = kd.divergence("fkl"), 0
    ended = dynamics.descend(loss, teacher_logits=np.log(P), student_logits=Z, learning_rate=0.5)
    z = Z.copy()
    while softmax(z)[1] > 0.5:
        z, size = z - 0.5 * (softmax(z) - P), size + 1
    assert (ended.steps, ended.escaped) == (size, True)


def test_losses_add_in_a_flow():
    both = kd.divergence("fkl") + 2.0 * kd.divergence("w1", cost=kd.TokenCost.line([0.0, 1.5]))
    alone = kd.divergence("fkl")
    times = [dynamics.flow(loss, teacher_logits=SURE, student_logits=[0.0, 8.0]).time for loss in (both, alone)]
    assert times[0] < times[1]


def test_an_event_that_holds_at_the_start_takes_no_time():
    ended = dynamics.flow(
        kd.divergence("fkl"), teacher_logits=SURE, student_logits=[2.0, 0.0], until=dynamics.reaches(0)
    )
    assert (ended.time, ended.escaped, ended.evaluations) == (0.0, True, 0)
    counted = dynamics.descend(
        kd.divergence("fkl"), teacher_logits=SURE, student_logits=[2.0, 0.0], until=dynamics.reaches(0)
    )
    assert (counted.steps, counted.escaped) == (0, True)


def test_path_ends_with_the_event():
    ended = dynamics.flow(
        kd.divergence("fkl"), teacher_logits=SURE, student_logits=[0.0, 4.0], at=[0.5, 1.0, 50.0], horizon=100.0
    )
    assert ended.escaped
    assert ended.path.shape == (2, 2)


def test_a_flow_that_runs_into_a_kink_says_so():
    with pytest.raises(RuntimeError, match=r"tvd: no event after 3000 evaluations .* kink"):
        dynamics.flow(
            kd.divergence("tvd"),
            teacher_logits=np.log([0.9, 0.06, 0.04]),
            student_logits=[0.0, 5.0, 0.0],
            until=dynamics.reaches(0, 0.95),  # more than the teacher gives it
            max_evaluations=3000,
        )


def test_resting_before_the_event_says_so():
    with pytest.raises(RuntimeError, match=r"fkl: no event after 500 evaluations .* at time .*: the flow rests"):
        dynamics.flow(FKL, **GOOD, until=dynamics.reaches(0, 0.95), max_evaluations=500)


def test_a_step_that_overflows_is_named():
    with pytest.raises(RuntimeError, match=r"chi2: step \d+ overflows the logits; choose a smaller learning rate"):
        dynamics.descend(kd.divergence("chi2"), **GOOD, until=dynamics.reaches(3, 0.95), learning_rate=1e4)


@pytest.mark.parametrize("run", [dynamics.flow, dynamics.descend])
def test_the_result_does_not_share_the_callers_memory(run):
    start = torch.tensor(Z)
    ended = run(FKL, teacher_logits=np.log(P), student_logits=start, until=dynamics.reaches(1))  # holds at the start
    ended.logits[:] = 7.0
    np.testing.assert_array_equal(start, Z)


GOOD = {"teacher_logits": np.log(P), "student_logits": Z}
FKL = kd.divergence("fkl")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student_logits": [0.0, np.nan, 0.0, 0.0]}, r"student_logits\[1\] is nan"),
        ({"student_logits": [0.0, 0.0, -np.inf, 0.0]}, r"student_logits\[2\] is -inf: no flow leaves it"),
        ({"student_logits": np.zeros(3)}, r"teacher_logits has shape \(4,\) and student_logits \(3,\)"),
        ({"student_logits": np.zeros((1, 4)), "teacher_logits": np.zeros((1, 4))}, r"one table of logits"),
        ({"until": "leaves"}, r"until: expected reaches\(token\) or leaves\(\), got str"),
        ({"until": dynamics.reaches(4)}, r"token = 4: one of the indices 0 to 3"),
    ],
)
@pytest.mark.parametrize("run", [dynamics.flow, dynamics.descend])
def test_bad_input_is_named(run, change, message):
    with pytest.raises(ValueError, match=message):
        run(FKL, **(GOOD | change))


@pytest.mark.parametrize(
    ("run", "change", "message"),
    [
        (dynamics.flow, {"geometry": "round"}, "geometry = 'round': one of 'euclidean', 'natural'"),
        (dynamics.flow, {"horizon": np.inf}, "horizon = inf: give a positive finite number"),
        (dynamics.flow, {"tolerance": 0.0}, "tolerance = 0.0"),
        (dynamics.flow, {"max_evaluations": True}, "max_evaluations = True: give a positive integer"),
        (dynamics.descend, {"max_steps": 1.5}, "max_steps = 1.5: give a positive integer"),
        (dynamics.descend, {"until": dynamics.reaches(True)}, "token = True: one of the indices"),
        (dynamics.descend, {"betas": 0.9}, r"betas = 0.9: two numbers in \[0, 1\)"),
        (dynamics.flow, {"at": [1.0, 0.5]}, "at: increasing times"),
        (dynamics.descend, {"optimiser": "lion"}, "optimiser = 'lion': one of 'sgd', 'adam'"),
        (dynamics.descend, {"learning_rate": -1.0}, "learning_rate = -1.0"),
        (dynamics.descend, {"betas": (0.9, 1.0)}, "betas"),
    ],
)
def test_bad_options_are_named(run, change, message):
    with pytest.raises(ValueError, match=message):
        run(FKL, **(GOOD | change))


def test_numbers_of_numpy_are_numbers():
    ended = dynamics.flow(
        FKL, **GOOD, until=dynamics.reaches(0, 0.95), horizon=np.float32(2), tolerance=np.float64(1e-6)
    )
    assert (ended.time, ended.escaped) == (2.0, False)


def test_what_is_not_a_loss_is_named():
    with pytest.raises(ValueError, match="loss: expected a Loss"):
        dynamics.flow("fkl", **GOOD)


def test_an_infinite_divergence_is_named():
    with pytest.raises(ValueError, match=r"rkl: the gradient at student_logits\[0\] is -?inf"):
        dynamics.flow(kd.divergence("rkl"), teacher_logits=SURE, student_logits=[0.0, 1.0])


def test_a_level_is_a_probability():
    with pytest.raises(ValueError, match="level = 1"):
        dynamics.leaves(1)


def test_the_natural_gradient_refuses_what_float64_cannot_hold():
    with pytest.raises(ValueError, match="token 0 has log-probability -800, too small"):
        dynamics.flow(FKL, teacher_logits=SURE, student_logits=[0.0, 800.0], geometry="natural")
