"""Schemes and step controls: what one proposes, the other judges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from flowopt.core.evaluation import Evaluation, Evaluator
    from flowopt.core.interfaces.draws import Noise
    from flowopt.core.interfaces.flow import FlowLike
    from flowopt.core.state import State

Interpolant = Callable[[Tensor], "State"]


class Scheme(Protocol):
    """Turns a flow into a step.

    Attributes:
        regular_start: Whether the drift must be regular where it starts.
    """

    regular_start: bool

    def check(self, flow: FlowLike) -> None:
        """Raises `CompatibilityError` if the flow can not be stepped by this scheme."""
        ...

    def order(self, flow: FlowLike) -> float:
        """Order of convergence for this flow; infinite where the step is exact."""
        ...

    def gradient_evaluations(self, flow: FlowLike) -> int:
        """Gradients per step, when the one at the end of the last step is used again."""
        ...

    def ends_with_gradient(self, flow: FlowLike) -> bool:
        """Whether a step evaluates the gradient at its end, where the next one starts."""
        ...

    def closure_free(self, flow: FlowLike) -> bool:
        """Whether the gradient at the start of the step is all that it needs."""
        ...

    @property
    def error_order(self) -> int:
        """Order of the embedded solution that a step's error estimate compares with; 0 for none."""
        ...

    @property
    def interpolant_order(self) -> int:
        """Order of the states within a step that a proposal gives; 0 for none."""
        ...

    def step(
        self, flow: FlowLike, state: State, step_size: Tensor, evaluate: Evaluator, noise: Noise
    ) -> Proposal:
        """A step; time and step number of its state are set by the stepper."""
        ...


class Point(NamedTuple):
    """A state and what the problem says there."""

    state: State
    evaluation: Evaluation


class Proposal(NamedTuple):
    """What a scheme proposes.

    Attributes:
        state: After the step.
        error: Estimate of the local error, a tangent; None where the scheme has none.
        interpolant: Share of the step, (*batch,), from 0 to 1 → state there, its time not set.
        probe: A point on the way at which a stop condition is tried too: where it holds, the
            trajectory ends there, whatever the control says of the step.
        solved: (*batch,), bool: where the scheme found what it looked for, None where it looks for
            nothing. A step that is not solved is as one that leaves the finite numbers.
    """

    state: State
    error: State | None = None
    interpolant: Interpolant | None = None
    probe: Point | None = None
    solved: Tensor | None = None


class Trial(NamedTuple):
    """A step that a control is to judge.

    Attributes:
        flow: What was stepped.
        before: Where it began.
        after: Where it ended.
        error: Estimate of the local error, if the scheme has one.
        error_order: Order of the solution that the estimate compares with.
        finite: (*batch,) bool, and solved; a control that rejects must reject what is not.
        step_size: Of the step, (*batch,).
        memory: What the control remembers.
    """

    flow: FlowLike
    before: Point
    after: Point
    error: State | None
    error_order: int
    finite: Tensor
    step_size: Tensor
    memory: tuple[Tensor, ...]


@dataclass(frozen=True)
class Verdict:
    """What a control says about a trial.

    Attributes:
        accept: (*batch,) bool, or None where every trial is accepted.
        step_size: Of the next trial, (*batch,).
        memory: What the control remembers.
    """

    accept: Tensor | None
    step_size: Tensor
    memory: tuple[Tensor, ...]


class StepControl(Protocol):
    """Says how far to step and whether to accept, for each trajectory by itself.

    Attributes:
        rejects: Whether it ever does.
        weighs_loss: Whether it takes the loss at a step's end to reject it; if not, it takes no
            evaluation there.
        sampling: Which minibatches it is to see. "step": one per step, on which all trials of that
            step start and end; the next step starts with an evaluation on another one. "trial":
            a trial ends on the minibatch of the next, without further evaluations.
    """

    rejects: bool
    weighs_loss: bool
    sampling: str

    @property
    def remembers_position(self) -> bool:
        """Whether what it remembers ends with a position, leaf by leaf."""
        ...

    @property
    def advances(self) -> bool:
        """Whether time surely reaches any end, so that a duration alone is enough."""
        ...

    def check(self, flow: FlowLike, scheme: Scheme) -> None:
        """Raises `CompatibilityError` if the control can not judge steps of this scheme."""
        ...

    def uses_gradient(self, flow: FlowLike) -> bool:
        """Whether it looks at the gradient at the end of a step."""
        ...

    def start(self, point: Point, flow: FlowLike) -> tuple[Tensor, tuple[Tensor, ...]]:
        """First step size, (*batch,) float64, and what the control remembers."""
        ...

    def refresh(
        self, state: State, step_size: Tensor, memory: tuple[Tensor, ...], trials: int
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Called before every chunk of at most `trials` trials, outside of traced code."""
        ...

    def judge(self, trial: Trial) -> Verdict:
        """Accept or reject, and the next step size."""
        ...
