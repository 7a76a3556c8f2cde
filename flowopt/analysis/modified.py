"""Backward error analysis: the differential equation that a scheme follows more closely."""

from dataclasses import dataclass

import sympy
from sympy.codegen.cfunctions import expm1

from flowopt.analysis.derivatives import Calculus, Field, hessian
from flowopt.analysis.proofs.facts import summed_drift
from flowopt.analysis.symbolic_step import SymbolicFlow, SymbolicState, rational, symbolic_step
from flowopt.core.evaluation import Evaluation
from flowopt.core.interfaces import Scheme
from flowopt.errors import CompatibilityError
from flowopt.flows import EquationFlow
from flowopt.symbolic.functions import phi1, total
from flowopt.symbolic.language import LOSS, STEP_SIZE, g, symbol, theta

MOST_FACTORED = 300
HIGHEST_ORDER = 2
# Functions with kinks, at which there is no series.
KINKED = (sympy.Abs, sympy.Min, sympy.Max, sympy.sign, sympy.Piecewise)
h = sympy.Symbol("h", real=True, positive=True)


@dataclass(frozen=True)
class ModifiedEquation:
    """z' = f + h f₁ + h² f₂, which the scheme follows with an error of one order more.

    Attributes:
        flow: Name of the flow.
        scheme: As it is written.
        fields: f, f₁, f₂, …: variable → formula in the variables, g, H[x] (Hessian times x) and
            T[x, y] (third derivative times x and y).
    """

    flow: str
    scheme: str
    fields: tuple[Field, ...]

    def __str__(self) -> str:
        """One line per variable."""
        lines = [f"{self.flow}, {self.scheme}, to order h**{len(self.fields) - 1}"]
        lines += [f"  d{v}/dt = {self._right(v)}" for v in self.fields[0]]
        if self.modified_loss is not None:
            lines.append(f"  to first order gradient flow on {self.modified_loss}")
        return "\n".join(lines)

    @property
    def vector_field(self) -> Field:
        """The whole right-hand side in h."""
        return {
            v: sympy.Add(*(h**n * field[v] for n, field in enumerate(self.fields)))
            for v in self.fields[0]
        }

    @property
    def modified_loss(self) -> sympy.Expr | None:
        """L + c h |g|², where the first-order equation is gradient flow on that."""
        if len(self.fields) < 2 or set(self.fields[0]) != {theta}:
            return None
        slope = self.fields[1][theta].coeff(hessian(g))
        if slope == 0 or self.fields[0][theta] != -g:
            return None
        if sympy.expand(self.fields[1][theta] - slope * hessian(g)):
            return None
        return LOSS - slope * h / 2 * total(g**2)

    def latex(self) -> str:
        """An aligned LaTeX environment."""
        names = {theta: r"\theta", g: r"\nabla L", LOSS: "L"}
        lines = [
            rf"\dot{{{sympy.latex(v, symbol_names=names)}}} &= "
            + sympy.latex(formula, symbol_names=names)
            for v, formula in self.vector_field.items()
        ]
        return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"

    def _right(self, variable: sympy.Symbol) -> str:
        parts = [str(self.fields[0][variable])]
        for n, field in enumerate(self.fields[1:], start=1):
            if field[variable] != 0:
                power = "h" if n == 1 else f"h**{n}"
                parts.append(f"{power}*({field[variable]})")
        return " + ".join(parts)


def modified_equation(flow: EquationFlow, scheme: Scheme, order: int = 2) -> ModifiedEquation:
    """The equation that a scheme follows up to O(h^(order+1)), for any smooth loss.

    The scheme's own step runs on power series in h, and is matched with the flow of
    f + h f₁ + h² f₂: with the step z + hφ₁ + h²φ₂ + h³φ₃ and D the derivative along a field,
    f = φ₁, f₁ = φ₂ − ½ D_f f, f₂ = φ₃ − ½ (D_f f₁ + D_{f₁} f) − ⅙ D_f D_f f.

    Args:
        flow: Without noise, in physical time.
        scheme: Any that combines drifts or maps of letters.
        order: 1 or 2.

    Raises:
        CompatibilityError: The flow has noise, kinks or rates per step, or the scheme does not fit.

    Reference:
        Hairer, Lubich & Wanner 2006, Geometric Numerical Integration, chapter IX; for gradient
        descent Barrett & Dherin 2021, arXiv 2009.11162.
    """
    _check(flow, order)
    equations = flow.equations
    calculus = Calculus(equations)
    zero = {symbol(n): sympy.S.Zero for n, v in flow.hyperparameters.items() if not v.any()}
    variables = (*equations.variables, *equations.scalars)
    field = {v: rational(summed_drift(equations, v)).xreplace(zero) for v in variables}
    series = _Series(calculus, order + 1)
    formulas, _ = symbolic_step(SymbolicFlow(flow, zero, series.truncated), scheme, series.evaluate)
    step = {v: series.coefficients(formula) for v, formula in formulas.items()}
    fields = [{v: sympy.expand_mul(f) for v, f in field.items()}]
    for v in variables:
        if sympy.simplify(step[v][1] - field[v]) != 0:
            raise CompatibilityError(
                f"{scheme!r} is not consistent with flow {flow.name!r}: to first order it moves "
                f"{v.name} by {step[v][1]}, the flow by {field[v]}"
            )
    second = {v: calculus.along(f, field) for v, f in field.items()}
    fields.append({v: sympy.expand_mul(step[v][2] - second[v] / 2) for v in variables})
    if order == 2:
        mixed = {
            v: calculus.along(fields[1][v], field) + _turned(calculus, field[v], fields[1])
            for v in variables
        }
        cubic = {v: calculus.along(second[v], field) for v in variables}
        fields.append(
            {v: sympy.expand_mul(step[v][3] - mixed[v] / 2 - cubic[v] / 6) for v in variables}
        )
    return ModifiedEquation(flow.name, repr(scheme), tuple(map(_tidied, fields)))


def _turned(calculus: Calculus, formula: sympy.Expr, field: Field) -> sympy.Expr:
    """The derivative along a correction, in which time stands still."""
    still = dict.fromkeys(field, sympy.S.Zero)
    return calculus.along(formula, field) - calculus.along(formula, still)


def _tidied(field: Field) -> Field:
    return {v: _factored(f) for v, f in field.items()}


def _factored(formula: sympy.Expr) -> sympy.Expr:
    """Over a common denominator where roots and fractions would otherwise repeat it."""
    polynomial = all(power.exp.is_positive for power in formula.atoms(sympy.Pow))
    if polynomial:
        return sympy.factor_terms(sympy.expand(formula))
    # Factors of long rational functions take minutes, and nobody reads them.
    return sympy.factor(formula) if formula.count_ops() <= MOST_FACTORED else formula


def _check(flow: EquationFlow, order: int) -> None:
    if not isinstance(flow, EquationFlow):
        raise CompatibilityError(
            f"modified_equation reads the equations of a flow, got {type(flow).__name__}: give a "
            "fo.Flow"
        )
    if order not in (1, HIGHEST_ORDER):
        raise CompatibilityError(f"order={order!r}: expected 1 or {HIGHEST_ORDER}")
    if flow.per_step:
        raise CompatibilityError(
            f"flow {flow.name!r} has {sorted(flow.per_step)} as rate × step size, which change "
            "with h: use flow.at_step_size(h)"
        )
    formulas = [f for term in flow.equations.terms for f in term.drift.values()]
    if flow.noisy:
        raise CompatibilityError(
            f"flow {flow.name!r} has noise, whose modified equation is one for averages and is not "
            "derived: take the flow without noise"
        )
    if flow.damping is not None:
        raise CompatibilityError(
            f"flow {flow.name!r} solves systems with the Gauss–Newton matrix, whose derivative is "
            "not known: take flows.gradient_flow() with LinearlyImplicitEuler(gauss_newton=True)"
        )
    if any(f.has(*KINKED) for f in formulas):
        raise CompatibilityError(
            f"flow {flow.name!r} has a drift with kinks, which has no series in the step size"
        )


class _Series:
    """Power series in the step size, with the loss at the start as what is known."""

    def __init__(self, calculus: Calculus, order: int):
        self._calculus = calculus
        self._order = order

    def coefficients(self, formula: sympy.Expr) -> list[sympy.Expr]:
        """Of 1, h, …, h^order."""
        result, slope = [], formula
        for n in range(self._order + 1):
            result.append(
                sympy.expand_mul(slope.xreplace({STEP_SIZE: sympy.S.Zero})) / sympy.factorial(n)
            )
            slope = slope.diff(STEP_SIZE)
        return result

    def truncated(self, formula: sympy.Expr) -> sympy.Expr:
        """The formula as a polynomial in h."""
        formula = formula.replace(lambda e: isinstance(e, total), self._sum)
        formula = formula.replace(expm1, lambda z: sympy.exp(z) - 1)
        formula = formula.replace(phi1, _phi1_series)
        return self._polynomial(self.coefficients(formula))

    def evaluate(self, state: SymbolicState) -> Evaluation:
        """Loss and gradient at θ + hδ₁ + h²δ₂ + …, up to h²."""
        (position,) = state.position
        calculus = self._calculus
        _, first, second, *_ = self.coefficients(position)
        gradient = [
            g,
            calculus.hessian(first),
            calculus.hessian(second) + calculus.third(first, first) / 2,
        ]
        loss = [
            LOSS,
            calculus.total(g * first),
            calculus.total(g * second + first * calculus.hessian(first) / 2),
        ]
        return Evaluation(self._polynomial(loss), (self._polynomial(gradient),))

    def _sum(self, call: sympy.Expr) -> sympy.Expr:
        inside = self.coefficients(call.args[0])
        return self._polynomial([self._calculus.total(c) for c in inside])

    def _polynomial(self, coefficients: list[sympy.Expr]) -> sympy.Expr:
        return sympy.Add(*(c * STEP_SIZE**n for n, c in enumerate(coefficients)))


def _phi1_series(z: sympy.Expr) -> sympy.Expr:
    return sympy.Add(*(z**n / sympy.factorial(n + 1) for n in range(HIGHEST_ORDER + 2)))
