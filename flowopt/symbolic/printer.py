"""From sympy formulas to torch code that shows in tracebacks.

A formula is split in two. What depends only on scalars (step size, hyperparameters, one value per
block) is computed once per step in float64, the *coefficients*; what is left is computed for every
element in the dtype of the leaf.
"""

import itertools
import linecache
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import sympy
import torch
from sympy.codegen.cfunctions import expm1, log1p
from torch import Tensor

from flowopt.errors import DefinitionError
from flowopt.symbolic.language import phi1, total

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


def print_expression(expression: sympy.Expr) -> str:
    """Python source of an expression in torch functions; numbers print as Python floats."""
    if not expression.free_symbols:
        return _print_number(expression)
    if isinstance(expression, sympy.Symbol):
        return expression.name
    if isinstance(expression, sympy.Add):
        return _print_sum(expression)
    if isinstance(expression, sympy.Mul):
        return _print_product(expression)
    if isinstance(expression, sympy.Pow):
        return _print_power(expression)
    if expression.func in UNARY:
        return f"{UNARY[expression.func]}({print_expression(expression.args[0])})"
    if expression.func in CLAMPS:
        return _print_clamp(expression)
    raise DefinitionError(
        f"no torch code for {expression.func.__name__!r} in {expression}: known are "
        f"{sorted(f.__name__ for f in (*UNARY, *CLAMPS))}, + - * / ** and sqrt"
    )


def _print_number(number: sympy.Expr) -> str:
    if isinstance(number, sympy.Integer):
        return str(int(number))
    return repr(float(number))


def _wrap(expression: sympy.Expr) -> str:
    printed = print_expression(expression)
    atomic = isinstance(expression, sympy.Symbol) or expression.is_Function
    return printed if atomic or printed.replace(".", "").isalnum() else f"({printed})"


def _print_sum(expression: sympy.Add) -> str:
    terms = sorted(expression.args, key=lambda term: term.could_extract_minus_sign())
    pieces = [print_expression(terms[0])]
    for term in terms[1:]:
        if term.could_extract_minus_sign():
            positive = -term
            wrapped = (
                _wrap(positive) if isinstance(positive, sympy.Add) else print_expression(positive)
            )
            pieces.append(f" - {wrapped}")
        else:
            pieces.append(f" + {print_expression(term)}")
    return "".join(pieces)


def _print_product(expression: sympy.Mul) -> str:
    if expression.could_extract_minus_sign():
        return f"-{_wrap(-expression)}"
    above, below = [], []
    for factor in expression.args:
        base, exponent = factor.as_base_exp()
        if exponent.is_Number and exponent.is_negative:
            below.append(base**-exponent)
        elif factor.is_Rational and factor.q != 1:
            above.append(sympy.Float(factor))
        else:
            above.append(factor)
    numerator = "*".join(_wrap(f) for f in above) or "1"
    return "/".join([numerator, *(_wrap(f) for f in below)])


def _print_power(expression: sympy.Pow) -> str:
    base, exponent = expression.args
    if exponent == sympy.Rational(1, 2):
        return f"torch.sqrt({print_expression(base)})"
    if exponent.is_Number and exponent.is_negative:
        return f"1/{_wrap(base**-exponent)}"
    if base == sympy.E:
        return f"torch.exp({print_expression(exponent)})"
    if not base.free_symbols:
        return f"torch.exp({print_expression(exponent)}*{_print_number(sympy.log(base))})"
    return f"{_wrap(base)}**{_wrap(exponent)}"


def _print_clamp(expression: sympy.Expr) -> str:
    first, *rest = sorted(expression.args, key=lambda argument: not argument.free_symbols)
    printed = print_expression(first)
    for argument in rest:
        printed = f"torch.clamp({printed}, {CLAMPS[expression.func]}={print_expression(argument)})"
    return printed


def compile_function(
    title: str, name: str, arguments: Iterable[str], body: list[str]
) -> tuple[Callable, str]:
    """A Python function from printed lines; its source is known to tracebacks and debuggers."""
    source = "\n".join(
        [f"def {name}({', '.join(arguments)}):", *(f"    {line}" for line in body), ""]
    )
    file = f"<flowopt {title} #{next(_serial)}>"
    namespace = {"torch": torch, "phi1": evaluate_phi1}
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
    """

    sums: tuple[tuple[str, "Compiled"], ...]
    coefficients: Callable
    update: Callable
    leaf_arguments: tuple[str, ...]
    scalar_arguments: tuple[str, ...]
    source: str


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
    leaves = {sympy.Symbol(name, real=True) for name in leaves}
    sums: dict[sympy.Expr, str] = {}

    def name_total(call: sympy.Expr) -> sympy.Symbol:
        return sympy.Symbol(sums.setdefault(call.args[0], f"_sum{len(sums)}"), real=True)

    bare = [f.replace(lambda e: isinstance(e, total), name_total) for f in formulas.values()]
    hoist = _Hoist(leaves)
    shared, results = sympy.cse(
        [hoist(f) for f in bare], symbols=sympy.numbered_symbols("_x", real=True), order="none"
    )
    used = set().union(*(e.free_symbols for _, e in shared), *(e.free_symbols for e in results))
    leaf_arguments = tuple(sorted(s.name for s in used & leaves))
    coefficients, coefficient_names, coefficient_source = _compile_coefficients(title, hoist)
    lines = [f"{s.name} = {print_expression(e)}" for s, e in shared]
    lines += [f"{n}_ = {print_expression(e)}" for n, e in zip(formulas, results, strict=True)]
    lines.append(f"return ({''.join(f'{n}_, ' for n in formulas)})")
    update, source = compile_function(
        title, "update", (*leaf_arguments, *(s.name for s in hoist.coefficients.values())), lines
    )
    return Compiled(
        sums=tuple(
            (n, compile_formulas(title, {n: e}, [s.name for s in leaves])) for e, n in sums.items()
        ),
        coefficients=coefficients,
        update=update,
        leaf_arguments=leaf_arguments,
        scalar_arguments=coefficient_names,
        source=f"{coefficient_source}\n{source}",
    )


def _compile_coefficients(title: str, hoist: _Hoist) -> tuple[Callable, tuple[str, ...], str]:
    used = set().union(*(e.free_symbols for e in hoist.coefficients))
    arguments = tuple(sorted(s.name for s in used))
    lines = [f"{s.name} = {print_expression(e)}" for e, s in hoist.coefficients.items()]
    lines.append(f"return ({''.join(f'{s.name}, ' for s in hoist.coefficients.values())})")
    function, source = compile_function(title, "coefficients", arguments, lines)
    return function, arguments, source
