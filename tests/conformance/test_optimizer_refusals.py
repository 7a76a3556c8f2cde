"""What an optimizer refuses, in words."""

import pytest
import torch
from torch import nn

import flowopt as fo
from flowopt.optim import FlowOptimizer
from tests.reference.training import (
    small_data,
    small_network,
)


@pytest.mark.parametrize(
    ("preset", "settings", "message"),
    [
        ("SGD", {"lr": -1.0}, "Invalid learning rate: -1.0"),
        ("SGD", {"momentum": -0.5}, "Invalid momentum value: -0.5"),
        ("SGD", {"weight_decay": -1.0}, "Invalid weight_decay value: -1.0"),
        ("SGD", {"nesterov": True}, "Nesterov momentum requires a momentum and zero dampening"),
        ("Adam", {"lr": -1.0}, "Invalid learning rate: -1.0"),
        ("Adam", {"betas": (1.0, 0.9)}, "Invalid beta parameter at index 0: 1.0"),
        ("Adam", {"betas": (0.9, -0.1)}, "Invalid beta parameter at index 1: -0.1"),
        ("AdamW", {"eps": -1e-8}, "Invalid epsilon value: -1e-08"),
        ("AdamW", {"weight_decay": -1.0}, "Invalid weight_decay value: -1.0"),
        ("RMSprop", {"alpha": -0.1}, "Invalid alpha value: -0.1"),
        ("RMSprop", {"momentum": -0.1}, "Invalid momentum value: -0.1"),
        ("Adagrad", {"lr_decay": -0.1}, "Invalid lr_decay value: -0.1"),
        ("Adagrad", {"initial_accumulator_value": -0.1}, "Invalid initial_accumulator_value value"),
    ],
)
def test_wrong_settings_are_refused_in_the_words_of_torch(preset, settings, message):
    parameters = list(small_network().parameters())
    with pytest.raises(ValueError, match=f"^{message}") as theirs:
        getattr(torch.optim, preset)(parameters, **settings)
    with pytest.raises(fo.ConfigurationError, match=f"^{message}") as ours:
        getattr(fo.optim, preset)(parameters, **settings)
    assert isinstance(ours.value, ValueError)
    assert str(ours.value).startswith(str(theirs.value))


def test_a_learning_rate_that_a_schedule_makes_negative_is_refused():
    module = small_network()
    optimizer = fo.optim.SGD(module.parameters(), lr=0.1)
    module(small_data()[0]).sum().backward()
    optimizer.param_groups[0]["lr"] = -0.1
    with pytest.raises(fo.ConfigurationError, match="Invalid learning rate: -0.1"):
        optimizer.step()


def test_wrong_arguments_are_refused_with_the_name_of_the_preset():
    with pytest.raises(TypeError, match=r"^Adam\(\) got an unexpected .* 'learning_rate'"):
        fo.optim.Adam(small_network().parameters(), learning_rate=1e-3)
    with pytest.raises(TypeError, match=r"^SGD\(\) missing .* 'params'"):
        fo.optim.SGD(lr=1e-3)


def test_what_only_torch_has_is_refused_in_a_group_too():
    group = {"params": small_network().parameters(), "fused": True}
    with pytest.raises(fo.CompatibilityError, match="fused=True: .* compile=True"):
        fo.optim.AdamW([group])
    fo.optim.AdamW([{**group, "params": small_network().parameters(), "fused": None}])


def test_a_sparse_gradient_is_refused():
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(fo.CompatibilityError, match="sparse gradients are not supported"):
        fo.optim.SGD(table.parameters(), lr=0.1).step()


@pytest.mark.parametrize("options", [{}, {"foreach": False}, {"compile": True}], ids=str)
def test_a_parameter_of_whole_numbers_stays_as_it_is_with_torch(options):
    # Such as the weights of a quantized module, which have no gradient.
    frozen = nn.Parameter(torch.tensor([3, 5]), requires_grad=False)
    weight = nn.Parameter(torch.ones(2))
    optimizer = fo.optim.Adam([frozen, weight], **options)
    weight.grad = torch.ones(2)
    optimizer.step()
    assert frozen.tolist() == [3, 5]
    assert weight.detach().max() < 1.0


def test_a_hyperparameter_per_trajectory_is_refused():
    flow = fo.flows.heavy_ball(friction=torch.tensor([1.0, 2.0]))
    with pytest.raises(fo.ConfigurationError, match=r"one network: .* shape \(2,\)"):
        FlowOptimizer(small_network().parameters(), flow, fo.Splitting("OBA"))


@pytest.mark.parametrize("name", ["lr", "maximize", "seed", "step", "time", "params"])
@pytest.mark.parametrize("role", ["hyperparameter", "scalar"])
def test_a_name_that_means_something_else_in_a_group_is_refused(name, role):
    lines = f"U: d{name}/dt = 1\nscalar {name}" if role == "scalar" else f"parameter {name} = 2"
    flow = fo.Flow.from_text(f"A: dtheta/dt = -{name}*g\n{lines}")
    word = fo.Splitting("UA" if role == "scalar" else "A")
    with pytest.raises(fo.CompatibilityError, match=f"uses the names \\['{name}'\\]"):
        FlowOptimizer(small_network().parameters(), flow, word)


def test_a_variable_may_not_be_called_step():
    flow = fo.Flow.from_text("M: dstep/dt = g\nA: dtheta/dt = -step")
    with pytest.raises(fo.CompatibilityError, match=r"uses the names \['step'\]"):
        FlowOptimizer(small_network().parameters(), flow, fo.Splitting("MA"))


def test_a_word_that_does_not_fit_its_flow_is_refused_at_once():
    with pytest.raises(fo.CompatibilityError, match=r"leaves out \['O'\]"):
        FlowOptimizer(small_network().parameters(), fo.flows.heavy_ball(), fo.Splitting("BA"))


HEAVY_BALL, WORD = fo.flows.heavy_ball(friction=1.0), fo.Splitting("OBA")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"control": fo.control.ExpectedSlope}, "control is the class ExpectedSlope"),
        ({"control": 0.1}, "control=0.1 is no control: give .* or lr=0.1"),
        ({"compile": "auto"}, "compile is True or False for an optimizer, got 'auto'"),
        ({"lr": "0.1"}, "lr is a real number or a tensor of them, got '0.1'"),
        ({"lr": torch.ones(2)}, "Tensor lr must be 1-element"),
        ({"seed": 0.5}, "a seed is a whole number"),
    ],
    ids=str,
)
def test_wrong_settings_of_a_flow_optimizer_are_named(settings, message):
    with pytest.raises(fo.FlowoptError, match=message):
        FlowOptimizer([nn.Parameter(torch.ones(2))], HEAVY_BALL, WORD, **settings)


@pytest.mark.parametrize(
    ("preset", "values", "message"),
    [
        ("Langevin", {"temperature": -1.0}, "Invalid temperature value: -1.0"),
        ("Langevin", {"friction": float("nan")}, "Invalid friction value: nan"),
        ("AdaptiveLangevin", {"coupling": -0.1}, "Invalid coupling value: -0.1"),
        ("AdaptiveLangevin", {"xi": "warm"}, "xi is a real number .* got 'warm'"),
    ],
)
def test_a_wrong_value_of_a_group_is_refused_and_the_group_is_not_added(preset, values, message):
    optimizer = getattr(fo.optim, preset)([nn.Parameter(torch.ones(2))])
    group = {"params": [nn.Parameter(torch.ones(2))]}
    with pytest.raises(fo.ConfigurationError, match=message):
        optimizer.add_param_group({**group, **values})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group(group)
    group["params"][0].grad = torch.ones(2)
    optimizer.step()
    assert (group["params"][0] != 1).all()


def test_a_temperature_that_a_schedule_makes_negative_is_refused():
    parameter = nn.Parameter(torch.ones(2))
    optimizer = fo.optim.Langevin([parameter])
    parameter.grad = torch.ones(2)
    optimizer.param_groups[0]["temperature"] = -1.0
    with pytest.raises(fo.ConfigurationError, match="Invalid temperature value: -1.0"):
        optimizer.step()


@pytest.mark.parametrize("value", [1.0, torch.tensor(1.0), torch.ones(2, requires_grad=True)])
def test_a_loss_that_can_not_be_differentiated_is_refused(value):
    with pytest.raises(fo.CompatibilityError, match="gives a tensor of one element that depends"):
        fo.optim.SGD([nn.Parameter(torch.ones(2))]).step(loss=lambda: value)


def test_a_closure_that_returns_nothing_can_not_be_judged():
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    with pytest.raises(fo.CompatibilityError, match="end it by return loss"):
        fo.optim.EnergyGD([parameter]).step(lambda: None)


def test_measures_of_an_optimizer_without_equations_are_refused():
    with pytest.raises(fo.CompatibilityError, match="such as flowopt.optim.Langevin, got SGD"):
        fo.optim.measures(torch.optim.SGD([nn.Parameter(torch.ones(2))]), 1.0)


def test_nothing_to_step_is_said_by_levenberg_marquardt():
    optimizer = fo.optim.LevenbergMarquardt([torch.ones(2)])
    with pytest.raises(fo.CompatibilityError, match="no parameter requires a gradient"):
        optimizer.step(residuals=lambda: torch.ones(2))
