"""Energy-controlled optimizers: torch's own where nothing is rejected, and falling energies."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

import flowopt as fo
from tests.reference.training import flat_parameters, small_data, small_network

INPUTS, TARGETS = small_data()


def train(optimizer, module, steps):
    losses = []
    for _ in range(steps):
        losses.append(float(optimizer.step(loss=lambda: cross_entropy(module(INPUTS), TARGETS))))
    return losses


def torch_steps(optimizer, module, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(module(INPUTS), TARGETS).backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            lambda p: fo.optim.EnergyGD(p, lr=0.01, growth=1.0),
            lambda p: torch.optim.SGD(p, lr=0.01),
        ),
        (
            lambda p: fo.optim.EnergyMomentum(p, lr=0.02, growth=1.0, dissipation=0.0),
            lambda p: torch.optim.SGD(p, lr=0.002, momentum=0.9),
        ),
        (
            lambda p: fo.optim.EnergyAdam(p, lr=1e-4, growth=1.0, start=1.0, dissipation=0.0),
            lambda p: torch.optim.Adam(p, lr=1e-4),
        ),
    ],
    ids=["gradient descent", "momentum", "adam"],
)
def test_where_every_step_is_accepted_it_is_the_optimizer_of_torch(ours, theirs):
    module, twin = small_network(), small_network()
    optimizer = ours(module.parameters())
    train(optimizer, module, 30)
    torch_steps(theirs(twin.parameters()), twin, 30)
    assert optimizer.counts["rejected"] == 0
    torch.testing.assert_close(flat_parameters(module), flat_parameters(twin), rtol=0, atol=1e-13)


@pytest.mark.parametrize("build", [fo.optim.EnergyGD, fo.optim.EnergyMomentum, fo.optim.EnergyAdam])
def test_from_any_first_step_the_loss_ends_below_its_start(build):
    for lr in (1e-3, 1.0, 100.0):
        module = small_network()
        losses = train(build(module.parameters(), lr=lr, growth=2.0), module, 40)
        assert losses[-1] < losses[0]


def test_the_loss_falls_at_every_step_of_controlled_descent():
    module = small_network()
    optimizer = fo.optim.EnergyGD(module.parameters(), lr=50.0, growth=4.0)
    losses = torch.tensor(train(optimizer, module, 30))
    assert (losses.diff() < 0).all()
    assert optimizer.counts["rejected"] > 10


def test_a_copy_of_one_goes_on_identically():
    module = small_network()
    optimizer = fo.optim.EnergyAdam(module.parameters(), lr=0.1)
    train(optimizer, module, 5)
    other_module, other = copy.deepcopy((module, optimizer))
    train(optimizer, module, 5)
    train(other, other_module, 5)
    assert torch.equal(flat_parameters(module), flat_parameters(other_module))


def test_expected_slopes_steer_torchs_own_adam_with_betas_that_stay():
    module, twin = small_network(), small_network()
    control = fo.ExpectedSlope(first_step=0.01, start=1.0, rule="cos")
    ours = fo.optim.Adam(module.parameters(), control=control)
    theirs = torch.optim.Adam(twin.parameters())
    for _ in range(20):
        torch_steps(ours, module, 1)
        theirs.param_groups[0]["lr"] = ours.param_groups[0]["lr"]
        torch_steps(theirs, twin, 1)
    assert ours.param_groups[0]["lr"] != 0.01
    torch.testing.assert_close(flat_parameters(module), flat_parameters(twin), rtol=0, atol=1e-12)


@pytest.mark.parametrize("build", [fo.optim.EnergyGD, fo.optim.EnergyMomentum, fo.optim.EnergyAdam])
def test_a_closure_may_return_a_loss_of_one_element(build):
    ends = []
    for shape in ((), (1,)):
        module = small_network()
        optimizer = build(module.parameters())

        def closure(module=module, optimizer=optimizer, shape=shape):
            optimizer.zero_grad()
            loss = cross_entropy(module(INPUTS), TARGETS).reshape(shape)
            loss.backward()
            return loss

        for _ in range(5):
            optimizer.step(closure)
        ends.append(flat_parameters(module))
    assert torch.equal(*ends)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda p: fo.optim.EnergyMomentum(p, momentum=1.0), fo.ConfigurationError, "between 0"),
        (lambda p: fo.optim.EnergyAdam(p, start=0.0), fo.ConfigurationError, "start lies in"),
        (lambda p: fo.optim.EnergyAdam(p, lr=0.0), fo.ConfigurationError, "Invalid learning rate"),
        (lambda p: fo.optim.EnergyAdam(p, betas=(0.9, 2)), fo.ConfigurationError, "index 1"),
        (lambda p: fo.optim.EnergyGD(p, lr=torch.ones(2)), fo.ConfigurationError, "1-element"),
        (lambda p: fo.optim.EnergyAdam(p, lr=torch.ones(2)), fo.ConfigurationError, "1-element"),
        (
            lambda p: fo.optim.Adam(p, control=fo.LyapunovControl()),
            fo.CompatibilityError,
            "EnergyAdam",
        ),
        (
            lambda p: fo.optim.Adam(p, lr=0.1, control=fo.ExpectedSlope()),
            fo.CompatibilityError,
            "leave lr out",
        ),
    ],
)
def test_wrong_settings_are_refused(build, error, message):
    with pytest.raises(error, match=message):
        build(small_network().parameters())


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("name", ["EnergyGD", "EnergyMomentum", "EnergyAdam"])
def test_a_rate_may_be_a_tensor_of_one_number(name, shape):
    ends = []
    for lr in (0.1, torch.full(shape, 0.1, dtype=torch.float64)):
        module = small_network()
        train(getattr(fo.optim, name)(module.parameters(), lr=lr), module, 3)
        ends.append(flat_parameters(module))
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-14)


def test_a_method_that_carries_nothing_leaves_no_state():
    module = small_network()
    optimizer = fo.optim.EnergyGD(module.parameters())
    train(optimizer, module, 2)
    assert not optimizer.state
