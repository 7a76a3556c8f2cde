"""A block's share of states, evaluations and noise."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import Evaluate, Key, Noise
from flowopt.core.partition import Block
from flowopt.core.state import Leaves, State, lift, per_trajectory
from flowopt.flows.equations.equation_flow import EquationFlow
from flowopt.flows.equations.hyperparameters import number

PACE, CLOCK = "pace", "clock"
ONE = torch.tensor(1.0, dtype=torch.float64)


@dataclass(frozen=True)
class Part:
    """A block, its equation, and what the letters of a word mean to it.

    Attributes:
        block: Its leaves.
        flow: Its equation.
        meanings: Letter of the word → word over the flow's own letters.
        settings: "pace", time that passes for it per unit of time, and "clock", its time at time 0,
            where they are not 1 and 0; 0-d or (*batch,) float64.
    """

    block: Block
    flow: EquationFlow
    meanings: Mapping[str, str]
    settings: Mapping[str, Tensor]

    @property
    def pace(self) -> Tensor:
        """Time that passes for the block per unit of time."""
        return self.settings.get(PACE, ONE)

    def duration(self, duration: Tensor) -> Tensor:
        """A duration as the block has it; (*batch,), float64."""
        return duration * self.settings[PACE] if PACE in self.settings else duration

    def time(self, time: Tensor) -> Tensor:
        """A time as the block has it; (*batch,), float64."""
        own = self.duration(time)
        return own + self.settings[CLOCK] if CLOCK in self.settings else own

    def time_of_all(self, time: Tensor) -> Tensor:
        """The inverse of `time`."""
        return (time - self.settings[CLOCK] if CLOCK in self.settings else time) / self.pace

    def named(self, name: str) -> str:
        """The name of one of its variables, scalars or hyperparameters among those of all."""
        return name if name == "theta" else f"{self.block.name}.{name}"

    @property
    def hyperparameters(self) -> dict[str, Tensor]:
        """Those of its flow, and its settings."""
        return {**self.flow.hyperparameters, **self.settings}

    def with_hyperparameters(self, changes: Mapping[str, float | Tensor]) -> "Part":
        """The same with other values, those of them that are its own."""
        prefix = self.named("")
        own = {n.removeprefix(prefix): v for n, v in changes.items() if n.startswith(prefix)}
        settings = {name: own.pop(name, value) for name, value in self.settings.items()}
        return replace(
            self,
            flow=self.flow.with_hyperparameters(**own),
            settings=checked_settings(self.block.name, settings),
        )

    def fitted(self, batch: tuple[int, ...], device: torch.device) -> "Part":
        """The same, its (*batch,) hyperparameters on a device; checks shapes."""
        for name, value in self.settings.items():
            per_trajectory(f"hyperparameter {self.named(name)!r}", value, batch)
        settings = {n: v.to(device) if v.ndim else v for n, v in self.settings.items()}
        return replace(self, flow=self.flow.fitted(batch, device), settings=settings)

    def member(self, index: tuple[int, ...]) -> "Part":
        """That of one trajectory of a batch."""
        settings = {n: v[index] if v.ndim else v for n, v in self.settings.items()}
        return replace(self, flow=self.flow.member(index), settings=settings)

    def at_step_size(self, step_size: float | Tensor) -> "Part":
        """The same in physical time: rates per step divided by its own step size."""
        return replace(self, flow=self.flow.at_step_size(step_size * self.pace))

    def state(self, whole: State) -> State:
        """The block's own state."""
        others = [name for name in self.flow.variables if name != "theta"]
        return replace(
            whole,
            variables={
                "theta": self.block.of(whole.position),
                **{name: whole.variables[self.named(name)] for name in others},
            },
            scalars={name: whole.scalars[self.named(name)] for name in self.flow.scalars},
            time=self.time(whole.time),
            shards=None if whole.shards is None else self.block.of(whole.shards),
        )

    def evaluation(self, whole: Evaluation) -> Evaluation:
        """The loss, which is one for all, and the block's part of the gradient."""
        gradient = self.block.of(whole.gradient) if whole.gradient else ()
        return replace(whole, gradient=gradient)

    def evaluate(self, evaluate: Evaluate, whole: State) -> Evaluate:
        """Gives the block its part of the joint evaluation of a state."""
        return lambda _: self.evaluation(evaluate(whole))

    def noise(self, noise: Noise, whole: State, step_size: Tensor) -> Noise:
        """The block's part of the noise of all."""
        own = noise.block(self.block.places, whole.position)
        return _PartNoise(own, self.block.name, whole.time, step_size)


@dataclass(frozen=True)
class _PartNoise:
    """Noise that is asked in the time of a block, and answers in that of all."""

    noise: Noise
    name: str
    time: Tensor
    step_size: Tensor

    def normal(self, like: Leaves, key: Key) -> Leaves:
        """Independent standard normals in the shapes of `like`."""
        return self.noise.normal(like, self._of_all(key))

    def uniform(self, like: Leaves, key: Key) -> Leaves:
        """Independent uniforms on (0, 1) in the shapes of `like`."""
        return self.noise.uniform(like, self._of_all(key))

    def block(self, places: tuple[int, ...], position: Leaves) -> Noise:
        """The same of some leaves of the block."""
        return replace(self, noise=self.noise.block(places, position))

    def _of_all(self, key: Key) -> Key:
        if key.increment is None:
            return key
        increment = key.increment._replace(
            wiener=f"{self.name}.{key.increment.wiener}",
            time=self.time,
            step_size=self.step_size,
        )
        return key._replace(increment=increment)


def checked_settings(block: str, given: Mapping[str, float | Tensor]) -> dict[str, Tensor]:
    """Pace and clock as float64 tensors; raises `DefinitionError` for what is no number."""
    return {name: number("partitioned", f"{block}.{name}", v) for name, v in given.items()}


def joined(whole: State, parts: Iterable[tuple[Part, State]]) -> State:
    """The state of all with blocks where they are now.

    Where no block has moved θ, it is the same tuple of leaves, so that what is known of it is known
    still.
    """
    variables, scalars = dict(whole.variables), dict(whole.scalars)
    position = list(whole.position)
    moved = False
    for part, state in parts:
        before = part.block.of(whole.position)
        for place, leaf, old in zip(part.block.places, state.position, before, strict=True):
            position[place], moved = leaf, moved or leaf is not old
        others = {name: leaves for name, leaves in state.variables.items() if name != "theta"}
        variables |= {part.named(name): leaves for name, leaves in others.items()}
        scalars |= {part.named(name): value for name, value in state.scalars.items()}
    if moved:
        variables["theta"] = tuple(position)
    return replace(whole, variables=variables, scalars=scalars)


def paced(tangent: State, part: Part, *, noise: bool = False) -> State:
    """A tangent of a block in the time of all; amplitudes of noise go with the root of time."""
    if PACE not in part.settings:
        return tangent
    factor = torch.sqrt(part.pace) if noise else part.pace
    return tangent.map(lambda slope: lift(factor, slope) * slope)
