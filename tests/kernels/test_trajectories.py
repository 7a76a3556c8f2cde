"""Whole runs by a kernel against eager torch, for everything in the registry."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import flowopt as fo
from flowopt import Solution
from flowopt.registry import CONTROLS, PROBLEMS
from tests.reference.pairs import (
    SMALL_PROBLEMS,
    controlled_pairs,
    small_problems,
    spared_combinations,
)

STEPS = 50
# Powers up to three, sums of two terms, no functions: every bit agrees.
EXACT_FLOWS = ("gradient_flow",)
DTYPES = (torch.float64, torch.float32)
# Every operation of a run rounds, a start that is moved rounds once.
AMPLIFIED = 10.0
# Near a minimum an energy falls, in float32, by less than its rounding, which then accepts.
UNDECIDED = 0.25
ALL = {name: build() for name, build in PROBLEMS.items()}


def _start(dim, dtype=torch.float64, count=37):
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(count, dim, generator=generator, dtype=torch.float64) - 0.5).to(dtype)


class Runs(NamedTuple):
    """One run by a kernel and in eager torch, where it starts, and how to run it in eager torch."""

    ours: Solution
    theirs: Solution
    first: Solution
    again: Callable[[Tensor], Solution]
    start: Tensor


def _both(flow, scheme, problem, start, **arguments):
    run = partial(fo.integrate, flow, scheme, problem, **arguments)
    ours = run(start, compile=True)
    assert ours.engine == "native kernel"
    again = partial(run, compile=False)
    return Runs(ours, again(start), again(start, **{**arguments, "steps": 0}), again, start)


def _counts(solution):
    """(number, trajectory)."""
    return torch.stack([solution.status, solution.steps, *solution.counts.values()]).double()


def _numbers(solution):
    """(number, trajectory)."""
    state = solution.state
    leaves = [leaf for group in state.variables.values() for leaf in group]
    numbers = [*leaves, *state.scalars.values(), state.time, solution.loss]
    return torch.stack([number.double() for number in numbers])


def _apart(some, others):
    """How far numbers are from others: not at all where both are NaN or the same infinity."""
    same = (some == others) | (some.isnan() & others.isnan())
    return torch.where(same, 0.0, (some - others).abs().nan_to_num(torch.inf, torch.inf))


def _spread(runs, of):
    """How far eager torch is from itself where it starts one unit in the last place away."""
    moved = [
        runs.again(torch.nextafter(runs.start, torch.full_like(runs.start, way)))
        for way in (-torch.inf, torch.inf)
    ]
    return torch.maximum(*(_apart(of(run), of(runs.theirs)) for run in moved))


def _assert_as_eager(runs, digits, undecided=0.0):
    """The kernel as eager torch, to some digits or as far as rounding lets eager torch tell.

    For a share of the trajectories it need not be, if rounding decides what they do next.
    """
    for of, digits_of in ((_counts, 0.0), (_numbers, digits)):
        ours, theirs, first = (of(run) for run in (runs.ours, runs.theirs, runs.first))
        # The largest value of the run: at a minimum, what is left of the loss is rounding.
        seen = torch.cat([theirs, first], -1)
        scale = seen.where(seen.isfinite(), 0.0).abs().amax(-1, keepdim=True)
        far = _apart(ours, theirs) > digits_of * scale
        if far.any():
            far &= _apart(ours, theirs) > AMPLIFIED * _spread(runs, of)
        if far.any(0).double().mean() > undecided:
            torch.testing.assert_close(ours[far], theirs[far], rtol=0, atol=0)


def _cases(everything):
    """Pairs and controls on problems in turn, some in float32; all on all in both by --full."""
    combinations = [(False, controlled_pairs())]
    combinations += [(True, spared_combinations())] if everything else []
    found = []
    for spared, some in combinations:
        for place, (pair, control) in enumerate(some):
            for problem, turn in small_problems(pair, place):
                few = control == "constant" and place % 2 == 0
                kinds = DTYPES if few or everything else DTYPES[:1]
                if everything or (turn and not spared):
                    name = f"{pair} {problem} {control}"
                    found += [
                        pytest.param(pair, problem, control, kind, id=f"{name} {kind}")
                        for kind in kinds
                    ]
    return found


@pytest.mark.combinations("pair problem control dtype", _cases)
def test_a_kernel_steps_as_eager_torch_does(pair, problem, control, dtype):
    control = CONTROLS[control](pair.step_size)
    start = _start(ALL[problem].dim, dtype)
    stop = fo.stop.gradient(1e-3)
    runs = _both(
        pair.flow, pair.scheme, ALL[problem], start, control=control, steps=STEPS, stop=stop
    )
    assert runs.ours.position.dtype == dtype
    single = dtype == torch.float32
    if single:
        digits = 1e-4
    elif control.rejects or control.uses_gradient(pair.flow):
        # An estimate near zero, or a slope between two near points, is rounding, and the step sizes
        # that follow it differ within the tolerance; what is accepted does not differ.
        digits = 1e-6
    else:
        digits = 0.0 if pair.name in EXACT_FLOWS else 1e-12
    _assert_as_eager(runs, digits, UNDECIDED if single and control.rejects else 0.0)


@pytest.mark.parametrize("name", [name for name in ALL if name not in SMALL_PROBLEMS])
def test_a_kernel_of_every_other_problem_steps_as_eager_torch_does(name):
    arguments = {"step_size": 1e-3, "steps": STEPS, "stop": fo.stop.gradient(1e-3)}
    flow, scheme = fo.flows.heavy_ball(friction=1.0), fo.Splitting("OBA")
    runs = _both(flow, scheme, ALL[name], _start(2), **arguments)
    _assert_as_eager(runs, 1e-12)
