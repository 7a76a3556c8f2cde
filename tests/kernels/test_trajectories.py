"""Whole runs by a kernel against eager torch, for everything in the registry."""

import pytest
import torch

import flowopt as fo
from flowopt.registry import CONTROLS, PROBLEMS
from tests.reference.pairs import (
    PAIRS,
    SMALL_PROBLEMS,
    controlled_pairs,
    small_problems,
    spared_combinations,
)

STEPS = 50
# Powers up to three, sums of two terms, no functions: every bit agrees.
EXACT_FLOWS = ("gradient_flow",)
ALL = {name: build() for name, build in PROBLEMS.items()}


def _start(dim, dtype=torch.float64, count=37):
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(count, dim, generator=generator, dtype=torch.float64) - 0.5).to(dtype)


def _both(flow, scheme, problem, start, **arguments):
    runs = [
        fo.integrate(flow, scheme, problem, start, compile=compile, **arguments)
        for compile in (True, False)
    ]
    assert runs[0].engine == "native kernel"
    arguments["steps"] = 0
    return *runs, fo.integrate(flow, scheme, problem, start, compile=False, **arguments)


def _numbers(solution):
    state = solution.state
    leaves = [leaf for group in state.variables.values() for leaf in group]
    return [*leaves, *state.scalars.values(), state.time, solution.loss]


def _assert_as_eager(ours, theirs, start, digits):
    for name in ("status", "steps"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    for name, counts in theirs.counts.items():
        assert torch.equal(ours.counts[name], counts), name
    for a, b, first in zip(_numbers(ours), _numbers(theirs), _numbers(start), strict=True):
        # The largest value of the run: at a minimum, what is left of the loss is rounding.
        seen = torch.cat([b.flatten(), first.flatten()])
        scale = seen[torch.isfinite(seen)].abs().max() if seen.numel() else 1.0
        torch.testing.assert_close(a, b, rtol=0, atol=digits * float(scale), equal_nan=True)


def _cases():
    """Every pair and control once, problems in turn; all other combinations by --full."""
    found = []
    for place, (pair, control) in enumerate(controlled_pairs()):
        for problem, now in small_problems(pair, place):
            marks = () if now else (pytest.mark.full,)
            name = f"{pair} {problem} {control}"
            found.append(pytest.param(pair, problem, control, marks=marks, id=name))
    for place, (pair, control) in enumerate(spared_combinations()):
        [problem] = [name for name, now in small_problems(pair, place) if now]
        name = f"{pair} {problem} {control}"
        found.append(pytest.param(pair, problem, control, marks=pytest.mark.full, id=name))
    return found


@pytest.mark.parametrize(("pair", "problem", "control"), _cases())
def test_a_kernel_steps_as_eager_torch_does(pair, problem, control):
    control = CONTROLS[control](pair.step_size)
    *runs, first = _both(
        pair.flow,
        pair.scheme,
        ALL[problem],
        _start(ALL[problem].dim),
        control=control,
        steps=STEPS,
        stop=fo.stop.gradient(1e-3),
    )
    if control.rejects or control.uses_gradient(pair.flow):
        # An estimate near zero, or a slope between two near points, is rounding, and the step sizes
        # that follow it differ within the tolerance; what is accepted does not differ.
        digits = 1e-6
    else:
        digits = 0.0 if pair.name in EXACT_FLOWS else 1e-12
    _assert_as_eager(*runs, first, digits)


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(pair, id=str(pair), marks=() if place % 2 else (pytest.mark.full,))
        for place, pair in enumerate(PAIRS)
    ],
)
def test_a_kernel_steps_float32_as_eager_torch_does(pair):
    problem = ALL["rosenbrock"]
    *runs, first = _both(
        pair.flow,
        pair.scheme,
        problem,
        _start(problem.dim, torch.float32),
        step_size=pair.step_size,
        steps=STEPS,
    )
    assert runs[0].position.dtype == torch.float32
    _assert_as_eager(*runs, first, 1e-4)


@pytest.mark.parametrize("name", [name for name in ALL if name not in SMALL_PROBLEMS])
def test_a_kernel_of_every_other_problem_steps_as_eager_torch_does(name):
    arguments = {"step_size": 1e-3, "steps": STEPS, "stop": fo.stop.gradient(1e-3)}
    flow, scheme = fo.flows.heavy_ball(friction=1.0), fo.Splitting("OBA")
    *runs, first = _both(flow, scheme, ALL[name], _start(2), **arguments)
    _assert_as_eager(*runs, first, 1e-12)
