"""States made by hand, and single steps from them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flowopt import Flow, State
from flowopt.core.curvature.solving import solving
from flowopt.core.evaluation import Evaluation, Evaluator
from flowopt.core.interfaces import Key, Scheme
from flowopt.core.oracle import as_oracle
from flowopt.core.state import Leaves


class Loss:
    """A function of theta as a problem."""

    def __init__(self, function, dim: int = 2, residuals=None):
        self.function = function
        self.dim = dim
        self.residuals = residuals

    def loss(self, theta: Tensor) -> Tensor:
        return self.function(theta)


def hills(theta: Tensor) -> Tensor:
    """A smooth loss of two parameters that is not a polynomial."""
    x, y = theta.unbind(-1)
    return torch.cos(x) + x * y / 4 + y**2 + x**4 / 8


def hill_residuals(theta: Tensor) -> Tensor:
    """Half their squares sum to the hills and 1 + 1/2048."""
    x, y = theta.unbind(-1)
    parts = 2 * torch.cos(x / 2), 2**0.5 * (y + x / 8), (x**2 - 1 / 16) / 2
    return torch.stack(parts, -1)


HILLS = Loss(hills, residuals=hill_residuals)


class GivenNormals:
    """Noise that hands out given draws, one (*batch,) tensor for every coordinate, in order."""

    def __init__(self, draws: Sequence[Leaves]):
        self._draws = iter(draws)

    def normal(self, like: Leaves, key: Key) -> Leaves:
        return tuple(n.expand_as(leaf) for n, leaf in zip(next(self._draws), like, strict=True))

    def block(self, places: tuple[int, ...], position: Leaves) -> "GivenNormals":
        return self


def columns(rows: Tensor) -> Leaves:
    """(*batch, dim) as one leaf per coordinate."""
    return tuple(column.contiguous() for column in rows.unbind(-1))


def state_of(variables: dict[str, Tensor], **scalars: Tensor) -> State:
    """A state at time 0 from tensors (*batch, dim) by name, `theta` among them."""
    zero = torch.zeros(variables["theta"].shape[:-1], dtype=torch.float64)
    values = {name: value.expand_as(zero).clone() for name, value in scalars.items()}
    leaves = {name: columns(value) for name, value in variables.items()}
    return State(leaves, values, zero, zero.to(torch.int64))


def evaluation_of(problem: object, position: Leaves, flow: Flow | None = None) -> Evaluation:
    """Loss and gradient of a problem, and what else a flow asks."""
    oracle = as_oracle(problem, position[0].dtype, position[0].device)
    return (solving(oracle, flow.damping) if flow else oracle).evaluate(position, None)


def one_step(
    flow: Flow, scheme: Scheme, problem: object, state: State, step_size: float, noise: object
) -> State:
    """A step of a scheme, without the stepper around it."""
    position = state.position
    oracle = as_oracle(problem, position[0].dtype, position[0].device)
    duration = torch.full_like(state.time, step_size)
    return scheme.step(flow, state, duration, Evaluator(oracle, None, None), noise).state


def flat(state: State) -> Tensor:
    """Every variable and scalar of a state, (*batch, numbers)."""
    leaves = [leaf for name in sorted(state.variables) for leaf in state.variables[name]]
    return torch.stack([*leaves, *(state.scalars[name] for name in sorted(state.scalars))], -1)


def unflat(numbers: Tensor, like: State, elapsed: float | Tensor = 0.0) -> State:
    """The inverse of `flat`, a while after the time of `like` and at its step."""
    columns_ = iter(numbers.unbind(-1))
    variables = {
        name: tuple(next(columns_) for _ in like.variables[name]) for name in sorted(like.variables)
    }
    scalars = {name: next(columns_) for name in sorted(like.scalars)}
    batch = numbers.shape[:-1]
    return State(variables, scalars, like.time.expand(batch) + elapsed, like.step.expand(batch))
