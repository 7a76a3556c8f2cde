"""A step on a quadratic loss as the affine Gaussian map that it is: z → Mz + Nξ."""

import sympy
from sympy.codegen.cfunctions import expm1

from flowopt.analysis.proofs.signs import Knowledge
from flowopt.analysis.symbolic_step import SymbolicFlow, SymbolicState, symbolic_step
from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import Scheme
from flowopt.errors import CompatibilityError
from flowopt.flows import EquationFlow
from flowopt.symbolic.functions import damped, phi, phi1, total
from flowopt.symbolic.language import GIVEN, STEP_SIZE, symbol

CURVATURE = sympy.Symbol("k", real=True, positive=True)


def linear_step(
    flow: EquationFlow, scheme: Scheme
) -> tuple[tuple[sympy.Symbol, ...], sympy.Matrix, sympy.Matrix]:
    """Variables, matrix M and noise factors N of a step on L = kθ²/2.

    Raises:
        CompatibilityError: The flow is not linear there, or the scheme does not fit it.
    """
    if not isinstance(flow, EquationFlow):
        raise CompatibilityError(
            f"stability reads the equations of a flow, got {type(flow).__name__}: give a fo.Flow"
        )
    zero = {symbol(n): sympy.S.Zero for n, v in flow.hyperparameters.items() if not v.any()}

    def evaluate(state: SymbolicState) -> Evaluation:
        (theta,) = state.position
        return Evaluation(CURVATURE * theta**2 / 2, (CURVATURE * theta,))

    formulas, draws = symbolic_step(SymbolicFlow(flow, zero), scheme, evaluate)
    variables = tuple(formulas)
    rows = [_plain(formula) for formula in formulas.values()]
    matrix = sympy.Matrix([[sympy.expand(row).diff(v) for v in variables] for row in rows])
    noise = sympy.Matrix(len(rows), len(draws), lambda i, j: rows[i].diff(draws[j]))
    for variable, row in zip(variables, rows, strict=True):
        found = {*variables, *GIVEN} & (
            set().union(*(row.diff(v).free_symbols for v in (*variables, *draws)))
            | (row.free_symbols & GIVEN)
        )
        if found:
            names = ", ".join(sorted(s.name for s in found))
            raise CompatibilityError(
                f"a step of flow {flow.name!r} with {scheme!r} is not linear on a quadratic loss: "
                f"how {variable.name!r} moves depends on {names}, so that no matrix and no "
                "spectral radius says what it does; integrate it instead"
            )
    return variables, matrix, noise


def _plain(formula: sympy.Expr) -> sympy.Expr:
    """For one element, in exponentials."""
    formula = formula.replace(lambda e: isinstance(e, total), lambda e: e.args[0])
    # On a quadratic loss the Gauss–Newton matrix is its curvature.
    formula = formula.replace(damped, lambda gradient, damping: gradient / (CURVATURE + damping))
    formula = formula.replace(expm1, lambda z: sympy.exp(z) - 1)
    return formula.replace(phi1, lambda z: _phi(sympy.S.One, z)).replace(phi, _phi)


def _phi(order: sympy.Integer, z: sympy.Expr) -> sympy.Expr:
    series = sympy.Add(*(z**n / sympy.factorial(n) for n in range(int(order))))
    return (sympy.exp(z) - series) / z**order


def with_decays(
    *formulas: sympy.Matrix,
) -> tuple[tuple[sympy.Matrix, ...], dict[sympy.Symbol, sympy.Expr]]:
    """The formulas with exp(−x/n) as symbols, rational in them, and what the symbols mean."""
    exponents = {e.args[0] for f in formulas for e in f.atoms(sympy.exp)}
    bases: dict[sympy.Expr, list[sympy.Rational]] = {}
    for exponent in exponents:
        factor, rest = sympy.expand(-exponent).as_coeff_Mul()
        bases.setdefault(rest, []).append(factor)
    table, meanings = {}, {}
    for number, (rest, factors) in enumerate(sorted(bases.items(), key=lambda x: str(x[0]))):
        unit = sympy.Rational(
            sympy.igcd(0, *(f.p for f in factors)), sympy.ilcm(1, *(f.q for f in factors))
        )
        decay = sympy.Symbol("c" if len(bases) == 1 else f"c{number}", positive=True)
        meanings[decay] = sympy.exp(-unit * rest)
        for exponent in exponents:
            factor, other = sympy.expand(-exponent).as_coeff_Mul()
            if other == rest:
                table[sympy.exp(exponent)] = decay ** (factor / unit)
    return tuple(f.xreplace(table) for f in formulas), meanings


def knowledge_of(flow: EquationFlow, decays: dict[sympy.Symbol, sympy.Expr]) -> Knowledge:
    """Signs of hyperparameters, step size and curvature; decays lie between 0 and 1."""
    signed = [symbol(n) for n, v in flow.hyperparameters.items() if bool((v >= 0).all())]
    signed_set = frozenset({STEP_SIZE, CURVATURE, *signed})
    shares = [c for c, e in decays.items() if (-e.args[0]).free_symbols <= signed_set]
    return Knowledge(signed_set, shares=frozenset(shares))
