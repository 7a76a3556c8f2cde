"""Drawn numbers at the edges of their types: learning rates, gradients, numbers of two bytes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import flowopt as fo
from tests.reference.optimizers import kept_tensors
from tests.robustness.worlds import DRAWN, KINDS

WAYS = {"loop": {"foreach": False}, "lists": {}, "compiled": {"compile": True}}
NAMES = [name for name, kind in KINDS.items() if not kind.sums]
HALVES = {
    torch.bfloat16: torch.finfo(torch.bfloat16).eps,
    torch.float16: torch.finfo(torch.float16).eps,
}
each_name = st.sampled_from(NAMES)
sizes = st.lists(st.integers(0, 9), min_size=1, max_size=3)
seeds = st.integers(0, 2**32)


def drawn(sizes, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    numbers = [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]
    return [(number.sign() * (0.1 + number.abs())).to(dtype) for number in numbers]


def built(name, tensors, **options):
    parameters = [nn.Parameter(tensor.clone()) for tensor in tensors]
    return parameters, KINDS[name].ours(parameters, **options)


def step(parameters, optimizer, gradients):
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.to(parameter.dtype)
    optimizer.step()


def flat(tensors):
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])


def kept(parameters, optimizer):
    states = [kept_tensors(optimizer, parameter) for parameter in parameters]
    return {name: flat(state[name] for state in states) for name in states[0]}


@settings(DRAWN, max_examples=50)
@given(
    each_name,
    st.floats() | st.floats(0, allow_infinity=False),
    sizes,
    st.sampled_from([torch.float64, torch.float32]),
)
def test_a_learning_rate_is_refused_or_steps_alike_in_every_way(name, lr, sizes, dtype):
    tensors, gradients = drawn(sizes, 0, dtype), drawn(sizes, 1)
    ends = []
    for options in WAYS.values():
        parameters, optimizer = built(name, tensors, **options)
        step(parameters, optimizer, gradients)
        before = flat(parameters), kept(parameters, optimizer), optimizer.param_groups[0]["step"]
        optimizer.param_groups[0]["lr"] = lr
        if not 0.0 <= lr < math.inf:
            with pytest.raises(fo.ConfigurationError, match="Invalid learning rate"):
                step(parameters, optimizer, gradients)
            assert torch.equal(flat(parameters), before[0])
            assert optimizer.param_groups[0]["step"] == before[2]
            continue
        step(parameters, optimizer, gradients)
        ends.append(flat(parameters))
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    for end in ends[1:]:
        assert torch.equal(end.isfinite(), ends[0].isfinite())
        finite = end.isfinite()
        torch.testing.assert_close(end[finite], ends[0][finite], rtol=tolerance, atol=tolerance)


@settings(DRAWN, max_examples=50)
@given(
    each_name,
    seeds,
    st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -1e200, 1e-310]),
    st.integers(0, 7),
)
def test_a_wild_number_in_a_gradient_stays_where_it_is(name, seed, wild, place):
    tensors = drawn([4, 4], seed)
    for options in WAYS.values():
        ends = []
        for value in (wild, 0.5):
            parameters, optimizer = built(name, tensors, **options)
            for number in range(3):
                gradients = drawn([4, 4], seed + number)
                if number == 1:
                    gradients[place // 4][place % 4] = value
                step(parameters, optimizer, gradients)
            ends.append(flat(parameters))
        others = torch.arange(8) != place
        assert torch.equal(*(end[others] for end in ends))
        if not math.isfinite(wild):
            assert not ends[0][~others].isfinite()


@settings(DRAWN, max_examples=50)
@given(each_name, seeds, sizes, st.sampled_from(list(HALVES)), st.sampled_from(list(WAYS)))
def test_a_step_of_two_byte_numbers_is_that_of_float32_rounded(name, seed, sizes, dtype, way):
    parameters, optimizer = built(name, drawn(sizes, seed, dtype), **WAYS[way])
    for number in range(2):
        step(parameters, optimizer, drawn(sizes, seed + number, dtype))
    twins, twin = built(name, [p.detach().float() for p in parameters], foreach=False)
    twin.load_state_dict(optimizer.state_dict())
    for own, its in ((parameters, optimizer), (twins, twin)):
        step(own, its, drawn(sizes, seed + 2, dtype))
    # One rounding of a kernel, one of each operation in eager torch.
    tolerance = HALVES[dtype] * (1.0 if way == "compiled" else 16.0)
    found, expected = kept(parameters, optimizer), kept(twins, twin)
    assert found.keys() == expected.keys()
    pairs = [(flat(parameters), flat(twins)), *((found[n], expected[n]) for n in found)]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@settings(DRAWN, max_examples=50)
@given(each_name, sizes, st.permutations([torch.float64, torch.float32]))
def test_a_module_that_changes_its_type_goes_on_once_the_state_has_followed(name, sizes, dtypes):
    before, after = dtypes
    ends = []
    for options in WAYS.values():
        parameters, optimizer = built(name, drawn(sizes, 0, before), **options)
        step(parameters, optimizer, drawn(sizes, 1))
        for parameter in parameters:
            parameter.grad = None
            parameter.data = parameter.data.to(after)
        optimizer.load_state_dict(optimizer.state_dict())
        step(parameters, optimizer, drawn(sizes, 2))
        kept = [t for p in parameters for t in (p, *kept_tensors(optimizer, p).values())]
        assert {tensor.dtype for tensor in kept} == {after}
        ends.append(flat(parameters))
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["SGD with momentum", "Adam"])
def test_parameters_that_share_memory_are_stepped_one_after_the_other_or_refused(name):
    ends = {}
    for way, options in {"torch": None, **WAYS}.items():
        weight = torch.ones(3)
        parameters = [nn.Parameter(weight), nn.Parameter(weight)]
        build = KINDS[name].theirs if way == "torch" else KINDS[name].ours
        optimizer = build(parameters, **(options or {}))
        if way in ("loop", "compiled"):
            with pytest.raises(fo.CompatibilityError, match="share memory"):
                step(parameters, optimizer, drawn([3, 3], 0))
            assert torch.equal(weight, torch.ones(3))
            continue
        for number in range(3):
            step(parameters, optimizer, drawn([3, 3], number))
        ends[way] = weight
    torch.testing.assert_close(ends["lists"], ends["torch"], rtol=1e-5, atol=1e-5)
