"""Gradients that are not finite: of which parameter, at which step, and the last energies."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from flowopt.core.interfaces import Point, Scheme
from flowopt.errors import NotFiniteError
from flowopt.flows import EquationFlow
from flowopt.optim.controlled.trials import begun
from flowopt.optim.gradients import check_dense

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
        gradients = [parameter.grad for parameter in moving]
        check_dense(gradients)
        # Empty tensors have no largest number.
        filled = [gradient for gradient in gradients if gradient.numel()]
        if not bool(torch.nn.utils.get_total_norm(filled, torch.inf).isfinite()):
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
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
    ]
    gradient = group["params"][wrong[0]].grad
    name = group["param_names"][wrong[0]] if "param_names" in group else f"number {wrong[0]}"
    nans = int(gradient.isnan().sum())
    infinite = int((~gradient.isfinite()).sum()) - nans
    more = f", and {len(wrong) - 1} more parameters have such gradients" if wrong[1:] else ""
    return (
        f"at step {group.get('step', 0) + 1} of group {place} the gradient of parameter {name}, of "
        f"shape {tuple(gradient.shape)}, has {nans} NaN and {infinite} infinite of "
        f"{gradient.numel()} numbers{more}"
    )


def _told(flow: EquationFlow, step_size: Tensor, begin: Point, loss: float) -> str:
    """Loss and energies with which a step begins."""
    values = {"loss": loss}
    # Rates per step have no meaning in time where the step has no length.
    if not flow.per_step or step_size > 0:
        physical = flow.at_step_size(step_size) if flow.per_step else flow
        values |= {name: physical.energy(name).value(*begin).item() for name in flow.energies}
    listed = ", ".join(f"{name} = {value:.6g}" for name, value in values.items())
    return f"Step {int(begin.state.step) + 1} began with {listed}"
