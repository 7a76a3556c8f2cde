"""What the state of an optimizer is worth: its energies and its temperature."""

import torch
from torch import Tensor

from flowopt.core.evaluation import Evaluation
from flowopt.core.state import State
from flowopt.errors import CompatibilityError
from flowopt.flows import EquationFlow
from flowopt.optim.distributed.parts import mean_over_mesh, placed_gradient
from flowopt.optim.flow_optimizer import FlowOptimizer
from flowopt.optim.gradients import real_views
from flowopt.optim.stepping.cohorts import numbers_of
from flowopt.optim.storage import stored_state

# Of unit mass, so that its mean square is a temperature.
MOMENTUM = "p"


@torch.no_grad()
def measures(optimizer: FlowOptimizer, loss: Tensor | float) -> list[dict[str, float]]:
    """Energies and kinetic temperature of each group.

    To be called between `loss.backward()` and `optimizer.step()`, where loss, gradients and state
    belong together. Energies of rules whose rates are given per step, as Adam's, are those of the
    flow at the present lr, and infinite where that is 0. Where parameters have taken different
    numbers of steps, Adam's bias corrections are those of the first.

    Args:
        optimizer: As it stands before a step.
        loss: Of the parameters as they are, one element. The energy of every group contains all
            of it. Of processes that share parameters, each gives its own, and all call this.

    Returns:
        For each group {name: value}: the energies that its flow declares and, where it has a
        momentum p of N elements, "temperature", |p|²/N, in the unit of the loss. Nothing for a
        group that has not taken a step yet.

    Raises:
        CompatibilityError: An energy depends on a gradient that is missing, or the optimizer has no
            equations.
    """
    if not isinstance(optimizer, FlowOptimizer):
        raise CompatibilityError(
            f"measures are of optimizers that step flows, such as flowopt.optim.Langevin, got "
            f"{type(optimizer).__name__}"
        )
    found = []
    for place, group in enumerate(optimizer.param_groups):
        flow, _, step_size = optimizer._plan(place)
        if flow.per_step:
            flow = flow.at_step_size(step_size)
        # What has never had a gradient has nothing to tell.
        names = [name for name in flow.variables if name != "theta"]
        parameters = [p for p in group["params"] if not names or p in optimizer.state]
        if not group.get("step") or not parameters:
            found.append({})
            continue
        gradients = list(map(placed_gradient, parameters))
        sign = -1.0 if group["maximize"] else 1.0
        missing = any(gradient is None for gradient in gradients)
        known = [p if g is None else g for p, g in zip(parameters, gradients, strict=True)]
        evaluation = Evaluation(
            sign * mean_over_mesh(torch.tensor(float(loss), dtype=torch.float64), parameters),
            tuple(sign * gradient for gradient in real_views(known)),
        )
        places = [optimizer.state.get(parameter, {}) for parameter in parameters]
        numbers = numbers_of(group, places)
        state = stored_state(numbers, places, parameters, flow, evaluation, False, step_size)
        found.append(_measured(flow, state, evaluation, missing))
    return found


def _measured(
    flow: EquationFlow, state: State, evaluation: Evaluation, missing: bool
) -> dict[str, float]:
    values = {}
    for name in flow.energies:
        energy = flow.energy(name)
        if missing and energy.uses_gradient:
            raise CompatibilityError(
                f"energy {name!r} of flow {flow.name!r} depends on the gradient, which is missing: "
                "call measures between loss.backward() and optimizer.step()"
            )
        values[name] = energy.value(state, evaluation).item()
    if MOMENTUM in state.variables:
        leaves = state.variables[MOMENTUM]
        squares = state.total(leaf.double().square() for leaf in leaves)
        values["temperature"] = squares.item() / state.size(leaves)
    return values
