"""What torch's distributed checkpoints ask of an optimizer that has not begun.

They load into what is there already. To have it there they step a new optimizer with lr = 0 and
gradients of zero, and without a closure. Such a step makes states and numbers of the right names,
the numbers not known yet NaN, among them the time; the first real step begins without them.
"""

import math
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from flowopt.core.interfaces import StepControl
from flowopt.core.shards import spread
from flowopt.flows import EquationFlow
from flowopt.optim.controlled import trials
from flowopt.optim.distributed.parts import shards_of
from flowopt.optim.gradients import gradients_of, real_view
from flowopt.optim.stepping.cohorts import CLOCK
from flowopt.optim.storage import MEMORY, store
from flowopt.stepper import Carry

Groups = Sequence[dict[str, Any]]


def is_checkpoints(groups: Groups, state: Mapping[Tensor, Any]) -> bool:
    """Whether a step without closure is a checkpoint's: no state, and lr and gradients are 0."""
    if state or any(bool(group["lr"] != 0) for group in groups):
        return False
    moving = [p for group in groups for p in group["params"] if p.grad is not None]
    if not moving:
        return False
    found = torch.zeros((), device=moving[0].device)
    for gradient in gradients_of(moving):
        found = found + (real_view(gradient) != 0).any().to(found)
    # All processes have to agree.
    shards = shards_of(moving)
    return not bool(found if shards is None else spread(found, shards))


def prepare(
    group: dict[str, Any],
    state: MutableMapping[Tensor, Any],
    flow: EquationFlow,
    control: StepControl | None,
    later: bool,
    ends_with_gradient: bool,
    clocks: bool,
) -> None:
    """Makes what a checkpoint of a group is loaded over.

    Args:
        group: Of `param_groups`.
        state: `optimizer.state`.
        flow: What steps the group.
        control: Of the optimizer.
        later: Whether a flow that is singular at time 0 starts shortly after.
        ends_with_gradient: Whether steps evaluate the gradient at their end.
        clocks: Whether each parameter has a time and scalars of its own.
    """
    parameters = [p for p in group["params"] if p.grad is not None]
    if not parameters or group.get("step"):
        # What has begun and keeps nothing has nothing to make.
        return
    places: list[dict[str, Any]] = [{} for _ in parameters]
    start = trials.begun(group, places, parameters, flow, None, later)
    unknown = [name for name in flow.scalars if name not in group]
    kept = None
    # After a control that rejects, the next step begins on another sample.
    if ends_with_gradient and not (control is not None and control.rejects):
        kept = replace(
            start.evaluation, gradient=tuple(leaf.clone() for leaf in start.evaluation.gradient)
        )
    none = torch.zeros_like(start.state.step)
    carry = Carry(start.state, kept, start.state.time, (), none, none, none, none, none)
    numbers = {} if clocks else group
    store(group, numbers, places, parameters, carry)
    if control is not None:
        trials.prepare(control, group, places, parameters, start, flow)
    numbers.update(dict.fromkeys((*unknown, "time"), math.nan))
    if clocks:
        group.update({name: numbers[name] for name in ("step", "time")})
        for place in places:
            place[CLOCK] = dict(numbers)
    # Empty places would be a state for torch.
    state.update({p: place for p, place in zip(parameters, places, strict=True) if place})


def begin(groups: Groups, state: MutableMapping[Tensor, Any]) -> None:
    """Drops what was made for a checkpoint that was not loaded, or was itself of the beginning.

    Args:
        groups: `param_groups`.
        state: `optimizer.state`.
    """
    for group in groups:
        if not _is_unknown(group.get("time")):
            continue
        for parameter in group["params"]:
            state.pop(parameter, None)
        unknown = [name for name, value in group.items() if _is_unknown(value)]
        for name in (*unknown, "step", MEMORY, *trials.COUNTS):
            group.pop(name, None)


def _is_unknown(value: object) -> bool:
    return isinstance(value, float) and value != value
