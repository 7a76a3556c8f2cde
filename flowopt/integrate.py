"""Whole trajectories: a loop over the stepper, with records, status and counts."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count

import torch
from torch import Tensor

from flowopt import kernels
from flowopt.arguments import (
    check_flow_and_scheme,
    check_noise,
    check_progress,
    check_settings,
)
from flowopt.controls import Constant
from flowopt.core.interfaces import FlowLike, Noise, Oracle, Scheme, StepControl
from flowopt.core.noise import PhiloxNoise, own_draws
from flowopt.core.oracle import Problem
from flowopt.core.trajectory import Status
from flowopt.errors import CompatibilityError, ConfigurationError
from flowopt.plan import Plan, beginning, joined, one_per_step, one_per_trial
from flowopt.records import Recorder
from flowopt.solution import Solution
from flowopt.stepper import Carry
from flowopt.stop import Stop

# Ensembles are asked only now and then whether any member still runs: on a GPU an answer costs a
# synchronisation, and the trials of an ended member are masked.
TRIALS_PER_CHUNK = 64

# Below so many steps of trajectories (few ones count as many: they are slow in torch) a kernel is
# not worth its compilation.
WORTH_A_KERNEL = 10_000_000
LEAST_TRAJECTORIES = 1000

NATIVE = "native kernel"
NOTHING = "there is nothing to step"
OWN_NOISE = "a kernel draws from the seed's own noise, not from the one given"


def integrate(
    flow: FlowLike,
    scheme: Scheme,
    problem: Problem | Oracle,
    start: object,
    *,
    step_size: float | Tensor | None = None,
    steps: int | None = None,
    duration: float | Tensor | None = None,
    control: StepControl | None = None,
    stop: Stop | Callable | None = None,
    record: Mapping | tuple[()] = (),
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
        control: Instead of `step_size`. It begins anew where the start is an earlier state, with
            its first step; a `Schedule` goes on.
        stop: `flowopt.stop.gradient(1e-6)`, `flowopt.stop.rest(1e-6)` or a function of
            (state, evaluation) that gives a bool per trajectory.
        record: Name → every so many accepted steps. Names: "position", state variables, "loss",
            "step_size", energies of the flow, "energy" for its first; or name → (every, function of
            (state, evaluation)); or function → every. "position" or a state variable → increasing
            times, (time,) float64: interpolated there.
        seed: Of noise, minibatches, and what a module draws itself, as dropout does.
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
    check_progress(progress)
    check_noise(noise)
    control = _control(step_size, control)
    with torch.no_grad(), own_draws(seed, *beginning(start, device)):
        plan = joined(
            flow, scheme, problem, start, steps, duration, control, stop, seed, device, noise
        )
        oracle, step = plan.stepper.oracle, plan.state.step
        recorder = Recorder(record, plan.stepper, step_size)
        at_its_end = steps == 0 or not step.numel()
        reason = _reason_against_kernel(compile, plan, recorder, at_its_end)
        engine, carry = _stepped(plan, recorder, seed, progress, steps, compile, reason)
    records, times = recorder.result()
    native = plan.state.native if at_its_end else engine == NATIVE
    return Solution(
        position=oracle.join(carry.state.position),
        state=replace(carry.state, native=native),
        status=carry.status,
        steps=carry.state.step - step,
        records=records,
        times=times,
        counts={
            "gradients": carry.gradients,
            "losses": carry.losses,
            "products": carry.products,
            "rejected": carry.rejected,
        },
        loss=carry.point.evaluation.loss,
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
    problem: Problem | Oracle,
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
    control = _control(step_size, control)
    with torch.no_grad():
        plan = joined(flow, scheme, problem, start, 1, None, control, stop, seed, None)
        return kernels.describe(plan.stepper, plan.carry())


def _control(step_size: float | Tensor | None, control: StepControl | None) -> StepControl:
    """The one of the two that was given, as a control."""
    if control is not None:
        return control
    assert step_size is not None
    return Constant(step_size)


def _reason_against_kernel(
    compile: bool | str, plan: Plan, recorder: Recorder, at_its_end: bool
) -> str | None:
    """Why not to try a kernel; None where one is to be tried."""
    if compile is False:
        return "compile=False"
    stepper, state = plan.stepper, plan.state
    if at_its_end:
        return NOTHING
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
        assert stepper.end_time is not None
        steps = (stepper.end_time - state.time) / plan.carry().step_size
    trajectories = max(steps.numel(), LEAST_TRAJECTORIES)
    if float(steps.max()) * trajectories >= WORTH_A_KERNEL:
        return None
    return f"fewer than {WORTH_A_KERNEL:.0e} steps of trajectories"


def _stepped(
    plan: Plan,
    recorder: Recorder,
    seed: int,
    progress: bool | Callable[[int], None],
    steps: int | None,
    compile: bool | str,
    reason: str | None,
) -> tuple[str, Carry]:
    """The engine and the last carry; the reason is that against a kernel."""
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
    plan: Plan,
    recorder: Recorder,
    seed: int,
    progress: bool | Callable[[int], None],
    steps: int | None,
) -> Carry:
    """Advances until no trajectory runs; from the keyboard, until interrupted."""
    stepper, batch = plan.stepper, tuple(plan.state.batch)
    carry = plan.carry()
    recorder.take(carry)
    report, close = _reporter(progress, steps)
    if stepper.sampled:
        attempt = one_per_step(stepper, seed, plan.state.step)
    else:
        attempt = one_per_trial(stepper, plan.first, seed, batch)
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
                break
            moved, proposal = attempt(carry)
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
    return carry


def _reporter(progress: bool | Callable, steps: int | None) -> tuple[Callable | None, Callable]:
    """A function that is told of new steps, if somebody wants to know, and one that ends it."""
    if callable(progress):
        return progress, lambda: None
    if progress is not True:
        return None, lambda: None
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ConfigurationError(
            "progress=True needs tqdm: install flowopt[studies], or give a function"
        ) from error
    bar = tqdm(total=steps, unit="step", disable=None)
    return bar.update, bar.close
