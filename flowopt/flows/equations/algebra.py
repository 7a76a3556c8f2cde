"""Flows made of other flows: with one more term, with one less, begun at another time."""

from collections.abc import Mapping

import sympy
from torch import Tensor

from flowopt.errors import DefinitionError
from flowopt.symbolic.language import Equations, LaterStart, Term


def with_term(
    equations: Equations, values: Mapping[str, Tensor], term: Term, more: Mapping
) -> tuple[Equations, dict[str, float | Tensor]]:
    """Equations with one more term, and values of all their hyperparameters."""
    if not isinstance(term, Term):
        raise DefinitionError(
            f"a flow takes one more Term, got {type(term).__name__}: flow + Term('W', drift=…)"
        )
    changed = equations.replace(terms=(*equations.terms, term))
    missing = [n for n in changed.hyperparameters if n not in values and n not in more]
    if missing:
        raise DefinitionError(
            f"term {term.letter!r} brings hyperparameters {missing} without values: use "
            f"flow.plus(term, {missing[0]}=…)"
        )
    return changed, {**values, **more}


def without(
    equations: Equations, values: Mapping[str, Tensor], letter: str
) -> tuple[Equations, dict[str, float | Tensor]]:
    """Equations without a term and what only it moved, and values of what they still name."""
    kept = tuple(term for term in equations.terms if term.letter != letter)
    if len(kept) == len(equations.terms):
        letters = [term.letter for term in equations.terms]
        raise DefinitionError(f"no letter {letter!r}: the flow has {letters}")
    gone = {v for term in equations.terms for v in term.moved}
    gone -= {v for term in kept for v in term.moved}
    formulas = [f for term in kept for f in term.formulas]
    used = sorted(v.name for v in gone if any(formula.has(v) for formula in formulas))
    if used:
        raise DefinitionError(
            f"only letter {letter!r} moves {used}, which other letters use: take those away first"
        )
    later = equations.later_start
    if later is not None:
        later = LaterStart(later.time, {v: f for v, f in later.values.items() if v not in gone})
    changed = equations.replace(
        terms=kept,
        energies={name: e for name, e in equations.energies.items() if not e.has(*gone)},
        start={v: formula for v, formula in equations.start.items() if v not in gone},
        scalars=tuple(v for v in equations.scalars if v not in gone),
        later_start=later,
    )
    return changed, {name: values[name] for name in changed.hyperparameters}


def starting_at(name: str, equations: Equations, time: float) -> Equations:
    """Equations whose later start is at a given time."""
    later = equations.later_start
    if later is None:
        raise DefinitionError(
            f"flow {name!r} declares no later start: it is regular at t = 0 and begins there"
        )
    number = sympy.sympify(time) if isinstance(time, int | float) else sympy.nan
    if not (number.is_finite and number.is_positive):
        raise DefinitionError(f"flow {name!r} starts at a finite time > 0, got {time!r}")
    return equations.replace(later_start=LaterStart(number, later.values))
