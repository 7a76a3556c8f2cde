"""Equations as LaTeX."""

import re

import sympy

from flowopt.symbolic.functions import total
from flowopt.symbolic.language import LOSS, Equations, g, is_channel, theta


def latex(equations: Equations) -> str:
    """The summed equations, one aligned line per variable, and the energies."""
    lines = []
    for variable in (*equations.variables, *equations.scalars):
        drift = sympy.Add(*(term.drift.get(variable, 0) for term in equations.terms))
        parts = [_factor(drift) + r"\,\mathrm{d}t"] if drift != 0 else []
        for term in equations.terms:
            for wiener, amplitude in term.amplitudes(variable).items():
                parts.append(_factor(amplitude) + r"\," + _print(wiener))
        lines.append(rf"\mathrm{{d}}{_print(variable)} &= {' + '.join(parts) or '0'}")
    for name, energy in equations.energies.items():
        lines.append(rf"E_\text{{{name}}} &= {_print(energy)}")
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


def _factor(expression: sympy.Expr) -> str:
    """An expression as a factor, sums in parentheses."""
    printed = _print(expression)
    return rf"\left({printed}\right)" if expression.is_Add else printed


def _print(expression: sympy.Expr) -> str:
    names = {theta: r"\theta", g: r"\nabla L", LOSS: "L"}
    printed = expression.replace(
        lambda e: isinstance(e, total), lambda e: sympy.Function("sum")(e.args[0])
    )
    symbols = {s: names.get(s, _symbol_name(s)) for s in printed.free_symbols}
    return sympy.latex(printed, symbol_names=symbols).replace(
        r"\operatorname{sum}", r"\textstyle\sum"
    )


def _symbol_name(symbol: sympy.Symbol) -> str:
    if is_channel(symbol):
        index = symbol.name[2:].strip("_").replace("_", ",")
        return r"\mathrm{d}W" + (f"_{{{index}}}" if index else "")
    if re.fullmatch(r"[A-Za-z]\w?", symbol.name) or "_" in symbol.name[:2]:
        return sympy.latex(symbol)
    return sympy.latex(symbol) if sympy.latex(symbol) != symbol.name else rf"\text{{{symbol.name}}}"
