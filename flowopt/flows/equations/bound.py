"""Equations bound to values: what is known of a flow before any step."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Self

import sympy
import torch
from torch import Tensor

from flowopt.core.interfaces import Wiener
from flowopt.core.state import per_trajectory
from flowopt.errors import DefinitionError
from flowopt.flows.equations.algebra import starting_at, with_term, without
from flowopt.flows.equations.code import Code, damping_of, wiener_processes
from flowopt.flows.equations.hyperparameters import (
    check_numbers,
    checked_hyperparameters,
    number,
)
from flowopt.symbolic.energy import energy_rate
from flowopt.symbolic.language import LOSS, Equations, Term
from flowopt.symbolic.noise import NoiseKind, noise_kind
from flowopt.symbolic.printing.latex import latex
from flowopt.symbolic.tangent import is_symmetric, steep_at_start
from flowopt.symbolic.text import check_names, parse


class BoundEquations:
    """Equations with values of their hyperparameters, and others that are made of them.

    Its attributes are those of `flowopt.Flow`, which adds how they are stepped.
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
    def from_text(cls, text: str, /, name: str = "flow", **hyperparameters: float | Tensor) -> Self:
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

    def with_hyperparameters(self, **changes: float | Tensor) -> Self:
        """The same flow with other values; compiled code is shared.

        Raises:
            DefinitionError: A name is unknown or a value is not a number.
        """
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.hyperparameters = checked_hyperparameters(
            self.name, self.equations, {**self.hyperparameters, **changes}
        )
        return copy

    def fitted(self, batch: tuple[int, ...], device: torch.device) -> Self:
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

    def member(self, index: tuple[int, ...]) -> Self:
        """The flow of one trajectory of a batch."""
        varied = {name: v[index] for name, v in self.hyperparameters.items() if v.ndim}
        return self.with_hyperparameters(**varied) if varied else self

    def at_step_size(self, step_size: float | Tensor) -> Self:
        """The flow in physical time: rates per step divided by a step size, which is not zero."""
        step_size = number(self.name, "step_size", step_size)
        rates = {name: self.hyperparameters[name] / step_size for name in self.per_step}
        return type(self)(self.equations, self.name, (), **{**self.hyperparameters, **rates})

    def plus(self, term: Term, **hyperparameters: float | Tensor) -> Self:
        """The flow with one more term, as in flow.plus(Term("W", …), decay=0.1).

        Raises:
            DefinitionError: The term's letter is taken, or names in it have no value.
        """
        return self._changed(
            *with_term(self.equations, self.hyperparameters, term, hyperparameters)
        )

    def __add__(self, term: Term) -> Self:
        """The flow with one more term that brings no hyperparameters of its own."""
        return self.plus(term)

    def without(self, letter: str) -> Self:
        """The flow without a term; what only that moved goes with it.

        Raises:
            DefinitionError: No such letter, or others need what it alone moved.
        """
        return self._changed(*without(self.equations, self.hyperparameters, letter))

    def starting_at(self, time: float) -> Self:
        """The flow, begun at a time > 0 where a scheme needs a regular drift; singular flows only.

        Raises:
            DefinitionError: It is not, or the time not positive.
        """
        return self._changed(starting_at(self.name, self.equations, time), self.hyperparameters)

    def _changed(self, equations: Equations, values: Mapping) -> Self:
        kept = self.per_step & {*equations.hyperparameters}
        return type(self)(equations, self.name, kept, **values)

    def latex(self) -> str:
        """The summed equations as an aligned LaTeX environment."""
        return latex(self.equations)

    def energy_rate(self, name: str) -> sympy.Expr:
        """dE/dt along the flow; elementwise terms are summed over elements implicitly.

        Raises:
            DefinitionError: No such energy, or its rate is not derived.
        """
        return energy_rate(self.equations, name).expression

    @property
    def wiener(self) -> tuple[Wiener, ...]:
        """The Wiener processes."""
        return wiener_processes(self.equations)
