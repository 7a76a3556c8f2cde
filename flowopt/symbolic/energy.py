"""Energies along a flow: dE/dt from the equations, by the chain rule and Itô's formula."""

from dataclasses import dataclass

import sympy

from flowopt.errors import DefinitionError
from flowopt.symbolic.functions import curvature, laplacian, total
from flowopt.symbolic.language import LOSS, Equations, g, t, theta


@dataclass(frozen=True)
class Energy:
    """An energy or its rate: Σ density over elements, plus a scalar part (which holds the loss)."""

    density: sympy.Expr
    scalar: sympy.Expr

    @property
    def expression(self) -> sympy.Expr:
        """The sum, in which elementwise terms are summed over elements implicitly."""
        return _simplified(self.density + self.scalar)


def energy_of(equations: Equations, name: str) -> Energy:
    """A declared energy, split into what is summed over elements and what is not.

    Raises:
        DefinitionError: The flow declares no such energy.
    """
    if name not in equations.energies:
        raise DefinitionError(
            f"no energy {name!r}: the flow declares {sorted(equations.energies) or 'none'}"
        )
    return _split(equations, equations.energies[name])


def declared_dissipation(equations: Equations, name: str) -> Energy | None:
    """What a control asks an energy to lose per time, if that is declared."""
    formula = equations.dissipations.get(name)
    return None if formula is None else _split(equations, formula)


def _split(equations: Equations, formula: sympy.Expr) -> Energy:
    parts = sympy.Add.make_args(sympy.expand_mul(formula))
    density = [part for part in parts if equations.elementwise(part)]
    scalar = [part for part in parts if not equations.elementwise(part)]
    return Energy(sympy.Add(*density), sympy.Add(*scalar))


def energy_rate(equations: Equations, name: str) -> Energy:
    """dE/dt along the flow.

    Of its expectation, where there is noise: with σσᵀ summed over Wiener processes,

    dE/dt = ∂E/∂t + ∂E/∂L g·θ' + Σₓ ∂E/∂x · x' + ½ Σₓᵧ (σσᵀ)ₓᵧ ∂²E/∂x∂y + ½ ∂E/∂L (σσᵀ)·∇²L

    The last sum is σ² laplacian(L) where noise of amplitude σ drives θ, and σ² curvature(L),
    summed over elements, where σ has one value per element.

    Raises:
        DefinitionError: No such energy, or it is no (scalar)·L + sum over elements without g.

    Reference:
        Øksendal 2003, Stochastic Differential Equations, theorem 7.3.3.
    """
    energy = energy_of(equations, name)
    slope = energy.scalar.diff(LOSS)
    strange = energy.density.has(total, LOSS, g) or energy.scalar.has(total) or slope.has(LOSS)
    if strange:
        raise DefinitionError(
            f"energy {name!r}, {equations.energies[name]}, is not (scalar)·L + a sum over "
            "elements without g: its rate is not derived"
        )
    density, scalar = [energy.density.diff(t)], [energy.scalar.diff(t)]
    for term in equations.terms:
        for variable in term.moved:
            drift = term.drift.get(variable, sympy.S.Zero)
            density.append(energy.density.diff(variable) * drift)
            if variable == theta:
                density.append(slope * g * drift)
            scalar.append(energy.scalar.diff(variable) * drift)
            for wiener, amplitude in term.amplitudes(variable).items():
                for other in term.diffusion:
                    weight = amplitude * term.amplitudes(other).get(wiener, 0) / 2
                    density.append(weight * energy.density.diff(variable, other))
                    scalar.append(weight * energy.scalar.diff(variable, other))
                    if variable == other == theta:
                        weight *= slope
                        if equations.elementwise(weight):
                            density.append(weight * curvature(LOSS))
                        else:
                            scalar.append(weight * laplacian(LOSS))
    return _gathered(sympy.Add(*density), sympy.Add(*scalar))


def energy_slope(equations: Equations, name: str) -> dict[sympy.Symbol, sympy.Expr]:
    """Derivatives of an energy by θ, and by what it is a quadratic function of.

    Those are momenta. By an average of squares, which an energy divides by, a derivative has no
    bound where few gradients have been felt.
    """
    energy = energy_of(equations, name)
    slopes = {theta: energy.scalar.diff(LOSS) * g + energy.density.diff(theta)}
    for variable in (*equations.variables, *equations.scalars):
        third = energy.density.diff(variable, 3) + energy.scalar.diff(variable, 3)
        if variable != theta and third == 0:
            density = energy.density.diff(variable)
            shared = variable in equations.scalars
            slopes[variable] = energy.scalar.diff(variable) + (
                total(density) if shared else density
            )
    return {variable: slope for variable, slope in slopes.items() if slope != 0}


def momenta(equations: Equations, name: str) -> tuple[str, ...]:
    """Variables with one value per element that an energy is quadratic in and drifts affine in."""
    energy = energy_of(equations, name)
    drifts = [drift for term in equations.terms for drift in term.drift.values()]
    return tuple(
        v.name
        for v in equations.variables
        if v != theta
        and energy.density.diff(v, 2) != 0
        and energy.density.diff(v, 3) == 0
        and all(drift.diff(v, 2) == 0 for drift in drifts)
    )


def _gathered(density: sympy.Expr, scalar: sympy.Expr) -> Energy:
    """The same sum with scalar·total(x) among the densities, where it may cancel others."""
    rest = []
    for part in sympy.Add.make_args(sympy.expand_mul(scalar) if scalar.has(total) else scalar):
        factor, sums = part.as_independent(total, as_Add=False)
        if isinstance(sums, total):
            density += factor * sums.args[0]
        else:
            rest.append(part)
    return Energy(_simplified(density), _simplified(sympy.Add(*rest)))


def _simplified(formula: sympy.Expr) -> sympy.Expr:
    """Simplified with signs left as they are: sympy makes cases of them."""
    signs = {call: sympy.Dummy(real=True) for call in formula.atoms(sympy.sign)}
    simple = sympy.simplify(formula.xreplace(signs))
    return simple.xreplace({name: call for call, name in signs.items()})
