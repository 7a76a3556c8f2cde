"""Whole trajectories: a loop over the stepper, with records, status and counts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import count

import torch
from torch import Tensor

from flowopt import kernels
from flowopt.arguments import (
    check_duration,
    check_flow_and_scheme,
    check_noise,
    check_settings,
    check_state,
    span,
)
from flowopt.controls import Constant
from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import FlowLike, Noise, Oracle, Scheme, StepControl
from flowopt.core.noise import PhiloxNoise, seeded_noise
from flowopt.core.oracle import as_oracle
from flowopt.core.state import State
from flowopt.core.trajectory import Status
from flowopt.errors import CompatibilityError, ConfigurationError, DataError
from flowopt.records import Recorder
from flowopt.solution import Solution
from flowopt.stepper import Carry, Stepper
from flowopt.stop import Stop, tried_stop

# Ensembles are asked only now and then whether any member still runs: on a GPU an answer costs a
# synchronisation, and the trials of an ended member are masked.
TRIALS_PER_CHUNK = 64

# Below so many steps of trajectories (few ones count as many: they are slow in torch) a kernel is
# not worth its compilation.
WORTH_A_KERNEL = 10_000_000
LEAST_TRAJECTORIES = 1000

NATIVE = "native kernel"
OWN_NOISE = "a kernel draws from the seed's own noise, not from the one given"


def integrate(
    flow: FlowLike,
    scheme: Scheme,
    problem: object,
    start: object,
    *,
    step_size: float | Tensor | None = None,
    steps: int | None = None,
    duration: float | Tensor | None = None,
    control: StepControl | None = None,
    stop: Stop | Callable | None = None,
    record: Mapping = (),
    seed: int = 0,
    noise: Noise | None = None,
    compile: bool | str = "auto",
    progress: bool | Callable[[int], None] = False,
    device: torch.device | str | None = None,
) -> Solution:
    """Steps a flow from a start; one trajectory or a whole ensemble.

    A trajectory that diverges is a result with a status, and keeps its last finite state. Ctrl-C
    ends the run with what there is; `solution.state` continues it. Not differentiable.

    Args:
        flow: The equation.
        scheme: How it becomes a step.
        problem: Anything with `dim` and `loss(theta)`, or a `flowopt.problems.network`.
        start: (*batch, dim), parameters by name for a network, or an earlier `solution.state`.
        step_size: h, time per step; one number or one per trajectory.
        steps: Most accepted steps.
        duration: Time span; the last step is shortened to end there.
        control: Instead of `step_size`.
        stop: `flowopt.stop.gradient(1e-6)`, `flowopt.stop.rest(1e-6)` or a function of
            (state, evaluation) that gives a bool per trajectory.
        record: Name → every so many accepted steps. Names: "position", state variables, "loss",
            "step_size", energies of the flow, "energy" for its first; or name → (every, function of
            (state, evaluation)); or function → every. "position" or a state variable → increasing
            times, (time,) float64: interpolated there.
        seed: Of noise and minibatches.
        noise: Where random numbers come from instead of `seed`, such as a Brownian path by
            `flowopt.adapters`; steps are then made in eager torch.
        compile: True for a native kernel, False for eager torch, "auto" for the engine of a run
            that goes on, else a kernel where steps × max(trajectories, 1000) reach 10⁷ and it fits.
        progress: True for a progress bar, or a function of the number of new steps.
        device: Where to compute; by default where the start lies.

    Returns:
        Final position and state, status, steps, records, times and counts.

    Raises:
        CompatibilityError: Flow, scheme, control and problem do not fit; or compile=True and the
            step is no kernel.
        ConfigurationError: An argument is missing or contradicts another.
        DataError: The start or the loss has the wrong shape or type.
    """
    check_flow_and_scheme(flow, scheme)
    check_settings(step_size, steps, duration, control, seed, compile)
    check_noise(noise)
    control = control or Constant(step_size)
    with torch.no_grad():
        plan = _joined(
            flow, scheme, problem, start, steps, duration, control, stop, seed, device, noise
        )
        oracle, step = plan.stepper.oracle, plan.state.step
        recorder = Recorder(record, plan.stepper, step_size)
        engine, carry = _stepped(plan, recorder, seed, progress, steps, compile)
    records, times = recorder.result()
    return Solution(
        position=oracle.join(carry.state.position),
        state=replace(carry.state, native=engine == NATIVE),
        status=carry.status,
        steps=carry.state.step - step,
        records=records,
        times=times,
        counts={
            "gradients": carry.gradients,
            "losses": torch.zeros_like(carry.gradients),
            "products": carry.products,
            "rejected": carry.rejected,
        },
        loss=carry.evaluation.loss,
        engine=engine,
        origin={
            "flow": repr(flow),
            "scheme": repr(scheme),
            "problem": getattr(problem, "name", type(problem).__name__),
            "control": repr(control),
            "seed": seed,
        },
    )


def describe_kernel(
    flow: FlowLike,
    scheme: Scheme,
    problem: object,
    start: object,
    *,
    step_size: float | Tensor | None = None,
    control: StepControl | None = None,
    stop: Stop | Callable | None = None,
    seed: int = 0,
) -> kernels.Description:
    """The kernel that `integrate` would step with; `str` is its program, readable.

    Args:
        flow: The equation.
        scheme: How it becomes a step.
        problem: As for `integrate`.
        start: As for `integrate`.
        step_size: h, time per step.
        control: Instead of `step_size`.
        stop: As for `integrate`.
        seed: Of noise.

    Raises:
        CompatibilityError: The step is no kernel; the message says why.
        ConfigurationError: An argument is missing or contradicts another.
    """
    check_flow_and_scheme(flow, scheme)
    check_settings(step_size, 1, None, control, seed, True)
    control = control or Constant(step_size)
    with torch.no_grad():
        plan = _joined(flow, scheme, problem, start, 1, None, control, stop, seed, None)
        return kernels.describe(plan.stepper, plan.carry())


@dataclass(frozen=True)
class _Plan:
    """What makes a run, and where it begins.

    Attributes:
        stepper: Joins flow, scheme, control, problem and noise.
        state: Of all trajectories.
        first: Step number.
        evaluate: Loss and gradient of the state, in eager torch; computed once.
    """

    stepper: Stepper
    state: State
    first: int
    evaluate: Callable[[], Evaluation]

    def carry(self) -> Carry:
        """The first carry, in eager torch."""
        return self.stepper.start(self.state, self.evaluate())


def _joined(
    flow: FlowLike,
    scheme: Scheme,
    problem: object,
    start: object,
    steps: int | None,
    duration: float | Tensor | None,
    control: StepControl,
    stop: Stop | Callable | None,
    seed: int,
    device: torch.device | str | None,
    noise: Noise | None = None,
) -> _Plan:
    """Everything that makes a run, checked; what a kernel may compute is not computed."""
    scheme.check(flow)
    control.check(flow, scheme)
    check_duration(duration, flow)
    oracle, position, earlier = _opened(problem, start, device, flow)
    batch = tuple(oracle.batch(position))
    where = position[0].device
    flow = flow.fitted(batch, where)
    if earlier is None:
        step, first = torch.zeros(batch, dtype=torch.int64, device=where), 0
    else:
        step = earlier.step
        # Members that ended earlier do not move on; those that run are at the largest number.
        first = int(step.max()) if step.numel() else 0
    # A scheme that ended with a gradient had it on the minibatch of the step before.
    behind = 1 if first and scheme.ends_with_gradient(flow) else 0
    evaluate = cache(lambda: oracle.evaluate(position, oracle.draw(first - behind, seed, batch)))
    later = scheme.regular_start or control.regular_start
    state = earlier or flow.initial_state(position, step, lambda _: evaluate(), later)
    stepper = Stepper(
        flow,
        scheme,
        oracle,
        seeded_noise(seed, batch, where) if noise is None else noise,
        control,
        tried_stop(stop, state, evaluate),
        None if duration is None else state.time + span(duration, batch, where),
        None if steps is None else state.step + steps,
    )
    return _Plan(stepper, state, first, evaluate)


def _reason_against_kernel(compile: bool | str, plan: _Plan, recorder: Recorder) -> str | None:
    """Why not to try a kernel; None where one is to be tried."""
    if compile is False:
        return "compile=False"
    stepper, state = plan.stepper, plan.state
    seeded = isinstance(stepper.noise, PhiloxNoise)
    if misfit := recorder.against_kernel if seeded else OWN_NOISE:
        if compile is True:
            raise CompatibilityError(f"compile=True: {misfit}")
        return misfit
    if compile is True or state.native:
        return None
    if state.native is False:
        return "as the run that this one continues"
    if stepper.last_step is not None:
        steps = stepper.last_step - state.step
    else:
        steps = (stepper.end_time - state.time) / plan.carry().step_size
    trajectories = max(steps.numel(), LEAST_TRAJECTORIES)
    if steps.numel() and float(steps.max()) * trajectories >= WORTH_A_KERNEL:
        return None
    return f"fewer than {WORTH_A_KERNEL:.0e} steps of trajectories"


def _stepped(
    plan: _Plan,
    recorder: Recorder,
    seed: int,
    progress: bool | Callable[[int], None],
    steps: int | None,
    compile: bool | str,
) -> tuple[str, Carry]:
    """The engine and the last carry."""
    reason = _reason_against_kernel(compile, plan, recorder)
    if reason is None:
        report, close = _reporter(progress, steps)
        try:
            carry = kernels.run(
                plan.stepper,
                plan.state,
                record=recorder.take,
                intervals=recorder.intervals,
                report=report,
                seed=seed,
            )
            return NATIVE, carry
        except kernels.UnfitError as error:
            if compile is True:
                raise
            reason = str(error)
        finally:
            close()
    return f"eager torch: {reason}", _run(plan, recorder, seed, progress, steps)


def _run(
    plan: _Plan,
    recorder: Recorder,
    seed: int,
    progress: bool | Callable[[int], None],
    steps: int | None,
) -> Carry:
    """Advances until no trajectory runs; from the keyboard, until interrupted."""
    stepper, first, batch = plan.stepper, plan.first, tuple(plan.state.batch)
    carry = plan.carry()
    recorder.take(carry)
    report, close = _reporter(progress, steps)
    draw = stepper.oracle.draw
    following = draw(first, seed, batch)
    # One trajectory is asked at every step, since it carries no mask; and so is one that follows a
    # given path, which may end there.
    masked = batch and isinstance(stepper.noise, PhiloxNoise)
    patience = TRIALS_PER_CHUNK if masked else 1
    try:
        for trial in count():
            if trial % TRIALS_PER_CHUNK == 0:
                step_size, memory = stepper.control.refresh(
                    carry.state, carry.step_size, carry.memory, TRIALS_PER_CHUNK
                )
                carry = replace(carry, step_size=step_size, memory=memory)
            if trial % patience == 0 and not bool((carry.status == Status.RUNNING).any()):
                return carry
            sample, following = following, draw(first + trial + 1, seed, batch)
            moved, proposal = stepper.attempt(carry, sample, following)
            if not batch and bool(moved.status == Status.DIVERGED):
                return replace(moved, state=carry.state, evaluation=carry.evaluation)
            carry = moved
            recorder.take(carry, proposal.interpolant)
            del proposal  # It may hold all stages of the step.
            if report is not None:
                report(1)
    except KeyboardInterrupt:
        running = carry.status == Status.RUNNING
        return replace(carry, status=torch.where(running, int(Status.INTERRUPTED), carry.status))
    finally:
        close()


def _reporter(progress: bool | Callable, steps: int | None) -> tuple[Callable | None, Callable]:
    """A function that is told of new steps, if somebody wants to know, and one that ends it."""
    if callable(progress):
        return progress, lambda: None
    if not progress:
        return None, lambda: None
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ConfigurationError(
            "progress=True needs tqdm: install flowopt[studies], or give a function"
        ) from error
    bar = tqdm(total=steps, unit="step", disable=None)
    return bar.update, bar.close


def _opened(
    problem: object, start: object, device: torch.device | str | None, flow: FlowLike
) -> tuple[Oracle, tuple[Tensor, ...], State | None]:
    """Oracle, position and, if the run continues, the earlier state."""
    earlier = start if isinstance(start, State) else None
    device = None if device is None else _device(device)
    leaves = earlier.position if earlier else _tensors(start)
    if any(leaf.requires_grad for leaf in leaves):
        raise DataError("integrate is not differentiable and the start requires grad: detach it")
    if earlier and device is not None:
        earlier = replace(
            earlier.map(lambda leaf: leaf.to(device)),
            time=earlier.time.to(device),
            step=earlier.step.to(device),
        )
    elif device is not None:
        start = _moved(start, device)
    leaves = earlier.position if earlier else _tensors(start)
    sample = leaves[0] if leaves else torch.zeros(0)
    dtype = sample.dtype if sample.is_floating_point() else torch.float64
    oracle = as_oracle(problem, dtype, sample.device)
    if earlier is None:
        return oracle, oracle.leaves(start), None
    check_state(earlier, flow, oracle)
    return oracle, earlier.position, earlier


def _device(name: torch.device | str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(f"device {name!r} can not be used here: {error}") from error


def _tensors(start: object) -> tuple[Tensor, ...]:
    if isinstance(start, Tensor):
        return (start,)
    if isinstance(start, Mapping):
        return tuple(value for value in start.values() if isinstance(value, Tensor))
    return ()


def _moved(start: object, device: torch.device | str) -> object:
    if isinstance(start, Tensor):
        return start.to(device)
    if isinstance(start, Mapping):
        return {name: value.to(device) for name, value in start.items()}
    return start
