"""Derivatives of drifts along a direction."""

import sympy

from flowopt.symbolic.functions import total
from flowopt.symbolic.language import LOSS, Equations, g, theta

PREFIX = "_along_"


def along(name: str) -> sympy.Symbol:
    """Symbol of a quantity's change along the direction."""
    return sympy.Symbol(PREFIX + name, real=True)


def drift_along(equations: Equations) -> dict[sympy.Symbol, sympy.Expr]:
    """Moved variable → derivative of its summed drift, in the changes of all that it depends on.

    The change of ∇L, the Hessian times that of θ, is one of them; that of L follows from ∇L.
    """
    changes = {x: along(x.name) for x in (*equations.variables, *equations.scalars, g)}
    changes[LOSS] = total(g * along("theta"))
    result: dict[sympy.Symbol, sympy.Expr] = {}
    for term in equations.terms:
        for variable, drift in term.drift.items():
            result[variable] = result.get(variable, sympy.S.Zero) + _along(drift, changes)
    return result


def steep_at_start(equations: Equations) -> bool:
    """Whether the derivative of the drift has no value at the initial state, as of √v at v = 0."""
    moved = {v for term in equations.terms for v in term.moved} - {theta}
    start = {variable: equations.start.get(variable, sympy.S.Zero) for variable in moved}
    changes = drift_along(equations).values()
    return any(change.xreplace(start).has(sympy.zoo, sympy.nan, sympy.oo) for change in changes)


def is_symmetric(equations: Equations) -> bool:
    """Whether θ is alone and its drift is −c∇L + f(θ), c the same for all elements.

    Its derivative is then −c times the Hessian plus a diagonal matrix.
    """
    drift = sympy.Add(*(term.drift.get(theta, sympy.S.Zero) for term in equations.terms))
    alone = equations.variables == (theta,) and not equations.scalars
    slope = drift.diff(g)
    return alone and not drift.has(total, LOSS) and not slope.has(g, theta)


def _along(formula: sympy.Expr, changes: dict[sympy.Symbol, sympy.Expr]) -> sympy.Expr:
    sums = {call: sympy.Dummy(real=True) for call in formula.atoms(total)}
    # A sum within a sum is taken with the outer one.
    outer = {c: name for c, name in sums.items() if not any(c != o and o.has(c) for o in sums)}
    bare = formula.xreplace(outer)
    parts = [bare.diff(x) * change for x, change in changes.items()]
    parts += [bare.diff(name) * total(_along(c.args[0], changes)) for c, name in outer.items()]
    slope = sympy.Add(*parts).replace(sympy.DiracDelta, lambda *_: sympy.S.Zero)
    # Where a corner is, either side's slope will do; a leap has none.
    slope = slope.replace(sympy.Heaviside, lambda x, *_: (1 + sympy.sign(x)) / 2)
    return slope.xreplace({name: call for call, name in outer.items()})
