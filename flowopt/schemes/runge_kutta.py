"""Explicit Runge–Kutta methods on the summed drift."""

import difflib
from dataclasses import replace
from fractions import Fraction
from functools import partial

import torch
from torch import Tensor

from flowopt.core.interfaces import Evaluate, FlowLike, Noise, Proposal
from flowopt.core.state import State
from flowopt.errors import CompatibilityError
from flowopt.schemes.coefficients import TABLEAUX
from flowopt.schemes.drift import DriftScheme
from flowopt.schemes.tableau import Tableau


class RungeKutta(DriftScheme):
    """An explicit Runge–Kutta method.

    Args:
        tableau: One of "heun", "midpoint", "bosh3", "rk4", "dopri5", "tsit5", or a `Tableau` of
            one's own.

    Raises:
        CompatibilityError: No tableau has that name.

    Reference:
        Hairer, Nørsett & Wanner 1993, Solving Ordinary Differential Equations I, chapter II.
    """

    def __init__(self, tableau: str | Tableau):
        """See the class."""
        known = isinstance(tableau, str) and tableau in TABLEAUX
        if not known and not isinstance(tableau, Tableau):
            close = difflib.get_close_matches(str(tableau), TABLEAUX, n=1)
            raise CompatibilityError(
                f"no Runge-Kutta method {tableau!r}: known are {list(TABLEAUX)}"
                + (f"; did you mean {close[0]!r}?" if close else "")
            )
        self.tableau = tableau if isinstance(tableau, Tableau) else TABLEAUX[tableau]
        self.error_order = self.tableau.embedded_order
        self.interpolant_order = self.tableau.interpolant_order if self.tableau.interpolant else 0

    def __repr__(self) -> str:
        """As it is written."""
        return f"RungeKutta({self.tableau.name!r})"

    def order(self, flow: FlowLike) -> float:
        """The tableau's order, whatever the flow."""
        return float(self.tableau.order)

    def gradient_evaluations(self, flow: FlowLike) -> int:
        """Stages, less the last where it is the first of the next step."""
        return len(self.tableau.weights) - int(self.tableau.reuses_last_stage)

    def ends_with_gradient(self, flow: FlowLike) -> bool:
        """Whether the last stage is the first of the next step."""
        return self.tableau.reuses_last_stage

    def step(
        self, flow: FlowLike, state: State, step_size: Tensor, evaluate: Evaluate, noise: Noise
    ) -> Proposal:
        """The stages, then their weighted sum; and the difference to the embedded solution."""
        tableau = self.tableau
        slopes: list[State] = []
        point = state
        for row, node in zip(tableau.stages, tableau.nodes, strict=True):
            if slopes:
                point = _along(state, step_size, row, slopes)
                point = replace(point, time=state.time + float(node) * step_size)
            slopes.append(flow.drift(point, evaluate(point)))
        # A last stage at the end of the step has been summed and evaluated already.
        end = point if tableau.reuses_last_stage else None
        end = end or _along(state, step_size, tableau.weights, slopes)
        interpolant = partial(self._between, state, step_size, slopes)
        interpolant = interpolant if tableau.interpolant else None
        if not tableau.embedded:
            return Proposal(end, interpolant=interpolant)
        pairs = zip(tableau.weights, tableau.embedded, strict=True)
        differences = tuple(weight - embedded for weight, embedded in pairs)
        nothing = state.map(torch.zeros_like)
        return Proposal(end, _along(nothing, step_size, differences, slopes), interpolant)

    def _between(
        self, state: State, step_size: Tensor, slopes: list[State], share: Tensor
    ) -> State:
        """The state at a share of the step, by the same stages with other weights."""
        pairs = zip(self.tableau.interpolant, slopes, strict=True)
        return state.plus(
            [(step_size * _polynomial(row, share), slope) for row, slope in pairs if any(row)]
        )


def _along(state: State, step_size: Tensor, weights: tuple, slopes: list[State]) -> State:
    pairs = zip(weights, slopes, strict=False)
    return state.plus([(float(weight) * step_size, slope) for weight, slope in pairs if weight])


def _polynomial(coefficients: tuple[Fraction, ...], x: Tensor) -> Tensor:
    """Σ cₙ xⁿ for n from 1."""
    value = torch.zeros_like(x)
    for coefficient in reversed(coefficients):
        value = (value + float(coefficient)) * x
    return value
