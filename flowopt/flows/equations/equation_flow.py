"""A flow made of equations: the only place where formulas meet states."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import Evaluate, LetterMove, Noise
from flowopt.core.shards import Shards
from flowopt.core.state import Leaves, State
from flowopt.errors import CompatibilityError
from flowopt.flows.equations.bound import BoundEquations
from flowopt.flows.equations.code import (
    Code,
    diffusion_code,
    drift_along_code,
    drift_code,
    kick_code,
    letter_code,
)
from flowopt.flows.equations.draws import draw_normals
from flowopt.flows.equations.energy import FlowEnergy
from flowopt.flows.equations.running import later_time, run_code, start_state
from flowopt.symbolic.language import LOSS, Equations, Term, g, theta

# Places in a word times Wiener processes in a letter stay below the 2**16 substeps of the noise.
CHANNELS_PER_LETTER = 64


class EquationFlow(BoundEquations):
    """A flow given by equations and hyperparameters.

    dz = Σₖ bₖ(z, ∇L) dt + σ(z) dW

    Attributes:
        equations: The terms, energies and start values.
        hyperparameters: Name → 0-d or (*batch,) float64 tensor.
        per_step: Hyperparameters given as rate × step size, without unit.
        name: For messages and tables.
    """

    def source(self, letter: str, kind: str | None = None, parts: int = 1) -> str:
        """Printed torch code of a letter's map."""
        return self._letter(LetterMove(letter, kind, parts, 0)).source

    def energy(self, name: str) -> FlowEnergy:
        """A declared energy as a function of states.

        Raises:
            DefinitionError: The flow declares no such energy.
            CompatibilityError: Rates are given per step; `at_step_size` gives the flow in time.
        """
        self._check_physical_time(f"energy {name!r}")
        return FlowEnergy(self.name, self.equations, self.hyperparameters, name)

    def kind(self, letter: str, kind: str | None = None) -> str:
        """Kind of a letter's map: exact, frozen or euler."""
        return self._letter(LetterMove(letter, kind, 1, 0)).kind

    def uses_gradient(self, letter: str) -> bool:
        """Whether a letter's map needs ∇L."""
        return any(formula.has(g, LOSS) for formula in self._term(letter).formulas)

    def moves_position(self, letter: str) -> bool:
        """Whether a letter moves θ."""
        return theta in self._term(letter).moved

    def later_time(self, step: Tensor, step_size: Tensor | None = None) -> Tensor:
        """From when on the drift is regular, (*batch,); step numbers give the shape."""
        return later_time(self.name, self.equations, self.hyperparameters, step, step_size)

    def initial_state(
        self,
        position: Leaves,
        step: Tensor,
        evaluate: Evaluate,
        later: bool | Tensor = False,
        step_size: Tensor | None = None,
        shards: Shards | None = None,
    ) -> State:
        """The state at time 0: declared start values, zero elsewhere.

        Args:
            position: Leaves of θ, (*batch, *shape).
            step: Number of the first step, (*batch,), int64.
            evaluate: Called only if a start value needs the gradient.
            later: Whether the summed drift must be regular: where it is not at time 0, the state
                is that shortly after, by its series; or at which time, (*batch,).
            step_size: Of the first step, (*batch,), if it is known: that time may depend on it.
            shards: Where the rest of each leaf is, if other processes have some of it.
        """
        later = self.later_time(step, step_size) if later is True else later
        source = self.name, self.equations, self.hyperparameters
        return start_state(*source, position, step, evaluate, later, shards)

    def drift(self, state: State, evaluation: Evaluation) -> State:
        """The sum of all drifts, as a tangent whose time runs at rate 1."""
        self._check_physical_time("the summed drift")
        code = self._code(drift_code)
        return self._tangent(code, state, lambda _: evaluation)

    def drift_along(
        self, state: State, evaluation: Evaluation, direction: State, product: Leaves
    ) -> State:
        """Derivative of the summed drift along a direction, as a tangent.

        The product is that of the Hessian of the loss with the direction's θ.
        """
        self._check_physical_time("the drift's derivative")
        code = drift_along_code(self.name, self.equations)
        changes = {**direction.variables, **direction.scalars, "g": product}
        return self._tangent(code, state, lambda _: evaluation, changes)

    def diffusion(self, state: State, evaluate: Evaluate) -> dict[str, State]:
        """Name of each Wiener process → its amplitudes, as a tangent.

        Args:
            state: Where.
            evaluate: Called only if an amplitude needs loss or gradient.

        Raises:
            CompatibilityError: Rates are given per step; `at_step_size` gives the flow in time.
        """
        self._check_physical_time("the diffusion")
        codes = {w.name: diffusion_code(self.name, self.equations, w.name) for w in self.wiener}
        return {name: self._tangent(code, state, evaluate) for name, code in codes.items()}

    def kick(self, state: State, step_size: Tensor, evaluate: Evaluate, noise: Noise) -> State:
        """The sum of all noise over a step, σ(z)·√h·ξ for standard normals ξ, as a tangent."""
        self._check_physical_time("the summed noise")
        code = self._code(kick_code)
        normals = draw_normals(code, state, step_size, noise, 0, (0.0, 1.0))
        values, scalars = run_code(code, self.hyperparameters, state, step_size, evaluate, normals)
        return state.map(torch.zeros_like).updated(values, scalars)

    def apply(
        self, move: LetterMove, state: State, step_size: Tensor, evaluate: Evaluate, noise: Noise
    ) -> State:
        """The map of one letter; evaluates only where that needs loss or gradient."""
        code = self._letter(move)
        share = (move.part / move.parts, (move.part + 1) / move.parts)
        place = move.place * CHANNELS_PER_LETTER
        normals = draw_normals(code, state, step_size, noise, place, share)
        values, scalars = run_code(code, self.hyperparameters, state, step_size, evaluate, normals)
        return state.updated(values, scalars)

    def _tangent(
        self, code: Code, state: State, evaluate: Evaluate, changes: Mapping = MappingProxyType({})
    ) -> State:
        one = torch.ones_like(state.time)
        values, scalars = run_code(code, self.hyperparameters, state, one, evaluate, (), changes)
        return state.map(torch.zeros_like).updated(values, scalars)

    def _term(self, letters: str) -> Term:
        """The term of a letter, or the sum of the terms of several."""
        for letter in letters:
            if letter not in self.letters:
                raise CompatibilityError(
                    f"flow {self.name!r} has no letter {letter!r}: it has {list(self.letters)}"
                )
        return self.equations.joined(letters)

    def _code(self, make: Callable[[str, Equations], Code]) -> Code:
        if (make,) not in self._codes:
            self._codes[make,] = make(self.name, self.equations)
        return self._codes[make,]

    def _letter(self, move: LetterMove) -> Code:
        key = (move.letter, move.kind, move.parts)
        if key not in self._codes:
            self._term(move.letter)
            self._codes[key] = letter_code(self.name, self.equations, *key, self.per_step)
        return self._codes[key]

    def _check_physical_time(self, what: str) -> None:
        if self.per_step:
            raise CompatibilityError(
                f"flow {self.name!r} has {sorted(self.per_step)} as rate × step size, and {what} "
                "needs rates in time: use flow.at_step_size(h)"
            )
