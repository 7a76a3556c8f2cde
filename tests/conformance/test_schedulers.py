"""Every scheduler of torch drives a preset as it drives torch's optimizer of the same rule."""

import pytest
import torch
from torch.optim import lr_scheduler as kinds

import flowopt as fo
from tests.reference.optimizers import PRESETS
from tests.reference.training import closure_of, flat_parameters, small_data, small_network

STEPS = 24
# One of every kind, and those that cycle momentum with it and without.
SCHEDULERS = {
    "LambdaLR": lambda o: kinds.LambdaLR(o, lambda step: 1 / (1 + step)),
    "MultiplicativeLR": lambda o: kinds.MultiplicativeLR(o, lambda step: 0.9),
    "StepLR": lambda o: kinds.StepLR(o, 5),
    "MultiStepLR": lambda o: kinds.MultiStepLR(o, [3, 11]),
    "ConstantLR": lambda o: kinds.ConstantLR(o),
    "LinearLR": lambda o: kinds.LinearLR(o),
    "ExponentialLR": lambda o: kinds.ExponentialLR(o, 0.9),
    "SequentialLR": lambda o: kinds.SequentialLR(
        o, [kinds.LinearLR(o, 0.01, total_iters=8), kinds.PolynomialLR(o, 16)], [8]
    ),
    "CosineAnnealingLR": lambda o: kinds.CosineAnnealingLR(o, STEPS),
    "ChainedScheduler": lambda o: kinds.ChainedScheduler(
        [kinds.ConstantLR(o, 0.1, 5), kinds.ExponentialLR(o, 0.9)]
    ),
    "ReduceLROnPlateau": lambda o: kinds.ReduceLROnPlateau(o, patience=0, threshold=0.5),
    "CyclicLR": lambda o: kinds.CyclicLR(o, 1e-4, 2e-3, 5, cycle_momentum=False),
    "CosineAnnealingWarmRestarts": lambda o: kinds.CosineAnnealingWarmRestarts(o, 7),
    "OneCycleLR": lambda o: kinds.OneCycleLR(o, 2e-3, STEPS + 1, cycle_momentum=False),
    "PolynomialLR": lambda o: kinds.PolynomialLR(o, STEPS),
}
WITH_MOMENTUM = {
    "CyclicLR": lambda o: kinds.CyclicLR(o, 1e-4, 2e-3, 5),
    "OneCycleLR": lambda o: kinds.OneCycleLR(o, 2e-3, STEPS + 1),
}
CYCLING = [(preset, own) for preset, own in PRESETS if "momentum" in own]
WAYS = pytest.mark.parametrize("way", [{}, {"compile": True}], ids=["eager", "compiled"])


def trained(optimizer, module, make):
    """Parameters after a schedule, and the learning rates that it took."""
    schedule, rates = make(optimizer), []
    closure = closure_of(module, optimizer, *small_data())
    for _ in range(STEPS):
        loss = closure()
        optimizer.step()
        plateau = isinstance(schedule, kinds.ReduceLROnPlateau)
        schedule.step(loss.item()) if plateau else schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return flat_parameters(module), rates


def compared(preset, settings, way, make):
    ends = []
    for package, options in ((fo.optim, way), (torch.optim, {})):
        module = small_network()
        kind = getattr(package, preset.__name__)
        ends.append(trained(kind(module.parameters(), **settings, **options), module, make))
    (ours, rates), (theirs, expected) = ends
    assert rates == expected
    assert len(set(rates)) > 1
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)


def test_no_scheduler_of_torch_is_left_out():
    assert set(SCHEDULERS) == set(kinds.__all__) - {"LRScheduler"}


@WAYS
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize(("preset", "settings"), PRESETS)
def test_a_scheduler_drives_a_preset_as_it_drives_torch(preset, settings, way, scheduler):
    compared(preset, settings, way, SCHEDULERS[scheduler])


@WAYS
@pytest.mark.parametrize("scheduler", WITH_MOMENTUM)
@pytest.mark.parametrize(("preset", "settings"), CYCLING)
def test_a_scheduler_cycles_momentum_as_with_torch(preset, settings, way, scheduler):
    compared(preset, settings, way, WITH_MOMENTUM[scheduler])


@WAYS
@pytest.mark.parametrize("scheduler", WITH_MOMENTUM)
def test_where_betas_cycle_adam_is_corrected_by_those_that_were_used(way, scheduler):
    module, twin = small_network(), small_network()
    optimizer = fo.optim.Adam(module.parameters(), lr=1e-3, **way)
    schedule = WITH_MOMENTUM[scheduler](optimizer)
    closure = closure_of(module, optimizer, *small_data())
    leaves = list(twin.parameters())
    means = [torch.zeros_like(leaf) for leaf in leaves]
    squares = [torch.zeros_like(leaf) for leaf in leaves]
    products, seen = [1.0, 1.0], set()
    for _ in range(STEPS):
        group = optimizer.param_groups[0]
        betas, lr = group["betas"], group["lr"]
        seen.add(betas[0])
        products = [p * beta for p, beta in zip(products, betas, strict=True)]
        closure_of(twin, torch.optim.SGD(leaves), *small_data())()
        for leaf, mean, square in zip(leaves, means, squares, strict=True):
            mean.lerp_(leaf.grad, 1 - betas[0])
            square.lerp_(leaf.grad**2, 1 - betas[1])
            root = (square / (1 - products[1])).sqrt() + 1e-8
            leaf.data -= lr / (1 - products[0]) * mean / root
        closure()
        optimizer.step()
        schedule.step()
    assert len(seen) > 5
    torch.testing.assert_close(flat_parameters(module), flat_parameters(twin), rtol=0, atol=1e-13)
