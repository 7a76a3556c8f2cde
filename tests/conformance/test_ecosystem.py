"""What training loops do around an optimizer: the same numbers as with torch's own."""

import shutil

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_, parametrizations
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn

import flowopt as fo
from tests.reference.training import flat_parameters, small_data, small_network

INPUTS, TARGETS = small_data()
WAYS = pytest.mark.parametrize("way", [{}, {"compile": True}], ids=["eager", "compiled"])
PACKAGES = (fo.optim, torch.optim)


def adam(package, parameters, way, **settings):
    options = way if package is fo.optim else {}
    return package.Adam(parameters, **{"lr": 1e-2, **settings}, **options)


def assert_equal(ends, atol=1e-13):
    torch.testing.assert_close(*ends, rtol=0, atol=atol)


@WAYS
def test_a_scaler_skips_steps_with_infinite_gradients(way):
    ends, counts = [], []
    for package in PACKAGES:
        module = small_network().float()
        optimizer = adam(package, module.parameters(), way)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=3)
        for step in range(12):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.float16):
                loss = cross_entropy(module(INPUTS.float()), TARGETS)
            scaler.scale(loss).backward()
            if step in (4, 5, 9):
                module[2].bias.grad[1] = float("inf")
            before = flat_parameters(module)
            scaler.unscale_(optimizer)
            clip_grad_norm_(module.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            stays = torch.equal(flat_parameters(module), before)
            assert stays == (step in (4, 5, 9))
        ends.append(flat_parameters(module))
        counts.append((scaler.get_scale(), scaler.state_dict()["_growth_tracker"]))
    assert optimizer.state[module[0].weight]["step"] == 9
    assert counts[0] == counts[1]
    assert_equal(ends, atol=1e-6)


@WAYS
def test_time_does_not_pass_in_steps_that_a_scaler_skips(way):
    module = small_network().float()
    optimizer = adam(fo.optim, module.parameters(), way)
    scaler = torch.amp.GradScaler("cpu")
    for step in range(3):
        optimizer.zero_grad()
        scaler.scale(cross_entropy(module(INPUTS.float()), TARGETS)).backward()
        if step == 1:
            module[0].weight.grad[0, 0] = float("nan")
        scaler.step(optimizer)
        scaler.update()
        assert optimizer.param_groups[0]["step"] == (1, 1, 2)[step]


@pytest.mark.parametrize(
    ("build", "remedy"),
    [
        (
            lambda p: fo.optim.FlowOptimizer(
                p, fo.flows.langevin(friction=1.0, temperature=0.0), fo.Splitting("BAOAB")
            ),
            r"use Splitting\('BAOA'\)",
        ),
        (fo.optim.EnergyAdam, r"step\(closure\)"),
    ],
    ids=["BAOAB", "EnergyAdam"],
)
def test_what_needs_a_closure_does_not_move_under_a_scaler(build, remedy):
    module = small_network().float()
    optimizer, before = build(module.parameters()), flat_parameters(module)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(cross_entropy(module(INPUTS.float()), TARGETS)).backward()
    with pytest.raises(fo.CompatibilityError, match=remedy):
        scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="Closure use is not currently supported"):
        scaler.step(optimizer, closure=lambda: None)
    assert torch.equal(flat_parameters(module), before)


def steps_of(module, optimizer, compiled_by, within):
    """One training step: compiled with the optimizer in it, or as a closure with its model."""
    model = torch.compile(module, backend=compiled_by) if within == "model" else module

    def gradient():
        optimizer.zero_grad()
        loss = cross_entropy(model(INPUTS), TARGETS)
        loss.backward()
        return loss

    def step():
        loss = gradient()
        optimizer.step()
        return loss

    if within == "model":
        return lambda: optimizer.step(gradient)
    return torch.compile(step, backend=compiled_by) if compiled_by else step


OPTIMIZERS = {
    "Adam": lambda p, **way: fo.optim.Adam(p, lr=1e-2, **way),
    "Langevin": lambda p, **way: fo.optim.Langevin(p, seed=3, **way),
}


@pytest.mark.parametrize(
    ("name", "backend", "within", "way"),
    [
        ("Adam", "eager", "step", {}),
        ("Adam", "eager", "model", {"compile": True}),
        ("Adam", "aot_eager", "step", {"compile": True}),
        ("Adam", "aot_eager", "model", {}),
        ("Langevin", "aot_eager", "step", {"compile": True}),
    ],
)
def test_a_compiled_training_step_gives_the_same_numbers(name, backend, within, way):
    import torch._dynamo.testing

    ends = []
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend(backend)
    for compiled_by in (None, counter):
        module = small_network()
        optimizer = OPTIMIZERS[name](module.parameters(), **way)
        step = steps_of(module, optimizer, compiled_by, within if compiled_by else "")
        for _ in range(4):
            step()
        ends.append(flat_parameters(module))
    assert torch.equal(*ends)
    # The forward pass is one graph, and nothing of the optimizer is another.
    assert counter.frame_count == 1
    torch._dynamo.reset()


@pytest.mark.full
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@WAYS
def test_a_training_step_compiled_by_inductor_gives_the_same_numbers(way):
    torch._dynamo.reset()
    ends = []
    for compiled_by in (None, "inductor"):
        module = small_network()
        optimizer = OPTIMIZERS["Adam"](module.parameters(), **way)
        step = steps_of(module, optimizer, compiled_by, "step")
        for _ in range(4):
            step()
        ends.append(flat_parameters(module))
    assert_equal(ends)
    torch._dynamo.reset()


def normalised_network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()


@WAYS
@pytest.mark.parametrize("average", [None, get_ema_multi_avg_fn(0.9)], ids=["mean", "exponential"])
def test_averaged_weights_are_those_of_torch(average, way):
    ends = []
    for package in PACKAGES:
        module = normalised_network()
        optimizer = adam(package, module.parameters(), way)
        averaged = AveragedModel(module, multi_avg_fn=average)
        scheduler = SWALR(optimizer, swa_lr=0.05, anneal_epochs=4)
        for _ in range(10):
            optimizer.zero_grad()
            cross_entropy(module(INPUTS), TARGETS).backward()
            optimizer.step()
            averaged.update_parameters(module)
            scheduler.step()
        update_bn(INPUTS.split(10), averaged)
        ends.append(averaged(INPUTS))
    assert_equal(ends, atol=1e-11)


@WAYS
def test_accumulated_and_clipped_gradients_step_as_with_torch(way):
    ends = []
    for package in PACKAGES:
        module = small_network()
        optimizer = adam(package, module.parameters(), way)
        for _ in range(10):
            optimizer.zero_grad()
            for rows in torch.arange(40).split(10):
                (cross_entropy(module(INPUTS[rows]), TARGETS[rows]) / 4).backward()
            clip_grad_norm_(module.parameters(), 0.1)
            optimizer.step()
        ends.append(flat_parameters(module))
    assert_equal(ends)


@WAYS
@pytest.mark.parametrize("kind", ["weight_norm", "orthogonal", "spectral_norm"])
def test_a_parametrized_module_trains_as_with_torch(kind, way):
    ends = []
    for package in PACKAGES:
        module = small_network()
        torch.manual_seed(2)
        getattr(parametrizations, kind)(module[0])
        optimizer = adam(package, module.parameters(), way)
        for _ in range(10):
            optimizer.zero_grad()
            cross_entropy(module(INPUTS), TARGETS).backward()
            optimizer.step()
        ends.append(module(INPUTS))
    assert_equal(ends, atol=1e-12)
