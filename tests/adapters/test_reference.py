"""The true flow, against closed forms."""

import pytest
import torch
from torch.nn.functional import cross_entropy

import flowopt as fo
from flowopt import Status
from flowopt.registry import FLOWS
from tests.reference.solutions import SMOOTH, moving_state, slow_flow, solve
from tests.reference.states import HILLS, Loss, flat
from tests.reference.training import small_problem

STARTS = torch.tensor([[1.0, 2.0], [0.3, -0.4]], dtype=torch.float64)
CURVATURES = torch.tensor([1.0, 4.0], dtype=torch.float64)
QUADRATIC = fo.problems.quadratic(CURVATURES)
GRADIENT_FLOW = fo.flows.gradient_flow()
TIMES = [0.0, 1.0, 5.0, 20.0]


def oscillation(friction, times):
    """Position of a damped oscillator that starts at rest, (time, batch, dim)."""
    decay = torch.as_tensor(friction, dtype=torch.float64)[..., None] / 2
    frequency = (CURVATURES - decay**2).sqrt()
    t = torch.tensor(times, dtype=torch.float64)[:, None, None]
    swing = torch.cos(frequency * t) + decay / frequency * torch.sin(frequency * t)
    return STARTS * torch.exp(-decay * t) * swing


@pytest.mark.parametrize("method", ["DOP853", "Radau"])
def test_an_oscillator_is_exact_to_the_tolerance(method):
    tolerance = {"DOP853": 1e-12, "Radau": 1e-6}[method]
    flow = fo.flows.heavy_ball(friction=0.5)
    settings = {"rtol": tolerance, "atol": tolerance / 100, "method": method}
    solution = fo.adapters.reference_solution(flow, QUADRATIC, STARTS, TIMES, **settings)
    error = (solution.position - oscillation(0.5, TIMES)).abs().max()
    assert error < 10 * tolerance
    assert torch.equal(solution.position[0], STARTS)
    assert solution.status.tolist() == [Status.TIME_REACHED] * 2
    assert (solution.gradients > 100).all()


def test_every_trajectory_has_its_own_hyperparameters():
    friction = torch.tensor([0.5, 0.1], dtype=torch.float64)
    flow = fo.flows.heavy_ball(friction=friction)
    solution = fo.adapters.reference_solution(flow, QUADRATIC, STARTS, TIMES)
    expected = oscillation(friction, TIMES)
    torch.testing.assert_close(solution.position, expected, rtol=0, atol=1e-11)


def test_time_in_the_equation_is_the_time_of_the_solution():
    flow = fo.Flow.from_text("A: dtheta/dt = -g*t")
    start = fo.integrate(flow, fo.Euler(), QUADRATIC, STARTS, step_size=0.5, steps=1).state
    solution = fo.adapters.reference_solution(flow, QUADRATIC, start, [0.5, 1.5])
    expected = STARTS * torch.exp(-CURVATURES * (1.5**2 - 0.5**2) / 2)
    torch.testing.assert_close(solution.position[1], expected, rtol=1e-11, atol=0)
    assert solution.state.time.tolist() == [[0.5, 0.5], [1.5, 1.5]]


@pytest.mark.parametrize("name", SMOOTH)
def test_all_variables_of_every_flow_are_followed(name):
    flow = slow_flow(name)
    word = FLOWS[name].words[0]
    state = moving_state(flow, word, HILLS, STARTS[0] / 2)
    times = state.time + torch.tensor([0.5, 1.0], dtype=torch.float64)
    solution = fo.adapters.reference_solution(flow, HILLS, state, times)
    twin = solve(flow, HILLS, state, [0.5, 1.0])
    torch.testing.assert_close(flat(solution.state), twin, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", ["DOP853", "Radau"])
def test_a_trajectory_that_ends_in_finite_time_leaves_the_others_alone(method):
    # dθ/dt = θ³ from θ = 1 is infinite at t = 1/2.
    hill = Loss(lambda theta: -(theta**4).sum(-1) / 4, dim=1)
    start = torch.tensor([[1.0], [0.5]], dtype=torch.float64)
    solution = fo.adapters.reference_solution(
        GRADIENT_FLOW, hill, start, [0.25, 1.0], rtol=1e-6, atol=1e-8, method=method
    )
    assert solution.status.tolist() == [Status.STEP_TOO_SMALL, Status.TIME_REACHED]
    expected = (start[:, 0] ** -2 - 2 * torch.tensor([[0.25], [1.0]])) ** -0.5
    torch.testing.assert_close(
        solution.position[..., 0], expected, rtol=1e-4, atol=0, equal_nan=True
    )


def test_a_network_moves_on_the_loss_over_all_rows():
    problem = small_problem()
    start = problem.start()
    solution = fo.adapters.reference_solution(GRADIENT_FLOW, problem, start, [0.5], rtol=1e-9)
    whole = fo.problems.network(problem.module, cross_entropy, (problem.inputs, problem.targets))
    scheme = fo.RungeKutta("rk4")
    steps = fo.integrate(GRADIENT_FLOW, scheme, whole, start, step_size=0.05, duration=0.5)
    for name, value in steps.position.items():
        torch.testing.assert_close(solution.position[name][0], value, rtol=0, atol=1e-7)


def reference(flow=GRADIENT_FLOW, start=STARTS, times=(1.0,), **settings):
    return fo.adapters.reference_solution(flow, QUADRATIC, start, times, **settings)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"flow": fo.flows.langevin(temperature=1.0)}, fo.CompatibilityError, "one Brownian|path"),
        ({"flow": fo.classic.adam().flow}, fo.CompatibilityError, "at_step_size"),
        ({"start": STARTS.float()}, fo.DataError, "references are in float64: give start.double"),
        ({"start": STARTS[:, :1]}, fo.DataError, "expected .*2"),
        ({"times": [1.0, 0.5]}, fo.ConfigurationError, "increasing"),
        ({"times": []}, fo.ConfigurationError, "times are"),
        ({"times": [-1.0]}, fo.ConfigurationError, "before the start's 0"),
        ({"times": [float("nan")]}, fo.ConfigurationError, "finite"),
        ({"rtol": 1e-16}, fo.ConfigurationError, "rtol is from 1e-13 to 1"),
        ({"atol": -1.0}, fo.ConfigurationError, "atol is not negative"),
        ({"method": "RK45"}, fo.ConfigurationError, "known are .*DOP853"),
    ],
)
def test_wrong_use_is_refused_in_words(settings, error, message):
    with pytest.raises(error, match=message):
        reference(**settings)


def test_a_batch_without_members_has_a_solution_without_members():
    found = fo.adapters.reference_solution(GRADIENT_FLOW, QUADRATIC, STARTS[:0], TIMES)
    assert found.position.shape == (len(TIMES), 0, 2)
    assert found.status.shape == found.gradients.shape == (0,)
