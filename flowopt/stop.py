"""Conditions that end a trajectory."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flowopt.arguments import real_tensor
from flowopt.core.evaluation import Evaluation
from flowopt.core.state import State
from flowopt.core.trajectory import Status
from flowopt.errors import ConfigurationError


@dataclass(frozen=True)
class Stop:
    """A condition and the status of the trajectories that meet it.

    Attributes:
        condition: (state, evaluation) → (*batch,), bool.
        status: What a trajectory that meets it is called.
    """

    condition: Callable[[State, Evaluation], Tensor]
    status: Status


@dataclass(frozen=True)
class Small:
    """Whether the gradient, and variables of the method, are small in the Euclidean norm.

    Attributes:
        limit: Square of the tolerance, 0-d float64: a tensor, so that a kernel takes it as an
            argument.
        variables: Names of variables that must be small too, where the method, or a block of it,
            has them.
    """

    limit: Tensor
    variables: tuple[str, ...] = ()

    def __call__(self, state: State, evaluation: Evaluation) -> Tensor:
        """(*batch,), bool."""
        small = state.squared_norm(evaluation.gradient) <= self.limit
        for name in self.variables:
            leaves = sum((v for k, v in state.variables.items() if _is_called(k, name)), start=())
            if leaves:
                small = small & (state.squared_norm(leaves) <= self.limit)
        return small


def gradient(tolerance: float) -> Stop:
    """Stops where |∇L| ≤ tolerance, the Euclidean norm over all parameters.

    A method with momentum may only be flying by: see `rest`.
    """
    return Stop(Small(_squared(tolerance)), Status.GRADIENT_SMALL)


def rest(tolerance: float) -> Stop:
    """Stops where |∇L| ≤ tolerance and the momentum, `p` or `m`, is as small.

    At ∇L = 0 momentum methods still move; this is the condition under which they do not.
    """
    return Stop(Small(_squared(tolerance), ("p", "m")), Status.GRADIENT_SMALL)


def tried_stop(
    stop: Stop | Callable | None, state: State, evaluate: Callable[[], Evaluation]
) -> Stop | None:
    """A stop from what the user gave: ours, or a function, which is tried at the start."""
    if stop is None or isinstance(stop, Stop):
        return stop
    if not callable(stop):
        raise ConfigurationError(
            f"stop={stop!r}: give flowopt.stop.gradient(1e-6), flowopt.stop.rest(1e-6) or a "
            "function of (state, evaluation)"
        )
    if stop in (gradient, rest):
        name = f"flowopt.stop.{stop.__name__}"
        raise ConfigurationError(f"stop={name} has no tolerance: give {name}(1e-6)")
    met = stop(state, evaluate())
    if not isinstance(met, Tensor) or met.dtype != torch.bool or met.shape != state.batch:
        came = f"{met.dtype}, {tuple(met.shape)}" if isinstance(met, Tensor) else repr(met)
        raise ConfigurationError(
            f"the stop function gave {came}, expected a bool tensor of shape "
            f"{tuple(state.batch)}, one per trajectory, as in evaluation.loss < 0.1"
        )
    return Stop(stop, Status.STOPPED)


def _is_called(variable: str, name: str) -> bool:
    """Whether a variable, that of a block too, has a name."""
    return variable.rpartition(".")[2] == name


def _squared(tolerance: float) -> Tensor:
    value = real_tensor("a tolerance", tolerance)
    if value.ndim or not bool(value >= 0):
        raise ConfigurationError(
            f"a tolerance is not negative and a single number, got {tolerance!r}"
        )
    return value**2
