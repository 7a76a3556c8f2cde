"""Energies of a flow as functions of states."""

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from flowopt.core.evaluation import Evaluation
from flowopt.core.state import State
from flowopt.flows.equations.code import energy_code
from flowopt.flows.equations.formulas import evaluate_scalars, sum_formula
from flowopt.symbolic.energy import energy_of, energy_rate
from flowopt.symbolic.language import Equations
from flowopt.symbolic.printer import Compiled


class FlowEnergy:
    """A declared energy of a flow, evaluated on states."""

    def __init__(
        self, flow: str, equations: Equations, hyperparameters: Mapping[str, Tensor], name: str
    ):
        """Raises `DefinitionError` if the equations declare no such energy."""
        self.name = name
        self._flow = flow
        self._equations = equations
        self._hyperparameters = hyperparameters
        self._value = energy_code(flow, equations, energy_of(equations, name))

    @cached_property
    def _rate(self) -> tuple[Compiled, Compiled]:
        rate = energy_rate(self._equations, self.name)
        return energy_code(self._flow, self._equations, rate)

    def value(self, state: State, evaluation: Evaluation) -> Tensor:
        """E(state), (*batch,), float64."""
        return self._evaluate(self._value, state, evaluation)

    def rate(self, state: State, evaluation: Evaluation) -> Tensor:
        """dE/dt along the flow, (*batch,), float64.

        Raises:
            DefinitionError: The rate is not derived for this energy.
        """
        return self._evaluate(self._rate, state, evaluation)

    def _evaluate(
        self, codes: tuple[Compiled, Compiled], state: State, evaluation: Evaluation
    ) -> Tensor:
        density, scalar = codes
        scalars = {
            **self._hyperparameters,
            **state.scalars,
            "t": state.time,
            "L": evaluation.loss.to(torch.float64),
        }
        leaves = {**state.variables, "g": evaluation.gradient}
        batch_dimensions = state.time.ndim
        summed = sum_formula(density, scalars, leaves, batch_dimensions)
        (rest,) = evaluate_scalars(scalar, scalars, leaves, batch_dimensions)
        return summed + rest
