"""From sympy formulas to torch code over lists of tensors, which writes in place what it may."""

from collections.abc import Collection, Mapping, Sequence

import sympy
from sympy.codegen.cfunctions import expm1, log1p

UNARY = {
    sympy.sign: "sign",
    sympy.Abs: "abs",
    sympy.exp: "exp",
    sympy.log: "log",
    sympy.sin: "sin",
    sympy.cos: "cos",
    sympy.tanh: "tanh",
    expm1: "expm1",
    log1p: "log1p",
}
CLAMPS = {sympy.Min: "clamp_max", sympy.Max: "clamp_min"}


class UnlistedError(Exception):
    """A formula for which torch has no operation over lists."""


class ListPrinter:
    """Prints lines that give variables their new values, each over a whole list of tensors.

    Args:
        leaves: Symbols that stand for lists; all others are numbers.
    """

    def __init__(self, leaves: Collection[sympy.Symbol]):
        """See the class."""
        self._leaves = frozenset(leaves)
        self._owned: set[str] = set()
        self.lines: list[str] = []

    @property
    def made(self) -> bool:
        """Whether there are lists in between, other than those of the variables."""
        return bool(self._owned)

    def update(
        self,
        shared: Sequence[tuple[sympy.Symbol, sympy.Expr]],
        results: Mapping[sympy.Symbol, sympy.Expr],
    ) -> list[str]:
        """Lines for common parts and for the new values, which are written over the old ones.

        Raises:
            UnlistedError: A formula has no such code.
        """
        for symbol, expression in shared:
            self._leaves |= {symbol}
            self.lines.append(f"{symbol.name} = {self._value(expression)}")
        # A variable on which another's new value depends is written after that.
        pending, late = dict(results), []
        while pending:
            free = [
                v
                for v in pending
                if not any(e.has(v) for other, e in pending.items() if other != v)
            ]
            for variable in free[:1] or list(pending)[:1]:
                expression = pending.pop(variable)
                if free:
                    self._write(variable, expression)
                else:
                    late.append((variable, self._new(expression)))
        self.lines += [f"torch._foreach_copy_({v.name}, {value})" for v, value in late]
        self.lines.append(f"return ({''.join(f'{v.name}, ' for v in results)})")
        return self.lines

    def _write(self, variable: sympy.Symbol, expression: sympy.Expr) -> None:
        """Adds up into the variable what does not depend on it."""
        own, others = [], []
        for term in sympy.Add.make_args(expression):
            (own if term.has(variable) else others).append(term)
        factor = sympy.Add(*(term / variable for term in own))
        if not own or self._is_list(factor):
            self.lines.append(f"torch._foreach_copy_({variable.name}, {self._new(expression)})")
            return
        additions = [self._addition(term) for term in others]
        if factor != 1:
            self.lines.append(f"torch._foreach_mul_({variable.name}, {self._scalar(factor)})")
        self.lines += [f"torch._foreach_{call.format(variable.name)}" for call in additions]

    def _addition(self, term: sympy.Expr) -> str:
        """A call that adds a term to a list still to be named."""
        scale, above, below = self._factors(term)
        if not above and not below:
            return f"add_({{}}, {self._scalar(scale)})"
        value = self._scalar(scale)
        if len(above) == 2 and not below:
            return (
                f"addcmul_({{}}, {self._value(above[0])}, {self._value(above[1])}, value={value})"
            )
        if len(above) == 1 and len(below) == 1:
            top, bottom = self._value(above[0]), self._value(below[0])
            return f"addcdiv_({{}}, {top}, {bottom}, value={value})"
        return f"add_({{}}, {self._value(term / scale)}, alpha={value})"

    def _factors(self, term: sympy.Expr) -> tuple[sympy.Expr, list[sympy.Expr], list[sympy.Expr]]:
        """A number, the lists that multiply it and those that divide it."""
        scale, above, below = sympy.S.One, [], []
        for factor in sympy.Mul.make_args(term):
            base, exponent = factor.as_base_exp()
            if not self._is_list(factor):
                scale *= factor
            elif exponent.is_Number and exponent.is_negative:
                below.append(base**-exponent)
            elif exponent == 2 and base.is_Symbol:
                above += [base, base]
            else:
                above.append(factor)
        return scale, above, below

    def _is_list(self, expression: sympy.Expr) -> bool:
        return bool(expression.free_symbols & self._leaves)

    def _scalar(self, expression: sympy.Expr) -> str:
        """Numbers and coefficients; what else depends on scalars is a coefficient by now."""
        return str(expression) if expression.free_symbols else repr(float(expression))

    def _value(self, expression: sympy.Expr) -> str:
        """The name of a list that holds a value; a leaf is itself."""
        if isinstance(expression, sympy.Symbol) and expression in self._leaves:
            return expression.name
        return self._new(expression)

    def _new(self, expression: sympy.Expr) -> str:
        """The name of a new list that holds a value."""
        if not self._is_list(expression):
            raise UnlistedError(f"{expression} is the same for all elements")
        if isinstance(expression, sympy.Symbol):
            return self._call("mul", expression.name, "1.0")
        if isinstance(expression, sympy.Add):
            return self._sum(expression)
        if isinstance(expression, sympy.Mul):
            return self._product(expression)
        if isinstance(expression, sympy.Pow):
            return self._power(expression)
        if expression.func in UNARY:
            return self._call(UNARY[expression.func], self._value(expression.args[0]))
        if expression.func in CLAMPS:
            first, *rest = sorted(expression.args, key=lambda a: not self._is_list(a))
            name = self._value(first)
            for bound in rest:
                other = self._value(bound) if self._is_list(bound) else self._scalar(bound)
                name = self._call(CLAMPS[expression.func], name, other)
            return name
        raise UnlistedError(f"no operation over lists for {expression.func.__name__}")

    def _sum(self, expression: sympy.Add) -> str:
        terms = sorted(expression.args, key=lambda t: (not self._is_list(t), t.is_Symbol))
        name = self._new(terms[0])
        for call in [self._addition(term) for term in terms[1:]]:
            self.lines.append(f"torch._foreach_{call.format(name)}")
        return name

    def _product(self, expression: sympy.Mul) -> str:
        scale, above, below = self._factors(expression)
        if above:
            above.sort(key=lambda factor: factor.is_Symbol)
            name = self._value(above[0])
        else:
            name = self._call("reciprocal", self._value(below.pop(0)))
        for factor in above[1:]:
            name = self._call("mul", name, self._value(factor))
        for factor in below:
            name = self._call("div", name, self._value(factor))
        return name if scale == 1 else self._call("mul", name, self._scalar(scale))

    def _power(self, expression: sympy.Pow) -> str:
        base, exponent = expression.args
        if self._is_list(exponent):
            raise UnlistedError(f"{expression} has a list as its exponent")
        if exponent.is_Number and exponent.is_negative:
            return self._call("reciprocal", self._value(base**-exponent))
        if exponent == sympy.Rational(1, 2):
            return self._call("sqrt", self._value(base))
        if exponent == 2:
            value = self._value(base)
            return self._call("mul", value, value)
        return self._call("pow", self._value(base), self._scalar(exponent))

    def _call(self, operation: str, first: str, *rest: str) -> str:
        """A new list, or a list of our own that is written over."""
        if first in self._owned and first not in rest:
            self.lines.append(f"torch._foreach_{operation}_({', '.join((first, *rest))})")
            return first
        name = f"_l{len(self._owned)}"
        self._owned.add(name)
        self.lines.append(f"{name} = torch._foreach_{operation}({', '.join((first, *rest))})")
        return name
