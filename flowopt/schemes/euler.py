"""Explicit Euler on the summed drift."""

from torch import Tensor

from flowopt.core.interfaces import Evaluate, FlowLike, Noise, Proposal
from flowopt.core.state import State
from flowopt.schemes.drift import check_drift_scheme


class Euler:
    """Explicit Euler, z + h·drift(z): order 1, one gradient per step.

    Reference:
        Hairer, Nørsett & Wanner 1993, Solving Ordinary Differential Equations I, section I.7.
    """

    error_order = 0
    interpolant_order = 0
    regular_start = True

    def __repr__(self) -> str:
        """As it is written."""
        return "Euler()"

    def check(self, flow: FlowLike) -> None:
        """Raises `CompatibilityError` for noisy flows and drifts without a value at the start."""
        check_drift_scheme(self, flow)

    def order(self, flow: FlowLike) -> float:
        """1, whatever the flow."""
        return 1.0

    def gradient_evaluations(self, flow: FlowLike) -> int:
        """1, whatever the flow."""
        return 1

    def ends_with_gradient(self, flow: FlowLike) -> bool:
        """The only gradient is the one at the start."""
        return False

    def closure_free(self, flow: FlowLike) -> bool:
        """The gradient at the start is all that it needs."""
        return flow.damping is None

    def step(
        self, flow: FlowLike, state: State, step_size: Tensor, evaluate: Evaluate, noise: Noise
    ) -> Proposal:
        """One step along the drift."""
        return Proposal(state.plus([(step_size, flow.drift(state, evaluate(state)))]))
