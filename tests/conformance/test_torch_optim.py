"""Classic optimizers, as presets and as Methods, against torch.optim itself."""

import math
from functools import cache

import pytest
import torch

import flowopt as fo
from tests.reference.training import (
    STEPS,
    flat_position,
    small_network,
    small_problem,
    train,
)

DECAY = {"weight_decay": 0.05}
MOMENTUM = {"lr": 0.1, "momentum": 0.9}
RMSPROP = {"lr": 2e-3, "alpha": 0.95}
CASES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", MOMENTUM),
    ("SGD", {**MOMENTUM, "dampening": 0.3}),
    ("SGD", {**MOMENTUM, "nesterov": True}),
    ("Adam", {"lr": 1e-2}),
    ("Adam", {"lr": 1e-2, "betas": (0.8, 0.95), "eps": 1e-3}),
    ("AdamW", {"lr": 1e-2}),
    ("RMSprop", RMSPROP),
    ("RMSprop", {**RMSPROP, "centered": True}),
    ("RMSprop", {**RMSPROP, "momentum": 0.8}),
    ("RMSprop", {**RMSPROP, "momentum": 0.8, "centered": True}),
    ("Adagrad", {"lr": 0.05}),
    ("Adagrad", {"lr": 0.05, "lr_decay": 0.02}),
    ("Adagrad", {"lr": 0.05, "initial_accumulator_value": 0.1}),
]
CASES += [(name, {**settings, **DECAY}) for name, settings in CASES]
# Methods for which there is no preset: torch's own class, and what the method is called.
OTHERS = [
    ("Adam", "amsgrad", {"lr": 1e-2, "amsgrad": True}),
    ("Adamax", "adamax", {"lr": 1e-2, "betas": (0.8, 0.95)}),
    ("NAdam", "nadam", {"lr": 1e-2}),
    ("RAdam", "radam", {"lr": 1e-2, "betas": (0.9, 0.99)}),
    ("Adadelta", "adadelta", {"lr": 1.0}),
]
OTHERS += [(name, method, {**settings, **DECAY}) for name, method, settings in OTHERS]
SCHEDULES = {
    "constant": None,
    "cosine": lambda step: 0.5 * (1 + math.cos(math.pi * step / STEPS)),
    "warm-up from zero": lambda step: min(1.0, step / 50),
}


def each_case(function):
    names = [f"{name} {settings}" for name, settings in CASES]
    cases = pytest.mark.parametrize("case", range(len(CASES)), ids=names)
    return cases(pytest.mark.parametrize("schedule", SCHEDULES)(function))


@cache
def expected(case, schedule):
    """Where torch.optim ends."""
    name, settings = CASES[case]
    module = small_network()
    optimizer = getattr(torch.optim, name)(module.parameters(), **settings)
    return train(module, optimizer, SCHEDULES[schedule])


def assert_equal(found, case, schedule):
    torch.testing.assert_close(found, expected(case, schedule), rtol=0, atol=1e-12)


@each_case
def test_a_preset_ends_where_torch_ends(case, schedule):
    name, settings = CASES[case]
    module = small_network()
    optimizer = getattr(fo.optim, name)(module.parameters(), **settings)
    assert_equal(train(module, optimizer, SCHEDULES[schedule]), case, schedule)


@each_case
def test_a_method_integrates_to_where_torch_ends(case, schedule):
    name, settings = CASES[case]
    method = getattr(fo.classic, name.lower())(**settings)
    problem = small_problem()
    factor = SCHEDULES[schedule]
    # The step size of every method is proportional to its learning rate.
    full = method.step_size.item()
    control = fo.Constant(full) if factor is None else fo.Schedule(lambda n: full * factor(n))
    solution = fo.integrate(
        method.flow, method.scheme, problem, problem.start(), steps=STEPS, control=control
    )
    assert_equal(flat_position(solution.position), case, schedule)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("SGD", MOMENTUM),
        ("SGD", {**MOMENTUM, "nesterov": True}),
        ("SGD", {**MOMENTUM, "dampening": 0.3}),
        ("RMSprop", {**RMSPROP, "momentum": 0.8}),
    ],
)
def test_a_schedule_may_change_learning_rate_and_momentum_at_once(name, settings):
    ends = []
    for package in (fo.optim, torch.optim):
        module, problem = small_network(), small_problem()
        optimizer = getattr(package, name)(module.parameters(), **settings)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings["lr"], total_steps=STEPS + 1
        )
        for step in range(STEPS):
            rows = problem.draw(step, 0, ())
            optimizer.zero_grad()
            outputs = module(problem.inputs[rows])
            torch.nn.functional.cross_entropy(outputs, problem.targets[rows]).backward()
            optimizer.step()
            scheduler.step()
        ends.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    torch.testing.assert_close(*ends, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("double_by_default")
@pytest.mark.parametrize(("name", "method", "settings"), OTHERS)
def test_a_method_without_a_preset_integrates_to_where_torch_ends(name, method, settings):
    module, problem = small_network(), small_problem()
    optimizer = getattr(torch.optim, name)(module.parameters(), **settings)
    ours = {option: value for option, value in settings.items() if option != "amsgrad"}
    method = getattr(fo.classic, method)(**ours)
    full, factor = method.step_size.item(), SCHEDULES["cosine"]
    control = fo.Schedule(lambda n: full * factor(n))
    solution = fo.integrate(
        method.flow, method.scheme, problem, problem.start(), steps=STEPS, control=control
    )
    expected = train(module, optimizer, factor)
    torch.testing.assert_close(flat_position(solution.position), expected, rtol=0, atol=1e-10)


def test_a_subclass_of_a_preset_is_stepped_as_the_preset():
    class Renamed(fo.optim.Adam):
        pass

    ends = []
    for kind in (Renamed, fo.optim.Adam):
        module = small_network()
        ends.append(train(module, kind(module.parameters(), lr=1e-2), steps=5))
    assert torch.equal(*ends)
