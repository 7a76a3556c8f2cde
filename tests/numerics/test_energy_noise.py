"""Energy rates of flows with noise, against expectations over one short step."""

import math
from itertools import pairwise

import numpy
import pytest
import sympy
import torch
from torch.testing import assert_close

import flowopt as fo
from flowopt.registry import FLOWS
from flowopt.symbolic.functions import laplacian
from flowopt.symbolic.language import LOSS
from flowopt.symbols import symbol
from tests.reference.affine import CountingZeros
from tests.reference.states import HILLS, GivenNormals, evaluation_of, one_step, state_of

NODES = 6
NOISY = [(name, entry.build()) for name, entry in FLOWS.items() if entry.build().noisy]
TEXTS = {
    "overdamped": """
        A: dtheta/dt = -g + sqrt(2*0.3)*dW/dt
        energy e: L + cos(theta)""",
    "preconditioned": """
        A: dtheta/dt = -g/v**2 + 0.5/v*dW/dt
        V: dv/dt = g**2 - v
        energy e: L + v*theta**2""",
    "shared": """
        A: dtheta/dt = p + 0.4*dW/dt
        A: dp/dt = -p + 0.7*dW/dt
        energy e: L + theta*p + p**4""",
    "two processes": """
        A: dtheta/dt = p + 0.4*dW1/dt + 0.2*dW2/dt
        B: dp/dt = -g + 0.5*dW3/dt
        energy e: exp(-t)*L + p**2/2""",
    "noisy scalar": """
        scalar u
        A: dtheta/dt = -u*g + 0.3*dW1/dt
        U: du/dt = total(g**2) - u + 0.5*dW2/dt
        energy e: u**2*L + u**4 + u*theta**2""",
}
FLOWS_WITH_NOISE = NOISY + [(name, fo.Flow.from_text(text)) for name, text in TEXTS.items()]


def a_state(flow, members=1):
    column = torch.ones(members, 1, dtype=torch.float64)
    values = torch.tensor([[0.8, 0.6], [0.4, -0.7], [1.3, 0.9], [0.7, 1.1]], dtype=torch.float64)
    variables = {name: column * value for name, value in zip(flow.variables, values, strict=False)}
    return state_of(variables, **dict.fromkeys(flow.scalars, column[0, 0] * 0.9))


def expected_energy(flow, name, step_size):
    """E[E(z)] after one step of Euler–Maruyama, by Gauss–Hermite quadrature over its normals."""
    counter = CountingZeros()
    one_step(flow, fo.EulerMaruyama(), HILLS, a_state(flow), step_size, counter)
    nodes, weights = numpy.polynomial.hermite_e.hermegauss(NODES)
    count = sum(counter.sizes)
    grid = [axis.ravel() for axis in numpy.meshgrid(*[nodes] * count, indexing="ij")]
    weight = numpy.prod(numpy.meshgrid(*[weights] * count, indexing="ij"), axis=0).ravel()
    columns = iter(torch.from_numpy(axis) for axis in grid)
    draws = [tuple(next(columns) for _ in range(size)) for size in counter.sizes]
    state = a_state(flow, weight.size)
    end = one_step(flow, fo.EulerMaruyama(), HILLS, state, step_size, GivenNormals(draws))
    end = fo.State(end.variables, end.scalars, end.time + step_size, end.step)
    values = flow.energy(name).value(end, evaluation_of(HILLS, end.position)).numpy()
    return weight @ values / weight.sum()


@pytest.mark.parametrize(("name", "flow"), FLOWS_WITH_NOISE, ids=str)
def test_an_expected_energy_changes_at_its_rate(name, flow):
    """(E[E(z_h)] − E(z))/h is the rate up to an error of order h."""
    state = a_state(flow)
    evaluation = evaluation_of(HILLS, state.position)
    second = fo.problems.curvature(HILLS, state.position)
    for energy in flow.energies:
        start = flow.energy(energy).value(state, evaluation).item()
        rate = flow.energy(energy).rate(state, evaluation, second).item()
        errors = [
            abs((expected_energy(flow, energy, h) - start) / h - rate) for h in (1e-3, 5e-4, 2.5e-4)
        ]
        first, last = (math.log2(a / b) for a, b in pairwise(errors))
        assert abs(2 * last - first - 1) < 0.1, (errors, rate)


def test_overdamped_dynamics_gain_the_laplacian():
    flow = fo.Flow.from_text("A: dtheta/dt = -g + sqrt(2*T)*dW/dt\nenergy loss: L", T=0.3)
    g, temperature = symbol("g"), symbol("T")
    assert sympy.simplify(flow.energy_rate("loss") + g**2 - temperature * laplacian(LOSS)) == 0
    assert str(flow.energy_rate("loss")) == "T*laplacian(L) - g**2"


def test_the_curvature_is_the_diagonal_of_the_hessian():
    points = torch.tensor([[0.8, 0.6], [-0.3, 2.0], [1.4, 0.1]], dtype=torch.float64)
    hessians = [torch.autograd.functional.hessian(HILLS.loss, point) for point in points]
    exact = torch.stack([hessian.diagonal() for hessian in hessians])
    found = fo.problems.curvature(HILLS, tuple(points.unbind(-1)))
    # Two points of two coordinates: rows taken for leaves would go unnoticed.
    of_start = fo.problems.curvature(HILLS, points[:2])
    assert all(torch.equal(a[:2], b) for a, b in zip(found, of_start, strict=True))
    assert_close(torch.stack(found, -1), exact, rtol=1e-14, atol=0)


def test_the_curvature_of_a_network_is_the_diagonal_of_its_hessian():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh(), torch.nn.Linear(2, 1))
    module = module.double()
    inputs, targets = torch.randn(2, 7, 2, dtype=torch.float64)
    network = fo.problems.network(module, torch.nn.functional.mse_loss, (inputs, targets[:, :1]))
    leaves = network.leaves(network.start())
    found = torch.cat([leaf.flatten() for leaf in fo.problems.curvature(network, leaves)])
    shapes = [leaf.shape for leaf in leaves]

    def loss(flat):
        return network.losses(leaves_of(flat, shapes), None)

    flat = torch.cat([leaf.flatten() for leaf in leaves])
    exact = torch.autograd.functional.hessian(loss, flat).diagonal()
    assert_close(found, exact, rtol=1e-12, atol=1e-15)
    # By name, and where a parameter's elements lie in another order.
    start = network.start()
    start["0.weight"] = start["0.weight"].mT.contiguous().mT
    assert not start["0.weight"].is_contiguous()
    by_name = torch.cat([leaf.flatten() for leaf in fo.problems.curvature(network, start)])
    assert_close(by_name, found, rtol=1e-14, atol=0)
    apart = tuple(start[name] for name in network.names)
    assert_close(fo.problems.curvature(network, apart)[0], leaves_of(found, shapes)[0])


def leaves_of(flat, shapes):
    pieces = flat.split([shape.numel() for shape in shapes])
    return tuple(piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True))


def test_no_positions_have_no_curvature():
    none = torch.zeros(0, 2, dtype=torch.float64)
    assert [leaf.shape for leaf in fo.problems.curvature(HILLS, none)] == [(0,), (0,)]
    squares = fo.problems.quadratic([1.0, 2.0])
    assert fo.problems.gauss_newton(squares, none).shape == (0, 2, 2)


def test_a_rate_that_needs_second_derivatives_asks_for_them():
    flow = fo.Flow.from_text(TEXTS["overdamped"])
    state = a_state(flow)
    with pytest.raises(fo.CompatibilityError, match=r"flowopt.problems.curvature\(problem"):
        flow.energy("e").rate(state, evaluation_of(HILLS, state.position))


def test_a_loss_without_curvature_has_none():
    line = fo.problems.quadratic([0.0])
    position = (torch.ones(3, dtype=torch.float64),)
    assert not fo.problems.curvature(line, position)[0].any()
