"""Explicit Euler on the summed drift."""

from torch import Tensor

from flowopt.core.interfaces import Evaluate, FlowLike, Noise, Proposal
from flowopt.core.state import State
from flowopt.schemes.drift import DriftScheme


class Euler(DriftScheme):
    """Explicit Euler, z + h·drift(z): order 1, one gradient per step.

    Reference:
        Hairer, Nørsett & Wanner 1993, Solving Ordinary Differential Equations I, section I.7.
    """

    def step(
        self, flow: FlowLike, state: State, step_size: Tensor, evaluate: Evaluate, noise: Noise
    ) -> Proposal:
        """One step along the drift."""
        return Proposal(state.plus([(step_size, flow.drift(state, evaluate(state)))]))
