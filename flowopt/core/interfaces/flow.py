"""What an equation is to those that step it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from torch import Tensor

if TYPE_CHECKING:
    import torch

    from flowopt.core.evaluation import Evaluation
    from flowopt.core.interfaces.draws import Noise, Wiener
    from flowopt.core.interfaces.problem import Energy
    from flowopt.core.partition import Partition
    from flowopt.core.state import Leaves, State

Evaluate = Callable[["State"], "Evaluation"]


class FlowLike(Protocol):
    """An equation that can be stepped."""

    @property
    def name(self) -> str:
        """For messages and tables."""
        ...

    @property
    def per_step(self) -> frozenset[str]:
        """Hyperparameters given as rate × step size."""
        ...

    @property
    def partition(self) -> Partition | None:
        """Blocks of leaves: a variable "first.p" has those of block "first" alone."""
        ...

    @property
    def definition(self) -> Hashable:
        """What a program of its steps depends on: all but the values of hyperparameters."""
        ...

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
    def damping(self) -> Tensor | None:
        """The μ of (Q + μI)⁻¹∇L in its equations, with the Gauss–Newton matrix Q."""
        ...

    @property
    def steep_at_start(self) -> bool:
        """Whether the derivative of the summed drift is infinite at the initial state."""
        ...

    @property
    def singular_at_start(self) -> bool:
        """Whether the summed drift is undefined, or without bound, at time 0."""
        ...

    def kind(self, letter: str, kind: str | None) -> str:
        """Kind of the map of a letter, or of several.

        "exact", "frozen" or "euler"; where it is made of several maps, "symmetric": of exact ones,
        the same from either end; or "composed": of exact ones.
        """
        ...

    def uses_gradient(self, letter: str) -> bool:
        """Whether the map of a letter, or of several, needs ∇L."""
        ...

    def moves_position(self, letter: str) -> bool:
        """Whether a letter, or one of several, moves θ."""
        ...

    def initial_state(
        self,
        position: Leaves,
        step: Tensor,
        evaluate: Evaluate,
        later: bool = False,
        step_size: Tensor | None = None,
    ) -> State:
        """The state at time 0, or shortly after where that is singular and `later` is asked for.

        How long after may depend on the size of the first step, if that is known.
        """
        ...

    def fitted(self, batch: tuple[int, ...], device: torch.device) -> FlowLike:
        """The same flow, what it holds per trajectory on a device; checks shapes."""
        ...

    def member(self, index: tuple[int, ...]) -> FlowLike:
        """The flow of one trajectory of a batch."""
        ...

    def at_step_size(self, step_size: Tensor) -> FlowLike:
        """The flow in physical time, if rates are given per step."""
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
        word: All letters of the word, those that move jointly together.
    """

    letter: str
    kind: str | None
    parts: int
    place: int
    part: int = 0
    word: tuple[str, ...] = ()
