"""Torch's distributed checkpoint of optimizers that have not begun, or that need a closure."""

import pytest
import torch
from torch import nn

import flowopt as fo
from tests.conformance.test_resume import KINDS, network, through_checkpoint, trained
from tests.reference.training import flat_parameters

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
STEPS = 6
HEAVY_BALL = fo.flows.heavy_ball(friction=0.5)


def stepping(flow, scheme, **settings):
    return lambda module: fo.optim.FlowOptimizer(module.parameters(), flow, scheme, **settings)


def blocks(module):
    first = {"params": module[0].parameters(), "flow": HEAVY_BALL}
    rest = {"params": module[2].parameters()}
    flow = fo.flows.langevin(friction=0.3, temperature=1e-3)
    return fo.optim.FlowOptimizer([first, rest], flow, fo.Splitting("BAOAB"), lr=0.1, seed=2)


def levenberg_marquardt(module):
    # One trial per step: some steps end with a rejection, which the next one remembers.
    return fo.optim.LevenbergMarquardt(module.parameters(), damping=1e-6, trials=1)


# Steps that need a closure, or that a control judges.
CLOSED = {
    "BAOAB": stepping(
        fo.flows.langevin(friction=1.0, temperature=0.01), fo.Splitting("BAOAB"), lr=0.1, seed=3
    ),
    # Without a state, which checkpoints step whenever they are asked.
    "overdamped": stepping(
        fo.flows.overdamped_langevin(temperature=0.01), fo.EulerMaruyama(), lr=0.1, seed=3
    ),
    "blocks": blocks,
    "dopri5": stepping(HEAVY_BALL, fo.RungeKutta("dopri5"), lr=0.1),
    "error": stepping(
        HEAVY_BALL, fo.RungeKutta("heun"), control=fo.control.ErrorControl(rtol=1e-2, atol=1e-3)
    ),
    "expected slope": stepping(HEAVY_BALL, fo.Splitting("BOA"), control=fo.control.ExpectedSlope()),
    "EnergyAdam": lambda module: fo.optim.EnergyAdam(module.parameters(), lr=0.5),
    "LevenbergMarquardt": levenberg_marquardt,
}


def closed(module, optimizer, first, last, dtype=torch.float64):
    for step in range(first, last):
        rows = torch.randn(8, 4, generator=torch.Generator().manual_seed(step), dtype=dtype)

        def closure(rows=rows):
            optimizer.zero_grad()
            loss = module(rows).square().mean()
            loss.backward()
            return loss

        if isinstance(optimizer, fo.optim.LevenbergMarquardt):
            optimizer.step(residuals=lambda rows=rows: torch.exp(3 * module(rows)) - rows[:, :2])
        else:
            optimizer.step(closure)
    optimizer.zero_grad()
    return flat_parameters(module)


@pytest.mark.parametrize("stop", [0, 1, 4])
@pytest.mark.parametrize("name", CLOSED)
def test_steps_with_a_closure_go_on_to_the_last_bit(name, stop, tmp_path):
    whole, module, again = (network(torch.float64) for _ in range(3))
    expected = closed(whole, CLOSED[name](whole), 0, STEPS)
    optimizer, fresh = CLOSED[name](module), CLOSED[name](again)
    closed(module, optimizer, 0, stop)
    through_checkpoint(module, optimizer, again, fresh, tmp_path)
    assert torch.equal(closed(again, fresh, stop, STEPS), expected)
    # What was saved goes on too.
    assert torch.equal(closed(module, optimizer, stop, STEPS), expected)


@pytest.mark.parametrize("options", [{}, {"foreach": False}, {"compile": True}])
@pytest.mark.parametrize("name", KINDS)
def test_an_optimizer_saved_before_its_first_step_begins_as_new(name, options, tmp_path):
    if name == "AdLaLa" and "compile" in options:
        options = {}
    whole, module, again = (network(torch.float32) for _ in range(3))
    expected = trained(whole, KINDS[name](whole, **options), 0, STEPS, torch.float32)
    optimizer, fresh = KINDS[name](module, **options), KINDS[name](again, **options)
    through_checkpoint(module, optimizer, again, fresh, tmp_path)
    assert torch.equal(trained(again, fresh, 0, STEPS, torch.float32), expected)
    assert torch.equal(trained(module, optimizer, 0, STEPS, torch.float32), expected)


def test_a_warm_up_from_zero_counts_its_first_step_as_torch_does():
    ours, theirs = network(torch.float64), network(torch.float64)
    for module, kind in ((ours, fo.optim.Adam), (theirs, torch.optim.Adam)):
        optimizer = kind(module.parameters(), lr=0.1)
        rising = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 3)
        for step in range(STEPS):
            trained(module, optimizer, step, step + 1, torch.float64)
            rising.step()
    torch.testing.assert_close(flat_parameters(ours), flat_parameters(theirs), rtol=1e-12, atol=0)


def test_a_value_that_was_given_stays_through_a_checkpoint_of_the_beginning(tmp_path):
    module, again = nn.Linear(3, 2), nn.Linear(3, 2)
    optimizer = fo.optim.AdaptiveLangevin(module.parameters(), initial_friction=0.3, seed=1)
    fresh = fo.optim.AdaptiveLangevin(again.parameters(), initial_friction=0.9, seed=2)
    through_checkpoint(module, optimizer, again, fresh, tmp_path)
    assert fresh.param_groups[0]["xi"] == 0.3
    assert fresh.param_groups[0]["seed"] == 1
