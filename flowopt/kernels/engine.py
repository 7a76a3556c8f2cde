"""Trajectories by a native kernel: checked against eager torch, launched in chunks."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from flowopt.core.trajectory import Status
from flowopt.kernels.native.launch import pointers, run_blocks
from flowopt.kernels.program import UnfitError
from flowopt.kernels.step import Inputs, TracedStep, Traces, inputs_of, rebound

# A launch is not interrupted, so it is kept short; results do not depend on this.
SECONDS_PER_LAUNCH = 0.1
FIRST_TRIALS = 4096
MOST_TRIALS = 1 << 20
# Starts at which a kernel is compared with eager torch before it is used.
CHECKED_STARTS = 16
# More steps than anyone takes: an end that is never reached.
NEVER = 1 << 60
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3}

_traces = Traces()


class Runner:
    """A batch of trajectories on its way through a kernel.

    Args:
        stepper: Joins flow, scheme, control, problem and noise.
        carry: Where the trajectories are.

    Raises:
        UnfitError: This stepper has no kernel, or the kernel disagrees with eager torch.
    """

    def __init__(self, stepper: Any, carry: Any):
        """See the class."""
        check_place(stepper, carry)
        self.stepper = stepper
        inputs = inputs_of(stepper, carry)
        self._first = carry.state.step.reshape(-1)
        if stepper.last_step is not None:
            self._last = stepper.last_step.reshape(-1)
            self._ends = next(i for i, t in enumerate(inputs.tensors) if t is stepper.last_step)
        try:
            step = _traces.get(stepper, inputs)
            self._launch = _Launch(step, inputs, carry.state.batch)
            self._compare(step, inputs, carry)
        except _MismatchError:
            step = _traces.get(stepper, inputs, renew=True)
            self._launch = _Launch(step, inputs, carry.state.batch)
            try:
                self._compare(step, inputs, carry)
            except _MismatchError as error:
                raise UnfitError(str(error)) from error

    @property
    def carry(self) -> Any:
        """Where the trajectories are now."""
        return self._launch.carry()

    def advance(self, trials: int) -> int:
        """At most so many steps of every trajectory; returns how many still run."""
        carry = self._launch.carry()
        step_size, memory = self.stepper.control.refresh(
            carry.state, carry.step_size, carry.memory, trials
        )
        self._launch.refresh(step_size, memory)
        return self._launch.run(trials)

    def pause_after(self, steps: int) -> None:
        """Holds trajectories that have taken so many steps since the start."""
        pause = torch.minimum(self._first + steps, self._last)
        self._launch.arguments[self._ends] = pause

    def resume(self) -> int:
        """Lets trajectories that were held run on; returns how many run."""
        status = self._launch.arguments[self._launch.inputs.status]
        step = self._launch.carry().state.step.reshape(-1)
        held = (status == int(Status.STEPS_TAKEN)) & (step < self._last)
        status[held] = int(Status.RUNNING)
        return int((status == int(Status.RUNNING)).sum())

    def steps_taken(self) -> int:
        """Steps since the start of the trajectory that has taken most."""
        taken = self._launch.carry().state.step.reshape(-1) - self._first
        return int(taken.max()) if taken.numel() else 0

    def _compare(self, step: TracedStep, inputs: Inputs, carry: Any) -> None:
        """Raises `_MismatchError` unless the kernel agrees with eager torch at some trajectories.

        The whole step is compared once for each kernel, loss and gradient at every launch.
        """
        chosen = _spread(carry.status)
        few = _rows(inputs, chosen)
        launch = _Launch(step, few, torch.Size((len(chosen),)), self._launch.alike)
        launch.run(1)
        moved = launch.carry()
        if launch.alike not in step.checked:
            start, surroundings = pytree.tree_unflatten(few.tensors, few.spec)
            stepper = rebound(self.stepper, surroundings)
            expected = pytree.tree_leaves(stepper.advance(start))
            for ours, theirs in zip(pytree.tree_leaves(moved), expected, strict=True):
                _check_close(ours, theirs, "a step")
        # What a trajectory that diverged says about the position that it keeps is left open.
        sound = moved.status != int(Status.DIVERGED)
        evaluation = self.stepper.oracle.evaluate(moved.state.position, None)
        _check_close(moved.evaluation.loss[sound], evaluation.loss[sound], "the loss")
        for ours, theirs in zip(moved.evaluation.gradient, evaluation.gradient, strict=True):
            _check_close(ours[sound], theirs[sound], "the gradient")
        step.checked.add(launch.alike)


class _MismatchError(Exception):
    """The kernel and eager torch disagree."""


class _Launch:
    """Memory and code of one batch."""

    def __init__(
        self,
        step: TracedStep,
        inputs: Inputs,
        batch: torch.Size,
        alike: frozenset[int] | None = None,
    ):
        self.step, self.inputs, self.batch = step, inputs, batch
        self.count = batch.numel()
        self.alike = shared_places(inputs) if alike is None else alike
        self.source, self.code = step.kernel(inputs.status, self.alike)
        self.arguments = [
            _columns(tensor, len(batch)) if lane else tensor.contiguous()
            for tensor, lane in zip(inputs.tensors, inputs.lanes, strict=True)
        ]
        self.captured = step.traced.captured
        self.results: dict[int, Tensor] = {}

    def refresh(self, step_size: Tensor, memory: Sequence[Tensor]) -> None:
        """Takes what the control says before a chunk."""
        places = (self.inputs.step_size, *self.inputs.memory)
        for place, tensor in zip(places, (step_size, *memory), strict=True):
            lane = self.inputs.lanes[place]
            column = _columns(tensor, len(self.batch)) if lane else tensor.contiguous()
            if column.data_ptr() != self.arguments[place].data_ptr():
                self.arguments[place] = column

    def run(self, trials: int) -> int:
        """Launches the kernel; returns how many trajectories still run."""
        running = self.arguments[self.inputs.status].numpy() == int(Status.RUNNING)
        witness = int(running.argmax()) if self.count else 0
        if not self.count or not running[witness]:
            return 0
        self._keep_alike(running, witness)
        layout = self.source.layout
        shared = {
            slot: self.arguments[slot].reshape(-1, self.count)[:, witness].clone()
            for slot in layout.shared
        }
        results = {}
        for slot in layout.carried:
            # A chunk after the first writes where it reads: what the caller gave stays as it was.
            own = self.results.get(slot)
            fresh = own is not self.arguments[slot]
            results[slot] = torch.empty_like(self.arguments[slot]) if fresh else own
        tensors = [*self.arguments, *(t.detach().contiguous() for t in self.captured)]
        addresses, sizes = pointers(layout, tensors, results, shared)
        left = run_blocks(
            self.code,
            addresses,
            sizes,
            trials=trials,
            count=self.count,
            lanes=self.source.lanes,
        )
        self.results = results
        for slot, tensor in results.items():
            self.arguments[slot] = tensor
        return left

    def _keep_alike(self, running: np.ndarray, witness: int) -> None:
        """Takes another kernel where trajectories have no longer in common what they had.

        Trajectories that were held at records have made different numbers of trials.
        """
        kept = set()
        for place in self.alike:
            numbers = self.arguments[place].numpy()
            if ((numbers == numbers[witness]) | ~running).all():
                kept.add(place)
        if kept != self.alike:
            self.alike = frozenset(kept)
            self.source, self.code = self.step.kernel(self.inputs.status, self.alike)

    def carry(self) -> Any:
        """The carry with the batch's own shape."""
        leaves = []
        for place in range(len(self.inputs.tensors)):
            tensor = self.arguments[place]
            if self.inputs.lanes[place]:
                tensor = _rows_of(tensor, self.batch, self.inputs.rest(place))
            leaves.append(tensor)
        carry, _ = pytree.tree_unflatten(leaves, self.inputs.spec)
        return carry


def _columns(tensor: Tensor, batch_dimensions: int) -> Tensor:
    """(*batch, *rest) as struct of arrays, (rest…, count) in memory."""
    rest = tensor.shape[batch_dimensions:]
    if rest.numel() == 1:
        return tensor.reshape(-1).contiguous()
    return tensor.reshape(-1, rest.numel()).t().contiguous()


def _rows_of(tensor: Tensor, batch: torch.Size, rest: tuple[int, ...]) -> Tensor:
    """The inverse of `_columns`."""
    return tensor.reshape(-1, batch.numel()).t().reshape((*batch, *rest))


def shared_places(inputs: Inputs) -> frozenset[int]:
    """Places whose numbers are the same for all trajectories."""
    found = set()
    for place in inputs.scalars:
        tensor = inputs.tensors[place]
        if inputs.lanes[place] and tensor.numel() and inputs.rest(place) == ():
            # numpy: threads would cost more than they gain.
            numbers = tensor.numpy()
            if numbers.min() == numbers.max():
                found.add(place)
    return frozenset(found)


def _spread(status: Tensor) -> Tensor:
    """Indices of up to 16 trajectories, of those that run if any does."""
    running = np.flatnonzero(status.numpy() == int(Status.RUNNING))
    if not len(running):
        running = np.arange(status.numel())
    places = np.linspace(0, len(running) - 1, min(CHECKED_STARTS, len(running)))
    return torch.from_numpy(running[places.round().astype(np.int64)])


def _rows(inputs: Inputs, chosen: Tensor) -> Inputs:
    """The same inputs for some of the trajectories, as a batch of one dimension."""
    tensors = [
        tensor.reshape((-1, *inputs.rest(place)))[chosen] if lane else tensor
        for place, (tensor, lane) in enumerate(zip(inputs.tensors, inputs.lanes, strict=True))
    ]
    return inputs._replace(tensors=tensors)


def _check_close(ours: Tensor, theirs: Tensor, what: str) -> None:
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        raise _MismatchError(f"{what} of the kernel has another shape or type than in eager torch")
    if ours.dtype == torch.bool:
        ours, theirs = ours.to(torch.int8), theirs.to(torch.int8)
    tolerance = TOLERANCES.get(ours.dtype, 0.0)
    scale = theirs[torch.isfinite(theirs)].abs().to(torch.float64)
    margin = tolerance * float(scale.max()) if scale.numel() else 0.0
    if not torch.allclose(ours, theirs, rtol=tolerance, atol=margin, equal_nan=True):
        raise _MismatchError(
            f"{what} of the kernel differs from eager torch: does the loss depend on other "
            "trajectories, on earlier calls or on numbers that change?"
        )


def check_place(stepper: Any, carry: Any) -> None:
    """Raises `UnfitError` for what no kernel is made for."""
    leaves = pytree.tree_leaves(carry)
    kinds = {leaf.device.type for leaf in leaves}
    if kinds - {"cpu"}:
        raise UnfitError(f"kernels run on the CPU, the state is on {sorted(kinds)}")
    if stepper.oracle.draw(0, 0, carry.state.batch) is not None:
        raise UnfitError("the problem draws minibatches")
    if carry.evaluation is None or not stepper.observed:
        raise UnfitError("the end of a step is not evaluated")


def run(
    stepper: Any,
    carry: Any,
    *,
    record: Callable[[Any], None] | None = None,
    intervals: Sequence[int] = (),
    report: Callable[[int], None] | None = None,
) -> Any:
    """Steps trajectories by a kernel until none runs.

    Args:
        stepper: Joins flow, scheme, control, problem and noise.
        carry: Where the trajectories are.
        record: Called with the carry whenever a multiple of an interval has been stepped.
        intervals: Steps between records.
        report: Told of new steps, those of the trajectory that has taken most.

    Returns:
        The last carry; from the keyboard, that of the interrupted run.

    Raises:
        UnfitError: There is no kernel for this stepper; nothing has been stepped.
    """
    if intervals and stepper.last_step is None:
        stepper = replace(stepper, last_step=carry.state.step + NEVER)
    runner = Runner(stepper, carry)
    reached, most, due = 0, FIRST_TRIALS, 0
    # A control that tabulates what lies ahead should not look far beyond the end.
    limit = FIRST_TRIALS if carry.memory else MOST_TRIALS
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
                # The next launch writes over the carry of this one.
                record(pytree.tree_map(torch.clone, runner.carry))
            if not left:
                return runner.carry
    except KeyboardInterrupt:
        carry = runner.carry
        running = carry.status == Status.RUNNING
        interrupted = torch.where(running, int(Status.INTERRUPTED), carry.status)
        return replace(carry, status=interrupted.to(carry.status.dtype))
