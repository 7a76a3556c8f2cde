"""Linearly implicit Euler: systems with the Hessian, dense and by conjugate gradients."""

import pytest
import torch
from torch.testing import assert_close

import flowopt as fo
from flowopt.core.curvature.hessian import Hessian
from flowopt.core.oracle import as_oracle
from flowopt.registry import FLOWS
from tests.reference.solutions import moving_state, slow_flow
from tests.reference.states import HILLS, Loss, evaluation_of, flat, unflat

CURVATURES = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
QUADRATIC = fo.problems.quadratic(CURVATURES)
START = torch.tensor([[0.7, -0.4], [1.5, 0.2], [0.0, 1.0]], dtype=torch.float64)
DENSE, ITERATED = fo.LinearlyImplicitEuler(), fo.LinearlyImplicitEuler(iterations=2)


def one(flow, scheme, problem, start, step_size, steps=1):
    return fo.integrate(flow, scheme, problem, start, step_size=step_size, steps=steps)


@pytest.mark.parametrize("scheme", [DENSE, ITERATED], ids=repr)
@pytest.mark.parametrize("step_size", [0.1, 3.0, 1e6])
def test_a_quadratic_shrinks_by_the_resolvent(scheme, step_size):
    """θ⁺ = (I + hK)⁻¹ θ, at any step size."""
    found = one(fo.flows.gradient_flow(), scheme, QUADRATIC, START, step_size).position
    resolvent = torch.linalg.inv(torch.eye(2, dtype=torch.float64) + step_size * CURVATURES)
    assert_close(found, START @ resolvent.T, rtol=0, atol=1e-12)


def test_the_heavy_ball_moves_by_the_resolvent_of_its_matrix():
    step_size, friction = 0.8, 0.5
    state = moving_state(fo.flows.heavy_ball(friction=friction), "OBA", QUADRATIC, START)
    found = one(fo.flows.heavy_ball(friction=friction), DENSE, QUADRATIC, state, step_size).state
    identity, zero = torch.eye(2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    drift = torch.cat(
        [torch.cat([-friction * identity, -CURVATURES], 1), torch.cat([identity, zero], 1)]
    )
    resolvent = torch.linalg.inv(torch.eye(4, dtype=torch.float64) - step_size * drift)
    assert_close(flat(found), flat(state) @ resolvent.T, rtol=0, atol=1e-13)


def test_conjugate_gradients_end_at_the_dense_solution():
    """On a loss that is convex, where the system is positive definite."""
    problem = Loss(lambda theta: (theta**4).sum(-1) + (theta[..., 0] - theta[..., 1]) ** 2)
    ends = [
        one(fo.flows.gradient_flow(), scheme, problem, START, 0.5, steps=5).position
        for scheme in (DENSE, ITERATED)
    ]
    assert_close(ends[1], ends[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("scheme", [DENSE, ITERATED], ids=repr)
def test_products_are_counted_apart_from_gradients(scheme):
    solution = one(fo.flows.gradient_flow(), scheme, QUADRATIC, START, 0.1, steps=7)
    # One with the Hessian counts as three with a Jacobian: 6 forward passes instead of 2.
    assert solution.counts["products"].tolist() == [3 * 14] * 3
    assert solution.counts["gradients"].tolist() == [15, 15, 15]
    assert solution.cost.tolist() == [6 * 14 + 3 * 15] * 3
    explicit = one(fo.flows.gradient_flow(), fo.Euler(), QUADRATIC, START, 0.1, steps=7)
    assert explicit.counts["products"].tolist() == [0, 0, 0]


def test_a_momentum_costs_no_product():
    solution = one(fo.flows.heavy_ball(), DENSE, QUADRATIC, START, 0.1, steps=3)
    assert solution.counts["products"].tolist() == [3 * 6] * 3


def test_where_the_system_curves_downwards_the_step_is_that_of_explicit_euler():
    hill = fo.problems.quadratic([-5.0])
    start = torch.tensor([[0.3]], dtype=torch.float64)
    flow = fo.flows.gradient_flow()
    ends = [one(flow, s, hill, start, 1.0).position for s in (ITERATED, fo.Euler())]
    assert torch.equal(*ends)


def test_a_singular_system_ends_a_trajectory_and_no_other():
    hills = fo.problems.quadratic([-2.0])
    start, steps = torch.ones(2, 1, dtype=torch.float64), torch.tensor([0.5, 0.1]).double()
    solution = one(fo.flows.gradient_flow(), DENSE, hills, start, steps, steps=3)
    assert solution.status.tolist() == [fo.Status.DIVERGED, fo.Status.STEPS_TAKEN]


def test_a_network_takes_steps_that_explicit_euler_can_not():
    torch.manual_seed(0)
    inputs = torch.randn(40, 3, dtype=torch.float64) * torch.tensor([1.0, 10.0, 30.0])
    targets = inputs @ torch.tensor([[1.0], [0.3], [-0.2]], dtype=torch.float64)
    module = torch.nn.Linear(3, 1, dtype=torch.float64)
    network = fo.problems.network(module, torch.nn.functional.mse_loss, (inputs, targets))
    flow, start = fo.flows.gradient_flow(), network.start()
    implicit = one(flow, fo.LinearlyImplicitEuler(iterations=4), network, start, 10.0, steps=10)
    explicit = one(flow, fo.Euler(), network, start, 10.0, steps=10)
    assert implicit.loss < 1e-6
    assert not explicit.loss < 1e3
    assert implicit.counts["products"].item() == 3 * 40


BUILT = {name: entry.build() for name, entry in FLOWS.items()}
DIFFERENTIABLE = [n for n, flow in BUILT.items() if not flow.per_step and flow.damping is None]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_the_derivative_of_a_drift_is_that_of_its_differences(name):
    flow = slow_flow(name)
    state = moving_state(flow, FLOWS[name].words[0], HILLS, START)
    row = torch.linspace(-1.0, 1.3, flat(state).shape[-1], dtype=torch.float64)
    direction = unflat(row.expand_as(flat(state)), state)
    oracle = as_oracle(HILLS, torch.float64, START.device)
    product = Hessian(oracle, state.position, None).product(direction.position)
    evaluation = evaluation_of(HILLS, state.position)
    found = flat(flow.drift_along(state, evaluation, direction, product))
    step = 2e-4
    weights = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}
    differences = 0.0
    for place, weight in weights.items():
        factor = torch.full_like(state.time, place * step)
        there = state.plus([(factor, direction)])
        differences += weight * flat(flow.drift(there, evaluation_of(HILLS, there.position))) / step
    assert (found - differences).abs().max() <= 1e-8 * found.abs().max().clamp(min=1.0)


# The root of a variable that starts at zero.
ROOT = "V: dv/dt = g**2 - v\nA: dtheta/dt = -g/(sqrt(v) + 1)"


@pytest.mark.parametrize(
    ("scheme", "flow", "message"),
    [
        (ITERATED, fo.flows.heavy_ball(), "symmetric"),
        (ITERATED, fo.Flow.from_text("A: dtheta/dt = -g*theta"), "symmetric"),
        (ITERATED, fo.Flow.from_text("A: dtheta/dt = -g*total(g**2)"), "symmetric"),
        (DENSE, fo.Flow.from_text(ROOT), "infinite at the start"),
        (DENSE, fo.flows.langevin(friction=1.0, temperature=1.0), "has noise"),
    ],
)
def test_a_flow_that_does_not_fit_is_refused(scheme, flow, message):
    with pytest.raises(fo.CompatibilityError, match=message):
        scheme.check(flow)


@pytest.mark.parametrize("iterations", [0, -1, True, 2.0, "many"])
def test_a_number_of_iterations_that_is_none_is_refused(iterations):
    with pytest.raises(fo.ConfigurationError, match="positive whole number"):
        fo.LinearlyImplicitEuler(iterations=iterations)


def test_a_large_problem_needs_conjugate_gradients():
    problem = fo.problems.quadratic([1.0] * 600)
    start = torch.zeros(600, dtype=torch.float64)
    with pytest.raises(fo.CompatibilityError, match="iterations=20"):
        one(fo.flows.gradient_flow(), DENSE, problem, start, 0.1)


@pytest.mark.parametrize("scheme", [DENSE, ITERATED], ids=repr)
def test_a_kernel_solves_small_systems_to_the_bit(scheme):
    flow, problem = fo.flows.gradient_flow(), fo.problems.rosenbrock()
    ends = [
        fo.integrate(flow, scheme, problem, START, step_size=1e-3, steps=20, compile=compiled)
        for compiled in (True, False)
    ]
    assert torch.equal(ends[0].position, ends[1].position)
    assert torch.equal(ends[0].counts["products"], ends[1].counts["products"])
