"""Projected steps and balanced momenta: exact energies, and the published loops."""

import math

import pytest
import torch

import flowopt as fo
from tests.reference.projection import balanced_momentum, projected_descent, projected_momentum
from tests.reference.states import evaluation_of
from tests.reference.training import small_data, small_network

POLY_TWO = fo.problems.analytic("poly_two")
STARTS = torch.tensor([[-2.5, 2.0], [0.3, 0.4], [1.5, -2.9], [-1.0, 1.4]], dtype=torch.float64)
DESCENT, MOMENTUM = fo.flows.gradient_flow(), fo.flows.momentum_ema(rate=2.0)
BALL = fo.flows.heavy_ball(friction=0.7)
FLOWS = {
    "gradient flow": (DESCENT, "A"),
    "RMSProp": (fo.flows.rmsprop(square_rate=2.0, eps=0.1), "VA"),
    "momentum": (MOMENTUM, "MA"),
    "heavy ball": (BALL, "OBA"),
    "Adam": (fo.flows.adam(momentum_rate=1.0, square_rate=0.5), "TMVA"),
    "blocks": (
        fo.PartitionedFlow(
            fo.Partition(("0", "1"), {"first": 0, "second": 1}),
            {name: fo.flows.heavy_ball(friction=f) for name, f in (("first", 0.3), ("second", 2))},
            pace={"second": 0.5},
        ),
        "OBA",
    ),
}


def in_motion(flow, word):
    """States after some steps, with what the problem says there."""
    scheme = fo.Splitting(word)
    state = fo.integrate(flow, scheme, POLY_TWO, STARTS, step_size=0.01, steps=5).state
    return state, evaluation_of(POLY_TWO, state.position)


@pytest.mark.parametrize("name", FLOWS)
def test_a_projected_step_loses_the_energy_that_the_flow_loses_to_rounding(name):
    flow, word = FLOWS[name]
    state, here = in_motion(flow, word)
    energy, h = flow.energy(flow.energies[0]), 0.002
    scheme = fo.Projected(fo.Euler(), iterations=30, rtol=0.0)
    end = fo.integrate(flow, scheme, POLY_TWO, state, step_size=h, steps=1)
    assert (end.status == fo.Status.STEPS_TAKEN).all()
    found = energy.value(end.state, evaluation_of(POLY_TWO, end.state.position))
    expected = energy.value(state, here) + h * energy.rate(state, here)
    torch.testing.assert_close(found, expected, rtol=2e-15, atol=0)


def test_a_projected_step_keeps_a_conserved_energy():
    oscillator = fo.flows.heavy_ball(friction=0.0)
    start = torch.tensor([0.2, 1.1], dtype=torch.float64)
    record = {"mechanical": 1}
    kept, lost = (
        fo.integrate(oscillator, scheme, POLY_TWO, start, step_size=0.02, steps=200, record=record)
        for scheme in (fo.Projected(fo.RungeKutta("heun"), rtol=0.0), fo.RungeKutta("heun"))
    )
    drift = [abs(run.records["mechanical"] - POLY_TWO.loss(start)).max() for run in (kept, lost)]
    assert drift[0] < 1e-13
    assert drift[1] > 1e-5


@pytest.mark.parametrize("variant", ["mean", "author"])
@pytest.mark.parametrize("name", ["momentum", "heavy ball"])
def test_a_balanced_momentum_loses_what_its_mean_loses_to_rounding(name, variant):
    flow, word = FLOWS[name]
    state, here = in_motion(flow, word)
    (momentum,), h = flow.variables[1:], 0.02
    scheme, energy = fo.EnergyMidpoint(variant), flow.energy(flow.energies[0])
    end = fo.integrate(flow, scheme, POLY_TWO, state, step_size=h, steps=1).state
    pairs = zip(state.variables[momentum], end.variables[momentum], strict=True)
    between = state.updated({momentum: tuple((old + new) / 2 for old, new in pairs)})
    found = energy.value(end, evaluation_of(POLY_TWO, end.position))
    expected = energy.value(state, here) + h * energy.rate(between, here)
    torch.testing.assert_close(found, expected, rtol=2e-15, atol=0)


def test_a_balanced_momentum_leaves_rest_by_the_energy_that_the_loss_gives():
    control = fo.Solved(first_step=0.05)
    record = {"mechanical": 1}
    run = fo.integrate(
        BALL, fo.EnergyMidpoint(), POLY_TWO, STARTS, control=control, steps=40, record=record
    )
    energy = run.records["mechanical"]
    torch.testing.assert_close(energy[0], POLY_TWO.loss(STARTS), rtol=0, atol=0)
    assert (energy.diff(dim=0) < 0).all()


CONTROL = {"shrink": 0.5, "growth": 1.5}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "native"])
def test_projected_descent_is_the_published_loop(compiled):
    control = fo.Solved(first_step=0.1, largest_step=10.0, **CONTROL)
    scheme = fo.Projected(fo.Euler(), iterations=6, rtol=0.0, atol=1e-9)
    run = fo.integrate(
        DESCENT,
        scheme,
        POLY_TWO,
        STARTS,
        control=control,
        steps=12,
        record={"position": 1},
        compile=compiled,
    )
    for member, start in enumerate(STARTS):
        path, losses = projected_descent(
            POLY_TWO, start, tolerance=1e-9, most=6, first=0.1, largest=10.0, steps=12, **CONTROL
        )
        found = run.records["position"][:, member]
        torch.testing.assert_close(found, torch.stack(path), rtol=1e-9, atol=1e-9)
        assert run.counts["losses"][member] == losses
        rejected = run.counts["rejected"][member]
        assert run.counts["gradients"][member] == 1 + 2 * 12 + rejected


def test_projected_momentum_is_the_published_loop():
    settings = {"tolerance": 1e-10, "first": 0.1, "steps": 12, **CONTROL}
    run = fo.integrate(
        MOMENTUM,
        fo.Projected(fo.Euler(), rtol=0.0, atol=1e-10, unit=1.0),
        POLY_TWO,
        STARTS,
        control=fo.Solved(first_step=0.1, **CONTROL),
        steps=12,
        record={"position": 1},
    )
    for member, start in enumerate(STARTS):
        path = projected_momentum(POLY_TWO, start, rate=2.0, most=10, **settings)
        found = run.records["position"][:, member]
        torch.testing.assert_close(found, torch.stack(path), rtol=1e-9, atol=1e-9)


def test_the_authors_balanced_momentum_is_the_published_loop():
    run = fo.integrate(
        fo.flows.heavy_ball(friction=1.0),
        fo.EnergyMidpoint("author"),
        POLY_TWO,
        STARTS,
        control=fo.Solved(first_step=0.02, **CONTROL),
        steps=12,
        record={"position": 1},
    )
    for member, start in enumerate(STARTS):
        path = balanced_momentum(POLY_TWO, start, rate=1.0, first=0.02, steps=12, **CONTROL)
        found = run.records["position"][:, member]
        torch.testing.assert_close(found, torch.stack(path), rtol=1e-9, atol=1e-9)


def test_a_step_beyond_the_least_energy_is_tried_again_or_ends_the_trajectory():
    # L = θ²: T = θ²(1 − 4h) is below zero from h = ¼ on.
    square, start = fo.problems.quadratic([2.0]), torch.tensor([1.0], dtype=torch.float64)
    scheme, h = fo.Projected(fo.Euler(), iterations=50, rtol=1e-10), 0.3
    alone = fo.integrate(DESCENT, scheme, square, start, step_size=h, steps=1)
    assert alone.status == fo.Status.DIVERGED
    assert torch.equal(alone.position, start)
    control = fo.Solved(first_step=h)
    tried = fo.integrate(DESCENT, scheme, square, start, control=control, steps=1)
    assert tried.counts["rejected"] == 1
    assert math.isclose(tried.position.item(), math.sqrt(1 - 4 * 0.15), rel_tol=1e-9)


def test_what_is_projected_needs_no_shorter_step_under_an_energy_control():
    control = fo.LyapunovControl(dissipation=0.9, first_step=0.002, growth=1.0)
    scheme = fo.Projected(fo.Euler(), rtol=0.0)
    run = fo.integrate(DESCENT, scheme, POLY_TWO, STARTS, control=control, steps=30)
    assert (run.counts["rejected"] == 0).all()


def test_a_network_is_trained_by_steps_of_exact_dissipation():
    module, (inputs, targets) = small_network(), small_data()

    def loss():
        return torch.nn.functional.cross_entropy(module(inputs), targets)

    scheme = fo.Projected(fo.Splitting("A"), rtol=1e-9)
    control = fo.Solved(first_step=0.1)
    optimizer = fo.optim.FlowOptimizer(module.parameters(), DESCENT, scheme, control=control)
    for _ in range(10):
        before = loss().item()
        module.zero_grad()
        loss().backward()
        slope = sum(float((p.grad**2).sum()) for p in module.parameters())
        optimizer.step(loss=loss)
        h = optimizer.param_groups[0]["lr"] / 1.2
        assert math.isclose(loss().item(), before - h * slope, abs_tol=2e-9)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: fo.Projected(fo.Euler), fo.ConfigurationError, "such as Euler"),
        (lambda: fo.Projected(fo.Euler(), iterations=0), fo.ConfigurationError, "from 1 to 50"),
        (lambda: fo.Projected(fo.Euler(), iterations=3.0), fo.ConfigurationError, "got 3.0"),
        (lambda: fo.Projected(fo.Euler(), rtol="a"), fo.ConfigurationError, "rtol is a finite"),
        (
            lambda: fo.Projected(fo.Euler(), atol=math.inf),
            fo.ConfigurationError,
            "atol is a finite",
        ),
        (
            lambda: fo.Projected(fo.Euler(), rtol=-1.0),
            fo.ConfigurationError,
            "rtol is a finite number of at least 0",
        ),
        (lambda: fo.EnergyMidpoint("half"), fo.CompatibilityError, "no variant 'half'"),
        (
            lambda: fo.EnergyMidpoint().check(fo.flows.rmsprop(square_rate=1.0)),
            fo.CompatibilityError,
            "theta and one momentum",
        ),
        (
            lambda: fo.Projected(fo.Splitting("OBA")).check(fo.flows.langevin(temperature=0.1)),
            fo.CompatibilityError,
            "has noise",
        ),
        (
            lambda: fo.Projected(fo.Restarted(fo.Euler())).check(fo.flows.heavy_ball()),
            fo.CompatibilityError,
            r"as in Restarted\(Projected\(",
        ),
        (
            lambda: fo.Projected(fo.Euler()).check(fo.flows.adamax()),
            fo.CompatibilityError,
            "declares no energy",
        ),
        (
            lambda: fo.Projected(fo.Euler(), "total").check(DESCENT),
            fo.DefinitionError,
            "no energy 'total'",
        ),
        (lambda: fo.Solved(growth=0.9), fo.ConfigurationError, "at least 1"),
        (
            lambda: fo.Solved().check(DESCENT, fo.Euler()),
            fo.CompatibilityError,
            "solves no equation",
        ),
    ],
)
def test_wrong_use_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
