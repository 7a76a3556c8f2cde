"""A flow made of equations: the only place where formulas meet states."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from types import MappingProxyType

import sympy
import torch
from torch import Tensor

from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import Evaluate, LetterMove, Noise, Wiener
from flowopt.core.shards import Shards
from flowopt.core.state import Leaves, State, per_trajectory
from flowopt.errors import CompatibilityError, DefinitionError
from flowopt.flows.equations.algebra import starting_at, with_term, without
from flowopt.flows.equations.code import (
    Code,
    damping_of,
    diffusion_code,
    drift_along_code,
    drift_code,
    kick_code,
    letter_code,
    wiener_processes,
)
from flowopt.flows.equations.draws import draw_normals
from flowopt.flows.equations.energy import FlowEnergy
from flowopt.flows.equations.hyperparameters import check_numbers, checked_hyperparameters
from flowopt.flows.equations.running import later_time, run_code, start_state
from flowopt.symbolic.energy import energy_rate
from flowopt.symbolic.language import LOSS, Equations, Term, g, theta
from flowopt.symbolic.noise import NoiseKind, noise_kind
from flowopt.symbolic.printing.latex import latex
from flowopt.symbolic.tangent import is_symmetric, steep_at_start
from flowopt.symbolic.text import check_names, parse

# Places in a word times Wiener processes in a letter stay below the 2**16 substeps of the noise.
CHANNELS_PER_LETTER = 64


class EquationFlow:
    """A flow given by equations and hyperparameters.

    dz = Σₖ bₖ(z, ∇L) dt + σ(z) dW

    Attributes:
        equations: The terms, energies and start values.
        hyperparameters: Name → 0-d or (*batch,) float64 tensor.
        per_step: Hyperparameters given as rate × step size, without unit.
        name: For messages and tables.
    """

    partition = None

    def __init__(
        self,
        equations: Equations,
        /,
        name: str = "flow",
        per_step: Iterable[str] = (),
        **hyperparameters: float | Tensor,
    ):
        """Binds equations to values.

        Args:
            equations: What to step.
            name: For messages and tables.
            per_step: Hyperparameters given as rate × step size.
            **hyperparameters: One value, or a (*batch,) tensor, for each name of the equations.

        Raises:
            DefinitionError: A hyperparameter is missing, unknown or not a number.
        """
        if not isinstance(equations, Equations):
            raise DefinitionError(
                f"a flow is made of Equations, got {type(equations).__name__}: "
                "use Flow.from_text for text"
            )
        self.equations, self.name, self.per_step = equations, name, frozenset(per_step)
        self.hyperparameters = checked_hyperparameters(name, equations, hyperparameters)
        check_numbers(self.name, self.hyperparameters)
        self._codes: dict[tuple, Code] = {}

    @classmethod
    def from_text(
        cls, text: str, /, name: str = "flow", **hyperparameters: float | Tensor
    ) -> "EquationFlow":
        """A flow from its text form.

        Args:
            text: Lines such as `B: dp/dt = -g`, `energy mechanical: L + p**2/2`.
            name: For messages and tables.
            **hyperparameters: Values; they override the text's own `parameter` lines.

        Raises:
            DefinitionError: The text does not define a flow; the message names the line.
        """
        equations, defaults = parse(text)
        values = {**defaults, **hyperparameters}
        check_names(equations, values)
        return cls(equations, name=name, **values)

    def __repr__(self) -> str:
        """Name, letters and values."""
        values = ", ".join(
            f"{name}={value.tolist() if value.ndim == 0 else tuple(value.shape)}"
            for name, value in self.hyperparameters.items()
        )
        return f"<flow {self.name}, letters {''.join(self.letters)}, {values or 'no parameters'}>"

    def __getstate__(self) -> dict:
        """Everything but compiled code, which is made again when needed."""
        return {**self.__dict__, "_codes": {}}

    @property
    def definition(self) -> Hashable:
        """What a program of its steps depends on: all but the values of hyperparameters."""
        return self.equations, self.name, self.per_step

    @property
    def letters(self) -> tuple[str, ...]:
        """Letters of the terms, in the order of definition."""
        return tuple(term.letter for term in self.equations.terms)

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of what has one value per element, θ first."""
        return tuple(v.name for v in self.equations.variables)

    @property
    def scalars(self) -> tuple[str, ...]:
        """Names of what has one value per trajectory."""
        return tuple(s.name for s in self.equations.scalars)

    @property
    def uses_loss(self) -> bool:
        """Whether the value of L enters the motion, not its gradient alone."""
        return any(f.has(LOSS) for term in self.equations.terms for f in term.formulas)

    @property
    def energies(self) -> tuple[str, ...]:
        """Names of the declared energies."""
        return tuple(self.equations.energies)

    @property
    def noise_kind(self) -> NoiseKind:
        """What the noise depends on: none, additive, undriven or driven."""
        return noise_kind(self.equations)

    @property
    def noisy(self) -> bool:
        """Whether any term has noise."""
        return self.noise_kind != "none"

    @property
    def symmetric(self) -> bool:
        """Whether θ is alone and the derivative of its drift a symmetric matrix."""
        return is_symmetric(self.equations)

    @property
    def damping(self) -> Tensor | None:
        """The μ of (Q + μI)⁻¹∇L in its equations, with the Gauss–Newton matrix Q."""
        return self.hyperparameters.get(damping_of(self.equations) or "")

    @property
    def steep_at_start(self) -> bool:
        """Whether the derivative of the summed drift is infinite at the initial state."""
        return steep_at_start(self.equations)

    @property
    def singular_at_start(self) -> bool:
        """Whether the summed drift is undefined, or without bound, at time 0."""
        return self.equations.later_start is not None

    def with_hyperparameters(self, **changes: float | Tensor) -> "EquationFlow":
        """The same flow with other values; compiled code is shared.

        Raises:
            DefinitionError: A name is unknown or a value is not a number.
        """
        copy = object.__new__(EquationFlow)
        copy.__dict__.update(self.__dict__)
        copy.hyperparameters = checked_hyperparameters(
            self.name, self.equations, {**self.hyperparameters, **changes}
        )
        return copy

    def fitted(self, batch: tuple[int, ...], device: torch.device) -> "EquationFlow":
        """The same flow, its (*batch,) hyperparameters on a device.

        Raises:
            CompatibilityError: A hyperparameter has another shape than the batch.
            DefinitionError: A hyperparameter is not a number.
        """
        check_numbers(self.name, self.hyperparameters)
        varied = {n: v for n, v in self.hyperparameters.items() if v.ndim}
        for name, value in varied.items():
            per_trajectory(f"hyperparameter {name!r}", value, batch)
        return self.with_hyperparameters(**{n: v.to(device) for n, v in varied.items()})

    def member(self, index: tuple[int, ...]) -> "EquationFlow":
        """The flow of one trajectory of a batch."""
        varied = {name: v[index] for name, v in self.hyperparameters.items() if v.ndim}
        return self.with_hyperparameters(**varied) if varied else self

    def at_step_size(self, step_size: float | Tensor) -> "EquationFlow":
        """The flow in physical time: rates per step divided by a step size, which is not zero."""
        rates = {name: self.hyperparameters[name] / step_size for name in self.per_step}
        return EquationFlow(self.equations, self.name, (), **{**self.hyperparameters, **rates})

    def plus(self, term: Term, **hyperparameters: float | Tensor) -> "EquationFlow":
        """The flow with one more term, as in flow.plus(Term("W", …), decay=0.1).

        Raises:
            DefinitionError: The term's letter is taken, or names in it have no value.
        """
        return self._changed(
            *with_term(self.equations, self.hyperparameters, term, hyperparameters)
        )

    def __add__(self, term: Term) -> "EquationFlow":
        """The flow with one more term that brings no hyperparameters of its own."""
        return self.plus(term)

    def without(self, letter: str) -> "EquationFlow":
        """The flow without a term; what only that moved goes with it.

        Raises:
            DefinitionError: No such letter, or others need what it alone moved.
        """
        return self._changed(*without(self.equations, self.hyperparameters, letter))

    def starting_at(self, time: float) -> "EquationFlow":
        """The flow, begun at a time > 0 where a scheme needs a regular drift; singular flows only.

        Raises:
            DefinitionError: It is not, or the time not positive.
        """
        return self._changed(starting_at(self.name, self.equations, time), self.hyperparameters)

    def _changed(self, equations: Equations, values: Mapping) -> "EquationFlow":
        kept = self.per_step & {*equations.hyperparameters}
        return EquationFlow(equations, self.name, kept, **values)

    def latex(self) -> str:
        """The summed equations as an aligned LaTeX environment."""
        return latex(self.equations)

    def source(self, letter: str, kind: str | None = None, parts: int = 1) -> str:
        """Printed torch code of a letter's map."""
        return self._letter(LetterMove(letter, kind, parts, 0)).source

    def energy_rate(self, name: str) -> sympy.Expr:
        """dE/dt along the flow; elementwise terms are summed over elements implicitly.

        Raises:
            DefinitionError: No such energy, or its rate is not derived.
        """
        return energy_rate(self.equations, name).expression

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

    @property
    def wiener(self) -> tuple[Wiener, ...]:
        """The Wiener processes."""
        return wiener_processes(self.equations)

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
