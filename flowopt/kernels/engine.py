"""Trajectories by a native kernel: checked against eager torch, launched in chunks."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from flowopt.core.trajectory import Status
from flowopt.kernels.batch import Batch, keep_pages, spread
from flowopt.kernels.drawing import LOOKED_AHEAD, Draws, reached
from flowopt.kernels.inputs import (
    flattened,
    grown,
    inputs_of,
    lanes_of_memory,
    mapped,
    rebound,
    some_of,
    unflattened,
)
from flowopt.kernels.program import UnfitError
from flowopt.kernels.step import Traces, first_drawn, started, tried
from flowopt.kernels.tracing.guard import still_reads

# A launch is not interrupted, so it is kept short; results do not depend on this.
SECONDS_PER_LAUNCH = 0.1
FIRST_TRIALS = 4096
MOST_TRIALS = 1 << 20
# More steps than anyone takes: an end that is never reached.
NEVER = 1 << 60
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3}
# Of step sizes that follow the estimate of an error, which in float32 is little but rounding.
LOOSE = {torch.float64: 1e-3, torch.float32: 1.0}
# Of the tolerance, in units of the largest number at hand.
ROUNDING = 1e-3

_traces = Traces()


class _MismatchError(Exception):
    """The kernel and eager torch disagree."""


class Runner:
    """A batch of trajectories on its way through a kernel.

    Args:
        stepper: Joins flow, scheme, control, problem and noise.
        state: Where the trajectories start.
        seed: Of minibatches.
        pauses: Whether they will be held on the way.

    Raises:
        UnfitError: This stepper has no kernel, or the kernel disagrees with eager torch.
    """

    def __init__(self, stepper: Any, state: Any, seed: int = 0, *, pauses: bool = False):
        """See the class."""
        check_place(stepper, state)
        self._draws = Draws(stepper, seed, state.batch)
        if stepper.last_step is None and (pauses or self._draws.waits):
            stepper = replace(stepper, last_step=state.step + NEVER)
        self.stepper = stepper
        self._first = state.step.reshape(-1)
        try:
            self._batch = _begun(stepper, state, self._draws, renew=False)
        except _MismatchError:
            try:
                self._batch = _begun(stepper, state, self._draws, renew=True)
            except _MismatchError as error:
                raise UnfitError(str(error)) from error
        if stepper.last_step is not None:
            self._last = self._until = stepper.last_step.reshape(-1)
            tensors = self._batch.inputs.tensors
            self._ends = next(i for i, t in enumerate(tensors) if t is stepper.last_step)

    @property
    def carry(self) -> Any:
        """Where the trajectories are now; the next launch writes over it."""
        return self._batch.carry()

    def kept(self) -> Any:
        """Where the trajectories are now, to be kept."""
        return mapped(torch.clone, self.carry)

    @property
    def remembers(self) -> bool:
        """Whether the control does."""
        return bool(self._batch.inputs.memory)

    def advance(self, trials: int) -> int:
        """At most so many steps of every trajectory; returns how many still run."""
        if self.remembers:
            carry = self._batch.carry()
            step_size, memory = self.stepper.control.refresh(
                carry.state, carry.step_size, carry.memory, trials
            )
            self._batch.refresh(step_size, memory)
        if not self._batch.inputs.order:
            return self._batch.run(trials)
        steps = _running(self._batch)
        lowest, _ = reached(steps)
        ahead = self._steps_ahead(lowest)
        if not self._draws.waits:
            trials = min(trials, ahead)
            self._draw(steps, trials)
            return self._batch.run(trials)
        self._draw(torch.tensor([lowest]), ahead)
        self._hold(self._until.clamp(max=lowest + ahead))
        self._batch.run(trials)
        return self._release(self._until)

    def _draw(self, steps: Tensor, count: int) -> None:
        """Hands the kernel the minibatches of so many steps."""
        order = self._draws.ahead(steps, count)
        assert order is not None
        for place, tensor in zip(self._batch.inputs.order, order.tensors, strict=True):
            self._batch.arguments[place] = tensor

    def _steps_ahead(self, now: int) -> int:
        """For how many steps to draw minibatches."""
        most = self._draws.most_ahead(now)
        if self.stepper.last_step is None:
            return min(LOOKED_AHEAD, most)
        end = int(self._batch.arguments[self._ends].max())
        return max(1, min(end - now, most))

    def pause_after(self, steps: int) -> None:
        """Holds trajectories that have taken so many steps since the start."""
        self._until = torch.minimum(self._first + steps, self._last)
        self._hold(self._until)

    def resume(self) -> int:
        """Lets trajectories that were held run on; returns how many run."""
        return self._release(self._last)

    def _hold(self, ends: Tensor) -> None:
        """Holds trajectories that reach these steps."""
        status, step = self._status_and_step()
        status[(status == int(Status.RUNNING)) & (step >= ends)] = int(Status.STEPS_TAKEN)
        self._batch.arguments[self._ends] = ends
        self._batch.part_ways()

    def _release(self, ends: Tensor) -> int:
        """Lets those run on that were held before these steps; returns how many run."""
        status, step = self._status_and_step()
        status[(status == int(Status.STEPS_TAKEN)) & (step < ends)] = int(Status.RUNNING)
        return int((status == int(Status.RUNNING)).sum())

    def _status_and_step(self) -> tuple[Tensor, Tensor]:
        status = self._batch.arguments[self._batch.inputs.status]
        return status, self._batch.carry().state.step.reshape(-1)

    def steps_taken(self) -> int:
        """Steps since the start of the trajectory that has taken most."""
        taken = self._batch.carry().state.step.reshape(-1) - self._first
        return int(taken.max()) if taken.numel() else 0


def _running(batch: Batch) -> Tensor:
    """Step numbers of the trajectories that run."""
    carry = batch.carry()
    return carry.state.step[carry.status == int(Status.RUNNING)]


def _begun(stepper: Any, state: Any, draws: Draws, *, renew: bool) -> Batch:
    """The batch at its start, compared with eager torch at some of the trajectories.

    Loss and gradient are compared at every run, a whole step once for each kernel.

    Raises:
        _MismatchError: They disagree.
    """
    chosen = spread(state.step.numel())
    few = some_of(stepper, state, chosen)
    sample = draws.of(chosen).of_steps(first_drawn(*few))
    expected = _expected(*few, sample)
    lanes = lanes_of_memory(few[0], expected)
    order = draws.ahead(state.step, 1)
    inputs = inputs_of(stepper, grown(expected, state, lanes), lanes, order)
    step = _traces.get(stepper, inputs, renew=renew)
    if step.tables and not still_reads(lambda: started(*few, sample), step.tables):
        step = _traces.get(stepper, inputs, renew=True)
    if step.start is None:
        first = draws.of_steps(first_drawn(stepper, state))
        inputs = inputs_of(stepper, started(stepper, state, first), order=order)
    keep_pages(inputs.carry)
    batch = Batch(step, inputs, state.batch)
    if step.start is not None:
        batch.start()
        _check_equal(batch.carried(chosen), expected, "the start")
    unchecked = step.start is None or batch.alike not in step.checked
    # Of trajectories that have all ended there is no step to compare.
    if unchecked and len(batch.running()):
        _compare(stepper, batch, draws)
        step.checked.add(batch.alike)
    return batch


def _expected(stepper: Any, state: Any, sample: Tensor | None) -> Any:
    """The start in eager torch; raises `UnfitError` where the loss can not bear a batch."""
    try:
        return started(stepper, state, sample)
    # A module that steps alone may raise anything when it is vectorised, as dropout does.
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise UnfitError(f"the loss is not taken of a batch: {first}") from error


def _compare(stepper: Any, batch: Batch, draws: Draws) -> None:
    """Raises `_MismatchError` unless a step agrees with eager torch at some trajectories."""
    running = torch.from_numpy(batch.running())
    chosen = running[spread(len(running))]
    few, own = batch.some(chosen), draws.of(chosen)
    if (order := own.ahead(_running(batch), 1)) is not None:
        for place, tensor in zip(few.order, order.tensors, strict=True):
            few.tensors[place] = tensor
    moved = Batch(batch.step, few, torch.Size((len(chosen),)), batch.alike, batch.single)
    moved.run(1)
    start, surroundings = unflattened(few.tensors, few.spec)
    expected = tried(rebound(stepper, surroundings), start, own.of_steps)
    # The estimate of an error near rounding, or a slope between near points, which a control
    # remembers, is itself rounding, and so are the last digits of a step size that follows it.
    control = stepper.control
    weighs = control.rejects or control.uses_gradient(stepper.flow)
    rounding, loose = (few.memory, few.step_size) if weighs else ((), None)
    _check_equal(flattened(moved.carry())[0], expected, "a step", rounding, loose)


def _check_equal(
    ours: list[Tensor],
    carry: Any,
    what: str,
    skipped: Sequence[int] = (),
    loose: int | None = None,
) -> None:
    """Raises `_MismatchError` where our tensors differ from a carry's by more than rounding."""
    expected, _ = flattened(carry)
    pairs = enumerate(zip(ours, expected, strict=True))
    different = {n: p for n, p in pairs if n not in skipped and not torch.equal(*p)}
    largest = max(map(_size, expected), default=0.0) if different else 0.0
    # What is float64 of a float32 trajectory has been computed from float32.
    single = any(tensor.dtype == torch.float32 for tensor in expected)
    kind = torch.float32 if single else torch.float64
    for place, (mine, other) in different.items():
        tolerance = (LOOSE if place == loose else TOLERANCES)[kind]
        tolerance = tolerance if mine.is_floating_point() else 0.0
        _check_close(mine, other, largest, what, tolerance)


def _size(tensor: Tensor) -> float:
    """The largest finite number of a tensor of them."""
    if not tensor.is_floating_point():
        return 0.0
    finite = tensor[torch.isfinite(tensor)].abs()
    return float(finite.max()) if finite.numel() else 0.0


def _check_close(ours: Tensor, theirs: Tensor, largest: float, what: str, tolerance: float) -> None:
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        raise _MismatchError(f"{what} of the kernel has another shape or type than in eager torch")
    if ours.dtype == torch.bool:
        ours, theirs = ours.to(torch.int8), theirs.to(torch.int8)
    # A gradient that vanishes is the rounding of terms that cancel.
    margin = tolerance * (_size(theirs) + ROUNDING * largest)
    if not torch.allclose(ours, theirs, rtol=tolerance, atol=margin, equal_nan=True):
        raise _MismatchError(
            f"{what} of the kernel differs from eager torch: does the loss depend on other "
            "trajectories, on earlier calls or on numbers that change?"
        )


def check_place(stepper: Any, state: Any) -> None:
    """Raises `UnfitError` for what no kernel is made for."""
    kinds = {leaf.device.type for leaf in flattened(state)[0]}
    if kinds - {"cpu"}:
        raise UnfitError(f"kernels run on the CPU, the state is on {sorted(kinds)}")
    Draws(stepper, 0, state.batch).check()
    if not stepper.observed:
        raise UnfitError("the end of a step is not evaluated")


def run(
    stepper: Any,
    state: Any,
    *,
    record: Callable[[Any], None] | None = None,
    intervals: Sequence[int] = (),
    report: Callable[[int], None] | None = None,
    seed: int = 0,
) -> Any:
    """Steps trajectories by a kernel until none runs.

    Args:
        stepper: Joins flow, scheme, control, problem and noise.
        state: Where the trajectories start.
        record: With intervals, called with the carry at the start and whenever a multiple of one
            has been stepped.
        intervals: Steps between records.
        report: Told of new steps, those of the trajectory that has taken most.
        seed: Of minibatches.

    Returns:
        The last carry; from the keyboard, that of the interrupted run.

    Raises:
        UnfitError: There is no kernel for this stepper; nothing has been stepped.
    """
    runner = Runner(stepper, state, seed, pauses=bool(intervals))
    if intervals and record is not None:
        record(runner.kept())
    reached, most, due = 0, FIRST_TRIALS, 0
    # A control that tabulates what lies ahead should not look far beyond the end.
    limit = FIRST_TRIALS if runner.remembers else MOST_TRIALS
    try:
        while True:
            if intervals:
                due = min(interval - due % interval for interval in intervals) + due
                runner.pause_after(due)
            left = 1
            while left:
                begin = time.perf_counter()
                left = runner.advance(most)
                scale = SECONDS_PER_LAUNCH / max(time.perf_counter() - begin, 1e-6)
                most = max(1, min(int(most * min(scale, 8.0)), limit)) if left else most
                if report is not None:
                    steps = runner.steps_taken()
                    report(steps - reached)
                    reached = steps
            if not intervals:
                return runner.carry
            left = runner.resume()
            if record is not None:
                record(runner.kept())
            if not left:
                return runner.carry
    except KeyboardInterrupt:
        carry = runner.carry
        running = carry.status == Status.RUNNING
        interrupted = torch.where(running, int(Status.INTERRUPTED), carry.status)
        return replace(carry, status=interrupted.to(carry.status.dtype))
