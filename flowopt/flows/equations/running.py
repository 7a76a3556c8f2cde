"""Printed code run on states."""

from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from flowopt.core.interfaces import Evaluate
from flowopt.core.shards import Shards
from flowopt.core.state import Leaves, Owned, State, sum_leaves
from flowopt.flows.equations.code import SOLVED, Code, start_code, time_code
from flowopt.flows.equations.formulas import evaluate_formulas, evaluate_scalars
from flowopt.symbolic.language import Equations, theta
from flowopt.symbolic.tangent import PREFIX


def run_code(
    code: Code,
    hyperparameters: Mapping[str, Tensor],
    state: State,
    step_size: Tensor,
    evaluate: Evaluate,
    normals: Iterable,
    changes: Mapping = MappingProxyType({}),
) -> tuple[dict[str, Leaves], dict[str, Tensor]]:
    """New values of variables and of scalars.

    Args:
        code: What to run.
        hyperparameters: Name → 0-d or (*batch,) tensor.
        state: Where.
        step_size: Of the whole step, (*batch,), float64.
        evaluate: Called only if the code needs loss or gradient.
        normals: Standard normals, in the order of the code's.
        changes: Name → change along a direction, for derivatives.
    """
    scalars = {**hyperparameters, **state.scalars, "step_size": step_size, "t": state.time}
    leaves = dict(state.variables)
    if code.uses_gradient:
        evaluation = evaluate(state)
        leaves["g"] = evaluation.gradient
        if evaluation.damped is not None:
            leaves[SOLVED.name] = evaluation.damped
        scalars["L"] = evaluation.loss.to(torch.float64)
    for normal, drawn in zip(code.normals, normals, strict=False):
        if normal.variable in state.scalars:
            scalars[normal.name] = drawn[0]
        else:
            leaves[normal.name] = drawn
    for name, change in changes.items():
        (scalars if name in state.scalars else leaves)[PREFIX + name] = change
    values, scalar_values = (), ()
    if code.elementwise:
        in_place = code.is_letter and isinstance(state.position, Owned)
        values = evaluate_formulas(code.elementwise, scalars, leaves, state.total, in_place)
    if code.scalar:
        scalar_values = evaluate_scalars(code.scalar, scalars, leaves, state.total)
    return (
        dict(zip(code.names, values, strict=True)),
        dict(zip(code.scalar_names, scalar_values, strict=True)),
    )


def later_time(
    name: str,
    equations: Equations,
    hyperparameters: Mapping[str, Tensor],
    step: Tensor,
    step_size: Tensor | None,
) -> Tensor:
    """When the declared later start is, (*batch,); 0 where there is none."""
    zero = torch.zeros_like(step, dtype=torch.float64)
    if equations.later_start is None:
        return zero
    values = {**hyperparameters, "t": zero, "step_size": zero if step_size is None else step_size}
    total = partial(sum_leaves, batch_dimensions=zero.ndim)
    return evaluate_scalars(time_code(name, equations), values, {}, total)[0]


def start_state(
    name: str,
    equations: Equations,
    hyperparameters: Mapping[str, Tensor],
    position: Leaves,
    step: Tensor,
    evaluate: Evaluate,
    later: Literal[False] | Tensor,
    shards: Shards | None,
) -> State:
    """Declared start values, zero for all else but θ.

    Args:
        name: Of the flow.
        equations: Of the flow.
        hyperparameters: Name → 0-d or (*batch,) tensor.
        position: Leaves of θ.
        step: Number of the first step, (*batch,).
        evaluate: Called only if a start value needs the gradient.
        later: When to begin by the declared series, (*batch,); False for time 0.
        shards: Where the rest of each leaf is.
    """
    # Once in memory: it is what it is for all trajectories.
    zero = torch.zeros((), dtype=torch.float64, device=step.device).expand(step.shape)
    series = equations.later_start is not None and later is not False
    time = zero if later is False else later
    others = [v.name for v in equations.variables if v != theta]
    variables = {"theta": position}
    variables |= {name: tuple(torch.zeros_like(leaf) for leaf in position) for name in others}
    scalars = {scalar.name: zero for scalar in equations.scalars}
    state = State(variables, scalars, time, step, shards=shards)
    if not (equations.start or series):
        return state
    code = start_code(name, equations, series)
    return state.updated(*run_code(code, hyperparameters, state, zero, evaluate, ()))
