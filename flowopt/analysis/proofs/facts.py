"""What a flow's equations say about its variables before anything is run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product

import sympy

from flowopt.analysis.proofs.conditions import exact
from flowopt.analysis.proofs.signs import Knowledge, sign
from flowopt.flows import EquationFlow
from flowopt.symbolic.language import GIVEN, Equations, symbol, t

Values = Mapping[sympy.Symbol, sympy.Expr]


@dataclass(frozen=True)
class Facts:
    """Signs and solved variables of a flow.

    Attributes:
        known: Signs, in the form that proofs use.
        zero: Hyperparameters that vanish, as a substitution.
        members: Values of the hyperparameters of each member of the batch, as exact fractions.
        statements: The same in words.
    """

    known: Knowledge
    zero: Values
    members: tuple[Values, ...]
    statements: tuple[str, ...]


def summed_drift(equations: Equations, variable: sympy.Symbol) -> sympy.Expr:
    """The drift of a variable, all terms together."""
    return sympy.Add(*(term.drift.get(variable, sympy.S.Zero) for term in equations.terms))


def facts_of(flow: EquationFlow) -> Facts:
    """Signs of hyperparameters from their values, of variables from start and drift."""
    equations = flow.equations
    values = {symbol(n): v.flatten().tolist() for n, v in flow.hyperparameters.items()}
    zero = {s: sympy.S.Zero for s, numbers in values.items() if not any(numbers)}
    signed = [s for s, numbers in values.items() if s not in zero and min(numbers) >= 0]
    positive = [s for s in signed if min(values[s]) > 0]
    words = [f"{_names(positive)} > 0"] if positive else []
    words += [f"{_names(s for s in signed if s not in positive)} >= 0"] * (
        len(signed) > len(positive)
    )
    words += [f"{_names(zero)} = 0"] if zero else []
    known = Knowledge(frozenset({t, *signed}))
    drifts = {
        v: summed_drift(equations, v).xreplace(zero)
        for v in (*equations.variables, *equations.scalars)
    }
    starts = {v: equations.start.get(v, sympy.S.Zero).xreplace(zero) for v in drifts}
    known = _relaxing(known, drifts, starts, equations)
    words += [f"{u} = 1 - exp(-{r}*t), between 0 and 1" for u, r in known.relaxing.items()]
    known, kept = _never_negative(known, drifts, starts, equations)
    words += [f"{v} >= 0: it starts so, and its drift at 0 is not negative" for v in kept]
    return Facts(known, zero, _members(values), tuple(words))


def _names(symbols: Iterable[sympy.Symbol]) -> str:
    return ", ".join(sorted(s.name for s in symbols))


def _members(values: Mapping[sympy.Symbol, list[float]]) -> tuple[Values, ...]:
    """Hyperparameters of each member, numbers being the same for all."""
    size = max((len(numbers) for numbers in values.values()), default=1)
    table = [numbers if len(numbers) == size else numbers * size for numbers in values.values()]
    rows = zip(*table, strict=True) if table else [()]
    return tuple(dict(zip(values, map(exact, row), strict=True)) for row in rows)


def _relaxing(known: Knowledge, drifts: Values, starts: Values, equations: Equations) -> Knowledge:
    """Adds the variables with u' = r(1 − u), r constant, from 0: u = 1 − exp(−rt)."""
    moving = {*drifts, *GIVEN}
    found = {}
    for variable, drift in drifts.items():
        rate = drift.xreplace({variable: sympy.S.Zero})
        closed = not rate.free_symbols & moving and sign(rate, known) == 1
        noisy = any(variable in term.diffusion for term in equations.terms)
        relaxes = sympy.expand(drift - rate * (1 - variable)) == 0
        if relaxes and closed and not noisy and starts[variable] == 0:
            found[variable] = rate
    return Knowledge(known.nonnegative, found)


def _never_negative(
    known: Knowledge, drifts: Values, starts: Values, equations: Equations
) -> tuple[Knowledge, list[sympy.Symbol]]:
    """Adds variables whose start is not negative and whose drift at 0 does not point below it."""
    kept: list[sympy.Symbol] = []
    for _, (variable, drift) in product(drifts, drifts.items()):
        noisy = any(variable in term.diffusion for term in equations.terms)
        if variable.name == "theta" or known.knows(variable) or noisy:
            continue
        # A drift that is not smooth at 0 may have solutions that leave 0 by themselves.
        smooth = drift.is_polynomial(variable) and sign(starts[variable], known) in (0, 1)
        if smooth and sign(drift.xreplace({variable: sympy.S.Zero}), known) in (0, 1):
            # A drift and start of 0 keep a variable at 0, which helps no proof.
            known = known.with_nonnegative(variable)
            kept.append(variable)
    return known, kept
