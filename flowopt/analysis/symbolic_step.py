"""A scheme's own step, run on formulas instead of tensors."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

import sympy
import torch

from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import Key, LetterMove, Scheme
from flowopt.errors import CompatibilityError
from flowopt.flows import EquationFlow
from flowopt.flows.equations.code import map_of
from flowopt.symbolic.language import LOSS, STEP_SIZE, g, symbol, t

Formulas = Mapping[sympy.Symbol, sympy.Expr]
# Coefficients of tableaux come as floats; fractions with smaller denominators are meant.
LARGEST_DENOMINATOR = 10**7
# All that schemes map a state by.
MEANINGS: Mapping[Callable, Callable] = {
    torch.zeros_like: lambda formula: sympy.S.Zero,
    torch.sub: operator.sub,
}


@dataclass(frozen=True)
class SymbolicState:
    """What `core.state.State` is, for one element and with formulas for tensors."""

    variables: dict[str, tuple[sympy.Expr, ...]]
    scalars: dict[str, sympy.Expr]
    time: sympy.Expr = t
    step: int = 0

    @property
    def position(self) -> tuple[sympy.Expr, ...]:
        """The leaves of θ."""
        return self.variables["theta"]

    def formulas(self) -> dict[sympy.Symbol, sympy.Expr]:
        """Variables and scalars by symbol."""
        leaves = {name: leaf for name, (leaf,) in self.variables.items()}
        return {symbol(name): value for name, value in {**leaves, **self.scalars}.items()}

    def updated(self, formulas: Formulas) -> SymbolicState:
        """The same state with some variables and scalars replaced."""
        named = {s.name: f for s, f in formulas.items()}
        variables = {n: (named.get(n, leaf),) for n, (leaf,) in self.variables.items()}
        scalars = {n: named.get(n, value) for n, value in self.scalars.items()}
        return replace(self, variables=variables, scalars=scalars)

    def plus(self, increments: Iterable[tuple[sympy.Expr, SymbolicState]]) -> SymbolicState:
        """The state z + Σ hᵢ dzᵢ."""
        total = self.formulas()
        for factor, tangent in increments:
            for variable, slope in tangent.formulas().items():
                total[variable] = total[variable] + rational(factor) * slope
        return self.updated(total)

    def map(self, function: Callable, *others: SymbolicState) -> SymbolicState:
        """A function of every formula, one of `MEANINGS`, with those of other states."""
        if function not in MEANINGS:
            raise CompatibilityError(f"{function!r} has no meaning for formulas")
        groups = [state.formulas() for state in (self, *others)]
        values = {v: MEANINGS[function](*(group[v] for group in groups)) for v in groups[0]}
        return self.updated(values)


class SymbolicNoise:
    """Names every draw.

    Attributes:
        draws: The symbols drawn so far, each a standard normal.
    """

    def __init__(self):
        self.draws: list[sympy.Symbol] = []

    def normal(self, like: tuple, key: Key) -> tuple[sympy.Symbol, ...]:
        """A new symbol."""
        self.draws.append(sympy.Symbol(f"normal_{len(self.draws)}", real=True))
        return (self.draws[-1],)


@dataclass(frozen=True)
class SymbolicFlow:
    """What a scheme asks of a flow, answered with formulas.

    Attributes:
        flow: The flow.
        values: Replaces hyperparameters, such as those that vanish.
        series: Applied to every new value; the identity, or a truncation.
    """

    flow: EquationFlow
    values: Formulas = field(default_factory=dict)
    series: Callable[[sympy.Expr], sympy.Expr] = lambda formula: formula

    def __getattr__(self, name: str) -> object:
        """Everything that needs no state is the flow's own."""
        return getattr(self.flow, name)

    def apply(
        self,
        move: LetterMove,
        state: SymbolicState,
        step_size: sympy.Expr,
        evaluate: Callable[[SymbolicState], Evaluation],
        noise: SymbolicNoise,
    ) -> SymbolicState:
        """The map of one letter."""
        flow = self.flow
        letter = map_of(flow.equations, *move[:3], flow.per_step)
        new = dict(letter.mean)
        draws: dict[sympy.Symbol, sympy.Expr] = {}
        for variable, pairs in letter.noise.items():
            for wiener, amplitude in pairs:
                if wiener not in draws:
                    (draws[wiener],) = noise.normal(
                        (variable,), Key(torch.tensor(state.step), move.place)
                    )
                new[variable] += amplitude * draws[wiener]
        return state.updated(self._at(new, state, evaluate, {STEP_SIZE: step_size}))

    def drift(self, state: SymbolicState, evaluation: Evaluation) -> SymbolicState:
        """The sum of all drifts."""
        drifts = dict.fromkeys(state.formulas(), sympy.S.Zero)
        for term in self.flow.equations.terms:
            for variable, drift in term.drift.items():
                drifts[variable] += drift
        return state.updated(self._at(drifts, state, lambda _: evaluation, {}))

    def _at(
        self, formulas: Formulas, state: SymbolicState, evaluate: Callable, more: Formulas
    ) -> dict[sympy.Symbol, sympy.Expr]:
        """Formulas at a state."""
        known = {**state.formulas(), t: state.time, **more}
        if any(f.has(g, LOSS) for f in formulas.values()):
            evaluation = evaluate(state)
            known |= {g: evaluation.gradient[0], LOSS: evaluation.loss}
        return {
            v: self.series(rational(f).xreplace(self.values).xreplace(known))
            for v, f in formulas.items()
        }


def rational(formula: sympy.Expr) -> sympy.Expr:
    """The formula with floats as fractions."""
    table = {}
    for number in formula.atoms(sympy.Float):
        whole = Fraction(float(number))
        simple = whole.limit_denominator(LARGEST_DENOMINATOR)
        chosen = simple if float(simple) == float(number) else whole
        table[number] = sympy.Rational(chosen.numerator, chosen.denominator)
    return formula.xreplace(table) if table else formula


def symbolic_state(flow: EquationFlow) -> SymbolicState:
    """The state in which every variable is its symbol."""
    equations = flow.equations
    return SymbolicState(
        {v.name: (v,) for v in equations.variables}, {s.name: s for s in equations.scalars}
    )


def symbolic_step(
    flow: SymbolicFlow, scheme: Scheme, evaluate: Callable[[SymbolicState], Evaluation]
) -> tuple[dict[sympy.Symbol, sympy.Expr], list[sympy.Symbol]]:
    """Every variable after a step, and the normals on which it depends.

    Raises:
        CompatibilityError: The flow does not fit the scheme, or the scheme does more with states
            than a combination of formulas.
    """
    scheme.check(flow.flow)
    noise = SymbolicNoise()
    # Formulas stand in for tensors in all that it is given.
    step: Callable = scheme.step
    try:
        proposal = step(flow, symbolic_state(flow.flow), STEP_SIZE, evaluate, noise)
    except (TypeError, AttributeError) as error:
        raise CompatibilityError(
            f"{scheme!r} computes its step with tensors, which formulas can not follow: {error}"
        ) from error
    return proposal.state.formulas(), noise.draws
