"""Energies of a flow as functions of states."""

from collections.abc import Mapping
from functools import lru_cache, partial

import torch
from torch import Tensor

from flowopt.core.evaluation import Evaluation
from flowopt.core.state import Leaves, State, lift
from flowopt.errors import CompatibilityError
from flowopt.flows.equations.code import SOLVED, energy_code, energy_slope_code
from flowopt.flows.equations.formulas import evaluate_formulas, evaluate_scalars
from flowopt.flows.equations.running import run_code
from flowopt.symbolic.energy import declared_dissipation, energy_of, energy_rate, momenta
from flowopt.symbolic.functions import curvature, laplacian
from flowopt.symbolic.language import Equations, theta
from flowopt.symbolic.printing.torch_code import Compiled


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


@lru_cache(maxsize=256)
def _dissipation_code(
    flow: str, equations: Equations, name: str
) -> tuple[Compiled, Compiled] | None:
    declared = declared_dissipation(equations, name)
    return None if declared is None else energy_code(flow, equations, declared)


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
        others = [v.name for v in equations.variables if v != theta]
        self._rests = others if equations.later_start is not None else []

    @property
    def conserved(self) -> bool:
        """Whether its rate is zero everywhere."""
        rate = energy_rate(*self._source[1:])
        return rate.density == 0 and rate.scalar == 0

    @property
    def uses_gradient(self) -> bool:
        """Whether its value depends on the gradient of the loss."""
        return any(_uses_gradient(code) for code in self._value)

    @property
    def momenta(self) -> tuple[str, ...]:
        """Variables besides θ that it is quadratic in and all drifts are affine in."""
        return momenta(*self._source[1:])

    def value(self, state: State, evaluation: Evaluation) -> Tensor:
        """E(state), (*batch,), float64.

        Elements that have not felt a gradient yet, of which Adam's energy is 0/0, count as 0: the
        limit from which they leave rest.
        """
        return self._evaluate(self._value, state, evaluation, state.time >= 0)

    def rate(self, state: State, evaluation: Evaluation, curvature: Leaves | None = None) -> Tensor:
        """Time derivative along the flow, of the expectation where there is noise.

        Args:
            state: Where.
            evaluation: Loss and gradient there.
            curvature: Second derivatives of the loss there, which rates need where noise drives θ:
                `flowopt.problems.curvature(problem, state.position)`.

        Returns:
            (*batch,), float64. Not a number where the flow is singular, as Adam's at time 0.

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
        return self._evaluate(codes, state, evaluation, state.time > 0, curvature)

    def dissipation(self, state: State, evaluation: Evaluation) -> Tensor:
        """What a control asks the energy to lose per time, (*batch,), float64.

        As declared, else minus its rate.
        """
        codes = _dissipation_code(*self._source)
        if codes is None:
            return -self.rate(state, evaluation)
        return self._evaluate(codes, state, evaluation, state.time >= 0)

    def slope(self, state: State, evaluation: Evaluation) -> State:
        """Its derivatives by θ and by what it is quadratic in, as a tangent; zero by all else."""
        code, one = energy_slope_code(*self._source), torch.ones_like(state.time)
        values, scalars = run_code(
            code, self._hyperparameters, state, one, lambda _: evaluation, ()
        )
        return state.map(torch.zeros_like).updated(values, scalars)

    def _evaluate(
        self,
        codes: tuple[Compiled, Compiled],
        state: State,
        evaluation: Evaluation,
        may_rest: Tensor,
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
        if evaluation.damped is not None:
            leaves[SOLVED.name] = evaluation.damped
        if second is not None:
            leaves["curvature"] = second
        (values,) = evaluate_formulas(density, scalars, leaves, state.total)
        if self._rests:
            others = zip(*(state.variables[name] for name in self._rests), strict=True)
            values = tuple(map(partial(_without_resting, may_rest), values, others))
        (rest,) = evaluate_scalars(scalar, scalars, leaves, state.total)
        return state.total(values, start=rest)


def _without_resting(may_rest: Tensor, value: Tensor, others: tuple[Tensor, ...]) -> Tensor:
    """A density with 0 for 0/0 where all that the method carries is 0."""
    resting = (lift(may_rest, value) != 0) & (value != value)
    for other in others:
        resting = resting & (other == 0)
    return torch.where(resting, 0.0, value)


def _uses_gradient(code: Compiled) -> bool:
    return "g" in code.leaf_arguments or any(_uses_gradient(inner) for _, inner in code.sums)
