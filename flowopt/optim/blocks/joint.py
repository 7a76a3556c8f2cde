"""One step of several groups with joint gradients."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flowopt.controls import Constant
from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import Scheme
from flowopt.core.noise import PhiloxNoise
from flowopt.core.state import State
from flowopt.errors import CompatibilityError
from flowopt.flows import EquationFlow, PartitionedFlow
from flowopt.flows.partitioned.parts import joined
from flowopt.optim.blocks.equation import Equation, partitioned
from flowopt.optim.distributed.parts import shards_of
from flowopt.optim.gradients import GradientOracle
from flowopt.optim.storage import Places, carried_gradient, store, stored_state
from flowopt.optim.tensors import Elements, noise_of
from flowopt.optim.updates import Plan, advanced


class Member(NamedTuple):
    """A group in a joint step: those of its parameters that have a gradient.

    Attributes:
        equation: What steps it.
        flow: With its values as they are now.
        step_size: Its own, 0-d float64.
        group: Of `param_groups`.
        places: `optimizer.state` of each parameter.
        parameters: That move.
        elements: Their numbers.
    """

    equation: Equation
    flow: EquationFlow
    step_size: Tensor
    group: dict[str, Any]
    places: Places
    parameters: Sequence[Tensor]
    elements: Elements


class JointSteps:
    """Steps of several groups whose scheme evaluates gradients within the step."""

    def __init__(self):
        """See the class."""
        self._known: tuple[list, PartitionedFlow] | None = None

    def step(
        self,
        members: Sequence[Member],
        scheme: Scheme,
        closure: Callable[[], Tensor] | None,
        loss: Tensor | None,
    ) -> None:
        """One step of all groups, with gradients of all their parameters at once.

        Args:
            members: The groups.
            scheme: Of the optimizer.
            closure: Clears gradients, runs backward and returns the loss.
            loss: At the start of the step.

        Raises:
            CompatibilityError: Groups differ in what belongs to all.
        """
        if not members:
            return
        seed, maximize = (_shared(members, name) for name in ("seed", "maximize"))
        parameters = [parameter for member in members for parameter in member.parameters]
        places = [place for member in members for place in member.places]
        oracle = GradientOracle(parameters, -1.0 if maximize else 1.0, closure)
        evaluation = oracle.read(loss)
        gradient = carried_gradient(places) or evaluation.gradient
        # Closures write into parameters and gradients in mid-step; the start stays.
        evaluation = Evaluation(evaluation.loss, tuple(leaf.clone() for leaf in gradient))
        flow = self._flow(members)
        states, first = [], 0
        for member in members:
            last = first + len(member.parameters)
            own = replace(evaluation, gradient=evaluation.gradient[first:last])
            first = last
            states.append(_state(member, own, scheme.regular_start))
        flow = flow.with_hyperparameters(**_values(flow, members, states))
        # The time of all begins anew at every step, and lasts 1: each block has its own.
        start = State(
            {"theta": tuple(leaf for state in states for leaf in state.position)},
            {},
            torch.zeros((), dtype=torch.float64),
            torch.stack([state.step for state in states]).max(),
            shards=shards_of(parameters),
        )
        start = joined(start, zip(flow.parts, states, strict=True))
        noise = _noise(seed, members)
        one = torch.ones((), dtype=torch.float64)
        # One step asks of a flow what all flows have.
        plan = Plan(flow, scheme, one, Constant(one), bool(maximize))  # pyright: ignore[reportArgumentType]
        carry = advanced(plan, start, evaluation, noise, oracle)
        for member, part in zip(members, flow.parts, strict=True):
            known = carry.evaluation
            known = None if known is None else part.evaluation(known)
            own = replace(carry, state=part.state(carry.state), evaluation=known)
            store(member.group, member.group, member.places, member.parameters, own)

    def _flow(self, members: Sequence[Member]) -> PartitionedFlow:
        """The groups as one flow, made again only where other parameters move."""
        key = [(id(member.equation), len(member.parameters)) for member in members]
        if self._known is None or self._known[0] != key:
            leaves = [
                [f"{place}.{number}" for number in range(len(member.parameters))]
                for place, member in enumerate(members)
            ]
            self._known = key, partitioned(leaves, [member.equation for member in members])
        return self._known[1]


def _state(member: Member, evaluation: Evaluation, later: bool) -> State:
    group, places, parameters = member.group, member.places, member.parameters
    flow, step_size = member.flow, member.step_size
    state = stored_state(group, places, parameters, flow, evaluation, later, step_size)
    return state.map(torch.clone)


def _noise(seed: int, members: Sequence[Member]) -> PhiloxNoise:
    """The noise of all groups."""
    own = [noise_of(seed, member.elements, member.parameters) for member in members]
    offsets = tuple(offset for noise in own for offset in noise.offsets or ())
    wholes = tuple(whole for noise in own for whole in noise.wholes or noise.offsets or ())
    rows = None
    if any(noise.rows for noise in own):
        rows = tuple(r for noise in own for r in noise.rows or ((1, 0),) * len(noise.offsets or ()))
    return own[0]._replace(offsets=offsets, wholes=wholes, rows=rows)


def _values(
    flow: PartitionedFlow, members: Sequence[Member], states: Sequence[State]
) -> dict[str, Tensor]:
    """Hyperparameters, step sizes and times of all groups, by their names in the joint flow."""
    values = {}
    for part, member, state in zip(flow.parts, members, states, strict=True):
        own = {**member.flow.hyperparameters, "pace": member.step_size, "clock": state.time}
        values |= {part.named(name): value for name, value in own.items()}
    return values


def _shared(members: Sequence[Member], name: str) -> Any:
    values = [member.group[name] for member in members]
    if any(value != values[0] for value in values):
        raise CompatibilityError(
            f"groups have {name} = {values}, and a step that evaluates gradients of all of them "
            f"has one: give all groups the same {name}"
        )
    return values[0]
