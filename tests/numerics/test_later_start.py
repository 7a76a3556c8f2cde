"""Flows that are singular at t = 0, begun shortly after: against solutions in closed form."""

import math

import pytest
import torch
from scipy.special import j1
from torch import nn

import flowopt as fo
from flowopt.optim import FlowOptimizer
from tests.reference.states import evaluation_of

START = torch.tensor([1.0, -2.0], dtype=torch.float64)
FORGOTTEN = -math.expm1(-0.7 * 2.0)
DRIFT_SCHEMES = [fo.Euler(), fo.RungeKutta("rk4"), fo.RungeKutta("dopri5")]


class Plane:
    """A loss whose gradient is the same everywhere."""

    dim = 2
    slope = torch.tensor([0.3, -5.0], dtype=torch.float64)

    def loss(self, theta):
        return (self.slope * theta).sum(-1)


def run(flow, scheme, problem=None, **settings):
    settings = {"step_size": 0.05, "duration": 2.0, **settings}
    return fo.integrate(flow, scheme, problem or Plane(), START, **settings)


@pytest.mark.parametrize("scheme", DRIFT_SCHEMES, ids=repr)
def test_adam_descends_a_plane_at_unit_speed(scheme):
    # m/u_m = ∇L and v/u_v = ∇L² for ever.
    flow = fo.flows.adam(momentum_rate=2.0, square_rate=0.5, eps=0.0)
    end = run(flow, scheme).position
    torch.testing.assert_close(end, START - 2.0 * Plane.slope.sign(), rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("flow", "distance"),
    [
        # θ' = −sign/√(1 − exp(−bt)) and −sign/√(κt)
        (
            fo.flows.rmsprop(square_rate=0.7, eps=0.0),
            2 / 0.7 * math.atanh(FORGOTTEN**0.5),
        ),
        (fo.flows.adagrad(accumulation=0.7, eps=0.0), 2 * math.sqrt(2.0 / 0.7)),
    ],
    ids=["rmsprop", "adagrad"],
)
def test_from_rest_an_average_of_squares_is_followed_through_its_root(flow, distance):
    control = fo.ErrorControl(rtol=1e-9, atol=1e-9)
    end = run(flow, fo.RungeKutta("dopri5"), step_size=None, control=control).position
    # The start leaves out 2√t₀ with t₀ = 1e-12 of the rate's time.
    torch.testing.assert_close(end, START - distance * Plane.slope.sign(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("scheme", "order"), [(fo.Euler(), 1), (fo.RungeKutta("rk4"), 4)], ids=repr
)
def test_the_accelerated_gradient_follows_its_bessel_function(scheme, order):
    curvatures = torch.tensor([1.0, 9.0], dtype=torch.float64)
    problem = fo.problems.quadratic(curvatures)
    errors = []
    for step_size in (0.02, 0.01):
        end = run(fo.flows.accelerated_gradient(), scheme, problem, step_size=step_size)
        phase = curvatures.sqrt() * end.state.time
        exact = START * torch.from_numpy(2 * j1(phase.numpy())) / phase
        errors.append((end.position - exact).norm())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


def test_a_word_starts_at_time_zero_as_published_rules_do():
    solution = run(fo.flows.adam(), fo.Splitting("TMVA"), record={"position": 1}, steps=1)
    assert solution.times["position"][0] == 0.0
    later = run(fo.flows.adam(), fo.Euler(), record={"position": 1}, steps=1)
    assert 0.0 < later.times["position"][0] < 1e-10


def test_an_optimizer_begins_as_integrate_does():
    parameter = nn.Parameter(START.clone())
    flow = fo.flows.adam(momentum_rate=2.0, square_rate=0.5, eps=0.0)
    optimizer = FlowOptimizer([parameter], flow, fo.RungeKutta("rk4"), lr=0.05)

    def closure():
        optimizer.zero_grad()
        loss = Plane().loss(parameter)
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    expected = run(flow, fo.RungeKutta("rk4"), duration=None, steps=3).position
    torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=1e-13)


WORDS = {"adam": "TMVA", "amsgrad": "TMVXA", "adabelief": "TMVA"}


@pytest.mark.parametrize("name", WORDS)
def test_an_energy_that_is_zero_by_zero_at_the_start_has_its_limit_there(name):
    problem, rate = fo.problems.quadratic([1.0, 4.0]), 2.0
    flow = getattr(fo.flows, name)(momentum_rate=rate)
    settings = {"step_size": 1e-16, "record": {"energy": 1}, "duration": None, "steps": 1}
    energies = run(flow, fo.Splitting(WORDS[name]), problem, **settings).records["energy"]
    assert energies[0] == rate * problem.loss(START)
    torch.testing.assert_close(energies[1], energies[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", WORDS)
def test_an_element_that_has_felt_no_gradient_adds_nothing_to_energy_and_rate(name):
    flow, scheme = getattr(fo.flows, name)(), fo.Splitting(WORDS[name])
    found = []
    for start in (START, torch.cat([START, START.new_zeros(1)])):
        problem = fo.problems.quadratic([1.0, 4.0, 2.0][: len(start)])
        state = fo.integrate(flow, scheme, problem, start, step_size=1e-2, steps=5).state
        here, energy = evaluation_of(problem, state.position), flow.energy("lyapunov")
        found.append(torch.stack([energy.value(state, here), energy.rate(state, here)]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-14, atol=0)


def test_energy_control_begins_adam_with_its_published_first_step():
    problem = fo.problems.analytic("poly_two")
    solution = run(
        fo.flows.adam(),
        fo.Splitting("TMVA"),
        problem,
        step_size=None,
        duration=None,
        control=fo.LyapunovControl(dissipation=0.1, growth=2.0, first_step=1e-3),
        steps=30,
        record={"lyapunov": 1, "position": 1},
    )
    assert solution.times["lyapunov"][0] == 0.0
    first = solution.records["position"].diff(dim=0)[0]
    torch.testing.assert_close(first, -1e-3 * problem.gradient(START).sign(), rtol=1e-6, atol=0)
    assert (solution.records["lyapunov"].diff(dim=0) <= 0).all()
