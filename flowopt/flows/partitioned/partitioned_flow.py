"""A flow whose blocks of parameters have equations of their own."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import Evaluate, LetterMove, Noise
from flowopt.core.state import Leaves, State
from flowopt.errors import CompatibilityError, DefinitionError
from flowopt.flows.equations.equation_flow import EquationFlow
from flowopt.flows.partitioned.blocks import Blocks
from flowopt.flows.partitioned.energy import PartitionedEnergy
from flowopt.flows.partitioned.meanings import (
    own_groups,
    own_moves,
)
from flowopt.flows.partitioned.parts import Part, joined, paced


class PartitionedFlow(Blocks):
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
        zero = torch.zeros_like(step, dtype=torch.float64)
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

    def _tangent(self, state: State, slope: Callable[[Part, State], State]) -> State:
        """Tangents of the blocks, in the time of all."""
        slopes = [(part, paced(slope(part, part.state(state)), part)) for part in self.parts]
        return joined(state.map(torch.zeros_like), slopes)
