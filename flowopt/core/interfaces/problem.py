"""Problems and energies: what is known at a position or a state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from flowopt.core.curvature.gauss_newton import Composition
    from flowopt.core.evaluation import Evaluation
    from flowopt.core.state import Leaves, State

Sample = Tensor | None


class Oracle(Protocol):
    """Answers about a problem at positions given as leaves."""

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the leaves of a single trajectory."""
        ...

    def leaves(self, start: object) -> Leaves:
        """The leaves of a start; checks its type and shape."""
        ...

    def batch(self, position: Leaves) -> tuple[int, ...]:
        """Shape of the batch of a position."""
        ...

    def join(self, position: Leaves) -> Tensor | dict[str, Tensor]:
        """Leaves in the form in which the user gave the start."""
        ...

    def draw(self, step: int, seed: int, batch: tuple[int, ...]) -> Sample:
        """The sample of a step for a batch; None where the problem is deterministic."""
        ...

    def losses(self, position: Leaves, sample: Sample) -> Tensor:
        """(*batch,), differentiable in the position."""
        ...

    def composed(self, position: Leaves, sample: Sample) -> Composition:
        """The loss as a function of residuals or outputs, for the Gauss–Newton matrix."""
        ...

    def evaluate(self, position: Leaves, sample: Sample) -> Evaluation:
        """Loss and gradient, cut off from what the position comes from."""
        ...


class Energy(Protocol):
    """A candidate Lyapunov function."""

    @property
    def conserved(self) -> bool:
        """Whether its rate is zero everywhere."""
        ...

    @property
    def uses_gradient(self) -> bool:
        """Whether its value depends on the gradient of the loss."""
        ...

    @property
    def momenta(self) -> tuple[str, ...]:
        """Variables besides θ that it is quadratic in and all drifts are affine in."""
        ...

    def value(self, state: State, evaluation: Evaluation) -> Tensor:
        """(*batch,), float64."""
        ...

    def rate(self, state: State, evaluation: Evaluation, curvature: Leaves | None = None) -> Tensor:
        """Time derivative along the flow, (*batch,), float64; noise on θ needs ∂²L/∂θᵢ²."""
        ...

    def slope(self, state: State, evaluation: Evaluation) -> State:
        """Its derivatives by θ and by what it is quadratic in, as a tangent; zero by all else."""
        ...

    def dissipation(self, state: State, evaluation: Evaluation) -> Tensor:
        """What a control asks it to lose per time, (*batch,), float64: −rate, or as declared."""
        ...
