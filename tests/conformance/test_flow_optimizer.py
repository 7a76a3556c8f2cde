"""FlowOptimizer: the same numbers as integrate, and the manners of a torch optimizer."""

import copy
import io
import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import flowopt as fo
from flowopt.optim import FlowOptimizer
from tests.reference.training import (
    STEPS,
    flat_parameters,
    flat_position,
    small_data,
    small_network,
    small_problem,
    train,
)

STEP_SIZE = 0.2
PRESETS = [
    (fo.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (fo.optim.Adam, {"lr": 1e-2}),
    (fo.optim.AdamW, {"lr": 1e-2}),
    (fo.optim.RMSprop, {"lr": 1e-3, "centered": True, "momentum": 0.9}),
    (fo.optim.Adagrad, {"lr": 1e-2, "lr_decay": 0.1}),
]


def langevin():
    return fo.flows.langevin(friction=1.0, temperature=1e-3)


def langevin_optimizer(module, seed=3):
    return FlowOptimizer(
        module.parameters(), langevin(), fo.Splitting("BAOA"), lr=STEP_SIZE, seed=seed
    )


def assert_identical(found, expected):
    assert torch.equal(found, expected)


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
    optimizer = FlowOptimizer(module.parameters(), flow, fo.Splitting(word), lr=1e-3, seed=0)
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


def closure_of(module, optimizer, inputs, targets):
    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(module(inputs), targets)
        loss.backward()
        return loss

    return closure


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


def two_groups(module, lr):
    first, last = module[0].parameters(), module[2].parameters()
    return [{"params": first, "lr": lr}, {"params": last, "weight_decay": 0.1}]


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


def through_state_dict(optimizer, module):
    fresh = rebuilt(optimizer, module)
    fresh.load_state_dict(optimizer.state_dict())
    return fresh


def through_file(optimizer, module):
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    fresh = rebuilt(optimizer, module)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


def rebuilt(optimizer, module):
    """A new optimizer of the same kind, as a program that starts again makes it."""
    if isinstance(optimizer, fo.optim.presets.Preset):
        settings = dict(PRESETS)[type(optimizer)]
        return type(optimizer)(module.parameters(), **settings)
    return langevin_optimizer(module)


KINDS = [
    *(pytest.param(lambda m, p=p, s=s: p(m.parameters(), **s), id=p.__name__) for p, s in PRESETS),
    pytest.param(langevin_optimizer, id="langevin with noise"),
]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("passage", [through_state_dict, through_file])
def test_a_restored_optimizer_continues_identically(make, passage):
    whole = small_network()
    expected = train(whole, make(whole), steps=20)
    module = small_network()
    optimizer = make(module)
    train(module, optimizer, steps=11)
    resumed = small_network()
    resumed.load_state_dict(module.state_dict())
    assert_identical(train(resumed, passage(optimizer, resumed), steps=9, first=11), expected)


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))],
    ids=["deepcopy", "pickle"],
)
def test_a_copy_continues_identically(make, duplicate):
    whole = small_network()
    expected = train(whole, make(whole), steps=20)
    module = small_network()
    optimizer = make(module)
    train(module, optimizer, steps=11)
    # Parameters and optimizer travel together, as in a checkpoint of both.
    copied_module, copied_optimizer = duplicate((module, optimizer))
    assert_identical(train(copied_module, copied_optimizer, steps=9, first=11), expected)


def test_noise_continues_where_it_was_with_a_word_that_keeps_a_gradient():
    inputs, targets = small_data()

    def run(module, optimizer, steps):
        for _ in range(steps):
            optimizer.step(closure_of(module, optimizer, inputs, targets))
        return flat_parameters(module)

    def make(module):
        return FlowOptimizer(module.parameters(), langevin(), fo.Splitting("BAOAB"), lr=0.2, seed=7)

    whole = small_network()
    expected = run(whole, make(whole), 10)
    module = small_network()
    optimizer = make(module)
    run(module, optimizer, 6)
    resumed = small_network()
    resumed.load_state_dict(module.state_dict())
    again = make(resumed)
    again.load_state_dict(optimizer.state_dict())
    assert_identical(run(resumed, again, 4), expected)


def test_the_state_of_a_parameter_holds_only_tensors_of_its_shape():
    module = small_network()
    optimizer = fo.optim.Adam(module.parameters())
    train(module, optimizer, steps=2)
    for parameter, kept in optimizer.state.items():
        assert {name: tuple(value.shape) for name, value in kept.items()} == dict.fromkeys(
            ("m", "v"), tuple(parameter.shape)
        )


def test_without_a_seed_the_noise_is_that_of_torch():
    ends = []
    for seed in (None, 1234):
        torch.manual_seed(1234)
        module = small_network()
        torch.manual_seed(1234)
        ends.append(train(module, langevin_optimizer(module, seed), steps=3))
    assert_identical(*ends)


def test_a_restored_optimizer_has_the_seed_of_the_one_that_was_saved():
    def optimizer(module, seed):
        torch.manual_seed(seed)
        return langevin_optimizer(module, seed=None)

    module = small_network()
    saved = optimizer(module, 11)
    train(module, saved, steps=3)
    resumed = small_network()
    again = optimizer(resumed, 22)
    resumed.load_state_dict(module.state_dict())
    again.load_state_dict(saved.state_dict())
    assert_identical(
        train(resumed, again, steps=3, first=3), train(module, saved, steps=3, first=3)
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


def test_an_unknown_argument_is_refused():
    with pytest.raises(TypeError, match="learning_rate"):
        fo.optim.Adam(small_network().parameters(), learning_rate=1e-3)


@pytest.mark.parametrize("option", ["foreach"])
def test_what_this_version_lacks_is_refused(option):
    with pytest.raises(fo.CompatibilityError, match=f"{option}=True"):
        fo.optim.Adam(small_network().parameters(), **{option: True})


def test_a_sparse_gradient_is_refused():
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(fo.CompatibilityError, match="sparse gradients are not supported"):
        fo.optim.SGD(table.parameters(), lr=0.1).step()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64])
def test_a_parameter_that_is_not_real_and_floating_is_refused(dtype):
    parameter = nn.Parameter(torch.zeros(2, dtype=dtype), requires_grad=dtype.is_complex)
    with pytest.raises(fo.CompatibilityError, match="only real floating parameters move"):
        fo.optim.SGD([parameter])


def test_several_groups_need_a_word_without_gradients_inside():
    with pytest.raises(fo.CompatibilityError, match="in one group"):
        FlowOptimizer(two_groups(small_network(), 0.1), langevin(), fo.Splitting("BAOAB"))


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


LATE = 280
SCHEDULERS = {
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, STEPS),
    "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(
        o, 2e-3, total_steps=STEPS + 1, cycle_momentum=False
    ),
    "cyclic": lambda o: torch.optim.lr_scheduler.CyclicLR(
        o, 1e-4, 2e-3, step_size_up=20, cycle_momentum=False
    ),
    "restarts": lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 50),
    "exponential": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.99),
    "one after another": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o,
        [
            torch.optim.lr_scheduler.LinearLR(o, 0.01, total_iters=STEPS - LATE),
            torch.optim.lr_scheduler.PolynomialLR(o, LATE),
        ],
        [STEPS - LATE],
    ),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize(("preset", "settings"), PRESETS)
def test_a_scheduler_of_torch_drives_a_preset_as_it_drives_torch(preset, settings, scheduler):
    inputs, targets = small_data()
    ends = []
    for optimizers in (fo.optim, torch.optim):
        module = small_network()
        optimizer = getattr(optimizers, preset.__name__)(module.parameters(), **settings)
        schedule = SCHEDULERS[scheduler](optimizer)
        for _ in range(100):
            closure_of(module, optimizer, inputs, targets)()
            optimizer.step()
            schedule.step()
        ends.append(flat_parameters(module))
    assert_equal(*ends)


def test_a_plateau_lowers_the_learning_rate():
    module = small_network()
    optimizer = fo.optim.SGD(module.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    for _ in range(3):
        scheduler.step(1.0)
    assert optimizer.param_groups[0]["lr"] < 0.1
    train(module, optimizer, steps=1)


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


def test_a_state_dict_of_torch_is_refused_with_a_reason():
    module = small_network()
    theirs = torch.optim.Adam(module.parameters()).state_dict()
    with pytest.raises(fo.CompatibilityError, match="not one of flowopt's"):
        fo.optim.Adam(module.parameters()).load_state_dict(theirs)
