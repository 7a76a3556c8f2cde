"""Compiled steps of numbers of two bytes: stepped in float32, rounded when they are stored."""

import pytest
import torch
from torch import nn

import flowopt as fo
from tests.kernels.optimizers import flat, gradients, langevin, parameters
from tests.reference.optimizers import kept_tensors

HALVES = [torch.bfloat16, torch.float16]
STEPS = 5
BUILDS = {
    "SGD": lambda moving, **options: fo.optim.SGD(moving, lr=0.1, momentum=0.9, **options),
    "Adam": lambda moving, **options: fo.optim.Adam(moving, lr=0.01, **options),
    "AdamW": lambda moving, **options: fo.optim.AdamW(moving, lr=0.01, **options),
    "RMSprop": lambda moving, **options: fo.optim.RMSprop(moving, lr=0.01, **options),
    "Langevin": langevin,
}


def every_number(dtype):
    """All numbers of a type of two bytes."""
    return torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype)


def assert_same(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", BUILDS)
def test_a_step_is_that_of_float32_rounded_once_at_its_end(name, dtype):
    half, wide = parameters(dtype), [nn.Parameter(p.detach().float()) for p in parameters(dtype)]
    ours, theirs = (BUILDS[name](moving, compile=True) for moving in (half, wide))
    for step in range(STEPS):
        gradients(half, step)
        for small, large in zip(half, wide, strict=True):
            large.grad = small.grad.float()
        ours.step()
        theirs.step()
        with torch.no_grad():
            for tensor in (*wide, *(v for p in wide for v in kept_tensors(theirs, p).values())):
                tensor.copy_(tensor.to(dtype))
        assert torch.equal(flat(half), flat(wide))
    for parameter in half:
        assert all(value.dtype == dtype for value in kept_tensors(ours, parameter).values())


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_number_is_read_and_rounded_as_torch_does(dtype):
    numbers = every_number(dtype)
    weight = nn.Parameter(torch.zeros_like(numbers))
    weight.grad = numbers
    fo.optim.SGD([weight], lr=0.3, compile=True).step()
    product = torch.tensor(0.3, dtype=torch.float32) * numbers.float()
    assert_same(weight.detach(), (0.0 - product).to(dtype))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_step_with_one_rounding_is_the_eager_one_to_the_last_bit(dtype):
    ends = []
    for compiled in (False, True):
        moving = parameters(dtype)
        optimizer = fo.optim.SGD(moving, lr=0.25, compile=compiled)
        for step in range(STEPS):
            gradients(moving, step)
            optimizer.step()
        ends.append(flat(moving))
    assert torch.equal(*ends)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_adam_rounds_where_the_fused_one_of_torch_does(dtype):
    ends = []
    for build, options in ((fo.optim.Adam, {"compile": True}), (torch.optim.Adam, {"fused": True})):
        moving = parameters(dtype)
        optimizer = build(moving, lr=0.01, **options)
        for step in range(STEPS):
            gradients(moving, step)
            optimizer.step()
        ends.append(flat(moving))
    # Results of float32 that differ in a last bit are rounded apart where they meet a tie.
    apart = (ends[0] != ends[1]).double().mean()
    assert apart < 0.01
    torch.testing.assert_close(*ends, rtol=torch.finfo(dtype).eps, atol=0)


def test_one_group_of_four_types_steps_each_as_alone():
    kinds = [torch.float64, torch.float32, *HALVES]
    together = [nn.Parameter(torch.linspace(-1, 1, 37).to(kind)) for kind in kinds]
    alone = [nn.Parameter(p.detach().clone()) for p in together]
    optimizers = [fo.optim.Adam([p], lr=0.01, compile=True) for p in alone]
    one = fo.optim.Adam(together, lr=0.01, compile=True)
    for step in range(STEPS):
        for p, q in zip(together, alone, strict=True):
            p.grad = torch.cos(torch.arange(37) + step).to(p.dtype)
            q.grad = p.grad.clone()
        one.step()
        for optimizer in optimizers:
            optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(together, alone, strict=True))
