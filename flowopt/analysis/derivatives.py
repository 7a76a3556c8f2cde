"""Derivatives along flows for a loss that is known by its derivatives only.

H[x] is the Hessian of the loss times x, T[x, y] its third derivative times x and y: values per
element, as g is.
"""

from collections.abc import Callable, Mapping

import sympy

from flowopt.errors import CompatibilityError
from flowopt.symbolic.functions import total
from flowopt.symbolic.language import LOSS, Equations, g, t, theta

Field = Mapping[sympy.Symbol, sympy.Expr]


class hessian(sympy.Function):
    """The Hessian of the loss times a vector."""

    nargs = 1

    def _sympystr(self, printer) -> str:
        return f"H[{printer._print(self.args[0])}]"

    def _latex(self, printer, exp=None) -> str:
        return _powered(rf"\nabla^2 L\left[{printer._print(self.args[0])}\right]", exp)


class third(sympy.Function):
    """The third derivative of the loss times two vectors."""

    nargs = 2

    def _sympystr(self, printer) -> str:
        return f"T[{', '.join(map(printer._print, self.args))}]"

    def _latex(self, printer, exp=None) -> str:
        inside = ", ".join(map(printer._print, self.args))
        return _powered(rf"\nabla^3 L\left[{inside}\right]", exp)


def _powered(printed: str, exponent: str | None) -> str:
    return printed if exponent is None else rf"\left({printed}\right)^{{{exponent}}}"


class Calculus:
    """The rules of differentiation for the variables of some equations."""

    def __init__(self, equations: Equations):
        """See the class."""
        self._equations = equations

    def hessian(self, x: sympy.Expr) -> sympy.Expr:
        """H[x], linear in x."""
        return self._linear(x, hessian)

    def third(self, x: sympy.Expr, y: sympy.Expr) -> sympy.Expr:
        """T[x, y], linear in both and symmetric."""

        def ordered(a: sympy.Expr, b: sympy.Expr) -> sympy.Expr:
            return third(*sorted((a, b), key=sympy.default_sort_key))

        return self._linear(x, lambda a: self._linear(y, lambda b: ordered(a, b)))

    def total(self, x: sympy.Expr) -> sympy.Expr:
        """The sum over elements."""
        return self._linear(x, total)

    def along(self, formula: sympy.Expr, field: Field) -> sympy.Expr:
        """The derivative of a formula along a vector field, in which time runs at rate 1."""
        bare, parts = self._opaque(formula)
        result = bare.diff(t) + bare.diff(g) * self.hessian(field[theta])
        result += bare.diff(LOSS) * self.total(g * field[theta])
        for variable, slope in field.items():
            result += bare.diff(variable) * slope
        for symbol, part in parts.items():
            result += bare.diff(symbol) * self._part_along(part, field)
        return sympy.expand_mul(result.xreplace(parts))

    def _part_along(self, part: sympy.Expr, field: Field) -> sympy.Expr:
        slopes = [self.along(x, field) for x in part.args]
        if isinstance(part, total):
            return self.total(slopes[0])
        if isinstance(part, hessian):
            return self.third(part.args[0], field[theta]) + self.hessian(slopes[0])
        raise CompatibilityError("fourth derivatives of the loss are beyond this expansion")

    def _linear(self, x: sympy.Expr, function: Callable) -> sympy.Expr:
        """A linear function of a sum of products, factors without elements taken out."""
        result = sympy.S.Zero
        for part in sympy.Add.make_args(sympy.expand_mul(x)):
            outside, inside = [], []
            for factor in sympy.Mul.make_args(part):
                (inside if self._equations.elementwise(factor) else outside).append(factor)
            if part != 0:
                result += sympy.Mul(*outside) * function(sympy.Mul(*inside))
        return result

    def _opaque(self, formula: sympy.Expr) -> tuple[sympy.Expr, dict[sympy.Symbol, sympy.Expr]]:
        """The formula with its outermost H, T and sums as symbols."""
        names: dict[sympy.Expr, sympy.Symbol] = {}

        def walk(part: sympy.Expr) -> sympy.Expr:
            if isinstance(part, hessian | third | total):
                return names.setdefault(part, sympy.Dummy(f"part{len(names)}", real=True))
            return part.func(*map(walk, part.args)) if part.args else part

        bare = walk(formula)
        return bare, {symbol: part for part, symbol in names.items()}
