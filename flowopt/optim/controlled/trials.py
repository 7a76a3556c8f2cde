"""Steps of an optimizer under a control: what it remembers, and trials until one is accepted."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from flowopt.arguments import check_is_control
from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import FlowLike, Point, Scheme, StepControl, Trial
from flowopt.core.probing import same_loss
from flowopt.core.state import State, all_finite
from flowopt.core.trajectory import Status
from flowopt.errors import CompatibilityError
from flowopt.flows import EquationFlow
from flowopt.optim.distributed.parts import mean_over_mesh
from flowopt.optim.gradients import GradientOracle, SameSample, complex_view, real_view
from flowopt.optim.stepping.cohorts import numbers_of
from flowopt.optim.storage import MEMORY, REMEMBERED, STARTED, Places, stored_state
from flowopt.stepper import STATUS_TYPE, Carry, Stepper

# Trials of one step. Halved so often, a step of any size moves nothing.
MOST_TRIALS = 60
COUNTS = ("gradients", "losses", "rejected")


def check_control(
    control: StepControl,
    flow: FlowLike,
    scheme: Scheme,
    *,
    lr: object,
    compile: object,
    differentiable: object,
) -> None:
    """Raises `CompatibilityError` where a control does not fit an optimizer."""
    if lr is not None:
        raise CompatibilityError(
            f"lr={lr!r} came with control={control!r}, which says how far to step: leave lr out, "
            "and give the control its first step"
        )
    check_is_control(control, "lr=0.1")
    control.check(flow, scheme)
    if compile and control.rejects:
        raise CompatibilityError(
            f"compile=True: {control!r} rejects steps, for which your loss is called within a "
            "step: leave compile out"
        )
    if differentiable:
        raise CompatibilityError(
            f"differentiable=True: autograd does not follow the step sizes of {control!r}: leave "
            "one of them out"
        )


@contextmanager
def callable_loss(
    optimizer: torch.optim.Optimizer,
    control: StepControl | None,
    closure: Callable[[], Tensor] | None,
    loss: Callable[[], Tensor] | None,
) -> Iterator[Callable[[], Tensor] | None]:
    """What is called within a step: the closure, or one made of the loss.

    Live numbers are on the host, and meanwhile torch makes them there whatever its default device.

    Args:
        optimizer: Whose gradients are cleared; the loss is the mean over the processes among which
            its parameters are divided.
        control: If it rejects, all calls draw the same random numbers.
        closure: Clears gradients, runs backward and returns the loss.
        loss: Returns the loss.

    Raises:
        CompatibilityError: Both came, or a control that rejects has neither.
    """
    default = torch.empty(0).device
    if default.type != "cpu":
        closure, loss = (_on(default, function) for function in (closure, loss))
        with torch.device("cpu"), callable_loss(optimizer, control, closure, loss) as closure:
            yield closure
        return
    if loss is not None:
        if closure is not None:
            raise CompatibilityError("step took both a closure and a loss: give one of them")
        closure = partial(_differentiated, optimizer.zero_grad, loss)
    closure, loss = (given and partial(_mean, optimizer, given) for given in (closure, loss))
    if control is None or not control.rejects:
        yield closure
        return
    if closure is None:
        raise CompatibilityError(
            f"{control!r} compares losses: call step(closure) or step(loss=...)"
        )
    same = SameSample(closure, loss)
    try:
        yield same
    finally:
        same.finish()


def _on(device: torch.device, function: Callable[[], Tensor] | None) -> Callable[[], Tensor] | None:
    """A function of the user's, called with a default device."""

    def called() -> Tensor:
        assert function is not None
        with device:
            return function()

    return None if function is None else called


def _mean(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> Tensor:
    """The mean of a loss over the processes among which parameters are divided."""
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    return mean_over_mesh(loss(), parameters)


def _differentiated(clear: Callable[[], None], loss: Callable[[], Tensor]) -> Tensor:
    clear()
    value = loss()
    if not isinstance(value, Tensor) or not value.requires_grad or value.numel() != 1:
        raise CompatibilityError(
            "loss= gives a tensor of one element that depends on the parameters, got "
            f"{value!r:.60}: leave out .item() and .detach(), and take the mean"
        )
    value.backward()
    return value.detach()


def check_one_group(control: StepControl, closure_free: bool) -> None:
    """Raises `CompatibilityError` where a control can not judge several groups."""
    if control.rejects or not closure_free:
        raise CompatibilityError(
            f"{control!r} with several groups: what rejects or needs gradients within a step is "
            "judged for all parameters together; put them into one group"
        )


def begun(
    group: dict[str, Any],
    places: Places,
    parameters: list[Tensor],
    flow: EquationFlow,
    loss: Tensor | None,
    later: bool,
) -> Point:
    """State, loss and gradient at the start of a step."""
    sign = -1.0 if group["maximize"] else 1.0
    evaluation = GradientOracle(parameters, sign, None).read(loss)
    step_size = torch.tensor(float(group["lr"]), dtype=torch.float64)
    numbers = numbers_of(group, places)
    state = stored_state(numbers, places, parameters, flow, evaluation, later, step_size)
    return Point(state, evaluation)


def choose_step_size(
    control: StepControl,
    group: dict[str, Any],
    places: Places,
    parameters: Sequence[Tensor],
    end: Point,
    flow: FlowLike,
) -> None:
    """Writes the size of the next step into a group, where nothing is rejected.

    Args:
        control: Judges the last step by the loss and gradient with which the next one begins.
        group: Of `param_groups`.
        places: `optimizer.state` of each parameter.
        parameters: Those that move.
        end: Where the last step ended, on the minibatch of the next.
        flow: What is stepped.
    """
    step_size, memory = _remembered(control, group, end, flow)
    position = end.state.position
    if control.remembers_position and MEMORY in group:
        # A parameter that had no gradient before begins here.
        memory += tuple(
            real_view(place[REMEMBERED]) if REMEMBERED in place else leaf.clone()
            for place, leaf in zip(places, position, strict=True)
        )
    # A parameter that had no gradient before has not begun yet.
    if all(STARTED in place for place in places):
        began = tuple(real_view(place[STARTED]) for place in places)
        begin = Point(end.state.with_position(began), end.evaluation)
        finite = all_finite(end.evaluation.gradient, 0, end.state.shards)
        verdict = control.judge(Trial(flow, begin, end, None, 0, finite, step_size, memory))
        step_size = torch.where(finite, verdict.step_size, step_size)
        pairs = zip(verdict.memory, memory, strict=True)
        memory = tuple(torch.where(finite, new, old) for new, old in pairs)
    if control.uses_gradient(flow):
        _keep(STARTED, places, parameters, [leaf.clone() for leaf in position])
    step_size, _ = control.refresh(end.state, step_size, memory, 1)
    if control.remembers_position:
        _keep(REMEMBERED, places, parameters, memory[-len(position) :])
        memory = memory[: -len(position)]
    _remember(group, step_size, memory)


def _keep(
    name: str, places: Places, parameters: Sequence[Tensor], leaves: Sequence[Tensor]
) -> None:
    """Puts leaves beside their parameters."""
    for place, leaf, parameter in zip(places, leaves, parameters, strict=True):
        place[name] = complex_view(leaf, parameter)


def prepare(
    control: StepControl,
    group: dict[str, Any],
    places: Places,
    parameters: Sequence[Tensor],
    start: Point,
    flow: FlowLike,
) -> None:
    """Makes what a checkpoint of a controlled group is loaded over.

    Args:
        control: Of the optimizer.
        group: Of `param_groups`.
        places: `optimizer.state` of each parameter.
        parameters: Those that will move.
        start: Where they would begin.
        flow: What steps them.
    """
    if control.rejects:
        _remember(group, *control.start(start, flow))
        group.update(dict.fromkeys(COUNTS, 0))
    else:
        choose_step_size(control, group, places, parameters, start, flow)


def tried(
    group: dict[str, Any],
    stepper: Stepper,
    oracle: GradientOracle,
    state: State,
    evaluation: Evaluation,
) -> Carry:
    """The carry after the trials of a step; the start, if none was accepted.

    Args:
        group: Of `param_groups`, where step size, memory and costs are kept.
        stepper: With the control.
        oracle: Of the stepper, for this step's sample.
        state: Where the step begins.
        evaluation: Loss and gradient there.

    Raises:
        CompatibilityError: The loss changes under an identical call.
    """
    probes = MEMORY not in group
    if probes:
        _check_same(evaluation.loss, oracle.evaluate(state.position, None).loss)
    begin = Point(state, evaluation)
    step_size, memory = _remembered(stepper.control, group, begin, stepper.flow)
    none = torch.zeros_like(state.step)
    running = torch.full_like(none, int(Status.RUNNING), dtype=STATUS_TYPE)
    carry = Carry(state, evaluation, step_size, memory, running, none, none, none, none)
    for _ in range(MOST_TRIALS):
        carry = stepper.advance(carry)
        if bool(carry.state.step != state.step) or int(carry.status) != Status.RUNNING:
            break
    if int(carry.status) == Status.STEP_TOO_SMALL:
        # At a minimum of one sample, or near it: that says nothing about the next one.
        carry = replace(carry, step_size=step_size, memory=memory)
    _remember(group, carry.step_size, carry.memory)
    gradients = 1 + probes + int(carry.gradients)
    made = {"gradients": gradients, "losses": 0, "rejected": int(carry.rejected)}
    made["losses" if oracle.forward_alone else "gradients"] += int(carry.losses)
    for name, number in made.items():
        group[name] = group.get(name, 0) + number
    # Its gradient is that of the start: the next step begins on another sample.
    return replace(carry, evaluation=None)


def _remembered(
    control: StepControl, group: dict[str, Any], point: Point, flow: FlowLike
) -> tuple[Tensor, tuple[Tensor, ...]]:
    if MEMORY not in group:
        return control.start(point, flow)
    memory = tuple(v if isinstance(v, Tensor) else _number(v) for v in group[MEMORY])
    return torch.tensor(float(group["lr"]), dtype=torch.float64), memory


def _remember(group: dict[str, Any], step_size: Tensor, memory: tuple[Tensor, ...]) -> None:
    group["lr"] = float(step_size)
    group[MEMORY] = [value.clone() if value.ndim else value.item() for value in memory]


def _check_same(first: Tensor, again: Tensor) -> None:
    """Raises `CompatibilityError` where a loss is another one when it is called again."""
    if not same_loss(first, again):
        raise CompatibilityError(
            f"the loss was {float(first)} and, called again with the same parameters and random "
            f"numbers, {float(again)}: a control that rejects compares losses of one sample, so "
            "the closure must not draw data; draw the minibatch before step(closure)"
        )


def _number(value: float | bool | int) -> Tensor:
    return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
