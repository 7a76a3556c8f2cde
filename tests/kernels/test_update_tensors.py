"""Compiled steps of tensors that move, change or lie in unusual ways between steps."""

import pytest
import torch
from torch import nn

import flowopt as fo
from flowopt.kernels.native import team
from flowopt.kernels.native.memory.tensors import look
from tests.kernels.optimizers import (
    STEPS,
    assert_close,
    flat,
    gradients,
    langevin,
    parameters,
    run,
)
from tests.reference.optimizers import kept_tensors


def square(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(6, 6, generator=generator, dtype=dtype)) for _ in range(3)]


def clone(optimizer, moving):
    for parameter in moving:
        parameter.data = parameter.data.clone()


def transpose(optimizer, moving):
    # The same memory in another order: only shape and strides tell.
    for parameter in moving:
        parameter.data = parameter.data.t()
        for name, value in kept_tensors(optimizer, parameter).items():
            optimizer.state[parameter][name] = value.t()


def share(optimizer, moving):
    for parameter in moving:
        parameter.data.share_memory_()
        for value in kept_tensors(optimizer, parameter).values():
            value.share_memory_()


def replace_state(optimizer, moving):
    for parameter in moving:
        kept = kept_tensors(optimizer, parameter)
        optimizer.state[parameter] |= {name: 0.5 * value for name, value in kept.items()}


def move_state(optimizer, moving):
    for parameter in moving:
        for value in kept_tensors(optimizer, parameter).values():
            value.set_(value.clone() * 0.5)


def swap(optimizer, moving):
    first, second = moving[0].data, moving[1].data
    moving[0].data, moving[1].data = second, first


def reload(optimizer, moving):
    optimizer.load_state_dict(optimizer.state_dict())


CHANGES = [clone, transpose, share, replace_state, move_state, swap, reload]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("build", [fo.optim.Adam, langevin], ids=["Adam", "langevin"])
def test_what_changes_between_steps_is_seen(build, change):
    ends = []
    for compiled in (False, True):
        moving = square()
        optimizer = build(moving, compile=compiled)
        for step in range(0, STEPS, 4):
            run(optimizer, moving, first=step, steps=4)
            change(optimizer, moving)
        ends.append(flat(moving))
    assert_close(*ends)


def test_gradients_that_come_and_go_are_stepped_as_in_eager():
    ends = []
    for compiled in (False, True):
        moving = square()
        optimizer = langevin(moving, compile=compiled)
        drawn = [torch.full_like(parameter, 0.3) for parameter in moving]
        for missing in (None, None, 1, 1, None, 2, 0, None, None):
            for place, parameter in enumerate(moving):
                parameter.grad = None if place == missing else drawn[place]
            optimizer.step()
        ends.append(flat(moving))
    assert_close(*ends)


def test_channels_last_parameters_keep_their_order():
    ends = []
    for compiled in (False, True):
        generator = torch.Generator().manual_seed(2)
        start = torch.randn(4, 3, 5, 2, generator=generator, dtype=torch.float64)
        moving = [nn.Parameter(start.contiguous(memory_format=torch.channels_last))]
        optimizer = fo.optim.Adam(moving, lr=0.1, compile=compiled)
        ends.append(run(optimizer, moving))
        assert moving[0].is_contiguous(memory_format=torch.channels_last)
    assert_close(*ends)


@pytest.mark.parametrize("numbers", [1, 5])
def test_a_negative_view_as_gradient_keeps_its_sign(numbers):
    weight = nn.Parameter(torch.zeros(numbers))
    weight.grad = torch.full((numbers,), 1j).conj().imag
    assert weight.grad.is_neg()
    fo.optim.SGD([weight], lr=1.0, compile=True).step()
    assert torch.equal(weight.detach(), torch.ones(numbers))


def test_a_contiguous_negative_view_as_gradient_keeps_its_sign():
    weight = nn.Parameter(torch.zeros(5))
    weight.grad = torch._neg_view(torch.ones(5))
    assert weight.grad.is_neg()
    assert weight.grad.is_contiguous()
    fo.optim.SGD([weight], lr=1.0, compile=True).step()
    assert torch.equal(weight.detach(), torch.ones(5))


def test_an_expanded_gradient_is_stepped():
    weight = nn.Parameter(torch.zeros(4, 3))
    weight.grad = torch.tensor(-1.0).expand(4, 3)
    fo.optim.SGD([weight], lr=1.0, compile=True).step()
    assert torch.equal(weight.detach(), torch.ones(4, 3))


def test_a_sparse_gradient_is_refused_in_words():
    weight = nn.Parameter(torch.zeros(4, 3))
    weight.grad = torch.eye(4, 3).to_sparse()
    with pytest.raises(fo.CompatibilityError, match="sparse gradients"):
        fo.optim.SGD([weight], lr=1.0, compile=True).step()


@pytest.mark.parametrize("gradient", [torch._efficientzerotensor(3), torch.zeros(3, device="meta")])
def test_a_gradient_without_memory_is_refused(gradient):
    weight = nn.Parameter(torch.zeros(3, device=gradient.device))
    weight.grad = gradient
    with pytest.raises(fo.CompatibilityError, match="plain tensors"):
        fo.optim.SGD([weight], lr=1.0, compile=True).step()


def test_a_gradient_in_the_memory_of_a_parameter_is_refused():
    weight = nn.Parameter(torch.ones(5))
    weight.grad = weight.data
    with pytest.raises(fo.CompatibilityError, match="share memory"):
        fo.optim.SGD([weight], lr=1.0, compile=True).step()
    # It is still refused when it comes again.
    with pytest.raises(fo.CompatibilityError, match="share memory"):
        fo.optim.SGD([weight], lr=1.0, compile=True).step()


def test_an_optimizer_that_refused_a_step_refuses_the_same_step_again():
    weight = nn.Parameter(torch.ones(5))
    optimizer = fo.optim.SGD([weight], lr=1.0, compile=True)
    gradients([weight], 0)
    optimizer.step()
    before = weight.detach().clone()
    weight.grad = weight.data
    for _ in range(2):
        with pytest.raises(fo.CompatibilityError, match="share memory"):
            optimizer.step()
    assert torch.equal(weight.detach(), before)


def test_own_threads_and_those_of_torch_give_the_same_bits(monkeypatch):
    ends, before = [], torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for found in (team._openmp, lambda: None):
            monkeypatch.setattr(team, "_openmp", found)
            moving = parameters(shapes=[(300, 301), (70_001,)])
            ends.append(run(langevin(moving, compile=True), moving, steps=2))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*ends)


def test_addresses_sizes_and_order_are_those_that_torch_tells():
    single = torch.randn(())
    matrix = torch.randn(3, 4)
    columns = [[single, matrix[1:], torch.empty(0, 2)], [single, matrix[:2], torch.empty(2, 0).t()]]
    places = look(columns, torch.float32)
    assert places is not None
    assert not places.strided
    for column, addresses in zip(columns, places.addresses, strict=True):
        assert addresses[:2].tolist() == [t.data_ptr() for t in column[:2]]
    assert places.counts.tolist() == [1, 8, 0]
    assert look([[matrix], [matrix.t().contiguous().t()]], torch.float32).strided
    assert look([[matrix[:, :1]]], torch.float32).strided
    assert not look([[matrix[:1, :]]], torch.float32).strided
    assert look([[matrix], [matrix.double()]], torch.float32) is None
    assert look([[matrix], [matrix.t()]], torch.float32) is None
    assert look([[matrix], [matrix[None]]], torch.float32) is None


@pytest.mark.parametrize("sizes", [[1, 2, 3, 4, 5, 6], [37, 1, 100, 33], [70_001, 3, 64]])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_noise_does_not_depend_on_where_a_tensor_begins(sizes, dtype):
    ends = []
    for compiled in (False, True):
        moving = parameters(dtype, [(size,) for size in sizes])
        ends.append(run(langevin(moving, compile=compiled), moving, steps=2))
    assert_close(*ends, dtype)
