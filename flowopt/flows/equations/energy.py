"""Energies of a flow as functions of states."""

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from flowopt.core.evaluation import Evaluation
from flowopt.core.state import State
from flowopt.flows.equations.code import energy_code
from flowopt.flows.equations.formulas import evaluate_scalars, sum_formula
from flowopt.symbolic.energy import energy_of, energy_rate
from flowopt.symbolic.language import Equations
from flowopt.symbolic.printer import Compiled


# A control asks for its flow's energy at every step, with other hyperparameters each time.
@lru_cache(maxsize=256)
def _value_code(flow: str, equations: Equations, name: str) -> tuple[Compiled, Compiled]:
    return energy_code(flow, equations, energy_of(equations, name))


@lru_cache(maxsize=256)
def _rate_code(flow: str, equations: Equations, name: str) -> tuple[Compiled, Compiled]:
    return energy_code(flow, equations, energy_rate(equations, name))


class FlowEnergy:
    """A declared energy of a flow, evaluated on states."""

    def __init__(
        self, flow: str, equations: Equations, hyperparameters: Mapping[str, Tensor], name: str
    ):
        """Raises `DefinitionError` if the equations declare no such energy."""
        self.name = name
        self._source = flow, equations, name
        self._hyperparameters = hyperparameters
        self._value = _value_code(*self._source)

    def value(self, state: State, evaluation: Evaluation) -> Tensor:
        """E(state), (*batch,), float64."""
        return self._evaluate(self._value, state, evaluation)

    def rate(self, state: State, evaluation: Evaluation) -> Tensor:
        """dE/dt along the flow, (*batch,), float64.

        Raises:
            DefinitionError: The rate is not derived for this energy.
        """
        return self._evaluate(_rate_code(*self._source), state, evaluation)

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
