"""A flow whose blocks of parameters have equations of their own."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import Evaluate, LetterMove, Noise, Wiener
from flowopt.core.partition import Partition
from flowopt.core.state import Leaves, State
from flowopt.core.word import groups_of, is_word
from flowopt.errors import CompatibilityError, DefinitionError, PartitionError
from flowopt.flows.equations.equation_flow import EquationFlow
from flowopt.flows.partitioned.energy import PartitionedEnergy, joint_energies
from flowopt.flows.partitioned.meanings import (
    check_blocks,
    checked_meanings,
    own_groups,
    own_moves,
    own_word,
)
from flowopt.flows.partitioned.parts import CLOCK, PACE, Part, checked_settings, joined, paced
from flowopt.symbolic.noise import NOISE_KINDS


class PartitionedFlow:
    """Blocks of parameters, each with its own equation, coupled by the gradient of one loss.

    A splitting word is spelled for all blocks; `letters` says what one of its letters means to a
    block. Under the word "AOAB", AdLaLa is adaptive Langevin dynamics for the first layer, to which
    O means the whole thermostat, and Langevin dynamics for the rest::

        PartitionedFlow(
            Partition(network, {"first": "0.*", "rest": ...}),
            {"first": adaptive_langevin(temperature=1e-4), "rest": langevin(temperature=1e-4)},
            letters={"first": {"O": "CDEDC"}},
        )

    All blocks' maps of one letter start from the same state and one joint gradient. Each block
    steps exactly as it would alone under its own word (`word`), noise included. Variables, scalars
    and hyperparameters are named by their block: `first.p`, `first.xi`, `rest.friction`.

    Attributes:
        partition: The blocks.
        parts: Each block with its flow and what letters mean to it.
        name: For messages and tables.

    Args:
        partition: Which leaves of θ are in which block.
        flows: Block → its equation.
        letters: Block → letter → word over the letters of the block's flow. Where a letter has no
            meaning here it means itself, and nothing to a flow without such a letter.
        pace: Block → time that passes for it per unit of time, one number or (*batch,): its own
            step size over the common one.
        clock: Block → its time where that of all is 0, one number or (*batch,).
        name: For messages and tables.

    Raises:
        PartitionError: Blocks and flows differ, or a letter of a flow has no meaning or several.
        CompatibilityError: A meaning uses the gradient after θ has moved.

    Reference:
        Leimkuhler, Matthews & Vlaar 2019, Found. Data Sci. 1(4), 457.
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
        return (PartitionedFlow, self.name, self.partition, *parts)

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

    def with_hyperparameters(self, **changes: float | Tensor) -> "PartitionedFlow":
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

    def fitted(self, batch: tuple[int, ...], device: torch.device) -> "PartitionedFlow":
        """The same flow, its (*batch,) hyperparameters on a device.

        Raises:
            CompatibilityError: A hyperparameter has another shape than the batch.
            DefinitionError: A hyperparameter is not a number.
        """
        return self._changed(lambda part: part.fitted(batch, device))

    def member(self, index: tuple[int, ...]) -> "PartitionedFlow":
        """The flow of one trajectory of a batch."""
        return self._changed(lambda part: part.member(index))

    def at_step_size(self, step_size: float | Tensor) -> "PartitionedFlow":
        """The flow in physical time: rates per step divided by each block's step size."""
        return self._changed(lambda part: part.at_step_size(step_size))

    def energy(self, name: str) -> PartitionedEnergy:
        """A joint energy as a function of states.

        Raises:
            DefinitionError: The blocks declare no such energy in common.
            CompatibilityError: Rates are given per step; `at_step_size` gives the flow in time.
        """
        if name not in self._energies:
            raise DefinitionError(
                f"flow {self.name!r} has no joint energy {name!r}: it has {list(self._energies)}, "
                "those that all blocks declare as the loss and more"
            )
        return PartitionedEnergy(self.parts, self._energies[name])

    def kind(self, letter: str, kind: str | None = None) -> str:
        """Kind of the map of a letter: exact, frozen, euler, or made of several exact ones."""
        owned = [(part.flow, self._groups(part, letter)) for part in self.parts]
        kinds = {flow.kind(group, kind) for flow, groups in owned for group in groups}
        if kinds - {"exact"}:
            return "euler" if kinds == {"euler"} else "frozen"
        if self.moves_position(letter) and self.uses_gradient(letter):
            # One block's θ moves while another holds the gradient.
            return "frozen"
        if any(groups != groups[::-1] for _, groups in owned):
            return "composed"
        return "symmetric" if any(len(groups) > 1 for _, groups in owned) else "exact"

    def uses_gradient(self, letter: str) -> bool:
        """Whether the map of a letter needs ∇L."""
        return self._any(letter, EquationFlow.uses_gradient)

    def moves_position(self, letter: str) -> bool:
        """Whether a letter moves θ."""
        return self._any(letter, EquationFlow.moves_position)

    def initial_state(
        self,
        position: Leaves,
        step: Tensor,
        evaluate: Evaluate,
        later: bool = False,
        step_size: Tensor | None = None,
    ) -> State:
        """The state at time 0: each block's declared start values, zero elsewhere.

        Args:
            position: Leaves of θ, (*batch, *shape).
            step: Number of the first step, (*batch,), int64.
            evaluate: Called only if a start value needs the gradient.
            later: Whether the summed drift must be regular: where a block's is not at time 0, all
                begin at the latest of the times at which a series holds.
            step_size: Of the first step, (*batch,), if it is known.
        """
        self.partition.check(position)
        zero = step.to(torch.float64) * 0.0
        whole = State({"theta": position}, {}, zero, step)
        singular = [part for part in self.parts if later and part.flow.singular_at_start]
        times = []
        for part in singular:
            first = None if step_size is None else part.duration(step_size)
            times.append(part.time_of_all(part.flow.later_time(step, first)))
        for time in times:
            whole = replace(whole, time=torch.maximum(whole.time, time))
        states = [
            part.flow.initial_state(
                part.block.of(position),
                step,
                part.evaluate(evaluate, whole),
                part.time(whole.time) if times else False,
            )
            for part in self.parts
        ]
        return joined(whole, zip(self.parts, states, strict=True))

    def drift(self, state: State, evaluation: Evaluation) -> State:
        """The sum of all drifts, as a tangent."""
        return self._tangent(
            state,
            lambda part, own: part.flow.drift(own, part.evaluation(evaluation)),
        )

    def drift_along(
        self, state: State, evaluation: Evaluation, direction: State, product: Leaves
    ) -> State:
        """Its derivative along a direction, for whose θ the Hessian's product is given."""
        return self._tangent(
            state,
            lambda part, own: part.flow.drift_along(
                own, part.evaluation(evaluation), part.state(direction), part.block.of(product)
            ),
        )

    def diffusion(self, state: State, evaluate: Evaluate) -> dict[str, State]:
        """Name of each Wiener process → its amplitudes, as a tangent."""
        found = {}
        for part in self.parts:
            own = part.flow.diffusion(part.state(state), part.evaluate(evaluate, state))
            for name, amplitudes in own.items():
                slopes = [(part, paced(amplitudes, part, noise=True))]
                found[f"{part.block.name}.{name}"] = joined(state.map(torch.zeros_like), slopes)
        return found

    def kick(self, state: State, step_size: Tensor, evaluate: Evaluate, noise: Noise) -> State:
        """The sum of all noise over a step, amplitude · √h · normal, as a tangent."""
        states = [
            (
                part,
                part.flow.kick(
                    part.state(state),
                    part.duration(step_size),
                    part.evaluate(evaluate, state),
                    part.noise(noise, state, step_size),
                ),
            )
            for part in self.parts
        ]
        return joined(state.map(torch.zeros_like), states)

    def apply(
        self, move: LetterMove, state: State, step_size: Tensor, evaluate: Evaluate, noise: Noise
    ) -> State:
        """The maps of one letter in all blocks, from one state and one gradient.

        Args:
            move: Which letter, and over which share of the step.
            state: Before the letter.
            step_size: Of the whole step, (*batch,), float64.
            evaluate: Gives loss and gradient at a state; called only where a map needs them.
            noise: Source of normals.
        """
        moved = []
        for part in self.parts:
            own, known = part.state(state), part.evaluate(evaluate, state)
            source = part.noise(noise, state, step_size) if part.flow.noisy else noise
            for step in own_moves(part.meanings, move):
                own = part.flow.apply(step, own, part.duration(step_size), known, source)
            moved.append((part, own))
        return joined(state, moved)

    def _groups(self, part: Part, letter: str) -> tuple[str, ...]:
        unknown = [one for one in letter if one not in self.letters]
        if unknown:
            raise CompatibilityError(
                f"flow {self.name!r} has no letter {unknown[0]!r}: it has {list(self.letters)}"
            )
        return own_groups(part.meanings, letter)

    def _any(self, letter: str, asked: Callable[[EquationFlow, str], bool]) -> bool:
        owned = [(part, self._groups(part, letter)) for part in self.parts]
        return any(asked(part.flow, group) for part, groups in owned for group in groups)

    def _changed(self, change: Callable[[Part], Part]) -> "PartitionedFlow":
        copy = object.__new__(PartitionedFlow)
        copy.__dict__.update(self.__dict__)
        copy.parts = tuple(map(change, self.parts))
        return copy

    def _tangent(self, state: State, slope: Callable[[Part, State], State]) -> State:
        """Tangents of the blocks, in the time of all."""
        slopes = [(part, paced(slope(part, part.state(state)), part)) for part in self.parts]
        return joined(state.map(torch.zeros_like), slopes)
