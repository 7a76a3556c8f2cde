"""When flows that are singular at t = 0 begin, and how fast schemes converge from there."""

import math
from functools import cache

import pytest
import torch

import flowopt as fo
from flowopt.registry import FLOWS, SCHEMES
from flowopt.symbols import STEP_SIZE
from tests.reference.solutions import SMOOTH, slow_flow
from tests.reference.states import HILLS

START = torch.tensor([0.8, 0.6], dtype=torch.float64)
DURATION = 0.5
TABLEAUX = [name for name, build in SCHEMES.items() if isinstance(build(), fo.RungeKutta)]


def slow(name):
    """Also what follows the largest square does so at a speed that steps can follow."""
    flow = slow_flow(name)
    tracks = "tracking" in flow.hyperparameters
    return flow.with_hyperparameters(tracking=5.0) if tracks else flow


SINGULAR = {name: slow(name) for name, e in FLOWS.items() if e.build().singular_at_start}


def end(flow, scheme, duration=DURATION, **settings):
    settings = {"duration": duration, **settings}
    return fo.integrate(flow, scheme, HILLS, START, **settings).position


@cache
def true_end(name, time):
    """Where a flow goes that begins at a time, or as soon as it can."""
    flow = SINGULAR[name].starting_at(time) if time else SINGULAR[name]
    control = fo.ErrorControl(rtol=1e-10, atol=1e-11)
    return flow, end(flow, fo.RungeKutta("dopri5"), control=control)


@pytest.mark.parametrize("tableau", TABLEAUX)
@pytest.mark.parametrize("name", SINGULAR)
def test_every_runge_kutta_scheme_follows_a_flow_that_begins_later(name, tableau):
    flow, exact = true_end(name, 0.25)
    error = (end(flow, fo.RungeKutta(tableau), step_size=DURATION / 16) - exact).abs().max()
    assert error < 0.01 * (exact - START).abs().max()


def measured_order(name, time):
    flow, exact = true_end(name, time)
    lost = 1.0 if not time and flow.equations.later_start.time.has(STEP_SIZE) else 0.0
    errors = []
    for steps in (32, 64):
        step_size = DURATION / steps
        reached = end(flow, fo.RungeKutta("rk4"), DURATION - lost * step_size, step_size=step_size)
        errors.append((reached - exact).abs().max())
    return math.log2(errors[0] / errors[1])


@pytest.mark.parametrize("name", [name for name in SINGULAR if name in SMOOTH])
def test_begun_later_a_flow_is_followed_with_the_order_of_the_scheme(name):
    assert measured_order(name, 0.25) == pytest.approx(4, abs=0.15)


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("accelerated_gradient", 4),
        # The ratio of two averages that have hardly begun is no smooth function of them.
        ("adam", 3),
        ("adabelief", 3),
        # θ moves as t^(3/2) at first; as √t where eps is small, or by its first step late.
        ("radam", 2.5),
        ("rmsprop", 1),
        ("adagrad", 1),
    ],
)
def test_from_rest_a_singular_flow_is_followed_with_the_order_of_its_start(name, order):
    assert measured_order(name, None) == pytest.approx(order, abs=0.12)


@pytest.mark.parametrize("tableau", ["midpoint", "rk4"])
@pytest.mark.parametrize("name", ["rmsprop", "adagrad"])
def test_a_speed_without_bound_is_met_after_a_first_step(name, tableau):
    """With their usual eps these flows leave rest at a speed of 1/eps."""
    flow, step_size = getattr(fo.flows, name)(), 0.01
    exact = end(flow, fo.Splitting("VA"), 0.2, step_size=4e-4)
    scheme = fo.RungeKutta(tableau)
    solution = fo.integrate(flow, scheme, HILLS, START, step_size=step_size, duration=0.19)
    assert solution.state.time == pytest.approx(0.2, abs=1e-9)
    # It has not moved in the first step, by 2√h.
    assert (solution.position - exact).abs().max() < 2 * math.sqrt(step_size)


def test_a_start_time_is_a_line_of_a_text_as_of_the_equations():
    text = """
    V: dv/dt = rate*(g**2 - v)
    A: dtheta/dt = -g/sqrt(v)
    later t = 0.25
    later v = (1 - exp(-rate*t))*g**2
    """
    flow = fo.Flow.from_text(text, rate=2.0)
    own = fo.flows.rmsprop(square_rate=2.0, eps=0.0).starting_at(0.25)
    ends = [end(f, fo.RungeKutta("rk4"), step_size=0.05) for f in (flow, own)]
    torch.testing.assert_close(*ends, rtol=1e-14, atol=0)
    early = [end(f, fo.Splitting("VA"), step_size=0.05) for f in (flow, own)]
    torch.testing.assert_close(*early, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("later v = g", "say when, as in 'later t = 1e-6'"),
        ("later t = 1\nlater w = g", "a later start is a time"),
        ("later t = 1\nlater v = theta*v", "a later start is a time"),
        ("later t = t\nlater v = g", "a later start is a time"),
        ("later t = 1\nlater t = 2", "later 't' is given twice"),
    ],
)
def test_a_later_start_that_says_nothing_is_refused(lines, message):
    with pytest.raises(fo.DefinitionError, match=message):
        fo.Flow.from_text(f"V: dv/dt = g - v\nA: dtheta/dt = -v\n{lines}")


@pytest.mark.parametrize("time", [0.0, -1.0, math.inf, math.nan, "soon"])
def test_a_start_time_is_finite_and_positive(time):
    with pytest.raises(fo.DefinitionError, match="finite time > 0"):
        fo.flows.adam().starting_at(time)
    with pytest.raises(fo.DefinitionError, match="regular at t = 0"):
        fo.flows.heavy_ball().starting_at(1.0)
