"""Measured order of every scheme, against reference solutions."""

from fractions import Fraction
from functools import cache

import pytest
import torch

import flowopt as fo
from flowopt.registry import FLOWS, SCHEMES
from flowopt.schemes.tableau import rooted_trees
from tests.reference.solutions import NOISE_FREE, moving_state, slow_flow, solve
from tests.reference.states import HILLS, flat

TIME = 1.0
# Steps of the coarser run: few for high orders, whose errors would reach rounding.
COARSE = {1: 128, 2: 64, 4: 40, 5: 28}
PROBLEMS = {"quadratic": fo.problems.quadratic([[1.0, 0.5], [0.5, 2.0]]), "hills": HILLS}
START = torch.tensor([0.8, 0.6], dtype=torch.float64)
WORDS = [(name, fo.Splitting(word)) for name in NOISE_FREE for word in FLOWS[name].words]
DRIFTS = [
    (name, build())
    for name in NOISE_FREE
    if not FLOWS[name].build().singular_at_start
    for build in SCHEMES.values()
]


@cache
def reference(name, problem):
    """A state in motion, and where the flow takes it."""
    flow = slow_flow(name)
    state = moving_state(flow, FLOWS[name].words[0], PROBLEMS[problem], START)
    return state, solve(flow, PROBLEMS[problem], state, [TIME])[-1]


def errors(flow, scheme, problem, state, exact, steps):
    """Largest error at the end with `steps` steps and with twice as many, in one ensemble."""
    both = state.map(lambda leaf: leaf.expand(2).clone())
    both = fo.State(
        both.variables, both.scalars, state.time.expand(2).clone(), state.step.expand(2).clone()
    )
    step_sizes = TIME / torch.tensor([steps, 2 * steps], dtype=torch.float64)
    solution = fo.integrate(flow, scheme, problem, both, step_size=step_sizes, duration=TIME)
    return (flat(solution.state) - exact).abs().amax(-1)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize(("name", "scheme"), WORDS + DRIFTS, ids=str)
def test_a_scheme_has_the_order_that_it_claims(name, scheme, problem):
    flow = slow_flow(name)
    claim = scheme.order(flow)
    coarse, fine = errors(
        flow, scheme, PROBLEMS[problem], *reference(name, problem), COARSE[claim]
    )
    assert abs(torch.log2(coarse / fine).item() - claim) < 0.1, (coarse, fine)
