"""Problems can be copied and pickled, as processes that share work ask of them."""

import copy
import pickle

import pytest
import torch

import flowopt as fo
from flowopt.problems import Minibatches, analytic, network, quadratic
from flowopt.registry import PROBLEMS

LANDSCAPES = {
    **PROBLEMS,
    "quadratic form": lambda: quadratic([[2.0, 1.0], [1.0, 3.0]]),
    "orthogonal": lambda: analytic("poly_three", orthogonal=True),
}


def pickled(thing):
    return pickle.loads(pickle.dumps(thing))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
@pytest.mark.parametrize("name", LANDSCAPES)
def test_a_copy_of_a_problem_is_the_problem_to_the_bit(name, duplicate):
    problem = LANDSCAPES[name]()
    twin = duplicate(problem)
    theta = torch.linspace(-2.0, 2.5, 7 * problem.dim, dtype=torch.float64)
    theta = theta.reshape(7, problem.dim)
    assert torch.equal(twin.loss(theta), problem.loss(theta))
    assert torch.equal(twin.gradient(theta), problem.gradient(theta))
    assert twin.critical_points == problem.critical_points
    if problem.residuals is not None:
        assert torch.equal(twin.residuals(theta), problem.residuals(theta))
    for own, other in zip(problem.critical_curves, twin.critical_curves, strict=True):
        along = torch.linspace(-1.0, 1.0, 5, dtype=torch.float64)
        assert torch.equal(own.position(along), other.position(along))
        assert torch.equal(own.eigenvalues(along), other.eigenvalues(along))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
def test_a_copy_of_a_network_draws_the_same_minibatches_and_steps_as_it_does(duplicate):
    data = torch.linspace(-1.0, 1.0, 12).reshape(6, 2), torch.linspace(0.0, 1.0, 6)[:, None]
    loss = torch.nn.functional.mse_loss
    problem = network(torch.nn.Linear(2, 1), loss, data, batch=Minibatches(2))
    ends = [
        fo.integrate(
            fo.flows.gradient_flow(), fo.Euler(), one, problem.start(), step_size=0.1, steps=7
        ).position
        for one in (problem, duplicate(problem))
    ]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in problem.names)
