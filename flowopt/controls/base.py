"""What step controls have in common."""

from abc import ABC, abstractmethod

from torch import Tensor

from flowopt.controls.settings import first_steps
from flowopt.core.interfaces import FlowLike, Point, Scheme, Trial, Verdict
from flowopt.core.state import State
from flowopt.errors import CompatibilityError

Memory = tuple[Tensor, ...]


class Control(ABC):
    """What step controls have in common: each says where it differs, and has a `judge`.

    This one accepts every trial and remembers nothing. What the attributes mean is written in
    `flowopt.core.interfaces.StepControl`.

    Attributes:
        first_step: h of the first trial, 0-d or (*batch,), float64.
        shown: Names of the numbers that stand in its `repr`.
    """

    rejects: bool = False
    weighs_loss: bool = False
    sampling: str = "trial"
    remembers_position: bool = False
    first_step: Tensor
    shown: tuple[str, ...] = ()

    @property
    def advances(self) -> bool:
        """Whether time surely reaches any end: not where nothing else is said."""
        return False

    def __repr__(self) -> str:
        """As it is written."""
        return f"{type(self).__name__}({', '.join(self._written())})"

    def _written(self) -> list[str]:
        return [f"{name}={getattr(self, name).item():g}" for name in self.shown]

    def check(self, flow: FlowLike, scheme: Scheme) -> None:
        """Raises `CompatibilityError` where it would reject steps of a flow with noise."""
        if self.rejects and flow.noisy:
            raise CompatibilityError(
                f"flow {flow.name!r} has noise, and {self!r} rejects steps: a rejected step would "
                "need its Brownian path refined; use ExpectedSlope, Constant or Schedule"
            )

    def uses_gradient(self, flow: FlowLike) -> bool:
        """Whether it looks at the gradient at the end of a step: not where nothing else is said."""
        return False

    def start(self, point: Point, flow: FlowLike) -> tuple[Tensor, Memory]:
        """The first step size for every trajectory, and no memory."""
        return first_steps(self.first_step, point), ()

    def refresh(
        self, state: State, step_size: Tensor, memory: Memory, trials: int
    ) -> tuple[Tensor, Memory]:
        """Nothing to do."""
        return step_size, memory

    @abstractmethod
    def judge(self, trial: Trial) -> Verdict:
        """Whether to accept, and the next step size, of which each control has its own."""


class EstimateControl(Control):
    """What controls by the estimate of a step's error have in common."""

    rejects = True
    sampling = "step"

    @property
    def advances(self) -> bool:
        """Yes: what is rejected is tried again with a shorter step."""
        return True

    def check(self, flow: FlowLike, scheme: Scheme) -> None:
        """Raises `CompatibilityError` without an error estimate, or for noisy flows."""
        super().check(flow, scheme)
        if not scheme.error_order:
            raise CompatibilityError(
                f"{scheme!r} estimates no error: use RungeKutta('dopri5') or RungeKutta('heun')"
            )
