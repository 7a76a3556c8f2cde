"""Methods read from torch optimizers, stepped beside them."""

import pytest
import torch

import flowopt as fo
from tests.conformance.test_torch_optim import CASES, OTHERS
from tests.reference.training import small_network, train

STEPS = 40
PARAMETER = torch.nn.Parameter(torch.ones(3))


@pytest.mark.parametrize("name, settings", CASES, ids=str)
def test_an_optimizer_and_the_method_read_from_it_step_alike(name, settings):
    module, twin = small_network(), small_network()
    optimizer = getattr(torch.optim, name)(module.parameters(), **settings)
    method = fo.classic.from_torch(optimizer)
    flow = fo.optim.FlowOptimizer(
        twin.parameters(), method.flow, method.scheme, lr=method.step_size.item()
    )
    expected, found = (
        train(network, stepper, steps=STEPS)
        for network, stepper in ((module, optimizer), (twin, flow))
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("double_by_default")
@pytest.mark.parametrize(
    ("name", "settings"),
    [*((name, settings) for name, _, settings in OTHERS), ("AdamW", {"lr": 0.01, "amsgrad": True})],
)
def test_an_optimizer_without_a_preset_and_the_method_read_from_it_step_alike(name, settings):
    module, twin = small_network(), small_network()
    optimizer = getattr(torch.optim, name)(module.parameters(), **settings)
    read = fo.classic.from_torch(optimizer)
    lr = read.step_size.item()
    flow = fo.optim.FlowOptimizer(twin.parameters(), read.flow, read.scheme, lr=lr)
    pairs = (module, optimizer), (twin, flow)
    expected, found = (train(network, stepper) for network, stepper in pairs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_settings_are_those_of_this_moment():
    optimizer = torch.optim.SGD([PARAMETER], lr=0.1)
    torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    optimizer.param_groups[0]["lr"] = torch.tensor(0.025)
    assert fo.classic.from_torch(optimizer).step_size.item() == pytest.approx(0.025)


def test_how_torch_steps_does_not_matter():
    optimizer = torch.optim.AdamW([PARAMETER], foreach=True)
    method = fo.classic.from_torch(optimizer)
    assert method.settings == fo.classic.adamw().settings
    assert method.rule is fo.classic.adamw().rule


def test_adam_with_decoupled_decay_is_adamw():
    optimizer = torch.optim.Adam([PARAMETER], weight_decay=0.1, decoupled_weight_decay=True)
    assert fo.classic.from_torch(optimizer).name == "adamw"


def test_groups_are_read_one_by_one_where_they_differ():
    groups = [
        {"params": [torch.nn.Parameter(torch.ones(1))], "weight_decay": decay}
        for decay in (0.0, 0.2)
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    with pytest.raises(fo.CompatibilityError, match=r"differ in \['weight_decay'\].*optim.SGD"):
        fo.classic.from_torch(optimizer)
    decays = [fo.classic.from_torch(optimizer, group=i).settings["weight_decay"] for i in (0, 1)]
    assert decays == [0.0, 0.2]
    with pytest.raises(fo.CompatibilityError, match="groups 0 to 1"):
        fo.classic.from_torch(optimizer, group=2)


def test_groups_that_agree_are_one_method():
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))]} for _ in range(2)]
    assert fo.classic.from_torch(torch.optim.Adagrad(groups, lr=0.3)).step_size.item() == 0.3


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (lambda: torch.optim.SGD([PARAMETER], maximize=True), "maximize=True.*negate the loss"),
        (
            lambda: torch.optim.NAdam([PARAMETER], weight_decay=0.1, decoupled_weight_decay=True),
            "NAdam has decoupled weight decay, which no method",
        ),
        (lambda: torch.optim.RAdam([PARAMETER], maximize=True), "maximize=True.*negate the loss"),
        (lambda: torch.optim.SGD([PARAMETER], differentiable=True), "differentiable=True"),
        (lambda: torch.optim.LBFGS([PARAMETER]), "no equation is known for torch.optim.*LBFGS"),
        (lambda: fo.optim.SGD([PARAMETER]), "no equation is known for flowopt.*SGD"),
    ],
)
def test_what_has_no_place_in_a_method_is_refused(optimizer, message):
    with pytest.raises(fo.CompatibilityError, match=message):
        fo.classic.from_torch(optimizer())


def test_an_option_that_nobody_knows_is_refused():
    optimizer = torch.optim.SGD([PARAMETER], lr=0.1)
    optimizer.param_groups[0]["warmth"] = 3
    with pytest.raises(fo.CompatibilityError, match=r"the options \['warmth'\]"):
        fo.classic.from_torch(optimizer)
