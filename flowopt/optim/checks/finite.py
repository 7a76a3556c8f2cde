"""Gradients that are not finite: of which parameter, at which step, and the last energies."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from flowopt.core.interfaces import Point, Scheme
from flowopt.core.shards import spread, summed
from flowopt.errors import NotFiniteError
from flowopt.flows import EquationFlow
from flowopt.optim.controlled.trials import begun
from flowopt.optim.distributed.parts import local, shards_of
from flowopt.optim.gradients import check_dense, gradients_of

Group = dict[str, Any]


def check_finite(
    groups: Sequence[Group],
    state: Mapping[Tensor, dict[str, Any]],
    plan: Callable[[int], tuple[EquationFlow, Scheme, Tensor]],
    loss: Tensor | None,
    energies: dict[int, str],
) -> None:
    """Checks gradients before anything moves, in the groups that ask for it.

    Args:
        groups: `param_groups`.
        state: `optimizer.state`.
        plan: Place of a group → flow, scheme and step size.
        loss: At the start of the step, if known.
        energies: Place of a group → what is told of the last step that began; written.

    Raises:
        NotFiniteError: A gradient holds NaN or infinity.
    """
    for place, group in enumerate(groups):
        if not group["error_if_nonfinite"]:
            continue
        moving = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not moving:
            continue
        gradients = gradients_of(moving)
        check_dense(gradients)
        # Empty tensors have no largest number.
        filled = [part for part in map(local, gradients) if part.numel()]
        largest, shards = torch.nn.utils.get_total_norm(filled, torch.inf), shards_of(moving)
        if not bool((largest if shards is None else spread(largest, shards)).isfinite()):
            told = energies.get(place, "No step with a loss came before")
            raise NotFiniteError(f"{_found(place, group)}. {told}. {REMEDY}")
        if loss is not None:
            flow, scheme, step_size = plan(place)
            places = [state.get(parameter, {}) for parameter in moving]
            begin = begun(group, places, moving, flow, loss, scheme.regular_start)
            energies[place] = _told(flow, step_size, begin, float(loss))


REMEDY = "Nothing has moved: clear the gradients and go on, clip them, or lower lr"


def _found(place: int, group: Group) -> str:
    """What is not finite."""
    wrong = [
        number
        for number, parameter in enumerate(group["params"])
        if parameter.grad is not None and _count(parameter, _not_finite)
    ]
    parameter = group["params"][wrong[0]]
    name = group["param_names"][wrong[0]] if "param_names" in group else f"number {wrong[0]}"
    nans = _count(parameter, torch.isnan)
    infinite = _count(parameter, _not_finite) - nans
    more = f", and {len(wrong) - 1} more parameters have such gradients" if wrong[1:] else ""
    return (
        f"at step {group.get('step', 0) + 1} of group {place} the gradient of parameter {name}, of "
        f"shape {tuple(parameter.shape)}, has {nans} NaN and {infinite} infinite of "
        f"{parameter.numel()} numbers{more}"
    )


def _not_finite(gradient: Tensor) -> Tensor:
    return ~gradient.isfinite()


def _count(parameter: Tensor, condition: Callable[[Tensor], Tensor]) -> int:
    """How many elements of a parameter's gradient meet a condition, in all processes."""
    (gradient,) = gradients_of([parameter])
    shards, number = shards_of([parameter]), condition(local(gradient)).sum()
    return int(number if shards is None else summed([number], shards))


def _told(flow: EquationFlow, step_size: Tensor, begin: Point, loss: float) -> str:
    """Loss and energies with which a step begins."""
    values = {"loss": loss}
    # Rates per step have no meaning in time where the step has no length.
    if not flow.per_step or step_size > 0:
        physical = flow.at_step_size(step_size) if flow.per_step else flow
        values |= {name: physical.energy(name).value(*begin).item() for name in flow.energies}
    listed = ", ".join(f"{name} = {value:.6g}" for name, value in values.items())
    return f"Step {int(begin.state.step) + 1} began with {listed}"
