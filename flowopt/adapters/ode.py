"""Flows as the right-hand sides that torchdiffeq integrates."""

from torch import Tensor

from flowopt.adapters.system import System
from flowopt.core.interfaces import FlowLike, Oracle
from flowopt.core.oracle import Problem
from flowopt.errors import CompatibilityError


class OdeSystem(System):
    """A flow without noise as f(t, y) on packed states; see `to_torchdiffeq`."""

    def pack(self, start: object) -> Tensor:
        """A start as a packed state.

        Args:
            start: (*batch, dim), parameters by name for a network, or a `solution.state`.

        Returns:
            (*batch, numbers), in the dtype of the start.

        Raises:
            CompatibilityError: The flow has no drift at its initial state.
            DataError: The start has the wrong shape or type.
        """
        return self.packed(self.state(start))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt at time t, (*batch, numbers)."""
        return self.drift(t, y)


def to_torchdiffeq(flow: FlowLike, problem: Problem | Oracle) -> OdeSystem:
    """A flow on a problem as a module f(t, y) for `torchdiffeq.odeint`.

        system = to_torchdiffeq(flow, problem)
        states = torchdiffeq.odeint(system, system.pack(start), times, method="dopri5")
        position = system.position(states)

    Works with every method of torchdiffeq, its scipy solvers included, and with `odeint_adjoint`;
    differentiable in the start and in hyperparameters. The batch is one system to torchdiffeq: its
    step sizes are shared by all trajectories.

    Args:
        flow: The equation, without noise.
        problem: Anything with `dim` and `loss(theta)`, or a `flowopt.problems.network`.

    Returns:
        A module with `pack`, `unpack` and `position`.

    Raises:
        CompatibilityError: The flow has noise.

    Reference:
        Chen 2018, torchdiffeq, https://github.com/rtqichen/torchdiffeq.
    """
    if flow.noisy:
        raise CompatibilityError(
            f"flow {flow.name!r} has noise, which torchdiffeq does not know: use to_torchsde"
        )
    return OdeSystem(flow, problem)
