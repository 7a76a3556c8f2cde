"""Steps that are made in laps, where trajectories end within one."""

import math
import sys

import pytest
import torch

import flowopt as fo
from flowopt.kernels.native.inner.sprint import LAP, PATIENCE, conjuncts, summands
from flowopt.kernels.program import BOOL, F64, Program

COUNT = 61


class _Loss:
    dim = 2

    def __init__(self, loss):
        self.loss = loss


def _starts(first, last, other=0.0, dtype=torch.float64):
    x = torch.linspace(first, last, COUNT, dtype=dtype)
    return torch.stack([x, torch.full_like(x, other)], -1)


def _assert_same(loss, start, **arguments):
    flow, word, problem = fo.flows.gradient_flow(), fo.Splitting("A"), _Loss(loss)
    ours, theirs = (
        fo.integrate(flow, word, problem, start, compile=compile, **arguments)
        for compile in (True, False)
    )
    assert ours.engine == "native kernel"
    for name in ("status", "steps", "position", "loss"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert torch.equal(ours.state.time, theirs.state.time)
    assert torch.equal(ours.counts["gradients"], theirs.counts["gradients"])
    return ours


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_trajectories_diverge_at_the_steps_at_which_they_do_in_eager_torch(dtype):
    def loss(theta):
        x, y = theta.unbind(-1)
        return y * y - x * x * x

    start = _starts(0.01, 4.0, dtype=dtype)
    solution = _assert_same(loss, start, step_size=0.01, steps=3 * PATIENCE + 7)
    assert len(solution.steps.unique()) > COUNT / 3


def test_trajectories_stop_at_the_steps_at_which_they_do_in_eager_torch():
    def loss(theta):
        x, y = theta.unbind(-1)
        return x * x + 0.5 * y * y

    stop = fo.stop.gradient(1e-3)
    solution = _assert_same(loss, _starts(1e-4, 9.0, 1e-6), step_size=0.03, steps=400, stop=stop)
    assert len(solution.steps.unique()) > COUNT / 3


@pytest.mark.parametrize("steps", [1, 2, LAP, LAP + 1, LAP + 2, 2 * LAP + 1])
def test_any_number_of_steps_is_made(steps):
    solution = _assert_same(
        lambda t: t.square().sum(-1), _starts(-1.0, 1.0), step_size=0.1, steps=steps
    )
    assert bool((solution.steps == steps).all())


@pytest.mark.parametrize("peak", [math.inf, math.nan, sys.float_info.max])
def test_what_is_not_finite_for_a_single_step_ends_a_trajectory_there(peak):
    """The last peak is finite, but its sum with the position is not."""

    def loss(theta):
        x, y = theta.unbind(-1)
        return torch.where(x == 100.0, peak, -x) - x + 0.0 * y

    start = _starts(0.0, COUNT - 1.0, 1e293)
    solution = _assert_same(loss, start, step_size=1.0, steps=200)
    assert bool((solution.status == int(fo.Status.DIVERGED)).any())


def test_a_sum_is_not_finite_only_where_the_product_of_its_parts_is_not():
    largest, half = sys.float_info.max, 2.0**970
    for a, b in [(largest, half), (-largest, -half), (math.inf, 0.0), (math.nan, 1.0)]:
        assert not math.isfinite(a + b)
        assert not math.isfinite(a * b)
    assert math.isfinite(largest + half / 2)


def test_what_ends_a_trajectory_is_taken_apart():
    program = Program()
    a, b, c = (program.input(F64, 0, place) for place in range(3))
    total = program.emit("add", F64, a, b)
    nought = program.emit("sub", F64, total, total)
    finite = program.emit("eq", BOOL, nought, program.constant(0.0, F64))
    small = program.emit("lt", BOOL, c, a)
    both = program.emit("and", BOOL, finite, small)
    assert set(conjuncts(program, both)) == {finite, small}
    assert summands(program, finite) == (a, b)
    assert summands(program, small) is None
