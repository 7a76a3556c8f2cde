"""Flows in torchdiffeq: the same vector field, every solver, derivatives."""

import pytest
import torch
import torchdiffeq

import flowopt as fo
from flowopt.registry import FLOWS
from tests.reference.solutions import SMOOTH, moving_state, slow_flow
from tests.reference.states import HILLS, evaluation_of, flat
from tests.reference.training import small_problem

STARTS = torch.tensor([[0.8, 0.6], [-0.3, 0.5], [1.0, -1.2]], dtype=torch.float64)
HEAVY_BALL = fo.flows.heavy_ball(friction=0.5)
SOLVERS = {
    "dopri5": ("dopri5", {}),
    "bosh3": ("bosh3", {}),
    "explicit_adams": ("explicit_adams", {"step_size": 0.01, "max_order": 4}),
    "implicit_adams": ("implicit_adams", {"step_size": 0.01}),
    "scipy LSODA": ("scipy_solver", {"solver": "LSODA"}),
    "scipy Radau": ("scipy_solver", {"solver": "Radau"}),
}


def times(*moments):
    return torch.tensor(moments, dtype=torch.float64)


@pytest.mark.parametrize("name", SMOOTH)
def test_the_packed_drift_is_the_drift_of_the_flow(name):
    flow = slow_flow(name)
    system = fo.adapters.to_torchdiffeq(flow, HILLS)
    state = moving_state(flow, FLOWS[name].words[0], HILLS, STARTS)
    tangent = flow.drift(state, evaluation_of(HILLS, state.position, flow))
    packed = system.unpack(system(state.time, system.pack(state)), 0.0)
    assert torch.equal(flat(packed), flat(tangent))


@pytest.mark.parametrize("name", FLOWS)
def test_packing_can_be_undone(name):
    flow = slow_flow(name)
    state = moving_state(flow, FLOWS[name].words[0], HILLS, STARTS)
    system = fo.adapters.System(flow, HILLS)
    packed = system.packed(state)
    again = system.unpack(packed, state.time)
    assert torch.equal(flat(again), flat(state))
    assert torch.equal(again.time, state.time)
    assert torch.equal(system.position(packed), torch.stack(state.position, -1))


@pytest.mark.parametrize("replicas", [None, 3])
def test_networks_are_packed_too(replicas):
    problem = small_problem()
    system = fo.adapters.to_torchdiffeq(HEAVY_BALL, problem)
    start = problem.start(replicas)
    packed = system.pack(start)
    assert packed.shape == ((2 * problem.dim,) if replicas is None else (3, 2 * problem.dim))
    for name, value in system.position(packed).items():
        assert torch.equal(value, start[name])
    gradient = problem.evaluate(problem.leaves(start), None).gradient
    force = torch.cat([leaf.flatten(0 if replicas is None else 1) for leaf in gradient], -1)
    momentum = system(torch.tensor(0.0), packed).split(problem.dim, -1)[1]
    torch.testing.assert_close(momentum, -force)


# torchdiffeq hands scipy an option that only LSODA knows.
@pytest.mark.filterwarnings("ignore:The following arguments have no effect")
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_kind_of_solver_of_torchdiffeq_follows_the_flow(solver):
    method, options = SOLVERS[solver]
    system = fo.adapters.to_torchdiffeq(HEAVY_BALL, HILLS)
    exact = fo.adapters.reference_solution(HEAVY_BALL, HILLS, STARTS[:1], [1.0, 2.0])
    with torch.no_grad():
        states = torchdiffeq.odeint(
            system,
            system.pack(STARTS[:1]),
            times(0.0, 1.0, 2.0),
            rtol=1e-8,
            atol=1e-8,
            method=method,
            options=options,
        )
    torch.testing.assert_close(system.position(states[1:]), exact.position, rtol=0, atol=2e-6)


def _end(start, friction, stiffness):
    problem = fo.problems.quadratic([1.0, 4.0])
    steep = fo.problems.Landscape("steep", 2, lambda x: stiffness * problem.loss(x) ** 2, ())
    system = fo.adapters.to_torchdiffeq(fo.flows.heavy_ball(friction=friction), steep)
    states = torchdiffeq.odeint(system, system.pack(start), times(0.0, 0.2), method="rk4")
    return system.position(states[-1])


def test_ends_are_differentiable_in_start_hyperparameters_and_loss():
    values = (STARTS[:2].clone(), torch.tensor(0.5).double(), torch.tensor(1.5).double())
    assert torch.autograd.gradcheck(_end, tuple(value.requires_grad_() for value in values))
    assert torch.autograd.gradcheck(lambda s: _end(STARTS[:1], 0.5, s), values[2])


def test_the_adjoint_gives_the_same_derivative():
    system = fo.adapters.to_torchdiffeq(HEAVY_BALL, HILLS)
    gradients = []
    for solve in (torchdiffeq.odeint, torchdiffeq.odeint_adjoint):
        start = STARTS[:1].clone().requires_grad_()
        end = solve(system, system.pack(start), times(0.0, 1.0), rtol=1e-10, atol=1e-10)[-1]
        (gradient,) = torch.autograd.grad(HILLS.loss(system.position(end)).sum(), start)
        gradients.append(gradient)
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=0)


def test_without_a_derivative_no_graph_is_kept():
    system = fo.adapters.to_torchdiffeq(HEAVY_BALL, HILLS)
    assert not system(torch.tensor(0.0), system.pack(STARTS)).requires_grad


def test_a_flow_with_noise_is_sent_to_torchsde():
    with pytest.raises(fo.CompatibilityError, match="has noise.*to_torchsde"):
        fo.adapters.to_torchdiffeq(fo.flows.langevin(temperature=0.1), HILLS)


def test_a_packed_state_of_another_length_is_refused():
    system = fo.adapters.to_torchdiffeq(HEAVY_BALL, HILLS)
    with pytest.raises(fo.DataError, match="4 numbers, got shape .3, 2.: pack"):
        system(torch.tensor(0.0), STARTS)


@pytest.mark.parametrize("start", [[1.0, 2.0], torch.tensor([1, 2]), None])
def test_a_start_of_another_type_is_refused(start):
    system = fo.adapters.to_torchdiffeq(HEAVY_BALL, HILLS)
    with pytest.raises(fo.DataError, match="a start is a floating tensor"):
        system.pack(start)


def test_a_flow_that_is_singular_at_the_start_begins_shortly_after():
    system = fo.adapters.to_torchdiffeq(fo.flows.adam(), HILLS)
    assert torch.isfinite(system(0.0, system.pack(STARTS))).all()
