"""Energies of a flow as functions of states."""

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from flowopt.core.evaluation import Evaluation
from flowopt.core.state import Leaves, State
from flowopt.errors import CompatibilityError
from flowopt.flows.equations.code import energy_code
from flowopt.flows.equations.formulas import evaluate_scalars, sum_formula
from flowopt.symbolic.energy import energy_of, energy_rate
from flowopt.symbolic.functions import curvature, laplacian
from flowopt.symbolic.language import Equations
from flowopt.symbolic.printer import Compiled


# A control asks for its flow's energy at every step, with other hyperparameters each time.
@lru_cache(maxsize=256)
def _value_code(flow: str, equations: Equations, name: str) -> tuple[Compiled, Compiled]:
    return energy_code(flow, equations, energy_of(equations, name))


@lru_cache(maxsize=256)
def _rate_code(
    flow: str, equations: Equations, name: str
) -> tuple[tuple[Compiled, Compiled], bool]:
    """The code of the rate, and whether it needs second derivatives."""
    rate = energy_rate(equations, name)
    second = rate.density.has(curvature) or rate.scalar.has(laplacian)
    return energy_code(flow, equations, rate), second


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

    @property
    def conserved(self) -> bool:
        """Whether its rate is zero everywhere."""
        rate = energy_rate(*self._source[1:])
        return rate.density == 0 and rate.scalar == 0

    def value(self, state: State, evaluation: Evaluation) -> Tensor:
        """E(state), (*batch,), float64."""
        return self._evaluate(self._value, state, evaluation)

    def rate(self, state: State, evaluation: Evaluation, curvature: Leaves | None = None) -> Tensor:
        """Time derivative along the flow, of the expectation where there is noise.

        Args:
            state: Where.
            evaluation: Loss and gradient there.
            curvature: Second derivatives of the loss there, which rates need where noise drives θ:
                `flowopt.problems.curvature(problem, state.position)`.

        Returns:
            (*batch,), float64.

        Raises:
            DefinitionError: The rate is not derived for this energy.
            CompatibilityError: Second derivatives are needed and not given.
        """
        codes, second = _rate_code(*self._source)
        if second and curvature is None:
            raise CompatibilityError(
                f"the rate of energy {self.name!r} of flow {self._source[0]!r} needs second "
                "derivatives of the loss: give "
                "curvature=flowopt.problems.curvature(problem, state.position)"
            )
        return self._evaluate(codes, state, evaluation, curvature)

    def _evaluate(
        self,
        codes: tuple[Compiled, Compiled],
        state: State,
        evaluation: Evaluation,
        second: Leaves | None = None,
    ) -> Tensor:
        density, scalar = codes
        scalars = {
            **self._hyperparameters,
            **state.scalars,
            "t": state.time,
            "L": evaluation.loss.to(torch.float64),
        }
        leaves = {**state.variables, "g": evaluation.gradient}
        if second is not None:
            leaves["curvature"] = second
        batch_dimensions = state.time.ndim
        summed = sum_formula(density, scalars, leaves, batch_dimensions)
        (rest,) = evaluate_scalars(scalar, scalars, leaves, batch_dimensions)
        return summed + rest
