"""Energies and temperatures of optimizers: those of `integrate`, and what is written by hand."""

import pytest
import torch
from torch.nn.functional import cross_entropy

import flowopt as fo
from tests.reference.training import closure_of, small_data, small_network

INPUTS, TARGETS = small_data()
FRICTION, TEMPERATURE, LR = 1.0, 1e-3, 0.2


def langevin(parameters, **options):
    return fo.optim.Langevin(
        parameters, LR, friction=FRICTION, temperature=TEMPERATURE, seed=3, **options
    )


def measured(module, optimizer, steps):
    """Measures before each step, on the full batch."""
    closure, found = closure_of(module, optimizer, INPUTS, TARGETS), []
    for _ in range(steps):
        loss = closure()
        found.append(fo.optim.measures(optimizer, loss))
        optimizer.step()
    return found


@pytest.mark.parametrize("way", [{"foreach": False}, {}, {"compile": True}], ids=str)
def test_they_are_the_records_of_integrate(way):
    module = small_network()
    found = measured(module, langevin(module.parameters(), **way), 12)
    problem = fo.problems.network(small_network(), cross_entropy, (INPUTS, TARGETS))
    flow = fo.flows.langevin(friction=FRICTION, temperature=TEMPERATURE)
    solution = fo.integrate(
        flow,
        fo.Splitting("BAOA"),
        problem,
        problem.start(),
        step_size=LR,
        steps=11,
        seed=3,
        record={"mechanical": 1},
    )
    assert found[0] == [{}]
    energies = torch.tensor([v["mechanical"] for (v,) in found[1:]], dtype=torch.float64)
    torch.testing.assert_close(energies, solution.records["mechanical"][1:], rtol=1e-12, atol=0)


def test_the_temperature_is_the_mean_square_of_the_momentum():
    module = small_network()
    optimizer = langevin(module.parameters())
    (values,) = measured(module, optimizer, 5)[-1]
    closure_of(module, optimizer, INPUTS, TARGETS)()
    loss = cross_entropy(module(INPUTS), TARGETS)
    (values,) = fo.optim.measures(optimizer, loss)
    momentum = torch.cat([optimizer.state[p]["p"].flatten() for p in module.parameters()])
    assert values["temperature"] == pytest.approx(momentum.square().mean().item(), rel=1e-12)
    mechanical = loss.item() + 0.5 * momentum.square().sum().item()
    assert values["mechanical"] == pytest.approx(mechanical, rel=1e-12)


def test_a_preset_of_torch_has_the_energy_of_its_flow():
    module = small_network()
    found = measured(module, fo.optim.SGD(module.parameters(), lr=0.1), 3)
    loss = cross_entropy(small_network()(INPUTS), TARGETS).item()
    assert [list(values) for (values,) in found] == [[], ["loss"], ["loss"]]
    assert found[1][0]["loss"] < loss
    module = small_network()
    found = measured(module, fo.optim.Adam(module.parameters(), lr=1e-3), 40)
    energies = [values["lyapunov"] for (values,) in found[1:]]
    assert energies[-1] < energies[0]


def test_each_group_has_its_own_and_a_climber_has_minus_the_loss():
    module = small_network()
    groups = [{"params": module[0].parameters()}, {"params": module[2].parameters()}]
    first, second = measured(module, fo.optim.LOL(groups, seed=0), 2)[1]
    assert first.keys() == second.keys() == {"mechanical", "temperature"}
    assert first["temperature"] != second["temperature"]
    module = small_network()
    optimizer = fo.optim.SGD(module.parameters(), lr=0.1, maximize=True)
    measured(module, optimizer, 1)
    assert fo.optim.measures(optimizer, 2.0) == [{"loss": -2.0}]
