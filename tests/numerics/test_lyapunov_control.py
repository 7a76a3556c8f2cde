"""Energy control: what it accepts, against slow twins and what quadratics allow."""

import math

import pytest
import torch

import flowopt as fo
from flowopt import LyapunovControl
from tests.reference.lyapunov import (
    controlled_descent,
    controlled_mechanic,
    controlled_momentum,
)

POLY = fo.problems.analytic("poly_three")
STARTS = torch.tensor([[-2.5, 2.0], [0.3, 0.4], [1.5, -2.9], [-1.0, 1.4]], dtype=torch.float64)
DESCENT = fo.flows.gradient_flow()
AVERAGED = fo.Splitting("MA", maps={"M": "euler"})


def run(flow, scheme, control, problem=POLY, start=STARTS, steps=40, **more):
    return fo.integrate(flow, scheme, problem, start, control=control, steps=steps, **more)


@pytest.mark.parametrize(
    ("dissipation", "shrink", "growth", "restart"),
    [(0.0, 1 / 1.5, 2.0, True), (0.5, 0.5, 2.0, False), (0.5, 0.5, 1e4, False)],
)
def test_descent_is_the_published_loop(dissipation, shrink, growth, restart):
    settings = {"dissipation": dissipation, "shrink": shrink, "growth": growth, "restart": restart}
    control = LyapunovControl(first_step=0.1, **settings)
    found = run(DESCENT, fo.Euler(), control, steps=20, record={"position": 1}).records["position"]
    for member, start in enumerate(STARTS):
        path = controlled_descent(POLY, start, first=0.1, steps=20, **settings)
        torch.testing.assert_close(found[:, member], torch.stack(path), rtol=1e-12, atol=1e-12)


def test_momentum_is_the_published_loop():
    settings = {"dissipation": 0.125, "shrink": 0.5, "growth": 1.5}
    flow = fo.flows.momentum_ema(rate=2.0)
    control = LyapunovControl(first_step=0.05, **settings)
    found = run(flow, AVERAGED, control, record={"position": 1}).records["position"]
    for member, start in enumerate(STARTS):
        path = controlled_momentum(POLY, start, rate=2.0, first=0.05, steps=40, **settings)
        torch.testing.assert_close(found[:, member], torch.stack(path), rtol=1e-11, atol=1e-11)


def test_friction_that_fades_is_the_published_loop():
    settings = {"dissipation": 0.5, "shrink": 0.5, "growth": 1.5}
    flow, word = fo.flows.fading_friction(), fo.Splitting("OBA", maps={"O": "euler"})
    control = LyapunovControl(first_step=0.01, **settings)
    found = run(flow, word, control, record={"position": 1}).records["position"]
    for member, start in enumerate(STARTS):
        path = controlled_mechanic(POLY, start, first=0.01, steps=40, **settings)
        torch.testing.assert_close(found[:, member], torch.stack(path), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dissipation", [0.0, 0.25, 0.5, 0.9])
def test_on_a_quadratic_a_step_is_accepted_up_to_the_length_that_theory_gives(dissipation):
    # R⁺ − R = −η|g|² (1 − ηκ/2), κ = gᵀHg/|g|²: the test reads η ≤ 2(1 − λ)/κ.
    curvatures = torch.tensor([1.0, 3.0, 10.0], dtype=torch.float64)
    start = torch.tensor([0.7, -0.4, 0.2], dtype=torch.float64)
    gradient = curvatures * start
    kappa = float((gradient**2 * curvatures).sum() / (gradient**2).sum())
    longest = 2 * (1 - dissipation) / kappa
    problem = fo.problems.quadratic(curvatures)
    for first, rejected in ((longest * (1 - 1e-9), 0), (longest * (1 + 1e-9), 1)):
        control = LyapunovControl(dissipation=dissipation, first_step=first)
        solution = run(DESCENT, fo.Euler(), control, problem, start, steps=1)
        assert solution.counts["rejected"].item() == rejected


@pytest.mark.parametrize("curvature", [0.5, 3.0])
@pytest.mark.parametrize("rate", [1.0, 4.0])
def test_momentum_is_never_rejected_up_to_the_step_that_theory_gives(rate, curvature):
    # V decreases for every state iff bh + hk ≤ 2 and bh²k ≤ 1.
    longest = min(2 / (rate + curvature), 1 / math.sqrt(rate * curvature))
    angle = torch.linspace(0, math.pi, 2001, dtype=torch.float64)
    problem = fo.problems.quadratic([curvature])
    flow = fo.flows.momentum_ema(rate=rate)
    state = fo.integrate(
        flow, AVERAGED, problem, angle.cos()[:, None], step_size=0.0, steps=0
    ).state
    state = state.updated({"m": (math.sqrt(rate * curvature) * angle.sin(),)}, {})
    counts = []
    for first in (longest * (1 - 1e-6), longest * 1.01):
        control = LyapunovControl(dissipation=0.0, first_step=first)
        solution = fo.integrate(flow, AVERAGED, problem, state, control=control, steps=1)
        counts.append(solution.counts["rejected"].sum().item())
    assert counts[0] == 0
    assert counts[1] > 0


def test_the_energy_falls_at_every_step_and_as_far_as_it_must():
    dissipation = 0.5
    control = LyapunovControl(dissipation=dissipation)
    record = {"loss": 1, "slope": (1, lambda s, e: sum(g * g for g in e.gradient))}
    solution = run(DESCENT, fo.Euler(), control, record=record, steps=30)
    loss, slope = solution.records["loss"], solution.records["slope"]
    assert (loss.diff(dim=0) <= 0).all()
    taken = solution.times["loss"].diff(dim=0)
    total = (taken * slope[:-1]).sum(0)
    assert (total <= (loss[0] - loss[-1]) / dissipation * (1 + 1e-12)).all()


def test_a_heavy_ball_keeps_within_its_energy():
    flow = fo.flows.heavy_ball(friction=0.3)
    control = LyapunovControl(dissipation=0.1, first_step=1.0)
    solution = run(flow, fo.Splitting("OBA"), control, record={"mechanical": 1}, steps=60)
    assert (solution.records["mechanical"].diff(dim=0) <= 0).all()
    assert (solution.counts["rejected"] > 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dissipation": 1.0}, "dissipation lies in"),
        ({"dissipation": math.nan}, "dissipation lies in"),
        ({"shrink": 1.0}, "shrink lies between 0 and 1"),
        ({"growth": 0.5}, "growth is finite and at least 1"),
        ({"largest_step": 0.0}, "largest_step is positive"),
        ({"first_step": -0.1}, "first_step is positive"),
    ],
)
def test_numbers_out_of_range_are_refused(settings, message):
    with pytest.raises(fo.ConfigurationError, match=message):
        LyapunovControl(**settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_a_tolerance_a_run_ends_where_rounding_hides_the_fall(dtype):
    # Where κ(Δθ)²/2 is lost beside L: |∇L| = κ|Δθ| of about √(ε κ L), not of ε as at L = 0.
    (minimum,) = (point for point in POLY.critical_points if point.value == 8.0)
    start = torch.tensor(minimum.position, dtype=dtype) + torch.linspace(0.02, 0.2, 20)[:, None]
    ended = run(DESCENT, fo.Euler(), LyapunovControl(), start=start.to(dtype), steps=1000)
    assert (ended.status == fo.Status.STEP_TOO_SMALL).all()
    expected = (torch.finfo(dtype).eps * max(minimum.eigenvalues) * minimum.value) ** 0.5
    found = POLY.gradient(ended.position).norm(dim=-1)
    assert 0.1 < found.median() / expected < 10
    stopped = run(
        DESCENT,
        fo.Euler(),
        LyapunovControl(),
        start=start.to(dtype),
        steps=1000,
        stop=fo.stop.gradient(20 * expected),
    )
    assert (stopped.status == fo.Status.GRADIENT_SMALL).all()


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        (fo.flows.langevin(friction=1.0, temperature=0.1), "has noise"),
        (fo.Flow.from_text("A: dtheta/dt = -g"), "declares no energy"),
        (fo.classic.sgd(lr=0.1, momentum=0.9).flow, "rate"),
    ],
)
def test_flows_without_a_falling_energy_are_refused(flow, message):
    scheme = fo.Splitting("".join(flow.letters))
    with pytest.raises(fo.CompatibilityError, match=message):
        run(flow, scheme, LyapunovControl())


def test_an_unknown_energy_is_refused_with_those_there_are():
    with pytest.raises(fo.DefinitionError, match="no energy 'total'"):
        run(DESCENT, fo.Euler(), LyapunovControl(energy="total"))
