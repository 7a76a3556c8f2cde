"""From sympy formulas to torch code that shows in tracebacks.

A formula is split in two. What depends only on scalars (step size, hyperparameters, one value per
block) is computed once per step in float64, the *coefficients*; what is left is computed for every
element in the dtype of the leaf.
"""

import inspect
import itertools
import linecache
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import sympy
import torch
from sympy.codegen.cfunctions import expm1, log1p
from torch import Tensor

from flowopt.errors import DefinitionError
from flowopt.symbolic.functions import phi, phi1, total
from flowopt.symbolic.printing.lists import ListPrinter, UnlistedError
from flowopt.symbolic.printing.stretches import in_stretches

UNARY = {
    sympy.sign: "torch.sign",
    sympy.Abs: "torch.abs",
    sympy.exp: "torch.exp",
    sympy.log: "torch.log",
    sympy.sin: "torch.sin",
    sympy.cos: "torch.cos",
    sympy.tanh: "torch.tanh",
    expm1: "torch.expm1",
    log1p: "torch.log1p",
    phi1: "phi1",
}
CLAMPS = {sympy.Min: "max", sympy.Max: "min"}

_serial = itertools.count()


def evaluate_phi1(z: Tensor) -> Tensor:
    """(exp(z) − 1)/z without loss of digits, 1 at z = 0."""
    zero = z == 0
    # exp(z) - 1 keeps less than one digit in float32 at z = 1e-7; expm1 keeps all.
    return torch.where(zero, 1.0, torch.expm1(z) / torch.where(zero, 1.0, z))


# Terms of the series of a φ-function near zero: those beyond are below rounding.
SERIES_TERMS = 17


def evaluate_phi(order: int, z: Tensor) -> Tensor:
    """The function φₖ(z) = Σₙ zⁿ/(n + k)! without loss of digits, k ≥ 1."""
    # Farther out the recursion zφₖ₊₁ = φₖ − 1/k! keeps its digits.
    near = torch.abs(z) < 0.25 * order
    small, large = torch.where(near, z, 0.0), torch.where(near, 1.0, z)
    series = small * (1.0 / math.factorial(order + SERIES_TERMS))
    for power in range(SERIES_TERMS - 1, 0, -1):
        series = (series + 1.0 / math.factorial(order + power)) * small
    series = series + 1.0 / math.factorial(order)
    value = torch.expm1(large) / large
    for below in range(1, order):
        value = (value - 1.0 / math.factorial(below)) / large
    return torch.where(near, series, value)


class Printer:
    """Prints expressions as Python source in torch functions; numbers print as Python floats.

    Args:
        leaves: Symbols with one value per element. What an operation makes of them is a new tensor
            that nothing else holds, so the next operation works in place: at network size the
            memory traffic of fresh tensors is most of the time.
    """

    def __init__(self, leaves: Collection[sympy.Symbol] = ()):
        """See the class."""
        self._leaves = frozenset(leaves)

    def __call__(self, expression: sympy.Expr) -> str:
        """Source of an expression.

        Raises:
            DefinitionError: It has a function without torch code.
        """
        if not expression.free_symbols:
            return _number(expression)
        if isinstance(expression, sympy.Symbol):
            return expression.name
        if isinstance(expression, sympy.Add):
            return self._sum(expression)
        if isinstance(expression, sympy.Mul):
            return self._product(expression)
        if isinstance(expression, sympy.Pow):
            return self._power(expression)
        if expression.func in UNARY:
            return f"{UNARY[expression.func]}({self(expression.args[0])})"
        if expression.func in CLAMPS:
            return self._clamp(expression)
        if isinstance(expression, phi):
            order, argument = expression.args
            return f"phi({order}, {self(argument)})"
        raise DefinitionError(
            f"no torch code for {expression.func.__name__!r} in {expression}: known are "
            f"{sorted(f.__name__ for f in (*UNARY, *CLAMPS))}, + - * / ** and sqrt"
        )

    def _fresh(self, expression: sympy.Expr) -> bool:
        """Whether the value is a new tensor of a leaf's shape that nothing else needs."""
        # Autograd, where it follows a step, differentiates roots and exponentials by their values.
        held = isinstance(expression, sympy.Symbol | sympy.Function) or _is_root(expression)
        return not held and bool(expression.free_symbols & self._leaves)

    def _wrap(self, expression: sympy.Expr) -> str:
        printed = self(expression)
        atomic = isinstance(expression, sympy.Symbol | sympy.Function) or _is_root(expression)
        return printed if atomic or printed.replace(".", "").isalnum() else f"({printed})"

    def _sum(self, expression: sympy.Add) -> str:
        terms = sorted(
            expression.args, key=lambda x: (x.could_extract_minus_sign(), not self._fresh(x))
        )
        first, *rest = terms
        in_place = self._fresh(first)
        printed = self._wrap(first) if in_place else self(first)
        for term in rest:
            minus = term.could_extract_minus_sign()
            positive = -term if minus else term
            if in_place:
                printed += f".{'sub_' if minus else 'add_'}({self(positive)})"
            else:
                wrapped = self._wrap(positive) if positive.is_Add else self(positive)
                printed += f" {'-' if minus else '+'} {wrapped}"
        return printed

    def _product(self, expression: sympy.Mul) -> str:
        if expression.could_extract_minus_sign():
            return f"-{self._wrap(-expression)}"
        above, below = [], []
        for factor in expression.args:
            base, exponent = factor.as_base_exp()
            if exponent.is_Number and exponent.is_negative:
                below.append(base**-exponent)
            else:
                above.append(factor)
        above.sort(key=lambda factor: not self._fresh(factor))
        if above and self._fresh(above[0]):
            printed, rest, in_place = self._wrap(above[0]), above[1:], True
        else:
            printed, rest = "*".join(self._wrap(f) for f in above[:2]) or "1", above[2:]
            in_place = len(above) > 1 and any(f in self._leaves for f in above[:2])
            if in_place and (rest or below):
                printed = f"({printed})"
        for factor in rest:
            printed += f".mul_({self(factor)})" if in_place else f"*{self._wrap(factor)}"
        for factor in below:
            printed += f".div_({self(factor)})" if in_place else f"/{self._wrap(factor)}"
        return printed

    def _power(self, expression: sympy.Pow) -> str:
        base, exponent = expression.args
        if exponent == sympy.Rational(1, 2):
            return f"torch.sqrt({self(base)})"
        if exponent.is_Number and exponent.is_negative:
            return f"1/{self._wrap(base**-exponent)}"
        if not base.free_symbols:
            return f"torch.exp({self(exponent)}*{_number(sympy.log(base))})"
        return f"{self._wrap(base)}**{self._wrap(exponent)}"

    def _clamp(self, expression: sympy.Expr) -> str:
        first, *rest = sorted(expression.args, key=lambda argument: not argument.free_symbols)
        printed = self(first)
        for argument in rest:
            printed = f"torch.clamp({printed}, {CLAMPS[expression.func]}={self(argument)})"
        return printed


def _is_root(expression: sympy.Expr) -> bool:
    return expression.is_Pow and expression.exp == sympy.S.Half


def _number(number: sympy.Expr) -> str:
    try:
        value = float(number)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise DefinitionError(f"a number in a formula is too large for float64: {number.func}")
    # Beyond 2**53 torch takes no Python integer for every dtype.
    small = isinstance(number, sympy.Integer) and abs(value) <= 2**53
    return str(int(number)) if small else repr(value)


def compile_function(
    title: str, name: str, arguments: Iterable[str], body: list[str]
) -> tuple[Callable, str]:
    """A Python function from printed lines; its source is known to tracebacks and debuggers."""
    source = "\n".join(
        [f"def {name}({', '.join(arguments)}):", *(f"    {line}" for line in body), ""]
    )
    file = f"<flowopt {title} #{next(_serial)}>"
    namespace = {"torch": torch, "phi": evaluate_phi, "phi1": evaluate_phi1}
    exec(compile(source, file, "exec"), namespace)
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    return namespace[name], source


@dataclass(frozen=True)
class Compiled:
    """Printed formulas: sums over elements, then coefficients, then values of every element.

    Attributes:
        sums: Name and formula of each `total`, innermost first.
        coefficients: scalars → tuple of scalars, float64.
        update: leaves and coefficients → tuple of leaves.
        leaf_arguments: Names of the leaves that `update` takes, in order.
        scalar_arguments: Names of the scalars that `coefficients` takes, in order.
        source: The printed code.
        formulas: What `update` computes: common parts, then the value of each variable.
    """

    sums: tuple[tuple[str, "Compiled"], ...]
    coefficients: Callable
    update: Callable
    leaf_arguments: tuple[str, ...]
    scalar_arguments: tuple[str, ...]
    source: str
    formulas: tuple[list[tuple[sympy.Symbol, sympy.Expr]], dict[str, sympy.Expr]]

    @cached_property
    def update_lists(self) -> Callable | None:
        """`update` for whole lists of tensors, the new values written over the old ones.

        Takes the leaf arguments, the coefficients as numbers, then the leaves in `written`. None
        where torch has no operation over lists for a formula.
        """
        shared, results = self.formulas
        names = {*self.leaf_arguments, *results}
        symbols = {name: sympy.Symbol(name, real=True) for name in names}
        try:
            new_values = {symbols[name]: formula for name, formula in results.items()}
            printer = ListPrinter(symbols.values())
            lines = printer.update(shared, new_values)
        except UnlistedError:
            return None
        arguments = (*inspect.signature(self.update).parameters, *self.written)
        function = compile_function("lists", "update_lists", arguments, lines)[0]
        return in_stretches(function, [a in names for a in arguments]) if printer.made else function

    @property
    def written(self) -> tuple[str, ...]:
        """Leaves that get values which do not depend on them."""
        return tuple(name for name in self.formulas[1] if name not in self.leaf_arguments)


class _Hoist:
    """Replaces maximal scalar parts of formulas by coefficients."""

    def __init__(self, leaves: set[sympy.Symbol]):
        self.leaves = leaves
        self.coefficients: dict[sympy.Expr, sympy.Symbol] = {}

    def __call__(self, expression: sympy.Expr) -> sympy.Expr:
        if not expression.free_symbols or expression in self.leaves:
            return expression
        if not expression.free_symbols & self.leaves:
            name = f"_c{len(self.coefficients)}"
            return self.coefficients.setdefault(expression, sympy.Symbol(name, real=True))
        if isinstance(expression, sympy.Add | sympy.Mul):
            scalar = [a for a in expression.args if not a.free_symbols & self.leaves]
            if any(a.free_symbols for a in scalar):
                rest = [self(a) for a in expression.args if a.free_symbols & self.leaves]
                return expression.func(self(expression.func(*scalar)), *rest)
        return expression.func(*(self(a) for a in expression.args))


def compile_formulas(
    title: str, formulas: Mapping[str, sympy.Expr], leaves: Iterable[str]
) -> Compiled:
    """Prints formulas, name → expression, as torch code.

    Args:
        title: What the formulas are, for tracebacks.
        formulas: Name of the result → expression.
        leaves: Names that have one value per element; all other names are scalars.
    """
    elements = {sympy.Symbol(name, real=True) for name in leaves}
    sums: dict[sympy.Expr, str] = {}

    def name_total(call: sympy.Expr) -> sympy.Symbol:
        return sympy.Symbol(sums.setdefault(call.args[0], f"_sum{len(sums)}"), real=True)

    bare = [f.replace(lambda e: isinstance(e, total), name_total) for f in formulas.values()]
    hoist = _Hoist(elements)
    shared, results = sympy.cse(
        [hoist(f) for f in bare], symbols=sympy.numbered_symbols("_x", real=True), order="none"
    )
    used = set().union(*(e.free_symbols for _, e in shared), *(e.free_symbols for e in results))
    leaf_arguments = tuple(sorted(s.name for s in used & elements))
    coefficients, coefficient_names, coefficient_source = _compile_coefficients(title, hoist)
    printed = Printer({*elements, *(s for s, _ in shared)})
    lines = [f"{s.name} = {printed(e)}" for s, e in shared]
    lines += [f"{n}_ = {printed(e)}" for n, e in zip(formulas, results, strict=True)]
    lines.append(f"return ({''.join(f'{n}_, ' for n in formulas)})")
    update, source = compile_function(
        title, "update", (*leaf_arguments, *(s.name for s in hoist.coefficients.values())), lines
    )
    return Compiled(
        sums=tuple(
            (n, compile_formulas(title, {n: e}, [s.name for s in elements]))
            for e, n in sums.items()
        ),
        coefficients=coefficients,
        update=update,
        leaf_arguments=leaf_arguments,
        scalar_arguments=coefficient_names,
        source=f"{coefficient_source}\n{source}",
        formulas=(shared, dict(zip(formulas, results, strict=True))),
    )


def _compile_coefficients(title: str, hoist: _Hoist) -> tuple[Callable, tuple[str, ...], str]:
    used = set().union(*(e.free_symbols for e in hoist.coefficients))
    arguments = tuple(sorted(s.name for s in used))
    lines = [f"{s.name} = {Printer()(e)}" for e, s in hoist.coefficients.items()]
    lines.append(f"return ({''.join(f'{s.name}, ' for s in hoist.coefficients.values())})")
    function, source = compile_function(title, "coefficients", arguments, lines)
    return function, arguments, source
