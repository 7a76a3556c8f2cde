"""A lemma on rates over relaxing variables, by which Adam's bias correction is dealt with.

For u = 1 − exp(−rt), r/u = y/(1 − exp(−y))/t with y = rt, and y/(1 − exp(−y)) increases: its
derivative is exp(−y)(exp(y) − 1 − y)/(1 − exp(−y))² ≥ 0. So a sum in which r/u and r have
coefficients of one sign may be bounded by putting the largest r in.

Reference:
    The condition b ≤ 4a for Adam: Barakat & Bianchi 2021, SIAM J. Optim. 31(1), 244.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import sympy

from flowopt.analysis.proofs.conditions import Condition
from flowopt.analysis.proofs.signs import Knowledge


@dataclass(frozen=True)
class Bound:
    """That a formula is not negative at any time, under a condition on its rates."""

    condition: Condition
    steps: tuple[str, ...]


def at_most(formula: sympy.Expr, known: Knowledge) -> Bound | None:
    """Shows formula ≥ 0 for all t > 0, for rates up to what t → ∞ demands; None if it can not.

    Args:
        formula: A polynomial in relaxing variables and hyperparameters.
        known: With the relaxing variables and their rates, each a hyperparameter of its own.
    """
    rates = {u: r for u, r in known.relaxing.items() if formula.has(u)}
    if not rates or not all(isinstance(r, sympy.Symbol) for r in rates.values()):
        return None
    powers = {u: sympy.degree(formula, u) for u in rates}
    whole = sympy.expand(formula / sympy.Mul(*(u**n for u, n in powers.items())))
    late = whole.xreplace(dict.fromkeys(rates, sympy.S.One))
    for fast in rates:
        bound = _largest(late, rates[fast])
        slow = [u for u in rates if bound is not None and bound.has(rates[u])]
        if len(slow) == 1 and _falls(whole, fast, rates):
            proof = _at_bound(whole, fast, slow[0], bound, rates)
            if proof:
                return Bound(Condition(bound - rates[fast]), (_lemma(whole, fast, rates), proof))
    return None


def _largest(late: sympy.Expr, rate: sympy.Symbol) -> sympy.Expr | None:
    """The largest rate at which an expression linear in it, and falling, is not negative."""
    slope = sympy.expand(late).coeff(rate)
    if not (slope.is_number and slope.is_negative):
        return None
    return sympy.expand(late.xreplace({rate: sympy.S.Zero}) / -slope)


def _falls(whole: sympy.Expr, fast: sympy.Symbol, rates: Mapping) -> bool:
    """Whether a rate enters only as −c r/u − d r with c, d ≥ 0."""
    rate = rates[fast]
    touched = [x for x in sympy.Add.make_args(whole) if x.has(rate, fast)]
    return all(
        ratio.is_number and ratio.is_negative
        for part in touched
        for ratio in [min((part / rate, part * fast / rate), key=lambda x: len(x.free_symbols))]
    )


def _at_bound(
    whole: sympy.Expr, fast: sympy.Symbol, slow: sympy.Symbol, bound: sympy.Expr, rates: Mapping
) -> str | None:
    """The inequality in q = exp(−rt/n) at the bound, decided by counting roots in (0, 1)."""
    ratio = bound / rates[slow]
    if not (ratio.is_Rational and ratio.is_positive) or len(rates) > 2:
        return None
    q = sympy.Symbol("q", positive=True)
    values = {
        rates[fast]: bound,
        fast: 1 - q**ratio.p,
        slow: 1 - q**ratio.q,
    }
    scaled = whole.xreplace({rates[fast]: bound}).xreplace(values) / rates[slow]
    numerator, denominator = sympy.fraction(sympy.cancel(sympy.together(scaled)))
    if (numerator.free_symbols | denominator.free_symbols) - {q}:
        return None
    if not _positive_inside(sympy.Poly(numerator * denominator, q)):
        return None
    root = f"{rates[slow]}*t" + (f"/{ratio.q}" if ratio.q != 1 else "")
    remainder = sympy.factor(numerator) / sympy.factor(denominator)
    return f"with q = exp(-{root}) in (0, 1) it is {rates[slow]} times {remainder} >= 0 there"


def _positive_inside(polynomial: sympy.Poly) -> bool:
    """Whether a polynomial is positive on (0, 1), exactly: no root there (Sturm), and a value."""
    if polynomial.is_zero:
        return True
    inside = polynomial
    for end in (0, 1):
        while inside.eval(end) == 0:
            inside = inside.quo(sympy.Poly(polynomial.gen - end, polynomial.gen))
    middle = sympy.Rational(1, 2)
    return inside.count_roots(0, 1) == 0 and polynomial.eval(middle) > 0


def _lemma(whole: sympy.Expr, fast: sympy.Symbol, rates: Mapping) -> str:
    return (
        f"{whole} falls as {rates[fast]} grows, since y/(1 - exp(-y)) increases "
        f"(y = {rates[fast]}*t): its least value is at the largest {rates[fast]}"
    )
