"""The interfaces through which flows, schemes, controls, problems and noise meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from torch import Tensor

if TYPE_CHECKING:
    import torch

    from flowopt.core.evaluation import Evaluation
    from flowopt.core.state import Leaves, State

Sample = Tensor | None
Evaluate = Callable[["State"], "Evaluation"]
Interpolant = Callable[[Tensor], "State"]


class Wiener(NamedTuple):
    """A Wiener process of a flow; every element of what it drives has its own.

    Attributes:
        name: In the equations.
        drives: Names of variables, or of scalars.
        depends_on: Names of the variables and scalars on which its amplitudes depend; θ where they
            depend on loss or gradient.
    """

    name: str
    drives: tuple[str, ...]
    depends_on: tuple[str, ...]


class Increment(NamedTuple):
    """Which increment of a Wiener process a draw stands for.

    Attributes:
        wiener: Name of the process.
        time: At the start of the step, (*batch,), float64.
        step_size: (*batch,), float64.
        share: Where in the step the increment begins and ends, from 0 to 1.
    """

    wiener: str
    time: Tensor
    step_size: Tensor
    share: tuple[float, float]


class Key(NamedTuple):
    """Names a draw.

    Attributes:
        step: Step number per trajectory, (*batch,), int64.
        substep: Place within the step.
        increment: What the draw stands for, to noise that is made of a given path.
    """

    step: Tensor
    substep: int
    increment: Increment | None = None


class Noise(Protocol):
    """A pure function of (seed, trajectory, step, substep, global element index)."""

    def normal(self, like: Leaves, key: Key) -> Leaves:
        """Independent standard normals in the shapes of `like`."""
        ...

    def uniform(self, like: Leaves, key: Key) -> Leaves:
        """Independent uniforms on (0, 1) in the shapes of `like`."""
        ...


class FlowLike(Protocol):
    """An equation that can be stepped."""

    name: str
    per_step: frozenset[str]

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of what has one value per element, θ first."""
        ...

    @property
    def scalars(self) -> tuple[str, ...]:
        """Names of what has one value per trajectory."""
        ...

    @property
    def energies(self) -> tuple[str, ...]:
        """Names of the declared energies."""
        ...

    def energy(self, name: str) -> Energy:
        """A declared energy as a function of states."""
        ...

    @property
    def letters(self) -> tuple[str, ...]:
        """Letters of the terms, in the order of definition."""
        ...

    @property
    def noise_kind(self) -> str:
        """What the noise depends on.

        "none"; "additive": on hyperparameters and time; "undriven": on variables, but not on those
        that it drives; "driven": on those too, so that Itô's and Stratonovich's readings differ.
        """
        ...

    @property
    def noisy(self) -> bool:
        """Whether any term has noise."""
        ...

    @property
    def symmetric(self) -> bool:
        """Whether θ is alone and the derivative of its drift a symmetric matrix."""
        ...

    @property
    def steep_at_start(self) -> bool:
        """Whether the derivative of the summed drift is infinite at the initial state."""
        ...

    @property
    def singular_at_start(self) -> bool:
        """Whether drift and energies are undefined, or without bound, at time 0."""
        ...

    def kind(self, letter: str, kind: str | None) -> str:
        """Kind of the map of a letter, or of several: exact, frozen or euler."""
        ...

    def uses_gradient(self, letter: str) -> bool:
        """Whether the map of a letter, or of several, needs ∇L."""
        ...

    def moves_position(self, letter: str) -> bool:
        """Whether a letter, or one of several, moves θ."""
        ...

    def initial_state(
        self, position: Leaves, step: Tensor, evaluate: Evaluate, later: bool = False
    ) -> State:
        """The state at time 0, or shortly after where that is singular and `later` is asked for."""
        ...

    def fitted(self, batch: tuple[int, ...], device: torch.device) -> FlowLike:
        """The same flow, what it holds per trajectory on a device; checks shapes."""
        ...

    def member(self, index: tuple[int, ...]) -> FlowLike:
        """The flow of one trajectory of a batch."""
        ...

    def drift(self, state: State, evaluation: Evaluation) -> State:
        """The sum of all drifts, as a tangent."""
        ...

    def drift_along(
        self, state: State, evaluation: Evaluation, direction: State, product: Leaves
    ) -> State:
        """Its derivative along a direction, for whose θ the Hessian's product is given."""
        ...

    @property
    def wiener(self) -> tuple[Wiener, ...]:
        """The Wiener processes."""
        ...

    def diffusion(self, state: State, evaluate: Evaluate) -> dict[str, State]:
        """Name of each Wiener process → its amplitudes, as a tangent."""
        ...

    def kick(self, state: State, step_size: Tensor, evaluate: Evaluate, noise: Noise) -> State:
        """The sum of all noise over a step, amplitude · √h · normal, as a tangent."""
        ...

    def apply(
        self, move: LetterMove, state: State, step_size: Tensor, evaluate: Evaluate, noise: Noise
    ) -> State:
        """The map of one letter."""
        ...


class LetterMove(NamedTuple):
    """One letter of a word: which, how, over which share of the step, and where it stands.

    Attributes:
        letter: The letter, or several that move jointly, in alphabetical order.
        kind: "euler", or None for the best map that there is.
        parts: How often the word names the letter: each time it covers 1/parts of the step.
        place: Position in the word; keys the noise.
        part: Which of the parts, from 0.
    """

    letter: str
    kind: str | None
    parts: int
    place: int
    part: int = 0


class Scheme(Protocol):
    """Turns a flow into a step.

    Attributes:
        regular_start: Whether drift or energies must be regular where it starts.
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
    def elementwise(self) -> bool:
        """Whether a step does the same to every element, without systems over several."""
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
        self, flow: FlowLike, state: State, step_size: Tensor, evaluate: Evaluate, noise: Noise
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
    """

    state: State
    error: State | None = None
    interpolant: Interpolant | None = None


class Trial(NamedTuple):
    """A step that a control is to judge.

    Attributes:
        flow: What was stepped.
        before: Where it began.
        after: Where it ended.
        error: Estimate of the local error, if the scheme has one.
        error_order: Order of the solution that the estimate compares with.
        finite: (*batch,) bool; a control that rejects must reject what is not finite.
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
        regular_start: Whether drift or energies must be regular where it starts.
    """

    rejects: bool
    regular_start: bool

    @property
    def advances(self) -> bool:
        """Whether time surely reaches any end, so that a duration alone is enough."""
        ...

    def check(self, flow: FlowLike, scheme: Scheme) -> None:
        """Raises `CompatibilityError` if the control can not judge steps of this scheme."""
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

    def join(self, position: Leaves) -> object:
        """Leaves in the form in which the user gave the start."""
        ...

    def draw(self, step: int, seed: int, batch: tuple[int, ...]) -> Sample:
        """The sample of a step for a batch; None where the problem is deterministic."""
        ...

    def losses(self, position: Leaves, sample: Sample) -> Tensor:
        """(*batch,), differentiable in the position."""

    def evaluate(self, position: Leaves, sample: Sample) -> Evaluation:
        """Loss and gradient, cut off from what the position comes from."""


class Energy(Protocol):
    """A candidate Lyapunov function."""

    @property
    def conserved(self) -> bool:
        """Whether its rate is zero everywhere."""

    def value(self, state: State, evaluation: Evaluation) -> Tensor:
        """(*batch,), float64."""

    def rate(self, state: State, evaluation: Evaluation, curvature: Leaves | None = None) -> Tensor:
        """Time derivative along the flow, (*batch,), float64; noise on θ needs ∂²L/∂θᵢ²."""
