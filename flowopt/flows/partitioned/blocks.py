"""Blocks with equations of their own: what is known of their flow before any step."""

from collections.abc import Callable, Hashable, Mapping
from typing import Self

import torch
from torch import Tensor

from flowopt.core.interfaces import Wiener
from flowopt.core.partition import Partition
from flowopt.core.word import groups_of, is_word
from flowopt.errors import DefinitionError, PartitionError
from flowopt.flows.equations.equation_flow import EquationFlow
from flowopt.flows.partitioned.energy import joint_energies
from flowopt.flows.partitioned.meanings import check_blocks, checked_meanings, own_word
from flowopt.flows.partitioned.parts import CLOCK, PACE, Part, checked_settings
from flowopt.symbolic.noise import NOISE_KINDS


class Blocks:
    """Blocks, their equations and what letters mean to them.

    Its arguments and attributes are those of `flowopt.flows.PartitionedFlow`, which adds how they
    are stepped.
    """

    def __init__(
        self,
        partition: Partition,
        flows: Mapping[str, EquationFlow],
        *,
        letters: Mapping[str, Mapping[str, str]] | None = None,
        pace: Mapping[str, float | Tensor] | None = None,
        clock: Mapping[str, float | Tensor] | None = None,
        name: str = "partitioned",
    ):
        """See the class."""
        letters, settings = letters or {}, {PACE: pace or {}, CLOCK: clock or {}}
        check_blocks(partition, flows, letters, *settings.values())
        self.partition, self.name = partition, name
        parts = []
        for block in partition.blocks:
            flow, own = flows[block.name], letters.get(block.name, {})
            given = {n: table[block.name] for n, table in settings.items() if block.name in table}
            meanings = checked_meanings(block.name, flow, own)
            parts.append(Part(block, flow, meanings, checked_settings(block.name, given)))
        self.parts = tuple(parts)
        self._energies = joint_energies({part.block.name: part.flow for part in self.parts})

    def __repr__(self) -> str:
        """Blocks, their flows, and what letters mean to them."""
        described = []
        for part in self.parts:
            changed = {k: v for k, v in part.meanings.items() if k != v}
            means = f" with {', '.join(f'{k}: {v}' for k, v in changed.items())}" if changed else ""
            settings = "".join(f", {n} {v.tolist()}" for n, v in part.settings.items())
            described.append(f"{part.block.name}: {part.flow!r}{means}{settings}")
        return f"<flow {self.name}, {'; '.join(described)}>"

    @property
    def definition(self) -> Hashable:
        """What a program of its steps depends on: all but the values of hyperparameters."""
        parts = (
            (part.flow.definition, tuple(part.meanings.items()), tuple(part.settings))
            for part in self.parts
        )
        return (type(self), self.name, self.partition, *parts)

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of what has one value per element: θ, then each block's."""
        own = (part.named(name) for part in self.parts for name in part.flow.variables)
        return tuple(dict.fromkeys(["theta", *own]))

    @property
    def scalars(self) -> tuple[str, ...]:
        """Names of what has one value per trajectory and block."""
        return tuple(part.named(name) for part in self.parts for name in part.flow.scalars)

    @property
    def letters(self) -> tuple[str, ...]:
        """Letters of the word."""
        return tuple(dict.fromkeys(letter for part in self.parts for letter in part.meanings))

    @property
    def hyperparameters(self) -> dict[str, Tensor]:
        """Block and name, as in "first.friction" → 0-d or (*batch,) float64 tensor."""
        return {
            part.named(name): value
            for part in self.parts
            for name, value in part.hyperparameters.items()
        }

    @property
    def per_step(self) -> frozenset[str]:
        """Hyperparameters given as rate × step size."""
        return frozenset(part.named(name) for part in self.parts for name in part.flow.per_step)

    @property
    def energies(self) -> tuple[str, ...]:
        """Names of the joint energies: the loss, and what each block's energy has besides."""
        return tuple(self._energies)

    @property
    def uses_loss(self) -> bool:
        """Whether the value of L enters the motion, not its gradient alone."""
        return any(part.flow.uses_loss for part in self.parts)

    @property
    def noise_kind(self) -> str:
        """What the noise depends on: that of the block where it depends on most."""
        # Blocks have processes of their own, so what one drives is not what drives the other.
        return max((part.flow.noise_kind for part in self.parts), key=NOISE_KINDS.index)

    @property
    def noisy(self) -> bool:
        """Whether any block has noise."""
        return self.noise_kind != "none"

    @property
    def symmetric(self) -> bool:
        """Blocks scale one Hessian differently, so its products are not symmetric in general."""
        return False

    @property
    def damping(self) -> None:
        """None: a damped system holds all parameters, and blocks have some each."""

    @property
    def steep_at_start(self) -> bool:
        """Whether the derivative of a block's drift is infinite at the initial state."""
        return any(part.flow.steep_at_start for part in self.parts)

    @property
    def singular_at_start(self) -> bool:
        """Whether a block's drift is undefined, or without bound, at time 0."""
        return any(part.flow.singular_at_start for part in self.parts)

    @property
    def wiener(self) -> tuple[Wiener, ...]:
        """The Wiener processes of all blocks."""
        return tuple(
            Wiener(
                f"{part.block.name}.{own.name}",
                tuple(map(part.named, own.drives)),
                tuple(map(part.named, own.depends_on)),
            )
            for part in self.parts
            for own in part.flow.wiener
        )

    def word(self, block: str, word: str) -> str:
        """What a block steps while all of them step a word: "ACDEDCAB" of AdLaLa's "AOAB".

        Raises:
            PartitionError: There is no such block, or this is no word.
        """
        names = {part.block.name: part for part in self.parts}
        if block not in names or not is_word(word):
            raise PartitionError(
                f"block {block!r} and word {word!r}: give one of the blocks {list(names)} and a "
                "word such as 'BAOAB'"
            )
        return own_word(names[block].meanings, groups_of(word))

    def with_hyperparameters(self, **changes: float | Tensor) -> Self:
        """The same flow with other values, named as in "first.friction".

        Raises:
            DefinitionError: A name is unknown or a value is not a number.
        """
        if unknown := [name for name in changes if name not in self.hyperparameters]:
            raise DefinitionError(
                f"flow {self.name!r} has no hyperparameters {unknown}: it has "
                f"{list(self.hyperparameters)}"
            )

        return self._changed(lambda part: part.with_hyperparameters(changes))

    def fitted(self, batch: tuple[int, ...], device: torch.device) -> Self:
        """The same flow, its (*batch,) hyperparameters on a device.

        Raises:
            CompatibilityError: A hyperparameter has another shape than the batch.
            DefinitionError: A hyperparameter is not a number.
        """
        return self._changed(lambda part: part.fitted(batch, device))

    def member(self, index: tuple[int, ...]) -> Self:
        """The flow of one trajectory of a batch."""
        return self._changed(lambda part: part.member(index))

    def at_step_size(self, step_size: float | Tensor) -> Self:
        """The flow in physical time: rates per step divided by each block's step size."""
        return self._changed(lambda part: part.at_step_size(step_size))

    def _changed(self, change: Callable[[Part], Part]) -> Self:
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.parts = tuple(map(change, self.parts))
        return copy
