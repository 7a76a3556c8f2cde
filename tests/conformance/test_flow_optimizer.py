"""FlowOptimizer: the same numbers as integrate, and the manners of a torch optimizer."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

import flowopt as fo
from flowopt.optim import FlowOptimizer
from tests.reference.optimizers import (
    PRESETS,
    STEP_SIZE,
    assert_identical,
    langevin,
    langevin_optimizer,
    two_groups,
)
from tests.reference.training import (
    closure_of,
    flat_parameters,
    flat_position,
    small_data,
    small_network,
    small_problem,
    train,
)


def assert_equal(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("flow", "word"),
    [(fo.flows.heavy_ball(), "OBA"), (fo.flows.adam(), "TMVA"), (langevin(), "BAOA")],
)
def test_a_network_moves_as_under_integrate(flow, word):
    problem = small_problem()
    solution = fo.integrate(
        flow, fo.Splitting(word), problem, problem.start(), step_size=1e-3, steps=50
    )
    module = small_network()
    optimizer = FlowOptimizer(
        module.parameters(), flow, fo.Splitting(word), lr=1e-3, seed=0, foreach=False
    )
    assert_identical(train(module, optimizer, steps=50), flat_position(solution.position))


@pytest.mark.parametrize("scheme", [fo.Splitting("BAOAB"), fo.Splitting("ABOBA")], ids=repr)
def test_a_word_that_needs_gradients_within_the_step_takes_them_from_the_closure(scheme):
    module = small_network()
    optimizer = FlowOptimizer(module.parameters(), langevin(), scheme, lr=STEP_SIZE, seed=0)
    inputs, targets = small_data()
    for _ in range(30):
        optimizer.step(closure_of(module, optimizer, inputs, targets))
    problem = fo.problems.network(small_network(), cross_entropy, (inputs, targets))
    solution = fo.integrate(
        langevin(), scheme, problem, problem.start(), step_size=STEP_SIZE, steps=30
    )
    assert_identical(flat_parameters(module), flat_position(solution.position))


def test_a_runge_kutta_method_takes_its_stages_from_the_closure():
    module = small_network()
    scheme = fo.RungeKutta("rk4")
    optimizer = FlowOptimizer(module.parameters(), fo.flows.gradient_flow(), scheme, lr=0.5)
    inputs, targets = small_data()
    for _ in range(10):
        optimizer.step(closure_of(module, optimizer, inputs, targets))
    problem = fo.problems.network(small_network(), cross_entropy, (inputs, targets))
    solution = fo.integrate(
        fo.flows.gradient_flow(), scheme, problem, problem.start(), step_size=0.5, steps=10
    )
    assert_identical(flat_parameters(module), flat_position(solution.position))


def test_a_step_with_a_closure_returns_the_loss_at_its_start():
    module = small_network()
    optimizer = FlowOptimizer(
        module.parameters(), fo.flows.gradient_flow(), fo.Euler(), lr=STEP_SIZE
    )
    inputs, targets = small_data()
    before = cross_entropy(module(inputs), targets)
    assert optimizer.step(closure_of(module, optimizer, inputs, targets)).item() == before.item()


def test_a_step_without_a_closure_returns_nothing():
    module = small_network()
    assert fo.optim.SGD(module.parameters()).step() is None


@pytest.mark.parametrize(
    ("word", "remedy"), [("BAOAB", "Splitting('BAOA')"), ("ABOBA", "step(closure)")]
)
def test_without_a_closure_the_error_names_what_to_do(word, remedy):
    module = small_network()
    optimizer = FlowOptimizer(module.parameters(), langevin(), fo.Splitting(word))
    module(small_data()[0]).sum().backward()
    before = flat_parameters(module)
    with pytest.raises(fo.CompatibilityError) as caught:
        optimizer.step()
    assert remedy in str(caught.value)
    assert_identical(flat_parameters(module), before)


def test_adam_written_as_text_is_the_built_in_one():
    text = """
    T: du_m/dt = a*(1 - u_m)
    T: du_v/dt = b*(1 - u_v)
    M: dm/dt = a*(g - m)
    V: dv/dt = b*(g**2 - v)
    A: dtheta/dt = -(m/u_m)/(sqrt(v/u_v) + eps)
    scalar u_m
    scalar u_v
    """
    rates = [-math.log(beta) / 1e-2 for beta in (0.9, 0.999)]
    written = fo.Flow.from_text(text, a=rates[0], b=rates[1], eps=1e-8)
    built_in = fo.flows.adam(momentum_rate=rates[0], square_rate=rates[1])
    ends = []
    for flow in (written, built_in):
        module = small_network()
        optimizer = FlowOptimizer(module.parameters(), flow, fo.Splitting("TMVA"), lr=1e-2)
        ends.append(train(module, optimizer))
    assert_equal(*ends)


def test_the_heavy_ball_written_as_text_is_the_built_in_one():
    text = """
    A: dtheta/dt = p
    B: dp/dt = -g
    O: dp/dt = -friction*p
    """
    ends = []
    for flow in (fo.Flow.from_text(text, friction=0.5), fo.flows.heavy_ball(friction=0.5)):
        module = small_network()
        optimizer = FlowOptimizer(module.parameters(), flow, fo.Splitting("OBA"), lr=0.3)
        ends.append(train(module, optimizer))
    assert_equal(*ends)


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_heavy_ball_in_its_own_time_is_momentum_at_constant_learning_rate(nesterov):
    lr, momentum = 0.05, 0.9
    h = math.sqrt(lr)
    friction = -math.log(momentum) / h
    flow, word = fo.flows.heavy_ball(friction=friction), "OBA"
    if nesterov:
        flow, word = fo.flows.nesterov(friction=friction, lookahead=h), "BOA"
    module, theirs = small_network(), small_network()
    ours = FlowOptimizer(module.parameters(), flow, fo.Splitting(word), lr=h)
    torch_sgd = torch.optim.SGD(theirs.parameters(), lr, momentum, nesterov=nesterov)
    assert_equal(train(module, ours), train(theirs, torch_sgd))


@pytest.mark.parametrize(("preset", "settings"), PRESETS)
def test_maximize_climbs_as_torch_does(preset, settings):
    module, theirs = small_network(), small_network()
    ours = preset(module.parameters(), **settings, maximize=True)
    other = getattr(torch.optim, preset.__name__)(theirs.parameters(), **settings, maximize=True)
    assert_equal(train(module, ours, steps=30), train(theirs, other, steps=30))


@pytest.mark.parametrize(("preset", "settings"), PRESETS)
def test_the_learning_rate_may_be_a_tensor(preset, settings):
    module, other = small_network(), small_network()
    tensor = torch.tensor(settings["lr"], dtype=torch.float64)
    ours = preset(module.parameters(), **{**settings, "lr": tensor})
    plain = preset(other.parameters(), **settings)
    assert_identical(train(module, ours, steps=20), train(other, plain, steps=20))


@pytest.mark.parametrize(("preset", "settings"), PRESETS)
def test_groups_have_settings_of_their_own(preset, settings):
    module, theirs = small_network(), small_network()
    ours = preset(two_groups(module, settings["lr"] / 3), **settings)
    other = getattr(torch.optim, preset.__name__)(
        two_groups(theirs, settings["lr"] / 3), **settings
    )
    assert_equal(train(module, ours, steps=100), train(theirs, other, steps=100))


def test_a_group_may_have_its_own_flow_hyperparameters():
    module = small_network()
    groups = [
        {"params": module[0].parameters(), "friction": 0.0},
        {"params": module[2].parameters(), "lr": 0.0},
    ]
    optimizer = FlowOptimizer(
        groups, fo.flows.heavy_ball(friction=5.0), fo.Splitting("OBA"), lr=0.1
    )
    frozen = module[2].weight.detach().clone()
    moved = module[0].weight.detach().clone()
    train(module, optimizer, steps=3)
    assert torch.equal(module[2].weight, frozen)
    assert not torch.equal(module[0].weight, moved)


def test_a_group_added_later_moves_from_then_on():
    module, theirs = small_network(), small_network()
    ours = fo.optim.Adam(module[0].parameters(), lr=1e-2)
    other = torch.optim.Adam(theirs[0].parameters(), lr=1e-2)
    train(module, ours, steps=5)
    train(theirs, other, steps=5)
    ours.add_param_group({"params": module[2].parameters()})
    other.add_param_group({"params": theirs[2].parameters()})
    assert_equal(train(module, ours, steps=20, first=5), train(theirs, other, steps=20, first=5))


def test_parameters_may_be_named():
    module = small_network()
    optimizer = fo.optim.Adam(module.named_parameters(), lr=1e-2)
    assert optimizer.param_groups[0]["param_names"] == [n for n, _ in module.named_parameters()]
    plain = small_network()
    expected = train(plain, fo.optim.Adam(plain.parameters(), lr=1e-2), steps=10)
    assert_identical(train(module, optimizer, steps=10), expected)


@pytest.mark.parametrize(("preset", "settings"), PRESETS)
def test_a_frozen_parameter_stays(preset, settings):
    module, theirs = small_network(), small_network()
    for network in (module, theirs):
        network[0].weight.requires_grad_(False)
    ours = preset(module.parameters(), **settings)
    other = getattr(torch.optim, preset.__name__)(theirs.parameters(), **settings)
    assert_equal(train(module, ours, steps=20), train(theirs, other, steps=20))


def test_a_parameter_without_a_gradient_stays_and_keeps_its_momentum():
    module = small_network()
    optimizer = fo.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    train(module, optimizer, steps=2)
    weight = module[0].weight
    before = weight.detach().clone()
    momentum = optimizer.state[weight]["m"].clone()
    optimizer.zero_grad()
    module[2].bias.sum().backward()
    optimizer.step()
    assert torch.equal(weight, before)
    assert torch.equal(optimizer.state[weight]["m"], momentum)


def test_no_gradient_at_all_moves_nothing():
    module = small_network()
    before = flat_parameters(module)
    langevin_optimizer(module).step()
    assert_identical(flat_parameters(module), before)


def test_a_step_leaves_the_gradients_alone():
    module = small_network()
    optimizer = fo.optim.Adam(module.parameters(), maximize=True)
    module(small_data()[0]).sum().backward()
    before = [parameter.grad.clone() for parameter in module.parameters()]
    optimizer.step()
    for parameter, gradient in zip(module.parameters(), before, strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_hooks_run_around_a_step():
    module = small_network()
    optimizer = fo.optim.SGD(module.parameters(), lr=0.1)
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    train(module, optimizer, steps=1)
    assert calls == ["before", "after"]


def test_a_step_of_zero_length_moves_nothing():
    for preset, settings in PRESETS:
        module = small_network()
        before = flat_parameters(module)
        optimizer = preset(module.parameters(), **{**settings, "lr": 0.0})
        for parameter in module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step(closure=None)
        assert_identical(flat_parameters(module), before)


def test_a_word_that_keeps_its_last_gradient_calls_the_closure_once_per_step():
    module, calls = small_network(), []
    optimizer = FlowOptimizer(module.parameters(), langevin(), fo.Splitting("BAOAB"), lr=0.1)
    closure = closure_of(module, optimizer, *small_data())

    def counted():
        calls.append(1)
        return closure()

    for _ in range(10):
        optimizer.step(counted)
    assert len(calls) == 11


def test_a_state_dict_of_torch_is_refused_where_no_rule_is_known():
    module = small_network()
    theirs = torch.optim.Adam(module.parameters()).state_dict()
    with pytest.raises(fo.CompatibilityError, match="presets of their rule"):
        langevin_optimizer(module).load_state_dict(theirs)


@pytest.mark.parametrize("options", [{}, {"foreach": False}, {"compile": True}], ids=str)
def test_parameters_without_a_shape_yet_move_once_they_have_one(options):
    ends = []
    for build in (torch.optim.Adam, lambda p: fo.optim.Adam(p, **options)):
        module = torch.nn.LazyLinear(2)
        optimizer = build(module.parameters())
        torch.manual_seed(0)
        module(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        ends.append(flat_parameters(module))
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize("word", ["BAOA", "BAOAB"])
@pytest.mark.parametrize("compile", [False, True])
def test_the_default_device_is_that_of_closures_and_changes_no_step(word, compile):
    ends = []
    for device in ("cpu", "meta"):
        module = small_network()
        options = {"compile": compile and word == "BAOA"}
        optimizer = FlowOptimizer(
            module.parameters(), langevin(), fo.Splitting(word), lr=0.1, seed=1, **options
        )
        closure, seen = closure_of(module, optimizer, *small_data()), set()

        def noted(closure=closure, seen=seen):
            seen.add(torch.empty(0).device.type)
            return closure()

        try:
            torch.set_default_device(device)
            for _ in range(3):
                optimizer.step(noted)
        finally:
            torch.set_default_device(None)
        assert seen == {device}
        ends.append(flat_parameters(module))
    assert_identical(*ends)


@pytest.mark.parametrize("options", [{}, {"compile": True}], ids=str)
def test_groups_that_are_added_or_taken_away_by_hand_are_followed(options):
    parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    groups = [{"params": [parameter], "lr": 0.1} for parameter in parameters]
    optimizer = fo.optim.Langevin(groups[:2], temperature=0.0, **options)
    optimizer.param_groups.append({**optimizer.param_groups[0], "params": [parameters[2]]})
    del optimizer.param_groups[0]
    optimizer.param_groups.append({**optimizer.param_groups[0], "params": [parameters[0]]})
    for parameter in parameters:
        parameter.grad = torch.ones(2)
    optimizer.step()
    assert parameters[0].tolist() == parameters[1].tolist() == parameters[2].tolist() != [1.0, 1.0]


def test_groups_with_own_equations_are_not_taken_away_by_hand():
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))]} for _ in range(2)]
    optimizer = fo.optim.AdLaLa(groups, driving_noise=0.0)
    del optimizer.param_groups[0]
    with pytest.raises(fo.CompatibilityError, match="has 1 groups, .* equations of 2"):
        optimizer.step()
