"""Random numbers: what is drawn, and from where."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from flowopt.core.state import Leaves


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

    def block(self, places: tuple[int, ...], position: Leaves) -> Noise:
        """The noise of some leaves of θ, by their places among all, as in the noise of all."""
        ...
