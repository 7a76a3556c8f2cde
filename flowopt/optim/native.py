"""A step of a group by a native kernel, in place."""

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from flowopt.errors import CompatibilityError
from flowopt.kernels import UnfitError
from flowopt.optim.gradients import GradientOracle, complex_view
from flowopt.optim.stepping.again import Done
from flowopt.optim.stepping.cohorts import Moving
from flowopt.optim.storage import stored_state
from flowopt.optim.updates import NativeSteps, Prepared


def step_native(
    native: NativeSteps,
    place: Hashable,
    prepared: Prepared,
    moving: Moving,
    loss: Tensor | None,
    later: bool,
    real: Callable[[list[Tensor]], list[Tensor]],
) -> Done:
    """Steps parameters, what the method carries, and the numbers of a group.

    Args:
        native: The optimizer's kernels.
        place: Names what moves, which is the same at most steps.
        prepared: How it is stepped.
        moving: What moves.
        loss: At the start of the step, if known.
        later: Whether a flow that is singular at time 0 starts shortly after.
        real: Complex tensors as real ones.

    Returns:
        What was done.

    Raises:
        CompatibilityError: The step does not fit a kernel; nothing has been stepped.
    """
    group, numbers, places, parameters, gradients, elements = moving
    plan, names, scalars = prepared.plan, prepared.names, prepared.scalars
    sign = -1.0 if plan.maximize else 1.0
    fresh = False
    try:
        variables = [[own[name] for own in places] for name in names]
        shared = [numbers[name] for name in (*scalars, "time", "step")]
    except KeyError:
        fresh = True
        evaluation = GradientOracle(parameters, sign, None).read(loss)
        state = stored_state(
            numbers, places, parameters, plan.flow, evaluation, later, plan.step_size
        )
        variables = [list(leaves) for name, leaves in state.variables.items() if name != "theta"]
        shared = [t.item() for t in (*state.scalars.values(), state.time, state.step)]
    value = torch.nan if loss is None else sign * float(loss)
    inputs = [*shared, *prepared.settings, value, group["seed"] % 2**63, elements.first]
    columns = [real(column) for column in (parameters, *variables, gradients)]
    try:
        after = native.step(place, plan, columns, elements, inputs)
    except UnfitError as error:
        raise CompatibilityError(f"compile=True does not fit: {error}") from error
    for name, leaves in zip(names, variables if fresh else (), strict=False):
        for own, leaf, parameter in zip(places, leaves, parameters, strict=True):
            own[name] = complex_view(leaf, parameter)
    numbers.update(zip((*scalars, "time", "step"), after, strict=False))
    return Done(prepared, moving, native.work)
