"""Steps like the one before see values of groups that change, and who looks at steps."""

import math
import threading
import weakref
from collections.abc import Callable
from functools import wraps

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

import flowopt as fo
from flowopt.optim.tensors import Tensors
from tests.kernels.twins import SHAPES, Twins, needs_memory

pytestmark = needs_memory


@pytest.mark.parametrize("name, value", [("lr", 0.5), ("lr", 0.0), ("lr", 1), ("maximize", True)])
def test_numbers_that_change_take_effect(name: str, value: object, monkeypatch: pytest.MonkeyPatch):
    twins = Twins(monkeypatch)
    twins.begin()
    for number in (value, twins.sides[0].group[name], value):
        for side in twins.sides:
            side.group[name] = number
        twins.step()
        assert twins.repeated[-1] is (name == "lr" and len(twins.repeated) >= 4)
        twins.step()
        twins.step()
    twins.check()


# Of a method, values that choose another equation than the ones before.
CHOICES = [
    *(("Adam", "weight_decay", 0.1), ("Adam", "amsgrad", True), ("RMSprop", "centered", True)),
    *(("RMSprop", "momentum", 0.9), ("momentum", "momentum", 0.0), ("momentum", "nesterov", True)),
]


@pytest.mark.parametrize("method, name, value", CHOICES)
def test_values_that_choose_another_equation_take_effect(
    method: str, name: str, value: object, monkeypatch: pytest.MonkeyPatch
):
    twins = Twins(monkeypatch, method)
    twins.begin()
    for number in (value, twins.sides[0].group[name]):
        for side in twins.sides:
            side.group[name] = number
        for _ in range(3):
            twins.step()
        twins.check()
        assert (twins.repeated[-3], twins.repeated[-1]) == (False, True)


def test_schedules_repeat_steps(monkeypatch: pytest.MonkeyPatch):
    twins = Twins(monkeypatch, "momentum")
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(side.optimizer, 0.1, total_steps=9)
        for side in twins.sides
    ]
    for _ in range(8):
        twins.step()
        for schedule in schedules:
            schedule.step()
    assert twins.repeated == [False] * 2 + [True] * 6
    twins.check()


def test_a_step_of_no_length_and_no_gradient_without_a_state_is_none(
    monkeypatch: pytest.MonkeyPatch,
):
    twins = Twins(monkeypatch, "SGD")
    twins.begin()
    for side in twins.sides:
        side.group["lr"] = 0.0
        for parameter in side.parameters:
            parameter.grad = torch.zeros_like(parameter)
    twins.move()
    twins.check()


def test_a_group_whose_time_is_unknown_begins_anew(monkeypatch: pytest.MonkeyPatch):
    twins = Twins(monkeypatch)
    twins.begin()
    for side in twins.sides:
        side.group["time"] = math.nan
    twins.step()
    twins.check()
    assert twins.sides[0].group["step"] == 1


def test_numbers_out_of_range_are_refused(monkeypatch: pytest.MonkeyPatch):
    twins = Twins(monkeypatch)
    twins.begin()
    for side in twins.sides:
        side.group["lr"] = -1.0
        with pytest.raises(fo.errors.ConfigurationError, match="learning rate"):
            side.optimizer.step()
        side.group["lr"] = torch.tensor(0.1)
    twins.step()
    assert twins.repeated[-1] is False
    twins.check()


def test_gradients_that_are_not_finite_are_refused_from_when_it_is_asked(
    monkeypatch: pytest.MonkeyPatch,
):
    twins = Twins(monkeypatch)
    twins.begin()
    for side in twins.sides:
        side.group["error_if_nonfinite"] = True
        side.parameters[0].grad = torch.full(SHAPES[0], torch.nan)
        with pytest.raises(fo.errors.NotFiniteError):
            side.optimizer.step()
    twins.check()


def test_hooks_and_profiles_see_every_step(monkeypatch: pytest.MonkeyPatch):
    twins = Twins(monkeypatch)
    twins.begin()
    optimizer, seen = twins.sides[0].optimizer, []
    everywhere = register_optimizer_step_pre_hook, register_optimizer_step_post_hook
    own = optimizer.register_step_pre_hook, optimizer.register_step_post_hook
    for number, register in enumerate((*everywhere, *own)):
        handle = register(lambda *_, number=number: seen.append(number))
        optimizer.step()
        handle.remove()
    assert seen == [0, 1, 2, 3]
    with torch.profiler.profile() as profile:
        optimizer.step()
    assert "Optimizer.step#Adam.step" in {event.key for event in profile.key_averages()}


@pytest.mark.parametrize("form", [lambda step: step, wraps(fo.optim.FlowOptimizer.step)])
def test_a_step_of_ones_own_is_called(form: Callable):
    calls = []

    class Counted(fo.optim.Adam):
        @form
        def step(self, closure: Callable | None = None) -> object:
            calls.append(1)
            return super().step(closure)

    parameter = nn.Parameter(torch.ones(3))
    optimizer = Counted([parameter], lr=0.1, compile=True)
    for _ in range(5):
        parameter.grad = torch.ones(3)
        optimizer.step()
    assert len(calls) == 5
    assert optimizer.param_groups[0]["step"] == 5


def test_a_closure_is_called_before_a_repeated_step(monkeypatch: pytest.MonkeyPatch):
    twins = Twins(monkeypatch)
    twins.begin()
    twins.repeated.append(False)
    losses = [side.optimizer.step(lambda: torch.tensor(2.0)) for side in twins.sides]
    assert losses == [2.0, 2.0]
    assert twins.repeated[-1] is True
    twins.check()


@pytest.mark.parametrize("form", [torch.tensor, np.float32], ids=["tensor", "numpy"])
def test_a_number_that_is_equal_only_when_rounded_is_another(
    form: Callable, monkeypatch: pytest.MonkeyPatch
):
    twins = Twins(monkeypatch)
    twins.begin()
    rounded = form(twins.sides[0].group["lr"])
    for side, number in zip(twins.sides, (rounded, rounded.item()), strict=True):
        side.group["lr"] = number
    twins.step()
    assert rounded == 1e-2
    assert rounded.item() != 1e-2
    twins.check()


def test_gradients_are_held_while_another_thread_may_drop_them(monkeypatch: pytest.MonkeyPatch):
    twins, end = Twins(monkeypatch), threading.Event()
    twins.begin()
    ours, alive, own = twins.sides[0], [], Tensors.rerun

    def dropped(*arguments: object) -> list:
        kept = [weakref.ref(parameter.grad) for parameter in ours.parameters]
        ours.optimizer.zero_grad()
        alive.extend(gradient() is not None for gradient in kept)
        return own(*arguments)

    monkeypatch.setattr(Tensors, "rerun", dropped)
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        twins.step()
    finally:
        end.set()
        thread.join()
    assert twins.repeated[-1] is True
    assert alive
    assert all(alive)
    twins.check()
