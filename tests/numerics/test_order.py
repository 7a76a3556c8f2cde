"""Measured order of every scheme, against reference solutions."""

import math
from functools import cache

import pytest
import torch

import flowopt as fo
from flowopt.registry import FLOWS, SCHEMES
from tests.reference.pairs import fits
from tests.reference.solutions import SMOOTH, moving_state, slow_flow, solve
from tests.reference.states import HILLS, flat

TIME = 1.0
# Steps of the coarsest of three runs: few for high orders, whose errors would reach rounding.
COARSEST = {0: 64, 1: 64, 2: 32, 3: 24, 4: 16, 5: 14}
PROBLEMS = {"quadratic": fo.problems.quadratic([[1.0, 0.5], [0.5, 2.0]]), "hills": HILLS}
START = torch.tensor([0.8, 0.6], dtype=torch.float64)
WORDS = [(name, fo.Splitting(word)) for name in SMOOTH for word in FLOWS[name].words]
# The order of a scheme on the summed drift is the same for every smooth drift.
DRIFTS = [
    (name, build())
    for name in ("gradient_flow", "heavy_ball")
    for build in SCHEMES.values()
    if fits(FLOWS[name].build(), build())
]


@cache
def reference(name, problem):
    """A state in motion, and where the flow takes it."""
    flow = slow_flow(name)
    state = moving_state(flow, FLOWS[name].words[0], PROBLEMS[problem], START)
    return state, solve(flow, PROBLEMS[problem], state, [TIME])[-1]


def replicate(state, count):
    """`count` copies of a single trajectory."""

    def copies(value):
        return value.expand(count, *value.shape).clone()

    copied = state.map(copies)
    return fo.State(copied.variables, copied.scalars, copies(state.time), copies(state.step))


def measured_order(flow, scheme, problem, state, exact):
    """Slope of the error at h, h/2 and h/4, extrapolated to h = 0."""
    steps = COARSEST[scheme.order(flow)] * torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    solution = fo.integrate(
        flow, scheme, problem, replicate(state, 3), step_size=TIME / steps, duration=TIME
    )
    error = (flat(solution.state) - exact).abs().amax(-1)
    first, second = torch.log2(error[:-1] / error[1:])
    return (2 * second - first).item()


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize(("name", "scheme"), WORDS + DRIFTS, ids=str)
def test_a_scheme_has_the_order_that_it_claims(name, scheme, problem):
    flow = slow_flow(name)
    measured = measured_order(flow, scheme, PROBLEMS[problem], *reference(name, problem))
    assert abs(measured - scheme.order(flow)) < 0.1, measured


@pytest.mark.parametrize("text", ["A: dtheta/dt = -a*theta", "A: dtheta/dt = a*(c - theta)"])
def test_a_scheme_of_infinite_order_is_exact_to_rounding(text):
    target = 0.4 if "c" in text else 0.0
    flow = fo.Flow.from_text(f"{text}\nenergy any: a*c*theta", a=1.3, c=target)
    scheme = fo.Splitting("A")
    assert scheme.order(flow) == float("inf")
    end = fo.integrate(flow, scheme, PROBLEMS["quadratic"], START, step_size=0.7, steps=3)
    exact = target + (START - target) * math.exp(-1.3 * 2.1)
    torch.testing.assert_close(end.position, exact, rtol=1e-14, atol=0)
