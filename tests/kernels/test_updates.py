"""Compiled steps of optimizers against eager ones."""

import copy
import threading

import pytest
import torch
from torch import nn

import flowopt as fo
from flowopt.kernels.native import build
from flowopt.registry import FLOWS
from tests.conformance.test_torch_optim import CASES
from tests.kernels.optimizers import (
    STEPS,
    assert_close,
    both,
    flat,
    gradients,
    langevin,
    parameters,
    run,
)
from tests.reference.pairs import drift_schemes

# Flows and maps without functions beyond + - * / and roots, per element.
EXACT = {"gradient_flow", "momentum_ema", "heavy_ball"}


def fitting():
    """Closure-free pairs of the registry."""
    for name, entry in FLOWS.items():
        flow = entry.build()
        for scheme in [*map(fo.Splitting, entry.words), *drift_schemes(name)]:
            if scheme.closure_free(flow):
                yield pytest.param(name, scheme, id=f"{name} {scheme!r}")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("name", "scheme"), list(fitting()))
def test_a_compiled_flow_ends_where_the_eager_one_ends(name, scheme, dtype):
    entry = FLOWS[name]

    def build(moving, **options):
        return fo.optim.FlowOptimizer(
            moving, entry.build(), scheme, lr=min(entry.step_size, 0.1), seed=3, **options
        )

    eager, compiled = both(build, dtype)
    assert_close(eager, compiled, dtype)
    if name in EXACT and isinstance(scheme, fo.Euler):
        assert torch.equal(eager, compiled)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("case", range(len(CASES)), ids=[f"{n} {s}" for n, s in CASES])
def test_a_compiled_preset_ends_where_the_eager_one_ends(case, maximize, dtype):
    name, settings = CASES[case]

    def build(moving, **options):
        return getattr(fo.optim, name)(moving, **settings, maximize=maximize, **options)

    assert_close(*both(build, dtype), dtype)


def test_gradient_descent_is_equal_to_the_last_bit():
    eager, compiled = both(lambda moving, **options: fo.optim.SGD(moving, lr=0.1, **options))
    assert torch.equal(eager, compiled)


def test_noise_is_that_of_eager_steps_for_every_element():
    eager, compiled = both(langevin)
    assert_close(eager, compiled)


def test_the_number_of_threads_changes_no_bit():
    ends = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            moving = parameters(shapes=[(300, 301), (70_001,)])
            ends.append(run(langevin(moving, compile=True), moving, steps=2))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*ends)


def test_changing_numbers_builds_nothing():
    moving = parameters()
    optimizer = fo.optim.Adam(moving, lr=1e-2, compile=True)
    run(optimizer, moving, steps=1)
    entries = build.load.cache_info().misses

    def change(optimizer, step):
        optimizer.param_groups[0].update(lr=1e-2 / (1 + step), betas=(0.9 - step / 100, 0.99))

    after = run(optimizer, moving, first=1, change=change)
    more = parameters(shapes=[(5,), (9, 9), (1000,)])
    run(fo.optim.Adam(more, lr=3e-3, eps=1e-4, compile=True), more)
    assert build.load.cache_info().misses == entries
    moving = parameters()
    optimizer = fo.optim.Adam(moving, lr=1e-2)
    run(optimizer, moving, steps=1)
    assert_close(run(optimizer, moving, first=1, change=change), after)


@pytest.mark.parametrize("kind", ["lr", "betas"])
def test_values_changed_in_place_are_seen(kind):
    def change(optimizer, step):
        (group,) = optimizer.param_groups
        if kind == "lr":
            group["lr"].fill_(1e-2 / (1 + step))
        else:
            group["betas"][0] = 0.9 - step / 100

    def build(moving, **options):
        settings = {"lr": torch.tensor(1e-2), "betas": [0.9, 0.99]}
        return fo.optim.Adam(moving, **settings, **options)

    assert_close(*both(build, change=change))


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", ["Adam", "langevin"])
def test_a_state_dict_goes_from_eager_to_compiled_and_back(name, first):
    build = langevin if name == "langevin" else fo.optim.Adam
    moving = parameters()
    expected = run(build(moving), moving)
    moving = parameters()
    optimizer = build(moving, compile=first)
    run(optimizer, moving, steps=7)
    other = build(moving, compile=not first)
    other.load_state_dict(optimizer.state_dict())
    assert_close(expected, run(other, moving, first=7, steps=STEPS - 7))


def test_two_optimizers_share_no_state_after_loading():
    moving = parameters()
    optimizer = fo.optim.Adam(moving, lr=1e-2, compile=True)
    run(optimizer, moving, steps=3)
    other = fo.optim.Adam(parameters(), lr=1e-2, compile=True)
    other.load_state_dict(optimizer.state_dict())
    before = [value["m"].clone() for value in other.state.values()]
    run(optimizer, moving, first=3, steps=3)
    assert all(torch.equal(a, v["m"]) for a, v in zip(before, other.state.values(), strict=True))


def test_a_copy_goes_on_compiled():
    moving = parameters()
    optimizer = fo.optim.Adam(moving, lr=1e-2, compile=True)
    run(optimizer, moving, steps=3)
    pair = copy.deepcopy((moving, optimizer))
    assert torch.equal(run(optimizer, moving, first=3), run(pair[1], pair[0], first=3))


def test_groups_types_and_missing_gradients_step_as_in_eager():
    ends = []
    for compiled in (False, True):
        moving = parameters() + parameters(torch.float32)
        groups = [
            {"params": moving[:9], "lr": 0.03, "weight_decay": 0.1},
            {"params": moving[9:], "betas": (0.7, 0.9)},
        ]
        optimizer = fo.optim.AdamW(groups, compile=compiled)
        for step in range(STEPS):
            gradients(moving, step)
            if step % 3 == 1:
                moving[4].grad = moving[10].grad = None
            if step < 5:
                moving[3].grad = None
            optimizer.step()
        ends.append(flat(moving))
    assert_close(*ends, torch.float32)


def test_noise_of_later_leaves_stays_where_gradients_are_missing():
    ends = []
    for compiled in (False, True):
        moving = parameters()
        optimizer = langevin(moving, compile=compiled)
        for step in range(STEPS):
            gradients(moving, step)
            moving[step % 4].grad = None
            optimizer.step()
        ends.append(flat(moving))
    assert_close(*ends)


def test_tensors_that_are_not_contiguous_are_stepped():
    ends = []
    for compiled in (False, True):
        generator = torch.Generator().manual_seed(2)
        base = torch.randn(9, 14, generator=generator, dtype=torch.float64)
        moving = [nn.Parameter(base.t()), nn.Parameter(base[:, :7].clone())]
        optimizer = langevin(moving, compile=compiled)
        for step in range(STEPS):
            gradients(moving, step)
            moving[1].grad = moving[1].grad.repeat(1, 2)[:, ::2]
            optimizer.step()
        ends.append(flat(moving))
    assert_close(*ends)


def test_a_start_value_that_is_the_gradient_leaves_the_gradient_alone():
    text = "M: dm/dt = -m\nA: dtheta/dt = -m\nstart m = g"
    ends = []
    for compiled in (False, True):
        moving = parameters()
        flow = fo.Flow.from_text(text)
        optimizer = fo.optim.FlowOptimizer(
            moving, flow, fo.Splitting("MA"), lr=0.1, compile=compiled
        )
        gradients(moving, 0)
        before = [p.grad.clone() for p in moving]
        optimizer.step()
        assert all(torch.equal(b, p.grad) for b, p in zip(before, moving, strict=True))
        ends.append(run(optimizer, moving, first=1))
    assert_close(*ends)


def test_a_backward_pass_through_stepped_parameters_is_refused():
    weight = nn.Parameter(torch.ones(3))
    optimizer = fo.optim.SGD([weight], lr=0.1, compile=True)
    loss = (weight**2).sum()
    weight.grad = torch.ones(3)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_another_size_of_a_parameter_is_refused_before_anything_moves():
    weight = nn.Parameter(torch.ones(3))
    optimizer = fo.optim.SGD([weight], lr=0.1, momentum=0.9, compile=True)
    run(optimizer, [weight], steps=1)
    weight.grad = None
    weight.data = torch.ones(4000)
    gradients([weight], 0)
    with pytest.raises(fo.CompatibilityError, match="of one shape and one dtype"):
        optimizer.step()
    assert torch.equal(weight.detach(), torch.ones(4000))


def test_parameters_that_share_memory_are_refused():
    base = torch.ones(10)
    moving = [nn.Parameter(base[:6]), nn.Parameter(base[4:])]
    gradients(moving, 0)
    with pytest.raises(fo.CompatibilityError, match="share memory"):
        fo.optim.SGD(moving, lr=0.1, compile=True).step()
    assert torch.equal(base, torch.ones(10))


def test_other_types_are_refused_with_the_reason():
    weight = nn.Parameter(torch.ones(3).to(torch.float8_e5m2))
    weight.grad = torch.ones(3).to(torch.float8_e5m2)
    with pytest.raises(fo.CompatibilityError, match="float64, float32, bfloat16 and float16"):
        fo.optim.Adam([weight], compile=True).step()


def test_a_word_that_needs_a_closure_is_refused_when_made():
    flow = fo.flows.langevin(friction=1.0, temperature=0.1)
    with pytest.raises(fo.CompatibilityError, match=r"use Splitting\('BAOA'\)"):
        fo.optim.FlowOptimizer(parameters(), flow, fo.Splitting("BAOAB"), compile=True)


def test_a_flow_that_moves_by_the_loss_takes_it_from_the_closure():
    flow = fo.Flow.from_text("A: dtheta/dt = -L*g")
    ends = []
    for compiled in (False, True):
        weight = nn.Parameter(torch.linspace(0.1, 1.0, 11, dtype=torch.float64))
        optimizer = fo.optim.FlowOptimizer(
            [weight], flow, fo.Euler(), lr=0.05, maximize=True, compile=compiled
        )

        def closure(weight=weight, optimizer=optimizer):
            optimizer.zero_grad()
            loss = torch.cos(weight).sum()
            loss.backward()
            return loss

        for _ in range(STEPS):
            optimizer.step(closure)
        ends.append(weight.detach())
    assert_close(*ends)
    with pytest.raises(fo.CompatibilityError, match="value of the loss"):
        optimizer.step()


def test_a_learning_rate_of_zero_moves_nothing():
    moving = parameters()
    before = flat(moving)
    assert torch.equal(run(fo.optim.Adam(moving, lr=0.0, compile=True), moving), before)


def test_two_threads_step_two_optimizers():
    expected = run(langevin(moving := parameters()), moving)
    found = {}

    def work(name):
        own = parameters()
        found[name] = run(langevin(own, compile=True), own)

    run(langevin(moving := parameters(), compile=True), moving, steps=1)
    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for end in found.values():
        assert_close(expected, end)
