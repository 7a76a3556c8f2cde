"""Levenberg–Marquardt as a torch optimizer."""

import copy
import io
import pickle

import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss
from torch.testing import assert_close

import flowopt as fo
from flowopt.optim import LevenbergMarquardt

INPUTS = torch.linspace(-3.0, 3.0, 24, dtype=torch.float64)[:, None]
TARGETS = torch.sinc(INPUTS)


def network():
    torch.manual_seed(3)
    layers = torch.nn.Linear(1, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1)
    return torch.nn.Sequential(*layers).double()


def errors(module):
    """Half of their squares sum to the mean squared error."""
    return lambda: (2 / len(INPUTS)) ** 0.5 * (module(INPUTS) - TARGETS)


def problem_of(module):
    return fo.problems.network(module, mse_loss, (INPUTS, TARGETS))


def flat(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def trained(module, optimizer, steps, residuals=None):
    for _ in range(steps):
        optimizer.step(residuals=residuals or problem_of(module))
    return flat(module)


@pytest.mark.parametrize("rule", [None, fo.control.Nielsen(), fo.control.HaganMenhaj()], ids=repr)
@pytest.mark.parametrize("acceleration", [False, True])
def test_its_steps_are_those_of_integrate(rule, acceleration):
    module = network()
    scheme = fo.LinearlyImplicitEuler(gauss_newton=True, acceleration=acceleration)
    control = None if rule is None else fo.control.Damping(rule, damping=1e-3)
    solution = fo.integrate(
        fo.flows.gradient_flow(),
        scheme,
        problem_of(module),
        problem_of(module).start(),
        step_size=None if control else 1e3,
        control=control,
        steps=8,
    )
    optimizer = LevenbergMarquardt(
        module.parameters(), damping=1e-3, rule=rule, acceleration=acceleration
    )
    trained(module, optimizer, 8)
    expected = torch.cat([leaf.flatten() for leaf in solution.position.values()])
    assert_close(flat(module), expected, rtol=0, atol=1e-10)
    assert optimizer.counts["rejected"] == solution.counts["rejected"].item()


def test_residuals_may_be_called_or_given_as_a_problem():
    ends = []
    for residuals in (errors, problem_of):
        module = network()
        ends.append(trained(module, LevenbergMarquardt(module.parameters()), 5, residuals(module)))
    assert_close(ends[0], ends[1], rtol=0, atol=1e-9)


def test_outputs_with_a_loss_take_generalised_steps():
    targets = (INPUTS[:, 0] > 0).long()
    ends = []
    for called in (True, False):
        torch.manual_seed(0)
        module = torch.nn.Linear(1, 2, dtype=torch.float64)
        optimizer = LevenbergMarquardt(module.parameters(), damping=0.1)
        given = {"residuals": fo.problems.network(module, cross_entropy, (INPUTS, targets))}
        if called:
            given = {
                "residuals": lambda module=module: module(INPUTS),
                "loss": lambda outputs: cross_entropy(outputs, targets),
            }
        losses = [optimizer.step(**given).item() for _ in range(6)]
        assert losses[-1] < 0.2 * losses[0]
        ends.append(flat(module))
    assert_close(ends[0], ends[1], rtol=0, atol=1e-12)


def test_conjugate_gradients_with_enough_iterations_are_the_dense_step():
    ends = []
    for iterations in (None, 40):
        module = network()
        optimizer = LevenbergMarquardt(module.parameters(), iterations=iterations)
        ends.append(trained(module, optimizer, 3))
    assert_close(ends[0], ends[1], rtol=0, atol=1e-8)


def test_a_network_is_fitted_better_than_by_adam_at_far_higher_cost():
    """40 steps against 1000, in forward passes."""
    module = network()
    optimizer = LevenbergMarquardt(module.parameters())
    trained(module, optimizer, 40)
    cost = fo.forward_passes(optimizer.counts)
    adam = network()
    other = torch.optim.Adam(adam.parameters(), lr=1e-2)
    for _ in range(1000):
        other.zero_grad()
        (0.5 * errors(adam)() ** 2).sum().backward()
        other.step()
    ours, theirs = (mse_loss(m(INPUTS), TARGETS).item() for m in (module, adam))
    assert ours < theirs / 10
    assert cost < 3000 / 5


def through_file(optimizer, module):
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    fresh = LevenbergMarquardt(module.parameters())
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return module, fresh


def by_copy(optimizer, module):
    return copy.deepcopy((module, optimizer))


def by_pickle(optimizer, module):
    return pickle.loads(pickle.dumps((module, optimizer)))


@pytest.mark.parametrize("passage", [through_file, by_copy, by_pickle])
def test_a_restored_optimizer_continues_identically(passage):
    whole = network()
    expected = trained(whole, LevenbergMarquardt(whole.parameters(), damping=1e-3), 12)
    module = network()
    optimizer = LevenbergMarquardt(module.parameters(), damping=1e-3)
    trained(module, optimizer, 5)
    assert torch.equal(trained(*passage(optimizer, module), 7), expected)


def test_hooks_are_called_and_gradients_left_alone():
    module, seen = network(), []
    optimizer = LevenbergMarquardt(module.parameters())
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    trained(module, optimizer, 1, errors(module))
    assert seen == ["before", "after"]
    assert all(p.grad is None for p in module.parameters())


def test_what_does_not_train_stays():
    module = network()
    module[0].weight.requires_grad_(False)
    kept = module[0].weight.clone()
    trained(module, LevenbergMarquardt(module.parameters()), 2, errors(module))
    assert torch.equal(module[0].weight, kept)


def test_a_step_whose_trials_all_fail_leaves_the_parameters():
    module = network()
    optimizer = LevenbergMarquardt(module.parameters(), damping=1e-8, trials=1)
    before = flat(module)
    assert torch.equal(trained(module, optimizer, 1), before)
    assert optimizer.param_groups[0]["damping"] == 2e-8
    assert optimizer.counts["rejected"] == 1


def test_residuals_that_raise_leave_the_parameters():
    module, calls = network(), []
    before = flat(module)

    def residuals():
        calls.append(0)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return errors(module)()

    with pytest.raises(KeyboardInterrupt):
        LevenbergMarquardt(module.parameters()).step(residuals=residuals)
    assert torch.equal(flat(module), before)


def test_gradients_of_zero_move_nothing_and_need_no_residuals():
    """As torch's distributed checkpoints step."""
    module = network()
    before = flat(module)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    LevenbergMarquardt(module.parameters()).step(closure=None)
    assert torch.equal(flat(module), before)


def stepped_with(residuals, **settings):
    module = network()
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    LevenbergMarquardt(module.parameters(), **settings).step(residuals=residuals)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda: stepped_with(None), fo.CompatibilityError, "needs residuals, not a loss"),
        (lambda: stepped_with(lambda: INPUTS), fo.errors.DataError, "depends on the parameters"),
        (lambda: stepped_with(problem_of(network())), fo.CompatibilityError, "not those of the"),
        (lambda: LevenbergMarquardt([INPUTS], damping=0.0), ValueError, "damping is positive"),
        (lambda: LevenbergMarquardt([INPUTS], trials=0), ValueError, "whole number from 1"),
        (lambda: LevenbergMarquardt([torch.arange(3)]), fo.CompatibilityError, "real floating"),
        (
            lambda: LevenbergMarquardt([{"params": [INPUTS]}, {"params": [TARGETS]}]),
            fo.CompatibilityError,
            "one group",
        ),
    ],
)
def test_wrong_use_is_refused(wrong, error, message):
    with pytest.raises(error, match=message):
        wrong()


def test_a_rule_that_remembers_directions_is_refused():
    module = network()
    optimizer = LevenbergMarquardt(module.parameters(), rule=fo.control.BoldUphill())
    with pytest.raises(fo.CompatibilityError, match="remembers directions"):
        optimizer.step(residuals=errors(module))
