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

PACE = "pace"
ONE = torch.tensor(1.0, dtype=torch.float64)


@dataclass(frozen=True)
class Part:
    """A block, its equation, and what the letters of a word mean to it.

    Attributes:
        block: Its leaves.
        flow: Its equation.
        meanings: Letter of the word → word over the flow's own letters.
        own_pace: Time that passes for it per unit of time, 0-d or (*batch,) float64; None for one.
    """

    block: Block
    flow: EquationFlow
    meanings: Mapping[str, str]
    own_pace: Tensor | None

    @property
    def pace(self) -> Tensor:
        """Time that passes for the block per unit of time."""
        return ONE if self.own_pace is None else self.own_pace

    def time(self, time: Tensor) -> Tensor:
        """A time, or a duration, as the block has it; (*batch,), float64."""
        return time if self.own_pace is None else time * self.own_pace

    def named(self, name: str) -> str:
        """The name of one of its variables, scalars or hyperparameters among those of all."""
        return name if name == "theta" else f"{self.block.name}.{name}"

    @property
    def hyperparameters(self) -> dict[str, Tensor]:
        """Those of its flow, and its pace if it has one."""
        pace = {} if self.own_pace is None else {PACE: self.own_pace}
        return {**self.flow.hyperparameters, **pace}

    def with_hyperparameters(self, changes: Mapping[str, float | Tensor]) -> "Part":
        """The same with other values, those of them that are its own."""
        prefix = self.named("")
        own = {n.removeprefix(prefix): v for n, v in changes.items() if n.startswith(prefix)}
        pace = checked_pace(self.block.name, own.pop(PACE, self.own_pace))
        return replace(self, flow=self.flow.with_hyperparameters(**own), own_pace=pace)

    def fitted(self, batch: tuple[int, ...], device: torch.device) -> "Part":
        """The same, its (*batch,) hyperparameters on a device; checks shapes."""
        pace = self.own_pace
        if pace is not None and pace.ndim:
            per_trajectory(f"hyperparameter {self.named(PACE)!r}", pace, batch)
            pace = pace.to(device)
        return replace(self, flow=self.flow.fitted(batch, device), own_pace=pace)

    def member(self, index: tuple[int, ...]) -> "Part":
        """That of one trajectory of a batch."""
        pace = self.own_pace
        pace = pace[index] if pace is not None and pace.ndim else pace
        return replace(self, flow=self.flow.member(index), own_pace=pace)

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
        )

    def evaluation(self, whole: Evaluation) -> Evaluation:
        """The loss, which is one for all, and the block's part of the gradient."""
        return replace(whole, gradient=self.block.of(whole.gradient))

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
    block: str
    time: Tensor
    step_size: Tensor

    def normal(self, like: Leaves, key: Key) -> Leaves:
        """Independent standard normals in the shapes of `like`."""
        return self.noise.normal(like, self._of_all(key))

    def uniform(self, like: Leaves, key: Key) -> Leaves:
        """Independent uniforms on (0, 1) in the shapes of `like`."""
        return self.noise.uniform(like, self._of_all(key))

    def _of_all(self, key: Key) -> Key:
        if key.increment is None:
            return key
        increment = key.increment._replace(
            wiener=f"{self.block}.{key.increment.wiener}",
            time=self.time,
            step_size=self.step_size,
        )
        return key._replace(increment=increment)


def checked_pace(block: str, pace: float | Tensor | None) -> Tensor | None:
    """A pace as a float64 tensor; raises `DefinitionError` for what is no number."""
    return None if pace is None else number("partitioned", f"{block}.{PACE}", pace)


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


def paced(tangent: State, factor: Tensor | None) -> State:
    """A tangent in another time; None for the same."""
    if factor is None:
        return tangent
    return tangent.map(lambda slope: lift(factor, slope) * slope)
