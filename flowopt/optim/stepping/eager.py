"""A step of a group by eager torch."""

from collections.abc import Callable

import torch
from torch import Tensor

from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import Point, StepControl
from flowopt.errors import CompatibilityError
from flowopt.optim.checks import check_loss, remedy
from flowopt.optim.controlled import trials
from flowopt.optim.gradients import GradientOracle, check_dense
from flowopt.optim.stepping.cohorts import Moving
from flowopt.optim.storage import carried_gradient, store, stored_state
from flowopt.optim.tensors import SILENCE, noise_of
from flowopt.optim.updates import Prepared, advanced
from flowopt.stepper import Stepper


def step_eager(
    moving: Moving,
    prepared: Prepared,
    prepare: Callable[[], Prepared],
    closure: Callable[[], Tensor] | None,
    loss: Tensor | None,
    control: StepControl | None,
    lists: bool,
) -> None:
    """Steps parameters, what the method carries, and live numbers.

    Args:
        moving: What moves.
        prepared: How it is stepped.
        prepare: The same for the values that its group has then.
        closure: Clears gradients, runs backward and returns the loss.
        loss: At the start of the step, if known.
        control: Of the optimizer.
        lists: Whether tensors may be stepped all at once and in place.

    Raises:
        CompatibilityError: The scheme needs a closure, or the flow the loss; a gradient is sparse.
    """
    check_dense(moving.gradients)
    plan, closure_free = prepared.plan, prepared.closure_free
    flow, scheme = plan.flow, plan.scheme
    if closure is None and not closure_free:
        raise CompatibilityError(remedy(flow, scheme))
    check_loss(flow, loss is None and prepared.uses_loss)
    group, numbers, places, parameters = moving[:4]
    oracle = GradientOracle(parameters, -1.0 if plan.maximize else 1.0, closure)
    noise = noise_of(group["seed"], moving.elements, parameters) if prepared.noisy else SILENCE
    evaluation = oracle.read(loss)
    if (gradient := carried_gradient(places)) is not None:
        evaluation = Evaluation(evaluation.loss, gradient)
    rejecting = control is not None and control.rejects
    in_place, later = lists and closure_free and not rejecting, scheme.regular_start
    state = stored_state(
        numbers, places, parameters, flow, evaluation, later, plan.step_size, in_place
    )
    if rejecting or not closure_free:
        # Closures write into parameters and gradients in mid-step; the start stays.
        state = state.map(torch.clone)
        gradient = tuple(leaf.clone() for leaf in evaluation.gradient)
        evaluation = Evaluation(evaluation.loss, gradient)
    if control is not None and rejecting:
        # A step asks of an oracle no more than what gradients answer.
        stepper = Stepper(flow, scheme, oracle, noise, control, sampled=True)  # pyright: ignore
        carry = trials.tried(group, stepper, oracle, state, evaluation)
    else:
        if control is not None:
            end = Point(state, evaluation)
            trials.choose_step_size(control, group, places, parameters, end, flow)
            plan = prepare().plan
        carry = advanced(plan, state, evaluation, noise, oracle)
    store(group, numbers, places, parameters, carry)
