"""The energy of a flow whose blocks have equations of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from flowopt.core.evaluation import Evaluation
from flowopt.core.state import Leaves, State
from flowopt.flows.equations.equation_flow import EquationFlow
from flowopt.flows.partitioned.parts import Part, joined
from flowopt.symbolic.language import LOSS

JOINT = "joint"


def joint_energies(flows: Mapping[str, EquationFlow]) -> dict[str, dict[str, str]]:
    """Name → block → name of its energy.

    What all blocks call the same, and each writes as the loss and more, is an energy of the whole:
    the loss once, and what each block has besides. Where nothing has one name, the first energies
    of all blocks make one, "joint".
    """
    fitting = {
        block: [n for n, formula in flow.equations.energies.items() if formula.diff(LOSS) == 1]
        for block, flow in flows.items()
    }
    first, *others = fitting.values()
    shared = [name for name in first if all(name in names for names in others)]
    if shared:
        return {name: dict.fromkeys(fitting, name) for name in shared}
    if all(fitting.values()):
        return {JOINT: {block: names[0] for block, names in fitting.items()}}
    return {}


class PartitionedEnergy:
    """The loss, and for each block what its energy has besides."""

    def __init__(self, parts: Sequence[Part], names: Mapping[str, str]):
        """Energies of the blocks by their names."""
        self._energies = [(part, part.flow.energy(names[part.block.name])) for part in parts]

    @property
    def conserved(self) -> bool:
        """Whether the rate of every block is zero everywhere."""
        return all(energy.conserved for _, energy in self._energies)

    @property
    def uses_gradient(self) -> bool:
        """Whether the value of any block's depends on the gradient of the loss."""
        return any(energy.uses_gradient for _, energy in self._energies)

    def value(self, state: State, evaluation: Evaluation) -> Tensor:
        """E(state), (*batch,), float64."""
        # A block's energy where the loss is zero is what it has besides.
        bare = replace(evaluation, loss=torch.zeros_like(evaluation.loss))
        values = [e.value(part.state(state), part.evaluation(bare)) for part, e in self._energies]
        return sum(values, start=evaluation.loss.to(torch.float64))

    def rate(self, state: State, evaluation: Evaluation, curvature: Leaves | None = None) -> Tensor:
        """Time derivative along the flow, of the expectation where there is noise.

        Args:
            state: Where.
            evaluation: Loss and gradient there.
            curvature: Second derivatives of the loss, for the leaves of θ, where a block needs
                them.

        Returns:
            (*batch,), float64.

        Raises:
            DefinitionError: The rate is not derived for the energy of a block.
            CompatibilityError: Second derivatives are needed and not given.
        """
        # Each block moves only what is its own, along which L falls by its part of the gradient.
        rates = [
            part.pace
            * energy.rate(
                part.state(state),
                part.evaluation(evaluation),
                None if curvature is None else part.block.of(curvature),
            )
            for part, energy in self._energies
        ]
        return sum(rates[1:], start=rates[0])

    @property
    def momenta(self) -> tuple[str, ...]:
        """None that moves all of θ."""
        return ()

    def slope(self, state: State, evaluation: Evaluation) -> State:
        """Its derivatives by θ and momenta, as a tangent; zero by all else."""
        slopes = [
            (part, energy.slope(part.state(state), part.evaluation(evaluation)))
            for part, energy in self._energies
        ]
        return joined(state.map(torch.zeros_like), slopes)

    def dissipation(self, state: State, evaluation: Evaluation) -> Tensor:
        """What a control asks the energy to lose per time, (*batch,), float64."""
        lost = [
            part.pace * energy.dissipation(part.state(state), part.evaluation(evaluation))
            for part, energy in self._energies
        ]
        return sum(lost[1:], start=lost[0])
