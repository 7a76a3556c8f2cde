"""States in torch's places: tensors in `optimizer.state`, live numbers in `param_groups`."""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from flowopt.core.evaluation import Evaluation
from flowopt.core.state import Leaves, Owned, State
from flowopt.flows import EquationFlow
from flowopt.optim.distributed.parts import shards_of
from flowopt.optim.gradients import (
    all_plain,
    assign,
    check_apart,
    complex_view,
    real_view,
)
from flowopt.stepper import Carry

# Kept between steps by schemes that end with a gradient.
CARRIED = "end_gradient"
END_LOSS = "end_loss"
# Where a step began, kept for controls that judge it by the gradient of the next.
STARTED = "step_start"
# What a control remembers: numbers in groups, a position beside the parameters.
MEMORY = "control_memory"
REMEMBERED = "control_position"

Places = Sequence[dict[str, Any]]


def carried_gradient(places: Places) -> Leaves | None:
    """The gradient with which the last step ended, if the scheme kept it."""
    gradients = [place[CARRIED] for place in places if CARRIED in place]
    if len(gradients) < len(places):
        return None
    return tuple(real_view(gradient) for gradient in gradients)


def end_loss(groups: Sequence[dict[str, Any]], state: Mapping[Tensor, Any]) -> Tensor | None:
    """The loss with which the last step ended, if its gradient was kept.

    Args:
        groups: `param_groups`.
        state: `optimizer.state`.
    """
    losses = [group[END_LOSS] for group in groups if END_LOSS in group]
    if not losses:
        return None
    parameters = [p for group in groups for p in group["params"] if p.grad is not None]
    if not parameters or carried_gradient([state[p] for p in parameters]) is None:
        return None
    return torch.tensor(losses[0], dtype=torch.float64)


def stored_state(
    numbers: Mapping[str, Any],
    places: Places,
    parameters: Sequence[Tensor],
    flow: EquationFlow,
    evaluation: Evaluation,
    later: bool,
    step_size: Tensor,
    in_place: bool = False,
) -> State:
    """The state that `store` put away; where there is none, the flow's initial state.

    Args:
        numbers: Where time, number of steps and scalars are kept.
        places: `optimizer.state` of each parameter.
        parameters: Those that move.
        flow: What steps them.
        evaluation: At the parameters; a start value may need it.
        later: Whether a flow that is singular at time 0 starts shortly after.
        step_size: Of the first step.
        in_place: Whether the step may write over parameters and what is stored.
    """
    # Where autograd follows, what it has seen is not written over.
    follow = torch.is_grad_enabled()
    plain, own = all_plain(parameters), [p.clone() for p in parameters] if follow else parameters
    position = tuple(own if plain else map(real_view, own))
    step = torch.tensor(numbers.get("step", 0))
    names = [name for name in flow.variables if name != "theta"]
    shards = None if plain else shards_of(parameters)
    variables: dict[str, list[Any]] = {
        name: [
            place.get(name) if plain or name not in place else real_view(place[name])
            for place in places
        ]
        for name in names
    }
    scalars = {name: numbers.get(name) for name in flow.scalars}
    time = 0.0
    if None in scalars.values() or any(leaf is None for v in variables.values() for leaf in v):
        start = position, step, lambda _: evaluation, later, step_size, shards
        fresh = flow.initial_state(*start)
        time = float(fresh.time)
        taken = set(map(id, evaluation.gradient))
        for name, leaves in variables.items():
            pairs = zip(leaves, fresh.variables[name], strict=True)
            variables[name] = [_own(new, taken) if leaf is None else leaf for leaf, new in pairs]
        for name, value in scalars.items():
            scalars[name] = float(fresh.scalars[name]) if value is None else value
    kind = Owned if in_place else tuple
    return State(
        {"theta": kind(position), **{name: kind(leaves) for name, leaves in variables.items()}},
        {name: torch.tensor(value, dtype=torch.float64) for name, value in scalars.items()},
        torch.tensor(numbers.get("time", time), dtype=torch.float64),
        step,
        shards=shards,
    )


def _own(leaf: Tensor, taken: set[int]) -> Tensor:
    """A leaf that is no other's: a start value may be the gradient itself."""
    leaf = leaf.clone() if id(leaf) in taken else leaf
    taken.add(id(leaf))
    return leaf


def store(
    group: dict[str, Any],
    numbers: MutableMapping[str, Any],
    places: Places,
    parameters: Sequence[Tensor],
    carry: Carry,
) -> None:
    """Writes parameters, variables, and live numbers to where they are kept."""
    state = carry.state
    written = {name: leaves for name, leaves in state.variables.items() if name != "theta"}
    if carry.evaluation is not None:
        written[CARRIED] = carry.evaluation.gradient
        sign = -1.0 if group["maximize"] else 1.0
        group[END_LOSS] = sign * carry.evaluation.loss.item()
    plain = bool(written) and all_plain(parameters)
    if not isinstance(state.position, Owned):
        check_apart(parameters)
        for parameter, leaf in zip(parameters, state.position, strict=True):
            assign(parameter, leaf)
    for name, leaves in written.items():
        for place, parameter, leaf in zip(places, parameters, leaves, strict=True):
            if plain:
                place[name] = leaf
            elif name not in place or real_view(place[name]) is not leaf:
                # What was written in place is there.
                place[name] = complex_view(leaf, parameter)
    numbers["time"], numbers["step"] = state.time.item(), state.step.item()
    for name, value in state.scalars.items():
        numbers[name] = value.item()
