"""The presets as entries of torch's own database of optimizers: its inputs, its contract."""

import copy
import inspect
import io
import re

import pytest
import torch
from torch import nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optim_db

import flowopt as fo
from tests.reference.optimizers import kept_tensors

NAMES = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad")
ENTRIES = {entry.optim_cls.__name__: entry for entry in optim_db}
# Both ways to step; a kernel and eager torch are one optimizer to its user.
WAYS = {"eager": {}, "compiled": {"compile": True}}
CASES = [
    pytest.param(name, number, way, id=f"{name} {item.desc or 'default'}, {way}")
    for name in NAMES
    for number, item in enumerate(ENTRIES[name].optim_inputs_func(device="cpu"))
    for way in WAYS
]
EACH = pytest.mark.parametrize(("name", "number", "way"), CASES)
# torch refuses these; here a learning rate or a beta may be a tensor with foreach too, and a
# decay factor of RMSprop is checked in the same words.
NOT_REFUSED_HERE = re.compile("as a Tensor is not supported for capturable=False and foreach=True")


def settings_of(name, number):
    """New at every call: learning rates that are tensors are changed by schedulers."""
    return copy.deepcopy(ENTRIES[name].optim_inputs_func(device="cpu")[number].kwargs)


def built(parameters, name, number, way, **changes):
    settings = {**settings_of(name, number), **WAYS[way], **changes}
    return getattr(fo.optim, name)(parameters, **settings)


def weight_and_bias(contiguous=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(10, 5), (10,)] if contiguous else [(10, 5, 2), (10, 2)]
    tensors = [torch.randn(shape, generator=generator) for shape in shapes]
    return [nn.Parameter(t if contiguous else t[..., 0]) for t in tensors]


def closure_of(optimizer, weight, bias):
    inputs = torch.linspace(-1, 1, 5)

    def closure():
        optimizer.zero_grad()
        loss = (weight.mv(inputs) + bias).square().sum()
        loss.backward()
        return loss

    return closure


def moved(parameters):
    return torch.cat(
        [torch.view_as_real(p).flatten() if p.is_complex() else p.flatten() for p in parameters]
    ).detach()


@pytest.mark.parametrize("name", NAMES)
def test_what_torch_refuses_is_refused_in_its_words(name):
    refused = 0
    for error in ENTRIES[name].optim_error_inputs_func(device="cpu", dtype=torch.float32):
        if NOT_REFUSED_HERE.search(error.error_regex.replace("\\", "")):
            continue
        assert error.error_on == OptimizerErrorEnum.CONSTRUCTION_ERROR
        item = error.optimizer_error_input
        warns = issubclass(error.error_type, Warning)
        expectation = pytest.warns if warns else pytest.raises
        with expectation(error.error_type, match=error.error_regex):
            getattr(fo.optim, name)(item.params, **item.kwargs)
        refused += 1
    assert refused >= 7


@EACH
@pytest.mark.parametrize("schedule", range(3), ids=["constant", "first schedule", "second"])
def test_the_loss_goes_where_it_should_and_as_with_torch(name, number, way, schedule):
    ends = []
    for build in (built, lambda p, *a: getattr(torch.optim, name)(p, **settings_of(name, number))):
        parameters = weight_and_bias(contiguous=schedule != 1)
        optimizer = build(parameters, name, number, way)
        kinds = ENTRIES[name].scheduler_inputs
        chosen = kinds[(schedule - 1) % len(kinds)] if schedule else []
        schedulers = [kind(optimizer) for kind in chosen]
        closure = closure_of(optimizer, *parameters)
        first = closure().item()
        for _ in range(20):
            loss = optimizer.step(closure)
            for scheduler in schedulers:
                plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
                scheduler.step(loss.item()) if plateau else scheduler.step()
        climbs = settings_of(name, number).get("maximize", False)
        assert (closure().item() > first) == climbs
        ends.append(moved(parameters))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-5, atol=1e-6)


@EACH
def test_a_learning_rate_may_be_a_tensor(name, number, way):
    ends = []
    for lr in (1e-3, torch.tensor(1e-3), torch.tensor([1e-3])):
        parameters = weight_and_bias()
        optimizer = built(parameters, name, number, way, lr=lr)
        for _ in range(5):
            optimizer.step(closure_of(optimizer, *parameters))
        ends.append(moved(parameters))
    torch.testing.assert_close(ends[1], ends[0])
    assert torch.equal(ends[1], ends[2])


@EACH
def test_a_complex_parameter_steps_as_its_two_parts(name, number, way):
    generator = torch.Generator().manual_seed(1)
    complexes = [torch.randn(4, 3, dtype=torch.complex64, generator=generator), torch.randn(5)]
    reals = [torch.view_as_real(complexes[0]).clone(), complexes[1].clone()]
    pair = [built(parameters, name, number, way) for parameters in (complexes, reals)]
    for _ in range(3):
        for one, two in zip(complexes, reals, strict=True):
            two.grad = torch.randn(two.shape, generator=generator)
            one.grad = torch.view_as_complex(two.grad.clone()) if one.is_complex() else two.grad
        for optimizer in pair:
            optimizer.step()
    assert torch.equal(moved(complexes), moved(reals))
    kept = pair[0].state[complexes[0]].values()
    assert {own.dtype for own in kept if isinstance(own, torch.Tensor)} <= {torch.complex64}


@EACH
def test_groups_have_their_own_settings(name, number, way):
    weight, bias = weight_and_bias()
    idle = nn.Parameter(torch.ones(2))
    own = {"lr": 1e-3, **settings_of(name, number)}
    groups = [{"params": [weight], **own}, {"params": [bias], **own, "weight_decay": 0.0}]
    still = [{"params": [idle]}]
    optimizer = getattr(fo.optim, name)(groups + still, lr=1e-28, **WAYS[way])
    closure = closure_of(optimizer, weight, bias)
    first = closure().item()
    for _ in range(20):
        closure()
        idle.grad = torch.ones(2)
        optimizer.step()
    assert (closure().item() > first) == own.get("maximize", False)
    assert torch.equal(idle, torch.ones(2))


@EACH
def test_without_gradients_or_with_zeros_nothing_moves(name, number, way):
    parameters = weight_and_bias()
    before = moved(parameters)
    optimizer = built(parameters, name, number, way, weight_decay=0.0)
    optimizer.step()
    assert torch.equal(moved(parameters), before)
    assert not optimizer.state
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(lambda: torch.tensor([1.0]))
    assert torch.equal(moved(parameters), before)


@EACH
@pytest.mark.parametrize("named", [True, False], ids=["named", "nameless"])
def test_a_state_dict_continues_where_it_was_taken(name, number, way, named):
    parameters = weight_and_bias()
    given = [(f"name{i}", p) for i, p in enumerate(parameters)] if named else parameters
    optimizer = built(given, name, number, way)
    for _ in range(4):
        optimizer.step(closure_of(optimizer, *parameters))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    twins = [nn.Parameter(p.detach().clone()) for p in parameters]
    twin = built(twins, name, number, way)
    twin.load_state_dict(copy.deepcopy(loaded))
    for _ in range(4):
        optimizer.step(closure_of(optimizer, *parameters))
        twin.step(closure_of(twin, *twins))
    assert torch.equal(moved(twins), moved(parameters))
    assert ("param_names" in twin.state_dict()["param_groups"][0]) == named
    again, expected = twin.state_dict(), optimizer.state_dict()
    assert str(again["param_groups"]) == str(expected["param_groups"])
    for one, two in zip(parameters, twins, strict=True):
        assert optimizer.state[one].get("clock") == twin.state[two].get("clock")
        for name, value in kept_tensors(optimizer, one).items():
            assert torch.equal(twin.state[two][name], value)


@EACH
def test_a_state_dict_without_what_came_later_is_loaded(name, number, way):
    parameters = weight_and_bias()
    optimizer = built(parameters, name, number, way, maximize=False)
    optimizer.step(closure_of(optimizer, *parameters))
    older = copy.deepcopy(optimizer.state_dict())
    for flag in (*ENTRIES[name].not_og_supported_flags, "amsgrad"):
        older["param_groups"][0].pop(flag, None)
    twin = built(parameters, name, number, way, maximize=False)
    twin.load_state_dict(older)
    assert twin.param_groups[0]["maximize"] is False
    twin.step(closure_of(twin, *parameters))


@EACH
def test_state_dicts_pass_to_torch_and_back(name, number, way):
    def ended(first, second):
        parameters, kept = weight_and_bias(), None
        for build, steps in ((first, 5), (second, 4)):
            optimizer = build(parameters)
            if kept is not None:
                optimizer.load_state_dict(kept)
            for _ in range(steps):
                optimizer.step(closure_of(optimizer, *parameters))
            is_ours = isinstance(optimizer, fo.optim.FlowOptimizer)
            kept = optimizer.torch_state_dict() if is_ours else optimizer.state_dict()
        return moved(parameters)

    def ours(parameters):
        return built(parameters, name, number, way)

    def theirs(parameters):
        return getattr(torch.optim, name)(parameters, **settings_of(name, number))

    expected = ended(theirs, theirs)
    torch.testing.assert_close(ended(theirs, ours), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ended(ours, theirs), expected, rtol=1e-5, atol=1e-6)


@EACH
def test_every_hook_is_called_in_order(name, number, way):
    parameters = weight_and_bias()
    optimizer, calls = built(parameters, name, number, way), []
    handles = [
        register_optimizer_step_pre_hook(lambda *_: calls.append("all before")),
        register_optimizer_step_post_hook(lambda *_: calls.append("all after")),
        optimizer.register_step_pre_hook(lambda *_: calls.append("before")),
        optimizer.register_step_post_hook(lambda *_: calls.append("after")),
        optimizer.register_state_dict_pre_hook(lambda o: calls.append("saving")),
        optimizer.register_state_dict_post_hook(lambda o, s: calls.append("saved")),
        optimizer.register_load_state_dict_pre_hook(lambda o, s: calls.append("loading")),
        optimizer.register_load_state_dict_post_hook(lambda o: calls.append("loaded")),
    ]
    optimizer.step(closure_of(optimizer, *parameters))
    assert calls == ["all before", "before", "after", "all after"]
    calls.clear()
    optimizer.load_state_dict(optimizer.state_dict())
    assert calls == ["saving", "saved", "loading", "loaded"]
    for handle in handles:
        handle.remove()
    calls.clear()
    optimizer.step(closure_of(optimizer, *parameters))
    assert calls == []


@EACH
def test_hooks_may_change_what_is_saved_and_loaded(name, number, way):
    parameters = weight_and_bias()
    optimizer = built(parameters, name, number, way)

    def slower(_, state_dict):
        changed = copy.deepcopy(state_dict)
        changed["param_groups"][0]["lr"] = 0.003
        return changed

    optimizer.register_load_state_dict_pre_hook(slower)
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.003
    optimizer.register_state_dict_post_hook(lambda _, s: {**s, "note": 1})
    assert optimizer.state_dict()["note"] == 1


@EACH
def test_a_hook_may_put_into_the_state_what_it_likes(name, number, way):
    optimizer = built(weight_and_bias(), name, number, way)

    def note(loaded):
        loaded.state["note"] = loaded.param_groups[0]["maximize"]

    optimizer.register_load_state_dict_post_hook(note)
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.state["note"] is optimizer.param_groups[0]["maximize"]


@EACH
def test_what_carries_nothing_keeps_nothing_as_with_torch(name, number, way):
    kept = []
    for build in (built, lambda p, *a: getattr(torch.optim, name)(p, **settings_of(name, number))):
        parameters = weight_and_bias()
        optimizer = build(parameters, name, number, way)
        optimizer.step(closure_of(optimizer, *parameters))
        kept.append([parameter in optimizer.state for parameter in parameters])
        assert all(optimizer.state.values())
    assert kept[0] == kept[1]


@EACH
def test_a_deepcopy_has_all_that_is_public_and_prints(name, number, way):
    parameters = weight_and_bias()
    optimizer = built(parameters, name, number, way)
    optimizer.step(closure_of(optimizer, *parameters))
    twin = copy.deepcopy(optimizer)
    public = [{n for n in o.__dict__ if not n.startswith("_")} for o in (optimizer, twin)]
    assert public[0] == public[1]
    assert repr(twin) == repr(optimizer)
    assert name in repr(optimizer)


REMEDIES = {"fused": "compile=True", "capturable": "host", "decoupled_weight_decay": "AdamW"}


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_of_torch_is_taken_or_refused_with_a_remedy(name):
    theirs, ours = (
        inspect.signature(getattr(package, name)).parameters for package in (torch.optim, fo.optim)
    )
    for option, argument in theirs.items():
        if option not in REMEDIES:
            assert ours[option].default == argument.default, option
            continue
        getattr(fo.optim, name)(weight_and_bias(), **{option: False})
        with pytest.raises(fo.CompatibilityError, match=rf"{option}=True: .*{REMEDIES[option]}"):
            getattr(fo.optim, name)(weight_and_bias(), **{option: True})


@EACH
def test_autograd_follows_the_steps_where_asked(name, number, way):
    if way == "compiled":
        with pytest.raises(fo.CompatibilityError, match="leave out compile=True"):
            built(weight_and_bias(), name, number, way, differentiable=True)
        return

    def after(start, gradient, lr):
        # No leaf of autograd.
        parameter = start * 1.0
        optimizer = built([parameter], name, number, way, differentiable=True, lr=lr)
        for factor in (1.0, -0.5, 2.0):
            parameter.grad = factor * gradient
            optimizer.step()
        return parameter, *kept_tensors(optimizer, parameter).values()

    arguments = [
        torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for value in ([0.3, -0.8, 1.7], [1.2, 0.4, -0.9], 0.05)
    ]
    assert torch.autograd.gradcheck(after, arguments)


@pytest.mark.parametrize(
    ("write", "load", "message"),
    [
        ("RMSprop", "Adam", "load it into the optimizer of its rule"),
        ("AdamW", "Adam", "load this state dict into AdamW"),
    ],
)
def test_a_state_dict_of_another_rule_is_refused(write, load, message):
    parameters = weight_and_bias()
    theirs = getattr(torch.optim, write)(parameters)
    theirs.step(closure_of(theirs, *parameters))
    ours = getattr(fo.optim, load)(parameters)
    with pytest.raises(fo.CompatibilityError, match=message):
        ours.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize(
    ("name", "settings"),
    [("Adam", {}), ("Adagrad", {"lr_decay": 0.1}), ("Adagrad", {}), ("RMSprop", {})],
)
def test_parameters_that_began_at_different_steps_pass_to_torch_and_back(name, settings):
    def ended(*packages):
        parameters, kept = weight_and_bias(), None
        for step, package in enumerate(packages):
            optimizer = getattr(package, name)(parameters, lr=0.1, **settings)
            if kept is not None:
                optimizer.load_state_dict(kept)
            closure_of(optimizer, *parameters)()
            if step % 2:
                parameters[1].grad = None
            optimizer.step()
            is_ours = isinstance(optimizer, fo.optim.FlowOptimizer)
            kept = optimizer.torch_state_dict() if is_ours else optimizer.state_dict()
        return moved(parameters)

    ours = ended(torch.optim, torch.optim, fo.optim, fo.optim, torch.optim)
    torch.testing.assert_close(ours, ended(*[torch.optim] * 5))
