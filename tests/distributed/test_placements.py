"""Which placements are stepped, and what is said of the others."""

import math

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

import flowopt as fo
from flowopt.optim.distributed.parts import layout_of
from tests.distributed.runs import full, mesh_of, whole

SHAPE = (5, 6)


def numbered(shape, sizes, placements):
    """Numbers of the elements that are here: by the layout, and those that torch put here."""
    mesh, count = mesh_of(sizes), math.prod(shape)
    tensor = distribute_tensor(torch.arange(count).reshape(shape), mesh, placements)
    layout, here = layout_of(tensor), tensor.to_local().flatten().tolist()
    if layout is None:
        return None, here
    width = len(here) // layout.rows
    return [
        layout.start + row * layout.distance + column
        for row in range(layout.rows)
        for column in range(width)
    ], here


@pytest.mark.parametrize(
    ("shape", "sizes", "placements"),
    [
        ((7, 3), (4,), (Shard(0),)),
        ((5,), (4,), (Shard(0),)),
        ((8, 2), (2, 2), (Shard(0), Shard(0))),
        ((5, 2), (2, 2), (Shard(0), Shard(0))),
        ((9, 2), (2, 2), (Replicate(), Shard(0))),
        ((1, 7, 2), (4,), (Shard(1),)),
        ((3, 2), (2, 2), (Replicate(), Replicate())),
        ((3, 7), (4,), (Shard(1),)),
        ((2, 3, 5), (4,), (Shard(2),)),
        ((2, 5, 3), (4,), (Shard(1),)),
        ((5, 6), (2, 2), (Shard(0), Shard(1))),
        ((5, 6), (2, 2), (Shard(1), Shard(0))),
        ((1, 4, 6), (2, 2), (Shard(1), Shard(2))),
        ((4, 2, 3), (2, 2), (Shard(0), Shard(2))),
    ],
)
def test_elements_have_the_numbers_that_torch_gives_them(groups, shape, sizes, placements):
    for ours, theirs in groups[4].run(numbered, shape, sizes, placements):
        assert ours == theirs


def unequal():
    """What is said of rows that lie at different distances."""
    mesh = mesh_of((2, 2))
    parameter = distribute_tensor(torch.zeros(3, 4, 6), mesh, [Shard(1), Shard(2)])
    fo.optim.SGD([parameter])
    try:
        fo.optim.Langevin([parameter])
    except fo.CompatibilityError as error:
        return layout_of(parameter), str(error)
    return layout_of(parameter), "nothing"


def test_with_noise_rows_at_different_distances_are_refused(groups):
    for layout, said in groups[4].run(unequal):
        assert layout is None
        assert "each process holds rows at equal distances" in said


def columns(parameter_placements, gradient_placements, name):
    """Steps of a matrix with some placement, by gradients with some placement."""
    mesh = mesh_of((2,))
    parameter = nn.Parameter(
        distribute_tensor(whole(0, SHAPE, torch.float64), mesh, parameter_placements)
    )
    optimizer = getattr(fo.optim, name)([parameter], lr=0.1, seed=1)
    for step in range(3):
        gradient = whole(step + 1, SHAPE, torch.float64)
        if gradient_placements == (Partial(),):
            # Half of it from each process.
            parameter.grad = DTensor.from_local(0.5 * gradient, mesh, gradient_placements)
        else:
            parameter.grad = distribute_tensor(gradient, mesh, gradient_placements)
        optimizer.step()
    return full(parameter)


def expected():
    parameter = nn.Parameter(whole(0, SHAPE, torch.float64))
    optimizer = fo.optim.Adam([parameter], lr=0.1)
    for step in range(3):
        parameter.grad = whole(step + 1, SHAPE, torch.float64)
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize("gradient", [Shard(0), Shard(1), Replicate(), Partial()])
@pytest.mark.parametrize("own", [Shard(0), Shard(1), Replicate()])
def test_gradients_are_brought_to_where_parameters_are(groups, own, gradient):
    for found in groups[2].run(columns, (own,), (gradient,), "Adam"):
        assert torch.equal(found, expected())


def refusal(wrong):
    """What is said of something wrong."""
    mesh = mesh_of((2,))
    tensor = torch.zeros(SHAPE)
    placement = Partial() if wrong == "partial" else Shard(0)
    part = distribute_tensor(tensor, mesh, [Shard(0)]).to_local()
    parameter = DTensor.from_local(part, mesh, [placement]).requires_grad_()
    try:
        if wrong == "differentiable":
            fo.optim.SGD([parameter], differentiable=True)
        elif wrong == "Levenberg–Marquardt":
            fo.optim.LevenbergMarquardt([parameter])
        else:
            optimizer = fo.optim.SGD([parameter])
            parameter.grad = torch.zeros(parameter.shape)
            optimizer.step()
    except fo.CompatibilityError as error:
        return str(error)
    return "nothing"


def not_finite():
    """What is said of a gradient that is not finite in the last process alone."""
    mesh = mesh_of((2,))
    parameter = nn.Parameter(distribute_tensor(torch.zeros(SHAPE), mesh, [Shard(0)]))
    optimizer = fo.optim.SGD([parameter], error_if_nonfinite=True)
    gradient = torch.ones(SHAPE)
    gradient[-1, :2] = torch.nan
    gradient[-1, 3] = torch.inf
    parameter.grad = distribute_tensor(gradient, mesh, [Shard(0)])
    try:
        optimizer.step()
    except fo.NotFiniteError as error:
        return str(error)
    return "nothing"


def test_all_processes_say_that_a_gradient_is_not_finite_in_one(groups):
    for said in groups[2].run(not_finite):
        assert "shape (5, 6), has 2 NaN and 1 infinite of 30 numbers" in said


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("partial", "still to be added up"),
        ("plain gradient", "its gradient a plain one"),
        ("differentiable", "autograd does not follow"),
        ("Levenberg–Marquardt", "use plain parameters"),
    ],
)
def test_what_can_not_be_stepped_is_refused(groups, wrong, message):
    assert all(message in said for said in groups[2].run(refusal, wrong))
