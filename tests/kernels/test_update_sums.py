"""Steps that sum over elements, as native kernels."""

import pytest
import torch
from torch import nn

import flowopt as fo
from flowopt.kernels.update import SUMMED
from tests.kernels.optimizers import assert_close, both, flat, gradients, parameters, run

COUNTS = [5, SUMMED - 1, 3 * SUMMED + 77, 0, 1]


def adlala(moving, **options):
    groups = [{"params": moving[:4]}, {"params": moving[4:]}]
    return fo.optim.AdLaLa(groups, lr=0.1, temperature=0.1, coupling=1e-3, seed=3, **options)


def adaptive(moving, **options):
    settings = {"lr": 0.1, "temperature": 0.1, "coupling": 1e-4}
    return fo.optim.AdaptiveLangevin(moving, **settings, seed=3, **options)


def as_text(text, word):
    def build(moving, **options):
        flow = fo.Flow.from_text(text)
        return fo.optim.FlowOptimizer(moving, flow, fo.Splitting(word), lr=0.1, **options)

    return build


BUILDS = {
    "AdLaLa": adlala,
    "AdaptiveLangevin": adaptive,
    "a norm": as_text("A: dtheta/dt = -g/sqrt(1 + total(g**2))", "A"),
    "a sum of what a sum made": as_text(
        "A: dtheta/dt = -g/(1 + total(abs(theta)/(1 + total(theta**2))))", "A"
    ),
    "two sums at once": as_text("A: dtheta/dt = -g*total(abs(g))/(1 + total(theta**2))", "A"),
    "a scalar": as_text("S: ds/dt = total(g*theta)/1000 - s\nA: dtheta/dt = -s*g\nscalar s", "SA"),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", BUILDS)
def test_a_step_with_sums_ends_where_the_eager_one_ends(name, dtype):
    assert_close(*both(BUILDS[name], dtype), dtype)


@pytest.mark.parametrize("name", BUILDS)
def test_sums_do_not_depend_on_threads(name):
    ends, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            moving = parameters(torch.float64, [(count,) for count in COUNTS])
            optimizer = BUILDS[name](moving, compile=True)
            ends.append((run(optimizer, moving, steps=3), optimizer.param_groups[0].get("xi")))
    finally:
        torch.set_num_threads(before)
    for end, number in ends[1:]:
        assert torch.equal(end, ends[0][0])
        assert number == ends[0][1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_all_elements_are_summed_once(dtype):
    text = "S: ds/dt = total(g)\nC: dc/dt = total(1)\nA: dtheta/dt = -g\nscalar s\nscalar c"
    moving = [nn.Parameter(torch.zeros(count, dtype=dtype)) for count in COUNTS]
    flow, word = fo.Flow.from_text(text), fo.Splitting("SCA")
    optimizer = fo.optim.FlowOptimizer(moving, flow, word, lr=1.0, compile=True)
    for place, parameter in enumerate(moving):
        parameter.grad = torch.full_like(parameter, place + 1.0)
    optimizer.step()
    group = optimizer.param_groups[0]
    assert group["s"] == sum((place + 1) * count for place, count in enumerate(COUNTS))
    assert group["c"] == sum(COUNTS)


def test_tensors_of_several_types_have_one_sum():
    flow = fo.Flow.from_text("A: dtheta/dt = -g/(1 + total(g**2))")
    ends = []
    for compiled in (False, True):
        moving = [
            nn.Parameter(torch.ones(7, dtype=dtype)) for dtype in (torch.float32, torch.float64)
        ]
        optimizer = fo.optim.FlowOptimizer(moving, flow, fo.Euler(), lr=0.1, compile=compiled)
        gradients(moving, 0)
        optimizer.step()
        ends.append(flat(moving))
    assert_close(*ends, torch.float32)


def test_what_sums_writes_only_in_the_last_pass():
    """Else a step that is refused in between would leave half of it behind."""
    moving = parameters(torch.float64, [(40,)])
    optimizer = adaptive(moving, compile=True)
    run(optimizer, moving, steps=1)
    (update, _), *_ = optimizer._native._updates.values()
    assert [count for _, count in update.passes] == [1, 1]
    assert update.written == (True, True, False)
