"""Groups with their own equation: each as alone, all as under integrate."""

import copy
import io
import pickle
import tempfile
import warnings

import pytest
import torch
from torch import nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.nn.functional import cross_entropy

import flowopt as fo
from flowopt.optim import LOL, AdaptiveLangevin, AdLaLa, FlowOptimizer, Langevin
from tests.reference.optimizers import assert_identical
from tests.reference.training import (
    closure_of,
    flat_parameters,
    flat_position,
    small_data,
    small_network,
    train,
)

INFINITE = float("inf")
THERMOSTAT = fo.flows.adaptive_langevin(temperature=1e-3, driving_noise=0.03)
LANGEVIN = fo.flows.langevin(friction=0.3, temperature=1e-3)
REDRAWN = fo.flows.langevin(friction=INFINITE, temperature=1e-3)
BALL = fo.flows.heavy_ball(friction=0.7)


def groups_of(module, first=None, rest=None):
    first, rest = first or {}, rest or {}
    return [{"params": module[0].parameters(), **first}, {"params": module[2].parameters(), **rest}]


def separable(module):
    """Each layer has a loss of its own."""
    layers = enumerate((module[0], module[2]))
    return sum(
        ((p - k) ** 4).mean() + torch.cos(p).sum() for k, m in layers for p in m.parameters()
    )


def stepped(module, optimizer, chosen, *, closure, steps=10):
    """A training loop in which only the chosen layers have gradients."""

    def evaluate():
        optimizer.zero_grad()
        loss = separable(module)
        loss.backward()
        for place in {0, 2} - {*chosen}:
            for parameter in module[place].parameters():
                parameter.grad = None
        return loss

    for _ in range(steps):
        if closure:
            optimizer.step(evaluate)
        else:
            evaluate()
            optimizer.step()
    return flat_parameters(module)


WORDS = [("BAOA", False, False), ("BAOA", False, True), ("BAOAB", True, False)]


@pytest.mark.parametrize(("word", "closure", "compile"), WORDS)
def test_two_blocks_under_one_word_move_as_each_alone(word, closure, compile):
    scheme = fo.Splitting(word)
    module = small_network()
    groups = groups_of(module, {"flow": BALL, "lr": 0.1})
    optimizer = FlowOptimizer(groups, REDRAWN, scheme, lr=0.2, seed=1, compile=compile)
    together = stepped(module, optimizer, (0, 2), closure=closure)
    for place, flow, lr in ((0, BALL, 0.1), (2, REDRAWN, 0.2)):
        other = small_network()
        alone = FlowOptimizer(other.parameters(), flow, scheme, lr=lr, seed=1, compile=compile)
        own = stepped(other, alone, (place,), closure=closure)
        moved = own != flat_parameters(small_network())
        assert moved.any()
        assert_identical(together[moved], own[moved])


@pytest.mark.parametrize("word", ["BAOA", "AOAB", "BAOAB"])
@pytest.mark.parametrize("lr", [0.2, 0.1])
def test_groups_move_as_blocks_under_integrate(word, lr):
    module, (inputs, targets) = small_network(), small_data()
    letters = {"O": "CDEDC"}
    groups = groups_of(module, {"flow": THERMOSTAT, "letters": letters, "lr": lr})
    optimizer = FlowOptimizer(groups, LANGEVIN, fo.Splitting(word), lr=0.2, seed=0, foreach=False)
    for _ in range(10):
        optimizer.step(closure_of(module, optimizer, inputs, targets))
    problem = fo.problems.network(small_network(), cross_entropy, (inputs, targets))
    flow = fo.PartitionedFlow(
        fo.Partition(problem, {"first": "0.*", "rest": ...}),
        {"first": THERMOSTAT, "rest": LANGEVIN},
        letters={"first": letters},
        pace={"first": lr / 0.2},
    )
    solution = fo.integrate(
        flow, fo.Splitting(word), problem, problem.start(), step_size=0.2, steps=10
    )
    assert_identical(flat_parameters(module), flat_position(solution.position))
    assert optimizer.param_groups[0]["xi"] == solution.state.scalars["first.xi"].item()


def adlala(module):
    return AdLaLa(groups_of(module, {"driving_noise": 0.02}), temperature=1e-3, seed=5)


def joint(module):
    groups = groups_of(module, {"flow": THERMOSTAT, "letters": {"O": "E(CD)E"}}, {"lr": 0.1})
    return FlowOptimizer(groups, LANGEVIN, fo.Splitting("BAOAB"), lr=0.2, seed=5)


def moved(module, optimizer, steps):
    inputs, targets = small_data()
    for _ in range(steps):
        optimizer.step(closure_of(module, optimizer, inputs, targets))
    return flat_parameters(module)


def reloaded(optimizer, module, make):
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    fresh = make(module)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return module, fresh


def copied(optimizer, module, make):
    return copy.deepcopy((module, optimizer))


def pickled(optimizer, module, make):
    return pickle.loads(pickle.dumps((module, optimizer)))


def checkpointed(optimizer, module, make):
    """Through torch's distributed checkpoint, which steps a new optimizer with lr = 0."""
    other = small_network()
    fresh = make(other)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # One process and no group of them, of which torch warns.
        warnings.simplefilter("ignore")
        names = ("model", "optimizer")
        saved = dict(zip(names, get_state_dict(module, optimizer), strict=True))
        checkpoint.save(saved, checkpoint_id=folder)
        states = dict(zip(names, get_state_dict(other, fresh), strict=True))
        checkpoint.load(states, checkpoint_id=folder)
        model, optim = (states[name] for name in names)
        set_state_dict(other, fresh, model_state_dict=model, optim_state_dict=optim)
    return other, fresh


@pytest.mark.parametrize(
    ("make", "passage"),
    [
        *((make, passage) for make in (adlala, joint) for passage in (reloaded, copied, pickled)),
        (adlala, checkpointed),
    ],
)
def test_a_restored_optimizer_of_blocks_continues_identically(make, passage):
    whole = small_network()
    expected = moved(whole, make(whole), 12)
    module = small_network()
    optimizer = make(module)
    moved(module, optimizer, 7)
    again = small_network()
    again.load_state_dict(module.state_dict())
    # What is loaded finds the parameters where they were; a copy brings its own.
    source = again if passage is reloaded else module
    assert_identical(moved(*passage(optimizer, source, make), 5), expected)


def test_groups_hold_what_their_own_flow_has():
    optimizer = adlala(small_network())
    first, rest = optimizer.param_groups
    assert first["driving_noise"] == 0.02
    assert first["temperature"] == rest["temperature"] == 1e-3
    assert "friction" not in first
    assert "coupling" not in rest
    assert not {"flow", "letters"} & {*first}


def test_a_group_of_the_user_stays_as_it_is():
    group = {"params": list(small_network().parameters()), "flow": BALL}
    FlowOptimizer([group], LANGEVIN, fo.Splitting("BAOA"))
    assert group.keys() == {"params", "flow"}


def test_hyperparameters_of_blocks_are_read_at_every_step():
    module, other = small_network(), small_network()
    optimizer = FlowOptimizer(groups_of(module, {"flow": BALL}), LANGEVIN, fo.Splitting("BAOA"))
    still = FlowOptimizer(groups_of(other, {"flow": BALL}), LANGEVIN, fo.Splitting("BAOA"))
    for seed in (optimizer, still):
        for group in seed.param_groups:
            group["seed"], group["lr"] = 0, 0.1
    optimizer.param_groups[0]["friction"] = 5.0
    changed, same = train(module, optimizer, steps=3), train(other, still, steps=3)
    size = sum(p.numel() for p in module[0].parameters())
    assert not torch.equal(changed[:size], same[:size])


def test_each_group_has_its_own_clock_where_gradients_are_joint():
    flow = fo.flows.accelerated_gradient()
    module = small_network()
    groups = groups_of(module, {"lr": 0.1}, {"lr": 0.3})
    optimizer = FlowOptimizer(groups, flow, fo.Splitting("ABOBA"), seed=0)
    stepped(module, optimizer, (0, 2), closure=True, steps=4)
    optimizer.param_groups[0]["lr"] = 0.05
    found = stepped(module, optimizer, (0, 2), closure=True, steps=4)
    other = small_network()
    alone = FlowOptimizer(other.parameters(), flow, fo.Splitting("ABOBA"), lr=0.1, seed=0)
    stepped(other, alone, (0,), closure=True, steps=4)
    alone.param_groups[0]["lr"] = 0.05
    own = stepped(other, alone, (0,), closure=True, steps=4)
    size = sum(p.numel() for p in module[0].parameters())
    assert_identical(found[:size], own[:size])
    assert optimizer.param_groups[0]["time"] == pytest.approx(0.6)
    assert optimizer.param_groups[1]["time"] == pytest.approx(2.4)


@pytest.mark.parametrize(
    "make", [lambda m: LOL(groups_of(m), lr=0.0), lambda m: AdLaLa(groups_of(m), lr=0.0)]
)
def test_a_step_of_length_zero_moves_nothing(make):
    module = small_network()
    assert_identical(train(module, make(module), steps=2), flat_parameters(small_network()))


def test_lol_takes_half_the_step_squared_in_the_last_layer():
    module, h = small_network(), 0.2
    optimizer = LOL(groups_of(module), lr=h, temperature=0.0)
    weight = module[2].weight
    for _ in range(4):
        before = weight.detach().clone()
        closure_of(module, optimizer, *small_data())()
        gradient = weight.grad.clone()
        optimizer.step()
        expected = before - h**2 / 2 * gradient
        torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-16)


def test_langevin_without_temperature_is_sgd_with_momentum():
    module, other = small_network(), small_network()
    h, friction = 0.25, 0.1
    decay = torch.exp(torch.tensor(-h * friction, dtype=torch.float64)).item()
    ours = train(module, Langevin(module.parameters(), temperature=0.0), steps=20)
    theirs = torch.optim.SGD(other.parameters(), lr=h**2 * (1 + decay) / 2, momentum=decay)
    expected = train(other, theirs, steps=20)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-13)


def test_the_thermostat_of_an_optimizer_solves_friction_and_noise_together():
    module, other = small_network(), small_network()
    ours = AdaptiveLangevin(module.parameters(), temperature=1e-3, seed=0, initial_friction=0.0)
    flow = fo.flows.adaptive_langevin(temperature=1e-3)
    scheme = fo.Splitting("BAE(CD)EA")
    theirs = FlowOptimizer(other.parameters(), flow, scheme, lr=0.25, seed=0)
    assert_identical(train(module, ours, steps=10), train(other, theirs, steps=10))


def test_a_thermostat_starts_with_the_friction_that_is_given():
    module = small_network()
    optimizer = AdaptiveLangevin(module.parameters(), initial_friction=0.4, coupling=0.0)
    train(module, copy.deepcopy(optimizer), steps=2)
    train(module, optimizer, steps=2)
    assert optimizer.param_groups[0]["xi"] == 0.4
    optimizer.add_param_group({"params": nn.Linear(1, 1).parameters()})
    assert optimizer.param_groups[1]["xi"] == 0.4


def test_parameters_without_a_gradient_stay_where_gradients_are_joint():
    module = small_network()
    optimizer = joint(module)
    start = flat_parameters(module)
    size = sum(p.numel() for p in module[0].parameters())
    found = stepped(module, optimizer, (2,), closure=True, steps=3)
    assert_identical(found[:size], start[:size])
    assert not torch.equal(found[size:], start[size:])


SCHEME = fo.Splitting("BAOA")
REFUSED = {
    "an unknown letter": ({"flow": BALL, "letters": {"O": "X"}}, SCHEME, "has no \\['X'\\]"),
    "a letter left out": ({"flow": THERMOSTAT}, SCHEME, "leaves out \\['C', 'D', 'E'\\]"),
    "no flow": ({"flow": "langevin"}, SCHEME, "made of equations, got 'langevin'"),
    "no word": ({"letters": {"O": "C"}, "flow": BALL}, fo.Euler(), "those of a word"),
    "nothing to do": (
        {"flow": fo.Flow.from_text("Z: dtheta/dt = -g")},
        SCHEME,
        "mean nothing to flow",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_group_that_does_not_fit_is_refused(case):
    group, scheme, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        FlowOptimizer(groups_of(small_network(), group), BALL, scheme)


def test_the_blocks_of_an_optimizer_are_its_groups():
    module = small_network()
    partition = fo.Partition(module, {"first": "0.*", "rest": ...})
    flow = fo.PartitionedFlow(partition, {"first": BALL, "rest": LANGEVIN})
    with pytest.raises(fo.CompatibilityError, match="blocks are its param_groups"):
        FlowOptimizer(module.parameters(), flow, SCHEME)


def test_a_preset_of_torch_has_one_method():
    with pytest.raises(fo.CompatibilityError, match="Adam is one method for all groups"):
        fo.optim.Adam(groups_of(small_network(), {"flow": BALL}))


@pytest.mark.parametrize("name", ["seed", "maximize"])
def test_what_belongs_to_all_groups_does_not_differ_where_gradients_are_joint(name):
    module = small_network()
    optimizer = FlowOptimizer(
        groups_of(module, {name: True if name == "maximize" else 7}), BALL, fo.Splitting("BAOAB")
    )
    with pytest.raises(fo.CompatibilityError, match=f"give all groups the same {name}"):
        moved(module, optimizer, 1)


def test_joint_gradients_need_a_closure_and_no_kernel():
    module = small_network()
    optimizer = joint(module)
    cross_entropy(module(small_data()[0]), small_data()[1]).backward()
    with pytest.raises(fo.CompatibilityError, match=r"or use Splitting\('BAOA'\)"):
        optimizer.step()
    with pytest.raises(fo.CompatibilityError, match="compile=True"):
        FlowOptimizer(groups_of(module), BALL, fo.Splitting("BAOAB"), compile=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: AdLaLa(m.parameters()), "one equation for the first group"),
        (lambda m: LOL([{"params": m.parameters()}]), "came with one group"),
        (lambda m: AdLaLa(groups_of(m), temperature=1e-6), r"lr·driving_noise² = 2\.5e-05 reaches"),
        (lambda m: AdLaLa(groups_of(m), temperature=0.0), "hotter than the temperature"),
        (lambda m: AdLaLa(groups_of(m), coupling=1e4), "thermostat of 48 elements"),
        (lambda m: AdaptiveLangevin(m.parameters(), coupling=1e4), "lower coupling"),
        (lambda m: Langevin(m.parameters(), friction=-1.0), "Invalid friction value: -1.0"),
        (lambda m: LOL(groups_of(m), lr=-1.0), "Invalid learning rate: -1.0"),
    ],
)
def test_presets_refuse_what_can_not_work(make, message):
    with pytest.raises(fo.ConfigurationError, match=message):
        make(small_network())


def test_the_order_of_groups_with_own_equations_does_not_matter():
    own = {"flow": fo.flows.gradient_flow()}
    ends = []
    for order in (1, -1):
        first, second = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
        groups = [{"params": [first], **own}, {"params": [second]}][::order]
        optimizer = fo.optim.FlowOptimizer(
            groups, fo.flows.heavy_ball(friction=1.0), fo.Splitting("OBA"), lr=0.1
        )
        first.grad = second.grad = torch.ones(2)
        optimizer.step()
        ends.append((first.tolist(), second.tolist()))
    assert ends[0] == ends[1]


def test_letters_that_mean_something_to_no_group_are_named():
    group = {"params": [torch.nn.Parameter(torch.ones(2))], "flow": fo.flows.gradient_flow()}
    with pytest.raises(fo.CompatibilityError, match=r"letters \['B', 'O'\] of .* to no group"):
        fo.optim.FlowOptimizer([group], fo.flows.heavy_ball(friction=1.0), fo.Splitting("OBA"))
