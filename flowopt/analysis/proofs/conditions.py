"""Inequalities between hyperparameters: found, simplified, written, and tested on values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

import sympy
from sympy import Rational

from flowopt.analysis.proofs.signs import Knowledge, has_sign


@dataclass(frozen=True)
class Condition:
    """An inequality, left ≤ right or left < right, with both sides sums of positive terms.

    Attributes:
        margin: right − left.
        strict: Whether equality is excluded.
    """

    margin: sympy.Expr
    strict: bool = False

    @property
    def relation(self) -> sympy.Basic:
        """The inequality as a sympy relation."""
        parts = sympy.Add.make_args(sympy.expand(self.margin))
        left = sympy.Add(*(-part for part in parts if part.could_extract_minus_sign()))
        right = sympy.Add(*(part for part in parts if not part.could_extract_minus_sign()))
        relation = sympy.StrictLessThan if self.strict else sympy.LessThan
        return relation(left, right, evaluate=False)

    def __str__(self) -> str:
        """The inequality as one reads it."""
        if self.margin.is_negative:
            return "never"
        relation = self.relation
        return f"{relation.lhs} {'<' if self.strict else '<='} {relation.rhs}"

    def holds(self, values: Mapping[sympy.Symbol, sympy.Expr]) -> bool | None:
        """Whether values satisfy it; None where they leave it open."""
        margin = self.margin.xreplace(dict(values))
        if margin.free_symbols or not margin.is_finite:
            return None
        return bool(margin > 0 if self.strict else margin >= 0)


def exact(value: float) -> sympy.Expr:
    """A float as the fraction that it is."""
    return sympy.oo if value == float("inf") else Rational(*Fraction(value).as_integer_ratio())


def unknown_factors(
    formula: sympy.Expr, known: Knowledge
) -> tuple[int, tuple[tuple[sympy.Expr, int], ...]]:
    """A formula's sign, up to the factors on which it depends.

    Returns:
        The sign of the other factors (0 for a formula that is zero), and the factors of odd
        multiplicity whose sign no rule gives, each with its multiplicity.
    """
    numerator, denominator = sympy.fraction(sympy.together(formula))
    if numerator == 0:
        return 0, ()
    result, unknown = 1, []
    for part in (numerator, denominator):
        constant, factors = sympy.factor_list(part)
        result *= 1 if constant > 0 else -1
        for factor, multiplicity in factors:
            if multiplicity % 2 == 0 or has_sign(factor, 1, known):
                continue
            if has_sign(factor, -1, known):
                result = -result
            else:
                unknown.append((factor, multiplicity))
    return result, tuple(unknown)


def minors(matrix: sympy.Matrix) -> Iterable[sympy.Expr]:
    """All principal minors, small ones first: a symmetric matrix is ≥ 0 iff they all are."""
    for size in range(1, matrix.rows + 1):
        for rows in combinations(range(matrix.rows), size):
            yield sympy.expand(matrix.extract(list(rows), list(rows)).det(method="berkowitz"))


def distinct(conditions: Iterable[Condition]) -> tuple[Condition, ...]:
    """Conditions without repetitions, in order."""
    return tuple(dict.fromkeys(conditions))
