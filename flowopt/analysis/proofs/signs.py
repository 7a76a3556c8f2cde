"""Signs that follow from signs: the only steps by which a proof concludes something."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import sympy
from sympy.codegen.cfunctions import expm1

from flowopt.symbolic.functions import phi1, total

# Functions whose value has the sign of their argument.
ODD = (sympy.sign, sympy.tanh, sympy.sinh, sympy.atan, expm1, total)
POSITIVE = (sympy.exp, sympy.Abs, sympy.cosh, phi1)


@dataclass(frozen=True)
class Knowledge:
    """What is known of the symbols of a formula, wherever the formula has a value.

    Attributes:
        nonnegative: Symbols that are never negative.
        relaxing: Symbol → rate r of u = 1 − exp(−r t), which lies between 0 and 1.
        shares: Other symbols that lie between 0 and 1.
    """

    nonnegative: frozenset[sympy.Symbol] = frozenset()
    relaxing: Mapping[sympy.Symbol, sympy.Expr] = field(default_factory=dict)
    shares: frozenset[sympy.Symbol] = frozenset()

    def knows(self, symbol: sympy.Symbol) -> bool:
        """Whether a symbol is never negative."""
        return symbol in self.nonnegative or symbol in self.below_one

    @property
    def below_one(self) -> frozenset[sympy.Symbol]:
        """Symbols between 0 and 1."""
        return self.shares | frozenset(self.relaxing)

    def with_nonnegative(self, *symbols: sympy.Symbol) -> "Knowledge":
        """The same with more symbols that are never negative."""
        return Knowledge(self.nonnegative | frozenset(symbols), self.relaxing, self.shares)


def sign(formula: sympy.Expr, known: Knowledge) -> int | None:
    """1 for ≥ 0, −1 for ≤ 0, 0 for zero, None where no rule applies.

    A formula counts only where it has a real value: a square root is never negative, the
    reciprocal of what is never negative is positive.
    """
    if formula.is_number:
        return _sign_of_number(formula)
    if isinstance(formula, sympy.Symbol):
        return 1 if known.knows(formula) else None
    if formula.is_Add:
        return _common([sign(part, known) for part in formula.args])
    if formula.is_Mul:
        return _sign_of_product(formula, known)
    if formula.is_Pow:
        return _sign_of_power(formula.base, formula.exp, known)
    if isinstance(formula, POSITIVE):
        return 1
    if isinstance(formula, ODD):
        return sign(formula.args[0], known)
    if isinstance(formula, sympy.Piecewise):
        return _common([sign(branch, known) for branch, _ in formula.args])
    if isinstance(formula, (sympy.Min, sympy.Max)):
        return _sign_of_extreme(formula, known)
    return None


def has_sign(formula: sympy.Expr, expected: int, known: Knowledge) -> bool:
    """Whether the rules show that formula · expected ≥ 0, also with u = 1 − (1 − u) ≤ 1 used."""
    if sign(formula, known) in (0, expected):
        return True
    bounded = [s for s in formula.free_symbols if s in known.below_one]
    if not bounded:
        return False
    rest = {s: sympy.Dummy(f"rest_of_{s.name}", real=True) for s in bounded}
    spread = sympy.expand(formula.xreplace({s: 1 - r for s, r in rest.items()}))
    return sign(spread, known.with_nonnegative(*rest.values())) in (0, expected)


def _sign_of_number(number: sympy.Expr) -> int | None:
    if number.is_zero:
        return 0
    return 1 if number.is_positive else -1 if number.is_negative else None


def _common(signs: list[int | None]) -> int | None:
    """The sign of a sum."""
    found = {s for s in signs if s != 0}
    if not found:
        return 0
    return found.pop() if len(found) == 1 else None


def _sign_of_product(product: sympy.Expr, known: Knowledge) -> int | None:
    result = 1
    unknown: dict[sympy.Expr, int] = {}
    for factor in product.args:
        found = sign(factor, known)
        if found is None:
            core = _core(factor)
            unknown[core] = unknown.get(core, 0) + 1
        else:
            result *= found
    # x·sign(x) = |x|: factors with the sign of the same x make a square.
    if all(count % 2 == 0 for count in unknown.values()):
        return result
    return 0 if result == 0 else None


def _core(factor: sympy.Expr) -> sympy.Expr:
    """What has the sign of a factor."""
    if factor.is_Pow and factor.exp.is_odd:
        return _core(factor.base)
    elementwise = isinstance(factor, ODD) and not isinstance(factor, total)
    return _core(factor.args[0]) if elementwise else factor


def _sign_of_power(base: sympy.Expr, exponent: sympy.Expr, known: Knowledge) -> int | None:
    # A root has a value only where it is real, and then it is not negative.
    if exponent.is_even or exponent.is_integer is False:
        return 1
    found = sign(base, known)
    return found if exponent.is_odd or found in (0, 1) else None


def _sign_of_extreme(formula: sympy.Expr, known: Knowledge) -> int | None:
    signs = [sign(part, known) for part in formula.args]
    lowest = isinstance(formula, sympy.Min)
    # One part ≤ 0 bounds a minimum, one ≥ 0 a maximum.
    if any(s in ((0, -1) if lowest else (0, 1)) for s in signs):
        return -1 if lowest else 1
    known_signs = [s for s in signs if s is not None]
    if len(known_signs) < len(signs):
        return None
    return min(known_signs) if lowest else max(known_signs)
