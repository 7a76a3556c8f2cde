"""What makes a run, and where it begins: arguments checked, state and stepper made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor

from flowopt.arguments import check_duration, check_state, span
from flowopt.core.curvature.solving import solving
from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import (
    FlowLike,
    Noise,
    Oracle,
    Point,
    Proposal,
    Sample,
    Scheme,
    StepControl,
)
from flowopt.core.noise import seeded_noise
from flowopt.core.oracle import Problem, as_oracle, drawn
from flowopt.core.probing import same_loss
from flowopt.core.state import Leaves, State
from flowopt.errors import CompatibilityError, ConfigurationError, DataError
from flowopt.stepper import Carry, Stepper
from flowopt.stop import Stop, tried_stop

Attempt = Callable[[Carry], tuple[Carry, Proposal]]


@dataclass(frozen=True)
class Plan:
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


def beginning(start: object, device: torch.device | str | None) -> tuple[int, torch.device]:
    """Number of the first step, and where it is computed."""
    step = start.step if isinstance(start, State) else None
    first = 0 if step is None or not step.numel() else int(step.max())
    if device is not None:
        return first, _device(device)
    leaves = start.position if isinstance(start, State) else _tensors(start)
    return first, leaves[0].device if leaves else torch.device("cpu")


def joined(
    flow: FlowLike,
    scheme: Scheme,
    problem: Problem | Oracle,
    start: object,
    steps: int | None,
    duration: float | Tensor | None,
    control: StepControl,
    stop: Stop | Callable | None,
    seed: int,
    device: torch.device | str | None,
    noise: Noise | None = None,
) -> Plan:
    """Everything that makes a run, checked; what a kernel may compute is not computed."""
    scheme.check(flow)
    control.check(flow, scheme)
    check_duration(duration, flow)
    oracle, position, earlier = _opened(problem, start, device, flow)
    batch = tuple(oracle.batch(position))
    where = position[0].device
    flow = flow.fitted(batch, where)
    if earlier is None:
        step, first = _everywhere(0, batch, where), 0
    else:
        step = earlier.step
        # Members that had ended earlier go on with the minibatches of those that are furthest.
        first = int(step.max()) if step.numel() else 0
    # A scheme that ended with a gradient had it on the minibatch of the step before.
    behind = 1 if first and scheme.ends_with_gradient(flow) else 0
    sampled = control.sampling == "step" and oracle.draw(first, seed, batch) is not None
    view = solving(oracle, flow.damping)

    def sample() -> Sample:
        draw = partial(oracle.draw, seed=seed, batch=batch)
        return drawn(draw, step) if sampled else draw(first - behind)

    # Of several trajectories a loss that draws is refused anyway, where it is vectorised.
    if control.rejects and control.sampling == "step" and not batch:
        _check_repeats(control, partial(oracle.losses, position, sample()))

    @cache
    def evaluate() -> Evaluation:
        return view.evaluate(position, sample())

    state = earlier or _begun(flow, scheme, control, position, step, evaluate)
    stepper = Stepper(
        flow,
        scheme,
        oracle,
        seeded_noise(seed, batch, where) if noise is None else noise,
        control,
        tried_stop(stop, state, evaluate),
        None if duration is None else state.time + span(duration, batch, where),
        _last_step(step, steps, earlier),
        sampled=sampled,
    )
    return Plan(stepper, state, first, evaluate)


def _everywhere(number: int, batch: Sequence[int], device: torch.device) -> Tensor:
    """The same number for all trajectories, once in memory."""
    return torch.tensor(number, device=device).expand(batch)


def _last_step(step: Tensor, steps: int | None, earlier: State | None) -> Tensor | None:
    if steps is None:
        return None
    return _everywhere(steps, step.shape, step.device) if earlier is None else step + steps


def _check_repeats(control: StepControl, loss: Callable[[], Tensor]) -> None:
    """Raises `CompatibilityError` where a loss is another one when it is called again."""
    first, again = loss(), loss()
    if not same_loss(first, again):
        raise CompatibilityError(
            f"the loss was {float(first):g} and, called again at the same place, {float(again):g}: "
            f"{control!r} compares losses of one sample, so that the loss must draw no random "
            "numbers: use module.eval(), or a control that never rejects"
        )


def _begun(
    flow: FlowLike,
    scheme: Scheme,
    control: StepControl,
    position: Leaves,
    step: Tensor,
    evaluate: Callable[[], Evaluation],
) -> State:
    """The flow's initial state, shortly after time 0 where the scheme needs a regular drift."""
    later = scheme.regular_start
    state = flow.initial_state(position, step, lambda _: evaluate(), later)
    if not (later and flow.singular_at_start) or control.rejects:
        return state
    step_size, _ = control.start(Point(state, evaluate()), flow)
    return flow.initial_state(position, step, lambda _: evaluate(), later, step_size)


def _opened(
    problem: Problem | Oracle, start: object, device: torch.device | str | None, flow: FlowLike
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
    except (RuntimeError, AssertionError, TypeError) as error:
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
        # What is no tensor is refused by the network, which knows what it expects.
        return {n: v.to(device) if isinstance(v, Tensor) else v for n, v in start.items()}
    return start


def one_per_trial(stepper: Stepper, first: int, seed: int, batch: tuple[int, ...]) -> Attempt:
    """Trials that end on the minibatch of the next."""
    draw = stepper.oracle.draw
    number, following = first, draw(first, seed, batch)

    def attempt(carry: Carry) -> tuple[Carry, Proposal]:
        nonlocal number, following
        number += 1
        sample, following = following, draw(number, seed, batch)
        return stepper.attempt(carry, sample, following)

    return attempt


def one_per_step(stepper: Stepper, seed: int, step: Tensor) -> Attempt:
    """Trials that start and end on the minibatch of their step, until one is accepted."""
    draw = partial(stepper.oracle.draw, seed=seed, batch=tuple(step.shape))
    sample = drawn(draw, step)

    def attempt(carry: Carry) -> tuple[Carry, Proposal]:
        nonlocal sample
        after, proposal = stepper.attempt(carry, sample, sample)
        moved = after.state.step != carry.state.step
        if bool(moved.any()):
            sample = drawn(draw, after.state.step)
            after = stepper.renewed(after, moved, sample)
        return after, proposal

    return attempt
