"""What all trajectories share: one number in memory, until they part ways."""

import torch

import flowopt as fo
from flowopt.kernels.engine import Runner
from flowopt.plan import joined

COUNT = 37


class _Bowl:
    dim = 2

    def loss(self, theta):
        x, y = theta.unbind(-1)
        return x * x + y * y - x * y


def _start(first=-1.0):
    return torch.linspace(first, 1.0, 2 * COUNT, dtype=torch.float64).reshape(COUNT, 2)


def _runner(start, steps):
    flow, word, control = fo.flows.gradient_flow(), fo.Splitting("A"), fo.control.Constant(0.1)
    plan = joined(flow, word, _Bowl(), start, steps, None, control, None, 0, None)
    return Runner(plan.stepper, plan.state)


def test_counts_lie_in_memory_once_until_a_launch_changes_them():
    runner = _runner(_start(), 5)
    before = runner.carry
    shared = (before.state.time, before.state.step, before.gradients, before.losses)
    assert all(not any(tensor.stride()) for tensor in shared)
    assert runner.advance(2) == COUNT
    after = runner.carry
    assert after.gradients.is_contiguous()
    assert torch.equal(after.gradients, torch.full((COUNT,), 3))
    assert torch.equal(after.losses, torch.zeros(COUNT, dtype=torch.int64))
    assert runner.advance(100) == 0
    assert torch.equal(runner.carry.state.step, torch.full((COUNT,), 5))


def test_trajectories_that_end_at_once_have_the_counts_of_eager_torch():
    start = _start()
    start[::3, 0] = torch.inf
    arguments = {"step_size": 0.1, "steps": 7}
    flow, word, problem = fo.flows.gradient_flow(), fo.Splitting("A"), _Bowl()
    ours, theirs = (
        fo.integrate(flow, word, problem, start, compile=compile, **arguments)
        for compile in (True, False)
    )
    assert ours.engine == "native kernel"
    assert len(ours.status.unique()) == 2
    for name, counts in theirs.counts.items():
        assert torch.equal(ours.counts[name], counts), name
    assert torch.equal(ours.status, theirs.status)
    assert torch.equal(ours.steps, theirs.steps)
    assert torch.equal(ours.state.time, theirs.state.time)


def test_a_start_of_several_dimensions_keeps_its_shape():
    start = _start()[:36].reshape(3, 12, 2)
    flow, word = fo.flows.gradient_flow(), fo.Splitting("A")
    solution = fo.integrate(flow, word, _Bowl(), start, step_size=0.1, steps=4, compile=True)
    assert {tuple(count.shape) for count in solution.counts.values()} == {(3, 12)}
    assert torch.equal(solution.steps, torch.full((3, 12), 4))
