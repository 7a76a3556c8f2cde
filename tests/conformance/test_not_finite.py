"""Gradients that are not finite, where an optimizer is asked not to step by them."""

import copy
import math

import pytest
import torch
from torch import nn

import flowopt as fo
from tests.reference.optimizers import kept_tensors

WAYS = [{}, {"foreach": False}, {"compile": True}]
each_way = pytest.mark.parametrize("way", WAYS, ids=str)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()


def closure_of(module, optimizer, factor=1.0):
    def closure():
        optimizer.zero_grad()
        loss = factor * module(torch.ones(2, 3, dtype=torch.float64)).square().mean()
        loss.backward()
        return loss

    return closure


def numbers(module, optimizer):
    state = [v for p in module.parameters() for v in kept_tensors(optimizer, p).values()]
    return torch.cat([t.detach().flatten() for t in (*module.parameters(), *state)])


@each_way
def test_a_gradient_that_is_not_finite_is_named_and_moves_nothing(way):
    module = network()
    last = {"params": list(module[2].named_parameters(prefix="2")), "lr": 0.2}
    groups = [{"params": list(module[0].named_parameters(prefix="0"))}, last]
    optimizer = fo.optim.FlowOptimizer(
        groups,
        fo.flows.heavy_ball(friction=1.0),
        fo.Splitting("OBA"),
        lr=0.1,
        error_if_nonfinite=True,
        **way,
    )
    closure = closure_of(module, optimizer)
    optimizer.step(closure)
    momentum = [optimizer.state[p]["p"].clone() for p in module[2].parameters()]
    loss = optimizer.step(closure).item()
    energy = loss + 0.5 * sum(float(p.square().sum()) for p in momentum)
    before = numbers(module, optimizer)
    closure_of(module, optimizer)()
    module[2].weight.grad[0, 1:3] = torch.tensor([math.nan, -math.inf])
    with pytest.raises(fo.NotFiniteError) as caught:
        optimizer.step()
    assert str(caught.value) == (
        "at step 3 of group 1 the gradient of parameter 2.weight, of shape (1, 4), has 1 NaN and 1 "
        f"infinite of 4 numbers. Step 2 began with loss = {loss:.6g}, mechanical = {energy:.6g}. "
        "Nothing has moved: clear the gradients and go on, clip them, or lower lr"
    )
    assert torch.equal(numbers(module, optimizer), before)
    assert [group["step"] for group in optimizer.param_groups] == [2, 2]
    optimizer.step(closure)
    assert [group["step"] for group in optimizer.param_groups] == [3, 3]


@each_way
def test_finite_gradients_are_stepped_as_without_the_question(way):
    ends = []
    for asked in (False, True):
        module = network()
        optimizer = fo.optim.Adam(module.parameters(), error_if_nonfinite=asked, **way)
        for _ in range(3):
            optimizer.step(closure_of(module, optimizer))
        ends.append(numbers(module, optimizer))
    assert torch.equal(*ends)


@pytest.mark.parametrize(
    "build",
    [
        lambda p: fo.optim.RMSprop(p, error_if_nonfinite=True),
        lambda p: fo.optim.Langevin(p, error_if_nonfinite=True),
        lambda p: fo.optim.AdaptiveLangevin(p, error_if_nonfinite=True),
        lambda p: fo.optim.FlowOptimizer(
            p, fo.flows.heavy_ball(), fo.Splitting("BAOAB"), error_if_nonfinite=True
        ),
    ],
)
def test_a_loss_without_bound_is_told_with_the_loss_before_it(build):
    module = network()
    optimizer = build(module.parameters())
    with pytest.raises(fo.NotFiniteError, match="at step 1 .* No step with a loss came before"):
        optimizer.step(closure_of(module, optimizer, math.nan))
    loss = optimizer.step(closure_of(module, optimizer)).item()
    # A copy tells the same.
    module, optimizer = copy.deepcopy((module, optimizer))
    optimizer.zero_grad()
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, math.inf)
    told = rf"at step 2 .* number 0, .* and 3 more .* Step 1 began with loss = {loss:.6g}"
    with pytest.raises(fo.NotFiniteError, match=told):
        optimizer.step(lambda: torch.tensor(math.inf))


def test_empty_complex_and_missing_gradients_are_finite():
    parameters = [
        torch.zeros(0),
        torch.ones(2, dtype=torch.complex64),
        torch.ones(()),
        torch.ones(3),
    ]
    optimizer = fo.optim.SGD(parameters, lr=0.1, error_if_nonfinite=True)
    for parameter in parameters[:3]:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    parameters[1].grad[0] = complex(0.0, math.inf)
    with pytest.raises(fo.NotFiniteError, match="number 1, of shape \\(2,\\), has 0 NaN and 1 inf"):
        optimizer.step()
    parameters[0].grad = parameters[2].grad = None
    parameters[1].grad = None
    optimizer.step()


def test_unless_it_is_asked_for_steps_are_those_of_torch():
    ends = []
    for package in (torch.optim, fo.optim):
        parameter = torch.ones(2, dtype=torch.float64)
        optimizer = package.SGD([parameter], lr=0.5)
        parameter.grad = torch.tensor([math.nan, 1.0], dtype=torch.float64)
        optimizer.step()
        ends.append(parameter)
    torch.testing.assert_close(*ends, equal_nan=True)
