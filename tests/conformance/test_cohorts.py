"""Parameters whose gradients come and go count their own steps, as in torch.optim."""

import io

import pytest
import torch
from torch import nn

import flowopt as fo
from flowopt.optim.stepping.cohorts import has_clocks, is_separable
from flowopt.registry import FLOWS
from tests.conformance.test_resume import through_checkpoint
from tests.reference.training import flat_parameters

WAYS = {"lists": {}, "loop": {"foreach": False}, "compiled": {"compile": True}}
KINDS = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9}),
    ("Adam", {}),
    ("AdamW", {"amsgrad": True}),
    ("RMSprop", {"momentum": 0.5, "centered": True}),
    ("Adagrad", {"lr_decay": 0.1}),
]
# Which parameters have a gradient at a step.
SOME = [(1, 0, 0), (1, 1, 0), (0, 1, 1), (1, 1, 1), (1, 0, 1), (1, 1, 1)] * 2
EACH_WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


class Sizes(nn.Module):
    """Three parameters."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.parts = nn.ParameterList(
            torch.randn(size, dtype=torch.float64, generator=generator) for size in (3, 4, 5)
        )


def trained(module, optimizer, first=0, last=None):
    for step in range(len(SOME))[first:last]:
        generator = torch.Generator().manual_seed(step)
        for parameter, moves in zip(module.parameters(), SOME[step], strict=True):
            gradient = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
            parameter.grad = gradient if moves else None
        optimizer.step()
    optimizer.zero_grad()
    return flat_parameters(module)


def built(package, name, parameters, **settings):
    return getattr(package, name)(parameters, lr=0.1, **settings)


def assert_equal(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@EACH_WAY
@pytest.mark.parametrize(("name", "settings"), KINDS)
def test_a_step_without_a_gradient_does_not_count(name, settings, way):
    ours, theirs = Sizes(), Sizes()
    found = trained(ours, built(fo.optim, name, ours.parameters(), **settings, **way))
    expected = trained(theirs, built(torch.optim, name, theirs.parameters(), **settings))
    assert_equal(found, expected)


@EACH_WAY
@pytest.mark.parametrize(("name", "settings"), [kind for kind in KINDS if kind[0] != "SGD"])
def test_a_parameter_that_stands_twice_is_stepped_twice(name, settings, way):
    ends = []
    for package, options in ((fo.optim, way), (torch.optim, {"foreach": False})):
        module = Sizes()
        parameters = [*module.parameters(), module.parts[0]]
        with pytest.warns(UserWarning, match="duplicate parameters"):
            optimizer = built(package, name, parameters, **settings, **options)
        ends.append(trained(module, optimizer))
    assert_equal(*ends)


@pytest.mark.filterwarnings("ignore:.*duplicate parameters")
def test_a_parameter_that_stands_twice_has_no_noise():
    parameter = nn.Parameter(torch.ones(2))
    with pytest.raises(fo.CompatibilityError, match="more than once in a group"):
        fo.optim.Langevin([parameter, parameter])


def through_file(module, optimizer, again, fresh, folder):
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    again.load_state_dict(module.state_dict())
    fresh.load_state_dict(torch.load(file, weights_only=True))


@EACH_WAY
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("passage", [through_file, through_checkpoint])
def test_their_steps_go_on_to_the_last_bit(passage, way, tmp_path):
    whole = Sizes()
    expected = trained(whole, built(fo.optim, "Adam", whole.parameters(), **way))
    module, again = Sizes(), Sizes()
    optimizer, fresh = (built(fo.optim, "Adam", m.parameters(), **way) for m in (module, again))
    trained(module, optimizer, last=5)
    passage(module, optimizer, again, fresh, tmp_path)
    assert torch.equal(trained(again, fresh, first=5), expected)
    # What was saved goes on too.
    assert torch.equal(trained(module, optimizer, first=5), expected)


@EACH_WAY
def test_numbers_of_older_state_dicts_are_those_of_all_parameters(way):
    module = Sizes()
    optimizer = built(fo.optim, "Adam", module.parameters(), **way)
    trained(module, optimizer, first=3, last=4)
    older = optimizer.state_dict()
    group = {**older["param_groups"][0], **older["state"][0]["clock"]}
    state = {i: {"m": kept["m"], "v": kept["v"]} for i, kept in older["state"].items()}
    again = Sizes()
    again.load_state_dict(module.state_dict())
    fresh = built(fo.optim, "Adam", again.parameters(), **way)
    fresh.load_state_dict({"state": state, "param_groups": [group]})
    assert torch.equal(trained(again, fresh, first=4), trained(module, optimizer, first=4))


@pytest.mark.parametrize("package", [fo.optim, torch.optim])
def test_under_a_control_clocks_that_are_loaded_are_those_of_the_group(package):
    module, again = Sizes(), Sizes()
    optimizer = built(package, "Adam", module.parameters())
    trained(module, optimizer, last=6)
    controlled = fo.optim.Adam(again.parameters(), control=fo.control.ExpectedSlope())
    controlled.load_state_dict(optimizer.state_dict())
    group = controlled.param_groups[0]
    # The first parameter has taken five of six steps.
    assert group["step"] == 5
    assert group["u_m"] == pytest.approx(1 - 0.9**5)
    assert group["u_v"] == pytest.approx(1 - 0.999**5)
    trained(again, controlled, first=6)
    assert group["step"] == 11


@EACH_WAY
def test_a_parameter_whose_state_is_cleared_begins_anew(way):
    ends = []
    for package, options in ((fo.optim, way), (torch.optim, {})):
        module = Sizes()
        optimizer = built(package, "Adam", module.parameters(), **options)
        trained(module, optimizer, last=6)
        optimizer.state.pop(module.parts[1])
        ends.append(trained(module, optimizer, first=6))
    assert_equal(*ends)


@EACH_WAY
def test_a_parameter_that_goes_to_another_group_takes_its_steps_along(way):
    ends = []
    for package, options in ((fo.optim, way), (torch.optim, {})):
        module = Sizes()
        optimizer = built(package, "Adam", module.parameters(), **options)
        # In step 3 all have a gradient.
        trained(module, optimizer, first=3, last=4)
        moved = optimizer.param_groups[0]["params"].pop()
        trained(module, optimizer, first=3, last=4)
        optimizer.add_param_group({"params": [moved], "lr": 0.2})
        ends.append(trained(module, optimizer, first=3))
    assert_equal(*ends)


def test_only_what_depends_on_time_and_sums_nothing_has_clocks():
    flows = {name: entry.build().equations for name, entry in FLOWS.items()}
    assert has_clocks(flows["adam"])
    assert is_separable(flows["langevin"]) and not has_clocks(flows["langevin"])
    assert not is_separable(flows["adaptive_langevin"])


@pytest.mark.parametrize(("write", "load"), [("SGD", "Adam"), ("Adam", "SGD"), ("RMSprop", "Adam")])
def test_a_state_dict_of_another_rule_of_ours_is_refused_and_nothing_changes(write, load):
    module, again = Sizes(), Sizes()
    other, optimizer = (
        built(fo.optim, name, m.parameters()) for name, m in ((write, module), (load, again))
    )
    trained(module, other, last=4)
    trained(again, optimizer, last=4)
    before = str(optimizer.state_dict())
    with pytest.raises(fo.CompatibilityError, match="load it into an optimizer of the rule"):
        optimizer.load_state_dict(other.state_dict())
    assert str(optimizer.state_dict()) == before
